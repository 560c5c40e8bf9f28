# shellcheck shell=sh
# A simulation of the part of OpenWrt's jshn.sh that the rpcd plugin uses: reads objects, arrays and strings. As with that of
# OpenWrt up to 24.10, warnings go to stdout, and a blank is before the first key.

# json_load TEXT: fails if the text is not JSON of that kind. Each value becomes a line: its path, a tab, the value.
json_load() {
    json_path='' json_lines=$(printf '%s' "$1" | awk '
        function value(path,    index_, key, text) {
            gsub(/^[ \t\n]+/, "", rest)
            text = substr(rest, 1, 1)
            if (text == "{" || text == "[") {
                print path "\t"
                rest = substr(rest, 2)
                for (index_ = 1; ; index_++) {
                    gsub(/^[ \t\n,]+/, "", rest)
                    if (rest ~ /^[]}]/) { rest = substr(rest, 2); return }
                    key = index_
                    if (text == "{") { key = string(); sub(/^[ \t\n]*:/, "", rest) }
                    if (rest == "") exit 1
                    value(path "/" key)
                }
            }
            if (text == "\"") { print path "\t" string(); return }
            if (!match(rest, /^[-+.a-z0-9]+/)) exit 1
            print path "\t" substr(rest, 1, RLENGTH)
            rest = substr(rest, RLENGTH + 1)
        }
        function string(    text) {
            if (!match(rest, /^"([^"\\]|\\.)*"/)) exit 1
            text = substr(rest, 2, RLENGTH - 2)
            rest = substr(rest, RLENGTH + 1)
            gsub(/\\\//, "/", text)
            return text
        }
        { rest = rest $0 "\n" }
        END { value("") }') || return 1
    [ -n "$json_lines" ]
}

# Fails, with a warning, if there is no such member.
json_select() {
    if printf '%s\n' "$json_lines" | grep -q "^$json_path/$1	"; then
        json_path=$json_path/$1
    else
        echo "WARNING: Variable '$1' does not exist or is not an array/object"
        return 1
    fi
}

# json_get_keys VARIABLE
json_get_keys() {
    eval "$1=\ \$(printf '%s\n' \"\$json_lines\" | sed -n \"s|^\$json_path/\([^/	]*\)	.*|\1|p\" | tr '\n' ' ')"
    eval "[ -n \"\${$1# }\" ]"
}

# json_get_var VARIABLE NAME
json_get_var() {
    eval "$1=\$(printf '%s\n' \"\$json_lines\" | sed -n \"s|^\$json_path/$2	||p\")"
}

json_init() {
    json_members=
}

json_add_string() {
    json_members="${json_members:+$json_members, }\"$1\": \"$(printf '%s' "$2" | sed 's/[\\"]/\\&/g')\""
}

json_add_boolean() {
    [ "$2" = 1 ] && json_bool=true || json_bool=false
    json_members="${json_members:+$json_members, }\"$1\": $json_bool"
}

json_dump() {
    printf '{ %s }\n' "$json_members"
}
