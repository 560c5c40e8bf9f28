//# sourceURL=J_SockProxy1.js
// The tab "Connections" of the SockProxy device, for UI5, UI7 and ALTUI. ECMAScript 5: the browsers of old tablets.
// MIT licence; part of sockproxyd.

/* exported SockProxy1 */
var SockProxy1 = (function () {
    "use strict";

    var SERVICE = "urn:toggledbits-com:serviceId:SockProxy1";
    // Milliseconds between two requests while the tab is shown.
    var REFRESH_INTERVAL = 5000;
    // Milliseconds. Luup may be reloading.
    var REQUEST_TIMEOUT = 15000;
    // The next refresh. There is one for all tabs: the user interface makes the tab anew each time it is shown.
    var timer = null;
    // Rows of the table.
    var MAX_ROWS = 500;

    var ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", "\"": "&quot;", "'": "&#39;" };

    // Returns a value as HTML text, also for attributes in quotes.
    function escaped(value) {
        var text = value === null || value === undefined ? "" : String(value);
        return text.replace(/[&<>"']/g, function (character) { return ENTITIES[character]; });
    }

    // Returns the address of Luup's data_request. The user interfaces give it in different ways.
    function dataRequest() {
        var address = "/port_3480/data_request";
        if (typeof api !== "undefined" && api && api.getDataRequestURL) {
            address = api.getDataRequestURL();
        } else if (typeof data_request_url === "string") {
            address = data_request_url;
        }
        return address.replace(/\?.*$/, "");
    }

    // Requests data_request with a query, and calls finished(text), with null if Luup does not answer.
    function request(query, finished) {
        var http = new XMLHttpRequest();
        http.open("GET", dataRequest() + "?" + query + "&_=" + new Date().getTime(), true);
        http.timeout = REQUEST_TIMEOUT;
        http.onreadystatechange = function () {
            if (http.readyState === 4) {
                finished(http.status === 200 ? http.responseText : null);
            }
        };
        http.send();
    }

    // Returns seconds as "1 h 05 min", "5 min 07 s" or "7 s".
    function duration(seconds) {
        function two(number) { return (number < 10 ? "0" : "") + number; }
        var whole = Math.floor(Number(seconds) || 0);
        if (whole >= 3600) { return Math.floor(whole / 3600) + " h " + two(Math.floor(whole / 60) % 60) + " min"; }
        if (whole >= 60) { return Math.floor(whole / 60) + " min " + two(whole % 60) + " s"; }
        return whole + " s";
    }

    // The columns of the table. L_SockProxyStatus.lua has the same.
    var COLUMNS = [
        ["Pid", function (c) { return c.id; }],
        ["State", function (c) { return c.state; }],
        ["Target", function (c) { return c.target; }],
        ["Protocol", function (c) { return c.protocol; }],
        ["Received", function (c) { return c.received; }],
        ["Sent", function (c) { return c.sent; }],
        ["Up", function (c) { return duration(c.uptime); }],
        ["Idle", function (c) { return duration(c.idle); }],
        ["Notifies", function (c) { return c.notify; }],
        ["Last notification", function (c) { return c.notification; }]
    ];

    function row(tag, cell) {
        var html = "<tr>", index;
        for (index = 0; index < COLUMNS.length; index += 1) {
            html += "<" + tag + " style='text-align:left;padding:2px 8px'>" + escaped(cell(COLUMNS[index])) + "</" + tag + ">";
        }
        return html + "</tr>";
    }

    // Returns the table of the answer to lr_sockproxy.
    function table(answer) {
        var html = "<p>" + escaped(answer.message) + "</p>", status = answer.status, list, index;
        if (!status || !status.connections) { return html; }
        list = status.connections;
        html += "<table>" + row("th", function (column) { return column[0]; });
        for (index = 0; index < list.length && index < MAX_ROWS; index += 1) {
            html += row("td", function (column) { return column[1](list[index]); });
        }
        html += "</table><p>" + escaped(index) + " of " + escaped(list.length) + " connections shown.";
        if (status.notifications) {
            html += " Notifications: " + escaped(status.notifications.delivered) + " delivered, " +
                escaped(status.notifications.failed) + " failed.";
        }
        return html + "</p>";
    }

    // Shows the tab of a device. Called by the user interface with the device's number.
    function connections(device) {
        var id = "sockproxy1_" + Number(device);
        var html = "<div id='" + id + "'><button type='button' id='" + id + "_check'>Check now</button> " +
            "<button type='button' id='" + id + "_restart' style='display:none'>Restart the daemon</button>" +
            "<div id='" + id + "_table'></div></div>";

        // Calls use(element) if the tab is still shown. Returns false if it is not.
        function element(name, use) {
            var found = document.getElementById(id + name);
            if (found) { use(found); }
            return Boolean(found);
        }

        function refresh() {
            window.clearTimeout(timer);
            request("id=lr_sockproxy&output_format=json", function (text) {
                var answer = null;
                try {
                    answer = JSON.parse(text);
                } catch (ignore) {
                    answer = null;
                }
                var shown = element("_table", function (place) {
                    place.innerHTML = answer ? table(answer) : "<p>Luup does not answer.</p>";
                });
                element("_restart", function (button) {
                    button.style.display = answer && answer.restarts ? "" : "none";
                });
                window.clearTimeout(timer);
                // The tab of a panel that was left is gone, and nothing remains to refresh.
                if (shown) { timer = window.setTimeout(refresh, REFRESH_INTERVAL); }
            });
        }

        if (typeof api !== "undefined" && api && api.setCpanelContent) {
            api.setCpanelContent(html);
        } else {
            window.set_panel_html(html);
        }
        element("_check", function (button) { button.onclick = refresh; });
        element("_restart", function (button) {
            button.onclick = function () {
                request("id=action&output_format=json&DeviceNum=" + Number(device) + "&serviceId=" + SERVICE + "&action=Restart", refresh);
            };
        });
        refresh();
        return true;
    }

    return { connections: connections };
}());
