/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_index.h: building, opening and searching an index, as more than one command does it.
 */
#ifndef KITH_TOOLS_TOOL_INDEX_H
#define KITH_TOOLS_TOOL_INDEX_H

#include "tool_report.h"

typedef struct kith_tool_build {
    const char *spec, *metric, *store; /* store: "auto" or a type */
    const char *base_path;
    const char *ids_path; /* may be NULL */
    size_t threads, seed;
    size_t train_count;    /* rows of the training sample; 0: as many as the index recommends */
    size_t batch_rows;     /* rows added at a time; 0: as many as make a GiB of f32 */
    bool upsert;           /* rows whose ids are there replace what is there; needs ids_path */
    uint64_t budget_bytes; /* 0: none; else no index, *out = NULL, when it would take more: see below */
} kith_tool_build;

typedef struct kith_tool_build_times {
    double train_seconds, add_seconds;
    size_t train_count, batch_count; /* rows trained on, 0 without training; batches added */
    size_t replaced_count;           /* by an upsert */
    uint64_t estimated_bytes;        /* of the index, where there is a budget; 0: see below */
    bool is_over_budget;             /* by them */
} kith_tool_build_times;

/* Is the spec "HNSW", alone or with an element type, of which the budget chooses what it is? */
bool kith_tool_is_choice(const char *spec);
/* An index of all vectors of a file. Free *out with kith_index_free. Under a budget *out is NULL where the index would
 * take more, times->estimated_bytes, or, as a part of the vectors has shown, a tenth more; 0: none that "HNSW" stands for
 * fits, and kith_error_message says why. */
int kith_tool_index_build(const kith_tool_build *build, kith_vectors *base, kith_index **out,
                          kith_tool_build_times *times);
/* Adds all vectors of a file to an index that is there. */
int kith_tool_index_add(kith_index *index, const kith_tool_build *build, kith_vectors *base,
                        kith_tool_build_times *times);
/* Loads an index, or maps it, and attaches the file of its vectors; NULL: none. */
int kith_tool_index_open(const char *path, bool map, const char *vectors, kith_index **out);
/* Sum of all parts of kith_index_memory. */
int kith_tool_index_memory(const kith_index *index, uint64_t *bytes);
/* [{"part": name, "bytes": bytes}, ...] */
int kith_tool_memory_parts(const kith_index *index, json_t **out);
/* Sets the parameters of "name=value,name=value" items. */
int kith_tool_params_set(kith_search_params *params, const kith_index *index, const kith_tool_list *list);
/* tool_filter.c: the filter that --filter describes, for an index of `count` vectors. NULL text: no filter, *out becomes
 * NULL. */
int kith_tool_filter_open(const char *text, size_t count, kith_filter **out);

#endif
