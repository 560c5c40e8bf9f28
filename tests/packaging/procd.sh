# shellcheck shell=sh
# A simulation of OpenWrt's procd.sh and procd: stores the parameters of a service below /var/run/procd and
# starts it. Like procd, it restarts the service only if the parameters have changed, and its stop does not
# wait. It does not restart a service that has ended; only the real procd does.
# Implements the functions and parameters of the first API. With /tmp/procd-loses it loses the next service, as
# procd of 2014 does while it starts.

procd_current=/var/run/procd/current
procd_pending=/var/run/procd/pending
running=/var/run/procd/pid

procd_open_service() {
    mkdir -p /var/run/procd
    : >"$procd_pending"
}
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_open_trigger() { :; }
procd_close_trigger() { :; }
procd_add_config_trigger() { echo "trigger $*" >>"$procd_pending"; }

# procd-today.sh replaces this for today's API.
procd_knows() {
    return 1
}

procd_set_param() {
    case $1 in
        command | netdev | respawn | env | data | limits | nice) ;;
        file)
            shift
            for named; do
                [ ! -f "$named" ] || echo "file $(md5sum "$named")" >>"$procd_pending"
            done
            return
            ;;
        *) procd_knows "$1" || return 0 ;;
    esac
    [ "$1" != command ] || (shift; printf '%s\n' "$@") >/var/run/procd/command
    echo "$*" >>"$procd_pending"
}

procd_runs() {
    [ -s "$running" ] && [ -n "$(tr '\000' ' ' 2>/dev/null <"/proc/$(cat "$running")/cmdline")" ]
}

procd_close_service() {
    service_triggers
    if [ -e /tmp/procd-loses ]; then
        rm -f /tmp/procd-loses
        return
    fi
    if procd_runs && cmp -s "$procd_pending" "$procd_current"; then
        return
    fi
    ! procd_runs || procd_restart_wait
    mv "$procd_pending" "$procd_current"
    grep -q '^command ' "$procd_current" || return 0
    set --
    while read -r word; do
        set -- "$@" "$word"
    done </var/run/procd/command
    # The process gets no descriptor of the caller: procd starts it, not the init script.
    setsid "$@" </dev/null >/dev/null 2>/var/run/procd/stderr 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    echo $! >"$running"
}

# procd starts a changed service after the previous process has ended.
procd_restart_wait() {
    kill "$(cat "$running")"
    while procd_runs; do
        usleep 10000
    done
}

# Does not wait and drops the service, so that a service that starts next may find the port in use.
procd_kill() {
    # As ubus says for a service that procd does not know.
    [ -e "$procd_current" ] || echo "Command failed: Not found" >&2
    ! procd_runs || kill "$(cat "$running")"
    rm -f "$procd_current" "$running"
}

procd_status() {
    procd_runs && echo running
}
