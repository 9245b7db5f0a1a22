/* SPDX-License-Identifier: Apache-2.0
 *
 * The readers of vector files on hostile bytes: the same bytes under every name that leads to another reader.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "io/vectorfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

static void use(const char *name, const uint8_t *bytes, size_t count) {
    kith_vectors *vectors;
    if (kith_vectors_open_memory(name, bytes, count, NULL, &vectors) != KITH_OK) return;
    size_t rows = kith_vectors_count(vectors), dim = kith_vectors_dim(vectors);
    if (rows != 0 && rows * dim > (uint64_t)2000 * (count + 64)) abort(); /* more than deflate can pack */
    double *values = malloc(rows * dim * sizeof *values + 1);
    kith_vectors_stats stats = {.size = sizeof stats};
    kith_job job;
    kith_job_init(&job);
    job.threads = 1;
    if (values == NULL) abort();
    kith_status status = kith_vectors_read(vectors, 0, rows, KITH_F64, values);
    if (status == KITH_OK) status = kith_vectors_stats_compute(vectors, &job, &stats);
    if (status == KITH_OK && stats.duplicate_count > rows) abort();
    free(values);
    kith_vectors_close(vectors);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    static const char *const names[] = {"a.fvecs", "a.bvecs", "a.fbin", "a.u8bin", "a.ibin", "a.npy", "a.idx", "a"};
    uint8_t *copy;
    if (kith_alloc(count, 1, &copy) != KITH_OK) return 0;
    if (count != 0) memcpy(copy, bytes, count);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) use(names[i], copy, count);
    kith_free(copy);
    if (kith_memory_live_blocks() != 0) abort();
    return 0;
}
