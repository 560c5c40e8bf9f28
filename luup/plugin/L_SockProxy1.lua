--- The SockProxy device: shows how the sockproxyd daemon fares, and on a Vera looks after it.
-- Owns: the device's variables, and when to look. What to do is L_SockProxyInstaller's.
-- On openLuup, or wherever Vera's places for uploads are missing, it only looks.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"
local Task = require "L_SockProxyTask"
local Installer = require "L_SockProxyInstaller"

local SockProxy = {}

local SERVICE = "urn:toggledbits-com:serviceId:SockProxy1"

-- Seconds from one look at the daemon to the next, as the device has always done.
local CHECK_EVERY = 300
-- Looks in a row that must find the daemon down before it is set up again: whoever stops it for a moment
-- by hand is not in a race. Then as often as this.
local DOWN_BEFORE_REPAIR, LOOKS_BETWEEN_REPAIRS = 2, 12
-- Seconds that one look may hold up Luup, twice; only a sick daemon takes them.
local PATIENCE = 1

local luup, device, hooks
local manages = false -- true where this plugin may install
local removed = false -- true after Uninstall
local down = 0        -- looks in a row that found the daemon down
local trouble = nil   -- why the last installation failed

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

local function say(message)
    if get("Message") ~= message then log(message) end
    set("Message", message)
end

-- What is wrong, for the person who reads the device's message.
local ADVICE = {
    vera = "upload all files of sockproxyd's Luup package again, or install its opkg package",
    other = "install the sockproxyd service on this machine; this device only watches it",
}

-- Looks once, and shows it. Returns true if a daemon answers.
local function look()
    local answer = System.ask(PATIENCE)
    local _, port = System.whereabouts()
    local up = answer.kind == "ours" or answer.kind == "lua"
    set("Status", up and 1 or 0)
    if up then
        set("Version", answer.protocol)
        if answer.build then set("Build", answer.build) end
    end
    if answer.kind == "ours" then
        local which = get("Daemon")
        say(string.format("Up; %s (build %d)%s", which and which ~= "" and which or "sockproxyd", answer.build,
            trouble and "; update failed: " .. trouble or ""))
    elseif answer.kind == "lua" then
        say("Up, but it is the Lua daemon" .. (trouble and "; not replaced: " .. trouble or ""))
    elseif answer.kind == "none" then
        say("Down; " .. (trouble or ("nobody answers on port " .. port .. ": "
            .. (manages and ADVICE.vera or ADVICE.other))))
    else
        say(string.format("Down; port %d is taken by a program that is not sockproxyd, or it hangs", port))
    end
    return up
end

local function installed(ok, which)
    trouble = not ok and which or nil
    if ok then
        set("Daemon", which)
        -- The Lua daemon's plugin installs itself only below its own number here: leave the way back open.
        set("ConfigVersion", 0)
    else
        log("not installed: " .. tostring(which))
    end
    look()
end

local function install()
    removed = false
    if Task.start("Install", Installer.install, installed) then
        if Task.busy() then say("Checking the installation...") end
        return true
    end
    return false
end

--- Called by Luup every CHECK_EVERY seconds.
function SockProxy.check()
    luup.call_delay(hooks.check, CHECK_EVERY, "")
    if Task.busy() then return end
    if look() then
        down = 0
        return
    end
    down = down + 1
    if manages and not removed and down % LOOKS_BETWEEN_REPAIRS == DOWN_BEFORE_REPAIR then install() end
end

--- Called by Luup while a task runs.
function SockProxy.tick()
    Task.tick()
end

--- Runs an action of the device. Returns true if it was begun or done.
function SockProxy.action(name)
    if name == "Check" then
        if not Task.busy() then look() end
        return true
    end
    if not manages then
        say("This device only watches: it can install nothing on this machine")
        return false
    end
    if name == "Install" then return install() end
    local work = name == "Uninstall" and Installer.uninstall or Installer.restart
    return Task.start(name, work, function(ok, why)
        if name == "Restart" then
            trouble = not ok and why or nil
            look()
        elseif ok then
            removed = true
            set("Status", 0)
            set("Daemon", "")
            say("Uninstalled; you may delete this device, or upload the files again")
        else
            say("Not uninstalled: " .. tostring(why))
        end
    end)
end

-- The icon, where the user interface looks for it. A Vera may have compressed it, too.
local function show_icon()
    local name = "SockProxy1.png"
    local source, target = System.paths.uploads .. "/" .. name, System.paths.icons .. "/" .. name
    if System.exists(target) or #System.matching(System.paths.icons, "^%.$") == 0 then return end
    local command = System.exists(source) and "ln -sf" or "pluto-lzo d"
    if command ~= "ln -sf" then source = source .. ".lzo" end
    if System.exists(source) then
        os.execute(string.format("%s %s %s >/dev/null 2>&1", command, System.quoted(source), System.quoted(target)))
    end
end

--- Called by Luup when the device starts. `functions` names the global functions that Luup is to call:
-- `check` and `tick`. Returns what Luup expects: success, message, name.
function SockProxy.startup(the_luup, the_device, functions)
    luup, device, hooks = the_luup, the_device, functions
    Task.init(function() luup.call_delay(hooks.tick, 1, "") end)
    manages = System.is_vera(luup)
    removed, down, trouble = false, 0, nil
    set("Status", 0)
    luup.set_failure(0, device)
    if manages then
        show_icon()
        install()
    end
    luup.call_delay(hooks.check, manages and CHECK_EVERY or 5, "")
    return true, "", "SockProxy"
end

return SockProxy
