# shellcheck shell=sh
# Appended to procd.sh: the functions and parameters that procd has added since its first API. The simulated jail
# is none; the parameters show what it would be.

procd_knows() {
    case $1 in
        user | group | stdout | stderr | pidfile | term_timeout | reload_signal | no_new_privs | capabilities) return 0 ;;
    esac
    return 1
}

procd_add_jail() { echo "jail $*" >>"$procd_pending"; }
procd_add_jail_mount() { echo "jail ro $*" >>"$procd_pending"; }
procd_add_jail_mount_rw() { echo "jail rw $*" >>"$procd_pending"; }
procd_add_interface_trigger() { echo "trigger $*" >>"$procd_pending"; }
