#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the symbols of the library against the declarations of the public headers.

Usage: check_symbols.py INCLUDE_FOLDER SHARED_LIBRARY STATIC_LIBRARY SONAME

  shared  exports exactly the functions that the headers declare with KITH_API, and carries the soname
  static  has no global symbol without the prefix kith_: a program that links it cannot clash
"""
import os
import re
import subprocess
import sys

DECLARATION = re.compile(r"\bKITH_API\b[^;{}()]*?\b(\w+)\s*\(")
# What sanitizers and coverage add to objects by themselves.
TOOL_SYMBOL = re.compile(r"^(__odr_asan|__asan|__tsan|__ubsan|__sanitizer|__gcov|__llvm|__prof|DW\.ref)")


def output_of(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def declared_functions(include_folder):
    found = set()
    folder = os.path.join(include_folder, "kith")
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            text = re.sub(r"/\*.*?\*/", " ", file.read(), flags=re.S)
        text = re.sub(r"^\s*#\s*define(.*\\\n)*.*$", " ", text, flags=re.M)
        found.update(DECLARATION.findall(text))
    return found


def global_symbols(library, *options):
    """Names of the defined symbols but for the version node (type A)."""
    lines = (line.split() for line in output_of("nm", "--defined-only", *options, library).splitlines())
    names = {words[-1].split("@")[0] for words in lines if len(words) == 3 and words[1] != "A"}
    return {name for name in names if not TOOL_SYMBOL.match(name)}


def main():
    if len(sys.argv) != 5:
        sys.exit("usage: check_symbols.py INCLUDE_FOLDER SHARED_LIBRARY STATIC_LIBRARY SONAME")
    include_folder, shared, static, soname = sys.argv[1:]
    declared = declared_functions(include_folder)
    exported = global_symbols(shared, "-D")
    complaints = ["exported, but not declared: " + name for name in sorted(exported - declared)]
    complaints += ["declared, but not exported: " + name for name in sorted(declared - exported)]
    complaints += ["static library: global without the prefix kith_: " + name
                   for name in sorted(global_symbols(static, "-g")) if not name.startswith("kith_")]
    if "[%s]" % soname not in output_of("readelf", "-d", shared):
        complaints.append("soname is not " + soname)
    for complaint in complaints:
        print(complaint)
    print("%d functions declared, %d exported" % (len(declared), len(exported)))
    sys.exit(1 if complaints or not declared else 0)


if __name__ == "__main__":
    main()
