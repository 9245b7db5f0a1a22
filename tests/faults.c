/* SPDX-License-Identifier: Apache-2.0 */
#include "faults.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
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

static _Atomic size_t failing_allocation, allocation_limit;
static _Atomic size_t allocation_count, allocation_max;
static bool is_installed;

enum { HEAD = 64, GUARD = 16 };

/* Before the block: where malloc's own begins, and its size; after it: a guard. */
static void *failing_alloc(void *user, size_t alignment, size_t bytes) {
    (void)user;
    size_t number = atomic_fetch_add(&allocation_count, 1) + 1, most = atomic_load(&allocation_max);
    while (bytes > most && !atomic_compare_exchange_weak(&allocation_max, &most, bytes)) {
    }
    if (number == failing_allocation || (allocation_limit != 0 && bytes > allocation_limit)) return NULL;
    unsigned char *base = malloc(alignment + HEAD + bytes + GUARD);
    if (base == NULL) return NULL;
    uintptr_t start = ((uintptr_t)base + HEAD + alignment - 1) & ~(uintptr_t)(alignment - 1);
    unsigned char *block = base + (start - (uintptr_t)base);
    memcpy(block - HEAD, &base, sizeof base);
    memcpy(block - HEAD / 2, &bytes, sizeof bytes);
    memset(block, FAULTS_BYTE, bytes + GUARD);
    return block;
}

static void checking_release(void *user, void *block) {
    (void)user;
    unsigned char *start = block, *base;
    size_t bytes;
    memcpy(&base, start - HEAD, sizeof base);
    memcpy(&bytes, start - HEAD / 2, sizeof bytes);
    for (size_t i = 0; i < GUARD; i++) REQUIRE(start[bytes + i] == FAULTS_BYTE); /* written past the block's end */
    memset(start, 0x5a, bytes);
    free(base);
}

void faults_install(void) {
    static const kith_allocator hooks = {failing_alloc, checking_release, NULL};
    REQUIRE(kith_allocator_set(&hooks) == KITH_OK);
    is_installed = true;
}

void faults_fail_allocation(size_t n) {
    if (!is_installed) faults_install();
    failing_allocation = n;
    atomic_store(&allocation_count, 0);
    atomic_store(&allocation_max, 0);
}

size_t faults_allocation_count(void) { return atomic_load(&allocation_count); }
void faults_limit_allocation(size_t bytes) { allocation_limit = bytes; }
size_t faults_allocation_bytes_max(void) { return atomic_load(&allocation_max); }

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

bool faults_same_files(const char *a, const char *b) {
    size_t a_bytes, b_bytes;
    unsigned char *a_content = faults_read_file(a, &a_bytes), *b_content = faults_read_file(b, &b_bytes);
    bool same =
        a_content != NULL && b_content != NULL && a_bytes == b_bytes && memcmp(a_content, b_content, a_bytes) == 0;
    free(a_content);
    free(b_content);
    return same;
}

void faults_write_file(const char *path, const void *bytes, size_t count) {
    FILE *file = fopen(path, "wb");
    REQUIRE(file != NULL && fwrite(bytes, 1, count, file) == count && fclose(file) == 0);
}
