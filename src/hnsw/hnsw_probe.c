/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw_probe.c: distances from a query or a node to nodes.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "hnsw/hnsw_inside.h"

static kith_op op_of(const kith_hnsw *graph) { return graph->base.metric == KITH_L2 ? KITH_OP_L2SQ : KITH_OP_IP; }

static size_t prefetch_bytes(const kith_hnsw *graph, size_t row_bytes) {
    return kith_min_size(row_bytes, graph->prefetch.row_lines * (size_t)KITH_ALIGNMENT);
}

static void set_kernels(kith_probe *probe, kith_dtype dtype) {
    const kith_hnsw *graph = probe->graph;
    kith_dtype stored = graph->base.dtype;
    probe->ints = kith_simd_ints(kith_simd(), op_of(graph), dtype, stored);
    if (probe->ints == NULL) probe->floats = kith_simd_floats(kith_simd(), op_of(graph), dtype, stored);
}

kith_probe kith_probe_query(const kith_hnsw *graph, kith_dtype dtype) {
    kith_probe probe = {.graph = graph, .kind = KITH_PROBE_CODE};
    probe.prefetch_bytes = prefetch_bytes(graph, graph->rows.item_bytes);
    if (graph->code != NULL) return probe;
    probe.kind = graph->base.metric == KITH_L2   ? KITH_PROBE_PLAIN
                 : graph->base.metric == KITH_IP ? KITH_PROBE_NEGATED
                                                 : KITH_PROBE_COSINE;
    set_kernels(&probe, dtype);
    return probe;
}

static kith_probe probe_sketch(const kith_hnsw *graph, uint32_t node) {
    kith_probe probe = {.graph = graph, .sketch = graph->sketch};
    probe.prefetch_bytes = prefetch_bytes(graph, graph->sketch->stride);
    kith_dtype dtype = probe.sketch->dtype;
    bool has_lengths = probe.sketch->lengths != NULL;
    kith_op op = kith_hnsw_links_by_ip(graph) && !has_lengths ? KITH_OP_IP : KITH_OP_L2SQ;
    probe.kind = has_lengths ? KITH_PROBE_LENGTHS : op == KITH_OP_IP ? KITH_PROBE_NEGATED : KITH_PROBE_PLAIN;
    if (has_lengths) {
        probe.side = probe.sketch->lengths[node];
        probe.factor = dtype == KITH_F32 ? 0.5f : 0.5f / (probe.sketch->inverse_step * probe.sketch->inverse_step);
    }
    probe.ints = kith_simd_ints(kith_simd(), op, dtype, dtype);
    if (probe.ints == NULL) probe.floats = kith_simd_floats(kith_simd(), op, dtype, dtype);
    probe.vector = kith_probe_row(&probe, node);
    return probe;
}

/* ---- Codes held against codes --------------------------------------------------------------------------------- */

enum { SLOTS_MIN = 2, SLOTS_MAX = 256 };
static const size_t slots_bytes = 1 << 18; /* if each is larger, there are fewer */

void kith_restorer_free(kith_restorer *restorer) {
    kith_free(restorer->nodes);
    kith_free(restorer->bases);
    kith_free(restorer->selves);
    kith_free(restorer->prepared);
    kith_free(restorer->vector);
    kith_free(restorer->scratch);
    *restorer = (kith_restorer){0};
}

static size_t slots_of(const kith_code *code) {
    size_t count = SLOTS_MAX;
    while (count > SLOTS_MIN && count * code->query_bytes > slots_bytes) count /= 2;
    return count;
}

double kith_restorer_bytes(const kith_code *code) {
    kith_restorer one;
    double slot = (double)(sizeof *one.nodes + sizeof *one.bases + sizeof *one.selves + code->query_bytes);
    return (double)slots_of(code) * slot +
           (double)(code->projected_dim * sizeof *one.vector + kith_code_restore_bytes(code));
}

kith_status kith_restorer_take(const kith_code *code, kith_restorer *out) {
    size_t count = slots_of(code);
    *out = (kith_restorer){.slot_count = count};
    kith_status status;
    KITH_GO(kith_alloc(count, sizeof *out->nodes, &out->nodes));
    KITH_GO(kith_alloc(count, sizeof *out->bases, &out->bases));
    KITH_GO(kith_alloc(count, sizeof *out->selves, &out->selves));
    KITH_GO(kith_alloc(count, code->query_bytes, &out->prepared));
    KITH_GO(kith_alloc(code->projected_dim, sizeof *out->vector, &out->vector));
    KITH_GO(kith_alloc(1, kith_code_restore_bytes(code), &out->scratch));
    memset(out->nodes, 0xff, count * sizeof *out->nodes);
    return KITH_OK;
done:
    kith_restorer_free(out);
    return status;
}

void kith_probe_restore(kith_probe *probe, uint32_t node) {
    kith_restorer *restorer = probe->restorer;
    const kith_code *code = probe->graph->code;
    size_t slot = node & (restorer->slot_count - 1);
    void *prepared = restorer->prepared + slot * code->query_bytes;
    if (restorer->nodes[slot] != node) {
        const unsigned char *row = kith_hnsw_row(probe->graph, node);
        code->vtable->restore(code, row, restorer->scratch, restorer->vector);
        code->vtable->prepare(code, restorer->vector, prepared);
        restorer->bases[slot] = kith_code_base(code, restorer->vector, NULL);
        restorer->selves[slot] = kith_code_one(code, prepared, restorer->bases[slot], row);
        restorer->nodes[slot] = node;
    }
    probe->vector = prepared;
    probe->side = restorer->bases[slot];
    probe->self = restorer->selves[slot];
}

static kith_probe probe_codes(const kith_hnsw *graph, uint32_t node, kith_restorer *restorer) {
    kith_probe probe = kith_probe_query(graph, KITH_F32);
    probe.restorer = restorer;
    if (graph->base.metric != KITH_IP) probe.kind = KITH_PROBE_CODES;
    probe.factor = graph->base.metric == KITH_COSINE ? 2 : 1; /* codes know its inner products */
    kith_probe_restore(&probe, node);
    return probe;
}

kith_probe kith_probe_node(const kith_hnsw *graph, uint32_t node, kith_restorer *restorer) {
    if (graph->sketch != NULL) return probe_sketch(graph, node);
    if (graph->code != NULL) return probe_codes(graph, node, restorer);
    kith_probe probe = {.graph = graph, .vector = kith_hnsw_row(graph, node)};
    probe.prefetch_bytes = prefetch_bytes(graph, graph->rows.item_bytes);
    set_kernels(&probe, graph->base.dtype);
    probe.kind = graph->base.metric == KITH_L2   ? KITH_PROBE_PLAIN
                 : graph->base.metric == KITH_IP ? KITH_PROBE_NEGATED
                                                 : KITH_PROBE_UNIT;
    if (probe.kind == KITH_PROBE_UNIT) probe.side = kith_hnsw_side(graph, node);
    return probe;
}

static void adjust(const kith_probe *probe, const uint32_t nodes[4], float out[4]) {
    const kith_hnsw *graph = probe->graph;
    switch (probe->kind) {
        case KITH_PROBE_PLAIN:
        case KITH_PROBE_CODE: return;
        case KITH_PROBE_CODES:
            for (size_t i = 0; i < 4; i++) out[i] = fmaxf(probe->factor * (out[i] - probe->self), 0);
            return;
        case KITH_PROBE_NEGATED:
            for (size_t i = 0; i < 4; i++) out[i] = -out[i];
            return;
        case KITH_PROBE_COSINE:
            for (size_t i = 0; i < 4; i++) out[i] = -(out[i] * kith_hnsw_side(graph, nodes[i]) * probe->side);
            return;
        case KITH_PROBE_LENGTHS:
            for (size_t i = 0; i < 4; i++)
                out[i] = (probe->factor * out[i] - 1) * (probe->side * probe->sketch->lengths[nodes[i]]);
            return;
        case KITH_PROBE_UNIT:
            for (size_t i = 0; i < 4; i++)
                out[i] = fmaxf(2 - 2 * (out[i] * kith_hnsw_side(graph, nodes[i]) * probe->side), 0);
            return;
    }
}

static void four_vectors(const kith_probe *probe, const uint32_t nodes[4], const void *const rows[4],
                         float out[4]) {
    size_t dim = probe->graph->base.dim;
    if (probe->kind >= KITH_PROBE_CODE) {
        const kith_code *code = probe->graph->code;
        code->vtable->rows(code, probe->vector, probe->side, (const unsigned char *const *)rows, 4, out);
    } else if (probe->ints != NULL) {
        int32_t values[4];
        probe->ints->four(probe->vector, rows, dim, values);
        for (size_t i = 0; i < 4; i++) out[i] = (float)values[i];
    } else {
        probe->floats->four(probe->vector, rows, dim, out);
    }
    adjust(probe, nodes, out);
}

void kith_probe_four(const kith_probe *probe, const uint32_t nodes[4], float out[4]) {
    const void *rows[4];
    for (size_t i = 0; i < 4; i++) rows[i] = kith_probe_row(probe, nodes[i]);
    four_vectors(probe, nodes, rows, out);
}

void kith_probe_rows(const kith_probe *probe, uint32_t *nodes, const void **rows, size_t count, float *out) {
    if (probe->kind >= KITH_PROBE_CODE) {
        kith_code_rows_estimate(probe->graph->code, probe->vector, probe->side, (const unsigned char **)rows, count,
                                out);
        for (size_t i = 0; probe->kind == KITH_PROBE_CODES && i < count; i += 4) adjust(probe, nodes + i, out + i);
        return;
    }
    for (size_t i = count; i % 4 != 0; i++) {
        nodes[i] = nodes[0];
        rows[i] = rows[0];
    }
    for (size_t i = 0; i < count; i += 4) four_vectors(probe, nodes + i, rows + i, out + i);
}

void kith_probe_many(const kith_probe *probe, uint32_t *nodes, size_t count, float *out) {
    const void *rows[KITH_CODE_ROWS_UNIT];
    for (size_t i = 0; i < count; i += KITH_CODE_ROWS_UNIT) {
        size_t part = kith_min_size(KITH_CODE_ROWS_UNIT, count - i);
        for (size_t r = 0; r < part; r++) rows[r] = kith_probe_row(probe, nodes[i + r]);
        kith_probe_rows(probe, nodes + i, rows, part, out + i);
    }
}
