#!/bin/sh
# sockproxyd-launcher: stands in for the daemon on a Vera; written by the SockProxy plugin
#
# The daemon lies compressed where Vera's "Luup files" page put it. This script expands it into
# memory, makes sure that it is what the plugin came with, and becomes it: at boot, when the init
# script starts what it takes for the daemon, and when the plugin installs or updates it. So the
# flash, often nearly full, holds one compressed copy and no other.
#
# usage:        sockproxyd [option of the daemon]...
# environment:  SOCKPROXYD_LAUNCHER=expand   expand and check, then end without starting the daemon
# exit status:  that of the daemon, or the launcher's own: 72 there is no uploaded file, 73 no room
#               in memory, 74 what was uploaded is damaged or of another version, 75 it does not run here
#
# Do not edit: the plugin writes it anew. Delete the plugin's files by its Uninstall action.

# For BusyBox ash from 1.17 on: no pipefail, no local tools beyond the plain ones.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022

name='@NAME@'
size='@SIZE@'
md5='@MD5@'
version='@VERSION@'
uploads='@UPLOADS@'
room='@ROOM@'

program=$room/sockproxyd
new=$room/new.$$

# Tells the person at the terminal or the plugin, and the system log.
fail() {
    status=$1
    shift
    echo "$*" >&2
    logger -t sockproxyd "launcher: $*" 2>/dev/null || :
    exit "$status"
}

# True if file $1 is, byte for byte, the daemon that the plugin came with.
genuine() {
    [ -f "$1" ] || return 1
    # shellcheck disable=SC2046 # BusyBox wc pads the number with blanks
    [ $(wc -c <"$1") -eq "$size" ] || return 1
    # A BusyBox built without md5sum: size, format and --version have to do.
    command -v md5sum >/dev/null 2>&1 || return 0
    sum=$(md5sum <"$1")
    [ "${sum%% *}" = "$md5" ]
}

# Writes the expanded content of upload $1 to $new.
expand() {
    case $1 in
        *.lzo)
            command -v pluto-lzo >/dev/null 2>&1 || return 1
            # What it thinks of the content is not to be seen in its exit status: see genuine.
            pluto-lzo d "$1" "$new" >/dev/null 2>&1 || :
            ;;
        *) cp "$1" "$new" 2>/dev/null || : ;;
    esac
}

# Sets $free: what the file system of $room can still take, in KiB. df may break its line in two.
measure() {
    free=$(df -k "$room" | awk 'NR > 1 { line = line " " $0 } END { n = split(line, f, " "); print f[n - 2] + 0 }')
}

unpack() {
    mkdir -p "$room"
    # What a launcher that was killed in the middle has left.
    for old in "$room"/new.*; do
        [ -e "$old" ] || continue
        kill -0 "${old##*.}" 2>/dev/null || rm -f "$old"
    done

    # The newest first: Luup may leave an older copy of the other kind.
    plain=$uploads/$name packed=$uploads/$name.lzo
    # shellcheck disable=SC3013 # not POSIX, but every ash, dash and bash has -nt
    if [ -f "$plain" ] && [ -f "$packed" ] && [ "$plain" -nt "$packed" ]; then
        set -- "$plain" "$packed"
    else
        set -- "$packed" "$plain"
    fi

    trap 'rm -f "$new"' EXIT
    trap 'exit 143' HUP INT TERM
    measure
    found=
    for upload in "$@"; do
        [ -f "$upload" ] || continue
        found="$found ${upload##*/}"
        # A quarter of a MiB is left to the others who live in this memory.
        needed=$((size / 1024 + 256))
        [ "$free" -ge "$needed" ] || fail 73 "no room in $room: $free KiB free, $needed KiB needed"
        expand "$upload" || continue
        genuine "$new" || continue
        chmod 755 "$new"
        says=$("$new" --version 2>&1 </dev/null) || says="exit status $? $says"
        [ "$says" = "sockproxyd $version" ] || fail 75 "$name does not run on this box: $says"
        mv -f "$new" "$program"
        trap - EXIT HUP INT TERM
        return 0
    done
    [ -n "$found" ] || fail 72 "$name is not in $uploads"
    fail 74 "damaged or of another version:$found; upload all files again"
}

genuine "$program" || unpack
[ "${SOCKPROXYD_LAUNCHER:-}" != expand ] || exit 0
exec "$program" "$@"
