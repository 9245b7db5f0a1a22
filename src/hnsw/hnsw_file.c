/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_file.c: the sections of a graph, all of version 1. Numbers are little-endian; rows stand in the order of the
 * nodes, the same in every section.
 *
 *   HNSWMETA  36 bytes: first_id u64; entries_picked_at u64; 0 u64; entry_count u32; has_ids u32, 0 or 1;
 *             ids_rise u32, 0 or 1
 *   HNSWENTR  entry_count x u32: the nodes where walks begin
 *   HNSWROWS  count rows: the vector as the stored type, or its code, padded with zeros to the row's stride
 *   HNSWSIDE  under cosine and without a code only: count x f32, 1 / |x|
 *   HNSWLINK  count x degree x u32: the links of each node, filled up with 2^32 - 1
 *   HNSWPACK  skippable, of codes of one bit: count rows of hnsw_packed.c
 *   HNSWROWI  with has_ids only: count x i64, the nodes' ids, from 0 up to below next_id, distinct among live nodes
 *   HNSWDEAD  only where nodes were removed and are still there: u32 each, rising: their numbers
 *
 * count is that of the live nodes and those of HNSWDEAD. A code follows in sections of its own, under the next part's
 * numbers. Without has_ids node v has the id first_id + v, and ids_rise is 1.
 */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "base/sort.h"
#include "hnsw/hnsw_inside.h"
#include "index/codes.h"
#include "index/convert.h"
#include "index/idrows.h"

enum { META_BYTES = 36, PREFETCH_BYTES = 12, VERSION = 1 };
static const char meta_tag[] = "HNSWMETA", entries_tag[] = "HNSWENTR", rows_tag[] = "HNSWROWS",
                  side_tag[] = "HNSWSIDE", links_tag[] = "HNSWLINK", ids_tag[] = "HNSWROWI",
                  dead_tag[] = "HNSWDEAD", prefetch_tag[] = "HNSWPREF", packed_tag[] = "HNSWPACK";

/* ---- Writing ---------------------------------------------------------------------------------------------- */

/* Skippable: they say nothing new. */
static kith_status write_packed(kith_container_writer *writer, uint32_t part, const kith_hnsw *graph) {
    if (graph->packed.room == 0) return KITH_OK;
    return kith_chunks_save(&graph->packed, graph->node_count, packed_tag, part, KITH_SECTION_SKIPPABLE, writer);
}

static uint32_t bits_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static kith_status write_dead(kith_container_writer *writer, uint32_t part, const kith_hnsw *graph) {
    if (graph->dead.count == 0) return KITH_OK;
    KITH_TRY(kith_container_writer_begin(writer, dead_tag, part, VERSION, 0));
    for (size_t v = 0; v < graph->node_count; v++) {
        unsigned char number[4];
        if (!kith_hnsw_is_dead(graph, v)) continue;
        kith_put_u32(number, (uint32_t)v);
        KITH_TRY(kith_container_writer_write(writer, number, sizeof number));
    }
    return KITH_OK;
}

/* Skippable: it makes no difference to what is found. Only where it is not the default. */
static kith_status write_prefetch(kith_container_writer *writer, uint32_t part, const kith_prefetch *prefetch) {
    kith_prefetch usual;
    unsigned char bytes[PREFETCH_BYTES];
    kith_prefetch_init(&usual);
    if (prefetch->links == usual.links && prefetch->row_lines == usual.row_lines && prefetch->walks == usual.walks)
        return KITH_OK;
    kith_put_u32(bytes, prefetch->links);
    kith_put_u32(bytes + 4, prefetch->row_lines);
    kith_put_u32(bytes + 8, prefetch->walks);
    KITH_TRY(kith_container_writer_begin(writer, prefetch_tag, part, VERSION, KITH_SECTION_SKIPPABLE));
    return kith_container_writer_write(writer, bytes, sizeof bytes);
}

kith_status kith_hnsw_save(const kith_index *index, kith_container_writer *writer, uint32_t *part) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    uint32_t own = (*part)++;
    unsigned char meta[META_BYTES], entries[KITH_HNSW_ENTRIES_MAX * 4];
    kith_put_u64(meta, graph->ids.is_stored ? 0 : (uint64_t)graph->ids.first_id);
    kith_put_u64(meta + 8, graph->entries_picked_at);
    kith_put_u64(meta + 16, 0);
    kith_put_u32(meta + 24, (uint32_t)graph->entry_count);
    kith_put_u32(meta + 28, graph->ids.is_stored);
    kith_put_u32(meta + 32, graph->ids.rises);
    for (size_t i = 0; i < graph->entry_count; i++) kith_put_u32(entries + 4 * i, graph->entries[i]);
    KITH_TRY(kith_container_writer_add(writer, meta_tag, own, meta, sizeof meta));
    KITH_TRY(kith_container_writer_add(writer, entries_tag, own, entries, graph->entry_count * 4));
    KITH_TRY(kith_chunks_save(&graph->rows, graph->node_count, rows_tag, own, 0, writer));
    if (kith_hnsw_has_side(graph))
        KITH_TRY(kith_chunks_save(&graph->side, graph->node_count, side_tag, own, 0, writer));
    KITH_TRY(kith_chunks_save(&graph->links, graph->node_count, links_tag, own, 0, writer));
    KITH_TRY(write_packed(writer, own, graph));
    if (graph->ids.is_stored)
        KITH_TRY(kith_chunks_save(&graph->ids.ids, graph->node_count, ids_tag, own, 0, writer));
    KITH_TRY(write_dead(writer, own, graph));
    KITH_TRY(write_prefetch(writer, own, &graph->prefetch));
    return graph->code != NULL ? kith_code_save(graph->code, writer, part) : KITH_OK;
}

/* ---- Opening ---------------------------------------------------------------------------------------------- */

static kith_status borrow(kith_container *file, const kith_hnsw *graph, const char *tag, kith_chunks *chunks) {
    const void *items;
    KITH_TRY(kith_container_need_items(file, tag, graph->instance, graph->node_count, chunks->item_bytes, &items));
    return kith_chunks_borrow(chunks, chunks->item_bytes, items, graph->node_count);
}

static kith_status open_entries(kith_container *file, kith_hnsw *graph, const kith_section *meta) {
    const void *items;
    size_t count = graph->entry_count;
    if (count > KITH_HNSW_ENTRIES_MAX || count > graph->node_count || (count == 0) != (graph->node_count == 0))
        return kith_section_error(file, meta, "%zu entries for %zu nodes", count, graph->node_count);
    KITH_TRY(kith_container_need_items(file, entries_tag, graph->instance, count, 4, &items));
    for (size_t i = 0; i < count; i++) {
        graph->entries[i] = kith_get_u32((const unsigned char *)items + 4 * i);
        if (graph->entries[i] >= graph->node_count)
            return kith_section_error(file, meta, "entry %zu is node %u of %zu", i, graph->entries[i],
                                      graph->node_count);
    }
    return KITH_OK;
}

/* Beside the live nodes, whose number the index has, the file may hold removed ones: finds out how many there are. */
static kith_status count_nodes(kith_container *file, kith_hnsw *graph, const kith_section **section) {
    KITH_TRY(kith_container_find(file, dead_tag, graph->instance, VERSION, section));
    if (*section == NULL) return KITH_OK;
    size_t count = (*section)->bytes / 4, live = graph->base.count;
    if ((*section)->bytes % 4 != 0 || count == 0 || live == 0 || live > KITH_HNSW_NODES_MAX ||
        count > KITH_HNSW_NODES_MAX - live)
        return kith_section_error(file, *section, "%zu bytes of removed nodes beside %zu", (*section)->bytes, live);
    graph->node_count = live + count;
    return KITH_OK;
}

/* Which they are. The rows of all nodes have been seen to be there. */
static kith_status open_dead(kith_container *file, kith_hnsw *graph, const kith_section *section) {
    if (section == NULL) return KITH_OK;
    size_t count = section->bytes / 4;
    uint64_t *nodes;
    kith_status status;
    KITH_TRY(kith_alloc(count, sizeof *nodes, &nodes));
    for (size_t i = 0; i < count; i++) {
        nodes[i] = kith_get_u32((const unsigned char *)section->data + 4 * i);
        if (nodes[i] >= graph->node_count || (i > 0 && nodes[i] <= nodes[i - 1]))
            KITH_GO(kith_section_error(file, section, "removed node %zu is %llu of %zu", i,
                                       (unsigned long long)nodes[i], graph->node_count));
    }
    KITH_GO(kith_hnsw_mark_dead(graph, nodes, count));
done:
    kith_free(nodes);
    return status;
}

static kith_status open_ids(kith_container *file, kith_hnsw *graph, const kith_section *meta) {
    const unsigned char *bytes = meta->data;
    size_t count = graph->node_count;
    uint64_t first_id = kith_get_u64(bytes), next_id = (uint64_t)graph->base.next_id;
    uint32_t has_ids = kith_get_u32(bytes + 28), rise = kith_get_u32(bytes + 32);
    if (has_ids > 1 || rise > 1 || (!has_ids && !rise))
        return kith_section_error(file, meta, "has_ids is %u and ids_rise %u", has_ids, rise);
    if (has_ids ? first_id != 0 : first_id > next_id || count > next_id - first_id)
        return kith_section_error(file, meta, "%zu ids from %llu on, all below %llu", count,
                                  (unsigned long long)first_id, (unsigned long long)next_id);
    const void *ids = NULL;
    if (has_ids) KITH_TRY(kith_container_need_items(file, ids_tag, graph->instance, count, sizeof(int64_t), &ids));
    return kith_idlist_borrow(&graph->ids, ids, (int64_t)first_id, count, rise != 0);
}

static kith_status open_packed(kith_container *file, kith_hnsw *graph) {
    const kith_section *section;
    if (!kith_hnsw_packs(graph->code)) return KITH_OK;
    KITH_TRY(kith_container_find(file, packed_tag, graph->instance, VERSION, &section));
    return section == NULL ? KITH_OK : borrow(file, graph, packed_tag, &graph->packed);
}

static kith_status open_prefetch(kith_container *file, kith_hnsw *graph) {
    const kith_section *section;
    KITH_TRY(kith_container_find(file, prefetch_tag, graph->instance, VERSION, &section));
    if (section == NULL) return KITH_OK;
    if (section->bytes != PREFETCH_BYTES)
        return kith_section_error(file, section, "has %zu bytes, not %d", section->bytes, PREFETCH_BYTES);
    const unsigned char *bytes = section->data;
    kith_prefetch *prefetch = &graph->prefetch;
    prefetch->links = kith_get_u32(bytes);
    prefetch->row_lines = kith_get_u32(bytes + 4);
    prefetch->walks = kith_get_u32(bytes + 8);
    if (kith_prefetch_check(prefetch) == KITH_OK) return KITH_OK;
    return kith_section_error(file, section, "links %u, row_lines %u, walks %u", prefetch->links,
                              prefetch->row_lines, prefetch->walks);
}

static kith_status open_sections(kith_container *file, kith_hnsw *graph) {
    const kith_section *meta, *dead;
    KITH_TRY(kith_container_need(file, meta_tag, graph->instance, VERSION, &meta));
    if (meta->bytes != META_BYTES)
        return kith_section_error(file, meta, "has %zu bytes, not %d", meta->bytes, META_BYTES);
    const unsigned char *bytes = meta->data;
    KITH_TRY(count_nodes(file, graph, &dead));
    uint64_t picked_at = kith_get_u64(bytes + 8);
    graph->entry_count = kith_get_u32(bytes + 24);
    if (graph->node_count > KITH_HNSW_NODES_MAX || picked_at > graph->node_count)
        return kith_section_error(file, meta, "%zu nodes, entries picked at %llu", graph->node_count,
                                  (unsigned long long)picked_at);
    graph->entries_picked_at = (size_t)picked_at;
    KITH_TRY(open_entries(file, graph, meta));
    KITH_TRY(borrow(file, graph, rows_tag, &graph->rows));
    if (kith_hnsw_has_side(graph)) KITH_TRY(borrow(file, graph, side_tag, &graph->side));
    KITH_TRY(borrow(file, graph, links_tag, &graph->links));
    KITH_TRY(open_packed(file, graph));
    KITH_TRY(open_dead(file, graph, dead));
    KITH_TRY(open_prefetch(file, graph));
    return open_ids(file, graph, meta);
}

static kith_status open_code(kith_container *file, uint32_t *part, kith_hnsw *graph) {
    kith_code *loaded;
    const kith_section *meta;
    KITH_TRY(kith_code_load(file, part, graph->base.dim, kith_hnsw_code_metric(graph->base.metric), &loaded));
    if (strcmp(loaded->name, graph->code->name) != 0) {
        kith_code_free(loaded);
        KITH_TRY(kith_container_need(file, meta_tag, graph->instance, VERSION, &meta));
        return kith_section_error(file, meta, "its code is not the %s that the spec names", graph->code->name);
    }
    kith_code_free(graph->code);
    graph->code = loaded;
    graph->base.is_trained = loaded->is_trained;
    return KITH_OK;
}

kith_status kith_hnsw_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                           kith_index **out) {
    kith_hnsw *graph;
    KITH_TRY(kith_hnsw_make(spec, meta->dim, meta->metric, &graph));
    graph->base.count = graph->node_count = meta->count;
    graph->base.next_id = meta->next_id;
    graph->base.is_mapped = true;
    graph->instance = (*part)++;
    kith_status status = open_sections(file, graph);
    if (status == KITH_OK && graph->code != NULL) status = open_code(file, part, graph);
    if (status != KITH_OK) {
        graph->base.vtable->release(&graph->base);
        return status;
    }
    *out = &graph->base;
    return KITH_OK;
}

/* ---- Verifying -------------------------------------------------------------------------------------------- */

static kith_status bad_content(const kith_hnsw *graph, const char *tag, const char *what) {
    const char *path = graph->base.file != NULL ? kith_container_path(graph->base.file) : "index";
    return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: %s", path, tag, graph->instance, what);
}

static kith_status verify_vectors(const kith_hnsw *graph) {
    const kith_view view = {kith_hnsw_row(graph, 0), graph->base.dtype, graph->node_count, graph->base.dim,
                            graph->rows.item_bytes};
    if (kith_check_vectors("stored vectors", &view, 0, graph->base.metric, kith_threads_default()) == KITH_OK)
        return KITH_OK;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return bad_content(graph, rows_tag, message);
}

/* One row's padding, norm and links. */
static kith_status verify_node(const kith_hnsw *graph, uint32_t node) {
    const kith_index *base = &graph->base;
    const unsigned char *row = kith_hnsw_row(graph, node);
    size_t row_bytes = graph->code != NULL ? graph->code->code_bytes : kith_dtype_row_bytes(base->dtype, base->dim);
    for (size_t b = row_bytes; b < graph->rows.item_bytes; b++)
        if (row[b] != 0) return bad_content(graph, rows_tag, "a row is not padded with zeros");
    if (kith_hnsw_has_side(graph)) {
        float side = kith_exact_inverse_norm(row, base->dtype, base->dim);
        if (bits_of(side) != bits_of(kith_hnsw_side(graph, node)))
            return bad_content(graph, side_tag, "a norm is not that of its row");
    }
    const uint32_t *links = kith_hnsw_links(graph, node);
    size_t count = kith_hnsw_link_count(graph, links);
    for (size_t i = 0; i < graph->degree; i++)
        if (i < count ? links[i] >= graph->node_count || links[i] == node : links[i] != KITH_NO_NODE)
            return bad_content(graph, links_tag, "a link does not lead to another node");
    return KITH_OK;
}

static kith_status verify_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const kith_hnsw *graph = context;
    size_t rows = kith_rows_per_item(graph->rows.item_bytes), first = item * rows;
    for (size_t v = first; v < kith_min_size(graph->node_count, first + rows); v++)
        KITH_TRY(verify_node(graph, (uint32_t)v));
    return KITH_OK;
}

static kith_status verify_packed(const kith_hnsw *graph) {
    kith_status status = kith_hnsw_verify_packed(graph);
    if (status != KITH_ERR_FORMAT) return status;
    char message[512];
    (void)snprintf(message, sizeof message, "%s", kith_error_message());
    return bad_content(graph, packed_tag, message);
}

typedef struct code_check {
    const kith_hnsw *graph;
    const void *query; /* of zeros */
} code_check;

static kith_status verify_code_item(void *context, size_t item, size_t worker) {
    (void)worker;
    const code_check *check = context;
    const kith_hnsw *graph = check->graph;
    size_t rows = kith_rows_per_item(graph->rows.item_bytes), first = item * rows;
    for (size_t v = first; v < kith_min_size(graph->node_count, first + rows); v++)
        if (!kith_code_is_finite(graph->code, check->query, kith_hnsw_row(graph, (uint32_t)v)))
            return bad_content(graph, rows_tag, "a code does not stand for finite numbers");
    return KITH_OK;
}

static kith_status verify_codes(const kith_hnsw *graph) {
    void *query;
    KITH_TRY(kith_code_zero_query(graph->code, &query));
    size_t items = (graph->node_count - 1) / kith_rows_per_item(graph->rows.item_bytes) + 1;
    kith_status status =
        kith_parallel_for(kith_threads_default(), items, verify_code_item, &(code_check){graph, query});
    kith_free(query);
    return status;
}

static kith_status verify_ids(const kith_hnsw *graph) {
    size_t count = graph->node_count;
    const int64_t *ids = kith_chunks_at(&graph->ids.ids, 0);
    for (size_t v = 0; v < count; v++)
        if (ids[v] < 0 || ids[v] >= graph->base.next_id)
            return bad_content(graph, ids_tag, "an id is not in 0 .. next_id - 1");
    bool rise = kith_rises_i64(ids, count);
    if (rise != graph->ids.rises) return bad_content(graph, meta_tag, "ids_rise does not say how the ids are");
    if (rise) return KITH_OK;
    int64_t *sorted, *scratch;
    KITH_TRY(kith_alloc(count, sizeof *sorted, &sorted));
    kith_status status = kith_alloc(count, sizeof *scratch, &scratch);
    if (status == KITH_OK) {
        size_t live = 0;
        for (size_t v = 0; v < count; v++)
            if (!kith_hnsw_is_dead(graph, v)) sorted[live++] = ids[v];
        kith_sort_i64(sorted, live, scratch);
        if (!kith_rises_i64(sorted, live)) status = bad_content(graph, ids_tag, "an id stands twice");
    }
    kith_free(scratch);
    kith_free(sorted);
    return status;
}

kith_status kith_hnsw_verify(const kith_index *index) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    if (index->count == 0) return KITH_OK;
    KITH_TRY(graph->code != NULL ? verify_codes(graph) : verify_vectors(graph));
    size_t items = (graph->node_count - 1) / kith_rows_per_item(graph->rows.item_bytes) + 1;
    KITH_TRY(kith_parallel_for(kith_threads_default(), items, verify_item, (void *)(uintptr_t)graph));
    KITH_TRY(verify_packed(graph));
    return graph->ids.is_stored ? verify_ids(graph) : KITH_OK;
}

void kith_hnsw_list_ids(const kith_index *index, int64_t *ids) {
    const kith_hnsw *graph = kith_hnsw_of_const(index);
    for (size_t v = 0; v < graph->node_count; v++)
        if (!kith_hnsw_is_dead(graph, v)) *ids++ = kith_idlist_get(&graph->ids, v);
}
