--- Installing, updating and booting on a box where all is well.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local case, both, Box, Engine, like, equal, variable, message, settle, started, assert_ours =
    T.case, T.both, T.Box, T.Engine, T.like, T.equal, T.variable, T.message, T.settle, T.started, T.assert_ours

both("install on a fresh box", function()
    Box.upload("real")
    local engine = Engine.start()
    equal(engine.started, true)
    like(message(engine), "^Checking")
    like(settle(engine), "^Up; sockproxyd " .. Box.manifest("real").version:gsub("%p", "%%%0") .. " %(build %d+%)$")
    equal(variable(engine, "Status"), "1")
    equal(variable(engine, "Version"), "1")
    equal(variable(engine, "ConfigVersion"), "0")
    assert_ours()
    equal(Box.output("ls /tmp/sockproxyd-run"), "sockproxyd\n")
    equal(Box.output("ls /www/cmh/skins/default/icons"), "SockProxy1.png\n")
    assert(engine.failed == 0 or engine.failed == false)
end)

case("nothing to do at the next Luup start", function()
    Box.upload("real")
    local engine = started()
    local before, pid = Box.snapshot("/etc", "/usr/sbin", "/tmp/sockproxyd-run"), Box.pid(Box.RUNNING)
    engine = started(engine.variables)
    like(message(engine), "^Up; ")
    equal(Box.snapshot("/etc", "/usr/sbin", "/tmp/sockproxyd-run"), before)
    equal(Box.pid(Box.RUNNING), pid)
end)

both("Luup's sockets are not inherited", function()
    Box.upload("real")
    local socket = require "socket"
    -- Twenty of them, so that there are numbers of two digits; and a child that does inherit, to see that they are inheritable.
    local held = {}
    for index = 1, 20 do
        held[index] = assert(socket.bind("127.0.0.1", 3480 + index))
    end
    os.execute("sleep 1000 &")
    local function sockets_of(pid)
        return select(2, Box.output("ls -l /proc/%d/fd", pid):gsub("socket:", ""))
    end
    local engine = started()
    like(message(engine), "^Up; ")
    assert(sockets_of(Box.pid("sleep 1000")) >= 20, "the test's sockets are not inheritable: it shows nothing")
    for index = 1, 20 do held[index]:close() end
    Box.must("kill %d", Box.pid("sleep 1000"))
    Box.await("the sleeper has gone", function() return not Box.pid("sleep 1000") end)
    for index = 1, 20 do
        -- Whoever still held it would answer.
        local sock = socket.tcp()
        equal(sock:connect("127.0.0.1", 3480 + index), nil)
        sock:close()
    end
end)

both("boot: memory is empty, the daemon is there before Luup", function()
    Box.upload("real")
    started()
    Box.must("%s stop >/dev/null", Box.INIT)
    Box.await("it has ended", function() return not Box.pid(Box.RUNNING) end)
    Box.must("rm -rf /tmp/*; mkdir /tmp/run")
    -- As rcS of old does: one after the other, through a pipe that must come to its end.
    Box.must("for s in /etc/rc.d/S*; do $s boot 2>&1; done | cat >/dev/null")
    Box.await("it answers", function() return (Box.build() or 0) > 23068 end)
    assert_ours()
end)

both("update to another version", function()
    Box.upload("good")
    local engine = started()
    equal(variable(engine, "Build"), "99999")
    local pid = Box.pid(Box.RUNNING)
    Box.upload("real")
    engine = started(engine.variables)
    like(message(engine), "^Up; ")
    assert_ours()
    assert(Box.build() ~= 99999, "the old one still answers")
    equal(variable(engine, "Build"), tostring(Box.build()))
    assert(Box.pid(Box.RUNNING) ~= pid, "not restarted")
end)

case("uncompressed upload", function()
    Box.upload("real", "%.bin$")
    like(message(started()), "^Up; ")
    assert_ours()
end)

case("both kinds of upload, the older one of another version", function()
    Box.upload("real", "%.bin$")
    Box.must("pluto-lzo c /test/uploads/good/sockproxyd-here.bin %s && touch -t 200001010000 %s", Box.PACKED, Box.PACKED)
    like(message(started()), "^Up; ")
    assert_ours()
    Box.must("cp /test/uploads/good/sockproxyd-here.bin /etc/cmh-ludl/sockproxyd-here.bin")
    Box.must("touch -t 200001010000 /etc/cmh-ludl/sockproxyd-here.bin; rm /tmp/sockproxyd-run/sockproxyd")
    Box.must("pluto-lzo c /test/uploads/real/sockproxyd-here.bin %s", Box.PACKED)
    Box.must("SOCKPROXYD_LAUNCHER=expand %s", Box.PROGRAM)
end)
