/* SPDX-License-Identifier: Apache-2.0
 *
 * criterion.h: the part of Criterion's interface that the tests here use, on nothing but POSIX, for where Criterion
 * does not run: under ThreadSanitizer and emulators, on 32-bit and cross builds (-Dtest_runner=plain).
 *
 * Each test runs in a forked process of its own, which ends by exit: so leak checkers report per test.
 */
#ifndef KITH_TESTS_PLAIN_CRITERION_H
#define KITH_TESTS_PLAIN_CRITERION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct plain_test {
    struct plain_test *next;
    const char *suite, *name;
    void (*run)(void);
    /* What may stand after the names in Test(...), as with Criterion. */
    void (*init)(void);
    void (*fini)(void);
    int signal;    /* that the test is to end by */
    int exit_code; /* that it is to end with */
    bool disabled;
} plain_test;

void plain_register(plain_test *test);
/* Prints where and why, and ends the test's process. */
_Noreturn void plain_fail(const char *file, int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#define Test(suite_, name_, ...)                                                                                   \
    static void suite_##_##name_##_run(void);                                                                      \
    __attribute__((constructor)) static void suite_##_##name_##_register(void) {                                   \
        static plain_test test = {.suite = #suite_, .name = #name_, .run = suite_##_##name_##_run, __VA_ARGS__};   \
        plain_register(&test);                                                                                     \
    }                                                                                                              \
    static void suite_##_##name_##_run(void)

#define PLAIN_REQUIRE(condition, what, ...)                                                                        \
    ((condition) ? (void)0 : plain_fail(__FILE__, __LINE__, what, " " __VA_ARGS__))

#define cr_assert(condition, ...)         PLAIN_REQUIRE(condition, #condition, __VA_ARGS__)
#define cr_assert_not(condition, ...)     PLAIN_REQUIRE(!(condition), "not: " #condition, __VA_ARGS__)
#define cr_assert_fail(...)               plain_fail(__FILE__, __LINE__, "fail", " " __VA_ARGS__)
#define cr_assert_eq(a, b, ...)           PLAIN_REQUIRE((a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...)          PLAIN_REQUIRE((a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...)           PLAIN_REQUIRE((a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...)          PLAIN_REQUIRE((a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...)           PLAIN_REQUIRE((a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...)          PLAIN_REQUIRE((a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_null(a, ...)            PLAIN_REQUIRE((a) == NULL, #a " == NULL", __VA_ARGS__)
#define cr_assert_not_null(a, ...)        PLAIN_REQUIRE((a) != NULL, #a " != NULL", __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...)       PLAIN_REQUIRE(strcmp(a, b) == 0, #a " is the text " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...)      PLAIN_REQUIRE(strcmp(a, b) != 0, #a " is not the text " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, size, ...) PLAIN_REQUIRE(memcmp(a, b, size) == 0, #a " equals " #b, __VA_ARGS__)
#define cr_assert_arr_neq(a, b, size, ...)                                                                         \
    PLAIN_REQUIRE(memcmp(a, b, size) != 0, #a " differs from " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, epsilon, ...)                                                                     \
    PLAIN_REQUIRE((a) - (b) <= (epsilon) && (b) - (a) <= (epsilon), #a " is about " #b, __VA_ARGS__)

#endif
