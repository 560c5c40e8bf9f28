#!/bin/sh
# sockproxyd-launcher: starts the daemon on a Vera; written by the SockProxy plugin
#
# The daemon is stored where Vera's "Luup files" page put it, as a program that expands it, and usually compressed once
# more by the page itself (.lzo). This script has it expanded into memory, verifies that it is the plugin's own version,
# and replaces itself by it with exec: at boot, when the init script starts it in place of the daemon, and when the
# plugin installs or updates the daemon. The flash, which is often nearly full, holds one compressed copy and no
# other.
#
# usage:        sockproxyd [option of the daemon]...
# environment:  SOCKPROXYD_LAUNCHER=expand   expand and verify, then exit without starting the daemon
# exit status:  that of the daemon, or the launcher's own: 72 the uploaded file is missing, 73 memory is
#               full, 74 the uploaded file is damaged or of another version, 75 the daemon does not run here
#
# Do not edit: the plugin overwrites it. The plugin's Uninstall action removes the plugin's files.

# Runs in BusyBox ash from 1.17 on: no pipefail, and only the basic tools.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022

name='@NAME@'
size='@SIZE@'
md5='@MD5@'
packed_size='@PACKED_SIZE@'
packed_md5='@PACKED_MD5@'
version='@VERSION@'
uploads='@UPLOADS@'
runtime='@RUNTIME@'

program=$runtime/sockproxyd
new=$runtime/new.$$
packed=$runtime/packed.$$

# Reports an error on standard error and in the system log, and exits.
fail() {
    status=$1
    shift
    echo "$*" >&2
    logger -t sockproxyd "launcher: $*" 2>/dev/null || :
    exit "$status"
}

# True if file $1 has $2 bytes and the MD5 sum $3.
is() {
    [ -f "$1" ] || return 1
    # shellcheck disable=SC2046 # BusyBox wc pads the number with blanks
    [ $(wc -c <"$1") -eq "$2" ] || return 1
    # Without md5sum, the size and --version have to suffice.
    command -v md5sum >/dev/null 2>&1 || return 0
    sum=$(md5sum <"$1")
    [ "${sum%% *}" = "$3" ]
}

# Expands upload $1 to $new. Returns 1, and runs nothing, if it is not the plugin's own.
expand() {
    case $1 in
        *.lzo)
            command -v pluto-lzo >/dev/null 2>&1 || return 1
            # pluto-lzo exits with 0 even for damaged content.
            pluto-lzo d "$1" "$packed" >/dev/null 2>&1 || :
            ;;
        # Uploads cannot be executed.
        *) cp "$1" "$packed" ;;
    esac
    if ! is "$packed" "$packed_size" "$packed_md5"; then
        rm -f "$packed"
        return 1
    fi
    chmod 700 "$packed"
    output=$("$packed" "$new" 2>&1 </dev/null) || case $? in
        73)
            # Other programs have taken the memory that was free. The plugin stores the error there, too.
            rm -f "$new" "$packed"
            fail 73 "not enough memory in $runtime: $output"
            ;;
        *) fail 75 "$name does not run on this device: $output" ;;
    esac
    rm -f "$packed"
    is "$new" "$size" "$md5"
}

# Sets $free: the free space of $runtime in KiB. df may break its line in two.
measure_free() {
    free=$(df -k "$runtime" | awk 'NR > 1 { line = line " " $0 } END { n = split(line, f, " "); print f[n - 2] + 0 }')
}

unpack() {
    mkdir -p "$runtime"
    # Remove what a killed launcher has left.
    for old in "$runtime"/new.* "$runtime"/packed.*; do
        [ -e "$old" ] || continue
        kill -0 "${old##*.}" 2>/dev/null || rm -f "$old"
    done

    # The newer upload first: Luup may leave an older copy of the other kind.
    plain=$uploads/$name lzo=$uploads/$name.lzo
    # shellcheck disable=SC3013 # not POSIX, but every ash, dash and bash has -nt
    if [ -f "$plain" ] && [ -f "$lzo" ] && [ "$plain" -nt "$lzo" ]; then
        set -- "$plain" "$lzo"
    else
        set -- "$lzo" "$plain"
    fi
    trap 'rm -f "$new" "$packed"' EXIT
    trap 'exit 143' HUP INT TERM
    measure_free
    found=
    for upload in "$@"; do
        [ -f "$upload" ] || continue
        found="$found ${upload##*/}"
        # The daemon and, while it is expanded, the program that does so. Leave 256 KiB to the other programs that use this
        # memory.
        needed=$(((size + packed_size) / 1024 + 256))
        [ "$free" -ge "$needed" ] || fail 73 "not enough memory in $runtime: $free KiB free, $needed KiB needed"
        expand "$upload" || continue
        chmod 755 "$new"
        output=$("$new" --version 2>&1 </dev/null) || output="exit status $? $output"
        [ "$output" = "sockproxyd $version" ] || fail 75 "$name does not run on this device: $output"
        mv -f "$new" "$program"
        trap - EXIT HUP INT TERM
        return 0
    done
    [ -n "$found" ] || fail 72 "$name is not in $uploads"
    fail 74 "damaged or of another version:$found; upload all files again"
}

is "$program" "$size" "$md5" || unpack
[ "${SOCKPROXYD_LAUNCHER:-}" != expand ] || exit 0
exec "$program" "$@"
