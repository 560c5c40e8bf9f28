--- The Lua daemon is replaced, and comes back.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local hidden, case, both, Box, SID, like, equal, variable, message, started, assert_ours =
    T.hidden, T.case, T.both, T.Box, T.SID, T.like, T.equal, T.variable, T.message, T.started, T.assert_ours

both("replace the Lua daemon", function()
    local old = Box.lua_daemon()
    Box.upload("real")
    local engine = started { [SID .. "ConfigVersion"] = "20145", [SID .. "Message"] = "Up; healthy" }
    like(message(engine), "^Up; sockproxyd")
    assert_ours()
    assert(not Box.sh("kill -0 %d 2>/dev/null", old), "the Lua daemon runs")
    equal(Box.output("ls %s | grep '^sockproxyd[.]lua'", Box.UPLOADS), "")
    equal(variable(engine, "ConfigVersion"), "0")
    equal(Box.output("ls /etc/rc.d | grep -c sockproxyd"), "2\n")
end)

case("replace a Lua daemon that somebody started by hand", function()
    Box.lua_daemon()
    Box.must("%s disable && rm %s", Box.INIT, Box.INIT)
    Box.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(Box.pid("lua /etc/cmh"), nil)
end)

case("replace a Lua daemon that is deaf", function()
    Box.write("/tmp/lua-daemon.deaf", "")
    Box.lua_daemon()
    Box.must("%s disable && rm %s", Box.INIT, Box.INIT)
    Box.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(Box.pid("lua /etc/cmh"), nil)
end)

both("replace a Lua daemon that hangs", function()
    Box.must("kill -STOP %d", Box.lua_daemon())
    Box.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(Box.pid("lua /etc/cmh"), nil)
end)

local AFTER_REBOOT = "back to the Lua daemon, after the reboot"

both("back to the Lua daemon", function()
    Box.upload("real")
    local engine = started()
    equal(variable(engine, "ConfigVersion"), "0")
    -- What its plugin does, in its order.
    Box.must("cp /test/sockproxyd.lua %s/", Box.UPLOADS)
    os.execute(Box.INIT .. " stop >/dev/null 2>&1")
    os.execute(Box.INIT .. " disable >/dev/null 2>&1")
    Box.must("cp %s %s; rm -f /etc/rc.d/*sockproxyd", Box.lua_init(), Box.INIT)
    Box.must("%s enable", Box.INIT)
    Box.await("ours has ended", function() return not Box.pid(Box.RUNNING) end)
    -- Then it reboots, and needs to: its daemon cannot have the port while connections are in TIME_WAIT.
    Box.must("unshare -n lua5.1 /test/cases.lua '%s'", AFTER_REBOOT)
end)

-- Not a case of its own: the end of the one before, in a network in which nothing has been.
hidden(AFTER_REBOOT, function()
    Box.must("ip link set lo up; for s in /etc/rc.d/S*; do $s boot 2>&1; done >/dev/null")
    Box.await("the Lua daemon answers", function() return Box.build() == 23068 end)
    equal(Box.pid(Box.RUNNING), nil)
end)
