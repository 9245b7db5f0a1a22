#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzzer for so many seconds from its corpus: scripts/fuzz.sh SECONDS [NAME]...
# The fuzzers are built by clang into build-fuzz, with the address and undefined-behaviour sanitizers. What they find is
# kept in build-fuzz/found, the corpus that they grow in build-fuzz/corpus.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:?usage: scripts/fuzz.sh SECONDS [NAME]...}
shift
if [ $# -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        name=$(basename "$source" .c)
        [ "$name" = fuzz_replay ] || set -- "$@" "${name#fuzz_}"
    done
fi
if [ $# -eq 0 ]; then
    echo 'there are no fuzzers yet'
    exit 0
fi
KITH_BUILD_TARGET=fuzzers CC=clang CXX=clang++ scripts/build.sh build-fuzz -Dfuzz=true -Dtest_runner=plain \
    -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Db_lundef=false
mkdir -p build-fuzz/found
status=0
for name in "$@"; do
    corpus=build-fuzz/corpus/$name
    mkdir -p "$corpus"
    [ ! -d "tests/fuzz/corpus/$name" ] || cp "tests/fuzz/corpus/$name"/* "$corpus"
    echo "fuzz_$name: $seconds s from $(find "$corpus" -type f | wc -l) files"
    build-fuzz/tests/fuzz/"fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -max_len=65536 \
        -verbosity=0 -print_final_stats=1 -artifact_prefix="build-fuzz/found/$name-" "$corpus" || status=1
done
exit $status
