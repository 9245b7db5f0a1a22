/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "io/syscalls.h"
#include "kith/types.h"

#define REQUIRE(condition)                                                                                         \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                               \
        }                                                                                                          \
    } while (0)

/* ---- Allocations --------------------------------------------------------------------------------------- */

static size_t failing_allocation, allocation_count, allocation_limit, allocation_max;

static void *counting_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user;
    if (bytes > allocation_max) allocation_max = bytes;
    if (++allocation_count == failing_allocation) return NULL;
    if (allocation_limit != 0 && bytes > allocation_limit) return NULL;
    void *block = NULL;
    return posix_memalign(&block, alignment, bytes) == 0 ? block : NULL;
}

static void counting_release(void *user, void *block) {
    (void)user;
    free(block);
}

void faults_fail_allocation(size_t n) {
    static bool installed;
    if (!installed) {
        static const kith_allocator hooks = {counting_alloc, counting_release, NULL};
        REQUIRE(kith_allocator_set(&hooks) == KITH_OK);
        installed = true;
    }
    failing_allocation = n;
    allocation_count = allocation_max = 0;
}

size_t faults_allocation_count(void) { return allocation_count; }
void faults_limit_allocation(size_t bytes) { allocation_limit = bytes; }
size_t faults_allocation_bytes_max(void) { return allocation_max; }

/* ---- System calls -------------------------------------------------------------------------------------- */

enum call { OPEN, STAT, READ, WRITE, CHMOD, SYNC, CLOSE, RENAME, UNLINK, MAP, UNMAP };

static size_t failing_call, call_count, transfer_limit;
static int failing_errno, sticky_call = -1;
static bool is_sticky;

static bool fails(enum call call) {
    bool now = ++call_count == failing_call;
    if (now && is_sticky && call != CLOSE && call != UNLINK) sticky_call = (int)call;
    if (!now && (int)call != sticky_call) return false;
    errno = failing_errno;
    return true;
}

static size_t limited(size_t count) {
    return transfer_limit != 0 && count > transfer_limit ? transfer_limit : count;
}

static int f_openat(int folder, const char *path, int flags, mode_t mode) {
    return fails(OPEN) ? -1 : openat(folder, path, flags, mode);
}
static int f_fstat(int file, struct stat *out) { return fails(STAT) ? -1 : fstat(file, out); }
static ssize_t f_read(int file, void *bytes, size_t count) {
    return fails(READ) ? -1 : read(file, bytes, limited(count));
}
static ssize_t f_pread(int file, void *bytes, size_t count, off_t offset) {
    return fails(READ) ? -1 : pread(file, bytes, limited(count), offset);
}
static ssize_t f_pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return fails(WRITE) ? -1 : pwrite(file, bytes, limited(count), offset);
}
static int f_fchmod(int file, mode_t mode) { return fails(CHMOD) ? -1 : fchmod(file, mode); }
static int f_fsync(int file) { return fails(SYNC) ? -1 : fsync(file); }
/* A close that fails has closed the file, as on Linux. */
static int f_close(int file) {
    int result = close(file);
    return fails(CLOSE) ? -1 : result;
}
static int f_renameat(int old_folder, const char *old_path, int new_folder, const char *new_path) {
    return fails(RENAME) ? -1 : renameat(old_folder, old_path, new_folder, new_path);
}
/* An unlink that fails leaves a file behind, which the checks on leftovers would take for a bug. */
static int f_unlinkat(int folder, const char *path, int flags) {
    int result = unlinkat(folder, path, flags);
    return fails(UNLINK) ? -1 : result;
}
static void *f_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset) {
    return fails(MAP) ? MAP_FAILED : mmap(address, bytes, protection, flags, file, offset);
}
static int f_munmap(void *address, size_t bytes) {
    int result = munmap(address, bytes);
    return fails(UNMAP) ? -1 : result;
}

static const kith_syscalls failing_calls = {
    .openat = f_openat,
    .fstat = f_fstat,
    .read = f_read,
    .pread = f_pread,
    .pwrite = f_pwrite,
    .fchmod = f_fchmod,
    .fsync = f_fsync,
    .close = f_close,
    .renameat = f_renameat,
    .unlinkat = f_unlinkat,
    .mmap = f_mmap,
    .munmap = f_munmap,
};

void faults_fail_syscall(size_t n, int error_number, bool sticky) {
    kith_syscalls_set(&failing_calls);
    failing_call = n;
    failing_errno = error_number;
    is_sticky = sticky;
    sticky_call = -1;
    call_count = 0;
}

size_t faults_syscall_count(void) { return call_count; }

void faults_short_transfers(size_t bytes_max) {
    kith_syscalls_set(&failing_calls);
    transfer_limit = bytes_max;
}

/* ---- Files --------------------------------------------------------------------------------------------- */

const char *faults_folder(void) {
    const char *parent = getenv("TMPDIR");
    static char paths[16][4096];
    static size_t next;
    char *path = paths[next++ % 16];
    (void)snprintf(path, sizeof paths[0], "%s/kith-test-XXXXXX", parent != NULL ? parent : "/tmp");
    REQUIRE(mkdtemp(path) != NULL);
    return path;
}

const char *faults_path(const char *folder, const char *name) {
    static char paths[8][4352];
    static size_t next;
    char *path = paths[next++ % 8];
    (void)snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static size_t each_file(const char *folder, bool remove_it) {
    DIR *open_folder = opendir(folder);
    REQUIRE(open_folder != NULL);
    size_t count = 0;
    for (struct dirent *item; (item = readdir(open_folder)) != NULL;) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0) continue;
        count++;
        if (remove_it) REQUIRE(unlink(faults_path(folder, item->d_name)) == 0);
    }
    (void)closedir(open_folder);
    return count;
}

size_t faults_file_count(const char *folder) { return each_file(folder, false); }

void faults_folder_remove(const char *folder) {
    (void)each_file(folder, true);
    REQUIRE(rmdir(folder) == 0);
}

unsigned char *faults_read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    *bytes = 0;
    if (file == NULL) return NULL;
    REQUIRE(fseek(file, 0, SEEK_END) == 0);
    *bytes = (size_t)ftell(file);
    rewind(file);
    unsigned char *content = malloc(*bytes + 1);
    REQUIRE(content != NULL && fread(content, 1, *bytes, file) == *bytes);
    (void)fclose(file);
    return content;
}

void faults_write_file(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(bytes, 1, count, file) == count && fclose(file) == 0);
}
