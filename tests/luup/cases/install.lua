--- Installing, updating and booting on a healthy system.
-- The names come from tests/luup/cases.lua.

local T = ...
local case, case_both, System, Engine, like, equal, variable, message, wait_for_task, started, assert_ours =
    T.case, T.case_both, T.System, T.Engine, T.like, T.equal, T.variable, T.message, T.wait_for_task, T.started, T.assert_ours

case_both("install on a fresh system", function()
    System.upload("real")
    local engine = Engine.start()
    equal(engine.started, true)
    like(message(engine), "^Checking")
    like(wait_for_task(engine), "^Up; sockproxyd " .. System.manifest("real").version:gsub("%p", "%%%0") .. " %(build %d+%)$")
    equal(variable(engine, "Status"), "1")
    equal(variable(engine, "Version"), "1")
    equal(variable(engine, "ConfigVersion"), "0")
    assert_ours()
    equal(System.output("ls /tmp/sockproxyd-run"), "sockproxyd\n")
    equal(System.output("ls /www/cmh/skins/default/icons"), "SockProxy1.png\n")
    assert(engine.failed == 0 or engine.failed == false)
end)

case("nothing to do at the next Luup start", function()
    System.upload("real")
    local engine = started()
    local before, pid = System.snapshot("/etc", "/usr/sbin", "/tmp/sockproxyd-run"), System.pid(System.RUNNING)
    engine = started(engine.variables)
    like(message(engine), "^Up; ")
    equal(System.snapshot("/etc", "/usr/sbin", "/tmp/sockproxyd-run"), before)
    equal(System.pid(System.RUNNING), pid)
end)

case_both("Luup's sockets are not inherited", function()
    System.upload("real")
    local socket = require "socket"
    -- Twenty sockets, so that some descriptors have two digits. A child that inherits them shows that they are
    -- inheritable.
    local held = {}
    for index = 1, 20 do
        held[index] = assert(socket.bind("127.0.0.1", 3480 + index))
    end
    os.execute("sleep 1000 &")
    local function sockets_of(pid)
        return select(2, System.output("ls -l /proc/%d/fd", pid):gsub("socket:", ""))
    end
    local engine = started()
    like(message(engine), "^Up; ")
    assert(sockets_of(System.pid("sleep 1000")) >= 20, "the test's sockets are not inheritable, so the test proves nothing")
    for index = 1, 20 do held[index]:close() end
    System.must("kill %d", System.pid("sleep 1000"))
    System.await("the child has ended", function() return not System.pid("sleep 1000") end)
    for index = 1, 20 do
        -- A connection would succeed if another process still held the socket.
        local sock = socket.tcp()
        equal(sock:connect("127.0.0.1", 3480 + index), nil)
        sock:close()
    end
end)

case_both("boot: memory is empty, the daemon runs before Luup starts", function()
    System.upload("real")
    started()
    System.must("%s stop >/dev/null", System.INIT)
    System.await("the daemon has ended", function() return not System.pid(System.RUNNING) end)
    System.must("rm -rf /tmp/*; mkdir /tmp/run")
    -- As an old rcS does: one script after the other, through a pipe that must reach its end.
    System.must("for s in /etc/rc.d/S*; do $s boot 2>&1; done | cat >/dev/null")
    System.await("the daemon answers", function() return (System.build() or 0) > 23068 end)
    assert_ours()
end)

case_both("update to another version", function()
    System.upload("good")
    local engine = started()
    equal(variable(engine, "Build"), "99999")
    local pid = System.pid(System.RUNNING)
    System.upload("real")
    engine = started(engine.variables)
    like(message(engine), "^Up; ")
    assert_ours()
    assert(System.build() ~= 99999, "the old daemon still answers")
    equal(variable(engine, "Build"), tostring(System.build()))
    assert(System.pid(System.RUNNING) ~= pid, "not restarted")
end)

case("uncompressed upload", function()
    System.upload("real", "%.bin$")
    like(message(started()), "^Up; ")
    assert_ours()
end)

case("case_both kinds of upload, the older one of another version", function()
    System.upload("real", "%.bin$")
    System.must("pluto-lzo c /test/uploads/good/sockproxyd-here.bin %s && touch -t 200001010000 %s", System.PACKED, System.PACKED)
    like(message(started()), "^Up; ")
    assert_ours()
    System.must("cp /test/uploads/good/sockproxyd-here.bin /etc/cmh-ludl/sockproxyd-here.bin")
    System.must("touch -t 200001010000 /etc/cmh-ludl/sockproxyd-here.bin; rm /tmp/sockproxyd-run/sockproxyd")
    System.must("pluto-lzo c /test/uploads/real/sockproxyd-here.bin %s", System.PACKED)
    System.must("SOCKPROXYD_LAUNCHER=expand %s", System.PROGRAM)
end)
