/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels.c: kith/kernels.h on top of the kernel table.
 *
 * Each public struct is filled as a whole and then copied up to the size that the caller knows, so that fields may
 * be added at the end.
 */
#include "kith/kernels.h"

#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "simd/simd.h"

/* The slowest first. */
static const char *const isa_names[] = {"ref", "neon", "avx2", "avx512"};
enum { ISA_NAME_COUNT = sizeof isa_names / sizeof *isa_names };

static const char *const op_names[] = {
    [KITH_KERNEL_L2SQ] = "l2sq", [KITH_KERNEL_IP] = "ip", [KITH_KERNEL_HAMMING] = "hamming"};
enum { OP_NAME_COUNT = sizeof op_names / sizeof *op_names };

const char *kith_isa_name(size_t i) {
    for (size_t n = 0; n < ISA_NAME_COUNT; n++)
        if (kith_simd_find(isa_names[n]) != NULL && i-- == 0) return isa_names[n];
    return NULL;
}

size_t kith_isa_count(void) {
    size_t count = 0;
    while (kith_isa_name(count) != NULL) count++;
    return count;
}

kith_status kith_isa_check(void) { return kith_simd_status(); }

/* The table of a name, NULL standing for the one in use. */
static kith_status find_table(const char *isa, const kith_simd_table **out) {
    *out = isa == NULL ? kith_simd() : kith_simd_find(isa);
    if (*out != NULL) return KITH_OK;
    char names[64] = "";
    const char *name;
    for (size_t i = 0; (name = kith_isa_name(i)) != NULL; i++) {
        strcat(names, i == 0 ? "" : ", ");
        strcat(names, name);
    }
    return kith_error(KITH_ERR_NOT_FOUND, "instruction set '%s': this build on this machine has %s", isa, names);
}

kith_status kith_isa_full_name(const char *isa, const char **out) {
    const kith_simd_table *table;
    *out = NULL;
    KITH_TRY(find_table(isa, &table));
    *out = table->full_name;
    return KITH_OK;
}

const char *kith_kernel_op_name(kith_kernel_op op) {
    unsigned number = (unsigned)op;
    return number > 0 && number < OP_NAME_COUNT ? op_names[number] : "?";
}

/* Nulls what the caller's struct has after its size. A size below the first field that a caller could want is the
 * sign of a struct that was not initialised. */
static kith_status clear_output(const char *name, void *out, size_t own_size) {
    size_t size;
    memcpy(&size, out, sizeof size);
    if (size <= sizeof size || size > 4096)
        return kith_error(KITH_ERR_ARGUMENT, "%s: size %zu; set it to sizeof(%s)", name, size, name);
    memset((char *)out + sizeof size, 0, kith_min_size(size, own_size) - sizeof size);
    return KITH_OK;
}

static void copy_output(void *out, const void *own, size_t own_size) {
    size_t size;
    memcpy(&size, out, sizeof size);
    memcpy((char *)out + sizeof size, (const char *)own + sizeof size, kith_min_size(size, own_size) - sizeof size);
}

static void set_floats(kith_distance_kernels *own, const kith_float_kernels *from) {
    own->one_f32 = from->one;
    own->four_f32 = from->four;
    own->block_f32 = from->block;
}

static void set_ints(kith_distance_kernels *own, const kith_int_kernels *from) {
    own->is_integer = 1;
    own->one_i32 = from->one;
    own->four_i32 = from->four;
    own->block_i32 = from->block;
}

/* Sets the functions of one operation; false when the table has none for these types. */
static bool set_distance(kith_distance_kernels *own, const kith_simd_table *table) {
    if (own->op == KITH_KERNEL_HAMMING) {
        if (own->query_dtype != KITH_B1 || own->row_dtype != KITH_B1) return false;
        set_ints(own, &table->hamming);
        return true;
    }
    kith_op op = own->op == KITH_KERNEL_L2SQ ? KITH_OP_L2SQ : KITH_OP_IP;
    const kith_float_kernels *floats = kith_simd_floats(table, op, own->query_dtype, own->row_dtype);
    const kith_int_kernels *ints = kith_simd_ints(table, op, own->query_dtype, own->row_dtype);
    if (floats != NULL) set_floats(own, floats);
    if (ints != NULL) set_ints(own, ints);
    return floats != NULL || ints != NULL;
}

/* Nulls *out and starts `own` after checking what both find functions check. */
static kith_status begin_distance(kith_kernel_op op, kith_dtype query_dtype, kith_dtype row_dtype, const char *isa,
                                  kith_distance_kernels *out, kith_distance_kernels *own,
                                  const kith_simd_table **table) {
    KITH_TRY(clear_output("kith_distance_kernels", out, sizeof *own));
    if ((unsigned)op == 0 || (unsigned)op >= OP_NAME_COUNT)
        return kith_error(KITH_ERR_ARGUMENT, "kernel operation %u is not one of 1..%d", (unsigned)op,
                          OP_NAME_COUNT - 1);
    KITH_TRY(find_table(isa, table));
    *own = (kith_distance_kernels){sizeof *own, .op = op, .query_dtype = query_dtype, .row_dtype = row_dtype};
    own->isa = (*table)->full_name;
    return KITH_OK;
}

kith_status kith_distance_kernels_find(kith_kernel_op op, kith_dtype query_dtype, kith_dtype row_dtype,
                                       const char *isa, kith_distance_kernels *out) {
    kith_distance_kernels own = {0};
    const kith_simd_table *table = NULL;
    KITH_TRY(begin_distance(op, query_dtype, row_dtype, isa, out, &own, &table));
    if (!set_distance(&own, table))
        return kith_error(KITH_ERR_TYPE, "no %s kernel for %s x %s", kith_kernel_op_name(op),
                          kith_dtype_name(query_dtype), kith_dtype_name(row_dtype));
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}

kith_status kith_distance_kernels_find_native(kith_kernel_op op, kith_dtype query_dtype, kith_dtype row_dtype,
                                              const char *isa, kith_distance_kernels *out) {
    kith_distance_kernels own = {0};
    const kith_simd_table *table = NULL;
    KITH_TRY(begin_distance(op, query_dtype, row_dtype, isa, out, &own, &table));
    /* The pair's place in the table follows from where its portable kernels stand. */
    const kith_float_kernels *portable = NULL;
    kith_op table_op = op == KITH_KERNEL_L2SQ ? KITH_OP_L2SQ : KITH_OP_IP;
    if (op != KITH_KERNEL_HAMMING) portable = kith_simd_floats(table, table_op, query_dtype, row_dtype);
    const kith_float_kernels *native = NULL;
    if (portable != NULL) native = &table->native[table_op][portable - table->floats[table_op]];
    if (native == NULL || native->one == NULL)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s has no native %s kernel for %s x %s", table->full_name,
                          kith_kernel_op_name(op), kith_dtype_name(query_dtype), kith_dtype_name(row_dtype));
    set_floats(&own, native);
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}

kith_status kith_vector_kernels_find(const char *isa, kith_vector_kernels *out) {
    const kith_simd_table *table;
    KITH_TRY(clear_output("kith_vector_kernels", out, sizeof *out));
    KITH_TRY(find_table(isa, &table));
    const kith_vector_kernels own = {
        .size = sizeof own,
        .isa = table->full_name,
        .norm2_f32 = table->norm2_f32,
        .norm2_f16 = table->norm2_f16,
        .norm2_bf16 = table->norm2_bf16,
        .norm2_i8 = table->norm2_i8,
        .norm2_u8 = table->norm2_u8,
        .f32_from_f16 = table->f32_from_f16,
        .f32_from_bf16 = table->f32_from_bf16,
        .f32_from_i8 = table->f32_from_i8,
        .f32_from_u8 = table->f32_from_u8,
        .f16_from_f32 = table->f16_from_f32,
        .bf16_from_f32 = table->bf16_from_f32,
        .filter_f32 = table->filter_f32,
        .filter_i32 = table->filter_i32,
        .filter_below_f32 = table->filter_below_f32,
        .filter_below_i32 = table->filter_below_i32,
    };
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}

kith_status kith_tile_kernels_find(const char *isa, kith_tile_kernels *out) {
    const kith_simd_table *table;
    KITH_TRY(clear_output("kith_tile_kernels", out, sizeof *out));
    KITH_TRY(find_table(isa, &table));
    const kith_tile_kernels own = {
        .size = sizeof own,
        .isa = table->full_name,
        .pack = table->pack,
        .f32_query_lanes = table->tile_f32.query_lanes,
        .f32_row_lanes = table->tile_f32.row_lanes,
        .f32_run = table->tile_f32.run,
        .i8_query_lanes = table->tile_i8.query_lanes,
        .i8_row_lanes = table->tile_i8.row_lanes,
        .i8_group = table->tile_i8.group,
        .i8_prepare_query = table->tile_i8.prepare_query,
        .i8_prepare_row = table->tile_i8.prepare_row,
        .i8_run = table->tile_i8.run,
    };
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}

kith_status kith_plane_kernels_find(const char *isa, kith_plane_kernels *out) {
    const kith_simd_table *table;
    KITH_TRY(clear_output("kith_plane_kernels", out, sizeof *out));
    KITH_TRY(find_table(isa, &table));
    kith_plane_kernels own = {.size = sizeof own, .isa = table->full_name};
    for (size_t i = 0; i < KITH_FIELD_WIDTHS; i++) {
        own.block[i] = table->fields[i].block;
        own.four[i] = table->fields[i].four;
    }
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}

kith_status kith_peak_kernels_find(const char *isa, kith_peak_kernels *out) {
    const kith_simd_table *table;
    KITH_TRY(clear_output("kith_peak_kernels", out, sizeof *out));
    KITH_TRY(find_table(isa, &table));
    const kith_peak_kernels own = {
        .size = sizeof own,
        .isa = table->full_name,
        .fma_f32 = table->peaks.fma_f32,
        .dot_i8 = table->peaks.dot_i8,
        .read = table->peaks.read,
    };
    copy_output(out, &own, sizeof own);
    return KITH_OK;
}
