/* SPDX-License-Identifier: Apache-2.0
 *
 * tune_trials.c: which settings are tried, and the search for the cheapest that finds enough.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "eval/sweep_grid.h"
#include "eval/tune_inside.h"

enum { VALUE_TEXT_BYTES = 24, OTHER_VALUE_MAX = 128 };

/* ---- Parameters ------------------------------------------------------------------------------------------------- */

static const kith_search_param *find_param(const kith_index *index, const char *name) {
    for (size_t i = 0; i < kith_index_param_count(index); i++)
        if (strcmp(kith_index_param(index, i)->name, name) == 0) return kith_index_param(index, i);
    return NULL;
}

/* More of these than there are vectors or lists brings nothing. */
static uint64_t useful_max(const kith_tune_work *work, const kith_search_param *shown) {
    size_t count = kith_index_count(work->index), lists = 0;
    uint64_t most = count;
    if (strcmp(shown->name, "nprobe") == 0 && kith_index_list_sizes(work->index, NULL, 0, &lists) == KITH_OK &&
        lists > 0)
        most = lists;
    if (strcmp(shown->name, "k_factor") == 0) most = count / work->options.k + 1;
    return shown->max < most ? shown->max : most;
}

static uint64_t useful_min(const kith_tune_work *work, const kith_search_param *shown) {
    uint64_t least =
        strcmp(shown->name, "ef") == 0 || strcmp(shown->name, "max_distances") == 0 ? work->options.k : 1;
    return shown->min > least ? shown->min : least; /* 0 stands for a default */
}

/* 1, 2, 3, 4, 6, 8, 12, 16, ... in the range. */
static kith_status list_values(kith_tune_work *work, kith_tune_param *param) {
    size_t capacity = 0;
    for (uint64_t power = 1; power <= OTHER_VALUE_MAX; power *= 2) capacity += 2;
    KITH_TRY(kith_arena_take(work->arena, capacity + 1, sizeof *param->values, &param->values));
    for (uint64_t power = 1; power <= OTHER_VALUE_MAX; power *= 2) {
        uint64_t both[] = {power, power + power / 2};
        for (size_t i = 0; i < (power > 1 ? 2u : 1u); i++)
            if (both[i] >= param->first && both[i] <= param->last) param->values[param->value_count++] = both[i];
    }
    if (param->value_count == 0) param->values[param->value_count++] = param->first;
    return KITH_OK;
}

static kith_status add_free(kith_tune_work *work, const kith_search_param *shown) {
    if (work->param_count == KITH_TUNE_PARAMS_MAX)
        return kith_error(KITH_ERR_UNSUPPORTED, "tune: more than %d parameters", KITH_TUNE_PARAMS_MAX);
    kith_tune_param *param = &work->params[work->param_count++];
    *param = (kith_tune_param){.name = shown->name, .is_free = true};
    param->first = useful_min(work, shown);
    param->last = useful_max(work, shown);
    if (param->last < param->first) param->last = param->first;
    return list_values(work, param);
}

static kith_status add_listed(kith_tune_work *work, const kith_sweep_axis *axis) {
    kith_search_params tried;
    if (work->param_count == KITH_TUNE_PARAMS_MAX)
        return kith_error(KITH_ERR_UNSUPPORTED, "tune: more than %d parameters", KITH_TUNE_PARAMS_MAX);
    kith_tune_param *param = &work->params[work->param_count++];
    *param = (kith_tune_param){.value_count = axis->value_count};
    KITH_TRY(kith_arena_take(work->arena, axis->value_count, sizeof *param->values, &param->values));
    kith_search_params_init(&tried);
    for (size_t i = 0; i < axis->value_count; i++) {
        KITH_TRY(kith_search_params_set(&tried, work->index, axis->name, axis->values[i]));
        param->values[i] = 0;
        for (const char *c = axis->values[i]; *c != '\0'; c++) /* digits that fit: set has checked them */
            param->values[i] = 10 * param->values[i] + (uint64_t)(*c - '0');
    }
    param->name = find_param(work->index, axis->name)->name;
    return KITH_OK;
}

static bool is_listed(const kith_tune_work *work, const char *name) {
    for (size_t i = 0; i < work->param_count; i++)
        if (strcmp(work->params[i].name, name) == 0) return true;
    return false;
}

/* nprobe leads, or ef, or whatever there is. */
static size_t leader(const kith_tune_work *work) {
    static const char *const names[] = {"nprobe", "ef", "max_distances"};
    for (size_t n = 0; n < sizeof names / sizeof *names; n++)
        for (size_t i = 0; i < work->param_count; i++)
            if (strcmp(work->params[i].name, names[n]) == 0) return i;
    return 0;
}

kith_status kith_tune_read_params(kith_tune_work *work) {
    kith_sweep_grid grid;
    KITH_TRY(kith_sweep_grid_read(work->options.grid, work->options.grid_count, work->arena, &grid));
    for (size_t i = 0; i < grid.axis_count; i++) KITH_TRY(add_listed(work, &grid.axes[i]));
    for (size_t i = 0; i < kith_index_param_count(work->index); i++) {
        const kith_search_param *shown = kith_index_param(work->index, i);
        bool is_special = strcmp(shown->name, "threads") == 0 || strcmp(shown->name, "max_distances") == 0 ||
                          strcmp(shown->name, "error_percent") == 0 || strcmp(shown->name, "early") == 0 ||
                          strcmp(shown->name, "stop_percent") == 0;
        if (!is_special && !is_listed(work, shown->name)) KITH_TRY(add_free(work, shown));
    }
    const kith_search_param *bound = find_param(work->index, "max_distances");
    if (work->param_count == 0 && bound != NULL) KITH_TRY(add_free(work, bound));
    work->lead = leader(work);
    return KITH_OK;
}

kith_status kith_tune_text(const kith_tune_work *work, const kith_tune_setting *setting, const char **text) {
    size_t capacity = 1, at = 0;
    for (size_t i = 0; i < work->param_count; i++) capacity += strlen(work->params[i].name) + VALUE_TEXT_BYTES;
    char *out;
    KITH_TRY(kith_arena_take(work->arena, capacity, 1, &out));
    out[0] = '\0';
    for (size_t i = 0; i < work->param_count; i++)
        at += (size_t)snprintf(out + at, capacity - at, "%s%s=%llu", i > 0 ? "," : "", work->params[i].name,
                               (unsigned long long)setting->values[i]);
    *text = out;
    return KITH_OK;
}

/* ---- Trials ----------------------------------------------------------------------------------------------------- */

/* Mean of the share that each query found, less what the mean may be above that of all such queries. */
static void judge(const kith_tune_work *work, const kith_measures *measures, kith_tune_setting *setting) {
    double n = (double)measures->query_count, k = (double)work->options.k, sum = 0, squares = 0;
    for (size_t i = 0; i < measures->query_count; i++) {
        double share = (double)measures->at[0]->intersection_counts[i] / k;
        sum += share;
        squares += share * share;
    }
    setting->recall = measures->at[0]->intersection;
    double variance = (squares - sum * sum / n) / (n - 1);
    setting->recall_low = setting->recall - work->deviations * sqrt((variance > 0 ? variance : 0) / n);
}

kith_status kith_tune_try(kith_tune_work *work, kith_tune_setting *setting) {
    kith_tune_half *half = &work->choose;
    kith_search_params params;
    kith_search_params_init(&params);
    params.context = work->context;
    params.threads = work->options.threads;
    for (size_t i = 0; i < work->param_count; i++) {
        char value[VALUE_TEXT_BYTES];
        (void)snprintf(value, sizeof value, "%llu", (unsigned long long)setting->values[i]);
        KITH_TRY(kith_search_params_set(&params, work->index, work->params[i].name, value));
    }
    uint64_t start = kith_now_ns();
    KITH_TRY(kith_index_search(work->index, &half->queries, work->options.k, &params, half->result->ids, NULL,
                               half->counts));
    setting->seconds = (double)(kith_now_ns() - start) * 1e-9;
    kith_measures_options options;
    kith_measures *measures;
    kith_measures_options_init(&options);
    options.ranks = &work->options.k;
    options.rank_count = 1;
    KITH_TRY(kith_measures_compute(half->result, &half->truth, &options, &measures));
    judge(work, measures, setting);
    kith_measures_free(measures);
    if (work->trial_count++ == 0 || setting->recall > work->most.recall) work->most = *setting;
    return kith_meter_add(&work->meter, 1);
}

static bool is_enough(const kith_tune_work *work, const kith_tune_setting *setting) {
    return setting->recall_low >= work->options.recall;
}

/* Tries the leading parameter at `value`. */
static kith_status try_lead(kith_tune_work *work, kith_tune_setting *setting, uint64_t value) {
    setting->values[work->lead] = value;
    return kith_tune_try(work, setting);
}

/* Of the listed values, the first that finds enough. */
static kith_status search_listed(kith_tune_work *work, kith_tune_setting *setting, bool *found) {
    const kith_tune_param *lead = &work->params[work->lead];
    for (size_t i = 0; i < lead->value_count && !*found; i++) {
        KITH_TRY(try_lead(work, setting, lead->values[i]));
        *found = is_enough(work, setting);
    }
    return KITH_OK;
}

/* Doubling until enough is found, then bisection. Gives up when two doublings in a row brought nothing: then it is not
 * this parameter that is short; but a bound on the distances may well pass rows that nobody looks for. */
static kith_status search_free(kith_tune_work *work, kith_tune_setting *setting, bool *found) {
    const kith_tune_param *lead = &work->params[work->lead];
    uint64_t below = lead->first - 1, value = lead->first;
    size_t patience = strcmp(lead->name, "max_distances") == 0 ? SIZE_MAX : 2;
    double before = -1;
    for (size_t idle = 0; idle < patience;) {
        KITH_TRY(try_lead(work, setting, value));
        *found = is_enough(work, setting);
        if (*found || value == lead->last) break;
        idle = setting->recall > before ? 0 : idle + 1;
        if (setting->recall > before) before = setting->recall;
        below = value;
        value = value > lead->last / 2 ? lead->last : 2 * value;
    }
    kith_tune_setting best = *setting;
    while (*found && value - below > 1 && value - below > value / 32) {
        uint64_t middle = below + (value - below) / 2;
        KITH_TRY(try_lead(work, setting, middle));
        bool is_good = is_enough(work, setting);
        if (is_good) best = *setting;
        *(is_good ? &value : &below) = middle;
    }
    *setting = best;
    return KITH_OK;
}

/* The parameters but the leading one, as the digits of a counter; false after the last combination. */
static bool next_combination(const kith_tune_work *work, size_t *digits) {
    for (size_t i = 0; i < work->param_count; i++) {
        if (i == work->lead) continue;
        if (++digits[i] < work->params[i].value_count) return true;
        digits[i] = 0;
    }
    return false;
}

/* Steps the first of the other parameters to its end, so that next_combination turns to the next one. */
static void skip_rest(const kith_tune_work *work, size_t *digits) {
    size_t first = work->lead == 0 ? 1 : 0;
    if (first < work->param_count) digits[first] = work->params[first].value_count - 1;
}

kith_status kith_tune_gather(kith_tune_work *work) {
    size_t digits[KITH_TUNE_PARAMS_MAX] = {0}, idle = 0, first = work->lead == 0 ? 1 : 0;
    uint64_t least = UINT64_MAX; /* of the leading parameter, in this row of combinations */
    do {
        kith_tune_setting setting = {0};
        bool found = false;
        for (size_t i = 0; i < work->param_count; i++)
            if (i != work->lead) setting.values[i] = work->params[i].values[digits[i]];
        if (first < work->param_count && digits[first] == 0) idle = 0, least = UINT64_MAX;
        if (work->param_count == 0) {
            KITH_TRY(kith_tune_try(work, &setting));
            found = is_enough(work, &setting);
        } else {
            KITH_TRY(work->params[work->lead].is_free ? search_free(work, &setting, &found)
                                                      : search_listed(work, &setting, &found));
        }
        if (!found) continue;
        if (work->setting_count < KITH_TUNE_SETTINGS_MAX) work->settings[work->setting_count++] = setting;
        /* More effort there that does not spare any here only costs. */
        uint64_t lead = work->param_count > 0 ? setting.values[work->lead] : 0;
        idle = lead < least ? 0 : idle + 1;
        if (lead < least) least = lead;
        if (idle >= 2) skip_rest(work, digits);
    } while (next_combination(work, digits));
    return KITH_OK;
}
