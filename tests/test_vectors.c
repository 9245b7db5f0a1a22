/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef KITH_HAVE_ZLIB
#include <zlib.h>
#endif

#include "base/elements.h"
#include "base/memory.h"
#include "faults.h"
#include "io/vectorfile.h"
#include "kith/vectors.h"

enum { ROWS = 5, DIM = 7 };

/* What every golden file holds: make_vectors.py has the same formula. */
static double golden(size_t i) { return (double)(i * 37 % 100); }

static const char *golden_path(const char *name) { return faults_path(KITH_GOLDEN "/vectors", name); }

static kith_vectors *open_or_fail(const char *path, const kith_vectors_options *options) {
    kith_vectors *vectors;
    cr_assert_eq(kith_vectors_open(path, options, &vectors), KITH_OK, "%s", kith_error_message());
    return vectors;
}

/* Each element, read in one go, row by row, and through a view. */
static void check_content(kith_vectors *vectors, size_t count, size_t dim, double (*expected)(size_t)) {
    cr_assert_eq(kith_vectors_count(vectors), count);
    cr_assert_eq(kith_vectors_dim(vectors), dim);
    double *all = malloc((count * dim + 1) * sizeof *all), *row = malloc(dim * sizeof *row);
    kith_view view;
    cr_assert_eq(kith_vectors_read(vectors, 0, count, KITH_F64, all), KITH_OK, "%s", kith_error_message());
    for (size_t i = 0; i < count * dim; i++) cr_assert_eq(all[i], expected(i), "element %zu: %g", i, all[i]);
    for (size_t i = count; i-- > 0;) {
        cr_assert_eq(kith_vectors_read(vectors, i, 1, KITH_F64, row), KITH_OK);
        for (size_t j = 0; j < dim; j++) cr_assert_eq(row[j], expected(i * dim + j));
        cr_assert_eq(kith_vectors_rows(vectors, i, 1, &view), KITH_OK);
        cr_assert(view.count == 1 && view.dim == dim && view.dtype == kith_vectors_dtype(vectors));
        cr_assert_eq((uintptr_t)view.data % kith_dtype_row_bytes(view.dtype, 1), 0);
        for (size_t j = 0; j < dim; j++)
            cr_assert_eq(kith_element_f64(view.dtype, view.data, j), expected(i * dim + j));
    }
    cr_assert_eq(kith_vectors_rows(vectors, 0, count, &view), KITH_OK);
    for (size_t i = 0; i < view.count; i++)
        for (size_t j = 0; j < dim; j++)
            cr_assert_eq(kith_element_f64(view.dtype, (const char *)view.data + i * view.stride, j),
                         expected(i * dim + j));
    cr_assert_eq(kith_vectors_rows(vectors, 0, count + 1, &view), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_vectors_rows(vectors, count + 1, 0, &view), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_vectors_rows(vectors, 1, SIZE_MAX, &view), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_vectors_rows(vectors, count, 0, &view), KITH_OK);
    free(all);
    free(row);
}

static const struct {
    const char *name, *format;
    kith_dtype dtype;
    size_t count, dim;
} good_files[] = {
    {"f2.npy", "npy", KITH_F16, ROWS, DIM},
    {"f4.npy", "npy", KITH_F32, ROWS, DIM},
    {"f8.npy", "npy", KITH_F64, ROWS, DIM},
    {"i1.npy", "npy", KITH_I8, ROWS, DIM},
    {"u1.npy", "npy", KITH_U8, ROWS, DIM},
    {"i4.npy", "npy", KITH_I32, ROWS, DIM},
    {"u4.npy", "npy", KITH_U32, ROWS, DIM},
    {"i8.npy", "npy", KITH_I64, ROWS, DIM},
    {"big_f2.npy", "npy", KITH_F16, ROWS, DIM},
    {"big_f4.npy", "npy", KITH_F32, ROWS, DIM},
    {"big_f8.npy", "npy", KITH_F64, ROWS, DIM},
    {"big_i4.npy", "npy", KITH_I32, ROWS, DIM},
    {"big_i8.npy", "npy", KITH_I64, ROWS, DIM},
    {"v2.npy", "npy", KITH_F32, ROWS, DIM},
    {"v3.npy", "npy", KITH_F32, ROWS, DIM},
    {"one_axis.npy", "npy", KITH_I64, ROWS *DIM, 1},
    {"no_rows.npy", "npy", KITH_F32, 0, DIM},
    {"a.fvecs", "fvecs", KITH_F32, ROWS, DIM},
    {"a.bvecs", "bvecs", KITH_U8, ROWS, DIM},
    {"a.ivecs", "ivecs", KITH_I32, ROWS, DIM},
    {"a.fbin", "fbin", KITH_F32, ROWS, DIM},
    {"a.u8bin", "u8bin", KITH_U8, ROWS, DIM},
    {"a.i8bin", "i8bin", KITH_I8, ROWS, DIM},
    {"a.ibin", "ibin", KITH_I32, ROWS, DIM},
    {"truth.ibin", "ibin", KITH_I32, ROWS, DIM},
    {"u1.idx", "idx", KITH_U8, ROWS, DIM},
    {"i1.idx", "idx", KITH_I8, ROWS, DIM},
    {"i4.idx", "idx", KITH_I32, ROWS, DIM},
    {"f4.idx", "idx", KITH_F32, ROWS, DIM},
    {"f8.idx", "idx", KITH_F64, ROWS, DIM},
    {"labels-idx1-ubyte", "idx", KITH_U8, ROWS *DIM, 1},
};
enum { GOOD_COUNT = sizeof good_files / sizeof *good_files };

Test(vectors, files_of_numpy_are_read) {
    for (size_t i = 0; i < GOOD_COUNT; i++)
        for (int stream = 0; stream < 2; stream++) {
            kith_vectors_options options;
            kith_vectors_options_init(&options);
            options.stream = stream;
            kith_vectors *vectors = open_or_fail(golden_path(good_files[i].name), &options);
            cr_assert_str_eq(kith_vectors_format_name(vectors), good_files[i].format);
            cr_assert_eq(kith_vectors_dtype(vectors), good_files[i].dtype);
            check_content(vectors, good_files[i].count, good_files[i].dim, golden);
            kith_vectors_close(vectors);
        }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* Pixels stand four times in a row in the golden images. */
static double golden_pixel(size_t i) { return golden(i / 4); }

Test(vectors, images_are_rows) {
    kith_vectors *vectors = open_or_fail(golden_path("images-idx3-ubyte"), NULL);
    check_content(vectors, ROWS, DIM * 4, golden_pixel);
    kith_vectors_close(vectors);
    static const char *const packed[] = {"images-idx3-ubyte.gz", "two_members.idx.gz"};
    for (size_t i = 0; i < 2; i++) {
#ifdef KITH_HAVE_ZLIB
        vectors = open_or_fail(golden_path(packed[i]), NULL);
        cr_assert_str_eq(kith_vectors_format_name(vectors), "idx");
        check_content(vectors, ROWS, DIM * 4, golden_pixel);
        kith_vectors_close(vectors);
#else
        cr_assert_eq(kith_vectors_open(golden_path(packed[i]), NULL, &vectors), KITH_ERR_UNSUPPORTED);
#endif
    }
}

static double half_golden(size_t i) { return golden(i) / 2; }

Test(vectors, ground_truth_of_big_ann_has_two_data_sets) {
    kith_vectors_options options;
    kith_vectors_options_init(&options);
    options.dataset = "neighbors";
    kith_vectors *vectors = open_or_fail(golden_path("truth.ibin"), &options);
    check_content(vectors, ROWS, DIM, golden);
    kith_vectors_close(vectors);
    options.dataset = "distances";
    vectors = open_or_fail(golden_path("truth.ibin"), &options);
    cr_assert_eq(kith_vectors_dtype(vectors), KITH_F32);
    check_content(vectors, ROWS, DIM, half_golden);
    kith_vectors_close(vectors);
    cr_assert_eq(kith_vectors_open(golden_path("a.ibin"), &options, &vectors), KITH_ERR_NOT_FOUND);
    options.dataset = "train";
    cr_assert_eq(kith_vectors_open(golden_path("truth.ibin"), &options, &vectors), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_vectors_open(golden_path("f4.npy"), &options, &vectors), KITH_ERR_ARGUMENT);
}

Test(vectors, hdf5_data_sets_are_read) {
    kith_vectors *vectors;
#ifdef KITH_HAVE_HDF5
    static const struct {
        const char *dataset;
        kith_dtype dtype;
        size_t count;
        double (*expected)(size_t);
    } sets[] = {{NULL, KITH_F32, ROWS, golden},
                {"test", KITH_F32, 2, golden},
                {"neighbors", KITH_I32, ROWS, golden},
                {"distances", KITH_F64, ROWS, half_golden}};
    static const struct {
        const char *dataset;
        kith_status status;
    } refused[] = {{"constant", KITH_ERR_FORMAT},
                   {"words", KITH_ERR_TYPE},
                   {"link", KITH_ERR_NOT_FOUND},
                   {"none", KITH_ERR_NOT_FOUND}};
    kith_vectors_options options;
    kith_vectors_options_init(&options);
    for (size_t i = 0; i < 4; i++)
        for (options.stream = 0; options.stream < 2; options.stream++) {
            options.dataset = sets[i].dataset;
            vectors = open_or_fail(golden_path("a.hdf5"), &options);
            cr_assert_str_eq(kith_vectors_format_name(vectors), "hdf5");
            cr_assert_eq(kith_vectors_dtype(vectors), sets[i].dtype);
            check_content(vectors, sets[i].count, DIM, sets[i].expected);
            kith_vectors_close(vectors);
        }
    for (size_t i = 0; i < 4; i++) {
        options.dataset = refused[i].dataset;
        cr_assert_eq(kith_vectors_open(golden_path("a.hdf5"), &options, &vectors), refused[i].status, "%s: %s",
                     refused[i].dataset, kith_error_message());
    }
    kith_vectors_options_init(&options);
    options.format = KITH_FORMAT_HDF5;
    cr_assert_eq(kith_vectors_open(golden_path("f4.npy"), &options, &vectors), KITH_ERR_FORMAT);
#else
    cr_assert_eq(kith_vectors_open(golden_path("a.hdf5"), NULL, &vectors), KITH_ERR_UNSUPPORTED);
#endif
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(vectors, what_is_not_rows_is_refused) {
    static const struct {
        const char *name;
        kith_status status;
        const char *word;
    } files[] = {
        {"refused_fortran.npy", KITH_ERR_UNSUPPORTED, "ascontiguousarray"},
        {"refused_three_axes.npy", KITH_ERR_UNSUPPORTED, "two axes"},
        {"refused_no_axes.npy", KITH_ERR_UNSUPPORTED, "single number"},
        {"refused_structured.npy", KITH_ERR_UNSUPPORTED, "structured"},
        {"refused_complex.npy", KITH_ERR_TYPE, "<c8"},
        {"refused_bool.npy", KITH_ERR_TYPE, "|b1"},
        {"refused_text.npy", KITH_ERR_TYPE, "<U3"},
        {"refused_no_dimension.npy", KITH_ERR_FORMAT, "dimension 0"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        kith_vectors *vectors;
        cr_assert_eq(kith_vectors_open(golden_path(files[i].name), NULL, &vectors), files[i].status, "%s: %s",
                     files[i].name, kith_error_message());
        cr_assert_null(vectors);
        cr_assert_not_null(strstr(kith_error_message(), files[i].word), "%s", kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), files[i].name), "%s", kith_error_message());
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Headers that lie ---------------------------------------------------------------------------------- */

static kith_status open_bytes(const char *name, const void *bytes, size_t count, kith_vectors **out) {
    _Alignas(64) static unsigned char copy[1 << 16];
    cr_assert_leq(count, sizeof copy);
    if (count > 0) memcpy(copy, bytes, count);
    return kith_vectors_open_memory(name, copy, count, NULL, out);
}

#define BYTES(text) text, sizeof text - 1

Test(vectors, lying_binary_headers_are_errors) {
    static const struct {
        const char *name, *bytes;
        size_t count;
        kith_status status;
        const char *word;
    } lies[] = {
        {"a.fvecs", BYTES(""), KITH_ERR_EMPTY, "empty"},
        {"a.fvecs", BYTES("\1\0"), KITH_ERR_FORMAT, "cut off"},
        {"a.fvecs", BYTES("\0\0\0\0"), KITH_ERR_FORMAT, "dimension 0"},
        {"a.fvecs", BYTES("\377\377\377\377"), KITH_ERR_FORMAT, "dimension -1"},
        {"a.fvecs", BYTES("\0\0\0\200aaaa"), KITH_ERR_FORMAT, "dimension -2147483648"},
        {"a.fvecs", BYTES("\377\377\377\177aaaa"), KITH_ERR_FORMAT, "2147483647"},
        {"a.fvecs", BYTES("\1\0\0\0aaaaa"), KITH_ERR_FORMAT, "9 bytes are no multiple of the 8"},
        {"a.bvecs", BYTES("\2\0\0\0aa\2\0\0\0a"), KITH_ERR_FORMAT, "no multiple"},
        {"a.fbin", BYTES("\1\0\0"), KITH_ERR_FORMAT, "cut off"},
        {"a.fbin", BYTES("\1\0\0\0\0\0\0\0"), KITH_ERR_FORMAT, "dimension 0"},
        {"a.fbin", BYTES("\1\0\0\0\1\0\0\0"), KITH_ERR_FORMAT, "1 rows of dimension 1 (f32)"},
        {"a.fbin", BYTES("\1\0\0\0\1\0\0\0aaaaa"), KITH_ERR_FORMAT, "end at byte 12, but it has 13"},
        {"a.u8bin", BYTES("\377\377\377\377\377\377\377\377a"), KITH_ERR_FORMAT, "4294967295 rows"},
        {"a.fbin", BYTES("\377\377\377\377\377\377\377\377a"), KITH_ERR_FORMAT, "do not fit"},
        {"a.ibin", BYTES("\0\0\0\200\0\0\0\200"), KITH_ERR_FORMAT, "do not fit"},
        {"a.ibin", BYTES("\0\0\0\0\1\0\0\0a"), KITH_ERR_FORMAT, "end at byte 8"},
        {"a.idx", BYTES(""), KITH_ERR_FORMAT, "cut off"},
        {"a.idx", BYTES("\1\0\10\1"), KITH_ERR_FORMAT, "not an idx file"},
        {"a.idx", BYTES("\0\0\7\1\0\0\0\1a"), KITH_ERR_TYPE, "0x7"},
        {"a.idx", BYTES("\0\0\10\0"), KITH_ERR_FORMAT, "no axes"},
        {"a.idx", BYTES("\0\0\10\2\0\0\0\1"), KITH_ERR_FORMAT, "cut off"},
        {"a.idx", BYTES("\0\0\10\2\0\0\0\1\0\0\0\0"), KITH_ERR_FORMAT, "length 0 at byte 8"},
        {"a.idx", BYTES("\0\0\10\2\0\0\0\1\0\0\0\2a"), KITH_ERR_FORMAT, "do not fit"},
        {"a.idx", BYTES("\0\0\10\2\0\0\0\1\0\0\0\2aaa"), KITH_ERR_FORMAT, "end at byte 14"},
        {"a.idx", BYTES("\0\0\16\3\377\377\377\377\377\377\377\377\377\377\377\377"), KITH_ERR_FORMAT,
         "do not fit"},
        {"a.idx", BYTES("\0\0\10\4\0\0\0\1\377\377\377\377\377\377\377\377\377\377\377\377"), KITH_ERR_FORMAT,
         "64 bits"},
        {"a.idx.gz", BYTES("\0\0\10\1\0\0\0\1a"), KITH_ERR_FORMAT, "not a gzip file"},
        {"a.fvecs.gz", BYTES("\37\213aaaaaaaaaaaa"), KITH_ERR_UNSUPPORTED, "gunzip"},
        {"a.raw", BYTES("aaaa"), KITH_ERR_ARGUMENT, "element type"},
        {"a", BYTES("aaaaaaaa"), KITH_ERR_FORMAT, "format"},
        {"a.hdf5", BYTES("\211HDF\r\n\032\n"), KITH_ERR_UNSUPPORTED, "HDF5"},
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        kith_vectors *vectors;
        cr_assert_eq(open_bytes(lies[i].name, lies[i].bytes, lies[i].count, &vectors), lies[i].status, "%zu %s: %s",
                     i, lies[i].name, kith_error_message());
        cr_assert_null(vectors);
        cr_assert_not_null(strstr(kith_error_message(), lies[i].word), "%zu: %s", i, kith_error_message());
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* An npy file of version 1 with this header and so many bytes after it. */
static kith_status open_npy(const char *header, size_t data_bytes, kith_vectors **out) {
    unsigned char bytes[2048] = "\x93NUMPY\x01";
    size_t length = strlen(header);
    bytes[8] = (unsigned char)length;
    bytes[9] = (unsigned char)(length >> 8);
    memcpy(bytes + 10, header, length);
    return open_bytes("a.npy", bytes, 10 + length + data_bytes, out);
}

Test(vectors, lying_npy_headers_are_errors) {
    static const struct {
        const char *header;
        size_t data_bytes;
        kith_status status;
        const char *word;
    } lies[] = {
        {"", 0, KITH_ERR_FORMAT, "'{'"},
        {"{", 0, KITH_ERR_FORMAT, "string"},
        {"{}", 0, KITH_ERR_FORMAT, "missing"},
        {"{'descr': '<f4', 'fortran_order': False}", 0, KITH_ERR_FORMAT, "missing"},
        {"{'descr': '<f4', 'descr': '<f4', 'shape': (1, 1)}", 4, KITH_ERR_FORMAT, "'descr' twice"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1, 1)}", 4, KITH_ERR_FORMAT, "True or False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), 'x': 1}", 4, KITH_ERR_FORMAT, "descr, fortran"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)} x", 4, KITH_ERR_FORMAT, "nothing"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1", 4, KITH_ERR_FORMAT, "comma"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 1)}", 4, KITH_ERR_FORMAT, "comma"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1)}", 4, KITH_ERR_FORMAT, "number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 1}", 4, KITH_ERR_FORMAT, "parentheses"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 1)}", 4, KITH_ERR_OVERFLOW,
         "64"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (18446744073709551615, 18446744073709551615)}", 4,
         KITH_ERR_FORMAT, "do not fit"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387905, 1)}", 4, KITH_ERR_FORMAT,
         "do not fit"}, /* four bytes when multiplied in 64 bits */
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4611686018427387905)}", 4, KITH_ERR_FORMAT,
         "do not fit"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4611686018427387905)}", 0, KITH_ERR_FORMAT,
         "no rows, of dimension"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}", 7, KITH_ERR_FORMAT, "do not fit"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}", 9, KITH_ERR_FORMAT, "end at byte"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1, 2)}", 8, KITH_ERR_TYPE, "''"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (1, 2)}", 8, KITH_ERR_TYPE, "|f4"},
        {"{'descr': 'xf4', 'fortran_order': False, 'shape': (1, 2)}", 8, KITH_ERR_TYPE, "xf4"},
        {"{'descr': '<f4", 8, KITH_ERR_FORMAT, "short string"},
        {"{'descr': '<f444444444444444444444444', 'shape'", 8, KITH_ERR_FORMAT, "short string"},
    };
    kith_vectors *vectors;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        cr_assert_eq(open_npy(lies[i].header, lies[i].data_bytes, &vectors), lies[i].status, "%s: %s",
                     lies[i].header, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), lies[i].word), "%s: %s", lies[i].header,
                           kith_error_message());
    }
    cr_assert_eq(open_bytes("a.npy", "\x93NUMPY\4\0\0\0", 10, &vectors), KITH_ERR_FORMAT);
    cr_assert_eq(open_bytes("a.npy", "\x93NUMPX\1\0\0\0", 10, &vectors), KITH_ERR_FORMAT);
    cr_assert_eq(open_bytes("a.npy", "\x93NUMPY\2\0\377\377\377\377", 12, &vectors), KITH_ERR_FORMAT);
    cr_assert_not_null(strstr(kith_error_message(), "4294967295"));
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* Other ways to write the same header, and data that no element type's alignment fits. */
Test(vectors, npy_headers_are_read_as_python_writes_them) {
    static const char *const headers[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }",
        "{\"shape\":(1L,2L,),\"descr\":\"<f4\",\"fortran_order\":False}  \n",
        "{'shape': (1, 2), 'fortran_order': False, 'descr': '=f4'}",
        "{'shape': (1, 2), 'fortran_order': False, 'descr': '>f4'}   ",
        " {'shape': (2,), 'fortran_order': False, 'descr': '<f4'}    ",
    };
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        kith_vectors *vectors;
        kith_view view;
        cr_assert_eq(open_npy(headers[i], 8, &vectors), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(kith_vectors_count(vectors) * kith_vectors_dim(vectors), 2);
        cr_assert_eq(kith_vectors_rows(vectors, 0, 1, &view), KITH_OK);
        cr_assert_eq((uintptr_t)view.data % 4, 0);
        kith_vectors_close(vectors);
    }
}

Test(vectors, every_row_has_the_dimension_of_the_first) {
    size_t count;
    unsigned char *bytes = faults_read_file(golden_path("a.fvecs"), &count);
    const char *folder = faults_folder(), *path = faults_path(folder, "a.fvecs");
    for (size_t row = 1; row < ROWS; row++) {
        bytes[row * 32] = DIM + 1;
        faults_write_file(path, bytes, count);
        bytes[row * 32] = DIM;
        for (int stream = 0; stream < 2; stream++) {
            kith_vectors_options options;
            kith_view view;
            float values[ROWS * DIM];
            kith_vectors_options_init(&options);
            options.stream = stream;
            kith_vectors *vectors = open_or_fail(path, &options);
            cr_assert_eq(kith_vectors_rows(vectors, 0, row, &view), KITH_OK);
            cr_assert_eq(kith_vectors_rows(vectors, row, 1, &view), KITH_ERR_FORMAT);
            cr_assert_eq(kith_vectors_read(vectors, 0, ROWS, KITH_F32, values), KITH_ERR_FORMAT);
            char word[64];
            (void)snprintf(word, sizeof word, "row %zu, at byte %zu, has dimension 8", row, row * 32);
            cr_assert_not_null(strstr(kith_error_message(), word), "%s", kith_error_message());
            kith_vectors_close(vectors);
        }
    }
    free(bytes);
    faults_folder_remove(folder);
}

/* ---- Damage: vector files have no checksums, so that it may go unseen, but never further ---------------- */

static void use(const char *name, const unsigned char *bytes, size_t count) {
    unsigned char *copy;
    cr_assert_eq(kith_alloc(count, 1, &copy), KITH_OK);
    if (count > 0) memcpy(copy, bytes, count);
    kith_vectors *vectors;
    uint64_t blocks = kith_memory_live_blocks();
    if (kith_vectors_open_memory(name, copy, count, NULL, &vectors) == KITH_OK) {
        size_t elements = kith_vectors_count(vectors) * kith_vectors_dim(vectors);
        cr_assert_leq(elements, 8 * count + 64);
        double *values = malloc((elements + 1) * sizeof *values);
        kith_vectors_stats stats = {.size = sizeof stats};
        kith_job job;
        kith_job_init(&job);
        job.threads = 1;
        kith_status read = kith_vectors_read(vectors, 0, kith_vectors_count(vectors), KITH_F64, values);
        cr_assert_eq(kith_vectors_stats_compute(vectors, &job, &stats), read);
        free(values);
        kith_vectors_close(vectors);
    }
    cr_assert_eq(kith_memory_live_blocks(), blocks);
    kith_free(copy);
}

static const char *const damaged_files[] = {"f2.npy",
                                            "f4.npy",
                                            "big_f8.npy",
                                            "i8.npy",
                                            "v3.npy",
                                            "one_axis.npy",
                                            "no_rows.npy",
                                            "a.fvecs",
                                            "a.bvecs",
                                            "a.ivecs",
                                            "a.fbin",
                                            "a.i8bin",
                                            "truth.ibin",
                                            "u1.idx",
                                            "f8.idx",
                                            "labels-idx1-ubyte",
                                            "images-idx3-ubyte.gz",
                                            "two_members.idx.gz"};
enum { DAMAGED_COUNT = sizeof damaged_files / sizeof *damaged_files };

Test(vectors, flipped_bits_do_no_harm) {
    faults_fail_allocation(0);
    for (size_t i = 0; i < DAMAGED_COUNT; i++) {
        size_t count;
        unsigned char *bytes = faults_read_file(golden_path(damaged_files[i]), &count);
        for (size_t bit = 0; bit < 8 * count; bit++) {
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
            use(damaged_files[i], bytes, count);
            bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        }
        free(bytes);
        cr_assert_leq(faults_allocation_bytes_max(), 1 << 17, "%s", damaged_files[i]);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(vectors, cut_and_longer_files_are_errors) {
    for (size_t i = 0; i < DAMAGED_COUNT; i++) {
        size_t count;
        unsigned char *bytes = faults_read_file(golden_path(damaged_files[i]), &count);
        bytes = realloc(bytes, count + 1);
        bytes[count] = 0;
        size_t row_bytes = 0; /* a vecs file cut between rows is a shorter vecs file */
        if (strstr(damaged_files[i], "vecs") != NULL) row_bytes = count / ROWS;
        for (size_t length = 0; length <= count + 1; length++) {
            unsigned char *copy;
            kith_vectors *vectors;
            cr_assert_eq(kith_alloc(length, 1, &copy), KITH_OK);
            if (length > 0) memcpy(copy, bytes, length);
            kith_status status = kith_vectors_open_memory(damaged_files[i], copy, length, NULL, &vectors);
            bool whole = length == count || (row_bytes != 0 && length != 0 && length % row_bytes == 0);
            /* truth.ibin without its distances is a whole ibin file as well. */
            whole |= strcmp(damaged_files[i], "truth.ibin") == 0 && length == 8 + 4 * ROWS * DIM;
#ifndef KITH_HAVE_ZLIB
            whole &= strstr(damaged_files[i], ".gz") == NULL;
#endif
            cr_assert_eq(status == KITH_OK, whole, "%s cut to %zu: %s", damaged_files[i], length,
                         kith_error_message());
            kith_vectors_close(vectors);
            kith_free(copy);
        }
        free(bytes);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

#ifdef KITH_HAVE_ZLIB
/* gzip of a header and `zeros` zero bytes. */
static unsigned char *pack(const void *header, size_t header_bytes, size_t zeros, size_t *count) {
    unsigned char *plain = calloc(header_bytes + zeros, 1);
    memcpy(plain, header, header_bytes);
    z_stream stream = {0};
    cr_assert_eq(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY), Z_OK);
    size_t room = deflateBound(&stream, header_bytes + zeros);
    unsigned char *out = malloc(room);
    stream.next_in = plain;
    stream.avail_in = (uInt)(header_bytes + zeros);
    stream.next_out = out;
    stream.avail_out = (uInt)room;
    cr_assert_eq(deflate(&stream, Z_FINISH), Z_STREAM_END);
    *count = room - stream.avail_out;
    (void)deflateEnd(&stream);
    free(plain);
    return out;
}

Test(vectors, gzip_that_lies_allocates_little) {
    static const struct {
        const char *header;
        size_t header_bytes, zeros;
        const char *word;
    } bombs[] = {
        {BYTES("\0\0\10\1\377\377\377\377"), 100, "cannot be that"},
        {BYTES("\0\0\10\3\377\377\377\377\377\377\377\377\377\377\377\377"), 100, "cannot be that"},
        {BYTES("\0\0\10\1\0\0\0\144"), 5000000, "unpacks to more than the 108 bytes"},
        {BYTES("\0\0\10\1\0\0\2\0"), 100, "do not fit"},
        {BYTES("\0\0\7\1\0\0\0\144"), 5000000, "idx type"},
        {BYTES("\1\0\10\1\0\0\0\144"), 5000000, "not an idx file"},
        {BYTES("\0\0\10\377"), 0, "cut off"},
        {BYTES("\0"), 0, "cut off"},
        {BYTES(""), 0, "cut off"},
    };
    faults_fail_allocation(0);
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        size_t count;
        unsigned char *bytes = pack(bombs[i].header, bombs[i].header_bytes, bombs[i].zeros, &count);
        kith_vectors *vectors;
        kith_status status = kith_vectors_open_memory("a.idx.gz", bytes, count, NULL, &vectors);
        cr_assert(status == KITH_ERR_FORMAT || status == KITH_ERR_TYPE, "%zu: %s", i, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), bombs[i].word), "%zu: %s", i, kith_error_message());
        cr_assert_leq(faults_allocation_bytes_max(), 1 << 17);
        free(bytes);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(vectors, gzip_of_many_rows_is_unpacked) {
    size_t count;
    unsigned char *bytes = pack("\0\0\10\2\0\2\0\0\0\0\0\12", 12, 10 << 17, &count);
    kith_vectors *vectors;
    kith_view view;
    cr_assert_eq(kith_vectors_open_memory("a.idx.gz", bytes, count, NULL, &vectors), KITH_OK, "%s",
                 kith_error_message());
    cr_assert_eq(kith_vectors_count(vectors), 1 << 17);
    cr_assert_eq(kith_vectors_rows(vectors, (1 << 17) - 1, 1, &view), KITH_OK);
    cr_assert_eq(((const unsigned char *)view.data)[9], 0);
    kith_vectors_close(vectors);
    free(bytes);
}
#endif

/* ---- Writing ------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    kith_dtype dtype;
} writable[] = {
    {"a.fvecs", KITH_F32}, {"a.bvecs", KITH_U8}, {"a.ivecs", KITH_I32}, {"a.fbin", KITH_F32}, {"a.u8bin", KITH_U8},
    {"a.i8bin", KITH_I8},  {"a.ibin", KITH_I32}, {"f2.npy", KITH_F16},  {"f4.npy", KITH_F32}, {"f8.npy", KITH_F64},
    {"i1.npy", KITH_I8},   {"u1.npy", KITH_U8},  {"i4.npy", KITH_I32},  {"u4.npy", KITH_U32}, {"i8.npy", KITH_I64},
    {"u1.idx", KITH_U8},   {"i1.idx", KITH_I8},  {"i4.idx", KITH_I32},  {"f4.idx", KITH_F32}, {"f8.idx", KITH_F64},
};
enum { WRITABLE_COUNT = sizeof writable / sizeof *writable };

/* The golden matrix, from doubles, in two pieces, the rows `stride` doubles apart. */
static kith_status write_golden(const char *path, kith_format format, kith_dtype dtype, size_t stride) {
    double values[ROWS * 16];
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < DIM; j++) values[i * stride + j] = golden(i * DIM + j);
    kith_view first = {values, KITH_F64, 2, DIM, stride * sizeof *values};
    kith_view second = {values + 2 * stride, KITH_F64, ROWS - 2, DIM, stride * sizeof *values};
    kith_vectors_writer *writer = NULL;
    kith_status status = kith_vectors_writer_create(path, format, dtype, DIM, &writer);
    if (status == KITH_OK) status = kith_vectors_writer_append(writer, &first);
    if (status == KITH_OK) status = kith_vectors_writer_append(writer, &second);
    if (status == KITH_OK) return kith_vectors_writer_commit(writer);
    kith_vectors_writer_abort(writer);
    return status;
}

Test(vectors, files_are_written_as_numpy_writes_them) {
    const char *folder = faults_folder();
    for (size_t i = 0; i < WRITABLE_COUNT; i++)
        for (size_t stride = DIM; stride < DIM + 2; stride++) {
            const char *path = faults_path(folder, writable[i].name);
            cr_assert_eq(write_golden(path, KITH_FORMAT_AUTO, writable[i].dtype, stride), KITH_OK, "%s",
                         kith_error_message());
            size_t got_bytes, expected_bytes;
            unsigned char *got = faults_read_file(path, &got_bytes);
            unsigned char *expected = faults_read_file(golden_path(writable[i].name), &expected_bytes);
            cr_assert_eq(got_bytes, expected_bytes, "%s", path);
            cr_assert_eq(memcmp(got, expected, got_bytes), 0, "%s", path);
            free(got);
            free(expected);
        }
    cr_assert_eq(faults_file_count(folder), WRITABLE_COUNT);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(vectors, raw_files_of_every_type_come_back) {
    static const kith_dtype types[] = {KITH_F32, KITH_F16, KITH_BF16, KITH_I8, KITH_U8,
                                       KITH_F64, KITH_I32, KITH_U32,  KITH_I64};
    const char *folder = faults_folder(), *path = faults_path(folder, "a.raw");
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        cr_assert_eq(write_golden(path, KITH_FORMAT_RAW, types[i], DIM), KITH_OK);
        kith_vectors_options options;
        kith_vectors_options_init(&options);
        options.dtype = types[i];
        options.dim = DIM;
        for (options.stream = 0; options.stream < 2; options.stream++) {
            kith_vectors *vectors = open_or_fail(path, &options);
            check_content(vectors, ROWS, DIM, golden);
            kith_vectors_close(vectors);
        }
        kith_vectors *vectors;
        options.count = ROWS - 1;
        cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_FORMAT);
        options.count = ROWS + 1;
        cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_FORMAT);
        options.count = 0;
        options.dim = DIM + 1;
        cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_FORMAT);
        options.dim = SIZE_MAX / 2;
        cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_ARGUMENT);
    }
    faults_folder_remove(folder);
}

Test(vectors, packed_bits_come_back) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.raw");
    unsigned char bits[3 * 2] = {1, 2, 3, 4, 5, 6}, back[6];
    kith_view view = {bits, KITH_B1, 3, 12, 0};
    kith_vectors_writer *writer;
    cr_assert_eq(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, KITH_B1, 12, &writer), KITH_OK);
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_OK);
    view.dtype = KITH_F32;
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_ERR_TYPE);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
    kith_vectors_options options;
    kith_vectors_options_init(&options);
    options.dtype = KITH_B1;
    options.dim = 12;
    kith_vectors *vectors = open_or_fail(path, &options);
    cr_assert_eq(kith_vectors_count(vectors), 3);
    cr_assert_eq(kith_vectors_read(vectors, 0, 3, KITH_B1, back), KITH_OK);
    cr_assert_eq(memcmp(bits, back, 6), 0);
    cr_assert_eq(kith_vectors_read(vectors, 0, 3, KITH_F32, back), KITH_ERR_TYPE);
    kith_vectors_stats stats = {.size = sizeof stats};
    cr_assert_eq(kith_vectors_stats_compute(vectors, NULL, &stats), KITH_ERR_TYPE);
    kith_vectors_close(vectors);
    faults_folder_remove(folder);
}

Test(vectors, values_that_do_not_fit_are_errors) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.u8bin");
    float values[4] = {1, 2, 3, 256};
    kith_view view = {values, KITH_F32, 2, 2, 0};
    kith_vectors_writer *writer;
    cr_assert_eq(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, KITH_U8, 2, &writer), KITH_OK);
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_ERR_RANGE);
    cr_assert_not_null(strstr(kith_error_message(), "row 1, element 1: 256 cannot be held by u8"), "%s",
                       kith_error_message());
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_ERR_IO);
    cr_assert_eq(faults_file_count(folder), 0);

    path = faults_path(folder, "a.fvecs");
    values[2] = 0.5f;
    cr_assert_eq(kith_vectors_writer_create(path, KITH_FORMAT_AUTO, (kith_dtype)0, 2, &writer), KITH_OK);
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_OK);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
    kith_vectors *vectors = open_or_fail(path, NULL);
    uint8_t out[4];
    cr_assert_eq(kith_vectors_read(vectors, 0, 2, KITH_U8, out), KITH_ERR_RANGE);
    cr_assert_not_null(strstr(kith_error_message(), "row 1, element 0: 0.5"), "%s", kith_error_message());
    cr_assert_eq(kith_vectors_read(vectors, 0, 1, KITH_U8, out), KITH_OK);
    cr_assert(out[0] == 1 && out[1] == 2);
    kith_vectors_close(vectors);
    faults_folder_remove(folder);
}

Test(vectors, writers_refuse_what_makes_no_file) {
    const char *folder = faults_folder();
    kith_vectors_writer *writer;
    static const struct {
        const char *name;
        kith_format format;
        kith_dtype dtype;
        size_t dim;
        kith_status status;
    } cases[] = {
        {"a.fvecs", KITH_FORMAT_AUTO, KITH_U8, 4, KITH_ERR_TYPE},
        {"a.vecs", KITH_FORMAT_VECS, KITH_F16, 4, KITH_ERR_TYPE},
        {"a.npy", KITH_FORMAT_AUTO, KITH_BF16, 4, KITH_ERR_TYPE},
        {"a.npy", KITH_FORMAT_AUTO, (kith_dtype)0, 4, KITH_ERR_TYPE},
        {"a.npy", KITH_FORMAT_AUTO, (kith_dtype)77, 4, KITH_ERR_TYPE},
        {"a.idx", KITH_FORMAT_AUTO, KITH_I64, 4, KITH_ERR_TYPE},
        {"a.npy", (kith_format)99, KITH_F32, 4, KITH_ERR_ARGUMENT},
        {"a.what", KITH_FORMAT_AUTO, KITH_F32, 4, KITH_ERR_ARGUMENT},
        {"a.idx.gz", KITH_FORMAT_AUTO, KITH_U8, 4, KITH_ERR_UNSUPPORTED},
        {"a.hdf5", KITH_FORMAT_AUTO, KITH_F32, 4, KITH_ERR_UNSUPPORTED},
        {"a.fvecs", KITH_FORMAT_AUTO, KITH_F32, 0, KITH_ERR_ARGUMENT},
        {"a.fvecs", KITH_FORMAT_AUTO, KITH_F32, (size_t)1 << 31, KITH_ERR_ARGUMENT},
        {"none/a.fvecs", KITH_FORMAT_AUTO, KITH_F32, 4, KITH_ERR_IO},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert_eq(kith_vectors_writer_create(faults_path(folder, cases[i].name), cases[i].format, cases[i].dtype,
                                                cases[i].dim, &writer),
                     cases[i].status, "%zu: %s", i, kith_error_message());
        cr_assert_null(writer);
    }
    cr_assert_eq(kith_vectors_writer_create("/dev/full", KITH_FORMAT_RAW, KITH_F32, 4, &writer), KITH_ERR_IO);

    float value = 1;
    kith_view view = {&value, KITH_F32, 1, 1, 0}, wrong = view;
    cr_assert_eq(kith_vectors_writer_create(faults_path(folder, "a.fvecs"), 0, KITH_F32, 1, &writer), KITH_OK);
    wrong.dim = 2;
    cr_assert_eq(kith_vectors_writer_append(writer, &wrong), KITH_ERR_DIMENSION);
    wrong = view;
    wrong.dtype = (kith_dtype)0;
    cr_assert_eq(kith_vectors_writer_append(writer, &wrong), KITH_ERR_TYPE);
    wrong = view;
    wrong.data = NULL;
    cr_assert_eq(kith_vectors_writer_append(writer, &wrong), KITH_ERR_ARGUMENT);
    wrong = view;
    wrong.stride = 3;
    cr_assert_eq(kith_vectors_writer_append(writer, &wrong), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_ERR_EMPTY);

    static const char *const empty[] = {"a.fbin", "a.npy", "a.idx"};
    for (size_t i = 0; i < 3; i++) {
        const char *path = faults_path(folder, empty[i]);
        cr_assert_eq(kith_vectors_writer_create(path, 0, KITH_F32, 3, &writer), KITH_OK);
        cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
        kith_vectors *vectors = open_or_fail(path, NULL);
        check_content(vectors, 0, 3, golden);
        kith_vectors_close(vectors);
    }
    cr_assert_eq(faults_file_count(folder), 3);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- Choices ------------------------------------------------------------------------------------------- */

Test(vectors, rows_can_be_left_out) {
    static const char *const names[] = {"a.fvecs", "a.u8bin", "big_f4.npy", "f4.idx"};
    for (size_t n = 0; n < 4; n++)
        for (size_t first = 0; first <= ROWS; first++)
            for (size_t most = 0; most <= ROWS + 1; most++)
                for (int stream = 0; stream < 2; stream++) {
                    kith_vectors_options options;
                    kith_vectors_options_init(&options);
                    options.first_row = first;
                    options.max_rows = most;
                    options.stream = stream;
                    kith_vectors *vectors = open_or_fail(golden_path(names[n]), &options);
                    size_t expected = ROWS - first;
                    if (most != 0 && expected > most) expected = most;
                    cr_assert_eq(kith_vectors_count(vectors), expected);
                    double values[ROWS * DIM];
                    cr_assert_eq(kith_vectors_read(vectors, 0, expected, KITH_F64, values), KITH_OK);
                    for (size_t i = 0; i < expected * DIM; i++) cr_assert_eq(values[i], golden(first * DIM + i));
                    kith_vectors_close(vectors);
                }
    kith_vectors_options options;
    kith_vectors *vectors;
    kith_vectors_options_init(&options);
    options.first_row = ROWS + 1;
    cr_assert_eq(kith_vectors_open(golden_path("a.fvecs"), &options, &vectors), KITH_ERR_ARGUMENT);
}

/* Different rows in the order of the file, each as likely as any other; the seed decides which. */
Test(vectors, samples_are_drawn_at_random) {
    enum { COUNT = 200, DRAWS = 400, WANTED = 50 };
    const char *folder = faults_folder(), *path = faults_path(folder, "rows.u8bin");
    uint32_t head[2] = {COUNT, 1};
    unsigned char bytes[sizeof head + COUNT];
    memcpy(bytes, head, sizeof head);
    for (size_t i = 0; i < COUNT; i++) bytes[sizeof head + i] = (unsigned char)i;
    faults_write_file(path, bytes, sizeof bytes);
    for (int stream = 0; stream < 2; stream++) {
        kith_vectors_options options;
        kith_vectors_options_init(&options);
        options.stream = stream;
        kith_vectors *vectors = open_or_fail(path, &options);
        float rows[COUNT], again[COUNT];
        size_t drawn[COUNT] = {0};
        for (uint64_t seed = 0; seed < DRAWS; seed++) {
            cr_assert_eq(kith_vectors_sample(vectors, WANTED, seed, KITH_F32, rows), KITH_OK);
            for (size_t i = 0; i < WANTED; i++) {
                cr_assert(i == 0 || rows[i] > rows[i - 1]);
                drawn[(size_t)rows[i]]++;
            }
        }
        /* 400 draws of 50 from 200: 100 times each, with a standard deviation of 8.7. */
        for (size_t i = 0; i < COUNT; i++) cr_assert(drawn[i] > 55 && drawn[i] < 145, "row %zu: %zu", i, drawn[i]);
        cr_assert_eq(kith_vectors_sample(vectors, WANTED, DRAWS - 1, KITH_F32, again), KITH_OK);
        cr_assert_arr_eq(rows, again, WANTED * sizeof *rows);
        cr_assert_eq(kith_vectors_sample(vectors, COUNT, 1, KITH_F32, rows), KITH_OK);
        for (size_t i = 0; i < COUNT; i++) cr_assert_eq(rows[i], (float)i);
        cr_assert_eq(kith_vectors_sample(vectors, 0, 1, KITH_F32, rows), KITH_OK);
        cr_assert_eq(kith_vectors_sample(vectors, COUNT + 1, 1, KITH_F32, rows), KITH_ERR_RANGE);
        cr_assert(strstr(kith_error_message(), "a sample of 201 rows, but there are 200") != NULL);
        cr_assert_eq(kith_vectors_sample(vectors, 1, 1, KITH_B1, rows), KITH_ERR_TYPE);
        kith_vectors_close(vectors);
    }
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(vectors, formats_and_types_can_be_given) {
    const char *folder = faults_folder(), *path = faults_path(folder, "data.bin");
    size_t count;
    unsigned char *bytes = faults_read_file(golden_path("a.fbin"), &count);
    faults_write_file(path, bytes, count);
    free(bytes);
    kith_vectors_options options;
    kith_vectors *vectors;
    kith_vectors_options_init(&options);
    cr_assert_eq(kith_vectors_open(path, NULL, &vectors), KITH_ERR_FORMAT);
    cr_assert_eq(kith_format_parse("fbin", &options.format, &options.dtype), KITH_OK);
    vectors = open_or_fail(path, &options);
    check_content(vectors, ROWS, DIM, golden);
    kith_vectors_close(vectors);
    options.dtype = (kith_dtype)0;
    cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_ARGUMENT);
    options.dtype = KITH_F64;
    cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_TYPE);
    options.format = (kith_format)99;
    cr_assert_eq(kith_vectors_open(path, &options, &vectors), KITH_ERR_ARGUMENT);

    kith_vectors_options_init(&options);
    options.dtype = KITH_U8;
    cr_assert_eq(kith_vectors_open(golden_path("a.fvecs"), &options, &vectors), KITH_ERR_TYPE);
    cr_assert_eq(kith_vectors_open(golden_path("f4.npy"), &options, &vectors), KITH_ERR_TYPE);
    kith_vectors_options_init(&options);
    options.dim = DIM;
    cr_assert_eq(kith_vectors_open(golden_path("a.fvecs"), &options, &vectors), KITH_ERR_ARGUMENT);

    /* Without a telling name, a format that starts with a mark is found by it. */
    static const char *const marked[] = {"f4.npy", "i4.idx"};
    for (size_t i = 0; i < 2; i++) {
        bytes = faults_read_file(golden_path(marked[i]), &count);
        faults_write_file(path, bytes, count);
        free(bytes);
        vectors = open_or_fail(path, NULL);
        check_content(vectors, ROWS, DIM, golden);
        kith_vectors_close(vectors);
    }
    faults_folder_remove(folder);
}

Test(vectors, names_of_formats) {
    kith_format format;
    kith_dtype dtype;
    cr_assert(kith_format_parse("bvecs", &format, &dtype) == KITH_OK && format == KITH_FORMAT_VECS &&
              dtype == KITH_U8);
    cr_assert(kith_format_parse("npy", &format, &dtype) == KITH_OK && format == KITH_FORMAT_NPY && dtype == 0);
    cr_assert_eq(kith_format_parse("vecs", &format, &dtype), KITH_ERR_NOT_FOUND);
    cr_assert_eq(kith_format_parse("", &format, &dtype), KITH_ERR_NOT_FOUND);
}

/* ---- Statistics ---------------------------------------------------------------------------------------- */

static kith_vectors_stats stats_of(kith_vectors *vectors, size_t threads) {
    kith_vectors_stats stats = {.size = sizeof stats};
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    cr_assert_eq(kith_vectors_stats_compute(vectors, &job, &stats), KITH_OK, "%s", kith_error_message());
    return stats;
}

Test(vectors, statistics_of_a_small_file) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.fvecs");
    const float values[8][2] = {{3, 4}, {0, 0}, {-0.0f, 0}, {NAN, 1e30f}, {INFINITY, -2}, {3, 4}, {3, 4}, {-5, 12}};
    kith_view view = {values, KITH_F32, 8, 2, 0};
    kith_vectors_writer *writer;
    cr_assert_eq(kith_vectors_writer_create(path, 0, KITH_F32, 2, &writer), KITH_OK);
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_OK);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
    kith_vectors *vectors = open_or_fail(path, NULL);
    kith_vectors_stats stats = stats_of(vectors, 1);
    cr_assert(stats.count == 8 && stats.dim == 2);
    cr_assert(stats.min == -5 && stats.max == (double)1e30f);
    cr_assert(stats.nan_count == 1 && stats.inf_count == 1);
    cr_assert(stats.norm_min == 0 && stats.norm_max == 13 && stats.norm_mean == (5 + 0 + 0 + 5 + 5 + 13) / 6.0);
    cr_assert_eq(stats.zero_row_count, 2);
    cr_assert_eq(stats.duplicate_count, 2); /* -0 and 0 differ in a bit */
    kith_vectors_close(vectors);

    vectors = open_or_fail(golden_path("no_rows.npy"), NULL);
    stats = stats_of(vectors, 2);
    cr_assert(stats.count == 0 && stats.dim == DIM && stats.max == 0 && stats.norm_max == 0);
    kith_vectors_close(vectors);
    faults_folder_remove(folder);
}

/* Long rows are measured in pieces: something strange in any place, each dimension around a piece. */
Test(vectors, statistics_of_long_rows) {
    enum { COUNT = 40 };
    static const size_t dims[] = {63, 64, 65, 127, 128, 129, 200};
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++) {
        size_t dim = dims[d];
        _Alignas(64) float values[COUNT * 200];
        double low = INFINITY, high = -INFINITY, norm_max = 0;
        for (size_t i = 0; i < COUNT; i++) {
            double sum = 0;
            size_t strange = i * 7 % dim;
            for (size_t j = 0; j < dim; j++) {
                float value = i == 3 ? -0.0f : (float)(int)((i * dim + j) * 7919 % 2001) - 1000;
                if (i % 8 == 5 && j == strange) value = i == 5 ? NAN : i == 13 ? -INFINITY : INFINITY;
                values[i * dim + j] = value;
                if (!isfinite(value)) continue;
                if (value < low) low = value;
                if (value > high) high = value;
                sum += (double)value * (double)value;
            }
            if (i % 8 != 5 && sqrt(sum) > norm_max) norm_max = sqrt(sum);
        }
        kith_vectors_options options;
        kith_vectors_options_init(&options);
        options.format = KITH_FORMAT_RAW;
        options.dtype = KITH_F32;
        options.dim = dim;
        kith_vectors *vectors;
        cr_assert_eq(kith_vectors_open_memory("a.raw", values, COUNT * dim * 4, &options, &vectors), KITH_OK);
        kith_vectors_stats stats = stats_of(vectors, 1);
        cr_assert(stats.min == low && stats.max == high, "dim %zu: %g %g", dim, stats.min, stats.max);
        cr_assert_eq(stats.norm_max, norm_max); /* sums of whole numbers are exact in any order */
        cr_assert_eq(stats.norm_min, 0);
        cr_assert(stats.nan_count == 1 && stats.inf_count == 4 && stats.zero_row_count == 1);
        kith_vectors_close(vectors);
    }
}

/* More than one span, duplicates within and across spans; the same bits however it is read. */
Test(vectors, statistics_do_not_depend_on_threads) {
    enum { COUNT = 50000, BIG_DIM = 101 };
    const char *folder = faults_folder(), *path = faults_path(folder, "a.fvecs");
    float *values = malloc(sizeof *values * COUNT * BIG_DIM);
    for (size_t i = 0; i < COUNT; i++) {
        size_t from = i % 100 == 99 ? i / 2 : i; /* row i equals row i / 2 */
        for (size_t j = 0; j < BIG_DIM; j++)
            values[i * BIG_DIM + j] = from == i ? sinf((float)(i * BIG_DIM + j)) : values[from * BIG_DIM + j];
    }
    kith_view view = {values, KITH_F32, COUNT, BIG_DIM, 0};
    kith_vectors_writer *writer;
    cr_assert_eq(kith_vectors_writer_create(path, 0, KITH_F32, BIG_DIM, &writer), KITH_OK);
    cr_assert_eq(kith_vectors_writer_append(writer, &view), KITH_OK);
    cr_assert_eq(kith_vectors_writer_commit(writer), KITH_OK);
    kith_vectors_options options;
    kith_vectors_options_init(&options);
    kith_vectors *mapped = open_or_fail(path, &options);
    options.stream = 1;
    kith_vectors *streamed = open_or_fail(path, &options);
    kith_vectors_stats one = stats_of(mapped, 1), four = stats_of(mapped, 4), stream = stats_of(streamed, 3);
    cr_assert_eq(one.duplicate_count, COUNT / 100);
    cr_assert_eq(memcmp(&one, &four, sizeof one), 0);
    cr_assert_eq(memcmp(&one, &stream, sizeof one), 0);

    kith_job job;
    kith_job_init(&job);
    job.memory_bytes_max = 100000;
    cr_assert_eq(kith_vectors_stats_compute(mapped, &job, &one), KITH_ERR_BUDGET);
    job.memory_bytes_max = 0;
    one.size = 0;
    cr_assert_eq(kith_vectors_stats_compute(mapped, &job, &one), KITH_ERR_ARGUMENT);
    kith_vectors_close(mapped);
    kith_vectors_close(streamed);
    free(values);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- What the system refuses --------------------------------------------------------------------------- */

static kith_status read_whole(const char *path, bool stream, double *values) {
    kith_vectors_options options;
    kith_vectors *vectors;
    kith_vectors_stats stats = {.size = sizeof stats};
    kith_vectors_options_init(&options);
    options.stream = stream;
    kith_status status = kith_vectors_open(path, &options, &vectors);
    if (status == KITH_OK) status = kith_vectors_read(vectors, 0, kith_vectors_count(vectors), KITH_F64, values);
    if (status == KITH_OK) status = kith_vectors_stats_compute(vectors, NULL, &stats);
    kith_vectors_close(vectors);
    return status;
}

Test(vectors, every_failing_allocation_is_survived) {
    double values[ROWS * DIM * 4];
    faults_fail_allocation(0);
    for (size_t i = 0; i < DAMAGED_COUNT; i++)
        for (int stream = 0; stream < 2; stream++) {
#ifndef KITH_HAVE_ZLIB
            if (strstr(damaged_files[i], ".gz") != NULL) continue;
#endif
            for (size_t n = 1;; n++) {
                faults_fail_allocation(n);
                kith_status status = read_whole(golden_path(damaged_files[i]), stream, values);
                cr_assert_eq(kith_memory_live_blocks(), 0, "%s, allocation %zu", damaged_files[i], n);
                if (faults_allocation_count() < n) {
                    cr_assert_eq(status, KITH_OK, "%s", kith_error_message());
                    break;
                }
                cr_assert_eq(status, KITH_ERR_NO_MEMORY, "%s, allocation %zu", damaged_files[i], n);
            }
        }
    const char *folder = faults_folder();
    for (size_t n = 1;; n++) {
        faults_fail_allocation(n);
        kith_status status = write_golden(faults_path(folder, "a.fvecs"), 0, KITH_F32, DIM);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        if (faults_allocation_count() < n) {
            cr_assert_eq(status, KITH_OK);
            break;
        }
        cr_assert_eq(status, KITH_ERR_NO_MEMORY);
        cr_assert_eq(faults_file_count(folder), 0);
    }
    faults_folder_remove(folder);
}

Test(vectors, every_failing_read_is_an_error) {
    double values[ROWS * DIM * 4], expected[ROWS * DIM * 4];
    for (size_t i = 0; i < DAMAGED_COUNT; i++)
        for (int stream = 0; stream < 2; stream++) {
#ifndef KITH_HAVE_ZLIB
            if (strstr(damaged_files[i], ".gz") != NULL) continue;
#endif
            const char *path = golden_path(damaged_files[i]);
            cr_assert_eq(read_whole(path, stream, expected), KITH_OK);
            size_t files = faults_file_count("/proc/self/fd"), failures = 0;
            faults_short_transfers(3);
            for (size_t n = 1;; n++) {
                memset(values, 0, sizeof values);
                faults_fail_syscall(n, EIO, false);
                kith_status status = read_whole(path, stream, values);
                cr_assert_eq(kith_memory_live_blocks(), 0);
                cr_assert_eq(faults_file_count("/proc/self/fd"), files);
                cr_assert(status == KITH_OK || status == KITH_ERR_IO, "%s", kith_error_message());
                failures += status != KITH_OK;
                if (faults_syscall_count() < n) {
                    cr_assert_eq(status, KITH_OK);
                    break;
                }
            }
            faults_fail_syscall(0, 0, false);
            cr_assert_geq(failures, 3);
        }
}

Test(vectors, every_failing_write_leaves_the_old_file_or_the_new_one) {
    const char *folder = faults_folder();
    static const char *const names[] = {"a.fvecs", "a.npy", "a.idx", "a.fbin"};
    for (size_t i = 0; i < 4; i++) {
        const char *path = faults_path(folder, names[i]);
        double values[ROWS * DIM];
        for (size_t n = 1;; n++) {
            faults_fail_syscall(n, ENOSPC, true);
            kith_status status = write_golden(path, 0, KITH_F32, DIM);
            bool reached = faults_syscall_count() >= n;
            faults_fail_syscall(0, 0, false);
            size_t files = faults_file_count(folder);
            if (files == i + 1) {
                cr_assert_eq(read_whole(path, false, values), KITH_OK, "%s", kith_error_message());
                cr_assert_eq(values[DIM], golden(DIM));
                cr_assert_eq(unlink(path), 0);
            } else {
                cr_assert_eq(files, i);
                cr_assert_eq(status, KITH_ERR_IO);
            }
            if (!reached) {
                cr_assert_eq(status, KITH_OK);
                break;
            }
        }
        cr_assert_eq(write_golden(path, 0, KITH_F32, DIM), KITH_OK);
    }
    faults_folder_remove(folder);
}

Test(vectors, what_is_no_file_is_an_error) {
    kith_vectors *vectors;
    const char *folder = faults_folder();
    cr_assert_eq(kith_vectors_open(faults_path(folder, "none.fvecs"), NULL, &vectors), KITH_ERR_IO);
    cr_assert_not_null(strstr(kith_error_message(), "none.fvecs"));
    cr_assert_eq(kith_vectors_open(folder, NULL, &vectors), KITH_ERR_IO);
    cr_assert_eq(kith_vectors_open("/dev/zero", NULL, &vectors), KITH_ERR_IO);
    const char *pipe_path = faults_path(folder, "pipe.fvecs");
    cr_assert_eq(mkfifo(pipe_path, 0600), 0);
    cr_assert_eq(kith_vectors_open(pipe_path, NULL, &vectors), KITH_ERR_IO); /* and does not wait for a writer */
    cr_assert_null(vectors);
    kith_vectors_close(NULL);
    kith_vectors_writer_abort(NULL);
    cr_assert_eq(kith_vectors_writer_commit(NULL), KITH_OK);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
