#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Cross-builds libkith for 64-bit Arm and runs check_kernels, test_fields and test_graph_kernels under qemu-user, on emulated
# processors with and without the sub-levels of NEON. Exits with 77 (skipped) where the cross compiler or the emulator is missing.
#   check_neon.sh SOURCE BUILD         two processors, dimensions up to 300: a minute; every length of tail is in it
#   check_neon.sh SOURCE BUILD CPU...  these processors, all dimensions
set -euo pipefail

source=$1 build=$2
shift 2
# Cortex-A57 is plain Armv8.0; Cortex-A76 has dotprod and fp16. "max" is all that the emulator knows.
cpus=("$@")
limit=()
programs=(check_kernels test_fields test_graph_kernels)
[ ${#cpus[@]} -gt 0 ] || { cpus=(cortex-a57 cortex-a76) limit=(--dim-max 300); }
want() {
    case $1 in
    cortex-a53 | cortex-a57 | cortex-a72) echo neon ;;
    *) echo neon+dotprod+fp16 ;;
    esac
}

root=/usr/aarch64-linux-gnu
for tool in aarch64-linux-gnu-gcc qemu-aarch64 meson ninja; do
    command -v "$tool" >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
header=/usr/include/xxhash.h
[ -e "$header" ] || header=$(pkg-config --variable=includedir libxxhash)/xxhash.h
[ -e "$header" ] || { echo "skipped: no xxhash.h"; exit 77; }

# xxhash.h is the same for every processor, but the folder that it lies in is not.
mkdir -p "$build/include"
ln -sf "$header" "$build/include/"
[ -e "$build/cross/build.ninja" ] || meson setup "$build/cross" "$source" --cross-file "$source/cross/aarch64-linux-gnu.txt" \
    -Dwerror=true "-Dc_args=-I$build/include"
# The program pulls in the static library, and with it every file of libkith; by hand, everything is built.
if [ ${#limit[@]} -gt 0 ]; then ninja -C "$build/cross" "${programs[@]/#/tests/}"; else ninja -C "$build/cross"; fi

# What passed before passes again: an emulated run takes a minute, and the programs are the same as long as the kernels
# and what they stand on are.
stamp=$(cd "$build/cross/tests" && cat "${programs[@]}" | sha256sum)
if [ ${#limit[@]} -gt 0 ] && [ -e "$build/passed" ] && [ "$(cat "$build/passed")" = "$stamp" ]; then
    echo "the programs have not changed since they passed"
    exit 0
fi

failed=0
check() {
    local cpu=$1 out=$build/$1.txt program
    qemu-aarch64 -L "$root" -cpu "$cpu" "$build/cross/tests/check_kernels" "${limit[@]}" neon >"$out" 2>&1 || return 1
    for program in "${programs[@]:1}"; do
        qemu-aarch64 -L "$root" -cpu "$cpu" "$build/cross/tests/$program" >>"$out" 2>&1 || return 1
    done
    grep -q "^$(want "$cpu") " "$out" || { echo "$cpu did not run $(want "$cpu")" >>"$out"; return 1; }
}
pids=()
for cpu in "${cpus[@]}"; do
    check "$cpu" &
    pids+=($!)
done
for i in "${!cpus[@]}"; do
    result=passed
    wait "${pids[$i]}" || { result=FAILED; failed=1; }
    echo "== ${cpus[$i]}: $result"
    cat "$build/${cpus[$i]}.txt"
done
[ $failed -ne 0 ] || [ ${#limit[@]} -eq 0 ] || echo "$stamp" >"$build/passed"
exit $failed
