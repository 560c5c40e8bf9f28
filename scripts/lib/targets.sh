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

# The names of OpenWrt's architectures that each target's binary runs on, as /etc/apk/arch has them on a box: those of
# OpenWrt 25.12 for CPUs that have what the binary needs (MIPS32 release 2; ARMv6; ARMv7 with VFPv3 or later).
OPENWRT_TABLE='
mipsel-unknown-linux-musl|mipsel_24kc mipsel_24kc_24kf mipsel_74kc
armv7-unknown-linux-musleabihf|arm_cortex-a5_vfpv4 arm_cortex-a7_vfpv4 arm_cortex-a7_neon-vfpv4 arm_cortex-a8_vfpv3
armv7-unknown-linux-musleabihf|arm_cortex-a9_neon arm_cortex-a9_vfpv3-d16 arm_cortex-a15_neon-vfpv4
aarch64-unknown-linux-musl|aarch64_cortex-a53 aarch64_cortex-a72 aarch64_cortex-a76 aarch64_generic
arm-unknown-linux-musleabi|arm_arm1176jzf-s_vfp arm_cortex-a7 arm_cortex-a9
mips-unknown-linux-musl|mips_24kc
x86_64-unknown-linux-musl|x86_64
'

# The targets that Debian and containers run on: Debian's name of the architecture, and OCI's with the variant of the CPU.
DISTRIBUTION_TABLE='
armv7-unknown-linux-musleabihf|armhf|arm v7
aarch64-unknown-linux-musl|arm64|arm64 v8
arm-unknown-linux-musleabi|armel|arm v6
x86_64-unknown-linux-musl|amd64|amd64
'

# The names of all targets, and of those that Debian and containers run on.
# shellcheck disable=SC2034 # used by the scripts that source this file
mapfile -t ALL_TARGETS < <(awk -F'|' 'NF { print $1 }' <<<"$TARGET_TABLE")
# shellcheck disable=SC2034
mapfile -t DISTRIBUTION_TARGETS < <(awk -F'|' 'NF { print $1 }' <<<"$DISTRIBUTION_TABLE")

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

# target_openwrt TARGET: prints the names of OpenWrt's architectures for the target, in one line.
target_openwrt() {
    awk -F'|' -v target="$1" '$1 == target { printf "%s ", $2 }' <<<"$OPENWRT_TABLE"
}

# target_debian TARGET: prints Debian's name of the target's architecture.
target_debian() {
    awk -F'|' -v target="$1" '$1 == target { print $2 }' <<<"$DISTRIBUTION_TABLE"
}

# target_oci TARGET: prints OCI's name of the target's architecture, and its variant if there is one.
target_oci() {
    awk -F'|' -v target="$1" '$1 == target { print $3 }' <<<"$DISTRIBUTION_TABLE"
}
