# shellcheck shell=bash
# The table of targets that releases are built for. Source it after common.sh.

# One line for each target: its name, the name of its CPU for users, and five fields of the ELF header by which a
# package's preinst recognises binaries of that CPU (see openwrt/ipk/preinst): class, byte order, machine in octal,
# least version of ARM, and whether it needs floating point in hardware.
TARGET_TABLE='
mipsel-unknown-linux-musl|MIPS little-endian|1|1|010||
armv7-unknown-linux-musleabihf|ARMv7 with floating point|1|1|050|7|yes
aarch64-unknown-linux-musl|ARM64|2|1|267||
arm-unknown-linux-musleabi|ARMv6|1|1|050|6|
mips-unknown-linux-musl|MIPS big-endian|1|2|010||
x86_64-unknown-linux-musl|x86-64|2|1|076||
'

# The names of all targets.
# shellcheck disable=SC2034 # used by the scripts that source this file
mapfile -t ALL_TARGETS < <(awk -F'|' 'NF { print $1 }' <<<"$TARGET_TABLE")

# target_name NAME: prints the full name of the target NAME, which may be its first word alone (mipsel).
target_name() {
    local target
    for target in "${ALL_TARGETS[@]}"; do
        if [ "$1" = "$target" ] || [ "$1" = "${target%%-*}" ]; then
            printf '%s\n' "$target"
            return 0
        fi
    done
    die "unknown target $1; one of: all ${ALL_TARGETS[*]}"
}

# target_cpu TARGET: prints the name of the target's CPU for users.
target_cpu() {
    local fields
    fields=$(target_cpu_fields "$1")
    printf '%s\n' "${fields%%|*}"
}

# target_cpu_fields TARGET: prints the fields of the target's line after its name.
target_cpu_fields() {
    local fields
    fields=$(awk -F'|' -v OFS='|' -v target="$1" '$1 == target { print $2, $3, $4, $5, $6, $7 }' <<<"$TARGET_TABLE")
    [ -n "$fields" ] || die "unknown target $1"
    printf '%s\n' "$fields"
}
