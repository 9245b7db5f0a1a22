/* SPDX-License-Identifier: Apache-2.0 */
#include "io/mappedfile.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "io/syscalls.h"

kith_status kith_mappedfile_map(const char *path, int file, kith_mappedfile *out) {
    *out = (kith_mappedfile){0};
    struct stat info;
    if (kith_sys()->fstat(file, &info) != 0) return kith_io_error(path, "examine", errno);
    if (!S_ISREG(info.st_mode)) return kith_error(KITH_ERR_IO, "%s: not a regular file, it cannot be mapped", path);
    if (info.st_size == 0) return KITH_OK;
    if ((uintmax_t)info.st_size > SIZE_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "%s: %jd bytes do not fit the address space", path,
                          (intmax_t)info.st_size);
    void *data = kith_sys()->mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) return kith_io_error(path, "map", errno);
    *out = (kith_mappedfile){.data = data, .bytes = (size_t)info.st_size};
    return KITH_OK;
}

kith_status kith_mappedfile_open(const char *path, kith_mappedfile *out) {
    *out = (kith_mappedfile){0};
    int file;
    KITH_TRY(kith_io_open_read(path, &file));
    kith_status status = kith_mappedfile_map(path, file, out);
    kith_io_close(file);
    return status;
}

void kith_mappedfile_expect_random(const void *data, size_t bytes) {
    long page = sysconf(_SC_PAGESIZE);
    if (page <= 0) return;
    uintptr_t first = ((uintptr_t)data + (uintptr_t)page - 1) / (uintptr_t)page * (uintptr_t)page;
    uintptr_t end = ((uintptr_t)data + bytes) / (uintptr_t)page * (uintptr_t)page;
    if (end > first) (void)posix_madvise((void *)first, end - first, POSIX_MADV_RANDOM); /* advice: may fail */
}

void kith_mappedfile_close(kith_mappedfile *file) {
    if (file->data != NULL) (void)kith_sys()->munmap((void *)(uintptr_t)file->data, file->bytes);
    *file = (kith_mappedfile){0};
}
