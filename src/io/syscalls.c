/* SPDX-License-Identifier: Apache-2.0 */
#include "io/syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"

static int system_openat(int folder, const char *path, int flags, mode_t mode) {
    return openat(folder, path, flags, mode);
}
static int system_fstat(int file, struct stat *out) { return fstat(file, out); }

static const kith_syscalls system_calls = {
    .openat = system_openat,
    .fstat = system_fstat,
    .read = read,
    .pread = pread,
    .pwrite = pwrite,
    .fchmod = fchmod,
    .fsync = fsync,
    .close = close,
    .renameat = renameat,
    .unlinkat = unlinkat,
    .mmap = mmap,
    .munmap = munmap,
};
static const kith_syscalls *calls_in_use = &system_calls;

const kith_syscalls *kith_sys(void) { return calls_in_use; }
void kith_syscalls_set(const kith_syscalls *calls) { calls_in_use = calls != NULL ? calls : &system_calls; }

kith_status kith_io_error(const char *path, const char *what, int error_number) {
    char text[128];
    if (strerror_r(error_number, text, sizeof text) != 0)
        (void)snprintf(text, sizeof text, "error %d", error_number);
    return kith_error(KITH_ERR_IO, "%s: cannot %s: %s", path, what, text);
}

kith_status kith_io_open_read(const char *path, int *file) {
    /* Not blocking, so that a named pipe is not waited for before it is refused; files do not care. */
    do *file = kith_sys()->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
    while (*file < 0 && errno == EINTR);
    return *file >= 0 ? KITH_OK : kith_io_error(path, "open", errno);
}

kith_status kith_io_read_at(int file, const char *path, void *bytes, size_t count, unsigned long long offset) {
    size_t done = 0;
    while (done < count) {
        ssize_t got = kith_sys()->pread(file, (char *)bytes + done, count - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return kith_io_error(path, "read", errno);
        if (got == 0)
            return kith_error(KITH_ERR_IO, "%s: ended at byte %llu while it was read; was it changed?", path,
                              offset + done);
        done += (size_t)got;
    }
    return KITH_OK;
}

void kith_io_close(int file) {
    if (file >= 0) (void)kith_sys()->close(file);
}
