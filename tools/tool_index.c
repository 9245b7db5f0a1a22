/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_index.c: building, opening and searching an index, as more than one command does it.
 */
#include "tool_index.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPEC_BYTES_MAX = 256, BATCH_BYTES = 1 << 30 };

/* The type that an index stores a file's vectors in when nobody asked for one: the file's, where an index has it. */
static kith_dtype store_auto(kith_dtype dtype) {
    bool is_stored =
        dtype == KITH_F16 || dtype == KITH_BF16 || dtype == KITH_I8 || dtype == KITH_U8 || dtype == KITH_F32;
    return is_stored ? dtype : KITH_F32;
}

bool kith_tool_is_choice(const char *spec) {
    static const char name[] = "HNSW";
    size_t length = strlen(name);
    kith_dtype dtype;
    if (strncmp(spec, name, length) != 0) return false;
    if (spec[length] == '\0') return true;
    return spec[length] == ',' && kith_dtype_parse(spec + length + 1, &dtype) == KITH_OK &&
           store_auto(dtype) == dtype;
}

/* "Flat" and "HNSW" leave the type open: --store, or the base file, decides it. */
static int spec_complete(const kith_tool_build *build, kith_dtype base, char *out) {
    bool is_open = strcmp(build->spec, "Flat") == 0 || strcmp(build->spec, "HNSW") == 0,
         is_auto = strcmp(build->store, "auto") == 0;
    if (!is_open && !is_auto)
        return kith_tool_error(KITH_EXIT_USAGE, "--store %s: the spec '%s' names what is stored", build->store,
                               build->spec);
    const char *store = is_auto ? kith_dtype_name(store_auto(base)) : build->store;
    bool is_named = is_open && strcmp(store, "f32") != 0;
    int bytes = snprintf(out, SPEC_BYTES_MAX, "%s%s%s", build->spec, is_named ? "," : "", is_named ? store : "");
    if (bytes < 0 || bytes >= SPEC_BYTES_MAX)
        return kith_tool_error(KITH_EXIT_USAGE, "--spec: longer than %d characters", SPEC_BYTES_MAX - 1);
    return KITH_EXIT_OK;
}

/* ---- Training ------------------------------------------------------------------------------------------- */

/* Rows of the base, random ones or the first, in a type that indexes take; *owned is to be freed. */
static int sample_take(const kith_tool_build *build, kith_vectors *base, size_t count, bool is_random,
                       kith_view *sample, void **owned) {
    size_t dim = kith_vectors_dim(base);
    kith_dtype dtype = store_auto(kith_vectors_dtype(base));
    size_t row_bytes = kith_dtype_row_bytes(dtype, dim);
    *owned = calloc(count, row_bytes);
    if (*owned == NULL) return kith_tool_no_memory(count, row_bytes);
    *sample = (kith_view){*owned, dtype, count, dim, 0};
    return kith_tool_check(is_random ? kith_vectors_sample(base, count, build->seed, dtype, *owned)
                                     : kith_vectors_read(base, 0, count, dtype, *owned),
                           build->base_path);
}

static int train(kith_index *index, const kith_tool_build *build, kith_vectors *base, const kith_job *job,
                 kith_tool_build_times *times) {
    size_t rows = kith_vectors_count(base), wanted = kith_index_train_count(index);
    if (build->train_count > 0) wanted = build->train_count;
    if (kith_index_is_trained(index)) return KITH_EXIT_OK;
    if (wanted > rows) wanted = rows;
    double start = kith_tool_seconds();
    void *owned = NULL;
    kith_view sample;
    bool is_all = wanted == rows;
    int code = is_all ? kith_tool_vectors_view(base, build->base_path, &sample, &owned)
                      : sample_take(build, base, wanted, true, &sample, &owned);
    if (code == KITH_EXIT_OK) code = kith_tool_check(kith_index_train(index, &sample, job), build->base_path);
    free(owned);
    times->train_count = wanted;
    times->train_seconds = kith_tool_seconds() - start;
    return code;
}

/* ---- Adding --------------------------------------------------------------------------------------------- */

/* Where in the file the present batch lies: one bar for all of them. */
typedef struct add_progress {
    size_t first, count, total;
    uint64_t shown;
} add_progress;

static int on_add(void *user, const char *phase, uint64_t done, uint64_t total) {
    add_progress *batch = user;
    if (batch->count == batch->total) return kith_tool_progress(NULL, phase, done, total);
    double share = total > 0 ? (double)done / (double)total : 0.0;
    uint64_t rows = batch->first + (uint64_t)(share * (double)batch->count);
    if (rows > batch->shown) batch->shown = rows; /* a batch may have several phases */
    return kith_tool_progress(NULL, "add", batch->shown, batch->total);
}

/* Rows of a batch, at most `count`. The file is mapped: what is added once need not stay in memory. */
static size_t batch_rows(const kith_tool_build *build, size_t count, size_t dim) {
    size_t rows = build->batch_rows > 0 ? build->batch_rows : BATCH_BYTES / kith_dtype_row_bytes(KITH_F32, dim);
    return rows < count ? rows : count;
}

static kith_status add_view(kith_index *index, const kith_tool_build *build, const kith_view *view,
                            const int64_t *ids, const kith_job *job, kith_tool_build_times *times) {
    if (!build->upsert) return kith_index_add(index, view, ids, job);
    size_t replaced = 0;
    kith_status status = kith_index_upsert(index, view, ids, job, &replaced);
    times->replaced_count += replaced;
    return status;
}

/* Batch by batch; vectors of a type that no index takes are converted to f32. */
static int add(kith_index *index, const kith_tool_build *build, kith_vectors *base, const int64_t *ids,
               const kith_job *job, kith_tool_build_times *times) {
    size_t count = kith_vectors_count(base), dim = kith_vectors_dim(base), step = batch_rows(build, count, dim);
    kith_dtype dtype = kith_vectors_dtype(base);
    bool is_stored = store_auto(dtype) == dtype;
    add_progress progress = {.total = count};
    kith_job batch_job = *job;
    float *converted = NULL;
    int code = KITH_EXIT_OK;
    double start = kith_tool_seconds();
    batch_job.progress = on_add;
    batch_job.progress_user = &progress;
    if (!is_stored) {
        size_t row_bytes = kith_dtype_row_bytes(KITH_F32, dim);
        converted = calloc(step > 0 ? step : 1, row_bytes);
        if (converted == NULL) return kith_tool_no_memory(step, row_bytes);
    }
    for (size_t first = 0; first == 0 || first < count; first += step) { /* no rows at all are refused by the add */
        size_t n = count - first < step ? count - first : step;
        kith_view view = {converted, KITH_F32, n, dim, 0};
        progress.first = first;
        progress.count = n;
        KITH_TOOL_GO(kith_tool_check(is_stored ? kith_vectors_rows(base, first, n, &view)
                                               : kith_vectors_read(base, first, n, KITH_F32, converted),
                                     build->base_path));
        KITH_TOOL_GO(kith_tool_check(
            add_view(index, build, &view, ids != NULL ? ids + first : NULL, &batch_job, times), build->base_path));
        times->batch_count++;
    }
done:
    free(converted);
    times->add_seconds = kith_tool_seconds() - start;
    return code;
}

/* Where the index tells what it will take, but for what it is still to learn: is that over the budget? */
static int ask_bytes(const kith_index *index, const kith_tool_build *build, const kith_vectors *base, bool *is_told,
                     kith_tool_build_times *times) {
    bool has_ids = build->ids_path != NULL;
    kith_status status = kith_index_memory_for(index, kith_vectors_count(base), has_ids, &times->estimated_bytes);
    *is_told = status == KITH_OK;
    times->is_over_budget = times->estimated_bytes > build->budget_bytes;
    return status == KITH_ERR_UNSUPPORTED ? KITH_EXIT_OK : kith_tool_check(status, build->base_path);
}

/* Where it does not, a part of the rows does: a twentieth, and at least 10,000, which is taken out again. One that refines
 * by the file takes row i of it as vector i alone: the first ones. The estimate may err by a tenth. */
static int estimate_bytes(kith_index *index, const kith_tool_build *build, kith_vectors *base, const kith_job *job,
                          kith_tool_build_times *times) {
    size_t rows = kith_vectors_count(base), part = rows / 20 > 10000 ? rows / 20 : 10000;
    uint64_t empty, filled;
    kith_view view;
    void *owned = NULL;
    int code;
    if (part > rows) part = rows;
    KITH_TOOL_GO(kith_tool_index_memory(index, &empty));
    KITH_TOOL_GO(sample_take(build, base, part, kith_index_wants_vectors(index) == 0, &view, &owned));
    KITH_TOOL_GO(kith_tool_check(kith_index_add(index, &view, NULL, job), build->base_path));
    KITH_TOOL_GO(kith_tool_index_memory(index, &filled));
    KITH_TOOL_GO(kith_tool_check(kith_index_reset(index), NULL));
    if (filled < empty) filled = empty;
    times->estimated_bytes = empty + (uint64_t)((double)(filled - empty) * ((double)rows / (double)part));
    times->is_over_budget = (double)times->estimated_bytes > 1.1 * (double)build->budget_bytes;
done:
    free(owned);
    return code;
}

static int fill(kith_index *index, const kith_tool_build *build, kith_vectors *base, const int64_t *ids,
                kith_tool_build_times *times) {
    kith_job job = kith_tool_job(build->threads);
    job.seed = build->seed;
    bool has_budget = build->budget_bytes > 0, is_told = true;
    int code;
    if (has_budget) KITH_TOOL_GO(ask_bytes(index, build, base, &is_told, times));
    if (!times->is_over_budget) KITH_TOOL_GO(train(index, build, base, &job, times));
    if (has_budget && !times->is_over_budget)
        KITH_TOOL_GO(is_told ? ask_bytes(index, build, base, &is_told, times)
                             : estimate_bytes(index, build, base, &job, times));
    if (!times->is_over_budget) KITH_TOOL_GO(add(index, build, base, ids, &job, times));
done:
    return code;
}

/* The ids of the rows; NULL without a file of them. */
static int ids_open(const kith_tool_build *build, const kith_vectors *base, int64_t **ids) {
    size_t count = 0;
    *ids = NULL;
    if (build->ids_path == NULL) return KITH_EXIT_OK;
    int code = kith_tool_ids_read(build->ids_path, ids, &count);
    if (code == KITH_EXIT_OK && count != kith_vectors_count(base))
        code = kith_tool_error(KITH_EXIT_DATA, "%s: %zu ids for the %zu vectors of %s", build->ids_path, count,
                               kith_vectors_count(base), build->base_path);
    return code;
}

int kith_tool_index_add(kith_index *index, const kith_tool_build *build, kith_vectors *base,
                        kith_tool_build_times *times) {
    kith_job job = kith_tool_job(build->threads);
    job.seed = build->seed;
    int64_t *ids = NULL;
    int code = ids_open(build, base, &ids);
    if (code == KITH_EXIT_OK) code = add(index, build, base, ids, &job, times);
    free(ids);
    return code;
}

/* An empty index; *out stays NULL when the budget holds no graph that "HNSW" stands for. */
static int create(const kith_tool_build *build, const kith_vectors *base, kith_index **out) {
    char spec[SPEC_BYTES_MAX];
    size_t count = kith_vectors_count(base), dim = kith_vectors_dim(base);
    kith_metric metric;
    int code;
    KITH_TOOL_GO(kith_tool_check(kith_metric_parse(build->metric, &metric), NULL));
    KITH_TOOL_GO(spec_complete(build, kith_vectors_dtype(base), spec));
    if (build->budget_bytes == 0 || !kith_tool_is_choice(spec))
        return kith_tool_check(kith_index_create(spec, dim, metric, out), NULL);
    kith_status status =
        kith_index_create_within(spec, dim, metric, count, build->ids_path != NULL, build->budget_bytes, out);
    if (status != KITH_ERR_BUDGET) code = kith_tool_check(status, build->base_path);
done:
    return code;
}

int kith_tool_index_build(const kith_tool_build *build, kith_vectors *base, kith_index **out,
                          kith_tool_build_times *times) {
    int64_t *ids = NULL;
    kith_index *index = NULL;
    int code;
    *out = NULL;
    KITH_TOOL_GO(create(build, base, &index));
    if (index == NULL) return KITH_EXIT_OK;
    if (kith_index_wants_vectors(index))
        KITH_TOOL_GO(kith_tool_check(kith_index_attach_vectors(index, build->base_path), build->base_path));
    KITH_TOOL_GO(ids_open(build, base, &ids));
    KITH_TOOL_GO(fill(index, build, base, ids, times));
    if (!times->is_over_budget) {
        *out = index;
        index = NULL;
    }
done:
    kith_index_free(index);
    free(ids);
    return code;
}

int kith_tool_index_open(const char *path, bool map, const char *vectors, kith_index **out) {
    int code = kith_tool_check(map ? kith_index_map(path, out) : kith_index_load(path, out), path);
    if (code != KITH_EXIT_OK || vectors == NULL) return code;
    code = kith_tool_check(kith_index_attach_vectors(*out, vectors), path);
    if (code == KITH_EXIT_OK) return code;
    kith_index_free(*out);
    *out = NULL;
    return code;
}

enum { PARTS_MAX = 64 };

int kith_tool_index_memory(const kith_index *index, uint64_t *bytes) {
    kith_memory_part parts[PARTS_MAX];
    size_t count = 0;
    *bytes = 0;
    int code = kith_tool_check(kith_index_memory(index, parts, PARTS_MAX, &count), NULL);
    for (size_t i = 0; i < count && i < PARTS_MAX && code == KITH_EXIT_OK; i++) *bytes += parts[i].bytes;
    return code;
}

int kith_tool_memory_parts(const kith_index *index, json_t **out) {
    kith_memory_part parts[PARTS_MAX];
    size_t count = 0;
    *out = NULL;
    int code = kith_tool_check(kith_index_memory(index, parts, PARTS_MAX, &count), NULL);
    if (code != KITH_EXIT_OK) return code;
    *out = kith_tool_array();
    for (size_t i = 0; i < count && i < PARTS_MAX; i++) {
        json_t *row = kith_tool_object();
        kith_tool_put_text(row, "part", parts[i].name);
        kith_tool_put_count(row, "bytes", parts[i].bytes);
        if (kith_index_count(index) > 0)
            kith_tool_put_real(row, "bytes_per_vector", (double)parts[i].bytes / (double)kith_index_count(index));
        kith_tool_append(*out, row);
    }
    return KITH_EXIT_OK;
}

/* One "name=value"; `text` is scratch that may be cut. */
static int param_set(kith_search_params *params, const kith_index *index, char *text) {
    char *equals = strchr(text, '=');
    if (equals == NULL || equals == text)
        return kith_tool_error(KITH_EXIT_USAGE, "--set %s: name=value is needed", text);
    *equals = '\0';
    return kith_tool_check(kith_search_params_set(params, index, text, equals + 1), "--set");
}

int kith_tool_params_set(kith_search_params *params, const kith_index *index, const kith_tool_list *list) {
    for (size_t i = 0; i < list->count; i++) {
        char text[512];
        if (strlen(list->items[i]) >= sizeof text)
            return kith_tool_error(KITH_EXIT_USAGE, "--set: longer than %zu characters", sizeof text - 1);
        (void)snprintf(text, sizeof text, "%s", list->items[i]);
        for (char *at = text, *next; at != NULL; at = next) {
            next = strchr(at, ',');
            if (next != NULL) *next++ = '\0';
            int code = param_set(params, index, at);
            if (code != KITH_EXIT_OK) return code;
        }
    }
    return KITH_EXIT_OK;
}
