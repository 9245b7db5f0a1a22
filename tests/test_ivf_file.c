/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/error.h"
#include "damage.h"
#include "faults.h"
#include "ivf_model.h"

enum { DIM = 24 };

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
        cr_assert(faults_same_files(path, again), "%s: copy %zu is written otherwise", spec, i);
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
        if (i > 0) cr_assert(faults_same_files(path, again), "%s: copy %zu changes otherwise", spec, i);
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
    there_and_back(folder, "IVF5_HNSW4,SQ8", KITH_COSINE);
    there_and_back(folder, "IVF5s,SQ8", KITH_COSINE);
    there_and_back(folder, "IVF6ds_Flat,Flat", KITH_L2);
    there_and_back(folder, "IVF5(Flat,f16),Flat", KITH_L2);
    faults_folder_remove(folder);
}

Test(ivf_file, empty_and_untrained_indexes_come_back) {
    static const char *const specs[] = {"IVF6,SQ8",  "IVF6,Flat",      "SQ4",         "f16",      "IVFd,SQ8",
                                        "IVF6d,SQ6", "IVF6_HNSW4,SQ8", "IVF_SQ8,SQ8", "IVF6s,SQ8"};
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
            cr_assert(faults_same_files(path, again));
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
            if (i > 0) cr_assert(faults_same_files(faults_path(folder, "one"), faults_path(folder, "many")));
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
            cr_assert(faults_same_files(faults_path(folder, "a"), path), "%s: %s writes another file", ivf_codes[c],
                      isas[i]);
        }
    faults_folder_remove(folder);
}

/* ---- Damaged files -------------------------------------------------------------------------------------------- */

enum { SMALL_DIM = 24, SMALL = 45, SMALL_SAMPLE = 260 };

static kith_index *small_index(const char *spec, kith_metric metric) {
    fixture_vectors vectors = ivf_clustered(SMALL_SAMPLE, SMALL_DIM, 3, 6);
    kith_index *index = ivf_trained(spec, metric, &vectors);
    ivf_add(index, &vectors, 0, SMALL, NULL);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){3, 11}, 2, NULL), KITH_OK);
    fixture_vectors_free(&vectors);
    return index;
}

static damage_image image_of(const char *spec, kith_metric metric) {
    kith_index *index = small_index(spec, metric);
    damage_image out = damage_image_of(index);
    kith_index_free(index);
    return out;
}

Test(ivf_file, every_flipped_bit_and_every_other_length_is_an_error) {
    damage_image file = image_of("IVF3,SQ8", KITH_L2);
    kith_index *index;
    cr_assert_eq(damage_open(&file, true, &index), KITH_OK, "%s", kith_error_message());
    kith_index_free(index);
    for (size_t bit = 0; bit < file.count * 8; bit += bit % 4096 < 2048 ? 1 : 13) {
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        cr_assert_neq(damage_open(&file, true, &index), KITH_OK, "bit %zu of byte %zu", bit % 8, bit / 8);
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    for (size_t count = 0; count < file.count; count += 7) {
        damage_image cut = {file.bytes, count};
        cr_assert_neq(damage_open(&cut, false, &index), KITH_OK, "%zu bytes", count);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(file.bytes);
}

static void flip_all(const char *spec, kith_metric metric) {
    damage_image file = image_of(spec, metric);
    damage_flip_all(&file, 100);
    free(file.bytes);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(ivf_file, no_lie_crashes) {
    for (size_t c = 0; ivf_codes[c] != NULL; c++) {
        if (c % 2 == 1) flip_all(ivf_codes[c], KITH_L2);
        flip_all(ivf_spec(3, ivf_codes[c]), KITH_IP);
    }
    flip_all("IVF3_HNSW4,SQ8", KITH_L2);
    flip_all("IVF3s,SQ8", KITH_L2);
    flip_all("IVF3(Flat,f16),SQ4", KITH_COSINE);
}

Test(ivf_file, lying_fields_are_named) {
    static const uint64_t nan_bits = 0x7fc00000, large_bits = 0x7f7fffff;
    damage_image file = image_of("IVF3,Flat", KITH_L2);
    const damage_lie lies[] = {
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
    damage_check_lies(&file, lies, sizeof lies / sizeof *lies);
    unsigned char *ids = damage_content(&file, "IVFLNIDS"); /* an id twice */
    uint32_t second;
    memcpy(&second, ids + 4, sizeof second);
    const damage_lie twice = {"IVFLNIDS", 0, 4, second, false, "an id stands twice"};
    damage_check_lies(&file, &twice, 1);
    free(file.bytes);
}

Test(ivf_file, sections_of_another_length_are_refused) {
    damage_image file = image_of("IVF3,SQ8", KITH_COSINE);
    for (size_t s = 0; s < damage_section_count(&file); s++)
        for (int change = -1; change <= 1; change += 2) {
            kith_index *index;
            unsigned char *length = damage_entry(&file, s) + 32,
                          *at = file.bytes + damage_get(damage_entry(&file, s) + 24);
            uint64_t before = damage_get(length);
            unsigned char last = at[before - 1];
            damage_put(length, before + (uint64_t)change);
            if (change < 0) at[before - 1] = 0; /* padding has to be zero */
            damage_repair(&file);
            cr_assert_eq(damage_open(&file, true, &index), KITH_ERR_FORMAT, "section %zu %+d", s, change);
            damage_put(length, before);
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
        check_change(acts[a], "IVF5_HNSW4,SQ8", KITH_L2, true);
        check_change(acts[a], "IVF5s,SQ8", KITH_L2, true);
    }
    check_change(do_train, "IVF5s,SQ8", KITH_L2, false);
    check_change(do_train, "IVF5_HNSW4,SQ8", KITH_IP, false);
    check_change(do_train, "IVF5,SQ8", KITH_COSINE, false);
    check_change(do_train, "IVF5,Flat", KITH_IP, false);
    check_change(do_train, "SQ4", KITH_L2, false);
}
