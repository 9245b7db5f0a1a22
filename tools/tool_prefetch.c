/* SPDX-License-Identifier: Apache-2.0 */
#include "tool_prefetch.h"

#include <stdio.h>

#include "kith/tune.h"
#include "tool_change.h"

enum { TEXT_BYTES = 64 };

static void describe(const kith_prefetch *prefetch, char text[TEXT_BYTES]) {
    (void)snprintf(text, TEXT_BYTES, "links %u, row_lines %u, walks %u", prefetch->links, prefetch->row_lines,
                   prefetch->walks);
}

static void put(json_t *object, const char *key, const kith_prefetch *prefetch) {
    char text[TEXT_BYTES];
    describe(prefetch, text);
    kith_tool_put_text(object, key, text);
}

void kith_tool_prefetch_put(json_t *object, const kith_index *index) {
    kith_prefetch prefetch = {.size = sizeof prefetch};
    if (kith_index_prefetch(index, &prefetch) == KITH_OK) put(object, "prefetch", &prefetch);
}

static const kith_tool_column columns[] = {
    {"prefetch", "tried", KITH_TOOL_CELL_TEXT},
    {"time_share", "time, of the best so far", KITH_TOOL_CELL_RECALL},
    {"faster_count", "rounds won", KITH_TOOL_CELL_COUNT},
    {"is_taken", "taken", KITH_TOOL_CELL_YES},
};

static int print(const kith_tool_common *common, const kith_prefetch_tuning *tuning, const char *out) {
    json_t *document = kith_tool_object(), *rows = kith_tool_array();
    for (size_t t = 0; t < tuning->trial_count; t++) {
        const kith_prefetch_trial *trial = &tuning->trials[t];
        json_t *row = kith_tool_object();
        put(row, "prefetch", &trial->prefetch);
        kith_tool_put_real(row, "time_share", trial->time_share);
        kith_tool_put_count(row, "faster_count", trial->faster_count);
        kith_tool_put_bool(row, "is_taken", trial->is_taken != 0);
        kith_tool_append(rows, row);
    }
    put(document, "before", &tuning->before);
    put(document, "chosen", &tuning->chosen);
    kith_tool_put_real(document, "qps_before", tuning->qps_before);
    kith_tool_put_real(document, "qps", tuning->qps);
    kith_tool_put_count(document, "query_count", tuning->query_count);
    kith_tool_put_count(document, "rounds", tuning->rounds);
    kith_tool_put_text(document, "file", out);
    kith_tool_put(document, "trials", json_incref(rows));
    int code = kith_tool_print_rows(common, document, rows, columns, sizeof columns / sizeof *columns);
    if (code == KITH_EXIT_OK && !common->json) {
        char before[TEXT_BYTES], chosen[TEXT_BYTES];
        describe(&tuning->before, before);
        describe(&tuning->chosen, chosen);
        (void)printf("\n%s: %.0f queries/s\n%s: %.0f queries/s, in %s\n", before, tuning->qps_before, chosen,
                     tuning->qps, out);
    }
    json_decref(rows);
    json_decref(document);
    return code == KITH_EXIT_OK ? kith_tool_flush() : code;
}

int kith_tool_prefetch_tune(const kith_tool_common *common, const char *path, const char *vectors,
                            const kith_prefetch_options *options, const char *out) {
    kith_index *index = NULL;
    kith_prefetch_tuning tuning;
    int code;
    KITH_TOOL_GO(kith_tool_index_open(path, false, vectors, &index));
    KITH_TOOL_GO(kith_tool_check(kith_prefetch_tune(index, options, &tuning), path));
    KITH_TOOL_GO(kith_tool_change_save(index, out));
    code = print(common, &tuning, out);
done:
    kith_index_free(index);
    return code;
}
