#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Is every C file as clang-format leaves it, does shellcheck pass every script, and can every script be started by its name?
set -eu
cd "$(dirname "$0")/.."
git ls-files -z '*.c' '*.h' | xargs -0 clang-format -n -Werror
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck

stuck=$(git grep -lI -e '^#!/' -- '*.py' '*.sh' .ci/run | while read -r file; do [ -x "$file" ] || echo "$file"; done)
[ -z "$stuck" ] || { printf 'not executable:\n%s\n' "$stuck" >&2; exit 1; }
