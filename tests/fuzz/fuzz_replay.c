/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_replay.c: drives a fuzz target without libFuzzer, the same way each time.
 *
 * Usage: fuzz_NAME MUTATIONS [FILE or FOLDER]...
 * Runs the target on nothing, on each file as it is, and on MUTATIONS mutations of files picked in turn: flipped
 * bits, changed bytes and 32-bit words, cuts, doubled parts. An input that crashes is left behind in the file
 * fuzz-crash in the working folder.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/random.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

typedef struct input {
    uint8_t *bytes;
    size_t count;
} input;

enum { INPUTS_MAX = 4096, INPUT_BYTES_MAX = 1 << 20, EDITS_MAX = 4 };
static input inputs[INPUTS_MAX];
static size_t input_count;

/* For the signal handler: what the target is looking at. */
static const uint8_t *volatile present_bytes;
static volatile size_t present_count;

static void keep_crash(int number) {
    int file = open("fuzz-crash", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file >= 0 && write(file, present_bytes, present_count) < 0) _exit(3);
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

/* On a copy of its exact size, so that a sanitizer sees a read past its end. */
static void run(const uint8_t *bytes, size_t count) {
    uint8_t *copy = malloc(count + (count == 0));
    if (copy == NULL) exit(2);
    if (count != 0) memcpy(copy, bytes, count);
    present_bytes = copy;
    present_count = count;
    (void)LLVMFuzzerTestOneInput(copy, count);
    free(copy);
}

static void add_file(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || input_count == INPUTS_MAX) {
        (void)fprintf(stderr, "%s: cannot be read, or one file too many\n", path);
        exit(2);
    }
    input *next = &inputs[input_count++];
    next->bytes = malloc(INPUT_BYTES_MAX);
    if (next->bytes == NULL) exit(2);
    next->count = fread(next->bytes, 1, INPUT_BYTES_MAX, file);
    (void)fclose(file);
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

/* A file, or a folder's files in the order of their names; a folder that is not there holds none. */
static void add_path(const char *path) {
    struct dirent **items;
    int count = scandir(path, &items, NULL, by_name);
    if (count < 0) {
        if (access(path, F_OK) == 0) add_file(path);
        return;
    }
    for (int i = 0; i < count; i++) {
        char whole[4096];
        (void)snprintf(whole, sizeof whole, "%s/%s", path, items[i]->d_name);
        if (items[i]->d_name[0] != '.') add_file(whole);
        free(items[i]);
    }
    free(items);
}

/* One edit of bytes[0..count-1], drawn from `draw`; there is room for twice as much. Returns the new count. */
static size_t edit(uint8_t *bytes, size_t count, uint64_t draw) {
    static const uint32_t words[] = {0,      1,          0x7f,       0xff,       0x7fff,
                                     0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 0x01000000};
    if (count == 0) {
        bytes[0] = (uint8_t)draw;
        return 1;
    }
    size_t at = (size_t)((draw >> 16) % count);
    uint32_t word = words[(draw >> 8) % (sizeof words / sizeof *words)];
    switch (draw % 6) {
        case 0: bytes[at] ^= (uint8_t)(1u << (draw >> 8 & 7)); return count;
        case 1: bytes[at] = (uint8_t)(draw >> 8); return count;
        case 2: memcpy(bytes + at, &word, count - at < 4 ? count - at : 4); return count;
        case 3: return at;
        case 4: memmove(bytes + at, bytes + at + 1, count - at - 1); return count - 1;
        default: memmove(bytes + at + (count - at), bytes + at, count - at); return count + (count - at);
    }
}

static void run_mutation(uint64_t number) {
    static const input nothing = {NULL, 0};
    const input *from = input_count != 0 ? &inputs[number % input_count] : &nothing;
    size_t edits = 1 + (size_t)kith_random_below(1, number, 0, EDITS_MAX), count = from->count;
    uint8_t *bytes = malloc(((count + 1) << EDITS_MAX) + 1);
    if (bytes == NULL) exit(2);
    if (count != 0) memcpy(bytes, from->bytes, count);
    for (size_t e = 0; e < edits; e++) count = edit(bytes, count, kith_random_u64(1, number, 1 + e));
    run(bytes, count);
    free(bytes);
}

int main(int count, char **arguments) {
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++) (void)signal(crashes[i], keep_crash);
    uint64_t mutations = count > 1 ? strtoull(arguments[1], NULL, 10) : 0;
    for (int i = 2; i < count; i++) add_path(arguments[i]);
    run((const uint8_t *)"", 0);
    for (size_t i = 0; i < input_count; i++) run(inputs[i].bytes, inputs[i].count);
    for (uint64_t i = 0; i < mutations; i++) run_mutation(i);
    (void)printf("%zu files and %llu mutations went through\n", input_count, (unsigned long long)mutations);
    for (size_t i = 0; i < input_count; i++) free(inputs[i].bytes);
    return 0;
}
