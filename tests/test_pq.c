/* SPDX-License-Identifier: Apache-2.0
 *
 * test_pq.c: what product quantisers promise beyond what every code does (test_codes.c).
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "faults.h"
#include "memory_faults.h"
#include "pq/pq_inside.h"

/* ---- Helpers --------------------------------------------------------------------------------------------------- */

static kith_code *make(const char *name, size_t dim, kith_metric metric) {
    kith_code *code;
    size_t position;
    cr_assert_eq(kith_pq_make(name, dim, metric, &code, &position), KITH_OK, "%s", kith_error_message());
    cr_assert_not_null(code);
    return code;
}

static float *normal_rows(uint64_t stream, size_t count, size_t dim) {
    float *rows = malloc(count * dim * sizeof *rows);
    for (size_t i = 0; i < count * dim; i++) rows[i] = kith_random_normal(11, stream, i);
    return rows;
}

static kith_job job_of(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    return job;
}

static kith_status train(kith_code *code, const float *rows, size_t count, size_t threads) {
    kith_job job = job_of(threads);
    kith_code_rows sample = {.rows = rows, .count = count};
    return kith_code_train(code, &sample, &job);
}

static kith_code *trained(const char *name, size_t dim, kith_metric metric, const float *rows, size_t count) {
    kith_code *code = make(name, dim, metric);
    cr_assert_eq(train(code, rows, count, 1), KITH_OK, "%s", kith_error_message());
    return code;
}

static unsigned char *encode(const kith_code *code, const float *rows, size_t count) {
    unsigned char *codes = malloc(count * code->code_bytes);
    kith_code_rows input = {.rows = rows, .count = count};
    cr_assert_eq(kith_code_encode(code, &input, 1, codes), KITH_OK, "%s", kith_error_message());
    return codes;
}

static float *decode(const kith_code *code, const unsigned char *codes, size_t count) {
    float *out = malloc(count * code->dim * sizeof *out);
    kith_code_rows input = {.count = count};
    cr_assert_eq(code->vtable->decode(code, &input, codes, out), KITH_OK);
    return out;
}

/* Mean of the squared error in a dimension. */
static double error_of(const kith_code *code, const float *rows, size_t count) {
    unsigned char *codes = encode(code, rows, count);
    float *decoded = decode(code, codes, count);
    double error = 0;
    for (size_t i = 0; i < count * code->dim; i++) error += pow((double)rows[i] - (double)decoded[i], 2);
    free(codes);
    free(decoded);
    return error / (double)(count * code->dim);
}

/* ---- Names ----------------------------------------------------------------------------------------------------- */

Test(pq, defaults_follow_the_dimension) {
    static const struct {
        const char *name, *full;
        size_t dim;
    } cases[] = {
        {"PQ", "PQ16", 128},       {"PQ", "PQ98", 784},         {"PQ", "PQ10", 100},   {"PQ", "PQ1", 7},
        {"PQ", "PQ1", 13},         {"PQx6", "PQ16x6", 128},     {"PQ8x8", "PQ8", 128}, {"PQx4fs", "PQ64x4fs", 128},
        {"PQx4fs", "PQ1x4fs", 13}, {"PQx4fs", "PQ50x4fs", 100}, {"PQ1x4", "PQ1x4", 1}, {"PQ4x4fsa", "PQ4x4fsa", 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_code *code = make(cases[i].name, cases[i].dim, KITH_L2);
        cr_assert_str_eq(code->name, cases[i].full);
        kith_code_free(code);
    }
    kith_code *none = (kith_code *)(void *)&none;
    size_t position;
    cr_assert_eq(kith_pq_make("SQ8", 16, KITH_L2, &none, &position), KITH_OK);
    cr_assert_null(none);
    cr_assert_eq(kith_pq_make("PQ4", 16, KITH_COSINE, &none, &position), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_pq_make("PQ4", KITH_DIM_MAX + 1, KITH_L2, &none, &position), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* The numbers, and one f32 under l2. */
Test(pq, bytes_of_a_code) {
    static const struct {
        const char *name;
        size_t l2, ip;
    } cases[] = {
        {"PQ16", 20, 16}, {"PQ32x4fs", 20, 16}, {"PQ16x12", 28, 24}, {"PQ4x5", 8, 4}, {"PQ64x4fs", 36, 32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_code *l2 = make(cases[i].name, 64, KITH_L2), *ip = make(cases[i].name, 64, KITH_IP);
        cr_assert_eq(l2->code_bytes, cases[i].l2);
        cr_assert_eq(ip->code_bytes, cases[i].ip);
        cr_assert_eq(ip->block_bytes, 32 * cases[i].ip);
        kith_code_free(l2);
        kith_code_free(ip);
    }
}

/* ---- FAISS ------------------------------------------------------------------------------------------------------ */

typedef struct pq_golden {
    size_t dim, parts, bits;
    const char *codes;
    float decoded[5 * 14];
} pq_golden;
#include "golden/pq_golden.inc"

/* For the codebooks of a formula FAISS and kith choose the same codewords, pack them alike and decode the same. */
Test(pq, packs_and_decodes_as_faiss_does) {
    enum { ROWS = 5 };
    for (size_t g = 0; g < sizeof goldens / sizeof *goldens; g++) {
        const pq_golden *golden = &goldens[g];
        char name[32];
        (void)snprintf(name, sizeof name, "PQ%zux%zu", golden->parts, golden->bits);
        kith_code *code = make(name, golden->dim, KITH_IP);
        kith_pq *pq = kith_pq_of(code);
        float *books, rows[ROWS * 14];
        cr_assert_eq(kith_alloc(pq->codewords, golden->dim * sizeof *books, &books), KITH_OK);
        for (size_t m = 0, at = 0; m < pq->parts; m++)
            for (size_t c = 0; c < pq->codewords; c++)
                for (size_t j = 0; j < pq->width; j++)
                    books[at++] = (float)((7919 * (c + 31 * m) + 104729 * j + c * c * (j + 1)) % 5003) / 1250 - 2;
        for (size_t i = 0; i < ROWS; i++)
            for (size_t j = 0; j < golden->dim; j++)
                rows[i * golden->dim + j] = (float)((6151 * i + 3571 * j + 17 * i * j) % 1999) / 500 - 2;
        cr_assert_eq(kith_pq_adopt(pq, books), KITH_OK, "%s", kith_error_message());
        unsigned char *codes = encode(code, rows, ROWS);
        size_t packed = (golden->parts * golden->bits + 7) / 8;
        for (size_t i = 0; i < ROWS; i++)
            cr_assert_arr_eq(codes + i * code->code_bytes, golden->codes + i * packed, packed, "%s: row %zu", name,
                             i);
        float *decoded = decode(code, codes, ROWS);
        cr_assert_arr_eq(decoded, golden->decoded, ROWS * golden->dim * sizeof *decoded, "%s", name);
        free(codes);
        free(decoded);
        kith_code_free(code);
    }
}

/* ---- Error ------------------------------------------------------------------------------------------------------ */

/* One dimension a part: the best quantiser of a normal variable of n levels has the mean squared error of Max,
 * "Quantizing for minimum distortion", IRE 1960, table I. k-means ends near it, in a local minimum. */
Test(pq, one_dimension_a_part_reaches_the_optimum) {
    enum { COUNT = 16384, DIM = 4 };
    static const struct {
        const char *name;
        double optimum;
    } cases[] = {{"PQ4x4", 0.009497}, {"PQ4x5", 0.002499}, {"PQ4x4fs", 0.009497}};
    float *rows = normal_rows(1, COUNT, DIM), *others = normal_rows(2, COUNT, DIM);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_code *code = trained(cases[i].name, DIM, KITH_L2, rows, COUNT);
        double error = error_of(code, others, COUNT);
        cr_assert(error > 0.99 * cases[i].optimum && error < 1.4 * cases[i].optimum, "%s: %g", cases[i].name,
                  error);
        kith_code_free(code);
    }
    free(rows);
    free(others);
}

/* Several dimensions a part: no code of R bits a dimension has less than 2^-2R (Shannon), and a trained one comes near:
 * nearer with more dimensions a part. */
Test(pq, error_lies_between_shannon_and_scalar) {
    enum { COUNT = 20000, DIM = 16 };
    float *rows = normal_rows(1, COUNT, DIM), *others = normal_rows(2, COUNT, DIM);
    static const struct {
        const char *name;
        double bits, most;
    } cases[] = {{"PQ8x4", 2, 0.116}, {"PQ4", 2, 0.105}, {"PQ8x4fs", 2, 0.116}, {"PQ4x6", 1.5, 0.20}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_code *code = trained(cases[i].name, DIM, KITH_IP, rows, COUNT);
        double error = error_of(code, others, COUNT), least = pow(2, -2 * cases[i].bits);
        cr_assert(error > least && error < cases[i].most, "%s: %g, Shannon's bound is %g", cases[i].name, error,
                  least);
        kith_code_free(code);
    }
    free(rows);
    free(others);
}

/* ---- Estimates -------------------------------------------------------------------------------------------------- */

/* An estimate differs from the distance to the decoded vector by half a step of the tables in each part, and by the
 * rounding of floats. The step is what a prepared query begins with. */
Test(pq, estimates_keep_their_bound) {
    enum { COUNT = 2000, DIM = 32, QUERIES = 20 };
    static const char *const names[] = {"PQ8", "PQ16x4", "PQ16x4fs", "PQ4x6", "PQ32x4fs", "PQ2x9"};
    float *rows = normal_rows(1, COUNT, DIM), *queries = normal_rows(2, QUERIES, DIM);
    for (size_t n = 0; n < 2 * sizeof names / sizeof *names; n++) {
        kith_code *code = trained(names[n / 2], DIM, n % 2 != 0 ? KITH_IP : KITH_L2, rows, COUNT);
        unsigned char *codes = encode(code, rows, COUNT);
        float *decoded = decode(code, codes, COUNT), *prepared = aligned_alloc(64, code->query_bytes);
        double largest = 0;
        for (size_t q = 0; q < QUERIES; q++) {
            const float *query = queries + q * DIM;
            code->vtable->prepare(code, query, prepared);
            float base = kith_code_base(code, query, NULL);
            double bound = fabs((double)prepared[0]) / 2 * (double)kith_pq_of(code)->parts + 1e-4;
            for (size_t i = 0; i < COUNT; i++) {
                double exact = 0,
                       estimate = (double)kith_code_one(code, prepared, base, codes + i * code->code_bytes);
                for (size_t j = 0; j < DIM; j++) {
                    double a = (double)query[j], b = (double)decoded[i * DIM + j];
                    exact += code->metric == KITH_L2 ? (a - b) * (a - b) : -a * b;
                }
                cr_assert_leq(fabs(estimate - exact), bound, "%s: %g, not %g", code->name, estimate, exact);
                largest = fmax(largest, fabs(estimate - exact) / bound);
            }
        }
        cr_assert_gt(largest, 0.01, "%s: the bound says nothing", code->name);
        free(codes);
        free(decoded);
        free(prepared);
        kith_code_free(code);
    }
    free(rows);
    free(queries);
}

static void check_extreme_query(const kith_code *code, const unsigned char *codes, float value, bool is_finite) {
    float query[16], *prepared = aligned_alloc(64, code->query_bytes);
    for (size_t j = 0; j < 16; j++) query[j] = j % 3 == 0 ? -value : value;
    code->vtable->prepare(code, query, prepared);
    float estimate = kith_code_one(code, prepared, 0, codes);
    cr_assert(!isnan(estimate) && (!is_finite || isfinite(estimate)), "%s with %g: %g", code->name, (double)value,
              (double)estimate);
    free(prepared);
}

Test(pq, queries_of_any_magnitude) {
    static const char *const names[] = {"PQ4", "PQ4x4fs", "PQ2x6"};
    float *rows = normal_rows(1, 300, 16);
    for (size_t n = 0; n < 3; n++) {
        kith_code *code = trained(names[n], 16, KITH_L2, rows, 300);
        unsigned char *codes = encode(code, rows, 1);
        static const float values[] = {0, 1e-45f, 1e-38f, 1e-20f, 1, 1e15f, 1e30f, 3e38f};
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
            check_extreme_query(code, codes, values[v], values[v] < 1e30f);
        free(codes);
        kith_code_free(code);
    }
    free(rows);
}

/* ---- Training --------------------------------------------------------------------------------------------------- */

Test(pq, same_codebooks_at_any_thread_count) {
    enum { COUNT = 6000, DIM = 24 };
    static const char *const names[] = {"PQ6x5", "PQ2x6", "PQ1x4", "PQ12x4fsa"};
    float *rows = normal_rows(1, COUNT, DIM);
    for (size_t n = 0; n < 4; n++) {
        kith_code *one = make(names[n], DIM, KITH_IP), *more = make(names[n], DIM, KITH_IP);
        cr_assert_eq(train(one, rows, COUNT, 1), KITH_OK);
        cr_assert_eq(train(more, rows, COUNT, 5), KITH_OK);
        cr_assert_arr_eq(kith_pq_of(one)->codebooks, kith_pq_of(more)->codebooks,
                         kith_pq_of(one)->codewords * DIM * sizeof(float), "%s", names[n]);
        kith_code_free(one);
        kith_code_free(more);
    }
    free(rows);
}

Test(pq, refuses_what_it_cannot_learn_from) {
    float *rows = normal_rows(1, 255, 8);
    kith_code *code = make("PQ2", 8, KITH_L2);
    cr_assert_eq(train(code, rows, 255, 1), KITH_ERR_ARGUMENT);
    cr_assert_str_eq(kith_error_message(), "train PQ2: 255 vectors, fewer than its 256 codewords");
    cr_assert_not(code->is_trained);
    kith_code_free(code);
    code = make("PQ2x4", 8, KITH_L2);
    kith_job job = job_of(1);
    job.memory_bytes_max = 1000;
    kith_code_rows sample = {.rows = rows, .count = 255};
    cr_assert_eq(kith_code_train(code, &sample, &job), KITH_ERR_BUDGET);
    cr_assert_not(code->is_trained);
    kith_code_free(code);
    free(rows);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

static int cancel(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)phase, (void)done, (void)total;
    ++*(int *)user;
    return 1;
}

Test(pq, training_can_be_cancelled) {
    float *rows = normal_rows(1, 4096, 16);
    kith_code *code = make("PQ8x4", 16, KITH_L2);
    int calls = 0;
    kith_job job = job_of(1);
    job.progress = cancel;
    job.progress_user = &calls;
    kith_code_rows sample = {.rows = rows, .count = 4096};
    cr_assert_eq(kith_code_train(code, &sample, &job), KITH_ERR_CANCELLED);
    cr_assert(calls > 0 && !code->is_trained);
    kith_code_free(code);
    free(rows);
}

/* Rows of which some dimensions, or all, are constant, far from the origin, and rows that are repeated: what there is to
 * tell apart is told apart, and what is constant is exact. */
Test(pq, constant_dimensions_and_duplicates) {
    enum { COUNT = 600, DIM = 12, KINDS = 10 };
    static const char *const names[] = {"PQ3x4", "PQ3", "PQ6x4fs", "PQ2x9", "PQ3x4fsa"};
    float rows[COUNT * DIM];
    for (size_t i = 0; i < COUNT; i++)
        for (size_t j = 0; j < DIM; j++)
            rows[i * DIM + j] = j < 4 ? 1000.25f : (float)(i % KINDS) * (float)(j + 1) + 500;
    for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
        kith_code *code = trained(names[n], DIM, KITH_L2, rows, COUNT);
        unsigned char *codes = encode(code, rows, COUNT);
        float *decoded = decode(code, codes, COUNT);
        for (size_t i = 0; i < COUNT; i++)
            for (size_t j = 0; j < 4; j++) cr_assert_eq(decoded[i * DIM + j], 1000.25f, "%s: row %zu", names[n], i);
        /* As many codewords as kinds of rows would do; some are shared by two kinds when the draw was bad. */
        cr_assert_lt(error_of(code, rows, COUNT), 40, "%s", names[n]);
        free(codes);
        free(decoded);
        for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = i % DIM < 4 ? 1000.25f : rows[i];
        kith_code_free(code);
    }
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = -7.5f;
    kith_code *code = trained("PQ3", DIM, KITH_L2, rows, COUNT);
    cr_assert_eq(error_of(code, rows, COUNT), 0);
    kith_code_free(code);
}

Test(pq, large_and_small_magnitudes) {
    enum { COUNT = 400, DIM = 8 };
    static const float scales[] = {1e-30f, 1e-10f, 1e10f, 1e17f};
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        float *rows = normal_rows(1, COUNT, DIM);
        for (size_t i = 0; i < COUNT * DIM; i++) rows[i] *= scales[s];
        kith_code *code = trained("PQ4x4fs", DIM, KITH_L2, rows, COUNT);
        double relative = error_of(code, rows, COUNT) / (double)scales[s] / (double)scales[s];
        if (s > 0) cr_assert_lt(relative, 0.15, "%g: %g", (double)scales[s], relative);
        kith_code_free(code);
        free(rows);
    }
    float *rows = normal_rows(1, COUNT, DIM);
    kith_code *code = trained("PQ4x4fs", DIM, KITH_IP, rows, COUNT);
    unsigned char out[16];
    rows[2 * DIM + 1] = 1e30f;
    kith_code_rows input = {.rows = rows, .count = 4, .first_row = 70};
    unsigned char *codes = malloc(4 * code->code_bytes);
    cr_assert_eq(code->vtable->encode(code, &input, codes), KITH_ERR_RANGE);
    cr_assert_not_null(strstr(kith_error_message(), "row 72"), "%s", kith_error_message());
    (void)out;
    free(codes);
    kith_code_free(code);
    free(rows);
}

/* ---- Files ------------------------------------------------------------------------------------------------------ */

typedef struct stored {
    unsigned char head[32];
    float *book;
    size_t book_bytes;
} stored;

/* Loads a file of these two sections into a code just made. */
static kith_status load_stored(const stored *from, const char *name, size_t dim) {
    const char *folder = faults_folder(), *path = faults_path(folder, "pq.kith");
    kith_container_writer *writer;
    kith_container *file;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_container_writer_add(writer, "PQCDHEAD", 3, from->head, sizeof from->head), KITH_OK);
    cr_assert_eq(kith_container_writer_add(writer, "PQCDBOOK", 3, from->book, from->book_bytes), KITH_OK);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK);
    cr_assert_eq(kith_container_open(path, &file), KITH_OK);
    kith_code *code = make(name, dim, KITH_L2);
    uint32_t part = 3;
    kith_status status = code->vtable->load(code, file, &part);
    cr_assert_eq(code->is_trained, status == KITH_OK);
    cr_assert_eq(part, status == KITH_OK ? 4 : 3);
    kith_code_free(code);
    kith_container_close(file);
    faults_folder_remove(folder);
    return status;
}

Test(pq, every_number_of_a_file_is_checked) {
    enum { DIM = 8 };
    float *rows = normal_rows(1, 100, DIM), book[16 * DIM];
    kith_code *code = trained("PQ4x4fs", DIM, KITH_L2, rows, 100);
    stored good = {.head = {DIM, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1},
                   .book = book,
                   .book_bytes = sizeof book};
    memcpy(book, kith_pq_of(code)->codebooks, sizeof book);
    cr_assert_eq(load_stored(&good, "PQ4x4fs", DIM), KITH_OK, "%s", kith_error_message());
    for (size_t at = 0; at < sizeof good.head; at++) {
        stored bad = good;
        bad.head[at] ^= 4;
        cr_assert_eq(load_stored(&bad, "PQ4x4fs", DIM), KITH_ERR_FORMAT, "byte %zu", at);
    }
    cr_assert_eq(load_stored(&good, "PQ4x4", DIM), KITH_ERR_FORMAT);
    cr_assert_eq(load_stored(&good, "PQ4x4fs", 2 * DIM), KITH_ERR_FORMAT);
    stored cut = good;
    cut.book_bytes -= 4;
    cr_assert_eq(load_stored(&cut, "PQ4x4fs", DIM), KITH_ERR_FORMAT);
    static const float wrong[] = {NAN, INFINITY, -INFINITY, 1e30f};
    for (size_t i = 0; i < 4; i++) {
        book[37] = wrong[i];
        cr_assert_eq(load_stored(&good, "PQ4x4fs", DIM), KITH_ERR_FORMAT);
        cr_assert_not_null(strstr(kith_error_message(), "PQCDBOOK.3"), "%s", kith_error_message());
    }
    kith_code_free(code);
    free(rows);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Score-aware codes ------------------------------------------------------------------------------------------ */

/* The error along the vector is smaller than that of plain codes, the whole error larger, and the loss that both are
 * part of smaller. */
Test(pq, score_aware_codes_lose_less_along_the_vector) {
    enum { COUNT = 3000, DIM = 64 };
    float *rows = normal_rows(1, COUNT, DIM);
    double along[2] = {0}, whole[2] = {0};
    for (int kind = 0; kind < 2; kind++) {
        kith_code *code = trained(kind == 0 ? "PQ16x4fs" : "PQ16x4fsa", DIM, KITH_IP, rows, COUNT);
        unsigned char *codes = encode(code, rows, COUNT);
        float *decoded = decode(code, codes, COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            double product = 0, norm = 0;
            for (size_t j = 0; j < DIM; j++) {
                double x = (double)rows[i * DIM + j], e = x - (double)decoded[i * DIM + j];
                product += e * x;
                norm += x * x;
                whole[kind] += e * e;
            }
            along[kind] += product * product / norm;
        }
        free(codes);
        free(decoded);
        kith_code_free(code);
    }
    double weight = 63 * 0.04 / 0.96 - 1;
    cr_assert_lt(along[1], 0.7 * along[0]);
    cr_assert_geq(whole[1], whole[0]);
    cr_assert_lt(whole[1] + weight * along[1], whole[0] + weight * along[0]);
    free(rows);
}
