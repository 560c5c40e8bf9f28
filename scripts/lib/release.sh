# shellcheck shell=bash
# What the scripts that make packages share. Source it behind common.sh.

# shellcheck disable=SC2034 # for those who source this
RELEASE_TARGETS=(
    mipsel-unknown-linux-musl mips-unknown-linux-musl armv7-unknown-linux-musleabihf arm-unknown-linux-musleabi
    aarch64-unknown-linux-musl x86_64-unknown-linux-musl
)

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
