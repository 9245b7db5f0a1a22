/* SPDX-License-Identifier: Apache-2.0
 *
 * float_pairs.h: float_shapes.h for every pair of element types and both operations, and the norms that follow from
 * them. To be included once in an ISA's file, after what float_shapes.h asks for.
 */
#define OP    l2sq
#define QUERY f32
#define ROW   f32
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f32
#define ROW   f32
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY f32
#define ROW   f16
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f32
#define ROW   f16
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY f32
#define ROW   bf16
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f32
#define ROW   bf16
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY f32
#define ROW   i8
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f32
#define ROW   i8
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY f32
#define ROW   u8
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f32
#define ROW   u8
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY f16
#define ROW   f16
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY f16
#define ROW   f16
#include "simd/float_shapes.h"

#define OP    l2sq
#define QUERY bf16
#define ROW   bf16
#define SPLIT
#include "simd/float_shapes.h"

#define OP    ip
#define QUERY bf16
#define ROW   bf16
#define SPLIT
#include "simd/float_shapes.h"

static float norm2_f32(const float *vector, size_t dim) { return ip_f32_f32(vector, vector, dim); }
static float norm2_f16(const uint16_t *vector, size_t dim) { return ip_f16_f16(vector, vector, dim); }
static float norm2_bf16(const uint16_t *vector, size_t dim) { return ip_bf16_bf16(vector, vector, dim); }
