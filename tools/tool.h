/* SPDX-License-Identifier: Apache-2.0
 *
 * tool.h: what the subcommands of `kith` share: option tables, errors and exit codes, progress, input files.
 *
 * A subcommand is one file cmd_NAME.c that defines one kith_tool_command. Its option table serves the parser, the
 * help text and shell completion at once. Functions here that return int return an exit code and, when it is not
 * KITH_EXIT_OK, have already printed one line to stderr.
 */
#ifndef KITH_TOOLS_TOOL_H
#define KITH_TOOLS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kith/index.h"
#include "kith/types.h"
#include "kith/vectors.h"

/* ---- Exit codes and errors ------------------------------------------------------------------------------ */

enum {
    KITH_EXIT_OK = 0,
    KITH_EXIT_CHECK = 1,  /* the check that was asked for failed: verify, eval --at-least */
    KITH_EXIT_USAGE = 2,  /* unknown option, missing option, value outside its range */
    KITH_EXIT_DATA = 3,   /* an input's content: format, type, dimension, NaN, checksum */
    KITH_EXIT_IO = 4,     /* the system refused to open, read or write */
    KITH_EXIT_MEMORY = 5, /* out of memory, or the work does not fit into --memory */
    KITH_EXIT_BUG = 6,    /* an internal error of kith */
    KITH_EXIT_SIGINT = 130,
    KITH_EXIT_SIGTERM = 143
};

#define KITH_TOOL_GO(call)                                                                                         \
    do {                                                                                                           \
        code = (call);                                                                                             \
        if (code != KITH_EXIT_OK) goto done;                                                                       \
    } while (0)

/* The name that error lines begin with: "kith build". Static storage or argv. */
void kith_tool_name_set(const char *command);
/* The hook of kith_log_set: prints "kith COMMAND: warning: ..." unless that was the last one. */
void kith_tool_warn(void *user, kith_log_level level, const char *message);
/* Prints "kith COMMAND: ..." and returns `code`. */
int kith_tool_error(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* KITH_EXIT_OK for KITH_OK; else prints the library's message, with `file` (may be NULL) in front of it unless the
 * message names it already, and returns the exit code that belongs to the status. */
int kith_tool_check(kith_status status, const char *file);
/* Prints "out of memory" with the number of bytes. */
int kith_tool_no_memory(size_t count, size_t each);
/* Flushes stdout; what could not be written is an error. */
int kith_tool_flush(void);

/* ---- Options -------------------------------------------------------------------------------------------- */

typedef enum kith_tool_kind {
    KITH_TOOL_FLAG,   /* bool; takes no value */
    KITH_TOOL_TEXT,   /* const char * */
    KITH_TOOL_FILE,   /* const char *; completed by file name */
    KITH_TOOL_CHOICE, /* const char *: one of the words of `argument`, which are parted by | */
    KITH_TOOL_COUNT,  /* size_t in min..max */
    KITH_TOOL_BYTES,  /* uint64_t: digits and an optional K, M, G or T (powers of 1024) */
    KITH_TOOL_REAL,   /* kith_tool_real */
    KITH_TOOL_LIST    /* kith_tool_list; may be given many times */
} kith_tool_kind;

typedef struct kith_tool_real {
    bool given;
    double value;
} kith_tool_real;

enum { KITH_TOOL_LIST_MAX = 64 };
typedef struct kith_tool_list {
    const char *items[KITH_TOOL_LIST_MAX];
    size_t count;
} kith_tool_list;

/* Every command's settings begin with these. */
typedef struct kith_tool_common {
    bool json, csv, quiet;
} kith_tool_common;

typedef struct kith_tool_option {
    const char *name;     /* without the dashes */
    const char *argument; /* as the help shows it; NULL for a flag */
    const char *help;     /* one line, with the default where there is one */
    size_t offset;        /* in the command's settings */
    kith_tool_kind kind;
    bool required;
    size_t min, max; /* KITH_TOOL_COUNT */
} kith_tool_option;

#define KITH_TOOL_JSON                                                                                             \
    { "json", NULL, "print JSON", offsetof(kith_tool_common, json), KITH_TOOL_FLAG, false, 0, 0 }
#define KITH_TOOL_CSV                                                                                              \
    { "csv", NULL, "print comma-separated values", offsetof(kith_tool_common, csv), KITH_TOOL_FLAG, false, 0, 0 }
#define KITH_TOOL_QUIET                                                                                            \
    { "quiet", NULL, "no progress bar", offsetof(kith_tool_common, quiet), KITH_TOOL_FLAG, false, 0, 0 }
#define KITH_TOOL_THREADS(type)                                                                                    \
    {                                                                                                              \
        "threads", "N", "threads, 0 for all processors (default 0)", offsetof(type, threads), KITH_TOOL_COUNT,     \
            false, 0, 1024                                                                                         \
    }

typedef struct kith_tool_operands {
    char *const *items;
    size_t count;
} kith_tool_operands;

typedef struct kith_tool_command {
    const char *name;     /* "build", "bench index" */
    const char *summary;  /* one line */
    const char *operands; /* as the usage line shows them; NULL when there are none */
    size_t operand_min, operand_max;
    const kith_tool_option *options;
    size_t option_count;
    const void *defaults; /* settings, copied before parsing */
    size_t settings_bytes;
    const char *notes; /* printed below the options; may be NULL */
    int (*run)(const void *settings, const kith_tool_operands *operands);
} kith_tool_command;

/* Fills `settings` (defaults already in place) and the operands, which are gathered at the front of argv.
 * *help is set when --help or -h was seen; the rest is not checked then. */
int kith_tool_parse(const kith_tool_command *command, int argc, char **argv, void *settings,
                    kith_tool_operands *operands, bool *help);
void kith_tool_help_print(const kith_tool_command *command);
/* One line per option for the completion scripts: --name TAB kind TAB argument TAB help. */
void kith_tool_completion_print(const kith_tool_command *command);
/* " (did you mean X?)" with the nearest of `count` names, or "". Writes to `out`, `bytes` long. */
void kith_tool_suggest(const char *given, const char *const *names, size_t count, const char *dashes, char *out,
                       size_t bytes);

/* Strict numbers: the whole text, no sign where none belongs, no blanks. False when it is not one. */
bool kith_tool_count_parse(const char *text, size_t *out);
bool kith_tool_bytes_parse(const char *text, uint64_t *out);
bool kith_tool_real_parse(const char *text, double *out);
bool kith_tool_i64_parse(const char *text, int64_t *out);
/* "A:B", ":B", "A:": rows A to B - 1; *last is SIZE_MAX when it is left out. */
bool kith_tool_rows_parse(const char *text, size_t *first, size_t *last);

/* ---- Progress, signals, time ---------------------------------------------------------------------------- */

/* Installs the handlers: SIGINT and SIGTERM ask the running call to cancel; a second one kills. */
void kith_tool_signals_install(void);
/* The exit code of the signal that came, 0 when none did. */
int kith_tool_interrupted(void);
/* Prints "interrupted" and returns the signal's exit code when one came. */
int kith_tool_stop_if_interrupted(void);
/* Draw progress bars? Only when stderr is a terminal, too. */
void kith_tool_progress_enable(bool wanted);
/* A kith_progress_fn: draws the bar, and cancels after a signal. `user` is not used. */
int kith_tool_progress(void *user, const char *phase, uint64_t done, uint64_t total);
/* Clears the bar from the terminal. Called before anything else is printed. */
void kith_tool_progress_clear(void);
/* A job with our progress callback. */
kith_job kith_tool_job(size_t threads);
/* Seconds of the monotonic clock. */
double kith_tool_seconds(void);
/* Largest resident set of this process so far, in bytes. */
uint64_t kith_tool_memory_peak(void);

/* ---- Files ---------------------------------------------------------------------------------------------- */

/* Does the path name an HDF5 file, or a data set of one? */
bool kith_tool_is_hdf5(const char *path);
/* "x.hdf5:test" (or "x.ibin:distances") -> the file, to be freed, and the data set, NULL when none is named. */
int kith_tool_path_split(const char *path, char **file, const char **dataset);
/* Opens a vector file; options may be NULL. The path may name a data set. */
int kith_tool_vectors_open(const char *path, const kith_vectors_options *options, kith_vectors **out);
/* All rows as a view in a type that indexes take: the file's own where it is one, else f32 in memory of its own,
 * *owned, to be freed. */
int kith_tool_vectors_view(kith_vectors *vectors, const char *path, kith_view *view, void **owned);
/* Ids of a file, freed by the caller: .txt holds one a line; any vector file of integers will do as well. */
int kith_tool_ids_read(const char *path, int64_t **ids, size_t *count);
/* The type that a file of this name holds: the name's own (.fvecs: f32), else `source`. */
int kith_tool_dtype_of_name(const char *path, kith_dtype source, kith_dtype *out);
/* Writes count x dim packed values in one go; the format goes by the extension. */
int kith_tool_vectors_write(const char *path, kith_dtype source, const void *data, size_t count, size_t dim);
/* Writes a range search's hits: one column of ids and one of distances, the queries one after the other, and one
 * count per query. Paths that are NULL are left out. */
int kith_tool_range_write(const kith_range_result *range, const char *ids, const char *distances,
                          const char *counts);
/* Reads them back; `distances` are zero. Free *out with kith_tool_range_free. */
int kith_tool_range_read(const char *ids, const char *counts, kith_range_result *out);
void kith_tool_range_free(kith_range_result *range);
/* Both files' dimensions have to be the same. */
int kith_tool_dim_check(const kith_vectors *base, const char *base_path, size_t query_dim, const char *query_path);
/* Writes text all or nothing: into a temporary file beside `path`, synced, then renamed. */
int kith_tool_text_write(const char *path, const char *text, size_t bytes);
/* 1 when the file begins as an index file of kith does. Errors (no such file) are KITH_EXIT_IO in *code. */
int kith_tool_is_index(const char *path, int *code);

#endif
