#!/bin/sh
# Inside a box without procd: the init script in all its verbs, and what may go wrong around it.
# usage: classic.sh BOX     BOX: the name of the box, for the lines that are printed
box=$1
. /test/check.sh
pidfile=/var/run/sockproxyd.pid

configure() {
    mkdir -p /etc
    { echo "[host]"; printf '%s\n' "$@"; } >/etc/sockproxyd.cf
}
configure 'log=/tmp/proxy.log'

# --- at boot ---

check "nothing runs before" equal "$(count)" 0
check "status says so" says '^not running$' service status
check "status fails" not service status
service enable
check "enable links it before Luup" test -x /etc/rc.d/S80sockproxyd
check "enable links its end" test -x /etc/rc.d/K80sockproxyd
check "enabled" service enabled

# As rcS does: output into a pipe, whose end the boot waits for. As Luup does: with sockets inherited,
# here files. A descriptor of two digits, where this shell can have one.
echo marker >/tmp/inherited
wide=$(/bin/sh -c "(eval 'exec 10>&-') 2>/dev/null && echo yes")
[ -z "$wide" ] || eval 'exec 27</tmp/inherited'
booted=$(/test/busybox timeout 20 /etc/rc.d/S80sockproxyd boot 5</tmp/inherited 9</tmp/inherited 2>&1)
check "boot returns and lets go of the pipe" equal $? 0
check "boot says nothing" equal "$booted" ""
check "it greets when boot has returned" greets
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
check "a second start says that it runs" says 'runs already' service start
check "a second start succeeds" service start
check "a second start changes nothing" equal "$(proxies)" "$before"

# --- deaths ---

first=$(worker)
parent=$(supervisor)
kill -9 "$first"
check "killed, it comes back" eventually another_worker "$first"
check "killed, it greets again" eventually greets
check "under the same supervisor" equal "$(supervisor)" "$parent"
check "and no one else" eventually number 2

kill -9 "$parent"
# Which takes it a moment on a busy machine.
gone() {
    ! proxies | grep -qw "$1"
}
eventually gone "$parent"
check "its supervisor killed, start makes it whole" service start
check "supervised again" equal "$(count)" 2
check "by another supervisor" not equal "$(cat $pidfile)" "$parent"
check "and it greets" greets

rm -f $pidfile
check "its pid file lost, start makes it whole" service start
check "the pid file is back" equal "$(cat $pidfile)" "$(supervisor)"
check "still two processes" equal "$(count)" 2

# --- reload ---

before=$(proxies)
mv /tmp/proxy.log /tmp/proxy.log.1
check "reload" service reload
check "reload reopens the log" eventually test -f /tmp/proxy.log
check "reload keeps the processes" equal "$(proxies)" "$before"
configure 'log=/tmp/proxy.log' 'broken'
check "reload refuses a broken configuration" says 'sockproxyd.cf:3' service reload
check "and keeps the processes" equal "$(proxies)" "$before"
check "restart refuses it as well" not service restart
check "and keeps the processes, too" equal "$(proxies)" "$before"
configure 'log=/tmp/proxy.log'

# --- restart ---

check "restart" service restart
check "restart makes new processes" not equal "$(proxies)" "$before"
check "two of them" equal "$(count)" 2
check "it greets when restart has returned" greets
for one in $(proxies); do
    # Bit 14: rc.common's restart ignores TERM for itself.
    check "TERM is not ignored ($one)" equal $((0x$(field "$one" SigIgn) >> 14 & 1)) 0
done

# --- stop ---

check "stop" service stop
check "nothing is left when stop has returned" equal "$(count)" 0
check "no pid file either" not test -e $pidfile
check "the port is free" not greets
check "a second stop succeeds" service stop
check "stopped is not started by its status" says '^not running$' service status

# --- stale pid files ---

echo 99999 >$pidfile
check "start with the pid file of a dead process" service start
check "the pid file is right again" equal "$(cat $pidfile)" "$(supervisor)"
service stop
/test/busybox nc -ll -p 9999 -e /test/busybox true &
innocent=$!
echo $innocent >$pidfile
check "stop with the pid file of another process" service stop
check "leaves that alone" test -n "$(field $innocent Name)"
echo $innocent >$pidfile
check "start with the pid file of another process" service start
check "leaves that alone, too" test -n "$(field $innocent Name)"
check "and runs" greets
kill $innocent
echo 'no number' >$pidfile
check "stop with nonsense in the pid file" service stop
check "ends it all the same" equal "$(count)" 0

# --- reload, restart from nothing; the protocol's own end ---

check "reload starts what does not run" service reload
check "started" greets
printf 'STOP\n' | /test/busybox timeout 5 /test/busybox nc 127.0.0.1 2504 >/dev/null
check "STOP ends supervisor and proxy" eventually number 0
check "restart starts what does not run" service restart
check "started again" greets
service stop

# --- configurations ---

configure 'broken'
check "start refuses a broken configuration" not service start
check "and says where it is broken" says 'sockproxyd.cf:2' service start
check "and starts nothing" equal "$(count)" 0
configure '  Port = 2611 ' '; port = 1' 'ip = 127.0.0.1'
check "start with another port" service start
check "it greets there" greets 2611
service stop
rm /etc/sockproxyd.cf
check "start without a configuration" service start
check "it greets at the usual port" greets
check "it logs to memory" test -s /tmp/sockproxyd.log
service stop
/test/busybox syslogd -n -O /tmp/messages &
syslogd=$!
eventually test -S /dev/log
check "start with a system log" service start
check "it logs there" eventually grep -q sockproxyd /tmp/messages
service stop
kill $syslogd
rm -f /dev/log
mkdir -p /etc/config
printf "config sockproxyd 'main'\n\toption port '2612'\n\toption log '/tmp/uci.log'\n" >/etc/config/sockproxyd
check "start with /etc/config/sockproxyd" service start
check "it greets at that port" greets 2612
check "it logs where that says" test -s /tmp/uci.log
service stop
printf "config sockproxyd 'main'\n\toption enabled '0'\n" >/etc/config/sockproxyd
check "start of a disabled one succeeds" service start
check "but starts nothing" equal "$(count)" 0
rm /etc/config/sockproxyd

# --- strangers ---

configure 'log=/tmp/proxy.log'
# Takes connections and says nothing, for ever.
/test/busybox nc -ll -p 2504 -e /test/busybox sleep 1000 &
stranger=$!
eventually grep -q ':09C8 ' /proc/net/tcp /proc/net/tcp6
read -r from _ </proc/uptime
check "start with the port taken fails" not service start
read -r to _ </proc/uptime
check "in bounded time" test $((${to%.*} - ${from%.*})) -le 8
check "and says so" says 'no greeting' service start
check "leaving no probe behind" not sh -c "/test/busybox ps -o args | grep '[ ]--probe'"
kill $stranger
service stop
check "nothing is left after that" equal "$(count)" 0
mv /usr/sbin/sockproxyd /usr/sbin/away
check "start without the program says so" says 'is missing' service start
mv /usr/sbin/away /usr/sbin/sockproxyd

# --- the way Vera's plugin installs it: a script that becomes the proxy ---

mv /usr/sbin/sockproxyd /tmp/sockproxyd
printf '#!/bin/sh\nexec /tmp/sockproxyd "$@"\n' >/usr/sbin/sockproxyd
chmod 755 /usr/sbin/sockproxyd
check "start by a launcher" service start
check "it greets" greets
check "two processes of the launcher" equal "$(count)" 2
before=$(proxies)
check "a second start sees that it runs" says 'runs already' service start
check "and changes nothing" equal "$(proxies)" "$before"
check "stop" service stop
check "ends them" equal "$(count)" 0
mv /tmp/sockproxyd /usr/sbin/sockproxyd

# --- no longer at boot ---

service disable
check "disable removes the links" not ls /etc/rc.d/S80sockproxyd
check "both" not ls /etc/rc.d/K80sockproxyd
check "not enabled" not service enabled
