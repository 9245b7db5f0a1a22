/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_graph.h: the links of a graph index, as `kith info --graph` tells them.
 */
#ifndef KITH_TOOLS_TOOL_GRAPH_H
#define KITH_TOOLS_TOOL_GRAPH_H

#include "tool_report.h"

/* Puts "graph" into the object: counts, shares, and "degrees", how many nodes have 0, 1, 2, ... links. Fails for an
 * index without a graph; `path` is for the message. */
int kith_tool_graph_put(json_t *object, const kith_index *index, const char *path);
/* Puts "walks" into the object's "graph": the recall of k neighbours when a walk may compute so many distances, doubled from
 * line to line. At most the first 500 queries count. */
int kith_tool_graph_put_walks(json_t *object, const kith_index *index, const char *query_path, const char *gt_path,
                              size_t k);
/* Prints it below the index's lines; nothing when the object has none. */
int kith_tool_graph_print(const kith_tool_common *common, const json_t *object);

#endif
