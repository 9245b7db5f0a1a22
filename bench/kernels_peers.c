/* SPDX-License-Identifier: Apache-2.0
 *
 * kernels_peers.c: times kith's distance kernels beside those of other libraries, on the same data, interleaved.
 *
 * kernels_peers.py looks the other libraries' C functions up in their shared objects and passes the addresses. All
 * contestants are called from the loops here, so that no contestant pays for the script. A user of kith's public
 * header only.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kith/kernels.h"

enum { BLOCK_ROWS_MAX = 64, CONTESTANTS_MAX = 16, REPEATS_MAX = 101, LINE_BYTES = 64 };

/* What the other libraries have in common: two vectors, a length, and where the result goes. */
typedef void (*peer_fn)(const void *a, const void *b, uint64_t length, void *result);

typedef struct contest {
    size_t dim; /* kith's count: elements, or bytes of packed bits */
    size_t row_bytes, row_count;
    unsigned char *query, *rows;
    const void **gathered; /* the rows in random order, a multiple of four of them */
    size_t gathered_count;
} contest;

enum shape { SHAPE_ONE, SHAPE_FOUR, SHAPE_BLOCK, SHAPE_PEER };

typedef struct contestant {
    enum shape shape;
    kith_distance_kernels kith;
    peer_fn peer;
    size_t distances; /* of a batch */
    double ns[REPEATS_MAX];
} contestant;

/* In the order of kernels_peers.py. */
typedef struct kernels_peers_request {
    uint32_t op, dtype; /* kith_kernel_op, kith_dtype of both sides */
    const char *isa;    /* NULL: the one in use */
    uint64_t dim;       /* elements, or bits */
    uint64_t peer_count;
    const peer_fn *peers;
    const uint64_t *peer_lengths;
    uint64_t set_bytes; /* of rows */
    uint64_t repeats;
    double min_seconds; /* of a batch */
    /* Results: nanoseconds a distance of kith's one, four, block, then of the native ones (NaN where there are
     * none), then of the peers; and the first row's distance, kith's as a double, a peer's as it wrote it. */
    double *ns;
    double kith_value, native_value;
    uint64_t *peer_values;
} kernels_peers_request;

KITH_API int kernels_peers_run(kernels_peers_request *request);

static volatile double sink;

/* The thread's own time: a batch that another process interrupts is not longer for it. */
static double seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- batches: `count` distances, a multiple of four ---- */

static void run_one(const contest *c, const kith_distance_kernels *kernels, size_t count) {
    double sum = 0;
    int64_t int_sum = 0;
    for (size_t i = 0, at = 0; i < count; i++) {
        const void *row = c->rows + at * c->row_bytes;
        if (kernels->is_integer)
            int_sum += kernels->one_i32(c->query, row, c->dim);
        else
            sum += (double)kernels->one_f32(c->query, row, c->dim);
        if (++at == c->row_count) at = 0;
    }
    sink = sum + (double)int_sum;
}

static void run_four(const contest *c, const kith_distance_kernels *kernels, size_t count) {
    float out[4];
    int32_t int_out[4];
    for (size_t i = 0, at = 0; i < count; i += 4) {
        if (kernels->is_integer)
            kernels->four_i32(c->query, c->gathered + at, c->dim, int_out);
        else
            kernels->four_f32(c->query, c->gathered + at, c->dim, out);
        at += 4;
        if (at == c->gathered_count) at = 0;
    }
}

static void run_block(const contest *c, const kith_distance_kernels *kernels, size_t count) {
    float out[BLOCK_ROWS_MAX];
    int32_t int_out[BLOCK_ROWS_MAX];
    for (size_t i = 0, at = 0, rows; i < count; i += rows) {
        rows = c->row_count - at < BLOCK_ROWS_MAX ? c->row_count - at : BLOCK_ROWS_MAX;
        if (rows > count - i) rows = count - i;
        const void *from = c->rows + at * c->row_bytes;
        if (kernels->is_integer)
            kernels->block_i32(c->query, from, c->row_bytes, rows, c->dim, int_out);
        else
            kernels->block_f32(c->query, from, c->row_bytes, rows, c->dim, out);
        at += rows;
        if (at == c->row_count) at = 0;
    }
}

/* A peer's result may be of any type up to eight bytes. */
static void run_peer(const contest *c, peer_fn peer, size_t length, size_t count) {
    uint64_t result = 0, sum = 0;
    for (size_t i = 0, at = 0; i < count; i++) {
        peer(c->query, c->rows + at * c->row_bytes, length, &result);
        sum += result;
        if (++at == c->row_count) at = 0;
    }
    sink = (double)sum;
}

static double run_batch(const contest *c, const contestant *who, size_t peer_length) {
    double start = seconds();
    switch (who->shape) {
        case SHAPE_ONE: run_one(c, &who->kith, who->distances); break;
        case SHAPE_FOUR: run_four(c, &who->kith, who->distances); break;
        case SHAPE_BLOCK: run_block(c, &who->kith, who->distances); break;
        case SHAPE_PEER: run_peer(c, who->peer, peer_length, who->distances); break;
    }
    return seconds() - start;
}

/* ---- data ---- */

static uint32_t random_u32(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* Knuth's linear congruence */
    return (uint32_t)(*state >> 32);
}

/* Floats uniform in -1..1, integers and bits over their whole range. `to` has room for eight elements more. */
static void fill(void *to, kith_dtype dtype, size_t bytes, uint64_t *state) {
    kith_vector_kernels convert = {.size = sizeof convert};
    if (kith_vector_kernels_find("ref", &convert) != KITH_OK) return;
    for (size_t at = 0; at < bytes; at += 4) {
        uint32_t bits = random_u32(state);
        float values[2] = {(float)(int32_t)bits * 0x1p-31f, (float)(int32_t)random_u32(state) * 0x1p-31f};
        uint16_t halves[2] = {0, 0};
        if (dtype == KITH_F32) memcpy(&bits, values, sizeof bits);
        if (dtype == KITH_F16) convert.f16_from_f32(values, 2, halves);
        if (dtype == KITH_BF16) convert.bf16_from_f32(values, 2, halves);
        if (dtype == KITH_F16 || dtype == KITH_BF16) memcpy(&bits, halves, sizeof bits);
        memcpy((char *)to + at, &bits, sizeof bits);
    }
}

static void *take(size_t bytes) {
    return aligned_alloc(LINE_BYTES, (bytes + 8 + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES);
}

static int make_data(contest *c, const kernels_peers_request *request) {
    kith_dtype dtype = (kith_dtype)request->dtype;
    uint64_t state = 11;
    c->row_bytes = kith_dtype_row_bytes(dtype, request->dim);
    c->dim = dtype == KITH_B1 ? c->row_bytes : request->dim;
    c->row_count = request->set_bytes / c->row_bytes / 4 * 4;
    if (c->row_count < 4) c->row_count = 4;
    c->gathered_count = c->row_count;
    c->query = take(c->row_bytes);
    c->rows = take(c->row_bytes * c->row_count);
    c->gathered = malloc(c->row_count * sizeof *c->gathered);
    if (c->query == NULL || c->rows == NULL || c->gathered == NULL) return -1;
    fill(c->query, dtype, c->row_bytes, &state);
    fill(c->rows, dtype, c->row_bytes * c->row_count, &state);
    for (size_t i = 0; i < c->row_count; i++) { /* Fisher and Yates, from the inside out */
        size_t j = (size_t)random_u32(&state) % (i + 1);
        c->gathered[i] = c->gathered[j];
        c->gathered[j] = c->rows + i * c->row_bytes;
    }
    return 0;
}

static void free_data(contest *c) {
    free(c->query);
    free(c->rows);
    free((void *)c->gathered);
}

/* ---- the contest ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static size_t peer_length_of(const kernels_peers_request *request, size_t contestant_index) {
    return contestant_index < 6 ? 0 : request->peer_lengths[contestant_index - 6];
}

/* Batches of at least min_seconds: found by doubling, which warms everything up as well. */
static void calibrate(const contest *c, contestant *who, size_t peer_length, double min_seconds) {
    for (who->distances = 64;; who->distances *= 2) {
        double took = run_batch(c, who, peer_length);
        if (took < min_seconds / 8) continue;
        who->distances = ((size_t)((double)who->distances * 1.2 * min_seconds / took) + 4) / 4 * 4;
        return;
    }
}

static void time_all(const contest *c, contestant *all, const bool *present, const kernels_peers_request *request) {
    size_t count = 6 + request->peer_count;
    for (size_t i = 0; i < count; i++)
        if (present[i]) calibrate(c, &all[i], peer_length_of(request, i), request->min_seconds);
    for (size_t r = 0; r < request->repeats; r++)
        for (size_t i = 0; i < count; i++)
            if (present[i])
                all[i].ns[r] = run_batch(c, &all[i], peer_length_of(request, i)) * 1e9 / (double)all[i].distances;
    for (size_t i = 0; i < count; i++) {
        request->ns[i] = NAN;
        if (!present[i]) continue;
        qsort(all[i].ns, request->repeats, sizeof *all[i].ns, ascending);
        request->ns[i] = all[i].ns[request->repeats / 2];
    }
}

static double first_value(const contest *c, const kith_distance_kernels *kernels) {
    if (kernels->is_integer) return (double)kernels->one_i32(c->query, c->rows, c->dim);
    return (double)kernels->one_f32(c->query, c->rows, c->dim);
}

/* Fills the table of contestants: kith's shapes, its native ones, the peers. */
static kith_status enter_all(contestant *all, bool *present, const kernels_peers_request *request) {
    kith_distance_kernels own = {.size = sizeof own}, native = {.size = sizeof native};
    kith_kernel_op op = (kith_kernel_op)request->op;
    kith_dtype dtype = (kith_dtype)request->dtype;
    kith_status status = kith_distance_kernels_find(op, dtype, dtype, request->isa, &own);
    if (status != KITH_OK) return status;
    bool has_native = kith_distance_kernels_find_native(op, dtype, dtype, request->isa, &native) == KITH_OK;
    for (size_t s = 0; s < 3; s++) {
        all[s] = (contestant){.shape = (enum shape)s, .kith = own};
        all[s + 3] = (contestant){.shape = (enum shape)s, .kith = native};
        present[s] = true;
        present[s + 3] = has_native;
    }
    for (size_t p = 0; p < request->peer_count; p++) {
        all[6 + p] = (contestant){.shape = SHAPE_PEER, .peer = request->peers[p]};
        present[6 + p] = request->peers[p] != NULL;
    }
    return KITH_OK;
}

/* 0, or -1: out of memory or a kernel that is not there (kith_error_message says which). */
int kernels_peers_run(kernels_peers_request *request) {
    contest c = {.query = NULL};
    bool present[CONTESTANTS_MAX] = {false};
    int result = -1;
    if (request->peer_count > CONTESTANTS_MAX - 6 || request->repeats == 0 || request->repeats > REPEATS_MAX)
        return -1;
    contestant *all = calloc(CONTESTANTS_MAX, sizeof *all);
    if (all == NULL || make_data(&c, request) != 0 || enter_all(all, present, request) != KITH_OK) goto done;
    request->kith_value = first_value(&c, &all[0].kith);
    request->native_value = present[3] ? first_value(&c, &all[3].kith) : (double)NAN;
    for (size_t p = 0; p < request->peer_count; p++) {
        request->peer_values[p] = 0;
        if (present[6 + p]) request->peers[p](c.query, c.rows, request->peer_lengths[p], &request->peer_values[p]);
    }
    time_all(&c, all, present, request);
    result = 0;
done:
    free_data(&c);
    free(all);
    return result;
}
