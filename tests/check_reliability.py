#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every test that docs/reliability.md names is there.

Usage: check_reliability.py ROOT
"""
import os
import re
import sys


def main():
    root = sys.argv[1]
    with open(os.path.join(root, "docs", "reliability.md"), encoding="utf-8") as file:
        named = sorted(set(re.findall(r"`([a-z_0-9]+)::([a-z_0-9]+)`", file.read())))
    missing = []
    for suite, test in named:
        path = os.path.join(root, "tests", f"test_{suite}.c")
        text = ""
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                text = file.read()
        if not re.search(rf"^Test\({suite}, {test}\b", text, re.MULTILINE):
            missing.append(f"docs/reliability.md: {suite}::{test}: no such test in tests/test_{suite}.c")
    print("\n".join(missing) if missing else f"{len(named)} tests are there")
    return 1 if missing or not named else 0


if __name__ == "__main__":
    sys.exit(main())
