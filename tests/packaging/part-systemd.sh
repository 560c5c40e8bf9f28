# shellcheck shell=bash
# Part "systemd": systemd's own checks of the unit. The unit does not run here, which would need a booted
# systemd.

have systemd-analyze || apt_install systemd

unit=$work/systemd
mkdir -p "$unit"
# systemd-analyze checks that the program exists, and the unit names the installed path.
sed "s|/usr/local/sbin/sockproxyd|$daemon|" "$ROOT/init.d/sockproxyd.service" >"$unit/sockproxyd.service"

# Every message of systemd is an error, even a warning.
quiet() {
    local output
    output=$("$@" 2>&1) || output="status $?: $output"
    printf '%s\n' "$output"
    [ -z "$output" ]
}
result "systemd: the unit is valid" quiet systemd-analyze verify --man=no "$unit/sockproxyd.service"
result "systemd: exposure below 2.0" systemd-analyze security --no-pager --offline=true --threshold=20 "$unit/sockproxyd.service"
