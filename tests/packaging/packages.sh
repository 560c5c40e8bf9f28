#!/bin/sh
# Inside a box with opkg or apk, real or simulated: installing, upgrading and removing the package. The files
# are /test/one.ipk (or .apk), /test/two.ipk and later versions with another program and another sample
# configuration, and /test/wrong.ipk for another CPU. For apk, /test/noarch.apk is for another CPU, too, but says that it is
# for all.
# usage: packages.sh BOX opkg|apk
box=$1 manager=$2
. /test/check.sh
read -r flavour </etc/flavour

case $manager in
    opkg)
        add() { opkg install "$1"; }
        remove() { opkg remove sockproxyd; }
        sample=/etc/sockproxyd.cf-opkg suffix=ipk
        ;;
    apk)
        add() { apk add --allow-untrusted "$1"; }
        remove() { apk del sockproxyd; }
        sample=/etc/sockproxyd.cf.apk-new suffix=apk
        ;;
esac

# Lists all files except those that the kernel and the tests make.
files() {
    find / \( -path /proc -o -path /dev -o -path /test -o -path /sys -o -path /var/run/ubus -o -path /usr/lib/opkg \
        -o -path /lib/apk/db -o -path /etc/apk -o -path /var/log -o -path /var/cache -o -path /lib/apk/exec \
        -o -path /var/run/procd -o -path /var/lock -o -path /tmp/procd.log -o -path /tmp/files.before \) -prune \
        -o -type f -print -o -type l -print | sort
}
version() {
    tail -n 1 "/proc/$(worker_or_only)/exe"
}
# Prints the process that serves: procd's only one, or the supervised one.
worker_or_only() {
    if [ "$(count)" = 1 ]; then proxies | tr -d ' '; else worker; fi
}

cp /etc/passwd /tmp/passwd.before

# apk removes a folder with its last file.
: >/etc/init.d/boot
files >/tmp/files.before

wrong=$(add "/test/wrong.$suffix" 2>&1)
check "wrong CPU: refused" test $? != 0
case $manager in
    opkg) check "wrong CPU: the reason is given" says 'package is for .* another CPU' echo "$wrong" ;;
    apk) check "wrong CPU: the reason is given" says 'arch: mipsel_24kc' echo "$wrong" ;;
esac
if [ "$manager" = apk ]; then
    wrong=$(add /test/noarch.apk 2>&1)
    check "wrong CPU, noarch: an error" test $? != 0
    check "wrong CPU, noarch: the reason is given" says 'package is for .* another CPU' echo "$wrong"
    # apk installs the files even if a script fails.
    check "wrong CPU, noarch: the remedy is given" says 'does not run here' echo "$wrong"
    check "wrong CPU, noarch: the proxy is not enabled" not ls /etc/rc.d/S80sockproxyd
    check "wrong CPU, noarch: no process runs" number 0
    remove >/dev/null
fi
check "wrong CPU: no program" not test -e /usr/sbin/sockproxyd
check "wrong CPU: no init script" not test -e /etc/init.d/sockproxyd

# Left by the archive with the install script, which was here before.
mkdir -p /lib/upgrade/keep.d
echo /usr/sbin/sockproxyd >/lib/upgrade/keep.d/sockproxyd

check "install" add "/test/one.$suffix"
check "the proxy greets when install has returned" greets
check "install enables the proxy" test -x /etc/rc.d/S80sockproxyd
check "the Lua libraries are installed" test -s /usr/lib/lua/L_SockProxyClient.lua
check "the sample configuration is installed" grep -q '^\[host\]' /etc/sockproxyd.cf
check "the settings of UCI are installed" grep -q '^config host' /etc/config/sockproxyd
check "a firmware upgrade keeps certificates and keys, and what else the package manager knows" \
    equal "$(cat /lib/upgrade/keep.d/sockproxyd)" /etc/sockproxyd.d
check "the folder of keys is there" test -d /etc/sockproxyd.d
if [ "$flavour" = aa ]; then
    check "cron has a line for a proxy that was killed" grep -q 'init.d/sockproxyd watch$' /etc/crontabs/root
    # shellcheck disable=SC2046 # one word a process
    kill -9 $(proxies)
    eventually number 0
    sh -c "$(sed -n 's/^\* \* \* \* \* //p' /etc/crontabs/root)"
    check "cron's line starts a proxy that was killed" greets
else
    check "procd restarts it, cron does not" not ls /etc/crontabs/root
fi
if [ "$flavour" = main ]; then
    check "the user sockproxyd exists" grep -q '^sockproxyd:x:250:250:' /etc/passwd
else
    check "no user is added where procd cannot set one" cmp /etc/passwd /tmp/passwd.before
fi

before=$(proxies)
check "installed version runs" says 'version one' version
check "wrong CPU, over this: refused" not add "/test/wrong.$suffix"
check "wrong CPU, over this: the proxy continues" equal "$(proxies)" "$before"
check "wrong CPU, over this: the program is the same" says 'version one' tail -n 1 /usr/sbin/sockproxyd
check "wrong CPU, over this: a restart" service restart
check "wrong CPU, over this: the proxy greets" eventually greets
before=$(proxies)
printf '[host]\nport=2610\n' >/etc/sockproxyd.cf
printf "config host 'host'\n\toption port '2611'\n" >/etc/config/sockproxyd
check "upgrade" add "/test/two.$suffix"
check "the upgrade starts another process" not equal "$(proxies)" "$before"
check "upgraded version runs" says 'version two' version
check "the old process has ended" equal "$(count)" "$(echo "$before" | wc -w | tr -d ' ')"
check "the edited configuration is kept" grep -q port=2610 /etc/sockproxyd.cf
check "the edited settings of UCI are kept" grep -q 2611 /etc/config/sockproxyd
check "the edited settings apply" greets 2611
rm -f /etc/config/sockproxyd
check "the new sample is stored beside it" grep -q 'a new sample' "$sample"
rm -f "$sample"

before=$(proxies)
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "an upgrade with a broken configuration succeeds" add "/test/three.$suffix"
check "the running proxy continues" equal "$(proxies)" "$before"
check "the running proxy greets" greets 2611
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
rm -f "$sample"

service stop
service disable
check "an upgrade of a disabled proxy" add "/test/four.$suffix"
check "the upgrade does not start it" eventually number 0
check "the upgrade does not enable it" not ls /etc/rc.d/S80sockproxyd
service enable
service start
check "the sample is stored beside the configuration" test -f "$sample"

check "remove" remove
check "cron forgets it" not ls /etc/crontabs/root
check "remove ends the proxy" eventually number 0
check "remove keeps the edited configuration" grep -q port=2611 /etc/sockproxyd.cf
rm -f /etc/sockproxyd.cf /tmp/passwd.now
check "remove restores the users" cmp /etc/passwd /tmp/passwd.before
rm -f /tmp/passwd.before
check "remove leaves no other file" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

both() {
    add "/test/one.$suffix" && remove
}
check "install and remove without an edit" both
check "install and remove leave no file" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

# Replacing the Lua daemon: one that its script cannot end. Our own program, renamed so that it looks like "lua
# ... sockproxyd.lua", has the port.
mkdir -p /tmp/old /etc/init.d
cp /test/daemon /tmp/old/lua
cat >/etc/init.d/sockproxyd <<'SCRIPT'
#!/bin/sh /etc/rc.common
START=80
start() { /tmp/old/lua -L /tmp/old/sockproxyd.lua & }
stop() { echo stopped >/tmp/lua-stopped; }
SCRIPT
chmod 755 /etc/init.d/sockproxyd
service enable
service start >/dev/null 2>&1
check "the Lua daemon has the port" eventually greets
check "install while the Lua daemon runs" add "/test/one.$suffix"
check "install calls stop of the Lua daemon's script" grep -q stopped /tmp/lua-stopped
check "install ends the Lua daemon" not pidof lua
check "the proxy greets in its place" greets
check "the installed version runs in its place" says 'version one' version
remove >/dev/null

[ "$manager" = opkg ] || exit 0

# Into an image that is built on another machine.
mkdir -p /tmp/image/usr
gunzip -c "/test/wrong.$suffix" | tar -x -C /tmp/image ./control.tar.gz
gunzip -c /tmp/image/control.tar.gz | tar -x -C /tmp/image
for step in preinst postinst; do
    check "$step within an image" env IPKG_INSTROOT=/tmp/image /tmp/image/$step
done
check "postinst adds the start link to the image" equal "$(readlink /tmp/image/etc/rc.d/S80sockproxyd)" ../init.d/sockproxyd
check "the scripts do not change this machine" not ls /etc/rc.d/S80sockproxyd
check "the scripts start no process" number 0
