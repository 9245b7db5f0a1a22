/* SPDX-License-Identifier: Apache-2.0
 *
 * commands.h: the subcommands, one file each. To add one: cmd_NAME.c, a line here, one in main.c's table, one in
 * meson.build, and man/kith-NAME.1.
 */
#ifndef KITH_TOOLS_COMMANDS_H
#define KITH_TOOLS_COMMANDS_H

#include "tool.h"

#endif
