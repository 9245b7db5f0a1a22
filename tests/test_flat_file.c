/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "damage.h"
#include "faults.h"
#include "index_fixture.h"

enum { DIM = 3, COUNT = 5 };

/* How the ids of an index have come about. */
typedef enum id_kind { NUMBERED, SHIFTED, RISING, MIXED, ID_KINDS } id_kind;

static kith_index *filled(kith_dtype dtype, kith_metric metric, size_t count, size_t dim, id_kind kind,
                          fixture_model *model) {
    fixture_vectors vectors = fixture_vectors_make(dtype, count, dim, 70);
    int64_t *ids = malloc((count + 1) * sizeof *ids);
    kith_index *index;
    cr_assert_eq(kith_index_create(fixture_spec(dtype), dim, metric, &index), KITH_OK);
    for (size_t i = 0; i < count; i++) {
        int64_t n = (int64_t)i;
        ids[i] = kind == NUMBERED  ? n
                 : kind == SHIFTED ? n + 1000
                 : kind == RISING  ? n * n + 3
                 : n < 2           ? 2 * n + 1
                 : n == 2          ? 2 * (int64_t)count - 1 /* which the others do not rise from */
                                   : 2 * n - 1;
    }
    kith_view view = fixture_view(&vectors, 0, count);
    if (count > 0) cr_assert_eq(kith_index_add(index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
    fixture_model_init(model, dim);
    for (size_t i = 0; i < count; i++) fixture_model_put(model, ids[i], vectors.values + i * dim);
    if (kind == MIXED && count > 2) {
        cr_assert_eq(kith_index_remove(index, ids + 1, 1, NULL), KITH_OK);
        fixture_model_remove(model, ids[1]);
    }
    free(ids);
    fixture_vectors_free(&vectors);
    return index;
}

/* ---- There and back ------------------------------------------------------------------------------------- */

static void check_same(const kith_index *a, const kith_index *b, const fixture_vectors *queries, size_t k) {
    cr_assert_eq(kith_index_dim(a), kith_index_dim(b));
    cr_assert_eq(kith_index_count(a), kith_index_count(b));
    cr_assert_eq(kith_index_metric(a), kith_index_metric(b));
    cr_assert_eq(kith_index_dtype(a), kith_index_dtype(b));
    cr_assert_eq(kith_index_is_trained(a), kith_index_is_trained(b));
    cr_assert_str_eq(kith_index_spec(a), kith_index_spec(b));
    if (k == 0) return;
    size_t n = queries->count * k;
    int64_t *ids[2] = {malloc(n * sizeof **ids), malloc(n * sizeof **ids)};
    float *distances[2] = {malloc(n * sizeof(float)), malloc(n * sizeof(float))};
    kith_view view = fixture_view(queries, 0, queries->count);
    cr_assert_eq(kith_index_search(a, &view, k, NULL, ids[0], distances[0], NULL), KITH_OK);
    cr_assert_eq(kith_index_search(b, &view, k, NULL, ids[1], distances[1], NULL), KITH_OK);
    cr_assert_eq(memcmp(ids[0], ids[1], n * sizeof **ids), 0);
    cr_assert_eq(memcmp(distances[0], distances[1], n * sizeof(float)), 0);
    for (size_t i = 0; i < 2; i++) {
        free(ids[i]);
        free(distances[i]);
    }
}

static void check_read_only(kith_index *index) {
    float row[64] = {1};
    kith_view view = {row, KITH_F32, 1, kith_index_dim(index), 0};
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_ERR_READ_ONLY);
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_ERR_READ_ONLY);
    cr_assert_eq(kith_index_remove(index, (int64_t[]){0}, 1, NULL), KITH_ERR_READ_ONLY);
    cr_assert_eq(kith_index_update(index, &view, (int64_t[]){0}), KITH_ERR_READ_ONLY);
    cr_assert_eq(kith_index_reset(index), KITH_ERR_READ_ONLY);
}

static void there_and_back(const char *folder, kith_dtype dtype, kith_metric metric, size_t count, id_kind kind) {
    enum { WIDE = 11 };
    const char *path = faults_path(folder, "a.kith"), *again = faults_path(folder, "b.kith");
    fixture_model model;
    fixture_vectors queries = fixture_vectors_make(dtype, 9, WIDE, 71),
                    more = fixture_vectors_make(dtype, 2, WIDE, 72);
    kith_index *index = filled(dtype, metric, count, WIDE, kind, &model), *loaded, *mapped, *clone;
    cr_assert_eq(kith_index_save(index, path), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_file_verify(path), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_load(path, &loaded), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_map(path, &mapped), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_clone(mapped, &clone), KITH_OK, "%s", kith_error_message());
    cr_assert(kith_index_is_mapped(mapped) && !kith_index_is_mapped(loaded) && !kith_index_is_mapped(clone));
    check_read_only(mapped);
    kith_index *all[] = {loaded, mapped, clone};
    size_t k = model.count < 7 ? model.count : 7;
    for (size_t i = 0; i < 3; i++) {
        check_same(index, all[i], &queries, k);
        fixture_check_content(all[i], &model);
        cr_assert_eq(kith_index_save(all[i], again), KITH_OK);
        cr_assert(faults_same_files(path, again), "kind %d: the file differs from its copy %zu", (int)kind, i);
    }
    cr_assert_eq(unlink(path), 0); /* the mapping outlives the name */
    if (k > 0) fixture_check_search(mapped, &model, &queries, k, NULL, NULL);
    kith_index_free(mapped);
    /* Numbering, lookups and changes go on as in the original. */
    kith_view view = fixture_view(&more, 0, 2);
    kith_index *live[] = {index, loaded, clone};
    for (size_t i = 0; i < 3; i++) {
        cr_assert_eq(kith_index_add(live[i], &view, NULL, NULL), KITH_OK);
        if (count > 2) cr_assert_eq(kith_index_remove(live[i], model.ids, 1, NULL), KITH_OK);
        cr_assert_eq(kith_index_save(live[i], i == 0 ? path : again), KITH_OK);
        if (i > 0) cr_assert(faults_same_files(path, again));
        kith_index_free(live[i]);
    }
    fixture_model_free(&model);
    fixture_vectors_free(&queries);
    fixture_vectors_free(&more);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(flat_file, comes_back_as_it_was_saved) {
    static const size_t counts[] = {0, 1, 2, 300};
    const char *folder = faults_folder();
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) there_and_back(folder, fixture_types[t], fixture_metrics[m], 80, MIXED);
    for (size_t c = 0; c < 4; c++)
        for (id_kind kind = NUMBERED; kind < ID_KINDS; kind++)
            there_and_back(folder, KITH_F16, KITH_COSINE, counts[c], kind);
    faults_folder_remove(folder);
}

Test(flat_file, chunks_that_are_full_are_saved_and_mapped) {
    /* Rows of 64 KiB: a full chunk holds 256 of them. */
    enum { COUNT_LARGE = 600, DIM_LARGE = 16384 };
    const char *folder = faults_folder(), *path = faults_path(folder, "large.kith");
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, COUNT_LARGE, DIM_LARGE, 73);
    kith_view view = fixture_view(&vectors, 0, COUNT_LARGE);
    kith_index *index, *mapped, *loaded;
    cr_assert_eq(kith_index_create("Flat", DIM_LARGE, KITH_L2, &index), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_save(index, path), KITH_OK);
    cr_assert_eq(kith_index_map(path, &mapped), KITH_OK);
    cr_assert_eq(kith_index_load(path, &loaded), KITH_OK);
    for (size_t i = 0; i < COUNT_LARGE; i += 37) {
        kith_view one = fixture_view(&vectors, i, 1);
        kith_index *all[] = {index, mapped, loaded};
        for (size_t j = 0; j < 3; j++) {
            int64_t id;
            float distance;
            cr_assert_eq(kith_index_search(all[j], &one, 1, NULL, &id, &distance, NULL), KITH_OK);
            cr_assert(id == (int64_t)i && distance == 0);
        }
    }
    kith_index_free(index);
    kith_index_free(mapped);
    kith_index_free(loaded);
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

Test(flat_file, bytes_do_not_depend_on_the_thread_count) {
    const char *folder = faults_folder();
    fixture_vectors vectors = fixture_vectors_make(KITH_F32, 20000, 20, 74);
    kith_view view = fixture_view(&vectors, 0, 20000);
    static const size_t threads[] = {1, 2, 8, 16};
    for (size_t i = 0; i < 4; i++) {
        kith_index *index;
        kith_job job;
        kith_job_init(&job);
        job.threads = threads[i];
        cr_assert_eq(kith_index_create("Flat,f16", 20, KITH_COSINE, &index), KITH_OK);
        cr_assert_eq(kith_index_train(index, &view, &job), KITH_OK);
        cr_assert_eq(kith_index_add(index, &view, NULL, &job), KITH_OK);
        cr_assert_eq(kith_index_save(index, faults_path(folder, i == 0 ? "one" : "many")), KITH_OK);
        if (i > 0) cr_assert(faults_same_files(faults_path(folder, "one"), faults_path(folder, "many")));
        kith_index_free(index);
    }
    fixture_vectors_free(&vectors);
    faults_folder_remove(folder);
}

/* Builds, saves and searches on the kernels of one instruction set; ends the process. */
static void run_on(const char *isa, const char *index_path, const char *result_path) {
    enum { K = 9, QUERIES = 40, ROWS = 700, WIDE = 45 };
    static struct {
        int64_t ids[5 * 3][QUERIES * K];
        float distances[5 * 3][QUERIES * K];
    } results;
    bool good = setenv("KITH_ISA", isa, 1) == 0;
    for (size_t t = 0; t < 5; t++)
        for (size_t m = 0; m < 3; m++) {
            fixture_vectors vectors = fixture_vectors_make(fixture_types[t], ROWS, WIDE, 75);
            kith_view view = fixture_view(&vectors, 0, ROWS), queries = fixture_view(&vectors, 30, QUERIES);
            kith_index *index = NULL;
            good = good &&
                   kith_index_create(fixture_spec(fixture_types[t]), WIDE, fixture_metrics[m], &index) == KITH_OK &&
                   kith_index_add(index, &view, NULL, NULL) == KITH_OK &&
                   kith_index_search(index, &queries, K, NULL, results.ids[t * 3 + m], results.distances[t * 3 + m],
                                     NULL) == KITH_OK &&
                   (t != 1 || m != 2 || kith_index_save(index, index_path) == KITH_OK);
            kith_index_free(index);
            fixture_vectors_free(&vectors);
        }
    faults_write_file(result_path, &results, sizeof results);
    _exit(good ? 0 : 1);
}

Test(flat_file, bytes_and_results_do_not_depend_on_the_instruction_set) {
    static const char *const isas[] = {"ref", "avx2", "avx512", "neon", "avx512-vnni"};
    const char *folder = faults_folder();
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        const char *index_path = faults_path(folder, i == 0 ? "a.kith" : "b.kith");
        const char *result_path = faults_path(folder, i == 0 ? "a" : "b");
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) run_on(isas[i], index_path, result_path);
        int how = -1;
        cr_assert_eq(waitpid(child, &how, 0), child);
        cr_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0, "%s ended with %d", isas[i], how);
        cr_assert(faults_same_files(faults_path(folder, "a.kith"), index_path), "%s writes another file", isas[i]);
        cr_assert(faults_same_files(faults_path(folder, "a"), result_path), "%s finds something else", isas[i]);
    }
    faults_folder_remove(folder);
}

/* ---- Damaged files -------------------------------------------------------------------------------------- */

static damage_image image_of(kith_dtype dtype, kith_metric metric, id_kind kind) {
    fixture_model model;
    kith_index *index = filled(dtype, metric, COUNT, DIM, kind, &model);
    damage_image out = damage_image_of(index);
    kith_index_free(index);
    fixture_model_free(&model);
    return out;
}

Test(flat_file, every_flipped_bit_is_an_error) {
    damage_image file = image_of(KITH_F32, KITH_COSINE, MIXED);
    kith_index *index;
    cr_assert_eq(damage_open(&file, true, &index), KITH_OK, "%s", kith_error_message());
    kith_index_free(index);
    for (size_t bit = 0; bit < file.count * 8; bit++) {
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        cr_assert_neq(damage_open(&file, true, &index), KITH_OK, "bit %zu of byte %zu", bit % 8, bit / 8);
        file.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
    free(file.bytes);
}

Test(flat_file, every_other_length_is_an_error) {
    damage_image file = image_of(KITH_U8, KITH_L2, RISING);
    const char *folder = faults_folder(), *path = faults_path(folder, "cut.kith");
    kith_index *index;
    for (size_t count = 0; count < file.count; count++) {
        damage_image cut = {file.bytes, count};
        cr_assert_neq(damage_open(&cut, false, &index), KITH_OK, "%zu bytes", count);
    }
    for (size_t count = 0; count < file.count; count += 997) {
        faults_write_file(path, file.bytes, count);
        cr_assert_neq(kith_index_load(path, &index), KITH_OK);
        cr_assert_null(index);
        cr_assert_neq(kith_index_map(path, &index), KITH_OK);
        cr_assert_null(index);
        cr_assert_neq(kith_file_verify(path), KITH_OK);
        cr_assert_not_null(strstr(kith_error_message(), "cut.kith"), "'%s'", kith_error_message());
    }
    faults_folder_remove(folder);
    free(file.bytes);
}

Test(flat_file, flipped_bytes_of_a_real_file_name_it) {
    damage_image file = image_of(KITH_F16, KITH_COSINE, MIXED);
    const char *folder = faults_folder(), *path = faults_path(folder, "flip.kith");
    for (size_t at = 0; at < file.count; at += 511) {
        kith_index *index;
        file.bytes[at] ^= 0x10;
        faults_write_file(path, file.bytes, file.count);
        file.bytes[at] ^= 0x10;
        cr_assert_neq(kith_file_verify(path), KITH_OK);
        cr_assert_not_null(strstr(kith_error_message(), "flip.kith"), "'%s'", kith_error_message());
        cr_assert_neq(kith_index_load(path, &index), KITH_OK);
        cr_assert_null(index);
    }
    faults_folder_remove(folder);
    free(file.bytes);
}

/* ---- Lying files: damaged, with checksums that are right ------------------------------------------------ */

Test(flat_file, no_lie_crashes) {
    for (id_kind kind = NUMBERED; kind < ID_KINDS; kind++) {
        damage_image file = image_of(KITH_F32, kind == NUMBERED ? KITH_L2 : KITH_COSINE, kind);
        damage_flip_all(&file, SIZE_MAX);
        free(file.bytes);
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(flat_file, lying_fields_are_named) {
    damage_image file = image_of(KITH_F32, KITH_COSINE, MIXED); /* ids 1, 9, 5, 7 in this order of rows */
    static const uint64_t nan_bits = 0x7fc00000, large_bits = 0x7f000000;
    const damage_lie lies[] = {
        {"INDXMETA", 0, 4, 0, true, "dimension 0"},
        {"INDXMETA", 0, 4, KITH_DIM_MAX + 1, true, "dimension 32769"},
        {"INDXMETA", 0, 4, 4, true, "FLATVECS"},
        {"INDXMETA", 4, 4, 0, true, "metric 0"},
        {"INDXMETA", 4, 4, KITH_HAMMING, true, "metric 4"},
        {"INDXMETA", 8, 4, 6, true, "element type 6"},
        {"INDXMETA", 8, 4, KITH_F16, true, "do not go together"},
        {"INDXMETA", 12, 4, 2, true, "trained is 2"},
        {"INDXMETA", 12, 4, 0, true, "trained is 0"},
        {"INDXMETA", 16, 8, 5, true, "FLATVECS"},
        {"INDXMETA", 16, 8, UINT64_MAX, true, "vectors with ids below"},
        {"INDXMETA", 24, 8, UINT64_MAX, true, "vectors with ids below"},
        {"INDXMETA", 24, 8, 3, true, "4 vectors with ids below 3"},
        {"INDXMETA", 24, 8, 9, false, "next_id"},
        {"INDXMETA", 32, 4, 0x74616c66, true, "expected one of Flat"}, /* "flat" */
        {"INDXMETA", 36, 4, 0x3233662c, true, "do not go"},            /* "Flat,f32": not canonical */
        {"INDXMETA", 36, 4, 0x0a, true, "byte 4 of the spec"},
        {"INDXMETA", 37, 1, 'x', true, "byte 5 of the spec"},
        {"FLATMETA", 0, 8, 1, true, "from 1 on"},
        {"FLATMETA", 8, 4, 2, true, "has_ids is 2"},
        {"FLATMETA", 8, 4, 0, true, "has_ids is 0"},
        {"FLATMETA", 12, 4, 1, false, "ids_rise"},
        {"FLATVECS", 4, 4, nan_bits, false, "row 0, column 1 is nan"},
        {"FLATVECS", 4, 4, large_bits, false, "row 0"},
        {"FLATNORM", 4, 4, 0x3f800000, false, "norm"},
        {"FLATROWI", 8, 8, (uint64_t)-1, false, "an id is not in"},
        {"FLATROWI", 8, 8, 1, false, "an id stands twice"},
    };
    damage_check_lies(&file, lies, sizeof lies / sizeof *lies);
    free(file.bytes);
    file = image_of(KITH_U8, KITH_L2, SHIFTED);
    const damage_lie more[] = {
        {"FLATMETA", 0, 8, 1001, true, "5 ids from 1001 on, all below 1005"},
        {"FLATMETA", 0, 8, UINT64_MAX, true, "all below 1005"},
        {"FLATMETA", 12, 4, 0, true, "ids_rise"},
        {"INDXMETA", 24, 8, 1004, true, "all below 1004"},
        {"INDXMETA", 4, 4, KITH_COSINE, true, "FLATNORM"},
    };
    damage_check_lies(&file, more, sizeof more / sizeof *more);
    free(file.bytes);
}

Test(flat_file, spec_without_an_end_is_refused) {
    damage_image file = image_of(KITH_F32, KITH_L2, MIXED);
    kith_index *index;
    memset(damage_content(&file, "INDXMETA") + 32, 'x', 256);
    damage_repair(&file);
    cr_assert_eq(damage_open(&file, true, &index), KITH_ERR_FORMAT);
    cr_assert_not_null(strstr(kith_error_message(), "the spec has no end"), "'%s'", kith_error_message());
    free(file.bytes);
}

Test(flat_file, sections_of_another_length_are_refused) {
    damage_image file = image_of(KITH_F32, KITH_COSINE, MIXED);
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
            cr_assert_not_null(strstr(kith_error_message(), "bytes"), "'%s'", kith_error_message());
            damage_put(length, before);
            at[before - 1] = last;
        }
    free(file.bytes);
}

/* ---- The system ----------------------------------------------------------------------------------------- */

Test(flat_file, every_failing_allocation_and_call_leaves_the_old_file) {
    fixture_model model, other;
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith"), *kept = faults_path(folder, "old");
    faults_fail_allocation(0);
    kith_index *old = filled(KITH_F32, KITH_COSINE, 4, DIM, NUMBERED, &model);
    kith_index *index = filled(KITH_F32, KITH_COSINE, 40, DIM, MIXED, &other);
    cr_assert_eq(kith_index_save(old, path), KITH_OK);
    cr_assert_eq(kith_index_save(old, kept), KITH_OK);
    uint64_t live = kith_memory_live_blocks();
    for (size_t n = 1;; n++) {
        faults_fail_allocation(n);
        kith_status status = kith_index_save(index, path);
        bool reached = faults_allocation_count() >= n;
        faults_fail_allocation(0);
        cr_assert_eq(kith_memory_live_blocks(), live);
        cr_assert_eq(status, reached ? KITH_ERR_NO_MEMORY : KITH_OK);
        cr_assert_eq(faults_file_count(folder), 2);
        if (!reached) break;
        cr_assert(faults_same_files(path, kept));
    }
    cr_assert_eq(kith_index_save(old, path), KITH_OK);
    for (size_t n = 1;; n++) {
        faults_fail_syscall(n, ENOSPC, true);
        kith_status status = kith_index_save(index, path);
        bool reached = faults_syscall_count() >= n;
        faults_fail_syscall(0, 0, false);
        cr_assert_eq(kith_memory_live_blocks(), live);
        cr_assert_eq(faults_file_count(folder), 2);
        cr_assert_eq(kith_file_verify(path), KITH_OK, "%s", kith_error_message());
        if (status == KITH_OK && !reached) break;
    }
    faults_fail_syscall(0, 0, false);
    kith_index_free(old);
    kith_index_free(index);
    fixture_model_free(&model);
    fixture_model_free(&other);
    faults_folder_remove(folder);
}

typedef kith_status (*open_fn)(const char *path, kith_index **out);

Test(flat_file, opening_survives_every_failing_allocation_and_call) {
    fixture_model model;
    const char *folder = faults_folder(), *path = faults_path(folder, "x.kith");
    faults_fail_allocation(0);
    kith_index *index = filled(KITH_F32, KITH_COSINE, 40, DIM, MIXED, &model), *out;
    cr_assert_eq(kith_index_save(index, path), KITH_OK);
    kith_index_free(index);
    static const open_fn opens[] = {kith_index_load, kith_index_map};
    for (size_t i = 0; i < 2; i++)
        for (int calls = 0; calls < 2; calls++)
            for (size_t n = 1;; n++) {
                if (calls)
                    faults_fail_syscall(n, EIO, false);
                else
                    faults_fail_allocation(n);
                kith_status status = opens[i](path, &out);
                bool reached = (calls ? faults_syscall_count() : faults_allocation_count()) >= n;
                faults_fail_syscall(0, 0, false);
                faults_fail_allocation(0);
                if (status != KITH_OK) {
                    cr_assert(reached);
                    cr_assert_null(out);
                    cr_assert_eq(kith_memory_live_blocks(), 0);
                    continue;
                }
                fixture_check_content(out, &model);
                kith_index_free(out);
                if (!reached) break;
            }
    fixture_model_free(&model);
    faults_folder_remove(folder);
}

Test(flat_file, places_that_do_not_do_are_errors) {
    fixture_model model;
    const char *folder = faults_folder();
    kith_index *index = filled(KITH_U8, KITH_L2, 4, DIM, NUMBERED, &model), *out;
    cr_assert_eq(kith_index_save(index, faults_path(folder, "no/such")), KITH_ERR_IO);
    cr_assert_eq(kith_index_save(index, folder), KITH_ERR_IO);
    cr_assert_eq(kith_index_save(index, "/dev/full"), KITH_ERR_IO);
    cr_assert_eq(kith_index_save(index, ""), KITH_ERR_IO);
    cr_assert_eq(kith_index_load(faults_path(folder, "none"), &out), KITH_ERR_IO);
    cr_assert_not_null(strstr(kith_error_message(), "none"));
    cr_assert_eq(kith_index_map(folder, &out), KITH_ERR_IO);
    faults_write_file(faults_path(folder, "text"), "hello", 5);
    cr_assert_eq(kith_index_load(faults_path(folder, "text"), &out), KITH_ERR_FORMAT);
    cr_assert_eq(kith_file_verify(faults_path(folder, "text")), KITH_ERR_FORMAT);
    kith_index_free(index);
    fixture_model_free(&model);
    faults_folder_remove(folder);
}
