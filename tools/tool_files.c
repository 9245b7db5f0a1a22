/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_files.c: opening vector files, reading lists of ids, writing results.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tool.h"

static bool ends_at(const char *text, size_t bytes, const char *end) {
    size_t end_bytes = strlen(end);
    return bytes >= end_bytes && strncmp(text + bytes - end_bytes, end, end_bytes) == 0;
}

bool kith_tool_is_hdf5(const char *path) {
    const char *colon = strrchr(path, ':');
    size_t bytes = strlen(path), file_bytes = colon != NULL ? (size_t)(colon - path) : bytes;
    return ends_at(path, bytes, ".hdf5") || ends_at(path, bytes, ".h5") || ends_at(path, file_bytes, ".hdf5") ||
           ends_at(path, file_bytes, ".h5");
}

int kith_tool_path_split(const char *path, char **file, const char **dataset) {
    const char *colon = strrchr(path, ':');
    size_t bytes = strlen(path), file_bytes = colon != NULL ? (size_t)(colon - path) : bytes;
    bool is_split = colon != NULL && colon[1] != '\0' && strchr(colon, '/') == NULL &&
                    (kith_tool_is_hdf5(path) || ends_at(path, file_bytes, ".ibin"));
    if (!is_split) file_bytes = bytes;
    *dataset = is_split ? colon + 1 : NULL;
    *file = malloc(file_bytes + 1);
    if (*file == NULL) return kith_tool_no_memory(file_bytes, 1);
    memcpy(*file, path, file_bytes);
    (*file)[file_bytes] = '\0';
    return KITH_EXIT_OK;
}

int kith_tool_vectors_open(const char *path, const kith_vectors_options *options, kith_vectors **out) {
    kith_vectors_options own;
    char *file;
    const char *dataset;
    kith_vectors_options_init(&own);
    if (options != NULL) own = *options;
    int code = kith_tool_path_split(path, &file, &dataset);
    if (code != KITH_EXIT_OK) return code;
    if (own.dataset == NULL) own.dataset = dataset;
    code = kith_tool_check(kith_vectors_open(file, &own, out), file);
    free(file);
    return code;
}

int kith_tool_dim_check(const kith_vectors *base, const char *base_path, size_t query_dim, const char *query_path) {
    size_t dim = kith_vectors_dim(base);
    if (dim == query_dim) return KITH_EXIT_OK;
    return kith_tool_error(KITH_EXIT_DATA, "%s: dimension %zu, but %s has %zu", query_path, query_dim, base_path,
                           dim);
}

static bool index_takes(kith_dtype dtype) {
    return dtype == KITH_F32 || dtype == KITH_F16 || dtype == KITH_BF16 || dtype == KITH_I8 || dtype == KITH_U8;
}

int kith_tool_vectors_view(kith_vectors *vectors, const char *path, kith_view *view, void **owned) {
    size_t count = kith_vectors_count(vectors), dim = kith_vectors_dim(vectors);
    *owned = NULL;
    if (index_takes(kith_vectors_dtype(vectors)))
        return kith_tool_check(kith_vectors_rows(vectors, 0, count, view), path);
    size_t row_bytes = kith_dtype_row_bytes(KITH_F32, dim);
    void *data = calloc(count > 0 ? count : 1, row_bytes);
    if (data == NULL) return kith_tool_no_memory(count, row_bytes);
    int code = kith_tool_check(kith_vectors_read(vectors, 0, count, KITH_F32, data), path);
    if (code != KITH_EXIT_OK) {
        free(data);
        return code;
    }
    *view = (kith_view){data, KITH_F32, count, dim, 0};
    *owned = data;
    return KITH_EXIT_OK;
}

/* One id a line; blank lines are passed over. */
static int ids_read_text(const char *path, FILE *file, int64_t **ids, size_t *count) {
    char line[64];
    size_t capacity = 0, line_number = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        line_number++;
        size_t bytes = strcspn(line, "\r\n");
        bool is_whole = line[bytes] != '\0' || feof(file) != 0;
        line[bytes] = '\0';
        if (bytes == 0 && is_whole) continue;
        if (*count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 1024;
            int64_t *larger = capacity <= SIZE_MAX / sizeof **ids ? realloc(*ids, capacity * sizeof **ids) : NULL;
            if (larger == NULL) return kith_tool_no_memory(capacity, sizeof **ids);
            *ids = larger;
        }
        if (!is_whole || !kith_tool_i64_parse(line, &(*ids)[*count]))
            return kith_tool_error(KITH_EXIT_DATA, "%s: line %zu: '%s' is not an id", path, line_number, line);
        (*count)++;
    }
    return ferror(file) ? kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno)) : KITH_EXIT_OK;
}

static int ids_read_vectors(const char *path, int64_t **ids, size_t *count) {
    kith_vectors *vectors = NULL;
    int code;
    KITH_TOOL_GO(kith_tool_vectors_open(path, NULL, &vectors));
    kith_dtype dtype = kith_vectors_dtype(vectors);
    if (dtype == KITH_F32 || dtype == KITH_F16 || dtype == KITH_BF16 || dtype == KITH_F64) {
        code = kith_tool_error(KITH_EXIT_DATA, "%s: ids are integers, this file holds %s", path,
                               kith_dtype_name(dtype));
        goto done;
    }
    size_t rows = kith_vectors_count(vectors), dim = kith_vectors_dim(vectors);
    *ids = calloc(rows > 0 ? rows : 1, dim * sizeof **ids);
    if (*ids == NULL) {
        code = kith_tool_no_memory(rows, dim * sizeof **ids);
        goto done;
    }
    KITH_TOOL_GO(kith_tool_check(kith_vectors_read(vectors, 0, rows, KITH_I64, *ids), path));
    *count = rows * dim;
done:
    kith_vectors_close(vectors);
    return code;
}

int kith_tool_ids_read(const char *path, int64_t **ids, size_t *count) {
    int code;
    *ids = NULL;
    *count = 0;
    if (ends_at(path, strlen(path), ".txt")) {
        FILE *file = fopen(path, "r");
        if (file == NULL) return kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno));
        code = ids_read_text(path, file, ids, count);
        (void)fclose(file);
    } else {
        code = ids_read_vectors(path, ids, count);
    }
    if (code == KITH_EXIT_OK && *count == 0) code = kith_tool_error(KITH_EXIT_DATA, "%s: no ids", path);
    if (code != KITH_EXIT_OK) {
        free(*ids);
        *ids = NULL;
    }
    return code;
}

int kith_tool_dtype_of_name(const char *path, kith_dtype source, kith_dtype *out) {
    static const char *const names[] = {"fvecs", "bvecs", "ivecs", "fbin", "u8bin", "i8bin", "ibin"};
    *out = source;
    const char *dot = strrchr(path, '.');
    for (size_t i = 0; dot != NULL && i < sizeof names / sizeof *names; i++)
        if (strcmp(dot + 1, names[i]) == 0) {
            kith_format format;
            return kith_tool_check(kith_format_parse(names[i], &format, out), path);
        }
    return KITH_EXIT_OK;
}

int kith_tool_vectors_write(const char *path, kith_dtype source, const void *data, size_t count, size_t dim) {
    kith_vectors_writer *writer = NULL;
    kith_dtype dtype;
    int code;
    KITH_TOOL_GO(kith_tool_dtype_of_name(path, source, &dtype));
    KITH_TOOL_GO(kith_tool_check(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, dtype, dim, &writer), path));
    const kith_view view = {data, source, count, dim, 0};
    KITH_TOOL_GO(kith_tool_check(kith_vectors_writer_append(writer, &view), path));
    kith_status status = kith_vectors_writer_commit(writer);
    writer = NULL;
    code = kith_tool_check(status, path);
done:
    kith_vectors_writer_abort(writer);
    return code;
}

int kith_tool_range_write(const kith_range_result *range, const char *ids, const char *distances,
                          const char *counts) {
    size_t total = range->limits[range->query_count];
    int code = KITH_EXIT_OK;
    if (counts != NULL) {
        int64_t *each = calloc(range->query_count + 1, sizeof *each);
        if (each == NULL) return kith_tool_no_memory(range->query_count, sizeof *each);
        for (size_t i = 0; i < range->query_count; i++)
            each[i] = (int64_t)(range->limits[i + 1] - range->limits[i]);
        code = kith_tool_vectors_write(counts, KITH_I64, each, range->query_count, 1);
        free(each);
    }
    if (code == KITH_EXIT_OK && distances != NULL)
        code = kith_tool_vectors_write(distances, KITH_F32, range->distances, total, 1);
    if (code == KITH_EXIT_OK && ids != NULL) code = kith_tool_vectors_write(ids, KITH_I64, range->ids, total, 1);
    return code;
}

void kith_tool_range_free(kith_range_result *range) {
    free(range->limits);
    free(range->ids);
    free(range->distances);
    *range = (kith_range_result){0};
}

int kith_tool_range_read(const char *ids, const char *counts, kith_range_result *out) {
    int64_t *each = NULL;
    size_t id_count = 0, total = 0;
    int code;
    *out = (kith_range_result){0};
    KITH_TOOL_GO(kith_tool_ids_read(counts, &each, &out->query_count));
    KITH_TOOL_GO(kith_tool_ids_read(ids, &out->ids, &id_count));
    out->limits = calloc(out->query_count + 1, sizeof *out->limits);
    out->distances = calloc(id_count, sizeof *out->distances);
    if (out->limits == NULL || out->distances == NULL) {
        code = kith_tool_no_memory(id_count, sizeof *out->distances);
        goto done;
    }
    for (size_t i = 0; i < out->query_count; i++) {
        if (each[i] < 0 || (uint64_t)each[i] > id_count - total) {
            code = kith_tool_error(KITH_EXIT_DATA, "%s: row %zu: count %lld, but %s holds %zu ids", counts, i,
                                   (long long)each[i], ids, id_count);
            goto done;
        }
        total += (size_t)each[i];
        out->limits[i + 1] = total;
    }
    if (total != id_count)
        code = kith_tool_error(KITH_EXIT_DATA, "%s: counts add up to %zu, but %s holds %zu ids", counts, total, ids,
                               id_count);
done:
    free(each);
    if (code != KITH_EXIT_OK) kith_tool_range_free(out);
    return code;
}

static int write_all(int file, const char *text, size_t bytes) {
    while (bytes > 0) {
        ssize_t wrote = write(file, text, bytes);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        text += wrote;
        bytes -= (size_t)wrote;
    }
    return fsync(file) != 0 ? errno : 0;
}

int kith_tool_text_write(const char *path, const char *text, size_t bytes) {
    size_t name_bytes = strlen(path) + sizeof ".XXXXXX";
    char *name = malloc(name_bytes);
    if (name == NULL) return kith_tool_no_memory(name_bytes, 1);
    (void)snprintf(name, name_bytes, "%s.XXXXXX", path);
    int file = mkstemp(name);
    int error = file < 0 ? errno : write_all(file, text, bytes);
    mode_t mask = umask(0);
    (void)umask(mask);
    if (file >= 0 && error == 0 && fchmod(file, 0666 & ~mask) != 0) error = errno;
    if (file >= 0 && close(file) != 0 && error == 0) error = errno;
    if (file >= 0 && error == 0 && rename(name, path) != 0) error = errno;
    if (file >= 0 && error != 0) (void)unlink(name);
    free(name);
    return error != 0 ? kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(error)) : KITH_EXIT_OK;
}

int kith_tool_is_index(const char *path, int *code) {
    static const unsigned char magic[8] = {0x89, 'K', 'i', 't', 'h', 0x0d, 0x0a, 0x1a}; /* docs/format.md */
    unsigned char head[sizeof magic];
    *code = KITH_EXIT_OK;
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        *code = kith_tool_error(KITH_EXIT_IO, "%s: %s", path, strerror(errno));
        return 0;
    }
    size_t got = fread(head, 1, sizeof head, file);
    (void)fclose(file);
    return got == sizeof head && memcmp(head, magic, sizeof head) == 0;
}
