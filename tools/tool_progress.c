/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_progress.c: progress bars, cancelling by signal, clock and peak memory.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

static volatile sig_atomic_t signal_number;

static struct {
    bool enabled, drawn;
    const char *phase;
    double phase_start; /* seconds */
    uint64_t phase_done;
} bar;

/* SA_RESETHAND: the next signal of the kind ends the process the usual way. */
static void on_signal(int number) { signal_number = number; }

void kith_tool_signals_install(void) {
    static const int numbers[] = {SIGINT, SIGTERM};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sigaction old, action = {.sa_handler = on_signal, .sa_flags = (int)(SA_RESETHAND | SA_RESTART)};
        /* A shell starts background jobs with SIGINT ignored: it stays so. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
            (void)sigaction(numbers[i], &action, NULL);
    }
}

int kith_tool_interrupted(void) { return signal_number != 0 ? 128 + (int)signal_number : 0; }

int kith_tool_stop_if_interrupted(void) {
    int code = kith_tool_interrupted();
    return code != 0 ? kith_tool_error(code, "interrupted") : KITH_EXIT_OK;
}

void kith_tool_progress_enable(bool wanted) {
    const char *terminal = getenv("TERM");
    bar.enabled = wanted && isatty(STDERR_FILENO) == 1 && (terminal == NULL || strcmp(terminal, "dumb") != 0);
}

void kith_tool_progress_clear(void) {
    if (bar.drawn) (void)fputs("\r\033[K", stderr);
    bar.drawn = false;
}

static size_t terminal_columns(void) {
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 40) return size.ws_col;
    return 80;
}

typedef struct short_text {
    char text[16];
} short_text;

/* "850", "12.3k", "4.56M", ... */
static short_text rate_text(double rate) {
    static const char units[] = " kMGT";
    short_text out;
    size_t unit = 0;
    for (; rate >= 999.5 && units[unit + 1] != '\0'; unit++) rate /= 1000.0;
    (void)snprintf(out.text, sizeof out.text, "%.*f%.*s",
                   rate < 9.995   ? 2
                   : rate < 99.95 ? 1
                                  : 0,
                   rate, unit > 0, &units[unit]);
    return out;
}

static void draw(const char *phase, uint64_t done, uint64_t total) {
    double seconds = kith_tool_seconds() - bar.phase_start;
    double share = total > 0 ? (double)done / (double)total : 0.0;
    char right[64];
    int right_bytes = share > 0.01 && seconds > 0.5
                          ? snprintf(right, sizeof right, " %3.0f%% %s/s %5.0f s left", 100.0 * share,
                                     rate_text((double)done / seconds).text, seconds / share * (1.0 - share))
                          : snprintf(right, sizeof right, " %3.0f%%", 100.0 * share);
    int left_bytes = fprintf(stderr, "\r%-12.24s [", phase);
    if (left_bytes < 0 || right_bytes < 0) return;
    size_t used = (size_t)left_bytes + (size_t)right_bytes + 1, columns = terminal_columns();
    size_t width = columns > used + 10 ? columns - used : 10;
    size_t full = (size_t)(share * (double)width);
    for (size_t i = 0; i < width; i++) (void)fputc(i < full ? '#' : '.', stderr);
    (void)fprintf(stderr, "]%s\033[K", right);
    (void)fflush(stderr);
    bar.drawn = true;
}

int kith_tool_progress(void *user, const char *phase, uint64_t done, uint64_t total) {
    (void)user;
    if (bar.enabled) {
        if (bar.phase == NULL || strcmp(bar.phase, phase) != 0 || done < bar.phase_done) {
            bar.phase = phase;
            bar.phase_start = kith_tool_seconds();
        }
        bar.phase_done = done;
        draw(phase, done, total);
    }
    return signal_number != 0;
}

kith_job kith_tool_job(size_t threads) {
    kith_job job;
    kith_job_init(&job);
    job.threads = threads;
    job.progress = kith_tool_progress;
    return job;
}

double kith_tool_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0.0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

uint64_t kith_tool_memory_peak(void) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0 || usage.ru_maxrss < 0) return 0;
    return (uint64_t)usage.ru_maxrss * 1024; /* Linux counts in KiB */
}
