#!/bin/sh
# Inside a box without procd: all commands of the init script, and failures around it.
# usage: classic.sh BOX     BOX: the name of the box in the output
box=$1
. /test/check.sh
pidfile=/var/run/sockproxyd.pid

configure() {
    mkdir -p /etc
    { echo "[host]"; printf '%s\n' "$@"; } >/etc/sockproxyd.cf
}
configure 'log=/tmp/proxy.log'

# --- at boot ---

check "nothing runs before the first start" equal "$(count)" 0
check "status reports that" says '^not running$' service status
check "status fails before the first start" not service status
service enable
check "enable adds the start link, before Luup's" test -x /etc/rc.d/S80sockproxyd
check "enable adds the stop link" test -x /etc/rc.d/K80sockproxyd
check "enabled succeeds" service enabled

# As rcS calls it: the output goes into a pipe, whose end the boot waits for. As Luup calls it: with inherited
# sockets, here files. The descriptor has two digits, if this shell supports them.
echo marker >/tmp/inherited
wide=$(/bin/sh -c "(eval 'exec 10>&-') 2>/dev/null && echo yes")
[ -z "$wide" ] || eval 'exec 27</tmp/inherited'
booted=$(/test/busybox timeout 20 /etc/rc.d/S80sockproxyd boot 5</tmp/inherited 9</tmp/inherited 2>&1)
check "boot returns and closes the pipe" equal $? 0
check "boot prints nothing" equal "$booted" ""
check "the proxy greets when boot has returned" greets
[ -z "$wide" ] || eval 'exec 27<&-'
check "two processes: supervisor and proxy" equal "$(count)" 2
for one in $(proxies); do
    check "no descriptor inherited ($one)" not sh -c "ls -l /proc/$one/fd | grep inherited"
    check "no pipe to the caller ($one)" not sh -c "ls -l /proc/$one/fd/0 /proc/$one/fd/1 /proc/$one/fd/2 | grep -v /dev/null"
done
check "the pid file names the supervisor" equal "$(cat $pidfile)" "$(supervisor)"
check "status" says '^running$' service status
check "status succeeds" service status

# --- start, twice ---

before=$(proxies)
check "a second start reports that the proxy runs" says 'already running' service start
check "a second start succeeds" service start
check "a second start changes nothing" equal "$(proxies)" "$before"

# --- killed processes ---

first=$(worker)
parent=$(supervisor)
kill -9 "$first"
check "a killed worker is replaced" eventually another_worker "$first"
check "the new worker greets" eventually greets
check "the supervisor is the same" equal "$(supervisor)" "$parent"
check "no third process runs" eventually number 2

kill -9 "$parent"
# The exit takes a moment on a busy machine.
gone() {
    ! proxies | grep -qw "$1"
}
eventually gone "$parent"
check "start after the supervisor was killed" service start
check "two processes run again" equal "$(count)" 2
check "the supervisor is another" not equal "$(cat $pidfile)" "$parent"
check "the proxy greets again" greets

rm -f $pidfile
check "start after the pid file was removed" service start
check "the pid file exists again" equal "$(cat $pidfile)" "$(supervisor)"
check "two processes run" equal "$(count)" 2

# --- reload ---

before=$(proxies)
mv /tmp/proxy.log /tmp/proxy.log.1
check "reload" service reload
check "reload reopens the log" eventually test -f /tmp/proxy.log
check "reload keeps the processes" equal "$(proxies)" "$before"
configure 'log=/tmp/proxy.log' 'broken'
check "reload refuses a broken configuration" says 'sockproxyd.cf:3' service reload
check "the refused reload keeps the processes" equal "$(proxies)" "$before"
check "restart refuses it, too" not service restart
check "the refused restart keeps the processes" equal "$(proxies)" "$before"
configure 'log=/tmp/proxy.log'

# --- restart ---

check "restart" service restart
check "restart starts new processes" not equal "$(proxies)" "$before"
check "restart starts two processes" equal "$(count)" 2
check "the proxy greets when restart has returned" greets
for one in $(proxies); do
    # Bit 14 is TERM, which rc.common's restart ignores for itself.
    check "TERM is not ignored ($one)" equal $((0x$(field "$one" SigIgn) >> 14 & 1)) 0
done

# --- stop ---

check "stop" service stop
check "no process is left when stop has returned" equal "$(count)" 0
check "the pid file is removed" not test -e $pidfile
check "the port is free" not greets
check "a second stop succeeds" service stop
check "status does not start a stopped proxy" says '^not running$' service status

# --- what a start costs: each process takes a slow box 5 ms and more ---

created service start
check "a start creates few processes ($processes_created)" test "$processes_created" -le 9
service stop

# --- stale pid files ---

echo 99999 >$pidfile
check "start with the pid file of a dead process" service start
check "the pid file is correct again" equal "$(cat $pidfile)" "$(supervisor)"
service stop
/test/busybox nc -ll -p 9999 -e /test/busybox true &
other=$!
echo $other >$pidfile
check "stop with the pid file of another process" service stop
check "stop does not end that process" test -n "$(field $other Name)"
echo $other >$pidfile
check "start with the pid file of another process" service start
check "start does not end that process" test -n "$(field $other Name)"
check "the proxy greets beside that process" greets
kill $other
echo 'no number' >$pidfile
check "stop with an invalid pid file" service stop
check "stop with an invalid pid file ends the proxy" equal "$(count)" 0

# --- watch ---

check "watch does not start a stopped proxy" service watch
check "no process runs after that" equal "$(count)" 0
service start
before=$(proxies)
check "watch leaves a running proxy" service watch
check "the processes are the same" equal "$(proxies)" "$before"
# shellcheck disable=SC2086 # one word a process
kill -9 $before
eventually number 0
check "watch starts a killed proxy" service watch
check "the killed proxy greets again" greets
check "two processes run after that" equal "$(count)" 2
service stop

# --- reload and restart of a stopped proxy; the protocol's STOP ---

check "reload starts a stopped proxy" service reload
check "the proxy greets after reload" greets
first=$(worker)
printf 'STOP\n' | /test/busybox timeout 5 /test/busybox nc 127.0.0.1 2504 >/dev/null
check "after STOP the supervisor starts another proxy" eventually another_worker "$first"
check "the other proxy greets" eventually greets
service stop
check "restart starts a stopped proxy" service restart
check "the proxy greets after restart" greets
service stop

# --- configurations ---

configure 'broken'
check "start refuses a broken configuration" not service start
check "start reports the line of the error" says 'sockproxyd.cf:2' service start
check "start starts no process then" equal "$(count)" 0
configure '  Port = 2611 ' '; port = 1' 'ip = 127.0.0.1'
check "start with another port" service start
check "the proxy greets at that port" greets 2611
service stop
rm /etc/sockproxyd.cf
check "start without a configuration" service start
check "the proxy greets at the default port" greets
check "the proxy logs to memory" test -s /tmp/sockproxyd.log
service stop
/test/busybox syslogd -n -O /tmp/messages &
syslogd=$!
eventually test -S /dev/log
check "start with a system log" service start
check "the proxy logs to the system log" eventually grep -q sockproxyd /tmp/messages
service stop
kill $syslogd
rm -f /dev/log
mkdir -p /etc/config
printf "config sockproxyd 'main'\n\toption port '2612'\n\toption log '/tmp/uci.log'\n" >/etc/config/sockproxyd
check "start with /etc/config/sockproxyd" service start
check "the proxy greets at the port of that file" greets 2612
check "the proxy logs to the file of that setting" test -s /tmp/uci.log
service stop
cat >/etc/config/sockproxyd <<'UCI'
config host 'host'
	option port '2613'
	list allow 'loopback'
	list allow '10.0.0.0/8'
	option log '/tmp/uci.log'

config direct
	option port '2614'
	option target '127.0.0.1:2615'
	list option 'PRTO=udp'
	list option 'BLKS=512'

config limits 'limits'
	option line '600'
UCI
check "start with sections of all kinds" service start
check "the proxy greets at their port" greets 2613
generated=/var/run/sockproxyd/uci.cf
check "a list becomes one setting" grep -qx 'allow=loopback,10.0.0.0/8' $generated
check "a section becomes a line of [direct]" grep -qx '2614=CONN 127.0.0.1:2615 PRTO=udp BLKS=512' $generated
check "only the proxy reads the settings" equal "$(/test/busybox stat -c %a $generated)" 600
before=$(proxies)
sed -i "s/'600'/'700'/" /etc/config/sockproxyd
check "reload with another limit" service reload
check "reload keeps the processes then" equal "$(proxies)" "$before"
check "reload passes the limit on" grep -qx 'line=700' $generated
sed -i "s/'2613'/'2616'/" /etc/config/sockproxyd
service reload
check "reload with another port restarts the proxy" greets 2616
before=$(proxies)
sed -i "s/'700'/'7'/" /etc/config/sockproxyd
check "reload refuses a bad value" not service reload
check "the option is named" says "config/sockproxyd: sockproxyd.limits.line: bad value '7'" service reload
check "the processes stay" equal "$(proxies)" "$before"
check "the settings in force stay" grep -qx 'line=700' $generated
service stop
printf "config sockproxyd 'main'\n\toption enabled '0'\n" >/etc/config/sockproxyd
check "start of a disabled proxy succeeds" service start
check "start of a disabled proxy starts no process" equal "$(count)" 0
rm /etc/config/sockproxyd

# --- other programs on the port ---

configure 'log=/tmp/proxy.log'
# Accepts connections and sends nothing.
/test/busybox nc -ll -p 2504 -e /test/busybox sleep 1000 &
other=$!
eventually grep -q ':09C8 ' /proc/net/tcp /proc/net/tcp6
read -r from _ </proc/uptime
check "start fails if another program has the port" not service start
read -r to _ </proc/uptime
check "start fails within 8 s" test $((${to%.*} - ${from%.*})) -le 8
check "start reports that" says 'no greeting' service start
check "no probe is left" not sh -c "/test/busybox ps -o args | grep '[ ]--probe'"
kill $other
service stop
check "no process is left after that" equal "$(count)" 0
mv /usr/sbin/sockproxyd /usr/sbin/away
check "start reports a missing program" says 'is missing' service start
mv /usr/sbin/away /usr/sbin/sockproxyd

# --- as Vera's plugin installs it: a script that replaces itself by the proxy ---

mv /usr/sbin/sockproxyd /tmp/sockproxyd
printf '#!/bin/sh\nexec /tmp/sockproxyd "$@"\n' >/usr/sbin/sockproxyd
chmod 755 /usr/sbin/sockproxyd
check "start with a launcher" service start
check "the launched proxy greets" greets
check "the launcher starts two processes" equal "$(count)" 2
before=$(proxies)
check "a second start with a launcher reports that the proxy runs" says 'already running' service start
check "a second start with a launcher changes nothing" equal "$(proxies)" "$before"
check "stop with a launcher" service stop
check "stop ends both processes" equal "$(count)" 0
mv /tmp/sockproxyd /usr/sbin/sockproxyd

# --- disabled at boot ---

service disable
check "disable removes the start link" not ls /etc/rc.d/S80sockproxyd
check "disable removes the stop link" not ls /etc/rc.d/K80sockproxyd
check "enabled fails" not service enabled
