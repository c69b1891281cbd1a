"""Fails when a JUnit report has a skipped test or no test at all: ``python tools/refuse_skips.py report.xml``.

A skip hides a missing set-up step, so continuous integration treats it as a failure; developers' machines do not.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree


def problems(report: str) -> list[str]:
    """What is wrong with the run that ``report`` (a path) tells of, one line each."""
    cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    if not cases:
        return ["no test ran"]
    found = []
    for case in cases:
        skipped = case.find("skipped")
        if skipped is not None and skipped.get("type") != "pytest.xfail":
            found.append(f"skipped: {case.get('classname')}::{case.get('name')}: {skipped.get('message', '')}")
    return found


def main() -> int:
    found = problems(sys.argv[1])
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
