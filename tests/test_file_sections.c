/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kith/index.h"

enum { DIM = 5, COUNT = 400, SECTIONS_MAX = 16 };

static void make_file(char *path, float *rows) {
    kith_index *index;
    for (size_t i = 0; i < COUNT * DIM; i++) rows[i] = (float)i;
    int file = mkstemp(path);
    cr_assert_geq(file, 0);
    cr_assert_eq(close(file), 0);
    const kith_view view = {rows, KITH_F32, COUNT, DIM, 0};
    cr_assert_eq(kith_index_create("Flat", DIM, KITH_L2, &index), KITH_OK);
    cr_assert_eq(kith_index_add(index, &view, NULL, NULL), KITH_OK);
    cr_assert_eq(kith_index_save(index, path), KITH_OK);
    kith_index_free(index);
}

Test(file_sections, stand_where_the_table_says) {
    char path[] = "/tmp/kith-sections-XXXXXX";
    float rows[COUNT * DIM], stored[COUNT * DIM];
    kith_file_section sections[SECTIONS_MAX];
    size_t count = 0, found = 0;
    make_file(path, rows);
    cr_assert_eq(kith_file_sections(path, sections, SECTIONS_MAX, &count), KITH_OK);
    cr_assert_geq(count, 2);
    cr_assert_leq(count, SECTIONS_MAX);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(strlen(sections[i].tag), 8);
        cr_assert_eq(sections[i].offset % 4096, 0);
        cr_assert_geq(sections[i].version, 1);
        if (i > 0) cr_assert_geq(sections[i].offset, sections[i - 1].offset + sections[i - 1].bytes);
        if (strcmp(sections[i].tag, "FLATVECS") != 0) continue;
        found++;
        cr_assert_eq(sections[i].bytes, sizeof rows);
        cr_assert_eq(fseek(file, (long)sections[i].offset, SEEK_SET), 0);
        cr_assert_eq(fread(stored, 1, sizeof stored, file), sizeof stored);
        cr_assert_eq(memcmp(stored, rows, sizeof rows), 0);
    }
    cr_assert_eq(found, 1);
    (void)fclose(file);
    (void)unlink(path);
}

Test(file_sections, counts_without_room) {
    char path[] = "/tmp/kith-sections-XXXXXX";
    float rows[COUNT * DIM];
    kith_file_section sections[2] = {{.version = 77}, {.version = 77}};
    size_t all = 0, some = 0;
    make_file(path, rows);
    cr_assert_eq(kith_file_sections(path, NULL, 0, &all), KITH_OK);
    cr_assert_eq(kith_file_sections(path, sections, 1, &some), KITH_OK);
    cr_assert_eq(all, some);
    cr_assert_neq(sections[0].version, 77);
    cr_assert_eq(sections[1].version, 77);
    (void)unlink(path);
}

Test(file_sections, errors) {
    size_t count = 7;
    cr_assert_eq(kith_file_sections("/tmp", NULL, 0, NULL), KITH_ERR_ARGUMENT);
    cr_assert_eq(kith_file_sections(NULL, NULL, 0, &count), KITH_ERR_ARGUMENT);
    cr_assert_eq(count, 0);
    cr_assert_eq(kith_file_sections("/tmp/kith-no-such-file", NULL, 0, &count), KITH_ERR_IO);
    cr_assert_eq(kith_file_sections("/dev/null", NULL, 0, &count) == KITH_OK, 0);
    cr_assert_eq(count, 0);
}
