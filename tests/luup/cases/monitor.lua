--- The device as a monitor: a checkout without the upload's list of files, variables, failures, requests, icon.
-- The names come from tests/luup/cases.lua.

local T = ...
local case, System, Engine, SID, ALTUI, like, equal, variable, message, wait_for_task, started =
    T.case, T.System, T.Engine, T.SID, T.ALTUI, T.like, T.equal, T.variable, T.message, T.wait_for_task, T.started

-- Seconds. No turn of a check may block Luup for longer.
local MAX_TURN = 0.1

local socket = require "socket"

local function card(engine, line)
    return engine.variables[ALTUI .. "DisplayLine" .. line]
end

-- Starts the daemon as its service on a Debian-like machine.
local function daemon(arguments)
    System.must("cp /test/daemon /tmp/daemon && chmod 755 /tmp/daemon")
    os.execute("/tmp/daemon " .. (arguments or "") .. " >/dev/null 2>&1 &")
    System.await("the daemon answers", function() return (System.build() or 0) > 23068 end)
    return System.pid("/tmp/daemon")
end

-- Puts a checkout's files where the App Store does, and starts openLuup in their folder.
local function checkout(options)
    System.upload("checkout", ".")
    local paths = { open_files = System.UPLOADS, open_icons = "/tmp/icons" }
    options = options or {}
    options.open = true
    options.before = function()
        for name, path in pairs(paths) do require("L_SockProxySystem").paths[name] = path end
    end
    local engine = Engine.start(options)
    equal(engine.started, true)
    assert(engine.run(function() return message(engine) ~= "" end))
    wait_for_task(engine)
    return engine
end

case("a checkout on openLuup monitors the daemon", function()
    local engine = checkout()
    like(message(engine), "^Down; no answer on port 2504: install the sockproxyd service")
    equal(engine.failed, 1)
    equal(card(engine, 1), "Down")
    equal(card(engine, 2), "")
    equal(variable(engine, "Connections"), "")
    daemon()
    equal(engine.action("Check"), 4)
    like(wait_for_task(engine), "^Up; sockproxyd %(build %d+%)$")
    equal(engine.failed, 0)
    equal(card(engine, 1), "Up")
    equal(card(engine, 2), "0 connections, 0 notifications, 0 failed")
    equal(engine.action("Restart"), 2)
end)

case("a checkout on a Vera monitors the daemon", function()
    System.upload("checkout")
    local engine = started()
    assert(engine.run(function() return message(engine) ~= "" end))
    like(message(engine), "^Down; no answer on port 2504: upload all files of sockproxyd's Luup package")
    equal(engine.action("Install"), 2)
    equal(engine.action("Restart"), 2)
    daemon()
    engine.fire()
    like(wait_for_task(engine), "^Up; ")
    equal(System.output("ls /etc/init.d /usr/sbin"), System.output("ls /etc/init.d /usr/sbin | grep -v sockproxyd"))
    equal(System.output("ls /www/cmh/skins/default/icons"), "SockProxy1.png\n")
end)

case("the icon of a checkout on openLuup", function()
    System.must("mkdir /tmp/icons")
    local engine = checkout { attributes = { manufacturer = "sockproxyd", model = "sockproxyd" } }
    equal(System.read("/tmp/icons/SockProxy1.png"), System.read("/test/uploads/checkout/SockProxy1.png"))
    equal(engine.attributes.manufacturer, "")
    equal(engine.attributes.model, "")
end)

case("the panel in openLuup's console", function()
    local panels = { device_panel = {} }
    package.loaded["openLuup.panels"] = panels
    checkout()
    like(panels.device_panel.SockProxy.control(17), 'href="/data_request%?id=lr_sockproxy&amp;page=1"')
end)

case("UI5 gets failures as boolean values", function()
    System.upload("checkout")
    local engine = started()
    equal(engine.failed, 0)
    engine = Engine.start { version_major = 5 }
    equal(engine.failed, false)
    assert(engine.run(function() return message(engine) ~= "" end))
    equal(engine.failed, true)
end)

-- Connects through the proxy to itself. Returns the connection.
local function connect(options)
    local conn = assert(socket.connect("127.0.0.1", 2504))
    conn:settimeout(5)
    conn:receive("*l")
    conn:send("CONN 127.0.0.1:2504 " .. (options or "") .. "\n")
    like(conn:receive("*l"), "^OK CONN ")
    return conn
end

-- What Luup answers to a request of an action.
local DONE = '{"u:HandleReceiveResponse":{"OK":"OK"}}'
local LUUP = [[
    local server = assert(require("socket").bind("127.0.0.1", 3480))
    while true do
        local client = server:accept()
        repeat
            local line = client:receive("*l")
        until not line or line == ""
        client:send("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ]] .. #DONE .. [[\r\n"
            .. "Connection: close\r\n\r\n]] .. DONE:gsub('"', '\\"') .. [[")
        client:close()
    end]]

case("figures of the daemon's status", function()
    local engine = checkout()
    System.write("/tmp/luup.lua", LUUP)
    os.execute("lua /tmp/luup.lua &")
    System.await("Luup listens", function()
        local sock = socket.connect("127.0.0.1", 3480)
        if sock then sock:close() end
        return sock ~= nil
    end)
    daemon()
    -- The connection is one to the proxy itself, which sends its greeting: a notification.
    local conn = connect("NTFY=17/urn:toggledbits-com:serviceId:SockProxy1/HandleReceive")
    System.await("the notification is delivered", function()
        engine.action("Check")
        wait_for_task(engine)
        return variable(engine, "Notifications") == "1"
    end)
    -- The one that it is connected to is in setup mode, and so is the check's own.
    equal(variable(engine, "Connections"), "1")
    equal(variable(engine, "NotificationFailures"), "0")
    local latency = tonumber(variable(engine, "NotifyLatency"))
    assert(latency and latency > 0 and latency < 60000, variable(engine, "NotifyLatency"))
    equal(card(engine, 2), "1 connections, 1 notifications, 0 failed")

    local Status = require "L_SockProxyStatus"
    local body, kind = engine.request("sockproxy")
    equal(kind, "application/json")
    local answer = assert(Status.decode(body))
    equal(answer.device, 17)
    equal(answer.up, true)
    equal(answer.restarts, false)
    equal(answer.message, message(engine))
    local echo
    for _, one in ipairs(answer.status.connections) do echo = one.state == "echo" and one or echo end
    equal(echo.target, "127.0.0.1:2504")
    equal(echo.notification, "delivered")
    body, kind = engine.request("sockproxy", { page = "1" })
    equal(kind, "text/html")
    like(body, "<td>echo</td><td>127.0.0.1:2504</td><td>tcp</td><td>%d+</td><td>0</td>")
    like(body, "Check now")
    equal(body:match("Restart the daemon"), nil)
    conn:close()
end)

case("a Vera's page has a button to restart the daemon", function()
    System.upload("real")
    local engine = started()
    like(engine.request("sockproxy"), '"restarts":true')
    like(engine.request("sockproxy", { page = 1 }), 'name="DeviceNum" value="17".*name="action" value="Restart"')
end)

case("the page escapes what plugins and devices choose", function()
    System.upload("checkout", ".")
    local Status = require "L_SockProxyStatus"
    local status = [[{"connections":[{"id":"1a","state":"echo","target":"<script>\"&'\u003cb\u003e\u00e9","notify":"\"state\":\"setup\"",
        "received":12,"sent":1e3,"uptime":3723.5,"idle":0.25,"messages":null,"protocol":"ws"}],
        "notifications":{"delivered":7,"failed":2,"sent":9}}]]
    local figures = Status.figures(status)
    equal(figures.connections, 1)
    equal(figures.notifications, 7)
    equal(figures.failures, 2)
    local state = { device = 17, service = "urn:x", up = true, restarts = true, message = "</p><b>'\"\n\1", status = status }
    local page = Status.page(state)
    assert(page:find("&lt;script&gt;&quot;&amp;&#39;&lt;b&gt;\195\169", 1, true), page)
    assert(page:find("&lt;/p&gt;&lt;b&gt;", 1, true), page)
    assert(page:find("<td>12</td><td>1000</td><td>1 h 02 min</td><td>0 s</td>", 1, true), page)
    assert(page:find("7 delivered, 2 failed", 1, true), page)
    local answer = assert(Status.decode(Status.json(state)))
    equal(answer.message, state.message)
    equal(Status.json(state):match("</p>"), nil)
    -- What is no JSON gives an error, or a page that says so.
    for _, text in ipairs { "", "{", "[1,", '{"a"', '{"a":}', '"\\u12', "nil", "{]", ("["):rep(100), '{"connections":1}', "1 2 x" } do
        state.status = text
        assert(#Status.page(state) > 0)
    end
    equal(Status.decode(("["):rep(100)), nil)
    equal(Status.figures("no status"), nil)
    equal(Status.figures(nil), nil)
end)

-- The longest call of a run, the least of three tries: the machine may be busy.
local function slowest(run)
    local least = math.huge
    for _ = 1, 3 do
        least = math.min(least, run())
        if least < MAX_TURN then break end
    end
    return least
end

case("a daemon stopped by SIGSTOP blocks no turn for long", function()
    local engine = checkout()
    local pid = daemon()
    engine.action("Check")
    like(wait_for_task(engine), "^Up; ")
    System.must("kill -STOP %d", pid)
    local blocked = slowest(function()
        engine.slowest = 0
        equal(engine.action("Check"), 4)
        equal(variable(engine, "Status"), variable(engine, "Status"))
        like(wait_for_task(engine), "^Down; port 2504 is used by a program that is not sockproxyd, or the daemon hangs$")
        return engine.slowest
    end)
    assert(blocked < MAX_TURN, "a turn took " .. blocked .. " s")
    equal(variable(engine, "Status"), "0")
    equal(engine.failed, 1)
    equal(variable(engine, "Connections"), "")
    System.must("kill -CONT %d", pid)
    System.await("the daemon is up", function()
        engine.action("Check")
        return wait_for_task(engine):match("^Up; ")
    end)
    equal(engine.failed, 0)
end)

case("a full backlog blocks no turn for long", function()
    local engine = checkout()
    local server = assert(socket.tcp())
    server:setoption("reuseaddr", true)
    assert(server:bind("127.0.0.1", 2504))
    server:listen(1)
    local held = {}
    -- The kernel ignores the SYN of the next one.
    for index = 1, 6 do
        held[index] = socket.tcp()
        held[index]:settimeout(0)
        held[index]:connect("127.0.0.1", 2504)
    end
    local blocked = slowest(function()
        engine.slowest = 0
        engine.action("Check")
        like(wait_for_task(engine), "^Down; port 2504 is used")
        return engine.slowest
    end)
    assert(blocked < MAX_TURN, "a turn took " .. blocked .. " s")
    for _, sock in ipairs(held) do sock:close() end
    server:close()
end)

case("programs that are not the daemon", function()
    local engine = checkout()
    -- Each answers a check in pieces, one for each turn.
    for _, program in ipairs {
        { "Down; port 2504 is used", "220 mail.example.com\n" },
        { "Down; port 2504 is used", "OK TOGGLEDBITS-SOCK", "PRO" },
        { "Up, but it is the Lua daemon", "OK TOGGLEDBITS-SOCKPROXY 1 1a2b3c\n", "OK 23068\n" },
        { "Up; sockproxyd %(build 99999%)", "OK TOGGLEDBITS-SOCK", "PROXY 1 1a\nOK 99999\nERR INV", "ALID COMMAND\n" },
        { "Up; sockproxyd %(build 99999%)", "OK TOGGLEDBITS-SOCKPROXY 1 1a\nOK 99999\nOK STAT 99999999\n" },
        { "Up; sockproxyd %(build 99999%)", "OK TOGGLEDBITS-SOCKPROXY 1 1a\nOK 99999\n", "OK STAT 9\n{}" },
        { "Down; port 2504 is used", ("x"):rep(100000) },
    } do
        local server = assert(socket.tcp())
        server:setoption("reuseaddr", true)
        assert(server:bind("127.0.0.1", 2504))
        server:listen(4)
        server:settimeout(5)
        engine.action("Check")
        local peer = assert(server:accept())
        for piece = 2, #program do
            peer:send(program[piece])
            if piece < #program then
                local turns = 0
                engine.run(function()
                    turns = turns + 1
                    return turns > 1
                end)
            end
        end
        like(wait_for_task(engine), "^" .. program[1])
        equal(variable(engine, "Connections"), "")
        peer:close()
        server:close()
    end
end)

case("SetDebug", function()
    local engine = checkout()
    equal(variable(engine, "Debug"), "0")
    local function debug_lines()
        local before = #engine.logged
        engine.action("Check")
        wait_for_task(engine)
        local count = 0
        for index = before + 1, #engine.logged do
            if engine.logged[index]:match("debug: ") then count = count + 1 end
        end
        return count
    end
    equal(debug_lines(), 0)
    equal(engine.action("SetDebug", { debug = "1" }), 4)
    equal(variable(engine, "Debug"), "1")
    assert(debug_lines() > 0)
    equal(engine.action("SetDebug", { debug = "yes" }), 2)
    equal(engine.action("SetDebug"), 2)
    equal(variable(engine, "Debug"), "1")
    -- The setting outlives a reload of Luup.
    engine = checkout { variables = engine.variables }
    equal(engine.variables[SID .. "Debug"], "1")
    equal(engine.action("SetDebug", { debug = 0 }), 4)
    equal(debug_lines(), 0)
end)

case("SetDebug changes one line of the daemon's configuration, and connections stay", function()
    System.write("/etc/sockproxyd.cf", "; mine\n[tls]\n\n[Host]\n; debug\nlog=/tmp/sockproxyd.log\n\n[tls]")
    System.must("chmod 640 /etc/sockproxyd.cf")
    System.upload("real")
    local engine = started()
    like(message(engine), "^Up; ")
    local pid, conn = System.pid(System.RUNNING), connect()
    local function debug_lines()
        local _, count = (System.read("/tmp/sockproxyd.log") or ""):gsub("DEBUG", "")
        return count
    end
    equal(debug_lines(), 0)
    equal(engine.action("SetDebug", { debug = "1" }), 4)
    like(wait_for_task(engine), "^Up; ")
    equal(System.read("/etc/sockproxyd.cf"),
        "; mine\n[tls]\n\n[Host]\ndebug=on\n; debug\nlog=/tmp/sockproxyd.log\n\n[tls]")
    like(System.output("ls -l /etc/sockproxyd.cf"), "^%-rw%-r%-%-%-%-%-")
    System.await("debug messages", function()
        connect():close()
        return debug_lines() > 0
    end)
    equal(engine.action("SetDebug", { debug = "0" }), 4)
    wait_for_task(engine)
    like(System.read("/etc/sockproxyd.cf"), "%[Host%]\ndebug=off\n; debug\n")
    equal(System.pid(System.RUNNING), pid)
    conn:send("BILD\n")
    like(conn:receive("*l"), "^OK")
end)

case("SetDebug without a configuration writes one", function()
    System.upload("real")
    local engine = started()
    equal(engine.action("SetDebug", { debug = "0" }), 4)
    wait_for_task(engine)
    equal(System.read("/etc/sockproxyd.cf"), nil)
    equal(engine.action("SetDebug", { debug = "1" }), 4)
    like(wait_for_task(engine), "^Up; ")
    equal(System.read("/etc/sockproxyd.cf"), "[host]\ndebug=on\n")
    local with_debug = require("L_SockProxySystem").with_debug
    equal(with_debug("[host]\n DEBUG\nport=1\n", false), "[host]\ndebug=off\nport=1\n")
    equal(with_debug("[tls]\ndebug=1", true), "[tls]\ndebug=1\n[host]\ndebug=on\n")
    equal(with_debug("[host]", true), "[host]\ndebug=on\n")
    equal(with_debug("[host]\r\ndebug = yes\r\n\r\n", true), "[host]\r\ndebug=on\n\r\n")
end)
