/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

Test(error, starts_empty_and_is_kept) {
    cr_assert_str_eq(kith_error_message(), "");
    cr_assert_eq(kith_error(KITH_ERR_DIMENSION, "row %d has %s", 7, "3"), KITH_ERR_DIMENSION);
    cr_assert_str_eq(kith_error_message(), "row 7 has 3");
    cr_assert_eq(kith_error(KITH_ERR_IO, "%s", ""), KITH_ERR_IO);
    cr_assert_str_eq(kith_error_message(), "");
}

Test(error, is_cut_at_its_room) {
    char text[2000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    for (size_t bytes = 500; bytes < 520; bytes++) {
        (void)kith_error(KITH_ERR_IO, "%.*s", (int)bytes, text);
        cr_assert_eq(strlen(kith_error_message()), bytes < 511 ? bytes : 511);
    }
    (void)kith_error_prefix(KITH_ERR_IO, "%s", "file");
    cr_assert_eq(strlen(kith_error_message()), 511);
    cr_assert(strncmp(kith_error_message(), "file: xxx", 9) == 0);
    (void)kith_error_prefix(KITH_ERR_IO, "%s", text);
    cr_assert_eq(strlen(kith_error_message()), 511, "a prefix that takes all the room");
    cr_assert_eq(strspn(kith_error_message(), "x"), 511);
}

Test(error, control_bytes_never_get_out) {
    (void)kith_error(KITH_ERR_FORMAT, "a\nb\tc\x1b[31md\x7f"
                                      "e\xc3\xa9");
    cr_assert_str_eq(kith_error_message(), "a?b?c?[31md?e\xc3\xa9", "UTF-8 stays");
    (void)kith_error_prefix(KITH_ERR_FORMAT, "x\ry");
    cr_assert(strncmp(kith_error_message(), "x?y: a?b", 8) == 0);
}

typedef struct heard {
    unsigned count;
    char last[512];
} heard;

static void hear(void *user, kith_log_level level, const char *message) {
    heard *all = user;
    cr_assert_eq(level, KITH_LOG_WARNING);
    all->count++;
    (void)snprintf(all->last, sizeof all->last, "%s", message);
}

Test(error, warnings_go_to_the_hook_and_leave_the_message_alone) {
    heard all = {0};
    (void)kith_error(KITH_ERR_IO, "before");
    kith_warn("to nobody");
    kith_log_set(hear, &all);
    kith_warn("row %d\nof %s", 7, "a.fvecs");
    cr_assert_eq(all.count, 1);
    cr_assert_str_eq(all.last, "row 7?of a.fvecs");
    kith_warn_few("train", 38, 1, "lists");
    cr_assert_str_eq(all.last, "train: 38 vectors for 1 lists; at least 39 are recommended");
    kith_warn_few("train", 39 * 8, 8, "lists");
    cr_assert_eq(all.count, 2);
    kith_warn_few("train", 39 * 8 - 1, 8, "lists");
    cr_assert_eq(all.count, 3);
    kith_log_set(NULL, NULL);
    kith_warn("to nobody");
    cr_assert_eq(all.count, 3);
    cr_assert_str_eq(kith_error_message(), "before");
}

Test(error, prefixes_stand_before) {
    (void)kith_error(KITH_ERR_FORMAT, "offset %d", 12);
    cr_assert_eq(kith_error_prefix(KITH_ERR_FORMAT, "%s row %d", "a.fvecs", 3), KITH_ERR_FORMAT);
    cr_assert_str_eq(kith_error_message(), "a.fvecs row 3: offset 12");
}

Test(error, may_quote_the_present_message) {
    (void)kith_error(KITH_ERR_IO, "disk full");
    (void)kith_error(KITH_ERR_IO, "save: %s", kith_error_message());
    cr_assert_str_eq(kith_error_message(), "save: disk full");
    (void)kith_error_prefix(KITH_ERR_IO, "again (%s)", kith_error_message());
    cr_assert_str_eq(kith_error_message(), "again (save: disk full): save: disk full");
}

static void *other_thread(void *arg) {
    (void)arg;
    cr_assert_str_eq(kith_error_message(), "");
    (void)kith_error(KITH_ERR_IO, "theirs");
    return NULL;
}

Test(error, threads_have_their_own) {
    (void)kith_error(KITH_ERR_IO, "mine");
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, other_thread, NULL), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_str_eq(kith_error_message(), "mine");
}

Test(error, every_status_has_its_name) {
    for (int status = KITH_OK; status <= KITH_ERR_INTERNAL; status++) {
        const char *name = kith_status_name((kith_status)status);
        cr_assert(strncmp(name, status == KITH_OK ? "KITH_OK" : "KITH_ERR_", 7) == 0, "%d: %s", status, name);
        cr_assert_str_neq(name, "KITH_ERR_UNKNOWN", "%d", status);
        for (int other = KITH_OK; other < status; other++)
            cr_assert_str_neq(name, kith_status_name((kith_status)other));
    }
    cr_assert_str_eq(kith_status_name((kith_status)(KITH_ERR_INTERNAL + 1)), "KITH_ERR_UNKNOWN");
    cr_assert_str_eq(kith_status_name((kith_status)-1), "KITH_ERR_UNKNOWN");
    cr_assert_str_eq(kith_status_name((kith_status)0x7fffffff), "KITH_ERR_UNKNOWN");
}

Test(error, the_version_is_that_of_the_headers) {
    int major = -1, minor = -1, patch = -1;
    cr_assert_eq(sscanf(kith_version(), "%d.%d.%d", &major, &minor, &patch), 3);
    cr_assert(major == KITH_VERSION_MAJOR && minor == KITH_VERSION_MINOR && patch == KITH_VERSION_PATCH);
    cr_assert_str_eq(kith_version(), PROJECT_VERSION, "meson.build and status.h agree");
}
