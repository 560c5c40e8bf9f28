--- Installs, repairs and removes the daemon on a Vera. Every function here runs in a task.
-- Owns the order of the steps and the decision which installation owns which file. The rules:
-- * There is one init script and one program, whichever installation wrote them. The plugin never changes
--   those of the opkg package, nor a program or an init script that a person installed.
-- * The running daemon continues until its replacement has been expanded, checked and tried.
-- * The flash holds one compressed copy, as uploaded: a restored backup or new firmware brings back the
--   plugin and its files, and with them the daemon. The launcher expands it into memory at each boot: the
--   flash of these devices is nearly full, and a MiB or two of memory is free.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"
local Task = require "L_SockProxyTask"
local Probe = require "L_SockProxyProbe"

-- The line that identifies this project's init script. scripts/luup-package checks that the script has it.
local INIT_MARK = "# sockproxyd-init:"

-- scripts/luup-package makes this module for an upload. A checkout has none, and nothing to install.
local uploaded, Files = pcall(require, "L_SockProxyFiles")
if not uploaded then
    if not tostring(Files):find("not found", 1, true) then error(Files, 0) end
    Files = { binaries = {} }
end

local Installer = {}

local paths = System.paths
local quoted = System.quoted

-- Seconds. Limits, not expected times: a Vera is slow while it starts.
local TIMEOUT = { expand = 120, init = 60, up = 30, down = 10, version = 10 }
-- Seconds. STOP blocks Luup for three times this time at most, and only if the init script could not end the daemon.
local STOP_TIMEOUT = 0.3

local function init(verb)
    return Task.command(quoted(paths.init) .. " " .. verb, TIMEOUT.init)
end

local function port_taken()
    local _, port = System.daemon_address()
    return string.format("port %d is used by another program", port)
end

-- Returns the kind of the program on the port.
local function daemon_kind()
    local probe = Probe.new()
    local answer = probe:step()
    while not answer do
        Task.sleep(1)
        answer = probe:step()
    end
    return answer.kind
end

-- Waits until the program on the port is of that kind.
local function wait_for(kind, ticks)
    local probe
    local reached = Task.wait(function()
        probe = probe or Probe.new()
        local answer = probe:step()
        if answer then probe = nil end
        return answer ~= nil and answer.kind == kind
    end, ticks)
    if probe then probe:close() end
    return reached
end

local function unlink_boot()
    for _, name in ipairs(System.list(paths.rcd, "^[SK]%d+sockproxyd$")) do
        os.remove(paths.rcd .. "/" .. name)
    end
end

-- Returns the uploaded binary for this machine's CPU, or nil and the reason.
local function choose_binary()
    local cpu = System.cpu(paths.engine) or System.cpu("/bin/busybox") or System.cpu("/bin/sh")
    local known = {}
    for _, binary in ipairs(Files.binaries) do
        if binary.cpu == cpu then return binary end
        known[#known + 1] = System.cpu_name(binary.cpu)
    end
    return nil, string.format("wrong CPU: this device has %s, the upload is for %s",
        System.cpu_name(cpu), table.concat(known, ", "))
end

local function launcher_for(binary)
    local values = {
        NAME = binary.name, SIZE = binary.size, MD5 = binary.md5, VERSION = Files.version,
        PACKED_SIZE = binary.packed_size, PACKED_MD5 = binary.packed_md5, UPLOADS = paths.uploads, RUNTIME = paths.runtime,
    }
    return (Files.launcher:gsub("@(%u[%u%d_]*)@", values))
end

-- Sends a signal to every Lua daemon, including one that hangs.
local function kill_lua_daemons(signal)
    -- The brackets keep the pattern from matching this command's own command line.
    Task.command("sh -c " .. quoted([[for p in /proc/[0-9]*; do
        case "$(tr "\000" " " <$p/cmdline 2>/dev/null)" in
            lua*[s]ockproxyd.lua*|*/lua*[s]ockproxyd.lua*) kill -]] .. signal .. [[ ${p#/proc/} ;;
        esac
    done]]), TIMEOUT.down)
end

-- Ends the running daemon, ours or the Lua one, however it was started: by the init script, by STOP (procd
-- may have lost the daemon, or a person started it), by signal. Returns true when the port is free, else
-- false and the reason.
local function free_port(kind)
    if kind == "ours" or kind == "lua" then init("stop") end
    if wait_for("none", TIMEOUT.down) then return true end
    System.send_stop(STOP_TIMEOUT)
    if wait_for("none", 3) then return true end
    for _, signal in ipairs { "TERM", "KILL" } do
        kill_lua_daemons(signal)
        if wait_for("none", 3) then return true end
    end
    return false, port_taken()
end

-- Removes both copies of the Lua daemon's script, which only take flash.
local function remove_lua_files()
    for _, name in ipairs { "sockproxyd.lua", "sockproxyd.lua.lzo" } do
        os.remove(paths.uploads .. "/" .. name)
    end
end

-- Starts the installed daemon and waits until it answers.
local function start()
    local status, words
    if not System.enabled() then init("enable") end
    -- Up to three times: connections of the previous daemon may keep the port in TIME_WAIT for a minute.
    for _ = 1, 3 do
        status, words = init("start")
        if wait_for("ours", TIMEOUT.up) then return true end
        if daemon_kind() ~= "none" then return false, port_taken() end
        if not (words or ""):match("no greeting") then break end
    end
    if not words or words == "" then words = "see the system log" end
    return false, string.format("the daemon does not start (%s): %s", status or "no end", words)
end

-- For an installation that the plugin does not change: the opkg package's or a person's. Starts it if
-- necessary.
local function start_foreign(kind, owner)
    local _, version = Task.command(quoted(paths.program) .. " --version", TIMEOUT.version)
    if daemon_kind() ~= "ours" then
        if not System.enabled() then return false, owner .. ": switched off, see " .. paths.rcd end
        local ok, why = free_port(kind)
        if ok then ok, why = start() end
        if not ok then return false, owner .. ": " .. why end
    end
    remove_lua_files()
    return true, string.format("%s, %s", version, owner)
end

-- Removes the plugin's copy in memory and its launcher after a package was installed.
local function drop_own_copy()
    os.execute("rm -rf " .. quoted(paths.runtime))
    if System.program_kind() == "launcher" then os.remove(paths.program) end
end

-- Restores the Lua daemon's init script after a failed installation.
local function roll_back(old_init, why)
    if not old_init then return false, why end
    init("stop")
    local written, err = System.write(paths.init, old_init, "755")
    if not written then return false, why .. "; the Lua daemon could not be restored: " .. err end
    if System.program_kind() == "launcher" then os.remove(paths.program) end
    unlink_boot()
    init("enable")
    -- The Lua daemon does not start while the port is in TIME_WAIT, a minute after its last connection.
    for _ = 1, 3 do
        init("start")
        if wait_for("lua", TIMEOUT.up) then return false, why .. "; the Lua daemon was restored" end
    end
    return false, why .. "; the Lua daemon was restored, but does not start: reboot"
end

-- Replaces init script and launcher by those of this upload if they differ, and starts the daemon.
local function replace(binary, kind)
    local launcher = launcher_for(binary)
    local trial = paths.work .. "/launcher"
    os.execute("mkdir -p " .. quoted(paths.work))
    local written, why = System.write(trial, launcher, "755")
    if not written then return false, why end
    local status, words = Task.command("env SOCKPROXYD_LAUNCHER=expand " .. quoted(trial), TIMEOUT.expand)
    os.remove(trial)
    if status ~= 0 then return false, words end

    local new_program = System.program_kind() ~= "program" and System.read(paths.program) ~= launcher
    local new_init = kind ~= "foreign" and System.read(paths.init) ~= Files.init
    local running = daemon_kind()
    if not new_program and not new_init and running == "ours" and System.enabled() then return true end
    if running == "other" then return false, port_taken() end

    local old_init = kind == "lua" and System.read(paths.init) or nil
    local freed
    freed, why = free_port(kind)
    if not freed then return false, why end
    os.remove(paths.pidfile) -- left by a Lua daemon that its init script did not end
    if new_program then
        written, why = System.write(paths.program, launcher, "755")
        if not written then return roll_back(old_init, why) end
    end
    if new_init then
        unlink_boot()
        written, why = System.write(paths.init, Files.init, "755")
        if not written then return roll_back(old_init, why) end
        init("enable")
    end
    local started
    started, why = start()
    if not started then return roll_back(old_init, why) end
    -- Some flash file systems write a file's name before its content; a power cut in between leaves an empty
    -- file.
    Task.command("sync", TIMEOUT.down)
    return true
end

--- True if the plugin came with a daemon, as an upload does and a checkout does not.
function Installer.has_daemon()
    return uploaded
end

--- True if an init script of this project can restart the daemon.
function Installer.can_restart()
    return System.init_kind(INIT_MARK) == "ours"
end

--- Installs the daemon so that it runs now and after each boot. Does nothing if that is the case already.
-- Returns true and the name of the daemon, or false and the reason.
function Installer.install()
    local kind = System.init_kind(INIT_MARK)
    if System.packaged() then
        if System.program_kind() == "launcher" then drop_own_copy() end
        return start_foreign(kind, "opkg package")
    end
    if System.program_kind() == "program" then
        if kind == "lua" or kind == "absent" then
            return false, paths.program .. " was installed by hand, without its init script: "
                .. "finish that installation, or delete the file"
        end
        return start_foreign(kind, "installed by hand")
    end
    if kind == "foreign" then
        return false, paths.init .. " is not known to this plugin: delete it, then run Install"
    end
    local binary, why = choose_binary()
    if not binary then return false, why end
    local done
    done, why = replace(binary, kind)
    if not done then return false, why end
    remove_lua_files()
    return true, "sockproxyd " .. Files.version
end

--- Restarts the daemon.
function Installer.restart()
    if System.init_kind(INIT_MARK) == "absent" then return false, "not installed" end
    init("stop")
    wait_for("none", TIMEOUT.down)
    return start()
end

--- True if the plugin may change the daemon's configuration: neither opkg nor a person has installed the daemon.
function Installer.owns_daemon()
    return uploaded and not System.packaged() and System.program_kind() == "launcher" and Installer.can_restart()
end

--- Switches the daemon's debug messages in its configuration. Its connections stay, if it has a configuration
-- already; a daemon without one is restarted.
function Installer.set_debug(on)
    local old = System.read(paths.config)
    local new = System.with_debug(old or "", on)
    if new == old or not old and not on then return true end
    local written, why = System.write(paths.config, new, System.mode(paths.config))
    if not written then return false, why end
    local status, words = init(old and "reload" or "restart")
    if status ~= 0 then return false, words end
    if not wait_for("ours", TIMEOUT.up) then return false, "the daemon does not answer" end
    return true
end

--- Removes everything that the plugin installed, and the uploaded binaries. Configuration and logs stay.
function Installer.uninstall()
    if System.packaged() then return false, "this daemon is the opkg package's: opkg remove sockproxyd" end
    if System.program_kind() == "program" then
        return false, "this daemon was installed by hand: " .. paths.program
    end
    local kind = System.init_kind(INIT_MARK)
    if kind == "foreign" then return false, paths.init .. " is not known to this plugin" end
    if kind == "ours" then
        init("stop")
        init("disable")
        unlink_boot()
        os.remove(paths.init)
    end
    if System.program_kind() == "launcher" then os.remove(paths.program) end
    os.execute("rm -rf " .. quoted(paths.runtime))
    for _, binary in ipairs(Files.binaries) do
        os.remove(paths.uploads .. "/" .. binary.name)
        os.remove(paths.uploads .. "/" .. binary.name .. ".lzo")
    end
    if not wait_for("none", TIMEOUT.down) and daemon_kind() == "ours" then
        return false, "removed, but the daemon still runs"
    end
    return true
end

return Installer
