/* SPDX-License-Identifier: Apache-2.0
 *
 * unroll.h: loops of a fixed count that have to be unrolled, because they index registers.
 */
#ifndef KITH_SIMD_UNROLL_H
#define KITH_SIMD_UNROLL_H

#define KITH_PRAGMA(text) _Pragma(#text)
/* Before a loop of at most `count` rounds. With sanitizers gcc may drop such a loop's annotation, and warns of it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KITH_UNROLL(count)
#elif defined(__clang__)
/* Early and whole, so that what the loop indexes gets into registers. */
#define KITH_UNROLL(count) KITH_PRAGMA(clang loop unroll(full))
#else
#define KITH_UNROLL(count) KITH_PRAGMA(GCC unroll count)
#endif

#endif
