/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/sweep_grid.h"

#include <string.h>

#include "base/error.h"

enum { AXES_MAX = 64 };

static kith_status copy_text(kith_arena *arena, const char *text, size_t length, const char **out) {
    char *copy;
    KITH_TRY(kith_arena_take(arena, length + 1, 1, &copy));
    memcpy(copy, text, length);
    copy[length] = '\0';
    *out = copy;
    return KITH_OK;
}

static kith_status read_values(const char *axis, const char *list, kith_arena *arena, kith_sweep_axis *out) {
    size_t capacity = 1;
    for (const char *at = list; *at != '\0'; at++) capacity += *at == ',';
    KITH_TRY(kith_arena_take(arena, capacity, sizeof *out->values, &out->values));
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        if (length == 0)
            return kith_error(KITH_ERR_ARGUMENT, "grid '%s': value %zu is empty", axis, out->value_count + 1);
        KITH_TRY(copy_text(arena, at, length, &out->values[out->value_count++]));
        at += length;
        if (*at == '\0') return KITH_OK;
    }
}

static kith_status read_axis(const char *axis, kith_arena *arena, kith_sweep_axis *out) {
    *out = (kith_sweep_axis){0};
    size_t length = strcspn(axis, "=");
    if (length == 0 || axis[length] == '\0')
        return kith_error(KITH_ERR_ARGUMENT, "grid '%s': expected name=value,value,...", axis);
    KITH_TRY(copy_text(arena, axis, length, &out->name));
    if (strcmp(out->name, "threads") == 0)
        return kith_error(KITH_ERR_ARGUMENT, "grid '%s': speed is measured on 1 and on the sweep's threads anyway",
                          axis);
    return read_values(axis, axis + length + 1, arena, out);
}

/* The characters of the first axis in a text: up to the comma before the next name=. */
static size_t axis_length(const char *text) {
    size_t length = strcspn(text, ",");
    while (text[length] == ',') {
        const char *word = text + length + 1;
        size_t bytes = strcspn(word, ",");
        if (memchr(word, '=', bytes) != NULL) break;
        length += bytes + 1;
    }
    return length;
}

static kith_status add_axis(kith_sweep_grid *grid, const char *text, kith_arena *arena) {
    kith_sweep_axis *axis = &grid->axes[grid->axis_count];
    if (grid->axis_count == AXES_MAX) return kith_error(KITH_ERR_ARGUMENT, "grid: more than %d axes", AXES_MAX);
    KITH_TRY(read_axis(text, arena, axis));
    for (size_t i = 0; i < grid->axis_count; i++)
        if (strcmp(axis->name, grid->axes[i].name) == 0)
            return kith_error(KITH_ERR_ARGUMENT, "grid '%s': %s stands twice", text, axis->name);
    grid->axis_count++;
    grid->point_count *= axis->value_count; /* at most the maximum times the length of an argument */
    if (grid->point_count > KITH_SWEEP_POINTS_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "grid: more than %d points", KITH_SWEEP_POINTS_MAX);
    return KITH_OK;
}

kith_status kith_sweep_grid_read(const char *const *axes, size_t axis_count, kith_arena *arena,
                                 kith_sweep_grid *out) {
    *out = (kith_sweep_grid){.point_count = 1};
    if (axes == NULL) axis_count = 0;
    if (axis_count > 0) KITH_TRY(kith_arena_take(arena, AXES_MAX + 1, sizeof *out->axes, &out->axes));
    for (size_t i = 0; i < axis_count; i++) {
        if (axes[i] == NULL) return kith_error(KITH_ERR_ARGUMENT, "grid: NULL");
        for (const char *at = axes[i];;) {
            const char *text;
            size_t length = axis_length(at);
            KITH_TRY(copy_text(arena, at, length, &text));
            KITH_TRY(add_axis(out, text, arena));
            if (at[length] == '\0') break;
            at += length + 1;
        }
    }
    return KITH_OK;
}

kith_status kith_sweep_grid_point(const kith_sweep_grid *grid, size_t point, kith_arena *arena,
                                  kith_sweep_value **values, const char **text) {
    size_t length = 1, rest = point;
    KITH_TRY(kith_arena_take(arena, grid->axis_count, sizeof **values, values));
    for (size_t i = grid->axis_count; i-- > 0;) {
        const kith_sweep_axis *axis = &grid->axes[i];
        (*values)[i] = (kith_sweep_value){axis->name, axis->values[rest % axis->value_count]};
        rest /= axis->value_count;
        length += strlen((*values)[i].name) + strlen((*values)[i].value) + 2;
    }
    char *at;
    KITH_TRY(kith_arena_take(arena, length, 1, &at));
    *text = at;
    *at = '\0';
    for (size_t i = 0; i < grid->axis_count; i++) {
        if (i > 0) *at++ = ',';
        size_t name = strlen((*values)[i].name), value = strlen((*values)[i].value);
        memcpy(at, (*values)[i].name, name);
        at[name] = '=';
        memcpy(at + name + 1, (*values)[i].value, value + 1);
        at += name + 1 + value;
    }
    return KITH_OK;
}
