--- Runs one case of tests/luup/run in its own sandbox. The cases are in the folder cases.
-- usage: lua5.1 cases.lua NAME | --list

local here = arg[0]:match("^(.*)/[^/]*$") or "."
package.path = here .. "/?.lua;/usr/share/lua/5.1/?.lua"
local System = require "system"
local Engine = require "luup"

local cases, order = {}, {}

-- A case that --list does not show.
local function hidden(name, run)
    cases[name] = run
end

local function case(name, run)
    hidden(name, run)
    order[#order + 1] = name
end

-- A case for case_both kinds of Vera: without procd (Lite, 3), and with it (Edge, Plus, Secure).
local function case_both(name, run)
    case(name, run)
    case(name .. " (procd)", function()
        System.procd()
        run()
    end)
end

local SID = "urn:toggledbits-com:serviceId:SockProxy1/"
local ALTUI = "urn:upnp-org:serviceId:altui1/"

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

-- Seconds. No call of the plugin may block Luup for longer: the engine's other plugins wait meanwhile.
local MAX_BLOCKED = 2

-- Runs the engine until the plugin's task or check is done.
local function wait_for_task(engine)
    local plugin = require "L_SockProxy1"
    assert(engine.run(function() return not plugin.busy() end), "the plugin does not finish: " .. message(engine))
    assert(engine.slowest < MAX_BLOCKED, "Luup was blocked for " .. engine.slowest .. " s")
    return message(engine)
end

local function started(variables)
    local engine = Engine.start { variables = variables }
    equal(engine.started, true)
    wait_for_task(engine)
    return engine
end

-- Checks that the daemon of this upload is installed and runs.
local function assert_ours(upload)
    local files = System.manifest(upload or "real")
    equal(System.read(System.INIT), files.init)
    like(System.read(System.PROGRAM), "# sockproxyd%-launcher:")
    like(System.output("ls /etc/rc.d"), "S%d%dsockproxyd")
    assert(System.build() > 23068, "not our daemon")
    assert(System.pid(System.RUNNING), "not started from " .. System.RUNNING)
end

-- What the files in cases get.
local tools = {
    hidden = hidden, case = case, case_both = case_both, System = System, Engine = Engine, SID = SID,
    ALTUI = ALTUI, MAX_BLOCKED = MAX_BLOCKED,
    like = like, equal = equal, variable = variable, message = message, wait_for_task = wait_for_task, started = started,
    assert_ours = assert_ours,
}
for _, subject in ipairs { "install", "replace", "trouble", "owners", "life", "monitor" } do
    assert(loadfile(here .. "/cases/" .. subject .. ".lua"))(tools)
end

if arg[1] == "--list" then
    print(table.concat(order, "\n"))
    return
end

local run = cases[arg[1]]
if not run then
    io.stderr:write("no case ", tostring(arg[1]), "\n")
    os.exit(2)
end
-- The system log, as on every Vera. It is BusyBox's here; a Vera may have another program.
System.must("busybox syslogd -O /tmp/run/messages")
local ok, why = xpcall(run, debug.traceback)
if not ok then
    print(why)
    print(System.output("ps; netstat -tan; ls -lR /etc/cmh-ludl /etc/init.d /etc/rc.d /usr/sbin /tmp; df -k; cat /tmp/run/messages"))
    os.exit(1)
end
