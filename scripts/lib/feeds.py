#!/usr/bin/env python3
"""Makes signed feeds of packages; see scripts/feeds.

usage: scripts/lib/feeds.py KEYS OUT DESCRIPTION PACKAGE...

KEYS          folder with the secret keys (see signing.py)
OUT           folder for the feeds
DESCRIPTION   the description in the indexes for apk
PACKAGE       .ipk and .apk files
"""
import gzip
import hashlib
import io
import pathlib
import shutil
import sys
import tarfile

import adb
import signing


class FeedError(Exception):
    """The packages make no feed."""


def ipk_control(path):
    """The control file of a package for opkg."""
    with tarfile.open(path) as outer:
        inner = outer.extractfile("./control.tar.gz").read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as control:
        return control.extractfile("./control").read().decode()


def ipk_entry(path):
    """The lines of Packages for a package. Vera's opkg knows MD5 only."""
    content = path.read_bytes()
    lines = (
        f"Filename: {path.name}\nSize: {len(content)}\nMD5Sum: {hashlib.md5(content).hexdigest()}\n"
        f"SHA256sum: {hashlib.sha256(content).hexdigest()}\nDescription:"
    )
    return ipk_control(path).rstrip("\n").replace("Description:", lines, 1) + "\n\n"


def folders(packages, place, common):
    """Packages by folder. place(package) is its folder; a package of the folder "common" goes into every other one."""
    found = {}
    for package in packages:
        found.setdefault(place(package), []).append(package)
    everywhere = found.pop(common, [])
    if everywhere and not found:
        raise FeedError(f"{everywhere[0].name}: no package of any CPU beside it")
    return {name: sorted(mine + everywhere) for name, mine in sorted(found.items())}


def opkg_feeds(packages, out, key):
    """A folder for each CPU, since all packages of our program have the architecture "all". The names of files tell the
    CPU: NAME_VERSION_CPU.ipk."""
    for cpu, mine in folders(packages, lambda path: path.stem.split("_", 2)[2], "all").items():
        folder = out / cpu
        folder.mkdir(parents=True)
        names = [ipk_control(path).split("\n", 1)[0] for path in mine]
        if len(names) > len(set(names)):
            raise FeedError(f"{folder}: two packages of one name: {', '.join(path.name for path in mine)}")
        for path in mine:
            shutil.copyfile(path, folder / path.name)
        index = "".join(map(ipk_entry, mine)).encode()
        (folder / "Packages").write_bytes(index)
        (folder / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
        (folder / "Packages.sig").write_bytes(key.sign(index))


def apk_feeds(packages, out, description, key):
    """A folder for each architecture. Files have the names by which apk looks for them: NAME-VERSION.apk."""
    read = {path: adb.Package(path) for path in packages}
    for arch, mine in folders(packages, lambda path: read[path].arch, "noarch").items():
        folder = out / arch
        folder.mkdir(parents=True)
        for path in mine:
            target = folder / f"{read[path].name}-{read[path].version}.apk"
            if target.exists():
                raise FeedError(f"{path.name}: another package has this name and version")
            shutil.copyfile(path, target)
        (folder / "packages.adb").write_bytes(adb.index([read[path] for path in mine], description, key))


def main():
    if len(sys.argv) < 5:
        print(__doc__)
        return 2
    keys, out, description = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    packages = [pathlib.Path(name) for name in sys.argv[4:]]
    usign = signing.UsignKey.load(keys / signing.USIGN_SECRET)
    apk = signing.ApkKey.load(keys / signing.APK_SECRET)
    opkg_feeds([path for path in packages if path.suffix == ".ipk"], out / "opkg", usign)
    apk_feeds([path for path in packages if path.suffix == ".apk"], out / "apk", description, apk)
    (out / "sockproxyd.pub").write_bytes(usign.public_text())
    (out / "sockproxyd.pem").write_bytes(apk.public_text())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (FeedError, adb.AdbError, signing.SigningError) as error:
        sys.exit(str(error))
