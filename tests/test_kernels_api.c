/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "kith/kernels.h"
#include "simd/simd.h"

static const kith_dtype dtypes[] = {KITH_F32, KITH_F16, KITH_BF16, KITH_I8,  KITH_U8,
                                    KITH_B1,  KITH_F64, KITH_I32,  KITH_U32, KITH_I64};
enum { DTYPE_COUNT = sizeof dtypes / sizeof *dtypes };

Test(kernels_api, isas_are_listed_from_ref_up) {
    cr_assert_geq(kith_isa_count(), 1);
    cr_assert_str_eq(kith_isa_name(0), "ref");
    cr_assert_null(kith_isa_name(kith_isa_count()));
    for (size_t i = 0; i < kith_isa_count(); i++) {
        const char *full_name;
        cr_assert_eq(kith_isa_full_name(kith_isa_name(i), &full_name), KITH_OK);
        cr_assert_eq(strncmp(full_name, kith_isa_name(i), strlen(kith_isa_name(i))), 0);
    }
}

Test(kernels_api, an_unknown_isa_is_refused_with_the_names_that_there_are) {
    static const char *const names[] = {"",         "sse", "avx9",
                                        "ref-vnni", "REF", "a name as long as this one has to be"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *full_name = "left over";
        kith_distance_kernels distance = {.size = sizeof distance, .is_integer = 7};
        kith_vector_kernels vector = {.size = sizeof vector};
        kith_tile_kernels tile = {.size = sizeof tile};
        kith_peak_kernels peak = {.size = sizeof peak};
        kith_plane_kernels plane = {.size = sizeof plane};
        cr_assert_eq(kith_plane_kernels_find(names[i], &plane), KITH_ERR_NOT_FOUND);
        cr_assert(plane.block[3] == NULL && plane.isa == NULL);
        cr_assert_eq(kith_isa_full_name(names[i], &full_name), KITH_ERR_NOT_FOUND);
        cr_assert_null(full_name);
        cr_assert_not_null(strstr(kith_error_message(), "ref"));
        cr_assert_eq(kith_distance_kernels_find(KITH_KERNEL_IP, KITH_F32, KITH_F32, names[i], &distance),
                     KITH_ERR_NOT_FOUND);
        cr_assert(distance.one_f32 == NULL && distance.is_integer == 0);
        cr_assert_eq(kith_vector_kernels_find(names[i], &vector), KITH_ERR_NOT_FOUND);
        cr_assert_eq(kith_tile_kernels_find(names[i], &tile), KITH_ERR_NOT_FOUND);
        cr_assert_eq(kith_peak_kernels_find(names[i], &peak), KITH_ERR_NOT_FOUND);
    }
}

/* Every pair of types is either there with all three shapes of one kind, or KITH_ERR_TYPE with none. */
Test(kernels_api, every_combination_is_whole_or_refused) {
    size_t found = 0;
    for (int op = KITH_KERNEL_L2SQ; op <= KITH_KERNEL_HAMMING; op++)
        for (size_t q = 0; q < DTYPE_COUNT; q++)
            for (size_t r = 0; r < DTYPE_COUNT; r++) {
                kith_distance_kernels k = {.size = sizeof k};
                kith_status status = kith_distance_kernels_find((kith_kernel_op)op, dtypes[q], dtypes[r], NULL, &k);
                bool floats = k.one_f32 != NULL && k.four_f32 != NULL && k.block_f32 != NULL;
                bool ints = k.one_i32 != NULL && k.four_i32 != NULL && k.block_i32 != NULL;
                if (status == KITH_OK) {
                    found++;
                    cr_assert(floats != ints);
                    cr_assert_eq(k.is_integer != 0, ints);
                    cr_assert_eq(k.query_dtype, dtypes[q]);
                    cr_assert_eq(k.row_dtype, dtypes[r]);
                    cr_assert_str_eq(k.isa, kith_simd()->full_name);
                } else {
                    cr_assert_eq(status, KITH_ERR_TYPE);
                    cr_assert(!floats && !ints);
                }
            }
    cr_assert_eq(found, 2 * (7 + 2) + 1, "%zu combinations", found);
}

Test(kernels_api, bad_operations_and_sizes_are_refused) {
    kith_distance_kernels k = {.size = sizeof k};
    cr_assert_eq(kith_distance_kernels_find((kith_kernel_op)0, KITH_F32, KITH_F32, NULL, &k), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_distance_kernels_find((kith_kernel_op)4, KITH_F32, KITH_F32, NULL, &k), KITH_ERR_ARGUMENT);
    k.size = 0;
    cr_assert_eq(kith_distance_kernels_find(KITH_KERNEL_IP, KITH_F32, KITH_F32, NULL, &k), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "kith_distance_kernels"));
    cr_assert_str_eq(kith_kernel_op_name(KITH_KERNEL_HAMMING), "hamming");
    cr_assert_str_eq(kith_kernel_op_name((kith_kernel_op)9), "?");
}

/* A program from before the last fields existed: they are not written. */
Test(kernels_api, fields_past_the_callers_size_are_left_alone) {
    kith_distance_kernels k;
    memset(&k, 0x5a, sizeof k);
    k.size = offsetof(kith_distance_kernels, four_f32);
    cr_assert_eq(kith_distance_kernels_find(KITH_KERNEL_IP, KITH_F32, KITH_F32, "ref", &k), KITH_OK);
    cr_assert(k.one_f32 == kith_simd_find("ref")->floats[KITH_OP_IP][KITH_PAIR_F32_F32].one);
    for (size_t i = k.size; i < sizeof k; i++) cr_assert_eq(((unsigned char *)&k)[i], 0x5a);
}

Test(kernels_api, native_kernels_are_near_the_others_or_refused) {
    for (size_t i = 0; i < kith_isa_count(); i++)
        for (size_t q = 0; q < DTYPE_COUNT; q++) {
            kith_distance_kernels k = {.size = sizeof k}, portable = {.size = sizeof portable};
            kith_status status =
                kith_distance_kernels_find_native(KITH_KERNEL_IP, dtypes[q], dtypes[q], kith_isa_name(i), &k);
            if (status != KITH_OK) {
                cr_assert_eq(status, KITH_ERR_UNSUPPORTED);
                cr_assert(k.one_f32 == NULL);
                continue;
            }
            uint16_t ones[40];
            for (size_t j = 0; j < 40; j++) ones[j] = dtypes[q] == KITH_F16 ? 0x3c00 : 0x3f80;
            cr_assert_eq(kith_distance_kernels_find(KITH_KERNEL_IP, dtypes[q], dtypes[q], NULL, &portable),
                         KITH_OK);
            cr_assert_float_eq(k.one_f32(ones, ones, 40), portable.one_f32(ones, ones, 40), 1e-3);
        }
}

Test(kernels_api, each_isa_computes_and_has_peaks) {
    const float a[5] = {1, 2, 3, 4, 5}, b[5] = {5, 4, 3, 2, 1};
    unsigned char bytes[300];
    memset(bytes, 1, sizeof bytes);
    for (size_t i = 0; i < kith_isa_count(); i++) {
        kith_distance_kernels k = {.size = sizeof k};
        kith_vector_kernels vector = {.size = sizeof vector};
        kith_tile_kernels tile = {.size = sizeof tile};
        kith_peak_kernels peak = {.size = sizeof peak};
        cr_assert_eq(kith_distance_kernels_find(KITH_KERNEL_L2SQ, KITH_F32, KITH_F32, kith_isa_name(i), &k),
                     KITH_OK);
        cr_assert_eq(k.one_f32(a, b, 5), 40.0f);
        cr_assert_eq(kith_vector_kernels_find(kith_isa_name(i), &vector), KITH_OK);
        cr_assert_eq(vector.norm2_f32(a, 5), 55.0f);
        cr_assert_eq(kith_tile_kernels_find(kith_isa_name(i), &tile), KITH_OK);
        cr_assert(tile.f32_query_lanes > 0 && tile.f32_row_lanes > 0 && tile.f32_run != NULL);
        cr_assert(tile.i8_group == 2 || tile.i8_group == 4);
        cr_assert_eq(kith_peak_kernels_find(kith_isa_name(i), &peak), KITH_OK);
        cr_assert_gt(peak.fma_f32(10), peak.fma_f32(1));
        cr_assert_eq(peak.dot_i8(30), 3 * peak.dot_i8(10));
        cr_assert_neq(peak.read(bytes, sizeof bytes), 0);
        kith_plane_kernels plane = {.size = sizeof plane};
        const uint32_t word = 0x04030201, *rows[4] = {&word, &word, &word, &word};
        int8_t query[64] = {5, 6, 7, -8};
        int32_t dots[4];
        cr_assert_eq(kith_plane_kernels_find(kith_isa_name(i), &plane), KITH_OK);
        plane.four[3](query, rows, 1, dots);
        cr_assert_eq(dots[2], 5 + 2 * 6 + 3 * 7 - 4 * 8);
    }
}
