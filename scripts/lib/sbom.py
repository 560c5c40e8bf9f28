#!/usr/bin/env python3
"""Writes the bill of materials of a release; see scripts/sbom.

usage: scripts/lib/sbom.py RUST MUSL EPOCH TARGETS BINARY...

RUST, MUSL   the versions of Rust, whose standard library is linked, and of musl
EPOCH        the time of the release
TARGETS      the targets of the binaries, separated by commas
BINARY       the binaries
"""
import datetime
import hashlib
import json
import pathlib
import sys
import tomllib
import uuid

import linked_crates

# C that crates compile and link: name, what it is, licence, and where it comes from.
C_SOURCES = {
    "ring": (
        "boringssl",
        "C and assembly in the crate ring, which it has taken from BoringSSL and changed",
        "Apache-2.0 AND ISC",
        "https://boringssl.googlesource.com/boringssl",
    ),
}


def licences(crate):
    """Older crates separate licences by a slash."""
    if crate["license"]:
        return [{"expression": crate["license"].replace("/", " OR ")}]
    return [{"license": {"name": crate["license_file"] or "unknown"}}]


def references(crate):
    kinds = {"repository": "vcs", "homepage": "website", "documentation": "documentation"}
    return [{"type": kind, "url": crate[key]} for key, kind in kinds.items() if crate[key]]


def crate_purl(crate):
    return f"pkg:cargo/{crate['name']}@{crate['version']}"


def component(crate, checksums):
    """A crate."""
    purl = crate_purl(crate)
    entry = {
        "type": "library",
        "bom-ref": purl,
        "name": crate["name"],
        "version": crate["version"],
        "description": " ".join((crate["description"] or "").split()),
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": checksums[crate["name"], crate["version"]]}],
        "licenses": licences(crate),
        "purl": purl,
        "externalReferences": references(crate),
    }
    if crate["name"] in C_SOURCES:
        name, description, expression, url = C_SOURCES[crate["name"]]
        entry["components"] = [
            {
                "type": "library",
                "bom-ref": f"{purl}#{name}",
                "name": name,
                "description": description,
                "scope": "required",
                "licenses": [{"expression": expression}],
                "externalReferences": [{"type": "vcs", "url": url}],
            }
        ]
    return {key: value for key, value in entry.items() if value}


def runtime(name, version, description, expression, cpe, url):
    """What every Rust binary links."""
    purl = f"pkg:generic/{name}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": description,
        "scope": "required",
        "licenses": [{"expression": expression}],
        "cpe": f"cpe:2.3:a:{cpe}:{version}:*:*:*:*:*:*:*",
        "purl": purl,
        "externalReferences": [{"type": "website", "url": url}],
    }


def main():
    if len(sys.argv) < 6:
        print(__doc__)
        return 2
    rust, musl, epoch, targets, binaries = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5:]
    targets = targets.split(",")
    linked = linked_crates.LinkedCrates(linked_crates.metadata(targets), targets)
    if linked.with_c - set(C_SOURCES):
        return f"C_SOURCES in {__file__} lacks a crate that compiles C: {linked.with_c - set(C_SOURCES)}"
    lock = tomllib.loads((linked_crates.ROOT / "Cargo.lock").read_text(encoding="utf-8"))
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    version = linked.root["version"]
    files = [
        {
            "type": "file",
            "bom-ref": path.name,
            "name": path.name,
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(path.read_bytes()).hexdigest()}],
        }
        for path in map(pathlib.Path, binaries)
    ]
    root = f"pkg:generic/sockproxyd@{version}"
    standard = runtime(
        "rust-std", rust, "The standard library of Rust", "MIT OR Apache-2.0", "rust-lang:rust", "https://www.rust-lang.org"
    )
    libc = runtime("musl", musl, "The C library", "MIT", "musl-libc:musl", "https://musl.libc.org")
    names = {crate["id"]: crate_purl(crate) for crate in linked.crates}
    names[linked.root["id"]] = root
    dependencies = [
        {"ref": names[name], "dependsOn": sorted(names[used] for used in uses)} for name, uses in linked.uses.items()
    ]
    for entry in dependencies:
        if entry["ref"] == root:
            entry["dependsOn"] += [standard["bom-ref"]]
    dependencies += [{"ref": standard["bom-ref"], "dependsOn": [libc["bom-ref"]]}, {"ref": libc["bom-ref"]}]
    bom = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": "sockproxyd",
                "version": version,
                "description": linked.root["description"],
                "licenses": licences(linked.root),
                "purl": root,
                "components": files,
            },
        },
        "components": [component(crate, checksums) for crate in linked.crates] + [standard, libc],
        "dependencies": sorted(dependencies, key=lambda entry: entry["ref"]),
    }
    # The same content has the same number.
    content = json.dumps(bom, sort_keys=True)
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}"
    print(json.dumps(bom, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
