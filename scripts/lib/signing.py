#!/usr/bin/env python3
"""The keys of a release, and signatures by them.

usage: scripts/lib/signing.py --new FOLDER      makes both keys in FOLDER; fails if there are some
       scripts/lib/signing.py KEYS FILE...      writes FILE.sig for each file, by the key for usign in folder KEYS

usign.sec signs indexes for opkg, and SHA256SUMS. It is an Ed25519 key, and its signatures are detached, both in the format
of OpenBSD's signify, which usign on OpenWrt reads, too. Its public half is written to usign.pub.

apk.sec.pem signs packages for apk and their indexes: an ECDSA key on the curve P-256 in PEM, as OpenWrt's own. Its public half
is written to apk.pub.pem.

Both kinds of signatures are deterministic (ECDSA by RFC 6979), so that a release can be made again, byte for byte.
"""
import base64
import hashlib
import os
import pathlib
import struct
import sys

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

USIGN_SECRET = "usign.sec"
USIGN_PUBLIC = "usign.pub"
APK_SECRET = "apk.sec.pem"
APK_PUBLIC = "apk.pub.pem"

# Algorithm, key derivation (of a key without a passphrase), its rounds, salt, checksum, key number, seed and public key.
USIGN_SECRET_FORMAT = "2s2sI16s8s8s64s"


class SigningError(Exception):
    """A secret key cannot be used. The text is one line, with the path."""


def signify_text(comment, content):
    """A file in signify's format."""
    return f"untrusted comment: {comment}\n{base64.b64encode(content).decode()}\n".encode()


class UsignKey:
    """An Ed25519 key in signify's format, without a passphrase."""

    def __init__(self, number, private):
        self.number, self.private = number, private

    @classmethod
    def new(cls):
        return cls(os.urandom(8), ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path):
        """Reads a secret key that usign -G or secret_text() has made."""
        try:
            content = base64.b64decode(path.read_text(encoding="ascii").splitlines()[1], validate=True)
            fields = struct.unpack(">" + USIGN_SECRET_FORMAT, content)
        except OSError as error:
            raise SigningError(f"{path}: {error.strerror}") from error
        except (ValueError, IndexError, struct.error) as error:
            raise SigningError(f"{path}: not a secret key for usign, or damaged") from error
        algorithm, derivation, rounds, _, checksum, number, secret = fields
        if algorithm != b"Ed" or derivation != b"BK":
            raise SigningError(f"{path}: not a secret key for usign, or damaged")
        if rounds != 0:
            raise SigningError(f"{path}: the key has a passphrase")
        if hashlib.sha512(secret).digest()[:8] != checksum:
            raise SigningError(f"{path}: damaged")
        return cls(number, ed25519.Ed25519PrivateKey.from_private_bytes(secret[:32]))

    def public_bytes(self):
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        return self.private.public_key().public_bytes(*raw)

    def fingerprint(self):
        """The name of the public key in /etc/opkg/keys."""
        return self.number.hex()

    def public_text(self):
        return signify_text(f"public key {self.fingerprint()}", b"Ed" + self.number + self.public_bytes())

    def secret_text(self):
        secret = self.private.private_bytes_raw() + self.public_bytes()
        checksum = hashlib.sha512(secret).digest()[:8]
        fields = b"Ed", b"BK", 0, os.urandom(16), checksum, self.number, secret
        return signify_text(f"private key {self.fingerprint()}", struct.pack(">" + USIGN_SECRET_FORMAT, *fields))

    def sign(self, message):
        """The content of a detached signature."""
        return signify_text(f"signed by key {self.fingerprint()}", b"Ed" + self.number + self.private.sign(message))


class ApkKey:
    """An ECDSA key for apk of version 3."""

    def __init__(self, private):
        self.private = private

    @classmethod
    def new(cls):
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path):
        try:
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise SigningError(f"{path}: {error.strerror}") from error
        except TypeError as error:
            raise SigningError(f"{path}: the key has a passphrase") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise SigningError(f"{path}: not a secret key in PEM, or damaged") from error
        if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
            raise SigningError(f"{path}: not an ECDSA key on the curve P-256")
        return cls(private)

    def identity(self):
        """The 16 bytes by which apk finds the public key in /etc/apk/keys."""
        point = self.private.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return hashlib.sha512(point).digest()[:16]

    def public_text(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def secret_text(self):
        return self.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message):
        return self.private.sign(message, ec.ECDSA(hashes.SHA512(), deterministic_signing=True))


def write_secret(path, content):
    """Writes a file that only its owner can read. Refuses to replace one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def new_keys(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for key, secret, public in ((UsignKey.new(), USIGN_SECRET, USIGN_PUBLIC), (ApkKey.new(), APK_SECRET, APK_PUBLIC)):
        write_secret(folder / secret, key.secret_text())
        (folder / public).write_bytes(key.public_text())


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--new":
        new_keys(pathlib.Path(sys.argv[2]))
        return 0
    if len(sys.argv) < 3:
        print(__doc__)
        return 2
    key = UsignKey.load(pathlib.Path(sys.argv[1]) / USIGN_SECRET)
    for name in sys.argv[2:]:
        path = pathlib.Path(name)
        try:
            path.with_name(path.name + ".sig").write_bytes(key.sign(path.read_bytes()))
        except OSError as error:
            raise SigningError(f"{path}: {error.strerror}") from error
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SigningError as error:
        sys.exit(str(error))
