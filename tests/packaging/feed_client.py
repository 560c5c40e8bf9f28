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


class Index:
    """A reader of apk-v3(5): the blocks of a file, and the values in the first one."""

    def __init__(self, content):
        assert content[:8] == b"ADB.indx", content[:8]
        self.blocks, position = [], 8
        while position < len(content):
            word = int.from_bytes(content[position : position + 4], "little")
            length = word & 0x3FFFFFFF
            self.blocks.append((word >> 30, content[position + 4 : position + length]))
            position += -(-length // 8) * 8
        assert [kind for kind, _ in self.blocks] == [0, 1], "blocks"
        self.values = self.blocks[0][1]

    def number(self, offset, size):
        return int.from_bytes(self.values[offset : offset + size], "little")

    def read(self, value):
        kind, rest = value >> 28, value & 0x0FFFFFFF
        if kind == 0:
            return None
        if kind == 1:
            return rest
        if kind in (2, 3):
            return self.number(rest, 4 if kind == 2 else 8)
        if kind in (8, 9, 10):
            size = {8: 1, 9: 2, 10: 4}[kind]
            return self.values[rest + size : rest + size + self.number(rest, size)]
        assert kind in (13, 14), kind
        slots = self.number(rest, 4)
        return [None] + [self.read(self.number(rest + 4 * slot, 4)) for slot in range(1, slots)]

    def verify(self, key):
        signature = self.blocks[1][1]
        public = serialization.load_pem_public_key(key)
        point = public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        assert signature[:2] == b"\0\4", "version or hash of the signature"
        assert signature[2:18] == hashlib.sha512(point).digest()[:16], "signed by another key"
        message = b"indx" + signature[:18] + hashlib.sha512(self.values).digest()
        public.verify(signature[18:], message, ec.ECDSA(hashes.SHA512()))


def from_apk(url, key, name):
    index = Index(fetch(url))
    index.verify(key)
    _, _, packages = index.read(index.number(4, 4))
    found = [package for package in packages[1:] if package[1] == name.encode()]
    assert len(found) == 1, f"{len(found)} packages {name}"
    version, identity, size = found[0][2].decode(), found[0][3], found[0][13]
    content = fetch(urllib.parse.urljoin(url, f"{name}-{version}.apk"))
    assert len(content) == size, "size"
    stream = zlib.decompressobj(31)
    head = stream.decompress(content)
    control, data = content[: len(content) - len(stream.unused_data)], stream.unused_data
    assert hashlib.sha1(control).digest() == identity, "identity"
    assert b"datahash = " + hashlib.sha256(data).hexdigest().encode() in head, "datahash"
    return content


def main():
    manager, url, key, name, file = sys.argv[1:]
    with open(key, "rb") as opened:
        public = opened.read()
    try:
        content = {"opkg": from_opkg, "apk": from_apk}[manager](url, public, name)
    except exceptions.InvalidSignature:
        return "the signature is wrong"
    except urllib.error.URLError as error:
        return f"{url}: {error}"
    with open(file, "wb") as out:
        out.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
