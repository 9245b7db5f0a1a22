#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The long checks, for before a release; .ci/run takes samples of them. Half an hour or more on two cores.
#
#   scripts/check-full.sh           all of them
#   scripts/check-full.sh NAME...   some of: address thread valgrind narrow neon fuzz coverage
#
#   address   every test under the address, leak and undefined-behaviour sanitizers, with gcc and with clang
#   thread    every test under ThreadSanitizer, with gcc
#   valgrind  every test under memcheck: reads of uninitialised memory, leaks
#   narrow    every test on a 32-bit build under the undefined-behaviour sanitizer: sizes that wrap at 2^32
#   neon      every test on an AArch64 build under an emulator
#   fuzz      every fuzzer for KITH_FUZZ_SECONDS (default 300)
#   coverage  line coverage of all tests, as text; the report is build-full/coverage/coverage.txt
set -u
cd "$(dirname "$0")/.." || exit
scripts/setup.sh --with-checks || exit
passed='' failed=''
plain='-Dtest_runner=plain -Dwerror=true'
sanitized="$plain -Dbuildtype=debugoptimized -Db_lundef=false"

# report NAME STATUS
report() {
    if [ "$2" -eq 0 ]; then passed="$passed $1"; else failed="$failed $1"; fi
}

# check NAME 'MESON OPTIONS' [ARGUMENT of meson test]...
check() {
    name=$1 options=$2
    shift 2
    echo "== $name"
    # shellcheck disable=SC2086 # the options are words
    scripts/build.sh "build-full/$name" $options && meson test -C "build-full/$name" --no-rebuild --print-errorlogs \
        --no-suite checks --timeout-multiplier 20 "$@"
    report "$name" $?
}

# cross_check NAME COMPILER CPU_FAMILY 'HOW TO RUN A PROGRAM' 'C ARGUMENTS' 'LINK ARGUMENTS' 'MESON OPTIONS'; the lists as
# meson writes them.
cross_check() {
    mkdir -p build-full/include
    cp /usr/include/xxhash.h build-full/include/
    cat >"build-full/$1.cross" <<CROSS
[binaries]
c = '$2'
ar = '${2%gcc}ar'
strip = '${2%gcc}strip'
exe_wrapper = [$4]
[properties]
needs_exe_wrapper = true
[host_machine]
system = 'linux'
cpu_family = '$3'
cpu = '$3'
endian = 'little'
[built-in options]
c_args = ['-isystem$PWD/build-full/include'$5]
c_link_args = [$6]
CROSS
    check "$1" "--cross-file build-full/$1.cross $plain -Dtools=disabled $7"
}

run_check() {
    case $1 in
        address)
            check address-gcc "$sanitized -Db_sanitize=address,undefined"
            CC=clang CXX=clang++
            export CC CXX
            check address-clang "$sanitized -Db_sanitize=address,undefined"
            unset CC CXX
            ;;
        thread) check thread "$sanitized -Db_sanitize=thread" ;;
        valgrind)
            KITH_ISA=avx2
            export KITH_ISA
            check valgrind "$plain -Dbuildtype=debugoptimized" \
                --wrap='valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite'
            unset KITH_ISA
            ;;
        narrow)
            root=/usr/i686-linux-gnu
            cross_check narrow i686-linux-gnu-gcc x86 "'$root/lib/ld-linux.so.2', '--library-path', '$root/lib'" \
                ", '-msse2', '-mfpmath=sse', '-Wno-psabi', '-Wno-type-limits', '-Wno-conversion', \
                '-fsanitize=undefined', '-fno-sanitize-recover=undefined'" \
                "'-fsanitize=undefined'" '-Dbuildtype=debugoptimized -Db_lundef=false'
            ;;
        neon)
            cross_check neon aarch64-linux-gnu-gcc aarch64 "'qemu-aarch64', '-cpu', 'max', '-L', '/usr/aarch64-linux-gnu'" \
                '' '' '-Dbuildtype=release'
            ;;
        fuzz)
            echo "== fuzz"
            scripts/fuzz.sh "${KITH_FUZZ_SECONDS:-300}"
            report fuzz $?
            ;;
        coverage)
            check coverage "$plain -Dbuildtype=debug -Db_coverage=true"
            ninja -C build-full/coverage coverage-text >build-full/coverage/coverage.log 2>&1
            report coverage-report $?
            cp build-full/coverage/meson-logs/coverage.txt build-full/coverage/ 2>/dev/null &&
                tail -3 build-full/coverage/coverage.txt
            ;;
        *)
            echo "check-full: there is no check '$1'" >&2
            exit 2
            ;;
    esac
}

[ $# -gt 0 ] || set -- address thread valgrind narrow neon fuzz coverage
for wanted in "$@"; do run_check "$wanted"; done
echo "passed:${passed:- none}"
echo "failed:${failed:- none}"
[ -z "$failed" ]
