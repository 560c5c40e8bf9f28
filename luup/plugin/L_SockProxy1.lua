--- The SockProxy device: shows the state of the sockproxyd daemon, and on a Vera installs and restarts it.
-- Owns the device's variables, the request "lr_sockproxy" and the check interval. L_SockProxyInstaller does the
-- installation. On openLuup, where Vera's folder for uploads is missing, or without the upload package's list of
-- files, the plugin only monitors the daemon.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"
local Task = require "L_SockProxyTask"
local Probe = require "L_SockProxyProbe"
local Status = require "L_SockProxyStatus"
local Installer = require "L_SockProxyInstaller"

local SockProxy = {}

local SERVICE = "urn:toggledbits-com:serviceId:SockProxy1"
-- ALTUI and openLuup's console show DisplayLine1 and DisplayLine2 of this service on the device's card.
local ALTUI_SERVICE = "urn:upnp-org:serviceId:altui1"

-- Seconds between two checks of the daemon. Earlier versions of the device use the same interval.
local CHECK_INTERVAL = 300
-- After CHECKS_BEFORE_REPAIR consecutive checks that found the daemon down, the plugin installs the daemon again. An owner may
-- stop the daemon for a moment, so one check is not enough. The plugin repeats this every CHECKS_BETWEEN_REPAIRS checks.
local CHECKS_BEFORE_REPAIR, CHECKS_BETWEEN_REPAIRS = 2, 12

local luup, device, hooks
local is_vera = false -- see System.is_vera
local manages = false -- true if this plugin may install the daemon
local removed = false -- true after Uninstall
local failed_checks = 0 -- consecutive checks that found the daemon down
local install_error = nil -- why the last installation failed
local probe = nil -- the Probe of the check under way; nil if there is none
local waiting = {} -- functions that the check under way calls with its result
local scheduled = false -- true if Luup will call SockProxy.probe
local status = nil -- the last STAT JSON

local function log(message)
    luup.log("SockProxy: " .. message)
end

local function get(name, service)
    return luup.variable_get(service or SERVICE, name, device)
end

local function set(name, value, service)
    value = tostring(value)
    if get(name, service) ~= value then luup.variable_set(service or SERVICE, name, value, device) end
end

local function debug(format, ...)
    if get("Debug") == "1" then log("debug: " .. string.format(format, ...)) end
end

local function set_message(message)
    if get("Message") ~= message then log(message) end
    set("Message", message)
    -- The card has no room for the reasons behind the first semicolon.
    set("DisplayLine1", message:match("^[^;]*"), ALTUI_SERVICE)
end

-- Shows in every user interface whether the device works.
local function set_failure(failed)
    -- UI5 and earlier expect a boolean.
    if (tonumber(luup.version_major) or 7) < 7 then
        luup.set_failure(failed, device)
    else
        luup.set_failure(failed and 1 or 0, device)
    end
end

-- Shows the figures of the last status; empty if there is none.
local function set_figures()
    local figures = Status.figures(status)
    set("Connections", figures and figures.connections or "")
    set("Notifications", figures and figures.notifications or "")
    set("NotificationFailures", figures and figures.failures or "")
    set("NotifyLatency", figures and figures.latency or "")
    set("DisplayLine2", figures and string.format("%d connections, %d notifications, %d failed", figures.connections,
        figures.notifications or 0, figures.failures or 0) or "", ALTUI_SERVICE)
end

-- Advice in the device's message.
local ADVICE = {
    vera = "upload all files of sockproxyd's Luup package again, or install its opkg package",
    other = "install the sockproxyd service on this machine; this device only monitors it",
}

-- Updates the variables from a probe's answer. Returns true if a daemon answers.
local function show(answer)
    local _, port = System.daemon_address()
    local up = answer.kind == "ours" or answer.kind == "lua"
    set("Status", up and 1 or 0)
    set_failure(not up and not removed)
    if up then
        set("Version", answer.protocol)
        if answer.build then set("Build", answer.build) end
    end
    status = answer.status
    if answer.kind == "ours" then
        local name = get("Daemon")
        set_message(string.format("Up; %s (build %d)%s", name and name ~= "" and name or "sockproxyd", answer.build,
            install_error and "; update failed: " .. install_error or ""))
    elseif answer.kind == "lua" then
        set_message("Up, but it is the Lua daemon" .. (install_error and "; not replaced: " .. install_error or ""))
    elseif answer.kind == "none" then
        set_message("Down; " .. (install_error or ("no answer on port " .. port .. ": "
            .. (is_vera and ADVICE.vera or ADVICE.other))))
    else
        set_message(string.format("Down; port %d is used by a program that is not sockproxyd, or the daemon hangs", port))
    end
    set_figures()
    return up
end

-- Makes a turn of the check under way.
local function continue_check()
    if not probe then return end
    local ok, answer = pcall(probe.step, probe)
    if not ok then
        log("internal error: " .. tostring(answer))
        answer = { kind = "silent" }
    end
    debug("check: %s after %d turns", answer and answer.kind or "no answer yet", probe.turns)
    if not answer then
        if not scheduled then
            scheduled = true
            luup.call_delay(hooks.probe, 1, "")
        end
        return
    end
    probe = nil
    local up = show(answer)
    local functions = waiting
    waiting = {}
    for _, finished in ipairs(functions) do finished(up) end
end

-- Begins a check of the daemon; it updates the variables and calls `finished` (may be nil) with true if a daemon
-- answers. With a healthy daemon this is done before the function returns. A check under way begins anew: its
-- answer may be older than the reason of this one.
local function check_daemon(finished)
    waiting[#waiting + 1] = finished
    if probe then probe:close() end
    probe = Probe.new(true)
    continue_check()
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
    if Task.busy() or probe then return end
    check_daemon(function(up)
        if up then
            failed_checks = 0
            return
        end
        failed_checks = failed_checks + 1
        if manages and not removed and failed_checks % CHECKS_BETWEEN_REPAIRS == CHECKS_BEFORE_REPAIR then install() end
    end)
end

--- Called by Luup while a check waits for the daemon.
function SockProxy.probe()
    scheduled = false
    continue_check()
end

--- True while a task or a check is under way.
function SockProxy.busy()
    return Task.busy() ~= nil or probe ~= nil
end

--- Called by Luup while a task runs.
function SockProxy.tick()
    Task.tick()
end

-- True if the device can restart the daemon.
local function restarts()
    return manages or is_vera and Installer.can_restart()
end

--- Answers the request "lr_sockproxy": a page with the parameter `page`, else JSON. Returns body and content type.
function SockProxy.request(parameters)
    if not Task.busy() and not probe then check_daemon() end
    local state = {
        device = device, service = SERVICE, up = get("Status") == "1", restarts = restarts(), message = get("Message") or "",
        status = status,
    }
    if tostring(parameters and parameters.page or "0") ~= "0" then return Status.page(state), "text/html" end
    return Status.json(state), "application/json"
end

--- Runs an action of the device. Returns true if it was started or done.
function SockProxy.action(name, arguments)
    if name == "Check" then
        if not Task.busy() then check_daemon() end
        return true
    end
    if name == "SetDebug" then
        local value = tostring(arguments and arguments.debug or "")
        if value ~= "0" and value ~= "1" then return false end
        set("Debug", value)
        if not is_vera or not Installer.owns_daemon() then return true end
        return Task.start(name, function() return Installer.set_debug(value == "1") end, function(ok, why)
            if not ok then log("SetDebug: " .. tostring(why)) end
            check_daemon()
        end)
    end
    if not (name == "Restart" and restarts() or manages) then
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
            status = nil
            set("Status", 0)
            set_failure(false)
            set_figures()
            set("Daemon", "")
            set_message("Uninstalled; you may delete this device, or upload the files again")
        else
            set_message("Not uninstalled: " .. tostring(why))
        end
    end)
end

-- Puts the icon where the user interface reads it, if it is not there.
local function show_icon()
    local name = "SockProxy1.png"
    local paths = System.paths
    if not is_vera then
        -- openLuup's web server and ALTUI on openLuup read icons from this folder.
        local target = paths.open_icons .. "/" .. name
        local image = System.read(paths.open_files .. "/" .. name)
        if not image or System.exists(target) or #System.list(paths.open_icons, "^%.$") == 0 then return end
        local written, why = System.write(target, image)
        if not written then log("icon: " .. tostring(why)) end
        return
    end
    local target = paths.icons .. "/" .. name
    if System.exists(target) or #System.list(paths.icons, "^%.$") == 0 then return end
    -- A Vera may have compressed the uploaded icon.
    local sources = {
        { "ln -sf", paths.uploads .. "/" .. name },
        { "pluto-lzo d", paths.uploads .. "/" .. name .. ".lzo" },
        { "ln -sf", paths.states .. "/" .. name },
    }
    for _, source in ipairs(sources) do
        if System.exists(source[2]) then
            os.execute(string.format("%s %s %s >/dev/null 2>&1", source[1], System.quoted(source[2]), System.quoted(target)))
            return
        end
    end
end

-- Earlier versions had the project's name as manufacturer and as model. ALTUI shows both before the device's name, and
-- openLuup keeps them with the device.
local function forget_model()
    for _, name in ipairs { "manufacturer", "model" } do
        if luup.attr_get(name, device) == "sockproxyd" then luup.attr_set(name, "", device) end
    end
end

-- openLuup's console shows no tabs of a device. It has a panel for each type of device, by the type's last word.
local function show_console_panel()
    local found, panels = pcall(require, "openLuup.panels")
    if not found or type(panels) ~= "table" or type(panels.device_panel) ~= "table" then return end
    panels.device_panel.SockProxy = {
        control = function(number)
            local page = "/data_request?id=lr_sockproxy&amp;page=1"
            return string.format('<div><a class="w3-button w3-light-grey" href="' .. page .. '" target="_blank">'
                .. 'Check now, and show the connections of device %d</a></div>', tonumber(number) or device)
        end,
    }
end

--- Called by Luup when the device starts. `functions` gives the names of the global functions that Luup
-- calls: `check`, `tick`, `probe` and `request`. Returns the values that Luup expects: success, message, name.
function SockProxy.startup(the_luup, the_device, functions)
    luup, device, hooks = the_luup, the_device, functions
    Task.init(function() luup.call_delay(hooks.tick, 1, "") end)
    is_vera = System.is_vera(luup)
    manages = is_vera and Installer.has_daemon()
    removed, failed_checks, install_error = false, 0, nil
    probe, waiting, scheduled, status = nil, {}, false, nil
    set("Status", 0)
    set_failure(false)
    if not get("Debug") then set("Debug", "0") end
    set_figures()
    show_icon()
    forget_model()
    if luup.openLuup then show_console_panel() end
    luup.register_handler(hooks.request, "sockproxy")
    if manages then install() end
    luup.call_delay(hooks.check, manages and CHECK_INTERVAL or 5, "")
    return true, "", "SockProxy"
end

return SockProxy
