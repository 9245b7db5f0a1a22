/* SPDX-License-Identifier: Apache-2.0 */
#include "base/chunks.h"

#include "memory_faults.h"

static const size_t item_sizes[] = {1, 3, 4, 8, 128, 3136, 131072, (size_t)9 << 20};

/* A value that depends on the item, in its first byte and its last. */
static void mark(kith_chunks *chunks, size_t i) {
    unsigned char *item = kith_chunks_at(chunks, i);
    item[chunks->item_bytes - 1] = (unsigned char)(i * 31 + 7);
    item[0] = (unsigned char)(i * 31 + 7);
}

static bool is_marked(const kith_chunks *chunks, size_t i) {
    const unsigned char *item = kith_chunks_at(chunks, i);
    unsigned char expected = (unsigned char)(i * 31 + 7);
    return item[0] == expected && item[chunks->item_bytes - 1] == expected;
}

Test(chunks, addresses_stay_while_it_grows) {
    memory_faults_install();
    kith_chunks chunks;
    kith_chunks_init(&chunks, 12);
    static void *address[3000000 / 1000];
    size_t count = 0;
    for (size_t step = 1; count < 3000000; step += step / 2 + 1) {
        size_t wanted = kith_min_size(count + step, 3000000);
        cr_assert_eq(kith_chunks_reserve(&chunks, wanted), KITH_OK);
        for (; count < wanted; count++) {
            mark(&chunks, count);
            if (count % 1000 == 0) address[count / 1000] = kith_chunks_at(&chunks, count);
        }
    }
    for (size_t i = 0; i < count; i++) {
        cr_assert(is_marked(&chunks, i), "item %zu", i);
        if (i % 1000 == 0) cr_assert_eq(kith_chunks_at(&chunks, i), address[i / 1000], "item %zu moved", i);
    }
    cr_assert_geq(kith_chunks_bytes(&chunks), count * 12);
    cr_assert_leq(kith_chunks_bytes(&chunks), count * 12 + ((uint64_t)17 << 20), "at most one chunk is wasted");
    kith_chunks_free(&chunks);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

/* Granules of at most 64 KiB, chunks of 1, 1, 2, 4, ... granules up to 16 MiB. */
Test(chunks, chunks_double_up_to_full_ones) {
    for (size_t s = 0; s < sizeof item_sizes / sizeof *item_sizes; s++) {
        kith_chunks chunks;
        kith_chunks_init(&chunks, item_sizes[s]);
        size_t granule = (size_t)1 << chunks.shift, full = granule << chunks.full_shift, start = 0, items = granule;
        if (granule > 1) cr_assert_leq(granule * item_sizes[s], (size_t)64 << 10);
        if (full > 1) cr_assert_leq(full * item_sizes[s], (size_t)16 << 20);
        while ((start + items) * item_sizes[s] < (size_t)60 << 20) {
            size_t run;
            cr_assert_eq(kith_chunks_reserve(&chunks, start + 1), KITH_OK);
            cr_assert_eq(chunks.room, start + items, "items of %zu bytes", item_sizes[s]);
            kith_chunks_run(&chunks, start, &run);
            cr_assert_eq(run, items);
            start += items;
            items = start < full ? start : full;
        }
        kith_chunks_free(&chunks);
        cr_assert_eq(kith_memory_live_blocks(), 0);
    }
}

Test(chunks, runs_cover_all_items_once) {
    kith_chunks chunks;
    kith_chunks_init(&chunks, 4096);
    cr_assert_eq(kith_chunks_reserve(&chunks, 10000), KITH_OK);
    for (size_t i = 0; i < 10000; i++) mark(&chunks, i);
    size_t run;
    for (size_t i = 0; i < 10000; i += run) {
        unsigned char *at = kith_chunks_run(&chunks, i, &run);
        cr_assert_gt(run, 0);
        for (size_t k = 0; k < run && i + k < 10000; k++)
            cr_assert_eq(at + k * 4096, kith_chunks_at(&chunks, i + k));
    }
    unsigned char *middle = kith_chunks_run(&chunks, 100, &run);
    cr_assert_eq(middle, kith_chunks_at(&chunks, 100));
    cr_assert_eq(run, 28, "item 100 lies in the chunk of 64..127: 16 in a granule, the fourth chunk has four");
    kith_chunks_free(&chunks);
}

Test(chunks, borrowed_memory_is_read_in_place_and_never_grown) {
    static const size_t counts[] = {0, 1, 63, 64, 65, 128, 129, 5000, 100000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        unsigned char *items = malloc(counts[c] * 300 + 1);
        kith_chunks chunks;
        cr_assert_eq(kith_chunks_borrow(&chunks, 300, items, counts[c]), KITH_OK);
        for (size_t i = 0; i < counts[c]; i++) cr_assert_eq(kith_chunks_at(&chunks, i), items + i * 300);
        cr_assert_eq(kith_chunks_reserve(&chunks, counts[c]), KITH_OK, "what is there needs no room");
        cr_assert_eq(kith_chunks_reserve(&chunks, counts[c] + 1), KITH_ERR_READ_ONLY);
        kith_chunks_free(&chunks);
        cr_assert_eq(kith_memory_live_blocks(), 0);
        free(items);
    }
}

Test(chunks, survives_each_failed_allocation) {
    memory_faults_install();
    kith_chunks chunks;
    kith_chunks_init(&chunks, 100000);
    cr_assert_eq(kith_chunks_reserve(&chunks, 100), KITH_OK);
    for (size_t i = 0; i < 100; i++) mark(&chunks, i);
    size_t room = chunks.room;
    size_t failures = 0;
    kith_status status;
    MEMORY_FAULTS_EACH(status, kith_chunks_reserve(&chunks, 1000)) {
        failures++;
        cr_assert_eq(chunks.room, room);
        for (size_t i = 0; i < 100; i++) cr_assert(is_marked(&chunks, i));
    }
    cr_assert_eq(status, KITH_OK);
    cr_assert_gt(failures, 3);
    for (size_t i = 0; i < 1000; i++) mark(&chunks, i);
    for (size_t i = 0; i < 1000; i++) cr_assert(is_marked(&chunks, i));
    kith_chunks_free(&chunks);

    unsigned char items[300];
    MEMORY_FAULTS_EACH(status, kith_chunks_borrow(&chunks, 3, items, 100)) { kith_chunks_free(&chunks); }
    kith_chunks_free(&chunks);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(chunks, counts_that_wrap_are_refused) {
    kith_chunks chunks;
    kith_chunks_init(&chunks, 3136);
    cr_assert_eq(kith_chunks_reserve(&chunks, SIZE_MAX / 3), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_chunks_reserve(&chunks, SIZE_MAX), KITH_ERR_OVERFLOW);
    cr_assert_eq(kith_chunks_reserve(&chunks, 0), KITH_OK);
    cr_assert_eq(kith_chunks_bytes(&chunks), 0);
    kith_chunks_free(&chunks);
    kith_chunks_free(&chunks);
}

/* What is told beforehand leaves room for sums; an array may grow for as long as memory lasts. */
Test(chunks, only_what_is_told_has_a_margin) {
    static const unsigned char item[16] = {0};
    kith_chunks chunks;
    uint64_t bytes = 0;
    cr_assert_eq(kith_chunks_bytes_for(sizeof item, SIZE_MAX / 128, &bytes), KITH_ERR_OVERFLOW);
    cr_assert_eq(bytes, 0);
    cr_assert_eq(kith_chunks_bytes_for(sizeof item, SIZE_MAX / 256, &bytes), KITH_OK);
    cr_assert_geq(bytes, SIZE_MAX / 256 * sizeof item);
    cr_assert_eq(kith_chunks_borrow(&chunks, sizeof item, item, 1), KITH_OK);
    cr_assert_eq(kith_chunks_reserve(&chunks, SIZE_MAX / 128), KITH_ERR_READ_ONLY);
    cr_assert_eq(kith_chunks_reserve(&chunks, SIZE_MAX / 8), KITH_ERR_OVERFLOW);
    kith_chunks_free(&chunks);
}

Test(chunks, trimmed_arrays_grow_again) {
    kith_chunks chunks;
    kith_chunks_init(&chunks, 1024);
    cr_assert_eq(kith_chunks_reserve(&chunks, 1000), KITH_OK); /* 64 + 64 + 128 + 256 + 512 */
    for (size_t i = 0; i < 1000; i++) mark(&chunks, i);
    cr_assert_eq(chunks.chunk_count, 5);
    kith_chunks_trim(&chunks, 600, 0);
    cr_assert_eq(chunks.chunk_count, 5);
    kith_chunks_trim(&chunks, 200, 1);
    cr_assert_eq(chunks.chunk_count, 4);
    kith_chunks_trim(&chunks, 200, 0);
    cr_assert_eq(chunks.chunk_count, 3);
    for (size_t i = 0; i < 200; i++) cr_assert(is_marked(&chunks, i));
    cr_assert_eq(kith_chunks_reserve(&chunks, 1000), KITH_OK);
    for (size_t i = 0; i < 200; i++) cr_assert(is_marked(&chunks, i));
    kith_chunks_trim(&chunks, 0, 0);
    cr_assert_eq(kith_memory_live_blocks(), 0);
    cr_assert_eq(kith_chunks_reserve(&chunks, 1), KITH_OK);
    mark(&chunks, 0);
    kith_chunks_free(&chunks);
    cr_assert_eq(kith_memory_live_blocks(), 0);
}

Test(chunks, a_view_finds_every_item_without_allocating) {
    static uint32_t items[70000];
    for (uint32_t i = 0; i < 70000; i++) items[i] = i;
    static const size_t counts[] = {0, 1, 64, 65, 128, 129, 4096, 70000};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        kith_chunks chunks;
        unsigned char *table;
        kith_chunks_view(&chunks, sizeof *items, items, counts[c], &table);
        for (size_t i = 0; i < counts[c]; i++) {
            size_t run;
            cr_assert_eq(*(uint32_t *)kith_chunks_at(&chunks, i), i);
            cr_assert_eq(kith_chunks_run(&chunks, i, &run), kith_chunks_at(&chunks, i));
            cr_assert_geq(run, 1);
        }
    }
    cr_assert_eq(kith_memory_live_blocks(), 0);
}
