/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "io/atomicfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "io/syscalls.h"

enum { BUFFER_BYTES = 256 << 10, TEMPORARY_NAME_BYTES = 64, NAME_TRIES = 100 };

struct kith_atomicfile {
    char *path;   /* as the caller gave it: for messages */
    char *target; /* the name inside `folder` */
    char temporary[TEMPORARY_NAME_BYTES];
    int folder, file;
    bool failed;
    uint64_t position; /* of the end, buffered bytes included */
    size_t buffered;
    unsigned char *buffer;
};

static kith_status duplicate(const char *text, size_t length, char **out) {
    KITH_TRY(kith_alloc(length + 1, 1, out));
    memcpy(*out, text, length);
    (*out)[length] = '\0';
    return KITH_OK;
}

static void release(kith_atomicfile *file) {
    if (file == NULL) return;
    kith_io_close(file->file);
    kith_io_close(file->folder);
    kith_free(file->path);
    kith_free(file->target);
    kith_free(file->buffer);
    kith_free(file);
}

/* Splits the name into the open folder and the name in it. */
static kith_status open_folder(kith_atomicfile *file, const char *path) {
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    if (*name == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return kith_error(KITH_ERR_IO, "%s: not the name of a file", file->path);
    KITH_TRY(duplicate(name, strlen(name), &file->target));
    char *folder = NULL;
    if (slash == NULL)
        KITH_TRY(duplicate(".", 1, &folder));
    else
        KITH_TRY(duplicate(path, slash == path ? 1 : (size_t)(slash - path), &folder));
    do file->folder = kith_sys()->openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    while (file->folder < 0 && errno == EINTR);
    int error_number = errno;
    kith_free(folder);
    return file->folder >= 0 ? KITH_OK : kith_io_error(file->path, "open the folder", error_number);
}

/* What stands under the name now must be nothing or a regular file: a rename would replace a device as readily. Its
 * permissions go to *mode. */
static kith_status examine_target(const kith_atomicfile *file, mode_t *mode, bool *exists) {
    struct stat info;
    *exists = fstatat(file->folder, file->target, &info, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*exists) return errno == ENOENT ? KITH_OK : kith_io_error(file->path, "examine", errno);
    if (!S_ISREG(info.st_mode))
        return kith_error(KITH_ERR_IO, "%s: is there and is not a regular file; it is left as it is", file->path);
    *mode = info.st_mode & 07777;
    return KITH_OK;
}

static kith_status create_temporary(kith_atomicfile *file) {
    static _Atomic uint64_t counter;
    for (int attempt = 0; attempt < NAME_TRIES; attempt++) {
        uint64_t number = atomic_fetch_add(&counter, 1) ^ kith_now_ns() << 16;
        (void)snprintf(file->temporary, sizeof file->temporary, ".kith-%ld-%016llx.tmp", (long)getpid(),
                       (unsigned long long)number);
        file->file =
            kith_sys()->openat(file->folder, file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file->file >= 0) return KITH_OK;
        if (errno != EEXIST && errno != EINTR) break;
    }
    int error_number = errno;
    file->temporary[0] = '\0';
    return kith_io_error(file->path, "create a file in its folder", error_number);
}

static kith_status create_at(kith_atomicfile *file, const char *path) {
    mode_t mode = 0;
    bool exists = false;
    KITH_TRY(open_folder(file, path));
    KITH_TRY(examine_target(file, &mode, &exists));
    KITH_TRY(kith_alloc(BUFFER_BYTES, 1, &file->buffer));
    KITH_TRY(create_temporary(file));
    if (exists && kith_sys()->fchmod(file->file, mode) != 0)
        return kith_io_error(file->path, "keep the permissions", errno);
    return KITH_OK;
}

kith_status kith_atomicfile_create(const char *path, kith_atomicfile **out) {
    *out = NULL;
    kith_atomicfile *file;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *file, &file));
    file->file = file->folder = -1;
    char *resolved = NULL;
    struct stat info;
    kith_status status;
    KITH_GO(duplicate(path, strlen(path), &file->path));
    if (lstat(path, &info) == 0 && S_ISLNK(info.st_mode)) {
        resolved = realpath(path, NULL);
        if (resolved == NULL) {
            status = kith_io_error(path, "follow the symbolic link", errno);
            goto done;
        }
    }
    status = create_at(file, resolved != NULL ? resolved : path);
done:
    free(resolved);
    if (status == KITH_OK)
        *out = file;
    else
        kith_atomicfile_abort(file);
    return status;
}

static kith_status write_through(kith_atomicfile *file, const unsigned char *bytes, size_t count, uint64_t offset) {
    while (count > 0) {
        ssize_t written = kith_sys()->pwrite(file->file, bytes, count, (off_t)offset);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            char what[64];
            int error_number = written < 0 ? errno : ENOSPC;
            (void)snprintf(what, sizeof what, "write at byte %llu", (unsigned long long)offset);
            file->failed = true;
            return kith_io_error(file->path, what, error_number);
        }
        bytes += written;
        offset += (uint64_t)written;
        count -= (size_t)written;
    }
    return KITH_OK;
}

static kith_status flush(kith_atomicfile *file) {
    size_t count = file->buffered;
    file->buffered = 0;
    return write_through(file, file->buffer, count, file->position - count);
}

static kith_status refuse_failed(const kith_atomicfile *file) {
    return kith_error(KITH_ERR_IO, "%s: an earlier write failed; the file is not made", file->path);
}

kith_status kith_atomicfile_write(kith_atomicfile *file, const void *bytes, size_t count) {
    if (file->failed) return refuse_failed(file);
    uint64_t end;
    if (__builtin_add_overflow(file->position, count, &end) || end > INT64_MAX) {
        file->failed = true;
        return kith_error(KITH_ERR_OVERFLOW, "%s: %llu bytes and %zu more are too many for a file", file->path,
                          (unsigned long long)file->position, count);
    }
    if (count > BUFFER_BYTES - file->buffered) KITH_TRY(flush(file));
    if (count >= BUFFER_BYTES) {
        KITH_TRY(write_through(file, bytes, count, file->position));
    } else if (count > 0) {
        memcpy(file->buffer + file->buffered, bytes, count);
        file->buffered += count;
    }
    file->position = end;
    return KITH_OK;
}

kith_status kith_atomicfile_write_zeros(kith_atomicfile *file, size_t count) {
    static const unsigned char zeros[4096];
    while (count > 0) {
        size_t piece = kith_min_size(count, sizeof zeros);
        KITH_TRY(kith_atomicfile_write(file, zeros, piece));
        count -= piece;
    }
    return KITH_OK;
}

kith_status kith_atomicfile_write_at(kith_atomicfile *file, uint64_t offset, const void *bytes, size_t count) {
    if (file->failed) return refuse_failed(file);
    if (offset > file->position || count > file->position - offset)
        return kith_error(KITH_ERR_INTERNAL, "%s: bytes %llu..+%zu were not written before", file->path,
                          (unsigned long long)offset, count);
    KITH_TRY(flush(file));
    return write_through(file, bytes, count, offset);
}

uint64_t kith_atomicfile_position(const kith_atomicfile *file) { return file->position; }
const char *kith_atomicfile_path(const kith_atomicfile *file) { return file->path; }

static int sync_retried(int descriptor) {
    int result;
    do result = kith_sys()->fsync(descriptor);
    while (result != 0 && errno == EINTR);
    return result;
}

/* Up to the rename: what fails here leaves the name as it was. */
static kith_status put_in_place(kith_atomicfile *file) {
    if (file->failed) return refuse_failed(file);
    KITH_TRY(flush(file));
    if (sync_retried(file->file) != 0) return kith_io_error(file->path, "sync", errno);
    int descriptor = file->file;
    file->file = -1;
    /* An interrupted close has closed the file, and all is on disk already. */
    if (kith_sys()->close(descriptor) != 0 && errno != EINTR) return kith_io_error(file->path, "close", errno);
    if (kith_sys()->renameat(file->folder, file->temporary, file->folder, file->target) != 0)
        return kith_io_error(file->path, "rename the new file to this name", errno);
    file->temporary[0] = '\0';
    return KITH_OK;
}

kith_status kith_atomicfile_commit(kith_atomicfile *file) {
    if (file == NULL) return KITH_OK;
    kith_status status = put_in_place(file);
    /* EINVAL: a file system that has nothing to sync for a folder. */
    if (status == KITH_OK && sync_retried(file->folder) != 0 && errno != EINVAL)
        status = kith_io_error(file->path, "sync the folder (the new file is in place)", errno);
    kith_atomicfile_abort(file);
    return status;
}

void kith_atomicfile_abort(kith_atomicfile *file) {
    if (file == NULL) return;
    if (file->temporary[0] != '\0') (void)kith_sys()->unlinkat(file->folder, file->temporary, 0);
    release(file);
}
