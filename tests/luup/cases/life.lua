--- What an installed plugin does: actions, checks, and platforms where it only monitors.
-- The names come from tests/luup/cases.lua.

local T = ...
local hidden, case, case_both, System, Engine, MAX_BLOCKED, like, equal, variable, message, wait_for_task, started,
    assert_ours =
    T.hidden, T.case, T.case_both, T.System, T.Engine, T.MAX_BLOCKED, T.like, T.equal, T.variable, T.message,
    T.wait_for_task, T.started, T.assert_ours

case_both("uninstall, and install again", function()
    System.upload("real")
    local engine = started()
    equal(engine.action("Uninstall"), 4)
    like(wait_for_task(engine), "^Uninstalled")
    equal(System.build(), nil)
    equal(System.pid(System.RUNNING), nil)
    equal(System.output("ls /etc/init.d /etc/rc.d /usr/sbin | grep sockproxyd; ls -d /tmp/sockproxyd-run 2>/dev/null"), "")
    equal(System.output("ls %s | grep bin", System.UPLOADS), "")
    -- Neither the next check nor the next Luup start installs it again.
    for _ = 1, 3 do engine.fire() end
    wait_for_task(engine)
    engine = started(engine.variables)
    like(message(engine), "^Down; sockproxyd%-here.bin is not in")
    equal(System.build(), nil)
    System.upload("real")
    like(message(started(engine.variables)), "^Up; ")
    assert_ours()
end)

case_both("restart", function()
    System.upload("real")
    local engine = started()
    local pid = System.pid(System.RUNNING)
    equal(engine.action("Restart"), 4)
    equal(engine.action("Restart"), 2) -- one task at a time
    like(wait_for_task(engine), "^Up; ")
    assert(System.pid(System.RUNNING) ~= pid, "not restarted")
    assert_ours()
end)

case("procd forgets the first start", function()
    System.procd()
    System.upload("real")
    System.write("/tmp/procd.forgets", "")
    like(message(started()), "^Up; ")
    assert_ours()
end)

case("procd forgets the start at boot, and Luup's start is the second", function()
    System.procd()
    System.upload("real")
    local engine = started()
    System.must("%s stop", System.INIT)
    System.await("the daemon has ended", function() return not System.build() end)
    -- A boot: memory is empty, and procd loses the service, however often the init script tries.
    System.must("rm -rf /tmp/sockproxyd-run && touch /tmp/procd.forgets")
    System.sh("%s boot >/dev/null 2>&1; %s stop >/dev/null 2>&1", System.INIT, System.INIT)
    equal(System.build(), nil)
    like(message(started(engine.variables)), "^Up; ")
    assert_ours()
end)

case("a daemon that was stopped is started again at the second check", function()
    System.upload("real")
    local engine = started()
    System.must("%s stop >/dev/null", System.INIT)
    System.await("the daemon has ended", function() return not System.build() end)
    equal(engine.fire(), 1)
    like(wait_for_task(engine), "^Down; no answer on port 2504")
    equal(variable(engine, "Status"), "0")
    equal(engine.fire(), 1)
    like(wait_for_task(engine), "^Up; ")
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
    for _, name in ipairs { "_LuWS", "VeraWebSockets", "Turbo" } do assert(type(require("L_SockProxy" .. name).with) == "function") end
    -- The proxy itself is the remote.
    local heard
    local conn = assert(require("L_SockProxyClient").open("127.0.0.1:2504", { on_message = function(_, text) heard = text end }))
    conn:binary("BILD\nQUIT\n")
    System.await("the answers", function()
        conn:poll()
        return heard
    end)
    like(heard, "^OK TOGGLEDBITS%-SOCKPROXY 1 ")
end)

case("openLuup: monitors only", function()
    System.upload("real")
    local before = System.snapshot("/etc", "/usr/sbin")
    local engine = Engine.start { open = true }
    equal(engine.started, true)
    assert(engine.run(function() return message(engine) ~= "" end))
    like(message(engine), "^Down; no answer on port 2504: install the sockproxyd service on this machine")
    equal(engine.action("Install"), 2)
    equal(engine.action("Uninstall"), 2)
    System.must("cp /test/daemon /tmp/daemon && chmod 755 /tmp/daemon")
    os.execute("/tmp/daemon >/dev/null 2>&1 &")
    System.await("the daemon answers", function() return (System.build() or 0) > 23068 end)
    equal(engine.fire(), 1)
    like(wait_for_task(engine), "^Up; sockproxyd %(build %d+%)$")
    equal(variable(engine, "Status"), "1")
    equal(System.snapshot("/etc", "/usr/sbin"), before)
    assert(engine.slowest < MAX_BLOCKED)
end)

-- Runs only where the daemon for Veras and binfmt_misc are available: see tests/luup/run.
local MIPSEL = "the daemon for Veras, on an emulated MIPS"
hidden(MIPSEL, function()
    System.must("/test/register-mipsel")
    System.upload("mipsel")
    local engine = Engine.start {
        before = function() require("L_SockProxySystem").paths.engine = "/test/mipsel" end,
    }
    like(wait_for_task(engine), "^Up; sockproxyd %S+ %(build %d+%)$")
    equal(System.read(System.RUNNING), System.read("/test/mipsel"))
    equal(System.read(System.RUNNING):sub(1, 6), "\127ELF\1\1")
    equal(engine.action("Restart"), 4)
    like(wait_for_task(engine), "^Up; ")
    equal(engine.action("Uninstall"), 4)
    like(wait_for_task(engine), "^Uninstalled")
    equal(System.build(), nil)
end)
