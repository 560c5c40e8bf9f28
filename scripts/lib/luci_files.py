#!/usr/bin/env python3
"""Writes the generated files of luci-app-sockproxyd.

usage: scripts/lib/luci_files.py ROOT [--check]

ROOT      the checkout
--check   writes nothing; fails if a file is not what it would write
"""
import json
import pathlib
import re
import sys

# Titles of fields. A setting that is not listed has its key as title.
TITLES = {
    "host.ip": "Listen address",
    "host.port": "Port",
    "host.vera": "URL of Luup",
    "host.log": "Log",
    "host.logmax": "Size of the log",
    "host.debug": "Debug messages",
    "host.allow": "Allowed clients",
    "host.stop": "Clients that may stop the proxy",
    "host.trace": "Tracing",
    "host.listen": "Clients that may listen",
    "host.targets": "Allowed targets",
    "limits.connections": "Connections",
    "limits.peraddress": "Connections per address",
    "limits.line": "Line length",
    "limits.setup": "Setup timeout",
    "limits.halfclose": "Half-close timeout",
    "limits.stall": "Stall timeout",
    "limits.idle": "Idle timeout",
    "limits.buffer": "Buffer per direction",
    "limits.buffers": "Buffers in total",
    "limits.kept": "Kept connections",
    "limits.history": "History of a kept connection",
    "limits.connect": "Connect timeout",
    "limits.resolvers": "Concurrent name lookups",
    "limits.notices": "Closing notices",
    "limits.senders": "Concurrent notifications",
    "limits.answer": "Notification timeout",
    "limits.pipes": "Pipes",
    "limits.keepalive": "Keepalive interval",
    "limits.lost": "Lost peer timeout",
    "tls.ca": "Certificate authorities",
    "tls.directory": "Certificate directory",
    "tls.luup": "Verification of Luup",
    "status.port": "Port",
    "status.address": "Listen address",
    "status.allow": "Allowed clients",
    "status.hosts": "Host names",
}

# Defaults that the init script sets where the daemon has another.
DEFAULTS = {"host.log": "syslog"}

# Longest time that a setting can have, in seconds: ten years.
MAX_SECONDS = 10 * 365 * 86400
# Largest number that a browser compares exactly.
MAX_EXACT = 2**53

# LuCI's datatypes for a syntax without a range.
DATATYPES = {
    "address": 'or("*",ipaddr("nomask"),hostname)',
    "networks": 'or("*","local","loopback",ipaddr)',
    "names": "hostname",
    "file": "file",
    "directory": "directory",
    "file|syslog|stderr": 'or("syslog","stderr",file)',
}
# Values to choose from, besides those that the syntax names.
CHOICES = {"networks": ["local", "loopback", "*"], "address": ["*"]}
# What stands for a value in a syntax, and is no value itself.
PLACES = {"bytes", "file", "sha256/<hex>[,...]"}
UNITS = {"bytes": "bytes", "auto|bytes": "bytes", "ms": "ms", "seconds": "s"}


def sections(document):
    """The sections of the document, each with the rows of its table."""
    for part in document.split("\n### [")[1:]:
        name, rest = part.split("]\n", 1)
        rows = [line for line in re.split(r"\n##", rest)[0].splitlines() if line.startswith("| `")]
        yield name, [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def number_type(syntax, span):
    """LuCI's datatype of a number within a range such as "1 to 64", "above 0" or "0, 10 to 900"."""
    number, most = ("ufloat", str(MAX_SECONDS)) if syntax == "seconds" else ("uinteger", None)
    numbers = re.findall(r"\d+", span)
    if span == "above 0":
        return f"and({number},range(0.001,{most}))"
    if span == "0 or above":
        return f"and({number},range(0,{most}))"
    if syntax == "number" and span == "0 to 65535":
        return "port"
    if int(numbers[-1]) > MAX_EXACT:
        return number
    within = f"and({number},range({numbers[-2]},{numbers[-1]}))"
    if "," in span:
        return f'or("{numbers[0]}",{within})'
    return f'or("auto",{within})' if syntax.startswith("auto|") else within


def setting(section, row):
    """A setting of the form."""
    key, syntax, default, span, meaning = row
    key, syntax = key.strip("`"), syntax.strip("`").replace("\\|", "|")
    default = "" if default == "empty" else default.strip("`")
    name = f"{section}.{key}"
    words = [] if syntax == "on|off" else [word for word in syntax.split("|") if "|" in syntax and word not in PLACES]
    return {
        "name": key,
        "title": TITLES.get(name, key),
        # LuCI takes a description for HTML.
        "help": meaning.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        "syntax": syntax,
        "fallback": DEFAULTS.get(name, default),
        "unit": UNITS.get(syntax),
        "datatype": DATATYPES.get(syntax) if span == "-" else number_type(syntax, span),
        "choices": CHOICES.get(syntax, words) or None,
    }


def quoted(text):
    """A string of JavaScript."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def settings_module(document):
    """The module of LuCI with all settings."""
    lines = [
        "'use strict';",
        "'require baseclass';",
        "",
        "/* Made by scripts/luci from docs/configuration.md. */",
        "return baseclass.extend({",
        "\tsections: {",
    ]
    known = set()
    for section, rows in sections(document):
        if not rows:
            continue
        lines.append(f"\t\t{section}: [")
        for row in rows:
            entry = setting(section, row)
            known.add(f"{section}.{entry['name']}")
            lines.append("\t\t\t{")
            for key, value in entry.items():
                if value is None:
                    continue
                if isinstance(value, list):
                    shown = "[" + ", ".join(map(quoted, value)) + "]"
                elif key in ("title", "help"):
                    shown = f"_({quoted(value)})"
                else:
                    shown = quoted(value)
                lines.append(f"\t\t\t\t{key}: {shown},")
            lines.append("\t\t\t},")
        lines.append("\t\t],")
    stale = sorted((TITLES.keys() | DEFAULTS.keys()) - known)
    if stale:
        sys.exit(f"{sys.argv[0]}: no such settings: {', '.join(stale)}")
    return "\n".join([*lines, "\t},", "});", ""])


def template(app, files):
    """The template for translations: what stands in _('...') in the files of the app, and the titles of its menu."""
    messages = {}
    for path, text in files:
        found = [title for title in re.findall(r'"title": "([^"]*)"', text)] if path.suffix == ".json" else [
            match.replace("\\'", "'").replace("\\\\", "\\") for match in re.findall(r"\b_\('((?:[^'\\]|\\.)*)'\)", text)
        ]
        for message in found:
            messages.setdefault(message, set()).add(path.relative_to(app).as_posix())
    lines = ['msgid ""', 'msgstr "Content-Type: text/plain; charset=UTF-8"']
    for message in sorted(messages):
        lines += ["", *(f"#: {path}" for path in sorted(messages[message]))]
        lines += [f"msgid {json.dumps(message, ensure_ascii=False)}", 'msgstr ""']
    return "\n".join([*lines, ""])


def main():
    root, check = pathlib.Path(sys.argv[1]), "--check" in sys.argv[2:]
    app = root / "openwrt/luci-app-sockproxyd"
    table = app / "htdocs/luci-static/resources/sockproxyd/settings.js"
    made = {table: settings_module((root / "docs/configuration.md").read_text())}
    sources = sorted({table, *app.glob("htdocs/**/*.js"), *app.glob("root/usr/share/luci/menu.d/*.json")})
    files = [(path, made.get(path) or path.read_text()) for path in sources]
    made[app / "po/templates/sockproxyd.pot"] = template(app, files)
    for path, text in made.items():
        if check:
            if not path.exists() or path.read_text() != text:
                sys.exit(f"{path} is not up to date: run scripts/luci")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


main()
