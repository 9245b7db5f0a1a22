/* SPDX-License-Identifier: Apache-2.0
 *
 * free_shapes.h: a template without include guard. Each inclusion makes the shapes one, four and block of a distance
 * whose sum may be taken in any order: the integer ones, which are exact, and the native 16-bit ones.
 *
 * The including file defines:
 *   ELEMENT, RESULT      the type of an element (uint8_t: a byte) and of a distance
 *   VEC, LANES           the register type and the elements in it
 *   ONE_CHAINS, FOUR_CHAINS   independent sums of each row in `one` and in `four`, 1 or 2, to hide the steps' latency
 *   CHAINS_FROM          optional: the dimension from which on two chains are used, 2 * LANES or more
 *   AHEAD_BYTES          how far ahead of its rows `block` fetches memory
 *   zero()               a register of zeros
 *   load(p)              LANES elements from p on
 *   load_tail(p, i, dim) what is left of the vector at p from element i on, at most LANES, in any place of the
 *                        register but the same one for all operands; zeros elsewhere
 *   add(a, b)            the sum of two registers of sums
 *   fold_one(v), fold_four(v, out)   the total of one and of four registers of sums
 * and for each inclusion, undefined again at the end:
 *   KERNEL               the name, as l2sq_u8_u8
 *   STEP(sum, q, r)      adds the terms of the elements q and r to sum; zero elements must add nothing
 *   SIDE(sum, q)         optional: the same for terms that depend on the query alone
 *   PARTS, ACCUMULATE, FINISH   optional: where a sum takes several registers, their number, a STEP that works on
 *                        all of them in place, ACCUMULATE(parts, q, r), and FINISH(parts), which makes one of them
 */
#define JOIN_(a, b)  a##b
#define JOIN(a, b)   JOIN_(a, b)
#define NAMED(shape) JOIN(KERNEL, shape)

#ifndef CHAINS_FROM
#define CHAINS_FROM (2 * LANES)
#endif
#ifndef PARTS
#define PARTS                   1
#define ACCUMULATE(parts, q, r) ((parts)[0] = STEP((parts)[0], q, r))
#define FINISH(parts)           ((parts)[0])
#endif
#ifdef SIDE
#define START_SIDE()   VEC side = zero()
#define ADD_SIDE(q)    side = SIDE(side, q)
#define WITH_SIDE(sum) add(sum, side)
#else
#define START_SIDE()
#define ADD_SIDE(q)
#define WITH_SIDE(sum) (sum)
#endif

#define FETCH_AHEAD(row, i)                                                                                        \
    if (ahead != 0) __builtin_prefetch((const char *)((const ELEMENT *)(row) + (i)) + ahead)

/* row_count and chains are constants wherever this is called. Where `ahead` is not 0, what lies that many bytes
 * further on is fetched. */
static inline __attribute__((always_inline)) void NAMED(_sums)(const ELEMENT *query, const void *const *rows,
                                                               const size_t row_count, const size_t chains,
                                                               size_t dim, size_t ahead, VEC *sums) {
    VEC own[4][PARTS];
    START_SIDE();
    size_t i = 0;
#pragma GCC unroll 4
    for (size_t r = 0; r < row_count; r++)
#pragma GCC unroll 4
        for (size_t p = 0; p < PARTS; p++) own[r][p] = zero();
    if (row_count == 1 && dim < LANES) { /* the straight way: here calls and branches cost more than the work */
        if (dim == 0) {
            sums[0] = zero();
            return;
        }
        VEC q = load_tail(query, 0, dim);
        ADD_SIDE(q);
        ACCUMULATE(own[0], q, load_tail((const ELEMENT *)rows[0], 0, dim));
        sums[0] = WITH_SIDE(FINISH(own[0]));
        return;
    }
    if (chains == 2 && dim >= CHAINS_FROM) {
        VEC other[4][PARTS];
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++)
#pragma GCC unroll 4
            for (size_t p = 0; p < PARTS; p++) other[r][p] = zero();
        for (; i + 2 * LANES <= dim; i += 2 * LANES) {
            VEC q = load(query + i), next_q = load(query + i + LANES);
            ADD_SIDE(q);
            ADD_SIDE(next_q);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++) {
                FETCH_AHEAD(rows[r], i);
                FETCH_AHEAD(rows[r], i + LANES);
                ACCUMULATE(own[r], q, load((const ELEMENT *)rows[r] + i));
                ACCUMULATE(other[r], next_q, load((const ELEMENT *)rows[r] + i + LANES));
            }
        }
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++)
#pragma GCC unroll 4
            for (size_t p = 0; p < PARTS; p++) own[r][p] = add(own[r][p], other[r][p]);
    }
    for (; i + LANES <= dim; i += LANES) {
        VEC q = load(query + i);
        ADD_SIDE(q);
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++) {
            FETCH_AHEAD(rows[r], i);
            ACCUMULATE(own[r], q, load((const ELEMENT *)rows[r] + i));
        }
        if (chains == 2 && CHAINS_FROM == 2 * LANES) { /* less than another one is left */
            i += LANES;
            break;
        }
    }
    if (i < dim) {
        VEC q = load_tail(query, i, dim);
        ADD_SIDE(q);
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++) ACCUMULATE(own[r], q, load_tail((const ELEMENT *)rows[r], i, dim));
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < row_count; r++) sums[r] = WITH_SIDE(FINISH(own[r]));
}

__attribute__((unused)) static RESULT KERNEL(const void *query, const void *row, size_t dim) {
    const void *const rows[1] = {row};
    VEC sums[1];
    NAMED(_sums)(query, rows, 1, ONE_CHAINS, dim, 0, sums);
    return fold_one(sums[0]);
}

static inline __attribute__((always_inline)) void NAMED(_rows)(const ELEMENT *query, const void *const rows[4],
                                                               size_t dim, size_t ahead, RESULT out[4]) {
    VEC sums[4];
    NAMED(_sums)(query, rows, 4, FOUR_CHAINS, dim, ahead, sums);
    fold_four(sums, out);
}

__attribute__((unused)) static void NAMED(_four)(const void *query, const void *const rows[4], size_t dim,
                                                 RESULT out[4]) {
    NAMED(_rows)(query, rows, dim, 0, out);
}

__attribute__((unused)) static void NAMED(_block)(const void *query, const void *rows, size_t stride, size_t count,
                                                  size_t dim, RESULT *out) {
    const char *at = rows;
    size_t ahead = 4 * stride * (1 + AHEAD_BYTES / (4 * stride + 1)); /* the same place, some fours of rows on */
    for (; count >= 4; count -= 4, at += 4 * stride, out += 4) {
        const void *const next[4] = {at, at + stride, at + 2 * stride, at + 3 * stride};
        NAMED(_rows)(query, next, dim, ahead, out);
    }
    for (; count > 0; count--, at += stride) *out++ = KERNEL(query, at, dim);
}

#undef KERNEL
#undef STEP
#undef SIDE
#undef START_SIDE
#undef FETCH_AHEAD
#undef ADD_SIDE
#undef WITH_SIDE
#undef PARTS
#undef ACCUMULATE
#undef FINISH
#undef JOIN_
#undef JOIN
#undef NAMED
