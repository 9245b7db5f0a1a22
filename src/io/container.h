/* SPDX-License-Identifier: Apache-2.0
 *
 * container.h: the file that holds an index, whatever the index is: named sections, each with a checksum, each at
 * a multiple of 4,096 bytes, so that a section of a mapped file is used in place. container.c gives the layout.
 *
 * A section has a tag of 8 characters, by habit 4 for the part that owns it and 4 for what it is ("FLATVECS"), and
 * an instance number that tells apart parts of one kind: in an index made of indexes (transform, structure, code,
 * refine, shards) the parts are numbered from the outermost, 0, inwards in the order of the spec. So every part
 * adds sections of its own and none knows those of another.
 *
 * A section also has a version, which its owner raises when its content changes: a reader names the newest one that
 * it understands. A section that a reader may do without is written with KITH_SECTION_SKIPPABLE; any other that is
 * in the file and that nobody asked for is an error (kith_container_finish): it would be ignored data.
 */
#ifndef KITH_IO_CONTAINER_H
#define KITH_IO_CONTAINER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kith/status.h"

enum { KITH_SECTION_ALIGNMENT = 4096, KITH_SECTION_TAG_BYTES = 8, KITH_SECTIONS_MAX = 1 << 20 };

/* Flags of a section. Bits that are not named here are refused. */
enum { KITH_SECTION_SKIPPABLE = 1 };

/* ---- Writing ------------------------------------------------------------------------------------------- */

typedef struct kith_container_writer kith_container_writer;

/* Starts a file that gets its name at commit (atomicfile.h). Ends with commit or abort. */
kith_status kith_container_writer_create(const char *path, kith_container_writer **out);
/* Starts a section and ends the one before. `tag`: 8 characters from '!' to '~'; version >= 1. A pair of tag and
 * instance that is there already is refused at commit. */
kith_status kith_container_writer_begin(kith_container_writer *writer, const char *tag, uint32_t instance,
                                        uint32_t version, uint32_t flags);
/* Appends to the section begun last: in as many pieces as the caller likes. */
kith_status kith_container_writer_write(kith_container_writer *writer, const void *bytes, size_t count);
/* A whole section of version 1 without flags. */
kith_status kith_container_writer_add(kith_container_writer *writer, const char *tag, uint32_t instance,
                                      const void *bytes, size_t count);
/* Writes table and header, syncs, renames; frees the writer whether it succeeds or not. Takes NULL. */
kith_status kith_container_writer_commit(kith_container_writer *writer);
/* Removes what was written and frees the writer. Takes NULL. Leaves the thread's error message as it is. */
void kith_container_writer_abort(kith_container_writer *writer);

/* ---- Reading ------------------------------------------------------------------------------------------- */

typedef struct kith_section {
    char tag[KITH_SECTION_TAG_BYTES + 1];
    uint32_t instance, version, flags;
    const void *data; /* in the mapped file, at a multiple of 4,096; valid until close */
    size_t bytes;
} kith_section;

/* A file that is open. Its functions are for one thread at a time; the bytes of its sections for any. */
typedef struct kith_container kith_container;

/* Maps the file; checks header, table, and that sections and paddings fill it exactly. Costs two pages, whatever
 * the file's size. Errors name the file, the section, the offset and the value. */
kith_status kith_container_open(const char *path, kith_container **out);
/* The same on bytes in memory, borrowed until close and aligned to 64; `name` stands for the file in messages. */
kith_status kith_container_open_memory(const char *name, const void *data, size_t bytes, kith_container **out);
/* Takes NULL. */
void kith_container_close(kith_container *container);

/* The name to be used in messages. */
const char *kith_container_path(const kith_container *container);
/* All sections, in the order of the file. */
size_t kith_container_section_count(const kith_container *container);
const kith_section *kith_container_section_at(const kith_container *container, size_t i);

/* The section, or NULL and KITH_OK when there is none. The checksum of a section of at most 1 MiB is checked at
 * once; that of a larger one by kith_container_verify alone. KITH_ERR_VERSION: newer than version_max. */
kith_status kith_container_find(kith_container *container, const char *tag, uint32_t instance, uint32_t version_max,
                                const kith_section **out);
/* The same, and KITH_ERR_FORMAT when there is none. */
kith_status kith_container_need(kith_container *container, const char *tag, uint32_t instance, uint32_t version_max,
                                const kith_section **out);
/* The bytes of a section of version 1 that has to hold exactly `count` items of `each` bytes. */
kith_status kith_container_need_items(kith_container *container, const char *tag, uint32_t instance, size_t count,
                                      size_t each, const void **out);
/* KITH_ERR_VERSION when there is a section that nobody asked for and that is not skippable. To be called when
 * everything has been asked for. */
kith_status kith_container_finish(const kith_container *container);
/* Reads the whole file: every checksum, and that every padding byte is zero. After this and open no bit of the file
 * can differ from what was written. */
kith_status kith_container_verify(kith_container *container);

/* KITH_ERR_FORMAT with "path: section TAG.instance: " before the message: for owners that find bad content. */
kith_status kith_section_error(const kith_container *container, const kith_section *section, const char *format,
                               ...) __attribute__((format(printf, 3, 4)));

#endif
