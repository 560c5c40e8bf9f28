--- Failures: the running daemon continues, and the message gives the reason.
-- The names come from tests/luup/cases.lua.

local T = ...
local case, case_both, System, Engine, SID, like, equal, variable, message, wait_for_task, started, assert_ours =
    T.case, T.case_both, T.System, T.Engine, T.SID, T.like, T.equal, T.variable, T.message, T.wait_for_task, T.started, T.assert_ours

-- With any defect of an upload, the Lua daemon continues and none of its files changes.
local function keeps_the_lua_daemon(upload, spoil, words)
    local old = System.lua_daemon()
    System.upload(upload)
    if spoil then spoil() end
    local before = System.snapshot("/etc/init.d", "/etc/rc.d", "/etc/cmh-ludl/sockproxyd.lua")
    local engine = started { [SID .. "ConfigVersion"] = "20145" }
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: " .. words)
    equal(System.snapshot("/etc/init.d", "/etc/rc.d", "/etc/cmh-ludl/sockproxyd.lua"), before)
    assert(System.sh("kill -0 %d", old), "the Lua daemon does not run")
    equal(System.read(System.PROGRAM), nil)
    equal(variable(engine, "ConfigVersion"), "20145")
    equal(System.output("ls /tmp/sockproxyd-run 2>/dev/null"), "")
end

case("wrong CPU", function()
    keeps_the_lua_daemon("elsewhere", nil, "wrong CPU: this device has .*, the upload is for MIPS little%-endian$")
end)

case("an upload without the daemon", function()
    keeps_the_lua_daemon("real", function() os.remove(System.PACKED) end, "sockproxyd%-here.bin is not in /etc/cmh%-ludl$")
end)

case("a damaged upload", function()
    keeps_the_lua_daemon("real", function()
        local text = System.read(System.PACKED)
        local middle = math.floor(#text / 2)
        System.write(System.PACKED, text:sub(1, middle) .. string.char((text:byte(middle + 1) + 1) % 256) .. text:sub(middle + 2))
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("an upload cut short", function()
    keeps_the_lua_daemon("real", function()
        local text = System.read(System.PACKED)
        System.write(System.PACKED, text:sub(1, math.floor(#text / 2)))
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("files of two uploads mixed", function()
    keeps_the_lua_daemon("real", function()
        System.must("pluto-lzo c /test/uploads/good/sockproxyd-here.bin %s", System.PACKED)
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
end)

case("an upload of another program, which is not run", function()
    keeps_the_lua_daemon("real", function()
        System.write("/tmp/other", "#!/bin/sh\ntouch /tmp/other-runs\n")
        System.must("pluto-lzo c /tmp/other %s", System.PACKED)
    end, "damaged or of another version: sockproxyd%-here.bin.lzo")
    equal(System.read("/tmp/other-runs"), nil)
end)

case("an upload that this device cannot expand", function()
    keeps_the_lua_daemon("unexpandable", nil, "sockproxyd%-here.bin does not run on this device: .*no such kernel$")
end)

case("a daemon that does not run on this device", function()
    keeps_the_lua_daemon("broken", nil, "sockproxyd%-here.bin does not run on this device: .*no such kernel$")
end)

case("not enough memory", function()
    keeps_the_lua_daemon("real", function()
        os.execute("dd if=/dev/zero of=/tmp/filler bs=1024 2>/dev/null")
        System.must("dd if=/dev/null of=/tmp/filler bs=1024 seek=24300 2>/dev/null")
    end, "not enough memory in /tmp/sockproxyd%-run: %d+ KiB free, %d+ KiB needed$")
end)

case("memory that other programs take while the daemon is expanded", function()
    keeps_the_lua_daemon("real", function()
        System.must("mv /usr/bin/pluto-lzo /usr/bin/lzo")
        -- The spare memory is for the plugin itself.
        System.write("/usr/bin/pluto-lzo", [[#!/bin/sh
lzo "$@"
case $2 in *.bin.lzo)
    dd if=/dev/zero of=/tmp/spare bs=1024 count=600
    dd if=/dev/zero of=/tmp/filler bs=1024
    rm /tmp/spare
esac]])
        System.must("chmod 755 /usr/bin/pluto-lzo")
    end, "not enough memory in /tmp/sockproxyd%-run: the output cannot be written$")
end)

case("no space in flash", function()
    System.must("mount -t tmpfs -o size=4k tmpfs /usr/sbin")
    System.write("/usr/sbin/filler", ("x"):rep(4096))
    local old = System.lua_daemon()
    System.upload("real")
    local engine = started()
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: .*flash full")
    like(message(engine), "Lua daemon was restored$")
    System.await("a Lua daemon answers", function() return System.build() == 23068 end)
    equal(System.read(System.INIT), System.read(System.lua_init()))
    equal(System.output("ls /usr/sbin"), "filler\n")
    assert(old)
end)

case_both("a daemon that starts and never answers", function()
    System.lua_daemon()
    System.upload("mute")
    local engine = started()
    like(message(engine), "^Up, but it is the Lua daemon; not replaced: the daemon does not start.*was restored$")
    equal(System.build(), 23068)
    equal(System.read(System.INIT), System.read(System.lua_init()))
    equal(System.read(System.PROGRAM), nil)
    like(System.output("ls /etc/rc.d"), "S80sockproxyd")
    equal(System.pid(System.RUNNING), nil)
end)

case("another program has the port", function()
    System.write("/tmp/other.lua", [[
        local s = require("socket").bind("*", 2504)
        while true do local c = s:accept() c:send("220 mail.example.com\n") c:close() end]])
    os.execute("lua /tmp/other.lua &")
    System.await("the program listens", function() return require("socket").connect("127.0.0.1", 2504) ~= nil end)
    System.upload("real")
    local engine = started()
    like(message(engine), "^Down; port 2504 is used by a program that is not sockproxyd")
    equal(variable(engine, "Status"), "0")
    equal(System.read(System.INIT), nil)
    System.must("kill %d", System.pid("lua /tmp/other.lua"))
    equal(engine.action("Install"), 4)
    like(wait_for_task(engine), "^Up; ")
    assert_ours()
end)

case("a pluto-lzo that hangs", function()
    System.lua_daemon()
    System.upload("real")
    local engine = Engine.start()
    System.write("/tmp/pluto-lzo.hangs", "")
    like(wait_for_task(engine), "^Up, but it is the Lua daemon; not replaced: timed out$")
    equal(System.build(), 23068)
end)

case("Luup restarts in the middle of it", function()
    System.upload("real")
    local engine = Engine.start()
    for _ = 1, 4 do
        local steps = 0
        engine.run(function()
            steps = steps + 1
            return steps > 1
        end)
        engine = Engine.start { variables = engine.variables }
    end
    like(wait_for_task(engine), "^Up; ")
    assert_ours()
end)

case("a configuration with errors, then with another port", function()
    System.write("/etc/sockproxyd.cf", "[host]\nport = many\n")
    System.upload("real")
    local engine = started()
    like(message(engine), "^Down; the daemon does not start %(1%): sockproxyd: /etc/sockproxyd.cf:2: ")
    System.write("/etc/sockproxyd.cf", "; mine\n[host]\nport = 2599 \nip = 127.0.0.1\n")
    equal(engine.action("Restart"), 4)
    like(wait_for_task(engine), "^Up; ")
    equal(System.build(), nil)
    local pid = System.pid(System.RUNNING)
    like(message(started(engine.variables)), "^Up; ")
    equal(System.pid(System.RUNNING), pid)
end)

case("a file of the plugin is missing", function()
    System.upload("real")
    os.remove("/etc/cmh-ludl/L_SockProxyTask.lua.lzo")
    local engine = Engine.start()
    equal(engine.started, false)
    like(engine.start_message, "upload all files again")
end)
