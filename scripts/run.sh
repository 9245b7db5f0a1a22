#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to the first table: installs what is missing, builds, and does kith's main job on real data:
# exact ground truth, an index on disk, a search, and the measures of both as a table.
#
#   scripts/run.sh [FOLDER]   FOLDER (default build/demo) gets the ground truth, the index and the results
#
# With KITH=FILE in the environment that command is used, and nothing installed or built.
set -eu
cd "$(dirname "$0")/.."
kith=${KITH-}
if [ -z "$kith" ]; then
    scripts/setup.sh
    echo 'building kith ...' >&2
    scripts/build.sh build -Dtests=disabled -Dtools=enabled
    kith=build/tools/kith
fi
out=${1:-build/demo}
mkdir -p "$out"

images=/usr/share/datasets/fashion-mnist
if [ -f $images/train-images-idx3-ubyte.gz ]; then
    base=$images/train-images-idx3-ubyte.gz
    query=$images/t10k-images-idx3-ubyte.gz
    echo 'data: Fashion-MNIST, 60,000 x 784 u8 and 10,000 queries (Debian package dataset-fashion-mnist)'
else
    base=tests/data/fashion-base-idx3-ubyte.gz
    query=tests/data/fashion-query-idx3-ubyte.gz
    echo 'data: the package dataset-fashion-mnist is not here; using the first part of Fashion-MNIST that comes with'
    echo '      kith: 1,000 x 784 u8 and 200 queries. Figures from so small a set say little about speed.'
fi

run() {
    printf '\n$ kith %s\n' "$*"
    "$kith" "$@"
}
run gt --base $base --query $query --metric l2 --k 100 --out "$out/gt.ivecs"
run build --spec Flat,u8 --metric l2 --base $base --out "$out/flat.kith"
run search --index "$out/flat.kith" --query $query --k 100 --out "$out/result.ivecs"
run eval --result "$out/result.ivecs" --gt "$out/gt.ivecs"
run bench index --spec Flat,f32 --spec Flat,u8 --metric l2 --base $base --query $query --gt "$out/gt.ivecs" --k 100

if [ $base = $images/train-images-idx3-ubyte.gz ]; then
    lists=1024
    lines=IVF$lists,Line64,Ru8
    fast=HNSW16,Line64x4,Ru8 # a graph walked on lines of 64 bytes; the best compared exactly
    small=HNSW12,Line64x4,RSQ6 # the same without the vectors themselves: codes of 6 bits in their place
    run bench index --spec IVF$lists,Flat --spec IVF$lists,PQ98,Ru8 --spec $lines --spec $fast --spec $small --metric l2 \
        --base $base --query $query --gt "$out/gt.ivecs" --k 10
    run build --spec $lines --metric l2 --base $base --out "$out/lines.kith"
    run sweep --index "$out/lines.kith" --query $query --gt "$out/gt.ivecs" --k 10 --set nprobe=4,8,16,32,k_factor=2,4
fi
