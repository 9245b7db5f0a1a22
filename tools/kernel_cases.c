/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.c: the cases of `kith bench kernels`, how a batch of each is run, and the data for them.
 */
#include "kernel_cases.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const kith_kernel_set_names[KERNEL_SET_COUNT] = {"l1", "l2", "memory"};

/* Rows of a tile case, at most; a multiple of every row_lanes. Pointers of gathered rows, at most. */
enum { TILE_ROWS = 192, GATHERED_MAX = 1 << 20, PATTERN_BYTES = 1 << 20, LINE_BYTES = 64 };
/* Planes: rows of a block, queries at once, and the most dimensions of a word. */
enum { PLANE_BLOCK_ROWS = 32, PLANE_QUERIES_MAX = 16, PLANE_WORD_DIMS_MAX = 32, PLANE_AHEAD_BYTES = 4096 };

/* ---- batches ---- */

static volatile uint64_t sink; /* results end here */

static void run_one(const kernel_case *c, kernel_data *data, size_t units) {
    double sum = 0;
    int64_t int_sum = 0;
    size_t at = data->cursor;
    for (size_t i = 0; i < units; i++) {
        const void *row = data->rows + at * data->row_bytes;
        if (c->distance.is_integer)
            int_sum += c->distance.one_i32(data->query, row, c->length);
        else
            sum += (double)c->distance.one_f32(data->query, row, c->length);
        if (++at == data->row_count) at = 0;
    }
    data->cursor = at;
    sink = (uint64_t)int_sum + (sum > 0);
}

static void run_four(const kernel_case *c, kernel_data *data, size_t units) {
    union {
        float floats[4];
        int32_t ints[4];
    } out;
    size_t at = data->cursor % data->gathered_count / 4 * 4;
    for (size_t i = 0; i < units; i++) {
        const void *const *rows = data->gathered + at;
        if (c->distance.is_integer)
            c->distance.four_i32(data->query, rows, c->length, out.ints);
        else
            c->distance.four_f32(data->query, rows, c->length, out.floats);
        at += 4;
        if (at == data->gathered_count) at = 0;
    }
    data->cursor = at;
    sink = (uint64_t)out.ints[0];
}

static void run_block(const kernel_case *c, kernel_data *data, size_t units) {
    size_t at = data->cursor;
    while (units > 0) {
        size_t count = data->row_count - at;
        if (count > units) count = units;
        if (count > KERNEL_BLOCK_ROWS) count = KERNEL_BLOCK_ROWS;
        const void *rows = data->rows + at * data->row_bytes;
        if (c->distance.is_integer)
            c->distance.block_i32(data->query, rows, data->row_bytes, count, c->length, data->out);
        else
            c->distance.block_f32(data->query, rows, data->row_bytes, count, c->length, data->out);
        units -= count;
        at += count;
        if (at == data->row_count) at = 0;
    }
    data->cursor = at;
}

static double norm_once(const kernel_case *c, const void *row) {
    switch (c->row_dtype) {
        case KITH_F32: return (double)c->vector.norm2_f32(row, c->dim);
        case KITH_F16: return (double)c->vector.norm2_f16(row, c->dim);
        case KITH_BF16: return (double)c->vector.norm2_bf16(row, c->dim);
        case KITH_I8: return (double)c->vector.norm2_i8(row, c->dim);
        default: return (double)c->vector.norm2_u8(row, c->dim);
    }
}

static void run_norm2(const kernel_case *c, kernel_data *data, size_t units) {
    double sum = 0;
    for (size_t i = 0; i < units; i++) {
        sum += norm_once(c, data->rows + data->cursor * data->row_bytes);
        if (++data->cursor == data->row_count) data->cursor = 0;
    }
    sink = sum > 0;
}

static void convert_once(const kernel_case *c, const void *row, void *out) {
    if (c->query_dtype == KITH_F16) {
        c->vector.f16_from_f32(row, c->dim, out);
        return;
    }
    if (c->query_dtype == KITH_BF16) {
        c->vector.bf16_from_f32(row, c->dim, out);
        return;
    }
    switch (c->row_dtype) {
        case KITH_F16: c->vector.f32_from_f16(row, c->dim, out); break;
        case KITH_BF16: c->vector.f32_from_bf16(row, c->dim, out); break;
        case KITH_I8: c->vector.f32_from_i8(row, c->dim, out); break;
        default: c->vector.f32_from_u8(row, c->dim, out); break;
    }
}

static void run_convert(const kernel_case *c, kernel_data *data, size_t units) {
    for (size_t i = 0; i < units; i++) {
        convert_once(c, data->rows + data->cursor * data->row_bytes, data->out);
        if (++data->cursor == data->row_count) data->cursor = 0;
    }
}

/* Elements are uniform in -1..1, or all of their type's integers: the thresholds let about 1 of 100 pass. */
static void run_filter(const kernel_case *c, kernel_data *data, size_t units) {
    size_t found = 0;
    for (size_t i = 0; i < units; i++) {
        const void *row = data->rows + data->cursor * data->row_bytes;
        if (c->row_dtype == KITH_F32)
            found += c->vector.filter_f32(row, c->dim, 0.98f, data->out);
        else
            found += c->vector.filter_i32(row, c->dim, INT32_MAX / 50 * 49, data->out);
        if (++data->cursor == data->row_count) data->cursor = 0;
    }
    sink = found;
}

static void run_tile_f32(const kernel_case *c, kernel_data *data, size_t units) {
    size_t panels = TILE_ROWS / c->tile.f32_row_lanes;
    for (size_t i = 0; i < units; i++)
        c->tile.f32_run((const float *)(void *)data->tile_queries, (const float *)(void *)data->tile_rows, c->dim,
                        panels, data->tile_bias, data->tile_out, TILE_ROWS);
}

static void run_tile_i8(const kernel_case *c, kernel_data *data, size_t units) {
    size_t panels = TILE_ROWS / c->tile.i8_row_lanes, words = (c->dim + c->tile.i8_group - 1) / c->tile.i8_group;
    for (size_t i = 0; i < units; i++)
        c->tile.i8_run((const uint32_t *)(void *)data->tile_queries, (const uint32_t *)(void *)data->tile_rows,
                       words, panels, data->tile_bias, data->tile_out, TILE_ROWS);
}

static void run_plane_four(const kernel_case *c, kernel_data *data, size_t units) {
    int32_t out[4] = {0};
    size_t at = data->cursor % data->gathered_count / 4 * 4;
    for (size_t i = 0; i < units; i++) {
        const uint32_t *rows[4];
        for (size_t r = 0; r < 4; r++) rows[r] = data->gathered[at + r];
        c->plane.four[c->plane_log2]((const int8_t *)data->query, rows, c->plane_words, out);
        at += 4;
        if (at == data->gathered_count) at = 0;
    }
    data->cursor = at;
    sink = (uint64_t)out[0];
}

static void run_plane_block(const kernel_case *c, kernel_data *data, size_t units) {
    const int8_t *queries[PLANE_QUERIES_MAX];
    for (size_t q = 0; q < PLANE_QUERIES_MAX; q++)
        queries[q] = (const int8_t *)data->query + q * (c->dim + PLANE_WORD_DIMS_MAX);
    size_t blocks = data->row_count / PLANE_BLOCK_ROWS, at = data->cursor / PLANE_BLOCK_ROWS % blocks;
    size_t block_bytes = PLANE_BLOCK_ROWS * data->row_bytes, ahead = (PLANE_AHEAD_BYTES - 1) / block_bytes + 1;
    for (size_t i = 0; i < units; i++) {
        const void *words = data->rows + at * block_bytes;
        size_t next = at + ahead < blocks ? at + ahead : 0;
        c->plane.block[c->plane_log2](queries, c->plane_queries, words, c->plane_words,
                                      (const void *)(data->rows + next * block_bytes), data->tile_out);
        if (++at == blocks) at = 0;
    }
    data->cursor = at * PLANE_BLOCK_ROWS;
}

/* ---- the list ---- */

typedef struct kernel_op {
    const char *op;
    kith_dtype query, row;
    bool is_native;
} kernel_op;

static const kernel_op distance_ops[] = {
    {"l2sq", KITH_F32, KITH_F32, false},       {"l2sq", KITH_F32, KITH_F16, false},
    {"l2sq", KITH_F32, KITH_BF16, false},      {"l2sq", KITH_F32, KITH_I8, false},
    {"l2sq", KITH_F32, KITH_U8, false},        {"l2sq", KITH_F16, KITH_F16, false},
    {"l2sq", KITH_BF16, KITH_BF16, false},     {"l2sq", KITH_I8, KITH_I8, false},
    {"l2sq", KITH_U8, KITH_U8, false},         {"ip", KITH_F32, KITH_F32, false},
    {"ip", KITH_F32, KITH_F16, false},         {"ip", KITH_F32, KITH_BF16, false},
    {"ip", KITH_F32, KITH_I8, false},          {"ip", KITH_F32, KITH_U8, false},
    {"ip", KITH_F16, KITH_F16, false},         {"ip", KITH_BF16, KITH_BF16, false},
    {"ip", KITH_I8, KITH_I8, false},           {"ip", KITH_U8, KITH_U8, false},
    {"hamming", KITH_B1, KITH_B1, false},      {"l2sq-native", KITH_F16, KITH_F16, true},
    {"ip-native", KITH_F16, KITH_F16, true},   {"l2sq-native", KITH_BF16, KITH_BF16, true},
    {"ip-native", KITH_BF16, KITH_BF16, true}, {"l2sq-native", KITH_F32, KITH_F16, true},
    {"ip-native", KITH_F32, KITH_F16, true},   {"l2sq-native", KITH_F32, KITH_BF16, true},
    {"ip-native", KITH_F32, KITH_BF16, true},
};

static const kernel_op vector_ops[] = {
    {"norm2", KITH_F32, KITH_F32, false},    {"norm2", KITH_F16, KITH_F16, false},
    {"norm2", KITH_BF16, KITH_BF16, false},  {"norm2", KITH_I8, KITH_I8, false},
    {"norm2", KITH_U8, KITH_U8, false},      {"convert", KITH_F32, KITH_F16, false},
    {"convert", KITH_F32, KITH_BF16, false}, {"convert", KITH_F32, KITH_I8, false},
    {"convert", KITH_F32, KITH_U8, false},   {"convert", KITH_F16, KITH_F32, false},
    {"convert", KITH_BF16, KITH_F32, false}, {"filter", KITH_F32, KITH_F32, false},
    {"filter", KITH_I32, KITH_I32, false},
};

/* Adds a case when the filter takes its name. */
static int add_case(const kernel_choice *choice, kernel_cases *cases, kernel_case *c) {
    (void)snprintf(c->name, sizeof c->name, "%s/%s/%s/%zu/%s/%s", c->op, c->types, c->shape, c->dim, c->isa,
                   kith_kernel_set_names[c->set]);
    if (choice->filter != NULL && regexec(choice->filter, c->name, 0, NULL, 0) != 0) return KITH_EXIT_OK;
    if (cases->count == cases->capacity) {
        size_t capacity = cases->capacity * 2 + 64;
        kernel_case *grown = realloc(cases->items, capacity * sizeof *grown);
        if (grown == NULL) return kith_tool_no_memory(capacity, sizeof *grown);
        cases->items = grown;
        cases->capacity = capacity;
    }
    c->group = cases->group_count;
    cases->items[cases->count++] = *c;
    return KITH_EXIT_OK;
}

static kith_kernel_op op_number(const char *op) {
    return strncmp(op, "l2sq", 4) == 0 ? KITH_KERNEL_L2SQ : op[0] == 'i' ? KITH_KERNEL_IP : KITH_KERNEL_HAMMING;
}

/* A case of the operation, type pair, dimension and set. */
static kernel_case case_of(const kernel_op *op, size_t dim, kernel_set set, const char *isa) {
    kernel_case c = {.op = op->op, .isa = isa, .set = set, .dim = dim, .length = dim, .unit_distances = 1};
    c.query_dtype = op->query;
    c.row_dtype = op->row;
    c.bytes = kith_dtype_row_bytes(op->row, dim);
    (void)snprintf(c.types, sizeof c.types, "%s-%s", kith_dtype_name(op->query), kith_dtype_name(op->row));
    return c;
}

/* The three shapes of a distance on one ISA; none where the ISA lacks the kernel. */
static int add_distance(const kernel_choice *choice, kernel_cases *cases, const kernel_op *op, size_t dim,
                        kernel_set set, const char *isa) {
    static const struct {
        const char *name;
        void (*run)(const kernel_case *, kernel_data *, size_t);
        uint64_t distances;
    } shapes[] = {{"one", run_one, 1}, {"four", run_four, 4}, {"block", run_block, 1}};
    kernel_case c = case_of(op, dim, set, isa);
    c.distance.size = sizeof c.distance;
    kith_status status = (op->is_native ? kith_distance_kernels_find_native : kith_distance_kernels_find)(
        op_number(op->op), op->query, op->row, isa, &c.distance);
    if (status == KITH_ERR_UNSUPPORTED && op->is_native) return KITH_EXIT_OK;
    int code = kith_tool_check(status, NULL);
    c.is_integer = c.distance.is_integer != 0;
    if (op->row == KITH_B1)
        c.length = c.bytes;
    else
        c.products = dim;
    for (size_t s = 0; code == KITH_EXIT_OK && s < sizeof shapes / sizeof *shapes; s++) {
        kernel_case shaped = c;
        shaped.shape = shapes[s].name;
        shaped.run = shapes[s].run;
        shaped.unit_distances = shapes[s].distances;
        shaped.products *= shapes[s].distances;
        shaped.bytes *= shapes[s].distances;
        code = add_case(choice, cases, &shaped);
    }
    return code;
}

static int add_vector(const kernel_choice *choice, kernel_cases *cases, const kernel_op *op, size_t dim,
                      kernel_set set, const char *isa) {
    kernel_case c = case_of(op, dim, set, isa);
    c.vector.size = sizeof c.vector;
    c.shape = "one";
    c.run = op->op[0] == 'n' ? run_norm2 : op->op[0] == 'c' ? run_convert : run_filter;
    if (c.run == run_norm2) c.products = dim;
    c.is_integer = op->row == KITH_I8 || op->row == KITH_U8;
    int code = kith_tool_check(kith_vector_kernels_find(isa, &c.vector), NULL);
    return code == KITH_EXIT_OK ? add_case(choice, cases, &c) : code;
}

/* Tiles have one set of their own: a panel of rows that passes the first-level cache. */
static int add_tiles(const kernel_choice *choice, kernel_cases *cases, bool is_integer, size_t dim,
                     const char *isa) {
    static const kernel_op ops[2] = {{"tile", KITH_F32, KITH_F32, false}, {"tile", KITH_I8, KITH_I8, false}};
    kernel_case c = case_of(&ops[is_integer], dim, KERNEL_SET_L2, isa);
    c.tile.size = sizeof c.tile;
    c.shape = "tile";
    c.is_integer = is_integer;
    int code = kith_tool_check(kith_tile_kernels_find(isa, &c.tile), NULL);
    if (code != KITH_EXIT_OK) return code;
    size_t lanes = is_integer ? c.tile.i8_row_lanes : c.tile.f32_row_lanes;
    c.unit_distances = (is_integer ? c.tile.i8_query_lanes : c.tile.f32_query_lanes) * (TILE_ROWS / lanes * lanes);
    c.products = c.unit_distances * dim;
    c.bytes *= TILE_ROWS / lanes * lanes;
    c.run = is_integer ? run_tile_i8 : run_tile_f32;
    return add_case(choice, cases, &c);
}

/* Fields of one width: four gathered rows, and blocks of 32 rows with one query or several. */
static int add_plane(const kernel_choice *choice, kernel_cases *cases, size_t log2, size_t dim, kernel_set set,
                     const char *isa) {
    static const struct {
        const char *name;
        size_t queries;
    } shapes[] = {{"four", 0}, {"block1", 1}, {"block4", 4}, {"block16", PLANE_QUERIES_MAX}};
    static const kernel_op op = {"plane", KITH_I8, KITH_U8, false};
    kernel_case c = case_of(&op, dim, set, isa);
    (void)snprintf(c.types, sizeof c.types, "i8-u%d", 1 << log2);
    c.is_integer = true;
    c.plane.size = sizeof c.plane;
    c.plane_log2 = log2;
    c.plane_words = ((dim << log2) + 31) / 32;
    int code = kith_tool_check(kith_plane_kernels_find(isa, &c.plane), NULL);
    for (size_t s = 0; code == KITH_EXIT_OK && s < sizeof shapes / sizeof *shapes; s++) {
        size_t rows = shapes[s].queries == 0 ? 4 : PLANE_BLOCK_ROWS;
        kernel_case shaped = c;
        shaped.shape = shapes[s].name;
        shaped.run = shapes[s].queries == 0 ? run_plane_four : run_plane_block;
        shaped.plane_queries = shapes[s].queries;
        shaped.unit_distances = rows * (shapes[s].queries == 0 ? 1 : shapes[s].queries);
        shaped.products = shaped.unit_distances * dim;
        shaped.bytes = rows * c.plane_words * 4;
        code = add_case(choice, cases, &shaped);
    }
    return code;
}

static int add_planes(const kernel_choice *choice, kernel_cases *cases, kernel_set set) {
    int code = KITH_EXIT_OK;
    for (size_t log2 = 0; log2 < 4; log2++)
        for (size_t d = 0; d < choice->dim_count; d++, cases->group_count++)
            for (size_t i = 0; code == KITH_EXIT_OK && i < choice->isa_count; i++)
                code = add_plane(choice, cases, log2, choice->dims[d], set, choice->isas[i]);
    return code;
}

typedef int (*add_fn)(const kernel_choice *, kernel_cases *, const kernel_op *, size_t, kernel_set, const char *);

static int add_ops(const kernel_choice *choice, kernel_cases *cases, const kernel_op *ops, size_t op_count,
                   kernel_set set, add_fn add) {
    int code = KITH_EXIT_OK;
    for (size_t o = 0; o < op_count; o++)
        for (size_t d = 0; d < choice->dim_count; d++, cases->group_count++)
            for (size_t i = 0; code == KITH_EXIT_OK && i < choice->isa_count; i++)
                code = add(choice, cases, &ops[o], choice->dims[d], set, choice->isas[i]);
    return code;
}

int kith_kernel_cases_list(const kernel_choice *choice, kernel_cases *out) {
    int code = KITH_EXIT_OK;
    *out = (kernel_cases){NULL, 0, 0, 0};
    for (kernel_set set = 0; set < KERNEL_SET_COUNT; set++) {
        if (!choice->sets[set]) continue;
        KITH_TOOL_GO(
            add_ops(choice, out, distance_ops, sizeof distance_ops / sizeof *distance_ops, set, add_distance));
        KITH_TOOL_GO(add_ops(choice, out, vector_ops, sizeof vector_ops / sizeof *vector_ops, set, add_vector));
        KITH_TOOL_GO(add_planes(choice, out, set));
    }
    for (int is_integer = 0; choice->sets[KERNEL_SET_L2] && is_integer < 2; is_integer++)
        for (size_t d = 0; d < choice->dim_count; d++, out->group_count++)
            for (size_t i = 0; i < choice->isa_count; i++)
                KITH_TOOL_GO(add_tiles(choice, out, is_integer != 0, choice->dims[d], choice->isas[i]));
done:
    if (code != KITH_EXIT_OK) kith_kernel_cases_free(out);
    return code;
}

void kith_kernel_cases_free(kernel_cases *cases) {
    for (size_t i = 0; i < cases->count; i++) free(cases->items[i].batch_ns);
    free(cases->items);
    *cases = (kernel_cases){NULL, 0, 0, 0};
}

/* ---- data ---- */

static void *take(size_t bytes) {
    void *block = aligned_alloc(LINE_BYTES, (bytes + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
    if (block != NULL) memset(block, 0, bytes);
    return block;
}

int kith_kernel_data_make(kernel_data *data, const size_t set_bytes[KERNEL_SET_COUNT], size_t dim_max) {
    size_t largest = 0, row_bytes_max = dim_max * 4, words = dim_max * TILE_ROWS * 4;
    for (size_t s = 0; s < KERNEL_SET_COUNT; s++) {
        data->set_bytes[s] = set_bytes[s];
        if (set_bytes[s] > largest) largest = set_bytes[s];
    }
    if (largest < PLANE_BLOCK_ROWS * row_bytes_max) largest = PLANE_BLOCK_ROWS * row_bytes_max;
    if (largest < PATTERN_BYTES) largest = PATTERN_BYTES;
    data->rows = take(largest);
    /* Bytes: a query of planes in steps, or several in order. */
    size_t query_bytes = PLANE_QUERIES_MAX * (dim_max + PLANE_WORD_DIMS_MAX);
    data->query = take(query_bytes > row_bytes_max ? query_bytes : row_bytes_max);
    data->gathered = take(GATHERED_MAX * sizeof *data->gathered);
    data->out = take((dim_max > KERNEL_BLOCK_ROWS ? dim_max : KERNEL_BLOCK_ROWS) * 4);
    data->tile_queries = take(words);
    data->tile_rows = take(words);
    data->tile_bias = take(TILE_ROWS * 4);
    data->tile_out = take((size_t)TILE_ROWS * TILE_ROWS * 4);
    if (data->rows != NULL && data->query != NULL && data->gathered != NULL && data->out != NULL &&
        data->tile_queries != NULL && data->tile_rows != NULL && data->tile_bias != NULL && data->tile_out != NULL)
        return KITH_EXIT_OK;
    kith_kernel_data_free(data);
    return kith_tool_no_memory(largest, 1);
}

void kith_kernel_data_free(kernel_data *data) {
    free(data->rows);
    free(data->query);
    free((void *)data->gathered);
    free(data->out);
    free(data->tile_queries);
    free(data->tile_rows);
    free(data->tile_bias);
    free(data->tile_out);
    *data = (kernel_data){.rows = NULL};
}

static uint32_t random_u32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's linear congruence */
    return (uint32_t)(*state >> 32);
}

/* Random elements: floats uniform in -1..1, integers over their whole range. */
static void fill(void *to, kith_dtype dtype, size_t bytes, uint64_t seed) {
    kith_vector_kernels convert = {.size = sizeof convert};
    bool has_convert = kith_vector_kernels_find("ref", &convert) == KITH_OK;
    uint64_t state = seed;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        uint32_t bits = random_u32(&state);
        float value[2] = {(float)(int32_t)bits * 0x1p-31f, (float)(int32_t)random_u32(&state) * 0x1p-31f};
        if (dtype == KITH_F32) memcpy(&bits, value, sizeof bits);
        uint16_t halves[2] = {0, 0};
        if (has_convert && dtype == KITH_F16) convert.f16_from_f32(value, 2, halves);
        if (has_convert && dtype == KITH_BF16) convert.bf16_from_f32(value, 2, halves);
        if (dtype == KITH_F16 || dtype == KITH_BF16) memcpy(&bits, halves, sizeof bits);
        memcpy((char *)to + i, &bits, sizeof bits);
    }
}

/* A random order of the rows, or of a sample where there are very many. */
static void gather(kernel_data *data) {
    size_t count = data->row_count < GATHERED_MAX ? data->row_count / 4 * 4 : GATHERED_MAX;
    uint64_t state = 7;
    for (size_t i = 0; i < count; i++) {
        size_t row = data->row_count > count ? (size_t)random_u32(&state) % data->row_count : i;
        data->gathered[i] = data->rows + row * data->row_bytes;
    }
    for (size_t i = count; i > 1; i--) { /* Fisher and Yates */
        size_t j = (size_t)random_u32(&state) % i;
        const void *swapped = data->gathered[i - 1];
        data->gathered[i - 1] = data->gathered[j];
        data->gathered[j] = swapped;
    }
    data->gathered_count = count;
}

void kith_kernel_data_prepare(kernel_data *data, const kernel_case *c) {
    if (c->tile.size != 0) {
        size_t bytes = c->dim * TILE_ROWS * 4;
        fill(data->tile_queries, c->row_dtype, bytes, 3);
        fill(data->tile_rows, c->row_dtype, bytes, 4);
        return;
    }
    bool is_plane = c->plane.size != 0;
    size_t fewest = is_plane ? PLANE_BLOCK_ROWS : 4;
    data->row_bytes = is_plane ? c->plane_words * 4 : kith_dtype_row_bytes(c->row_dtype, c->dim);
    data->row_count = data->set_bytes[c->set] / data->row_bytes;
    if (data->row_count < fewest) data->row_count = fewest;
    data->cursor = 0;
    size_t bytes = data->row_count * data->row_bytes;
    if (data->filled_dtype != c->row_dtype || data->filled_bytes < bytes) {
        size_t pattern = bytes < PATTERN_BYTES ? (bytes + 3) / 4 * 4 : PATTERN_BYTES;
        fill(data->rows, c->row_dtype, pattern, 1);
        for (size_t at = pattern; at < bytes; at += pattern)
            memcpy(data->rows + at, data->rows, bytes - at < pattern ? bytes - at : pattern);
        data->filled_dtype = c->row_dtype;
        data->filled_bytes = bytes;
    }
    /* Room for four bytes an element: integers are filled by the word. */
    size_t query_bytes = (kith_dtype_row_bytes(c->query_dtype, c->dim) + 3) / 4 * 4;
    if (is_plane) query_bytes = PLANE_QUERIES_MAX * (c->dim + PLANE_WORD_DIMS_MAX);
    fill(data->query, c->query_dtype, query_bytes, 2);
    for (size_t i = 0; is_plane && i < query_bytes; i++)
        if (data->query[i] == 0x80) data->query[i] = 0; /* -128 is no byte of such a query */
    gather(data);
}
