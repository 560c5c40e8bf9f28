#!/usr/bin/env python3
"""Fetches a package by its name from a feed, as opkg and apk do, with its own readers of their formats.

usage: tests/packaging/feed_client.py opkg URL KEY NAME FILE
       tests/packaging/feed_client.py apk URL KEY NAME FILE

URL    of the folder with Packages.gz and Packages.sig, or of packages.adb
KEY    the public key
FILE   where the package is stored

Fails with a message if a signature, a checksum or a size is wrong, or if no package has the name.
"""
import base64
import gzip
import hashlib
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib

import adb_reader
from cryptography import exceptions
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read()


def signify(text):
    """The key number and the rest of a file of signify."""
    comment, line = text.decode().splitlines()
    assert comment.startswith("untrusted comment: "), comment
    content = base64.b64decode(line, validate=True)
    assert content[:2] == b"Ed", content
    return content[2:10], content[10:]


def from_opkg(url, key, name):
    index = gzip.decompress(fetch(f"{url}/Packages.gz"))
    assert fetch(f"{url}/Packages") == index, "Packages and Packages.gz differ"
    number, public = signify(key)
    signer, signature = signify(fetch(f"{url}/Packages.sig"))
    assert signer == number, "signed by another key"
    ed25519.Ed25519PublicKey.from_public_bytes(public).verify(signature, index)
    found = []
    for paragraph in index.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if not line.startswith(" "))
        if fields.get("Package") == name:
            found.append(fields)
    assert len(found) == 1, f"{len(found)} packages {name}"
    content = fetch(f"{url}/{found[0]['Filename']}")
    assert len(content) == int(found[0]["Size"]), "size"
    assert hashlib.md5(content).hexdigest() == found[0]["MD5Sum"], "MD5"
    assert hashlib.sha256(content).hexdigest() == found[0]["SHA256sum"], "SHA-256"
    return content


def verify(file, key):
    """Checks the signature of a file of apk."""
    (signature,) = file.of_kind(1)
    public = serialization.load_pem_public_key(key)
    point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    assert signature[:2] == b"\0\4", "version or hash of the signature"
    assert signature[2:18] == hashlib.sha512(point).digest()[:16], "signed by another key"
    message = file.schema + signature[:18] + hashlib.sha512(file.values).digest()
    public.verify(signature[18:], message, ec.ECDSA(hashes.SHA512()))


def from_apk(url, key, name):
    index = adb_reader.File(fetch(url), b"indx")
    verify(index, key)
    found = [package for package in index.root()[2][1:] if package[1] == name.encode()]
    assert len(found) == 1, f"{len(found)} packages {name}"
    version, identity, size = found[0][2].decode(), found[0][3], found[0][13]
    content = fetch(urllib.parse.urljoin(url, f"{name}-{version}.apk"))
    assert len(content) == size, "size"
    file = adb_reader.File(content, b"pckg")
    assert hashlib.sha256(file.values).digest() == identity, "identity"
    verify(file, key)
    package = adb_reader.Package(file)
    # Except for the identity and the size, the index has what the package says of itself.
    changed = {3, 13}
    of_index = {n: value for n, value in enumerate(found[0]) if n not in changed and value is not None}
    assert of_index == {n: value for n, value in enumerate(package.info) if n not in changed and value is not None}
    return content


def main():
    manager, url, key, name, file = sys.argv[1:]
    with open(key, "rb") as opened:
        public = opened.read()
    try:
        content = {"opkg": from_opkg, "apk": from_apk}[manager](url, public, name)
    except exceptions.InvalidSignature:
        return "the signature is wrong"
    except (urllib.error.URLError, zlib.error) as error:
        return f"Error: {url}: {error}"
    with open(file, "wb") as out:
        out.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
