#!/usr/bin/env python3
"""Reads packages and indexes of apk version 3 (apk-v3(5)), and checks every hash in packages. It shares no code with the
program that writes them.

usage: tests/packaging/adb_reader.py info FILE EPOCH       prints version and architecture of a package, whose times must all
                                                           be EPOCH
       tests/packaging/adb_reader.py unpack FILE FOLDER    unpacks into FOLDER/control and FOLDER/data, as scripts/apk made them
       tests/packaging/adb_reader.py tar FILE ARCHIVE      writes what the simulated apk reads: .PKGINFO, the scripts and the
                                                           files in one archive
"""
import hashlib
import io
import pathlib
import sys
import tarfile
import zlib

INFO = {1: "pkgname", 2: "pkgver", 4: "pkgdesc", 5: "arch", 6: "license", 7: "origin", 8: "maintainer", 9: "url"}
SCRIPTS = {2: "pre-install", 3: "post-install", 4: "pre-deinstall", 5: "post-deinstall", 6: "pre-upgrade", 7: "post-upgrade"}


class File:
    """The blocks of a file, and the values in the first one."""

    def __init__(self, content, schema):
        if content[:4] == b"ADBd":
            content = zlib.decompress(content[4:], wbits=-15)
        assert content[:8] == b"ADB." + schema, content[:8]
        self.schema, self.blocks, position = schema, [], 8
        while position < len(content):
            word = int.from_bytes(content[position : position + 4], "little")
            length = word & 0x3FFFFFFF
            assert 4 <= length <= len(content) - position, "length of a block"
            self.blocks.append((word >> 30, content[position + 4 : position + length]))
            position += -(-length // 8) * 8
        assert position == len(content), "padding"
        assert [kind for kind, _ in self.blocks] == sorted(kind for kind, _ in self.blocks), "order of blocks"
        self.values = self.blocks[0][1]

    def root(self):
        """All values. Check the hash or signature first: wrong values may refer to themselves."""
        return self.read(self.number(4, 4))

    def of_kind(self, kind):
        return [content for one, content in self.blocks if one == kind]

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
        assert rest % 4 == 0, "alignment"
        slots = self.number(rest, 4)
        return [None] + [self.read(self.number(rest + 4 * slot, 4)) for slot in range(1, slots)]


def field(values, number):
    return values[number] if values and number < len(values) else None


class Package:
    def __init__(self, file):
        root = file.root()
        self.info = field(root, 1)
        self.scripts = {SCRIPTS[n]: text for n, text in enumerate(field(root, 3) or []) if text}
        self.folders, self.files, self.times = {}, {}, set()
        blocks = file.of_kind(2)
        for number, path in enumerate(field(root, 2)[1:], 1):
            folder = path[1].decode()
            assert path[2][2:] == [b"root", b"root"], folder
            self.folders[folder] = path[2][1]
            for index, entry in enumerate((field(path, 3) or [None])[1:], 1):
                name = f"{folder}/{entry[1].decode()}"
                assert entry[2][2:] == [b"root", b"root"], name
                content = b""
                if entry[3]:
                    content = blocks.pop(0)
                    assert content[:8] == number.to_bytes(4, "little") + index.to_bytes(4, "little"), name
                    content = content[8:]
                assert len(content) == entry[3] and hashlib.sha256(content).digest() == entry[5], name
                self.times.add(entry[4])
                self.files[name] = (entry[2][1], content)
        assert not blocks, "data of no file"
        assert list(self.folders) == sorted(self.folders), "order of folders"
        assert field(self.info, 12) == sum(len(content) for _, content in self.files.values()), "size"

    def control(self):
        """The content and mode of the files in the folder for scripts/lib/apk_pack.py."""
        lines = [f"{INFO[n]} = {value.decode()}\n" for n, value in enumerate(self.info) if n in INFO and value]
        scripts = {f".{name}": (0o755, text) for name, text in self.scripts.items()}
        return {".PKGINFO": (0o644, "".join(lines).encode())} | scripts


def unpack(package, folder):
    for name, mode in package.folders.items():
        path = folder / "data" / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    (folder / "control").mkdir(parents=True)
    for part, files in (("control", package.control()), ("data", package.files)):
        for name, (mode, content) in files.items():
            path = folder / part / name
            path.write_bytes(content)
            path.chmod(mode)


def to_tar(package, archive):
    with tarfile.open(archive, mode="w:gz", format=tarfile.GNU_FORMAT) as tar:
        for name, mode in package.folders.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, mode
            tar.addfile(member)
        for name, (mode, content) in (package.control() | package.files).items():
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))


def main():
    command, name, argument = sys.argv[1:]
    package = Package(File(pathlib.Path(name).read_bytes(), b"pckg"))
    if command == "info":
        assert package.times == {int(argument)}, package.times
        assert package.info[11] == int(argument), package.info[11]
        print(package.info[2].decode(), package.info[5].decode())
    elif command == "unpack":
        unpack(package, pathlib.Path(argument))
    elif command == "tar":
        to_tar(package, argument)
    return 0


if __name__ == "__main__":
    sys.exit(main())
