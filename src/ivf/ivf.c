/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf.c: what an index of inverted lists is made of, and its two faces: with a coarse step, and as a code alone that
 * is searched exhaustively.
 */
#include "ivf/ivf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "index/codes.h"
#include "ivf/ivf_inside.h"

static const size_t list_count_max = (size_t)1 << 26;

/* ---- The spec ------------------------------------------------------------------------------------------------- */

bool kith_ivf_is_named(const kith_spec_part *part) {
    size_t length = strlen(KITH_IVF_NAME);
    if (part->length < length || memcmp(part->text, KITH_IVF_NAME, length) != 0) return false;
    return part->length == length || !isupper((unsigned char)part->text[length]);
}

bool kith_coded_is_named(const kith_spec_part *part) { return kith_code_is_named(part); }

static kith_status wrong(const kith_spec *spec, size_t at, const char *expected) {
    return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: %s", spec->text, at, expected);
}

/* "IVF", "IVF1024", "IVF1024d", "IVF1024s", "IVF1024ds": list_count 0 when it is left out. */
static kith_status read_coarse(const kith_spec *spec, kith_ivf *ivf, bool *is_direct) {
    const kith_spec_part *part = &spec->parts[0];
    size_t first = strlen(KITH_IVF_NAME), at = first, count = 0;
    *is_direct = false;
    for (; at < part->length && isdigit((unsigned char)part->text[at]) && count <= list_count_max; at++)
        count = count * 10 + (size_t)(part->text[at] - '0');
    if (at > first && (count == 0 || count > list_count_max))
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s': character %zu: the number of lists is outside 1..%zu",
                          spec->text, part->offset + first, list_count_max);
    if (at < part->length && part->text[at] == 'd') {
        *is_direct = true;
        at++;
    }
    if (at < part->length && part->text[at] == 's') {
        ivf->copies = 2;
        at++;
    }
    if (at < part->length)
        return wrong(
            spec, part->offset + at,
            "expected a number of lists, then d (codes without residuals), s (a second list for each vector)");
    ivf->list_count = count;
    return KITH_OK;
}

void kith_ivf_write_spec(kith_ivf *ivf) {
    char lists[24] = "", coarse[KITH_SPEC_BYTES_MAX + 2] = "", *spec = ivf->base.spec;
    bool is_direct = !ivf->by_residual && ivf->code->vtable->kind != KITH_CODE_RAW;
    memset(spec, 0, KITH_SPEC_BYTES_MAX);
    const char *spill = ivf->copies > 1 ? "s" : "";
    if (ivf->list_count > 0) (void)snprintf(lists, sizeof lists, "%zu", ivf->list_count);
    if (ivf->coarse != NULL) {
        bool has_parts = strchr(ivf->coarse->spec, ',') != NULL;
        (void)snprintf(coarse, sizeof coarse, has_parts ? "(%s)" : "_%s", ivf->coarse->spec);
    }
    if (ivf->has_coarse)
        (void)snprintf(spec, KITH_SPEC_BYTES_MAX, "%s%s%s%s%s,%s", KITH_IVF_NAME, lists, is_direct ? "d" : "",
                       spill, coarse, ivf->code->name);
    else
        (void)snprintf(spec, KITH_SPEC_BYTES_MAX, "%s", ivf->code->name);
}

static kith_status read_spec(const kith_spec *spec, kith_ivf *ivf) {
    kith_metric metric = ivf->base.metric == KITH_L2 ? KITH_L2 : KITH_IP;
    bool is_direct = true;
    ivf->has_coarse = kith_ivf_is_named(&spec->parts[0]);
    ivf->list_count = ivf->copies = 1;
    if (ivf->has_coarse) KITH_TRY(read_coarse(spec, ivf, &is_direct));
    size_t parts = ivf->has_coarse ? 2 : 1;
    if (spec->part_count < parts)
        return wrong(spec, spec->parts[0].offset + spec->parts[0].length,
                     "expected a comma and a code, such as Flat, SQ8 or PQ16");
    if (spec->part_count > parts) return wrong(spec, spec->parts[parts].offset, "nothing can follow the code");
    KITH_TRY(kith_code_create(spec, parts - 1, ivf->base.dim, metric, &ivf->code));
    ivf->by_residual = !is_direct && ivf->code->vtable->kind != KITH_CODE_RAW;
    kith_ivf_write_spec(ivf);
    kith_ivf_set_params(ivf);
    return KITH_OK;
}

/* ---- Life ----------------------------------------------------------------------------------------------------- */

void kith_ivf_release(kith_index *index) {
    kith_ivf *ivf = kith_ivf_of(index);
    kith_lists_free(ivf);
    kith_ivf_free_maps(ivf);
    if (!index->is_mapped) {
        if (ivf->projected != ivf->centroids) kith_free(ivf->projected);
        kith_free(ivf->centroids);
        kith_free(ivf->coarse_blocks);
    }
    kith_code_free(ivf->coarse_code);
    kith_code_free(ivf->code);
    kith_index_free(ivf->coarse);
    kith_free(ivf);
}

kith_status kith_ivf_make(const kith_spec *spec, size_t dim, kith_metric metric, kith_ivf **out) {
    kith_ivf *ivf;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *ivf, &ivf));
    bool has_coarse = kith_ivf_is_named(&spec->parts[0]);
    kith_index_init(&ivf->base, has_coarse ? &kith_ivf_vtable : &kith_coded_vtable, dim, metric, KITH_F32, "");
    ivf->id_bytes = 4;
    kith_status status = read_spec(spec, ivf);
    if (status != KITH_OK) {
        kith_ivf_release(&ivf->base);
        return status;
    }
    *out = ivf;
    return KITH_OK;
}

kith_status kith_ivf_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out) {
    kith_ivf *ivf;
    KITH_TRY(kith_ivf_make(spec, dim, metric, &ivf));
    if (!ivf->has_coarse && ivf->code->vtable->train == NULL) { /* nothing to learn */
        kith_status status = kith_lists_create(ivf);
        if (status != KITH_OK) {
            kith_ivf_release(&ivf->base);
            return status;
        }
        ivf->base.is_trained = true;
    }
    *out = &ivf->base;
    return KITH_OK;
}

kith_status kith_ivf_attach(kith_index *index, kith_index *coarse) {
    kith_ivf *ivf = kith_ivf_of(index);
    size_t expected = ivf->centroids != NULL ? ivf->list_count : 0;
    size_t length = strlen(index->spec) + strlen(coarse->spec) + sizeof "()" + 2 * KITH_SPEC_SPARE;
    if (length > KITH_SPEC_BYTES_MAX) /* training may write numbers into both */
        return kith_error(KITH_ERR_ARGUMENT, "spec '%s' with lists found by '%s': too long", index->spec,
                          coarse->spec);
    if (!ivf->has_coarse || coarse->dim != index->dim || coarse->metric != KITH_L2 || coarse->count != expected ||
        ivf->coarse_code != NULL)
        return kith_error(KITH_ERR_ARGUMENT, "lists of '%s' cannot be found by '%s' with %zu vectors", index->spec,
                          coarse->spec, coarse->count);
    ivf->coarse = coarse;
    kith_ivf_write_spec(ivf);
    kith_ivf_set_params(ivf);
    return KITH_OK;
}

static kith_status copy_bytes(const void *from, size_t count, size_t each, void *out) {
    KITH_TRY(kith_alloc(count, each, out));
    void *to;
    memcpy(&to, out, sizeof to);
    if (to != NULL) memcpy(to, from, count * each);
    return KITH_OK;
}

/* Everything that training makes. */
static kith_status clone_trained(const kith_ivf *ivf, kith_ivf *copy) {
    size_t dim = ivf->base.dim, projected_dim = ivf->code->projected_dim;
    KITH_TRY(ivf->code->vtable->clone(ivf->code, &copy->code));
    if (ivf->coarse != NULL) KITH_TRY(kith_index_clone(ivf->coarse, &copy->coarse));
    if (ivf->centroids != NULL) {
        KITH_TRY(copy_bytes(ivf->centroids, ivf->list_count, dim * sizeof(float), &copy->centroids));
        copy->projected = copy->centroids;
        if (ivf->projected != ivf->centroids)
            KITH_TRY(copy_bytes(ivf->projected, ivf->list_count, projected_dim * sizeof(float), &copy->projected));
    }
    if (ivf->coarse_code == NULL) return KITH_OK;
    KITH_TRY(ivf->coarse_code->vtable->clone(ivf->coarse_code, &copy->coarse_code));
    return copy_bytes(ivf->coarse_blocks, kith_code_blocks(ivf->list_count), ivf->coarse_code->block_bytes,
                      &copy->coarse_blocks);
}

static kith_status copy_of(const kith_index *index, bool with_vectors, kith_index **out) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    kith_ivf *copy;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *copy, &copy));
    kith_index_init(&copy->base, index->vtable, index->dim, index->metric, index->dtype, index->spec);
    copy->list_count = ivf->list_count;
    copy->has_coarse = ivf->has_coarse;
    copy->copies = ivf->copies;
    copy->by_residual = ivf->by_residual;
    copy->id_bytes = with_vectors ? ivf->id_bytes : 4;
    kith_status status;
    KITH_GO(clone_trained(ivf, copy));
    kith_ivf_set_params(copy);
    if (ivf->pages != NULL) {
        KITH_GO(kith_lists_create(copy));
        if (with_vectors) KITH_GO(kith_lists_copy(ivf, copy));
    }
    *out = &copy->base;
    return KITH_OK;
done:
    kith_ivf_release(&copy->base);
    return status;
}

static kith_status clone(const kith_index *index, kith_index **out) { return copy_of(index, true, out); }
static kith_status clone_empty(const kith_index *index, kith_index **out) { return copy_of(index, false, out); }

static void reset(kith_index *index) {
    kith_ivf *ivf = kith_ivf_of(index);
    kith_lists_clear(ivf);
    kith_ivf_free_maps(ivf);
    ivf->id_bytes = 4;
    index->count = 0;
}

/* ---- Memory --------------------------------------------------------------------------------------------------- */

static uint64_t coarse_bytes(const kith_ivf *ivf) {
    uint64_t bytes = 0;
    if (ivf->centroids != NULL) bytes += (uint64_t)ivf->list_count * ivf->base.dim * sizeof(float);
    if (ivf->projected != ivf->centroids)
        bytes += (uint64_t)ivf->list_count * ivf->code->projected_dim * sizeof(float);
    if (ivf->coarse_code != NULL)
        bytes += (uint64_t)kith_code_blocks(ivf->list_count) * ivf->coarse_code->block_bytes +
                 ivf->coarse_code->vtable->memory(ivf->coarse_code);
    return bytes;
}

/* Of the index of centroids, whatever its parts are called. */
static uint64_t coarse_index_bytes(const kith_ivf *ivf) {
    enum { PARTS_MAX = 16 };
    kith_memory_part parts[PARTS_MAX];
    uint64_t bytes = 0;
    if (ivf->coarse == NULL) return 0;
    size_t count = ivf->coarse->vtable->memory(ivf->coarse, parts, PARTS_MAX);
    for (size_t i = 0; i < kith_min_size(count, PARTS_MAX); i++) bytes += parts[i].bytes;
    return bytes;
}

static size_t memory(const kith_index *index, kith_memory_part *parts, size_t capacity) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    uint64_t codes = ivf->code_bytes, ids = ivf->ids_bytes;
    if (index->is_mapped) {
        codes = ivf->mapped_bytes;
        ids = (uint64_t)index->count * ivf->copies * ivf->id_bytes;
    }
    const kith_memory_part all[] = {
        {"codes", codes},
        {"ids", ids},
        {"lists", kith_lists_bytes(ivf)},
        {"centroids", coarse_bytes(ivf)},
        {"index of centroids", coarse_index_bytes(ivf)},
        {"codebooks", ivf->code->vtable->memory(ivf->code)},
        {"id map", (uint64_t)(ivf->maps[0].slot_count + ivf->maps[1].slot_count) * sizeof *ivf->maps->slots},
        {"fixed", sizeof *ivf},
    };
    size_t count = sizeof all / sizeof *all;
    if (capacity > 0) memcpy(parts, all, kith_min_size(count, capacity) * sizeof *all);
    return count;
}

static size_t list_sizes(const kith_index *index, uint64_t *sizes, size_t capacity) {
    const kith_ivf *ivf = kith_ivf_of_const(index);
    if (!ivf->has_coarse || ivf->pages == NULL) return 0;
    for (size_t l = 0; l < kith_min_size(capacity, ivf->list_count); l++) {
        sizes[l] = 0;
        for (size_t c = 0; c < ivf->copies; c++)
            sizes[l] += kith_list_live(kith_ivf_list(ivf, l * ivf->copies + c));
    }
    return ivf->list_count;
}

/* ---- Search parameters ---------------------------------------------------------------------------------------- */

enum { PLAIN_PARAMS = 2, NPROBE = PLAIN_PARAMS, EARLY, EF }; /* those without lists; the numbers of the others */

static const kith_param params[KITH_IVF_PARAMS] = {
    KITH_PARAM_THREADS,
    KITH_PARAM_MAX_DISTANCES,
    KITH_PARAM(nprobe, "how many of the nearest lists are searched; more than there are: all", 1, UINT32_MAX, 1),
    KITH_PARAM(early, "stop at lists that are far for their rank, see docs/ivf.md; 0: never", 0, UINT32_MAX, 0),
    KITH_PARAM(ef, "how many of the nearest nodes are followed where the lists are looked up", 0, UINT32_MAX, 0),
};

static const kith_param *param_of(const kith_index *index, const char *name) {
    for (size_t i = 0; i < index->param_count; i++)
        if (strcmp(index->params[i].shown.name, name) == 0) return &index->params[i];
    return NULL;
}

void kith_ivf_set_params(kith_ivf *ivf) {
    size_t count = PLAIN_PARAMS;
    memcpy(ivf->params, params, sizeof ivf->params);
    const kith_param *ef = ivf->coarse != NULL ? param_of(ivf->coarse, params[EF].shown.name) : NULL;
    if (ivf->has_coarse) {
        ivf->params[count] = params[NPROBE];
        ivf->params[count++].shown.default_value = kith_ivf_nprobe_default(ivf);
        if (ivf->base.metric != KITH_IP) ivf->params[count++] = params[EARLY];
    }
    if (ef != NULL) {
        ivf->params[count] = params[EF];
        ivf->params[count++].shown.default_value = ef->shown.default_value;
    }
    ivf->base.params = ivf->params;
    ivf->base.param_count = count;
}

/* Where the ids are can be found again when somebody asks. */
static kith_status compact(kith_index *index) {
    kith_ivf *ivf = kith_ivf_of(index);
    KITH_TRY(kith_lists_compact(ivf));
    kith_ivf_free_maps(ivf);
    return KITH_OK;
}

static void set_epoch(kith_index *index, kith_epoch *epoch) { kith_ivf_of(index)->epoch = epoch; }

/* ---- The two vtables ------------------------------------------------------------------------------------------ */

#define IVF_VTABLE(own_name)                                                                                       \
    {                                                                                                              \
        .name = (own_name), .struct_bytes = sizeof(kith_ivf), .concurrent = true, .set_epoch = set_epoch,          \
        .params = params, .param_count = KITH_IVF_PARAMS, .release = kith_ivf_release, .clone = clone,             \
        .clone_empty = clone_empty, .memory = memory, .list_sizes = list_sizes, .train = kith_ivf_train,           \
        .train_count = kith_ivf_train_count, .add = kith_ivf_add, .remove = kith_ivf_remove,                       \
        .update = kith_ivf_update, .upsert = kith_ivf_upsert, .holds = kith_ivf_holds, .compact = compact,         \
        .reset = reset, .merge = kith_ivf_merge, .reconstruct = kith_ivf_reconstruct, .search = kith_ivf_search,   \
        .range_search = kith_ivf_range_search, .bounds_errors = kith_ivf_bounds_errors, .save = kith_ivf_save,     \
        .verify = kith_ivf_verify, .list_ids = kith_ivf_list_ids,                                                  \
    }

const kith_index_vtable kith_ivf_vtable = IVF_VTABLE(KITH_IVF_NAME);
const kith_index_vtable kith_coded_vtable = IVF_VTABLE(KITH_CODED_NAME);
