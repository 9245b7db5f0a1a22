/* SPDX-License-Identifier: Apache-2.0
 *
 * rabitq_file.c: RaBitQ and line codes in index files. A code takes one part for itself and those of its transform
 * after it.
 *
 *   RABQHEAD, LINEHEAD  48 bytes, little-endian:
 *      0  u64  projected dimensions
 *      8  u32  bits of a number
 *     12  u32  bit 0: there is a centre; all others zero
 *     16  f32  add_unit, 20 f32 scale_unit: powers of two
 *     24  f32  cosine2_mean, 28 f32 cosine2_low: in (0, 1], low at most a little above the mean
 *     32  f32  norm of the centre, 0 without one
 *     36  12 bytes of zeros
 *   RABQMEAN, LINEMEAN  projected dimensions f32: the centre
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "rabitq/rabitq_inside.h"

enum { HEAD_VERSION = 1, HAS_CENTRE = 1 };

typedef struct head {
    uint64_t projected_dim;
    uint32_t bits, flags;
    float add_unit, scale_unit, cosine2_mean, cosine2_low, centre_norm;
    uint32_t zeros[3];
} head;
_Static_assert(sizeof(head) == 48, "the head is written as it lies in memory");

static const char *head_tag(const kith_rabitq *own) { return own->line_bytes != 0 ? "LINEHEAD" : "RABQHEAD"; }
static const char *mean_tag(const kith_rabitq *own) { return own->line_bytes != 0 ? "LINEMEAN" : "RABQMEAN"; }

kith_status kith_rabitq_save(const kith_code *code, kith_container_writer *writer, uint32_t *part) {
    const kith_rabitq *own = kith_rabitq_of(code);
    if (!code->is_trained) return kith_error(KITH_ERR_NOT_TRAINED, "%s: not trained", code->name);
    head h = {.projected_dim = code->projected_dim,
              .bits = (uint32_t)own->grid.bits,
              .flags = own->centre != NULL ? HAS_CENTRE : 0,
              .add_unit = own->grid.add_unit,
              .scale_unit = own->grid.scale_unit,
              .cosine2_mean = own->cosine2_mean,
              .cosine2_low = own->cosine2_low,
              .centre_norm = own->centre_norm};
    uint32_t number = (*part)++;
    KITH_TRY(kith_container_writer_add(writer, head_tag(own), number, &h, sizeof h));
    if (own->centre != NULL)
        KITH_TRY(kith_container_writer_add(writer, mean_tag(own), number, own->centre,
                                           code->projected_dim * sizeof *own->centre));
    return kith_transform_save(own->transform, writer, part);
}

static bool is_power_of_two(float value) {
    int exponent;
    return isfinite(value) && value > 0 && frexpf(value, &exponent) == 0.5f;
}

static bool is_cosine(float value) { return value > 0 && value < 1.01f; }

/* Checks the head against the code that was made from the name, and gives that code its bits. */
static kith_status read_head(const kith_container *file, const kith_section *section, const head *h,
                             kith_rabitq *own) {
    if (h->bits < 1 || h->bits > KITH_RABITQ_BITS_MAX || (own->bits_wanted != 0 && h->bits != own->bits_wanted) ||
        (own->line_bytes != 0 && kith_line_dim(own->line_bytes, h->bits) == 0))
        return kith_section_error(file, section, "%u bits in a %s", h->bits, own->code.name);
    kith_rabitq_set_bits(own, h->bits);
    if (h->projected_dim != own->code.projected_dim)
        return kith_section_error(file, section, "%llu dimensions, not %zu", (unsigned long long)h->projected_dim,
                                  own->code.projected_dim);
    if ((h->flags & ~(uint32_t)HAS_CENTRE) != 0 || (h->zeros[0] | h->zeros[1] | h->zeros[2]) != 0)
        return kith_section_error(file, section, "flags %#x, or what has to be zero is not", h->flags);
    if (!is_power_of_two(h->add_unit) || !is_power_of_two(h->scale_unit))
        return kith_section_error(file, section, "units %g and %g are not powers of two", (double)h->add_unit,
                                  (double)h->scale_unit);
    bool has_centre = (h->flags & HAS_CENTRE) != 0;
    if (!is_cosine(h->cosine2_mean) || !is_cosine(h->cosine2_low) || !isfinite(h->centre_norm) ||
        h->centre_norm < 0 || (!has_centre && h->centre_norm != 0))
        return kith_section_error(file, section, "cosines %g and %g, norm %g", (double)h->cosine2_mean,
                                  (double)h->cosine2_low, (double)h->centre_norm);
    own->grid.add_unit = h->add_unit;
    own->grid.scale_unit = h->scale_unit;
    own->cosine2_mean = h->cosine2_mean;
    own->cosine2_low = h->cosine2_low;
    own->centre_norm = h->centre_norm;
    return KITH_OK;
}

static kith_status read_centre(kith_container *file, uint32_t number, kith_rabitq *own) {
    size_t dim = own->code.projected_dim;
    const void *stored;
    KITH_TRY(kith_container_need_items(file, mean_tag(own), number, dim, sizeof *own->centre, &stored));
    KITH_TRY(kith_alloc(dim, sizeof *own->centre, &own->centre));
    memcpy(own->centre, stored, dim * sizeof *own->centre);
    for (size_t d = 0; d < dim; d++)
        if (!isfinite(own->centre[d]))
            return kith_error(KITH_ERR_FORMAT, "%s: section %s.%u: element %zu is not finite",
                              kith_container_path(file), mean_tag(own), number, d);
    return KITH_OK;
}

static kith_status read_transform(kith_container *file, const kith_section *section, uint32_t *part,
                                  kith_rabitq *own) {
    KITH_TRY(kith_transform_load(file, part, &own->transform));
    const kith_transform *transform = own->transform;
    if (kith_transform_is_trained(transform) && kith_transform_dim_in(transform) == own->code.dim &&
        kith_transform_dim_out(transform) == own->code.projected_dim)
        return KITH_OK;
    return kith_section_error(file, section, "its transform goes from %zu to %zu dimensions, not from %zu to %zu",
                              kith_transform_dim_in(transform), kith_transform_dim_out(transform), own->code.dim,
                              own->code.projected_dim);
}

kith_status kith_rabitq_load(kith_code *code, kith_container *file, uint32_t *part) {
    kith_rabitq *own = (kith_rabitq *)code;
    const kith_section *section;
    head h;
    uint32_t number = (*part)++;
    KITH_TRY(kith_container_need(file, head_tag(own), number, HEAD_VERSION, &section));
    if (section->bytes != sizeof h)
        return kith_section_error(file, section, "%zu bytes, not %zu", section->bytes, sizeof h);
    memcpy(&h, section->data, sizeof h);
    kith_rabitq_forget(own);
    kith_status status;
    KITH_GO(read_head(file, section, &h, own));
    if ((h.flags & HAS_CENTRE) != 0) KITH_GO(read_centre(file, number, own));
    KITH_GO(read_transform(file, section, part, own));
    if (own->line_bytes != 0) KITH_GO(kith_line_narrow(own));
    code->is_trained = true;
done:
    if (status != KITH_OK) kith_rabitq_forget(own);
    return status;
}
