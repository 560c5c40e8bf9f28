#!/bin/sh
# Inside a box with dpkg: installing, upgrading, removing and purging the package /test/one.deb, and the later one
# /test/two.deb. dpkg's programs are called by their paths, since the shell of the box would run its applets of the same names.
# usage: deb.sh BOX sysv|systemd
box=$1 kind=$2
. /test/check.sh
keys=/etc/sockproxyd.d

files() {
    find / \( -path /proc -o -path /dev -o -path /test -o -path /run -o -path /var/run -o -path /var/lock \
        -o -path /var/lib/dpkg -o -path /tmp \) -prune -o \( -type f -o -type l -o -type d \) -print | sort
}
left() {
    files | grep -v -x -F -f /tmp/files.before
}
add() {
    DEBIAN_FRONTEND=noninteractive /usr/bin/dpkg --force-confold -i "$1"
}
# calls EXPECTED: the calls of the simulated programs since the last time, each ended by ";".
calls() {
    [ "$kind" = systemd ] || { rm -f /tmp/calls; return 0; }
    made=$(grep -v 'update-rc.d' /tmp/calls | tr '\n' ';')
    rm -f /tmp/calls
    equal "$made" "$1"
}
running() {
    [ "$kind" != sysv ] || "$@"
}
enabled='deb-systemd-helper unmask sockproxyd.service;deb-systemd-helper --quiet was-enabled sockproxyd.service;deb-systemd-helper enable sockproxyd.service;systemctl --system daemon-reload;'

files >/tmp/files.before
: >/usr/local/sbin/sockproxyd
check "beside install.sh's program the package refuses" says "uninstall' first" add /test/one.deb
check "the refused package installs nothing" not test -e /usr/sbin/sockproxyd
rm -f /usr/local/sbin/sockproxyd
if [ "$kind" = systemd ]; then
    : >/etc/systemd/system/sockproxyd.service
    check "beside a unit of this name the package refuses" says "Move it away" add /test/one.deb
    rm -f /etc/systemd/system/sockproxyd.service
fi
/usr/bin/dpkg --purge sockproxyd >/dev/null 2>&1
printf '#!/bin/sh\necho armv6l\n' >/usr/sbin/uname
chmod 755 /usr/sbin/uname
mkdir /tmp/control
/usr/bin/dpkg-deb --control /test/one.deb /tmp/control
check "the armhf package refuses an ARMv6" says 'dpkg --add-architecture armel' env DPKG_MAINTSCRIPT_ARCH=armhf /bin/sh /tmp/control/preinst install
check "the armel package accepts an ARMv6" env DPKG_MAINTSCRIPT_ARCH=armel /bin/sh /tmp/control/preinst install
rm -rf /usr/sbin/uname /tmp/control /tmp/calls

check "install" add /test/one.deb
check "the program is installed" cmp /test/one /usr/sbin/sockproxyd
check "install enables and starts the unit" calls "${enabled}deb-systemd-invoke start sockproxyd.service;"
check "the proxy greets when install has returned" running greets
check "the proxy has a user" grep -q '^sockproxyd:' /etc/passwd
check "the user owns the directory of keys" equal "$(/test/busybox stat -c '%U:%G %a' $keys)" "sockproxyd:sockproxyd 2750"
check "every file has the checksum of the package" sh -c 'cd / && busybox md5sum -c -s /var/lib/dpkg/info/sockproxyd.md5sums'

printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
chmod 700 $keys
before=$(proxies)
check "upgrade" add /test/two.deb
check "the later program is installed" cmp /test/two /usr/sbin/sockproxyd
check "the edited configuration is kept" grep -q port=2611 /etc/sockproxyd.cf
check "the new sample is beside it" grep -q '; a new sample' /etc/sockproxyd.cf.dpkg-dist
check "the changed mode of the directory is kept" equal "$(/test/busybox stat -c '%a' $keys)" 700
check "upgrade restarts the unit" calls "${enabled}deb-systemd-invoke restart sockproxyd.service;"
check "the proxy greets at the configured port" running greets 2611
check "upgrade starts another process" running not equal "$(proxies)" "$before"

: >$keys/key.pem
check "remove" /usr/bin/dpkg --remove sockproxyd
check "remove stops the unit" calls "deb-systemd-invoke stop sockproxyd.service;systemctl --system daemon-reload;"
check "no process runs after remove" eventually number 0
check "remove leaves conffiles and keys" equal "$(left | tr '\n' ' ')" \
    "/etc/init.d/sockproxyd /etc/sockproxyd.cf /etc/sockproxyd.cf.dpkg-dist $keys $keys/key.pem $([ "$kind" = systemd ] || echo '/var/log/sockproxyd /var/log/sockproxyd/sockproxyd.log ')"
check "install again" add /test/two.deb
check "the configuration was kept" grep -q port=2611 /etc/sockproxyd.cf
check "the proxy greets again" running greets 2611
rm -f $keys/key.pem /tmp/calls
check "purge" /usr/bin/dpkg --purge sockproxyd
check "purge removes the unit's state" calls "deb-systemd-invoke stop sockproxyd.service;systemctl --system daemon-reload;deb-systemd-helper purge sockproxyd.service;"
check "purge leaves nothing" equal "$(left)" ""
check "no process runs after purge" eventually number 0

# A program that takes the Lua daemon's part.
mkdir /tmp/old
cp /test/daemon /tmp/old/lua5.1
(cd /tmp/old && exec /tmp/old/lua5.1 -L ./sockproxyd) &
check "the Lua daemon has the port" eventually greets
check "install names the Lua daemon" says 'the Lua daemon (process [0-9]*) has the port' add /test/one.deb
