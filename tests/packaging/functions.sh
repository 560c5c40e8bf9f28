# shellcheck shell=sh
# A simulation of OpenWrt's functions.sh: reading /etc/config. As the real one, config_load runs config_cb, option_cb
# and list_cb for what it finds, gives a section without a name one, and ignores what it cannot parse. Before 2015,
# option_cb hears of the items of a list, too.

config_cb() { :; }
option_cb() { :; }
list_cb() { :; }

# config_load NAME
config_load() {
    config_section='' config_number=0
    [ -f "/etc/config/$1" ] || return 1
    # Each line becomes a command: config TYPE NAME, option KEY VALUE or list KEY VALUE.
    eval "$(awk '
        function quoted(text) {
            sub(/^[ \t]+/, "", text)
            sub(/[ \t]+$/, "", text)
            if (text ~ /^".*"$/) { text = substr(text, 2, length(text) - 2); gsub(/\047/, "\047\\\047\047", text); return "\047" text "\047" }
            if (text ~ /^\047.*\047$/) return text
            return "\047" text "\047"
        }
        $1 == "config" { print "config_found " quoted($2) " " quoted($3) }
        $1 == "option" || $1 == "list" {
            kind = $1; key = $2
            sub(/^[ \t]*(option|list)[ \t]+[^ \t]+[ \t]*/, "")
            # An empty option is none.
            if (quoted($0) != "\047\047") print kind "_found " quoted(key) " " quoted($0)
        }' "/etc/config/$1")"
    [ -z "$config_section" ] || config_cb
}

config_found() {
    config_number=$((config_number + 1))
    config_section=${2:-$(printf 'cfg%02x%04x' $config_number 48879)}
    config_cb "$1" "$config_section"
}

option_found() {
    option_cb "$1" "$2"
}

list_found() {
    case $flavour in
        main) ;;
        *)
            option_cb "$1_ITEM1" "$2"
            option_cb "$1_LENGTH" 1
            ;;
    esac
    list_cb "$1" "$2"
}
