/* SPDX-License-Identifier: Apache-2.0 */
#include "damage.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "api/files.h"
#include "faults.h"

enum { ENTRY_BYTES = 48, DIM_MAX = 64, COUNT_MAX = 64, LIST_MAX = 8 };

damage_image damage_image_of(const kith_index *index) {
    const char *folder = faults_folder(), *path = faults_path(folder, "image.kith");
    damage_image out = {0};
    cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
    unsigned char *content = faults_read_file(path, &out.count);
    out.bytes = aligned_alloc(64, (out.count + 63) / 64 * 64);
    memcpy(out.bytes, content, out.count);
    free(content);
    faults_folder_remove(folder);
    return out;
}

kith_status damage_open(const damage_image *file, bool verify, kith_index **out) {
    kith_container *container;
    *out = NULL;
    kith_status status = kith_container_open_memory("image", file->bytes, file->count, &container);
    if (status != KITH_OK) return status;
    status = verify ? kith_container_verify(container) : KITH_OK;
    if (status == KITH_OK) return kith_index_open_container(container, out);
    kith_container_close(container);
    return status;
}

uint64_t damage_get(const unsigned char *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

void damage_put(unsigned char *at, uint64_t value) { memcpy(at, &value, sizeof value); }

size_t damage_section_count(const damage_image *file) { return (size_t)damage_get(file->bytes + 32); }

unsigned char *damage_entry(const damage_image *file, size_t section) {
    return file->bytes + damage_get(file->bytes + 24) + ENTRY_BYTES * section;
}

static unsigned char *section_of(const damage_image *file, size_t section, size_t *bytes) {
    *bytes = (size_t)damage_get(damage_entry(file, section) + 32);
    return file->bytes + damage_get(damage_entry(file, section) + 24);
}

unsigned char *damage_content(const damage_image *file, const char *tag) {
    size_t bytes;
    for (size_t s = 0; s < damage_section_count(file); s++)
        if (memcmp(damage_entry(file, s), tag, 8) == 0) return section_of(file, s, &bytes);
    cr_assert_fail("no section %s", tag);
    return NULL;
}

void damage_repair(const damage_image *file) {
    size_t count = damage_section_count(file), bytes;
    for (size_t s = 0; s < count; s++) {
        const unsigned char *content = section_of(file, s, &bytes);
        damage_put(damage_entry(file, s) + 40, XXH3_64bits(content, bytes));
    }
    damage_put(file->bytes + 40, XXH3_64bits(damage_entry(file, 0), ENTRY_BYTES * count));
    damage_put(file->bytes + 56, XXH3_64bits(file->bytes, 56));
}

/* ---- An index that nobody vouches for ------------------------------------------------------------------------- */

static const float row[DIM_MAX] = {1, 2, 3, 4};

static void search(const kith_index *index, const kith_filter *filter) {
    kith_view view = {row, KITH_F32, 1, kith_index_dim(index), 0};
    int64_t ids[COUNT_MAX];
    float distances[COUNT_MAX];
    kith_range_result *range;
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    (void)!kith_index_search(index, &view, kith_index_count(index), &params, ids, distances, NULL);
    (void)!kith_index_range_search(index, &view, 3, &params, &range);
    kith_range_result_free(range);
}

/* All that only reads. */
static void use(const kith_index *index) {
    float out[DIM_MAX];
    uint64_t numbers[LIST_MAX];
    kith_graph_stats stats = {.size = sizeof stats};
    size_t count;
    cr_assert_eq(kith_index_memory(index, NULL, 0, &count), KITH_OK);
    cr_assert_eq(kith_index_list_sizes(index, numbers, LIST_MAX, &count), KITH_OK);
    (void)!kith_index_graph_stats(index, &stats, numbers, LIST_MAX, &count);
    count = kith_index_count(index);
    if (kith_index_dim(index) > DIM_MAX || count == 0 || count > COUNT_MAX) return;
    kith_filter *filter;
    cr_assert_eq(kith_filter_bitset((uint64_t[]){~0ull}, 64, &filter), KITH_OK);
    search(index, NULL);
    search(index, filter);
    kith_filter_free(filter);
    (void)!kith_index_reconstruct(index, (int64_t[]){1}, 1, out);
}

static void change(kith_index *index) {
    kith_view view = {row, KITH_F32, 1, kith_index_dim(index), 0};
    (void)!kith_index_add(index, &view, NULL, NULL);
    (void)!kith_index_remove(index, (int64_t[]){1, 3, 7}, 3, NULL);
    (void)!kith_index_add(index, &view, (int64_t[]){2}, NULL);
}

static void use_clone(const kith_index *index) {
    kith_index *clone;
    kith_status verified = index->vtable->verify(index);
    cr_assert_eq(kith_index_clone(index, &clone), verified);
    if (verified != KITH_OK) return;
    if (kith_index_dim(clone) <= DIM_MAX) change(clone);
    use(clone);
    kith_index_free(clone);
}

static void use_if_it_opens(const damage_image *file) {
    kith_index *index;
    if (damage_open(file, false, &index) != KITH_OK) return;
    use(index);
    use_clone(index);
    kith_index_free(index);
}

/* ---- Damage --------------------------------------------------------------------------------------------------- */

void damage_flip_all(const damage_image *file, size_t most) {
    for (size_t s = 0; s < damage_section_count(file); s++) {
        size_t bytes;
        unsigned char *content = section_of(file, s, &bytes);
        size_t step = bytes * 8 / most > 1 ? bytes * 8 / most | 1 : 1;
        for (size_t bit = 0; bit < bytes * 8; bit += step) {
            content[bit / 8] ^= (unsigned char)(1 << bit % 8);
            damage_repair(file);
            use_if_it_opens(file);
            content[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    }
    damage_repair(file);
}

void damage_check_lies(const damage_image *file, const damage_lie *lies, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unsigned char *at = damage_content(file, lies[i].tag) + lies[i].offset;
        uint64_t before = 0;
        memcpy(&before, at, lies[i].bytes);
        memcpy(at, &lies[i].value, lies[i].bytes);
        damage_repair(file);
        kith_index *index;
        kith_status status = damage_open(file, true, &index);
        if (!lies[i].at_open) {
            cr_assert_eq(status, KITH_OK, "lie %zu: %s", i, kith_error_message());
            status = index->vtable->verify(index);
            kith_index_free(index);
        }
        cr_assert_eq(status, KITH_ERR_FORMAT, "lie %zu: %s", i, kith_status_name(status));
        cr_assert_not_null(strstr(kith_error_message(), lies[i].named), "lie %zu: '%s'", i, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), "image: "), "lie %zu: '%s'", i, kith_error_message());
        memcpy(at, &before, lies[i].bytes);
        damage_repair(file);
    }
}
