/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_train.c: what an index learns from a sample: the centroids by k-means, then the code on the vectors, or on what
 * the centroids leave of them, then codes of the centroids themselves for a faster coarse step. Nothing of the index
 * changes before all of it is there.
 *
 * Under ip and cosine the centroids have unit length and vectors go to the largest inner product; a vector without
 * direction, which only ip allows, is left out of the sample.
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/random.h"
#include "index/codes.h"
#include "index/convert.h"
#include "ivf/ivf_inside.h"
#include "kith/kmeans.h"
#include "sq/sq.h"

enum {
    POINTS_PER_CENTROID = 256,
    ITERATIONS = 10,
    STREAM_SAMPLE = 11,
    STREAM_CODE = 12,
    CONVERT_ROWS = 256,
    AUTO_POINTS_PER_LIST = 39, /* with fewer the centroids follow the sample, not the data */
    COARSE_LISTS_MIN = 128
};
static const size_t coarse_elements_min =
    65536; /* of all centroids: 256 KiB, which a first-level cache cannot hold */

/* ---- A sample ------------------------------------------------------------------------------------------------- */

typedef struct sample {
    const float *rows; /* count x dim */
    float *own;        /* the same, unless the caller's rows serve */
    size_t count, dim;
} sample;

/* Numbers of `wanted` of `count` rows, rising (Knuth, TAOCP 2, 3.4.2, algorithm S). */
static void choose(size_t count, size_t wanted, uint64_t seed, uint64_t stream, size_t *out) {
    size_t taken = 0;
    for (size_t i = 0; taken < wanted; i++)
        if (kith_random_below(seed, stream, i, count - i) < wanted - taken) out[taken++] = i;
}

static bool has_direction(const kith_view *view, size_t row) {
    return kith_exact_norm2(kith_view_row(view, row), view->dtype, view->dim) >= FLT_MIN;
}

/* Rows that can be learnt from: their numbers, rising, to *out; NULL when all can. */
static kith_status find_usable(const kith_view *view, kith_metric metric, size_t **out, size_t *count) {
    *out = NULL;
    *count = view->count;
    size_t bad = 0, at = 0;
    for (size_t i = 0; metric == KITH_IP && i < view->count; i++) bad += !has_direction(view, i);
    if (bad == 0) return KITH_OK;
    KITH_TRY(kith_alloc(view->count, sizeof **out, out));
    for (size_t i = 0; i < view->count; i++)
        if (has_direction(view, i)) (*out)[at++] = i;
    *count = at;
    return KITH_OK;
}

typedef struct take_loop {
    const kith_view *view;
    kith_metric metric;
    const size_t *numbers; /* NULL: all */
    size_t count;
    float *out;
} take_loop;

static kith_status take_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const take_loop *loop = context;
    size_t first = item * CONVERT_ROWS, last = kith_min_size(first + CONVERT_ROWS, loop->count);
    for (size_t i = first; i < last; i++)
        kith_ivf_row(loop->metric, loop->view, loop->numbers != NULL ? loop->numbers[i] : i,
                     loop->out + i * loop->view->dim);
    return KITH_OK;
}

/* Copies the rows of those numbers, as the index sees them. */
static kith_status take_rows(const kith_view *view, kith_metric metric, const size_t *numbers, size_t count,
                             size_t threads, float **out) {
    KITH_TRY(kith_alloc(count, view->dim * sizeof **out, out));
    take_loop loop = {view, metric, numbers, count, *out};
    return kith_parallel_for(threads, (count + CONVERT_ROWS - 1) / CONVERT_ROWS, take_item, &loop);
}

static kith_status check_budget(const kith_job *job, size_t count, size_t dim) {
    size_t bytes;
    if (kith_mul_overflows(count, dim * sizeof(float) + sizeof(size_t), &bytes)) bytes = SIZE_MAX;
    if (job->memory_bytes_max == 0 || bytes <= job->memory_bytes_max) return KITH_OK;
    return kith_error(KITH_ERR_BUDGET, "train: a sample of %zu vectors needs %zu bytes, the budget is %llu", count,
                      bytes, (unsigned long long)job->memory_bytes_max);
}

/* At most `wanted` of the usable rows of a view. In place where the caller's rows are what the index sees. */
static kith_status sample_take(sample *s, const kith_view *view, kith_metric metric, size_t wanted,
                               const kith_job *job) {
    size_t *usable = NULL, *chosen = NULL, count;
    *s = (sample){.dim = view->dim};
    kith_status status;
    KITH_GO(find_usable(view, metric, &usable, &count));
    s->count = kith_min_size(count, wanted);
    bool in_place = s->count == view->count && metric != KITH_COSINE && view->dtype == KITH_F32 &&
                    view->stride == view->dim * sizeof(float);
    if (in_place) {
        s->rows = view->data;
        goto done;
    }
    KITH_GO(check_budget(job, s->count, view->dim));
    if (s->count < count) {
        KITH_GO(kith_alloc(s->count, sizeof *chosen, &chosen));
        choose(count, s->count, job->seed, STREAM_SAMPLE, chosen);
        for (size_t i = 0; i < s->count && usable != NULL; i++) chosen[i] = usable[chosen[i]];
    }
    KITH_GO(take_rows(view, metric, chosen != NULL ? chosen : usable, s->count, job->threads, &s->own));
    s->rows = s->own;
done:
    kith_free(chosen);
    kith_free(usable);
    return status;
}

/* ---- What is learnt ------------------------------------------------------------------------------------------- */

/* All that training makes, before it becomes the index's. */
typedef struct lesson {
    const kith_ivf *ivf;
    const kith_job *job;
    size_t list_count;
    sample sample;
    float *centroids, *projected;
    kith_code *code, *coarse_code;
    unsigned char *coarse_blocks;
    kith_index *coarse;
} lesson;

static void lesson_free(lesson *l) {
    kith_free(l->sample.own);
    if (l->projected != l->centroids) kith_free(l->projected);
    kith_free(l->centroids);
    kith_free(l->coarse_blocks);
    kith_index_free(l->coarse);
    kith_code_free(l->coarse_code);
    kith_code_free(l->code);
}

/* 4 sqrt(n), as the nearest power of two, but with enough points for each. */
static size_t auto_list_count(size_t n) {
    double wanted = 4 * sqrt((double)n);
    size_t count = 1;
    while ((double)count * 1.4142135623730951 < wanted && count * 2 <= n / AUTO_POINTS_PER_LIST) count *= 2;
    return count;
}

static kith_status find_centroids(lesson *l) {
    const sample *s = &l->sample;
    if (s->count < l->list_count)
        return kith_error(KITH_ERR_ARGUMENT, "train: %zu vectors%s for %zu lists; at least as many are needed",
                          s->count, l->ivf->base.metric == KITH_IP ? " with a direction" : "", l->list_count);
    if (l->list_count < l->ivf->copies)
        return kith_error(KITH_ERR_ARGUMENT, "train: a vector cannot stand in %zu lists of %zu", l->ivf->copies,
                          l->list_count);
    KITH_TRY(kith_alloc(l->list_count, s->dim * sizeof *l->centroids, &l->centroids));
    kith_kmeans_options options;
    kith_kmeans_options_init(&options);
    options.iterations = ITERATIONS;
    options.points_per_centroid_max = POINTS_PER_CENTROID;
    options.spherical = l->ivf->base.metric != KITH_L2;
    kith_view view = {.data = s->rows, .dtype = KITH_F32, .count = s->count, .dim = s->dim};
    return kith_kmeans_train(&view, l->list_count, &options, l->job, l->centroids, NULL);
}

/* Puts the centroids into a copy of the index that is to find them. */
static kith_status index_centroids(lesson *l) {
    const kith_index *coarse = l->ivf->coarse;
    if (coarse == NULL) return KITH_OK;
    const kith_view view = {.data = l->centroids, .dtype = KITH_F32, .count = l->list_count, .dim = l->sample.dim};
    KITH_TRY(kith_index_clone(coarse, &l->coarse));
    KITH_TRY(kith_index_reset(l->coarse));
    KITH_TRY(kith_index_train(l->coarse, &view, l->job));
    return kith_index_add(l->coarse, &view, NULL, l->job);
}

/* Trains the code on at most KITH_TRAIN_COUNT rows. */
static kith_status train_code(lesson *l) {
    const kith_ivf *ivf = l->ivf;
    KITH_TRY(ivf->code->vtable->clone(ivf->code, &l->code));
    if (l->code->vtable->train == NULL) return KITH_OK;
    const sample *all = &l->sample;
    size_t count = kith_min_size(all->count, KITH_TRAIN_COUNT);
    kith_view view = {all->rows, KITH_F32, all->count, all->dim, all->dim * sizeof(float)};
    kith_code_rows rows = {.rows = all->rows, .count = count};
    size_t *chosen = NULL;
    float *own = NULL;
    uint32_t *assigned = NULL, *spilled = NULL;
    kith_status status;
    if (count < all->count) {
        KITH_GO(check_budget(l->job, count, all->dim));
        KITH_GO(kith_alloc(count, sizeof *chosen, &chosen));
        choose(all->count, count, l->job->seed, STREAM_CODE, chosen);
        KITH_GO(take_rows(&view, KITH_L2, chosen, count, l->job->threads, &own)); /* of unit length already */
        rows.rows = own;
        view.data = own;
        view.count = count;
    }
    if (ivf->by_residual) {
        KITH_GO(kith_alloc(count, sizeof *assigned, &assigned));
        const kith_centroids centroids = {l->centroids, l->list_count, l->coarse};
        KITH_GO(kith_ivf_assign(&view, ivf->code->metric, &centroids, l->job->threads, l->job->memory_bytes_max,
                                NULL, assigned));
        if (ivf->copies > 1) { /* residuals of first copies and of second ones, in turn */
            KITH_GO(kith_alloc(count, sizeof *spilled, &spilled));
            KITH_GO(kith_ivf_spill(&view, ivf->code->metric, &centroids, assigned, l->job->threads,
                                   l->job->memory_bytes_max, spilled));
            for (size_t i = 1; i < count; i += 2) assigned[i] = spilled[i];
        }
        rows.centroids = l->centroids;
        rows.assigned = assigned;
    }
    KITH_GO(kith_code_train(l->code, &rows, l->job));
done:
    kith_free(spilled);
    kith_free(assigned);
    kith_free(own);
    kith_free(chosen);
    return status;
}

static kith_status project_centroids(lesson *l) {
    l->projected = l->centroids;
    if (l->code->vtable->project == NULL) return KITH_OK;
    kith_arena arena = {0};
    kith_status status;
    KITH_GO(kith_alloc(l->list_count, l->code->projected_dim * sizeof *l->projected, &l->projected));
    KITH_GO(kith_arena_begin(&arena));
    KITH_GO(kith_code_project(l->code, l->centroids, l->list_count, l->job->threads, &arena, l->projected));
done:
    kith_arena_free(&arena);
    return status;
}

/* 8-bit codes of the projected centroids, where there are enough of them. */
static kith_status code_centroids(lesson *l) {
    size_t dim = l->code->projected_dim, count = l->list_count;
    if (l->coarse != NULL) return KITH_OK;
    if (count < COARSE_LISTS_MIN || count * dim < coarse_elements_min) return KITH_OK;
    static const char name[] = KITH_IVF_COARSE_CODE;
    const kith_spec spec = {.text = name, .parts = {{name, sizeof name - 1, 0}}, .part_count = 1};
    KITH_TRY(kith_code_create(&spec, 0, dim, l->code->metric, &l->coarse_code));
    const kith_code_rows rows = {.rows = l->projected, .count = count};
    KITH_TRY(kith_code_train(l->coarse_code, &rows, l->job));
    kith_sq_quicken(l->coarse_code);
    const kith_code *code = l->coarse_code;
    unsigned char *codes;
    KITH_TRY(kith_alloc_zeroed(kith_code_blocks(count), code->block_bytes, &l->coarse_blocks));
    KITH_TRY(kith_alloc(count, code->code_bytes, &codes));
    kith_status status = kith_code_encode(code, &rows, l->job->threads, codes);
    for (size_t c = 0; status == KITH_OK && c < count; c += KITH_BLOCK_ROWS)
        code->vtable->pack(code, codes + c * code->code_bytes, 0, kith_min_size(KITH_BLOCK_ROWS, count - c),
                           l->coarse_blocks + c / KITH_BLOCK_ROWS * code->block_bytes);
    kith_free(codes);
    return status;
}

static void swap_pointers(void *a, void *b) {
    unsigned char bytes[sizeof(void *)];
    memcpy(bytes, a, sizeof bytes);
    memcpy(a, b, sizeof bytes);
    memcpy(b, bytes, sizeof bytes);
}

/* The index takes what was learnt; the lesson gets what the index knew before. */
static kith_status settle(kith_ivf *ivf, lesson *l) {
    size_t before = ivf->list_count;
    if (ivf->pages == NULL) {
        ivf->list_count = l->list_count;
        kith_status status = kith_lists_create(ivf);
        if (status != KITH_OK) {
            ivf->list_count = before;
            return status;
        }
    }
    swap_pointers(&ivf->centroids, &l->centroids);
    swap_pointers(&ivf->projected, &l->projected);
    swap_pointers(&ivf->code, &l->code);
    swap_pointers(&ivf->coarse_code, &l->coarse_code);
    swap_pointers(&ivf->coarse_blocks, &l->coarse_blocks);
    if (l->coarse != NULL) swap_pointers(&ivf->coarse, &l->coarse);
    kith_ivf_write_spec(ivf);
    kith_ivf_set_params(ivf);
    return KITH_OK;
}

size_t kith_ivf_train_count(const kith_index *index) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    if (!ivf->has_coarse) return ivf->code->vtable->train != NULL ? KITH_TRAIN_COUNT : 0;
    if (ivf->list_count == 0) return SIZE_MAX; /* the number of lists follows the number of rows */
    return kith_max_size(ivf->list_count * POINTS_PER_CENTROID, KITH_TRAIN_COUNT);
}

kith_status kith_ivf_train(kith_index *index, const kith_view *view, const kith_job *job) {
    kith_ivf *ivf = kith_ivf_of(index);
    if (index->count > 0)
        return kith_error(KITH_ERR_ARGUMENT,
                          "train: the index holds %zu vectors, coded by what it learnt before; reset it first",
                          index->count);
    if (!ivf->has_coarse && ivf->code->vtable->train == NULL) return KITH_OK;
    lesson l = {.ivf = ivf, .job = job, .list_count = ivf->list_count};
    if (l.list_count == 0) l.list_count = auto_list_count(view->count);
    size_t wanted = kith_max_size(l.list_count * POINTS_PER_CENTROID, KITH_TRAIN_COUNT);
    /* Zero rows matter to the centroids only. */
    kith_metric metric = index->metric == KITH_IP && !ivf->has_coarse ? KITH_L2 : index->metric;
    kith_status status;
    KITH_GO(sample_take(&l.sample, view, metric, wanted, job));
    if (ivf->has_coarse) {
        KITH_GO(find_centroids(&l));
        KITH_GO(index_centroids(&l));
    }
    KITH_GO(train_code(&l));
    if (ivf->has_coarse) {
        KITH_GO(project_centroids(&l));
        KITH_GO(code_centroids(&l));
    }
    KITH_GO(settle(ivf, &l));
done:
    lesson_free(&l);
    return status;
}
