/* SPDX-License-Identifier: Apache-2.0
 *
 * test_hnsw_file.c: damaged graph files: lies that checksums do not notice are named, and none crashes.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/random.h"
#include "damage.h"

enum { DIM = 5, COUNT = 30 };

/* Ids that do not rise, so that they are stored. */
static damage_image image_of(const char *spec, kith_metric metric) {
    float values[COUNT * DIM];
    int64_t ids[COUNT];
    kith_index *index;
    kith_view view = {values, KITH_F32, COUNT, DIM, 0};
    for (size_t i = 0; i < COUNT * DIM; i++) values[i] = kith_random_normal(9, 1, i);
    for (size_t i = 0; i < COUNT; i++) ids[i] = (int64_t)((i * 7 + 3) % COUNT);
    cr_assert_eq(kith_index_create(spec, DIM, metric, &index), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_train(index, &view, NULL), KITH_OK, "%s", kith_error_message());
    cr_assert_eq(kith_index_add(index, &view, ids, NULL), KITH_OK, "%s", kith_error_message());
    damage_image out = damage_image_of(index);
    kith_index_free(index);
    return out;
}

Test(hnsw_file, no_lie_crashes) {
    static const char *const specs[] = {
        "HNSW2", "HNSW3,f16", "HNSW2,SQ8", "HNSW2,Line64x4,RFlat", "HNSW17,RaBitQ", "PCA3,HNSW2,RaBitQ2,Rf16"};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++)
        for (int metric = KITH_L2; metric <= KITH_COSINE; metric++) {
            damage_image file = image_of(specs[s], (kith_metric)metric);
            damage_flip_all(&file, 150);
            free(file.bytes);
            cr_assert_eq(kith_memory_live_blocks(), 0);
        }
}

Test(hnsw_file, lying_fields_are_named) {
    static const uint64_t nan_bits = 0x7fc00000,
                          factor_at = 8; /* of SQ8: behind the 5 bytes and what makes them 8 */
    damage_image file = image_of("HNSW2", KITH_COSINE);
    const damage_lie lies[] = {
        {"INDXMETA", 36, 1, '3', true, "HNSWLINK"},
        {"HNSWENTR", 4, 4, COUNT, true, "is node 30"},
        {"HNSWMETA", 8, 8, COUNT + 1, true, "entries picked at 31"},
        {"HNSWROWS", 4, 4, nan_bits, false, "HNSWROWS"},
        {"HNSWROWS", DIM * 4, 1, 1, false, "padded with zeros"},
        {"HNSWSIDE", 0, 4, nan_bits, false, "norm"},
        {"HNSWLINK", 0, 4, COUNT, false, "does not lead to another node"},
        {"HNSWLINK", 16, 4, 1, false, "does not lead to another node"}, /* of node 1 to itself */
        {"HNSWROWI", 0, 8, UINT64_MAX, false, "an id is not in"},
        {"HNSWROWI", 0, 8, 10, false, "an id stands twice"},
    };
    damage_check_lies(&file, lies, sizeof lies / sizeof *lies);
    free(file.bytes);
    file = image_of("HNSW2,SQ8", KITH_L2);
    const damage_lie code = {"HNSWROWS", factor_at, 4, nan_bits, false, "a code does not stand for finite numbers"};
    damage_check_lies(&file, &code, 1);
    free(file.bytes);
    file = image_of("HNSW17,RaBitQ", KITH_L2);
    const damage_lie packed[] = {
        {"HNSWPACK", 0, 4, COUNT, false, "row of node 0 is not made of its links and their codes"},
        {"HNSWPACK", 192, 4, 12345, false, "row of node 0 is not made of its links and their codes"},
    };
    damage_check_lies(&file, packed, sizeof packed / sizeof *packed);
    free(file.bytes);
}
