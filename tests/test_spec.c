/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "kith/kith.h"

Test(spec, gives_what_it_names) {
    static const struct {
        const char *spec, *canonical;
        kith_dtype dtype;
    } cases[] = {
        {"Flat", "Flat", KITH_F32},
        {"Flat,f32", "Flat", KITH_F32},
        {"Flat,f16", "Flat,f16", KITH_F16},
        {"Flat,bf16", "Flat,bf16", KITH_BF16},
        {"Flat,i8", "Flat,i8", KITH_I8},
        {"Flat,u8", "Flat,u8", KITH_U8},
        {"IDMap,Flat", "Flat", KITH_F32},
        {"IDMap2,Flat,f16", "Flat,f16", KITH_F16},
        {"Flat,IDMap2", "Flat", KITH_F32},
        {"Flat,RFlat", "Flat,RFlat", KITH_F32},
        {"Flat,f16,RFlat", "Flat,f16,RFlat", KITH_F32},
        {"Flat,u8,Ru8,IDMap", "Flat,u8,Ru8", KITH_U8},
        {"Flat,Refine(Flat)", "Flat,RFlat", KITH_F32},
        {"Flat,Refine(Flat,bf16)", "Flat,Rbf16", KITH_BF16},
        {"PCA12,Flat", "PCA12,Flat", KITH_F32},
        {"PCA,Flat", "PCA24,Flat", KITH_F32},
        {"PCAW12,Flat", "PCAW12,Flat", KITH_F32},
        {"PCAR12,Flat", "PCAR12,Flat", KITH_F32},
        {"PCAWR012,Flat", "PCAWR12,Flat", KITH_F32},
        {"RR,Flat", "RR24,Flat", KITH_F32},
        {"HR,Flat,f16", "HR64,Flat,f16", KITH_F32},
        {"OPQ6,Flat", "OPQ6_24,Flat", KITH_F32},
        {"OPQ7,Flat", "OPQ7_28,Flat", KITH_F32},
        {"OPQ4_16,Flat,Rf16", "OPQ4_16,Flat,Rf16", KITH_F16},
        {"SQ8,RSQ8", "SQ8,RSQ8", KITH_F32},
        {"Flat,Refine(SQ8)", "Flat,RSQ8", KITH_F32},
        {"IVF16,SQ4,RSQ6", "IVF16,SQ4,RSQ6", KITH_F32},
        {"PCA12,IVF16,SQ8,Rf16", "PCA12,IVF16,SQ8,Rf16", KITH_F16},
        {"IDMap,HNSW32,RFlat", "HNSW32,RFlat", KITH_F32},
        {"L2Norm,Centre,Pad30,Flat", "L2norm,Centre,Pad30,Flat", KITH_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index, *again;
        cr_assert_eq(kith_index_create(cases[i].spec, 24, KITH_L2, &index), KITH_OK, "%s", kith_error_message());
        cr_assert_str_eq(kith_index_spec(index), cases[i].canonical);
        cr_assert_eq(kith_index_dtype(index), cases[i].dtype);
        cr_assert_eq(kith_index_create(kith_index_spec(index), 24, KITH_L2, &again), KITH_OK);
        cr_assert_str_eq(kith_index_spec(again), cases[i].canonical);
        kith_index_free(index);
        kith_index_free(again);
    }
}

Test(spec, names_the_character_that_is_wrong) {
    static const struct {
        const char *spec, *named;
    } cases[] = {
        {"", "character 0"},
        {"flat", "character 0"},
        {"Fla", "character 0: expected one of Flat"},
        {"FlatX", "character 0"},
        {",Flat", "character 0"},
        {"Flat,", "character 5"},
        {"Flat,,u8", "character 5"},
        {"Flat,b1", "character 5: expected f32"},
        {"Flat,F32", "character 5"},
        {"Flat,u8,u8", "character 8"},
        {"Flat, u8", "character 5: ' '"},
        {"Flat;u8", "character 4: ';'"},
        {"Flat\n", "character 4"},
        {"Flat,F16,RFlat", "character 5: expected f32"},
        {"RFlat", "character 0: expected one of Flat"},
        {"Flat,RFlat,RFlat", "character 5: expected f32"},
        {"Flat,Rf32x", "character 5"},
        {"Flat,Refine()", "character 12: expected a name"},
        {"Flat,Refine(", "character 12: expected ')' for '(' at 11"},
        {"Flat,Refine(flat)", "character 12: expected Flat"},
        {"Flat,Refine(Flat,x)", "character 17: expected f32"},
        {"Flat,Refine(Flat)x", "character 17: expected ',' or the end after ')'"},
        {"SQ8,RSQ99", "character 7: expected a number of bits"},
        {"IVF16_HNSW0,SQ8", "character 10"},
        {"IVF16(IVF4_HNSW8,SQ8),SQ8", "character 10: expected a number of lists"},
        {"IVF16_ABC,SQ8", "character 6: expected one of Flat"},
        {"IVF16_,SQ8", "character 6: expected a name"},
        {"IVF16(),SQ8", "character 6: expected a name"},
        {"Flat)", "character 4: ')' without '('"},
        {"(Flat)", "character 0: expected a name before '('"},
        {"Flat,u8(3)", "character 7: '(' cannot stand here"},
        {"IDMap", "character 5: expected a structure"},
        {"PCA2", "character 4: expected a structure"},
        {"PCA4,Flat", "character 3: expected at most as many components as there are dimensions, 3"},
        {"PCA0,Flat", "character 3: expected a number of components"},
        {"PCAx,Flat", "character 0: expected one of Flat"},
        {"PCA2x,Flat", "character 4: expected ',' or the end"},
        {"L2norm,PCA99999999999999999999,Flat", "character 10: expected a number"},
        {"OPQ,Flat", "character 3: expected a number of parts"},
        {"OPQ4x2,Flat", "character 4: expected '_' or the end"},
        {"OPQ4_,Flat", "character 5: expected a number of dimensions"},
        {"OPQ4_6,Flat", "character 5: expected a multiple of 4"},
        {"Pad,Flat", "character 3: expected a number of dimensions"},
        {"HR3,Flat", "character 2: expected nothing or 64"},
        {"L2norm1,Flat", "character 6: expected ',' or the end"},
        {"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", "character 32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index = (kith_index *)&index;
        cr_assert_eq(kith_index_create(cases[i].spec, 3, KITH_L2, &index), KITH_ERR_ARGUMENT, "%s", cases[i].spec);
        cr_assert_null(index);
        cr_assert_not_null(strstr(kith_error_message(), cases[i].named), "'%s' does not say '%s'",
                           kith_error_message(), cases[i].named);
        cr_assert_null(strchr(kith_error_message(), '\n'));
    }
    char text[2000]; /* longer than any spec */
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    kith_index *index;
    cr_assert_eq(kith_index_create(text, 3, KITH_L2, &index), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "longer than 255"));
}

/* What an error says about its place is within the text. */
static size_t position_named(void) {
    const char *at = strstr(kith_error_message(), "character ");
    return at != NULL ? (size_t)strtoul(at + strlen("character "), NULL, 10) : SIZE_MAX;
}

/* Random specs from pieces of good ones: never a crash; an index's own spec makes the same index; an error points into
 * the text. */
Test(spec, random_specs_make_an_index_or_a_message) {
    static const char *const pieces[] = {
        ",",      "Flat",  "RFlat",      "Refine(", ")",      "(",     "f16",    "u8",  "IDMap",
        "PCA",    "PCAWR", "OPQ",        "_",       "L2norm", "HR",    "RR",     "Pad", "R",
        "SQ8",    "IVF",   "HNSW",       "x",       "4",      "16",    "Centre", "PQ",  "fs",
        "Line64", "0",     "9999999999", "Flat,",   "PCA8,",  "RR12,", "RaBitQ", " ",   "\x80",
    };
    enum { PIECES = sizeof pieces / sizeof *pieces };
    size_t made = 0;
    for (uint64_t n = 0; n < 20000; n++) {
        char text[300] = "";
        size_t count = 1 + kith_random_below(1, n, 0, 7);
        bool joined = n % 2 == 0; /* by commas, and ending in a structure: more of them are good */
        for (size_t i = 0; i < count; i++) {
            strcat(text, pieces[kith_random_below(1, n, i + 1, PIECES)]);
            if (joined) strcat(text, ",");
        }
        if (joined) strcat(text, n % 4 == 0 ? "Flat" : "Flat,Rf16");
        kith_index *index, *again;
        kith_status status = kith_index_create(text, 16, KITH_L2, &index);
        if (status == KITH_OK) {
            made++;
            cr_assert_eq(kith_index_create(kith_index_spec(index), 16, KITH_L2, &again), KITH_OK, "'%s' from '%s'",
                         kith_index_spec(index), text);
            cr_assert_str_eq(kith_index_spec(again), kith_index_spec(index));
            kith_index_free(again);
            kith_index_free(index);
            continue;
        }
        cr_assert(status == KITH_ERR_ARGUMENT || status == KITH_ERR_UNSUPPORTED, "'%s': %s", text,
                  kith_error_message());
        cr_assert_null(index);
        cr_assert_leq(position_named(), strlen(text), "'%s': %s", text, kith_error_message());
    }
    cr_assert_gt(made, 200);
}
