/* SPDX-License-Identifier: Apache-2.0
 *
 * spec_transforms.c: transforms by their names in a spec.
 */
#include <ctype.h>

#include "api/structures.h"
#include "base/error.h"

/* A transform's number or numbers as the spec has them. */
typedef struct transform_wish {
    const kith_plan *plan;
    const kith_spec_part *part;
    size_t at;  /* the character behind the name */
    size_t dim; /* of what comes in */
    kith_metric metric;
} transform_wish;

typedef kith_status (*make_fn)(transform_wish *wish, kith_transform **out);

static kith_status wrong(const transform_wish *wish, const char *expected) {
    return kith_spec_error(wish->plan->text, wish->part->offset + wish->at, "expected %s", expected);
}

static kith_status expect_end(const transform_wish *wish) {
    return wish->at == wish->part->length ? KITH_OK : wrong(wish, "',' or the end");
}

/* A number of dimensions or parts, 1..KITH_DIM_MAX; without a digit `fallback`, unless that is 0. */
static kith_status read_number(transform_wish *wish, const char *expected, size_t fallback, size_t *value) {
    size_t before = wish->at;
    *value = fallback;
    if (wish->at == wish->part->length && fallback != 0) return KITH_OK;
    if (kith_spec_number(wish->part, &wish->at, value) && *value >= 1 && *value <= KITH_DIM_MAX) return KITH_OK;
    wish->at = before;
    return wrong(wish, expected);
}

/* ---- The makers ---------------------------------------------------------------------------------------------- */

/* Centred under l2 alone: what is subtracted from both sides of an inner product changes the order. */
static kith_status make_pca_as(transform_wish *wish, float eigen_power, bool is_rotated, kith_transform **out) {
    kith_pca_options options;
    kith_pca_options_init(&options);
    options.eigen_power = eigen_power;
    options.is_rotated = is_rotated;
    options.is_centred = wish->metric == KITH_L2;
    size_t start = wish->at, dim_out;
    KITH_TRY(read_number(wish, "a number of components", wish->dim, &dim_out));
    if (dim_out > wish->dim)
        return kith_spec_error(wish->plan->text, wish->part->offset + start,
                               "expected at most as many components as there are dimensions, %zu", wish->dim);
    KITH_TRY(expect_end(wish));
    return kith_pca_create(wish->dim, dim_out, &options, out);
}

static kith_status make_pca(transform_wish *wish, kith_transform **out) { return make_pca_as(wish, 0, false, out); }
static kith_status make_pcar(transform_wish *wish, kith_transform **out) { return make_pca_as(wish, 0, true, out); }
static kith_status make_pcaw(transform_wish *wish, kith_transform **out) {
    return make_pca_as(wish, -0.5f, false, out);
}
static kith_status make_pcawr(transform_wish *wish, kith_transform **out) {
    return make_pca_as(wish, -0.5f, true, out);
}

static kith_status make_rotation(transform_wish *wish, kith_transform **out) {
    size_t dim_out;
    KITH_TRY(read_number(wish, "a number of dimensions", wish->dim, &dim_out));
    KITH_TRY(expect_end(wish));
    return kith_rotation_create(wish->dim, dim_out, out);
}

static kith_status make_fast_rotation(transform_wish *wish, kith_transform **out) {
    size_t start = wish->at, dim_out;
    kith_transform *made;
    KITH_TRY(read_number(wish, "a number of dimensions", KITH_DIM_MAX, &dim_out));
    bool is_given = wish->at > start;
    KITH_TRY(expect_end(wish));
    KITH_TRY(kith_fast_rotation_create(wish->dim, &made));
    size_t is = kith_transform_dim_out(made);
    if (is_given && dim_out != is) {
        kith_transform_free(made);
        return kith_spec_error(wish->plan->text, wish->part->offset + start,
                               "expected nothing or %zu, the dimension padded to whole cache lines", is);
    }
    *out = made;
    return KITH_OK;
}

/* The bits of the product quantiser that follows, "PQ16x4fs", for which the rotation is trained; 8 without one. */
static size_t code_bits(const kith_plan *plan) {
    for (size_t p = plan->inner.part_count; p-- > 0;) {
        const kith_spec_part *part = &plan->inner.parts[p];
        size_t at = 2, number;
        if (part->length < 4 || memcmp(part->text, "PQ", 2) != 0 || !kith_spec_number(part, &at, &number)) continue;
        if (at >= part->length || part->text[at] != 'x') return 8;
        at++;
        return kith_spec_number(part, &at, &number) && number >= 4 && number <= 12 ? number : 8;
    }
    return 8;
}

static kith_status make_opq(transform_wish *wish, kith_transform **out) {
    kith_opq_options options;
    kith_opq_options_init(&options);
    options.bits = code_bits(wish->plan);
    size_t parts, dim_out, start;
    KITH_TRY(read_number(wish, "a number of parts", 0, &parts));
    if (wish->at < wish->part->length && wish->part->text[wish->at] != '_') return wrong(wish, "'_' or the end");
    wish->at += wish->at < wish->part->length;
    start = wish->at;
    if (start > 0 && start == wish->part->length && wish->part->text[start - 1] == '_')
        return wrong(wish, "a number of dimensions");
    size_t whole = (wish->dim + parts - 1) / parts * parts; /* below 2 * KITH_DIM_MAX */
    KITH_TRY(read_number(wish, "a number of dimensions", whole, &dim_out));
    if (dim_out % parts != 0)
        return kith_spec_error(wish->plan->text, wish->part->offset + start, "expected a multiple of %zu", parts);
    KITH_TRY(expect_end(wish));
    return kith_opq_create(wish->dim, dim_out, parts, &options, out);
}

static kith_status make_pad(transform_wish *wish, kith_transform **out) {
    size_t dim_out;
    KITH_TRY(read_number(wish, "a number of dimensions", 0, &dim_out));
    KITH_TRY(expect_end(wish));
    return kith_pad_create(wish->dim, dim_out, out);
}

static kith_status make_centre(transform_wish *wish, kith_transform **out) {
    KITH_TRY(expect_end(wish));
    return kith_centre_create(wish->dim, out);
}

static kith_status make_normalise(transform_wish *wish, kith_transform **out) {
    KITH_TRY(expect_end(wish));
    return kith_normalise_create(wish->dim, out);
}

/* ---- Names --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name; /* a longer one before the name it begins with */
    make_fn make;
} makers[] = {
    {"PCAWR", make_pcawr},      {"PCAW", make_pcaw}, {"PCAR", make_pcar},        {"PCA", make_pca},
    {"RR", make_rotation},      {"OPQ", make_opq},   {"HR", make_fast_rotation}, {"L2norm", make_normalise},
    {"L2Norm", make_normalise}, {"Pad", make_pad},   {"Centre", make_centre},
};

/* The maker of a part: its name, and behind it no letter. */
static make_fn find_maker(const kith_spec_part *part, size_t *name_length) {
    for (size_t i = 0; i < sizeof makers / sizeof *makers; i++) {
        size_t length = strlen(makers[i].name);
        if (part->length < length || memcmp(part->text, makers[i].name, length) != 0) continue;
        if (part->length > length && isalpha((unsigned char)part->text[length])) continue;
        *name_length = length;
        return makers[i].make;
    }
    return NULL;
}

bool kith_transform_is_named(const kith_spec_part *part) {
    size_t length;
    return find_maker(part, &length) != NULL;
}

kith_status kith_plan_transforms(const kith_plan *plan, size_t dim, kith_metric metric, kith_transform **out) {
    kith_transform *members[KITH_SPEC_PARTS_MAX] = {0};
    size_t count = 0;
    kith_status status = KITH_OK;
    *out = NULL;
    for (; count < plan->transforms.part_count; count++) {
        transform_wish wish = {.plan = plan, .part = &plan->transforms.parts[count], .dim = dim, .metric = metric};
        KITH_GO(find_maker(wish.part, &wish.at)(&wish, &members[count]));
        dim = kith_transform_dim_out(members[count]);
    }
    if (count == 1) {
        *out = members[0];
        return KITH_OK;
    }
    KITH_GO(kith_chain_create(members, count, out));
    return KITH_OK;
done:
    for (size_t m = 0; m < count; m++) kith_transform_free(members[m]);
    return status;
}
