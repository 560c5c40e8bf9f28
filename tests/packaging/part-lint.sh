# shellcheck shell=bash
# Part "lint": every shell script of packaging, those for devices and those for developers.

for script in "$ROOT"/init.d/sockproxyd "$ROOT"/init.d/sockproxyd.lsb "$ROOT"/init.d/install.sh "$ROOT"/openwrt/ipk/* "$ROOT"/scripts/{ipk,tarball,boot-test,test-packaging} \
    "$PACKAGING"/* "$ROOT"/openwrt/test.sh; do
    case $script in *.c | *.md) continue ;; esac
    result "shellcheck ${script#"$ROOT"/}" shellcheck -x -P "$ROOT" "$script"
done
