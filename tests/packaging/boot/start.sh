# shellcheck shell=sh
# Inside the virtual machine: how long the init script takes, from its start until the proxy has greeted and the script
# returns. The first start after boot takes longer: QEMU translates code when it first runs.
box=boot/start
. /test/check.sh
cd /tmp || exit
rounds=5

# Sets $now to the uptime in milliseconds; the kernel gives hundredths of a second.
uptime_ms() {
    read -r now _ </proc/uptime
    now=$((${now%.*} * 1000 + 10 * (1${now#*.} - 100)))
}

# mean NAME COMMAND...: runs the command several times, and prints the mean of the times that it takes.
mean() {
    mean_name=$1
    shift
    round=0
    uptime_ms
    from=$now
    while [ $round -lt $rounds ]; do
        "$@" >/dev/null 2>&1 </dev/null
        round=$((round + 1))
    done
    uptime_ms
    echo "INFO  time of $mean_name: $(((now - from) / rounds)) ms"
}

case $(cat /proc/cmdline) in
    *only_start*)
        mean "a process of BusyBox" /bin/cat /dev/null
        mean "the proxy's program, at least" /usr/sbin/sockproxyd --version
        mean "its check of the configuration" /usr/sbin/sockproxyd -t -c /etc/sockproxyd.cf
        mean "its probe of a proxy that runs" /usr/sbin/sockproxyd --probe=2 -c /etc/sockproxyd.cf
        mean "the init script's status" service status
        ;;
esac

sum=0
round=0
while [ $round -lt $rounds ]; do
    service stop
    uptime_ms
    from=$now
    service start || echo "FAIL  $box: start => $?"
    uptime_ms
    sum=$((sum + now - from))
    round=$((round + 1))
done
check "the proxy greets after these starts" greets
echo "INFO  from the init script's start to the greeting: $((sum / rounds)) ms"
case $(cat /proc/cmdline) in
    *only_start*) check "that is 100 ms at most" test $((sum / rounds)) -le 100 ;;
esac
