"""Writes indexes for apk of version 3: its binary format "ADB", apk-v3(5).

"apk adbdump" prints the same of an index that this writes and of one that "apk mkndx" writes.
"""
import hashlib
import struct

# The upper four bits of a value: how the others are to be read.
INT = 0x10000000
INT_32 = 0x20000000
INT_64 = 0x30000000
BLOB_8 = 0x80000000
BLOB_16 = 0x90000000
BLOB_32 = 0xA0000000
ARRAY = 0xD0000000
OBJECT = 0xE0000000
NULL = 0

# The upper two bits of the length of a block.
BLOCK_ADB = 0
BLOCK_SIGNATURE = 1

SCHEMA_INDEX = b"indx"
# The number of SHA-512 in signatures.
SHA512 = 4

# The fields of a package in an index by their names in .PKGINFO, and their numbers.
NAME, VERSION, HASHES, FILE_SIZE, DEPENDS, PROVIDES, REPLACES = 1, 2, 3, 13, 15, 16, 17
STRINGS = {"pkgname": NAME, "pkgver": VERSION, "pkgdesc": 4, "arch": 5, "license": 6, "origin": 7, "maintainer": 8, "url": 9}
INTEGERS = {"builddate": 11, "size": 12, "provider_priority": 14}
DEPENDENCIES = {"depend": DEPENDS, "provides": PROVIDES, "replaces": REPLACES}
FIELDS = 22

# Comparisons in dependencies.
EQUAL, LESS, GREATER, FUZZY, CONFLICT = 1, 2, 4, 8, 16
OPERATORS = {"=": EQUAL, "<": LESS, ">": GREATER, "~": EQUAL | FUZZY}


class Writer:
    """The block with the values. A value is returned as the number by which others refer to it."""

    def __init__(self):
        # Versions of the format, and the root.
        self.content = bytearray(8)
        self.offsets = {}

    def add(self, data, alignment):
        """Writes data once, and returns its offset."""
        offset = self.offsets.get(data)
        if offset is None or offset % alignment:
            self.content += bytes(-len(self.content) % alignment)
            offset = self.offsets[data] = len(self.content)
            self.content += data
        return offset

    def blob(self, data):
        if not data:
            return NULL
        if len(data) > 0xFFFF:
            return BLOB_32 | self.add(struct.pack("<I", len(data)) + data, 4)
        if len(data) > 0xFF:
            return BLOB_16 | self.add(struct.pack("<H", len(data)) + data, 2)
        return BLOB_8 | self.add(bytes([len(data)]) + data, 1)

    def integer(self, number):
        if number >= 1 << 32:
            return INT_64 | self.add(struct.pack("<Q", number), 4)
        if number >= 1 << 28:
            return INT_32 | self.add(struct.pack("<I", number), 4)
        return INT | number

    def slots(self, kind, values):
        """An object or array of these values."""
        while values and values[-1] == NULL:
            values = values[:-1]
        if not values:
            return NULL
        return kind | self.add(struct.pack(f"<{len(values) + 1}I", len(values) + 1, *values), 4)

    def dependencies(self, text):
        """An array of dependencies, in the notation of .PKGINFO: "name", "name>=1.0" or "!name"."""
        written = []
        for word in text.split():
            conflict = CONFLICT if word.startswith("!") else 0
            word = word.lstrip("!")
            start = min((word.find(operator) for operator in OPERATORS if operator in word), default=len(word))
            name, rest = word[:start], word[start:]
            version = rest.lstrip("".join(OPERATORS))
            match = conflict
            for operator in rest[: len(rest) - len(version)]:
                match |= OPERATORS[operator]
            if conflict and not version:
                match |= EQUAL | LESS | GREATER
            values = [self.blob(name.encode()), self.blob(version.encode())]
            if match not in (0, EQUAL):
                values.append(self.integer(match))
            written.append((name, self.slots(OBJECT, values)))
        return self.slots(ARRAY, [value for _, value in sorted(set(written))])

    def package(self, info, size, identity):
        """An entry of an index: a package with these lines of .PKGINFO, of size bytes."""
        values = [NULL] * FIELDS
        dependencies = {}
        for key, text in info:
            if key in STRINGS:
                values[STRINGS[key]] = self.blob(text.encode())
            elif key in INTEGERS:
                values[INTEGERS[key]] = self.integer(int(text))
            elif key in DEPENDENCIES:
                number = DEPENDENCIES[key]
                dependencies[number] = f"{dependencies.get(number, '')} {text}"
        for number, text in sorted(dependencies.items()):
            values[number] = self.dependencies(text)
        values[FILE_SIZE] = self.integer(size)
        values[HASHES] = self.blob(identity)
        return self.slots(OBJECT, values[1:])

    def finish(self, root):
        struct.pack_into("<I", self.content, 4, root)
        return bytes(self.content)


def block(kind, content):
    data = struct.pack("<I", kind << 30 | len(content) + 4) + content
    return data + bytes(-len(data) % 8)


def index(packages, description, key):
    """An index, signed by key (signing.ApkKey). Packages: the lines of .PKGINFO as pairs, size in bytes, and identity."""
    writer = Writer()
    entries = [
        (dict(info)["pkgname"], dict(info)["pkgver"], writer.package(info, size, identity))
        for info, size, identity in packages
    ]
    note = writer.blob(description.encode())
    # apk writes this array as an object.
    array = writer.slots(OBJECT, [value for _, _, value in sorted(entries)])
    content = writer.finish(writer.slots(OBJECT, [note, array]))
    head = bytes([0, SHA512]) + key.identity()
    signature = key.sign(SCHEMA_INDEX + head + hashlib.sha512(content).digest())
    return b"ADB." + SCHEMA_INDEX + block(BLOCK_ADB, content) + block(BLOCK_SIGNATURE, head + signature)
