/* SPDX-License-Identifier: Apache-2.0
 *
 * simd.c: names of the instruction sets, the tables made of them, and the one that is in use.
 *
 * meson defines KITH_SIMD_<LEVEL> for every level that the compiler could build.
 */
#include "simd/simd.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "simd/isa.h"

/* A level lays its kernels over those before it. Base levels (base == NULL) can be asked for by name; a sub-level
 * belongs to the base level that it names and is in use unless it is cut off: "avx512-vnni". */
typedef struct level {
    const char *name;
    const char *base;
    const char *below; /* base levels: the base level underneath */
    unsigned feature;
    void (*fill[12])(kith_simd_table *table); /* one after the other, up to a NULL */
} level;

/* Base levels from the lowest to the best, each followed by its sub-levels. */
static const level levels[] = {
    {"ref",
     NULL,
     NULL,
     0,
     {kith_fill_ref, kith_fill_ref_fields, kith_fill_ref_graph, kith_fill_ref_matrix, kith_fill_ref_tables,
      kith_fill_ref_peaks}},
#ifdef KITH_SIMD_AVX2
    {"avx2",
     NULL,
     "ref",
     KITH_CPU_AVX2,
     {kith_fill_avx2_float, kith_fill_avx2_int, kith_fill_avx2_ip_i8, kith_fill_avx2_batch, kith_fill_avx2_matrix,
      kith_fill_avx2_fields, kith_fill_avx2_graph, kith_fill_avx2_tables, kith_fill_avx2_peaks}},
#endif
#ifdef KITH_SIMD_AVX512
    {"avx512",
     NULL,
     "avx2",
     KITH_CPU_AVX512,
     {kith_fill_avx512_float, kith_fill_avx512_int, kith_fill_avx512_batch, kith_fill_avx512_matrix,
      kith_fill_avx512_fields, kith_fill_avx512_graph, kith_fill_avx512_tables, kith_fill_avx512_peaks}},
#endif
#ifdef KITH_SIMD_AVX512_VNNI
    {"vnni",
     "avx512",
     NULL,
     KITH_CPU_AVX512_VNNI,
     {kith_fill_avx512_vnni, kith_fill_avx512_vnni_fields, kith_fill_avx512_vnni_peaks}},
#endif
#ifdef KITH_SIMD_AVX512_VBMI
    {"vbmi",
     "avx512",
     NULL,
     KITH_CPU_AVX512_VBMI | KITH_CPU_AVX512_VNNI,
     {kith_fill_avx512_vbmi, kith_fill_avx512_gfni}},
#endif
#ifdef KITH_SIMD_AVX512_VPOPCNTDQ
    {"vpopcntdq", "avx512", NULL, KITH_CPU_AVX512_VPOPCNTDQ, {kith_fill_avx512_vpopcntdq}},
#endif
#ifdef KITH_SIMD_AVX512_BF16
    {"bf16", "avx512", NULL, KITH_CPU_AVX512_BF16, {kith_fill_avx512_bf16}},
#endif
#ifdef KITH_SIMD_AVX512_FP16
    {"fp16", "avx512", NULL, KITH_CPU_AVX512_FP16, {kith_fill_avx512_fp16}},
#endif
#ifdef KITH_SIMD_NEON
    {"neon",
     NULL,
     "ref",
     KITH_CPU_NEON,
     {kith_fill_neon, kith_fill_neon_fields, kith_fill_neon_graph, kith_fill_neon_tables}},
#endif
#ifdef KITH_SIMD_NEON_DOTPROD
    {"dotprod", "neon", NULL, KITH_CPU_NEON_DOTPROD, {kith_fill_neon_dotprod, kith_fill_neon_dotprod_fields}},
#endif
#ifdef KITH_SIMD_NEON_FP16
    {"fp16", "neon", NULL, KITH_CPU_NEON_FP16, {kith_fill_neon_fp16}},
#endif
};
enum { LEVEL_COUNT = sizeof levels / sizeof *levels };

/* One table for each choice of a base level and its sub-levels: 1 + 1 + 2^5, or 1 + 2^2. They are made when first
 * asked for and never change or move afterwards. */
enum { TABLES_MAX = 40, NAME_BYTES = 64 };
static struct {
    kith_simd_table table;
    char full_name[NAME_BYTES];
    unsigned chosen; /* bit l: levels[l] is in it */
} tables[TABLES_MAX];
static size_t table_count;
static pthread_mutex_t tables_lock = PTHREAD_MUTEX_INITIALIZER;

static bool name_equals(const char *name, const char *text, size_t length) {
    return strlen(name) == length && memcmp(name, text, length) == 0;
}

static int find_level(const char *base, const char *text, size_t length) {
    for (int l = 0; l < LEVEL_COUNT; l++) {
        bool same_base =
            base == NULL ? levels[l].base == NULL : levels[l].base != NULL && strcmp(levels[l].base, base) == 0;
        if (same_base && name_equals(levels[l].name, text, length)) return l;
    }
    return -1;
}

static bool machine_runs(int l, unsigned features) { return (features & levels[l].feature) == levels[l].feature; }

/* The base level with all of its sub-levels that this machine runs. */
static unsigned choose_all(int base, unsigned features) {
    unsigned chosen = 1u << base;
    for (int l = 0; l < LEVEL_COUNT; l++)
        if (levels[l].base != NULL && strcmp(levels[l].base, levels[base].name) == 0 && machine_runs(l, features))
            chosen |= 1u << l;
    return chosen;
}

/* The levels that a name such as "avx512-vnni-bf16" stands for on this machine; 0 when it lacks the base level or
 * when a part of the name is not known. Cutting off a sub-level that the machine lacks anyway is no error. */
static unsigned parse_name(const char *name, unsigned features) {
    size_t length = strcspn(name, "-");
    int base = find_level(NULL, name, length);
    if (base < 0 || !machine_runs(base, features)) return 0;
    unsigned chosen = choose_all(base, features);
    while (name[length] == '-') {
        name += length + 1;
        length = strcspn(name, "-");
        int sub = find_level(levels[base].name, name, length);
        if (sub < 0) return 0;
        for (int l = 0; l < LEVEL_COUNT; l++) /* what needs it goes with it */
            if ((levels[l].feature & levels[sub].feature) == levels[sub].feature) chosen &= ~(1u << l);
    }
    return chosen;
}

static void fill_level(kith_simd_table *table, int l) {
    for (size_t f = 0; f < sizeof levels[l].fill / sizeof *levels[l].fill && levels[l].fill[f] != NULL; f++)
        levels[l].fill[f](table);
}

static void fill_below(kith_simd_table *table, const char *name) {
    if (name == NULL) return;
    int base = find_level(NULL, name, strlen(name));
    if (base < 0) return;
    fill_below(table, levels[base].below);
    fill_level(table, base);
}

static void make_table(size_t at, unsigned chosen) {
    kith_simd_table *table = &tables[at].table;
    char *full_name = tables[at].full_name;
    for (int l = 0; l < LEVEL_COUNT; l++) {
        if ((chosen & 1u << l) == 0) continue;
        if (levels[l].base == NULL) {
            fill_below(table, levels[l].below);
            table->name = levels[l].name;
        }
        fill_level(table, l);
        size_t used = strlen(full_name);
        (void)snprintf(full_name + used, NAME_BYTES - used, "%s%s", used > 0 ? "+" : "", levels[l].name);
    }
    table->full_name = full_name;
    tables[at].chosen = chosen;
}

static const kith_simd_table *table_of(unsigned chosen) {
    if (chosen == 0) return NULL;
    (void)pthread_mutex_lock(&tables_lock);
    size_t at = 0;
    while (at < table_count && tables[at].chosen != chosen) at++;
    if (at == table_count && at < TABLES_MAX) {
        make_table(at, chosen);
        table_count++;
    }
    (void)pthread_mutex_unlock(&tables_lock);
    return at < TABLES_MAX ? &tables[at].table : NULL;
}

static pthread_once_t choice_once = PTHREAD_ONCE_INIT;
static const kith_simd_table *_Atomic in_use; /* NULL: not chosen yet */
static char refused_name[NAME_BYTES];         /* KITH_ISA when it could not be followed */

static const kith_simd_table *find_table(void) {
    unsigned features = kith_cpu_features();
    const char *wish = getenv("KITH_ISA");
    if (wish != NULL && *wish != '\0') {
        const kith_simd_table *table = table_of(parse_name(wish, features));
        if (table != NULL) return table;
        (void)snprintf(refused_name, sizeof refused_name, "%s", wish);
    }
    int best = 0;
    for (int l = 0; l < LEVEL_COUNT; l++)
        if (levels[l].base == NULL && machine_runs(l, features)) best = l;
    return table_of(choose_all(best, features));
}

static void choose_table(void) { atomic_store_explicit(&in_use, find_table(), memory_order_release); }

/* Asked for within searches: once the choice has been made it is a load. */
const kith_simd_table *kith_simd(void) {
    const kith_simd_table *table = atomic_load_explicit(&in_use, memory_order_acquire);
    if (table != NULL) return table;
    (void)pthread_once(&choice_once, choose_table);
    return atomic_load_explicit(&in_use, memory_order_acquire);
}

const kith_simd_table *kith_simd_find(const char *name) { return table_of(parse_name(name, kith_cpu_features())); }

kith_status kith_simd_status(void) {
    const kith_simd_table *table = kith_simd();
    if (*refused_name == '\0') return KITH_OK;
    return kith_error(KITH_ERR_UNSUPPORTED, "KITH_ISA=%s: this build or machine has no such kernels; using %s",
                      refused_name, table->full_name);
}

const kith_float_kernels *kith_simd_floats(const kith_simd_table *table, kith_op op, kith_dtype query,
                                           kith_dtype row) {
    static const kith_float_pair with_f32[] = {[KITH_F32] = KITH_PAIR_F32_F32,
                                               [KITH_F16] = KITH_PAIR_F32_F16,
                                               [KITH_BF16] = KITH_PAIR_F32_BF16,
                                               [KITH_I8] = KITH_PAIR_F32_I8,
                                               [KITH_U8] = KITH_PAIR_F32_U8};
    if ((unsigned)op >= KITH_OP_COUNT) return NULL;
    const kith_float_kernels *of_op = table->floats[op];
    if (query == KITH_F32 && row >= KITH_F32 && row <= KITH_U8) return &of_op[with_f32[row]];
    if (query == KITH_F16 && row == KITH_F16) return &of_op[KITH_PAIR_F16_F16];
    if (query == KITH_BF16 && row == KITH_BF16) return &of_op[KITH_PAIR_BF16_BF16];
    return NULL;
}

const kith_int_kernels *kith_simd_ints(const kith_simd_table *table, kith_op op, kith_dtype query, kith_dtype row) {
    if ((unsigned)op >= KITH_OP_COUNT || query != row) return NULL;
    if (row == KITH_I8) return &table->ints[op][KITH_PAIR_I8_I8];
    if (row == KITH_U8) return &table->ints[op][KITH_PAIR_U8_U8];
    return NULL;
}
