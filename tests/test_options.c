/* SPDX-License-Identifier: Apache-2.0 */
#include "base/options.h"

#include <criterion/criterion.h>
#include <string.h>

#include "kith/status.h"

/* One struct as three releases know it. */
typedef struct options_1 {
    size_t size;
    uint64_t a;
} options_1;
typedef struct options_2 {
    size_t size;
    uint64_t a, b;
} options_2;
typedef struct options_3 {
    size_t size;
    uint64_t a, b;
    const void *c;
    uint8_t d;
} options_3;

static options_2 defaults(void) { return (options_2){.size = sizeof(options_2), .a = 10, .b = 20}; }

Test(options, null_stands_for_the_defaults) {
    options_2 own = defaults();
    cr_assert_eq(kith_options_read("t", &own, sizeof own, NULL), KITH_OK);
    cr_assert(own.size == sizeof own && own.a == 10 && own.b == 20);
}

Test(options, the_same_release) {
    options_2 own = defaults(), given = {sizeof given, 1, 2};
    cr_assert_eq(kith_options_read("t", &own, sizeof own, &given), KITH_OK);
    cr_assert(own.size == sizeof own && own.a == 1 && own.b == 2);
}

Test(options, an_older_program) {
    struct {
        options_1 given;
        uint64_t beyond; /* must not be read as field b */
    } stack = {{sizeof(options_1), 1}, 99};
    options_2 own = defaults();
    cr_assert_eq(kith_options_read("t", &own, sizeof own, &stack.given), KITH_OK);
    cr_assert(own.size == sizeof own && own.a == 1 && own.b == 20);
}

Test(options, a_newer_program) {
    options_3 given;
    memset(&given, 0, sizeof given);
    given.size = sizeof given;
    given.a = 1;
    given.b = 2;
    options_2 own = defaults();
    cr_assert_eq(kith_options_read("t", &own, sizeof own, &given), KITH_OK,
                 "new fields at their default 0 are fine");
    cr_assert(own.size == sizeof own && own.a == 1 && own.b == 2);
    given.d = 1;
    own = defaults();
    cr_assert_eq(kith_options_read("t", &own, sizeof own, &given), KITH_ERR_UNSUPPORTED);
    cr_assert(own.a == 10 && own.b == 20, "a refused struct changes nothing");
    given.d = 0;
    given.c = &given;
    cr_assert_eq(kith_options_read("t", &own, sizeof own, &given), KITH_ERR_UNSUPPORTED);
}

Test(options, sizes_that_cannot_be) {
    static const size_t sizes[] = {0, 1, sizeof(size_t) - 1, 4097, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        options_2 own = defaults(), given = {sizes[i], 1, 2};
        cr_assert_eq(kith_options_read("search params", &own, sizeof own, &given), KITH_ERR_ARGUMENT);
        cr_assert(strstr(kith_error_message(), "search params") != NULL);
        cr_assert(own.a == 10 && own.b == 20);
    }
}

Test(options, a_job_is_checked) {
    kith_job own, given;
    cr_assert_eq(kith_job_read(&own, NULL), KITH_OK);
    cr_assert(own.seed == 1 && own.threads >= 1 && own.threads <= 1024 && own.progress == NULL);
    kith_job_init(&given);
    cr_assert(given.size == sizeof given && given.threads == 0 && given.seed == 1 && given.memory_bytes_max == 0);
    given.threads = 1024;
    given.seed = 7;
    cr_assert_eq(kith_job_read(&own, &given), KITH_OK);
    cr_assert(own.threads == 1024 && own.seed == 7);
    given.threads = 1025;
    cr_assert_eq(kith_job_read(&own, &given), KITH_ERR_ARGUMENT);
    cr_assert(strstr(kith_error_message(), "1025") != NULL, "%s", kith_error_message());
    memset(&given, 0, sizeof given);
    cr_assert_eq(kith_job_read(&own, &given), KITH_ERR_ARGUMENT, "never initialised");
}

Test(options, an_old_job_without_its_last_fields) {
    kith_job own, given;
    kith_job_init(&given);
    given.size = offsetof(kith_job, progress);
    given.seed = 5;
    given.progress = (kith_progress_fn)(uintptr_t)1; /* lies past its size */
    given.memory_bytes_max = 77;
    cr_assert_eq(kith_job_read(&own, &given), KITH_OK);
    cr_assert(own.seed == 5 && own.progress == NULL && own.memory_bytes_max == 0);
}

Test(options, threads) {
    size_t out;
    cr_assert_eq(kith_threads_read(0, &out), KITH_OK);
    cr_assert(out >= 1 && out <= 1024);
    cr_assert_eq(out, kith_threads_default());
    cr_assert_eq(kith_threads_read(1, &out), KITH_OK);
    cr_assert_eq(out, 1);
    cr_assert_eq(kith_threads_read(SIZE_MAX, &out), KITH_ERR_ARGUMENT);
}
