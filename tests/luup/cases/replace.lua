--- The Lua daemon is replaced, and comes back.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local hidden, case, both, System, SID, like, equal, variable, message, started, assert_ours =
    T.hidden, T.case, T.both, T.System, T.SID, T.like, T.equal, T.variable, T.message, T.started, T.assert_ours

both("replace the Lua daemon", function()
    local old = System.lua_daemon()
    System.upload("real")
    local engine = started { [SID .. "ConfigVersion"] = "20145", [SID .. "Message"] = "Up; healthy" }
    like(message(engine), "^Up; sockproxyd")
    assert_ours()
    assert(not System.sh("kill -0 %d 2>/dev/null", old), "the Lua daemon runs")
    equal(System.output("ls %s | grep '^sockproxyd[.]lua'", System.UPLOADS), "")
    equal(variable(engine, "ConfigVersion"), "0")
    equal(System.output("ls /etc/rc.d | grep -c sockproxyd"), "2\n")
end)

case("replace a Lua daemon that somebody started by hand", function()
    System.lua_daemon()
    System.must("%s disable && rm %s", System.INIT, System.INIT)
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

case("replace a Lua daemon that is deaf", function()
    System.write("/tmp/lua-daemon.deaf", "")
    System.lua_daemon()
    System.must("%s disable && rm %s", System.INIT, System.INIT)
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

both("replace a Lua daemon that hangs", function()
    System.must("kill -STOP %d", System.lua_daemon())
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

local AFTER_REBOOT = "back to the Lua daemon, after the reboot"

both("back to the Lua daemon", function()
    System.upload("real")
    local engine = started()
    equal(variable(engine, "ConfigVersion"), "0")
    -- What its plugin does, in its order.
    System.must("cp /test/sockproxyd.lua %s/", System.UPLOADS)
    os.execute(System.INIT .. " stop >/dev/null 2>&1")
    os.execute(System.INIT .. " disable >/dev/null 2>&1")
    System.must("cp %s %s; rm -f /etc/rc.d/*sockproxyd", System.lua_init(), System.INIT)
    System.must("%s enable", System.INIT)
    System.await("ours has ended", function() return not System.pid(System.RUNNING) end)
    -- Then it reboots, and needs to: its daemon cannot have the port while connections are in TIME_WAIT.
    System.must("unshare -n lua5.1 /test/cases.lua '%s'", AFTER_REBOOT)
end)

-- Not a case of its own: the end of the one before, in a network in which nothing has been.
hidden(AFTER_REBOOT, function()
    System.must("ip link set lo up; for s in /etc/rc.d/S*; do $s boot 2>&1; done >/dev/null")
    System.await("the Lua daemon answers", function() return System.build() == 23068 end)
    equal(System.pid(System.RUNNING), nil)
end)
