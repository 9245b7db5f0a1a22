/* SPDX-License-Identifier: Apache-2.0
 *
 * vectorfile.h: what the formats of vector files share. A format reads its header from a source and says where the
 * rows lie; vectors.c checks that against the bytes that are there and serves the rows.
 */
#ifndef KITH_IO_VECTORFILE_H
#define KITH_IO_VECTORFILE_H

#include <stdbool.h>
#include <stdint.h>

#include "io/mappedfile.h"
#include "kith/vectors.h"

/* Bytes to be read: an open file, or memory when `memory` is not NULL. */
typedef struct kith_source {
    const char *path; /* for messages */
    int file;
    const unsigned char *memory;
    uint64_t bytes;
} kith_source;

/* Reads `count` bytes at `offset`; KITH_ERR_FORMAT when the source has fewer. `what` names them in the message. */
kith_status kith_source_read(const kith_source *source, uint64_t offset, void *bytes, size_t count,
                             const char *what);

/* Rows: row i starts at offset + i * (prefix_bytes + row_bytes), its elements prefix_bytes later. */
typedef struct kith_layout {
    kith_dtype dtype;
    bool is_big_endian;
    bool has_more; /* the rows end before the file does, and that is as it should be */
    uint64_t count, dim, offset;
    size_t prefix_bytes; /* 4 in a vecs file: the row's own dimension */
} kith_layout;

/* The headers. On return `out` holds what the header says, unchecked but for its own limits. dtype: what the name or
 * the caller says, 0 for nothing. */
kith_status kith_vecs_layout(const kith_source *source, kith_dtype dtype, kith_layout *out);
/* `dataset`: NULL, "neighbors" or "distances", the two halves of a file of ground truth. */
kith_status kith_bin_layout(const kith_source *source, kith_dtype dtype, const char *dataset, kith_layout *out);
kith_status kith_npy_layout(const kith_source *source, kith_layout *out);
kith_status kith_idx_layout(const kith_source *source, kith_layout *out);

/* A gzip file that holds an idx file, unpacked into *memory (kith_free). The header's shape has to fit the bytes
 * that come out, and bounds them. */
kith_status kith_source_is_gzip(const kith_source *source, bool *out);
kith_status kith_idx_unpack(const kith_source *source, unsigned char **memory, size_t *bytes);

/* An HDF5 data set. */
typedef struct kith_hdf5 kith_hdf5;
kith_status kith_hdf5_open(const char *path, const char *dataset, uint64_t file_bytes, kith_layout *layout,
                           kith_hdf5 **out);
/* Rows as packed native elements of the layout's type. */
kith_status kith_hdf5_read(kith_hdf5 *file, size_t first, size_t count, void *out);
void kith_hdf5_close(kith_hdf5 *file);

/* Everything that a header says, checked: no wrap, and exactly the bytes that are there. */
kith_status kith_layout_check(const kith_layout *layout, const kith_source *source);

/* Swaps the bytes of `count` elements of `width` bytes. */
void kith_swap_bytes(void *elements, size_t count, size_t width);

/* By the name's extension: format AUTO and dtype 0 when it says nothing. */
void kith_format_of_name(const char *path, kith_format *format, kith_dtype *dtype, bool *is_packed);
/* "fvecs", "u8bin", ...: "?" for a pair that does not exist. */
const char *kith_format_name(kith_format format, kith_dtype dtype);

/* Converts all rows of a view into `out`, packed. A value that the target cannot hold is KITH_ERR_RANGE, with the row
 * counted from first_row. */
kith_status kith_view_convert(const char *path, const kith_view *rows, size_t first_row, kith_dtype dtype,
                              void *out);

/* The elements of one row, into dim elements at `out`, without a change to what kith_vectors_rows has given. */
kith_status kith_vectors_copy_row(const kith_vectors *vectors, size_t row, void *out);

/* kith_vectors_open on bytes in memory, borrowed until close and aligned to 64; `name` stands for the path, its
 * extension included. Not HDF5. */
kith_status kith_vectors_open_memory(const char *name, const void *data, size_t bytes,
                                     const kith_vectors_options *options, kith_vectors **out);

#endif
