#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Uses kith as a stranger would: the first C program of README.md against an installed kith, found by pkg-config, once
with the shared library and once with the static one; or in a project that holds kith as a meson subproject.

Usage: check_install.py installed SOURCE BUILD COMPILER [ARGUMENT...]
       check_install.py subproject SOURCE BUILD COMPILER [ARGUMENT...]

The program has to print exactly what README.md shows below it.
"""
import glob
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

WRAPPER = """project('stranger', 'c', default_options: ['c_std=c11'])
kith_dep = dependency('kith', fallback: 'kith')
executable('first', 'first.c', dependencies: kith_dep)
"""


def run(command, **options):
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if result.returncode != 0:
        sys.exit("%s\n%s\nended with %d" % (" ".join(command), result.stdout, result.returncode))
    return result.stdout


def first_program(source):
    """The first C program of README.md, and what it prints."""
    with open(os.path.join(source, "README.md"), encoding="utf-8") as file:
        match = re.search(r"^```c\n(.*?)^```\n.*?^```text\n(.*?)^```", file.read(), re.S | re.M)
    if not match:
        sys.exit("README.md: no C program that is followed by what it prints")
    return match.groups()


def check_output(what, printed, expected):
    if printed != expected:
        sys.exit("%s: the program printed\n%sREADME.md says\n%s" % (what, printed, expected))
    print(what + ": prints what README.md says")


def install(build, scratch):
    """Installs below scratch and returns the folder of kith.pc, made to point there."""
    environment = dict(os.environ, DESTDIR=scratch)
    run(["meson", "install", "-C", build, "--no-rebuild", "--quiet"], env=environment)
    found = glob.glob(os.path.join(scratch, "**", "kith.pc"), recursive=True)
    if len(found) != 1:
        sys.exit("kith.pc was installed %d times" % len(found))
    with open(found[0], encoding="utf-8") as file:
        text = file.read()
    with open(found[0], "w", encoding="utf-8") as file:
        file.write(re.sub(r"^prefix=", "prefix=" + scratch, text, flags=re.M))
    return os.path.dirname(found[0])


def pkg_config(folder, *arguments):
    environment = dict(os.environ, PKG_CONFIG_PATH=folder)
    return shlex.split(run(["pkg-config", *arguments, "kith"], env=environment))


def check_installed(source, build, compiler, scratch):
    program, expected = first_program(source)
    path = os.path.join(scratch, "first.c")
    with open(path, "w", encoding="utf-8") as file:
        file.write(program)
    folder = install(build, scratch)
    library_folder = os.path.dirname(folder)
    compile_it = compiler + ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", path]
    compile_it += pkg_config(folder, "--cflags")

    shared = os.path.join(scratch, "first-shared")
    run(compile_it + ["-o", shared] + pkg_config(folder, "--libs"))
    environment = dict(os.environ, LD_LIBRARY_PATH=library_folder)
    check_output("shared", run([shared], env=environment), expected)
    if library_folder not in run(["ldd", shared], env=environment):
        sys.exit("the program does not use the installed library")

    for name in glob.glob(os.path.join(library_folder, "libkith.so*")):
        os.remove(name)
    static = os.path.join(scratch, "first-static")
    run(compile_it + ["-o", static] + pkg_config(folder, "--static", "--libs"))
    check_output("static", run([static]), expected)
    if "libkith" in run(["ldd", static]):
        sys.exit("the program does not use the static library")


def check_subproject(source, compiler, scratch):
    program, expected = first_program(source)
    os.makedirs(os.path.join(scratch, "subprojects"))
    shutil.copytree(source, os.path.join(scratch, "subprojects", "kith"), symlinks=True,
                    ignore=shutil.ignore_patterns(".git", "build*", "data"))
    for name, text in (("first.c", program), ("meson.build", WRAPPER)):
        with open(os.path.join(scratch, name), "w", encoding="utf-8") as file:
            file.write(text)
    build = os.path.join(scratch, "build")
    environment = dict(os.environ, CC=shlex.join(compiler))
    run(["meson", "setup", build, scratch, "-Dbuildtype=debug", "--wrap-mode=nodownload"], env=environment)
    run(["ninja", "-C", build, "first"])
    check_output("subproject", run([os.path.join(build, "first")]), expected)


def main():
    if len(sys.argv) < 5 or sys.argv[1] not in ("installed", "subproject"):
        sys.exit("usage: check_install.py installed|subproject SOURCE BUILD COMPILER [ARGUMENT...]")
    kind, source, build, compiler = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
    with tempfile.TemporaryDirectory() as scratch:
        if kind == "installed":
            check_installed(source, build, compiler, scratch)
        else:
            check_subproject(source, compiler, scratch)


if __name__ == "__main__":
    main()
