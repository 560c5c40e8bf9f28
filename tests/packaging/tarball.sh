#!/bin/sh
# Inside a box that has an archive unpacked at /test/archive and a later one at /test/later: install, upgrade, uninstall.
# usage: tarball.sh BOX KIND PROGRAM     KIND: what install.sh should find the box to be
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
# The kinds that can be started here.
starts() {
    [ "$kind" = openwrt ] || [ "$kind" = sysv ]
}
serving() {
    if [ "$(count)" = 1 ]; then proxies | tr -d ' '; else worker; fi
}

files >/tmp/files.before
check "the kind of box" equal "$(sh $install detect)" "$kind"
check "wrong usage" sh -c "sh $install --no-such 2>/dev/null; [ \$? = 2 ]"
mv /test/archive/sockproxyd /test/archive/away
printf '#!/bin/sh\necho "not for this CPU" >&2\nexit 126\n' >/test/archive/sockproxyd
chmod 755 /test/archive/sockproxyd
check "a program that does not run here is refused" says 'does not run here' sh $install
check "and nothing is installed" equal "$(left)" ""
mv /test/archive/away /test/archive/sockproxyd

check "install" sh $install
check "the program is there" cmp /test/archive/sockproxyd "$program"
case $kind in
    openwrt) modules=/usr/lib/lua ;;
    *) modules=/usr/local/share/lua/5.1 ;;
esac
check "the Lua libraries are there" sh -c "cd /test/archive/lua && for f in L_*.lua; do cmp \$f $modules/\$f || exit; done"
check "the configuration is there" cmp /test/archive/sockproxyd.cf /etc/sockproxyd.cf
case $kind in
    openwrt)
        check "enabled" test -x /etc/rc.d/S80sockproxyd
        check "new firmware keeps it" grep -qx "$program" /lib/upgrade/keep.d/sockproxyd
        check "and the Lua libraries" grep -qx "$modules/L_SockProxyClient.lua" /lib/upgrade/keep.d/sockproxyd
        ;;
    sysv)
        check "enabled" test -x /etc/rc2.d/S20sockproxyd
        check "ended at the end" test -x /etc/rc0.d/K20sockproxyd
        ;;
    systemd)
        check "the unit is there" test -f /etc/systemd/system/sockproxyd.service
        check "systemd is told" equal "$(tr '\n' ';' </tmp/calls)" "daemon-reload;enable sockproxyd.service;restart sockproxyd.service;"
        ;;
esac
if starts; then
    check "it greets when install has returned" greets
fi

before=$(proxies)
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "upgrade" sh $upgrade
check "the program is the later one" cmp /test/later/sockproxyd "$program"
check "the user's configuration is still there" grep -q port=2611 /etc/sockproxyd.cf
if starts; then
    check "it greets at the user's port" greets 2611
    check "it is another process" not equal "$(proxies)" "$before"
    check "of the later program" says 'version two' tail -n 1 "/proc/$(serving)/exe"
fi

: >/tmp/calls
check "uninstall keeps an edited configuration" says 'was edited and stays' sh $upgrade uninstall
check "it is still there" grep -q port=2611 /etc/sockproxyd.cf
check "nothing runs" eventually number 0
check "nothing else is left" equal "$(left)" /etc/sockproxyd.cf
[ "$kind" != systemd ] || check "systemd is told" equal "$(tr '\n' ';' </tmp/calls)" "disable --now sockproxyd.service;daemon-reload;"
rm -f /etc/sockproxyd.cf

check "install again" sh $install
check "uninstall" sh $install uninstall
check "leaves nothing" equal "$(left)" ""
check "install again, for purge" sh $install
echo '; edited' >>/etc/sockproxyd.cf
check "purge" sh $install --purge
check "leaves nothing, either" equal "$(left)" ""
check "nothing runs in the end" eventually number 0

# In place of the Lua daemon, which has the port, whoever started it. Here our own program goes by its name.
if starts; then
    mkdir /tmp/old
    cp /test/archive/sockproxyd /tmp/old/lua5.1
    # "./sockproxyd" is its log.
    (cd /tmp/old && exec /tmp/old/lua5.1 -L ./sockproxyd) &
    check "the Lua daemon has the port" eventually greets
    check "install in its place" says 'ending the Lua daemon' sh $install
    check "it has ended" not pidof lua5.1
    check "and ours greets" greets
    check "as a program of its own" says 'version one' tail -n 1 "/proc/$(serving)/exe"
    sh $install --purge >/dev/null
fi

# What started it, and how to go back.
case $kind in
    sysv) its=/etc/init.d/sockproxyd ;;
    systemd) its=/etc/systemd/system/sockproxyd.service ;;
    *) its= ;;
esac
if [ -n "$its" ]; then
    printf '#!/bin/sh\n# starts lua5.1 /opt/sockproxyd.lua\n' >"$its"
    cp "$its" /tmp/its
    check "a script of another's is kept" says "kept the $its" sh $install
    check "and ours takes its place" grep -q 'Socket proxy for Luup plugins' "$its"
    sh $upgrade >/dev/null
    check "uninstall puts it back, after an upgrade, too" says "put back the $its" sh $upgrade --purge
    check "as it was" cmp /tmp/its "$its"
    rm -f "$its" /tmp/its
    : >/tmp/calls
fi
printf '@reboot root lua5.1 /opt/sockproxyd.lua &\n' >/etc/crontab
check "who else starts the Lua daemon is named" says '/etc/crontab starts the Lua daemon' sh $install
printf '# lua5.1 /opt/sockproxyd.lua\n@reboot root /usr/local/sbin/sockproxyd --supervise\n' >/etc/crontab
check "but who starts ours is not" not sh -c "sh $install 2>&1 | grep crontab"
rm -f /etc/crontab
sh $install --purge >/dev/null
check "and nothing is left of all that" equal "$(left | grep -v '^/tmp/old/')" ""

mkdir -p /usr/lib/opkg/info
: >/usr/lib/opkg/info/sockproxyd.list
check "what opkg has installed is refused" says 'use opkg' sh $install
rm -f /usr/lib/opkg/info/sockproxyd.list
