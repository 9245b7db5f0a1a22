/* SPDX-License-Identifier: Apache-2.0
 *
 * bench_live.c: an index that changes beside a fresh one that holds the same.
 *
 *   rounds    a share of the vectors is removed and as many come in, many times over
 *   shares    half of the vectors removed, then 99 in 100: in one call, and in calls of 1% each
 *   rates     vectors added, removed and updated a second, in batches of the same share and one at a time; the share
 *             is removed one at a time as well, so that what removals put off is part of their rate
 *   load      one thread adds while another searches, beside each of them alone: an index with half of the vectors gets
 *             the others, in as many turns as there are repeats, at the first width. Times of single queries are those
 *             of all turns together
 *
 * Recall is that of the k nearest against an exact search of what lives. Speed is that of one thread, the changed index
 * and the fresh one in turn, the best of the repeats of each; "at equal recall" is that of the changed index where it finds
 * what the fresh one finds, between two widths by interpolation, "-" where no width does. Distances are what a query
 * computes on average: they do not depend on what else the machine does; reached, the nodes that walks can come to.
 * --help has the options.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kith/kith.h"

#define PROGRAM "bench_live"
#include "bench_tools.h"

static const char usage[] =
    "bench_live --base FILE --query FILE [options]: an index that changes beside a fresh one\n"
    "  --spec SPEC     the index (HNSW32)\n"
    "  --metric NAME   l2, ip, cosine (l2)\n"
    "  --rows N        use the first N vectors (all)\n"
    "  --queries N     use the first N queries (1000)\n"
    "  --k N           neighbours (10)\n"
    "  --ef LIST       search widths to compare at, rising (10,16,24,40,64,100); of inverted lists: nprobe\n"
    "  --rounds N      rounds of removing and adding (100)\n"
    "  --percent N     of the live vectors that go and come in a round (10)\n"
    "  --singles N     additions and updates made one at a time (500)\n"
    "  --threads N     of additions (2)\n"
    "  --repeats N     timed repeats of each search (5)\n"
    "  --batch N       vectors that come in at a time under load (1)\n"
    "  --parts LIST    of rounds,shares,rates,load (all)\n";

enum { EFS_MAX = 16 };

typedef struct settings {
    const char *base, *query, *spec, *parts;
    kith_metric metric;
    size_t rows, queries, k, rounds, percent, singles, threads, repeats, batch;
    size_t efs[EFS_MAX], ef_count;
} settings;

typedef struct bench {
    settings settings;
    kith_view base, queries;
    void *base_memory, *query_memory;
    uint64_t state; /* of random numbers */
} bench;

/* Which rows live: `ids` holds the live ones first, then the others. */
typedef struct census {
    int64_t *ids;
    size_t live, all;
} census;

static double now(void) { return seconds_of(CLOCK_MONOTONIC); }

/* splitmix64 (Steele, Lea, Flood, OOPSLA'14). */
static size_t draw(bench *b, size_t bound) {
    uint64_t x = b->state += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return (size_t)((x ^ (x >> 31)) % bound);
}

/* ---- Options ---------------------------------------------------------------------------------------------- */

static size_t number(const char *text) {
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || value == 0) fail("a number of 1 or more is needed");
    return (size_t)value;
}

static void read_efs(settings *s, const char *text) {
    s->ef_count = 0;
    for (const char *at = text; *at != '\0' && s->ef_count < EFS_MAX;) {
        char *end;
        s->efs[s->ef_count++] = strtoull(at, &end, 10);
        if (end == at || (*end != ',' && *end != '\0')) fail("--ef: numbers and commas are needed");
        at = *end == ',' ? end + 1 : end;
    }
}

static void read_option(settings *s, const char *name, const char *value) {
    const struct {
        const char *name;
        size_t *number;
    } numbers[] = {{"--rows", &s->rows},       {"--queries", &s->queries}, {"--k", &s->k},
                   {"--rounds", &s->rounds},   {"--percent", &s->percent}, {"--singles", &s->singles},
                   {"--threads", &s->threads}, {"--repeats", &s->repeats}, {"--batch", &s->batch}};
    const struct {
        const char *name;
        const char **text;
    } texts[] = {{"--base", &s->base}, {"--query", &s->query}, {"--spec", &s->spec}, {"--parts", &s->parts}};
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
    if (strcmp(name, "--metric") == 0) {
        must(kith_metric_parse(value, &s->metric));
    } else if (strcmp(name, "--ef") == 0) {
        read_efs(s, value);
    } else {
        fail(usage);
    }
}

static void read_options(settings *s, int argc, char **argv) {
    *s = (settings){.spec = "HNSW32",
                    .parts = "rounds,shares,rates,load",
                    .metric = KITH_L2,
                    .rows = SIZE_MAX,
                    .queries = 1000,
                    .k = 10,
                    .rounds = 100,
                    .percent = 10,
                    .singles = 500,
                    .threads = 2,
                    .repeats = 5,
                    .batch = 1};
    read_efs(s, "10,16,24,40,64,100");
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage, stdout);
        exit(0);
    }
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) fail(usage);
        read_option(s, argv[i], argv[i + 1]);
    }
    if (s->base == NULL || s->query == NULL || s->percent > 90) fail(usage);
}

/* The first rows of a file, in its own type. */
static kith_view load(const char *path, size_t most, void **owned) {
    kith_vectors *vectors;
    must(kith_vectors_open(path, NULL, &vectors));
    size_t count = kith_vectors_count(vectors), dim = kith_vectors_dim(vectors);
    kith_dtype dtype = kith_vectors_dtype(vectors);
    if (count > most) count = most;
    *owned = memory(count, kith_dtype_row_bytes(dtype, dim));
    must(kith_vectors_read(vectors, 0, count, dtype, *owned));
    kith_vectors_close(vectors);
    return (kith_view){*owned, dtype, count, dim, 0};
}

/* ---- Indexes ---------------------------------------------------------------------------------------------- */

/* The rows of some ids, packed. */
static kith_view rows_of(const bench *b, const int64_t *ids, size_t count, void **owned) {
    size_t row_bytes = kith_dtype_row_bytes(b->base.dtype, b->base.dim);
    unsigned char *rows = memory(count, row_bytes);
    for (size_t i = 0; i < count; i++)
        memcpy(rows + i * row_bytes, (const unsigned char *)b->base.data + (size_t)ids[i] * row_bytes, row_bytes);
    *owned = rows;
    return (kith_view){rows, b->base.dtype, count, b->base.dim, 0};
}

static double add(const bench *b, kith_index *index, const int64_t *ids, size_t count) {
    void *owned;
    kith_job job;
    kith_job_init(&job);
    job.threads = b->settings.threads;
    kith_view view = rows_of(b, ids, count, &owned);
    double start = now();
    must(kith_index_add(index, &view, ids, &job));
    double seconds = now() - start;
    free(owned);
    return seconds;
}

static double take_out(kith_index *index, const int64_t *ids, size_t count) {
    size_t removed;
    double start = now();
    must(kith_index_remove(index, ids, count, &removed));
    if (removed != count) fail("a vector was not there");
    return now() - start;
}

static int compare_ids(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* An index of the live vectors, in the order of their ids. */
static kith_index *fresh(const bench *b, const char *spec, const census *all, double *seconds) {
    kith_index *index;
    kith_job job;
    kith_job_init(&job);
    job.threads = b->settings.threads;
    must(kith_index_create(spec, b->base.dim, b->settings.metric, &index));
    must(kith_index_train(index, &b->base, &job));
    int64_t *ids = memory(all->live, sizeof *ids);
    memcpy(ids, all->ids, all->live * sizeof *ids);
    qsort(ids, all->live, sizeof *ids, compare_ids);
    *seconds = add(b, index, ids, all->live);
    free(ids);
    return index;
}

static census census_make(size_t all, size_t live) {
    census made = {memory(all, sizeof(int64_t)), live, all};
    for (size_t i = 0; i < all; i++) made.ids[i] = (int64_t)i;
    return made;
}

static void swap_ids(census *all, size_t a, size_t c) {
    int64_t id = all->ids[a];
    all->ids[a] = all->ids[c];
    all->ids[c] = id;
}

/* Draws `count` live rows; they come to stand just behind the others that live. */
static const int64_t *draw_live(bench *b, census *all, size_t count) {
    for (size_t i = 0; i < count; i++) swap_ids(all, draw(b, all->live - i), all->live - 1 - i);
    all->live -= count;
    return all->ids + all->live;
}

/* Draws `count` rows that do not live, and lets them. Those that went last may come back. */
static const int64_t *draw_waiting(bench *b, census *all, size_t count) {
    for (size_t i = 0; i < count; i++)
        swap_ids(all, all->live + i, all->live + i + draw(b, all->all - all->live - i));
    all->live += count;
    return all->ids + all->live - count;
}

/* ---- Comparison ------------------------------------------------------------------------------------------- */

static void set_width(kith_search_params *params, size_t ef) {
    params->ef = ef;
    params->nprobe = ef;
}

/* What an index does at one width. */
typedef struct point {
    double recall, qps, distances;
} point;

static double recall(const bench *b, const int64_t *ids, const int64_t *truth) {
    size_t k = b->settings.k, found = 0;
    for (size_t q = 0; q < b->queries.count; q++)
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < k; j++) found += ids[q * k + i] == truth[q * k + j];
    return (double)found / (double)(b->queries.count * k);
}

static void look_up(const bench *b, const kith_index *index, size_t ef, int64_t *ids, const int64_t *truth,
                    point *out) {
    kith_search_params params;
    kith_search_params_init(&params);
    set_width(&params, ef);
    double start = now();
    must(kith_index_search(index, &b->queries, b->settings.k, &params, ids, NULL, NULL));
    double qps = (double)b->queries.count / (now() - start);
    if (qps > out->qps) out->qps = qps;
    if (out->distances > 0) return; /* the rest is the same each time */
    out->recall = recall(b, ids, truth);
    params.reports = memory(b->queries.count, sizeof *params.reports);
    must(kith_index_search(index, &b->queries, b->settings.k, &params, ids, NULL, NULL));
    for (size_t q = 0; q < b->queries.count; q++)
        out->distances += (double)params.reports[q].distances / (double)b->queries.count;
    free(params.reports);
}

/* The rate at a recall, between two widths log-linear; 0 where it is not reached. */
static double rate_at(const point *points, size_t count, double wanted) {
    size_t above = 0;
    while (above < count && points[above].recall < wanted) above++;
    if (above == count) return 0;
    if (above == 0) return points[0].qps;
    const point *low = &points[above - 1], *high = &points[above];
    return low->qps * pow(high->qps / low->qps, (wanted - low->recall) / (high->recall - low->recall));
}

/* The share of a graph's nodes that a search can reach; "-" for what is no graph. */
static void reached(const kith_index *index, char text[static 16]) {
    kith_graph_stats stats = {.size = sizeof stats};
    size_t count;
    kith_status status = kith_index_graph_stats(index, &stats, NULL, 0, &count);
    if (status == KITH_ERR_UNSUPPORTED) {
        (void)snprintf(text, 16, "-");
        return;
    }
    must(status);
    (void)snprintf(text, 16, "%.4g%%", 100 * (double)stats.reachable_count / (double)stats.node_count);
}

static void print_points(const bench *b, const kith_index *index, const char *what, size_t live,
                         const point *changed, const point *other) {
    char reached_text[16];
    reached(index, reached_text);
    for (size_t e = 0; e < b->settings.ef_count; e++) {
        double equal = rate_at(changed, b->settings.ef_count, other[e].recall);
        char equal_text[32] = "-";
        if (equal > 0) (void)snprintf(equal_text, sizeof equal_text, "%.2f", equal / other[e].qps);
        printf("| %s | %zu | %zu | %.4f | %.4f | %.0f | %.0f | %.2f | %s | %.0f | %.0f | %s |\n", what, live,
               b->settings.efs[e], changed[e].recall, other[e].recall, changed[e].qps, other[e].qps,
               changed[e].qps / other[e].qps, equal_text, changed[e].distances, other[e].distances, reached_text);
    }
    fflush(stdout);
}

/* The changed index beside a fresh one, at each width: rows of the table. */
static void compare(const bench *b, const kith_index *index, const census *all, const char *what) {
    size_t results = b->queries.count * b->settings.k;
    int64_t *truth = memory(results, sizeof *truth), *ids = memory(results, sizeof *ids);
    double seconds;
    kith_index *flat = fresh(b, "Flat", all, &seconds), *other = fresh(b, b->settings.spec, all, &seconds);
    kith_search_params params;
    kith_search_params_init(&params);
    params.threads = 0;
    must(kith_index_search(flat, &b->queries, b->settings.k, &params, truth, NULL, NULL));
    kith_index_free(flat);
    point points[2][EFS_MAX] = {{{0}}};
    for (size_t r = 0; r < b->settings.repeats; r++)
        for (size_t e = 0; e < b->settings.ef_count; e++)
            for (size_t i = 0; i < 2; i++)
                look_up(b, i == 0 ? index : other, b->settings.efs[e], ids, truth, &points[i][e]);
    print_points(b, index, what, all->live, points[0], points[1]);
    kith_index_free(other);
    free(truth);
    free(ids);
}

static void print_heading(void) {
    printf("| after | live | ef | recall | fresh | QPS | fresh | ratio | at equal recall | distances | fresh | "
           "reached |\n"
           "|---|---|---|---|---|---|---|---|---|---|---|---|\n");
}

/* ---- The three parts -------------------------------------------------------------------------------------- */

static void run_rounds(bench *b) {
    size_t all = b->base.count, live = all - all * b->settings.percent / (100 + b->settings.percent);
    size_t moved = live * b->settings.percent / 100;
    census rows = census_make(all, live);
    double seconds, adding = 0, removing = 0;
    kith_index *index = fresh(b, b->settings.spec, &rows, &seconds);
    for (size_t r = 0; r < b->settings.rounds; r++) {
        removing += take_out(index, draw_live(b, &rows, moved), moved);
        adding += add(b, index, draw_waiting(b, &rows, moved), moved);
    }
    char what[96];
    (void)snprintf(what, sizeof what, "%zu rounds of %zu%%", b->settings.rounds, b->settings.percent);
    double moves = (double)(b->settings.rounds * moved);
    printf("%s: removed %.0f a second, added %.0f a second; the fresh build %.0f a second\n\n", what,
           moves / removing, moves / adding, (double)live / seconds);
    print_heading();
    compare(b, index, &rows, what);
    printf("\n");
    kith_index_free(index);
    free(rows.ids);
}

static void run_shares(bench *b) {
    static const size_t lefts[] = {50, 1}; /* per cent */
    print_heading();
    for (size_t pieces = 0; pieces < 2; pieces++) {
        census rows = census_make(b->base.count, b->base.count);
        double seconds;
        kith_index *index = fresh(b, b->settings.spec, &rows, &seconds);
        for (size_t s = 0; s < 2; s++) {
            size_t left = rows.all * lefts[s] / 100, step = pieces != 0 ? rows.all / 100 : rows.all;
            while (rows.live > left) {
                size_t count = rows.live - left < step ? rows.live - left : step;
                (void)take_out(index, draw_live(b, &rows, count), count);
            }
            char what[96];
            (void)snprintf(what, sizeof what, "%zu%% removed, %s", 100 - lefts[s],
                           pieces != 0 ? "in calls of 1%" : "in one call");
            compare(b, index, &rows, what);
        }
        kith_index_free(index);
        free(rows.ids);
    }
    printf("\n");
}

static void run_rates(bench *b) {
    size_t all = b->base.count, part = all * b->settings.percent / 100, singles = b->settings.singles;
    if (singles > part) singles = part;
    census rows = census_make(all, all);
    double building;
    kith_index *index = fresh(b, b->settings.spec, &rows, &building);
    double removing = take_out(index, draw_live(b, &rows, part), part);
    double adding = add(b, index, draw_waiting(b, &rows, part), part);
    double single_add = 0, single_remove = 0, single_update = 0;
    const int64_t *ids = draw_live(b, &rows, part);
    for (size_t i = 0; i < part; i++) single_remove += take_out(index, ids + i, 1);
    ids = draw_waiting(b, &rows, singles);
    for (size_t i = 0; i < singles; i++) single_add += add(b, index, ids + i, 1);
    for (size_t i = 0; i < singles; i++) {
        void *owned;
        kith_view view = rows_of(b, rows.ids + i, 1, &owned);
        double start = now();
        must(kith_index_update(index, &view, rows.ids + i));
        single_update += now() - start;
        free(owned);
    }
    printf("| vectors a second | built | added | removed | updated |\n|---|---|---|---|---|\n");
    printf("| %zu at once, %zu threads | %.0f | %.0f | %.0f | |\n", part, b->settings.threads,
           (double)all / building, (double)part / adding, (double)part / removing);
    printf("| one at a time | | %.0f | %.0f | %.0f |\n\n", (double)singles / single_add,
           (double)part / single_remove, (double)singles / single_update);
    kith_index_free(index);
    free(rows.ids);
}

/* ---- Load --------------------------------------------------------------------------------------------------- */

/* Times of single queries, in seconds. */
typedef struct times {
    double *seconds, total;
    size_t count, room;
} times;

typedef struct load_call {
    const bench *b;
    kith_index *index;
    const int64_t *ids; /* to be added */
    size_t count;
    double adding; /* seconds it took */
    _Atomic int done;
} load_call;

static void note_time(times *t, double seconds) {
    if (t->count == t->room) {
        t->room = t->room * 2 + 1024;
        t->seconds = realloc(t->seconds, t->room * sizeof *t->seconds);
        if (t->seconds == NULL) fail("out of memory");
    }
    t->seconds[t->count++] = seconds;
    t->total += seconds;
}

static int compare_times(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *add_all(void *context) {
    load_call *call = context;
    const bench *b = call->b;
    void *owned;
    kith_job job;
    kith_job_init(&job);
    job.threads = 1;
    kith_view view = rows_of(b, call->ids, call->count, &owned);
    const size_t row_bytes = kith_dtype_row_bytes(view.dtype, view.dim);
    double start = now();
    for (size_t first = 0; first < call->count; first += b->settings.batch) {
        kith_view part = view;
        part.data = (const unsigned char *)owned + first * row_bytes;
        part.count = call->count - first < b->settings.batch ? call->count - first : b->settings.batch;
        must(kith_index_add(call->index, &part, call->ids + first, &job));
    }
    call->adding = now() - start;
    free(owned);
    atomic_store(&call->done, 1);
    return NULL;
}

/* One query after the other: for so many seconds, or, where these are 0, until all has been added. */
static void search_alone(const bench *b, load_call *call, double seconds, times *out) {
    kith_search_params params;
    kith_search_params_init(&params);
    set_width(&params, b->settings.efs[0]);
    must(kith_search_context_create(&params.context));
    int64_t *ids = memory(b->settings.k, sizeof *ids);
    kith_view one = b->queries;
    one.count = 1;
    double end = now() + seconds;
    for (size_t q = 0;; q = (q + 1) % b->queries.count) {
        one.data = (const unsigned char *)b->queries.data + q * kith_dtype_row_bytes(one.dtype, one.dim);
        double start = now();
        if (seconds > 0 ? start >= end : atomic_load(&call->done) != 0) break;
        must(kith_index_search(call->index, &one, b->settings.k, &params, ids, NULL, NULL));
        note_time(out, now() - start);
    }
    free(ids);
    kith_search_context_free(params.context);
}

static void print_load(const char *what, times *t, double added) {
    qsort(t->seconds, t->count, sizeof *t->seconds, compare_times);
    printf("| %s | ", what);
    if (t->count > 0)
        printf("%.0f | %.0f | %.0f | %.0f |", (double)t->count / t->total, t->seconds[t->count / 2] * 1e6,
               t->seconds[t->count * 99 / 100] * 1e6, t->seconds[t->count * 999 / 1000] * 1e6);
    else
        printf("| | | |");
    if (added > 0) printf(" %.0f", added);
    printf(" |\n");
}

static void run_load(bench *b) {
    census rows = census_make(b->base.count, b->base.count / 2);
    double building, adding[2] = {0};
    kith_index *index = fresh(b, b->settings.spec, &rows, &building);
    size_t turn = (rows.all - rows.live) / (2 * b->settings.repeats), added = turn * b->settings.repeats;
    times alone = {0}, beside = {0}, none = {0};
    if (turn == 0) fail("load: too few vectors for so many repeats");
    const double seconds_min = 0.2;
    for (size_t r = 0; r < b->settings.repeats; r++) {
        load_call call = {.b = b, .index = index, .count = turn};
        call.ids = draw_waiting(b, &rows, turn);
        (void)add_all(&call);
        adding[0] += call.adding;
        search_alone(b, &call, fmax(call.adding, seconds_min), &alone);
        load_call both = {.b = b, .index = index, .count = turn};
        both.ids = draw_waiting(b, &rows, turn);
        pthread_t adder;
        if (pthread_create(&adder, NULL, add_all, &both) != 0) fail("no thread");
        search_alone(b, &both, 0, &beside);
        (void)pthread_join(adder, NULL);
        adding[1] += both.adding;
    }
    printf("%zu vectors at first, %zu at last, %zu at a time\n\n", b->base.count / 2, rows.live, b->settings.batch);
    printf("| load | queries a second | p50, us | p99, us | p99.9, us | added a second "
           "|\n|---|---|---|---|---|---|\n");
    print_load("one searches", &alone, 0);
    print_load("one adds", &none, (double)added / adding[0]);
    print_load("both", &beside, (double)added / adding[1]);
    printf("\np99 with the adder %.2f of that without; additions with the searcher %.2f of those without\n\n",
           beside.seconds[beside.count * 99 / 100] / alone.seconds[alone.count * 99 / 100], adding[0] / adding[1]);
    kith_index_free(index);
    free(alone.seconds);
    free(beside.seconds);
    free(rows.ids);
}

int main(int argc, char **argv) {
    bench b = {.state = 1};
    read_options(&b.settings, argc, argv);
    b.base = load(b.settings.base, b.settings.rows, &b.base_memory);
    b.queries = load(b.settings.query, b.settings.queries, &b.query_memory);
    printf("%s: %zu vectors of dimension %zu, %zu queries, %s, %s\n\n", b.settings.base, b.base.count, b.base.dim,
           b.queries.count, b.settings.spec, kith_metric_name(b.settings.metric));
    if (strstr(b.settings.parts, "load") != NULL) run_load(&b);
    if (strstr(b.settings.parts, "rates") != NULL) run_rates(&b);
    if (strstr(b.settings.parts, "shares") != NULL) run_shares(&b);
    if (strstr(b.settings.parts, "rounds") != NULL) run_rounds(&b);
    free(b.base_memory);
    free(b.query_memory);
    return 0;
}
