"""Reads and writes the binary format of apk version 3 ("ADB", apk-v3(5)): packages, and indexes of them.

"apk adbdump" prints the same of an index that this writes and of one that "apk mkndx" writes.
"""
import hashlib
import pathlib
import struct
import zlib

# The upper four bits of a value: how the others are to be read.
INT = 0x10000000
INT_32 = 0x20000000
INT_64 = 0x30000000
BLOB_8 = 0x80000000
BLOB_16 = 0x90000000
BLOB_32 = 0xA0000000
ARRAY = 0xD0000000
OBJECT = 0xE0000000
KIND = 0xF0000000
NULL = 0

# The upper two bits of the length of a block.
BLOCK_ADB = 0
BLOCK_SIGNATURE = 1
BLOCK_DATA = 2

SCHEMA_INDEX = b"indx"
SCHEMA_PACKAGE = b"pckg"
# The number of SHA-512 in signatures.
SHA512 = 4

# The fields of the description of a package by their names in .PKGINFO (apk-v2(5)), and their numbers.
NAME, VERSION, HASHES, ARCH, INSTALLED_SIZE, FILE_SIZE = 1, 2, 3, 5, 12, 13
STRINGS = {"pkgname": NAME, "pkgver": VERSION, "pkgdesc": 4, "arch": ARCH, "license": 6, "origin": 7, "maintainer": 8, "url": 9}
INTEGERS = {"builddate": 11, "provider_priority": 14}
DEPENDENCIES = {"depend": 15, "provides": 16, "replaces": 17}
FIELDS = 22

# The scripts of a package, in the order of their fields. The first field is for triggers.
SCRIPTS = ("pre-install", "post-install", "pre-deinstall", "post-deinstall", "pre-upgrade", "post-upgrade")

# Comparisons in dependencies.
EQUAL, LESS, GREATER, FUZZY, CONFLICT = 1, 2, 4, 8, 16
OPERATORS = {"=": EQUAL, "<": LESS, ">": GREATER, "~": EQUAL | FUZZY}


class AdbError(Exception):
    """A file is none of this format, or cannot be written in it."""


class Reader:
    """The first block of a file, which has the values."""

    def __init__(self, file, schema):
        if file[:4] == b"ADBd":
            file = zlib.decompress(file[4:], -zlib.MAX_WBITS)
        if file[:4] != b"ADB." or file[4:8] != schema:
            raise AdbError(f"no file of apk version 3 with {schema.decode()}")
        (word,) = struct.unpack_from("<I", file, 8)
        if word >> 30 != BLOCK_ADB:
            raise AdbError("the first block has no values")
        self.content = file[12 : 8 + word]

    def number(self, offset, size):
        return int.from_bytes(self.content[offset : offset + size], "little")

    def root(self):
        return self.number(4, 4)

    def slots(self, value):
        """The values in an object or array, from index 1."""
        offset = value & ~KIND
        return [NULL] + [self.number(offset + 4 * slot, 4) for slot in range(1, self.number(offset, 4))]

    def blob(self, value):
        size = {BLOB_8: 1, BLOB_16: 2, BLOB_32: 4}[value & KIND]
        offset = value & ~KIND
        return self.content[offset + size : offset + size + self.number(offset, size)]

    def text(self, value):
        return self.blob(value).decode()


class Writer:
    """The block with the values. A value is returned as the number by which others refer to it."""

    def __init__(self):
        # Versions of the format, and the root.
        self.content = bytearray(8)
        self.offsets = {}

    def append(self, data, alignment):
        """Writes data, and returns its offset."""
        self.content += bytes(-len(self.content) % alignment)
        offset = len(self.content)
        self.content += data
        return offset

    def add(self, data, alignment):
        """Writes data once, and returns its offset."""
        offset = self.offsets.get(data)
        if offset is None or offset % alignment:
            offset = self.offsets[data] = self.append(data, alignment)
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

    def copy(self, reader, value):
        """A value of another file."""
        kind = value & KIND
        if kind in (0, INT):
            return value
        if kind in (INT_32, INT_64):
            return self.integer(reader.number(value & ~KIND, 4 if kind == INT_32 else 8))
        if kind in (ARRAY, OBJECT):
            return self.slots(kind, [self.copy(reader, slot) for slot in reader.slots(value)[1:]])
        return self.blob(reader.blob(value))

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

    def description(self, info):
        """The values for lines of .PKGINFO, which are pairs, by the numbers of their fields."""
        values = [NULL] * FIELDS
        dependencies = {}
        for key, text in info:
            if key in STRINGS:
                values[STRINGS[key]] = self.blob(text.encode())
            elif key in INTEGERS:
                values[INTEGERS[key]] = self.integer(int(text))
            elif key in DEPENDENCIES:
                dependencies.setdefault(DEPENDENCIES[key], []).append(text)
            else:
                raise AdbError(f"unknown field {key}")
        for number, texts in sorted(dependencies.items()):
            values[number] = self.dependencies(" ".join(texts))
        return values

    def acl(self, path):
        """The mode of a file or folder, and its owner, who is root."""
        root = self.blob(b"root")
        return self.slots(OBJECT, [self.integer(path.stat().st_mode & 0o7777), root, root])

    def finish(self, root):
        struct.pack_into("<I", self.content, 4, root)
        return self.content


def block(kind, content):
    if len(content) + 4 >= 1 << 30:
        raise AdbError("too large a block")
    data = struct.pack("<I", kind << 30 | len(content) + 4) + content
    return data + bytes(-len(data) % 8)


def container(schema, content, key):
    """A file of one block, and its signature by key (signing.ApkKey) unless that is None."""
    file = b"ADB." + schema + block(BLOCK_ADB, content)
    if key is not None:
        head = bytes([0, SHA512]) + key.identity()
        signature = key.sign(schema + head + hashlib.sha512(content).digest())
        file += block(BLOCK_SIGNATURE, head + signature)
    return file


def package(info, scripts, folder, epoch, key):
    """A package.

    info: lines of .PKGINFO as pairs. scripts: their contents by the names in SCRIPTS. folder: the files to install, all of
    root's, with the modification time epoch. key: as for container().
    """
    writer = Writer()
    values = writer.description(info)
    paths, data, size = [], b"", 0
    folders = sorted((path for path in folder.rglob("*") if path.is_dir()), key=lambda path: bytes(path.relative_to(folder)))
    if any(not path.is_dir() for path in folder.iterdir()):
        raise AdbError(f"{folder}: a file in the root folder")
    for number, path in enumerate(folders, 1):
        files = []
        for file in sorted((entry for entry in path.iterdir() if not entry.is_dir()), key=lambda entry: entry.name.encode()):
            if file.is_symlink() or not file.is_file():
                raise AdbError(f"{file}: not a file")
            content = file.read_bytes()
            files.append(
                writer.slots(
                    OBJECT,
                    [
                        writer.blob(file.name.encode()),
                        writer.acl(file),
                        writer.integer(len(content)),
                        writer.integer(epoch),
                        writer.blob(hashlib.sha256(content).digest()),
                    ],
                )
            )
            size += len(content)
            if content:
                data += block(BLOCK_DATA, struct.pack("<II", number, len(files)) + content)
        name = writer.blob(bytes(path.relative_to(folder)))
        # apk writes this array as an object.
        paths.append(writer.slots(OBJECT, [name, writer.acl(path), writer.slots(OBJECT, files)]))
    values[INSTALLED_SIZE] = writer.integer(max(size, 1))
    # The number by which apk knows the package: a part of the hash of the block that has zeros in its place.
    unique = writer.append(bytes([20]) + bytes(20), 1)
    values[HASHES] = BLOB_8 | unique
    about = writer.slots(OBJECT, values[1:])
    listed = writer.slots(OBJECT, paths)
    texts = writer.slots(OBJECT, [NULL] + [writer.blob(scripts.get(name, b"")) for name in SCRIPTS])
    content = writer.finish(writer.slots(OBJECT, [about, listed, texts]))
    content[unique + 1 : unique + 21] = hashlib.sha256(content).digest()[:20]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return b"ADBd" + deflate.compress(container(SCHEMA_PACKAGE, bytes(content), key) + data) + deflate.flush()


class Package:
    """What an index has of a package: its description, its size, and the hash of the block with its values, which has the
    hashes of its files."""

    def __init__(self, path):
        file = pathlib.Path(path).read_bytes()
        self.size = len(file)
        self.reader = Reader(file, SCHEMA_PACKAGE)
        self.identity = hashlib.sha256(self.reader.content).digest()
        self.values = self.reader.slots(self.reader.slots(self.reader.root())[1])
        self.name, self.version, self.arch = (self.reader.text(self.values[field]) for field in (NAME, VERSION, ARCH))

    def entry(self, writer):
        values = [writer.copy(self.reader, NULL if field == HASHES else value) for field, value in enumerate(self.values)]
        values += [NULL] * (FIELDS - len(values))
        values[FILE_SIZE] = writer.integer(self.size)
        values[HASHES] = writer.blob(self.identity)
        return writer.slots(OBJECT, values[1:])


def index(packages, description, key):
    """An index of packages (of the class Package). key: as for container()."""
    writer = Writer()
    entries = [package.entry(writer) for package in sorted(packages, key=lambda one: (one.name, one.version))]
    note = writer.blob(description.encode())
    content = writer.finish(writer.slots(OBJECT, [note, writer.slots(OBJECT, entries)]))
    return container(SCHEMA_INDEX, bytes(content), key)
