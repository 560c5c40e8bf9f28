"""Compares Autobahn's report with the golden file.

usage: compare.py INDEX.JSON GOLDEN AGENT COUNT [--bless]

Fails if a case is missing, is not in the golden file, or has another verdict than there ("OK|NON-STRICT" permits both).
With --bless, writes verdicts that differ into the golden file instead. Prints the verdicts of all cases, one on each line,
to standard output.
"""

import json
import sys


def key(case):
    return [int(part) for part in case.split(".")]


def fits(verdict, expected):
    found, allowed = verdict.split(), expected.split()
    return len(found) == len(allowed) and all(f in a.split("|") for f, a in zip(found, allowed))


def main():
    index, golden, agent, count, *bless = sys.argv[1:]
    with open(index, encoding="utf-8") as file:
        cases = json.load(file)[agent]
    with open(golden, encoding="utf-8") as file:
        lines = file.read().splitlines()
    heading = [line for line in lines if line.startswith("#")]
    expected = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    if len(cases) != int(count) or not cases:
        print(f"{len(cases)} of {count} cases have a verdict", file=sys.stderr)
        return 1
    differ = {}
    for case in sorted(cases, key=key):
        verdict = f"{cases[case]['behavior']} {cases[case]['behaviorClose']}"
        print(f"{case} {verdict}")
        if not fits(verdict, expected.get(case, "")):
            print(f"case {case}: {verdict}, expected {expected.get(case)}", file=sys.stderr)
            differ[case] = verdict
    if bless:
        expected.update(differ)
        with open(golden, "w", encoding="utf-8") as file:
            for line in heading + [f"{case} {expected[case]}" for case in sorted(expected, key=key)]:
                print(line, file=file)
    return 1 if differ and not bless else 0


sys.exit(main())
