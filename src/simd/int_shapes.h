/* SPDX-License-Identifier: Apache-2.0
 *
 * int_shapes.h: a template without include guard. Each inclusion makes the shapes one, four and block of one integer
 * distance on vectors of bytes. Integer sums are exact, so their order is free.
 *
 * The including file defines, for its registers of BYTES bytes:
 *   VEC, BYTES           the register type and its size
 *   CHAINS               independent sums of a single row, to hide the latency of the steps
 *   zero()               a register of zeros
 *   load(p)              BYTES bytes from p on
 *   load_tail(p, i, dim) what is left of the vector at p from byte i on, less than BYTES, in any place of the register,
 *                        the same for all operands; zeros elsewhere
 *   add(a, b)            sum of 32-bit lanes
 *   fold_one(v), fold_four(v, out)   sum of the 32-bit lanes, of one and of four registers
 * and for each inclusion, undefined again at the end:
 *   KERNEL               the name, as l2sq_u8_u8
 *   STEP(sum, q, r)      adds the terms of the bytes q and r to the 32-bit lanes of sum; zero bytes add nothing
 *   SIDE(sum, q)         the same for terms that depend on the query alone; returns sum where there are none
 */
#define JOIN_(a, b)  a##b
#define JOIN(a, b)   JOIN_(a, b)
#define NAMED(shape) JOIN(KERNEL, shape)

/* row_count and chains are constants wherever this is called. */
static inline __attribute__((always_inline)) void NAMED(_sums)(const uint8_t *query, const uint8_t *const *rows,
                                                               const size_t row_count, const size_t chains,
                                                               size_t dim, VEC *sums) {
    VEC chain[4][CHAINS], side = zero();
    for (size_t r = 0; r < row_count; r++)
        for (size_t c = 0; c < chains; c++) chain[r][c] = zero();
    size_t i = 0;
    for (; i + chains * BYTES <= dim; i += chains * BYTES) {
#pragma GCC unroll 4
        for (size_t c = 0; c < chains; c++) {
            VEC q = load(query + i + c * BYTES);
            side = SIDE(side, q);
#pragma GCC unroll 4
            for (size_t r = 0; r < row_count; r++)
                chain[r][c] = STEP(chain[r][c], q, load(rows[r] + i + c * BYTES));
        }
    }
    for (; chains > 1 && i + BYTES <= dim; i += BYTES) {
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

static int32_t KERNEL(const void *query, const void *row, size_t dim) {
    const uint8_t *const rows[1] = {row};
    VEC sums[1];
    NAMED(_sums)(query, rows, 1, CHAINS, dim, sums);
    return fold_one(sums[0]);
}

static void NAMED(_four)(const void *query, const void *const rows[4], size_t dim, int32_t out[4]) {
    const uint8_t *const typed[4] = {rows[0], rows[1], rows[2], rows[3]};
    VEC sums[4];
    NAMED(_sums)(query, typed, 4, 1, dim, sums);
    fold_four(sums, out);
}

static void NAMED(_block)(const void *query, const void *rows, size_t stride, size_t count, size_t dim,
                          int32_t *out) {
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
