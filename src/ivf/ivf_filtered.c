/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf_filtered.c: inverted lists under a filter: which lists and which codes of them are allowed.
 *
 * A list is asked about when the first query comes near it: its ids become bits and their number, which serve all
 * queries of the call. Lists without an allowed vector are passed over, and so are blocks of 32 codes. What a thread
 * writes here any other would write too, so that they need not wait for each other.
 */
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "ivf/ivf_inside.h"

enum {
    SAMPLE = 1024,
    WORD = 32,
    FEW_OF_ALL = 32, /* allowed vectors are few: at most one in so many, */
    FEW_SEEN = 10    /* of which a query would see more than one in so many by lists */
};
#define UNKNOWN SIZE_MAX

/* The share of vectors that the filter allows: by its own count, or by asking about some from all over the lists. */
static float share_of(const kith_ivf *ivf, const kith_filter *filter) {
    uint64_t most = kith_filter_allowed_max(filter);
    float bound = most < ivf->base.count ? (float)most / (float)ivf->base.count : 1;
    size_t step = kith_max_size(1, ivf->base.count / SAMPLE), next = 0, before = 0, asked = 0, yes = 0;
    kith_allow_fn allow = kith_filter_allow_fn(filter);
    for (size_t l = 0; l < kith_ivf_lists(ivf); before += kith_ivf_list(ivf, l++)->count)
        for (; next < before + kith_ivf_list(ivf, l)->count; next += step) {
            const kith_list *list = kith_ivf_list(ivf, l);
            if (kith_list_is_dead(list, next - before)) continue;
            yes += allow(filter, kith_list_id(list, next - before));
            asked++;
        }
    float share = ((float)yes + 0.5f) / ((float)asked + 0.5f); /* never none */
    return share < bound ? share : bound;
}

kith_status kith_ivf_filtered_open(const kith_ivf *ivf, const kith_filter *filter, kith_arena *arena,
                                   kith_ivf_filtered *out) {
    size_t lists = kith_ivf_lists(ivf), words = 0;
    *out = (kith_ivf_filtered){.ivf = ivf, .filter = filter, .share = share_of(ivf, filter)};
    KITH_TRY(kith_arena_take(arena, lists, sizeof *out->counts, &out->counts));
    KITH_TRY(kith_arena_take(arena, lists, sizeof *out->first_words, &out->first_words));
    for (size_t l = 0; l < lists; l++) {
        atomic_init(&out->counts[l], UNKNOWN);
        out->first_words[l] = words;
        words += kith_ivf_list(ivf, l)->count / WORD + 2; /* one to spare: bits are read across words */
    }
    return kith_arena_take(arena, words, sizeof *out->words, &out->words);
}

size_t kith_ivf_filtered_list(const kith_ivf_filtered *filtered, size_t list) {
    size_t known = atomic_load_explicit(&filtered->counts[list], memory_order_acquire);
    if (known != UNKNOWN) return known;
    const kith_ivf *ivf = filtered->ivf;
    const kith_list *all = kith_ivf_list(ivf, list);
    kith_allow_fn allow = kith_filter_allow_fn(filtered->filter);
    _Atomic uint32_t *words = filtered->words + filtered->first_words[list];
    uint32_t word = 0;
    size_t at = 0, count = 0;
    for (size_t s = 0; s < all->segment_count; s++) {
        const kith_list_segment *segment = kith_list_segment_at(all, s);
        for (size_t i = 0; i < segment->count; i++, at++) {
            word |= (uint32_t)allow(filtered->filter, kith_segment_id(segment, i)) << (at % WORD);
            if (at % WORD != WORD - 1) continue;
            word &= ~kith_list_dead_bits(all, at / WORD * WORD);
            atomic_store_explicit(&words[at / WORD], word, memory_order_relaxed);
            count += (size_t)__builtin_popcount(word);
            word = 0;
        }
    }
    word &= ~kith_list_dead_bits(all, at / WORD * WORD);
    count += (size_t)__builtin_popcount(word);
    atomic_store_explicit(&words[at / WORD], word, memory_order_relaxed);
    atomic_store_explicit(&words[at / WORD + 1], 0, memory_order_relaxed);
    atomic_store_explicit(&filtered->counts[list], count, memory_order_release);
    return count;
}

size_t kith_ivf_filtered_count(const kith_ivf_filtered *filtered, size_t list) {
    size_t copies = filtered->ivf->copies, count = 0;
    for (size_t c = 0; c < copies; c++) count += kith_ivf_filtered_list(filtered, list * copies + c);
    return count;
}

uint32_t kith_ivf_filtered_bits(const kith_ivf_filtered *filtered, size_t list, size_t position) {
    _Atomic uint32_t *words = filtered->words + filtered->first_words[list] + position / WORD;
    uint32_t shift = (uint32_t)(position % WORD), low = atomic_load_explicit(words, memory_order_relaxed);
    if (shift == 0) return low;
    return low >> shift | atomic_load_explicit(words + 1, memory_order_relaxed) << (WORD - shift);
}

bool kith_ivf_filtered_is_few(const kith_ivf_filtered *filtered, size_t nprobe) {
    const kith_ivf *ivf = filtered->ivf;
    uint64_t most = kith_filter_allowed_max(filtered->filter);
    if (!ivf->code->is_exact || ivf->copies > 1 || most > ivf->base.count / FEW_OF_ALL) return false;
    return most <= FEW_SEEN * (uint64_t)kith_ivf_filtered_wanted(filtered, nprobe);
}

size_t kith_ivf_filtered_wanted(const kith_ivf_filtered *filtered, size_t nprobe) {
    double each = (double)filtered->ivf->base.count / (double)filtered->ivf->list_count;
    return (size_t)((double)nprobe * each * sqrt((double)filtered->share));
}

size_t kith_ivf_filtered_probes_max(const kith_ivf_filtered *filtered, size_t nprobe, size_t k) {
    double wide = 2 * (double)nprobe / sqrt((double)filtered->share) + 1;
    size_t lists = filtered->ivf->list_count;
    return wide < (double)lists ? kith_min_size(lists, kith_max_size(k, (size_t)wide)) : lists;
}
