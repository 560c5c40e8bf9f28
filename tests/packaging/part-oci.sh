# shellcheck shell=bash
# Part "oci": the container image, by the specifications, and its program in a box that has the image's files.

# shellcheck source=scripts/lib/release.sh
. "$ROOT/scripts/lib/release.sh"
apt_need python3 strip=binutils
here=$(this_machine)

oci=$work/oci
mkdir -p "$oci"/{again,one}
make_oci() {
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/oci" "$@"
}
# The program of this machine takes the places of the others, which are not built for this test.
for target in "${ALL_TARGETS[@]}"; do
    install -D "$daemon" "$oci/target/$target/firmware/sockproxyd"
    strip "$oci/target/$target/firmware/sockproxyd"
done
all=$(CARGO_TARGET_DIR=$oci/target make_oci -o "$oci")
again=$(umask 077; CARGO_TARGET_DIR=$oci/target make_oci -o "$oci/again" all)
result "oci: the same input gives the same image" cmp "$all" "$again"
one=$(make_oci -o "$oci/one" -b "$daemon" "$here")
version=$("$daemon" --version)
version=${version#sockproxyd }
result "oci: an image for each CPU, with its user and tag" diff <("$PACKAGING/oci.py" "$all" "$oci/all") - <<IMAGES
linux/arm/v7 2504:2504 sockproxyd:$version-armv7
linux/arm64/v8 2504:2504 sockproxyd:$version-aarch64
linux/arm/v6 2504:2504 sockproxyd:$version-arm
linux/amd64 2504:2504 sockproxyd:$version-x86_64
IMAGES
result "oci: an image for one CPU" "$PACKAGING/oci.py" "$one" "$oci/root"
result "oci: the files of the image" diff <(cd "$oci/root" && find . -type f -printf '%P %m\n' | LC_ALL=C sort) - <<'FILES'
etc/group 644
etc/passwd 644
etc/sockproxyd.cf 644
usr/sbin/sockproxyd 755
usr/share/doc/sockproxyd/LICENSE 644
usr/share/doc/sockproxyd/third-party-licences.gz 644
FILES
result "oci: no containers run on mips" sh -c "! '$ROOT/scripts/oci' -o '$oci/one' -b '$daemon' mips 2>/dev/null"

root=$(box oci-image ash)
# For the program's shared libraries. A released program is static.
put_program "$daemon" "$root" test/daemon
cp -r "$oci/root/." "$root/"
cp "$oci/root.entrypoint" "$root/test/entrypoint"
cp "$oci/root.health" "$root/test/health"
inside "$root" oci.sh oci
