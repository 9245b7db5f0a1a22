#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds with all warnings as errors, and runs the whole test suite.
set -eu
cd "$(dirname "$0")/.."
scripts/setup.sh --with-tests
echo 'building kith and its tests ...' >&2
scripts/build.sh build-test -Dwerror=true -Dtests=enabled -Dtools=enabled
exec meson test -C build-test --no-rebuild --print-errorlogs
