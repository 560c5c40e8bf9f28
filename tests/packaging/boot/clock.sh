# shellcheck shell=sh
# Inside the virtual machine: a battery-backed clock that is wrong, past what 32 bits of seconds hold (2038-01-19). BusyBox
# cannot tell the times of files then, so nothing here looks at one, and the proxy is started without its init script.
box=boot/2040
. /test/check.sh
cd /tmp || exit

# In a subshell that ends at once: the supervisor's parent is init, as it is when an init script starts it.
(/usr/sbin/sockproxyd -L /tmp/proxy.log --supervise </dev/null >/dev/null 2>&1 &)
check "greeting" eventually greets
check "two processes: supervisor and proxy" number 2
check "the log stays at the last second" eventually says '^2038-01-19 03:14:07' grep 'connection from' proxy.log
killed=$(worker)
kill -9 "$killed"
check "killed, it comes back" eventually another_worker "$killed"
check "and greets" eventually greets
