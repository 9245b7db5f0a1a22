/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/memory.h"
#include "faults.h"
#include "io/atomicfile.h"
#include "io/container.h"
#include "io/mappedfile.h"

/* A small index file: three sections, one of them skippable, one empty. `seed` makes its content. */
static kith_status write_sample(const char *path, unsigned seed, size_t bytes) {
    unsigned char *content = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) content[i] = (unsigned char)(i * 31 + seed);
    kith_container_writer *writer = NULL;
    kith_status status = kith_container_writer_create(path, &writer);
    if (status != KITH_OK) goto done;
    status = kith_container_writer_add(writer, "TESTSEED", 0, &seed, sizeof seed);
    if (status == KITH_OK) status = kith_container_writer_begin(writer, "TESTDATA", 7, 3, 0);
    for (size_t at = 0; at < bytes && status == KITH_OK; at += 1000) /* in pieces */
        status = kith_container_writer_write(writer, content + at, kith_min_size(1000, bytes - at));
    if (status == KITH_OK) status = kith_container_writer_begin(writer, "TESTNOTE", 0, 1, KITH_SECTION_SKIPPABLE);
    if (status == KITH_OK) {
        status = kith_container_writer_commit(writer);
        writer = NULL;
    }
done:
    kith_container_writer_abort(writer);
    free(content);
    return status;
}

/* Reads what write_sample wrote. */
static kith_status read_sample(kith_container *container, unsigned *seed) {
    const kith_section *section;
    const void *data;
    kith_status status = kith_container_need_items(container, "TESTSEED", 0, 1, sizeof *seed, &data);
    if (status == KITH_OK) memcpy(seed, data, sizeof *seed);
    if (status == KITH_OK) status = kith_container_need(container, "TESTDATA", 7, 3, &section);
    if (status == KITH_OK)
        for (size_t i = 0; i < section->bytes; i++)
            if (((const unsigned char *)section->data)[i] != (unsigned char)(i * 31 + *seed))
                return kith_section_error(container, section, "byte %zu is wrong", i);
    if (status == KITH_OK) status = kith_container_finish(container);
    return status;
}

static kith_status load_sample(const char *path, unsigned *seed) {
    kith_container *container;
    kith_status status = kith_container_open(path, &container);
    if (status == KITH_OK) status = kith_container_verify(container);
    if (status == KITH_OK) status = read_sample(container, seed);
    kith_container_close(container);
    return status;
}

static kith_status load_bytes(const void *data, size_t bytes) {
    kith_container *container;
    unsigned seed;
    kith_status status = kith_container_open_memory("memory", data, bytes, &container);
    if (status == KITH_OK) status = kith_container_verify(container);
    if (status == KITH_OK) status = read_sample(container, &seed);
    kith_container_close(container);
    return status;
}

Test(container, comes_back_as_it_was_written) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    static const size_t sizes[] = {0, 1, 999, 4095, 4096, 4097, 3000000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned seed = 0;
        cr_assert_eq(write_sample(path, 40 + (unsigned)i, sizes[i]), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(load_sample(path, &seed), KITH_OK, "%s", kith_error_message());
        cr_assert_eq(seed, 40 + i);
        kith_container *container;
        cr_assert_eq(kith_container_open(path, &container), KITH_OK);
        cr_assert_eq(kith_container_section_count(container), 3);
        for (size_t s = 0; s < 3; s++)
            cr_assert_eq((uintptr_t)kith_container_section_at(container, s)->data % KITH_SECTION_ALIGNMENT, 0);
        cr_assert_eq(kith_container_section_at(container, 1)->bytes, sizes[i]);
        cr_assert_eq(kith_container_section_at(container, 1)->instance, 7);
        cr_assert_eq(kith_container_section_at(container, 2)->flags, KITH_SECTION_SKIPPABLE);
        kith_container_close(container);
    }
    cr_assert_eq(faults_file_count(folder), 1);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(container, asks_for_sections_by_name) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 100), KITH_OK);
    kith_container *container;
    const kith_section *section;
    const void *data;
    cr_assert_eq(kith_container_open(path, &container), KITH_OK);
    cr_assert_eq(kith_container_find(container, "TESTDATA", 6, 3, &section), KITH_OK);
    cr_assert_null(section);
    cr_assert_eq(kith_container_need(container, "TESTDATA", 6, 3, &section), KITH_ERR_FORMAT);
    cr_assert_eq(kith_container_find(container, "TESTDATA", 7, 2, &section), KITH_ERR_VERSION);
    cr_assert_eq(kith_container_need_items(container, "TESTSEED", 0, 2, 4, &data), KITH_ERR_FORMAT);
    cr_assert_not_null(strstr(kith_error_message(), "TESTSEED.0"));
    cr_assert_null(data);
    cr_assert_eq(kith_container_need_items(container, "TESTSEED", 0, SIZE_MAX, 4, &data), KITH_ERR_FORMAT);
    /* TESTDATA was refused and TESTNOTE may be skipped. */
    cr_assert_eq(kith_container_finish(container), KITH_ERR_VERSION);
    cr_assert_not_null(strstr(kith_error_message(), "TESTDATA.7"));
    cr_assert_eq(kith_container_find(container, "TESTDATA", 7, 3, &section), KITH_OK);
    cr_assert_eq(kith_container_finish(container), KITH_OK);
    kith_container_close(container);
    faults_folder_remove(folder);
}

Test(container, refuses_what_a_writer_must_not_do) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    kith_container_writer *writer;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    cr_assert_eq(kith_container_writer_write(writer, "x", 1), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_begin(writer, "SHORT", 0, 1, 0), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_begin(writer, "TOOLONGTAG", 0, 1, 0), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_begin(writer, "WITH GAP", 0, 1, 0), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_begin(writer, "TESTDATA", 0, 0, 0), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_begin(writer, "TESTDATA", 0, 1, 2), KITH_ERR_INTERNAL);
    cr_assert_eq(kith_container_writer_add(writer, "TESTDATA", 0, "x", 1), KITH_OK);
    cr_assert_eq(kith_container_writer_add(writer, "TESTDATA", 0, "x", 1), KITH_OK);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_ERR_INTERNAL);
    cr_assert_eq(faults_file_count(folder), 0);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(container, every_flipped_bit_is_an_error) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 5000), KITH_OK);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    cr_assert_eq(load_bytes(content, bytes), KITH_OK, "%s", kith_error_message());
    for (size_t bit = 0; bit < 8 * bytes; bit++) {
        content[bit / 8] ^= (unsigned char)(1u << bit % 8);
        kith_status status = load_bytes(content, bytes);
        cr_assert(status == KITH_ERR_FORMAT || status == KITH_ERR_CHECKSUM || status == KITH_ERR_VERSION,
                  "bit %zu: %s %s", bit, kith_status_name(status), kith_error_message());
        content[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(content);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(container, every_other_length_is_an_error) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 5000), KITH_OK);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    for (size_t length = 0; length < bytes; length++) {
        unsigned char *part = malloc(length + (length == 0)); /* so that a sanitizer sees a read past its end */
        memcpy(part, content, length);
        cr_assert_eq(load_bytes(part, length), KITH_ERR_FORMAT, "length %zu: %s", length, kith_error_message());
        free(part);
    }
    content = realloc(content, bytes + 1);
    content[bytes] = 0;
    cr_assert_eq(load_bytes(content, bytes + 1), KITH_ERR_FORMAT);
    free(content);
    faults_folder_remove(folder);
}

/* Mends header and table checksums, so that the checks behind them are reached. */
static void mend(unsigned char *content, size_t bytes) {
    uint64_t table, count;
    memcpy(&table, content + 24, 8);
    memcpy(&count, content + 32, 8);
    if (table < bytes && count <= (bytes - table) / 48) {
        uint64_t sum = XXH3_64bits(content + table, (size_t)count * 48);
        memcpy(content + 40, &sum, 8);
    }
    uint64_t sum = XXH3_64bits(content, 56);
    memcpy(content + 56, &sum, 8);
}

Test(container, lying_fields_are_errors) {
    static const struct {
        const char *what;
        bool in_table;
        size_t offset, width;
        uint64_t value;
        kith_status status;
    } lies[] = {
        {"a newer major version", false, 8, 2, 2, KITH_ERR_VERSION},
        {"major version 0", false, 8, 2, 0, KITH_ERR_FORMAT},
        {"an unknown feature", false, 12, 4, 1u << 31, KITH_ERR_VERSION},
        {"another file length", false, 16, 8, 1 << 20, KITH_ERR_FORMAT},
        {"a file length that wraps", false, 16, 8, UINT64_MAX, KITH_ERR_FORMAT},
        {"a table inside the header", false, 24, 8, 0, KITH_ERR_FORMAT},
        {"a table past the end", false, 24, 8, (uint64_t)1 << 40, KITH_ERR_FORMAT},
        {"an unaligned table", false, 24, 8, 4097, KITH_ERR_FORMAT},
        {"too many sections", false, 32, 8, 4, KITH_ERR_FORMAT},
        {"too few sections", false, 32, 8, 2, KITH_ERR_FORMAT},
        {"a section count that wraps", false, 32, 8, UINT64_MAX / 48 + 4, KITH_ERR_FORMAT},
        {"a reserved field", false, 48, 8, 1, KITH_ERR_FORMAT},
        {"a tag with a space", true, 48, 1, ' ', KITH_ERR_FORMAT},
        {"a tag with a zero", true, 55, 1, 0, KITH_ERR_FORMAT},
        {"section version 0", true, 48 + 12, 4, 0, KITH_ERR_FORMAT},
        {"a newer section", true, 48 + 12, 4, 4, KITH_ERR_VERSION},
        {"an unknown flag", true, 48 + 16, 4, 2, KITH_ERR_VERSION},
        {"a reserved table field", true, 48 + 20, 4, 1, KITH_ERR_FORMAT},
        {"a section over another", true, 48 + 24, 8, 4096, KITH_ERR_FORMAT},
        {"a section over the table", true, 96 + 24, 8, 20480, KITH_ERR_FORMAT},
        {"an unaligned section", true, 48 + 24, 8, 8193, KITH_ERR_FORMAT},
        {"a section past the end", true, 48 + 24, 8, (uint64_t)1 << 40, KITH_ERR_FORMAT},
        {"a longer section", true, 48 + 32, 8, 8193, KITH_ERR_FORMAT},
        {"a section that wraps", true, 48 + 32, 8, UINT64_MAX - 100, KITH_ERR_FORMAT},
        {"a shorter section with a gap", true, 48 + 32, 8, 100, KITH_ERR_FORMAT},
        {"a section shorter by its last byte", true, 48 + 32, 8, 4999, KITH_ERR_CHECKSUM},
        {"a section longer by a padding byte", true, 48 + 32, 8, 5001, KITH_ERR_CHECKSUM},
        {"an unknown section that may not be skipped", true, 96 + 16, 4, 0, KITH_ERR_VERSION},
    };
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 5000), KITH_OK);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes), *changed = malloc(bytes);
    uint64_t table;
    memcpy(&table, content + 24, 8);
    mend(content, bytes);
    cr_assert_eq(load_bytes(content, bytes), KITH_OK);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        memcpy(changed, content, bytes);
        memcpy(changed + (lies[i].in_table ? table : 0) + lies[i].offset, &lies[i].value, lies[i].width);
        mend(changed, bytes);
        cr_assert_eq(load_bytes(changed, bytes), lies[i].status, "%s: %s", lies[i].what, kith_error_message());
    }
    memcpy(changed, content, bytes);
    memcpy(changed + table + 96, changed + table, 12); /* the third section takes the name of the first */
    mend(changed, bytes);
    cr_assert_eq(load_bytes(changed, bytes), KITH_ERR_FORMAT);
    cr_assert_not_null(strstr(kith_error_message(), "TESTSEED.0"));
    free(changed);
    free(content);
    faults_folder_remove(folder);
}

Test(container, minor_versions_pass) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 10), KITH_OK);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    content[10] = 9;
    mend(content, bytes);
    cr_assert_eq(load_bytes(content, bytes), KITH_OK, "%s", kith_error_message());
    free(content);
    faults_folder_remove(folder);
}

Test(container, sections_without_end_cost_no_time) {
    const char *folder = faults_folder(), *path = faults_path(folder, "many.kith");
    kith_container_writer *writer;
    cr_assert_eq(kith_container_writer_create(path, &writer), KITH_OK);
    for (uint32_t i = 0; i < 100000; i++)
        cr_assert_eq(kith_container_writer_begin(writer, "TESTMANY", i * 2654435761u, 1, 0), KITH_OK);
    cr_assert_eq(kith_container_writer_commit(writer), KITH_OK, "%s", kith_error_message());
    kith_container *container;
    const kith_section *section;
    cr_assert_eq(kith_container_open(path, &container), KITH_OK, "%s", kith_error_message());
    for (uint32_t i = 0; i < 100000; i++)
        cr_assert_eq(kith_container_need(container, "TESTMANY", i * 2654435761u, 1, &section), KITH_OK);
    cr_assert_eq(kith_container_finish(container), KITH_OK);
    kith_container_close(container);
    faults_folder_remove(folder);
}

Test(container, large_sections_are_not_read_at_open) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 3000000), KITH_OK);
    size_t bytes;
    unsigned char *content = faults_read_file(path, &bytes);
    content[8192 + 2000000] ^= 1;
    faults_write_file(path, content, bytes);
    kith_container *container;
    const kith_section *section;
    cr_assert_eq(kith_container_open(path, &container), KITH_OK);
    cr_assert_eq(kith_container_need(container, "TESTDATA", 7, 3, &section), KITH_OK);
    cr_assert_eq(kith_container_verify(container), KITH_ERR_CHECKSUM);
    cr_assert_not_null(strstr(kith_error_message(), "TESTDATA.7"));
    kith_container_close(container);
    content[4096] ^= 1; /* in the small section */
    faults_write_file(path, content, bytes);
    cr_assert_eq(kith_container_open(path, &container), KITH_OK);
    cr_assert_eq(kith_container_need(container, "TESTSEED", 0, 1, &section), KITH_ERR_CHECKSUM);
    kith_container_close(container);
    free(content);
    faults_folder_remove(folder);
}

Test(container, opening_what_is_no_index_is_an_error) {
    kith_container *container;
    const char *folder = faults_folder();
    cr_assert_eq(kith_container_open(faults_path(folder, "none"), &container), KITH_ERR_IO);
    cr_assert_eq(kith_container_open(folder, &container), KITH_ERR_IO);
    cr_assert_eq(kith_container_open("/dev/null", &container), KITH_ERR_IO);
    faults_write_file(faults_path(folder, "empty"), "", 0);
    cr_assert_eq(kith_container_open(faults_path(folder, "empty"), &container), KITH_ERR_FORMAT);
    cr_assert_null(container);
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* ---- What the system refuses --------------------------------------------------------------------------- */

Test(container, every_failing_allocation_is_survived) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    unsigned seed;
    faults_fail_allocation(0);
    cr_assert_eq(write_sample(path, 1, 5000), KITH_OK);
    for (size_t n = 1;; n++) {
        faults_fail_allocation(n);
        kith_status status = write_sample(path, 2, 5000);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        cr_assert_eq(faults_file_count(folder), 1);
        if (faults_allocation_count() < n) break;
        cr_assert_eq(status, KITH_ERR_NO_MEMORY);
        faults_fail_allocation(0);
        cr_assert(load_sample(path, &seed) == KITH_OK && seed == 1);
    }
    for (size_t n = 1;; n++) {
        faults_fail_allocation(n);
        kith_status status = load_sample(path, &seed);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        if (faults_allocation_count() < n) break;
        cr_assert_eq(status, KITH_ERR_NO_MEMORY);
    }
    faults_folder_remove(folder);
}

static size_t open_files(void) { return faults_file_count("/proc/self/fd"); }

static void check_failing_calls(int error_number, bool sticky, size_t transfer_bytes) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    unsigned seed;
    faults_short_transfers(transfer_bytes);
    faults_fail_syscall(0, 0, false);
    cr_assert_eq(write_sample(path, 1, 700000), KITH_OK, "%s", kith_error_message());
    size_t files_before = open_files();
    size_t failures = 0;
    unsigned present = 1;
    for (size_t n = 1;; n++) {
        faults_fail_syscall(n, error_number, sticky);
        kith_status status = write_sample(path, 2, 700000);
        bool reached = faults_syscall_count() >= n;
        faults_fail_syscall(0, 0, false);
        cr_assert_eq(load_sample(path, &seed), KITH_OK, "call %zu: %s", n, kith_error_message());
        if (status == KITH_OK) cr_assert_eq(seed, 2, "call %zu", n);
        /* Only when the folder's sync or a close after the rename fails is the new file there with an error. */
        if (status != KITH_OK && seed != present) present = seed;
        failures += status != KITH_OK;
        cr_assert_eq(faults_file_count(folder), 1, "call %zu left a file behind", n);
        cr_assert_eq(open_files(), files_before, "call %zu", n);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        if (status != KITH_OK) cr_assert_eq(status, KITH_ERR_IO);
        if (!reached) break;
        if (seed == 2) cr_assert_eq(write_sample(path, 1, 700000), KITH_OK);
    }
    cr_assert_geq(failures, 8);
    faults_folder_remove(folder);
    faults_short_transfers(0);
}

Test(container, every_failing_call_leaves_the_old_file_or_the_new_one) {
    static const int numbers[] = {ENOSPC, EDQUOT, EIO};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        check_failing_calls(numbers[i], false, 0);
        check_failing_calls(numbers[i], true, 0);
    }
    check_failing_calls(EIO, false, 50000);
}

Test(container, signals_and_short_writes_do_no_harm) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    faults_short_transfers(4001);
    for (size_t n = 1;; n++) {
        unsigned seed = 0;
        faults_fail_syscall(n, EINTR, false);
        kith_status status = write_sample(path, (unsigned)n, 20000);
        bool reached = faults_syscall_count() >= n;
        faults_fail_syscall(0, 0, false);
        /* fchmod, rename and the rest are never interrupted by a signal. */
        if (status == KITH_OK) cr_assert(load_sample(path, &seed) == KITH_OK && seed == n);
        cr_assert_leq(faults_file_count(folder), 1);
        if (!reached) {
            cr_assert_eq(status, KITH_OK);
            break;
        }
    }
    faults_folder_remove(folder);
}

Test(container, reading_survives_every_failing_call) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    unsigned seed;
    cr_assert_eq(write_sample(path, 1, 5000), KITH_OK);
    size_t files_before = open_files();
    for (size_t n = 1;; n++) {
        faults_fail_syscall(n, EIO, false);
        kith_status status = load_sample(path, &seed);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        cr_assert_eq(open_files(), files_before);
        if (faults_syscall_count() < n) {
            cr_assert_eq(status, KITH_OK);
            break;
        }
    }
    faults_folder_remove(folder);
}

Test(container, places_that_cannot_be_written_are_errors) {
    const char *folder = faults_folder();
    kith_container_writer *writer;
    cr_assert_eq(kith_container_writer_create("/dev/full", &writer), KITH_ERR_IO);
    cr_assert_eq(kith_container_writer_create("/dev/null", &writer), KITH_ERR_IO);
    struct stat info;
    cr_assert(stat("/dev/null", &info) == 0 && S_ISCHR(info.st_mode));
    cr_assert_eq(kith_container_writer_create("", &writer), KITH_ERR_IO);
    cr_assert_eq(kith_container_writer_create(folder, &writer), KITH_ERR_IO);
    cr_assert_eq(kith_container_writer_create(faults_path(folder, "none/a.kith"), &writer), KITH_ERR_IO);
    cr_assert_eq(kith_container_writer_create(faults_path(folder, "."), &writer), KITH_ERR_IO);
    cr_assert_null(writer);
    if (geteuid() != 0) {
        cr_assert_eq(chmod(folder, 0500), 0);
        cr_assert_eq(kith_container_writer_create(faults_path(folder, "a.kith"), &writer), KITH_ERR_IO);
        cr_assert_eq(chmod(folder, 0700), 0);
    }
    faults_folder_remove(folder);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* A limit on the size of files stands for a full disk: a write is cut short, the next one fails. */
Test(container, a_file_that_may_not_grow_is_an_error) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    unsigned seed;
    cr_assert_eq(write_sample(path, 1, 1000), KITH_OK);
    static const rlim_t limits[] = {0, 100, 4096, 100000, 1000000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            struct rlimit limit = {limits[i], limits[i]};
            (void)signal(SIGXFSZ, SIG_IGN);
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(1);
            _exit(write_sample(path, 2, 1000000) == KITH_ERR_IO ? 0 : 2);
        }
        int state;
        cr_assert(waitpid(child, &state, 0) == child && state == 0, "limit %zu: state %d", i, state);
        cr_assert_eq(faults_file_count(folder), 1);
        cr_assert(load_sample(path, &seed) == KITH_OK && seed == 1);
    }
    faults_folder_remove(folder);
}

/* ---- Replacing files ----------------------------------------------------------------------------------- */

Test(container, a_mapped_file_stays_good_when_it_is_replaced) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    cr_assert_eq(write_sample(path, 1, 3000000), KITH_OK);
    kith_container *container;
    unsigned seed = 0;
    cr_assert_eq(kith_container_open(path, &container), KITH_OK);
    cr_assert_eq(write_sample(path, 2, 10), KITH_OK);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(kith_container_verify(container), KITH_OK);
    cr_assert(read_sample(container, &seed) == KITH_OK && seed == 1);
    kith_container_close(container);
    faults_folder_remove(folder);
}

Test(container, links_and_permissions_are_kept) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    const char *link = faults_path(folder, "link.kith");
    struct stat info;
    unsigned seed;
    cr_assert_eq(write_sample(path, 1, 10), KITH_OK);
    cr_assert_eq(chmod(path, 0640), 0);
    cr_assert_eq(symlink("a.kith", link), 0);
    cr_assert_eq(write_sample(link, 2, 10), KITH_OK);
    cr_assert(lstat(link, &info) == 0 && S_ISLNK(info.st_mode));
    cr_assert(lstat(path, &info) == 0 && S_ISREG(info.st_mode));
    cr_assert_eq(info.st_mode & 07777, 0640);
    cr_assert(load_sample(path, &seed) == KITH_OK && seed == 2);
    faults_folder_remove(folder);
}

/* SIGKILL at a random moment of a save, again and again: the name always holds a whole file. Set KITH_TEST_KILLS for
 * more than the default. */
Test(container, a_killed_save_leaves_a_whole_file) {
    const char *folder = faults_folder(), *path = faults_path(folder, "a.kith");
    const char *wanted = getenv("KITH_TEST_KILLS");
    long kills = wanted != NULL ? strtol(wanted, NULL, 10) : 100;
    unsigned seed = 0, killed = 0;
    cr_assert_eq(write_sample(path, 0, 400000), KITH_OK);
    for (long i = 0; i < kills; i++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0)
            for (unsigned n = (unsigned)i * 1000;; n++)
                if (write_sample(path, n, 400000) != KITH_OK) _exit(1);
        (void)usleep((useconds_t)(500 + rand() % 8000));
        (void)kill(child, SIGKILL);
        int state;
        cr_assert_eq(waitpid(child, &state, 0), child);
        killed += WIFSIGNALED(state);
        cr_assert_eq(load_sample(path, &seed), KITH_OK, "kill %ld: %s", i, kith_error_message());
    }
    cr_assert_eq(killed, kills);
    cr_assert_leq(faults_file_count(folder), (size_t)kills + 1); /* each kill leaves one temporary file at most */
    faults_folder_remove(folder);
}
