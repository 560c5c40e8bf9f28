# shellcheck shell=sh
# A simulation of the part of OpenWrt's functions.sh that reads /etc/config: one section, plain options.

config_load() {
    config_text=$(awk '
        $1 == "config" { gsub(/\047/, "", $3); section = $3 }
        $1 == "option" { key = $2; sub(/^[ \t]*option[ \t]+[^ \t]+[ \t]+/, ""); gsub(/\047/, ""); print section "." key "=" $0 }
    ' "/etc/config/$1")
}

# config_get VARIABLE SECTION OPTION [DEFAULT]
config_get() {
    config_value=$(echo "$config_text" | sed -n "s/^$2\.$3=//p")
    eval "$1=\${config_value:-\${4:-}}"
}

# config_get_bool VARIABLE SECTION OPTION [DEFAULT]
config_get_bool() {
    config_get "$@"
    eval "config_value=\$$1"
    case $config_value in
        1 | on | true | yes | enabled) eval "$1=1" ;;
        0 | off | false | no | disabled) eval "$1=0" ;;
        *) eval "$1=\${4:-0}" ;;
    esac
}
