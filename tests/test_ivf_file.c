/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "api/files.h"
#include "base/error.h"
#include "faults.h"
#include "ivf_model.h"

enum { DIM = 24 };

static bool same_files(const char *a, const char *b) {
    size_t a_bytes, b_bytes;
    unsigned char *a_content = faults_read_file(a, &a_bytes), *b_content = faults_read_file(b, &b_bytes);
    bool same =
        a_content != NULL && b_content != NULL && a_bytes == b_bytes && memcmp(a_content, b_content, a_bytes) == 0;
    free(a_content);
    free(b_content);
    return same;
}

/* ---- There and back ------------------------------------------------------------------------------------------- */

static void there_and_back(const char *folder, const char *spec, kith_metric metric) {
    enum { COUNT = 330 };
    const char *path = faults_path(folder, "a.kith"), *again = faults_path(folder, "b.kith");
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 6, 1), queries = ivf_clustered(9, DIM, 6, 2);
    fixture_model model;
    fixture_model_init(&model, DIM);
    kith_index *index = ivf_trained(spec, metric, &vectors), *all[3];
    ivf_add(index, &vectors, 0, 150, NULL);
    ivf_add(index, &vectors, 150, 150, NULL);
    for (int64_t i = 0; i < 300; i++) fixture_model_put(&model, i, vectors.values + i * DIM);
    for (int64_t i = 20; i < 40; i++) {
        cr_assert_eq(kith_index_remove(index, &i, 1, NULL), KITH_OK);
        fixture_model_remove(&model, i);
    }
    cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_file_verify(path), KITH_OK, "%s: %s", spec, kith_error_message());
    cr_assert_eq(kith_index_load(path, &all[0]), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_map(path, &all[1]), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_clone(all[1], &all[2]), KITH_OK, "%s", kith_error_message());
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(kith_index_is_mapped(all[i]), i == 1);
        ivf_check_content(all[i], &model);
        ivf_check_search(all[i], &model, &queries, 12);
        ivf_check_same(index, all[i], &queries, 12, 2);
        cr_assert_eq(kith_index_save(all[i], again), KITH_OK);
        cr_assert(same_files(path, again), "%s: copy %zu is written otherwise", spec, i);
        static float there[50 * DIM], back[50 * DIM];
        cr_assert_eq(kith_index_reconstruct(index, model.ids, 50, there), KITH_OK);
        cr_assert_eq(kith_index_reconstruct(all[i], model.ids, 50, back), KITH_OK);
        cr_assert_eq(memcmp(there, back, sizeof there), 0);
    }
    cr_assert_eq(kith_index_add(all[1], &(kith_view){vectors.values, KITH_F32, 1, DIM, 0}, NULL, NULL),
                 KITH_ERR_READ_ONLY);
    kith_index_free(all[1]);
    kith_index *live[] = {index, all[0], all[2]}; /* changes go on alike */
    for (size_t i = 0; i < 3; i++) {
        ivf_add(live[i], &vectors, 300, 30, NULL);
        cr_assert_eq(kith_index_remove(live[i], model.ids, 5, NULL), KITH_OK);
        cr_assert_eq(kith_index_save(live[i], i == 0 ? path : again), KITH_OK);
        if (i > 0) cr_assert(same_files(path, again), "%s: copy %zu changes otherwise", spec, i);
        kith_index_free(live[i]);
    }
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf_file, every_code_comes_back_as_it_was_saved) {
    const char *folder = faults_folder();
    for (size_t c = 0; ivf_codes[c] != NULL; c++)
        for (size_t m = 0; m < 3; m++)
            if ((c + m) % 3 != 0)
                there_and_back(folder, ivf_spec(5, ivf_codes[c]), fixture_metrics[m]);
            else if (strcmp(ivf_codes[c], "Flat") != 0)
                there_and_back(folder, ivf_codes[c], fixture_metrics[m]);
    there_and_back(folder, "IVF300,SQ8", KITH_L2); /* with codes of the centroids */
    faults_folder_remove(folder);
}

Test(ivf_file, empty_and_untrained_indexes_come_back) {
    static const char *const specs[] = {"IVF6,SQ8", "IVF6,Flat", "SQ4", "f16", "IVFd,SQ8", "IVF6d,SQ6"};
    const char *folder = faults_folder(), *path = faults_path(folder, "a"), *again = faults_path(folder, "b");
    fixture_vectors vectors = ivf_clustered(80, DIM, 6, 3);
    kith_view view = fixture_view(&vectors, 0, 80);
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        for (int trained = 0; trained < 2; trained++) {
            kith_index *index, *loaded, *mapped;
            cr_assert_eq(kith_index_create(specs[i], DIM, KITH_COSINE, &index), KITH_OK);
            if (trained) cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK);
            cr_assert_eq(kith_index_save(index, path), KITH_OK);
            cr_assert_eq(kith_index_load(path, &loaded), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_map(path, &mapped), KITH_OK, "%s", kith_error_message());
            cr_assert_eq(kith_index_is_trained(mapped), kith_index_is_trained(index));
            cr_assert_eq(kith_index_is_trained(loaded), kith_index_is_trained(index));
            cr_assert_str_eq(kith_index_spec(loaded), kith_index_spec(index));
            cr_assert_eq(kith_index_save(mapped, again), KITH_OK);
            cr_assert(same_files(path, again));
            if (!trained) cr_assert_eq(kith_index_train(loaded, &view, NULL), KITH_OK, "%s", kith_error_message());
            ivf_add(loaded, &vectors, 0, 80, NULL);
            cr_assert_eq(kith_index_count(loaded), 80);
            kith_index_free(index);
            kith_index_free(loaded);
            kith_index_free(mapped);
        }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf_file, bytes_do_not_depend_on_the_thread_count) {
    enum { COUNT = 9000 };
    const char *folder = faults_folder();
    fixture_vectors vectors = ivf_clustered(COUNT, DIM, 40, 4);
    static const size_t threads[] = {1, 2, 8};
    static const char *const specs[] = {"IVF150,SQ8", "IVF150,Flat", "SQ4"};
    for (size_t s = 0; s < 3; s++)
        for (size_t i = 0; i < 3; i++) {
            kith_index *index;
            kith_job job;
            kith_job_init(&job);
            job.threads = threads[i];
            cr_assert_eq(kith_index_create(specs[s], DIM, KITH_COSINE, &index), KITH_OK);
            for (size_t first = 0; first < COUNT; first += COUNT / 2) {
                kith_view view = fixture_view(&vectors, first, COUNT / 2);
                if (first == 0) cr_assert_eq(kith_index_train(index, &view, &job), KITH_OK);
                cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK);
            }
            cr_assert_eq(kith_index_save(index, faults_path(folder, i == 0 ? "one" : "many")), KITH_OK);
            if (i > 0) cr_assert(same_files(faults_path(folder, "one"), faults_path(folder, "many")));
            kith_index_free(index);
        }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* Builds and saves on the kernels of one instruction set; ends the process. */
static void run_on(const char *isa, const char *path, const char *spec) {
    fixture_vectors vectors = ivf_clustered(500, DIM, 12, 5);
    kith_view view = fixture_view(&vectors, 0, 500);
    kith_index *index = NULL;
    bool good = setenv("KITH_ISA", isa, 1) == 0 && kith_index_create(spec, DIM, KITH_L2, &index) == KITH_OK &&
                kith_index_train(index, &view, NULL) == KITH_OK &&
                kith_index_add(index, &view, NULL, NULL) == KITH_OK && kith_index_save(index, path) == KITH_OK;
    _exit(good ? 0 : 1);
}

Test(ivf_file, bytes_do_not_depend_on_the_instruction_set) {
    static const char *const isas[] = {"ref", "avx2", "avx512", "neon"};
    const char *folder = faults_folder();
    for (size_t c = 0; ivf_codes[c] != NULL; c++)
        for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
            const char *path = faults_path(folder, i == 0 ? "a" : "b");
            pid_t child = fork();
            cr_assert_geq(child, 0);
            if (child == 0) run_on(isas[i], path, ivf_spec(c == 3 ? 130 : 12, ivf_codes[c]));
            int how = -1;
            cr_assert_eq(waitpid(child, &how, 0), child);
            cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "%s ended with %d", isas[i], how);
            cr_assert(same_files(faults_path(folder, "a"), path), "%s: %s writes another file", ivf_codes[c],
                      isas[i]);
        }
    faults_folder_remove(folder);
}

/* ---- Damaged files -------------------------------------------------------------------------------------------- */

typedef struct image {
    unsigned char *bytes;
    size_t count;
} image;

enum { SMALL_DIM = 24, SMALL = 45, SMALL_SAMPLE = 260 };

static kith_index *small_index(const char *spec, kith_metric metric) {
    fixture_vectors vectors = ivf_clustered(SMALL_SAMPLE, SMALL_DIM, 3, 6);
    kith_index *index = ivf_trained(spec, metric, &vectors);
    ivf_add(index, &vectors, 0, SMALL, NULL);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){3, 11}, 2, NULL), KITH_OK);
    fixture_vectors_free(&vectors);
    return index;
}

static image image_of(const char *spec, kith_metric metric) {
    const char *folder = faults_folder(), *path = faults_path(folder, "image.kith");
    kith_index *index = small_index(spec, metric);
    cr_assert_eq(kith_index_save(index, path), KITH_OK);
    image out = {0};
    unsigned char *content = faults_read_file(path, &out.count);
    out.bytes = aligned_alloc(64, (out.count + 63) / 64 * 64);
    memcpy(out.bytes, content, out.count);
    free(content);
    kith_index_free(index);
    faults_folder_remove(folder);
    return out;
}

static kith_status open_image(const image *file, bool verify, kith_index **out) {
    kith_container *container;
    *out = NULL;
    kith_status status = kith_container_open_memory("image", file->bytes, file->count, &container);
    if (status != KITH_OK) return status;
    status = verify ? kith_container_verify(container) : KITH_OK;
    if (status == KITH_OK) return kith_index_open_container(container, out);
    kith_container_close(container);
    return status;
}

/* Everything that can be done with an index that came from a file nobody vouches for. */
static void use(kith_index *index) {
    float row[SMALL_DIM] = {1, 2, 3, 4}, out[SMALL_DIM];
    kith_view view = {row, KITH_F32, 1, SMALL_DIM, 0};
    int64_t ids[64];
    float distances[64];
    size_t count = kith_index_count(index), parts;
    uint64_t sizes[4];
    kith_range_result *range;
    cr_assert_eq(kith_index_memory(index, NULL, 0, &parts), KITH_OK);
    cr_assert_eq(kith_index_list_sizes(index, sizes, 4, &parts), KITH_OK);
    if (kith_index_dim(index) != SMALL_DIM || count == 0 || count > 64) return;
    (void)!kith_index_search(index, &view, count, NULL, ids, distances, NULL);
    (void)!kith_index_range_search(index, &view, 3, NULL, &range);
    kith_range_result_free(range);
    (void)!kith_index_reconstruct(index, (int64_t[]){1}, 1, out);
    kith_filter *filter;
    cr_assert_eq(kith_filter_bitset((uint64_t[]){~0ull}, 64, &filter), KITH_OK);
    kith_search_params params;
    kith_search_params_init(&params);
    params.filter = filter;
    (void)!kith_index_search(index, &view, count, &params, ids, distances, NULL);
    kith_filter_free(filter);
}

static void use_clone(kith_index *index) {
    float row[SMALL_DIM] = {1, 2, 3, 4};
    kith_view view = {row, KITH_F32, 1, SMALL_DIM, 0};
    kith_index *clone;
    kith_status verified = index->vtable->verify(index);
    cr_assert_eq(kith_index_clone(index, &clone), verified);
    if (verified != KITH_OK) return;
    if (kith_index_dim(clone) == SMALL_DIM && kith_index_is_trained(clone)) {
        (void)!kith_index_add(clone, &view, NULL, NULL);
        (void)!kith_index_remove(clone, (int64_t[]){1, 3, 7}, 3, NULL);
        (void)!kith_index_add(clone, &view, (int64_t[]){2}, NULL);
    }
    use(clone);
    kith_index_free(clone);
}

Test(ivf_file, every_flipped_bit_and_every_other_length_is_an_error) {
    image file = image_of("IVF3,SQ8", KITH_L2);
    kith_index *index;
    cr_assert_eq(open_image(&file, true, &index), KITH_OK, "%s", kith_error_message());
    kith_index_free(index);
    for (size_t bit = 0; bit < file.count * 8; bit += bit % 4096 < 2048 ? 1 : 13) {
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        cr_assert_neq(open_image(&file, true, &index), KITH_OK, "bit %zu of byte %zu", bit % 8, bit / 8);
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t count = 0; count < file.count; count += 7) {
        image cut = {file.bytes, count};
        cr_assert_neq(open_image(&cut, false, &index), KITH_OK, "%zu bytes", count);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(file.bytes);
}

static uint64_t get(const unsigned char *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}
static void put(unsigned char *at, uint64_t value) { memcpy(at, &value, sizeof value); }

/* Entry `s` of the section table (see container.c for the layout). */
static unsigned char *entry(const image *file, size_t s) { return file->bytes + get(file->bytes + 24) + 48 * s; }

static void repair(const image *file) {
    size_t count = (size_t)get(file->bytes + 32);
    for (size_t s = 0; s < count; s++) {
        unsigned char *item = entry(file, s);
        put(item + 40, XXH3_64bits(file->bytes + get(item + 24), (size_t)get(item + 32)));
    }
    put(file->bytes + 40, XXH3_64bits(entry(file, 0), 48 * count));
    put(file->bytes + 56, XXH3_64bits(file->bytes, 56));
}

static unsigned char *content(const image *file, const char *tag) {
    for (size_t s = 0; s < (size_t)get(file->bytes + 32); s++)
        if (memcmp(entry(file, s), tag, 8) == 0) return file->bytes + get(entry(file, s) + 24);
    cr_assert_fail("no section %s", tag);
    return NULL;
}

/* Flips each bit of each section, or of every so many in long ones, with checksums that are right. */
static void flip_all(const char *spec, kith_metric metric) {
    image file = image_of(spec, metric);
    for (size_t s = 0; s < (size_t)get(file.bytes + 32); s++) {
        unsigned char *bytes = file.bytes + get(entry(&file, s) + 24);
        size_t bits = get(entry(&file, s) + 32) * 8, step = bits > 200 ? bits / 100 | 1 : 1;
        for (size_t bit = 0; bit < bits; bit += step) {
            kith_index *index;
            bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
            repair(&file);
            if (open_image(&file, false, &index) == KITH_OK) {
                use(index);
                use_clone(index);
                kith_index_free(index);
            }
            bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    }
    free(file.bytes);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf_file, no_lie_crashes) {
    for (size_t c = 0; ivf_codes[c] != NULL; c++) {
        if (c % 2 == 1) flip_all(ivf_codes[c], KITH_L2);
        flip_all(ivf_spec(3, ivf_codes[c]), KITH_IP);
    }
}

typedef struct lie {
    const char *tag;
    size_t offset, bytes;
    uint64_t value;
    bool at_open; /* else by verify and load */
    const char *named;
} lie;

static void check_lies(const image *file, const lie *lies, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unsigned char *at = content(file, lies[i].tag) + lies[i].offset;
        uint64_t before = 0;
        memcpy(&before, at, lies[i].bytes);
        memcpy(at, &lies[i].value, lies[i].bytes);
        repair(file);
        kith_index *index;
        kith_status status = open_image(file, true, &index);
        if (!lies[i].at_open) {
            cr_assert_eq(status, KITH_OK, "lie %zu: %s", i, kith_error_message());
            status = index->vtable->verify(index);
            kith_index_free(index);
        }
        cr_assert_eq(status, KITH_ERR_FORMAT, "lie %zu: %s", i, kith_status_name(status));
        cr_assert_not_null(strstr(kith_error_message(), lies[i].named), "lie %zu: '%s'", i, kith_error_message());
        cr_assert_not_null(strstr(kith_error_message(), "image: "), "lie %zu: '%s'", i, kith_error_message());
        memcpy(at, &before, lies[i].bytes);
        repair(file);
    }
}

Test(ivf_file, lying_fields_are_named) {
    static const uint64_t nan_bits = 0x7fc00000, large_bits = 0x7f7fffff;
    image file = image_of("IVF3,Flat", KITH_L2);
    const lie lies[] = {
        {"IVFLMETA", 0, 8, 4, true, "4 lists, an index IVF3,Flat"},
        {"IVFLMETA", 8, 4, 5, true, "ids of 5 bytes"},
        {"IVFLMETA", 8, 4, 8, true, "IVFLNIDS"},
        {"IVFLMETA", 12, 4, 1, true, "has_projected"},
        {"IVFLMETA", 12, 4, 2, true, "has_projected is 2"},
        {"IVFLMETA", 16, 4, 1, true, "CODEMETA"},
        {"IVFLMETA", 20, 4, 1, true, "zero 1"},
        {"IVFLSIZE", 0, 8, UINT64_MAX, true, "hold more than the 43"},
        {"IVFLSIZE", 8, 8, 0, true, "less than the 43"},
        {"INDXMETA", 12, 4, 0, true, "not trained has 43"},
        {"INDXMETA", 35, 1, '4', true, "3 lists, an index IVF4,Flat"},
        {"INDXMETA", 35, 1, 'd', true, "IVFd,Flat"},
        {"IVFLCENT", 4, 4, nan_bits, false, "IVFLCENT"},
        {"IVFLCENT", 4, 4, large_bits, false, "IVFLCENT"},
        {"IVFLCODE", 4, 4, nan_bits, false, "IVFLCODE"},
        {"IVFLNIDS", 4, 4, UINT32_MAX, false, "an id is not in"},
    };
    check_lies(&file, lies, sizeof lies / sizeof *lies);
    unsigned char *ids = content(&file, "IVFLNIDS"); /* an id twice */
    uint32_t second;
    memcpy(&second, ids + 4, sizeof second);
    const lie twice = {"IVFLNIDS", 0, 4, second, false, "an id stands twice"};
    check_lies(&file, &twice, 1);
    free(file.bytes);
}

Test(ivf_file, sections_of_another_length_are_refused) {
    image file = image_of("IVF3,SQ8", KITH_COSINE);
    for (size_t s = 0; s < (size_t)get(file.bytes + 32); s++)
        for (int change = -1; change <= 1; change += 2) {
            kith_index *index;
            unsigned char *length = entry(&file, s) + 32, *at = file.bytes + get(entry(&file, s) + 24);
            uint64_t before = get(length);
            unsigned char last = at[before - 1];
            put(length, before + (uint64_t)change);
            if (change < 0) at[before - 1] = 0; /* padding has to be zero */
            repair(&file);
            cr_assert_eq(open_image(&file, true, &index), KITH_ERR_FORMAT, "section %zu %+d", s, change);
            put(length, before);
            at[before - 1] = last;
        }
    free(file.bytes);
}

/* ---- The system ----------------------------------------------------------------------------------------------- */

typedef struct change {
    kith_index *index;
    fixture_vectors *vectors;
    const char *path;
    kith_index *out;
} change;

static kith_status do_train(change *c) {
    kith_view view = fixture_view(c->vectors, 0, c->vectors->count);
    return kith_index_train(c->index, &view, NULL);
}
static kith_status do_add(change *c) {
    kith_view view = fixture_view(c->vectors, 40, 60);
    return kith_index_add(c->index, &view, NULL, NULL);
}
static kith_status do_add_mixed(change *c) {
    kith_view view = fixture_view(c->vectors, 40, 3);
    return kith_index_add(c->index, &view, (int64_t[]){700, 500, (int64_t)1 << 40}, NULL);
}
static kith_status do_remove(change *c) { return kith_index_remove(c->index, (int64_t[]){3, 30, 4}, 3, NULL); }
static kith_status do_update(change *c) {
    kith_view view = fixture_view(c->vectors, 60, 2);
    return kith_index_update(c->index, &view, (int64_t[]){9, 2});
}
static kith_status do_merge(change *c) {
    kith_index *from;
    KITH_TRY(kith_index_clone(c->index, &from));
    kith_status status = kith_index_merge(c->index, from, (int64_t)1 << 33);
    kith_index_free(from);
    return status;
}
static kith_status do_save(change *c) { return kith_index_save(c->index, c->path); }
static kith_status do_load(change *c) { return kith_index_load(c->path, &c->out); }
static kith_status do_map(change *c) { return kith_index_map(c->path, &c->out); }
static kith_status do_clone(change *c) { return kith_index_clone(c->index, &c->out); }

static void check_change(kith_status (*act)(change *), const char *spec, kith_metric metric, bool filled) {
    fixture_vectors vectors = ivf_clustered(200, DIM, 6, 7), queries = ivf_clustered(4, DIM, 6, 8);
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    fixture_model model;
    fixture_model_init(&model, DIM);
    faults_fail_allocation(0);
    kith_index *original = ivf_trained(spec, metric, &vectors);
    if (filled) {
        ivf_add(original, &vectors, 0, 40, NULL);
        for (int64_t i = 0; i < 40; i++) fixture_model_put(&model, i, vectors.values + i * DIM);
    }
    cr_assert_eq(kith_index_save(original, path), KITH_OK);
    bool reached = true;
    for (size_t n = 1; reached; n++) {
        change c = {.vectors = &vectors, .path = path};
        cr_assert_eq(kith_index_clone(original, &c.index), KITH_OK);
        uint64_t live = kith_memory_live_blocks();
        faults_fail_allocation(n);
        kith_status status = act(&c);
        reached = faults_allocation_count() >= n;
        faults_fail_allocation(0);
        /* What tells whether a name is that of a code does without the memory. */
        cr_assert(status == KITH_OK || (reached && status == KITH_ERR_NO_MEMORY), "%zu: %s", n,
                  kith_error_message());
        if (status != KITH_OK) {
            cr_assert_null(c.out);
            ivf_check_content(c.index, &model); /* as before */
            if (filled) ivf_check_same(original, c.index, &queries, 5, 3);
            if (act == do_save || act == do_load || act == do_map || act == do_clone || act == do_train)
                cr_assert_eq(kith_memory_live_blocks(), live, "allocation %zu", n);
            cr_assert_eq(act(&c), KITH_OK, "%s", kith_error_message()); /* and nothing stands in the way */
        }
        kith_index_free(c.out);
        kith_index_free(c.index);
    }
    kith_index_free(original);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    fixture_model_free(&model);
    fixture_vectors_free(&vectors);
    fixture_vectors_free(&queries);
    faults_folder_remove(folder);
}

Test(ivf_file, every_failing_allocation_leaves_the_index_as_it_was) {
    static kith_status (*const acts[])(change *) = {do_add,  do_merge, do_add_mixed, do_remove, do_update,
                                                    do_save, do_load,  do_map,       do_clone};
    for (size_t a = 0; a < sizeof acts / sizeof *acts; a++) {
        check_change(acts[a], "IVF5,SQ8", KITH_COSINE, true);
        check_change(acts[a], "IVF130,SQ4", KITH_L2, true);
        check_change(acts[a], "SQ8", KITH_IP, true);
    }
    check_change(do_train, "IVF5,SQ8", KITH_COSINE, false);
    check_change(do_train, "IVF5,Flat", KITH_IP, false);
    check_change(do_train, "SQ4", KITH_L2, false);
}
