--- The cases of tests/luup/run, each on a box of its own.
-- usage: lua5.1 cases.lua NAME | --list

local cases, order = {}, {}

local function case(name, run)
    cases[name] = run
    order[#order + 1] = name
end

local Box, Engine

-- A case that counts on both kinds of box: a Lite or 3 without procd, an Edge, Plus or Secure with it.
local function both(name, run)
    case(name, run)
    case(name .. " (procd)", function()
        Box.procd()
        run()
    end)
end
local SID = "urn:toggledbits-com:serviceId:SockProxy1/"

local function variable(engine, name)
    return engine.variables[SID .. name]
end

local function message(engine)
    return variable(engine, "Message") or ""
end

local function like(text, pattern)
    if not tostring(text):match(pattern) then
        error(string.format("expected something like %q, not %q", pattern, tostring(text)), 2)
    end
end

local function equal(is, should)
    if is ~= should then error(string.format("expected %q, not %q", tostring(should), tostring(is)), 2) end
end

-- No call of the plugin may hold up Luup for longer: the engine's other plugins wait meanwhile.
local LONGEST = 2

-- Runs the engine until what the plugin is doing is done.
local function settle(engine)
    local Task = require "L_SockProxyTask"
    assert(engine.run(function() return not Task.busy() end), "the plugin does not finish: " .. message(engine))
    assert(engine.slowest < LONGEST, "Luup was held up for " .. engine.slowest .. " s")
    return message(engine)
end

local function started(variables)
    local engine = Engine.start { variables = variables }
    equal(engine.started, true)
    settle(engine)
    return engine
end

-- The box has the daemon of this upload, and nothing else.
local function assert_ours(upload)
    local files = Box.manifest(upload or "real")
    equal(Box.read(Box.INIT), files.init)
    like(Box.read(Box.PROGRAM), "# sockproxyd%-launcher:")
    like(Box.output("ls /etc/rc.d"), "S%d%dsockproxyd")
    assert(Box.build() > 23068, "not our daemon")
    assert(Box.pid(Box.RUNNING), "not started from " .. Box.RUNNING)
end

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

-- Whatever is wrong with an upload, the Lua daemon runs on and nothing of it is touched.
local function keeps_the_lua_daemon(upload, spoil, words)
    local old = Box.lua_daemon()
    Box.upload(upload)
    if spoil then spoil() end
    local before = Box.snapshot("/etc/init.d", "/etc/rc.d", "/etc/cmh-ludl/sockproxyd.lua")
    local engine = started { [SID .. "ConfigVersion"] = "20145" }
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: " .. words)
    equal(Box.snapshot("/etc/init.d", "/etc/rc.d", "/etc/cmh-ludl/sockproxyd.lua"), before)
    assert(Box.sh("kill -0 %d", old), "the Lua daemon does not run")
    equal(Box.read(Box.PROGRAM), nil)
    equal(variable(engine, "ConfigVersion"), "20145")
    equal(Box.output("ls /tmp/sockproxyd-run 2>/dev/null"), "")
end

local PACKED = "/etc/cmh-ludl/sockproxyd-here.bin.lzo"

case("wrong CPU", function()
    keeps_the_lua_daemon("elsewhere", nil, "wrong CPU: this box has .*, the upload is for MIPS little%-endian$")
end)

case("an upload without the daemon", function()
    keeps_the_lua_daemon("real", function() os.remove(PACKED) end, "sockproxyd%-here.bin is not in /etc/cmh%-ludl$")
end)

case("a damaged upload", function()
    keeps_the_lua_daemon("real", function()
        local text = Box.read(PACKED)
        local middle = math.floor(#text / 2)
        Box.write(PACKED, text:sub(1, middle) .. string.char((text:byte(middle + 1) + 1) % 256) .. text:sub(middle + 2))
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("an upload cut short", function()
    keeps_the_lua_daemon("real", function()
        local text = Box.read(PACKED)
        Box.write(PACKED, text:sub(1, math.floor(#text / 2)))
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("files of two uploads mixed", function()
    keeps_the_lua_daemon("real", function()
        Box.must("pluto-lzo c /test/uploads/good/sockproxyd-here.bin %s", PACKED)
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("a daemon that does not run on this box", function()
    keeps_the_lua_daemon("broken", nil, "sockproxyd%-here.bin does not run on this box: .*no such kernel$")
end)

case("no room in memory", function()
    keeps_the_lua_daemon("real", function()
        os.execute("dd if=/dev/zero of=/tmp/filler bs=1024 2>/dev/null")
        Box.must("dd if=/dev/null of=/tmp/filler bs=1024 seek=24300 2>/dev/null")
    end, "no room in /tmp/sockproxyd%-run: %d+ KiB free, %d+ KiB needed$")
end)

case("no room in flash", function()
    Box.must("mount -t tmpfs -o size=4k tmpfs /usr/sbin")
    Box.write("/usr/sbin/filler", ("x"):rep(4096))
    local old = Box.lua_daemon()
    Box.upload("real")
    local engine = started()
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: .*flash full")
    like(message(engine), "Lua daemon was put back$")
    Box.await("a Lua daemon answers", function() return Box.build() == 23068 end)
    equal(Box.read(Box.INIT), Box.read(Box.lua_init()))
    equal(Box.output("ls /usr/sbin"), "filler\n")
    assert(old)
end)

both("a daemon that starts and never answers", function()
    Box.lua_daemon()
    Box.upload("mute")
    local engine = started()
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: the daemon does not start.*put back$")
    equal(Box.build(), 23068)
    equal(Box.read(Box.INIT), Box.read(Box.lua_init()))
    equal(Box.read(Box.PROGRAM), nil)
    like(Box.output("ls /etc/rc.d"), "S80sockproxyd")
    equal(Box.pid(Box.RUNNING), nil)
end)

case("the port is another program's", function()
    Box.write("/tmp/stranger.lua", [[
        local s = require("socket").bind("*", 2504)
        while true do local c = s:accept() c:send("220 mail.example.com\n") c:close() end]])
    os.execute("lua /tmp/stranger.lua &")
    Box.await("it listens", function() return require("socket").connect("127.0.0.1", 2504) ~= nil end)
    Box.upload("real")
    local engine = started()
    like(message(engine), "^Down; port 2504 is taken by a program that is not sockproxyd")
    equal(variable(engine, "Status"), "0")
    equal(Box.read(Box.INIT), nil)
    Box.must("kill %d", Box.pid("lua /tmp/stranger.lua"))
    equal(engine.action("Install"), 4)
    like(settle(engine), "^Up; ")
    assert_ours()
end)

case("an expander that hangs", function()
    Box.lua_daemon()
    Box.upload("real")
    local engine = Engine.start()
    Box.write("/tmp/pluto-lzo.hangs", "")
    like(settle(engine), "^Up, but it is the Lua daemon; not replaced: timed out$")
    equal(Box.build(), 23068)
end)

case("Luup restarts in the middle of it", function()
    Box.upload("real")
    local engine = Engine.start()
    for _ = 1, 4 do
        local steps = 0
        engine.run(function()
            steps = steps + 1
            return steps > 1
        end)
        engine = Engine.start { variables = engine.variables }
    end
    like(settle(engine), "^Up; ")
    assert_ours()
end)

case("uncompressed upload", function()
    Box.upload("real", "%.bin$")
    like(message(started()), "^Up; ")
    assert_ours()
end)

case("both kinds of upload, the older one of another version", function()
    Box.upload("real", "%.bin$")
    Box.must("pluto-lzo c /test/uploads/good/sockproxyd-here.bin %s && touch -t 200001010000 %s", PACKED, PACKED)
    like(message(started()), "^Up; ")
    assert_ours()
    Box.must("cp /test/uploads/good/sockproxyd-here.bin /etc/cmh-ludl/sockproxyd-here.bin")
    Box.must("touch -t 200001010000 /etc/cmh-ludl/sockproxyd-here.bin; rm /tmp/sockproxyd-run/sockproxyd")
    Box.must("pluto-lzo c /test/uploads/real/sockproxyd-here.bin %s", PACKED)
    Box.must("SOCKPROXYD_LAUNCHER=expand %s", Box.PROGRAM)
end)

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
cases[AFTER_REBOOT] = function()
    Box.must("ip link set lo up; for s in /etc/rc.d/S*; do $s boot 2>&1; done >/dev/null")
    Box.await("the Lua daemon answers", function() return Box.build() == 23068 end)
    equal(Box.pid(Box.RUNNING), nil)
end

case("a configuration with errors, then with another port", function()
    Box.write("/etc/sockproxyd.cf", "[host]\nport = many\n")
    Box.upload("real")
    local engine = started()
    like(message(engine), "^Down; the daemon does not start %(1%): sockproxyd: /etc/sockproxyd.cf:2: ")
    Box.write("/etc/sockproxyd.cf", "; mine\n[host]\nport = 2599 \nip = 127.0.0.1\n")
    equal(engine.action("Restart"), 4)
    like(settle(engine), "^Up; ")
    equal(Box.build(), nil)
    local pid = Box.pid(Box.RUNNING)
    like(message(started(engine.variables)), "^Up; ")
    equal(Box.pid(Box.RUNNING), pid)
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

case("a file of the plugin is missing", function()
    Box.upload("real")
    os.remove("/etc/cmh-ludl/L_SockProxyTask.lua.lzo")
    local engine = Engine.start()
    equal(engine.started, false)
    like(engine.start_message, "upload all files again")
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
cases[MIPSEL] = function()
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
end

if arg[1] == "--list" then
    print(table.concat(order, "\n"))
    return
end

package.path = "/test/?.lua;/usr/share/lua/5.1/?.lua"
Box = require "box"
Engine = require "luup"
local run = cases[arg[1]]
if not run then
    io.stderr:write("no case ", tostring(arg[1]), "\n")
    os.exit(2)
end
-- The system log, as on every Vera; with busybox, though theirs may be another program.
Box.must("busybox syslogd -O /tmp/run/messages")
local sound, why = xpcall(run, debug.traceback)
if not sound then
    print(why)
    print(Box.output("ps; netstat -tan; ls -lR /etc/cmh-ludl /etc/init.d /etc/rc.d /usr/sbin /tmp; df -k; cat /tmp/run/messages"))
    os.exit(1)
end
