# shellcheck shell=bash
# Part "apk": the contents of the packages for today's OpenWrt, and installing them with a simulated apk. With
# APK_STATIC (the path of a real apk, version 3) also with that.

# shellcheck source=scripts/lib/release.sh
. "$ROOT/scripts/lib/release.sh"
here=$(this_machine)

apks=$work/apk
mkdir -p "$apks"/{again,named,wrong,tree,every}
make_apk() {
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/apk" "$@"
}
{ cat "$daemon"; echo; echo "version one"; } >"$apks/one"
{ cat "$daemon"; echo; echo "version two"; } >"$apks/two"
# Not a program for this machine: 32-bit, little-endian, executable, machine 8.
printf '\177ELF\1\1\1\0\0\0\0\0\0\0\0\0\2\0\10\0\1\0\0\0' >"$apks/elsewhere"
one=$(make_apk -o "$apks" -b "$apks/one" "$here" | head -n 1)
named=$(make_apk -o "$apks/named" -a some_arch -b "$apks/one" "$here")
wrong=$(make_apk -o "$apks/wrong" -a mipsel_24kc -b "$apks/elsewhere" mipsel)
noarch=$(make_apk -o "$apks/wrong" -a noarch -b "$apks/elsewhere" mipsel)
(umask 077; make_apk -o "$apks/again" -b "$apks/one" "$here" >/dev/null)
result "apk: the same input gives the same package" cmp "$one" "$apks/again/${one##*/}"
# Without a target, for all; the programs are none.
for target in "${ALL_TARGETS[@]}"; do
    install -D /dev/null "$apks/built/$target/firmware/sockproxyd"
done
result "apk: without a target there is a package for each architecture" test \
    "$(CARGO_TARGET_DIR=$apks/built make_apk -o "$apks/all" | wc -l)" = "$(for target in "${ALL_TARGETS[@]}"; do target_openwrt "$target"; done | wc -w)"

version=$("$daemon" --version)
content() {
    [ "$(python3 -B "$PACKAGING/adb_reader.py" info "$1" 1700000000)" = "${version#sockproxyd }-r1 $2" ]
}
# OpenWrt has one name for this CPU (see scripts/lib/targets.sh).
arch=$(target_openwrt "$(target_name "$here")")
arch=${arch%% *}
result "apk: version, checksums and times are right, and the architecture is OpenWrt's" content "$one" "$arch"
result "apk: -a names the architecture" content "$named" some_arch
every=$(make_apk -o "$apks/every" -b "$apks/elsewhere" mipsel | sed 's/.*-r1_//' | tr '\n' ' ')
result "apk: a package for each architecture of a target" \
    test "$every" = "mipsel_24kc.apk mipsel_24kc_24kf.apk mipsel_74kc.apk "

# later NUMBER: makes a later version with another program and another sample. Prints its path.
later() {
    local change=$apks/change-$1
    rm -rf "$change"
    python3 -B "$PACKAGING/adb_reader.py" unpack "$one" "$change"
    sed -i "s/^pkgver = .*/pkgver = 999.$1-r1/" "$change/control/.PKGINFO"
    cp "$apks/two" "$change/data/usr/sbin/sockproxyd"
    echo '; a new sample' >>"$change/data/etc/sockproxyd.cf"
    "$ROOT/scripts/lib/apk_pack.py" "$change/control" "$change/data" 1700000000 "$apks/later-$1.apk"
    printf '%s\n' "$apks/later-$1.apk"
}

for kind in simulated ${APK_STATIC:+real}; do
    root=$(box "apk-$kind" ash)
    openwrt "$root" main
    # For the program's shared libraries. A released program is static.
    put_program "$daemon" "$root" test/daemon
    # preinst reads the CPU from a program, not from a link.
    install /bin/busybox "$root/bin/busybox"
    mkdir -p "$root/etc/apk"
    echo "$arch" >"$root/etc/apk/arch"
    if [ "$kind" = real ]; then
        put_program "$APK_STATIC" "$root" sbin/apk
        # An empty database.
        mkdir -p "$root"/{lib/apk/db,var/cache/apk,var/log}
        : >"$root/etc/apk/world"
        : >"$root/etc/apk/repositories"
        : >"$root/lib/apk/db/installed"
    else
        install "$PACKAGING/apk" "$root/sbin/apk"
    fi
    for pair in "one=$one" "two=$(later 2)" "three=$(later 3)" "four=$(later 4)" "wrong=$wrong" "noarch=$noarch"; do
        if [ "$kind" = real ]; then
            cp "${pair#*=}" "$root/test/${pair%%=*}.apk"
        else
            # BusyBox cannot read the format.
            python3 -B "$PACKAGING/adb_reader.py" tar "${pair#*=}" "$root/test/${pair%%=*}.apk"
        fi
    done
    inside "$root" packages.sh "apk-$kind" apk
done
