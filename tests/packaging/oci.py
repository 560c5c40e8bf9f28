#!/usr/bin/env python3
"""Checks an archive of scripts/oci: an OCI image layout, with a manifest.json for Docker.

usage: oci.py ARCHIVE FOLDER

Prints one line for each image: platform, user, and tag for Docker. Unpacks the layer of the last one into FOLDER, and
writes the commands of its entrypoint and of its health check to FOLDER.entrypoint and FOLDER.health, one word a line.
Fails on the first difference from the specifications (image-spec 1.0.2, Docker's image spec 1.2).
"""
import gzip
import hashlib
import io
import json
import sys
import tarfile

archive = tarfile.open(sys.argv[1])
members = {member.name: archive.extractfile(member).read() for member in archive.getmembers() if member.isfile()}
assert len({member.mtime for member in archive.getmembers()}) == 1, "different times"
assert json.loads(members.pop("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
used = set()


def blob(descriptor, kind):
    assert descriptor["mediaType"] == "application/vnd.oci.image." + kind, descriptor
    algorithm, digest = descriptor["digest"].split(":")
    path = f"blobs/{algorithm}/{digest}"
    used.add(path)
    content = members[path]
    assert len(content) == descriptor["size"], path
    assert hashlib.sha256(content).hexdigest() == digest, path
    return content


def parsed(descriptor, kind):
    return json.loads(blob(descriptor, kind + ".v1+json"))


(top,) = json.loads(members.pop("index.json"))["manifests"]
index = parsed(top, "index")
name, version = top["annotations"]["org.opencontainers.image.ref.name"].split(":")
assert name == "sockproxyd"
assert index["annotations"]["org.opencontainers.image.version"] == version
docker = json.loads(members.pop("manifest.json"))
assert len(docker) == len(index["manifests"])

for descriptor, entry in zip(index["manifests"], docker):
    manifest = parsed(descriptor, "manifest")
    config = parsed(manifest["config"], "config")
    (layer,) = manifest["layers"]
    packed = blob(layer, "layer.v1.tar+gzip")
    content = gzip.decompress(packed)
    assert config["rootfs"] == {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]}
    paths = ["blobs/" + one["digest"].replace(":", "/") for one in (manifest["config"], layer)]
    assert [entry["Config"]] + entry["Layers"] == paths, "Docker gets another image"
    platform = {key: config[key] for key in ("os", "architecture", "variant") if key in config}
    assert platform == descriptor["platform"], platform

    files = tarfile.open(fileobj=io.BytesIO(content))
    for file in files.getmembers():
        assert (file.uid, file.gid, file.uname, file.gname) == (0, 0, "", ""), file.name
        assert file.isfile() or file.isdir(), file.name
        assert not file.mode & 0o7022, "writable by others: " + file.name
    settings = config["config"]
    user, group = settings["User"].split(":")
    assert int(user) > 0 and int(group) > 0, "root"
    assert f":x:{user}:{group}:" in files.extractfile("./etc/passwd").read().decode()
    health = settings["Healthcheck"]
    # A probe takes up to five seconds.
    assert health["Interval"] >= health["Timeout"] > 5e9, health
    assert settings["Labels"]["org.opencontainers.image.version"] == version
    print("/".join(platform.values()), settings["User"], *entry["RepoTags"])

assert set(members) == used, set(members) ^ used
files.extractall(sys.argv[2])
kind, *health = health["Test"]
assert kind == "CMD"
for name, words in (("entrypoint", settings["Entrypoint"]), ("health", health)):
    with open(f"{sys.argv[2]}.{name}", "w", encoding="utf-8") as out:
        print(*words, sep="\n", file=out)
