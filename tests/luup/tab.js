// Tests J_SockProxy1.js, and what D_SockProxy1.json says of it, as UI7, UI5 and ALTUI use them.
// usage: node tab.js FOLDER

"use strict";

const assert = require("assert");
const fs = require("fs");
const path = require("path");
const vm = require("vm");

const folder = process.argv[2];
const source = fs.readFileSync(path.join(folder, "J_SockProxy1.js"), "utf8");

// Node's own words of later ECMAScript that parse elsewhere; old browsers stop at them.
assert(!/=>|`|\b(let|const|class|async|await)\b/.test(source.replace(/\/\/.*$/gm, "")), "later than ECMAScript 5");

const description = JSON.parse(fs.readFileSync(path.join(folder, "D_SockProxy1.json"), "utf8"));
const tab = description.Tabs.find((one) => one.ScriptName === "J_SockProxy1.js");
assert.strictEqual(tab.TabType, "javascript");
for (const icon of [description.default_icon, description.flashicon]) {
    assert(fs.existsSync(path.join(folder, path.basename(icon))), icon);
}

// Runs the script in a page. `environment` is what the user interface defines.
function page(environment) {
    const state = { html: "", elements: {}, requests: [], timers: [] };
    const context = Object.assign({
        document: { getElementById: (id) => state.elements[id] || null },
        XMLHttpRequest: function () {
            this.open = (method, url) => { this.url = url; };
            this.send = () => state.requests.push(this);
        },
    }, environment(function (html) {
        state.html = html;
        for (const [, id] of html.matchAll(/id='(.*?)'/g)) {
            state.elements[id] = { style: {}, innerHTML: "" };
        }
    }));
    context.window = Object.assign(context, {
        setTimeout: (run) => state.timers.push(run),
        clearTimeout: (timer) => { if (timer) { state.timers[timer - 1] = null; } },
    });
    vm.createContext(context);
    vm.runInContext(source, context);
    // As ALTUI and UI5 do. UI7 takes the name apart.
    vm.runInContext(tab.Function + "(17)", context);
    return state;
}

function answer(http, status, text) {
    http.readyState = 4;
    http.status = status;
    http.responseText = text;
    http.onreadystatechange();
}

const environments = {
    "/port_3480/data_request": (show) => ({
        api: { setCpanelContent: show, getDataRequestURL: () => "/port_3480/data_request" },
    }),
    "/ui5/data_request": (show) => ({ set_panel_html: show, data_request_url: "/ui5/data_request?" }),
};
for (const [address, environment] of Object.entries(environments)) {
    const state = page(environment);
    assert.strictEqual(state.requests.length, 1);
    assert(state.requests[0].url.startsWith(address + "?id=lr_sockproxy&"), state.requests[0].url);
    const place = state.elements.sockproxy1_17_table;
    const restart = state.elements.sockproxy1_17_restart;
    answer(state.requests[0], 200, JSON.stringify({
        device: 17, up: true, restarts: true, message: "Up; <b>",
        status: {
            connections: [{
                id: "1a", state: "echo", target: "<script>\"'&", protocol: "tcp", received: 5, sent: 6, uptime: 3723,
                idle: 1, notify: "17/<i>/x", notification: null,
            }],
            notifications: { delivered: 7, failed: 2 },
        },
    }));
    assert(place.innerHTML.includes("Up; &lt;b&gt;"), place.innerHTML);
    assert(place.innerHTML.includes("&lt;script&gt;&quot;&#39;&amp;"), place.innerHTML);
    assert(place.innerHTML.includes("1 h 02 min"), place.innerHTML);
    assert(place.innerHTML.includes("7 delivered, 2 failed"), place.innerHTML);
    assert(!/<script|<i>|<b>/.test(place.innerHTML));
    assert.strictEqual(restart.style.display, "");

    // The button restarts the daemon, then the table is read again.
    restart.onclick();
    assert(/id=action&.*DeviceNum=17&.*action=Restart/.test(state.requests[1].url), state.requests[1].url);
    answer(state.requests[1], 200, "{}");
    assert(state.requests[2].url.includes("lr_sockproxy"));
    // Luup reloads, and answers nothing, or an error.
    answer(state.requests[2], 0, "");
    assert(place.innerHTML.includes("Luup does not answer"));
    assert.strictEqual(restart.style.display, "none");
    state.timers.filter(Boolean).pop()();
    answer(state.requests[3], 200, "not JSON");
    state.elements.sockproxy1_17_check.onclick();
    answer(state.requests[4], 200, "{\"message\":\"Down\",\"status\":null}");
    assert(place.innerHTML.includes("Down"));
    // At most one timer runs, and none after the tab was left.
    assert.strictEqual(state.timers.filter(Boolean).length, 1);
    state.elements = {};
    const before = state.timers.length;
    state.timers.filter(Boolean).pop()();
    answer(state.requests[5], 200, "{\"message\":\"Down\"}");
    assert.strictEqual(state.timers.length, before);
}
