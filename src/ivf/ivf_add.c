/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_add.c: new vectors, also in the place of others. Their lists are found first; then the change of these lists is
 * made, aside, all memory with it (ivf_edit.c); then the vectors are encoded in the order of the places that they go to,
 * block by block, where nobody sees them; then they are shown. Until that last step everything can be given back.
 */
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "index/convert.h"
#include "index/partition.h"
#include "ivf/ivf_inside.h"

enum {
    ITEM_BLOCKS = 8,
    ITEM_ROWS = ITEM_BLOCKS * KITH_BLOCK_ROWS,
    TIGHT_SHARE = 8, /* vectors for each list, on average, that are worth a layout without room to spare */
    UPDATE_ROWS_PER_THREAD = 64
};

/* New vectors on their way. */
typedef struct arrival {
    kith_ivf *ivf;
    const kith_addition *addition;
    const char *what;
    size_t entry_count;     /* rows x copies: entry e is copy e / rows of row e % rows */
    uint32_t *assigned;     /* the centroid of each entry */
    int64_t *keys;          /* of the entries: list by list, in order of their numbers; then scratch memory */
    kith_edit edit;         /* of the lists that they go to, and of those that others leave */
    size_t *blocks;         /* edit.count + 1: blocks that the lists before this one write to */
    unsigned char *scratch; /* of each worker */
    size_t scratch_bytes, workers;
    kith_arena *arenas; /* of each worker, where the code projects */
    kith_meter meter;
} arrival;

static size_t row_of(const arrival *a, size_t entry) { return entry % a->addition->view.count; }

/* The list that an entry goes to: second copies have lists of their own. */
static size_t list_of_entry(const arrival *a, size_t entry) {
    return (size_t)a->assigned[entry] * a->ivf->copies + entry / a->addition->view.count;
}

static int64_t new_id(const kith_addition *addition, size_t i) {
    return addition->ids != NULL ? addition->ids[i] : addition->first_id + (int64_t)i;
}

static int64_t largest_id(const kith_addition *addition) {
    size_t count = addition->view.count;
    if (addition->ids_rise) return new_id(addition, count - 1);
    int64_t largest = 0;
    for (size_t i = 0; i < count; i++)
        if (addition->ids[i] > largest) largest = addition->ids[i];
    return largest;
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
    size_t bytes, each = a->ivf->copies * (sizeof *a->assigned + 2 * sizeof *a->keys);
    *left = 0;
    if (job->memory_bytes_max == 0) return KITH_OK;
    if (kith_mul_overflows(a->addition->view.count, each, &bytes) ||
        kith_add_overflows(bytes, a->workers * a->scratch_bytes, &bytes))
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
    a->edit = (kith_edit){.ivf = ivf, .id_bytes = ivf->id_bytes, .threads = addition->job->threads};
    if (largest_id(addition) > UINT32_MAX) a->edit.id_bytes = 8;
    a->edit.is_tight = count * ivf->copies / TIGHT_SHARE >= kith_ivf_lists(ivf);
    if (count > UINT32_MAX / ivf->copies || kith_add_overflows(ivf->base.count, count, &total))
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu vectors in one call to %zu; at most 2^31 at once", what,
                          count, ivf->base.count);
    a->entry_count = count * ivf->copies;
    a->workers = kith_min_size(addition->job->threads, a->entry_count / ITEM_ROWS + 1);
    a->scratch_bytes = worker_bytes(ivf->code);
    kith_meter_init(&a->meter, addition->job->progress, addition->job->progress_user, what,
                    (uint64_t)count + a->entry_count);
    KITH_TRY(kith_alloc(a->entry_count, sizeof *a->assigned, &a->assigned));
    KITH_TRY(kith_alloc(a->entry_count, 2 * sizeof *a->keys, &a->keys));
    KITH_TRY(kith_alloc(a->workers, a->scratch_bytes, &a->scratch));
    return kith_alloc_zeroed(a->workers, sizeof *a->arenas, &a->arenas);
}

static void arrival_free(arrival *a) {
    for (size_t w = 0; a->arenas != NULL && w < a->workers; w++) kith_arena_free(&a->arenas[w]);
    kith_free(a->arenas);
    kith_free(a->scratch);
    kith_free(a->blocks);
    kith_free(a->edit.lists);
    kith_free(a->keys);
    kith_free(a->assigned);
}

/* ---- Where they go -------------------------------------------------------------------------------------------- */

/* Finds the lists, and the order of the rows. */
static kith_status find_lists(arrival *a, const uint32_t *given, uint64_t bytes_left) {
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
    for (size_t e = 0; e < a->entry_count; e++) a->keys[e] = kith_ivf_key(list_of_entry(a, e), e);
    kith_ivf_sort_keys(a->keys, a->entry_count, a->keys + a->entry_count);
    return KITH_OK;
}

/* Where the new vectors of a list begin in its first block that gets some: blocks are counted from there. */
static size_t lane_of(const kith_list_edit *one) { return one->first % KITH_BLOCK_ROWS; }

/* Counts the blocks that each list writes to. */
static kith_status count_blocks(arrival *a) {
    size_t blocks = 0;
    KITH_TRY(kith_alloc(a->edit.count + 1, sizeof *a->blocks, &a->blocks));
    for (size_t l = 0; l < a->edit.count; l++) {
        const kith_list_edit *one = &a->edit.lists[l];
        a->blocks[l] = blocks;
        if (one->added > 0) blocks += kith_code_blocks(lane_of(one) + one->added);
    }
    a->blocks[a->edit.count] = blocks;
    return KITH_OK;
}

/* ---- Encoding ------------------------------------------------------------------------------------------------- */

/* New rows that stand together: at most a block's. */
typedef struct piece {
    const kith_list *list;
    size_t position; /* of the first */
    const int64_t *keys;
    size_t count;
} piece;

/* The list that block number `block` of those to be written belongs to: the last whose blocks begin at or before. */
static size_t list_of(const arrival *a, size_t block) {
    size_t first = 0, last = a->edit.count; /* blocks[first] <= block < blocks[last] */
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
    size_t l = list_of(a, block);
    const kith_list_edit *one = &a->edit.lists[l];
    size_t begin = one->first - lane_of(one) + (block - a->blocks[l]) * KITH_BLOCK_ROWS;
    size_t first = kith_max_size(begin, one->first);
    size_t last = kith_min_size(begin + KITH_BLOCK_ROWS, one->first + one->added);
    return (piece){&one->next, first, one->come + (first - one->first), last - first};
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
    kith_list_put(a->ivf->code, p->list, p->position, p->count, codes);
    for (size_t i = 0; i < p->count; i++)
        kith_list_set_id(p->list, p->position + i, new_id(a->addition, row_of(a, kith_key_item(p->keys[i]))));
}

static kith_status encode_item(void *context, size_t item, size_t worker) {
    arrival *a = context;
    workplace at = lay_out(a, worker);
    uint32_t numbers[ITEM_ROWS];
    piece pieces[ITEM_BLOCKS];
    size_t first = item * ITEM_BLOCKS, count = 0;
    size_t piece_count = kith_min_size(ITEM_BLOCKS, a->blocks[a->edit.count] - first);
    for (size_t p = 0; p < piece_count; p++) {
        pieces[p] = piece_of(a, first + p);
        for (size_t i = 0; i < pieces[p].count; i++) numbers[count++] = (uint32_t)kith_key_item(pieces[p].keys[i]);
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

/* Sets memory aside and writes the vectors where nobody sees them. After a failure the lists are as before. */
static kith_status bring_in(arrival *a, const int64_t *gone, size_t gone_count) {
    kith_ivf *ivf = a->ivf;
    for (size_t c = 0; c < ivf->copies && ivf->has_map; c++)
        KITH_TRY(kith_idmap_reserve(&ivf->maps[c], ivf->maps[c].count + a->addition->view.count));
    KITH_TRY(kith_edit_of_keys(gone, gone_count, a->keys, a->entry_count, &a->edit));
    KITH_TRY(kith_edit_begin(&a->edit));
    kith_status status = count_blocks(a);
    size_t blocks = status == KITH_OK ? a->blocks[a->edit.count] : 0;
    if (status == KITH_OK) status = kith_parallel_for(a->workers, (blocks - 1) / ITEM_BLOCKS + 1, encode_item, a);
    if (status == KITH_OK) status = kith_meter_finish(&a->meter);
    if (status != KITH_OK) kith_edit_drop(&a->edit);
    return status;
}

/* Shows what has been written. Cannot fail. */
static void publish(arrival *a, size_t gone_count) {
    kith_ivf *ivf = a->ivf;
    kith_edit_keep(&a->edit);
    kith_edit_map_moved(&a->edit);
    for (size_t l = 0; l < a->edit.count && ivf->has_map; l++) {
        const kith_list_edit *one = &a->edit.lists[l];
        for (size_t i = 0; i < one->added; i++)
            kith_idmap_put(kith_list_map(ivf, one->list),
                           new_id(a->addition, row_of(a, kith_key_item(one->come[i]))),
                           kith_ivf_place(ivf, one->list, one->first + i));
    }
    ivf->id_bytes = a->edit.id_bytes;
    ivf->base.count += a->addition->view.count - gone_count / ivf->copies;
}

/* Brings vectors in, and takes out those at the positions that `gone` gives the keys of, in one. */
static kith_status arrive(kith_ivf *ivf, const kith_addition *addition, const uint32_t *assigned,
                          const int64_t *gone, size_t gone_count, const char *what) {
    arrival a;
    uint64_t bytes_left;
    kith_status status;
    KITH_GO(arrival_begin(&a, ivf, addition, what));
    KITH_GO(check_budget(&a, &bytes_left));
    KITH_GO(find_lists(&a, assigned, bytes_left));
    KITH_GO(bring_in(&a, gone, gone_count));
    publish(&a, gone_count);
done:
    arrival_free(&a);
    return status;
}

kith_status kith_ivf_add_assigned(kith_ivf *ivf, const kith_addition *addition, const uint32_t *assigned) {
    KITH_TRY(check_absent(ivf, addition));
    return arrive(ivf, addition, assigned, NULL, 0, "add");
}

kith_status kith_ivf_add(kith_index *index, const kith_addition *addition) {
    return kith_ivf_add_assigned(kith_ivf_of(index), addition, NULL);
}

/* ---- Update --------------------------------------------------------------------------------------------------- */

static kith_status replace(kith_ivf *ivf, const kith_addition *addition, const char *what, bool all_there,
                           size_t *replaced) {
    size_t count = addition->view.count, gone_count = 0;
    int64_t *gone = NULL;
    kith_status status;
    KITH_GO(kith_ivf_need_map(ivf));
    for (size_t i = 0; i < count && all_there; i++) {
        uint64_t place;
        if (!kith_idmap_get(&ivf->maps[0], addition->ids[i], &place))
            KITH_GO(kith_error(KITH_ERR_NOT_FOUND, "%s: id %lld is not in the index", what,
                               (long long)addition->ids[i]));
    }
    KITH_GO(kith_ivf_keys_of(ivf, addition->ids, count, &gone, &gone_count));
    KITH_GO(arrive(ivf, addition, NULL, gone, gone_count, what));
    *replaced = gone_count / ivf->copies;
done:
    kith_free(gone);
    return status;
}

kith_status kith_ivf_update(kith_index *index, const kith_view *vectors, const int64_t *ids) {
    size_t replaced;
    kith_job job;
    const kith_addition addition =
        kith_addition_of(vectors, ids, vectors->count / UPDATE_ROWS_PER_THREAD + 1, &job);
    return replace(kith_ivf_of(index), &addition, "update", true, &replaced);
}

kith_status kith_ivf_upsert(kith_index *index, const kith_addition *addition, size_t *replaced) {
    return replace(kith_ivf_of(index), addition, "upsert", false, replaced);
}
