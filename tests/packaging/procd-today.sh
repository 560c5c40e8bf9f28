# shellcheck shell=sh
# Appended to procd.sh: the parameters that procd has added since its first API.

procd_knows() {
    case $1 in
        user | group | stdout | stderr | pidfile | term_timeout) return 0 ;;
    esac
    return 1
}
