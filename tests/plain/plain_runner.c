/* SPDX-License-Identifier: Apache-2.0
 *
 * plain_runner.c: runs the tests that plain/criterion/criterion.h registered, each in a process of its own.
 *
 * Usage: test_NAME [--jobs N] [--filter PART]   PART: of "suite/name". --jobs is taken and ignored.
 */
#include "criterion/criterion.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static plain_test *first_test;

/* Keeps the order of suite and name, so that runs are alike whatever the linker did. */
void plain_register(plain_test *test) {
    plain_test **at = &first_test;
    while (*at != NULL && strcmp((*at)->name, test->name) < 0) at = &(*at)->next;
    test->next = *at;
    *at = test;
}

void plain_fail(const char *file, int line, const char *what, const char *format, ...) {
    (void)fprintf(stderr, "%s:%d: not so: %s;", file, line, what);
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    _exit(101);
}

static void run_in_child(const plain_test *test) {
    if (test->init != NULL) test->init();
    test->run();
    if (test->fini != NULL) test->fini();
    exit(0);
}

static bool ended_as_expected(const plain_test *test, int how) {
    if (test->signal != 0) return WIFSIGNALED(how) && WTERMSIG(how) == test->signal;
    return WIFEXITED(how) && WEXITSTATUS(how) == test->exit_code;
}

static bool run_test(const plain_test *test) {
    struct timespec start, end;
    (void)fflush(NULL);
    (void)clock_gettime(CLOCK_MONOTONIC, &start);
    pid_t child = fork();
    if (child == 0) run_in_child(test);
    int how = -1;
    while (child > 0 && waitpid(child, &how, 0) < 0 && errno == EINTR) continue;
    (void)clock_gettime(CLOCK_MONOTONIC, &end);
    bool passed = child > 0 && ended_as_expected(test, how);
    double seconds = (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) * 1e-9;
    const char *word = passed ? "pass" : "FAIL";
    (void)printf("[%s] %s::%s (%.2f s)", word, test->suite, test->name, seconds);
    if (!passed && WIFSIGNALED(how)) (void)printf(" signal %d", WTERMSIG(how));
    if (!passed && WIFEXITED(how)) (void)printf(" exit status %d", WEXITSTATUS(how));
    (void)printf("\n");
    return passed;
}

int main(int count, char **arguments) {
    const char *filter = "";
    for (int i = 1; i + 1 < count; i++)
        if (strcmp(arguments[i], "--filter") == 0) filter = arguments[i + 1];
    size_t ran = 0, failed = 0;
    for (const plain_test *test = first_test; test != NULL; test = test->next) {
        char name[256];
        (void)snprintf(name, sizeof name, "%s/%s", test->suite, test->name);
        if (test->disabled || strstr(name, filter) == NULL) continue;
        ran++;
        failed += !run_test(test);
    }
    (void)printf("%zu tests, %zu failed\n", ran, failed);
    return ran == 0 || failed != 0;
}
