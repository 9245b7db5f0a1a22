/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_exact.c: exact search beside the machine's own limits, in one run.
 *
 *   a batch of queries, GFLOP/s (2 x queries x rows x dim / time), beside OpenBLAS's sgemm on 2048^3
 *   one query at a time, GB/s of stored vectors, beside the rate at which the machine reads as much memory
 *
 * Every repeat times each of them once, so that a machine that changes its pace changes it for all; medians are
 * shown, and ratios are medians of the repeats' own ratios. --help has the options.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kith/kernels.h"
#include "kith/kith.h"

#define PROGRAM "bench_exact"
#include "bench_tools.h"
#ifdef KITH_BENCH_OPENBLAS
#include <cblas.h>
#endif

enum { REPEATS_MAX = 99, THREADS_MAX = 64, TYPES = 5, SGEMM_SIDE = 2048 };

static const char usage[] =
    "bench_exact [--data DIR] [options]: times exact search beside sgemm and a memory stream\n"
    "  --data DIR      base.* and query.* (npy, fvecs, bvecs, fbin, u8bin, hdf5); without it, random vectors\n"
    "  --rows N        random: rows (200000); data: use the first N\n"
    "  --dim N         random: dimension (128)\n"
    "  --queries N     queries of a batch (2000)\n"
    "  --k N           neighbours (10)\n"
    "  --metric NAME   l2, ip, cosine (l2)\n"
    "  --types LIST    of f32,f16,bf16,u8,i8 (f32,f16,u8)\n"
    "  --threads LIST  thread counts (1 and all processors)\n"
    "  --singles N     queries handed over one by one in a repeat (20)\n"
    "  --repeats N     timed repeats (5)\n"
    "  --json FILE     the figures as JSON as well\n";

typedef struct settings {
    const char *data, *json;
    size_t rows, dim, queries, k, singles, repeats;
    kith_metric metric;
    kith_dtype types[TYPES];
    size_t type_count, threads[THREADS_MAX], thread_count;
} settings;

/* One stored type: its index, the queries in the type that suits it, a copy of the rows to stream over. */
typedef struct bench_subject {
    kith_dtype dtype;
    kith_index *index;
    void *queries;
    kith_view view;
    unsigned char *memory;
    size_t memory_bytes;
} bench_subject;

typedef struct series {
    double value[REPEATS_MAX];
} series;

/* What is measured for one type at one thread count, per repeat. */
typedef struct bench_figures {
    series batch, sgemm, batch_ratio, single, stream, single_ratio;
} bench_figures;

static double now(void) { return seconds_of(CLOCK_MONOTONIC); }

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const series *all, size_t count) {
    series sorted = *all;
    qsort(sorted.value, count, sizeof *sorted.value, compare);
    return (sorted.value[(count - 1) / 2] + sorted.value[count / 2]) / 2;
}

/* ---- Data ---------------------------------------------------------------------------------------------- */

static kith_vectors *open_vectors(const settings *set, const char *name) {
    static const char *const endings[] = {"npy", "fvecs", "bvecs", "fbin", "u8bin", "i8bin", "hdf5", "h5"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char path[4096];
        kith_vectors *file;
        (void)snprintf(path, sizeof path, "%s/%s.%s", set->data, name, endings[i]);
        if (access(path, R_OK) != 0) continue;
        must(kith_vectors_open(path, NULL, &file));
        return file;
    }
    fprintf(stderr, "bench_exact: %s/%s.*: no such file of a known format\n", set->data, name);
    exit(1);
}

/* `count` rows of `dim` elements of a file or, without a folder, of made-up whole numbers 0..127, which every type
 * holds. NULL when the file's values do not fit the type. */
static void *make_rows(const settings *set, const char *name, kith_dtype dtype, size_t *count, size_t *dim) {
    kith_vectors *file = NULL;
    if (set->data != NULL) {
        file = open_vectors(set, name);
        *dim = kith_vectors_dim(file);
        if (*count == 0 || *count > kith_vectors_count(file)) *count = kith_vectors_count(file);
    }
    void *rows = malloc(*count * kith_dtype_row_bytes(dtype, *dim));
    if (rows == NULL) fail("no memory for the vectors");
    if (file != NULL) {
        kith_status status = kith_vectors_read(file, 0, *count, dtype, rows);
        kith_vectors_close(file);
        if (status == KITH_OK) return rows;
        fprintf(stderr, "bench_exact: left out %s: %s\n", kith_dtype_name(dtype), kith_error_message());
        free(rows);
        return NULL;
    }
    uint64_t state = name[0] == 'b' ? 1 : 2;
    for (size_t i = 0; i < *count * *dim; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        unsigned char byte = (unsigned char)(state >> 57);
        if (dtype == KITH_F32)
            ((float *)rows)[i] = byte;
        else
            ((unsigned char *)rows)[i] = byte;
    }
    return rows;
}

/* Fills an index of the type; false when the data do not fit it. */
static bool make_subject(const settings *set, kith_dtype dtype, bench_subject *out) {
    bool is_small = dtype == KITH_U8 || dtype == KITH_I8;
    kith_dtype given = is_small ? dtype : KITH_F32; /* queries stay f32 for the 16-bit types */
    size_t rows = set->rows, dim = set->dim, queries = set->queries;
    char spec[32];
    *out = (bench_subject){.dtype = dtype};
    void *base = make_rows(set, "base", given, &rows, &dim);
    if (base == NULL) return false;
    out->queries = make_rows(set, "query", given, &queries, &dim);
    if (out->queries == NULL) return false;
    kith_view view = {base, given, rows, dim, 0};
    out->view = (kith_view){out->queries, given, queries, dim, 0};
    (void)snprintf(spec, sizeof spec, "Flat,%s", kith_dtype_name(dtype));
    must(kith_index_create(dtype == KITH_F32 ? "Flat" : spec, dim, set->metric, &out->index));
    must(kith_index_add(out->index, &view, NULL, NULL));
    out->memory_bytes = rows * kith_dtype_row_bytes(dtype, dim);
    out->memory = realloc(base, out->memory_bytes); /* any bytes will do for a stream */
    if (out->memory == NULL) fail("no memory for the stream");
    return true;
}

static void free_subject(bench_subject *subject) {
    kith_index_free(subject->index);
    free(subject->queries);
    free(subject->memory);
}

/* ---- What is timed ------------------------------------------------------------------------------------- */

/* GFLOP/s of a batch. */
static double time_batch(const settings *set, const bench_subject *subject, size_t threads, int64_t *ids,
                         kith_search_context *context) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = threads;
    params.context = context;
    double start = now();
    must(kith_index_search(subject->index, &subject->view, set->k, &params, ids, NULL, NULL));
    double work = 2.0 * (double)subject->view.count * (double)kith_index_count(subject->index);
    return work * (double)subject->view.dim / (now() - start) * 1e-9;
}

/* GB/s of stored vectors, one query at a time. */
static double time_singles(const settings *set, const bench_subject *subject, size_t threads, int64_t *ids,
                           kith_search_context *context) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = threads;
    params.context = context;
    size_t row_bytes = kith_dtype_row_bytes(subject->view.dtype, subject->view.dim);
    double start = now();
    for (size_t i = 0; i < set->singles; i++) {
        kith_view query = subject->view;
        query.data = (const char *)query.data + i % subject->view.count * row_bytes;
        query.count = 1;
        must(kith_index_search(subject->index, &query, set->k, &params, ids, NULL, NULL));
    }
    return (double)subject->memory_bytes * (double)set->singles / (now() - start) * 1e-9;
}

typedef struct stream_part {
    const kith_peak_kernels *peak;
    const unsigned char *memory;
    size_t bytes, times;
    uint64_t sum;
} stream_part;

static void *read_part(void *context) {
    stream_part *part = context;
    for (size_t i = 0; i < part->times; i++) part->sum += part->peak->read(part->memory, part->bytes);
    return NULL;
}

/* GB/s at which `threads` threads read as much memory as the index holds, each its share. */
static double time_stream(const settings *set, const bench_subject *subject, size_t threads) {
    kith_peak_kernels peak = {.size = sizeof peak};
    stream_part parts[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    must(kith_peak_kernels_find(NULL, &peak));
    size_t share = subject->memory_bytes / threads / 64 * 64;
    double start = now();
    for (size_t i = 0; i < threads; i++) {
        parts[i] = (stream_part){&peak, subject->memory + i * share, share, set->singles, 0};
        if (i + 1 == threads)
            (void)read_part(&parts[i]);
        else if (pthread_create(&ids[i], NULL, read_part, &parts[i]) != 0)
            fail("cannot start a thread");
    }
    for (size_t i = 0; i + 1 < threads; i++) (void)pthread_join(ids[i], NULL);
    return (double)(share * threads) * (double)set->singles / (now() - start) * 1e-9;
}

#ifdef KITH_BENCH_OPENBLAS
/* An OpenBLAS that is older than the processor falls back to its oldest kernels ("Prescott"), and would be no match.
 * It chooses when it is loaded, so the program starts again with a choice of ours. */
static void wake_openblas(char **words, const char *isa) {
    bool is_avx512 = strncmp(isa, "avx512", 6) == 0, is_x86 = is_avx512 || strncmp(isa, "avx2", 4) == 0;
    if (!is_x86 || getenv("OPENBLAS_CORETYPE") != NULL || strcmp(openblas_get_corename(), "Prescott") != 0) return;
    (void)setenv("OPENBLAS_CORETYPE", is_avx512 ? "SkylakeX" : "Haswell", 1);
    (void)execv("/proc/self/exe", words);
}

static const char *sgemm_name(void) { return openblas_get_corename(); }

static float *sgemm_a, *sgemm_b, *sgemm_c;

static double time_sgemm(size_t threads) {
    const int n = SGEMM_SIDE;
    if (sgemm_a == NULL) {
        size_t count = (size_t)SGEMM_SIDE * SGEMM_SIDE;
        sgemm_a = malloc(count * sizeof(float)), sgemm_b = malloc(count * sizeof(float));
        sgemm_c = calloc(count, sizeof(float));
        if (sgemm_a == NULL || sgemm_b == NULL || sgemm_c == NULL) fail("no memory for sgemm");
        for (size_t i = 0; i < count; i++) sgemm_a[i] = (float)(i % 7), sgemm_b[i] = (float)(i % 5);
    }
    openblas_set_num_threads((int)threads);
    double start = now();
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, sgemm_a, n, sgemm_b, n, 0, sgemm_c, n);
    return 2.0 * n * n * n / (now() - start) * 1e-9;
}
#else
static void wake_openblas(char **words, const char *isa) {
    (void)words;
    (void)isa;
}

static const char *sgemm_name(void) { return "none"; }

static double time_sgemm(size_t threads) {
    (void)threads;
    return __builtin_nan("");
}
#endif

static void measure(const settings *set, const bench_subject *subject, size_t threads, bench_figures *out) {
    kith_search_context *context;
    int64_t *ids = malloc(subject->view.count * set->k * sizeof *ids);
    if (ids == NULL) fail("no memory for the results");
    must(kith_search_context_create(&context));
    for (size_t i = 0; i < set->repeats + 1; i++) { /* the first one warms up, and is overwritten */
        size_t r = i == 0 ? 0 : i - 1;
        out->sgemm.value[r] = time_sgemm(threads);
        out->batch.value[r] = time_batch(set, subject, threads, ids, context);
        out->stream.value[r] = time_stream(set, subject, threads);
        out->single.value[r] = time_singles(set, subject, threads, ids, context);
        out->batch_ratio.value[r] = out->batch.value[r] / out->sgemm.value[r];
        out->single_ratio.value[r] = out->single.value[r] / out->stream.value[r];
    }
    kith_search_context_free(context);
    free(ids);
}

/* ---- Arguments ----------------------------------------------------------------------------------------- */

static size_t number(const char *name, const char *text) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value > (size_t)1 << 40) {
        fprintf(stderr, "bench_exact: %s: '%s' is not a count\n", name, text);
        exit(2);
    }
    return (size_t)value;
}

static void read_types(settings *set, char *list) {
    set->type_count = 0;
    for (char *save = NULL, *name = strtok_r(list, ",", &save); name != NULL; name = strtok_r(NULL, ",", &save)) {
        if (set->type_count == TYPES) fail("--types: too many");
        must(kith_dtype_parse(name, &set->types[set->type_count++]));
    }
}

static void read_threads(settings *set, char *list) {
    set->thread_count = 0;
    for (char *save = NULL, *text = strtok_r(list, ",", &save); text != NULL; text = strtok_r(NULL, ",", &save)) {
        size_t threads = number("--threads", text);
        if (threads < 1 || threads > THREADS_MAX || set->thread_count == THREADS_MAX) fail("--threads: 1..64");
        set->threads[set->thread_count++] = threads;
    }
}

static void set_option(settings *set, const char *name, char *value) {
    struct {
        const char *name;
        size_t *field;
    } counts[] = {{"--rows", &set->rows}, {"--dim", &set->dim},         {"--queries", &set->queries},
                  {"--k", &set->k},       {"--singles", &set->singles}, {"--repeats", &set->repeats}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (strcmp(name, counts[i].name) == 0) {
            *counts[i].field = number(name, value);
            return;
        }
    if (strcmp(name, "--data") == 0)
        set->data = value;
    else if (strcmp(name, "--json") == 0)
        set->json = value;
    else if (strcmp(name, "--metric") == 0)
        must(kith_metric_parse(value, &set->metric));
    else if (strcmp(name, "--types") == 0)
        read_types(set, value);
    else if (strcmp(name, "--threads") == 0)
        read_threads(set, value);
    else {
        fprintf(stderr, "bench_exact: unknown option %s\n%s", name, usage);
        exit(2);
    }
}

static settings read_settings(int count, char **words) {
    size_t all = kith_threads_default();
    if (all > THREADS_MAX) all = THREADS_MAX;
    settings set = {.dim = 128,
                    .queries = 2000,
                    .k = 10,
                    .singles = 20,
                    .repeats = 5,
                    .metric = KITH_L2,
                    .types = {KITH_F32, KITH_F16, KITH_U8},
                    .type_count = 3,
                    .threads = {1, all},
                    .thread_count = all > 1 ? 2 : 1};
    for (int i = 1; i < count; i += 2) {
        if (strcmp(words[i], "--help") == 0) {
            (void)fputs(usage, stdout);
            exit(0);
        }
        if (i + 1 == count) fail("the last option has no value; see --help");
        set_option(&set, words[i], words[i + 1]);
    }
    if (set.data == NULL && set.rows == 0) set.rows = 200000;
    if (set.repeats < 1 || set.repeats > REPEATS_MAX) fail("--repeats: 1..99");
    if (set.singles < 1 || set.k < 1 || set.queries < 1 || set.dim < 1) fail("counts start at 1");
    return set;
}

/* ---- Output -------------------------------------------------------------------------------------------- */

static void print_row(const settings *set, const bench_subject *subject, size_t threads, const bench_figures *of) {
    size_t n = set->repeats;
    printf("%-5s %7zu | %9.1f %9.1f %6.2f | %8.2f %8.2f %6.2f\n", kith_dtype_name(subject->dtype), threads,
           median(&of->batch, n), median(&of->sgemm, n), median(&of->batch_ratio, n), median(&of->single, n),
           median(&of->stream, n), median(&of->single_ratio, n));
    (void)fflush(stdout);
}

static void write_series(FILE *file, const char *name, const series *all, size_t count, const char *after) {
    fprintf(file, "\"%s\": [", name);
    for (size_t i = 0; i < count; i++) {
        if (all->value[i] == all->value[i])
            fprintf(file, "%s%.6g", i > 0 ? ", " : "", all->value[i]);
        else
            fprintf(file, "%snull", i > 0 ? ", " : "");
    }
    fprintf(file, "]%s", after);
}

static void write_json_row(FILE *file, const settings *set, const bench_subject *subject, size_t threads,
                           const bench_figures *of, bool is_first) {
    size_t n = set->repeats;
    fprintf(file, "%s\n  {\"type\": \"%s\", \"metric\": \"%s\", \"threads\": %zu, \"rows\": %zu, \"dim\": %zu, ",
            is_first ? "" : ",", kith_dtype_name(subject->dtype), kith_metric_name(set->metric), threads,
            kith_index_count(subject->index), subject->view.dim);
    fprintf(file, "\"queries\": %zu, \"k\": %zu,\n   ", subject->view.count, set->k);
    write_series(file, "batch_gflops", &of->batch, n, ", ");
    write_series(file, "sgemm_gflops", &of->sgemm, n, ", ");
    write_series(file, "single_gbs", &of->single, n, ", ");
    write_series(file, "stream_gbs", &of->stream, n, "}");
}

int main(int count, char **words) {
    const char *isa;
    bool is_first = true;
    FILE *json = NULL;
    must(kith_isa_check());
    must(kith_isa_full_name(NULL, &isa));
    wake_openblas(words, isa); /* before the words are cut up */
    settings set = read_settings(count, words);
    if (set.json != NULL && (json = fopen(set.json, "w")) == NULL) fail("cannot write the JSON file");
    if (json != NULL) fprintf(json, "{\"isa\": \"%s\", \"openblas\": \"%s\", \"results\": [", isa, sgemm_name());
    printf("isa %s, OpenBLAS kernels %s, metric %s, k %zu, medians of %zu\n", isa, sgemm_name(),
           kith_metric_name(set.metric), set.k, set.repeats);
    printf("type  threads | batch GF/s sgemm ratio | one GB/s  stream  ratio\n");
    for (size_t t = 0; t < set.type_count; t++) {
        bench_subject subject;
        if (make_subject(&set, set.types[t], &subject)) {
            if (is_first)
                printf("%zu rows x %zu, %zu queries\n", kith_index_count(subject.index), subject.view.dim,
                       subject.view.count);
            for (size_t i = 0; i < set.thread_count; i++) {
                static bench_figures figures;
                measure(&set, &subject, set.threads[i], &figures);
                print_row(&set, &subject, set.threads[i], &figures);
                if (json != NULL) write_json_row(json, &set, &subject, set.threads[i], &figures, is_first);
                is_first = false;
            }
        }
        free_subject(&subject);
    }
    if (json != NULL) {
        fprintf(json, "\n]}\n");
        if (fclose(json) != 0) fail("cannot write the JSON file");
    }
    return 0;
}
