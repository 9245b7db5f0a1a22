/* SPDX-License-Identifier: Apache-2.0
 *
 * float_shapes.h: a template without include guard. Each inclusion makes the shapes one, four and block of one
 * operation on one pair of element types, in the fixed order of simd.h.
 *
 * The including file defines, for its registers of LANES floats:
 *   VEC, LANES           the register type and its lanes; SUMS = 32 / LANES registers hold the partial sums of a row
 *   ROWS_AT_ONCE         1, 2 or 4: rows whose sums fit into registers together with the query
 *   ZERO()               a register of zeros
 *   fold_registers(sums) the halving tree down to one register
 *   fold_one(v), fold_four(v, out)   the rest of it: of one row, and of four rows at once
 *   load_T(p)            LANES elements of type T (f32, f16, bf16, i8, u8) from p on, as floats
 *   tail_T(p, i, dim)    the same for elements i.. of the vector at p, with zeros from dim on; i may pass dim
 *   step_OP(sum, q, r)   the fused multiply-add of the operation (l2sq, ip)
 * and for each inclusion, undefined again at the end:
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
#define STEP           JOIN(step_, OP)

/* Sums of `row_count` rows, folded to a register each. row_count is a constant wherever this is called, so that all
 * partial sums stay in registers. */
static inline __attribute__((always_inline)) void NAMED(_sums)(const QUERY *query, const ROW *const *rows,
                                                               const size_t row_count, size_t dim, VEC *folded) {
    VEC sums[ROWS_AT_ONCE][SUMS];
    for (size_t r = 0; r < row_count; r++)
        for (size_t g = 0; g < SUMS; g++) sums[r][g] = ZERO();
    size_t i = 0;
    for (; i + SUMS * LANES <= dim; i += SUMS * LANES) {
#pragma GCC unroll 8
        for (size_t g = 0; g < SUMS; g++) {
            VEC q = LOAD(QUERY)(query + i + g * LANES);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++)
                sums[r][g] = STEP(sums[r][g], q, LOAD(ROW)(rows[r] + i + g * LANES));
        }
    }
    if (i < dim) {
#pragma GCC unroll 8
        for (size_t g = 0; g < SUMS; g++) {
            VEC q = TAIL(QUERY)(query, i + g * LANES, dim);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++)
                sums[r][g] = STEP(sums[r][g], q, TAIL(ROW)(rows[r], i + g * LANES, dim));
        }
    }
    for (size_t r = 0; r < row_count; r++) folded[r] = fold_registers(sums[r]);
}

static float KERNEL(const void *query, const void *row, size_t dim) {
    const ROW *rows[1] = {row};
    VEC folded[1];
    NAMED(_sums)(query, rows, 1, dim, folded);
    return fold_one(folded[0]);
}

static void NAMED(_four)(const void *query, const void *const rows[4], size_t dim, float out[4]) {
    const ROW *const typed[4] = {rows[0], rows[1], rows[2], rows[3]};
    VEC folded[4];
    for (size_t r = 0; r < 4; r += ROWS_AT_ONCE) NAMED(_sums)(query, typed + r, ROWS_AT_ONCE, dim, folded + r);
    fold_four(folded, out);
}

static void NAMED(_block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim,
                          float *out) {
    const char *at = rows;
    for (; count >= 4; count -= 4, at += 4 * stride, out += 4) {
        const void *const next[4] = {at, at + stride, at + 2 * stride, at + 3 * stride};
        NAMED(_four)(query, next, dim, out);
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
#undef TAIL
#undef STEP
