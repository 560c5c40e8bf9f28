# shellcheck shell=bash
# Part "lsb": a box with Debian's own shell and start-stop-daemon, without systemd.

if ! have start-stop-daemon; then
    apt_install dpkg
fi
lsb=$(box lsb dash)
mkdir -p "$lsb/run" "$lsb/usr/local/sbin" "$lsb/var/log"
rm -f "$lsb/sbin/start-stop-daemon"
put_program "$(command -v start-stop-daemon)" "$lsb" sbin/start-stop-daemon
put_program "$daemon" "$lsb" usr/local/sbin/sockproxyd
install "$ROOT/init.d/sockproxyd.lsb" "$lsb/etc/init.d/sockproxyd"
inside "$lsb" lsb.sh lsb
