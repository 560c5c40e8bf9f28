--- The plugin replaces the Lua daemon, and the Lua daemon's plugin replaces ours.
-- The names come from tests/luup/cases.lua.

local T = ...
local hidden, case, case_both, System, SID, like, equal, variable, message, started, assert_ours =
    T.hidden, T.case, T.case_both, T.System, T.SID, T.like, T.equal, T.variable, T.message, T.started, T.assert_ours

case_both("replace the Lua daemon", function()
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

case("replace a Lua daemon that was started by hand", function()
    System.lua_daemon()
    System.must("%s disable && rm %s", System.INIT, System.INIT)
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

case("replace a Lua daemon that ignores STOP", function()
    System.write("/tmp/lua-daemon.ignores-stop", "")
    System.lua_daemon()
    System.must("%s disable && rm %s", System.INIT, System.INIT)
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

case_both("replace a Lua daemon that hangs", function()
    System.must("kill -STOP %d", System.lua_daemon())
    System.upload("real")
    like(message(started()), "^Up; sockproxyd")
    assert_ours()
    equal(System.pid("lua /etc/cmh"), nil)
end)

local AFTER_REBOOT = "return to the Lua daemon, after the reboot"

case_both("return to the Lua daemon", function()
    System.upload("real")
    local engine = started()
    equal(variable(engine, "ConfigVersion"), "0")
    -- The steps of the Lua daemon's plugin, in its order.
    System.must("cp /test/sockproxyd.lua %s/", System.UPLOADS)
    os.execute(System.INIT .. " stop >/dev/null 2>&1")
    os.execute(System.INIT .. " disable >/dev/null 2>&1")
    System.must("cp %s %s; rm -f /etc/rc.d/*sockproxyd", System.lua_init(), System.INIT)
    System.must("%s enable", System.INIT)
    System.await("our daemon has ended", function() return not System.pid(System.RUNNING) end)
    -- Then the user reboots, which is necessary: the Lua daemon cannot bind the port while connections are in
    -- TIME_WAIT.
    System.must("unshare -n lua5.1 /test/cases.lua '%s'", AFTER_REBOOT)
end)

-- The end of the previous case, in a network namespace that has had no connections. Not a case of its own.
hidden(AFTER_REBOOT, function()
    System.must("ip link set lo up; for s in /etc/rc.d/S*; do $s boot 2>&1; done >/dev/null")
    System.await("the Lua daemon answers", function() return System.build() == 23068 end)
    equal(System.pid(System.RUNNING), nil)
end)
