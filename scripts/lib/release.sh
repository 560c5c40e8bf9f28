# shellcheck shell=bash
# Functions that the packaging scripts share. Source it after common.sh.

# shellcheck source=scripts/lib/targets.sh
. "$ROOT/scripts/lib/targets.sh"

# The Lua modules that plugins require, in every package. The folder decides: luup/plugin is the SockProxy plugin's own.
# shellcheck disable=SC2034
RELEASE_LUA=("$ROOT"/luup/{client,compat}/L_*.lua)

# The maintainer that packages name, with a placeholder for the address, as in openwrt/*/Makefile.
# shellcheck disable=SC2034
RELEASE_MAINTAINER='the sockproxyd maintainers <sockproxyd@example.org>'

# The files that package managers keep if their owner has edited them.
# shellcheck disable=SC2034
RELEASE_CONFFILES=(/etc/config/sockproxyd /etc/sockproxyd.cf)

# release_arguments OPTIONS ARGUMENT...: reads the arguments of a script that makes a package for each target:
# -o DIR, -a ARCH and -b BINARY, of which the script has those whose letters are in OPTIONS, then targets, by default all.
# Sets $out, $arch, $binary and $targets. The script may set $supported, the targets that it can pack.
# shellcheck disable=SC2034 # the script reads these
release_arguments() {
    local options=$1 target
    shift
    out=$ROOT/dist arch='' binary='' targets=()
    [ -n "${supported+set}" ] || supported=("${ALL_TARGETS[@]}")
    while [ $# -gt 0 ]; do
        case $1 in
            -h | --help) usage_of "$0"; exit 0 ;;
            -["$options"])
                [ $# -ge 2 ] || { say "$1 needs a value"; exit 2; }
                case $1 in
                    -o) out=$2 ;;
                    -a) arch=$2 ;;
                    -b) binary=$2 ;;
                esac
                shift 2
                ;;
            -*) say "unknown option $1; see $0 --help"; exit 2 ;;
            *) targets+=("$1"); shift ;;
        esac
    done
    [ ${#targets[@]} -gt 0 ] || targets=(all)
    set -- "${targets[@]}"
    targets=()
    for target; do
        if [ "$target" = all ]; then
            targets+=("${supported[@]}")
            continue
        fi
        target=$(target_name "$target")
        case " ${supported[*]} " in
            *" $target "*) targets+=("$target") ;;
            *) die "there is no such package for $target" ;;
        esac
    done
    [ -z "$binary" ] || [ ${#targets[@]} = 1 ] || die "-b needs exactly one target"
    [ -z "$arch" ] || [ ${#targets[@]} = 1 ] || die "-a needs exactly one target"
}

# Prints the version in Cargo.toml.
release_version() {
    local version
    version=$(awk -F'"' '/^\[/ { inside = $0 == "[package]" } inside && /^version *=/ { print $2; exit }' "$ROOT/Cargo.toml")
    [ -n "$version" ] || die "no version in Cargo.toml"
    printf '%s\n' "$version"
}

# Prints the modification time of all files in a package.
release_epoch() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        printf '%s\n' "$SOURCE_DATE_EPOCH"
    else
        git -C "$ROOT" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT/Cargo.toml"
    fi
}

# Prints the path of the binary for target $1; scripts/cross builds it if it is missing.
release_binary() {
    local path=${CARGO_TARGET_DIR:-$ROOT/target}/$1/firmware/sockproxyd
    [ -f "$path" ] || "$ROOT/scripts/cross" -q "$1" >&2
    [ -f "$path" ] || die "scripts/cross did not build $path"
    # The binary has symbols while scripts/cross is still building it.
    ! grep -aqF .symtab "$path" || die "$path is not stripped; run scripts/cross $1"
    printf '%s\n' "$path"
}

# release_tar FOLDER MEMBER...: prints these members of the folder as a tar archive: the same input gives the same bytes, and
# everything belongs to root. The format is GNU's: with PAX headers, opkg silently unpacks nothing.
release_tar() {
    local folder=$1
    shift
    tar --format=gnu --numeric-owner --owner=0 --group=0 --sort=name "--mtime=@$(release_epoch)" -C "$folder" -cf - "$@"
}

# release_ipk_fields FOLDER NAME ARCH SECTION DESCRIPTION [DEPENDENCIES]: writes the fields of a package for opkg to
# FOLDER/control, for the files in FOLDER/data. A description may have further lines, which begin with a blank.
release_ipk_fields() {
    install -d -m 755 "$1/control"
    install -m 644 /dev/null "$1/control/control"
    cat >"$1/control/control" <<CONTROL
Package: $2
Version: $(release_version)-1${6:+
Depends: ${6// /, }}
Architecture: $3
Maintainer: $RELEASE_MAINTAINER
License: MIT
Section: $4
Priority: optional
Installed-Size: $(find "$1/data" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum }')
Description: $5
CONTROL
}

# release_ipk FOLDER FILE: packs the files in FOLDER/data, with the fields and scripts in FOLDER/control, for opkg, and
# prints the path of the package.
release_ipk() {
    local part
    install -d -m 755 "$1/outer"
    for part in data control; do
        release_tar "$1/$part" . | gzip -9n >"$1/outer/$part.tar.gz"
    done
    echo 2.0 >"$1/outer/debian-binary"
    chmod 644 "$1/outer"/*
    mkdir -p "$(dirname "$2")"
    # The order matters: opkg of 2011 reads the package sequentially.
    release_tar "$1/outer" ./debian-binary ./data.tar.gz ./control.tar.gz | gzip -9n >"$2"
    printf '%s\n' "$2"
}

# release_apk_control FOLDER NAME ARCH DESCRIPTION [DEPENDENCIES]: writes .PKGINFO of a package for apk to FOLDER/control,
# and opkg's scripts in FOLDER/scripts by apk's names for them: it does not remove the old package in an upgrade.
release_apk_control() {
    local control=$1/control word name as
    install -d -m 755 "$control"
    for name in preinst:pre-install preinst:pre-upgrade postinst:post-install postinst:post-upgrade \
        prerm:pre-deinstall postrm:post-deinstall; do
        as=${name#*:} name=$1/scripts/${name%:*}
        [ ! -f "$name" ] || install -m 755 "$name" "$control/.$as"
    done
    install -m 644 /dev/null "$control/.PKGINFO"
    {
        printf '%s\n' "pkgname = $2" "pkgver = $(release_version)-r1" "pkgdesc = $4" "arch = $3" "license = MIT" \
            "origin = sockproxyd" "maintainer = $RELEASE_MAINTAINER"
        for word in ${5:-}; do
            echo "depend = $word"
        done
    } >"$control/.PKGINFO"
}

# release_apk FOLDER FILE: packs the files in FOLDER/data, with .PKGINFO and the scripts in FOLDER/control, for apk, and prints
# the path of the package. It is signed if SOCKPROXYD_KEYS is set.
release_apk() {
    local python=python3 signer=() keys name list epoch
    epoch=$(release_epoch)
    name=$(sed -n 's/^pkgname = //p' "$1/control/.PKGINFO")
    # OpenWrt's packages have a list of their files.
    list=$(cd "$1/data" && find . -type f -printf '/%P\n' | LC_ALL=C sort)
    install -d -m 755 "$1/data"/lib/{apk,apk/packages}
    install -m 644 /dev/null "$1/data/lib/apk/packages/$name.list"
    printf '%s\n' "$list" >"$1/data/lib/apk/packages/$name.list"
    if [ -n "${SOCKPROXYD_KEYS:-}" ]; then
        keys=$(release_keys)
        signer=("$keys")
        python=$(release_python)
    else
        apt_need python3
    fi
    mkdir -p "$(dirname "$2")"
    "$python" "$ROOT/scripts/lib/apk_pack.py" "$1/control" "$1/data" "$epoch" "$2" "${signer[@]}"
    printf '%s\n' "$2"
}

# release_tree BINARY FOLDER: creates the files that a package for OpenWrt installs.
release_tree() {
    local files=$ROOT/openwrt/sockproxyd/files
    install -d -m 755 "$2" "$2"/{etc,etc/capabilities,etc/config,etc/init.d,lib,lib/upgrade,lib/upgrade/keep.d} \
        "$2"/usr/{,lib,lib/lua,sbin}
    # Certificates and keys. The init script gives it the group of the proxy's user.
    install -d -m 750 "$2/etc/sockproxyd.d"
    # A folder in the search path of OpenWrt's Lua.
    install -m 644 "${RELEASE_LUA[@]}" "$2/usr/lib/lua/"
    install -m 755 "$1" "$2/usr/sbin/sockproxyd"
    install -m 755 "$ROOT/init.d/sockproxyd" "$2/etc/init.d/sockproxyd"
    install -m 644 "$files/sockproxyd.cf" "$2/etc/sockproxyd.cf"
    install -m 644 "$files/sockproxyd.config" "$2/etc/config/sockproxyd"
    install -m 644 "$files/sockproxyd.json" "$2/etc/capabilities/sockproxyd.json"
    install -m 644 "$files/sockproxyd.keep" "$2/lib/upgrade/keep.d/sockproxyd"
}

# release_maintainer_scripts TARGET FOLDER: installs the package's scripts there, preinst with the data of the target's
# CPU.
release_maintainer_scripts() {
    local fields cpu class order machine least_arm vfp
    fields=$(target_cpu_fields "$1")
    IFS='|' read -r cpu class order machine least_arm vfp <<<"$fields"
    install -m 755 "$ROOT"/openwrt/ipk/{preinst,postinst,prerm,postrm} "$2/"
    sed -i -e "s/@CPU@/$cpu/; s/@CLASS@/00$class/; s/@ORDER@/00$order/; s/@MACHINE@/$machine/" \
        -e "s/@LEAST_ARM@/$least_arm/; s/@VFP@/$vfp/" "$2/preinst"
    ! grep -q '@[A-Z_]*@' "$2/preinst" || die "preinst has an unknown placeholder"
}

# The library that signs: it signs with ECDSA deterministically (RFC 6979) from version 43 on.
RELEASE_CRYPTOGRAPHY=cryptography==50.0.2

# Prints a Python with that library.
release_python() {
    printf '%s/bin/python\n' "$(with_lock signing venv signing "$RELEASE_CRYPTOGRAPHY")"
}

# Prints the folder with the secret keys.
release_keys() {
    local name
    [ -n "${SOCKPROXYD_KEYS:-}" ] || die "SOCKPROXYD_KEYS is not set: the folder with the keys, which scripts/sign --new makes"
    for name in usign.sec apk.sec.pem; do
        [ -f "$SOCKPROXYD_KEYS/$name" ] || die "there is no $SOCKPROXYD_KEYS/$name"
    done
    printf '%s\n' "$SOCKPROXYD_KEYS"
}
