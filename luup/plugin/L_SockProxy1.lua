--- The SockProxy device: shows the state of the sockproxyd daemon, and on a Vera installs and restarts it.
-- Owns the device's variables and the check interval. L_SockProxyInstaller does the installation. On
-- openLuup, or where Vera's folder for uploads is missing, the plugin only monitors the daemon.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"
local Task = require "L_SockProxyTask"
local Installer = require "L_SockProxyInstaller"

local SockProxy = {}

local SERVICE = "urn:toggledbits-com:serviceId:SockProxy1"

-- Seconds between two checks of the daemon. Earlier versions of the device use the same interval.
local CHECK_INTERVAL = 300
-- After CHECKS_BEFORE_REPAIR consecutive checks that found the daemon down, the plugin installs the daemon again. An owner may
-- stop the daemon for a moment, so one check is not enough. The plugin repeats this every CHECKS_BETWEEN_REPAIRS checks.
local CHECKS_BEFORE_REPAIR, CHECKS_BETWEEN_REPAIRS = 2, 12
-- Seconds. One check blocks Luup for twice this time at most, and only if the daemon hangs.
local PROBE_TIMEOUT = 1

local luup, device, hooks
local manages = false -- true if this plugin may install the daemon
local removed = false -- true after Uninstall
local failed_checks = 0 -- consecutive checks that found the daemon down
local install_error = nil -- why the last installation failed

local function log(message)
    luup.log("SockProxy: " .. message)
end

local function get(name)
    return luup.variable_get(SERVICE, name, device)
end

local function set(name, value)
    value = tostring(value)
    if get(name) ~= value then luup.variable_set(SERVICE, name, value, device) end
end

local function set_message(message)
    if get("Message") ~= message then log(message) end
    set("Message", message)
end

-- Advice in the device's message.
local ADVICE = {
    vera = "upload all files of sockproxyd's Luup package again, or install its opkg package",
    other = "install the sockproxyd service on this machine; this device only monitors it",
}

-- Checks the daemon once and updates the variables. Returns true if a daemon answers.
local function check_daemon()
    local answer = System.probe(PROBE_TIMEOUT)
    local _, port = System.daemon_address()
    local up = answer.kind == "ours" or answer.kind == "lua"
    set("Status", up and 1 or 0)
    if up then
        set("Version", answer.protocol)
        if answer.build then set("Build", answer.build) end
    end
    if answer.kind == "ours" then
        local name = get("Daemon")
        set_message(string.format("Up; %s (build %d)%s", name and name ~= "" and name or "sockproxyd", answer.build,
            install_error and "; update failed: " .. install_error or ""))
    elseif answer.kind == "lua" then
        set_message("Up, but it is the Lua daemon" .. (install_error and "; not replaced: " .. install_error or ""))
    elseif answer.kind == "none" then
        set_message("Down; " .. (install_error or ("no answer on port " .. port .. ": "
            .. (manages and ADVICE.vera or ADVICE.other))))
    else
        set_message(string.format("Down; port %d is used by a program that is not sockproxyd, or the daemon hangs", port))
    end
    return up
end

local function installed(ok, result)
    install_error = not ok and result or nil
    if ok then
        set("Daemon", result)
        -- The Lua daemon's plugin installs itself only over a ConfigVersion below its own. 0 lets the user
        -- return to it.
        set("ConfigVersion", 0)
    else
        log("not installed: " .. tostring(result))
    end
    check_daemon()
end

local function install()
    removed = false
    if Task.start("Install", Installer.install, installed) then
        if Task.busy() then set_message("Checking the installation...") end
        return true
    end
    return false
end

--- Called by Luup every CHECK_INTERVAL seconds.
function SockProxy.check()
    luup.call_delay(hooks.check, CHECK_INTERVAL, "")
    if Task.busy() then return end
    if check_daemon() then
        failed_checks = 0
        return
    end
    failed_checks = failed_checks + 1
    if manages and not removed and failed_checks % CHECKS_BETWEEN_REPAIRS == CHECKS_BEFORE_REPAIR then install() end
end

--- Called by Luup while a task runs.
function SockProxy.tick()
    Task.tick()
end

--- Runs an action of the device. Returns true if it was started or done.
function SockProxy.action(name)
    if name == "Check" then
        if not Task.busy() then check_daemon() end
        return true
    end
    if not manages then
        set_message("This device only monitors the daemon: it cannot install anything on this machine")
        return false
    end
    if name == "Install" then return install() end
    local work = name == "Uninstall" and Installer.uninstall or Installer.restart
    return Task.start(name, work, function(ok, why)
        if name == "Restart" then
            install_error = not ok and why or nil
            check_daemon()
        elseif ok then
            removed = true
            set("Status", 0)
            set("Daemon", "")
            set_message("Uninstalled; you may delete this device, or upload the files again")
        else
            set_message("Not uninstalled: " .. tostring(why))
        end
    end)
end

-- Puts the icon where the user interface reads it. A Vera may have compressed the uploaded icon.
local function show_icon()
    local name = "SockProxy1.png"
    local source, target = System.paths.uploads .. "/" .. name, System.paths.icons .. "/" .. name
    if System.exists(target) or #System.list(System.paths.icons, "^%.$") == 0 then return end
    local command = System.exists(source) and "ln -sf" or "pluto-lzo d"
    if command ~= "ln -sf" then source = source .. ".lzo" end
    if System.exists(source) then
        os.execute(string.format("%s %s %s >/dev/null 2>&1", command, System.quoted(source), System.quoted(target)))
    end
end

--- Called by Luup when the device starts. `functions` gives the names of the global functions that Luup
-- calls: `check` and `tick`. Returns the values that Luup expects: success, message, name.
function SockProxy.startup(the_luup, the_device, functions)
    luup, device, hooks = the_luup, the_device, functions
    Task.init(function() luup.call_delay(hooks.tick, 1, "") end)
    manages = System.is_vera(luup)
    removed, failed_checks, install_error = false, 0, nil
    set("Status", 0)
    luup.set_failure(0, device)
    if manages then
        show_icon()
        install()
    end
    luup.call_delay(hooks.check, manages and CHECK_INTERVAL or 5, "")
    return true, "", "SockProxy"
end

return SockProxy
