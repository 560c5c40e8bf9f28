#!/bin/sh
# Inside a box: the rpcd plugin with a simulated jshn and ubus, and the collector with a simulated exporter.
# Leaves the status of a proxy with a connection in /tmp/status.json.
# usage: luci.sh BOX
box=$1
. /test/check.sh

PLUGIN=/usr/libexec/rpcd/sockproxyd

# procd_says COMMAND...: what ubus says of the service. Without COMMAND there is none.
procd_says() {
    words=
    for word; do words="$words${words:+, }\"$word\""; done
    if [ $# -gt 0 ]; then
        echo "{ \"sockproxyd\": { \"instances\": { \"instance1\": { \"running\": true, \"pid\": 7, \"command\": [ $words ] } } } }"
    else
        echo '{ }'
    fi >/test/service.json
}
cat >/usr/bin/ubus <<'SCRIPT'
#!/bin/sh
[ "$*" = '-t 5 call service list { "name": "sockproxyd" }' ] && cat /test/service.json
SCRIPT
chmod 755 /usr/bin/ubus

# status: what the plugin answers.
status() {
    $PLUGIN call status </dev/null
}
# A whole object in one line.
is_status() {
    status | grep -q '^{.*"listeners":.*}$'
}

check "the plugin lists its methods" equal "$($PLUGIN list)" '{ "status": { }, "check": { } }'
check "the plugin refuses another method" not $PLUGIN call stop
procd_says
check "without a proxy there is a reason" says '^{ "error": "sockproxyd: .*127.0.0.1.* }$' status

printf '[host]\nport=2611\n' >'/tmp/with blank.cf'
sockproxyd -L /tmp/log -c '/tmp/with blank.cf' &
proxy=$!
eventually greets 2611
check "a proxy that procd does not know is not found at another port" says '"error"' status
cp '/tmp/with blank.cf' /etc/sockproxyd.cf
check "a proxy that procd does not know is found by its configuration" is_status
rm /etc/sockproxyd.cf
procd_says /usr/sbin/sockproxyd -L /tmp/log -c '/tmp/with blank.cf'
check "the plugin takes procd's arguments, with blanks" is_status

# A connection, for the tables: a remote that says nothing.
/test/busybox sleep 60 | /test/busybox nc -l -p 2612 >/dev/null &
# nc serves one connection, so that none can try whether it listens.
remote_listens() {
    grep -q ':0A34 0*:0000 0A' /proc/net/tcp*
}
check "the remote listens" eventually remote_listens
{
    echo 'CONN 127.0.0.1:2612 NTFY=5/urn:example-com:serviceId:Device1/Receive/0'
    /test/busybox sleep 60
} | /test/busybox nc 127.0.0.1 2611 >/dev/null &
connected() {
    status | grep -q '"state":"echo"'
}
check "the status has a connection" eventually connected
status >/tmp/status.json

# exporter COMMAND...: what the exporter gives of the collector.
exporter() {
    lua /test/exporter.lua "$@"
}
# Metrics without help, with labels in the order of their names, without values that change from call to call.
steady() {
    sed -e '/^# HELP/d' -e '/^sockproxyd_\(uptime\|connection_idle\)_seconds/s/ [^ ]*$//' \
        -e '/^sockproxyd_connections_accepted_total /d' \
        -e 's/{version="\(.*\)",build="\(.*\)"}/{build="\2",version="\1"}/' \
        -e 's/{id="\(.*\)",target="\(.*\)",protocol="\(.*\)"}/{id="\1",protocol="\3",target="\2"}/'
}
sockproxyd -c '/tmp/with blank.cf' --status=prometheus | steady >/tmp/expected
exporter /usr/sbin/sockproxyd -L /tmp/log -c '/tmp/with blank.cf' | steady >/tmp/metrics
check "the proxy's metrics are of a connection" grep -q '^sockproxyd_connection_sent_bytes_total{' /tmp/expected
check "the collector gives the proxy's metrics" /test/busybox diff /tmp/expected /tmp/metrics
check "the collector fails without an answer" says '^failed: sockproxyd gives no metrics: .' exporter

# Programs in the place of the proxy.
cat >/test/program <<'SCRIPT'
#!/bin/sh
case $* in
    *--status=prometheus) printf '%s\n' '# HELP a x' '# TYPE a gauge' 'a{x="1} \" \\",y="b,c=\"d\""} -1.5e3' 'a 7' '# TYPE b counter' ;;
    *"it's"*) echo "it's" ;;
    *--status=json) head -c 700000 /dev/zero | tr '\000' x ;;
esac
SCRIPT
chmod 755 /test/program
check "labels keep their escapes" equal "$(exporter /test/program "it's \$x" | tr '\n' '|')" \
    '# TYPE a gauge|a{x="1} \" \\",y="b,c=\"d\""} -1.5e3|a 7|# TYPE b counter|'
procd_says /test/program "it's" "\$x"
check "arguments reach the program as they are" equal "$(status)" "it's"
procd_says /test/program
check "a status that is too long for ubus is refused" says '^{ "error": "the status has 700000 bytes' status

kill $proxy

# --- check ---

# An init script in the place of the real one.
cat >/etc/init.d/sockproxyd <<'SCRIPT'
#!/bin/sh
[ "$*" = configtest ] || exit 9
cat /test/says >&2
exit "$(cat /test/status)"
SCRIPT
chmod 755 /etc/init.d/sockproxyd
: >/test/says
echo 0 >/test/status
check "check: a configuration without fault" equal "$($PLUGIN call check)" '{ "valid": true, "text": "" }'
echo 'no "file"' >/test/says
check "check: one with a file that cannot be used" equal "$($PLUGIN call check)" '{ "valid": true, "text": "no \"file\"" }'
echo 1 >/test/status
check "check: one with an error" equal "$($PLUGIN call check)" '{ "valid": false, "text": "no \"file\"" }'
