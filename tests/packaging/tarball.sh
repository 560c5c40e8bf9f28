#!/bin/sh
# Inside a box with an archive at /test/archive and a later one at /test/later: installing, upgrading, removing.
# usage: tarball.sh BOX KIND PROGRAM     KIND: the kind that install.sh should detect
box=$1 kind=$2 program=$3
. /test/check.sh

install=/test/archive/install.sh
upgrade=/test/later/install.sh
files() {
    find / \( -path /proc -o -path /dev -o -path /test -o -path /run -o -path /var/run -o -path /var/lock \
        -o -path /tmp/files.before -o -path /tmp/calls \) -prune -o \( -type f -o -type l \) -print | sort
}
left() {
    files | grep -v -x -F -f /tmp/files.before
}
keys=/etc/sockproxyd.d
case $kind in
    sysv | systemd) key="$keys/key.pem " ;;
    *) key= ;;
esac
# True for the kinds whose services can run in a box.
has_services() {
    [ "$kind" = openwrt ] || [ "$kind" = sysv ]
}
serving() {
    if [ "$(count)" = 1 ]; then proxies | tr -d ' '; else worker; fi
}

files >/tmp/files.before
check "detect prints the kind" equal "$(sh $install detect)" "$kind"
check "wrong usage" sh -c "sh $install --no-such 2>/dev/null; [ \$? = 2 ]"
mv /test/archive/sockproxyd /test/archive/away
printf '#!/bin/sh\necho "not for this CPU" >&2\nexit 126\n' >/test/archive/sockproxyd
chmod 755 /test/archive/sockproxyd
check "a program that does not run here is refused" says 'does not run here' sh $install
check "the refused install leaves no file" equal "$(left)" ""
mv /test/archive/away /test/archive/sockproxyd

check "install" sh $install
check "the program is installed" cmp /test/archive/sockproxyd "$program"
case $kind in
    openwrt) modules=/usr/lib/lua ;;
    *) modules=/usr/local/share/lua/5.1 ;;
esac
check "the Lua libraries are installed" sh -c "cd /test/archive/lua && for f in L_*.lua; do cmp \$f $modules/\$f || exit; done"
check "the configuration is installed" cmp /test/archive/sockproxyd.cf /etc/sockproxyd.cf
case $kind in
    openwrt)
        check "install enables the proxy" test -x /etc/rc.d/S80sockproxyd
        check "the settings of UCI are installed" cmp /test/archive/openwrt/sockproxyd.config /etc/config/sockproxyd
        check "a firmware upgrade keeps certificates and keys" grep -qx /etc/sockproxyd.d /lib/upgrade/keep.d/sockproxyd
        check "a firmware upgrade keeps the settings of UCI" grep -qx /etc/config/sockproxyd /lib/upgrade/keep.d/sockproxyd
        if [ -f /sbin/sysupgrade ]; then
            sysupgrade >/tmp/kept
            for link in S80sockproxyd K80sockproxyd; do
                check "an old firmware upgrade keeps $link" grep -qx /etc/rc.d/$link /tmp/kept
            done
            rm -f /tmp/kept
            check "the proxy is enabled" service enabled
            service stop
            check "a start at boot" /etc/rc.d/S80sockproxyd boot
            check "a stop at shutdown" /etc/rc.d/K80sockproxyd shutdown
            check "the stop at shutdown ends the proxy" number 0
            service start
        fi
        check "a firmware upgrade keeps the program" grep -qx "$program" /lib/upgrade/keep.d/sockproxyd
        check "a firmware upgrade keeps the Lua libraries" grep -qx "$modules/L_SockProxyClient.lua" /lib/upgrade/keep.d/sockproxyd
        ;;
    sysv)
        check "install adds the start link" test -x /etc/rc2.d/S20sockproxyd
        check "install adds the stop link" test -x /etc/rc0.d/K20sockproxyd
        ;;
    systemd)
        check "the unit is installed" test -f /etc/systemd/system/sockproxyd.service
        check "install calls systemctl" equal "$(tr '\n' ';' </tmp/calls)" "daemon-reload;enable sockproxyd.service;restart sockproxyd.service;"
        ;;
esac
if has_services; then
    check "the proxy greets when install has returned" greets
fi

case $kind in
    sysv | systemd)
        check "install makes a user" grep -q '^sockproxyd:' /etc/passwd
        check "install makes a directory of keys that the user owns" equal "$(/test/busybox stat -c '%U:%G %a' $keys)" "sockproxyd:sockproxyd 2750"
        # shellcheck disable=SC2016 # the inner shell expands it
        check "a key that root puts there can be read by the user's group alone" sh -c \
            'umask 027; echo key >$1/key.pem; [ "$(/test/busybox stat -c "%G %a" $1/key.pem)" = "sockproxyd 640" ]' sh $keys
        ;;
esac

before=$(proxies)
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "upgrade" sh $upgrade
check "the upgrade installs the later program" cmp /test/later/sockproxyd "$program"
check "the edited configuration is kept" grep -q port=2611 /etc/sockproxyd.cf
if has_services; then
    check "the proxy greets at the configured port" greets 2611
    check "the upgrade starts another process" not equal "$(proxies)" "$before"
    check "that process runs the later program" says 'version two' tail -n 1 "/proc/$(serving)/exe"
fi

: >/tmp/calls
check "uninstall keeps an edited configuration" says 'was edited and stays' sh $upgrade uninstall
check "the edited configuration is still there" grep -q port=2611 /etc/sockproxyd.cf
check "uninstall ends the proxy" eventually number 0
check "uninstall leaves the configuration, and keys" equal "$(left | tr '\n' ' ')" "/etc/sockproxyd.cf $key"
if [ -n "$key" ]; then
    check "the user stays with the keys" grep -q '^sockproxyd:' /etc/passwd
    rm -f $keys/key.pem
else
    check "uninstall removes the folder of keys" not test -e $keys
fi
[ "$kind" != systemd ] || check "uninstall calls systemctl" equal "$(tr '\n' ';' </tmp/calls)" "disable --now sockproxyd.service;daemon-reload;"
rm -f /etc/sockproxyd.cf

check "install again" sh $install
check "uninstall" sh $install uninstall
check "uninstall leaves no file" equal "$(left)" ""
check "uninstall leaves no directory and no user" sh -c "[ ! -d $keys ] && ! grep -q '^sockproxyd:' /etc/passwd"
check "install again, for purge" sh $install
echo '; edited' >>/etc/sockproxyd.cf
check "purge" sh $install --purge
check "purge leaves no file" equal "$(left)" ""
check "no process runs after purge" eventually number 0

# Replacing a Lua daemon that has the port, however it was started. Our own program, renamed, takes foreign part.
if has_services; then
    mkdir /tmp/old
    cp /test/archive/sockproxyd /tmp/old/lua5.1
    # "./sockproxyd" is its log file.
    (cd /tmp/old && exec /tmp/old/lua5.1 -L ./sockproxyd) &
    check "the Lua daemon has the port" eventually greets
    check "install while the Lua daemon runs" says 'ending the Lua daemon' sh $install
    check "install ends the Lua daemon" not pidof lua5.1
    check "the proxy greets in its place" greets
    check "the installed program runs in its place" says 'version one' tail -n 1 "/proc/$(serving)/exe"
    sh $install --purge >/dev/null
fi

# The Lua daemon's own script or unit, and its restoration.
case $kind in
    sysv) foreign=/etc/init.d/sockproxyd ;;
    systemd) foreign=/etc/systemd/system/sockproxyd.service ;;
    *) foreign= ;;
esac
if [ -n "$foreign" ]; then
    printf '#!/bin/sh\n# starts lua5.1 /opt/sockproxyd.lua\n' >"$foreign"
    cp "$foreign" /tmp/foreign
    check "a foreign script is saved" says "moved the existing $foreign" sh $install
    check "our script replaces it" grep -q 'Socket proxy for Luup plugins' "$foreign"
    sh $upgrade >/dev/null
    check "uninstall restores it, after an upgrade, too" says "restored the previous $foreign" sh $upgrade --purge
    check "the restored file is unchanged" cmp /tmp/foreign "$foreign"
    rm -f "$foreign" /tmp/foreign
    : >/tmp/calls
fi
printf '@reboot root lua5.1 /opt/sockproxyd.lua &\n' >/etc/crontab
check "another file that starts the Lua daemon is named" says '/etc/crontab starts the Lua daemon' sh $install
printf '# lua5.1 /opt/sockproxyd.lua\n@reboot root /usr/local/sbin/sockproxyd --supervise\n' >/etc/crontab
check "a file that starts our proxy is not named" not sh -c "sh $install 2>&1 | grep crontab"
rm -f /etc/crontab
sh $install --purge >/dev/null
check "the last purge leaves no file" equal "$(left | grep -v '^/tmp/old/')" ""

mkdir -p /usr/lib/opkg/info
: >/usr/lib/opkg/info/sockproxyd.list
check "install refuses beside an opkg package" says 'use opkg' sh $install
rm -f /usr/lib/opkg/info/sockproxyd.list

printf '#!/bin/sh\necho install ok installed\n' >/usr/bin/dpkg-query
chmod 755 /usr/bin/dpkg-query
check "install refuses beside a package for Debian" says 'use apt' sh $install
rm -f /usr/bin/dpkg-query
