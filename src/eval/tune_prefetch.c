/* SPDX-License-Identifier: Apache-2.0
 *
 * tune_prefetch.c: how far ahead searches of a graph ask for memory, chosen by the clock on vectors that are stored. One
 * number after the other, from what the index has; a setting is taken when a sign test and the median both say so.
 */
#include <string.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/options.h"
#include "base/sort.h"
#include "index/vtable.h"
#include "kith/tune.h"

enum { ROUNDS_MIN = 5, ROUNDS_MAX = 1000, VALUES = 4, LOST_SHARE = 11 };
static const double time_share_max = 0.98;

/* What is tried of each number; the one that the index has is passed over. */
typedef struct axis {
    size_t offset;
    uint32_t values[VALUES];
} axis;

static const axis axes[] = {
    {offsetof(kith_prefetch, row_lines), {1, 4, 16, 64}},
    {offsetof(kith_prefetch, links), {1, 2, 3, 4}},
    {offsetof(kith_prefetch, walks), {1, 2, 3, 4}},
};
enum { AXES = sizeof axes / sizeof *axes };
_Static_assert(AXES *VALUES <= KITH_PREFETCH_TRIALS_MAX, "there is room for all trials");

typedef struct work {
    kith_index *index;
    kith_prefetch_options options;
    kith_arena arena;
    kith_search_context *context;
    kith_search_params params;
    kith_view queries;
    int64_t *ids;
    size_t k, *counts;
    double *seconds[VALUES + 1]; /* of each round: the best so far, and those that are tried beside it */
    double *shares;
    kith_meter meter;
    kith_prefetch_tuning *out;
} work;

void kith_prefetch_options_init(kith_prefetch_options *options) {
    *options =
        (kith_prefetch_options){.size = sizeof *options, .k = 10, .query_count = 1000, .rounds = 11, .threads = 1};
}

static kith_status read_arguments(work *own, kith_index *index, const kith_prefetch_options *given) {
    kith_prefetch_options *options = &own->options;
    kith_prefetch held = {.size = sizeof held};
    kith_prefetch_options_init(options);
    KITH_TRY(kith_options_read("prefetch options", options, sizeof *options, given));
    KITH_TRY(kith_index_check_writable("prefetch", index));
    KITH_TRY(kith_index_prefetch(index, &held));
    if (index->count == 0) return kith_error(KITH_ERR_EMPTY, "prefetch: the index holds no vectors");
    if (options->k == 0 || options->query_count == 0)
        return kith_error(KITH_ERR_ARGUMENT, "prefetch: k and query_count must not be 0");
    if (options->rounds < ROUNDS_MIN || options->rounds > ROUNDS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "prefetch: rounds = %zu is outside %d..%d", options->rounds,
                          ROUNDS_MIN, ROUNDS_MAX);
    own->index = index;
    own->k = kith_min_size(options->k, index->count);
    own->out->before = own->out->chosen = held;
    own->out->query_count = kith_min_size(options->query_count, index->count);
    own->out->rounds = options->rounds;
    return kith_threads_read(options->threads, &options->threads);
}

/* Stored vectors, from all over the index. */
static kith_status take_queries(work *own) {
    size_t count = own->out->query_count, all = own->index->count;
    int64_t *ids, *sample;
    float *vectors;
    KITH_TRY(kith_arena_take(&own->arena, all, sizeof *ids, &ids));
    KITH_TRY(kith_arena_take(&own->arena, count, sizeof *sample, &sample));
    KITH_TRY(kith_arena_take(&own->arena, count, own->index->dim * sizeof *vectors, &vectors));
    own->index->vtable->list_ids(own->index, ids);
    for (size_t i = 0; i < count; i++) sample[i] = ids[(size_t)((double)i / (double)count * (double)all)];
    KITH_TRY(kith_index_reconstruct(own->index, sample, count, vectors));
    own->queries = (kith_view){vectors, KITH_F32, count, own->index->dim, 0};
    return KITH_OK;
}

static kith_status open_work(work *own) {
    size_t count = own->out->query_count, row_bytes;
    if (kith_mul_overflows(own->k, sizeof *own->ids, &row_bytes)) row_bytes = SIZE_MAX;
    KITH_TRY(kith_arena_begin(&own->arena));
    KITH_TRY(take_queries(own));
    KITH_TRY(kith_arena_take(&own->arena, count, row_bytes, &own->ids));
    KITH_TRY(kith_arena_take(&own->arena, count, sizeof *own->counts, &own->counts));
    for (size_t s = 0; s <= VALUES; s++)
        KITH_TRY(kith_arena_take(&own->arena, own->options.rounds, sizeof(double), &own->seconds[s]));
    KITH_TRY(kith_arena_take(&own->arena, own->options.rounds, sizeof(double), &own->shares));
    KITH_TRY(kith_search_context_create(&own->context));
    kith_search_params_init(&own->params);
    own->params.ef = own->options.ef;
    own->params.threads = own->options.threads;
    own->params.context = own->context;
    kith_meter_init(&own->meter, own->options.progress, own->options.progress_user, "prefetch",
                    (uint64_t)AXES * own->options.rounds);
    return KITH_OK;
}

static kith_status time_one(work *own, const kith_prefetch *prefetch, double *seconds) {
    KITH_TRY(kith_index_set_prefetch(own->index, prefetch));
    uint64_t start = kith_now_ns();
    KITH_TRY(kith_index_search(own->index, &own->queries, own->k, &own->params, own->ids, NULL, own->counts));
    *seconds = (double)(kith_now_ns() - start) * 1e-9;
    return KITH_OK;
}

static double median(const work *own, const double *values) {
    memcpy(own->shares, values, own->options.rounds * sizeof *values);
    return kith_median(own->shares, own->options.rounds);
}

/* Holds the seconds of trial `t` of an axis against those of the best so far. */
static void judge(const work *own, size_t t, kith_prefetch_trial *trial) {
    size_t rounds = own->options.rounds;
    for (size_t r = 0; r < rounds; r++) {
        own->seconds[t][r] /= own->seconds[0][r];
        trial->faster_count += own->seconds[t][r] < 1;
    }
    trial->time_share = median(own, own->seconds[t]);
}

/* Tries the values of one number beside what has been chosen so far, and takes the best one if it is better. */
static kith_status try_axis(work *own, const axis *one) {
    kith_prefetch_tuning *out = own->out;
    kith_prefetch settings[VALUES + 1] = {out->chosen};
    size_t count = 1, rounds = own->options.rounds;
    for (size_t v = 0; v < VALUES; v++) {
        uint32_t *value = (uint32_t *)(void *)((char *)&settings[count] + one->offset);
        settings[count] = out->chosen;
        if (*value == one->values[v]) continue;
        *value = one->values[v];
        count++;
    }
    for (size_t r = 0; r < rounds; r++) {
        for (size_t s = 0; s < count; s++) {
            size_t turn = (s + r) % count;
            KITH_TRY(time_one(own, &settings[turn], &own->seconds[turn][r]));
        }
        KITH_TRY(kith_meter_add(&own->meter, 1));
    }
    out->qps = (double)out->query_count / median(own, own->seconds[0]);
    if (out->trial_count == 0) out->qps_before = out->qps;
    kith_prefetch_trial *best = NULL;
    for (size_t s = 1; s < count; s++) {
        kith_prefetch_trial *trial = &out->trials[out->trial_count++];
        *trial = (kith_prefetch_trial){.prefetch = settings[s]};
        judge(own, s, trial);
        bool is_better = trial->time_share <= time_share_max && trial->faster_count >= rounds - rounds / LOST_SHARE;
        if (is_better && (best == NULL || trial->time_share < best->time_share)) best = trial;
    }
    if (best == NULL) return KITH_OK;
    best->is_taken = 1;
    out->chosen = best->prefetch;
    out->qps /= best->time_share;
    return KITH_OK;
}

static kith_status tune(work *own) {
    double seconds;
    KITH_TRY(open_work(own));
    KITH_TRY(time_one(own, &own->out->before, &seconds)); /* warms up */
    for (size_t a = 0; a < AXES; a++) KITH_TRY(try_axis(own, &axes[a]));
    KITH_TRY(kith_meter_finish(&own->meter));
    return kith_index_set_prefetch(own->index, &own->out->chosen);
}

kith_status kith_prefetch_tune(kith_index *index, const kith_prefetch_options *options, kith_prefetch_tuning *out) {
    if (out == NULL) return kith_error(KITH_ERR_ARGUMENT, "prefetch: out must not be NULL");
    memset(out, 0, sizeof *out);
    work own = {.out = out};
    KITH_TRY(read_arguments(&own, index, options));
    kith_status status = tune(&own);
    if (status != KITH_OK) {
        *kith_index_prefetch_inner(index) = out->before;
        memset(out, 0, sizeof *out);
    }
    kith_search_context_free(own.context);
    kith_arena_free(&own.arena);
    return status;
}
