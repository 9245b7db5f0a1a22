/* SPDX-License-Identifier: Apache-2.0
 *
 * main.c: the command `kith`: finds the subcommand, parses its options and runs it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "tool.h"

static const kith_tool_command *const commands[] = {
    &kith_tool_cmd_build,
    &kith_tool_cmd_add,
    &kith_tool_cmd_remove,
    &kith_tool_cmd_compact,
    &kith_tool_cmd_merge,
    &kith_tool_cmd_split,
    &kith_tool_cmd_search,
    &kith_tool_cmd_gt,
    &kith_tool_cmd_eval,
    &kith_tool_cmd_sweep,
    &kith_tool_cmd_tune,
    &kith_tool_cmd_convert,
    &kith_tool_cmd_info,
    &kith_tool_cmd_verify,
    &kith_tool_cmd_kmeans,
    &kith_tool_cmd_quant,
    &kith_tool_cmd_bench_index,
    &kith_tool_cmd_bench_kernels,
    NULL,
};

enum { COMMANDS_MAX = 64 };

/* The command whose name is the first one or two of the arguments; *used says how many. */
static const kith_tool_command *command_find(int argc, char **argv, int *used) {
    for (const kith_tool_command *const *c = commands; *c != NULL; c++) {
        const char *name = (*c)->name, *space = strchr(name, ' ');
        size_t first = space != NULL ? (size_t)(space - name) : strlen(name);
        if (argc < 1 || strlen(argv[0]) != first || strncmp(argv[0], name, first) != 0) continue;
        if (space == NULL || (argc >= 2 && strcmp(argv[1], space + 1) == 0)) {
            *used = space == NULL ? 1 : 2;
            return *c;
        }
    }
    return NULL;
}

/* Names of the commands that start with `group`, "bench", on one line. Empty when there is no such group. */
static void group_list(const char *group, char *out, size_t bytes) {
    size_t group_bytes = strlen(group), used = 0;
    out[0] = '\0';
    for (const kith_tool_command *const *c = commands; *c != NULL; c++) {
        const char *name = (*c)->name;
        if (strncmp(name, group, group_bytes) != 0 || name[group_bytes] != ' ') continue;
        int wrote = snprintf(out + used, bytes - used, "%s%s", used > 0 ? ", " : "", name);
        if (wrote < 0 || (size_t)wrote >= bytes - used) return;
        used += (size_t)wrote;
    }
}

static int unknown_command(const char *name) {
    char text[256];
    group_list(name, text, sizeof text);
    if (text[0] != '\0') return kith_tool_error(KITH_EXIT_USAGE, "'%s' needs a second word: %s", name, text);
    const char *names[COMMANDS_MAX] = {NULL};
    size_t count = 0;
    for (const kith_tool_command *const *c = commands; *c != NULL && count < COMMANDS_MAX; c++)
        names[count++] = (*c)->name;
    kith_tool_suggest(name, names, count, "", text, sizeof text);
    return kith_tool_error(KITH_EXIT_USAGE, "unknown command '%s'%s", name, text);
}

static void overview_print(FILE *to) {
    (void)fprintf(to, "usage: kith COMMAND [options]\n\nApproximate nearest neighbours, from scratch in C.\n\n");
    for (const kith_tool_command *const *c = commands; *c != NULL; c++)
        (void)fprintf(to, "  %-14s%s\n", (*c)->name, (*c)->summary);
    (void)fprintf(to, "  %-14s%s\n", "help COMMAND", "the options of a command");
    (void)fprintf(to, "\nkith --version prints the version.\n\n"
                      "Exit codes: 0 done; 1 the check failed (verify, tune, eval --at-least); 2 wrong usage;\n"
                      "3 bad input data; 4 input or output refused by the system; 5 out of memory or over\n"
                      "the memory budget; 6 a bug in kith; 130, 143 interrupted by SIGINT, SIGTERM.\n");
}

/* `kith help [COMMAND]`. */
static int help(int argc, char **argv) {
    int used = 0;
    if (argc == 0) {
        overview_print(stdout);
        return kith_tool_flush();
    }
    const kith_tool_command *command = command_find(argc, argv, &used);
    if (command == NULL) return unknown_command(argv[0]);
    kith_tool_help_print(command);
    return kith_tool_flush();
}

/* `kith --complete [COMMAND]`, for the completion scripts: the commands, or the options of one. */
static int complete(int argc, char **argv) {
    int used = 0;
    const kith_tool_command *command = command_find(argc, argv, &used);
    if (argc == 0)
        for (const kith_tool_command *const *c = commands; *c != NULL; c++)
            (void)printf("%s\t%s\n", (*c)->name, (*c)->summary);
    else if (command != NULL)
        kith_tool_completion_print(command);
    return kith_tool_flush();
}

static int command_run(const kith_tool_command *command, int argc, char **argv) {
    static char name[64];
    (void)snprintf(name, sizeof name, "kith %s", command->name);
    kith_tool_name_set(name);
    void *settings = malloc(command->settings_bytes);
    if (settings == NULL) return kith_tool_no_memory(1, command->settings_bytes);
    memcpy(settings, command->defaults, command->settings_bytes);
    kith_tool_operands operands = {NULL, 0};
    bool wants_help = false;
    int code = kith_tool_parse(command, argc, argv, settings, &operands, &wants_help);
    if (code == KITH_EXIT_OK && wants_help) {
        kith_tool_help_print(command);
    } else if (code == KITH_EXIT_OK) {
        kith_tool_progress_enable(!((const kith_tool_common *)settings)->quiet);
        code = command->run(settings, &operands);
    }
    free(settings);
    int flushed = kith_tool_flush();
    return code != KITH_EXIT_OK ? code : flushed;
}

int main(int argc, char **argv) {
    kith_tool_signals_install();
    kith_log_set(kith_tool_warn, NULL);
    if (argc < 2) {
        overview_print(stderr);
        return KITH_EXIT_USAGE;
    }
    const char *first = argv[1];
    if (strcmp(first, "--version") == 0) {
        (void)printf("kith %s\n", kith_version());
        return kith_tool_flush();
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0 || strcmp(first, "help") == 0)
        return help(argc - 2, argv + 2);
    if (strcmp(first, "--complete") == 0) return complete(argc - 2, argv + 2);
    int used = 0;
    const kith_tool_command *command = command_find(argc - 1, argv + 1, &used);
    if (command == NULL && first[0] == '-')
        return kith_tool_error(KITH_EXIT_USAGE, "unknown option %s; kith --help lists the commands", first);
    if (command == NULL) return unknown_command(first);
    return command_run(command, argc - 1 - used, argv + 1 + used);
}
