#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Proves that README's two commands work on a fresh machine: makes a bare Debian in a folder (debootstrap: no compiler, no
# meson, no git), clones the present commit into it and runs both there, each timed.
#
#   scripts/prove-fresh.sh [FOLDER]   as root; FOLDER (default: a temporary one) is removed afterwards
#
# From the environment: SUITE (default bookworm), MIRROR (default: the one that apt uses here), KEEP=1 keeps the folder.
set -eu
cd "$(dirname "$0")/.."
suite=${SUITE:-bookworm}

fail() {
    echo "prove-fresh: $1" >&2
    exit 1
}
[ "$(id -u)" = 0 ] || fail 'must be run as root: debootstrap and chroot'
command -v debootstrap >/dev/null || fail 'needs debootstrap: apt-get install debootstrap'

# The first archive of Debian itself (not of its security team) among apt's sources, in either of their two forms.
find_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        sed -n -e 's/^deb \(\[[^]]*\] *\)\{0,1\}\([^ ]*\).*/\2/p' -e 's/^URIs: *\([^ ]*\).*/\1/p' |
        grep '/debian/\{0,1\}$' | head -1
}
mirror=${MIRROR:-$(find_mirror)}
[ -n "$mirror" ] || fail 'no Debian mirror among the sources of apt; give one as MIRROR='

root=${1:-$(mktemp -d /var/tmp/kith-fresh-XXXXXX)}
mkdir -p "$root"
# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    for folder in dev/pts dev/shm proc; do
        if mountpoint -q "$root/$folder"; then umount "$root/$folder" || umount -l "$root/$folder"; fi
    done
    if [ "${KEEP-}" = 1 ]; then echo "prove-fresh: kept $root"; else rm -rf --one-file-system "$root"; fi
}
trap clean_up EXIT
trap 'exit 1' INT TERM

inside() { chroot "$root" env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

echo "== a bare $suite from $mirror in $root"
debootstrap --variant=minbase "$suite" "$root" "$mirror" >"$root.log" 2>&1 || {
    tail -20 "$root.log" >&2
    fail "debootstrap failed; all of it: $root.log"
}
rm -f "$root.log"
# How this machine reaches the mirror: names, and what apt was told of proxies and time-outs.
cp /etc/resolv.conf /etc/hosts "$root/etc/" 2>/dev/null || true
apt-config dump Acquire::http Acquire::https 2>/dev/null | grep -v '""' >"$root/etc/apt/apt.conf.d/90host" || true
mount -t proc proc "$root/proc"
# Shared memory for the tests' framework, terminals for the tests of progress bars.
mkdir -p "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -sf pts/ptmx "$root/dev/ptmx"

for tool in cc gcc clang meson ninja git python3 pkg-config; do
    if inside sh -c "command -v $tool" >/dev/null; then fail "$tool is there already: this is no bare machine"; fi
done
git clone -q --no-hardlinks . "$root/root/kith"
echo "== commit $(git -C "$root/root/kith" rev-parse --short HEAD), $(nproc) processors"

status=0
for command in run.sh test.sh; do
    echo "== ./scripts/$command"
    start=$(date +%s)
    result=0
    inside sh -c "cd /root/kith && ./scripts/$command" </dev/null || result=$?
    echo "== ./scripts/$command: $(($(date +%s) - start)) s, status $result"
    [ "$result" -eq 0 ] || status=1
done
left=$(git -C "$root/root/kith" status --porcelain)
[ -z "$left" ] || {
    echo "the commands left in the tree: $left"
    status=1
}
[ "$status" -eq 0 ] && echo 'both commands passed on the fresh machine'
exit $status
