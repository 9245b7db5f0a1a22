#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Is every C file as clang-format leaves it, and does shellcheck pass every script?
set -eu
cd "$(dirname "$0")/.."
git ls-files -z '*.c' '*.h' | xargs -0 clang-format -n -Werror
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck
