# shellcheck shell=bash
# Part "systemd": what systemd itself says of the unit. It is not run here: that takes a booted systemd.

have systemd-analyze || apt_install systemd

unit=$work/systemd
mkdir -p "$unit"
# The unit names where it will be installed; systemd-analyze looks whether that is there.
sed "s|/usr/local/sbin/sockproxyd|$daemon|" "$ROOT/init.d/sockproxyd.service" >"$unit/sockproxyd.service"

# Whatever systemd has to say is a mistake of ours, be it only a warning.
quiet() {
    local said
    said=$("$@" 2>&1) || said="status $?: $said"
    printf '%s\n' "$said"
    [ -z "$said" ]
}
result "systemd: the unit is valid" quiet systemd-analyze verify --man=no "$unit/sockproxyd.service"
result "systemd: exposure below 2.0" systemd-analyze security --no-pager --offline=true --threshold=20 "$unit/sockproxyd.service"
