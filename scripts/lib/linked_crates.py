"""The crates that are linked into the programs of a release."""
import json
import pathlib
import subprocess

# The target whose upload package has the expander, too.
EXPANDED_TARGET = "mipsel-unknown-linux-musl"

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def metadata(targets):
    """What cargo says about the crates for any of the targets."""
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for target in targets:
        command += ["--filter-platform", target]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)


class LinkedCrates:
    """The crates that our own programs for the targets link, without build and test dependencies."""

    def __init__(self, data, targets):
        packages = {package["id"]: package for package in data["packages"]}
        nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
        # Procedural macros run in the compiler and are not part of the binary.
        macros = {
            name for name, package in packages.items() if any("proc-macro" in target["kind"] for target in package["targets"])
        }
        ids = {package["name"]: name for name, package in packages.items()}
        root = ids["sockproxyd"]
        programs = [root] + ([ids["expander"]] if EXPANDED_TARGET in targets else [])
        # The ids of the crates that each linked crate uses.
        self.uses = {}
        waiting = list(programs)
        while waiting:
            current = waiting.pop()
            if current in self.uses:
                continue
            self.uses[current] = sorted(
                dependency["pkg"]
                for dependency in nodes[current]["deps"]
                if dependency["pkg"] not in macros and any(kind["kind"] is None for kind in dependency["dep_kinds"])
            )
            waiting += self.uses[current]
        # The programs are one product.
        self.uses[root] = sorted({used for program in programs for used in self.uses.pop(program)})
        self.root = packages[root]
        self.crates = sorted(
            (packages[name] for name in self.uses if name != root), key=lambda crate: (crate["name"], crate["version"])
        )
        # The names of the linked crates that compile C.
        self.with_c = {
            packages[name]["name"]
            for name in self.uses
            if any(
                packages[dependency["pkg"]]["name"] == "cc"
                for dependency in nodes[name]["deps"]
                if any(kind["kind"] == "build" for kind in dependency["dep_kinds"])
            )
        }
