/* SPDX-License-Identifier: Apache-2.0
 *
 * faults.h: for tests: the n-th allocation or the n-th system call of src/io fails; a folder of the test's own.
 */
#ifndef KITH_TESTS_FAULTS_H
#define KITH_TESTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

/* An allocator that can be told to fail, fills what it hands out with FAULTS_BYTE, and ends the program when it frees a
 * block past whose end something was written. No block of kith's may be live. */
void faults_install(void);
enum { FAULTS_BYTE = 0xa5 };
/* The n-th allocation from now on (1: the next) fails, once; 0: none. Installs the allocator where it is not. */
void faults_fail_allocation(size_t n);
/* Allocations since the last call of faults_fail_allocation. */
size_t faults_allocation_count(void);
/* No single allocation above this many bytes succeeds; 0: no limit. */
void faults_limit_allocation(size_t bytes);
/* The largest allocation that was asked for since the last call of faults_fail_allocation. */
size_t faults_allocation_bytes_max(void);

/* The n-th system call from now on (1: the next) fails with `error_number`; with `sticky` all after it of the same
 * kind as well, but for close and unlink. Installs its table at the first call. */
void faults_fail_syscall(size_t n, int error_number, bool sticky);
/* Calls since the last call of faults_fail_syscall. */
size_t faults_syscall_count(void);
/* Every read and write moves at most this many bytes; 0: no limit. */
void faults_short_transfers(size_t bytes_max);

/* A new folder under $TMPDIR or /tmp; one of 16 static buffers, in turn. */
const char *faults_folder(void);
/* folder/name; one of eight static buffers, in turn. */
const char *faults_path(const char *folder, const char *name);
/* Files in the folder. */
size_t faults_file_count(const char *folder);
/* Removes the folder and the files in it. */
void faults_folder_remove(const char *folder);

/* The file's bytes in a malloc block (NULL when there is none). */
unsigned char *faults_read_file(const char *path, size_t *bytes);
/* Both are there, with the same bytes. */
bool faults_same_files(const char *a, const char *b);
void faults_write_file(const char *path, const void *bytes, size_t count);

#endif
