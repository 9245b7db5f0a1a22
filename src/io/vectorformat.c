/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "io/vectorfile.h"

/* Names that are extensions as well. */
static const struct {
    const char *name;
    kith_format format;
    kith_dtype dtype;
} formats[] = {
    {"fvecs", KITH_FORMAT_VECS, KITH_F32},     {"bvecs", KITH_FORMAT_VECS, KITH_U8},
    {"ivecs", KITH_FORMAT_VECS, KITH_I32},     {"fbin", KITH_FORMAT_BIN, KITH_F32},
    {"u8bin", KITH_FORMAT_BIN, KITH_U8},       {"i8bin", KITH_FORMAT_BIN, KITH_I8},
    {"ibin", KITH_FORMAT_BIN, KITH_I32},       {"npy", KITH_FORMAT_NPY, (kith_dtype)0},
    {"idx", KITH_FORMAT_IDX, (kith_dtype)0},   {"raw", KITH_FORMAT_RAW, (kith_dtype)0},
    {"hdf5", KITH_FORMAT_HDF5, (kith_dtype)0},
};
enum { FORMAT_COUNT = sizeof formats / sizeof *formats };

kith_status kith_format_parse(const char *name, kith_format *format, kith_dtype *dtype) {
    *format = KITH_FORMAT_AUTO;
    *dtype = (kith_dtype)0;
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (strcmp(name, formats[i].name) == 0) {
            *format = formats[i].format;
            *dtype = formats[i].dtype;
            return KITH_OK;
        }
    return kith_error(
        KITH_ERR_NOT_FOUND,
        "format '%s' is not one of fvecs, bvecs, ivecs, fbin, u8bin, i8bin, ibin, npy, idx, raw, hdf5", name);
}

const char *kith_format_name(kith_format format, kith_dtype dtype) {
    for (size_t i = 0; i < FORMAT_COUNT; i++)
        if (formats[i].format == format && (formats[i].dtype == 0 || formats[i].dtype == dtype))
            return formats[i].name;
    return "?";
}

static bool ends_with(const char *text, size_t length, const char *end) {
    size_t end_length = strlen(end);
    return length >= end_length && memcmp(text + length - end_length, end, end_length) == 0;
}

void kith_format_of_name(const char *path, kith_format *format, kith_dtype *dtype, bool *is_packed) {
    size_t length = strlen(path);
    *format = KITH_FORMAT_AUTO;
    *dtype = (kith_dtype)0;
    *is_packed = ends_with(path, length, ".gz");
    if (*is_packed) length -= 3;
    for (size_t i = 0; i < FORMAT_COUNT; i++) {
        size_t name_length = strlen(formats[i].name);
        if (length > name_length && path[length - name_length - 1] == '.' &&
            ends_with(path, length, formats[i].name)) {
            *format = formats[i].format;
            *dtype = formats[i].dtype;
            return;
        }
    }
    if (ends_with(path, length, "-ubyte")) *format = KITH_FORMAT_IDX;
    if (ends_with(path, length, ".h5")) *format = KITH_FORMAT_HDF5;
}
