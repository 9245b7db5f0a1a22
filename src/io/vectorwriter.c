/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/elements.h"
#include "base/error.h"
#include "base/memory.h"
#include "io/atomicfile.h"
#include "io/vectorfile.h"

enum { BLOCK_BYTES = 64 << 10, NPY_HEADER_BYTES = 128 };

struct kith_vectors_writer {
    kith_atomicfile *file;
    kith_format format;
    kith_dtype dtype;
    size_t dim, row_bytes, prefix_bytes;
    uint64_t count;
    bool failed;
    unsigned char *block; /* rows as they stand in the file */
    size_t block_rows;
};

static const char *npy_type(kith_dtype dtype) {
    switch (dtype) {
        case KITH_F16: return "<f2";
        case KITH_F32: return "<f4";
        case KITH_F64: return "<f8";
        case KITH_I8: return "|i1";
        case KITH_U8: return "|u1";
        case KITH_I32: return "<i4";
        case KITH_U32: return "<u4";
        case KITH_I64: return "<i8";
        default: return NULL;
    }
}

static unsigned idx_type(kith_dtype dtype) {
    switch (dtype) {
        case KITH_U8: return 0x08;
        case KITH_I8: return 0x09;
        case KITH_I32: return 0x0c;
        case KITH_F32: return 0x0d;
        case KITH_F64: return 0x0e;
        default: return 0;
    }
}

static bool type_fits_format(kith_format format, kith_dtype dtype) {
    switch (format) {
        case KITH_FORMAT_VECS:
        case KITH_FORMAT_BIN: return strcmp(kith_format_name(format, dtype), "?") != 0;
        case KITH_FORMAT_NPY: return npy_type(dtype) != NULL;
        case KITH_FORMAT_IDX: return idx_type(dtype) != 0;
        default: return kith_dtype_row_bytes(dtype, 8) != 0;
    }
}

/* Format and type from the name and from what was asked for. */
static kith_status settle_format(const char *path, kith_format *format, kith_dtype *dtype) {
    kith_format named;
    kith_dtype named_dtype;
    bool is_packed;
    kith_format_of_name(path, &named, &named_dtype, &is_packed);
    if ((unsigned)*format > KITH_FORMAT_HDF5)
        return kith_error(KITH_ERR_ARGUMENT, "%s: format %d does not exist", path, (int)*format);
    if (is_packed) return kith_error(KITH_ERR_UNSUPPORTED, "%s: kith does not write gzip files", path);
    if (*format == KITH_FORMAT_AUTO) *format = named;
    if (*format == KITH_FORMAT_AUTO)
        return kith_error(KITH_ERR_ARGUMENT, "%s: its name does not say the format; give one", path);
    if (*format == KITH_FORMAT_HDF5)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: kith reads HDF5 and does not write it", path);
    if (*dtype == 0 && *format == named) *dtype = named_dtype;
    bool names_differ = *format == named && named_dtype != 0 && *dtype != named_dtype;
    if (names_differ || !type_fits_format(*format, *dtype))
        return kith_error(KITH_ERR_TYPE, "%s: elements of type %s do not go into such a file", path,
                          kith_dtype_name(*dtype));
    return KITH_OK;
}

static void put_big_endian(unsigned char *out, uint64_t value) {
    for (int i = 0; i < 4; i++) out[i] = (unsigned char)(value >> (24 - 8 * i));
}

/* The header for `writer->count` rows; its length does not depend on that. Returns the length. */
static size_t make_header(const kith_vectors_writer *writer, unsigned char out[NPY_HEADER_BYTES]) {
    uint32_t shape[2] = {(uint32_t)writer->count, (uint32_t)writer->dim};
    switch (writer->format) {
        case KITH_FORMAT_BIN: memcpy(out, shape, sizeof shape); return sizeof shape;
        case KITH_FORMAT_IDX:
            memset(out, 0, 2);
            out[2] = (unsigned char)idx_type(writer->dtype);
            out[3] = 2;
            put_big_endian(out + 4, writer->count);
            put_big_endian(out + 8, writer->dim);
            return 12;
        case KITH_FORMAT_NPY: {
            int length = snprintf((char *)out + 10, NPY_HEADER_BYTES - 10,
                                  "{'descr': '%s', 'fortran_order': False, 'shape': (%llu, %zu), }",
                                  npy_type(writer->dtype), (unsigned long long)writer->count, writer->dim);
            memset(out + 10 + length, ' ', (size_t)(NPY_HEADER_BYTES - 10 - length));
            memcpy(out, "\x93NUMPY\x01\x00\x76\x00", 10); /* version 1.0, 118 bytes of text */
            out[NPY_HEADER_BYTES - 1] = '\n';
            return NPY_HEADER_BYTES;
        }
        default: return 0;
    }
}

static kith_status check_shape(const char *path, kith_format format, size_t dim) {
    size_t dim_max = format == KITH_FORMAT_VECS ? INT32_MAX : UINT32_MAX;
    if (dim == 0 || dim > dim_max)
        return kith_error(KITH_ERR_ARGUMENT, "%s: dimension %zu is outside 1..%zu", path, dim, dim_max);
    return KITH_OK;
}

static kith_status start(kith_vectors_writer *writer, const char *path) {
    size_t stride = writer->prefix_bytes + writer->row_bytes;
    writer->block_rows = kith_max_size(1, BLOCK_BYTES / stride);
    KITH_TRY(kith_alloc(writer->block_rows, stride, &writer->block));
    KITH_TRY(kith_atomicfile_create(path, &writer->file));
    unsigned char header[NPY_HEADER_BYTES];
    return kith_atomicfile_write(writer->file, header, make_header(writer, header)); /* again at commit */
}

kith_status kith_vectors_writer_create(const char *path, kith_format format, kith_dtype dtype, size_t dim,
                                       kith_vectors_writer **out) {
    *out = NULL;
    KITH_TRY(settle_format(path, &format, &dtype));
    KITH_TRY(check_shape(path, format, dim));
    kith_vectors_writer *writer;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *writer, &writer));
    writer->format = format;
    writer->dtype = dtype;
    writer->dim = dim;
    writer->row_bytes = kith_dtype_row_bytes(dtype, dim);
    writer->prefix_bytes = format == KITH_FORMAT_VECS ? 4 : 0;
    kith_status status = start(writer, path);
    if (status == KITH_OK)
        *out = writer;
    else
        kith_vectors_writer_abort(writer);
    return status;
}

/* Up to block_rows rows into the block, as they stand in the file. */
static kith_status fill_block(kith_vectors_writer *writer, const kith_view *rows, uint64_t first_row) {
    const char *path = kith_atomicfile_path(writer->file);
    if (writer->prefix_bytes == 0) {
        KITH_TRY(kith_view_convert(path, rows, (size_t)first_row, writer->dtype, writer->block));
        size_t width = kith_dtype_row_bytes(writer->dtype, 1);
        if (writer->format == KITH_FORMAT_IDX && width > 1)
            kith_swap_bytes(writer->block, rows->count * writer->dim, width);
        return KITH_OK;
    }
    int32_t dim = (int32_t)writer->dim;
    unsigned char *at = writer->block;
    for (size_t i = 0; i < rows->count; i++) {
        kith_view row = *rows;
        row.count = 1;
        row.data = (const char *)rows->data + i * rows->stride;
        memcpy(at, &dim, sizeof dim);
        KITH_TRY(kith_view_convert(path, &row, (size_t)first_row + i, writer->dtype, at + writer->prefix_bytes));
        at += writer->prefix_bytes + writer->row_bytes;
    }
    return KITH_OK;
}

static kith_status write_rows(kith_vectors_writer *writer, const kith_view *rows) {
    for (size_t done = 0; done < rows->count;) {
        kith_view piece = *rows;
        piece.data = (const char *)rows->data + done * rows->stride;
        piece.count = kith_min_size(writer->block_rows, rows->count - done);
        KITH_TRY(fill_block(writer, &piece, writer->count));
        KITH_TRY(kith_atomicfile_write(writer->file, writer->block,
                                       piece.count * (writer->prefix_bytes + writer->row_bytes)));
        writer->count += piece.count;
        done += piece.count;
    }
    return KITH_OK;
}

kith_status kith_vectors_writer_append(kith_vectors_writer *writer, const kith_view *rows) {
    const char *path = kith_atomicfile_path(writer->file);
    kith_view view = *rows;
    size_t packed = kith_dtype_row_bytes(view.dtype, view.dim);
    if (view.stride == 0) view.stride = packed;
    if (view.dim != writer->dim)
        return kith_error(KITH_ERR_DIMENSION, "%s: rows of dimension %zu for a file of dimension %zu", path,
                          view.dim, writer->dim);
    if (!kith_convert_exists(view.dtype, writer->dtype))
        return kith_error(KITH_ERR_TYPE, "%s: %s is not converted to %s", path, kith_dtype_name(view.dtype),
                          kith_dtype_name(writer->dtype));
    if (view.count != 0 && (view.data == NULL || view.stride < packed))
        return kith_error(KITH_ERR_ARGUMENT, "%s: %zu rows without data, or with a stride of %zu for %zu bytes",
                          path, view.count, view.stride, packed);
    bool counts_32_bits = writer->format == KITH_FORMAT_BIN || writer->format == KITH_FORMAT_IDX;
    if (counts_32_bits && view.count > UINT32_MAX - writer->count)
        return kith_error(KITH_ERR_OVERFLOW, "%s: its format counts at most %lu rows", path,
                          (unsigned long)UINT32_MAX);
    kith_status status = write_rows(writer, &view);
    if (status != KITH_OK) writer->failed = true;
    return status;
}

static kith_status finish(kith_vectors_writer *writer) {
    const char *path = kith_atomicfile_path(writer->file);
    if (writer->failed)
        return kith_error(KITH_ERR_IO, "%s: rows before could not be written; the file is not made", path);
    if (writer->count == 0 && writer->format == KITH_FORMAT_VECS)
        return kith_error(KITH_ERR_EMPTY, "%s: no rows; such a file could not say its dimension", path);
    unsigned char header[NPY_HEADER_BYTES];
    size_t header_bytes = make_header(writer, header);
    KITH_TRY(kith_atomicfile_write_at(writer->file, 0, header, header_bytes));
    kith_atomicfile *file = writer->file;
    writer->file = NULL;
    return kith_atomicfile_commit(file);
}

kith_status kith_vectors_writer_commit(kith_vectors_writer *writer) {
    if (writer == NULL) return KITH_OK;
    kith_status status = finish(writer);
    kith_vectors_writer_abort(writer);
    return status;
}

void kith_vectors_writer_abort(kith_vectors_writer *writer) {
    if (writer == NULL) return;
    kith_atomicfile_abort(writer->file);
    kith_free(writer->block);
    kith_free(writer);
}
