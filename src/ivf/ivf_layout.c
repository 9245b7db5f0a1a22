/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_layout.c: where the codes of many lists lie in one run of memory without gaps.
 *
 * A list has whole blocks of 32 codes of its own. What is left of it, its tail, shares a block with the tails of other
 * lists: a scan reads that block whole either way, and takes its own lanes. Blocks that have lanes left are open, at
 * most 16 of them, so that a tail lies near the list that it belongs to. Of lists with 59 vectors each 1 lane in 100
 * stays empty, where blocks of their own would leave 20. Raw vectors have no lanes and lie row after row.
 */
#include <string.h>

#include "ivf/ivf_inside.h"

/* ---- The layout ----------------------------------------------------------------------------------------------- */

/* The lane count that an open block has left. */
static size_t room_of(const kith_layout_open *open) { return KITH_BLOCK_ROWS - open->used; }

/* The open block with the least room that is enough, the one opened first of equals; open_count when there is none. */
static size_t best_fit(const kith_layout *layout, size_t lanes) {
    size_t best = layout->open_count;
    for (size_t i = 0; i < layout->open_count; i++)
        if (room_of(&layout->open[i]) >= lanes &&
            (best == layout->open_count || room_of(&layout->open[i]) < room_of(&layout->open[best])))
            best = i;
    return best;
}

static void close_block(kith_layout *layout, size_t i) {
    layout->open_count--;
    memmove(&layout->open[i], &layout->open[i + 1], (layout->open_count - i) * sizeof layout->open[0]);
}

/* Opens the next block; of as many as there may be the one with the least room, the oldest of equals, is closed. */
static size_t open_block(kith_layout *layout) {
    if (layout->open_count == KITH_LAYOUT_OPEN_MAX) {
        size_t least = 0;
        for (size_t i = 1; i < layout->open_count; i++)
            if (room_of(&layout->open[i]) < room_of(&layout->open[least])) least = i;
        close_block(layout, least);
    }
    layout->open[layout->open_count] = (kith_layout_open){.block = layout->block_count++, .used = 0};
    return layout->open_count++;
}

kith_layout_place kith_layout_next(kith_layout *layout, size_t count, size_t list) {
    layout->row_count += count;
    kith_layout_place place = {.first = layout->block_count, .neighbour = KITH_LAYOUT_NO_LIST};
    size_t lanes = count % KITH_BLOCK_ROWS;
    layout->block_count += count / KITH_BLOCK_ROWS;
    if (lanes == 0) return place;
    size_t i = best_fit(layout, lanes);
    if (i == layout->open_count)
        i = open_block(layout);
    else
        place.neighbour = layout->open[i].last_list;
    kith_layout_open *open = &layout->open[i];
    place.tail = open->block;
    place.lane = open->used;
    open->used += lanes;
    open->last_list = list;
    if (open->used == KITH_BLOCK_ROWS) close_block(layout, i);
    return place;
}

kith_list_segment kith_segment_next(kith_layout *layout, const kith_code *code, size_t count, size_t list,
                                    unsigned char *codes) {
    kith_list_segment segment = {.count = count, .capacity = count};
    size_t row = layout->row_count;
    kith_layout_place place = kith_layout_next(layout, count, list);
    if (code->is_exact) {
        segment.blocks = codes + row * code->code_bytes;
        return segment;
    }
    segment.blocks = codes + place.first * code->block_bytes;
    segment.block_count = (uint32_t)(count / KITH_BLOCK_ROWS);
    if (count % KITH_BLOCK_ROWS == 0) return segment;
    segment.tail = codes + place.tail * code->block_bytes;
    segment.tail_lane = (uint8_t)place.lane;
    return segment;
}

void kith_layout_items(const kith_layout *layout, const kith_code *code, size_t *count, size_t *each) {
    *count = code->is_exact ? layout->row_count : layout->block_count;
    *each = code->is_exact ? code->code_bytes : code->block_bytes;
}

/* ---- Codes by their position ---------------------------------------------------------------------------------- */

const kith_list_segment *kith_list_find(const kith_list *list, size_t position, size_t *at) {
    size_t s = 0;
    while (position >= kith_list_segment_at(list, s)->count) position -= kith_list_segment_at(list, s++)->count;
    *at = position;
    return kith_list_segment_at(list, s);
}

/* A run of lanes of one block, or of raw rows. */
typedef struct lanes {
    unsigned char *block;
    size_t first, count;
} lanes;

/* The lanes from position `at` of a segment on, as far as they lie side by side: at most a block's. */
static lanes lanes_at(const kith_code *code, const kith_list_segment *segment, size_t at) {
    size_t left = segment->count - at, in_block = at % KITH_BLOCK_ROWS;
    if (code->is_exact)
        return (lanes){segment->blocks + at * code->code_bytes, 0, kith_min_size(left, KITH_BLOCK_ROWS)};
    if (at >= (size_t)segment->block_count * KITH_BLOCK_ROWS)
        return (lanes){segment->tail, segment->tail_lane + in_block, left};
    return (lanes){segment->blocks + at / KITH_BLOCK_ROWS * code->block_bytes, in_block,
                   KITH_BLOCK_ROWS - in_block};
}

const unsigned char *kith_list_block(const kith_code *code, const kith_list *list, size_t position, size_t *lane) {
    size_t at;
    const kith_list_segment *segment = kith_list_find(list, position, &at);
    const lanes run = lanes_at(code, segment, at);
    *lane = run.first;
    return run.block;
}

void kith_list_get(const kith_code *code, const kith_list *list, size_t position, size_t count,
                   unsigned char *rows) {
    while (count > 0) {
        size_t at;
        const kith_list_segment *segment = kith_list_find(list, position, &at);
        lanes run = lanes_at(code, segment, at);
        run.count = kith_min_size(run.count, count);
        for (size_t i = 0; i < run.count; i++)
            code->vtable->unpack(code, run.block, run.first + i, rows + i * code->code_bytes);
        rows += run.count * code->code_bytes;
        position += run.count;
        count -= run.count;
    }
}

void kith_list_put(const kith_code *code, const kith_list *list, size_t position, size_t count,
                   const unsigned char *rows) {
    while (count > 0) {
        size_t at;
        const kith_list_segment *segment = kith_list_find(list, position, &at);
        lanes run = lanes_at(code, segment, at);
        run.count = kith_min_size(run.count, count);
        code->vtable->pack(code, rows, run.first, run.count, run.block);
        rows += run.count * code->code_bytes;
        position += run.count;
        count -= run.count;
    }
}

void kith_list_set_id(const kith_list *list, size_t position, int64_t id) {
    size_t at;
    const kith_list_segment *segment = kith_list_find(list, position, &at);
    if (segment->id_bytes == 4)
        ((uint32_t *)segment->ids)[at] = (uint32_t)id;
    else
        ((int64_t *)segment->ids)[at] = id;
}

int64_t kith_list_id(const kith_list *list, size_t position) {
    size_t at;
    const kith_list_segment *segment = kith_list_find(list, position, &at);
    return kith_segment_id(segment, at);
}

/* ---- From list to list ---------------------------------------------------------------------------------------- */

/* At most a block's codes. Of those that fill a block here and there the block is copied as it is. */
static void move_codes(const kith_code *code, const kith_list *from, size_t position, size_t count,
                       const kith_list *to, size_t to_position, unsigned char *rows) {
    size_t at, to_at;
    const kith_list_segment *source = kith_list_find(from, position, &at);
    const kith_list_segment *target = kith_list_find(to, to_position, &to_at);
    const lanes here = lanes_at(code, source, at), there = lanes_at(code, target, to_at);
    bool is_block = !code->is_exact && count == KITH_BLOCK_ROWS && here.count == count && there.count == count;
    if (is_block && here.first == 0 && there.first == 0) {
        memcpy(there.block, here.block, code->block_bytes);
        return;
    }
    kith_list_get(code, from, position, count, rows);
    kith_list_put(code, to, to_position, count, rows);
}

void kith_list_move(const kith_code *code, const kith_list *from, size_t position, size_t count,
                    const kith_list *to, size_t to_position, int64_t id_shift, unsigned char *rows) {
    while (count > 0) {
        size_t part = kith_min_size(count, KITH_BLOCK_ROWS - to_position % KITH_BLOCK_ROWS);
        move_codes(code, from, position, part, to, to_position, rows);
        for (size_t i = 0; i < part; i++)
            kith_list_set_id(to, to_position + i, kith_list_id(from, position + i) + id_shift);
        position += part;
        to_position += part;
        count -= part;
    }
}

size_t kith_list_next_live(const kith_list *list, size_t *position) {
    size_t first = *position, last;
    if (list->dead == NULL) return list->count - first;
    while (first < list->count && kith_list_is_dead(list, first)) first++;
    for (last = first; last < list->count && !kith_list_is_dead(list, last);) last++;
    *position = first;
    return last - first;
}

void kith_list_move_live(const kith_code *code, const kith_list *from, const kith_list *to, size_t to_position,
                         int64_t id_shift, unsigned char *rows) {
    size_t position = 0;
    for (size_t run; (run = kith_list_next_live(from, &position)) > 0; position += run, to_position += run)
        kith_list_move(code, from, position, run, to, to_position, id_shift, rows);
}

/* ---- Scanning ------------------------------------------------------------------------------------------------- */

/* Moves the estimates of a tail to where they would be if the tail began its block. */
static void shift_estimates(float *out, size_t stride, size_t query_count, size_t lane, size_t count) {
    for (size_t q = 0; q < query_count && lane > 0; q++)
        memmove(out + q * stride, out + q * stride + lane, count * sizeof *out);
}

void kith_segment_scan(const kith_code *code, const kith_list_segment *segment, size_t first, size_t count,
                       const void *const *queries, const float *bases, size_t query_count, float *out,
                       size_t stride) {
    size_t whole = segment->block_count, from = first / KITH_BLOCK_ROWS;
    size_t end = from + kith_code_blocks(count); /* of the blocks, the tail's among them */
    const unsigned char *blocks = segment->blocks + from * code->block_bytes;
    if (end <= whole || (segment->tail_lane == 0 && segment->tail == segment->blocks + whole * code->block_bytes)) {
        code->vtable->scan(code, queries, bases, query_count, blocks, end - from, out, stride);
        return;
    }
    for (size_t at = 0; at < code->block_bytes; at += KITH_ALIGNMENT) __builtin_prefetch(segment->tail + at);
    if (from < whole) code->vtable->scan(code, queries, bases, query_count, blocks, whole - from, out, stride);
    out += (whole - from) * KITH_BLOCK_ROWS;
    code->vtable->scan(code, queries, bases, query_count, segment->tail, 1, out, stride);
    shift_estimates(out, stride, query_count, segment->tail_lane, first + count - whole * KITH_BLOCK_ROWS);
}
