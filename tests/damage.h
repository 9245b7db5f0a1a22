/* SPDX-License-Identifier: Apache-2.0
 *
 * damage.h: for tests of index files: a file in memory that is damaged, with checksums that notice it or that are made
 * right again, and an index from a file that nobody vouches for put to use.
 */
#ifndef KITH_TESTS_DAMAGE_H
#define KITH_TESTS_DAMAGE_H

#include <stdbool.h>

#include "kith/kith.h"

/* An index file in memory, at a multiple of 64 as a mapped one would be. Free the bytes. */
typedef struct damage_image {
    unsigned char *bytes;
    size_t count;
} damage_image;

damage_image damage_image_of(const kith_index *index);
/* As kith_index_map opens a file, after all checksums with `verify`. Its name is "image". */
kith_status damage_open(const damage_image *file, bool verify, kith_index **out);

/* The section table: see container.c. An entry has its section's offset in byte 24 and its length in byte 32. */
uint64_t damage_get(const unsigned char *at);
void damage_put(unsigned char *at, uint64_t value);
size_t damage_section_count(const damage_image *file);
unsigned char *damage_entry(const damage_image *file, size_t section);
/* The first section with this tag, which there is. */
unsigned char *damage_content(const damage_image *file, const char *tag);
/* Makes all checksums right. */
void damage_repair(const damage_image *file);

/* Flips each bit of each section, or of longer ones `most` and a little over, one at a time with checksums that are
 * right, and puts the index to use where it opens: whatever is found, nothing crashes. */
void damage_flip_all(const damage_image *file, size_t most);

/* One field set to a value: where it is noticed, and what the message says. */
typedef struct damage_lie {
    const char *tag;
    size_t offset, bytes;
    uint64_t value;
    bool at_open; /* else by verify and load */
    const char *named;
} damage_lie;

/* Each lie alone is KITH_ERR_FORMAT. */
void damage_check_lies(const damage_image *file, const damage_lie *lies, size_t count);

#endif
