/* SPDX-License-Identifier: Apache-2.0 */
#include <criterion/criterion.h>
#include <string.h>

#include "kith/kith.h"

Test(spec, gives_what_it_names) {
    static const struct {
        const char *spec, *canonical;
        kith_dtype dtype;
    } cases[] = {
        {"Flat", "Flat", KITH_F32},         {"Flat,f32", "Flat", KITH_F32},
        {"Flat,f16", "Flat,f16", KITH_F16}, {"Flat,bf16", "Flat,bf16", KITH_BF16},
        {"Flat,i8", "Flat,i8", KITH_I8},    {"Flat,u8", "Flat,u8", KITH_U8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        kith_index *index, *again;
        cr_assert_eq(kith_index_create(cases[i].spec, 3, KITH_L2, &index), KITH_OK, "%s", cases[i].spec);
        cr_assert_str_eq(kith_index_spec(index), cases[i].canonical);
        cr_assert_eq(kith_index_dtype(index), cases[i].dtype);
        cr_assert_eq(kith_index_create(kith_index_spec(index), 3, KITH_L2, &again), KITH_OK);
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
    char text[2000];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    kith_index *index;
    cr_assert_eq(kith_index_create(text, 3, KITH_L2, &index), KITH_ERR_ARGUMENT);
    cr_assert_not_null(strstr(kith_error_message(), "longer than 255"));
}
