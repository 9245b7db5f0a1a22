/* SPDX-License-Identifier: Apache-2.0
 *
 * tune_inside.h: what tune.c and tune_trials.c share: the free parameters, one search at one setting, and what it found.
 */
#ifndef KITH_EVAL_TUNE_INSIDE_H
#define KITH_EVAL_TUNE_INSIDE_H

#include "base/arena.h"
#include "base/parallel.h"
#include "kith/tune.h"

enum { KITH_TUNE_PARAMS_MAX = 8, KITH_TUNE_SETTINGS_MAX = 512 };

/* A parameter that may be chosen, and the values to choose from. */
typedef struct kith_tune_param {
    const char *name;
    uint64_t *values; /* rising effort */
    size_t value_count;
    uint64_t first, last; /* the range, when is_free */
    bool is_free;         /* any value of the range, not the listed ones alone */
} kith_tune_param;

/* Values of all parameters, in their order. */
typedef struct kith_tune_setting {
    uint64_t values[KITH_TUNE_PARAMS_MAX];
    double recall, recall_low; /* of the trial: mean, and what it is with the wanted probability */
    double seconds;
} kith_tune_setting;

/* A part of the queries with its truth and room for its results. */
typedef struct kith_tune_half {
    kith_view queries;
    kith_neighbors truth;
    kith_neighbors *result; /* of those that choose */
    size_t *counts;
} kith_tune_half;

typedef struct kith_tune_work {
    const kith_index *index;
    kith_tune_options options;
    kith_tune_param params[KITH_TUNE_PARAMS_MAX];
    size_t param_count;
    size_t lead;       /* the parameter that is searched for each combination of the others */
    double deviations; /* of the mean, that `sure` asks for */
    kith_tune_half choose, check;
    kith_search_context *context;
    kith_arena *arena;
    kith_meter meter;
    size_t trial_count;
    kith_tune_setting most; /* the trial that found the most */
    kith_tune_setting settings[KITH_TUNE_SETTINGS_MAX];
    size_t setting_count;
} kith_tune_work;

/* The free parameters and their values, by the index and the grid of the options. */
kith_status kith_tune_read_params(kith_tune_work *work);
/* "nprobe=12,k_factor=4"; "" without parameters. Lies in the arena. */
kith_status kith_tune_text(const kith_tune_work *work, const kith_tune_setting *setting, const char **text);
/* Searches the queries that choose, and fills in recall and seconds. */
kith_status kith_tune_try(kith_tune_work *work, kith_tune_setting *setting);
/* Gathers the settings that are worth timing: for each combination of the other parameters, the cheapest that finds enough.
 * None when nothing finds enough. */
kith_status kith_tune_gather(kith_tune_work *work);

#endif
