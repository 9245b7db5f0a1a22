/* SPDX-License-Identifier: Apache-2.0
 *
 * chain.c: transforms one after the other.
 */
#include <string.h>

#include "base/error.h"
#include "linalg/transform_inside.h"

/* Rows on which members after the first are trained, and how many of them are transformed at a time. */
enum { CHAIN_ROWS_MAX = 262144, PIECE_ROWS = 8192 };

static kith_status check(const kith_transform *t) {
    (void)t; /* kith_chain_create has done it, before there is anything to free */
    return KITH_OK;
}

static void describe(const kith_transform *t, char *text, size_t bytes) {
    for (size_t m = 0; m < t->member_count; m++) {
        size_t used = strlen(text);
        if (m > 0 && used + 1 < bytes) {
            text[used++] = ',';
            text[used] = '\0';
        }
        kith_transform_describe(t->members[m], text + used, bytes - used);
    }
}

static unsigned keeps(const kith_transform *t) {
    unsigned kept = KITH_KEEPS_L2 | KITH_KEEPS_IP;
    for (size_t m = 0; m < t->member_count; m++) kept &= kith_transform_keeps(t->members[m]);
    return kept;
}

/* ---- Applying: two buffers in turn --------------------------------------------------------------------------- */

static size_t buffer_floats(const kith_transform *t, size_t count) {
    size_t widest = 0;
    for (size_t m = 0; m + 1 < t->member_count; m++) widest = kith_max_size(widest, t->members[m]->dim_out);
    return kith_round_up(widest * count, KITH_ALIGNMENT / sizeof(float));
}

static size_t chain_scratch(const kith_transform *t, size_t count) {
    size_t most = 0;
    for (size_t m = 0; m < t->member_count; m++)
        most = kith_max_size(most, t->members[m]->vtable->scratch(t->members[m], count));
    return 2 * buffer_floats(t, count) + most;
}

static void apply(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    size_t buffer = buffer_floats(t, count);
    for (size_t m = 0; m < t->member_count; m++) {
        const kith_transform *member = t->members[m];
        float *to = m + 1 == t->member_count ? out : scratch + m % 2 * buffer;
        member->vtable->apply(member, in, count, to, scratch + 2 * buffer);
        in = to;
    }
}

static void invert(const kith_transform *t, const float *in, size_t count, float *out, float *scratch) {
    size_t buffer = buffer_floats(t, count);
    for (size_t m = t->member_count; m-- > 0;) {
        const kith_transform *member = t->members[m];
        float *to = m == 0 ? out : scratch + m % 2 * buffer;
        member->vtable->invert(member, in, count, to, scratch + 2 * buffer);
        in = to;
    }
}

/* ---- Training ------------------------------------------------------------------------------------------------ */

kith_status kith_sample_transform(const kith_sample *sample, const kith_transform *transform, size_t threads,
                                  float *out) {
    size_t dim = sample->view.dim, piece = kith_min_size(sample->count, PIECE_ROWS);
    kith_arena arena = {0};
    float *rows = NULL;
    kith_status status;
    KITH_GO(kith_alloc(piece, dim * sizeof *rows, &rows));
    for (size_t first = 0; first < sample->count; first += piece) {
        size_t count = kith_min_size(piece, sample->count - first);
        KITH_GO(kith_sample_read_all(sample, first, count, threads, rows));
        kith_view view = {.data = rows, .dtype = KITH_F32, .count = count, .dim = dim};
        KITH_GO(kith_arena_begin(&arena));
        KITH_GO(kith_transform_apply(transform, &view, threads, &arena, out + first * transform->dim_out));
    }
done:
    kith_free(rows);
    kith_arena_free(&arena);
    return status;
}

/* Is there a member after m that looks at rows? */
static bool is_needed_after(const kith_transform *t, size_t m) {
    for (size_t i = m + 1; i < t->member_count; i++)
        if (t->members[i]->vtable->needs_rows) return true;
    return false;
}

static kith_status train_members(kith_transform *t, const kith_view *rows, const kith_job *job) {
    kith_view view = rows != NULL ? *rows : (kith_view){0};
    float *made = NULL, *next = NULL;
    kith_status status = KITH_OK;
    for (size_t m = 0; m < t->member_count && status == KITH_OK; m++) {
        kith_transform *member = t->members[m];
        KITH_GO(kith_transform_train(member, member->vtable->needs_rows ? &view : NULL, job));
        if (!is_needed_after(t, m)) continue;
        kith_sample sample = kith_sample_of(&view, CHAIN_ROWS_MAX, job->seed);
        size_t bytes;
        if (kith_mul_overflows(sample.count, member->dim_out * sizeof *next, &bytes)) bytes = SIZE_MAX;
        KITH_GO(kith_budget_check("chain", bytes, job));
        KITH_GO(kith_alloc(sample.count, member->dim_out * sizeof *next, &next));
        KITH_GO(kith_sample_transform(&sample, member, job->threads, next));
        kith_free(made);
        made = next;
        next = NULL;
        view = (kith_view){.data = made, .dtype = KITH_F32, .count = sample.count, .dim = member->dim_out};
    }
done:
    kith_free(made);
    kith_free(next);
    return status;
}

kith_status kith_chain_train(kith_transform *t, const kith_view *rows, const kith_job *job) {
    kith_transform *fresh;
    KITH_TRY(kith_transform_clone(t, &fresh));
    kith_status status = train_members(fresh, rows, job);
    for (size_t m = 0; m < t->member_count && status == KITH_OK; m++) {
        kith_transform *before = t->members[m];
        t->members[m] = fresh->members[m];
        fresh->members[m] = before;
    }
    if (status == KITH_OK) t->is_trained = true;
    kith_transform_free(fresh);
    return status;
}

const kith_transform_vtable kith_transform_chain = {
    .kind = KITH_TRANSFORM_CHAIN,
    .name = "chain",
    .check = check,
    .describe = describe,
    .keeps = keeps,
    .scratch = chain_scratch,
    .apply = apply,
    .invert = invert,
};

kith_status kith_chain_create(kith_transform *const *members, size_t member_count, kith_transform **out) {
    kith_transform filled = {.vtable = &kith_transform_chain, .member_count = member_count, .is_trained = true};
    *out = NULL;
    if (member_count < 1 || member_count > KITH_CHAIN_MAX)
        return kith_error(KITH_ERR_ARGUMENT, "chain: %zu transforms, must be 1..%d", member_count, KITH_CHAIN_MAX);
    for (size_t m = 0; m < member_count; m++) {
        if (members[m]->vtable->kind == KITH_TRANSFORM_CHAIN)
            return kith_error(KITH_ERR_ARGUMENT, "chain: number %zu is a chain itself", m);
        if (m > 0 && members[m]->dim_in != members[m - 1]->dim_out)
            return kith_error(KITH_ERR_DIMENSION, "chain: number %zu takes %zu dimensions and gets %zu", m,
                              members[m]->dim_in, members[m - 1]->dim_out);
        filled.is_trained = filled.is_trained && members[m]->is_trained;
        filled.members[m] = members[m];
    }
    filled.dim_in = members[0]->dim_in;
    filled.dim_out = members[member_count - 1]->dim_out;
    return kith_transform_create(&filled, out);
}
