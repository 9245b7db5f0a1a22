/* SPDX-License-Identifier: Apache-2.0
 *
 * kith/kith.h: everything.
 */
#ifndef KITH_KITH_H
#define KITH_KITH_H

#include "kith/eval.h"
#include "kith/index.h"
#include "kith/kernels.h"
#include "kith/kmeans.h"
#include "kith/quantizer.h"
#include "kith/status.h"
#include "kith/tune.h"
#include "kith/types.h"
#include "kith/vectors.h"

#endif
