# shellcheck shell=bash
# Part "ipk": the contents of the packages, and installing them with a simulated opkg of both ages.

# shellcheck source=scripts/lib/release.sh
. "$ROOT/scripts/lib/release.sh"
here=$(this_machine)
other=mipsel

# One version, a later one, and one for another CPU. The versions differ in bytes appended to the program.
ipk=$work/ipk
mkdir -p "$ipk/later"
make_ipk() {
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/ipk" "$@"
}
{ cat "$daemon"; echo; echo "version one"; } >"$ipk/one"
{ cat "$daemon"; echo; echo "version two"; } >"$ipk/two"
one=$(make_ipk -o "$ipk" -b "$ipk/one" "$here")
wrong=$(make_ipk -o "$ipk" -b "$ipk/one" "$other")
two=$(make_ipk -o "$ipk/later" -b "$ipk/two" "$here")
named=$(make_ipk -o "$ipk" -a "some_arch" -b "$ipk/one" "$here")

# Without a target, for all; the programs are none.
for target in "${ALL_TARGETS[@]}"; do
    install -D /dev/null "$ipk/built/$target/firmware/sockproxyd"
done
result "ipk: without a target there is a package for each" test \
    "$(CARGO_TARGET_DIR=$ipk/built make_ipk -o "$ipk/every" | wc -l)" = ${#ALL_TARGETS[@]}
result "ipk: one architecture is that of one target" sh -c "! '$ROOT/scripts/ipk' -o '$ipk/none' -a some_arch"

# later NUMBER: makes a later version by editing the package: another version number and another sample. Prints
# its path.
later() {
    local change=$ipk/change-$1 member
    mkdir -p "$change"/{outer,control,data}
    tar -xzf "$two" -C "$change/outer"
    tar -xzf "$change/outer/control.tar.gz" -C "$change/control"
    tar -xzf "$change/outer/data.tar.gz" -C "$change/data"
    sed -i "s/^Version: .*/Version: 999.$1-1/" "$change/control/control"
    echo '; a new sample' >>"$change/data/etc/sockproxyd.cf"
    for member in control data; do
        tar --format=gnu --numeric-owner --owner=0 --group=0 -C "$change/$member" -czf "$change/outer/$member.tar.gz" .
    done
    tar --format=gnu -C "$change/outer" -czf "$ipk/later-$1.ipk" ./debian-binary ./data.tar.gz ./control.tar.gz
    printf '%s\n' "$ipk/later-$1.ipk"
}

mkdir "$ipk/again"
(umask 077; make_ipk -o "$ipk/again" -b "$ipk/one" "$here" >/dev/null)
result "ipk: the same input gives the same package" cmp "$one" "$ipk/again/${one##*/}"

outer=$ipk/outer
mkdir -p "$outer"
tar -xzf "$one" -C "$outer"
equal() {
    [ "$1" = "$2" ] || { printf "'%s', expected '%s'\n" "$1" "$2"; return 1; }
}
result "ipk: the members are in the order that opkg of 2011 reads" equal "$(tar -tzf "$one" | tr '\n' ' ')" "./debian-binary ./data.tar.gz ./control.tar.gz "
result "ipk: debian-binary has the version 2.0" equal "$(cat "$outer/debian-binary")" 2.0
for member in data control; do
    # "ustar" and two blanks: GNU's format. opkg silently unpacks nothing from PAX's.
    result "ipk: $member is of GNU's tar format" equal "$(gunzip -c "$outer/$member.tar.gz" | dd bs=1 skip=257 count=7 2>/dev/null)" "ustar  "
    result "ipk: $member has no PAX headers" equal "$(gunzip -c "$outer/$member.tar.gz" | tar -tvf - | grep -c '^[xg]')" 0
    result "ipk: $member belongs to root" equal "$(tar -tvzf "$outer/$member.tar.gz" --numeric-owner | awk '$2 != "0/0"')" ""
done
result "ipk: times are SOURCE_DATE_EPOCH" equal "$(TZ=UTC tar -tvzf "$outer/data.tar.gz" | awk '{ print $4 }' | sort -u)" 2023-11-14
result "ipk: the Lua libraries" diff <(printf '%s\n' "${RELEASE_LUA[@]##*/}" | LC_ALL=C sort) \
    <(tar -tzf "$outer/data.tar.gz" | sed -n 's|^./usr/lib/lua/\(.\)|\1|p' | LC_ALL=C sort)
control=$(tar -xOzf "$outer/control.tar.gz" ./control)
result "ipk: the package declares every architecture" grep -qx 'Architecture: all' <<<"$control"
version=$("$daemon" --version)
result "ipk: the version is the program's" grep -qx "Version: ${version#sockproxyd }-1" <<<"$control"
result "ipk: the configurations are conffiles" equal "$(tar -xOzf "$outer/control.tar.gz" ./conffiles | tr '\n' ' ')" \
    "/etc/config/sockproxyd /etc/sockproxyd.cf "
result "ipk: a firmware upgrade keeps certificates and keys" \
    equal "$(tar -xOzf "$outer/data.tar.gz" ./lib/upgrade/keep.d/sockproxyd)" /etc/sockproxyd.d
result "ipk: the folder of keys is private" \
    equal "$(tar -tvzf "$outer/data.tar.gz" ./etc/sockproxyd.d/ | cut -c1-10)" drwxr-x---
result "ipk: the sample of /etc/config/sockproxyd has every setting" \
    diff <("$daemon" --sample-config >"$ipk/sample"; "$ROOT/scripts/uci-sample" "$ipk/sample") \
    "$ROOT/openwrt/sockproxyd/files/sockproxyd.config"
result "ipk: -a names the architecture" sh -c "tar -xOzf '$named' ./control.tar.gz | tar -xOz ./control | grep -qx 'Architecture: some_arch'"
result "ipk: the sample configuration is the program's" diff <("$daemon" --sample-config) "$ROOT/openwrt/sockproxyd/files/sockproxyd.cf"

for kind in aa:2011 bb:2011 main:2024; do
    flavour=${kind%:*}
    root=$(box "ipk-$flavour" ash)
    openwrt "$root" "$flavour"
    mkdir -p "$root/usr/lib/opkg/info"
    # For the program's shared libraries. A released program is static.
    put_program "$daemon" "$root" test/daemon
    # preinst reads the CPU from a program, not from a link.
    install /bin/busybox "$root/bin/busybox"
    install "$PACKAGING/opkg" "$root/bin/opkg"
    echo "${kind#*:}" >"$root/etc/opkg-age"
    printf '#!/bin/sh\n' >"$root/etc/init.d/cron"
    chmod 755 "$root/etc/init.d/cron"
    cp "$one" "$root/test/one.ipk"
    cp "$(later 2)" "$root/test/two.ipk"
    cp "$(later 3)" "$root/test/three.ipk"
    cp "$(later 4)" "$root/test/four.ipk"
    cp "$wrong" "$root/test/wrong.ipk"
    inside "$root" packages.sh "ipk-$flavour" opkg
done
