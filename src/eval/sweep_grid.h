/* SPDX-License-Identifier: Apache-2.0
 *
 * sweep_grid.h: axes "name=value,value,...", one or more in a text, and the points that they span.
 */
#ifndef KITH_EVAL_SWEEP_GRID_H
#define KITH_EVAL_SWEEP_GRID_H

#include "base/arena.h"
#include "kith/eval.h"

typedef struct kith_sweep_axis {
    const char *name;
    const char **values;
    size_t value_count;
} kith_sweep_axis;

typedef struct kith_sweep_grid {
    kith_sweep_axis *axes;
    size_t axis_count;
    size_t point_count; /* 1 for a grid without axes */
} kith_sweep_grid;

enum { KITH_SWEEP_POINTS_MAX = 10000 };

/* Reads the axes, "a=1,2,b=3" being two; all text is copied into the arena. KITH_ERR_ARGUMENT for a malformed axis, one that stands twice,
 * and for more than KITH_SWEEP_POINTS_MAX points. */
kith_status kith_sweep_grid_read(const char *const *axes, size_t axis_count, kith_arena *arena,
                                 kith_sweep_grid *out);

/* The values of point `point` (the last axis runs fastest), axis_count of them, and the text "a=1,b=2". */
kith_status kith_sweep_grid_point(const kith_sweep_grid *grid, size_t point, kith_arena *arena,
                                  kith_sweep_value **values, const char **text);

#endif
