# shellcheck shell=sh
# Behind procd.sh: what procd has learnt since its first API.

procd_knows() {
    case $1 in
        user | group | stdout | stderr | pidfile | term_timeout) return 0 ;;
    esac
    return 1
}
