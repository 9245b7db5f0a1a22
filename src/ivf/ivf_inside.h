/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_inside.h: what the files of src/ivf share: the index and its lists.
 *
 * A list is a row of segments, each with room for some codes and their ids. What is added together, many vectors at
 * once, is put into one slab, list after list, so that a list that was filled in one go is one segment and a scan of all
 * lists is one stream; later additions fill what room there is and then append segments.
 *
 * Searches go on beside one writer. What they read is a copy of the index's struct as it was after an earlier call, and
 * leads to the table of lists of that moment. From there on nothing is ever written that they look at: a change makes new
 * pages of the table for the lists that it touches (ivf_edit.c), writes new codes and ids only where no list counts them
 * yet, the codes behind a partly filled block into a copy of that block, and marks the dead in a copy of the list's bits.
 * A list of which an eighth is dead moves to new memory. So a search sees all of a change or nothing of it: of an updated
 * vector the old or the new one, never both, never neither. What is replaced is retired, and freed when the last search
 * that may read it has ended.
 */
#ifndef KITH_IVF_IVF_INSIDE_H
#define KITH_IVF_IVF_INSIDE_H

#include <stdatomic.h>

#include "base/epoch.h"
#include "base/idmap.h"
#include "code/code.h"
#include "index/vtable.h"
#include "ivf/ivf.h"

enum { KITH_IVF_PARAMS = 5 };
#define KITH_IVF_COARSE_CODE "SQ8" /* of the centroids */

/* Memory that codes and ids lie in, with those behind this header; freed when nothing lies there any more. The writer's
 * alone. */
typedef struct kith_slab {
    size_t holders; /* segments, or tails */
    size_t code_bytes, id_bytes;
} kith_slab;

typedef struct kith_list_segment {
    unsigned char *blocks; /* block_count whole blocks; the rows themselves, one after the other, of a raw code */
    unsigned char *tail;   /* the block with the codes behind them, from lane tail_lane on; NULL: none */
    void *ids;             /* capacity of them: uint32_t or int64_t, as id_bytes says */
    kith_slab *slab;       /* where blocks and ids lie; NULL: in a mapped file */
    kith_slab *tail_slab;  /* the tail's own: its block has 32 lanes to itself. NULL: other lists' tails share it */
    size_t count;          /* vectors */
    size_t capacity; /* that there is room for: of codes in a slab of their own one block more than `blocks` has */
    uint32_t block_count;
    uint8_t tail_lane, id_bytes;
} kith_list_segment;

/* Which vectors of a list have been removed. */
typedef struct kith_list_dead {
    size_t word_count; /* behind these none is dead */
    uint64_t words[];  /* a bit for each position */
} kith_list_dead;

typedef struct kith_list {
    kith_list_segment first; /* most lists have one */
    kith_list_segment *more; /* segment_count - 1 others */
    kith_list_dead *dead;    /* NULL: none */
    size_t count;            /* vectors in all segments, dead ones among them: each has a position */
    uint32_t segment_count, dead_count;
} kith_list;

enum { KITH_LISTS_PER_PAGE = 32 };

typedef struct kith_ivf {
    kith_index base;
    kith_code *code;
    size_t list_count;  /* 1 when there is no coarse step */
    bool has_coarse;    /* false: one list, searched whole: "SQ8" */
    bool by_residual;   /* codes are of x - centroid */
    size_t copies;      /* lists that a vector stands in: 1, or 2 with "IVF1024s" */
    kith_index *coarse; /* of the centroids: finds the lists of a vector; NULL: they are all compared */
    float *centroids;   /* list_count x dim; NULL without coarse step */
    float *projected;   /* list_count x code->projected_dim; centroids themselves when the code projects nothing */
    kith_code *coarse_code; /* 8-bit scalar code of the projected centroids; NULL for few lists, or with `coarse` */
    unsigned char *coarse_blocks; /* its blocks, kith_code_blocks(list_count) of them */
    size_t id_bytes;              /* of ids to come: 4 while all are below 2^32, then 8 */
    kith_list **pages; /* of kith_ivf_lists lists, KITH_LISTS_PER_PAGE in each; NULL until list_count is known */
    size_t dead_count; /* in all lists, of first and second copies */
    kith_epoch *epoch; /* of the searches that go on beside changes; NULL: there are none */
    uint64_t code_bytes, ids_bytes; /* of all slabs */
    kith_idmap maps[2]; /* from an id to where it lies, and where its second copy: kith_ivf_place; with has_map. The
                           writer's alone */
    bool has_map;
    uint32_t instance;                  /* of the sections of a mapped index */
    uint64_t mapped_bytes;              /* of the codes of a mapped index */
    kith_param params[KITH_IVF_PARAMS]; /* with the default of nprobe */
} kith_ivf;

extern const kith_index_vtable kith_ivf_vtable, kith_coded_vtable; /* with and without a coarse step */

static inline kith_ivf *kith_ivf_of(kith_index *index) { return (kith_ivf *)index; }
static inline const kith_ivf *kith_ivf_of_const(const kith_index *index) { return (const kith_ivf *)index; }

/* How many there are in `lists`: for each centroid one for the vectors that it is nearest to and, with two copies, one
 * behind it for second copies. */
static inline size_t kith_ivf_lists(const kith_ivf *ivf) { return ivf->list_count * ivf->copies; }

static inline const kith_list *kith_ivf_list(const kith_ivf *ivf, size_t list) {
    return &ivf->pages[list / KITH_LISTS_PER_PAGE][list % KITH_LISTS_PER_PAGE];
}

static inline size_t kith_list_live(const kith_list *list) { return list->count - list->dead_count; }

static inline kith_list_segment *kith_list_segment_of(kith_list *list, size_t s) {
    return s == 0 ? &list->first : &list->more[s - 1];
}
static inline const kith_list_segment *kith_list_segment_at(const kith_list *list, size_t s) {
    return s == 0 ? &list->first : &list->more[s - 1];
}

/* The bits of the dead at 32 positions from one on; of those behind the last one 0. */
static inline uint32_t kith_list_dead_bits(const kith_list *list, size_t position) {
    const kith_list_dead *dead = list->dead;
    size_t word = position / 64, shift = position % 64;
    if (dead == NULL || word >= dead->word_count) return 0;
    uint64_t bits = dead->words[word] >> shift;
    if (shift > 32 && word + 1 < dead->word_count) bits |= dead->words[word + 1] << (64 - shift);
    return (uint32_t)bits;
}

static inline bool kith_list_is_dead(const kith_list *list, size_t position) {
    return (kith_list_dead_bits(list, position) & 1) != 0;
}

static inline int64_t kith_segment_id(const kith_list_segment *segment, size_t i) {
    return segment->id_bytes == 4 ? (int64_t)((const uint32_t *)segment->ids)[i]
                                  : ((const int64_t *)segment->ids)[i];
}

/* The lists that a search reads when it does not say: 1/64 of them, at least 8. */
static inline size_t kith_ivf_nprobe_default(const kith_ivf *ivf) { return kith_max_size(8, ivf->list_count / 64); }

/* ---- ivf.c ---------------------------------------------------------------------------------------------------- */

/* An empty, untrained index as the spec says; `dtype` of its vectors is f32. */
kith_status kith_ivf_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_ivf **out);
/* Frees everything; takes half-built ones. */
void kith_ivf_release(kith_index *index);
/* Writes the canonical spec, which list_count has become a part of. */
void kith_ivf_write_spec(kith_ivf *ivf);
/* Fills the list of search parameters, whose default of nprobe follows list_count. */
void kith_ivf_set_params(kith_ivf *ivf);

/* ---- ivf_layout.c: where codes lie ---------------------------------------------------------------------------- */

enum { KITH_LAYOUT_OPEN_MAX = 16 };
#define KITH_LAYOUT_NO_LIST SIZE_MAX

/* A block that tails of several lists share and that has lanes left. */
typedef struct kith_layout_open {
    size_t block, used, last_list;
} kith_layout_open;

/* Lists are laid out one after the other, from a layout of zeros on. Where they come to lie follows from their sizes
 * alone: files hold no more than these. */
typedef struct kith_layout {
    kith_layout_open open[KITH_LAYOUT_OPEN_MAX];
    size_t open_count, block_count;
    size_t row_count; /* vectors: raw codes lie row after row */
} kith_layout;

/* Where one lies, in blocks from the beginning. */
typedef struct kith_layout_place {
    size_t first;      /* its first whole block; count / 32 follow */
    size_t tail, lane; /* of the other count % 32 codes */
    size_t neighbour;  /* the list whose tail lies before this one's in the same block; KITH_LAYOUT_NO_LIST: none */
} kith_layout_place;

/* The place of the next list, number `list`. Means nothing for raw codes. */
kith_layout_place kith_layout_next(kith_layout *layout, size_t count, size_t list);
/* The same as a segment without ids, of a capacity of `count`, in the codes that begin at `codes`. */
kith_list_segment kith_segment_next(kith_layout *layout, const kith_code *code, size_t count, size_t list,
                                    unsigned char *codes);
/* What has been laid out: how many blocks or rows, and bytes of each. */
void kith_layout_items(const kith_layout *layout, const kith_code *code, size_t *count, size_t *each);

/* The segment that has the vector at a position of the list, and where in it. */
const kith_list_segment *kith_list_find(const kith_list *list, size_t position, size_t *at);
/* The block that holds the code at a position, and its lane there. Not for raw codes. */
const unsigned char *kith_list_block(const kith_code *code, const kith_list *list, size_t position, size_t *lane);
/* Copies the rows of `count` codes from a position of a list on. */
void kith_list_get(const kith_code *code, const kith_list *list, size_t position, size_t count,
                   unsigned char *rows);
/* Writes them, where no search looks. Threads may write to different positions of any lists at once. */
void kith_list_put(const kith_code *code, const kith_list *list, size_t position, size_t count,
                   const unsigned char *rows);
/* Copies codes and ids from a position of one list to a position of another. `rows`: scratch memory for 32 codes. */
void kith_list_move(const kith_code *code, const kith_list *from, size_t position, size_t count,
                    const kith_list *to, size_t to_position, int64_t id_shift, unsigned char *rows);
/* The next run of vectors that are not dead, from *position on: where it begins, and how many; 0 when there is none. */
size_t kith_list_next_live(const kith_list *list, size_t *position);
/* All that are not dead, as with kith_list_move. */
void kith_list_move_live(const kith_code *code, const kith_list *from, const kith_list *to, size_t to_position,
                         int64_t id_shift, unsigned char *rows);
/* vtable->scan of the codes at first .. first + count - 1 of a segment; `first` is a multiple of 32, `stride` at least
 * count rounded up to one. Not for raw codes. */
void kith_segment_scan(const kith_code *code, const kith_list_segment *segment, size_t first, size_t count,
                       const void *const *queries, const float *bases, size_t query_count, float *out,
                       size_t stride);
void kith_list_set_id(const kith_list *list, size_t position, int64_t id);
int64_t kith_list_id(const kith_list *list, size_t position);

/* ---- ivf_lists.c: lists and their memory ---------------------------------------------------------------------- */

/* Empty lists. */
kith_status kith_lists_create(kith_ivf *ivf);
/* Frees the lists and what lies in them, now: nobody reads them; list_count stays. */
void kith_lists_free(kith_ivf *ivf);
/* Takes all vectors out and gives their memory back, now: nobody reads them. */
void kith_lists_clear(kith_ivf *ivf);
/* Copies all lists, each as one segment without its dead, into an index of as many empty ones. */
kith_status kith_lists_copy(const kith_ivf *from, kith_ivf *to);
/* Lays the lists out anew, each as one segment without room to spare: what was removed gives its memory back, and a
 * scan is one stream again. Needs room for both at once; on failure as before. */
kith_status kith_lists_compact(kith_ivf *ivf);
/* Of the table, its pages, the segments and the bits of the dead. */
uint64_t kith_lists_bytes(const kith_ivf *ivf);
kith_status kith_slab_make(size_t code_bytes, size_t id_bytes, kith_slab **out);
static inline unsigned char *kith_slab_codes(kith_slab *slab) { return (unsigned char *)slab + KITH_ALIGNMENT; }
static inline unsigned char *kith_slab_ids(kith_slab *slab) {
    return kith_slab_codes(slab) + kith_round_up(slab->code_bytes, KITH_ALIGNMENT);
}
/* A list begins to lie in its slabs; it does so no longer: those that are empty then are retired. */
void kith_list_hold(kith_ivf *ivf, const kith_list *list);
void kith_list_release(kith_ivf *ivf, const kith_list *list);

/* ---- ivf_edit.c: changes of lists ----------------------------------------------------------------------------- */

/* Numbers that sort by list: of positions, and of vectors on their way. */
enum { KITH_IVF_KEY_SHIFT = 37 };
static inline int64_t kith_ivf_key(size_t list, uint64_t item) {
    return (int64_t)((uint64_t)list << KITH_IVF_KEY_SHIFT | item);
}
static inline size_t kith_key_list(int64_t key) { return (size_t)((uint64_t)key >> KITH_IVF_KEY_SHIFT); }
static inline size_t kith_key_item(int64_t key) {
    return (size_t)((uint64_t)key & (((uint64_t)1 << KITH_IVF_KEY_SHIFT) - 1));
}

/* What becomes of one list. */
typedef struct kith_list_edit {
    size_t list;
    const int64_t *gone; /* keys of the positions that die, rising */
    size_t gone_count;
    const int64_t *come; /* keys of the vectors that come, rising; NULL where the caller knows without */
    size_t added;
    kith_list next;       /* by kith_edit_begin: the list as it will be */
    size_t first;         /* and where in it the new ones go */
    bool moves;           /* it lies in new memory, without its dead: places have changed */
    kith_list_dead *dead; /* of the list as it is, with those that go */
} kith_list_edit;

/* A change of some lists, in two halves. */
typedef struct kith_edit {
    kith_ivf *ivf;
    kith_list_edit *lists; /* rising by list */
    size_t count;
    size_t id_bytes; /* of new ids */
    bool is_tight;   /* lists that are empty or move get no more room than they need, in one piece */
    size_t threads;
    kith_list **pages; /* the next table */
    kith_slab *slab;   /* with is_tight */
} kith_edit;

/* The lists that two sorted arrays of keys name, either of which may be empty. Free edit->lists. */
kith_status kith_edit_of_keys(const int64_t *gone, size_t gone_count, const int64_t *come, size_t come_count,
                              kith_edit *edit);
/* Everything that can fail: memory for the change, in which the lists' old codes are where they have to be. The caller
 * writes the new ones with kith_list_put and kith_list_set_id into each `next`, and ends with one of the next two, which
 * free the edit's own memory but for `lists`. */
kith_status kith_edit_begin(kith_edit *edit);
void kith_edit_keep(kith_edit *edit);
void kith_edit_drop(kith_edit *edit);
/* Tells the maps, where there are any, the new places in lists that moved. After keep. */
void kith_edit_map_moved(const kith_edit *edit);

/* ---- ivf_train.c ---------------------------------------------------------------------------------------------- */

kith_status kith_ivf_train(kith_index *index, const kith_view *sample, const kith_job *job);
size_t kith_ivf_train_count(const kith_index *index);

/* ---- ivf_assign.c --------------------------------------------------------------------------------------------- */

/* One row as the index sees it: f32, of unit length under cosine. */
void kith_ivf_row(kith_metric metric, const kith_view *view, size_t row, float *out);
/* The centroids, and an index of them where there is one. */
typedef struct kith_centroids {
    const float *rows; /* count x dim */
    size_t count;
    const kith_index *index; /* NULL: all are compared */
} kith_centroids;

static inline kith_centroids kith_ivf_centroids(const kith_ivf *ivf) {
    return (kith_centroids){ivf->centroids, ivf->list_count, ivf->coarse};
}

/* The list of each row of a view that has been checked: that of the nearest centroid, or of the largest inner product
 * under ip and cosine; the lower number on a tie. With an index the nearest of those that it finds. Scratch memory stays below `bytes_max` (0: no limit) or
 * KITH_ERR_BUDGET. `meter` counts rows, or NULL. */
kith_status kith_ivf_assign(const kith_view *view, kith_metric metric, const kith_centroids *centroids,
                            size_t threads, uint64_t bytes_max, kith_meter *meter, uint32_t *assigned);

/* The second list of each row, not that in assigned[row]: of the centroids near it the one with the least
 * |x - c|^2 + <x - c, u>^2, where u is the direction of the row's residual in its first list. A query for which that
 * residual is badly placed finds the other one well placed (Sun et al., "SOAR", NeurIPS 2023, with lambda = 1). Needs
 * two lists; an index of the centroids is asked where there is one. Scratch memory as above. */
kith_status kith_ivf_spill(const kith_view *view, kith_metric metric, const kith_centroids *centroids,
                           const uint32_t *assigned, size_t threads, uint64_t bytes_max, uint32_t *spilled);

/* ---- ivf_add.c ------------------------------------------------------------------------------------------------ */

kith_status kith_ivf_add(kith_index *index, const kith_addition *addition);
/* The same with the lists given: assigned[count], each below list_count (KITH_ERR_ARGUMENT). */
kith_status kith_ivf_add_assigned(kith_ivf *ivf, const kith_addition *addition, const uint32_t *assigned);
kith_status kith_ivf_update(kith_index *index, const kith_view *vectors, const int64_t *ids);
kith_status kith_ivf_upsert(kith_index *index, const kith_addition *addition, size_t *replaced);

/* ---- ivf_ids.c: finding ids ----------------------------------------------------------------------------------- */

/* Where a vector lies, as one number, by the number of the list in `lists`. */
#define KITH_IVF_NO_PLACE UINT64_MAX
static inline uint64_t kith_ivf_place(const kith_ivf *ivf, size_t list, size_t position) {
    return (uint64_t)position * kith_ivf_lists(ivf) + list;
}
static inline size_t kith_place_list(const kith_ivf *ivf, uint64_t place) {
    return (size_t)(place % kith_ivf_lists(ivf));
}
static inline size_t kith_place_position(const kith_ivf *ivf, uint64_t place) {
    return (size_t)(place / kith_ivf_lists(ivf));
}

/* The map that knows the ids of a list. */
static inline kith_idmap *kith_list_map(kith_ivf *ivf, size_t list) { return &ivf->maps[list % ivf->copies]; }
void kith_ivf_free_maps(kith_ivf *ivf);
/* Builds the maps of all ids, unless they are there. */
kith_status kith_ivf_need_map(kith_ivf *ivf);
/* Which of the ids are there. */
kith_status kith_ivf_holds(const kith_index *index, const int64_t *ids, size_t count, bool *held);
/* The place of each id's first copy, KITH_IVF_NO_PLACE for those that are not there: by the map, or by reading all ids. */
kith_status kith_ivf_find(const kith_ivf *ivf, const int64_t *ids, size_t count, uint64_t *places);
/* The keys of the positions of those ids that are there, in all copies, sorted, each once. The maps are there. Free
 * *out, after a failure as well. */
kith_status kith_ivf_keys_of(const kith_ivf *ivf, const int64_t *ids, size_t count, int64_t **out,
                             size_t *key_count);
void kith_ivf_sort_keys(int64_t *keys, size_t count, int64_t *scratch);
/* Calls `visit` for each id of a list that is not dead. */
void kith_list_visit(const kith_list *list, void (*visit)(void *context, int64_t id, size_t position),
                     void *context);
kith_status kith_ivf_remove(kith_index *index, const int64_t *ids, size_t count, size_t *removed);
kith_status kith_ivf_reconstruct(const kith_index *index, const int64_t *ids, size_t count, float *out);

/* ---- ivf_merge.c ---------------------------------------------------------------------------------------------- */

kith_status kith_ivf_merge(kith_index *index, const kith_index *other, int64_t shift);

/* ---- ivf_file.c ----------------------------------------------------------------------------------------------- */

kith_status kith_ivf_save(const kith_index *index, kith_container_writer *writer, uint32_t *part);
kith_status kith_ivf_verify(const kith_index *index);
void kith_ivf_list_ids(const kith_index *index, int64_t *ids);

/* ---- ivf_filtered.c ------------------------------------------------------------------------------------------- */

/* What a call has found out about its filter; in its arena. Any worker may ask and write. */
typedef struct kith_ivf_filtered {
    const kith_ivf *ivf;
    const kith_filter *filter;
    float share;             /* of allowed vectors, an estimate above 0 */
    _Atomic size_t *counts;  /* allowed vectors of each list */
    size_t *first_words;     /* where the bits of each list begin */
    _Atomic uint32_t *words; /* a bit per vector, list after list */
} kith_ivf_filtered;

kith_status kith_ivf_filtered_open(const kith_ivf *ivf, const kith_filter *filter, kith_arena *arena,
                                   kith_ivf_filtered *out);
/* How many vectors of one of `lists` are allowed, and of a centroid's lists. */
size_t kith_ivf_filtered_list(const kith_ivf_filtered *filtered, size_t list);
size_t kith_ivf_filtered_count(const kith_ivf_filtered *filtered, size_t list);
/* Bits of 32 vectors from a position of a list on, which has been counted; 0 past its end. */
uint32_t kith_ivf_filtered_bits(const kith_ivf_filtered *filtered, size_t list, size_t position);
/* Whether raw vectors are so few that a query had better see all of them: what it follows from is not the query. */
bool kith_ivf_filtered_is_few(const kith_ivf_filtered *filtered, size_t nprobe);
/* How many allowed vectors a query should see, and how many lists it may read for that. */
size_t kith_ivf_filtered_wanted(const kith_ivf_filtered *filtered, size_t nprobe);
size_t kith_ivf_filtered_probes_max(const kith_ivf_filtered *filtered, size_t nprobe, size_t k);

/* ---- ivf_search.c --------------------------------------------------------------------------------------------- */

kith_status kith_ivf_search(const kith_index *index, const kith_search_request *request,
                            const kith_search_results *results);
kith_status kith_ivf_range_search(const kith_index *index, const kith_search_request *request,
                                  kith_range_lists *lists);
bool kith_ivf_bounds_errors(const kith_index *index);

#endif
