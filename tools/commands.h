/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h: the subcommands, one file each. To add one: cmd_NAME.c, a line here, one in main.c's table, one in
 * meson.build, and man/kith-NAME.1.
 */
#ifndef KITH_TOOLS_COMMANDS_H
#define KITH_TOOLS_COMMANDS_H

#include "tool.h"

extern const kith_tool_command kith_tool_cmd_add;
extern const kith_tool_command kith_tool_cmd_bench_index;
extern const kith_tool_command kith_tool_cmd_bench_kernels;
extern const kith_tool_command kith_tool_cmd_build;
extern const kith_tool_command kith_tool_cmd_compact;
extern const kith_tool_command kith_tool_cmd_convert;
extern const kith_tool_command kith_tool_cmd_eval;
extern const kith_tool_command kith_tool_cmd_gt;
extern const kith_tool_command kith_tool_cmd_info;
extern const kith_tool_command kith_tool_cmd_kmeans;
extern const kith_tool_command kith_tool_cmd_merge;
extern const kith_tool_command kith_tool_cmd_quant;
extern const kith_tool_command kith_tool_cmd_remove;
extern const kith_tool_command kith_tool_cmd_search;
extern const kith_tool_command kith_tool_cmd_split;
extern const kith_tool_command kith_tool_cmd_sweep;
extern const kith_tool_command kith_tool_cmd_tune;
extern const kith_tool_command kith_tool_cmd_verify;

#endif
