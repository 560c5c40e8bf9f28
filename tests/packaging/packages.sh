#!/bin/sh
# Inside a box with opkg or apk, real or our stand-in: the life of the package. There are /test/one.ipk (or .apk), /test/two.ipk
# and later versions with another program and another sample configuration, and /test/wrong.ipk for another CPU.
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

# All that is there, but for what the kernel and the tests make.
files() {
    find / \( -path /proc -o -path /dev -o -path /test -o -path /sys -o -path /var/run/ubus -o -path /usr/lib/opkg \
        -o -path /lib/apk/db -o -path /etc/apk -o -path /var/log -o -path /var/cache -o -path /lib/apk/exec \
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

cp /etc/passwd /tmp/passwd.before

# The last of a folder, apk would remove that, too.
: >/etc/init.d/boot
files >/tmp/files.before

wrong=$(add "/test/wrong.$suffix" 2>&1)
check "wrong CPU: refused" test $? != 0
check "wrong CPU: and says why" says 'package is for .* another CPU' echo "$wrong"
if [ "$manager" = apk ]; then
    # It installs whatever its scripts say.
    check "wrong CPU: and what to do" says 'does not run here' echo "$wrong"
    check "wrong CPU: nothing enabled" not ls /etc/rc.d/S80sockproxyd
    check "wrong CPU: nothing runs" number 0
    remove >/dev/null
fi
check "wrong CPU: no program" not test -e /usr/sbin/sockproxyd
check "wrong CPU: no init script" not test -e /etc/init.d/sockproxyd

check "install" add "/test/one.$suffix"
check "it greets when install has returned" greets
check "enabled" test -x /etc/rc.d/S80sockproxyd
check "the Lua libraries are there" test -s /usr/lib/lua/L_SockProxyClient.lua
check "the sample configuration is there" grep -q '^\[host\]' /etc/sockproxyd.cf
if [ "$flavour" = main ]; then
    check "it has a user" grep -q '^sockproxyd:x:250:250:' /etc/passwd
else
    check "no user where none can be used" cmp /etc/passwd /tmp/passwd.before
fi

before=$(proxies)
check "installed version runs" says 'version one' version
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "upgrade" add "/test/two.$suffix"
check "another process runs" not equal "$(proxies)" "$before"
check "upgraded version runs" says 'version two' version
check "the old one is gone" equal "$(count)" "$(echo "$before" | wc -w | tr -d ' ')"
check "the user's configuration is still there" grep -q port=2611 /etc/sockproxyd.cf
check "and holds" greets 2611
check "the new sample is beside it" grep -q 'a new sample' "$sample"
rm -f "$sample"

before=$(proxies)
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "an upgrade with a broken configuration succeeds" add "/test/three.$suffix"
check "what ran goes on" equal "$(proxies)" "$before"
check "and greets" greets 2611
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
rm -f "$sample"

service stop
service disable
check "an upgrade of what is switched off" add "/test/four.$suffix"
check "starts nothing" eventually number 0
check "enables nothing" not ls /etc/rc.d/S80sockproxyd
service enable
service start
check "a sample is beside the configuration" test -f "$sample"

check "remove" remove
check "it ends" eventually number 0
check "the edited configuration stays" grep -q port=2611 /etc/sockproxyd.cf
rm -f /etc/sockproxyd.cf /tmp/passwd.now
check "the users are as before" cmp /etc/passwd /tmp/passwd.before
rm -f /tmp/passwd.before
check "nothing else is left" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

both() {
    add "/test/one.$suffix" && remove
}
check "install and remove without an edit" both
check "leaves nothing at all" equal "$(files | grep -v -x -F -f /tmp/files.before)" ""

# In place of the Lua daemon: one that its script cannot end. What looks like "lua ... sockproxyd.lua" and has the port
# is our own program.
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
check "install in place of the Lua daemon" add "/test/one.$suffix"
check "asks its script to end it" grep -q stopped /tmp/lua-stopped
check "and ends it" not pidof lua
check "and greets" greets
check "as a proxy of its own" says 'version one' version
remove >/dev/null

[ "$manager" = opkg ] || exit 0

# Into an image that is being built, on another machine.
mkdir -p /tmp/image/usr
gunzip -c "/test/wrong.$suffix" | tar -x -C /tmp/image ./control.tar.gz
gunzip -c /tmp/image/control.tar.gz | tar -x -C /tmp/image
for step in preinst postinst; do
    check "$step within an image" env IPKG_INSTROOT=/tmp/image /tmp/image/$step
done
check "links it for the image's boot" equal "$(readlink /tmp/image/etc/rc.d/S80sockproxyd)" ../init.d/sockproxyd
check "and touches nothing here" not ls /etc/rc.d/S80sockproxyd
check "starts nothing here" number 0
