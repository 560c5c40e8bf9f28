#!/usr/bin/env python3
"""Packs a package in the format of apk version 3, which OpenWrt has from 25.12 on.

usage: scripts/lib/apk_pack.py CONTROL DATA EPOCH FILE [KEYS]

CONTROL   folder with .PKGINFO (as in apk-v2(5), without size, builddate and datahash) and the scripts (.pre-install, ...)
DATA      folder with the files to install
EPOCH     modification time of all files
FILE      the output; the same input gives the same bytes
KEYS      the folder with the secret keys (see signing.py); without it the package is not signed
"""
import pathlib
import sys

sys.dont_write_bytecode = True

import adb  # noqa: E402 (after the line above)


def main():
    if len(sys.argv) not in (5, 6):
        print(__doc__)
        return 2
    control, data, epoch, file = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    key = None
    if len(sys.argv) == 6:
        # A signature needs a library that not every machine has.
        import signing
        try:
            key = signing.ApkKey.load(pathlib.Path(sys.argv[5]) / signing.APK_SECRET)
        except signing.SigningError as error:
            sys.exit(str(error))
    lines = (control / ".PKGINFO").read_text(encoding="utf-8").splitlines()
    info = [tuple(line.split(" = ", 1)) for line in lines if line] + [("builddate", str(epoch))]
    scripts = {name: path.read_bytes() for name in adb.SCRIPTS if (path := control / f".{name}").exists()}
    pathlib.Path(file).write_bytes(adb.package(info, scripts, data, epoch, key))
    return 0


if __name__ == "__main__":
    sys.exit(main())
