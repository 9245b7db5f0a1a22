/* SPDX-License-Identifier: Apache-2.0
 *
 * atomicfile.h: a file that appears under its name whole and on disk, or not at all.
 *
 * Bytes go to a temporary file in the same folder (".kith-<process>-<number>.tmp"); commit syncs it, renames it over
 * the name and syncs the folder. Until the rename whatever stood under the name stays. On any failure the
 * temporary file is removed; only a killed process or a lost machine leaves one behind.
 *
 * A symbolic link is followed: the file it leads to is replaced. The permissions of a replaced file are kept.
 */
#ifndef KITH_IO_ATOMICFILE_H
#define KITH_IO_ATOMICFILE_H

#include <stddef.h>
#include <stdint.h>

#include "kith/status.h"

typedef struct kith_atomicfile kith_atomicfile;

/* KITH_ERR_IO when the folder or the file cannot be made, or when something other than a regular file has the name.
 * Ends with commit or abort. */
kith_status kith_atomicfile_create(const char *path, kith_atomicfile **out);
/* Appends. After a failure every further call fails, and so does commit. */
kith_status kith_atomicfile_write(kith_atomicfile *file, const void *bytes, size_t count);
/* Appends `count` zeros. */
kith_status kith_atomicfile_write_zeros(kith_atomicfile *file, size_t count);
/* Overwrites bytes that were appended before: a header whose fields are known at the end only. */
kith_status kith_atomicfile_write_at(kith_atomicfile *file, uint64_t offset, const void *bytes, size_t count);
/* Bytes appended so far. */
uint64_t kith_atomicfile_position(const kith_atomicfile *file);
/* The name, as it was given to create. */
const char *kith_atomicfile_path(const kith_atomicfile *file);
/* Makes it so, and frees `file` whether it succeeds or not. Takes NULL. When only the sync of the folder fails, the
 * new file is in place, and the error says so. */
kith_status kith_atomicfile_commit(kith_atomicfile *file);
/* Removes what was written and frees `file`. Takes NULL. Leaves the thread's error message as it is. */
void kith_atomicfile_abort(kith_atomicfile *file);

#endif
