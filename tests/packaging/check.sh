# shellcheck shell=sh
# What the tests inside a box share. Each check prints one line, "ok    NAME" or "FAIL  NAME" and what was seen.

service() {
    /etc/init.d/sockproxyd "$@"
}

# check NAME COMMAND...: passes if the command succeeds.
check() {
    check_name=$1
    shift
    if check_seen=$("$@" 2>&1 </dev/null); then
        echo "ok    $box: $check_name"
    else
        echo "FAIL  $box: $check_name: $* => $?: $check_seen"
    fi
}

# The opposite of a command, as a command.
not() {
    ! "$@"
}

# eventually COMMAND...: waits until it succeeds, 10 s at most.
eventually() {
    read -r eventually_from _ </proc/uptime
    until "$@"; do
        read -r eventually_now _ </proc/uptime
        [ $((${eventually_now%.*} - ${eventually_from%.*})) -lt 10 ] || return 1
        /test/busybox usleep 20000
    done
}

# equal WHAT EXPECTED
equal() {
    [ "$1" = "$2" ] || { echo "'$1', expected '$2'"; return 1; }
}

# says PATTERN COMMAND...: its output, of both kinds, matches; whatever its status.
says() {
    pattern=$1
    shift
    said=$("$@" 2>&1)
    echo "$said" | grep -q -e "$pattern" || { echo "said: $said"; return 1; }
}

# The greeting at port $1, address $2.
greeting() {
    echo QUIT | /test/busybox timeout 5 /test/busybox nc "${2:-127.0.0.1}" "${1:-2504}" 2>/dev/null | head -n 1
}
greets() {
    greeting "$@" | grep -q '^OK TOGGLEDBITS-SOCKPROXY 1 '
}

# The proxy's processes, oldest first, in one line.
proxies() {
    /test/busybox ps -o pid,args | awk '$3 == "-L" && $2 ~ /sockproxyd$/ { print $1 }' | sort -n | tr '\n' ' '
}
# The number of its processes.
count() {
    proxies | wc -w | tr -d ' '
}
number() {
    [ "$(count)" = "$1" ]
}
# Process $1's field $2 of /proc/PID/status.
field() {
    awk -v "want=$2:" '$1 == want { print $2 }' "/proc/$1/status"
}
# Of its two processes, the one that supervises and the one that works.
supervisor() {
    for one in $(proxies); do [ "$(field "$one" PPid)" != 1 ] || echo "$one"; done
}
worker() {
    for one in $(proxies); do [ "$(field "$one" PPid)" = 1 ] || echo "$one"; done
}
another_worker() {
    [ -n "$(worker)" ] && [ "$(worker)" != "$1" ]
}
