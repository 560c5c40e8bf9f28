# shellcheck shell=bash
# Part "lint": every shell script of the packaging, for devices and for developers.

for script in "$ROOT"/init.d/{sockproxyd,sockproxyd.lsb,install.sh} "$ROOT"/openwrt/ipk/* "$ROOT"/openwrt/test.sh \
    "$ROOT"/scripts/{ipk,apk,tarball,boot-test,test-packaging} "$PACKAGING"/* "$PACKAGING"/boot/*; do
    [ -f "$script" ] || continue
    result "shellcheck ${script#"$ROOT"/}" shellcheck -x -P "$ROOT" "$script"
done
