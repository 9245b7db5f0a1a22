/* SPDX-License-Identifier: Apache-2.0
 *
 * transformed.h: an index of transformed vectors: "PCA64,IVF1024,SQ8".
 *
 * Distances are those between transformed vectors. A transform that keeps l2 or inner products (a rotation, padding)
 * changes nothing but roundings; one that does not (a PCA that cuts off, L2norm) makes the distances its own.
 */
#ifndef KITH_WRAP_TRANSFORMED_H
#define KITH_WRAP_TRANSFORMED_H

#include "index/vtable.h"
#include "linalg/transform.h"

/* Both belong to the new index on success alone. The inner index has the transform's dim_out; it is empty, or was
 * opened from a file with the transform. A transform that needs no rows is trained here when it is not. */
kith_status kith_transformed_create(kith_transform *transform, kith_index *inner, kith_index **out);

/* Is this an index of transformed vectors whose distances are not those of the vectors themselves? */
bool kith_transformed_differs(const kith_index *index);

#endif
