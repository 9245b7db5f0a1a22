/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_graph_parts.c: what each technique of a graph's search gains: it is switched off, and the search timed in turns
 * with one that has them all.
 *
 *   --index FILE   an index file: the techniques of the search, on the same graph, at the same parameters. What it finds
 *                  stays the same to the bit, or the recall beside it says what changed
 *   --base FILE    vectors: indexes of one or more specs are built, at once and by walks alone, and searched at the least
 *                  ef that reaches a recall
 *
 * Times are those of the thread on the processor. In each round all variants have their turn, and what counts is the median of
 * the ratios within a round: so other work on the machine adds noise, but no side. It looks inside the library, to reach
 * what no program should switch off.
 */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/sort.h"
#include "hnsw/hnsw_inside.h"
#include "index/live.h"
#include "kith/kith.h"

#define PROGRAM "bench_graph_parts"
#include "bench_tools.h"

static const char usage[] =
    "bench_graph_parts --query FILE --gt FILE (--index FILE | --base FILE --spec SPEC [--spec SPEC...]) [options]\n"
    "  --set NAME=N    a search parameter, may be repeated; of ef the least that reaches --recall unless it is "
    "set\n"
    "  --recall R      intersection@k that is wanted where ef is not set (0.95)\n"
    "  --k N           neighbours (10)\n"
    "  --queries N     use the first N queries (all)\n"
    "  --rounds N      timed rounds (15)\n"
    "  --instructions N  how many queries are stepped through to count them (32)\n"
    "  --metric NAME   with --base: l2, ip, cosine (l2)\n"
    "  --threads N     with --base: of builds (2)\n"
    "  --pieces N      with --base: vectors of an addition when linked by walks (8000)\n"
    "  --only TEXT     the variants whose names have this in them\n";

enum { SETS_MAX = 8, SPECS_MAX = 8, EF_MAX = 4096 };

typedef struct settings {
    const char *index, *base, *query, *gt, *only, *specs[SPECS_MAX], *sets[SETS_MAX];
    size_t spec_count, set_count, k, queries, rounds, threads, pieces, steps;
    kith_metric metric;
    double recall;
} settings;

static settings options = {
    .k = 10, .queries = SIZE_MAX, .rounds = 15, .threads = 2, .pieces = 8000, .steps = 32, .recall = 0.95};
static kith_view queries;
static kith_neighbors *truth;
static kith_search_context *context;

/* ---- Options ---------------------------------------------------------------------------------------------------- */

static size_t number(const char *text) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || value == 0) fail("a number of 1 or more is needed");
    return (size_t)value;
}

static void append(const char **list, size_t *count, size_t most, const char *text) {
    if (*count == most) fail("too many of an option");
    list[(*count)++] = text;
}

static void read_option(const char *name, const char *value) {
    const struct {
        const char *name;
        size_t *number;
    } numbers[] = {{"--k", &options.k},           {"--queries", &options.queries},
                   {"--rounds", &options.rounds}, {"--threads", &options.threads},
                   {"--pieces", &options.pieces}, {"--instructions", &options.steps}};
    const struct {
        const char *name;
        const char **text;
    } texts[] = {{"--index", &options.index},
                 {"--base", &options.base},
                 {"--query", &options.query},
                 {"--gt", &options.gt},
                 {"--only", &options.only}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].number = number(value);
            return;
        }
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].text = value;
            return;
        }
    if (strcmp(name, "--spec") == 0) {
        append(options.specs, &options.spec_count, SPECS_MAX, value);
    } else if (strcmp(name, "--set") == 0) {
        append(options.sets, &options.set_count, SETS_MAX, value);
    } else if (strcmp(name, "--metric") == 0) {
        must(kith_metric_parse(value, &options.metric));
    } else if (strcmp(name, "--recall") == 0) {
        options.recall = strtod(value, NULL);
    } else {
        fail(usage);
    }
}

static void read_options(int argc, char **argv) {
    options.metric = KITH_L2;
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        exit(0);
    }
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) fail(usage);
        read_option(argv[i], argv[i + 1]);
    }
    if (options.query == NULL || options.gt == NULL || (options.index == NULL) == (options.base == NULL) ||
        (options.base == NULL) != (options.spec_count == 0))
        fail(usage);
}

/* The first rows of a file, in its own type. */
static kith_view load(const char *path, size_t most) {
    kith_vectors *vectors;
    must(kith_vectors_open(path, NULL, &vectors));
    size_t count = kith_vectors_count(vectors), dim = kith_vectors_dim(vectors);
    kith_dtype dtype = kith_vectors_dtype(vectors);
    count = kith_min_size(count, most);
    void *rows = memory(count, kith_dtype_row_bytes(dtype, dim));
    must(kith_vectors_read(vectors, 0, count, dtype, rows));
    kith_vectors_close(vectors);
    return (kith_view){rows, dtype, count, dim, 0};
}

/* ---- Searches --------------------------------------------------------------------------------------------------- */

static kith_search_params params_of(const kith_index *index, size_t ef) {
    kith_search_params params;
    kith_search_params_init(&params);
    params.ef = ef;
    params.context = context;
    for (size_t i = 0; i < options.set_count; i++) {
        char name[64];
        const char *equals = strchr(options.sets[i], '=');
        if (equals == NULL || (size_t)(equals - options.sets[i]) >= sizeof name) fail("--set: NAME=N is needed");
        (void)snprintf(name, sizeof name, "%.*s", (int)(equals - options.sets[i]), options.sets[i]);
        must(kith_search_params_set(&params, index, name, equals + 1));
    }
    return params;
}

/* One batch; returns its processor time. */
static double search(const kith_index *index, const kith_search_params *params, int64_t *ids) {
    double start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    must(kith_index_search(index, &queries, options.k, params, ids, NULL, NULL));
    return seconds_of(CLOCK_THREAD_CPUTIME_ID) - start;
}

/* The same, a query at a time. */
static double search_alone(const kith_index *index, const kith_search_params *params, int64_t *ids) {
    double start = seconds_of(CLOCK_THREAD_CPUTIME_ID);
    kith_view one = queries;
    one.count = 1;
    for (size_t q = 0; q < queries.count; q++) {
        one.data = (const char *)queries.data + q * kith_dtype_row_bytes(queries.dtype, queries.dim);
        must(kith_index_search(index, &one, options.k, params, ids + q * options.k, NULL, NULL));
    }
    return seconds_of(CLOCK_THREAD_CPUTIME_ID) - start;
}

static double recall_of(const int64_t *ids) {
    size_t found = 0, k = options.k;
    for (size_t q = 0; q < queries.count; q++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) found += ids[q * k + i] == truth->ids[q * truth->k + j];
    return (double)found / (double)(queries.count * k);
}

/* The least ef that reaches the recall, by bisection; what --set says goes before. */
static size_t ef_for(const kith_index *index) {
    size_t low = 1, high = EF_MAX;
    int64_t *ids = memory(queries.count * options.k, sizeof *ids);
    for (size_t i = 0; i < options.set_count; i++)
        if (strncmp(options.sets[i], "ef=", 3) == 0) low = high = number(options.sets[i] + 3);
    while (low < high) {
        size_t middle = (low + high) / 2;
        kith_search_params params = params_of(index, middle);
        (void)search(index, &params, ids);
        if (recall_of(ids) >= options.recall)
            high = middle;
        else
            low = middle + 1;
    }
    kith_search_params params = params_of(index, low);
    (void)search(index, &params, ids);
    if (low == EF_MAX && recall_of(ids) < options.recall)
        fail("no ef reaches --recall: a larger --set k_factor may");
    free(ids);
    return low;
}

/* ---- What a query does --------------------------------------------------------------------------------------- */

/* The graph inside an index, wherever it is wrapped. */
static kith_hnsw *graph_of(kith_index *index) {
    kith_prefetch *prefetch = kith_index_prefetch_inner(index);
    if (prefetch == NULL) fail("the index has no graph");
    return (kith_hnsw *)(void *)((char *)prefetch - offsetof(kith_hnsw, prefetch));
}

/* Instructions of a query in a batch of `count`: a child is stepped from one to the next, which needs no counter of the
 * processor and sees every instruction set. 0 where the system does not let it. Each turn of a string instruction counts. */
static double count_instructions(const kith_index *index, const kith_search_params *params, size_t count) {
    int64_t *ids = memory(count * options.k, sizeof *ids);
    kith_view some = queries;
    some.count = count;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        must(kith_index_search(index, &some, options.k, params, ids, NULL, NULL)); /* takes its scratch memory */
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) _exit(1);
        (void)raise(SIGSTOP);
        must(kith_index_search(index, &some, options.k, params, ids, NULL, NULL));
        (void)raise(SIGSTOP);
        _exit(0);
    }
    free(ids);
    int status;
    double steps = 0;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) return 0;
    do {
        steps++;
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) != 0 || waitpid(child, &status, 0) != child) return 0;
    } while (WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, &status, 0);
    return steps / (double)count;
}

static double lines_of(size_t bytes) { return (double)((bytes + KITH_ALIGNMENT - 1) / KITH_ALIGNMENT); }

static void print_work(kith_index *index, kith_search_params params) {
    const kith_hnsw *graph = graph_of(index);
    int64_t *ids = memory(queries.count * options.k, sizeof *ids);
    double hops = 0, distances = 0, refined = 0;
    params.reports = memory(queries.count, sizeof *params.reports);
    (void)search(index, &params, ids);
    for (size_t q = 0; q < queries.count; q++) {
        hops += (double)params.reports[q].hops / (double)queries.count;
        distances += (double)params.reports[q].distances / (double)queries.count;
        refined += (double)params.reports[q].refined / (double)queries.count;
    }
    double rows = distances * lines_of(graph->rows.item_bytes), links = hops * lines_of(graph->links.item_bytes);
    double exact = refined * lines_of(kith_dtype_row_bytes(index->dtype, index->dim));
    double bits = distances < (double)graph->node_count / 512 ? distances : (double)graph->node_count / 512;
    printf("%s, %zu vectors of %zu dimensions; ef %zu, k_factor %zu: recall %.4f\n", index->spec, index->count,
           index->dim, params.ef, params.k_factor, recall_of(ids));
    printf("a query: %.1f hops, %.0f distances, %.0f refined\n", hops, distances, refined);
    printf("cache lines: %.0f of rows, %.0f of links, %.0f of refined vectors, up to %.0f of marks: %.0f, %.0f "
           "KiB\n",
           rows, links, exact, bits, rows + links + exact + bits, (rows + links + exact + bits) / 16);
    free(params.reports);
    params.reports = NULL;
    size_t stepped = kith_min_size(options.steps, queries.count);
    double batch = count_instructions(index, &params, stepped), alone = count_instructions(index, &params, 1);
    printf("instructions of a query: %.0f in a batch of %zu, %.0f alone\n\n", batch, stepped, alone);
    free(ids);
}

/* ---- Switches --------------------------------------------------------------------------------------------------- */

/* An index, its state with all techniques on, and room for what stands in for a part of it. */
typedef struct subject {
    kith_index *index, *small_pages; /* the same once more, without huge pages */
    kith_hnsw *graph;
    kith_prefetch prefetch;
    const kith_code_vtable *code_vtable;
    kith_code_vtable code_without;
    kith_simd_table *kernels, kernels_saved;
    size_t entry_count;
} subject;

static void restore(subject *of) {
    of->graph->prefetch = of->prefetch;
    of->graph->entry_count = of->entry_count;
    if (of->graph->code != NULL) of->graph->code->vtable = of->code_vtable;
    *of->kernels = of->kernels_saved;
}

/* Searches look at a view of the index, which a change that changes nothing makes anew. */
static void show(const subject *of) {
    must(kith_change_begin(of->index));
    kith_change_end(of->index);
}

static void all(subject *of, size_t value) {
    (void)of;
    (void)value;
}
static void walks(subject *of, size_t value) { of->graph->prefetch.walks = (uint32_t)value; }
static void links(subject *of, size_t value) { of->graph->prefetch.links = (uint32_t)value; }
static void row_lines(subject *of, size_t value) { of->graph->prefetch.row_lines = (uint32_t)value; }
static void nothing_ahead(subject *of, size_t value) {
    links(of, value);
    row_lines(of, value);
}
static void entries(subject *of, size_t value) { of->graph->entry_count = kith_min_size(of->entry_count, value); }
static const kith_code_vtable *with_all;
static void rows_in_fours(const kith_code *code, const void *query, float base, const unsigned char *const *rows,
                          size_t count, float *out) {
    for (size_t i = 0; i < count; i += 4) with_all->rows(code, query, base, rows + i, 4, out + i);
}
static void fours(subject *of, size_t value) {
    (void)value;
    with_all = of->code_vtable;
    of->code_without.rows = rows_in_fours;
    of->graph->code->vtable = &of->code_without;
}
static void wide_projection(subject *of, size_t value) {
    (void)value;
    of->code_without.project_queries = NULL;
    of->graph->code->vtable = &of->code_without;
}

/* Kernels of the walk that belong to other instruction sets. */
static const char *const sets[] = {"ref", "avx2", "avx512-vnni", "neon"};
static void unseen(subject *of, size_t value) {
    const kith_graph_kernels *other = &kith_simd_find(sets[value])->graph;
    of->kernels->graph.unseen = other->unseen;
    of->kernels->graph.forgotten = other->forgotten;
}
static void offer(subject *of, size_t value) {
    of->kernels->graph.offer = kith_simd_find(sets[value])->graph.offer;
}
static void every(subject *of, size_t value) { *of->kernels = *kith_simd_find(sets[value]); }

typedef enum need { NEED_NOTHING, NEED_CODE, NEED_PROJECTION, NEED_SET, NEED_SMALL_PAGES } need;

typedef struct variant {
    const char *name;
    void (*apply)(subject *of, size_t value);
    size_t value;
    need need;
} variant;

static const variant variants[] = {
    {"all of them", all, 0, NEED_NOTHING},
    {"the same again: noise", all, 0, NEED_NOTHING},
    {"one walk at a time", walks, 1, NEED_NOTHING},
    {"three walks in turns", walks, 3, NEED_NOTHING},
    {"four walks in turns", walks, 4, NEED_NOTHING},
    {"no rows asked for ahead", row_lines, 0, NEED_NOTHING},
    {"no links asked for ahead", links, 0, NEED_NOTHING},
    {"links of the chosen node alone", links, 1, NEED_NOTHING},
    {"links of three nodes", links, 3, NEED_NOTHING},
    {"nothing asked for ahead", nothing_ahead, 0, NEED_NOTHING},
    {"estimates four at a time", fours, 0, NEED_CODE},
    {"queries projected in f32", wide_projection, 0, NEED_PROJECTION},
    {"marks tested one by one (C)", unseen, 0, NEED_SET},
    {"marks tested as with AVX2", unseen, 1, NEED_SET},
    {"pool with branches (C)", offer, 0, NEED_SET},
    {"pool as with AVX2", offer, 1, NEED_SET},
    {"one entry", entries, 1, NEED_NOTHING},
    {"8 entries", entries, 8, NEED_NOTHING},
    {"pages of 4 KiB", all, 0, NEED_SMALL_PAGES},
    {"all kernels without VNNI", every, 2, NEED_SET},
    {"all kernels as with AVX2", every, 1, NEED_SET},
    {"all kernels in C", every, 0, NEED_SET},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static bool is_there(const subject *of, const variant *one) {
    const kith_code *code = of->graph->code;
    if (options.only != NULL && one->apply != all && strstr(one->name, options.only) == NULL) return false;
    switch (one->need) {
        case NEED_NOTHING: return true;
        case NEED_CODE: return code != NULL;
        case NEED_PROJECTION: return code != NULL && code->vtable->project_queries != NULL;
        case NEED_SET: return kith_simd_find(sets[one->value]) != NULL;
        case NEED_SMALL_PAGES: return of->small_pages != NULL;
    }
    return false;
}

/* Loads an index with pages of 4 KiB only; NULL where the system does not let it. */
static kith_index *load_small_pages(const char *path) {
    kith_index *index;
    if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) return NULL;
    must(kith_index_load(path, &index));
    (void)prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    return index;
}

static subject subject_of(const char *path) {
    subject of = {.small_pages = load_small_pages(path)};
    must(kith_index_load(path, &of.index));
    of.graph = graph_of(of.index);
    of.prefetch = of.graph->prefetch;
    of.entry_count = of.graph->entry_count;
    if (of.graph->code != NULL) of.code_vtable = of.graph->code->vtable;
    of.kernels = (kith_simd_table *)(uintptr_t)kith_simd(); /* of this process alone, and its thread the only one */
    of.kernels_saved = *of.kernels;
    return of;
}

static double median_ratio(const double *seconds, const double *of, double *scratch) {
    for (size_t r = 0; r < options.rounds; r++) scratch[r] = seconds[r] / of[r];
    return kith_median(scratch, options.rounds);
}

/* Both ways of asking, each variant once a round, beginning with another one each time. */
static void run_switches(void) {
    subject of = subject_of(options.index);
    kith_search_params params = params_of(of.index, ef_for(of.index));
    size_t results = queries.count * options.k, rounds = options.rounds;
    int64_t *ids[VARIANTS] = {NULL};
    double *batch[VARIANTS] = {NULL}, *alone[VARIANTS] = {NULL}, *scratch = memory(rounds, sizeof *scratch);
    print_work(of.index, params);
    printf("kernels: %s; one thread, %zu queries a batch, %zu rounds\n", of.kernels->full_name, queries.count,
           rounds);
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < VARIANTS; i++) {
            size_t v = (i + r) % VARIANTS;
            if (!is_there(&of, &variants[v])) continue;
            if (ids[v] == NULL) {
                ids[v] = memory(results, sizeof *ids[v]);
                batch[v] = memory(rounds, sizeof *batch[v]);
                alone[v] = memory(rounds, sizeof *alone[v]);
            }
            const kith_index *index = variants[v].need == NEED_SMALL_PAGES ? of.small_pages : of.index;
            if (of.graph->code != NULL) of.code_without = *of.code_vtable;
            variants[v].apply(&of, variants[v].value);
            show(&of);
            alone[v][r] = search_alone(index, &params, ids[v]);
            batch[v][r] = search(index, &params, ids[v]);
            restore(&of);
        }
    memcpy(scratch, batch[0], rounds * sizeof *scratch);
    double each = kith_median(scratch, rounds) / (double)queries.count * 1e6;
    memcpy(scratch, alone[0], rounds * sizeof *scratch);
    double lone = kith_median(scratch, rounds) / (double)queries.count * 1e6;
    printf("a query takes %.2f us in a batch, %.2f us alone\n\n", each, lone);
    printf("| without it: time, of that with all | batch | alone | results |\n|---|---|---|---|\n");
    for (size_t v = 1; v < VARIANTS; v++) {
        if (ids[v] == NULL) continue;
        bool same = memcmp(ids[v], ids[0], results * sizeof *ids[v]) == 0;
        char found[32];
        (void)snprintf(found, sizeof found, same ? "the same" : "recall %.4f", recall_of(ids[v]));
        printf("| %s | %.2f | %.2f | %s |\n", variants[v].name, median_ratio(batch[v], batch[0], scratch),
               median_ratio(alone[v], alone[0], scratch), found);
    }
    for (size_t v = 0; v < VARIANTS; v++) {
        free(ids[v]);
        free(batch[v]);
        free(alone[v]);
    }
    free(scratch);
    kith_index_free(of.index);
    kith_index_free(of.small_pages);
}

/* ---- Builds ----------------------------------------------------------------------------------------------------- */

typedef struct built {
    const char *spec, *how;
    kith_index *index;
    double build_seconds, *batch;
    kith_search_params params;
    double recall;
} built;

/* In pieces of `piece` vectors: those of less than KITH_HNSW_BULK_MIN are linked by walks. */
static void build(const kith_view *base, const char *spec, size_t piece, built *out) {
    kith_job job;
    kith_job_init(&job);
    job.threads = options.threads;
    must(kith_index_create(spec, base->dim, options.metric, &out->index));
    must(kith_index_train(out->index, base, &job));
    double start = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    for (size_t first = 0; first < base->count; first += piece) {
        kith_view part = *base;
        part.data = (const char *)base->data + first * kith_dtype_row_bytes(base->dtype, base->dim);
        part.count = kith_min_size(piece, base->count - first);
        must(kith_index_add(out->index, &part, NULL, &job));
    }
    out->build_seconds = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - start;
    out->spec = spec;
    out->how = piece < KITH_HNSW_BULK_MIN ? "walks" : "at once";
    (void)graph_of(out->index);
    out->params = params_of(out->index, ef_for(out->index));
    out->batch = memory(options.rounds, sizeof *out->batch);
}

static void run_builds(void) {
    kith_view base = load(options.base, SIZE_MAX);
    built all_built[2 * SPECS_MAX];
    size_t count = 0, rounds = options.rounds;
    int64_t *ids = memory(queries.count * options.k, sizeof *ids);
    double *scratch = memory(rounds, sizeof *scratch);
    for (size_t s = 0; s < options.spec_count; s++) {
        build(&base, options.specs[s], base.count, &all_built[count++]);
        if (s == 0) build(&base, options.specs[s], options.pieces, &all_built[count++]);
    }
    for (size_t r = 0; r < rounds; r++)
        for (size_t i = 0; i < count; i++) {
            built *one = &all_built[(i + r) % count];
            one->batch[r] = search(one->index, &one->params, ids);
            if (r == 0) one->recall = recall_of(ids);
        }
    printf("| spec | linked | processor seconds | ef | recall | time of a query, of the first "
           "|\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < count; i++)
        printf("| `%s` | %s | %.1f | %zu | %.4f | %.2f |\n", all_built[i].spec, all_built[i].how,
               all_built[i].build_seconds, all_built[i].params.ef, all_built[i].recall,
               median_ratio(all_built[i].batch, all_built[0].batch, scratch));
    for (size_t i = 0; i < count; i++) {
        kith_index_free(all_built[i].index);
        free(all_built[i].batch);
    }
    free(scratch);
    free(ids);
    free((void *)(uintptr_t)base.data);
}

int main(int argc, char **argv) {
    read_options(argc, argv);
    queries = load(options.query, options.queries);
    must(kith_neighbors_load(options.gt, NULL, &truth));
    if (truth->query_count < queries.count || truth->k < options.k) fail("--gt has too few queries or neighbours");
    must(kith_search_context_create(&context));
    if (options.index != NULL)
        run_switches();
    else
        run_builds();
    kith_search_context_free(context);
    kith_neighbors_free(truth);
    free((void *)(uintptr_t)queries.data);
    return 0;
}
