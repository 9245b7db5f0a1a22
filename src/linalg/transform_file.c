/* SPDX-License-Identifier: Apache-2.0
 *
 * transform_file.c: transforms in index files. Each takes one part number; a chain one for itself and one for each
 * member, in order, right after it.
 *
 *   TRNSHEAD  80 bytes, little-endian:
 *      0  u32  kind (kith_transform_kind)
 *      4  u32  bit 0: trained; bit 1 (pca): rotated; bit 2 (pca): centred; all others zero
 *      8  u64  dim_in
 *     16  u64  dim_out
 *     24  u32  arrays that follow, bits 1 << KITH_ARRAY_...
 *     28  f32  eigen_power of a pca, else 0
 *     32  u64  parts of an opq, else 0
 *     40  u64  bits of an opq, else 0
 *     48  u64  rows_max of a pca or an opq, else 0
 *     56  u64  rounds of an opq, else 0
 *     64  u64  kmeans_iterations of an opq, else 0
 *     72  u64  members of a chain, else 0
 *   TRNSMEAN  dim_in f32
 *   TRNSMATX  dim_out x dim_in f32
 *   TRNSBACK  dim_out x dim_in f32
 *   TRNSEIGN  dim_in f32
 *   TRNSSIGN  4 x dim_out / 32 u32
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "linalg/transform_inside.h"

enum { HEAD_VERSION = 1, FLAG_TRAINED = 1, FLAG_ROTATED = 2, FLAG_CENTRED = 4 };
static const char *const array_tags[KITH_ARRAY_SAVED] = {"TRNSMEAN", "TRNSMATX", "TRNSBACK", "TRNSEIGN",
                                                         "TRNSSIGN"};

typedef struct head {
    uint32_t kind, flags;
    uint64_t dim_in, dim_out;
    uint32_t arrays;
    float eigen_power;
    uint64_t parts, bits, rows_max, rounds, kmeans_iterations, member_count;
} head;
_Static_assert(sizeof(head) == 80, "the head is written as it lies in memory");

static const kith_transform_vtable *const kinds[] = {
    &kith_transform_pca,    &kith_transform_rotation,  &kith_transform_fast_rotation, &kith_transform_opq,
    &kith_transform_centre, &kith_transform_normalise, &kith_transform_pad,           &kith_transform_chain};

/* ---- Saving -------------------------------------------------------------------------------------------------- */

static head head_of(const kith_transform *t) {
    bool is_pca = t->vtable->kind == KITH_TRANSFORM_PCA, is_opq = t->vtable->kind == KITH_TRANSFORM_OPQ;
    head h = {.kind = t->vtable->kind,
              .flags = t->is_trained ? FLAG_TRAINED : 0,
              .dim_in = t->dim_in,
              .dim_out = t->dim_out,
              .parts = t->parts,
              .member_count = t->member_count};
    if (is_pca) {
        h.flags |= (t->pca.is_rotated ? FLAG_ROTATED : 0) | (t->pca.is_centred ? FLAG_CENTRED : 0);
        h.eigen_power = t->pca.eigen_power;
        h.rows_max = t->pca.rows_max;
    }
    if (is_opq) {
        h.bits = t->opq.bits;
        h.rows_max = t->opq.rows_max;
        h.rounds = t->opq.rounds;
        h.kmeans_iterations = t->opq.kmeans_iterations;
    }
    for (int which = 0; which < KITH_ARRAY_SAVED; which++)
        if (kith_transform_array(&t->arrays, which) != NULL) h.arrays |= 1u << which;
    return h;
}

kith_status kith_transform_save(const kith_transform *transform, kith_container_writer *writer, uint32_t *part) {
    head h = head_of(transform);
    uint32_t own = (*part)++;
    KITH_TRY(kith_container_writer_add(writer, "TRNSHEAD", own, &h, sizeof h));
    for (int which = 0; which < KITH_ARRAY_SAVED; which++) {
        if ((h.arrays >> which & 1) == 0) continue;
        KITH_TRY(kith_container_writer_add(writer, array_tags[which], own,
                                           kith_transform_array(&transform->arrays, which),
                                           kith_transform_array_count(transform, which) * sizeof(float)));
    }
    for (size_t m = 0; m < transform->member_count; m++)
        KITH_TRY(kith_transform_save(transform->members[m], writer, part));
    return KITH_OK;
}

/* ---- Loading ------------------------------------------------------------------------------------------------- */

/* What the head says, as an untrained transform; everything in it is checked, members apart. */
static kith_status read_head(kith_container *container, const kith_section *section, const head *h,
                             kith_transform *filled) {
    const kith_transform_vtable *vtable = NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i]->kind == h->kind) vtable = kinds[i];
    if (vtable == NULL) return kith_section_error(container, section, "transform of kind %u", h->kind);
    if (h->dim_in < 1 || h->dim_in > KITH_DIM_MAX || h->dim_out < 1 || h->dim_out > KITH_DIM_MAX)
        return kith_section_error(container, section, "from %llu to %llu dimensions", (unsigned long long)h->dim_in,
                                  (unsigned long long)h->dim_out);
    unsigned flags = FLAG_TRAINED | (h->kind == KITH_TRANSFORM_PCA ? FLAG_ROTATED | FLAG_CENTRED : 0);
    if ((h->flags & ~flags) != 0) return kith_section_error(container, section, "flags %#x", h->flags);
    unsigned needed = (h->flags & FLAG_TRAINED) != 0 ? vtable->arrays : 0;
    unsigned allowed = (h->flags & FLAG_TRAINED) != 0 ? vtable->arrays | vtable->arrays_optional : 0;
    if ((h->arrays & needed) != needed || (h->arrays & ~allowed) != 0)
        return kith_section_error(container, section, "arrays %#x for kind %u", h->arrays, h->kind);
    bool is_opq = h->kind == KITH_TRANSFORM_OPQ, is_pca = h->kind == KITH_TRANSFORM_PCA;
    if ((!is_opq && (h->parts | h->bits | h->rounds | h->kmeans_iterations) != 0) ||
        (!is_pca && h->eigen_power != 0) || (!is_opq && !is_pca && h->rows_max != 0) ||
        (h->kind == KITH_TRANSFORM_CHAIN) != (h->member_count != 0) || h->member_count > KITH_CHAIN_MAX)
        return kith_section_error(container, section, "parameters that do not go with kind %u", h->kind);
    *filled = (kith_transform){
        .vtable = vtable, .dim_in = (size_t)h->dim_in, .dim_out = (size_t)h->dim_out, .parts = (size_t)h->parts};
    if (is_pca)
        filled->pca = (kith_pca_options){.eigen_power = h->eigen_power,
                                         .is_rotated = (h->flags & FLAG_ROTATED) != 0,
                                         .is_centred = (h->flags & FLAG_CENTRED) != 0,
                                         .rows_max = (size_t)h->rows_max};
    if (is_opq)
        filled->opq = (kith_opq_options){.bits = (size_t)h->bits,
                                         .rounds = (size_t)h->rounds,
                                         .rows_max = (size_t)h->rows_max,
                                         .kmeans_iterations = (size_t)h->kmeans_iterations};
    if (vtable->check(filled) != KITH_OK) {
        char reason[512];
        (void)strncpy(reason, kith_error_message(), sizeof reason - 1);
        reason[sizeof reason - 1] = '\0';
        return kith_section_error(container, section, "%s", reason);
    }
    return KITH_OK;
}

static kith_status read_array(kith_container *container, uint32_t part, int which, kith_transform *made) {
    size_t count = kith_transform_array_count(made, which);
    const void *stored;
    float *array;
    KITH_TRY(kith_container_need_items(container, array_tags[which], part, count, sizeof(float), &stored));
    KITH_TRY(kith_alloc(count, sizeof *array, &array));
    kith_transform_array_set(&made->arrays, which, array);
    memcpy(array, stored, count * sizeof *array);
    if (which == KITH_ARRAY_SIGNS) return KITH_OK;
    for (size_t i = 0; i < count; i++)
        if (!isfinite(array[i]))
            return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: element %zu is not finite",
                              kith_container_path(container), array_tags[which], part, i);
    return KITH_OK;
}

static kith_status read_arrays(kith_container *container, uint32_t part, const head *h, kith_transform *made) {
    for (int which = 0; which < KITH_ARRAY_SAVED; which++)
        if ((h->arrays >> which & 1) != 0) KITH_TRY(read_array(container, part, which, made));
    if (made->arrays.matrix != NULL)
        KITH_TRY(kith_affine_pack(made->dim_in, made->dim_out, made->arrays.matrix, &made->arrays.panels));
    made->is_trained = (h->flags & FLAG_TRAINED) != 0;
    return KITH_OK;
}

static kith_status load_members(kith_container *container, const kith_section *section, const head *h,
                                uint32_t *part, kith_transform **out) {
    kith_transform *members[KITH_CHAIN_MAX] = {0};
    size_t count = 0;
    kith_status status;
    for (; count < h->member_count; count++) {
        const kith_section *next;
        KITH_GO(kith_container_need(container, "TRNSHEAD", *part, HEAD_VERSION, &next));
        uint32_t kind;
        if (next->bytes >= sizeof kind) {
            memcpy(&kind, next->data, sizeof kind);
            if (kind == KITH_TRANSFORM_CHAIN) {
                status = kith_section_error(container, next, "a chain inside a chain");
                goto done;
            }
        }
        KITH_GO(kith_transform_load(container, part, &members[count]));
    }
    KITH_GO(kith_chain_create(members, count, out));
    count = 0; /* they are the chain's now */
    if ((*out)->dim_in != h->dim_in || (*out)->dim_out != h->dim_out ||
        (*out)->is_trained != ((h->flags & FLAG_TRAINED) != 0)) {
        kith_transform_free(*out);
        *out = NULL;
        status = kith_section_error(container, section, "it does not agree with its members");
    }
done:
    for (size_t m = 0; m < count; m++) kith_transform_free(members[m]);
    return status == KITH_ERR_DIMENSION ? KITH_ERR_FORMAT : status;
}

kith_status kith_transform_load(kith_container *container, uint32_t *part, kith_transform **out) {
    const kith_section *section;
    uint32_t own = *part;
    kith_transform filled, *made = NULL;
    head h;
    *out = NULL;
    KITH_TRY(kith_container_need(container, "TRNSHEAD", own, HEAD_VERSION, &section));
    if (section->bytes != sizeof h)
        return kith_section_error(container, section, "%zu bytes, must be %zu", section->bytes, sizeof h);
    memcpy(&h, section->data, sizeof h);
    KITH_TRY(read_head(container, section, &h, &filled));
    (*part)++;
    if (h.member_count != 0) return load_members(container, section, &h, part, out);
    kith_status status;
    KITH_GO(kith_transform_create(&filled, &made));
    KITH_GO(read_arrays(container, own, &h, made));
    *out = made;
    made = NULL;
done:
    kith_transform_free(made);
    return status;
}
