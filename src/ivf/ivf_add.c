/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_add.c: new vectors. Their lists are found first; then room is set aside for all of them; then they are encoded
 * in the order of the places that they go to, block by block, behind what the lists hold, where nobody sees them; then
 * they are counted. Until that last step everything can be given back.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/convert.h"
#include "ivf/ivf_inside.h"

enum { ITEM_BLOCKS = 8, ITEM_ROWS = ITEM_BLOCKS * KITH_BLOCK_ROWS };

/* New vectors on their way. */
typedef struct arrival {
    kith_ivf *ivf;
    const kith_addition *addition;
    const char *what;
    size_t entry_count;     /* rows x copies: entry e is copy e / rows of row e % rows */
    uint32_t *assigned;     /* the centroid of each entry */
    uint32_t *order;        /* entries, list by list, in order of their numbers */
    size_t *first;          /* lists + 1: entries of list l are order[first[l]] .. order[first[l + 1] - 1] */
    size_t *added;          /* lists: how many each list gets */
    size_t *blocks;         /* lists + 1: blocks that the lists before this one write to */
    unsigned char *scratch; /* of each worker */
    size_t scratch_bytes, workers;
    kith_arena *arenas; /* of each worker, where the code projects */
    kith_meter meter;
} arrival;

static size_t row_of(const arrival *a, uint32_t entry) { return entry % a->addition->view.count; }

/* The list that an entry goes to: second copies have lists of their own. */
static size_t list_of_entry(const arrival *a, uint32_t entry) {
    return (size_t)a->assigned[entry] * a->ivf->copies + entry / a->addition->view.count;
}

static int64_t new_id(const kith_addition *addition, size_t i) {
    return addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
}

/* ---- Before anything is set aside ----------------------------------------------------------------------------- */

static kith_status check_absent(kith_ivf *ivf, const kith_addition *addition) {
    if (addition->ids_rise && new_id(addition, 0) >= ivf->base.next_id) return KITH_OK;
    KITH_TRY(kith_ivf_need_map(ivf));
    for (size_t i = 0; i < addition->view.count; i++) {
        uint64_t place;
        if (kith_idmap_get(&ivf->maps[0], new_id(addition, i), &place))
            return kith_error(KITH_ERR_EXISTS, "add: id %lld is in the index already",
                              (long long)new_id(addition, i));
    }
    return KITH_OK;
}

static size_t worker_bytes(const kith_code *code) {
    size_t each = code->dim * sizeof(float) + code->code_bytes + sizeof(uint32_t);
    if (code->vtable->project != NULL) each += code->projected_dim * sizeof(float);
    return kith_round_up(ITEM_ROWS * each, KITH_ALIGNMENT);
}

/* Scratch memory that does not depend on how assignment cuts the rows; *left is what the budget has for that. */
static kith_status check_budget(const arrival *a, uint64_t *left) {
    const kith_job *job = a->addition->job;
    size_t bytes, each = 2 * a->ivf->copies * sizeof(uint32_t);
    *left = 0;
    if (job->memory_bytes_max == 0) return KITH_OK;
    if (kith_mul_overflows(a->addition->view.count, each, &bytes) ||
        kith_add_overflows(bytes, a->workers * a->scratch_bytes + 3 * (kith_ivf_lists(a->ivf) + 1) * sizeof(size_t),
                           &bytes))
        bytes = SIZE_MAX;
    if (bytes >= job->memory_bytes_max)
        return kith_error(KITH_ERR_BUDGET, "%s: %zu vectors need %zu bytes, the budget is %llu", a->what,
                          a->addition->view.count, bytes, (unsigned long long)job->memory_bytes_max);
    *left = job->memory_bytes_max - bytes;
    return KITH_OK;
}

static kith_status arrival_begin(arrival *a, kith_ivf *ivf, const kith_addition *addition, const char *what) {
    size_t count = addition->view.count, total;
    *a = (arrival){.ivf = ivf, .addition = addition, .what = what};
    if (count > UINT32_MAX / ivf->copies || kith_add_overflows(ivf->base.count, count, &total))
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu vectors in one call to %zu; at most 2^31 at once", what,
                          count, ivf->base.count);
    a->entry_count = count * ivf->copies;
    a->workers = kith_min_size(addition->job->threads, a->entry_count / ITEM_ROWS + 1);
    a->scratch_bytes = worker_bytes(ivf->code);
    kith_meter_init(&a->meter, addition->job->progress, addition->job->progress_user, what,
                    (uint64_t)count + a->entry_count);
    KITH_TRY(kith_alloc(a->entry_count, sizeof *a->assigned, &a->assigned));
    KITH_TRY(kith_alloc(a->entry_count, sizeof *a->order, &a->order));
    KITH_TRY(kith_alloc(kith_ivf_lists(ivf) + 1, sizeof *a->first, &a->first));
    KITH_TRY(kith_alloc_zeroed(kith_ivf_lists(ivf), sizeof *a->added, &a->added));
    KITH_TRY(kith_alloc(kith_ivf_lists(ivf) + 1, sizeof *a->blocks, &a->blocks));
    KITH_TRY(kith_alloc(a->workers, a->scratch_bytes, &a->scratch));
    return kith_alloc_zeroed(a->workers, sizeof *a->arenas, &a->arenas);
}

static void arrival_free(arrival *a) {
    for (size_t w = 0; a->arenas != NULL && w < a->workers; w++) kith_arena_free(&a->arenas[w]);
    kith_free(a->arenas);
    kith_free(a->scratch);
    kith_free(a->blocks);
    kith_free(a->added);
    kith_free(a->first);
    kith_free(a->order);
    kith_free(a->assigned);
}

/* ---- Where they go -------------------------------------------------------------------------------------------- */

/* Lists, finds the order of the rows, and counts the blocks that they will stand in. */
static kith_status find_places(arrival *a, const uint32_t *given, uint64_t bytes_left) {
    const kith_ivf *ivf = a->ivf;
    const kith_view *view = &a->addition->view;
    const kith_centroids centroids = kith_ivf_centroids(ivf);
    if (given != NULL)
        memcpy(a->assigned, given, view->count * sizeof *given);
    else
        KITH_TRY(kith_ivf_assign(view, ivf->base.metric, &centroids, a->addition->job->threads, bytes_left,
                                 &a->meter, a->assigned));
    for (size_t i = 0; i < view->count; i++) {
        if (a->assigned[i] >= ivf->list_count)
            return kith_error(KITH_ERR_ARGUMENT, "%s: row %zu is assigned to list %u of %zu", a->what, i,
                              a->assigned[i], ivf->list_count);
    }
    if (ivf->copies > 1)
        KITH_TRY(kith_ivf_spill(view, ivf->base.metric, &centroids, a->assigned, a->addition->job->threads,
                                bytes_left, a->assigned + view->count));
    for (uint32_t e = 0; e < a->entry_count; e++) a->added[list_of_entry(a, e)]++;
    size_t at = 0, blocks = 0;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        a->first[l] = at;
        a->blocks[l] = blocks;
        at += a->added[l];
        size_t before = kith_ivf_list(ivf, l)->count;
        if (a->added[l] > 0) blocks += kith_code_blocks(before % KITH_BLOCK_ROWS + a->added[l]);
    }
    a->blocks[kith_ivf_lists(ivf)] = blocks;
    for (uint32_t e = 0; e < a->entry_count; e++) a->order[a->first[list_of_entry(a, e)]++] = e;
    for (size_t l = kith_ivf_lists(ivf); l > 0; l--) a->first[l] = a->first[l - 1]; /* each had moved to its end */
    a->first[0] = 0;
    return KITH_OK;
}

/* ---- Encoding ------------------------------------------------------------------------------------------------- */

/* New rows that stand together: at most a block's. */
typedef struct piece {
    size_t list, position; /* of the first */
    const uint32_t *entries;
    size_t count;
} piece;

/* The list that block number `block` of those to be written belongs to: the last whose blocks begin at or before. */
static size_t list_of(const arrival *a, size_t block) {
    size_t first = 0, last = kith_ivf_lists(a->ivf); /* blocks[first] <= block < blocks[last] */
    while (last - first > 1) {
        size_t middle = first + (last - first) / 2;
        if (a->blocks[middle] <= block)
            first = middle;
        else
            last = middle;
    }
    return first;
}

static piece piece_of(const arrival *a, size_t block) {
    size_t l = list_of(a, block), count = kith_ivf_list(a->ivf, l)->count;
    size_t begin = count / KITH_BLOCK_ROWS * KITH_BLOCK_ROWS + (block - a->blocks[l]) * KITH_BLOCK_ROWS;
    size_t first = kith_max_size(begin, count), last = kith_min_size(begin + KITH_BLOCK_ROWS, count + a->added[l]);
    return (piece){l, first, a->order + a->first[l] + (first - count), last - first};
}

/* A worker's scratch memory. */
typedef struct workplace {
    float *rows, *projected;
    uint32_t *assigned;
    unsigned char *codes;
} workplace;

static workplace lay_out(const arrival *a, size_t worker) {
    const kith_code *code = a->ivf->code;
    workplace at = {.rows = (float *)(void *)(a->scratch + worker * a->scratch_bytes)};
    float *next = at.rows + ITEM_ROWS * code->dim;
    at.projected = at.rows;
    if (code->vtable->project != NULL) {
        at.projected = next;
        next += ITEM_ROWS * code->projected_dim;
    }
    at.assigned = (uint32_t *)(void *)next;
    at.codes = (unsigned char *)(at.assigned + ITEM_ROWS);
    return at;
}

/* Names the row of the caller's that the code cannot hold. */
static kith_status name_row(const arrival *a, const kith_code_rows *rows, const uint32_t *numbers,
                            unsigned char *codes, kith_status status) {
    const kith_code *code = a->ivf->code;
    for (size_t i = 0; i < rows->count; i++) {
        kith_code_rows one = *rows;
        one.rows += i * code->projected_dim;
        if (one.assigned != NULL) one.assigned += i;
        one.count = 1;
        one.first_row = row_of(a, numbers[i]);
        kith_status own = code->vtable->encode(code, &one, codes);
        if (own != KITH_OK) return kith_error_prefix(own, "%s", a->what);
    }
    return status;
}

/* Encodes up to ITEM_ROWS gathered rows. */
static kith_status encode_rows(const arrival *a, const workplace *at, const uint32_t *numbers, size_t count,
                               size_t worker) {
    const kith_ivf *ivf = a->ivf;
    const kith_code *code = ivf->code;
    for (size_t i = 0; i < count; i++) {
        kith_ivf_row(ivf->base.metric, &a->addition->view, row_of(a, numbers[i]), at->rows + i * code->dim);
        at->assigned[i] = a->assigned[numbers[i]];
    }
    if (code->vtable->project != NULL) {
        KITH_TRY(kith_arena_begin(&a->arenas[worker]));
        KITH_TRY(kith_code_project(code, at->rows, count, 1, &a->arenas[worker], at->projected));
    }
    const kith_code_rows rows = {.rows = at->projected,
                                 .count = count,
                                 .centroids = ivf->by_residual ? ivf->projected : NULL,
                                 .assigned = ivf->by_residual ? at->assigned : NULL};
    kith_status status = code->vtable->encode(code, &rows, at->codes);
    return status != KITH_ERR_RANGE ? status : name_row(a, &rows, numbers, at->codes, status);
}

static void put_piece(const arrival *a, const piece *p, const unsigned char *codes) {
    const kith_ivf *ivf = a->ivf;
    const kith_list *list = kith_ivf_list(ivf, p->list);
    kith_list_put(ivf->code, list, p->position, p->count, codes);
    for (size_t i = 0; i < p->count; i++)
        kith_list_set_id(ivf, list, p->position + i, new_id(a->addition, row_of(a, p->entries[i])));
}

static kith_status encode_item(void *context, size_t item, size_t worker) {
    arrival *a = context;
    workplace at = lay_out(a, worker);
    uint32_t numbers[ITEM_ROWS];
    piece pieces[ITEM_BLOCKS];
    size_t first = item * ITEM_BLOCKS, count = 0;
    size_t piece_count = kith_min_size(ITEM_BLOCKS, a->blocks[kith_ivf_lists(a->ivf)] - first);
    for (size_t p = 0; p < piece_count; p++) {
        pieces[p] = piece_of(a, first + p);
        memcpy(numbers + count, pieces[p].entries, pieces[p].count * sizeof *numbers);
        count += pieces[p].count;
    }
    KITH_TRY(encode_rows(a, &at, numbers, count, worker));
    const unsigned char *codes = at.codes;
    for (size_t p = 0; p < piece_count; p++) {
        put_piece(a, &pieces[p], codes);
        codes += pieces[p].count * a->ivf->code->code_bytes;
    }
    return kith_meter_add(&a->meter, count);
}

/* ---- All of it ------------------------------------------------------------------------------------------------ */

static int64_t largest_id(const kith_addition *addition) {
    size_t count = addition->view.count;
    if (addition->ids_rise) return new_id(addition, count - 1);
    int64_t largest = 0;
    for (size_t i = 0; i < count; i++)
        if (addition->ids[i] > largest) largest = addition->ids[i];
    return largest;
}

/* Sets memory aside and writes the vectors behind what the lists hold. After a failure the lists are as before. */
static kith_status bring_in(arrival *a) {
    kith_ivf *ivf = a->ivf;
    size_t slabs = ivf->code_slabs.count, blocks = a->blocks[kith_ivf_lists(ivf)];
    if (largest_id(a->addition) > UINT32_MAX) KITH_TRY(kith_lists_widen_ids(ivf));
    for (size_t c = 0; c < ivf->copies && ivf->has_map; c++)
        KITH_TRY(kith_idmap_reserve(&ivf->maps[c], ivf->maps[c].count + a->addition->view.count));
    KITH_TRY(kith_lists_reserve(ivf, a->added));
    kith_status status = kith_parallel_for(a->workers, (blocks - 1) / ITEM_BLOCKS + 1, encode_item, a);
    if (status == KITH_OK) status = kith_meter_finish(&a->meter);
    if (status != KITH_OK) kith_lists_unreserve(ivf, slabs);
    return status;
}

/* Counts what has been written. Cannot fail. */
static void publish(arrival *a) {
    kith_ivf *ivf = a->ivf;
    for (size_t l = 0; l < kith_ivf_lists(ivf); l++) {
        kith_list *list = kith_ivf_list(ivf, l);
        if (a->added[l] == 0) continue;
        for (size_t i = 0; ivf->has_map && i < a->added[l]; i++)
            kith_idmap_put(kith_list_map(ivf, l), new_id(a->addition, row_of(a, a->order[a->first[l] + i])),
                           kith_ivf_place(ivf, l, list->count + i));
        kith_list_set_count(list, list->count + a->added[l]);
    }
    ivf->base.count += a->addition->view.count;
}

static kith_status arrive(kith_ivf *ivf, const kith_addition *addition, const uint32_t *assigned,
                          const char *what) {
    arrival a;
    uint64_t bytes_left;
    kith_status status;
    KITH_GO(arrival_begin(&a, ivf, addition, what));
    KITH_GO(check_budget(&a, &bytes_left));
    KITH_GO(find_places(&a, assigned, bytes_left));
    KITH_GO(bring_in(&a));
    publish(&a);
done:
    arrival_free(&a);
    return status;
}

kith_status kith_ivf_add_assigned(kith_ivf *ivf, const kith_addition *addition, const uint32_t *assigned) {
    KITH_TRY(check_absent(ivf, addition));
    return arrive(ivf, addition, assigned, "add");
}

kith_status kith_ivf_add(kith_index *index, const kith_addition *addition) {
    return kith_ivf_add_assigned(kith_ivf_of(index), addition, NULL);
}

/* ---- Update --------------------------------------------------------------------------------------------------- */

/* The new vectors come in first, beside the old ones; from there on nothing can fail. The old ones go from the last
 * place to the first, so that no place moves before its turn. */
static kith_status replace(kith_ivf *ivf, const kith_addition *addition, const char *what, bool all_there,
                           size_t *replaced) {
    size_t count = addition->view.count, place_count = count * ivf->copies, old_count = 0;
    uint64_t *places = NULL;
    unsigned char *row = NULL;
    kith_status status;
    KITH_GO(kith_alloc(place_count, 2 * sizeof *places, &places));
    KITH_GO(kith_alloc(1, ivf->code->code_bytes, &row));
    KITH_GO(kith_ivf_need_map(ivf));
    for (size_t i = 0; i < place_count; i++) {
        int64_t id = addition->ids[i % count];
        if (kith_idmap_get(&ivf->maps[i / count], id, &places[old_count]))
            old_count++;
        else if (all_there)
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "%s: id %lld is not in the index", what, (long long)id));
    }
    KITH_GO(arrive(ivf, addition, NULL, what));
    kith_sort_i64((int64_t *)places, old_count, (int64_t *)places + place_count);
    for (size_t i = old_count; i-- > 0;) kith_ivf_take_out(ivf, places[i], row);
    *replaced = old_count / ivf->copies;
    ivf->base.count -= *replaced;
done:
    kith_free(row);
    kith_free(places);
    return status;
}

kith_status kith_ivf_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    size_t replaced;
    kith_job job;
    kith_job_init(&job);
    job.threads = kith_threads_default();
    const kith_addition addition = {
        .view = *vectors, .ids = ids, .ids_rise = kith_rises_i64(ids, vectors->count), .job = &job};
    return replace(kith_ivf_of(index), &addition, "update", true, &replaced);
}

kith_status kith_ivf_upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    return replace(kith_ivf_of(index), addition, "upsert", false, replaced);
}
