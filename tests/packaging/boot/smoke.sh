# shellcheck shell=sh
# Inside the virtual machine: tests of the proxy that its init script started at boot. They run twice: on the kernel as it
# is, and with every system call newer than Linux 2.6.37 answered by ENOSYS.
box=boot
. /test/check.sh
cd /tmp || exit

# ask_at PORT LINE...: sends the lines over a new connection, and prints what comes back until its end.
ask_at() {
    ask_port=$1
    shift
    printf '%s\n' "$@" | timeout 60 nc 127.0.0.1 "$ask_port"
}
ask() {
    ask_at 2504 "$@"
}
# Waits for line $2 in file $1.
has() {
    grep -q -e "$2" "$1" 2>/dev/null
}

# --- what the boot has left ---

check "Luup's first connection was served" has /tmp/first '^OK CONN '
check "to the end" has /tmp/first '^first words$'
check "two processes: supervisor and proxy" number 2
check "the clock says 1970" equal "$(date +%Y)" 1970
ready=$(dmesg | sed -n 's/^\[ *\([0-9]*\)[0-9.]*\].*crng init done.*/\1/p')
read -r greeted <proxy-to
if [ "${ready:-9999}" -gt "${greeted%.*}" ]; then
    check "it greeted before the kernel had random numbers" greets
else
    echo "INFO  random numbers were ready before the proxy: nothing said of whether it waits for them"
fi

# --- the packages, on the CPU that one of them is for ---

check "the package for this CPU is let in" sh /test/preinst-mipsel install
for other in mips arm armv7 aarch64 x86_64; do
    check "that for $other is refused" says 'another CPU' sh /test/preinst-$other install
done

# --- remotes of every kind; not before, since making keys waits for the kernel's random numbers ---

/test/echo-servers >targets 2>echo-servers.log </dev/null &
check "echo servers" eventually has targets '^wss '
# target KIND: where the echo server of that kind is.
target() {
    sed -n "s/^$1 //p" targets
}

# connect_each_kind PORT: through the proxy at that port, a line to an echo server of each kind and back.
connect_each_kind() {
    for kind in tcp tls ws wss; do
        case $kind in
            tcp) options='' ;;
            tls) options='PRTO=tls VRFY=none CTIM=30000' ;;
            ws) options='FRAM=LINE' ;;
            wss) options='FRAM=LINE VRFY=none CTIM=30000 RQTM=60000' ;;
        esac
        check "$way: $kind" says '^there and back$' ask_at "$1" "CONN $(target $kind) $options" 'there and back'
    done
}

# Starts the proxy in each way: with a supervisor and without, with a configuration file and without.
start_each_way() {
    echo '[host]' >way.cf
    for way in '-p 2505' '-c /tmp/way.cf -p 2505' '-p 2505 --supervise' '-c /tmp/way.cf -p 2505 --supervise'; do
        # shellcheck disable=SC2086
        /usr/sbin/sockproxyd -L /tmp/way.log $way </dev/null >/dev/null 2>&1 &
        started=$!
        check "$way: greeting" eventually greets 2505
        before=$(proxies)
        connect_each_kind 2505
        check "$way: no process died" equal "$(proxies)" "$before"
        check "$way: STOP" says '^OK STOP$' ask_at 2505 STOP
        # A supervisor starts it again.
        case $way in
            *--supervise)
                check "$way: starts it again" eventually greets 2505
                kill "$started"
                ;;
        esac
        check "$way: it ends" eventually number 0
    done
}

smoke() {
    check "greeting" greets
    check "a name, from /etc/hosts" says '^through a name$' ask 'CONN localhost:7000' 'through a name'
    check "a name that is not there" says '^ERR CONN ' ask 'CONN no-such-host.invalid:7000'
    check "a closed port" says '^ERR CONN connection refused' ask 'CONN 127.0.0.1:7999'
    dd if=/dev/urandom of=bulk bs=4096 count=64 2>/dev/null
    { echo 'CONN 127.0.0.1:7000'; cat bulk; } | timeout 60 nc 127.0.0.1 2504 >bulk.back
    tail -c 262144 bulk.back >bulk.data
    check "256 KiB there and back" cmp bulk bulk.data
    check "and not a byte more" equal "$(wc -c <bulk.data) $(head -n 2 bulk.back | wc -c)" \
        "262144 $(($(wc -c <bulk.back) - 262144))"

    # A datagram, over a connection that is held open.
    rm -f hold
    mkfifo hold
    nc 127.0.0.1 2504 <hold >udp.back &
    held=$!
    exec 3>hold
    echo "CONN $(target udp) PRTO=udp" >&3
    check "UDP is opened" eventually has udp.back '^OK CONN '
    echo 'a datagram' >&3
    check "a datagram there and back" eventually has udp.back '^a datagram$'
    exec 3>&-
    kill $held
    wait $held 2>/dev/null

    rm -f requests
    check "a talker is heard" says '^spoken$' ask 'CONN 127.0.0.1:7001 NTFY=5/urn:test/HandleIt/77'
    check "Luup is notified" eventually has requests \
        '^GET /data_request?id=action&output_format=json&DeviceNum=5&serviceId=urn%3atest&action=HandleIt&Pid=77 HTTP/1.1'

    threads=$(field "$(worker)" Threads)
    check "threads work ($threads)" test "$threads" -ge 2
    check "STAT" says '^\*' ask STAT QUIT
    check "CAPA" says '^OK CAPA BLKS RTIM NTFY CONN UDP' ask CAPA QUIT

    mv proxy.log proxy.log.1
    kill -HUP "$(supervisor)"
    check "HUP reopens the log" eventually test -f proxy.log
    kill -USR1 "$(supervisor)"
    check "USR1 logs the connections" eventually has proxy.log 'Client'

    echo "INFO  memory of the proxy: $(field "$(worker)" VmRSS) kB now, $(field "$(worker)" VmHWM) kB at most; of its supervisor: $(field "$(supervisor)" VmRSS) kB"
    killed=$(worker)
    kill -9 "$killed"
    check "killed, it comes back" eventually another_worker "$killed"
    check "and greets" eventually greets

    # The clock jumps while a connection waits in setup mode, and another for its remote.
    rm -f hold
    mkfifo hold
    nc 127.0.0.1 2504 <hold >held.back &
    held=$!
    exec 3>hold
    check "a connection that will see the clock jump" eventually has held.back '^OK TOGGLEDBITS'
    date -s "$1" >/dev/null
    check "the clock has jumped" equal "$(date +%Y)" "${1%%-*}"
    echo 'CONN localhost:7000 RTIM=20000' >&3
    check "it is served after that" eventually has held.back '^OK CONN '
    echo 'after the jump' >&3
    check "and connected" eventually has held.back '^after the jump$'
    exec 3>&-
    wait $held 2>/dev/null
    rm -f requests
    ask 'CONN 127.0.0.1:7001 NTFY=6/urn:test/HandleIt/78' >/dev/null
    check "Luup is notified after that" eventually has requests 'DeviceNum=6'

    ended=$(worker)
    printf 'STOP\n' | timeout 10 nc 127.0.0.1 2504 >stop.back
    check "STOP" has stop.back '^OK STOP$'
    check "its supervisor starts it again" eventually another_worker "$ended"
    check "stop" service stop
    check "no process is left" eventually number 0
    start_each_way
}

# --- on this kernel ---

box=boot/new
smoke 2026-11-21
date -s 1970-01-01 >/dev/null

# --- as on an old one ---

box=boot/2.6.37
check "a newer system call is there" /test/old-kernel --getrandom
check "but not behind the filter" not /test/old-kernel /test/old-kernel --getrandom
mkdir -p /tmp/real
mv /usr/sbin/sockproxyd /tmp/real/sockproxyd
printf '#!/bin/sh\nexec /test/old-kernel /tmp/real/sockproxyd "$@"\n' >/usr/sbin/sockproxyd
chmod 755 /usr/sbin/sockproxyd
check "start" service start
check "it runs behind the filter" equal "$(field "$(worker)" Seccomp)" 2
check "its supervisor as well" equal "$(field "$(supervisor)" Seccomp)" 2
smoke 2019-06-01

rm -f /etc/sockproxyd.cf
syslogd -n -O /tmp/messages &
check "a system log" eventually test -S /dev/log
check "start, with a system log" service start
check "it logs there" eventually has /tmp/messages 'sockproxyd.*listening'
check "stop" service stop
check "nothing is left" number 0
