/* SPDX-License-Identifier: Apache-2.0
 *
 * float_shapes.h: a template without include guard. Each inclusion makes the shapes one, four and block of one
 * operation on one pair of element types, in the fixed order of simd.h.
 *
 * The including file defines, for its registers of LANES floats:
 *   VEC, LANES           the register type and its lanes; SUMS = 32 / LANES registers hold the partial sums of a row
 *   AHEAD_BYTES          how far ahead of its rows `block` fetches memory
 *   ROWS_AT_ONCE         1, 2 or 4: rows whose sums fit into registers together with the query
 *   ZERO()               a register of zeros
 *   fold_registers(sums) the halving tree down to one register
 *   fold_one(v), fold_four(v, out)   the rest of it: of one row, and of four rows at once
 *   load_T(p)            LANES elements of type T (f32, f16, bf16, i8, u8) from p on, as floats
 *   tail_T(p, i, dim)    the same for the last elements of the vector at p, i..dim-1, at most LANES, then zeros
 *   step_OP(sum, q, r)   the fused multiply-add of the operation (l2sq, ip)
 * and for each inclusion, undefined again at the end:
 *   SPLIT                optional, where both types are T: load_split_T(p, g) gives group g of the 32 elements from p
 *                        on in an order of its own, and unsplit(sums) brings the sums into the order of load_T
 *   OP, QUERY, ROW       the operation and the two element types; kernels are called OP_QUERY_ROW, .._four, .._block
 */
#define JOIN_(a, b)    a##b
#define JOIN(a, b)     JOIN_(a, b)
#define NAME_(a, b, c) a##_##b##_##c
#define NAME(a, b, c)  NAME_(a, b, c)
#define KERNEL         NAME(OP, QUERY, ROW)
#define NAMED(shape)   JOIN(KERNEL, shape)
#define LOAD(type)     JOIN(load_, type)
#define TAIL(type)     JOIN(tail_, type)
#ifdef SPLIT
#define LOAD_AT(type, p, i, g) JOIN(load_split_, type)((const type *)(p) + (i), g)
#else
#define LOAD_AT(type, p, i, g) LOAD(type)((const type *)(p) + (i) + (g)*LANES)
#endif
#define STEP JOIN(step_, OP)

/* Sums of `row_count` rows, folded to a register each. row_count is a constant wherever this is called, so that all
 * partial sums stay in registers. Where `ahead` is not 0, what lies that many bytes further on is fetched. */
static inline __attribute__((always_inline)) void NAMED(_sums)(const QUERY *query, const void *const *rows,
                                                               const size_t row_count, size_t dim, size_t ahead,
                                                               VEC *folded) {
    if (row_count == 1 && dim < LANES) { /* the straight way: here calls and branches cost more than the work */
        VEC none = ZERO();
        if (dim > 0) none = STEP(none, TAIL(QUERY)(query, 0, dim), TAIL(ROW)((const ROW *)rows[0], 0, dim));
        folded[0] = none;
        return;
    }
    VEC sums[ROWS_AT_ONCE][SUMS];
#pragma GCC unroll 4
    for (size_t r = 0; r < row_count; r++)
#pragma GCC unroll 8
        for (size_t g = 0; g < SUMS; g++) sums[r][g] = ZERO();
    size_t i = 0;
    for (; i + SUMS * LANES <= dim; i += SUMS * LANES) {
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count && ahead != 0; r++) { /* 32 elements: one cache line, or two of f32 */
            const char *line = (const char *)((const ROW *)rows[r] + i) + ahead;
            __builtin_prefetch(line);
            if (sizeof(ROW) == sizeof(float)) __builtin_prefetch(line + 64);
        }
#pragma GCC unroll 8
        for (size_t g = 0; g < SUMS; g++) {
            VEC q = LOAD_AT(QUERY, query, i, g);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++) sums[r][g] = STEP(sums[r][g], q, LOAD_AT(ROW, rows[r], i, g));
        }
    }
#ifdef SPLIT
    if (i > 0) {
#pragma GCC unroll 4
        for (size_t r = 0; r < row_count; r++) unsplit(sums[r]);
    }
#endif
    if (i < dim) {
#pragma GCC unroll 8
        for (size_t g = 0; g < SUMS; g++, i += LANES) {
            bool whole = i + LANES <= dim, none = i >= dim;
            VEC q = whole ? LOAD(QUERY)(query + i) : none ? ZERO() : TAIL(QUERY)(query, i, dim);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++) {
                if (whole)
                    sums[r][g] = STEP(sums[r][g], q, LOAD(ROW)((const ROW *)rows[r] + i));
                else if (!none)
                    sums[r][g] = STEP(sums[r][g], q, TAIL(ROW)((const ROW *)rows[r], i, dim));
                else
                    sums[r][g] = sums[r][g] + ZERO(); /* what padding does: -0 becomes +0 */
            }
        }
    }
#pragma GCC unroll 4
    for (size_t r = 0; r < row_count; r++) folded[r] = fold_registers(sums[r]);
}

static float KERNEL(const void *query, const void *row, size_t dim) {
    const void *const rows[1] = {row};
    VEC folded[1];
    NAMED(_sums)(query, rows, 1, dim, 0, folded);
    return fold_one(folded[0]);
}

static inline __attribute__((always_inline)) void NAMED(_rows)(const QUERY *query, const void *const rows[4],
                                                               size_t dim, size_t ahead, float out[4]) {
    VEC folded[4];
    for (size_t r = 0; r < 4; r += ROWS_AT_ONCE)
        NAMED(_sums)(query, rows + r, ROWS_AT_ONCE, dim, ahead, folded + r);
    fold_four(folded, out);
}

static void NAMED(_four)(const void *query, const void *const rows[4], size_t dim, float out[4]) {
    NAMED(_rows)(query, rows, dim, 0, out);
}

static void NAMED(_block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim,
                          float *out) {
    const char *at = rows;
    size_t ahead = 4 * stride * (1 + AHEAD_BYTES / (4 * stride + 1)); /* the same place, some fours of rows on */
    for (; count >= 4; count -= 4, at += 4 * stride, out += 4) {
        const void *const next[4] = {at, at + stride, at + 2 * stride, at + 3 * stride};
        NAMED(_rows)(query, next, dim, ahead, out);
    }
    for (; count > 0; count--, at += stride) *out++ = KERNEL(query, at, dim);
}

#undef OP
#undef QUERY
#undef ROW
#undef JOIN_
#undef JOIN
#undef NAME_
#undef NAME
#undef KERNEL
#undef NAMED
#undef LOAD
#undef LOAD_AT
#undef SPLIT
#undef TAIL
#undef STEP
