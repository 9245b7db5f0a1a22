/* SPDX-License-Identifier: Apache-2.0
 *
 * types.c: names and sizes of the element types and metrics, defaults of kith_job.
 */
#include "kith/types.h"

#include <string.h>

#include "base/error.h"

static const struct {
    const char *name;
    size_t bits;
} dtypes[] = {
    [KITH_F32] = {"f32", 32}, [KITH_F16] = {"f16", 16}, [KITH_BF16] = {"bf16", 16}, [KITH_I8] = {"i8", 8},
    [KITH_U8] = {"u8", 8},    [KITH_B1] = {"b1", 1},    [KITH_F64] = {"f64", 64},   [KITH_I32] = {"i32", 32},
    [KITH_U32] = {"u32", 32}, [KITH_I64] = {"i64", 64},
};
enum { DTYPE_COUNT = sizeof dtypes / sizeof *dtypes };

static const char *const metrics[] = {
    [KITH_L2] = "l2", [KITH_IP] = "ip", [KITH_COSINE] = "cosine", [KITH_HAMMING] = "hamming"};
enum { METRIC_COUNT = sizeof metrics / sizeof *metrics };

const char *kith_dtype_name(kith_dtype dtype) {
    unsigned number = (unsigned)dtype;
    return number > 0 && number < DTYPE_COUNT ? dtypes[number].name : "?";
}

kith_status kith_dtype_parse(const char *name, kith_dtype *out) {
    for (unsigned i = 1; i < DTYPE_COUNT; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            *out = (kith_dtype)i;
            return KITH_OK;
        }
    return kith_error(KITH_ERR_NOT_FOUND, "type '%s' is not one of f32, f16, bf16, i8, u8, b1, f64, i32, u32, i64",
                      name);
}

size_t kith_dtype_row_bytes(kith_dtype dtype, size_t dim) {
    unsigned number = (unsigned)dtype;
    if (number == 0 || number >= DTYPE_COUNT) return 0;
    size_t bits = dtypes[number].bits;
    return bits == 1 ? dim / 8 + (dim % 8 != 0) : dim * (bits / 8);
}

const char *kith_metric_name(kith_metric metric) {
    unsigned number = (unsigned)metric;
    return number > 0 && number < METRIC_COUNT ? metrics[number] : "?";
}

kith_status kith_metric_parse(const char *name, kith_metric *out) {
    for (unsigned i = 1; i < METRIC_COUNT; i++)
        if (strcmp(name, metrics[i]) == 0) {
            *out = (kith_metric)i;
            return KITH_OK;
        }
    return kith_error(KITH_ERR_NOT_FOUND, "metric '%s' is not one of l2, ip, cosine, hamming", name);
}

int kith_metric_is_similarity(kith_metric metric) { return metric == KITH_IP || metric == KITH_COSINE; }

void kith_job_init(kith_job *job) { *job = (kith_job){.size = sizeof *job, .seed = 1}; }
