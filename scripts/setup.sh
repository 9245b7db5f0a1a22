#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what kith needs on Debian 12 or later and Ubuntu 24.04 or later, as root or by sudo. What is there already
# is left alone: with nothing missing it asks no server and prints nothing.
#
#   scripts/setup.sh                to build the library and the command, and the data set of scripts/run.sh
#   scripts/setup.sh --with-tests   ... and what the tests use
#   scripts/setup.sh --with-checks  ... and what .ci/run and scripts/check-full.sh use: clang, sanitizers, emulators
set -eu

build='gcc libc6-dev meson pkg-config libxxhash-dev zlib1g-dev libjansson-dev'
tests='g++ libcriterion-dev mandoc'
checks='clang libomp-dev clang-format shellcheck valgrind libhdf5-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross
gcc-i686-linux-gnu libc6-dev-i386-cross qemu-user'

# Without these the work goes on, on something smaller, and says so: real data, the tests' framework, the emulators.
optional='dataset-fashion-mnist libcriterion-dev mandoc valgrind libhdf5-dev gcc-aarch64-linux-gnu
libc6-dev-arm64-cross gcc-i686-linux-gnu libc6-dev-i386-cross qemu-user'

wanted="$build dataset-fashion-mnist"
case ${1-} in
    '') ;;
    --with-tests) wanted="$wanted $tests" ;;
    --with-checks) wanted="$wanted $tests $checks" ;;
    *)
        echo "usage: $0 [--with-tests | --with-checks]" >&2
        exit 2
        ;;
esac

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing_of() {
    for package in "$@"; do is_installed "$package" || printf '%s ' "$package"; done
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "setup: this machine has no apt; install by hand what stands for: $wanted" >&2
    exit 1
fi

# shellcheck disable=SC2086 # the lists are words
missing=$(missing_of $wanted)
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "setup: not root, and there is no sudo; as root: apt-get install $missing" >&2
        exit 1
    fi
    as_root=sudo
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" \
        >"$log" 2>&1 </dev/null
}

fail() {
    cat "$log" >&2
    echo "setup: $1" >&2
    exit 1
}

echo "setup: installing $missing" >&2
apt update || fail 'apt-get update failed'

available=
for package in $missing; do
    if apt-cache show "$package" >/dev/null 2>&1; then
        available="$available $package"
    else
        case " $(echo "$optional" | tr '\n' ' ') " in
            *" $package "*) echo "setup: $package is not to be had here; going on without it" >&2 ;;
            *) fail "$package is not to be had from the package sources of this machine" ;;
        esac
    fi
done
# shellcheck disable=SC2086 # the list is words
apt install -y --no-install-recommends $available || fail 'apt-get install failed'
