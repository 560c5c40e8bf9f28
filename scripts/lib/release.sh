# shellcheck shell=bash
# What the scripts that make packages share. Source it behind common.sh.

# shellcheck disable=SC2034 # for those who source this
RELEASE_TARGETS=(
    mipsel-unknown-linux-musl mips-unknown-linux-musl armv7-unknown-linux-musleabihf arm-unknown-linux-musleabi
    aarch64-unknown-linux-musl x86_64-unknown-linux-musl
)

# The Lua modules that plugins require, in every package. The folder decides: luup/plugin is the SockProxy plugin's own.
# shellcheck disable=SC2034
RELEASE_LUA=("$ROOT"/luup/{client,compat}/L_*.lua)

# Prints the value of key $1 in [package] of Cargo.toml.
release_field() {
    awk -F'"' -v "key=$1" '
        /^\[/ { inside = $0 == "[package]" }
        inside && $1 ~ "^" key " *= *\\[?$" { print $2; exit }
    ' "$ROOT/Cargo.toml"
}

release_version() {
    local version
    version=$(release_field version)
    [ -n "$version" ] || die "no version in Cargo.toml"
    printf '%s\n' "$version"
}

release_maintainer() {
    local who
    who=$(release_field authors)
    printf '%s\n' "${who:-the sockproxyd maintainers}"
}

# The time that everything in a package has.
release_epoch() {
    if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then
        printf '%s\n' "$SOURCE_DATE_EPOCH"
    else
        git -C "$ROOT" log -1 --format=%ct 2>/dev/null || stat -c %Y "$ROOT/Cargo.toml"
    fi
}

# Prints the whole name of target $1, which may be its first word only.
release_target() {
    local target
    for target in "${RELEASE_TARGETS[@]}"; do
        if [ "$1" = "$target" ] || [ "$1" = "${target%%-*}" ]; then
            printf '%s\n' "$target"
            return 0
        fi
    done
    die "no target $1; there are: ${RELEASE_TARGETS[*]}"
}

# Prints the path of the binary for target $1, made by scripts/cross if it is missing.
release_binary() {
    local path=${CARGO_TARGET_DIR:-$ROOT/target}/$1/firmware/sockproxyd
    [ -f "$path" ] || "$ROOT/scripts/cross" -q "$1" >&2
    [ -f "$path" ] || die "scripts/cross left no $path"
    # As it is in the middle of a build of scripts/cross.
    ! grep -aqF .symtab "$path" || die "$path is not stripped; run scripts/cross $1"
    printf '%s\n' "$path"
}

# Prints what a CPU is called, and what of an ELF file's header shows it (see openwrt/ipk/preinst), in one line.
release_cpu_words() {
    case $1 in
        mipsel-*) echo 'MIPS little-endian|1|1|010||' ;;
        mips-*) echo 'MIPS big-endian|1|2|010||' ;;
        armv7-*) echo 'ARMv7 with floating point|1|1|050|7|yes' ;;
        arm-*) echo 'ARMv6|1|1|050|6|' ;;
        aarch64-*) echo 'ARM64|2|1|267||' ;;
        x86_64-*) echo 'x86-64|2|1|076||' ;;
        *) die "no package for $1" ;;
    esac
}

# Prints what the CPU of target $1 is called.
release_cpu() {
    local words
    words=$(release_cpu_words "$1")
    printf '%s\n' "${words%%|*}"
}

# release_tree BINARY FOLDER: lays out what a package for OpenWrt installs.
release_tree() {
    install -d -m 755 "$2" "$2"/{etc,etc/init.d,usr,usr/lib,usr/lib/lua,usr/sbin}
    # Where OpenWrt's Lua looks.
    install -m 644 "${RELEASE_LUA[@]}" "$2/usr/lib/lua/"
    install -m 755 "$1" "$2/usr/sbin/sockproxyd"
    install -m 755 "$ROOT/init.d/sockproxyd" "$2/etc/init.d/sockproxyd"
    install -m 644 "$ROOT/openwrt/files/sockproxyd.cf" "$2/etc/sockproxyd.cf"
}

# release_maintainer_scripts TARGET FOLDER: puts the package's scripts there, preinst made for the target's CPU.
release_maintainer_scripts() {
    local words cpu class order machine least_arm vfp
    words=$(release_cpu_words "$1")
    IFS='|' read -r cpu class order machine least_arm vfp <<<"$words"
    install -m 755 "$ROOT"/openwrt/ipk/{preinst,postinst,prerm,postrm} "$2/"
    sed -i -e "s/@CPU@/$cpu/; s/@CLASS@/00$class/; s/@ORDER@/00$order/; s/@MACHINE@/$machine/" \
        -e "s/@LEAST_ARM@/$least_arm/; s/@VFP@/$vfp/" "$2/preinst"
    ! grep -q '@[A-Z_]*@' "$2/preinst" || die "a placeholder is left in preinst"
}
