--- Files that are somebody else's: the opkg package's, a person's.
-- See tests/luup/cases.lua, which gives what is used here.

local T = ...
local case, both, Box, like, equal, message, settle, started, assert_ours =
    T.case, T.both, T.Box, T.like, T.equal, T.message, T.settle, T.started, T.assert_ours

-- What the opkg package leaves on a box.
local function opkg_package(running)
    Box.write("/usr/lib/opkg/info/sockproxyd.list", "/usr/sbin/sockproxyd\n/etc/init.d/sockproxyd\n")
    Box.must("cp /test/uploads/real/sockproxyd-here.bin %s && chmod 755 %s", Box.PROGRAM, Box.PROGRAM)
    Box.write(Box.INIT, Box.manifest("real").init .. "\n# a later release of the package\n")
    Box.must("chmod 755 %s", Box.INIT)
    Box.must("%s enable", Box.INIT)
    if running then
        Box.must("%s restart >/dev/null 2>&1", Box.INIT)
        Box.await("it answers", function() return (Box.build() or 0) > 23068 end)
    end
end

case("the opkg package is there first", function()
    opkg_package(true)
    local before, pid = Box.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), Box.pid(Box.PROGRAM)
    Box.upload("good")
    local engine = started()
    like(message(engine), "^Up; sockproxyd .*, opkg package %(build %d+%)$")
    equal(Box.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
    equal(Box.pid(Box.PROGRAM), pid)
    equal(engine.action("Uninstall"), 4)
    like(settle(engine), "^Not uninstalled: .*opkg remove sockproxyd")
    equal(Box.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
end)

both("the opkg package beside the Lua daemon", function()
    Box.lua_daemon()
    opkg_package(false)
    Box.upload("real")
    like(message(started()), "^Up; sockproxyd .*, opkg package")
    assert(Box.pid(Box.PROGRAM), "the package's daemon does not run")
    equal(Box.pid("lua /etc/cmh"), nil)
    equal(Box.output("ls %s | grep '^sockproxyd[.]lua'", Box.UPLOADS), "")
end)

both("the opkg package comes later, and goes", function()
    Box.upload("real")
    local engine = started()
    assert_ours()
    opkg_package(true)
    engine = started(engine.variables)
    like(message(engine), "^Up; sockproxyd .*, opkg package")
    assert(Box.pid(Box.PROGRAM), "the package's daemon does not run")
    equal(Box.pid(Box.RUNNING), nil)
    -- As opkg remove does.
    Box.must("%s stop >/dev/null; %s disable; rm -f %s %s /usr/lib/opkg/info/sockproxyd.list", Box.INIT, Box.INIT, Box.INIT,
        Box.PROGRAM)
    Box.await("it has ended", function() return not Box.pid(Box.PROGRAM) end)
    equal(engine.fire(), 1)
    equal(engine.fire(), 1)
    like(settle(engine), "^Up; ")
    assert_ours()
end)

case("an opkg package that is switched off", function()
    opkg_package(false)
    Box.must("%s disable", Box.INIT)
    Box.upload("real")
    like(message(started()), "^Down; opkg package: switched off")
    equal(Box.build(), nil)
    equal(Box.output("ls /etc/rc.d"), "")
end)

case("a daemon that was installed by hand", function()
    opkg_package(true)
    os.remove("/usr/lib/opkg/info/sockproxyd.list")
    local before = Box.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin")
    Box.upload("good")
    local engine = started()
    like(message(engine), "^Up; sockproxyd .*, installed by hand")
    engine.action("Uninstall")
    like(settle(engine), "^Not uninstalled: ")
    equal(Box.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
end)

case("somebody else's init script", function()
    Box.write(Box.INIT, "#!/bin/sh\n# my own\n")
    Box.upload("real")
    like(message(started()), "^Down; /etc/init.d/sockproxyd is not known to this plugin")
    equal(Box.read(Box.INIT), "#!/bin/sh\n# my own\n")
    equal(Box.read(Box.PROGRAM), nil)
end)
