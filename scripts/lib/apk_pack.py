#!/usr/bin/env python3
"""Packs a package in the format of apk version 2, which version 3 (in OpenWrt from 25.12 on) installs, too.

usage: scripts/lib/apk_pack.py CONTROL DATA EPOCH FILE

CONTROL   folder with .PKGINFO, to which size, builddate and datahash are added, and with the scripts (.pre-install, ...)
DATA      folder with the files to install
EPOCH     modification time of all files
FILE      the output; the same input gives the same bytes

The file is two gzip streams that form one tar archive (apk-v2(5)): the control files without an end-of-archive mark, then
the files to install, each with its SHA-1, by which apk later detects modified files.
"""
import gzip
import hashlib
import io
import pathlib
import sys
import tarfile


def member(path, name, epoch):
    """The tar header of a file or folder, owned by root."""
    info = tarfile.TarInfo(name)
    info.mtime = epoch
    info.mode = path.stat().st_mode & 0o7777
    info.uname = info.gname = "root"
    return info


def archive(folder, epoch):
    """A tar archive of a folder, sorted by name, and its length without the end-of-archive mark."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            info = member(path, str(path.relative_to(folder)), epoch)
            if path.is_dir():
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
                continue
            content = path.read_bytes()
            info.size = len(content)
            if not info.name.startswith("."):
                info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(content).hexdigest()}
            tar.addfile(info, io.BytesIO(content))
        length = tar.offset
    return out.getvalue(), length


def packed(content):
    return gzip.compress(content, compresslevel=9, mtime=0)


def main():
    if len(sys.argv) != 5:
        print(__doc__)
        return 2
    control, data, epoch, file = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    content = packed(archive(data, epoch)[0])
    size = sum(path.stat().st_size for path in data.rglob("*") if path.is_file())
    with (control / ".PKGINFO").open("a", encoding="utf-8") as info:
        info.write(f"size = {size}\nbuilddate = {epoch}\ndatahash = {hashlib.sha256(content).hexdigest()}\n")
    head, length = archive(control, epoch)
    pathlib.Path(file).write_bytes(packed(head[:length]) + content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
