--- Installs, repairs and removes the daemon on a Vera. Every function here runs in a task.
-- Owns: the order of the steps, and the decision who looks after which file. The rules:
-- * There is one init script and one program, whoever put them there. The opkg package's are never
--   touched, nor is a program or an init script that a person put there.
-- * What runs goes on running until what is to replace it has been expanded, checked and tried.
-- * The flash keeps one compressed copy, as uploaded: a restored backup or new firmware brings the
--   plugin and its files back, and with them the daemon. It is expanded into memory at each boot,
--   by the launcher: nearly full flash is what these boxes suffer from, and a MiB or two of memory they have.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"
local Task = require "L_SockProxyTask"
local Files = require "L_SockProxyFiles"

local Installer = {}

local paths = System.paths
local quoted = System.quoted

-- Seconds. A Vera that is starting is slow: these are bounds, not what it takes.
local LIMIT = { expand = 120, init = 60, up = 30, down = 10, version = 10 }
-- How long a look at the port may hold up Luup: this long, twice. Only a stranger there makes it wait.
local GLANCE = 0.3

local function init(verb)
    return Task.command(quoted(paths.init) .. " " .. verb, LIMIT.init)
end

local function port_taken()
    local _, port = System.whereabouts()
    return string.format("port %d is taken by another program", port)
end

local function found()
    return System.ask(GLANCE).kind
end

-- Waits until what answers on the port is of that kind.
local function wait_for(kind, ticks)
    return Task.wait(function() return found() == kind end, ticks)
end

local function unlink_boot()
    for _, name in ipairs(System.matching(paths.rcd, "^[SK]%d+sockproxyd$")) do
        os.remove(paths.rcd .. "/" .. name)
    end
end

-- The binary of the upload that this box can run.
local function choose()
    local cpu = System.cpu(paths.self) or System.cpu("/bin/busybox") or System.cpu("/bin/sh")
    local known = {}
    for _, binary in ipairs(Files.binaries) do
        if binary.cpu == cpu then return binary end
        known[#known + 1] = System.cpu_name(binary.cpu)
    end
    return nil, string.format("wrong CPU: this box has %s, the upload is for %s",
        System.cpu_name(cpu), table.concat(known, ", "))
end

local function launcher_for(binary)
    local values = {
        NAME = binary.name, SIZE = binary.size, MD5 = binary.md5, VERSION = Files.version,
        UPLOADS = paths.uploads, ROOM = paths.room,
    }
    return (Files.launcher:gsub("@(%u[%u%d]*)@", values))
end

-- Ends every Lua daemon by signal, the ones that hang too.
local function kill_lua_daemons(signal)
    -- This command's own line must not look like what it searches for: hence the brackets.
    Task.command("sh -c " .. quoted([[for p in /proc/[0-9]*; do
        case "$(tr "\000" " " <$p/cmdline 2>/dev/null)" in
            lua*[s]ockproxyd.lua*|*/lua*[s]ockproxyd.lua*) kill -]] .. signal .. [[ ${p#/proc/} ;;
        esac
    done]]), LIMIT.down)
end

-- Ends the daemon that runs, ours or the Lua one, however it was started: by the init script at
-- hand, by its own STOP (procd may have lost it, or a person started it), by signal.
-- Returns true when the port is free, else false and why.
local function clear_port(kind)
    if kind == "ours" or kind == "lua" then init("stop") end
    if wait_for("none", LIMIT.down) then return true end
    System.send_stop(GLANCE)
    if wait_for("none", 3) then return true end
    for _, signal in ipairs { "TERM", "KILL" } do
        kill_lua_daemons(signal)
        if wait_for("none", 3) then return true end
    end
    return false, port_taken()
end

-- What the Lua daemon's plugin left: its script, twice, would take flash for nothing.
local function remove_lua_files()
    for _, name in ipairs { "sockproxyd.lua", "sockproxyd.lua.lzo" } do
        os.remove(paths.uploads .. "/" .. name)
    end
end

-- Starts what is installed, and waits until it answers.
local function start()
    local status, words
    if not System.enabled() then init("enable") end
    -- More than once: connections of the daemon before may keep the port from it for a minute.
    for _ = 1, 3 do
        status, words = init("start")
        if wait_for("ours", LIMIT.up) then return true end
        if found() ~= "none" then return false, port_taken() end
        if not (words or ""):match("no greeting") then break end
    end
    if not words or words == "" then words = "see the system log" end
    return false, string.format("the daemon does not start (%s): %s", status or "no end", words)
end

-- For files that are not ours to change: the opkg package's, or a person's own.
local function look_after(kind, whose)
    local _, version = Task.command(quoted(paths.program) .. " --version", LIMIT.version)
    if found() ~= "ours" then
        if not System.enabled() then return false, whose .. ": switched off, see " .. paths.rcd end
        local clear, why = clear_port(kind)
        if clear then clear, why = start() end
        if not clear then return false, whose .. ": " .. why end
    end
    remove_lua_files()
    return true, string.format("%s, %s", version, whose)
end

-- Takes away the copy in memory and the launcher, where a package has come in between.
local function drop_own_copy()
    os.execute("rm -rf " .. quoted(paths.room))
    if System.program_kind() == "launcher" then os.remove(paths.program) end
end

-- Puts back the Lua daemon's init script, after ours has failed.
local function back_to(old_init, why)
    if not old_init then return false, why end
    init("stop")
    local written, trouble = System.write(paths.init, old_init, "755")
    if not written then return false, why .. "; nor can the Lua daemon be put back: " .. trouble end
    if System.program_kind() == "launcher" then os.remove(paths.program) end
    unlink_boot()
    init("enable")
    -- It does not start while the port is in TIME_WAIT, a minute after its last connection.
    for _ = 1, 3 do
        init("start")
        if wait_for("lua", LIMIT.up) then return false, why .. "; the Lua daemon was put back" end
    end
    return false, why .. "; the Lua daemon was put back, but does not start: reboot"
end

-- Replaces init script and launcher by those of this upload, where they differ, and starts them.
local function replace(binary, kind)
    local launcher = launcher_for(binary)
    local trial = paths.work .. "/launcher"
    os.execute("mkdir -p " .. quoted(paths.work))
    local written, why = System.write(trial, launcher, "755")
    if not written then return false, why end
    local status, words = Task.command("env SOCKPROXYD_LAUNCHER=expand " .. quoted(trial), LIMIT.expand)
    os.remove(trial)
    if status ~= 0 then return false, words end

    local new_program = System.program_kind() ~= "program" and System.read(paths.program) ~= launcher
    local new_init = kind ~= "foreign" and System.read(paths.init) ~= Files.init
    local running = found()
    if not new_program and not new_init and running == "ours" and System.enabled() then return true end
    if running == "other" then return false, port_taken() end

    local old_init = kind == "lua" and System.read(paths.init) or nil
    local clear
    clear, why = clear_port(kind)
    if not clear then return false, why end
    os.remove(paths.pidfile) -- a Lua daemon that did not end by its init script leaves it
    if new_program then
        written, why = System.write(paths.program, launcher, "755")
        if not written then return back_to(old_init, why) end
    end
    if new_init then
        unlink_boot()
        written, why = System.write(paths.init, Files.init, "755")
        if not written then return back_to(old_init, why) end
        init("enable")
    end
    local started
    started, why = start()
    if not started then return back_to(old_init, why) end
    -- Some flash file systems give a file its name before its content: not across a power cut.
    Task.command("sync", LIMIT.down)
    return true
end

--- Brings the box to the state in which the daemon runs, and will run after a boot. Does nothing
-- where that is so. Returns true and which daemon it is, or false and why not.
function Installer.install()
    local kind = System.init_kind(Files.mark)
    if System.packaged() then
        if System.program_kind() == "launcher" then drop_own_copy() end
        return look_after(kind, "opkg package")
    end
    if System.program_kind() == "program" then
        if kind == "lua" or kind == "absent" then
            return false, paths.program .. " was installed by hand, without its init script: "
                .. "finish that installation, or delete the file"
        end
        return look_after(kind, "installed by hand")
    end
    if kind == "foreign" then
        return false, paths.init .. " is not known to this plugin: delete it, then run Install"
    end
    local binary, why = choose()
    if not binary then return false, why end
    local done
    done, why = replace(binary, kind)
    if not done then return false, why end
    remove_lua_files()
    return true, "sockproxyd " .. Files.version
end

--- Stops and starts the daemon.
function Installer.restart()
    if System.init_kind(Files.mark) == "absent" then return false, "not installed" end
    init("stop")
    wait_for("none", LIMIT.down)
    return start()
end

--- Removes whatever the plugin installed and the binaries that were uploaded. Configuration and logs stay.
function Installer.uninstall()
    if System.packaged() then return false, "this daemon is the opkg package's: opkg remove sockproxyd" end
    if System.program_kind() == "program" then
        return false, "this daemon was installed by hand: " .. paths.program
    end
    local kind = System.init_kind(Files.mark)
    if kind == "foreign" then return false, paths.init .. " is not known to this plugin" end
    if kind == "ours" then
        init("stop")
        init("disable")
        unlink_boot()
        os.remove(paths.init)
    end
    if System.program_kind() == "launcher" then os.remove(paths.program) end
    os.execute("rm -rf " .. quoted(paths.room))
    for _, binary in ipairs(Files.binaries) do
        os.remove(paths.uploads .. "/" .. binary.name)
        os.remove(paths.uploads .. "/" .. binary.name .. ".lzo")
    end
    if not Task.wait(function() return found() ~= "ours" end, LIMIT.down) then
        return false, "removed, but the daemon has not ended"
    end
    return true
end

return Installer
