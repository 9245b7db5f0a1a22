/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_options.c: parses a command line by a command's option table, and prints the table as help.
 */
#include <stdio.h>
#include <string.h>

#include "tool.h"

enum { NAME_BYTES_MAX = 64 };

/* Changes (insert, delete, replace, swap of neighbours) that turn `a` into `b`. */
static size_t edit_distance(const char *a, const char *b) {
    size_t rows[3][NAME_BYTES_MAX + 1];
    size_t a_bytes = strlen(a), b_bytes = strlen(b);
    if (a_bytes > NAME_BYTES_MAX || b_bytes > NAME_BYTES_MAX) return SIZE_MAX;
    for (size_t j = 0; j <= b_bytes; j++) rows[0][j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];
        now[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            size_t best = before[j - 1] + (a[i - 1] != b[j - 1]);
            if (before[j] + 1 < best) best = before[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && earlier[j - 2] + 1 < best)
                best = earlier[j - 2] + 1;
            now[j] = best;
        }
    }
    return rows[a_bytes % 3][b_bytes];
}

void kith_tool_suggest(const char *given, const char *const *names, size_t count, const char *dashes, char *out,
                       size_t bytes) {
    const char *nearest = NULL;
    size_t least = strlen(given) / 2 + 1;
    if (least > 4) least = 4;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(given, names[i]);
        if (distance < least) {
            least = distance;
            nearest = names[i];
        }
    }
    out[0] = '\0';
    if (nearest != NULL) (void)snprintf(out, bytes, "; did you mean %s%s?", dashes, nearest);
}

static int unknown_option(const kith_tool_command *command, const char *name) {
    const char *names[64] = {NULL};
    size_t count = 0;
    for (size_t i = 0; i < command->option_count && count < 63; i++) names[count++] = command->options[i].name;
    names[count++] = "help";
    char hint[128];
    kith_tool_suggest(name, names, count, "--", hint, sizeof hint);
    return kith_tool_error(KITH_EXIT_USAGE, "unknown option --%s%s", name, hint);
}

static bool is_choice(const char *choices, const char *value) {
    size_t bytes = strlen(value);
    for (const char *at = choices; *at != '\0';) {
        size_t word = strcspn(at, "|");
        if (word == bytes && strncmp(at, value, bytes) == 0) return true;
        at += word + (at[word] == '|');
    }
    return false;
}

static int set_count(const kith_tool_option *option, const char *value, size_t *out) {
    if (kith_tool_count_parse(value, out) && *out >= option->min && *out <= option->max) return KITH_EXIT_OK;
    if (option->max == SIZE_MAX)
        return kith_tool_error(KITH_EXIT_USAGE, "--%s %s: a whole number of at least %zu is needed", option->name,
                               value, option->min);
    return kith_tool_error(KITH_EXIT_USAGE, "--%s %s: a whole number in %zu..%zu is needed", option->name, value,
                           option->min, option->max);
}

static int set_value(const kith_tool_option *option, const char *value, char *settings) {
    void *field = settings + option->offset;
    switch (option->kind) {
        case KITH_TOOL_FLAG: *(bool *)field = true; break;
        case KITH_TOOL_CHOICE:
            if (!is_choice(option->argument, value))
                return kith_tool_error(KITH_EXIT_USAGE, "--%s %s: one of %s is needed", option->name, value,
                                       option->argument);
            *(const char **)field = value;
            break;
        case KITH_TOOL_TEXT:
        case KITH_TOOL_FILE:
            if (*value == '\0') return kith_tool_error(KITH_EXIT_USAGE, "--%s: empty value", option->name);
            *(const char **)field = value;
            break;
        case KITH_TOOL_COUNT: return set_count(option, value, field);
        case KITH_TOOL_BYTES:
            if (!kith_tool_bytes_parse(value, field))
                return kith_tool_error(KITH_EXIT_USAGE, "--%s %s: a size such as 512M or 2G is needed",
                                       option->name, value);
            break;
        case KITH_TOOL_REAL: {
            kith_tool_real *real = field;
            if (!kith_tool_real_parse(value, &real->value))
                return kith_tool_error(KITH_EXIT_USAGE, "--%s %s: a number is needed", option->name, value);
            real->given = true;
            break;
        }
        case KITH_TOOL_LIST: {
            kith_tool_list *list = field;
            if (list->count == KITH_TOOL_LIST_MAX)
                return kith_tool_error(KITH_EXIT_USAGE, "--%s: given more than %d times", option->name,
                                       KITH_TOOL_LIST_MAX);
            list->items[list->count++] = value;
            break;
        }
    }
    return KITH_EXIT_OK;
}

static size_t option_find(const kith_tool_command *command, const char *name, size_t bytes) {
    for (size_t i = 0; i < command->option_count; i++)
        if (strlen(command->options[i].name) == bytes && strncmp(command->options[i].name, name, bytes) == 0)
            return i;
    return SIZE_MAX;
}

/* The option at argv[*at], "--name", "--name=value" or, for names of one letter, "-n"; its value may be the next
 * argument, which *at then moves to. */
static int parse_option(const kith_tool_command *command, int argc, char **argv, int *at, char *settings,
                        uint64_t *seen) {
    const char *name = argv[*at] + (argv[*at][1] == '-' ? 2 : 1);
    size_t bytes = strcspn(name, "=");
    size_t index = argv[*at][1] == '-' || bytes == 1 ? option_find(command, name, bytes) : SIZE_MAX;
    if (index == SIZE_MAX) {
        char text[NAME_BYTES_MAX];
        (void)snprintf(text, sizeof text, "%.*s", (int)(bytes < NAME_BYTES_MAX ? bytes : NAME_BYTES_MAX), name);
        return unknown_option(command, text);
    }
    const kith_tool_option *option = &command->options[index];
    uint64_t bit = (uint64_t)1 << index;
    if ((*seen & bit) != 0 && option->kind != KITH_TOOL_LIST)
        return kith_tool_error(KITH_EXIT_USAGE, "--%s is given twice", option->name);
    *seen |= bit;
    const char *value = name[bytes] == '=' ? name + bytes + 1 : NULL;
    if (option->kind == KITH_TOOL_FLAG) {
        if (value != NULL) return kith_tool_error(KITH_EXIT_USAGE, "--%s takes no value", option->name);
    } else if (value == NULL) {
        if (*at + 1 >= argc)
            return kith_tool_error(KITH_EXIT_USAGE, "--%s needs a value: %s", option->name, option->argument);
        value = argv[++*at];
    }
    return set_value(option, value, settings);
}

static int check_operands(const kith_tool_command *command, const kith_tool_operands *operands) {
    if (operands->count > command->operand_max)
        return kith_tool_error(KITH_EXIT_USAGE, "unexpected argument '%s'", operands->items[command->operand_max]);
    if (operands->count < command->operand_min)
        return kith_tool_error(KITH_EXIT_USAGE, "missing argument: %s", command->operands);
    return KITH_EXIT_OK;
}

int kith_tool_parse(const kith_tool_command *command, int argc, char **argv, void *settings,
                    kith_tool_operands *operands, bool *help) {
    uint64_t seen = 0;
    bool only_operands = false;
    size_t operand_count = 0;
    *help = false;
    for (int at = 0; at < argc; at++) {
        const char *text = argv[at];
        if (only_operands || text[0] != '-' || text[1] == '\0') {
            argv[operand_count++] = argv[at];
        } else if (strcmp(text, "--") == 0) {
            only_operands = true;
        } else if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            *help = true;
            return KITH_EXIT_OK;
        } else {
            int code = parse_option(command, argc, argv, &at, settings, &seen);
            if (code != KITH_EXIT_OK) return code;
        }
    }
    *operands = (kith_tool_operands){argv, operand_count};
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].required && (seen >> i & 1) == 0)
            return kith_tool_error(KITH_EXIT_USAGE, "--%s %s is missing", command->options[i].name,
                                   command->options[i].argument);
    const kith_tool_common *common = settings;
    if (common->json && common->csv) return kith_tool_error(KITH_EXIT_USAGE, "--json and --csv exclude each other");
    return check_operands(command, operands);
}

void kith_tool_help_print(const kith_tool_command *command) {
    (void)printf("usage: kith %s", command->name);
    for (size_t i = 0; i < command->option_count; i++)
        if (command->options[i].required)
            (void)printf(" --%s %s", command->options[i].name, command->options[i].argument);
    (void)printf(" [options]%s%s\n\n%s\n\n", command->operands != NULL ? " " : "",
                 command->operands != NULL ? command->operands : "", command->summary);
    for (size_t i = 0; i < command->option_count; i++) {
        const kith_tool_option *option = &command->options[i];
        char left[80];
        (void)snprintf(left, sizeof left, "--%s%s%s", option->name, option->argument != NULL ? " " : "",
                       option->argument != NULL ? option->argument : "");
        (void)printf("  %-28s%s%s\n", left, strlen(left) >= 28 ? "\n                              " : "",
                     option->help);
    }
    (void)printf("  %-28s%s\n", "--help", "print this");
    if (command->notes != NULL) (void)printf("\n%s", command->notes);
}

void kith_tool_completion_print(const kith_tool_command *command) {
    static const char *const kinds[] = {"flag", "text", "file", "choice", "count", "bytes", "real", "list"};
    for (size_t i = 0; i < command->option_count; i++) {
        const kith_tool_option *option = &command->options[i];
        (void)printf("--%s\t%s\t%s\t%s\n", option->name, kinds[option->kind],
                     option->argument != NULL ? option->argument : "", option->help);
    }
    (void)printf("--help\tflag\t\tprint this\n");
    if (command->operands != NULL) (void)printf("\tfile\t%s\t\n", command->operands);
}
