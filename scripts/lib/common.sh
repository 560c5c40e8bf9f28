# shellcheck shell=bash
# Functions that all developer scripts of sockproxyd share. Source this file:
#
#     set -euo pipefail
#     . "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/lib/common.sh"
#
# It sets $ROOT (the checkout) and $CACHE (the folder for downloads and tools), and defines the functions below. The
# caller's current folder does not matter.
#
# Environment:
#   SOCKPROXYD_CACHE   the folder for downloads and tools (default: .cache in the checkout)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
CACHE=${SOCKPROXYD_CACHE:-$ROOT/.cache}

# Prints progress for the user on standard error; standard output is for results.
say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

# Prints an error and exits with status 1. Wrong usage has status 2 (see usage_of).
die() {
    say "$*"
    exit 1
}

# Prints the comment at the beginning of script $1, without the "#!" line, for -h and --help.
usage_of() {
    awk 'NR == 1 && /^#!/ { next } !/^#/ { exit } { sub(/^# ?/, ""); print }' "$1"
}

have() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command as root, with sudo if needed.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: $*"
    fi
}

# Updates apt's package lists, once for each script.
APT_LISTS_FRESH=
apt_refresh() {
    if [ -n "$APT_LISTS_FRESH" ]; then
        return 0
    fi
    have apt-get || die "this needs a Debian-like machine (apt-get)"
    # Best effort: a broken third-party list or missing root rights matter only if a package is missing.
    (as_root apt-get update -qq >&2) || say "apt-get update failed; using the existing lists"
    APT_LISTS_FRESH=yes
}

# apt_need PROGRAM=PACKAGE...: installs the package of each missing program.
# A single name is both the program and the package.
apt_need() {
    local pair missing=()
    for pair in "$@"; do
        have "${pair%%=*}" || missing+=("${pair#*=}")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

# apt_install PACKAGE...: installs the packages that dpkg does not have yet.
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

# Installs Lua 5.1 with LuaSocket and LuaSec if they are missing.
need_luasocket() {
    if ! lua5.1 -e 'require "socket" require "ssl"' 2>/dev/null; then
        apt_install lua5.1 lua-socket lua-sec
    fi
}

# cargo_tool NAME VERSION [FLAG...]: compiles the crate NAME into $CACHE/NAME, unless that has this version. The flags are
# those of cargo install.
cargo_tool() {
    local name=$1 version=$2 root=$CACHE/$1
    shift 2
    if [ "$(cat "$root/.version" 2>/dev/null)" != "$version" ]; then
        say "compiling $name $version"
        CARGO_TARGET_DIR=$root/target \
            cargo install --quiet --locked --root "$root" --version "$version" "$@" "$name"
        rm -rf "$root/target"
        printf '%s' "$version" >"$root/.version"
    fi
}

# venv NAME REQUIREMENT...: creates the Python environment $CACHE/NAME with exactly these packages, unless it exists
# already, and prints its path. Requirements must be pinned ("ziglang==0.14.1").
venv() {
    local dir=$CACHE/$1 stamp
    shift
    # The stamp includes the path, since programs in an environment contain its absolute path.
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

# with_lock NAME COMMAND...: runs the command while it holds the lock NAME, which other scripts wait for.
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
