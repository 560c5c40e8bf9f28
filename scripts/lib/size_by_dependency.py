#!/usr/bin/env python3
"""Prints a Markdown table of the bytes that each direct dependency adds to a binary.

usage: scripts/lib/size_by_dependency.py TARGET BYTES BYTES-GZIPPED <SYMBOLS

SYMBOLS has a line "size|name" for each symbol, as scripts/size makes it; BYTES is the size of the stripped binary. A crate
counts for the direct dependency that brings it in; if several do, it has its own row. Generic code counts for the crate
that defines it. Needs cargo, and the sources that cargo has fetched.
"""
import collections
import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Crates of Rust itself. hashbrown is std's HashMap; other crates use it, too.
STANDARD = "Rust's standard library"
STANDARD_CRATES = {"core", "alloc", "std", "compiler_builtins", "hashbrown", "panic_abort", "unwind", "libc", "rustc_demangle"}
C_CODE = "musl, other C code"
UNNAMED = "constants without a name, headers"
# Smaller rows are summed up.
MIN_ROW = 2000


def crate_of(name):
    """The crate that defines a symbol, by its demangled name."""
    if re.match(r"<(str|char|bool|[iuf]\d+|[iu]size)>::|<\[.*\]>::", name):
        return "core"
    match = re.search(r"[A-Za-z_]\w*(?=::)", name)
    if match:
        return match.group()
    # Names of ring's C and assembly contain its version.
    match = re.match(r"([a-z]+)_core_\d+_\d+_\d+_", name)
    if match:
        return match.group(1)
    return "core" if name.startswith("<") else None


def owners(target):
    """For each crate, by its name in code: its row, and the name of its package."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    names = {}
    for package in metadata["packages"]:
        library = next((t["name"] for t in package["targets"] if {"lib", "rlib"} & set(t["kind"])), package["name"])
        names[package["id"]] = (package["name"], library.replace("-", "_"))

    def needs(node):
        return [d["pkg"] for d in nodes[node]["deps"] if any(kind["kind"] is None for kind in d["dep_kinds"])]

    root = next(i for i, (name, _) in names.items() if name == "sockproxyd")
    direct = needs(root)
    reached = collections.defaultdict(set)
    for dependency in direct:
        waiting, seen = [dependency], set()
        while waiting:
            current = waiting.pop()
            if current not in seen:
                seen.add(current)
                waiting.extend(needs(current))
        for package in seen:
            reached[package].add(dependency)
    rows = {}
    for package, by in reached.items():
        alone = next(iter(by)) if len(by) == 1 else None
        owner = package if package in direct else alone or package
        rows[names[package][1]] = (names[owner][0], names[package][0])
    rows["sockproxyd"] = ("sockproxyd itself", "sockproxyd")
    rows.update((crate, (STANDARD, crate)) for crate in STANDARD_CRATES)
    return rows


def main():
    if len(sys.argv) != 4:
        print(__doc__)
        return 2
    rows, total, gzipped = owners(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    sizes, crates = collections.Counter(), collections.defaultdict(collections.Counter)
    for line in sys.stdin:
        size, name = line.rstrip("\n").split("|", 1)
        crate = crate_of(name)
        row, package = rows.get(crate, (crate, crate)) if crate else (C_CODE, None)
        sizes[row] += int(size)
        crates[row][package] += int(size)
    sizes[UNNAMED] = total - sum(sizes.values())
    print("| part of the binary | kB | % |\n| --- | --: | --: |")
    small = 0
    for row, size in sizes.most_common():
        if size < MIN_ROW:
            small += size
            continue
        label = row
        others = [crate for crate, part in crates[row].most_common() if crate != row and part >= MIN_ROW]
        if row in crates[row] and len(others) > 0:
            label += f" (with {', '.join(others)})"
        print(f"| {label} | {size / 1000:.0f} | {100 * size / total:.0f} |")
    if small:
        print(f"| the rest | {small / 1000:.0f} | {100 * small / total:.0f} |")
    print(f"| **all**, stripped; {gzipped / 1000:.0f} kB after gzip | **{total / 1000:.0f}** | 100 |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
