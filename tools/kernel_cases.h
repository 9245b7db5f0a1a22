/* SPDX-License-Identifier: Apache-2.0
 *
 * kernel_cases.h: what `kith bench kernels` can time: the cases, by name, and the data that they run on.
 */
#ifndef KITH_TOOLS_KERNEL_CASES_H
#define KITH_TOOLS_KERNEL_CASES_H

#include <regex.h>

#include "kith/kernels.h"
#include "tool.h"

/* Where the rows lie: in the first-level cache, in the second, or in memory. */
typedef enum kernel_set { KERNEL_SET_L1, KERNEL_SET_L2, KERNEL_SET_MEMORY, KERNEL_SET_COUNT } kernel_set;
extern const char *const kith_kernel_set_names[KERNEL_SET_COUNT];

enum { KERNEL_DIMS_MAX = 64, KERNEL_ISAS_MAX = 8, KERNEL_BLOCK_ROWS = 256, KERNEL_REPEATS_MAX = 101 };

/* Operands of all cases. Rows repeat a pattern of random elements. `cursor` moves on from batch to batch, so that a
 * set in memory is never read twice from a cache. */
typedef struct kernel_data {
    size_t set_bytes[KERNEL_SET_COUNT];
    unsigned char *query, *rows;
    size_t row_bytes, row_count, cursor;
    const void **gathered; /* gathered_count rows in random order */
    size_t gathered_count;
    kith_dtype filled_dtype; /* of what `rows` holds now */
    size_t filled_bytes;
    void *out; /* results of a block, or of a conversion */
    unsigned char *tile_queries, *tile_rows;
    void *tile_bias, *tile_out;
} kernel_data;

/* Allocates for sets of these sizes, dimensions up to dim_max. kith_kernel_data_free takes half-made data. */
int kith_kernel_data_make(kernel_data *data, const size_t set_bytes[KERNEL_SET_COUNT], size_t dim_max);
void kith_kernel_data_free(kernel_data *data);

typedef struct kernel_case kernel_case;
struct kernel_case {
    char name[96]; /* operation/types/shape/dimension/isa/set */
    const char *op, *shape, *isa;
    char types[16];
    kernel_set set;
    size_t dim;        /* elements; for b1 bits */
    size_t length;     /* what the kernel takes: dim, for b1 bytes */
    size_t group;      /* cases of a group are timed interleaved: the same work by other means */
    uint64_t products; /* multiply-adds of a unit; 0 where counting them makes no sense */
    bool is_integer;   /* of 8-bit integers, else of floats */
    uint64_t bytes;    /* of rows that a unit reads */
    uint64_t unit_distances;
    kith_dtype query_dtype, row_dtype;
    kith_distance_kernels distance;
    kith_vector_kernels vector;
    kith_tile_kernels tile;
    kith_plane_kernels plane;
    size_t plane_log2, plane_words, plane_queries; /* log2 of the width; queries of a block, 0 for four rows */
    void (*run)(const kernel_case *this_case, kernel_data *data, size_t units);
    size_t units;      /* of a batch */
    double *batch_ns;  /* of each repeat, per distance */
    double ns, spread; /* median, and (largest - smallest) / median */
};

typedef struct kernel_cases {
    kernel_case *items;
    size_t count, capacity, group_count;
} kernel_cases;

typedef struct kernel_choice {
    const char *isas[KERNEL_ISAS_MAX];
    size_t isa_count;
    size_t dims[KERNEL_DIMS_MAX];
    size_t dim_count;
    bool sets[KERNEL_SET_COUNT];
    const regex_t *filter; /* NULL: all */
} kernel_choice;

/* All cases of the choice, grouped. */
int kith_kernel_cases_list(const kernel_choice *choice, kernel_cases *out);
void kith_kernel_cases_free(kernel_cases *cases);

/* Lays out the data for a case and the others of its group. */
void kith_kernel_data_prepare(kernel_data *data, const kernel_case *for_case);

#endif
