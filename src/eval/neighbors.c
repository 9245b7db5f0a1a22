/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/neighbors.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"

kith_status kith_neighbors_read(const char *what, const kith_neighbors *given, kith_neighbors *own) {
    *own = (kith_neighbors){.size = sizeof *own};
    if (given == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: NULL", what);
    KITH_TRY(kith_options_read(what, own, sizeof *own, given));
    if (own->query_count == 0) return kith_error(KITH_ERR_EMPTY, "%s: no queries", what);
    if (own->k == 0 || own->k > KITH_NEIGHBORS_K_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "%s: k = %zu is outside 1..%zu", what, own->k, KITH_NEIGHBORS_K_MAX);
    if (own->ids == NULL) return kith_error(KITH_ERR_ARGUMENT, "%s: ids is NULL", what);
    size_t count, bytes;
    if (kith_mul_overflows(own->query_count, own->k, &count) ||
        kith_mul_overflows(count, sizeof(int64_t), &bytes) || bytes > PTRDIFF_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "%s: %zu queries x %zu neighbours", what, own->query_count, own->k);
    return KITH_OK;
}

kith_status kith_neighbors_create(size_t query_count, size_t k, int with_distances, kith_neighbors **out) {
    *out = NULL;
    kith_status status;
    kith_neighbors *made;
    if (query_count == 0) return kith_error(KITH_ERR_EMPTY, "neighbours: no queries");
    if (k == 0 || k > KITH_NEIGHBORS_K_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "neighbours: k = %zu is outside 1..%zu", k, KITH_NEIGHBORS_K_MAX);
    size_t count;
    if (kith_mul_overflows(query_count, k, &count))
        return kith_error(KITH_ERR_OVERFLOW, "neighbours: %zu queries x %zu", query_count, k);
    KITH_TRY(kith_alloc_zeroed(1, sizeof *made, &made));
    *made = (kith_neighbors){.size = sizeof *made, .query_count = query_count, .k = k};
    KITH_GO(kith_alloc(count, sizeof *made->ids, &made->ids));
    if (with_distances) KITH_GO(kith_alloc_zeroed(count, sizeof *made->distances, &made->distances));
    for (size_t i = 0; i < count; i++) made->ids[i] = KITH_NO_ID;
    *out = made;
    made = NULL;
done:
    kith_neighbors_free(made);
    return status;
}

void kith_neighbors_free(kith_neighbors *neighbors) {
    if (neighbors == NULL) return;
    kith_free(neighbors->ids);
    kith_free(neighbors->distances);
    kith_free(neighbors);
}
