#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the rules that hold for the tree as a whole; prints one line for each place that breaks one.

  floors      who may include whom: the table in docs/architecture.md
  intrinsics  headers of instruction sets are included below src/simd only
  openmp      OpenMP is used in src/base/parallel.c only
  names       no two files have the same name, but for a few that tools prescribe
  licence     each source file names its licence within its first lines

Usage: check_floors.py ROOT         check the tree at ROOT
       check_floors.py --self-test  plant one breach of each rule in a small tree and see that it is found
"""
import os
import re
import sys
import tempfile

SOURCE_FOLDERS = ["include", "src", "tests", "tools", "bench", "bindings", "scripts", "examples"]
C_SUFFIXES = (".c", ".h", ".inc", ".cc", ".cpp")
LICENSED_SUFFIXES = C_SUFFIXES + (".py", ".sh", ".map")
LICENSED_NAMES = ("meson.build", "meson_options.txt")
SAME_NAME_ALLOWED = {"meson.build", "README.md", "__init__.py"}
INTRINSICS = re.compile(r"^(\w*mmintrin|immintrin|x86intrin|x86gprintrin|arm_\w+|cpuid)\.h$")
OPENMP_FILE = "src/base/parallel.c"
PUBLIC_PREFIX = "kith/"
TABLE_ROW = re.compile(r"^\|\s*(\d+)\s*\|\s*`?([\w/]+)`?\s*\|")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
OPENMP_USE = re.compile(r"^\s*#\s*pragma\s+omp\b|_Pragma\s*\(\s*\"omp\b")


def read_lines(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read().splitlines()


def read_floors(root):
    """{folder: floor} from the table in docs/architecture.md."""
    rows = (TABLE_ROW.match(line) for line in read_lines(root, "docs/architecture.md"))
    return {row.group(2): int(row.group(1)) for row in rows if row}


def list_files(root):
    found = [name for name in os.listdir(root) if os.path.isfile(os.path.join(root, name)) and name[0] != "."]
    for top in SOURCE_FOLDERS + ["docs"]:
        for folder, subfolders, names in os.walk(os.path.join(root, top)):
            subfolders[:] = [name for name in subfolders if name != "__pycache__" and not name.startswith(".")]
            found += [os.path.relpath(os.path.join(folder, name), root) for name in names if name[0] != "."]
    return sorted(path for path in found if not path.endswith(".pyc"))


def folder_of(path, floors):
    """The folder of the table that a path lies in, or None."""
    parts = path.split("/")
    for length in range(len(parts), 0, -1):
        if "/".join(parts[:length]) in floors:
            return "/".join(parts[:length])
    return None


def check_include(path, quote, name, floors, paths):
    """Why `path` may not include `name`, or None."""
    if name.startswith(PUBLIC_PREFIX):
        return None if "include/" + name in paths else "there is no such public header"
    if quote == "<":
        return None
    beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
    target = "src/" + name if "src/" + name in paths else beside if beside in paths else name
    if path.startswith("tests/"):
        return None
    if path.startswith("include/"):
        return "a public header includes public headers only"
    own = folder_of(path, floors)
    if own is None:
        return "its folder is not in the table of docs/architecture.md"
    other = folder_of(target, floors)
    if other == own:
        return None
    if floors[own] == max(floors.values()):
        return "the top floor includes public headers and its own folder only"
    if other is None:
        return "the header is in no folder of the table"
    if floors[other] >= floors[own]:
        return "%s (floor %d) is not below %s (floor %d)" % (other, floors[other], own, floors[own])
    return None


def check_source(root, path, floors, paths):
    """The breaches of one C file, each as 'path:line: what'."""
    for number, line in enumerate(read_lines(root, path), 1):
        where = "%s:%d: " % (path, number)
        if OPENMP_USE.search(line) and path != OPENMP_FILE:
            yield where + "openmp: only %s may use OpenMP" % OPENMP_FILE
        include = INCLUDE.match(line)
        if not include:
            continue
        quote, name = include.groups()
        if name == "omp.h" and path != OPENMP_FILE:
            yield where + "openmp: only %s may use OpenMP" % OPENMP_FILE
        if INTRINSICS.match(os.path.basename(name)) and not path.startswith("src/simd/"):
            yield where + "intrinsics: <%s> outside src/simd" % name
        reason = check_include(path, quote, name, floors, paths)
        if reason:
            yield where + "floors: includes \"%s\": %s" % (name, reason)


def is_licensed_kind(root, path):
    name = os.path.basename(path)
    if name.endswith(LICENSED_SUFFIXES) or name in LICENSED_NAMES:
        return True
    with open(os.path.join(root, path), "rb") as file:
        return file.read(2) == b"#!"


def check_tree(root):
    floors = read_floors(root)
    if len(floors) == 0:
        return ["docs/architecture.md: floors: no table was found"]
    files = list_files(root)
    paths = set(files)
    breaches, first_of = [], {}
    for path in files:
        name = os.path.basename(path)
        if name in first_of and name not in SAME_NAME_ALLOWED:
            breaches.append("%s: names: %s has the same name" % (path, first_of[name]))
        first_of.setdefault(name, path)
        if path.startswith("src/") and path.endswith(C_SUFFIXES) and folder_of(path, floors) is None:
            breaches.append("%s: floors: its folder is not in the table of docs/architecture.md" % path)
        if path.endswith(C_SUFFIXES):
            breaches += check_source(root, path, floors, paths)
        if is_licensed_kind(root, path):
            if not any("SPDX-License-Identifier: Apache-2.0" in line for line in read_lines(root, path)[:5]):
                breaches.append("%s: licence: no SPDX-License-Identifier in the first five lines" % path)
    return breaches


SELF_TEST_TREE = {
    "docs/architecture.md": "| floor | folder | holds |\n|---|---|---|\n| 0 | src/base | - |\n| 1 | src/simd | - |\n"
                            "| 1 | src/io | - |\n| 8 | tools | - |\n",
    "include/kith/a.h": '#include "kith/a.h"\n#include <stdint.h>\n',
    "src/base/low.h": "",
    "src/base/parallel.c": '#include <omp.h>\n#include "base/low.h"\n#pragma omp parallel\n',
    "src/simd/kernels.h": '#include "base/low.h"\n#include "kith/a.h"\n',
    "src/simd/x86/kernels.c": '#include <immintrin.h>\n#include "simd/kernels.h"\n',
    "src/io/file.c": '#include "base/low.h"\n',
    "tools/main.c": '#include "kith/a.h"\n#include "tool.h"\n',
    "tools/tool.h": "",
    "tests/test_all.c": '#include "simd/kernels.h"\n#include "io/file.h"\n',
}
# What is planted, and what the finding has to say.
SELF_TEST_BREACHES = [
    ("src/base/up.c", '#include "simd/kernels.h"\n', "floors: includes"),
    ("src/io/sibling.c", '#include "simd/kernels.h"\n', "floors: includes"),
    ("src/other/new.c", "", "floors: its folder"),
    ("src/loose.c", "", "floors: its folder"),
    ("tools/inside.c", '#include "base/low.h"\n', "top floor"),
    ("tools/up.c", '#include "../src/base/low.h"\n', "top floor"),
    ("include/kith/b.h", '#include "base/low.h"\n', "a public header includes"),
    ("src/io/gone.c", '#include "kith/gone.h"\n', "no such public header"),
    ("src/io/vector.c", "#include <arm_neon.h>\n", "intrinsics"),
    ("tests/test_vector.c", "  #  include <immintrin.h>\n", "intrinsics"),
    ("src/simd/loop.c", "#pragma omp for\n", "openmp"),
    ("tests/test_loop.c", "#include <omp.h>\n", "openmp"),
    ("src/io/low.h", "", "names"),
    ("src/io/bare.c", None, "licence"),
]


def write_tree(root, tree):
    for path, text in tree.items():
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "w", encoding="utf-8") as file:
            file.write("int x;\n" if text is None else "/* SPDX-License-Identifier: Apache-2.0 */\n" + text)


def self_test():
    failures = []
    for planted in [None] + SELF_TEST_BREACHES:
        with tempfile.TemporaryDirectory() as root:
            write_tree(root, SELF_TEST_TREE)
            if planted:
                write_tree(root, {planted[0]: planted[1]})
            found = check_tree(root)
        if planted is None and found:
            failures.append("the sound tree is refused: " + "; ".join(found))
        if planted and not (len(found) == 1 and planted[0] in found[0] and planted[2] in found[0]):
            failures.append("%s: expected '%s', found %s" % (planted[0], planted[2], found))
    return failures


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: check_floors.py ROOT | --self-test")
    breaches = self_test() if sys.argv[1] == "--self-test" else check_tree(sys.argv[1])
    for breach in breaches:
        print(breach)
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
