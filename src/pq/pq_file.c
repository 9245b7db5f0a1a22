/* SPDX-License-Identifier: Apache-2.0
 *
 * pq_file.c: product quantisers in index files. One part number:
 *
 *   PQCDHEAD  32 bytes, little-endian:
 *      0  u64  dimensions
 *      8  u64  parts
 *     16  u32  bits
 *     20  u32  bit 0: fast-scan; bit 1: anisotropic; all others zero
 *     24  u64  zero
 *   PQCDBOOK  parts x 2^bits x (dimensions / parts) f32
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "pq/pq_inside.h"

enum { FLAG_FAST = 1, FLAG_ANISOTROPIC = 2 };

typedef struct head {
    uint64_t dim, parts;
    uint32_t bits, flags;
    uint64_t reserved;
} head;
_Static_assert(sizeof(head) == 32, "the head is written as it lies in memory");

static head head_of(const kith_pq *pq) {
    return (head){.dim = pq->base.dim,
                  .parts = pq->parts,
                  .bits = (uint32_t)pq->bits,
                  .flags = (pq->is_fast ? FLAG_FAST : 0) | (pq->is_anisotropic ? FLAG_ANISOTROPIC : 0)};
}

kith_status kith_pq_save(const kith_code *code, kith_container_writer *writer, uint32_t *part) {
    const kith_pq *pq = kith_pq_of_const(code);
    head h = head_of(pq);
    uint32_t own = (*part)++;
    KITH_TRY(kith_container_writer_add(writer, "PQCDHEAD", own, &h, sizeof h));
    return kith_container_writer_add(writer, "PQCDBOOK", own, pq->codebooks,
                                     pq->codewords * code->dim * sizeof *pq->codebooks);
}

static kith_status check_head(const kith_pq *pq, kith_container *file, uint32_t own) {
    const void *stored;
    head read, expected = head_of(pq);
    KITH_TRY(kith_container_need_items(file, "PQCDHEAD", own, 1, sizeof read, &stored));
    memcpy(&read, stored, sizeof read);
    if (memcmp(&read, &expected, sizeof read) == 0) return KITH_OK;
    return kith_error(
        KITH_ERR_FORMAT,
        "%s: section PQCDHEAD.%u: %llu parts of %u bits in %llu dimensions, flags %#x, not a %s of %zu",
        kith_container_path(file), own, (unsigned long long)read.parts, read.bits, (unsigned long long)read.dim,
        read.flags, pq->base.name, pq->base.dim);
}

kith_status kith_pq_load(kith_code *code, kith_container *file, uint32_t *part) {
    kith_pq *pq = kith_pq_of(code);
    size_t count = pq->codewords * code->dim;
    uint32_t own = *part;
    const void *stored;
    float *codebooks;
    KITH_TRY(check_head(pq, file, own));
    KITH_TRY(kith_container_need_items(file, "PQCDBOOK", own, count, sizeof *codebooks, &stored));
    const float *values = stored;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return kith_error(KITH_ERR_FORMAT, "%s: section PQCDBOOK.%u: element %zu is not finite",
                              kith_container_path(file), own, i);
    KITH_TRY(kith_alloc(count, sizeof *codebooks, &codebooks));
    memcpy(codebooks, stored, count * sizeof *codebooks);
    kith_status status = kith_pq_adopt(pq, codebooks);
    if (status == KITH_ERR_RANGE)
        return kith_error_prefix(KITH_ERR_FORMAT, "%s: section PQCDBOOK.%u", kith_container_path(file), own);
    if (status == KITH_OK) *part = own + 1;
    return status;
}
