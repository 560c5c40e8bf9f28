--- What an installed plugin does: actions, looks, and the platforms where it is a guest.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local hidden, case, both, Box, Engine, LONGEST, like, equal, variable, message, settle, started, assert_ours =
    T.hidden, T.case, T.both, T.Box, T.Engine, T.LONGEST, T.like, T.equal, T.variable, T.message, T.settle, T.started, T.assert_ours

both("uninstall, and install again", function()
    Box.upload("real")
    local engine = started()
    equal(engine.action("Uninstall"), 4)
    like(settle(engine), "^Uninstalled")
    equal(Box.build(), nil)
    equal(Box.pid(Box.RUNNING), nil)
    equal(Box.output("ls /etc/init.d /etc/rc.d /usr/sbin | grep sockproxyd; ls -d /tmp/sockproxyd-run 2>/dev/null"), "")
    equal(Box.output("ls %s | grep bin", Box.UPLOADS), "")
    -- It is not put back at the next look, nor at the next Luup start.
    for _ = 1, 3 do engine.fire() end
    settle(engine)
    engine = started(engine.variables)
    like(message(engine), "^Down; sockproxyd%-here.bin is not in")
    equal(Box.build(), nil)
    Box.upload("real")
    like(message(started(engine.variables)), "^Up; ")
    assert_ours()
end)

both("restart", function()
    Box.upload("real")
    local engine = started()
    local pid = Box.pid(Box.RUNNING)
    equal(engine.action("Restart"), 4)
    equal(engine.action("Restart"), 2) -- one thing at a time
    like(settle(engine), "^Up; ")
    assert(Box.pid(Box.RUNNING) ~= pid, "not restarted")
    assert_ours()
end)

case("a daemon that has vanished is started again, not at once", function()
    Box.upload("real")
    local engine = started()
    Box.must("%s stop >/dev/null", Box.INIT)
    Box.await("it has ended", function() return not Box.build() end)
    equal(engine.fire(), 1)
    like(settle(engine), "^Down; nobody answers")
    equal(variable(engine, "Status"), "0")
    equal(engine.fire(), 1)
    like(settle(engine), "^Up; ")
    assert_ours()
end)

case("notifications of the default action are answered", function()
    Box.upload("real")
    local engine = started()
    equal(engine.action("HandleReceive", { Pid = "1" }), 4)
    equal(engine.action("HandleReceiveData", { Pid = "1" }), 4)
    equal(engine.action("Check"), 4)
end)

case("other plugins find the client libraries where Luup keeps its files", function()
    Box.upload("real")
    started()
    for _, name in ipairs { "LuWS", "VeraWebSockets", "Turbo" } do assert(type(require("L_SockProxy" .. name).with) == "function") end
    -- The proxy itself is somebody to talk to.
    local heard
    local conn = assert(require("L_SockProxyClient").open("127.0.0.1:2504", { on_message = function(_, text) heard = text end }))
    conn:binary("BILD\nQUIT\n")
    Box.await("the answers", function()
        conn:poll()
        return heard
    end)
    like(heard, "^OK TOGGLEDBITS%-SOCKPROXY 1 ")
end)

case("openLuup: only looks", function()
    Box.upload("real")
    local before = Box.snapshot("/etc", "/usr/sbin")
    local engine = Engine.start { open = true }
    equal(engine.started, true)
    assert(engine.run(function() return message(engine) ~= "" end))
    like(message(engine), "^Down; nobody answers on port 2504: install the sockproxyd service on this machine")
    equal(engine.action("Install"), 2)
    equal(engine.action("Uninstall"), 2)
    Box.must("cp /test/uploads/real/sockproxyd-here.bin /tmp/daemon && chmod 755 /tmp/daemon")
    os.execute("/tmp/daemon >/dev/null 2>&1 &")
    Box.await("it answers", function() return (Box.build() or 0) > 23068 end)
    equal(engine.fire(), 1)
    like(message(engine), "^Up; sockproxyd %(build %d+%)$")
    equal(variable(engine, "Status"), "1")
    equal(Box.snapshot("/etc", "/usr/sbin"), before)
    assert(engine.slowest < LONGEST)
end)

-- Only where there is one: see tests/luup/run.
local MIPSEL = "the daemon for Veras, on an emulated MIPS"
hidden(MIPSEL, function()
    local name = "sockproxyd-mipsel.bin"
    Box.must("/test/register-mipsel")
    Box.upload("mipsel")
    local engine = Engine.start {
        before = function() require("L_SockProxyBox").paths.self = "/test/uploads/mipsel/" .. name end,
    }
    like(settle(engine), "^Up; sockproxyd %S+ %(build %d+%)$")
    equal(Box.read(Box.RUNNING), Box.read("/test/uploads/mipsel/" .. name))
    equal(Box.read(Box.RUNNING):sub(1, 6), "\127ELF\1\1")
    equal(engine.action("Restart"), 4)
    like(settle(engine), "^Up; ")
    equal(engine.action("Uninstall"), 4)
    like(settle(engine), "^Uninstalled")
    equal(Box.build(), nil)
end)
