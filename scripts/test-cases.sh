#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs some cases of the tests of a build with -Dtest_runner=plain, sanitizers set as meson sets them.
#
#   scripts/test-cases.sh FOLDER SUITE/PART...   the cases of test_SUITE whose names begin with PART
set -eu
folder=$1
shift
export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS=allocator_may_return_null=1:halt_on_error=1:ignore_noninstrumented_modules=1
for name in "$@"; do
    "$folder/tests/test_${name%%/*}" --filter "$name"
done
