# shellcheck shell=sh
# A simulation of OpenWrt's network.sh: the address of an interface is in /tmp/address.NAME.

# network_get_ipaddr VARIABLE INTERFACE
network_get_ipaddr() {
    [ -f "/tmp/address.$2" ] || return 1
    read -r "${1?}" <"/tmp/address.$2"
}
