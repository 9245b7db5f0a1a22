/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening vector files and serving their rows. A row comes from one of three places: the mapped file; memory, for what
 * cannot be used as it stands in the file (packed, big-endian, not aligned, HDF5); or, streamed, a buffer.
 */
#include "kith/vectors.h"

#include <errno.h>
#include <string.h>

#include "base/elements.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/options.h"
#include "base/random.h"
#include "io/syscalls.h"
#include "io/vectorfile.h"

enum {
    READ_BYTES = 1 << 20,      /* kith_vectors_read takes a streamed file in pieces of this size */
    SAMPLE_STREAM = 0x73616d70 /* of random numbers */
};

struct kith_vectors {
    char *path;
    kith_format format;
    kith_layout layout; /* offset and count: of the rows that are served */
    size_t first_row;   /* in the file, of the first row that is served */
    size_t count, dim, stride;
    const unsigned char *base; /* where row 0 starts, with its prefix; NULL when streamed */
    int file;
    kith_mappedfile map;
    unsigned char *memory;
    kith_hdf5 *hdf5;
    unsigned char *buffer;
    size_t buffer_bytes;
};

void kith_vectors_options_init(kith_vectors_options *options) {
    *options = (kith_vectors_options){.size = sizeof *options};
}

size_t kith_vectors_count(const kith_vectors *vectors) { return vectors->count; }
size_t kith_vectors_dim(const kith_vectors *vectors) { return vectors->dim; }
kith_dtype kith_vectors_dtype(const kith_vectors *vectors) { return vectors->layout.dtype; }
const char *kith_vectors_format_name(const kith_vectors *vectors) {
    return kith_format_name(vectors->format, vectors->layout.dtype);
}

/* ---- Sources and layouts ------------------------------------------------------------------------------- */

kith_status kith_source_read(const kith_source *source, uint64_t offset, void *bytes, size_t count,
                             const char *what) {
    if (offset > source->bytes || count > source->bytes - offset)
        return kith_error(KITH_ERR_FORMAT, "%s: cut off: %s needs %zu bytes from byte %llu, the file has %llu",
                          source->path, what, count, (unsigned long long)offset, (unsigned long long)source->bytes);
    if (source->memory == NULL) return kith_io_read_at(source->file, source->path, bytes, count, offset);
    if (count > 0) memcpy(bytes, source->memory + offset, count);
    return KITH_OK;
}

kith_status kith_layout_check(const kith_layout *layout, const kith_source *source) {
    uint64_t end = 0;
    bool wraps = layout->dim > SIZE_MAX / 64;
    uint64_t row_bytes = wraps ? 0 : kith_dtype_row_bytes(layout->dtype, (size_t)layout->dim);
    if (layout->count == 0 && layout->dim > KITH_DIM_MAX) /* no bytes stand behind that number */
        return kith_error(KITH_ERR_FORMAT, "%s: no rows, of dimension %llu", source->path,
                          (unsigned long long)layout->dim);
    wraps = wraps || __builtin_mul_overflow(layout->count, row_bytes + layout->prefix_bytes, &end) ||
            __builtin_add_overflow(end, layout->offset, &end);
    if (wraps || end > source->bytes)
        return kith_error(
            KITH_ERR_FORMAT, "%s: %llu rows of dimension %llu (%s) from byte %llu do not fit in its %llu bytes",
            source->path, (unsigned long long)layout->count, (unsigned long long)layout->dim,
            kith_dtype_name(layout->dtype), (unsigned long long)layout->offset, (unsigned long long)source->bytes);
    if (end < source->bytes && !layout->has_more)
        return kith_error(
            KITH_ERR_FORMAT, "%s: %llu rows of dimension %llu (%s) end at byte %llu, but it has %llu bytes",
            source->path, (unsigned long long)layout->count, (unsigned long long)layout->dim,
            kith_dtype_name(layout->dtype), (unsigned long long)end, (unsigned long long)source->bytes);
    return KITH_OK;
}

void kith_swap_bytes(void *elements, size_t count, size_t width) {
    unsigned char *bytes = elements;
    for (size_t i = 0; i < count; i++, bytes += width)
        for (size_t low = 0, high = width - 1; low < high; low++, high--) {
            unsigned char kept = bytes[low];
            bytes[low] = bytes[high];
            bytes[high] = kept;
        }
}

/* ---- Which format -------------------------------------------------------------------------------------- */

/* For names that say nothing: formats that start with a mark of their own. AUTO when there is none. */
static kith_status format_of_content(const kith_source *source, kith_format *out) {
    unsigned char start[4] = {0};
    *out = KITH_FORMAT_AUTO;
    if (source->bytes < sizeof start) return KITH_OK;
    KITH_TRY(kith_source_read(source, 0, start, sizeof start, "its start"));
    bool is_gzip = start[0] == 0x1f && start[1] == 0x8b;
    bool is_idx =
        start[0] == 0 && start[1] == 0 && start[2] >= 8 && start[2] <= 14 && start[3] >= 1 && start[3] <= 8;
    if (memcmp(start, "\x93NUM", 4) == 0) *out = KITH_FORMAT_NPY;
    if (memcmp(start, "\x89HDF", 4) == 0) *out = KITH_FORMAT_HDF5;
    if (is_gzip || is_idx) *out = KITH_FORMAT_IDX;
    return KITH_OK;
}

/* Settles options->format and ->dtype; *is_packed when the file is in gzip. */
static kith_status settle_format(const kith_source *source, kith_vectors_options *options, bool *is_packed) {
    kith_format named;
    kith_dtype dtype;
    bool named_packed;
    kith_format_of_name(source->path, &named, &dtype, &named_packed);
    if ((unsigned)options->format > KITH_FORMAT_HDF5)
        return kith_error(KITH_ERR_ARGUMENT, "%s: format %d does not exist", source->path, (int)options->format);
    if (options->format == KITH_FORMAT_AUTO) options->format = named;
    if (options->format == KITH_FORMAT_AUTO) KITH_TRY(format_of_content(source, &options->format));
    if (options->format == KITH_FORMAT_AUTO)
        return kith_error(KITH_ERR_FORMAT, "%s: neither its name nor its first bytes say its format; give one",
                          source->path);
    if (options->format == named && dtype != 0) {
        if (options->dtype == 0) options->dtype = dtype;
        if (options->dtype != dtype)
            return kith_error(KITH_ERR_TYPE, "%s: its name says %s, but %s was asked for", source->path,
                              kith_dtype_name(dtype), kith_dtype_name(options->dtype));
    }
    KITH_TRY(kith_source_is_gzip(source, is_packed));
    *is_packed = *is_packed && (options->format == KITH_FORMAT_IDX || named_packed);
    if (named_packed && !*is_packed)
        return kith_error(KITH_ERR_FORMAT, "%s: not a gzip file: its first two bytes are not 1f 8b", source->path);
    if (*is_packed && options->format != KITH_FORMAT_IDX)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: only idx files are read from gzip; run gunzip first",
                          source->path);
    return KITH_OK;
}

static kith_status raw_layout(const kith_source *source, const kith_vectors_options *options, kith_layout *out) {
    size_t row_bytes = options->dim <= SIZE_MAX / 64 ? kith_dtype_row_bytes(options->dtype, options->dim) : 0;
    if (row_bytes == 0)
        return kith_error(KITH_ERR_ARGUMENT,
                          "%s: a raw file needs its element type and dimension; given %s and %zu", source->path,
                          kith_dtype_name(options->dtype), options->dim);
    uint64_t count = options->count != 0 ? options->count : source->bytes / row_bytes;
    *out = (kith_layout){.dtype = options->dtype, .count = count, .dim = options->dim};
    return KITH_OK;
}

static kith_status read_layout(kith_vectors *vectors, const kith_source *source,
                               const kith_vectors_options *options) {
    kith_layout *layout = &vectors->layout;
    bool has_datasets = options->format == KITH_FORMAT_HDF5 || options->format == KITH_FORMAT_BIN;
    if (options->dataset != NULL && !has_datasets)
        return kith_error(KITH_ERR_ARGUMENT, "%s: data set '%s' asked for, but such a file has only one",
                          source->path, options->dataset);
    if (options->format != KITH_FORMAT_RAW && (options->dim != 0 || options->count != 0))
        return kith_error(KITH_ERR_ARGUMENT, "%s: a shape was given, but only raw files take one", source->path);
    switch (options->format) {
        case KITH_FORMAT_VECS: KITH_TRY(kith_vecs_layout(source, options->dtype, layout)); break;
        case KITH_FORMAT_BIN: KITH_TRY(kith_bin_layout(source, options->dtype, options->dataset, layout)); break;
        case KITH_FORMAT_NPY: KITH_TRY(kith_npy_layout(source, layout)); break;
        case KITH_FORMAT_IDX: KITH_TRY(kith_idx_layout(source, layout)); break;
        case KITH_FORMAT_RAW: KITH_TRY(raw_layout(source, options, layout)); break;
        default: return kith_hdf5_open(source->path, options->dataset, source->bytes, layout, &vectors->hdf5);
    }
    return kith_layout_check(layout, source);
}

/* Sets the shape that is served, from the layout and what was asked for. */
static kith_status settle_shape(kith_vectors *vectors, const kith_vectors_options *options) {
    kith_layout *layout = &vectors->layout;
    bool type_is_chosen = options->format == KITH_FORMAT_BIN; /* by the data set, maybe */
    if (options->dtype != 0 && options->dtype != layout->dtype && !type_is_chosen)
        return kith_error(KITH_ERR_TYPE, "%s: holds elements of type %s, not %s", vectors->path,
                          kith_dtype_name(layout->dtype), kith_dtype_name(options->dtype));
    if (options->first_row > layout->count)
        return kith_error(KITH_ERR_ARGUMENT, "%s: first row %zu asked for, it has %llu", vectors->path,
                          options->first_row, (unsigned long long)layout->count);
    vectors->format = options->format;
    vectors->first_row = options->first_row;
    vectors->dim = (size_t)layout->dim;
    vectors->stride = layout->prefix_bytes + kith_dtype_row_bytes(layout->dtype, vectors->dim);
    layout->count -= options->first_row;
    layout->offset += (uint64_t)options->first_row * vectors->stride;
    if (options->max_rows != 0 && layout->count > options->max_rows) layout->count = options->max_rows;
    vectors->count = (size_t)layout->count;
    return KITH_OK;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

/* `count` rows, prefixes included, in the machine's byte order, from wherever they are. */
static kith_status fetch_rows(const kith_vectors *vectors, const kith_source *source, size_t first, size_t count,
                              unsigned char *out) {
    const kith_layout *layout = &vectors->layout;
    if (vectors->hdf5 != NULL) {
        kith_status status = kith_hdf5_read(vectors->hdf5, vectors->first_row + first, count, out);
        return status == KITH_OK ? KITH_OK : kith_error_prefix(status, "%s", vectors->path);
    }
    KITH_TRY(kith_source_read(source, layout->offset + (uint64_t)first * vectors->stride, out,
                              count * vectors->stride, "a row"));
    if (layout->is_big_endian) kith_swap_bytes(out, count * vectors->dim, kith_dtype_row_bytes(layout->dtype, 1));
    return KITH_OK;
}

static kith_status load_rows(kith_vectors *vectors, const kith_source *source) {
    KITH_TRY(kith_alloc(vectors->count, vectors->stride, &vectors->memory));
    KITH_TRY(fetch_rows(vectors, source, 0, vectors->count, vectors->memory));
    vectors->base = vectors->memory;
    return KITH_OK;
}

/* Rows stay where they are when they can be used there. */
static bool rows_are_usable(const kith_vectors *vectors) {
    const kith_layout *layout = &vectors->layout;
    size_t alignment = kith_dtype_row_bytes(layout->dtype, 1);
    bool is_aligned = (layout->offset + layout->prefix_bytes) % alignment == 0 && vectors->stride % alignment == 0;
    return vectors->hdf5 == NULL && !layout->is_big_endian && is_aligned;
}

static kith_status place_rows(kith_vectors *vectors, const kith_source *source, bool stream) {
    bool is_file = source->memory == NULL;
    if (vectors->count == 0 || (stream && is_file)) return KITH_OK;
    if (!rows_are_usable(vectors)) return load_rows(vectors, source);
    if (!is_file) {
        vectors->base = source->memory + vectors->layout.offset;
        return KITH_OK;
    }
    KITH_TRY(kith_mappedfile_map(source->path, source->file, &vectors->map));
    if (vectors->map.bytes < source->bytes)
        return kith_error(KITH_ERR_IO, "%s: became shorter while it was opened", source->path);
    vectors->base = vectors->map.data + vectors->layout.offset;
    return KITH_OK;
}

static kith_status open_unpacked(kith_vectors *vectors, const kith_source *source,
                                 const kith_vectors_options *options) {
    KITH_TRY(read_layout(vectors, source, options));
    KITH_TRY(settle_shape(vectors, options));
    return place_rows(vectors, source, options->stream != 0);
}

/* The unpacked file becomes the memory that rows are served from. */
static kith_status open_packed(kith_vectors *vectors, const kith_source *source,
                               const kith_vectors_options *options) {
    unsigned char *unpacked;
    kith_source inside = {.path = source->path, .file = -1};
    size_t bytes;
    KITH_TRY(kith_idx_unpack(source, &unpacked, &bytes));
    inside.memory = unpacked;
    inside.bytes = bytes;
    kith_status status = open_unpacked(vectors, &inside, options);
    if (vectors->memory == NULL)
        vectors->memory = unpacked; /* and base points into it */
    else
        kith_free(unpacked);
    return status;
}

static kith_status open_source(kith_vectors *vectors, const kith_source *source,
                               const kith_vectors_options *given) {
    kith_vectors_options options;
    bool is_packed;
    kith_vectors_options_init(&options);
    KITH_TRY(kith_options_read("kith_vectors_options", &options, sizeof options, given));
    KITH_TRY(settle_format(source, &options, &is_packed));
    if (source->memory != NULL && options.format == KITH_FORMAT_HDF5)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: HDF5 is read from files only", source->path);
    KITH_TRY((is_packed ? open_packed : open_unpacked)(vectors, source, &options));
    if (vectors->base != NULL) { /* nothing more to be read */
        kith_io_close(vectors->file);
        vectors->file = -1;
    }
    return KITH_OK;
}

static kith_status open_file(kith_vectors *vectors, const kith_vectors_options *options) {
    struct stat info;
    KITH_TRY(kith_io_open_read(vectors->path, &vectors->file));
    if (kith_sys()->fstat(vectors->file, &info) != 0) return kith_io_error(vectors->path, "examine", errno);
    if (!S_ISREG(info.st_mode))
        return kith_error(KITH_ERR_IO, "%s: not a regular file, its size cannot be checked", vectors->path);
    kith_source source = {.path = vectors->path, .file = vectors->file, .bytes = (uint64_t)info.st_size};
    return open_source(vectors, &source, options);
}

static kith_status make(const char *path, kith_vectors **out) {
    kith_vectors *vectors;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *vectors, &vectors));
    vectors->file = -1;
    size_t path_bytes = strlen(path) + 1;
    kith_status status = kith_alloc(path_bytes, 1, &vectors->path);
    if (status != KITH_OK) {
        kith_free(vectors);
        return status;
    }
    memcpy(vectors->path, path, path_bytes);
    *out = vectors;
    return KITH_OK;
}

static kith_status finish_open(kith_vectors *vectors, kith_status status, kith_vectors **out) {
    if (status == KITH_OK)
        *out = vectors;
    else
        kith_vectors_close(vectors);
    return status;
}

kith_status kith_vectors_open(const char *path, const kith_vectors_options *options, kith_vectors **out) {
    *out = NULL;
    kith_vectors *vectors;
    KITH_TRY(make(path, &vectors));
    return finish_open(vectors, open_file(vectors, options), out);
}

kith_status kith_vectors_open_memory(const char *name, const void *data, size_t bytes,
                                     const kith_vectors_options *options, kith_vectors **out) {
    *out = NULL;
    kith_vectors *vectors;
    KITH_TRY(make(name, &vectors));
    kith_source source = {.path = vectors->path, .file = -1, .memory = data, .bytes = bytes};
    return finish_open(vectors, open_source(vectors, &source, options), out);
}

void kith_vectors_close(kith_vectors *vectors) {
    if (vectors == NULL) return;
    kith_io_close(vectors->file);
    kith_mappedfile_close(&vectors->map);
    kith_hdf5_close(vectors->hdf5);
    kith_free(vectors->memory);
    kith_free(vectors->buffer);
    kith_free(vectors->path);
    kith_free(vectors);
}

/* ---- Rows ---------------------------------------------------------------------------------------------- */

/* Fills the buffer with rows of a streamed file. */
static kith_status stream_rows(kith_vectors *vectors, size_t first, size_t count, const unsigned char **out) {
    size_t bytes = count * vectors->stride; /* no more than the file has */
    if (bytes > vectors->buffer_bytes) {
        kith_free(vectors->buffer);
        vectors->buffer_bytes = 0;
        KITH_TRY(kith_alloc(bytes, 1, &vectors->buffer));
        vectors->buffer_bytes = bytes;
    }
    kith_source source = {.path = vectors->path, .file = vectors->file, .bytes = UINT64_MAX};
    KITH_TRY(fetch_rows(vectors, &source, first, count, vectors->buffer));
    *out = vectors->buffer;
    return KITH_OK;
}

/* Every row of a vecs file carries its dimension: it has to be that of the first. */
static kith_status check_prefixes(const kith_vectors *vectors, const unsigned char *rows, size_t first,
                                  size_t count) {
    for (size_t i = 0; i < count; i++) {
        int32_t dim;
        memcpy(&dim, rows + i * vectors->stride, sizeof dim);
        if (dim < 0 || (size_t)dim != vectors->dim)
            return kith_error(
                KITH_ERR_FORMAT, "%s: row %zu, at byte %llu, has dimension %d; the first has %zu", vectors->path,
                vectors->first_row + first + i,
                (unsigned long long)(vectors->layout.offset + (uint64_t)(first + i) * vectors->stride), dim,
                vectors->dim);
    }
    return KITH_OK;
}

kith_status kith_vectors_rows(kith_vectors *vectors, size_t first, size_t count, kith_view *out) {
    *out = (kith_view){.dtype = vectors->layout.dtype, .dim = vectors->dim, .stride = vectors->stride};
    if (first > vectors->count || count > vectors->count - first)
        return kith_error(KITH_ERR_ARGUMENT, "%s: rows %zu..+%zu asked for, it has %zu", vectors->path, first,
                          count, vectors->count);
    if (count == 0) return KITH_OK;
    const unsigned char *rows;
    if (vectors->base != NULL)
        rows = vectors->base + first * vectors->stride;
    else
        KITH_TRY(stream_rows(vectors, first, count, &rows));
    if (vectors->layout.prefix_bytes != 0) KITH_TRY(check_prefixes(vectors, rows, first, count));
    out->data = rows + vectors->layout.prefix_bytes;
    out->count = count;
    return KITH_OK;
}

kith_status kith_vectors_copy_row(const kith_vectors *vectors, size_t row, void *out) {
    size_t prefix_bytes = vectors->layout.prefix_bytes, row_bytes = vectors->stride - prefix_bytes;
    if (vectors->base != NULL) {
        memcpy(out, vectors->base + row * vectors->stride + prefix_bytes, row_bytes);
        return KITH_OK;
    }
    kith_source source = {.path = vectors->path, .file = vectors->file, .bytes = UINT64_MAX};
    if (prefix_bytes == 0) return fetch_rows(vectors, &source, row, 1, out);
    uint64_t offset = vectors->layout.offset + (uint64_t)row * vectors->stride + prefix_bytes;
    return kith_source_read(&source, offset, out, row_bytes, "a row");
}

kith_status kith_view_convert(const char *path, const kith_view *rows, size_t first_row, kith_dtype dtype,
                              void *out) {
    if (!kith_convert_exists(rows->dtype, dtype))
        return kith_error(KITH_ERR_TYPE, "%s: %s is not converted to %s", path, kith_dtype_name(rows->dtype),
                          kith_dtype_name(dtype));
    size_t in_bytes = kith_dtype_row_bytes(rows->dtype, rows->dim),
           out_bytes = kith_dtype_row_bytes(dtype, rows->dim);
    size_t stride = rows->stride != 0 ? rows->stride : in_bytes;
    /* Bits go by whole bytes; packed rows in one go. */
    size_t row_elements = rows->dtype == KITH_B1 ? 8 * in_bytes : rows->dim;
    size_t step = stride == in_bytes ? rows->count : 1;
    for (size_t row = 0; row < rows->count; row += step) {
        const char *in = (const char *)rows->data + row * stride;
        size_t wanted = step * row_elements;
        size_t done = kith_convert(rows->dtype, in, wanted, dtype, (char *)out + row * out_bytes);
        if (done < wanted)
            return kith_error(KITH_ERR_RANGE, "%s: row %zu, element %zu: %.9g cannot be held by %s", path,
                              first_row + row + done / row_elements, done % row_elements,
                              kith_element_f64(rows->dtype, in, done), kith_dtype_name(dtype));
    }
    return KITH_OK;
}

kith_status kith_vectors_read(kith_vectors *vectors, size_t first, size_t count, kith_dtype dtype, void *out) {
    size_t out_bytes = kith_dtype_row_bytes(dtype, vectors->dim);
    size_t step = vectors->base != NULL ? count : kith_max_size(1, READ_BYTES / vectors->stride);
    for (size_t done = 0; done < count || count == 0; done += step) {
        kith_view rows;
        KITH_TRY(kith_vectors_rows(vectors, first + done, kith_min_size(step, count - done), &rows));
        if (count == 0) break;
        KITH_TRY(kith_view_convert(vectors->path, &rows, vectors->first_row + first + done, dtype,
                                   (char *)out + done * out_bytes));
    }
    return KITH_OK;
}

/* Selection sampling: row i of n is taken with probability (rows still wanted) / (rows left): Knuth, The Art of
 * Computer Programming, volume 2, section 3.4.2, algorithm S. Runs of rows are read together. */
kith_status kith_vectors_sample(kith_vectors *vectors, size_t count, uint64_t seed, kith_dtype dtype, void *out) {
    size_t total = vectors->count, out_bytes = kith_dtype_row_bytes(dtype, vectors->dim), taken = 0, first = 0;
    if (count > total)
        return kith_error(KITH_ERR_RANGE, "%s: a sample of %zu rows, but there are %zu", vectors->path, count,
                          total);
    for (size_t i = 0; i <= total; i++) {
        size_t run = i - first;
        bool is_wanted = i < total && kith_random_below(seed, SAMPLE_STREAM, i, total - i) < count - taken - run;
        if (is_wanted) continue;
        if (run > 0)
            KITH_TRY(kith_vectors_read(vectors, first, run, dtype, (unsigned char *)out + taken * out_bytes));
        taken += run;
        first = i + 1;
        if (taken == count) return KITH_OK;
    }
    return KITH_OK;
}
