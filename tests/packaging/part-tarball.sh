# shellcheck shell=bash
# Part "tarball": the archive and its install script, on each kind of system that it supports.

here=$(this_machine)

archives=$work/tarball
mkdir -p "$archives"/{again,later}
make_archive() {
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/tarball" "$@"
}
{ cat "$daemon"; echo; echo "version one"; } >"$archives/one"
{ cat "$daemon"; echo; echo "version two"; } >"$archives/two"
one=$(make_archive -o "$archives" -b "$archives/one" "$here")
two=$(make_archive -o "$archives/later" -b "$archives/two" "$here")
(umask 077; make_archive -o "$archives/again" -b "$archives/one" "$here" >/dev/null)
result "tarball: the same input gives the same archive" cmp "$one" "$archives/again/${one##*/}"
result "tarball: all in one folder" test "$(tar -tzf "$one" | cut -d/ -f1 | sort -u)" = "$(basename "$one" .tar.gz)"

# archive_box NAME SHELL: makes a box with both archives unpacked.
archive_box() {
    local root
    root=$(box "ball-$1" "$2")
    mkdir -p "$root"/test/{archive,later}
    # For the program's shared libraries. A released program is static.
    put_program "$daemon" "$root" test/daemon
    install /bin/busybox "$root/bin/busybox"
    tar -xzf "$one" -C "$root/test/archive" --strip-components=1
    tar -xzf "$two" -C "$root/test/later" --strip-components=1
    printf '%s\n' "$root"
}

root=$(archive_box openwrt ash)
openwrt "$root" main
mkdir -p "$root/lib/upgrade/keep.d"
inside "$root" tarball.sh ball-openwrt openwrt /usr/sbin/sockproxyd

root=$(archive_box vera ash)
openwrt "$root" aa
mkdir -p "$root/lib/upgrade/keep.d"
# As up to OpenWrt 14.07: it keeps no links.
cat >"$root/sbin/sysupgrade" <<'SYSUPGRADE'
#!/bin/sh
# Prints the files that a firmware upgrade keeps.
find $(cat /lib/upgrade/keep.d/*) -type f 2>/dev/null
SYSUPGRADE
chmod 755 "$root/sbin/sysupgrade"
inside "$root" tarball.sh ball-vera openwrt /usr/sbin/sockproxyd

root=$(archive_box sysv dash)
users "$root"
mkdir -p "$root"/etc/rc{0,1,2,3,4,5,6}.d "$root"/{run,var/log}
rm -f "$root/sbin/start-stop-daemon"
put_program "$(command -v start-stop-daemon)" "$root" sbin/start-stop-daemon
inside "$root" tarball.sh ball-sysv sysv /usr/local/sbin/sockproxyd

# A systemctl that only records its arguments.
root=$(archive_box systemd dash)
users "$root"
mkdir -p "$root/run/systemd/system" "$root/etc/systemd/system"
cat >"$root/usr/bin/systemctl" <<'SYSTEMCTL'
#!/bin/sh
echo "$*" >>/tmp/calls
SYSTEMCTL
chmod 755 "$root/usr/bin/systemctl"
inside "$root" tarball.sh ball-systemd systemd /usr/local/sbin/sockproxyd

root=$(archive_box none dash)
rm -rf "$root/etc/init.d" "$root/sbin/start-stop-daemon"
inside "$root" tarball.sh ball-none none /usr/local/sbin/sockproxyd
