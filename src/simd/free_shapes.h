/* SPDX-License-Identifier: Apache-2.0
 *
 * free_shapes.h: a template without include guard. Each inclusion makes the shapes one, four and block of a distance
 * whose sum may be taken in any order: the integer ones, which are exact, and the native 16-bit ones.
 *
 * The including file defines:
 *   ELEMENT, RESULT      the type of an element (uint8_t: a byte) and of a distance
 *   VEC, LANES           the register type and the elements in it
 *   ONE_CHAINS, FOUR_CHAINS   independent sums of each row in `one` and in `four`, to hide the latency of the steps
 *   zero()               a register of zeros
 *   load(p)              LANES elements from p on
 *   load_tail(p, i, dim) what is left of the vector at p from element i on, less than LANES, in any place of the
 *                        register but the same one for all operands; zeros elsewhere
 *   add(a, b)            the sum of two registers of sums
 *   fold_one(v), fold_four(v, out)   the total of one and of four registers of sums
 * and for each inclusion, undefined again at the end:
 *   KERNEL               the name, as l2sq_u8_u8
 *   STEP(sum, q, r)      adds the terms of the elements q and r to sum; zero elements must add nothing
 *   SIDE(sum, q)         the same for terms that depend on the query alone; returns sum where there are none
 */
#define JOIN_(a, b)  a##b
#define JOIN(a, b)   JOIN_(a, b)
#define NAMED(shape) JOIN(KERNEL, shape)

/* row_count and chains are constants wherever this is called. */
static inline __attribute__((always_inline)) void NAMED(_sums)(const ELEMENT *query, const ELEMENT *const *rows,
                                                               const size_t row_count, const size_t chains,
                                                               size_t dim, VEC *sums) {
    VEC chain[4][ONE_CHAINS], side = zero();
    for (size_t r = 0; r < row_count; r++)
        for (size_t c = 0; c < chains; c++) chain[r][c] = zero();
    size_t i = 0;
    for (; i + chains * LANES <= dim; i += chains * LANES) {
#pragma GCC unroll 4
        for (size_t c = 0; c < chains; c++) {
            VEC q = load(query + i + c * LANES);
            side = SIDE(side, q);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++)
                chain[r][c] = STEP(chain[r][c], q, load(rows[r] + i + c * LANES));
        }
    }
    for (; chains > 1 && i + LANES <= dim; i += LANES) {
        VEC q = load(query + i);
        side = SIDE(side, q);
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++) chain[r][0] = STEP(chain[r][0], q, load(rows[r] + i));
    }
    if (i < dim) {
        VEC q = load_tail(query, i, dim);
        side = SIDE(side, q);
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++) chain[r][0] = STEP(chain[r][0], q, load_tail(rows[r], i, dim));
    }
    for (size_t r = 0; r < row_count; r++) {
        sums[r] = add(chain[r][0], side);
        for (size_t c = 1; c < chains; c++) sums[r] = add(sums[r], chain[r][c]);
    }
}

static RESULT KERNEL(const void *query, const void *row, size_t dim) {
    const ELEMENT *const rows[1] = {row};
    VEC sums[1];
    NAMED(_sums)(query, rows, 1, ONE_CHAINS, dim, sums);
    return fold_one(sums[0]);
}

static void NAMED(_four)(const void *query, const void *const rows[4], size_t dim, RESULT out[4]) {
    const ELEMENT *const typed[4] = {rows[0], rows[1], rows[2], rows[3]};
    VEC sums[4];
    NAMED(_sums)(query, typed, 4, FOUR_CHAINS, dim, sums);
    fold_four(sums, out);
}

static void NAMED(_block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim,
                          RESULT *out) {
    const char *at = rows;
    for (; count >= 4; count -= 4, at += 4 * stride, out += 4) {
        const void *const next[4] = {at, at + stride, at + 2 * stride, at + 3 * stride};
        NAMED(_four)(query, next, dim, out);
    }
    for (; count > 0; count--, at += stride) *out++ = KERNEL(query, at, dim);
}

#undef KERNEL
#undef STEP
#undef SIDE
#undef JOIN_
#undef JOIN
#undef NAMED
