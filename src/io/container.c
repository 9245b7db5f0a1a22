/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout of an index file. All numbers are little-endian and unsigned. Checksums are XXH3, 64 bits, seed 0.
 *
 * The file is: header page, sections, table. Every section and the table start at the next multiple of 4,096 after
 * what stands before; the bytes between are zero; the file ends with the table. Sections stand in the order of the
 * table. So each offset follows from the lengths before it, and a reader accepts no other.
 *
 *   Header, at offset 0
 *   offset  size  field
 *        0     8  magic: 89 'K' 'i' 't' 'h' 0D 0A 1A (hexadecimal; the line end shows a transfer as text)
 *        8     2  major version, 1. A reader refuses a larger one
 *       10     2  minor version, 0. Raised by additions that an older reader may pass over; any is accepted
 *       12     4  features that a reader must know: none yet; a reader refuses a bit that it does not know
 *       16     8  length of the file
 *       24     8  offset of the table
 *       32     8  number of sections, at most 1,048,576
 *       40     8  checksum of the table
 *       48     8  reserved, zero
 *       56     8  checksum of bytes 0..55
 *       64  4032  zeros
 *
 *   Table, one entry of 48 bytes per section
 *        0     8  tag: 8 characters from '!' to '~'
 *        8     4  instance
 *       12     4  version of the section's content, at least 1
 *       16     4  flags: bit 0, a reader that does not know the tag may skip the section; others are refused
 *       20     4  reserved, zero
 *       24     8  offset
 *       32     8  length
 *       40     8  checksum of the content, without the padding
 *
 * No two entries have the same tag and instance.
 */
#include "io/container.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/error.h"
#include "base/memory.h"
#include "io/atomicfile.h"
#include "io/mappedfile.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "index files are used in place and are little-endian"
#endif

enum {
    VERSION_MAJOR = 1,
    VERSION_MINOR = 0,
    EAGER_BYTES_MAX = 1 << 20, /* a section up to here is hashed when it is asked for: 0.1 ms at the most */
};

static const unsigned char magic[8] = {0x89, 'K', 'i', 't', 'h', 0x0d, 0x0a, 0x1a};

typedef struct header {
    unsigned char magic[8];
    uint16_t version_major, version_minor;
    uint32_t features;
    uint64_t file_bytes, table_offset, section_count, table_checksum, reserved, header_checksum;
} header;

typedef struct entry {
    char tag[KITH_SECTION_TAG_BYTES];
    uint32_t instance, version, flags, reserved;
    uint64_t offset, bytes, checksum;
} entry;

_Static_assert(sizeof(header) == 64 && offsetof(header, header_checksum) == 56, "the header has no holes");
_Static_assert(sizeof(entry) == 48, "an entry has no holes");

static uint64_t align_up(uint64_t offset) {
    return (offset + KITH_SECTION_ALIGNMENT - 1) & ~(uint64_t)(KITH_SECTION_ALIGNMENT - 1);
}

static bool tag_is_valid(const char *tag) {
    for (size_t i = 0; i < KITH_SECTION_TAG_BYTES; i++)
        if (tag[i] < '!' || tag[i] > '~') return false;
    return true;
}

static int compare_names(const char *tag, uint32_t instance, const char *other_tag, uint32_t other_instance) {
    int order = memcmp(tag, other_tag, KITH_SECTION_TAG_BYTES);
    if (order != 0) return order;
    return instance < other_instance ? -1 : instance > other_instance;
}

/* ---- Writing ------------------------------------------------------------------------------------------- */

struct kith_container_writer {
    kith_atomicfile *file;
    entry *entries;
    size_t count, capacity;
    bool in_section;
    XXH3_state_t hash;
};

kith_status kith_container_writer_create(const char *path, kith_container_writer **out) {
    *out = NULL;
    kith_container_writer *writer;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *writer, &writer));
    kith_status status;
    KITH_GO(kith_atomicfile_create(path, &writer->file));
    KITH_GO(kith_atomicfile_write_zeros(writer->file, KITH_SECTION_ALIGNMENT)); /* the header comes at commit */
done:
    if (status == KITH_OK)
        *out = writer;
    else
        kith_container_writer_abort(writer);
    return status;
}

static kith_status pad(kith_container_writer *writer) {
    uint64_t position = kith_atomicfile_position(writer->file);
    return kith_atomicfile_write_zeros(writer->file, (size_t)(align_up(position) - position));
}

static kith_status end_section(kith_container_writer *writer) {
    if (!writer->in_section) return KITH_OK;
    entry *last = &writer->entries[writer->count - 1];
    last->bytes = kith_atomicfile_position(writer->file) - last->offset;
    last->checksum = XXH3_64bits_digest(&writer->hash);
    writer->in_section = false;
    return pad(writer);
}

kith_status kith_container_writer_begin(kith_container_writer *writer, const char *tag, uint32_t instance,
                                        uint32_t version, uint32_t flags) {
    const char *path = kith_atomicfile_path(writer->file);
    if (strnlen(tag, KITH_SECTION_TAG_BYTES + 1) != KITH_SECTION_TAG_BYTES || !tag_is_valid(tag))
        return kith_error(KITH_ERR_INTERNAL, "%s: section tag '%.9s' is not 8 printable characters", path, tag);
    if (version == 0 || (flags & ~(uint32_t)KITH_SECTION_SKIPPABLE) != 0)
        return kith_error(KITH_ERR_INTERNAL, "%s: section %s.%u: version %u, flags %#x", path, tag, instance,
                          version, flags);
    if (writer->count == KITH_SECTIONS_MAX)
        return kith_error(KITH_ERR_OVERFLOW, "%s: more than %d sections", path, KITH_SECTIONS_MAX);
    KITH_TRY(end_section(writer));
    if (writer->count == writer->capacity) {
        size_t wanted = kith_max_size(16, 2 * writer->capacity);
        KITH_TRY(kith_realloc(&writer->entries, writer->count, wanted, sizeof *writer->entries));
        writer->capacity = wanted;
    }
    entry *next = &writer->entries[writer->count++];
    *next = (entry){.instance = instance, .version = version, .flags = flags};
    memcpy(next->tag, tag, KITH_SECTION_TAG_BYTES);
    next->offset = kith_atomicfile_position(writer->file);
    (void)XXH3_64bits_reset(&writer->hash);
    writer->in_section = true;
    return KITH_OK;
}

kith_status kith_container_writer_write(kith_container_writer *writer, const void *bytes, size_t count) {
    if (!writer->in_section)
        return kith_error(KITH_ERR_INTERNAL, "%s: bytes outside a section", kith_atomicfile_path(writer->file));
    if (count == 0) return KITH_OK;
    KITH_TRY(kith_atomicfile_write(writer->file, bytes, count));
    (void)XXH3_64bits_update(&writer->hash, bytes, count);
    return KITH_OK;
}

kith_status kith_container_writer_add(kith_container_writer *writer, const char *tag, uint32_t instance,
                                      const void *bytes, size_t count) {
    KITH_TRY(kith_container_writer_begin(writer, tag, instance, 1, 0));
    return kith_container_writer_write(writer, bytes, count);
}

static int compare_entries(const void *a, const void *b) {
    const entry *left = *(const entry *const *)a, *right = *(const entry *const *)b;
    return compare_names(left->tag, left->instance, right->tag, right->instance);
}

static kith_status refuse_duplicate_entries(const kith_container_writer *writer) {
    const entry **sorted;
    KITH_TRY(kith_alloc(writer->count, sizeof(entry *), &sorted));
    for (size_t i = 0; i < writer->count; i++) sorted[i] = &writer->entries[i];
    if (writer->count > 1) qsort(sorted, writer->count, sizeof(entry *), compare_entries);
    kith_status status = KITH_OK;
    for (size_t i = 1; i < writer->count && status == KITH_OK; i++)
        if (compare_entries(&sorted[i - 1], &sorted[i]) == 0)
            status = kith_error(KITH_ERR_INTERNAL, "%s: section %.8s.%u is written twice",
                                kith_atomicfile_path(writer->file), sorted[i]->tag, sorted[i]->instance);
    kith_free(sorted);
    return status;
}

static kith_status write_table_and_header(kith_container_writer *writer) {
    KITH_TRY(refuse_duplicate_entries(writer));
    KITH_TRY(end_section(writer));
    size_t table_bytes = writer->count * sizeof(entry); /* at most 48 MiB */
    header head = {.version_major = VERSION_MAJOR, .version_minor = VERSION_MINOR};
    memcpy(head.magic, magic, sizeof magic);
    head.table_offset = kith_atomicfile_position(writer->file);
    head.file_bytes = head.table_offset + table_bytes;
    head.section_count = writer->count;
    head.table_checksum = XXH3_64bits(writer->entries, table_bytes);
    head.header_checksum = XXH3_64bits(&head, offsetof(header, header_checksum));
    KITH_TRY(kith_atomicfile_write(writer->file, writer->entries, table_bytes));
    return kith_atomicfile_write_at(writer->file, 0, &head, sizeof head);
}

kith_status kith_container_writer_commit(kith_container_writer *writer) {
    if (writer == NULL) return KITH_OK;
    kith_status status = write_table_and_header(writer);
    if (status == KITH_OK) {
        kith_atomicfile *file = writer->file;
        writer->file = NULL;
        status = kith_atomicfile_commit(file);
    }
    kith_container_writer_abort(writer);
    return status;
}

void kith_container_writer_abort(kith_container_writer *writer) {
    if (writer == NULL) return;
    kith_atomicfile_abort(writer->file);
    kith_free(writer->entries);
    kith_free(writer);
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

typedef struct slot {
    kith_section section;
    uint64_t checksum;
    bool asked_for, verified;
} slot;

struct kith_container {
    char *path;
    kith_mappedfile map; /* all zero when the bytes are borrowed */
    const unsigned char *data;
    size_t bytes;
    slot *slots;   /* in the order of the file */
    slot **sorted; /* by tag and instance */
    size_t count;
};

static kith_status section_error(kith_status status, const kith_container *container, const kith_section *section,
                                 const char *message) {
    return kith_error(status, "%s: section %s.%u at byte %zu: %s", container->path, section->tag, section->instance,
                      (size_t)((const unsigned char *)section->data - container->data), message);
}

kith_status kith_section_error(const kith_container *container, const kith_section *section, const char *format,
                               ...) {
    char message[400];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    return section_error(KITH_ERR_FORMAT, container, section, message);
}

/* Zero between `first` and `last`, which both lie inside the file. */
static kith_status check_padding(const kith_container *container, size_t first, size_t last) {
    for (size_t i = first; i < last; i++)
        if (container->data[i] != 0)
            return kith_error(KITH_ERR_CHECKSUM, "%s: byte %zu is %#x, but lies between sections and must be zero",
                              container->path, i, container->data[i]);
    return KITH_OK;
}

static kith_status read_header(const kith_container *container, header *head) {
    const char *path = container->path;
    if (container->bytes < sizeof magic || memcmp(container->data, magic, sizeof magic) != 0)
        return kith_error(KITH_ERR_FORMAT, "%s: not an index file of kith: its first 8 bytes are others", path);
    if (container->bytes < KITH_SECTION_ALIGNMENT)
        return kith_error(KITH_ERR_FORMAT, "%s: cut off: %zu bytes are less than the header's %d", path,
                          container->bytes, KITH_SECTION_ALIGNMENT);
    memcpy(head, container->data, sizeof *head);
    if (head->version_major > VERSION_MAJOR)
        return kith_error(KITH_ERR_VERSION, "%s: version %u.%u at byte 8; this kith reads up to version %d", path,
                          head->version_major, head->version_minor, VERSION_MAJOR);
    uint64_t checksum = XXH3_64bits(head, offsetof(header, header_checksum));
    if (checksum != head->header_checksum)
        return kith_error(KITH_ERR_CHECKSUM, "%s: header: checksum %016llx at byte 56, its bytes give %016llx",
                          path, (unsigned long long)head->header_checksum, (unsigned long long)checksum);
    if (head->version_major == 0 || head->reserved != 0)
        return kith_error(KITH_ERR_FORMAT, "%s: header: version %u, reserved field %#llx", path,
                          head->version_major, (unsigned long long)head->reserved);
    if (head->features != 0)
        return kith_error(KITH_ERR_VERSION, "%s: features %#x at byte 12; this kith knows none", path,
                          head->features);
    return check_padding(container, sizeof *head, KITH_SECTION_ALIGNMENT);
}

/* That the table fills the file from its offset to its end, and is what was written. */
static kith_status check_table_place(const kith_container *container, const header *head) {
    const char *path = container->path;
    if (head->file_bytes != container->bytes)
        return kith_error(KITH_ERR_FORMAT, "%s: %zu bytes, but the header's byte 16 says %llu: cut off or added to",
                          path, container->bytes, (unsigned long long)head->file_bytes);
    if (head->section_count > KITH_SECTIONS_MAX)
        return kith_error(KITH_ERR_FORMAT, "%s: %llu sections at byte 32, more than %d", path,
                          (unsigned long long)head->section_count, KITH_SECTIONS_MAX);
    uint64_t table_bytes = head->section_count * sizeof(entry);
    if (head->table_offset < KITH_SECTION_ALIGNMENT || head->table_offset % KITH_SECTION_ALIGNMENT != 0 ||
        head->table_offset > container->bytes || container->bytes - head->table_offset != table_bytes)
        return kith_error(KITH_ERR_FORMAT, "%s: a table of %llu sections cannot stand at byte %llu of %zu", path,
                          (unsigned long long)head->section_count, (unsigned long long)head->table_offset,
                          container->bytes);
    uint64_t checksum = XXH3_64bits(container->data + head->table_offset, (size_t)table_bytes);
    if (checksum != head->table_checksum)
        return kith_error(KITH_ERR_CHECKSUM, "%s: table at byte %llu: checksum %016llx, its bytes give %016llx",
                          path, (unsigned long long)head->table_offset, (unsigned long long)head->table_checksum,
                          (unsigned long long)checksum);
    return KITH_OK;
}

/* Entry i, which has to start at *offset; moves that to where the next one starts. */
static kith_status read_entry(const kith_container *container, const header *head, size_t i, uint64_t *offset,
                              slot *out) {
    const char *path = container->path;
    entry item;
    size_t at = (size_t)head->table_offset + i * sizeof item;
    memcpy(&item, container->data + at, sizeof item);
    if (!tag_is_valid(item.tag))
        return kith_error(KITH_ERR_FORMAT, "%s: the tag at byte %zu is not 8 printable characters", path, at);
    if (item.version == 0 || item.reserved != 0)
        return kith_error(KITH_ERR_FORMAT, "%s: section %.8s.%u, entry at byte %zu: version %u, reserved field %#x",
                          path, item.tag, item.instance, at, item.version, item.reserved);
    if ((item.flags & ~(uint32_t)KITH_SECTION_SKIPPABLE) != 0)
        return kith_error(KITH_ERR_VERSION, "%s: section %.8s.%u: flags %#x at byte %zu are not known", path,
                          item.tag, item.instance, item.flags, at + offsetof(entry, flags));
    if (item.offset != *offset)
        return kith_error(KITH_ERR_FORMAT, "%s: section %.8s.%u: starts at %llu (byte %zu), but %llu comes next",
                          path, item.tag, item.instance, (unsigned long long)item.offset,
                          at + offsetof(entry, offset), (unsigned long long)*offset);
    if (item.bytes > head->table_offset - item.offset)
        return kith_error(KITH_ERR_FORMAT, "%s: section %.8s.%u: %llu bytes (byte %zu), but %llu are left", path,
                          item.tag, item.instance, (unsigned long long)item.bytes, at + offsetof(entry, bytes),
                          (unsigned long long)(head->table_offset - item.offset));
    memcpy(out->section.tag, item.tag, KITH_SECTION_TAG_BYTES);
    out->section.instance = item.instance;
    out->section.version = item.version;
    out->section.flags = item.flags;
    out->section.data = container->data + item.offset;
    out->section.bytes = (size_t)item.bytes;
    out->checksum = item.checksum;
    *offset = align_up(item.offset + item.bytes); /* at most table_offset, which is aligned */
    return KITH_OK;
}

static int compare_slots(const void *a, const void *b) {
    const kith_section *left = &(*(slot *const *)a)->section, *right = &(*(slot *const *)b)->section;
    return compare_names(left->tag, left->instance, right->tag, right->instance);
}

static kith_status sort_slots(kith_container *container) {
    for (size_t i = 0; i < container->count; i++) container->sorted[i] = &container->slots[i];
    if (container->count > 1) qsort(container->sorted, container->count, sizeof(slot *), compare_slots);
    for (size_t i = 1; i < container->count; i++)
        if (compare_slots(&container->sorted[i - 1], &container->sorted[i]) == 0)
            return section_error(KITH_ERR_FORMAT, container, &container->sorted[i]->section,
                                 "there are two sections of this name");
    return KITH_OK;
}

static kith_status read_table(kith_container *container) {
    header head;
    KITH_TRY(read_header(container, &head));
    KITH_TRY(check_table_place(container, &head));
    size_t count = (size_t)head.section_count; /* the file holds as many entries, so that this is no lie */
    KITH_TRY(kith_alloc_zeroed(count, sizeof(slot), &container->slots));
    KITH_TRY(kith_alloc(count, sizeof(slot *), &container->sorted));
    uint64_t offset = KITH_SECTION_ALIGNMENT;
    for (size_t i = 0; i < count; i++) KITH_TRY(read_entry(container, &head, i, &offset, &container->slots[i]));
    container->count = count;
    if (offset != head.table_offset)
        return kith_error(KITH_ERR_FORMAT, "%s: the sections end at byte %llu, but the table starts at %llu",
                          container->path, (unsigned long long)offset, (unsigned long long)head.table_offset);
    return sort_slots(container);
}

static kith_status make(const char *name, kith_container **out) {
    kith_container *container;
    KITH_TRY(kith_alloc_zeroed(1, sizeof *container, &container));
    size_t name_bytes = strlen(name) + 1;
    kith_status status = kith_alloc(name_bytes, 1, &container->path);
    if (status != KITH_OK) {
        kith_free(container);
        return status;
    }
    memcpy(container->path, name, name_bytes);
    *out = container;
    return KITH_OK;
}

static kith_status open_bytes(kith_container *container, const void *data, size_t bytes, kith_container **out) {
    container->data = data;
    container->bytes = bytes;
    kith_status status = read_table(container);
    if (status == KITH_OK)
        *out = container;
    else
        kith_container_close(container);
    return status;
}

kith_status kith_container_open(const char *path, kith_container **out) {
    *out = NULL;
    kith_container *container;
    KITH_TRY(make(path, &container));
    kith_status status = kith_mappedfile_open(path, &container->map);
    if (status != KITH_OK) {
        kith_container_close(container);
        return status;
    }
    return open_bytes(container, container->map.data, container->map.bytes, out);
}

kith_status kith_container_open_memory(const char *name, const void *data, size_t bytes, kith_container **out) {
    *out = NULL;
    kith_container *container;
    KITH_TRY(make(name, &container));
    return open_bytes(container, data, bytes, out);
}

void kith_container_close(kith_container *container) {
    if (container == NULL) return;
    kith_mappedfile_close(&container->map);
    kith_free(container->slots);
    kith_free(container->sorted);
    kith_free(container->path);
    kith_free(container);
}

const char *kith_container_path(const kith_container *container) { return container->path; }
size_t kith_container_section_count(const kith_container *container) { return container->count; }
const kith_section *kith_container_section_at(const kith_container *container, size_t i) {
    return &container->slots[i].section;
}

static kith_status verify_slot(const kith_container *container, slot *item) {
    if (item->verified) return KITH_OK;
    uint64_t checksum = XXH3_64bits(item->section.data, item->section.bytes);
    if (checksum != item->checksum) {
        char message[96];
        (void)snprintf(message, sizeof message, "checksum %016llx, its %zu bytes give %016llx",
                       (unsigned long long)item->checksum, item->section.bytes, (unsigned long long)checksum);
        return section_error(KITH_ERR_CHECKSUM, container, &item->section, message);
    }
    item->verified = true;
    return KITH_OK;
}

static slot *search(const kith_container *container, const char *tag, uint32_t instance) {
    size_t first = 0, last = container->count;
    while (first < last) {
        size_t middle = first + (last - first) / 2;
        slot *candidate = container->sorted[middle];
        int order = compare_names(tag, instance, candidate->section.tag, candidate->section.instance);
        if (order == 0) return candidate;
        if (order < 0)
            last = middle;
        else
            first = middle + 1;
    }
    return NULL;
}

kith_status kith_container_find(kith_container *container, const char *tag, uint32_t instance, uint32_t version_max,
                                const kith_section **out) {
    *out = NULL;
    slot *found = search(container, tag, instance);
    if (found == NULL) return KITH_OK;
    if (found->section.version > version_max) {
        char message[96];
        (void)snprintf(message, sizeof message, "version %u; this kith reads up to version %u",
                       found->section.version, version_max);
        return section_error(KITH_ERR_VERSION, container, &found->section, message);
    }
    if (found->section.bytes <= EAGER_BYTES_MAX) KITH_TRY(verify_slot(container, found));
    found->asked_for = true;
    *out = &found->section;
    return KITH_OK;
}

kith_status kith_container_need(kith_container *container, const char *tag, uint32_t instance, uint32_t version_max,
                                const kith_section **out) {
    KITH_TRY(kith_container_find(container, tag, instance, version_max, out));
    if (*out == NULL)
        return kith_error(KITH_ERR_FORMAT, "%s: there is no section %s.%u", container->path, tag, instance);
    return KITH_OK;
}

kith_status kith_container_need_items(kith_container *container, const char *tag, uint32_t instance, size_t count,
                                      size_t each, const void **out) {
    *out = NULL;
    const kith_section *section;
    KITH_TRY(kith_container_need(container, tag, instance, 1, &section));
    size_t bytes;
    if (kith_mul_overflows(count, each, &bytes) || bytes != section->bytes)
        return kith_section_error(container, section, "%zu bytes, but %zu items of %zu bytes belong there",
                                  section->bytes, count, each);
    *out = section->data;
    return KITH_OK;
}

kith_status kith_container_finish(const kith_container *container) {
    for (size_t i = 0; i < container->count; i++) {
        const slot *item = &container->slots[i];
        if (!item->asked_for && (item->section.flags & KITH_SECTION_SKIPPABLE) == 0)
            return section_error(KITH_ERR_VERSION, container, &item->section,
                                 "this kith does not know it, and it may not be skipped");
    }
    return KITH_OK;
}

kith_status kith_container_verify(kith_container *container) {
    for (size_t i = 0; i < container->count; i++) {
        KITH_TRY(verify_slot(container, &container->slots[i]));
        const kith_section *section = &container->slots[i].section;
        size_t end = (size_t)((const unsigned char *)section->data - container->data) + section->bytes;
        KITH_TRY(check_padding(container, end, (size_t)align_up(end)));
    }
    return KITH_OK;
}
