# shellcheck shell=sh
# Inside the virtual machine: how much memory the proxy takes that has nothing to do. The kernel of a Vera is older than Linux
# 3.15, and maps a program page by page as it is used. Later ones map 16 pages at once (fault_around_bytes), used or not.
box=boot/memory
. /test/check.sh
cd /tmp || exit
# kB (1024 bytes): 1.1 MB.
limit=1074
around=/sys/kernel/debug/fault_around_bytes

# Prints the sum of the proportional set sizes of the processes with these pids, in kB.
proportional() {
    for proportional_pid in "$@"; do
        cat "/proc/$proportional_pid/smaps_rollup"
    done | awk '$1 == "Pss:" { sum += $2 } END { print sum }'
}

check "the kernel lets us say how many pages it maps at once" mount -t debugfs debug /sys/kernel/debug
service stop
kernels_own=$(cat $around)
for bytes in "$kernels_own" 4096; do
    echo "$bytes" >$around
    /usr/sbin/sockproxyd -p 2505 </dev/null >/dev/null 2>&1 &
    alone=$!
    check "it greets" eventually greets 2505
    alone_takes=$(proportional $alone)
    kill $alone
    wait $alone
    check "start" service start
    # shellcheck disable=SC2046 # two pids
    both_take=$(proportional $(proxies))
    check "stop" service stop
    echo "INFO  memory when idle, $bytes bytes mapped at once: $alone_takes kB, with a supervisor $both_take kB"
done
check "alone that is $limit kB at most, page by page" test "$alone_takes" -le $limit
check "and with a supervisor" test "$both_take" -le $limit
echo "$kernels_own" >$around
umount /sys/kernel/debug
check "start again" service start
