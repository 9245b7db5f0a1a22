/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/types.h: element types, metrics, views of vectors, options that every long call shares, memory hooks.
 */
#ifndef KITH_TYPES_H
#define KITH_TYPES_H

#include <stddef.h>
#include <stdint.h>

#include "kith/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element types. F32..U8 are what an index stores and what a query may be given in; B1 is packed bits, eight
 * dimensions a byte; the others occur in vector files only. Numbers stand in files: never reused. */
typedef enum kith_dtype {
    KITH_F32 = 1,
    KITH_F16 = 2,  /* IEEE binary16 */
    KITH_BF16 = 3, /* bfloat16: the upper half of a binary32 */
    KITH_I8 = 4,
    KITH_U8 = 5,
    KITH_B1 = 6,
    KITH_F64 = 7,
    KITH_I32 = 8,
    KITH_U32 = 9,
    KITH_I64 = 10
} kith_dtype;

/* How near two vectors are. Numbers stand in files: never reused.
 *   KITH_L2      squared Euclidean distance; smaller is nearer
 *   KITH_IP      inner product; larger is nearer; vectors are not normalised
 *   KITH_COSINE  cosine of the angle, in -1..1; larger is nearer; vectors too short to have a direction in f32
 *                (squared norm below FLT_MIN, the zero vector among them) are refused
 *   KITH_HAMMING number of differing bits, for KITH_B1; smaller is nearer
 * Results come nearest first. Ties are broken by the lower id, everywhere. */
typedef enum kith_metric { KITH_L2 = 1, KITH_IP = 2, KITH_COSINE = 3, KITH_HAMMING = 4 } kith_metric;

/* The largest dimension of any vector. Up to here the sums of the 8-bit kernels are exact in 32 bits. */
#define KITH_DIM_MAX 32768

/* The largest squared norm that is accepted: a quarter of FLT_MAX, so that no distance overflows. */
#define KITH_NORM2_MAX 8.5070587e+37f

/* Ids are 0..KITH_ID_MAX. */
#define KITH_ID_MAX (INT64_MAX - 1)

/* The id that pads a row of results which has fewer than k. */
#define KITH_NO_ID ((int64_t)-1)

/* A borrowed view of `count` vectors of `dim` elements each. Row i starts at (const char *)data + i * stride.
 * `stride` is in bytes; 0 means that rows are packed. Rows need the alignment of their element type, no more. */
typedef struct kith_view {
    const void *data;
    kith_dtype dtype;
    size_t count;
    size_t dim;
    size_t stride;
} kith_view;

/* "f32", "f16", "bf16", "i8", "u8", "b1", "f64", "i32", "u32", "i64"; "?" for another number. Static. */
KITH_API const char *kith_dtype_name(kith_dtype dtype);
/* The type of that name. KITH_ERR_NOT_FOUND names the names that exist. */
KITH_API kith_status kith_dtype_parse(const char *name, kith_dtype *out) KITH_CHECK_RESULT;
/* Bytes of one packed row of `dim` elements (KITH_B1: dim bits, rounded up to a byte); 0 for an unknown type. */
KITH_API size_t kith_dtype_row_bytes(kith_dtype dtype, size_t dim);

/* "l2", "ip", "cosine", "hamming"; "?" for another number. Static. */
KITH_API const char *kith_metric_name(kith_metric metric);
KITH_API kith_status kith_metric_parse(const char *name, kith_metric *out) KITH_CHECK_RESULT;
/* 1 when larger values are nearer (ip, cosine), 0 when smaller ones are (l2, hamming). */
KITH_API int kith_metric_is_similarity(kith_metric metric);

/* Called from time to time by long work, from one thread at a time, never more than some 20 times a second.
 * `phase` is a static name ("add", "search", ...), done <= total count units of that phase.
 * Return 0 to go on; anything else cancels: the call then returns KITH_ERR_CANCELLED and changes nothing. */
typedef int (*kith_progress_fn)(void *user, const char *phase, uint64_t done, uint64_t total);

/* Options that every long call takes. NULL stands for the defaults. Set `size` by kith_job_init, so that a
 * program built against an older header goes on working with a newer library. */
typedef struct kith_job {
    size_t size;               /* sizeof(kith_job) as the caller knows it */
    size_t threads;            /* default 0: all processors that the process may use; 1..1024 */
    uint64_t seed;             /* default 1; the same seed gives the same bytes at any thread count */
    kith_progress_fn progress; /* default NULL */
    void *progress_user;       /* handed to progress */
    uint64_t memory_bytes_max; /* default 0: no limit; else scratch memory stays below or KITH_ERR_BUDGET */
} kith_job;

KITH_API void kith_job_init(kith_job *job);

/* Memory hooks. `alloc` returns `bytes` bytes at a multiple of `alignment` (a power of two, at least 64) or
 * NULL; `release` takes what alloc returned. Both may be called from any thread at once. */
typedef struct kith_allocator {
    void *(*alloc)(void *user, size_t alignment, size_t bytes);
    void (*release)(void *user, void *block);
    void *user;
} kith_allocator;

/* Replaces the allocator of the whole process (NULL: the default again). To be called while no other thread is
 * inside kith; KITH_ERR_ARGUMENT when a hook is missing or when blocks of the present allocator are still live. */
KITH_API kith_status kith_allocator_set(const kith_allocator *allocator) KITH_CHECK_RESULT;
/* How many blocks are live now: 0 after everything that was created has been freed. Thread-safe. */
KITH_API uint64_t kith_memory_live_blocks(void);

/* Processors that this process may run on (affinity counted), at least 1: what threads = 0 stands for. */
KITH_API size_t kith_threads_default(void);

#ifdef __cplusplus
}
#endif
#endif
