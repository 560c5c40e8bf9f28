--- What an installed plugin does: actions, looks, and the platforms where it is a guest.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local hidden, case, both, System, Engine, LONGEST, like, equal, variable, message, settle, started, assert_ours =
    T.hidden, T.case, T.both, T.System, T.Engine, T.LONGEST, T.like, T.equal, T.variable, T.message, T.settle, T.started, T.assert_ours

both("uninstall, and install again", function()
    System.upload("real")
    local engine = started()
    equal(engine.action("Uninstall"), 4)
    like(settle(engine), "^Uninstalled")
    equal(System.build(), nil)
    equal(System.pid(System.RUNNING), nil)
    equal(System.output("ls /etc/init.d /etc/rc.d /usr/sbin | grep sockproxyd; ls -d /tmp/sockproxyd-run 2>/dev/null"), "")
    equal(System.output("ls %s | grep bin", System.UPLOADS), "")
    -- It is not put back at the next look, nor at the next Luup start.
    for _ = 1, 3 do engine.fire() end
    settle(engine)
    engine = started(engine.variables)
    like(message(engine), "^Down; sockproxyd%-here.bin is not in")
    equal(System.build(), nil)
    System.upload("real")
    like(message(started(engine.variables)), "^Up; ")
    assert_ours()
end)

both("restart", function()
    System.upload("real")
    local engine = started()
    local pid = System.pid(System.RUNNING)
    equal(engine.action("Restart"), 4)
    equal(engine.action("Restart"), 2) -- one thing at a time
    like(settle(engine), "^Up; ")
    assert(System.pid(System.RUNNING) ~= pid, "not restarted")
    assert_ours()
end)

case("a daemon that has vanished is started again, not at once", function()
    System.upload("real")
    local engine = started()
    System.must("%s stop >/dev/null", System.INIT)
    System.await("it has ended", function() return not System.build() end)
    equal(engine.fire(), 1)
    like(settle(engine), "^Down; nobody answers")
    equal(variable(engine, "Status"), "0")
    equal(engine.fire(), 1)
    like(settle(engine), "^Up; ")
    assert_ours()
end)

case("notifications of the default action are answered", function()
    System.upload("real")
    local engine = started()
    equal(engine.action("HandleReceive", { Pid = "1" }), 4)
    equal(engine.action("HandleReceiveData", { Pid = "1" }), 4)
    equal(engine.action("Check"), 4)
end)

case("other plugins find the client libraries where Luup keeps its files", function()
    System.upload("real")
    started()
    for _, name in ipairs { "LuWS", "VeraWebSockets", "Turbo" } do assert(type(require("L_SockProxy" .. name).with) == "function") end
    -- The proxy itself is somebody to talk to.
    local heard
    local conn = assert(require("L_SockProxyClient").open("127.0.0.1:2504", { on_message = function(_, text) heard = text end }))
    conn:binary("BILD\nQUIT\n")
    System.await("the answers", function()
        conn:poll()
        return heard
    end)
    like(heard, "^OK TOGGLEDBITS%-SOCKPROXY 1 ")
end)

case("openLuup: only looks", function()
    System.upload("real")
    local before = System.snapshot("/etc", "/usr/sbin")
    local engine = Engine.start { open = true }
    equal(engine.started, true)
    assert(engine.run(function() return message(engine) ~= "" end))
    like(message(engine), "^Down; nobody answers on port 2504: install the sockproxyd service on this machine")
    equal(engine.action("Install"), 2)
    equal(engine.action("Uninstall"), 2)
    System.must("cp /test/uploads/real/sockproxyd-here.bin /tmp/daemon && chmod 755 /tmp/daemon")
    os.execute("/tmp/daemon >/dev/null 2>&1 &")
    System.await("it answers", function() return (System.build() or 0) > 23068 end)
    equal(engine.fire(), 1)
    like(message(engine), "^Up; sockproxyd %(build %d+%)$")
    equal(variable(engine, "Status"), "1")
    equal(System.snapshot("/etc", "/usr/sbin"), before)
    assert(engine.slowest < LONGEST)
end)

-- Only where there is one: see tests/luup/run.
local MIPSEL = "the daemon for Veras, on an emulated MIPS"
hidden(MIPSEL, function()
    local name = "sockproxyd-mipsel.bin"
    System.must("/test/register-mipsel")
    System.upload("mipsel")
    local engine = Engine.start {
        before = function() require("L_SockProxySystem").paths.self = "/test/uploads/mipsel/" .. name end,
    }
    like(settle(engine), "^Up; sockproxyd %S+ %(build %d+%)$")
    equal(System.read(System.RUNNING), System.read("/test/uploads/mipsel/" .. name))
    equal(System.read(System.RUNNING):sub(1, 6), "\127ELF\1\1")
    equal(engine.action("Restart"), 4)
    like(settle(engine), "^Up; ")
    equal(engine.action("Uninstall"), 4)
    like(settle(engine), "^Uninstalled")
    equal(System.build(), nil)
end)
