#!/bin/sh
# Inside a box with opkg, real or our stand-in: the life of the package. There are /test/one.ipk, /test/two.ipk
# and later versions with another program and another sample configuration, and /test/wrong.ipk for another CPU.
# usage: packages.sh BOX
box=$1
. /test/check.sh
read -r flavour </etc/flavour

# All that is there, but for what the kernel and the tests make.
files() {
    find / \( -path /proc -o -path /dev -o -path /test -o -path /sys -o -path /var/run/ubus -o -path /usr/lib/opkg \
        -o -path /var/run/procd -o -path /var/lock -o -path /tmp/procd.log -o -path /tmp/files.before \) -prune \
        -o -type f -print -o -type l -print | sort
}
version() {
    tail -n 1 "/proc/$(worker_or_only)/exe"
}
# The process that serves: procd's only one, or the supervised one.
worker_or_only() {
    if [ "$(count)" = 1 ]; then proxies | tr -d ' '; else worker; fi
}

files >/tmp/files.before
cp /etc/passwd /tmp/passwd.before

check "wrong CPU: refused" not opkg install /test/wrong.ipk
check "wrong CPU: and says why" says 'package is for .* another CPU' opkg install /test/wrong.ipk
check "wrong CPU: no program" not test -e /usr/sbin/sockproxyd
check "wrong CPU: no init script" not test -e /etc/init.d/sockproxyd

check "install" opkg install /test/one.ipk
check "it greets when install has returned" greets
check "enabled" test -x /etc/rc.d/S80sockproxyd
check "the sample configuration is there" grep -q '^\[host\]' /etc/sockproxyd.cf
if [ "$flavour" = main ]; then
    check "it has a user" grep -q '^sockproxyd:x:250:250:' /etc/passwd
else
    check "no user where none can be used" cmp /etc/passwd /tmp/passwd.before
fi

before=$(proxies)
check "installed version runs" says 'version one' version
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "upgrade" opkg install /test/two.ipk
check "another process runs" not equal "$(proxies)" "$before"
check "upgraded version runs" says 'version two' version
check "the old one is gone" equal "$(count)" "$(echo "$before" | wc -w | tr -d ' ')"
check "the user's configuration is still there" grep -q port=2611 /etc/sockproxyd.cf
check "and holds" greets 2611
check "the new sample is beside it" grep -q 'a new sample' /etc/sockproxyd.cf-opkg
rm -f /etc/sockproxyd.cf-opkg

before=$(proxies)
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "an upgrade with a broken configuration succeeds" opkg install /test/three.ipk
check "what ran goes on" equal "$(proxies)" "$before"
check "and greets" greets 2611
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
rm -f /etc/sockproxyd.cf-opkg

service stop
service disable
check "an upgrade of what is switched off" opkg install /test/four.ipk
check "starts nothing" eventually number 0
check "enables nothing" not ls /etc/rc.d/S80sockproxyd
service enable
service start
rm -f /etc/sockproxyd.cf-opkg

check "remove" opkg remove sockproxyd
check "it ends" eventually number 0
check "the edited configuration stays" grep -q port=2611 /etc/sockproxyd.cf
rm -f /etc/sockproxyd.cf /tmp/passwd.now
check "the users are as before" cmp /etc/passwd /tmp/passwd.before
rm -f /tmp/passwd.before
check "nothing else is left" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

check "install and remove without an edit" sh -c 'opkg install /test/one.ipk && opkg remove sockproxyd'
check "leaves nothing at all" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

# In place of the Lua daemon.
printf '#!/bin/sh /etc/rc.common\nSTART=80\nstart() { :; }\nstop() { echo stopped >/tmp/lua-stopped; }\n# sockproxyd.lua\n' \
    >/etc/init.d/sockproxyd
chmod 755 /etc/init.d/sockproxyd
service enable
check "install in place of the Lua daemon" opkg install /test/one.ipk
check "ends that first" grep -q stopped /tmp/lua-stopped
check "and greets" greets
opkg remove sockproxyd >/dev/null

# Into an image that is being built, on another machine.
mkdir -p /tmp/image/usr
gunzip -c /test/wrong.ipk | tar -x -C /tmp/image ./control.tar.gz
gunzip -c /tmp/image/control.tar.gz | tar -x -C /tmp/image
for step in preinst postinst; do
    check "$step within an image" env IPKG_INSTROOT=/tmp/image /tmp/image/$step
done
check "links it for the image's boot" equal "$(readlink /tmp/image/etc/rc.d/S80sockproxyd)" ../init.d/sockproxyd
check "and touches nothing here" not ls /etc/rc.d/S80sockproxyd
check "starts nothing here" number 0
