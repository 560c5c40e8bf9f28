// Tests the pages of luci-app-sockproxyd under a simulation of the part of LuCI that they use: what fields the forms
// have and take, and what the status page shows of a proxy's status.
// usage: node views.js APP CONFIGURATION_MD STATUS_JSON DAEMON

"use strict";

const assert = require("assert");
const childProcess = require("child_process");
const fs = require("fs");
const os = require("os");
const path = require("path");

const [app, documentFile, statusFile, daemon] = process.argv.slice(2);
const resources = path.join(app, "htdocs/luci-static/resources");
let failed = false;

function check(name, test) {
    try {
        test();
        console.log(`ok    luci: ${name}`);
    } catch (error) {
        failed = true;
        console.log(`FAIL  luci: ${name}\n${error.stack}`);
    }
}

// --- A simulation of LuCI ---

String.prototype.format = function (...values) {
    return this.replace(/%(-?[\d.]*)([sdtfmh%])/g, (whole, flags, kind) => {
        if (kind === "%") { return "%"; }
        const value = values.shift();
        if (kind === "d") { return String(Math.trunc(value)); }
        if (kind === "f") { return Number(value).toFixed(Number(flags.split(".")[1] || 6)); }
        return String(value);
    });
};

// A node of a page: E('name', { attributes }, content), E('name', content) or E([], content).
class Node {
    constructor(name, attributes, content) {
        Object.assign(this, { name, attributes, content: [], style: {} });
        this.set(content);
    }
    // LuCI takes a plain text for HTML, and a text in a list for text.
    set(content) {
        const list = Array.isArray(content) ? content.flat(Infinity) : [content];
        this.content = list.filter((one) => one !== null && one !== undefined);
        if (!Array.isArray(content)) {
            this.content.filter((one) => typeof one === "string").forEach((one) => assert(!/[<&]/.test(one), `HTML: ${one}`));
        }
    }
    set textContent(text) { this.content = [text]; }
    get text() {
        return this.content.map((one) => (one instanceof Node ? one.text : one.data !== undefined ? one.data : String(one))).join(" ");
    }
    all(name) {
        const within = this.content.filter((one) => one instanceof Node).flatMap((one) => one.all(name));
        return this.name === name ? [this, ...within] : within;
    }
}
const E = (name, attributes, content) => {
    if (Array.isArray(name)) {
        // LuCI of OpenWrt 23.05 shows what is no element as text here, null too.
        assert(attributes.every((one) => one instanceof Node), "no element");
        return new Node("", {}, attributes);
    }
    const given = attributes !== null && typeof attributes === "object" && !Array.isArray(attributes) && !(attributes instanceof Node);
    return new Node(name, given ? attributes : {}, given ? content : attributes);
};

// /etc/config/sockproxyd, as { section: { ".type": type, option: value } }.
class Uci {
    constructor(sections) { this.content = sections; }
    load() { return Promise.resolve(); }
    changes() { return Promise.resolve(changes); }
    sections(_, type) {
        return Object.entries(this.content).map(([name, section]) => ({ ...section, ".name": name })).filter((one) => one[".type"] === type);
    }
    get(_, section, option) {
        const found = this.content[section];
        return found && (option === undefined ? found : found[option]);
    }
    set(_, section, option, value) { this.content[section][option] = value; }
    unset(_, section, option) { delete this.content[section][option]; }
    add(_, type, name) { this.content[name] = { ".type": type }; }
}

class Option {
    constructor(kind, name, title, description) {
        Object.assign(this, { kind, name, title, description, choices: [], conditions: [] });
    }
    value(key) { this.choices.push(key); }
    depends(...condition) { this.conditions.push(condition); }
}
class Section {
    constructor(kind, type, title, description) {
        Object.assign(this, { kind, type, title, description, options: [] });
    }
    option(...given) {
        const made = new Option(...given);
        this.options.push(made);
        return made;
    }
    named(name) { return this.options.find((one) => one.name === name); }
}
const form = { Value: "Value", ListValue: "ListValue", DynamicList: "DynamicList", Flag: "Flag", TypedSection: "TypedSection", GridSection: "GridSection" };
form.Map = class {
    constructor(config, title) { Object.assign(this, { config, title, sections: [] }); }
    section(...given) {
        const made = new Section(...given);
        this.sections.push(made);
        return made;
    }
    render() { return Promise.resolve(E("div", { map: this }, [])); }
};

// The datatypes of LuCI's validation.js that the forms use.
const number = (text) => (/^-?\d+(\.\d+)?$/.test(text) ? Number(text) : NaN);
const prefix = (text, most) => text === undefined || (/^\d{1,3}$/.test(text) && Number(text) <= most);
const TYPES = {
    or: (value, ...parts) => parts.some((part) => (typeof part === "function" ? part(value) : String(part) === value)),
    and: (value, ...parts) => parts.every((part) => part(value)),
    range: (value, low, high) => number(value) >= low && number(value) <= high,
    min: (value, low) => number(value) >= low,
    port: (value) => /^\d+$/.test(value) && Number(value) <= 65535,
    uinteger: (value) => /^\d+$/.test(value),
    ufloat: (value) => number(value) >= 0,
    hostname: (value) => /^[A-Za-z_]([\w.-]*\w)?$/.test(value),
    ipaddr: (value, nomask) => {
        const [address, mask, more] = value.split("/");
        if (more !== undefined || (nomask && mask !== undefined)) { return false; }
        if (/^\d+(\.\d+){3}$/.test(address)) { return address.split(".").every((part) => part <= 255) && prefix(mask, 32); }
        return address.includes(":") && /^[0-9a-fA-F:.]+$/.test(address) && prefix(mask, 128);
    },
    uciname: (value) => /^\w+$/.test(value),
    file: () => true,
    directory: () => true,
};
function compile(type) {
    const parts = [];
    let depth = 0, begin = 0;
    for (let at = 0; at <= type.length; at += 1) {
        const character = type[at] || ",";
        depth += { "(": 1, ")": -1 }[character] || 0;
        if (character === "," && depth === 0) {
            const [, name, within] = /^([^(]*)(?:\((.*)\))?$/.exec(type.slice(begin, at).trim());
            begin = at + 1;
            if (/^["']/.test(name)) { parts.push(name.slice(1, -1)); continue; }
            if (!Number.isNaN(Number(name))) { parts.push(Number(name)); continue; }
            assert(TYPES[name], `no datatype ${name}`);
            const given = within === undefined ? [] : compile(within);
            parts.push((value) => TYPES[name](value, ...given));
        }
    }
    return parts;
}
// True if a field takes a text that is not empty.
function takes(option, value) {
    if (option.kind === "ListValue") { return option.choices.includes(value); }
    const fits = !option.datatype || compile(option.datatype)[0](value);
    return fits && (!option.validate || option.validate("x", value) === true);
}

// load FILE { NAME: MODULE }: runs a file of LuCI's, whose first lines name the modules that it requires.
function load(file, modules) {
    const source = fs.readFileSync(path.join(resources, file), "utf8");
    const names = [], values = [];
    for (const [, name, , alias] of source.matchAll(/^'require ([\w.]+)( as (\w+))?';$/gm)) {
        assert(name in modules, `${file} requires ${name}`);
        names.push(alias || name.replace(/.*\./, ""));
        values.push(modules[name]);
    }
    return new Function(...names, ...Object.keys(globals), source)(...values, ...Object.values(globals));
}
const globals = {
    _: (text) => text,
    E,
    L: {
        toArray: (value) => (value === null || value === undefined ? [] : Array.isArray(value) ? value : String(value).trim().split(/\s+/)),
        resolveDefault: (promise, other) => promise.catch(() => other),
    },
    document: { createTextNode: (data) => ({ data }) },
    cbi_update_table: (table, rows, placeholder) => Object.assign(table, { rows, placeholder }),
};
const extend = { extend: (members) => members };
const settings = load("sockproxyd/settings.js", { baseclass: extend });
// What the methods `check` and `status` answer, what `uci changes` does, and what the pages have poll.
let checked = { valid: true, text: "" }, answer = {}, changes = {}, polled, polls;
const answers = { check: () => checked, status: () => answer };
const dom = { content: (node, content) => node.set(content) };
// The module for the pages of a configuration.
const checkOf = (config) => load("sockproxyd/check.js", { baseclass: extend, dom, uci: config,
    poll: { add: (run) => { polled = run; polls = true; }, remove: (run) => { polls = run !== polled; } },
    rpc: { declare: (call) => {
        assert.strictEqual(call.object, "sockproxyd");
        return () => (answers[call.method]() ? Promise.resolve(answers[call.method]()) : Promise.reject(new Error("no such method")));
    } } });
const check_ = checkOf(new Uci({}));
const settingsPage = (config) => load("view/sockproxyd/settings.js",
    { form, uci: config, view: extend, "sockproxyd.check": check_, "sockproxyd.settings": settings });
// The map of a page.
const mapOf = (node) => node.all("div").find((one) => one.attributes.map).attributes.map;

// --- The settings ---

// The settings of the document: [{ section, key, value, default, range }].
const documented = fs.readFileSync(documentFile, "utf8").split("\n### [").slice(1).flatMap((part) => {
    const section = part.slice(0, part.indexOf("]"));
    return part.split("\n##")[0].split("\n").filter((line) => line.startsWith("| `")).map((line) => {
        const [key, value, standard, range] = line.split(/(?<!\\)\|/).slice(1).map((cell) => cell.trim().replace(/^`|`$/g, "").replace(/\\/g, ""));
        return { section, key, value, standard: standard === "empty" ? "" : standard, range };
    });
});

// daemonTakes SECTION KEY VALUE: asks the daemon.
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), "sockproxyd-views-"));
function daemonTakes(section, key, value) {
    const file = path.join(scratch, "test.cf");
    fs.writeFileSync(file, `[${section}]\n${key}=${value}\n`);
    return childProcess.spawnSync(daemon, ["-t", "-c", file]).status === 0;
}

async function main() {
    const config = new Uci({ main: { ".type": "sockproxyd", enabled: "1", port: "2599", vera: "http://192.168.0.9:3480" },
        host: { ".type": "host", vera: "http://192.168.0.8:3480", debug: "yes", allow: "loopback, 10.0.0.0/8", listen: ["local", "10.1.1.1"] } });
    const page = settingsPage(config);
    const map = mapOf(await page.render(await page.load()));
    const section = (type) => map.sections.find((one) => one.type === type);

    check("the form has every documented setting, and no other", () => {
        assert(documented.length > 30);
        for (const type of ["host", "limits", "tls", "status"]) {
            const own = type === "host" ? ["interface"] : [];
            const names = documented.filter((one) => one.section === type).map((one) => one.key);
            assert.deepStrictEqual(section(type).options.map((one) => one.name), [...own, ...names]);
        }
        assert.deepStrictEqual([...new Set(documented.map((one) => one.section))], ["host", "limits", "tls", "status"]);
    });
    check("no field has a default that would be written; it shows the daemon's", () => {
        for (const { section: type, key, value, standard } of documented) {
            const field = section(type).named(key);
            assert.strictEqual(field.default, undefined, key);
            assert(field.optional && field.rmempty, key);
            if (value === "on|off") {
                assert.deepStrictEqual(field.choices, ["", "1", "0"], key);
            } else {
                assert.strictEqual(field.placeholder, key === "log" ? "syslog" : standard, key);
            }
            assert(field.title && field.title !== "undefined" && field.description.startsWith(`<code>${key}</code>: `), key);
        }
    });
    check("a field takes the values that the daemon takes", () => {
        const values = ["0", "1", "-1", "0.5", "5", "9", "10", "64", "65", "511", "512", "900", "901", "1000", "65535", "65536", "200000", "200001",
            "auto", "x y", "*", "127.0.0.1", "1.2.3.4/33", "fd00::1", "http://", "http://a", "https://a:1/", "verify", "none", "sha256/0",
            `sha256/${"0a".repeat(32)}`];
        for (const { section: type, key, value, standard, range } of documented) {
            const field = section(type).named(key);
            // A file may have any name, and what a name or address is, the system knows.
            if (/^(file|directory|file\|.*|hosts|names|address|on\|off)$/.test(value)) { continue; }
            for (const one of [...values, ...(range.match(/\d+/g) || []), standard].filter((text) => text !== "")) {
                assert.strictEqual(takes(field, one), daemonTakes(type, key, one), `${type}.${key}=${one}`);
            }
        }
    });
    check("lists: what the daemon separates by commas or blanks", () => {
        const items = (key) => section("host").named(key).cfgvalue("host");
        assert.deepStrictEqual(items("allow"), ["loopback", "10.0.0.0/8"]);
        assert.deepStrictEqual(items("listen"), ["local", "10.1.1.1"]);
        assert.deepStrictEqual(items("stop"), []);
        for (const key of ["allow", "stop", "listen", "targets"]) { assert.strictEqual(section("host").named(key).kind, "DynamicList"); }
        assert.strictEqual(section("tls").named("luup").kind, "DynamicList");
    });
    check("on and off in any of UCI's words", () => {
        const debug = section("host").named("debug");
        const shown = (value) => {
            config.content.host.debug = value;
            return debug.cfgvalue("host");
        };
        assert.deepStrictEqual(["on", "1", "true", "Yes", "enabled", "off", "0", "", undefined].map(shown), ["1", "1", "1", "1", "1", "0", "0", "", ""]);
    });
    check("settings of the section main move to host, where none is there", () => {
        assert.deepStrictEqual(config.content.main, { ".type": "sockproxyd", enabled: "1" });
        assert.deepStrictEqual([config.content.host.port, config.content.host.vera], ["2599", "http://192.168.0.8:3480"]);
    });
    check("missing sections are there when something is saved", () => {
        assert.deepStrictEqual(["limits", "tls", "status"].map((name) => config.content[name]), [{ ".type": "limits" }, { ".type": "tls" }, { ".type": "status" }]);
    });

    // --- The listeners ---

    const listeners = load("view/sockproxyd/listeners.js", { form, view: extend, "sockproxyd.check": check_ });
    const [direct, serve] = mapOf(await listeners.render(await listeners.load())).sections;
    check("direct listeners and WebSocket ports", () => {
        assert.deepStrictEqual([direct.type, serve.type], ["direct", "serve"]);
        assert.deepStrictEqual(direct.options.map((one) => one.name), ["enabled", "port", "target", "option"]);
        const names = ["enabled", "port", "path", "target", "option", "orig", "subp", "auth", "cert", "pkey", "defl", "pngi"];
        assert.deepStrictEqual(serve.options.map((one) => one.name), names);
        const bad = { port: ["0", "65536", "x"], target: ["a b", "a:1 PRTO=udp"], option: ["x", "A=1 B=2"], path: ["x", "/a b"], auth: ["x", "a:b c"], pngi: ["-1"] };
        const good = { port: ["1", "65535"], target: ["a:1", "wss://a/b?c=d"], option: ["PRTO=udp"], path: ["/", "/a"], auth: ["a:b"], pngi: ["0", "30"] };
        for (const [name, values] of Object.entries(bad)) { values.forEach((value) => assert(!takes(serve.named(name), value), `${name} ${value}`)); }
        for (const [name, values] of Object.entries(good)) { values.forEach((value) => assert(takes(serve.named(name), value), `${name} ${value}`)); }
    });

    // --- The status ---

    const status = JSON.parse(fs.readFileSync(statusFile, "utf8"));
    answer = status;
    const statusOf = (module) => load("view/sockproxyd/status.js", { view: extend, "sockproxyd.check": module, dom });
    const load_status = () => statusOf(check_);
    const statusPage = load_status();
    const shown = statusPage.render(await statusPage.load());
    const tables = Object.fromEntries(shown.all("table").filter((one) => one.rows).map((one) => [one.attributes.id, one]));
    const cells = (table, row) => tables[table].rows[row].map((cell) => (Array.isArray(cell) ? cell[1].text : cell.text));

    check("the status page shows connections, ends, listeners, notifications and memory", () => {
        assert.deepStrictEqual(Object.keys(tables), ["connections", "listeners", "ended"]);
        const at = status.connections.findIndex((one) => one.state === "echo");
        assert.strictEqual(tables.connections.rows.length, status.connections.length);
        assert.deepStrictEqual(cells("connections", at).slice(0, 5), [status.connections[at].id, "echo", "127.0.0.1", "127.0.0.1:2612", "tcp"]);
        assert(cells("connections", at).includes("5/urn:example-com:serviceId:Device1/Receive/0"));
        assert.deepStrictEqual(cells("listeners", 0).slice(0, 2), [status.listeners[0].address, "setup mode"]);
        for (const row of Object.keys(tables).flatMap((name) => tables[name].rows)) { row.forEach((cell) => assert(cell !== undefined)); }
        const text = shown.text;
        for (const word of [status.version, "Memory held", "Pending", "Latency of Luup"]) { assert(text.includes(word), word); }
        assert(!/undefined|NaN|null/.test(text), text);
    });
    answer = { ...status,
        connections: [{ ...status.connections[0], target: "<img src=x>", state: "healing", heal: { losses: 3 }, protocol: "wss", tls: "TLS 1.3", subprotocol: "chat", notification: null }],
        ended: [{ id: "1", ago: 3.5, target: "a&b", protocol: "tcp", reason: "<b>", times: {} }],
        listeners: [{ address: "0.0.0.0:1", target: null, protocol: "ws", owners: [{ id: "x", path: "/p", waiting: 2 }, { id: "y", path: null, waiting: 0 }] }],
        notifications: { ...status.notifications, latency: 0.0123 } };
    await polled();
    check("a poll renews the page; names are text, not HTML", () => {
        assert.deepStrictEqual(cells("connections", 0).slice(1, 5), ["healing (lost 3 times)", "127.0.0.1", "<img src=x>", "wss, TLS 1.3, chat"]);
        assert.deepStrictEqual(cells("ended", 0).slice(2), ["a&b", "tcp", "<b>"]);
        assert.deepStrictEqual(cells("listeners", 0).slice(1), ["plugins (ws)", "–", "x /p (2), y * (0)"]);
        assert(shown.text.includes("12 ms"));
    });
    answer = { ...status, connections: Array(600).fill(status.connections[0]) };
    await polled();
    check("the table of connections has a bound", () => {
        assert.strictEqual(tables.connections.rows.length, 500);
        assert(shown.text.includes("The first 500 of 600 connections."));
    });
    for (const [failure, reason] of [[{ error: "sockproxyd: connection refused <x>" }, "connection refused <x>"], [null, "does not answer"]]) {
        answer = failure;
        await polled();
        check(`a proxy that does not answer: ${reason}`, () => {
            assert(shown.text.includes("The proxy does not answer. What is shown is old.") && shown.text.includes(reason));
            assert.strictEqual(tables.connections.rows.length, 500);
        });
    }
    answer = status;
    await polled();
    check("the warning goes when the proxy answers again", () => assert(!shown.text.includes("does not answer")));

    answer = { error: "none" };
    const empty = load_status();
    const first = empty.render(await empty.load());
    const content = first.all("div").find((one) => one.attributes.style === "display:none");
    const before = [first.text.includes("does not answer.") && !first.text.includes("old"), content.style.display];
    answer = status;
    await polled();
    check("nothing but the warning is shown before the first answer", () => {
        assert.deepStrictEqual([before, content.style.display], [[true, undefined], ""]);
    });

    // --- The configuration as a whole ---

    const shows = async (pageOf, answer_) => {
        checked = answer_;
        const one = pageOf();
        return (await one.render(await one.load())).text;
    };
    for (const [name, pageOf] of [["settings", () => settingsPage(config)], ["listeners", () => listeners], ["status", load_status]]) {
        const wrong = await shows(pageOf, { valid: false, text: "line <7> is bad" });
        const unusable = await shows(pageOf, { valid: true, text: "no such file" });
        const fine = [await shows(pageOf, { valid: true, text: "" }), await shows(pageOf, null)];
        check(`what is wrong with the configuration is on the page ${name}`, () => {
            assert(wrong.includes("has an error") && wrong.includes("line <7> is bad"));
            assert(unusable.includes("cannot be used") && unusable.includes("no such file"));
            fine.forEach((text) => assert(!text.includes("saved configuration")));
        });
    }

    checked = { valid: true, text: "" };
    const ports = { a: { ".type": "direct", enabled: "1", port: "8125" }, b: { ".type": "serve", port: "81" },
        c: { ".type": "direct", enabled: "0", port: "82" }, d: { ".type": "direct", port: "2504" } };
    const listening = (...addresses) => ({ ...status, listeners: addresses.map(([address, target]) => ({ address, target })) });
    const some = listening(["[::]:2504", null], ["[::]:8125", "a:1"]);
    const all = listening(["[::]:2504", "a:1"], ["[::]:8125", "a:1"], ["127.0.0.1:81", "a:1"]);
    for (const [name, pageOf] of [["listeners", (module) => load("view/sockproxyd/listeners.js", { form, view: extend, "sockproxyd.check": module })],
        ["status", statusOf]]) {
        let asksOn;
        // What the page says of ports after each of these answers, and whether it asks on.
        const says = async (...given) => {
            answer = given[0];
            const one = pageOf(checkOf(new Uci(ports)));
            const node = await one.render(await one.load());
            const said = [];
            asksOn = [];
            for (answer of given) {
                await polled();
                asksOn.push(polls);
                said.push((/cannot listen on: ([\d, ]*)\.|cannot start if/.exec(node.text) || ["", ""])[1] ?? "down");
            }
            return said;
        };
        const wrong = await says(some, some, all, some), went = asksOn, silent = await says({ error: "no answer" }, { error: "no answer" });
        changes = { sockproxyd: [["add", "x", "direct"]] };
        const pending = await says(some, some);
        changes = {};
        checked = { valid: false, text: "x" };
        const invalid = await says(some, some);
        checked = { valid: true, text: "" };
        check(`the page ${name} names ports on which the proxy does not listen`, () => {
            assert.deepStrictEqual(wrong, ["", "2504, 81", "", ""]);
            assert.deepStrictEqual(went, name === "status" ? [true, true, true, true] : [true, true, false, false]);
        });
        check(`the page ${name} names none without an answer, which the listeners tell of, before Apply, and with a wrong configuration`, () => {
            assert.deepStrictEqual([silent, pending, invalid], [["", name === "listeners" ? "down" : ""], ["", ""], ["", ""]]);
        });
    }

    // --- What LuCI reads besides ---

    const json = (name) => JSON.parse(fs.readFileSync(path.join(app, "root/usr/share", name, "luci-app-sockproxyd.json"), "utf8"));
    check("the menu leads to the pages", () => {
        for (const [name, entry] of Object.entries(json("luci/menu.d"))) {
            assert(name.startsWith("admin/services/sockproxyd"));
            if (entry.action.type === "view") { assert(fs.existsSync(path.join(resources, "view", `${entry.action.path}.js`)), name); }
        }
    });
    check("the access list has what the pages call, and nothing else", () => {
        const access = json("rpcd/acl.d")["luci-app-sockproxyd"];
        assert.deepStrictEqual(access.read, { ubus: { sockproxyd: ["status", "check"] }, uci: ["sockproxyd"] });
        assert.deepStrictEqual(access.write, { uci: ["sockproxyd"] });
    });
}

main().catch((error) => {
    failed = true;
    console.log(`FAIL  luci: ${error.stack}`);
}).finally(() => {
    fs.rmSync(scratch, { recursive: true });
    process.exitCode = failed ? 1 : 0;
});
