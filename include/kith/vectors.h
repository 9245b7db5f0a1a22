/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/vectors.h: vector files. One reader and one writer for every format.
 *
 *   format  extension  content
 *   fvecs   .fvecs     per row: i32 dimension, then f32        (also bvecs: u8, ivecs: i32)
 *   fbin    .fbin      u32 rows, u32 dimension, then f32       (also u8bin, i8bin, ibin: i32; big-ann)
 *   npy     .npy       NumPy array, version 1 to 3, C order: f2 f4 f8 i1 u1 i4 u4 i8, either byte order; two axes, or
 *                      one: so many rows of dimension 1. Written as version 1, little-endian
 *   idx     .idx, -ubyte, .gz   MNIST's format, u8, i8, i32, f32 or f64; axes after the first are one row. Inside gzip
 *                      where the build has zlib; unpacked into memory
 *   raw     .raw       rows without any header; the caller gives type and dimension
 *   hdf5    .hdf5, .h5 one data set of an ann-benchmarks file, where the build has HDF5; read only
 *
 * An ibin file that holds as many f32 again after its rows is big-ann's ground truth: its data sets are "neighbors" (i32,
 * the default) and "distances" (f32).
 *
 * Every size in a header is checked against the bytes that the file has before it is used, and the file may have
 * no bytes more. Errors name the file, the place and the value. A file may have no rows, but for the vecs formats, which
 * then have no dimension. Files are read from regular files only.
 */
#ifndef KITH_VECTORS_H
#define KITH_VECTORS_H

#include "kith/types.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum kith_format {
    KITH_FORMAT_AUTO = 0, /* by extension, checked against the content */
    KITH_FORMAT_VECS = 1, /* fvecs, bvecs, ivecs */
    KITH_FORMAT_BIN = 2,  /* fbin, u8bin, i8bin, ibin */
    KITH_FORMAT_NPY = 3,
    KITH_FORMAT_IDX = 4,
    KITH_FORMAT_RAW = 5,
    KITH_FORMAT_HDF5 = 6
} kith_format;

/* "fvecs", "bvecs", "ivecs", "fbin", "u8bin", "i8bin", "ibin", "npy", "idx", "raw", "hdf5" set both the format
 * and, where the name says it, the type (else *dtype becomes 0). */
KITH_API kith_status kith_format_parse(const char *name, kith_format *format, kith_dtype *dtype) KITH_CHECK_RESULT;

typedef struct kith_vectors kith_vectors;

/* How to open a file. NULL stands for the defaults. */
typedef struct kith_vectors_options {
    size_t size;         /* set by kith_vectors_options_init */
    kith_format format;  /* default KITH_FORMAT_AUTO */
    kith_dtype dtype;    /* raw, and bin files whose name does not say it; 0 else */
    size_t dim;          /* raw only; 0 else */
    size_t count;        /* raw only: rows, 0 for as many as the file holds */
    size_t first_row;    /* default 0: rows before it are left out */
    size_t max_rows;     /* default 0: no limit */
    const char *dataset; /* hdf5: "train" (NULL), "test", "neighbors", "distances"; ibin: the last two */
    int stream; /* default 0: the file is mapped, or read into memory where it cannot be used as it is (other
                            byte order, odd alignment, gzip, hdf5); 1: rows are read as they are asked for, into a
                            buffer as large as the largest call wanted, for file systems that cannot map and for
                            passes over huge files; gzip is read into memory all the same */
} kith_vectors_options;
KITH_API void kith_vectors_options_init(kith_vectors_options *options);

/* Opens a file and checks its shape against its length. Free *out with kith_vectors_close.
 * Errors: KITH_ERR_IO; KITH_ERR_FORMAT for a file that is cut off, too long or not of its format; KITH_ERR_EMPTY for a
 * vecs file of no bytes; KITH_ERR_TYPE for an element type that is not known or not the one asked for;
 * KITH_ERR_UNSUPPORTED for what this build cannot read; KITH_ERR_NOT_FOUND for a data set that is not there.
 * A file must not be made shorter while it is mapped: the system kills a process that reads what is gone. */
KITH_API kith_status kith_vectors_open(const char *path, const kith_vectors_options *options,
                                       kith_vectors **out) KITH_CHECK_RESULT;
/* Takes NULL. */
KITH_API void kith_vectors_close(kith_vectors *vectors);

KITH_API size_t kith_vectors_count(const kith_vectors *vectors);
KITH_API size_t kith_vectors_dim(const kith_vectors *vectors);
KITH_API kith_dtype kith_vectors_dtype(const kith_vectors *vectors);
/* "fvecs", "u8bin", "npy", ...: static. */
KITH_API const char *kith_vectors_format_name(const kith_vectors *vectors);

/* A view of rows first .. first + count - 1. Mapped: points into the file, valid until close, any number at
 * once, and thread-safe. Streamed: points into one buffer of the reader, valid until the next call. Rows of an
 * fvecs file that carry another dimension than the first are KITH_ERR_FORMAT. */
KITH_API kith_status kith_vectors_rows(kith_vectors *vectors, size_t first, size_t count,
                                       kith_view *out) KITH_CHECK_RESULT;
/* Rows first .. first + count - 1 converted to another element type, packed, into `out` (count x dim). Integer targets
 * take only values that they hold exactly; float targets round once to nearest even, keep infinities and NaN, and
 * refuse what is finite and would become infinite: KITH_ERR_RANGE with row, element and value. Packed bits (b1) convert
 * to nothing else (KITH_ERR_TYPE). */
KITH_API kith_status kith_vectors_read(kith_vectors *vectors, size_t first, size_t count, kith_dtype dtype,
                                       void *out) KITH_CHECK_RESULT;

/* `count` different rows drawn at random, in the order of the file, converted and packed as kith_vectors_read does.
 * The same seed draws the same rows. KITH_ERR_RANGE when the file has fewer. */
KITH_API kith_status kith_vectors_sample(kith_vectors *vectors, size_t count, uint64_t seed, kith_dtype dtype,
                                         void *out) KITH_CHECK_RESULT;

/* What a pass over a file finds; 0 where nothing qualifies. The same at any thread count. */
typedef struct kith_vectors_stats {
    size_t size; /* set by the caller: sizeof(kith_vectors_stats) */
    size_t count, dim;
    double min, max;                      /* of the finite elements */
    double norm_min, norm_mean, norm_max; /* Euclidean, of the rows whose elements are all finite */
    uint64_t nan_count, inf_count;
    size_t zero_row_count;  /* rows whose elements are all zero */
    size_t duplicate_count; /* rows that equal an earlier row, byte for byte */
} kith_vectors_stats;
/* Takes up to 37 bytes a row for the search for duplicates (KITH_ERR_BUDGET beyond job->memory_bytes_max).
 * KITH_ERR_TYPE for packed bits. */
KITH_API kith_status kith_vectors_stats_compute(kith_vectors *vectors, const kith_job *job,
                                                kith_vectors_stats *out) KITH_CHECK_RESULT;

/* Writing: rows go to a temporary file beside `path`; commit syncs and renames it, so that `path` holds either
 * what it held before or everything. */
typedef struct kith_vectors_writer kith_vectors_writer;
/* `format` AUTO goes by the extension. `dtype` is that of the file; it has to agree with the format (fvecs: f32, ...;
 * 0: what the name says). KITH_ERR_UNSUPPORTED: hdf5 and .gz are not written. A symbolic link is followed; a name that
 * belongs to anything but a regular file is KITH_ERR_IO. */
KITH_API kith_status kith_vectors_writer_create(const char *path, kith_format format, kith_dtype dtype, size_t dim,
                                                kith_vectors_writer **out) KITH_CHECK_RESULT;
/* Appends rows, converted to the file's type as kith_vectors_read does. After a failure in the middle of the rows commit
 * fails as well. */
KITH_API kith_status kith_vectors_writer_append(kith_vectors_writer *writer,
                                                const kith_view *rows) KITH_CHECK_RESULT;
/* Finishes and frees the writer, whether it succeeds or not. KITH_ERR_EMPTY for a vecs file without rows. Takes NULL. */
KITH_API kith_status kith_vectors_writer_commit(kith_vectors_writer *writer) KITH_CHECK_RESULT;
/* Removes the temporary file and frees the writer. Takes NULL. */
KITH_API void kith_vectors_writer_abort(kith_vectors_writer *writer);

#ifdef __cplusplus
}
#endif
#endif
