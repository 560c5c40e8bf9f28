#!/bin/sh
# Inside a box like Debian without systemd: all commands of the LSB script.
# usage: lsb.sh BOX
box=$1
. /test/check.sh
pidfile=/run/sockproxyd.pid

printf '[host]\nlog=/tmp/proxy.log\n' >/etc/sockproxyd.cf

check "status of a stopped proxy" says 'is not running$' service status
check "status of a stopped proxy exits with 3" sh -c "/etc/init.d/sockproxyd status >/dev/null; [ \$? = 3 ]"
started=$(/test/busybox timeout 20 /etc/init.d/sockproxyd start 2>&1)
check "start returns and closes the pipe" equal "$? $started" "0 Starting sockproxyd"
check "the proxy greets when start has returned" greets
check "two processes: supervisor and proxy" number 2
check "the pid file names the supervisor" equal "$(cat $pidfile)" "$(supervisor)"
check "status" says 'is running$' service status
before=$(proxies)
check "a second start" service start
check "a second start changes nothing" equal "$(proxies)" "$before"
first=$(worker)
kill -9 "$first"
check "a killed worker is replaced" eventually another_worker "$first"
check "the new worker greets" eventually greets

before=$(proxies)
mv /tmp/proxy.log /tmp/proxy.log.1
check "reload" service reload
check "reload reopens the log" eventually test -f /tmp/proxy.log
check "reload keeps the processes" equal "$(proxies)" "$before"
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "restart refuses a broken configuration" says 'sockproxyd.cf:2' service restart
check "reload refuses it, too" not service reload
check "the running proxy continues" equal "$(proxies)" "$before"
printf '[host]\nport = 2611\n' >/etc/sockproxyd.cf
# A new program replaces the running one.
cp /usr/local/sbin/sockproxyd /usr/local/sbin/new
mv /usr/local/sbin/new /usr/local/sbin/sockproxyd
check "restart, with another program and port" service restart
check "the proxy greets at that port when restart has returned" greets 2611
check "restart starts two processes" number 2
check "restart starts new processes" not equal "$(proxies)" "$before"
check "without a system log the proxy logs to a file" test -s /var/log/sockproxyd/sockproxyd.log

check "stop" service stop
check "no process is left when stop has returned" number 0
check "the pid file is removed" not test -e $pidfile
check "a second stop" service stop
check "reload of a stopped proxy fails" not service reload
check "try-restart of a stopped proxy succeeds" service try-restart
check "try-restart does not start a stopped proxy" number 0

/test/busybox nc -ll -p 9999 -e /test/busybox true &
other=$!
echo $other >$pidfile
check "status with the pid file of another process" sh -c "/etc/init.d/sockproxyd status >/dev/null; [ \$? = 1 ]"
check "stop with the pid file of another process" service stop
check "stop does not end that process" test -n "$(field $other Name)"
echo $other >$pidfile
check "start with the pid file of another process" service start
check "the proxy greets beside that process" greets 2611
check "the pid file is correct again" equal "$(cat $pidfile)" "$(supervisor)"
kill $other
service stop >/dev/null

if [ "$(id -u)" = 0 ] && [ "$(wc -l </proc/self/uid_map)" = 1 ] && grep -q 4294967295 /proc/self/uid_map; then
    echo 'sockproxyd:x:250:250::/:/bin/false' >>/etc/passwd
    echo 'sockproxyd:x:250:' >>/etc/group
    rm -rf /var/log/sockproxyd
    check "start with the user sockproxyd" service start
    check "the proxy greets as that user" greets 2611
    check "the proxy runs as that user" equal "$(field "$(worker)" Uid)" 250
    check "the proxy can log as that user" test -s /var/log/sockproxyd/sockproxyd.log
    check "stop" service stop
    check "stop ends the proxy" number 0
fi
mkdir -p /etc/default
echo "DAEMON_ARGS='-p 2612'" >/etc/default/sockproxyd
service start >/dev/null
check "arguments from /etc/default/sockproxyd" eventually greets 2612
service stop >/dev/null
