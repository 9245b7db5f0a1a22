/* SPDX-License-Identifier: Apache-2.0
 *
 * cmd_bench_kernels.c: `kith bench kernels`: times the kernels one by one, beside the limits of the machine.
 *
 * A batch lasts at least --min-time. Cases that do the same work by other means (shape, ISA) form a group; each
 * repeat runs every case of the group once, so that a change of the machine's clock meets all of them alike. The
 * median counts.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "kernel_cases.h"
#include "tool_report.h"

typedef struct kernels_settings {
    kith_tool_common common;
    const char *filter, *isa, *dims, *sets;
    size_t repeats;
    kith_tool_real min_time;
    uint64_t memory_bytes;
    bool list;
} kernels_settings;

static const kernels_settings defaults = {
    .dims = "3,17,64,96,100,127,128,384,768,784,960,1024,1536", .sets = "l1,l2,memory", .repeats = 9};

static const kith_tool_option options[] = {
    {"filter", "REGEX", "only cases whose name matches (extended regular expression)",
     offsetof(kernels_settings, filter), KITH_TOOL_TEXT, false, 0, 0},
    {"isa", "NAME,...", "instruction sets (default: all that this machine runs)", offsetof(kernels_settings, isa),
     KITH_TOOL_TEXT, false, 0, 0},
    {"dims", "N,N,...", "dimensions (default 3,17,64,96,100,127,128,384,768,784,960,1024,1536)",
     offsetof(kernels_settings, dims), KITH_TOOL_TEXT, false, 0, 0},
    {"sets", "l1,l2,memory", "where the rows lie (default: all three)", offsetof(kernels_settings, sets),
     KITH_TOOL_TEXT, false, 0, 0},
    {"memory", "SIZE", "size of the set in memory (default: twice the largest cache, 256M..1G)",
     offsetof(kernels_settings, memory_bytes), KITH_TOOL_BYTES, false, 0, 0},
    {"repeat", "N", "timed batches of each case; the median counts (default 9)",
     offsetof(kernels_settings, repeats), KITH_TOOL_COUNT, false, 1, KERNEL_REPEATS_MAX},
    {"min-time", "SECONDS", "shortest batch (default 0.001)", offsetof(kernels_settings, min_time), KITH_TOOL_REAL,
     false, 0, 0},
    {"list", NULL, "print the names of the cases and time nothing", offsetof(kernels_settings, list),
     KITH_TOOL_FLAG, false, 0, 0},
    KITH_TOOL_JSON,
    KITH_TOOL_CSV,
    KITH_TOOL_QUIET,
};

/* The best that any ISA of this machine reached, per second. */
typedef struct kernel_peaks {
    double fma_f32, dot_i8;
    double read_bytes[KERNEL_SET_COUNT];
    const char *fma_isa, *dot_isa;
} kernel_peaks;

/* ---- choosing ---- */

/* The comma-separated word at *at, copied; false at the end of the text. */
static bool next_word(const char **at, char *word, size_t bytes) {
    if (*at == NULL || **at == '\0') return false;
    size_t length = strcspn(*at, ",");
    (void)snprintf(word, bytes, "%.*s", (int)(length < bytes ? length : bytes - 1), *at);
    *at += length + ((*at)[length] == ',');
    return true;
}

static int choose_dims(const char *text, kernel_choice *choice) {
    char word[24];
    while (next_word(&text, word, sizeof word)) {
        size_t dim = 0;
        if (choice->dim_count == KERNEL_DIMS_MAX)
            return kith_tool_error(KITH_EXIT_USAGE, "--dims: more than %d", KERNEL_DIMS_MAX);
        if (!kith_tool_count_parse(word, &dim) || dim == 0 || dim > KITH_DIM_MAX)
            return kith_tool_error(KITH_EXIT_USAGE, "--dims %s: whole numbers in 1..%d are needed", word,
                                   KITH_DIM_MAX);
        choice->dims[choice->dim_count++] = dim;
    }
    return KITH_EXIT_OK;
}

static int choose_sets(const char *text, kernel_choice *choice) {
    char word[16];
    while (next_word(&text, word, sizeof word)) {
        kernel_set set = 0;
        while (set < KERNEL_SET_COUNT && strcmp(word, kith_kernel_set_names[set]) != 0) set++;
        if (set == KERNEL_SET_COUNT)
            return kith_tool_error(KITH_EXIT_USAGE, "--sets %s: l1, l2 or memory are needed", word);
        choice->sets[set] = true;
    }
    return KITH_EXIT_OK;
}

/* `names` holds the words that the choice points to. */
static int choose_isas(const char *text, char names[KERNEL_ISAS_MAX][64], kernel_choice *choice) {
    for (size_t i = 0; text == NULL && i < kith_isa_count() && i < KERNEL_ISAS_MAX; i++)
        choice->isas[choice->isa_count++] = kith_isa_name(i);
    while (choice->isa_count < KERNEL_ISAS_MAX && next_word(&text, names[choice->isa_count], 64)) {
        const char *full_name, *name = names[choice->isa_count];
        if (kith_isa_full_name(name, &full_name) != KITH_OK)
            return kith_tool_error(KITH_EXIT_USAGE, "--isa: %s", kith_error_message());
        choice->isas[choice->isa_count++] = name;
    }
    return KITH_EXIT_OK;
}

static int choose_filter(const char *pattern, regex_t *regex, kernel_choice *choice) {
    if (pattern == NULL) return KITH_EXIT_OK;
    int wrong = regcomp(regex, pattern, REG_EXTENDED | REG_NOSUB);
    if (wrong != 0) {
        char reason[128];
        (void)regerror(wrong, regex, reason, sizeof reason);
        return kith_tool_error(KITH_EXIT_USAGE, "--filter %s: %s", pattern, reason);
    }
    choice->filter = regex;
    return KITH_EXIT_OK;
}

static size_t cache_bytes(int level_name, size_t otherwise) {
    long bytes = sysconf(level_name);
    return bytes > 0 ? (size_t)bytes : otherwise;
}

/* Half of the first and of the second cache; memory past the reach of the last one. */
static void choose_sizes(const kernels_settings *settings, const kernel_choice *choice,
                         size_t set_bytes[KERNEL_SET_COUNT]) {
    size_t low = (size_t)256 << 20, high = (size_t)1 << 30;
    size_t memory = 2 * cache_bytes(_SC_LEVEL3_CACHE_SIZE, low / 2);
    set_bytes[KERNEL_SET_L1] = cache_bytes(_SC_LEVEL1_DCACHE_SIZE, 32768) / 2;
    set_bytes[KERNEL_SET_L2] = cache_bytes(_SC_LEVEL2_CACHE_SIZE, 524288) / 2;
    set_bytes[KERNEL_SET_MEMORY] = memory < low ? low : memory > high ? high : memory;
    if (settings->memory_bytes != 0) set_bytes[KERNEL_SET_MEMORY] = (size_t)settings->memory_bytes;
    if (!choice->sets[KERNEL_SET_MEMORY]) set_bytes[KERNEL_SET_MEMORY] = set_bytes[KERNEL_SET_L2];
}

/* ---- timing ---- */

/* The thread's own time: a batch that another process interrupts is not longer for it. */
static double thread_seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double batch_seconds(const kernel_case *c, kernel_data *data) {
    double start = thread_seconds();
    c->run(c, data, c->units);
    return thread_seconds() - start;
}

/* Finds how many units make a batch of min_time, and warms caches and clock on the way. */
static void calibrate(kernel_case *c, kernel_data *data, double min_time) {
    for (c->units = 16;; c->units *= 2) {
        double seconds = batch_seconds(c, data);
        if (seconds < min_time / 8) continue;
        c->units = (size_t)((double)c->units * 1.2 * min_time / seconds) + 1;
        return;
    }
}

static void summarise(kernel_case *c, size_t repeats) {
    qsort(c->batch_ns, repeats, sizeof *c->batch_ns, ascending);
    c->ns = (c->batch_ns[(repeats - 1) / 2] + c->batch_ns[repeats / 2]) / 2;
    c->spread = (c->batch_ns[repeats - 1] - c->batch_ns[0]) / c->ns;
}

static int time_group(kernel_case *cases, size_t count, kernel_data *data, size_t repeats, double min_time) {
    kith_kernel_data_prepare(data, &cases[0]);
    for (size_t i = 0; i < count; i++) {
        cases[i].batch_ns = calloc(repeats, sizeof *cases[i].batch_ns);
        if (cases[i].batch_ns == NULL) return kith_tool_no_memory(repeats, sizeof *cases[i].batch_ns);
        calibrate(&cases[i], data, min_time);
    }
    for (size_t r = 0; r < repeats; r++)
        for (size_t i = 0; i < count; i++) {
            double distances = (double)cases[i].units * (double)cases[i].unit_distances;
            cases[i].batch_ns[r] = batch_seconds(&cases[i], data) * 1e9 / distances;
        }
    for (size_t i = 0; i < count; i++) summarise(&cases[i], repeats);
    return KITH_EXIT_OK;
}

static int time_all(const kernels_settings *settings, kernel_cases *cases, kernel_data *data) {
    double min_time = settings->min_time.given ? settings->min_time.value : 0.001;
    for (size_t first = 0, count; first < cases->count; first += count) {
        for (count = 1; first + count < cases->count; count++)
            if (cases->items[first + count].group != cases->items[first].group) break;
        int code = time_group(&cases->items[first], count, data, settings->repeats, min_time);
        if (code != KITH_EXIT_OK) return code;
        if (kith_tool_progress(NULL, "kernels", first + count, cases->count) != 0)
            return kith_tool_error(kith_tool_interrupted(), "interrupted");
    }
    return KITH_EXIT_OK;
}

/* ---- peaks ---- */

/* The best rate of a peak loop over `tries` batches of 2 ms or more. */
static double peak_rate(uint64_t (*loop)(size_t), int tries) {
    double best = 0;
    for (size_t rounds = 1000; tries > 0;) {
        double start = thread_seconds();
        uint64_t done = loop(rounds);
        double seconds = thread_seconds() - start;
        if (seconds < 0.002) {
            rounds *= 2;
            continue;
        }
        if ((double)done / seconds > best) best = (double)done / seconds;
        tries--;
    }
    return best;
}

static volatile uint64_t read_sink; /* so that the reads have to happen */

/* The best rate of reading a set again and again; a set in memory is longer than any cache. */
static double read_rate(uint64_t (*loop)(const void *, size_t), const kernel_data *data, kernel_set set,
                        int tries) {
    size_t bytes = data->set_bytes[set];
    size_t passes = ((size_t)32 << 20) / bytes + 1;
    double best = 0;
    for (int t = 0; t < tries; t++) {
        double start = thread_seconds();
        for (size_t p = 0; p < passes; p++) read_sink = loop(data->rows, bytes);
        double rate = (double)bytes * (double)passes / (thread_seconds() - start);
        if (rate > best) best = rate;
    }
    return best;
}

static int measure_peaks(const kernel_choice *choice, const kernel_data *data, kernel_peaks *peaks) {
    enum { TRIES = 7 };
    for (size_t i = 0; i < kith_isa_count(); i++) {
        kith_peak_kernels loops = {.size = sizeof loops};
        int code = kith_tool_check(kith_peak_kernels_find(kith_isa_name(i), &loops), NULL);
        if (code != KITH_EXIT_OK) return code;
        double fma = peak_rate(loops.fma_f32, TRIES), dot = peak_rate(loops.dot_i8, TRIES);
        if (fma > peaks->fma_f32) {
            peaks->fma_f32 = fma;
            peaks->fma_isa = loops.isa;
        }
        if (dot > peaks->dot_i8) {
            peaks->dot_i8 = dot;
            peaks->dot_isa = loops.isa;
        }
        for (kernel_set set = 0; set < KERNEL_SET_COUNT; set++) {
            double rate = choice->sets[set] ? read_rate(loops.read, data, set, TRIES) : 0;
            if (rate > peaks->read_bytes[set]) peaks->read_bytes[set] = rate;
        }
    }
    return KITH_EXIT_OK;
}

/* ---- printing ---- */

static const kith_tool_column columns[] = {
    {"name", "name", KITH_TOOL_CELL_TEXT},
    {"ns", "ns", KITH_TOOL_CELL_REAL},
    {"spread", "spread", KITH_TOOL_CELL_REAL},
    {"gigabytes_per_second", "GB/s", KITH_TOOL_CELL_REAL},
    {"read_share", "of read", KITH_TOOL_CELL_REAL},
    {"gigaproducts_per_second", "G mul-add/s", KITH_TOOL_CELL_REAL},
    {"arithmetic_share", "of peak", KITH_TOOL_CELL_REAL},
};

/* Three significant digits are what a timing is worth. */
static double rounded(double value) {
    if (!(value > 0) || !isfinite(value)) return value;
    double unit = pow(10, floor(log10(value)) - 3);
    return round(value / unit) * unit;
}

static json_t *row_of(const kernel_case *c, const kernel_peaks *peaks, bool exact) {
    json_t *row = kith_tool_object();
    double bytes = (double)c->bytes / (double)c->unit_distances / c->ns; /* GB/s */
    double products = (double)c->products / (double)c->unit_distances / c->ns;
    double peak = (c->is_integer ? peaks->dot_i8 : peaks->fma_f32) / 1e9, read = peaks->read_bytes[c->set] / 1e9;
    kith_tool_put_text(row, "name", c->name);
    if (exact) {
        kith_tool_put_text(row, "op", c->op);
        kith_tool_put_text(row, "types", c->types);
        kith_tool_put_text(row, "shape", c->shape);
        kith_tool_put_count(row, "dim", c->dim);
        kith_tool_put_text(row, "isa", c->isa);
        kith_tool_put_text(row, "set", kith_kernel_set_names[c->set]);
    }
    kith_tool_put_real(row, "ns", exact ? c->ns : rounded(c->ns));
    kith_tool_put_real(row, "spread", exact ? c->spread : round(c->spread * 100) / 100);
    kith_tool_put_real(row, "gigabytes_per_second", exact ? bytes : rounded(bytes));
    if (c->tile.size == 0) kith_tool_put_real(row, "read_share", exact ? bytes / read : rounded(bytes / read));
    if (c->products == 0) return row;
    kith_tool_put_real(row, "gigaproducts_per_second", exact ? products : rounded(products));
    kith_tool_put_real(row, "arithmetic_share", exact ? products / peak : rounded(products / peak));
    return row;
}

static json_t *peaks_object(const kernel_peaks *peaks, const kernel_choice *choice, const kernel_data *data) {
    json_t *object = kith_tool_object();
    kith_tool_put_real(object, "fma_f32_per_second", peaks->fma_f32);
    kith_tool_put_text(object, "fma_f32_isa", peaks->fma_isa);
    kith_tool_put_real(object, "dot_i8_per_second", peaks->dot_i8);
    kith_tool_put_text(object, "dot_i8_isa", peaks->dot_isa);
    for (kernel_set set = 0; set < KERNEL_SET_COUNT; set++) {
        if (!choice->sets[set]) continue;
        json_t *read = kith_tool_object();
        kith_tool_put_count(read, "set_bytes", data->set_bytes[set]);
        kith_tool_put_real(read, "read_bytes_per_second", peaks->read_bytes[set]);
        kith_tool_put(object, kith_kernel_set_names[set], read);
    }
    return object;
}

static void print_peaks(const kernel_peaks *peaks, const kernel_choice *choice, const kernel_data *data) {
    kith_tool_progress_clear();
    (void)printf("peaks: %.1f G f32 multiply-adds/s (%s), %.1f G 8-bit multiply-adds/s (%s)\n",
                 peaks->fma_f32 / 1e9, peaks->fma_isa, peaks->dot_i8 / 1e9, peaks->dot_isa);
    for (kernel_set set = 0; set < KERNEL_SET_COUNT; set++)
        if (choice->sets[set])
            (void)printf("       read %.1f GB/s from %s (%zu KiB)\n", peaks->read_bytes[set] / 1e9,
                         kith_kernel_set_names[set], data->set_bytes[set] / 1024);
    (void)putchar('\n');
}

static int print_results(const kernels_settings *settings, const kernel_choice *choice, const kernel_cases *cases,
                         const kernel_peaks *peaks, const kernel_data *data) {
    bool is_table = !settings->common.json && !settings->common.csv;
    json_t *document = kith_tool_object(), *rows = kith_tool_array(), *isas = kith_tool_array();
    for (size_t i = 0; i < cases->count; i++) kith_tool_append(rows, row_of(&cases->items[i], peaks, !is_table));
    for (size_t i = 0; i < choice->isa_count; i++) {
        const char *full_name = NULL;
        if (kith_isa_full_name(choice->isas[i], &full_name) == KITH_OK)
            kith_tool_append(isas, json_string(full_name));
    }
    kith_tool_put_text(document, "version", kith_version());
    kith_tool_put(document, "isas", isas);
    kith_tool_put_count(document, "repeats", settings->repeats);
    kith_tool_put(document, "peaks", peaks_object(peaks, choice, data));
    kith_tool_put(document, "results", json_incref(rows));
    if (is_table) print_peaks(peaks, choice, data);
    int code = kith_tool_print_rows(&settings->common, document, rows, columns, sizeof columns / sizeof *columns);
    json_decref(rows);
    json_decref(document);
    return code;
}

static int print_names(const kernel_cases *cases) {
    for (size_t i = 0; i < cases->count; i++) (void)printf("%s\n", cases->items[i].name);
    return kith_tool_flush();
}

static int run(const void *given, const kith_tool_operands *operands) {
    const kernels_settings *settings = given;
    (void)operands;
    kernel_choice choice = {.isa_count = 0};
    kernel_cases cases = {.count = 0};
    kernel_data data = {.rows = NULL};
    kernel_peaks peaks = {.fma_f32 = 0};
    regex_t regex;
    char names[KERNEL_ISAS_MAX][64];
    size_t set_bytes[KERNEL_SET_COUNT], dim_max = 0;
    int code;
    KITH_TOOL_GO(choose_dims(settings->dims, &choice));
    KITH_TOOL_GO(choose_sets(settings->sets, &choice));
    KITH_TOOL_GO(choose_isas(settings->isa, names, &choice));
    KITH_TOOL_GO(choose_filter(settings->filter, &regex, &choice));
    if (settings->min_time.given && !(settings->min_time.value > 0 && settings->min_time.value <= 60)) {
        code = kith_tool_error(KITH_EXIT_USAGE, "--min-time %g: more than 0 and at most 60 seconds are needed",
                               settings->min_time.value);
        goto done;
    }
    KITH_TOOL_GO(kith_kernel_cases_list(&choice, &cases));
    if (cases.count == 0) {
        code = kith_tool_error(KITH_EXIT_USAGE, "no case matches; --list prints the names");
        goto done;
    }
    if (settings->list) {
        code = print_names(&cases);
        goto done;
    }
    for (size_t d = 0; d < choice.dim_count; d++)
        if (choice.dims[d] > dim_max) dim_max = choice.dims[d];
    choose_sizes(settings, &choice, set_bytes);
    KITH_TOOL_GO(kith_kernel_data_make(&data, set_bytes, dim_max));
    KITH_TOOL_GO(measure_peaks(&choice, &data, &peaks));
    KITH_TOOL_GO(time_all(settings, &cases, &data));
    KITH_TOOL_GO(print_results(settings, &choice, &cases, &peaks, &data));
done:
    kith_kernel_cases_free(&cases);
    kith_kernel_data_free(&data);
    if (choice.filter != NULL) regfree(&regex);
    return code;
}

const kith_tool_command kith_tool_cmd_bench_kernels = {
    .name = "bench kernels",
    .summary = "Times the distance kernels beside the limits of the machine.",
    .options = options,
    .option_count = sizeof options / sizeof *options,
    .defaults = &defaults,
    .settings_bytes = sizeof defaults,
    .notes =
        "A case is named operation/types/shape/dimension/ISA/set, as l2sq/f32-f16/four/784/avx2/l1. Times are\n"
        "nanoseconds per distance (per vector for norm2, convert and filter).\n",
    .run = run,
};
