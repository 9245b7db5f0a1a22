/* SPDX-License-Identifier: Apache-2.0
 *
 * HDF5 as ann-benchmarks uses it: data sets train, test, neighbors, distances in the root, each rows x dimension (or
 * one axis: rows of one element). The HDF5 library parses the file; here a data set is taken only when its bytes can
 * be in the file: none that lies in other files, is put together from others, or is filled with a constant.
 */
#include "base/error.h"
#include "base/memory.h"
#include "io/vectorfile.h"

#ifdef KITH_HAVE_HDF5

#include <hdf5.h>
#include <pthread.h>
#include <string.h>

struct kith_hdf5 {
    hid_t file, dataset, type;
    size_t dim;
    int axis_count;
};

/* The library keeps global state and is not made for threads, unless built so. */
static pthread_mutex_t hdf5_lock = PTHREAD_MUTEX_INITIALIZER;

/* The program may use HDF5 too, and want to have its errors printed: only ours are not. */
typedef struct turn {
    H5E_auto2_t print;
    void *data;
} turn;

static turn begin_turn(void) {
    turn own = {NULL, NULL};
    (void)pthread_mutex_lock(&hdf5_lock);
    (void)H5Eget_auto2(H5E_DEFAULT, &own.print, &own.data);
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    return own;
}

static void end_turn(turn own) {
    (void)H5Eset_auto2(H5E_DEFAULT, own.print, own.data);
    (void)pthread_mutex_unlock(&hdf5_lock);
}

enum { RATIO_MAX = 1100 }; /* bytes out of one stored byte, by deflate at its best */

static kith_status native_type(const char *path, const char *name, hid_t stored, kith_dtype *dtype, hid_t *native) {
    H5T_class_t class = H5Tget_class(stored);
    size_t bytes = H5Tget_size(stored);
    bool is_signed = class == H5T_INTEGER && H5Tget_sign(stored) == H5T_SGN_2;
    if (class == H5T_FLOAT && bytes == 4) {
        *dtype = KITH_F32;
        *native = H5T_NATIVE_FLOAT;
    } else if (class == H5T_FLOAT && bytes == 8) {
        *dtype = KITH_F64;
        *native = H5T_NATIVE_DOUBLE;
    } else if (class == H5T_INTEGER && bytes == 1) {
        *dtype = is_signed ? KITH_I8 : KITH_U8;
        *native = is_signed ? H5T_NATIVE_INT8 : H5T_NATIVE_UINT8;
    } else if (class == H5T_INTEGER && bytes == 4) {
        *dtype = is_signed ? KITH_I32 : KITH_U32;
        *native = is_signed ? H5T_NATIVE_INT32 : H5T_NATIVE_UINT32;
    } else if (class == H5T_INTEGER && bytes == 8 && is_signed) {
        *dtype = KITH_I64;
        *native = H5T_NATIVE_INT64;
    } else {
        return kith_error(KITH_ERR_TYPE, "%s: data set '%s': elements of %zu bytes are of no known type", path,
                          name, bytes);
    }
    return KITH_OK;
}

static kith_status read_type(kith_hdf5 *file, const char *path, const char *name, kith_layout *layout) {
    hid_t stored = H5Dget_type(file->dataset);
    if (stored < 0) return kith_error(KITH_ERR_FORMAT, "%s: data set '%s' has no type", path, name);
    kith_status status = native_type(path, name, stored, &layout->dtype, &file->type);
    (void)H5Tclose(stored);
    return status;
}

static kith_status read_shape(kith_hdf5 *file, const char *path, const char *name, kith_layout *layout) {
    hsize_t axes[2] = {0, 1};
    hid_t space = H5Dget_space(file->dataset);
    file->axis_count = space < 0 ? -1 : H5Sget_simple_extent_ndims(space);
    bool good =
        (file->axis_count == 1 || file->axis_count == 2) && H5Sget_simple_extent_dims(space, axes, NULL) >= 0;
    if (space >= 0) (void)H5Sclose(space);
    if (!good)
        return kith_error(KITH_ERR_UNSUPPORTED, "%s: data set '%s' has %d axes, not 1 or 2", path, name,
                          file->axis_count);
    if (axes[1] == 0) return kith_error(KITH_ERR_FORMAT, "%s: data set '%s' has dimension 0", path, name);
    layout->count = axes[0];
    layout->dim = axes[1];
    return KITH_OK;
}

/* That the elements are stored, in this file. */
static kith_status check_storage(const kith_hdf5 *file, const char *path, const char *name, uint64_t file_bytes,
                                 const kith_layout *layout) {
    hid_t properties = H5Dget_create_plist(file->dataset);
    bool own =
        properties >= 0 && H5Pget_layout(properties) != H5D_VIRTUAL && H5Pget_external_count(properties) == 0;
    if (properties >= 0) (void)H5Pclose(properties);
    if (!own) return kith_error(KITH_ERR_UNSUPPORTED, "%s: data set '%s' is stored outside this file", path, name);
    uint64_t stored = H5Dget_storage_size(file->dataset), bytes;
    bool wraps = __builtin_mul_overflow(layout->count, layout->dim, &bytes) ||
                 __builtin_mul_overflow(bytes, kith_dtype_row_bytes(layout->dtype, 1), &bytes);
    if (wraps || bytes > SIZE_MAX || stored > file_bytes || bytes / RATIO_MAX > stored)
        return kith_error(KITH_ERR_FORMAT, "%s: data set '%s': %llu rows of dimension %llu cannot be in %llu bytes",
                          path, name, (unsigned long long)layout->count, (unsigned long long)layout->dim,
                          (unsigned long long)stored);
    return KITH_OK;
}

static kith_status open_dataset(kith_hdf5 *file, const char *path, const char *name, uint64_t file_bytes,
                                kith_layout *layout) {
    file->file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    if (file->file < 0) return kith_error(KITH_ERR_FORMAT, "%s: not an HDF5 file, or a damaged one", path);
    H5L_info_t link;
    bool in_root = strchr(name, '/') == NULL; /* no way there leads through a link */
    if (!in_root || H5Lget_info(file->file, name, &link, H5P_DEFAULT) < 0 || link.type != H5L_TYPE_HARD)
        return kith_error(KITH_ERR_NOT_FOUND, "%s: no data set '%s'", path, name);
    file->dataset = H5Dopen2(file->file, name, H5P_DEFAULT);
    if (file->dataset < 0) return kith_error(KITH_ERR_NOT_FOUND, "%s: '%s' is not a data set", path, name);
    KITH_TRY(read_type(file, path, name, layout));
    KITH_TRY(read_shape(file, path, name, layout));
    file->dim = (size_t)layout->dim;
    return check_storage(file, path, name, file_bytes, layout);
}

kith_status kith_hdf5_open(const char *path, const char *dataset, uint64_t file_bytes, kith_layout *layout,
                           kith_hdf5 **out) {
    *out = NULL;
    *layout = (kith_layout){0};
    kith_hdf5 *file;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *file, &file));
    file->file = file->dataset = -1;
    turn own = begin_turn();
    kith_status status = open_dataset(file, path, dataset != NULL ? dataset : "train", file_bytes, layout);
    end_turn(own);
    if (status == KITH_OK)
        *out = file;
    else
        kith_hdf5_close(file);
    return status;
}

kith_status kith_hdf5_read(kith_hdf5 *file, size_t first, size_t count, void *out) {
    if (count == 0) return KITH_OK;
    hsize_t start[2] = {first, 0}, extent[2] = {count, file->dim};
    turn own = begin_turn();
    hid_t space = H5Dget_space(file->dataset);
    hid_t block = H5Screate_simple(file->axis_count, extent, NULL);
    bool good = space >= 0 && block >= 0 &&
                H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, extent, NULL) >= 0 &&
                H5Dread(file->dataset, file->type, block, space, H5P_DEFAULT, out) >= 0;
    if (block >= 0) (void)H5Sclose(block);
    if (space >= 0) (void)H5Sclose(space);
    end_turn(own);
    return good ? KITH_OK
                : kith_error(KITH_ERR_IO, "hdf5: rows %zu to %zu of the data set cannot be read", first,
                             first + count - 1);
}

void kith_hdf5_close(kith_hdf5 *file) {
    if (file == NULL) return;
    turn own = begin_turn();
    if (file->dataset >= 0) (void)H5Dclose(file->dataset);
    if (file->file >= 0) (void)H5Fclose(file->file);
    end_turn(own);
    kith_free(file);
}

#else

kith_status kith_hdf5_open(const char *path, const char *dataset, uint64_t file_bytes, kith_layout *layout,
                           kith_hdf5 **out) {
    (void)dataset;
    (void)file_bytes;
    *layout = (kith_layout){0};
    *out = NULL;
    return kith_error(KITH_ERR_UNSUPPORTED, "%s: this build cannot read HDF5 (meson option hdf5)", path);
}

kith_status kith_hdf5_read(kith_hdf5 *file, size_t first, size_t count, void *out) {
    (void)file;
    (void)out;
    return kith_error(KITH_ERR_INTERNAL, "hdf5: rows %zu..+%zu asked for in a build without it", first, count);
}

void kith_hdf5_close(kith_hdf5 *file) { (void)file; }

#endif
