/* SPDX-License-Identifier: Apache-2.0 */
#include "index/param.h"

#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "index/vtable.h"

void kith_search_params_init(kith_search_params *params) {
    if (params != NULL) *params = (kith_search_params){.size = sizeof *params, .threads = 1};
}

size_t kith_index_param_count(const kith_index *index) { return index != NULL ? index->param_count : 0; }

const kith_search_param *kith_index_param(const kith_index *index, size_t i) {
    return i < kith_index_param_count(index) ? &index->params[i].shown : NULL;
}

static const kith_param *find(const kith_index *index, const char *name) {
    for (size_t i = 0; i < index->param_count; i++)
        if (strcmp(index->params[i].shown.name, name) == 0) return &index->params[i];
    return NULL;
}

static kith_status unknown_name(const kith_index *index, const char *name) {
    char names[256] = "";
    for (size_t i = 0, at = 0; i < index->param_count && at < sizeof names; i++) {
        int wrote = snprintf(names + at, sizeof names - at, "%s%s", i > 0 ? ", " : "", index->params[i].shown.name);
        at += wrote > 0 ? (size_t)wrote : sizeof names;
    }
    return kith_error(KITH_ERR_NOT_FOUND, "search parameter '%s' is not one of %s (index %s)", name, names,
                      index->spec);
}

size_t kith_search_k_factor(const kith_index *index, const kith_search_params *params) {
    const kith_param *param = find(index, "k_factor");
    if (param == NULL) return 1;
    if (params->k_factor != 0) return params->k_factor;
    /* What a filter leaves may lie far from the query, where codes tell less. */
    return (size_t)param->shown.default_value * (params->filter != NULL ? 2 : 1);
}

size_t kith_search_candidates(const kith_index *index, const kith_search_params *params, size_t k) {
    size_t candidates;
    if (kith_mul_overflows(k, kith_search_k_factor(index, params), &candidates)) candidates = SIZE_MAX;
    return kith_min_size(candidates, index->count);
}

/* Decimal digits only: no sign, no space, no empty text; false also when it passes 64 bits. */
static bool parse_u64(const char *text, uint64_t *out) {
    uint64_t value = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c < '0' || *c > '9') return false;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
            return false;
    }
    *out = value;
    return *text != '\0';
}

kith_status kith_search_params_set(kith_search_params *params, const kith_index *index, const char *name,
                                   const char *value) {
    if (params == NULL || index == NULL || name == NULL || value == NULL)
        return kith_error(KITH_ERR_ARGUMENT, "search parameter: params, index, name and value must not be NULL");
    const kith_param *param = find(index, name);
    if (param == NULL) return unknown_name(index, name);
    uint64_t number;
    if (!parse_u64(value, &number) || number < param->shown.min || number > param->shown.max)
        return kith_error(KITH_ERR_ARGUMENT, "search parameter %s = '%s' is not a whole number in %llu..%llu", name,
                          value, (unsigned long long)param->shown.min, (unsigned long long)param->shown.max);
    if (param->offset + param->bytes > params->size)
        return kith_error(KITH_ERR_ARGUMENT, "search parameter %s: params has size %zu; was it initialised?", name,
                          params->size);
    size_t narrow = (size_t)number; /* the field may be a size_t, and that 32 bits */
    char *field = (char *)params + param->offset;
    if (param->bytes == sizeof narrow)
        memcpy(field, &narrow, sizeof narrow);
    else
        memcpy(field, &number, sizeof number);
    return KITH_OK;
}
