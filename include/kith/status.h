/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/status.h: status codes, the thread's last error message, warnings, and the library's version.
 *
 * Every function that can fail returns a kith_status. On failure the calling thread also gets a one-line
 * message that names the offending value; kith_error_message() reads it. The library never aborts, never
 * prints and never leaves an output half-written: outputs are nulled on entry and set only on success.
 */
#ifndef KITH_STATUS_H
#define KITH_STATUS_H

#if defined(__GNUC__)
#define KITH_API          __attribute__((visibility("default")))
#define KITH_CHECK_RESULT __attribute__((warn_unused_result))
#else
#define KITH_API
#define KITH_CHECK_RESULT
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Version of these headers. The library's own is kith_version(). */
#define KITH_VERSION_MAJOR 0
#define KITH_VERSION_MINOR 1
#define KITH_VERSION_PATCH 0

/* Numbers are part of the ABI: they are never reused and never change their meaning. */
typedef enum kith_status {
    KITH_OK = 0,
    KITH_ERR_ARGUMENT = 1,     /* an argument is outside its documented range */
    KITH_ERR_DIMENSION = 2,    /* vectors of another dimension than the index (or file) holds */
    KITH_ERR_TYPE = 3,         /* an element type that this call does not take */
    KITH_ERR_NOT_FINITE = 4,   /* a NaN or an infinity in a vector */
    KITH_ERR_RANGE = 5,        /* finite, but too large: the squared norm passes KITH_NORM2_MAX */
    KITH_ERR_ZERO_VECTOR = 6,  /* a vector too short to have a direction under cosine: squared norm below FLT_MIN */
    KITH_ERR_EMPTY = 7,        /* a set without vectors where at least one is needed */
    KITH_ERR_NOT_FOUND = 8,    /* an id that the index does not hold, a name that is not known */
    KITH_ERR_EXISTS = 9,       /* an id that the index holds already */
    KITH_ERR_INCOMPLETE = 10,  /* fewer than k results, and no array of counts to say so in */
    KITH_ERR_NO_MEMORY = 11,   /* an allocation failed; nothing was changed */
    KITH_ERR_OVERFLOW = 12,    /* a size does not fit into 64 bits or into a documented limit */
    KITH_ERR_BUDGET = 13,      /* the work needs more memory than the given budget */
    KITH_ERR_IO = 14,          /* the system refused to open, read, write, sync or rename */
    KITH_ERR_FORMAT = 15,      /* a file's bytes do not follow its format */
    KITH_ERR_CHECKSUM = 16,    /* a file's bytes changed after they were written */
    KITH_ERR_VERSION = 17,     /* a file from a newer kith that this one must not guess at */
    KITH_ERR_UNSUPPORTED = 18, /* this index, this build or this machine cannot do it */
    KITH_ERR_READ_ONLY = 19,   /* a change to an index that is mapped from a file */
    KITH_ERR_CANCELLED = 20,   /* the progress callback asked to stop; nothing was changed */
    KITH_ERR_NOT_TRAINED = 21, /* the index needs kith_index_train first */
    KITH_ERR_INTERNAL = 22     /* a bug in kith; please report it with the message */
} kith_status;

/* The name of a status, as "KITH_ERR_DIMENSION"; "KITH_ERR_UNKNOWN" for a number that is not in the enum.
 * Static storage. Thread-safe. */
KITH_API const char *kith_status_name(kith_status status);

/* The message of the last call on this thread that failed, one line without a newline, "" before the first.
 * Owned by the thread and valid until its next failing call into kith. */
KITH_API const char *kith_error_message(void);

/* Warnings: what went well but is worth knowing, such as training on fewer vectors than recommended. */
typedef enum kith_log_level { KITH_LOG_WARNING = 1 } kith_log_level;
/* `message` is one line without a newline, the callee's for the length of the call. */
typedef void (*kith_log_fn)(void *user, kith_log_level level, const char *message);

/* Where warnings of the whole process go; NULL, the default: nowhere. `fn` is called on the thread that called kith,
 * never by its workers, so by several at once if they are in kith at once. To be set while no other thread is inside
 * kith. */
KITH_API void kith_log_set(kith_log_fn fn, void *user);

/* The library's version, "0.1.0". Static storage. Thread-safe. */
KITH_API const char *kith_version(void);

#ifdef __cplusplus
}
#endif
#endif
