#!/bin/sh
# Installs sockproxyd from the archive that contains this script, or removes it: for systems without opkg,
# apk or dpkg, which have packages, and for a container that has openLuup, too. Needs root.
#
# usage: ./install.sh [install]        installs or upgrades, and starts the daemon
#        ./install.sh uninstall        stops and removes it; an edited configuration stays
#        ./install.sh --purge          like uninstall, and removes the configuration
#        ./install.sh detect           prints the service manager: openwrt, systemd, sysv or none
#
# exit status: 0; 1 on failure, with the reason on standard error; 2 wrong usage

set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
conf=/etc/sockproxyd.cf
uci=/etc/config/sockproxyd
capabilities=/etc/capabilities/sockproxyd.json
keys=/etc/sockproxyd.d

say() {
    echo "sockproxyd: $*"
}
fail() {
    echo "sockproxyd: $*" >&2
    exit 1
}
have() {
    command -v "$1" >/dev/null 2>&1
}

detect() {
    if [ -f /etc/rc.common ]; then
        echo openwrt
    elif [ -d /run/systemd/system ]; then
        echo systemd
    elif [ -d /etc/init.d ] && have start-stop-daemon; then
        echo sysv
    else
        echo none
    fi
}

# put MODE FROM TO: writes a new file and renames it, so that a running program keeps the old one.
put() {
    mkdir -p "${3%/*}"
    cp "$here/$2" "$3.new"
    chmod "$1" "$3.new"
    mv -f "$3.new" "$3"
}

# Prints the processes of the Lua daemon, however it was started: "lua5.1 /usr/local/bin/sockproxyd ...",
# ".../sockproxyd.lua".
lua_daemons() {
    for process in /proc/[0-9]*; do
        tr '\000' '\n' 2>/dev/null <"$process/cmdline" | awk -v "id=${process#/proc/}" '
            NR == 1 && !/^([^ ]*\/)?lua[^\/]*$/ { exit }
            NR > 1 && /(^|\/)sockproxyd(\.lua)?$/ { print id; exit }'
    done
}

# A script or unit with our name and another content, most likely the Lua daemon's. It is kept here until
# sockproxyd is removed.
unit=/etc/systemd/system/sockproxyd.service
kept=/etc/sockproxyd.before
save_foreign() {
    [ -f "$1" ] || return 0
    ! grep -q 'Socket proxy for Luup plugins\|sockproxyd-init:' "$1" || return 0
    mkdir -p $kept
    mv -f "$1" $kept/
    say "moved the existing $1 to $kept"
}
restore_foreign() {
    [ -f "$kept/${1##*/}" ] || return 0
    mv -f "$kept/${1##*/}" "$1"
    rmdir $kept 2>/dev/null || :
    say "restored the previous $1; it is not started"
}

# Names other files that start the Lua daemon, now or at the next boot: two daemons would compete for one
# port.
warn_other_starters() {
    grep -ls 'sockproxyd' /etc/systemd/system/*.service /lib/systemd/system/*.service /etc/rc.local /etc/inittab /etc/crontab \
        /etc/cron.d/* /var/spool/cron/crontabs/* | while read -r file; do
        [ "$file" = "$unit" ] || ! grep -v '^[[:blank:]]*[#;]' "$file" | grep -q 'sockproxyd\.lua\|lua.*sockproxyd' ||
            say "$file starts the Lua daemon: remove that line or disable it, because both daemons need the same port"
    done
}

# Ends the Lua daemon, which has the port. Neither init script knows the other daemon.
end_lua_daemon() {
    [ -z "$(lua_daemons)" ] || say "ending the Lua daemon, which sockproxyd replaces"
    left=5
    while found=$(lua_daemons) && [ -n "$found" ] && [ $left -ge 0 ]; do
        signal=TERM
        [ $left -gt 0 ] || signal=KILL
        # shellcheck disable=SC2086 # one word a process
        kill -$signal $found 2>/dev/null || :
        sleep 1
        left=$((left - 1))
    done
}

# --- OpenWrt, with procd or without: the package's maintainer scripts do the work ---

install_openwrt() {
    # If preinst refuses this CPU, nothing is changed.
    sh "$here/openwrt/preinst" install
    put 755 sockproxyd "$program"
    put 755 openwrt/sockproxyd /etc/init.d/sockproxyd
    [ -f $uci ] || put 644 openwrt/sockproxyd.config $uci
    put 644 openwrt/sockproxyd.json $capabilities
    # A firmware upgrade keeps the files that are named here.
    if [ -d /lib/upgrade/keep.d ]; then
        printf '%s\n' "$program" "$conf" $uci $capabilities /etc/init.d/sockproxyd /etc/rc.d/S80sockproxyd \
            /etc/rc.d/K80sockproxyd /etc/sockproxyd.d /lib/upgrade/keep.d/sockproxyd >/lib/upgrade/keep.d/sockproxyd
        for file in "$here"/lua/*.lua; do
            echo "$modules/${file##*/}"
        done >>/lib/upgrade/keep.d/sockproxyd
    fi
    sh "$here/openwrt/postinst" configure
    # Up to OpenWrt 14.07 a firmware upgrade keeps regular files only, not the links that start the daemon.
    if [ -f /sbin/sysupgrade ] && ! grep -q 'type l' /sbin/sysupgrade; then
        for link in /etc/rc.d/[SK]80sockproxyd; do
            if [ -L "$link" ]; then
                rm -f "$link"
                printf '#!/bin/sh\nexec /etc/init.d/sockproxyd "$@"\n' >"$link"
                chmod 755 "$link"
            fi
        done
    fi
}
uninstall_openwrt() {
    sh "$here/openwrt/prerm" remove
    rm -f "$program" /etc/init.d/sockproxyd $capabilities /lib/upgrade/keep.d/sockproxyd
    remove_configuration openwrt/sockproxyd.config $uci
    sh "$here/openwrt/postrm" remove
}

# --- the Lua modules, in Lua's search path ---

install_lua() {
    for file in "$here"/lua/*.lua; do
        put 644 "lua/${file##*/}" "$modules/${file##*/}"
    done
}
uninstall_lua() {
    for file in "$here"/lua/*.lua; do
        rm -f "$modules/${file##*/}"
    done
}

# --- the manual page ---

manual=/usr/local/share/man/man8/sockproxyd.8
install_manual() {
    [ ! -f "$here/sockproxyd.8" ] || put 644 sockproxyd.8 $manual
}

# --- the user, and the directory of its certificates and keys ---

has_user() {
    grep -q '^sockproxyd:' /etc/passwd
}
# Creates the user sockproxyd. Fails if that is not possible.
create_user() {
    ! has_user || return 0
    if have useradd; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin sockproxyd
    else
        have systemd-sysusers && systemd-sysusers --inline 'u sockproxyd - "Socket proxy for Luup plugins" /nonexistent'
    fi
}
# The proxy reads this directory. A file that root creates there has the group sockproxyd, by the set-group-ID bit.
# --make-cert gives its files to the owner of the directory.
create_keys() {
    [ ! -d $keys ] || return 0
    mkdir $keys
    chown sockproxyd:sockproxyd $keys
    chmod 2750 $keys
}
remove_keys_and_user() {
    if [ -d $keys ] && ! rmdir $keys 2>/dev/null; then
        say "$keys has files and stays, with the user sockproxyd"
    elif has_user && have userdel; then
        userdel sockproxyd
    fi
}

# --- systemd ---

install_systemd() {
    create_user || fail "cannot create the user sockproxyd, which the unit needs"
    create_keys
    save_foreign $unit
    put 755 sockproxyd "$program"
    install_manual
    put 644 systemd/sockproxyd.service $unit
    systemctl daemon-reload
    systemctl enable sockproxyd.service
    systemctl restart sockproxyd.service
}
uninstall_systemd() {
    systemctl disable --now sockproxyd.service 2>/dev/null || :
    rm -f $unit "$program" $manual
    rm -rf /var/log/sockproxyd
    remove_keys_and_user
    restore_foreign $unit
    systemctl daemon-reload
}

# --- SysV ---

links() {
    for level in 2 3 4 5; do
        [ ! -d /etc/rc$level.d ] || echo "/etc/rc$level.d/S20sockproxyd"
    done
    for level in 0 1 6; do
        [ ! -d /etc/rc$level.d ] || echo "/etc/rc$level.d/K20sockproxyd"
    done
}
install_sysv() {
    if create_user; then
        create_keys
    else
        say "cannot create the user sockproxyd; the daemon will run as root"
    fi
    put 755 sockproxyd "$program"
    install_manual
    save_foreign /etc/init.d/sockproxyd
    put 755 sysv/sockproxyd /etc/init.d/sockproxyd
    if have update-rc.d; then
        update-rc.d sockproxyd defaults
    else
        for link in $(links); do
            ln -sf ../init.d/sockproxyd "$link"
        done
    fi
    /etc/init.d/sockproxyd restart
}
uninstall_sysv() {
    [ ! -x /etc/init.d/sockproxyd ] || /etc/init.d/sockproxyd stop
    rm -f /etc/init.d/sockproxyd "$program" $manual
    if have update-rc.d; then
        update-rc.d sockproxyd remove
    else
        for link in $(links); do
            rm -f "$link"
        done
    fi
    rm -rf /var/log/sockproxyd
    remove_keys_and_user
    restore_foreign /etc/init.d/sockproxyd
}

# --- no service manager, as in a container ---

install_none() {
    put 755 sockproxyd "$program"
    say "this system has no service manager. Start the daemon before openLuup:"
    say "  $program -c $conf --supervise &"
}
uninstall_none() {
    rm -f "$program"
}

# --- common steps ---

may_change() {
    [ "$(id -u)" = 0 ] || fail "this needs root"
    for list in /usr/lib/opkg/info/sockproxyd.list /usr/lib/opkg/info/sockproxyd.control; do
        [ ! -f $list ] || fail "sockproxyd is installed as a package; use opkg"
    done
    if have apk && apk info -e sockproxyd >/dev/null 2>&1; then
        fail "sockproxyd is installed as a package; use apk"
    fi
    # shellcheck disable=SC2016 # dpkg-query expands it
    if have dpkg-query && dpkg-query -W -f '${Status}' sockproxyd 2>/dev/null | grep -q 'ok installed'; then
        fail "sockproxyd is installed as a package; use apt"
    fi
}

do_install() {
    may_change
    version=$("$here/sockproxyd" --version 2>&1) ||
        fail "the program in this archive does not run here; is the archive for another CPU than $(uname -m)? $version"
    if [ -f $conf ]; then
        say "keeping $conf"
    else
        put 644 sockproxyd.cf $conf
    fi
    end_lua_daemon
    install_lua
    "install_$kind"
    warn_other_starters
    say "installed $version ($kind)"
}

do_uninstall() {
    may_change
    purge=$1
    "uninstall_$kind"
    uninstall_lua
    remove_configuration sockproxyd.cf $conf
    say "removed"
}
# remove_configuration SAMPLE FILE: removes the file unless it was edited.
remove_configuration() {
    if [ "$purge" = purge ] || cmp -s "$here/$1" "$2"; then
        rm -f "$2"
    elif [ -f "$2" ]; then
        say "$2 was edited and stays"
    fi
}

kind=$(detect)
case $kind in
    openwrt) program=/usr/sbin/sockproxyd modules=/usr/lib/lua ;;
    *) program=/usr/local/sbin/sockproxyd modules=/usr/local/share/lua/5.1 ;;
esac

[ $# -le 1 ] || { echo "one argument at most; see the head of $0" >&2; exit 2; }
case ${1:-install} in
    install) do_install ;;
    uninstall) do_uninstall keep ;;
    --purge) do_uninstall purge ;;
    detect) echo "$kind" ;;
    *)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        case $1 in -h | --help) exit 0 ;; esac
        exit 2
        ;;
esac
