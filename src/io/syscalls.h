/* SPDX-License-Identifier: Apache-2.0
 *
 * syscalls.h: the system calls of this folder in one table, so that a test can make the n-th of them fail.
 */
#ifndef KITH_IO_SYSCALLS_H
#define KITH_IO_SYSCALLS_H

#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "kith/status.h"

typedef struct kith_syscalls {
    int (*openat)(int folder, const char *path, int flags, mode_t mode);
    int (*fstat)(int file, struct stat *out);
    ssize_t (*read)(int file, void *bytes, size_t count);
    ssize_t (*pread)(int file, void *bytes, size_t count, off_t offset);
    ssize_t (*pwrite)(int file, const void *bytes, size_t count, off_t offset);
    int (*fchmod)(int file, mode_t mode);
    int (*fsync)(int file);
    int (*close)(int file);
    int (*renameat)(int old_folder, const char *old_path, int new_folder, const char *new_path);
    int (*unlinkat)(int folder, const char *path, int flags);
    void *(*mmap)(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
    int (*munmap)(void *address, size_t bytes);
} kith_syscalls;

/* The table in use: the system's own calls, unless a test has set another. */
const kith_syscalls *kith_sys(void);
/* For tests: replaces the table (NULL: the system's again). Not while another thread is inside this folder. */
void kith_syscalls_set(const kith_syscalls *calls);

/* KITH_ERR_IO: "path: cannot <what>: <the text of the error number>". */
kith_status kith_io_error(const char *path, const char *what, int error_number);

/* Opens a file for reading (close-on-exec, retried when a signal interrupts it). */
kith_status kith_io_open_read(const char *path, int *file);
/* Reads exactly `count` bytes at `offset`; a file that ends before is KITH_ERR_IO: it has shrunk meanwhile. */
kith_status kith_io_read_at(int file, const char *path, void *bytes, size_t count, unsigned long long offset);
/* Takes -1. Nothing is lost when closing a file that was only read fails. */
void kith_io_close(int file);

#endif
