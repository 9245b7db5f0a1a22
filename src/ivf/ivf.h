/* SPDX-License-Identifier: Apache-2.0
 *
 * ivf.h: inverted lists (Sivic and Zisserman, "Video Google", ICCV 2003; Jegou, Douze and Schmid, "Product
 * Quantization for Nearest Neighbor Search", TPAMI 2011, section IV): vectors lie in the list of their nearest
 * centroid, and a search reads the lists nearest to the query. Specs: "IVF1024,Flat", "IVF4096,PQ16x4fs",
 * "IVF1024,Line64"; without the first part, "SQ8", a single list that is searched whole.
 */
#ifndef KITH_IVF_IVF_H
#define KITH_IVF_IVF_H

#include "index/indexfile.h"
#include "index/spec.h"

#define KITH_IVF_NAME   "IVF"
#define KITH_CODED_NAME "a code"

/* Is a spec whose first part this is one of inverted lists, or of a code alone? Whatever follows. */
bool kith_ivf_is_named(const kith_spec_part *part);
bool kith_coded_is_named(const kith_spec_part *part);

kith_status kith_ivf_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
/* Gives an index of inverted lists the one that finds them: an empty one of the same dimension under l2, or, when the
 * lists are there already, one of their centroids, with the numbers of the lists as ids. It is the index's from then on;
 * after a failure still the caller's. KITH_ERR_ARGUMENT: the spec becomes too long, or the two do not go together. */
kith_status kith_ivf_attach(kith_index *index, kith_index *coarse);
kith_status kith_ivf_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                          kith_index **out);

#endif
