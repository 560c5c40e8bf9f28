# shellcheck shell=sh
# A stand-in for OpenWrt's procd.sh and procd: keeps what an init script says of its service below
# /var/run/procd, starts it, and, like procd, starts it anew only if what it said has changed. Like procd's,
# its stop does not wait. It restarts nothing that dies: that takes the real one.
# The functions and parameters of the first API.

said=/var/run/procd/said
saying=/var/run/procd/saying
running=/var/run/procd/pid

procd_open_service() {
    mkdir -p /var/run/procd
    : >"$saying"
}
procd_open_instance() { :; }
procd_close_instance() { :; }
procd_open_trigger() { :; }
procd_close_trigger() { :; }
procd_add_config_trigger() { echo "trigger $*" >>"$saying"; }
procd_add_reload_trigger() { echo "trigger config.change $1 reload" >>"$saying"; }

# Today's API says otherwise: see procd-today.sh.
procd_knows() {
    return 1
}

procd_set_param() {
    case $1 in
        command | netdev | respawn | env | data | limits | nice) ;;
        file)
            shift
            for named; do
                [ ! -f "$named" ] || echo "file $(md5sum "$named")" >>"$saying"
            done
            return
            ;;
        *) procd_knows "$1" || return 0 ;;
    esac
    [ "$1" != command ] || (shift; printf '%s\n' "$@") >/var/run/procd/command
    echo "$*" >>"$saying"
}

procd_runs() {
    [ -s "$running" ] && [ -n "$(tr '\000' ' ' 2>/dev/null <"/proc/$(cat "$running")/cmdline")" ]
}

procd_close_service() {
    service_triggers
    if procd_runs && cmp -s "$saying" "$said"; then
        return
    fi
    ! procd_runs || procd_restart_wait
    mv "$saying" "$said"
    grep -q '^command ' "$said" || return 0
    set --
    while read -r word; do
        set -- "$@" "$word"
    done </var/run/procd/command
    # No descriptor of the caller: procd starts it, not the init script.
    setsid "$@" </dev/null >/dev/null 2>/var/run/procd/stderr 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    echo $! >"$running"
}

# procd starts a changed service when the process before it has gone.
procd_restart_wait() {
    kill "$(cat "$running")"
    while procd_runs; do
        usleep 10000
    done
}

# Does not wait, and forgets it: what is started next may meet it at the port.
procd_kill() {
    ! procd_runs || kill "$(cat "$running")"
    rm -f "$said" "$running"
}

procd_status() {
    procd_runs && echo running
}
