#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Configures and builds kith in FOLDER: scripts/build.sh FOLDER [MESON OPTION]... Prints nothing when all is well;
# what the tools said is kept in FOLDER/build.log. KITH_BUILD_TARGET names one target in the place of all.
set -eu
folder=$1
shift
cd "$(dirname "$0")/.."
mkdir -p "$folder"
log=$folder/build.log
show_and_fail() {
    tail -60 "$log" >&2
    echo "build: failed; all of it: $log" >&2
    exit 1
}
if [ -f "$folder/build.ninja" ]; then
    meson configure "$folder" "$@" >"$log" 2>&1 || show_and_fail
else
    meson setup "$folder" "$@" >"$log" 2>&1 || show_and_fail
fi
ninja -C "$folder" ${KITH_BUILD_TARGET:+"$KITH_BUILD_TARGET"} >>"$log" 2>&1 || show_and_fail
