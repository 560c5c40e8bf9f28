# shellcheck shell=bash
# Functions that every developer script of sockproxyd shares. Source it, do not run it:
#
#     set -euo pipefail
#     . "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/common.sh"
#
# Gives: $ROOT (the checkout), $CACHE (what scripts download or build for themselves), and the
# functions below. Changes nothing by itself but for making no assumption on the caller's folder.
#
# Environment:
#   SOCKPROXYD_CACHE   where downloads are kept (default: .cache in the checkout)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${SOCKPROXYD_CACHE:-$ROOT/.cache}

# Tells the person what is going on; standard output stays free for results.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Says what is wrong and ends the script. Status 1; a script's own "wrong usage" is 2 (see usage_of).
die() {
    say "$*"
    exit 1
}

# Prints the comment at the head of script $1 (without the "#!" line), for -h and --help.
usage_of() {
    awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$1"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command as root: directly, or through sudo where we are not.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# Brings apt's lists up to date, once a script.
APT_LISTS_FRESH=
apt_refresh() {
    if [ -n "$APT_LISTS_FRESH" ]; then
        return 0
    fi
    have apt-get || die "this needs a Debian-like machine (apt-get)"
    # Neither a third party's broken list nor a lack of root must stop what can do without.
    (as_root apt-get update -qq >&2) || say "apt-get update had trouble; going on with the lists there are"
    APT_LISTS_FRESH=yes
}

# apt_need PROGRAM=PACKAGE...: installs the package of each program that is not there.
# A bare name stands for both.
apt_need() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%=*}" || missing+=("${pair#*=}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

# apt_install PACKAGE...: installs those that dpkg does not have yet.
apt_install() {
    local package missing=()
    for package in "$@"; do
        if ! dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed'; then
            missing+=("$package")
        fi
    done
    if [ ${#missing[@]} -eq 0 ]; then
        return 0
    fi
    apt_refresh
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -qq -y --no-install-recommends "${missing[@]}" >&2
}

# venv NAME REQUIREMENT...: makes the Python environment $CACHE/NAME with exactly these packages,
# unless it is there already, and prints its path. Pin versions ("ziglang==0.14.1").
venv() {
    local dir=$CACHE/$1 stamp
    shift
    # A moved environment does not work: its programs name it by its absolute path.
    stamp="$dir: $*"
    if [ "$(cat "$dir/.made-from" 2>/dev/null)" != "$stamp" ]; then
        have python3 || apt_install python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
        say "making the Python environment ${dir#"$ROOT"/} ($*)"
        rm -rf "$dir"
        python3 -m venv "$dir" >&2
        "$dir/bin/pip" install --quiet --disable-pip-version-check "$@" >&2
        printf '%s' "$stamp" >"$dir/.made-from"
    fi
    printf '%s\n' "$dir"
}

# with_lock NAME COMMAND...: runs the command while no other script holds the lock of that name.
with_lock() {
    local lock=$CACHE/$1.lock
    shift
    mkdir -p "$CACHE"
    (
        exec 9>"$lock"
        flock 9
        "$@" 9>&-
    )
}
