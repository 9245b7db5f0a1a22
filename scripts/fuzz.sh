#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the fuzzers side by side for so many seconds, each from its corpus: scripts/fuzz.sh SECONDS [NAME]...
# The fuzzers are built by clang into build-fuzz, with the address and undefined-behaviour sanitizers. What they find is
# kept in build-fuzz/found, the corpus that they grow in build-fuzz/corpus. KITH_FUZZ_SEED is where their random numbers begin;
# without it they are others in each run.
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
fuzz() {
    corpus=build-fuzz/corpus/$1
    mkdir -p "$corpus"
    [ ! -d "tests/fuzz/corpus/$1" ] || cp "tests/fuzz/corpus/$1"/* "$corpus"
    echo "fuzz_$1: $seconds s from $(find "$corpus" -type f | wc -l) files"
    build-fuzz/tests/fuzz/"fuzz_$1" -max_total_time="$seconds" -seed="${KITH_FUZZ_SEED:-0}" -rss_limit_mb=2048 -timeout=120 \
        -max_len=65536 -verbosity=0 -print_final_stats=1 -artifact_prefix="build-fuzz/found/$1-" "$corpus"
}
pids=''
for name in "$@"; do
    fuzz "$name" >"build-fuzz/$name.log" 2>&1 &
    pids="$pids $!"
done
status=0
for pid in $pids; do wait "$pid" || status=1; done
for name in "$@"; do cat "build-fuzz/$name.log"; done
exit $status
