#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares what describes the command's options: kith COMMAND --help, the manual pages and the completion for bash.
Prints one line for each difference.

Usage: check_cli_docs.py KITH ROOT
"""
import os
import re
import shutil
import subprocess
import sys


def output(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def table(kith, name):
    """The option table itself: {option: its argument}."""
    rows = (line.split("\t") for line in output(kith, "--complete", *name.split()).splitlines())
    return {row[0]: row[2] for row in rows if row[0]}


def help_options(kith, name):
    found = re.findall(r"^  (--[\w-]+)(?: (\S+))?", output(kith, *name.split(), "--help"), re.MULTILINE)
    return dict(found)


def man_options(path):
    """{option: argument} from lines such as `.It Fl -metric Cm l2 | Cm ip`."""
    options = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            match = re.match(r"\.It Fl -([\w-]+)(.*)", line)
            if match:
                words = [word for word in match.group(2).split() if word not in ("Ar", "Cm")]
                options["--" + match.group(1)] = "".join(words)
    return options


def bash_options(kith, root, name):
    """What the completion offers behind `kith NAME -`."""
    script = """
        source "$1"; shift
        COMP_WORDS=("$@" -); COMP_CWORD=$#
        _kith
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = os.path.join(root, "tools/completion/kith.bash")
    return output("bash", "-c", script, "bash", path, kith, *name.split()).split()


def compare(what, name, expected, got):
    problems = []
    for option in sorted(set(expected) | set(got)):
        if option not in got:
            problems.append("kith %s: %s lacks %s" % (name, what, option))
        elif option not in expected:
            problems.append("kith %s: %s names %s, which there is not" % (name, what, option))
        elif isinstance(got, dict) and got[option].split() != expected[option].split():
            problems.append("kith %s: %s has '%s %s', expected '%s'"
                            % (name, what, option, got[option], expected[option]))
    return problems


def lint(pages):
    if shutil.which("mandoc") is None:
        return []
    done = subprocess.run(["mandoc", "-Tlint", "-W", "style", *pages], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if "referenced manual not found" not in line]  # they need not be installed yet


def main():
    kith, root = os.path.abspath(sys.argv[1]), sys.argv[2]
    names = [line.split("\t")[0] for line in output(kith, "--complete").splitlines()]
    pages = {"kith-%s.1" % name.replace(" ", "-") for name in names} | {"kith.1"}
    present = {page for page in os.listdir(os.path.join(root, "man")) if page.endswith(".1")}
    problems = ["man/%s is missing" % page for page in sorted(pages - present)]
    problems += ["man/%s describes no command" % page for page in sorted(present - pages)]
    with open(os.path.join(root, "man/kith.1"), encoding="utf-8") as file:
        overview = file.read()
    for name in names:
        expected = table(kith, name)
        problems += compare("--help", name, expected, help_options(kith, name))
        page = os.path.join(root, "man", "kith-%s.1" % name.replace(" ", "-"))
        if os.path.exists(page):
            problems += compare("the manual", name, expected, man_options(page))
        if shutil.which("bash"):
            problems += compare("completion", name, expected, bash_options(kith, root, name))
        if ".It Cm %s\n" % name not in overview:
            problems.append("man/kith.1 lacks %s" % name)
    problems += lint([os.path.join(root, "man", page) for page in sorted(present)])
    print("\n".join(problems) if problems else "%d commands agree" % len(names))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
