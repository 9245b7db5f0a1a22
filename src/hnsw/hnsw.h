/* SPDX-License-Identifier: Apache-2.0
 *
 * hnsw.h: the structure HNSW: each vector is linked to near ones, and a search walks along the links towards the
 * query. One level of links, as in FlatNav (Munyampirwa, Lakshman and Coleman, arXiv 2412.01940), built by robust
 * pruning (Subramanya et al., "DiskANN", NeurIPS 2019, algorithm 2) in batches (Manohar et al., "ParlayANN", PPoPP
 * 2024, section 3). Specs: "HNSW32", "HNSW32,f16", "HNSW16,efc400,alpha130". docs/graph.md is the whole story.
 */
#ifndef KITH_HNSW_HNSW_H
#define KITH_HNSW_HNSW_H

#include "index/indexfile.h"
#include "index/spec.h"

#define KITH_HNSW_NAME "HNSW"

/* Does the first part of a spec name a graph: "HNSW" and digits or nothing? */
bool kith_hnsw_is_named(const kith_spec_part *part);
/* KITH_ERR_ARGUMENT names the character that was not understood. */
kith_status kith_hnsw_create(const kith_spec *spec, size_t dim, kith_metric metric, kith_index **out);
/* An index in place in a file that stays open: part *part, which is raised; the common part is `meta`. */
kith_status kith_hnsw_open(kith_container *file, uint32_t *part, const kith_index_meta *meta, const kith_spec *spec,
                           kith_index **out);

#endif
