/* SPDX-License-Identifier: Apache-2.0
 *
 * fvecs, bvecs, ivecs: per row an i32 dimension, then the elements; no header (INRIA's TEXMEX sets).
 * fbin, u8bin, i8bin, ibin: u32 rows, u32 dimension, then the elements (big-ann-benchmarks). A file of ground truth
 * there is an ibin with the distances as f32 after all ids.
 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "io/vectorfile.h"

static kith_status check_type(const kith_source *source, kith_format format, kith_dtype dtype) {
    if (dtype == 0)
        return kith_error(KITH_ERR_ARGUMENT, "%s: the name does not say the element type; it has to be given",
                          source->path);
    if (strcmp(kith_format_name(format, dtype), "?") == 0)
        return kith_error(KITH_ERR_TYPE, "%s: there is no %s format with elements of type %s", source->path,
                          format == KITH_FORMAT_VECS ? "vecs" : "bin", kith_dtype_name(dtype));
    return KITH_OK;
}

kith_status kith_vecs_layout(const kith_source *source, kith_dtype dtype, kith_layout *out) {
    KITH_TRY(check_type(source, KITH_FORMAT_VECS, dtype));
    if (source->bytes == 0)
        return kith_error(KITH_ERR_EMPTY, "%s: empty; without a row there is no dimension", source->path);
    int32_t dim;
    KITH_TRY(kith_source_read(source, 0, &dim, sizeof dim, "the first row's dimension"));
    if (dim <= 0) return kith_error(KITH_ERR_FORMAT, "%s: dimension %d at byte 0", source->path, dim);
    uint64_t stride = sizeof dim + (uint64_t)kith_dtype_row_bytes(dtype, 1) * (uint64_t)dim;
    if (source->bytes % stride != 0)
        return kith_error(
            KITH_ERR_FORMAT,
            "%s: %llu bytes are no multiple of the %llu bytes that a row of dimension %d (byte 0) takes",
            source->path, (unsigned long long)source->bytes, (unsigned long long)stride, dim);
    *out = (kith_layout){.dtype = dtype, .count = source->bytes / stride, .dim = (uint64_t)dim, .prefix_bytes = 4};
    return KITH_OK;
}

static kith_status choose_half(const kith_source *source, const char *dataset, kith_layout *out) {
    bool is_truth = false;
    uint64_t half = 0; /* both factors are below 2^32: their product fits */
    if (out->dtype == KITH_I32 && !__builtin_mul_overflow(out->count * out->dim, 4, &half))
        is_truth = half != 0 && half <= (UINT64_MAX - 8) / 2 && source->bytes == 8 + 2 * half;
    bool distances = dataset != NULL && strcmp(dataset, "distances") == 0;
    if (dataset != NULL && !distances && strcmp(dataset, "neighbors") != 0)
        return kith_error(KITH_ERR_NOT_FOUND,
                          "%s: no data set '%s'; a file of ground truth has neighbors and distances", source->path,
                          dataset);
    if (dataset != NULL && !is_truth)
        return kith_error(KITH_ERR_NOT_FOUND, "%s: no data set '%s': not a file of ground truth", source->path,
                          dataset);
    if (distances) {
        out->offset += half;
        out->dtype = KITH_F32;
    }
    out->has_more = is_truth && !distances;
    return KITH_OK;
}

kith_status kith_bin_layout(const kith_source *source, kith_dtype dtype, const char *dataset, kith_layout *out) {
    KITH_TRY(check_type(source, KITH_FORMAT_BIN, dtype));
    uint32_t shape[2];
    KITH_TRY(kith_source_read(source, 0, shape, sizeof shape, "rows and dimension"));
    if (shape[1] == 0) return kith_error(KITH_ERR_FORMAT, "%s: dimension 0 at byte 4", source->path);
    *out = (kith_layout){.dtype = dtype, .count = shape[0], .dim = shape[1], .offset = sizeof shape};
    return choose_half(source, dataset, out);
}
