/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_index.c: an index file that nobody vouches for: opened in place, searched, verified; and, where it passes for an
 * index, copied, changed, saved and loaded.
 *
 * First byte 0: the rest is the file as it is. Else the rest are sections, of which a file with right checksums is
 * made: a byte that picks the tag, one for the instance, the length as a 16-bit little-endian number (cut to what there
 * is), the content. make_corpus.py writes such inputs from index files.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "api/files.h"

#define REQUIRE(condition)                                                                                         \
    do {                                                                                                           \
        if (!(condition)) {                                                                                        \
            (void)fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, kith_error_message());       \
            abort();                                                                                               \
        }                                                                                                          \
    } while (0)

enum { PAGE = 4096, SECTIONS_MAX = 24, HEAD_BYTES = 4, ENTRY_BYTES = 48, K_MAX = 50, DEGREES = 20 };
/* make_corpus.py reads this list. Only append: inputs hold places in it. */
static const char *const tags[] = {
    "INDXMETA", "FLATMETA", "FLATVECS", "FLATNORM", "FLATROWI", "FUZZFUZZ", "HNSWMETA", "HNSWENTR",
    "HNSWROWS", "HNSWSIDE", "HNSWLINK", "HNSWROWI", "CODEMETA", "SQRANGES", "PQCDHEAD", "PQCDBOOK",
    "RABQHEAD", "RABQMEAN", "LINEHEAD", "LINEMEAN", "IVFLMETA", "IVFLCENT", "IVFLPROJ", "IVFLCOAR",
    "IVFLSIZE", "IVFLCODE", "IVFLNIDS", "CROWMETA", "CROWCODE", "CROWROWI", "TRNSHEAD", "TRNSMEAN",
    "TRNSMATX", "TRNSBACK", "TRNSEIGN", "TRNSSIGN", "FILEROWS", "HNSWPACK",
};

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* ---- A file from sections ------------------------------------------------------------------------------- */

static size_t pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

/* Appends one section and its entry of the table; returns where the next one goes. */
static size_t put_section(unsigned char *file, size_t at, unsigned char *entry, const char *tag, uint32_t instance,
                          const uint8_t *content, size_t length) {
    memcpy(file + at, content, length);
    memcpy(entry, tag, 8);
    kith_put_u32(entry + 8, instance);
    kith_put_u32(entry + 12, 1);
    kith_put_u64(entry + 24, at);
    kith_put_u64(entry + 32, length);
    kith_put_u64(entry + 40, XXH3_64bits(content, length));
    return pages(at + length);
}

static void put_header(unsigned char *file, size_t table, const unsigned char *entries, size_t section_count) {
    static const unsigned char magic[8] = {0x89, 'K', 'i', 't', 'h', 0x0d, 0x0a, 0x1a};
    memcpy(file + table, entries, section_count * ENTRY_BYTES);
    memcpy(file, magic, sizeof magic);
    file[8] = 1;
    kith_put_u64(file + 16, table + section_count * ENTRY_BYTES);
    kith_put_u64(file + 24, table);
    kith_put_u64(file + 32, section_count);
    kith_put_u64(file + 40, XXH3_64bits(entries, section_count * ENTRY_BYTES));
    kith_put_u64(file + 56, XXH3_64bits(file, 56));
}

static unsigned char *make_file(const uint8_t *bytes, size_t count, size_t *file_bytes) {
    unsigned char entries[SECTIONS_MAX * ENTRY_BYTES] = {0};
    size_t capacity = pages(count) + (2 * SECTIONS_MAX + 2) * PAGE, at = PAGE, sections = 0;
    unsigned char *file = aligned_alloc(PAGE, capacity);
    REQUIRE(file != NULL);
    memset(file, 0, capacity);
    for (size_t i = 0; i + HEAD_BYTES <= count && sections < SECTIONS_MAX; sections++) {
        const char *tag = tags[bytes[i] % (sizeof tags / sizeof *tags)];
        uint32_t instance = bytes[i + 1];
        size_t length = bytes[i + 2] | (size_t)bytes[i + 3] << 8;
        i += HEAD_BYTES;
        if (length > count - i) length = count - i;
        at = put_section(file, at, entries + sections * ENTRY_BYTES, tag, instance, bytes + i, length);
        i += length;
    }
    put_header(file, at, entries, sections);
    *file_bytes = at + sections * ENTRY_BYTES;
    return file;
}

static unsigned char *raw_file(const uint8_t *bytes, size_t count, size_t *file_bytes) {
    unsigned char *file = aligned_alloc(PAGE, pages(count + 1));
    REQUIRE(file != NULL);
    if (count > 0) memcpy(file, bytes, count);
    *file_bytes = count;
    return file;
}

/* ---- What is done with it ------------------------------------------------------------------------------- */

static float query[KITH_DIM_MAX] = {1, -2, 3};

/* What a search may end with: transforms may leave nothing, or nothing finite, of a query. */
static bool is_search_status(const kith_index *index, kith_status status) {
    if (kith_index_count(index) == 0) return status == KITH_ERR_EMPTY || status == KITH_ERR_NOT_TRAINED;
    if (status == KITH_ERR_NOT_FOUND) return kith_index_wants_vectors(index); /* no file is attached */
    return status == KITH_OK || status == KITH_ERR_RANGE || status == KITH_ERR_ZERO_VECTOR ||
           status == KITH_ERR_NOT_FINITE || status == KITH_ERR_NOT_TRAINED;
}

static void search(const kith_index *index, bool trusted) {
    size_t count = kith_index_count(index), k = count < K_MAX ? count : K_MAX, found;
    kith_view view = {query, KITH_F32, 1, kith_index_dim(index), 0};
    int64_t ids[K_MAX];
    float distances[K_MAX];
    kith_filter *filter;
    kith_range_result *range;
    kith_search_params params;
    kith_search_params_init(&params);
    REQUIRE(kith_filter_range(0, 20, &filter) == KITH_OK);
    for (int filtered = 0; filtered < 2; filtered++) {
        params.filter = filtered ? filter : NULL;
        params.error_percent = filtered ? 0 : 100;
        kith_status status = kith_index_search(index, &view, k, &params, ids, distances, &found);
        REQUIRE(is_search_status(index, status));
        for (size_t i = 0; i < k && trusted && status == KITH_OK; i++)
            REQUIRE(i >= found || (ids[i] >= 0 && !isnan(distances[i])));
        status = kith_index_range_search(index, &view, 10, &params, &range);
        REQUIRE(is_search_status(index, status) || status == KITH_ERR_UNSUPPORTED);
        kith_range_result_free(range);
    }
    kith_filter_free(filter);
}

/* All that only asks. */
static void ask(const kith_index *index) {
    uint64_t degrees[DEGREES], sizes[DEGREES];
    kith_graph_stats stats = {.size = sizeof stats};
    float *out = malloc(kith_index_dim(index) * sizeof *out);
    int64_t id = 3;
    size_t count;
    REQUIRE(out != NULL);
    kith_status status = kith_index_reconstruct(index, &id, 1, out);
    REQUIRE(status == KITH_OK || status == KITH_ERR_NOT_FOUND || status == KITH_ERR_UNSUPPORTED);
    free(out);
    REQUIRE(kith_index_memory(index, NULL, 0, &count) == KITH_OK);
    REQUIRE(kith_index_list_sizes(index, sizes, DEGREES, &count) == KITH_OK);
    status = kith_index_graph_stats(index, &stats, degrees, DEGREES, &count);
    REQUIRE(status == KITH_OK || status == KITH_ERR_UNSUPPORTED);
    REQUIRE(stats.reachable_count <= stats.node_count && stats.mutual_count <= stats.link_count);
}

static void save_and_load(const kith_index *index) {
    char path[64];
    kith_index *loaded;
    (void)snprintf(path, sizeof path, "%s/kith-fuzz-%ld", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp",
                   (long)getpid());
    REQUIRE(kith_index_save(index, path) == KITH_OK);
    REQUIRE(kith_file_verify(path) == KITH_OK);
    REQUIRE(kith_index_load(path, &loaded) == KITH_OK);
    REQUIRE(kith_index_count(loaded) == kith_index_count(index));
    kith_index_free(loaded);
    (void)unlink(path);
}

static bool is_add_status(kith_status status) {
    return status == KITH_OK || status == KITH_ERR_RANGE || status == KITH_ERR_OVERFLOW ||
           status == KITH_ERR_NOT_TRAINED || status == KITH_ERR_ZERO_VECTOR || status == KITH_ERR_NOT_FINITE;
}

/* A copy that has passed the verification has to behave as any index. */
static void change(kith_index *index, bool save) {
    kith_view view = {query, KITH_F32, 1, kith_index_dim(index), 0};
    size_t before = kith_index_count(index), removed;
    kith_status status = kith_index_add(index, &view, NULL, NULL);
    if (status == KITH_ERR_NOT_FOUND && kith_index_wants_vectors(index)) return;
    REQUIRE(is_add_status(status));
    REQUIRE(kith_index_count(index) == before + (status == KITH_OK));
    for (int64_t id = 0; id < 10; id += 3) {
        before = kith_index_count(index);
        status = kith_index_remove(index, &id, 1, &removed);
        REQUIRE(status == KITH_OK || status == KITH_ERR_UNSUPPORTED);
        REQUIRE(kith_index_count(index) == before - removed);
        if (status != KITH_OK) break;
        REQUIRE(kith_index_remove(index, &id, 1, &removed) == KITH_OK && removed == 0);
        status = kith_index_add(index, &view, &id, NULL);
        REQUIRE(is_add_status(status) && status != KITH_ERR_OVERFLOW);
    }
    search(index, true);
    ask(index);
    if (save) save_and_load(index);
}

static void use(kith_index *index) {
    kith_index *copy;
    search(index, false);
    ask(index);
    REQUIRE(kith_index_reset(index) == KITH_ERR_READ_ONLY);
    kith_status status = index->vtable->verify(index);
    REQUIRE(kith_index_clone(index, &copy) == status);
    if (status != KITH_OK) return;
    search(copy, true);
    size_t before = kith_index_count(copy);
    status = kith_index_merge(copy, index, 1000);
    REQUIRE(status == KITH_OK || status == KITH_ERR_UNSUPPORTED || status == KITH_ERR_OVERFLOW ||
            status == KITH_ERR_NOT_TRAINED || status == KITH_ERR_EXISTS || status == KITH_ERR_RANGE);
    REQUIRE(kith_index_count(copy) == (status == KITH_OK ? 2 * before : before));
    search(copy, true);
    change(copy, kith_index_count(copy) % 4 == 0);
    kith_index_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    if (count == 0) return 0;
    size_t file_bytes;
    unsigned char *file = (bytes[0] == 0 ? raw_file : make_file)(bytes + 1, count - 1, &file_bytes);
    kith_container *container;
    kith_index *index;
    if (kith_container_open_memory("fuzz", file, file_bytes, &container) == KITH_OK) {
        kith_status verified = kith_container_verify(container);
        REQUIRE(bytes[0] == 0 || verified == KITH_OK);
        if (kith_index_open_container(container, &index) == KITH_OK) {
            use(index);
            kith_index_free(index);
        }
    }
    free(file);
    REQUIRE(kith_memory_live_blocks() == 0);
    return 0;
}
