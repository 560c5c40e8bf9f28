# shellcheck shell=sh
# Functions of the tests inside a box. Each check prints one line, "ok    NAME" or "FAIL  NAME" with the output.

service() {
    /etc/init.d/sockproxyd "$@"
}

# check NAME COMMAND...: passes if the command succeeds. $box is the name of the box.
check() {
    check_name=$1
    shift
    if check_seen=$("$@" 2>&1 </dev/null); then
        echo "ok    $box: $check_name"
    else
        echo "FAIL  $box: $check_name: $* => $?: $check_seen"
    fi
}

# not COMMAND...: succeeds if the command fails.
not() {
    ! "$@"
}

# eventually COMMAND...: waits until the command succeeds, 10 s at most.
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

# says PATTERN COMMAND...: succeeds if the command's standard output or standard error matches, whatever its
# status.
says() {
    pattern=$1
    shift
    said=$("$@" 2>&1)
    echo "$said" | grep -q -e "$pattern" || { echo "said: $said"; return 1; }
}

# greeting [PORT [ADDRESS]]: prints the greeting.
greeting() {
    echo QUIT | /test/busybox timeout 5 /test/busybox nc "${2:-127.0.0.1}" "${1:-2504}" 2>/dev/null | head -n 1
}
greets() {
    greeting "$@" | grep -q '^OK TOGGLEDBITS-SOCKPROXY 1 '
}

# Prints the proxy's processes, oldest first, in one line.
proxies() {
    /test/busybox ps -o pid,args | awk '$3 == "-L" && $2 ~ /sockproxyd$/ { print $1 }' | sort -n | tr '\n' ' '
}
# Prints the number of the proxy's processes.
count() {
    proxies | wc -w | tr -d ' '
}
number() {
    [ "$(count)" = "$1" ]
}
# field PID NAME: prints a field of /proc/PID/status.
field() {
    awk -v "want=$2:" '$1 == want { print $2 }' "/proc/$1/status"
}
# Print the supervisor, and the worker, of the proxy's two processes.
supervisor() {
    for one in $(proxies); do [ "$(field "$one" PPid)" != 1 ] || echo "$one"; done
}
worker() {
    for one in $(proxies); do [ "$(field "$one" PPid)" = 1 ] || echo "$one"; done
}
another_worker() {
    [ -n "$(worker)" ] && [ "$(worker)" != "$1" ]
}

# Prints the id of a new process. In a box, which has ids of its own, they count up.
new_process() {
    /test/busybox sh -c 'echo $$'
}
# created COMMAND...: sets $processes_created to the number of processes that the command creates, the threads of the proxy
# left aside.
created() {
    created_from=$(new_process)
    created_to=$(new_process)
    created_by_counting=$((created_to - created_from))
    created_from=$(new_process)
    "$@" >/dev/null 2>&1 </dev/null
    created_to=$(new_process)
    processes_created=$((created_to - created_from - created_by_counting))
    for one in $(proxies); do
        processes_created=$((processes_created - $(field "$one" Threads) + 1))
    done
}
