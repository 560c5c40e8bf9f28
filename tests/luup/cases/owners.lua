--- Files of another owner: the opkg package's, or a person's.
-- The names come from tests/luup/cases.lua.

local T = ...
local case, case_both, System, like, equal, message, wait_for_task, started, assert_ours =
    T.case, T.case_both, T.System, T.like, T.equal, T.message, T.wait_for_task, T.started, T.assert_ours

-- What the opkg package installs.
local function opkg_package(running)
    System.write("/usr/lib/opkg/info/sockproxyd.list", "/usr/sbin/sockproxyd\n/etc/init.d/sockproxyd\n")
    System.must("cp /test/daemon %s && chmod 755 %s", System.PROGRAM, System.PROGRAM)
    System.write(System.INIT, System.manifest("real").init .. "\n# a later release of the package\n")
    System.must("chmod 755 %s", System.INIT)
    System.must("%s enable", System.INIT)
    if running then
        System.must("%s restart >/dev/null 2>&1", System.INIT)
        System.await("the daemon answers", function() return (System.build() or 0) > 23068 end)
    end
end

case("the opkg package is installed first", function()
    opkg_package(true)
    local before, pid = System.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), System.pid(System.PROGRAM)
    System.upload("good")
    local engine = started()
    like(message(engine), "^Up; sockproxyd .*, opkg package %(build %d+%)$")
    equal(System.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
    equal(System.pid(System.PROGRAM), pid)
    equal(engine.action("Uninstall"), 4)
    like(wait_for_task(engine), "^Not uninstalled: .*opkg remove sockproxyd")
    equal(System.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
end)

case_both("the opkg package beside the Lua daemon", function()
    System.lua_daemon()
    opkg_package(false)
    System.upload("real")
    like(message(started()), "^Up; sockproxyd .*, opkg package")
    assert(System.pid(System.PROGRAM), "the package's daemon does not run")
    equal(System.pid("lua /etc/cmh"), nil)
    equal(System.output("ls %s | grep '^sockproxyd[.]lua'", System.UPLOADS), "")
end)

case_both("the opkg package is installed later, and removed", function()
    System.upload("real")
    local engine = started()
    assert_ours()
    opkg_package(true)
    engine = started(engine.variables)
    like(message(engine), "^Up; sockproxyd .*, opkg package")
    assert(System.pid(System.PROGRAM), "the package's daemon does not run")
    equal(System.pid(System.RUNNING), nil)
    -- As opkg remove does.
    System.must("%s stop >/dev/null; %s disable; rm -f %s %s /usr/lib/opkg/info/sockproxyd.list", System.INIT, System.INIT, System.INIT,
        System.PROGRAM)
    System.await("the daemon has ended", function() return not System.pid(System.PROGRAM) end)
    equal(engine.fire(), 1)
    equal(engine.fire(), 1)
    like(wait_for_task(engine), "^Up; ")
    assert_ours()
end)

case("an opkg package that is switched off", function()
    opkg_package(false)
    System.must("%s disable", System.INIT)
    System.upload("real")
    like(message(started()), "^Down; opkg package: switched off")
    equal(System.build(), nil)
    equal(System.output("ls /etc/rc.d"), "")
end)

case("a daemon that was installed by hand", function()
    opkg_package(true)
    os.remove("/usr/lib/opkg/info/sockproxyd.list")
    local before = System.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin")
    System.upload("good")
    local engine = started()
    like(message(engine), "^Up; sockproxyd .*, installed by hand")
    engine.action("Uninstall")
    like(wait_for_task(engine), "^Not uninstalled: ")
    equal(System.snapshot("/etc/init.d", "/etc/rc.d", "/usr/sbin"), before)
end)

case("a foreign init script", function()
    System.write(System.INIT, "#!/bin/sh\n# my own\n")
    System.upload("real")
    like(message(started()), "^Down; /etc/init.d/sockproxyd is not known to this plugin")
    equal(System.read(System.INIT), "#!/bin/sh\n# my own\n")
    equal(System.read(System.PROGRAM), nil)
end)
