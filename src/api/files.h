/* SPDX-License-Identifier: Apache-2.0
 *
 * files.h: an index in a container that is open already: for tests, fuzzing and containers in memory.
 */
#ifndef KITH_API_FILES_H
#define KITH_API_FILES_H

#include "api/structures.h"

/* The index in place, as kith_index_map gives it. Takes the file over: it is closed with the index, or at once
 * when this fails. */
kith_status kith_index_open_container(kith_container *file, kith_index **out);

#endif
