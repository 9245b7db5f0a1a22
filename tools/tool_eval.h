/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_eval.h: lists of neighbours and sweeps, as more than one command uses them.
 */
#ifndef KITH_TOOLS_TOOL_EVAL_H
#define KITH_TOOLS_TOOL_EVAL_H

#include "kith/eval.h"
#include "tool_report.h"

enum { KITH_TOOL_RANKS_MAX = 16 };

/* "1,10,100" -> ranks, strictly rising. */
int kith_tool_ranks_parse(const char *text, size_t ranks[KITH_TOOL_RANKS_MAX], size_t *count);
/* Reads ids and, where there are any, distances: those of HDF5 files are in the terms of ann-benchmarks and, when the
 * metric is given (0: not), turned into kith's. */
int kith_tool_neighbors_load(const char *path, const char *distances_path, kith_metric metric,
                             kith_neighbors **out);

/* The measures at every rank, as an array of flat objects. */
json_t *kith_tool_measures_rows(const kith_measures *measures);

/* Appends a row for every point of a sweep; build_seconds NaN when not known. */
void kith_tool_sweep_append(json_t *rows, const kith_sweep *sweep, double build_seconds);
/* Adds what the front gives at recall .90, .95 and .99 to `rows`, a line for each. */
void kith_tool_rates_append(json_t *rows, const kith_sweep *sweep);
/* Prints such rows below a table; nothing in CSV and JSON, which is to hold them already. */
int kith_tool_rates_print(const kith_tool_common *common, const json_t *rows);
/* Marks the Pareto fronts of the rows of several sweeps together. */
void kith_tool_sweep_fronts(json_t *rows);
/* Prints rows of one or more sweeps that all have the ranks of `sweep`. */
int kith_tool_sweep_print(const kith_tool_common *common, const json_t *document, const json_t *rows,
                          const size_t *ranks, size_t rank_count);

#endif
