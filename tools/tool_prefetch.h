/* SPDX-License-Identifier: Apache-2.0
 *
 * tool_prefetch.h: how far ahead the searches of a graph ask for memory: told, and tuned.
 */
#ifndef KITH_TOOLS_TOOL_PREFETCH_H
#define KITH_TOOLS_TOOL_PREFETCH_H

#include "kith/kith.h"
#include "tool_report.h"

/* Adds "prefetch" to what is told of an index; nothing for one without a graph. */
void kith_tool_prefetch_put(json_t *object, const kith_index *index);
/* Tunes the index of a file on its own vectors, writes it to `out`, and prints what was tried. `vectors`: of an index that
 * refines by a file, or NULL. */
int kith_tool_prefetch_tune(const kith_tool_common *common, const char *path, const char *vectors,
                            const kith_prefetch_options *options, const char *out);

#endif
