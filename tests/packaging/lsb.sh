#!/bin/sh
# Inside a box like Debian without systemd: the LSB script in all its verbs.
# usage: lsb.sh BOX
box=$1
. /test/check.sh
pidfile=/run/sockproxyd.pid

printf '[host]\nlog=/tmp/proxy.log\n' >/etc/sockproxyd.cf

check "status before" says 'is not running$' service status
check "has status 3" sh -c "/etc/init.d/sockproxyd status >/dev/null; [ \$? = 3 ]"
started=$(/test/busybox timeout 20 /etc/init.d/sockproxyd start 2>&1)
check "start returns and lets go of the pipe" equal "$? $started" "0 Starting sockproxyd"
check "it greets when start has returned" greets
check "two processes: supervisor and proxy" number 2
check "the pid file names the supervisor" equal "$(cat $pidfile)" "$(supervisor)"
check "status" says 'is running$' service status
before=$(proxies)
check "a second start" service start
check "changes nothing" equal "$(proxies)" "$before"
first=$(worker)
kill -9 "$first"
check "killed, it comes back" eventually another_worker "$first"
check "and greets" eventually greets

before=$(proxies)
mv /tmp/proxy.log /tmp/proxy.log.1
check "reload" service reload
check "reload reopens the log" eventually test -f /tmp/proxy.log
check "and keeps the processes" equal "$(proxies)" "$before"
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "restart refuses a broken configuration" says 'sockproxyd.cf:2' service restart
check "reload as well" not service reload
check "what runs goes on" equal "$(proxies)" "$before"
printf '[host]\nport = 2611\n' >/etc/sockproxyd.cf
# A new program in place of the one that runs.
cp /usr/local/sbin/sockproxyd /usr/local/sbin/new
mv /usr/local/sbin/new /usr/local/sbin/sockproxyd
check "restart, with another program and port" service restart
check "it greets there when restart has returned" greets 2611
check "two processes" number 2
check "not the same ones" not equal "$(proxies)" "$before"
check "without a system log it logs to a file" test -s /var/log/sockproxyd/sockproxyd.log

check "stop" service stop
check "nothing is left when stop has returned" number 0
check "no pid file either" not test -e $pidfile
check "a second stop" service stop
check "reload of what does not run fails" not service reload
check "try-restart does nothing then" service try-restart
check "nothing runs" number 0

/test/busybox nc -ll -p 9999 -e /test/busybox true &
innocent=$!
echo $innocent >$pidfile
check "status with the pid file of another process" sh -c "/etc/init.d/sockproxyd status >/dev/null; [ \$? = 1 ]"
check "stop leaves that alone" service stop
check "it is still there" test -n "$(field $innocent Name)"
echo $innocent >$pidfile
check "start with the pid file of another process" service start
check "greets" greets 2611
check "the pid file is right again" equal "$(cat $pidfile)" "$(supervisor)"
kill $innocent
service stop >/dev/null

if [ "$(id -u)" = 0 ] && [ "$(wc -l </proc/self/uid_map)" = 1 ] && grep -q 4294967295 /proc/self/uid_map; then
    echo 'sockproxyd:x:250:250::/:/bin/false' >>/etc/passwd
    echo 'sockproxyd:x:250:' >>/etc/group
    rm -rf /var/log/sockproxyd
    check "start with a user of its own" service start
    check "it greets" greets 2611
    check "it runs as that user" equal "$(field "$(worker)" Uid)" 250
    check "and can log" test -s /var/log/sockproxyd/sockproxyd.log
    check "stop" service stop
    check "ends it" number 0
fi
mkdir -p /etc/default
echo "DAEMON_ARGS='-p 2612'" >/etc/default/sockproxyd
service start >/dev/null
check "arguments from /etc/default/sockproxyd" eventually greets 2612
service stop >/dev/null
