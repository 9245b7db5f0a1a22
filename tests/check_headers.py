#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compiles each public header alone, twice in one file, with all warnings as errors.

Usage: check_headers.py INCLUDE_FOLDER STANDARD COMPILER [ARGUMENT...]

Also checks that kith/kith.h includes every other public header.
"""
import os
import subprocess
import sys
import tempfile

FLAGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-c"]


def compile_alone(name, include_folder, standard, compiler):
    """The compiler's complaint, or an empty string."""
    suffix = ".cpp" if "++" in standard else ".c"
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "alone" + suffix)
        with open(source, "w", encoding="ascii") as file:
            file.write('#include "kith/%s"\n#include "kith/%s"\nint kith_alone;\n' % (name, name))
        command = compiler + ["-std=" + standard] + FLAGS
        command += ["-I", include_folder, "-o", os.path.join(scratch, "alone.o"), source]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return result.stdout if result.returncode != 0 else ""


def main():
    if len(sys.argv) < 4:
        sys.exit("usage: check_headers.py INCLUDE_FOLDER STANDARD COMPILER [ARGUMENT...]")
    include_folder, standard, compiler = sys.argv[1], sys.argv[2], sys.argv[3:]
    headers = sorted(name for name in os.listdir(os.path.join(include_folder, "kith")) if name.endswith(".h"))
    if not headers:
        sys.exit("no headers below " + include_folder)
    bad = 0
    for name in headers:
        complaint = compile_alone(name, include_folder, standard, compiler)
        if complaint:
            bad += 1
            print("kith/%s as %s:\n%s" % (name, standard, complaint))
    with open(os.path.join(include_folder, "kith", "kith.h"), encoding="utf-8") as file:
        whole = file.read()
    for name in headers:
        if name != "kith.h" and '#include "kith/%s"' % name not in whole:
            bad += 1
            print("kith/kith.h does not include kith/%s" % name)
    print("%d headers, %d bad" % (len(headers), bad))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
