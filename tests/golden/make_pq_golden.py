#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes pq_golden.inc: what FAISS's product quantiser packs and unpacks for codebooks given by a formula.

    python3 tests/golden/make_pq_golden.py > tests/golden/pq_golden.inc        (needs faiss-cpu and numpy)

Element j of codeword c of part m is ((7919 * (c + 31 * m) + 104729 * j + c * c * (j + 1)) % 5003) / 1250 - 2; element j of row i is
((6151 * i + 3571 * j + 17 * i * j) % 1999) / 500 - 2, all in f32. test_pq.c has the same formulas.
"""
import faiss
import numpy as np

ROWS = 5
print("/* SPDX-License-Identifier: Apache-2.0 */")
print(f"/* Written by make_pq_golden.py with faiss {faiss.__version__}. */")
print("static const pq_golden goldens[] = {")
for dim, parts, bits in ((12, 3, 4), (14, 7, 5), (12, 6, 6), (8, 2, 7), (12, 4, 8), (9, 3, 10), (10, 5, 12)):
    pq = faiss.ProductQuantizer(dim, parts, bits)
    width, codewords = dim // parts, 1 << bits
    m, c, j = np.meshgrid(np.arange(parts), np.arange(codewords), np.arange(width), indexing="ij")
    books = ((7919 * (c + 31 * m) + 104729 * j + c * c * (j + 1)) % 5003).astype(np.float32) / np.float32(1250) - np.float32(2)
    faiss.copy_array_to_vector(books.astype(np.float32).ravel(), pq.centroids)
    i, j = np.meshgrid(np.arange(ROWS), np.arange(dim), indexing="ij")
    rows = ((6151 * i + 3571 * j + 17 * i * j) % 1999).astype(np.float32) / np.float32(500) - np.float32(2)
    codes = pq.compute_codes(rows)
    decoded = pq.decode(codes)
    text = "".join(f"\\x{b:02x}" for b in codes.ravel())
    numbers = ", ".join(float(v).hex() + "f" for v in decoded.ravel())
    print(f'    {{{dim}, {parts}, {bits}, "{text}",\n     {{{numbers}}}}},')
print("};")
