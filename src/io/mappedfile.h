/* SPDX-License-Identifier: Apache-2.0
 *
 * mappedfile.h: a whole file in memory, read-only, without reading it.
 *
 * Files that kith writes are never changed in place: a new one is renamed over the old name, and who has the old one
 * mapped keeps it. A file that something else shortens while it is mapped kills the reader with SIGBUS, as with
 * every program that maps files.
 */
#ifndef KITH_IO_MAPPEDFILE_H
#define KITH_IO_MAPPEDFILE_H

#include <stddef.h>

#include "kith/status.h"

/* All zero is no file. */
typedef struct kith_mappedfile {
    const unsigned char *data; /* NULL when the file is empty; else at the start of a page */
    size_t bytes;
} kith_mappedfile;

/* KITH_ERR_IO for what cannot be opened or mapped, and for anything but a regular file. */
kith_status kith_mappedfile_open(const char *path, kith_mappedfile *out);
/* The same for a file that is open, which may be closed afterwards; `path` is for messages. */
kith_status kith_mappedfile_map(const char *path, int file, kith_mappedfile *out);
/* Tells the system that bytes of a mapped file will be read here and there: it then reads no more than is asked for. Bytes
 * that are not mapped are left alone. */
void kith_mappedfile_expect_random(const void *data, size_t bytes);
void kith_mappedfile_close(kith_mappedfile *file);

#endif
