"""Judges what Autobahn has found, against the golden file.

usage: judge.py INDEX.JSON GOLDEN AGENT COUNT

Fails where a case is missing, is not in the golden file, or has another verdict than there: any change is to be looked
at. Prints the verdicts of all cases, one a line, in the golden file's form, to standard output.
"""

import json
import sys


def key(case):
    return [int(part) for part in case.split(".")]


def main():
    index, golden, agent, count = sys.argv[1:]
    with open(index, encoding="utf-8") as file:
        cases = json.load(file)[agent]
    with open(golden, encoding="utf-8") as file:
        expected = dict(line.rstrip("\n").split(" ", 1) for line in file if not line.startswith("#"))
    bad = 0
    for case in sorted(cases, key=key):
        verdict = f"{cases[case]['behavior']} {cases[case]['behaviorClose']}"
        print(f"{case} {verdict}")
        if verdict != expected.get(case):
            print(f"case {case}: {verdict}, expected {expected.get(case)}", file=sys.stderr)
            bad += 1
    if len(cases) != int(count) or not cases:
        print(f"{len(cases)} cases have a verdict, {count} were run", file=sys.stderr)
        bad += 1
    return 1 if bad else 0


sys.exit(main())
