# shellcheck shell=bash
# Part "deb": the contents of the packages for Debian, lintian, and the real dpkg in boxes with systemd (whose commands
# are recorded) and with SysV init.

apt_need dpkg-deb=dpkg tar cc=gcc lintian
apt_install libc6-dev
here=$(this_machine)

deb=$work/deb
mkdir -p "$deb"/{again,later,static}
make_deb() {
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/deb" "$@" 2>/dev/null
}
{ cat "$daemon"; echo; echo "version one"; } >"$deb/one"
{ cat "$daemon"; echo; echo "version two"; } >"$deb/two"
one=$(make_deb -o "$deb" -b "$deb/one" "$here")
two=$(make_deb -o "$deb/later" -b "$deb/two" "$here")
(umask 077; make_deb -o "$deb/again" -b "$deb/one" "$here" >/dev/null)
result "deb: the same input gives the same package" cmp "$one" "$deb/again/${one##*/}"

# A later version, with another sample configuration.
dpkg-deb --raw-extract "$two" "$deb/change"
sed -i 's/^Version: .*/Version: 999.2-1/' "$deb/change/DEBIAN/control"
echo '; a new sample' >>"$deb/change/etc/sockproxyd.cf"
dpkg-deb --root-owner-group --build "$deb/change" "$deb/two.deb" >/dev/null

files=$(dpkg-deb --fsys-tarfile "$one" | tar -tvf - --numeric-owner)
result "deb: everything belongs to root" test -z "$(awk '$2 != "0/0"' <<<"$files")"
result "deb: times are SOURCE_DATE_EPOCH" test "$(TZ=UTC dpkg-deb --fsys-tarfile "$one" | TZ=UTC tar -tvf - | awk '{ print $4 }' | sort -u)" = 2023-11-14
for version in 5.1 5.4; do
    result "deb: the Lua libraries, for Lua $version" diff \
        <(cd "$ROOT" && find luup/client luup/compat -name 'L_*.lua' -printf '%f\n' | LC_ALL=C sort) \
        <(sed -n "s|.* ./usr/share/lua/$version/\([^ ]\+\).*|\1|p" <<<"$files" | LC_ALL=C sort)
done
result "deb: the conffiles" diff <(printf '%s\n' /etc/init.d/sockproxyd /etc/sockproxyd.cf) <(dpkg-deb --ctrl-tarfile "$one" | tar -xO ./conffiles)
program=$("$daemon" --version)
result "deb: the version is the program's" test "$(dpkg-deb -f "$one" Version)" = "${program#sockproxyd }-1"
dpkg-deb --extract "$one" "$deb/extracted"
result "deb: unit and script start the program of the package" \
    sh -c "! grep -r /usr/local/sbin/ '$deb/extracted/etc' '$deb/extracted/usr/lib/systemd'"
for name in aarch64:arm64 armv7:armhf arm:armel x86_64:amd64; do
    result "deb: ${name%:*} is called ${name#*:}" test "$(make_deb -o "$deb/static" -b "$deb/one" "${name%:*}")" = \
        "$deb/static/sockproxyd_${program#sockproxyd }-1_${name#*:}.deb"
done
result "deb: Debian has no mips" sh -c "! '$ROOT/scripts/deb' -o '$deb/static' -b '$deb/one' mips 2>/dev/null"

# The copies of a function, since each script is alone when it runs.
lua_daemons_in() {
    sed -n '/^lua_daemons() {/,/^}/p' "$ROOT/$1" | tr -d ' \t'
}
same_lua_daemons() {
    lua_daemons_in init.d/install.sh | grep -q . && diff <(lua_daemons_in init.d/install.sh) <(lua_daemons_in "$1")
}
for script in openwrt/ipk/preinst packaging/deb/postinst; do
    result "deb: install.sh and $script find the Lua daemon in the same way" same_lua_daemons "$script"
done

# lintian looks at the program, too: this one is static, as a release's is.
echo 'int main(void) { return 0; }' | cc -x c -O1 -static -s -o "$deb/static/program" -
strip -R .comment "$deb/static/program"
lintian_says() {
    local said
    said=$(lintian --profile debian --display-info "$1" 2>&1 | grep -v 'running with root privileges') || :
    printf '%s\n' "$said"
    [ -z "$said" ]
}
result "deb: lintian has nothing to say" lintian_says "$(make_deb -o "$deb/static" -b "$deb/static/program" "$here")"

# debian_box NAME: makes a box with dpkg, simulations of the programs that maintainer scripts call, and the packages.
debian_box() {
    local root name
    root=$(box "deb-$1" dash)
    mkdir -p "$root"/{etc/rc{0,1,2,3,4,5,6}.d,run,var/log,usr/local/sbin} "$root"/var/lib/dpkg/{info,updates,triggers,parts,alternatives}
    : >"$root/var/lib/dpkg/available"
    for name in adduser init-system-helpers; do
        printf 'Package: %s\nStatus: install ok installed\nMaintainer: x\nArchitecture: all\nVersion: 9\nDescription: x\n\n' "$name"
    done >"$root/var/lib/dpkg/status"
    for name in dpkg dpkg-deb dpkg-query dpkg-split dpkg-statoverride tar start-stop-daemon; do
        rm -f "$root/bin/$name" "$root/usr/bin/$name" "$root/sbin/$name" "$root/usr/sbin/$name"
        put_program "$(command -v "$name")" "$root" "usr/bin/$name"
    done
    printf '#!/bin/sh\n' >"$root/sbin/ldconfig"
    users "$root"
    cat >"$root/usr/sbin/adduser" <<'ADDUSER'
#!/bin/sh
for name; do :; done
grep -q "^$name:" /etc/passwd || exec useradd "$name"
ADDUSER
    for name in deb-systemd-helper deb-systemd-invoke systemctl update-rc.d; do
        printf '#!/bin/sh\necho "%s $*" >>/tmp/calls\n' "$name" >"$root/usr/sbin/$name"
    done
    cat >"$root/usr/sbin/invoke-rc.d" <<'INVOKE'
#!/bin/sh
[ -d /run/systemd/system ] || exec "/etc/init.d/$2" "$3"
INVOKE
    chmod 755 "$root/sbin/ldconfig" "$root"/usr/sbin/{adduser,deb-systemd-helper,deb-systemd-invoke,systemctl,update-rc.d,invoke-rc.d}
    # For the program's shared libraries. A released program is static.
    put_program "$daemon" "$root" test/daemon
    cp "$one" "$root/test/one.deb"
    cp "$deb/two.deb" "$root/test/two.deb"
    cp "$deb/one" "$deb/two" "$root/test/"
    printf '%s\n' "$root"
}
for kind in sysv systemd; do
    root=$(debian_box "$kind")
    [ "$kind" = sysv ] || mkdir -p "$root/run/systemd/system" "$root/etc/systemd/system"
    inside "$root" deb.sh "deb-$kind" "$kind"
done
