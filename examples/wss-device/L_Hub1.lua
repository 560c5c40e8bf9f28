--- A hub that speaks JSON over wss. Its connection survives reloads of Luup: the proxy keeps it, and what comes meanwhile.
--
-- The variable Url is its address (wss://...), and Token what it wants to see first. The hub has a certificate of its own, so the
-- first connection through the proxy fails with its fingerprint in the log, sha256/...; put that into the variable Pins.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID = "urn:example-com:serviceId:Hub1"

local Hub = {}
-- The connections by device number. openLuup loads this file once for all devices of the plugin.
local connections = {}

local function get(device, name)
    local value = luup.variable_get(SID, name, device)
    if value == nil then luup.variable_set(SID, name, "", device) end
    return value ~= "" and value or nil
end

local function set(device, name, value)
    luup.variable_set(SID, name, value, device)
end

function Hub.startup(device)
    local url, token, pins = get(device, "Url"), get(device, "Token"), get(device, "Pins")
    if not url then return true, "Set the variables Url and Token, and reload", "Hub" end
    -- The secret by which the plugin finds its connection again.
    local pid = get(device, "ProxyPid") or proxy.secret()
    set(device, "ProxyPid", pid)
    local why
    connections[device], why = proxy.open(url, {
        notify = { device = device, service = SID, action = "HandleReceive", pid = pid },
        KEEP = 300, PNGI = 30, PINS = pins, MAXM = 1000000, reconnect = true,
        seen = get(device, "ProxySeen"), on_seen = function(_, seen) set(device, "ProxySeen", seen) end,
        on_open = function(conn)
            -- A kept connection has been opened before the reload, and the hub knows the plugin.
            if not conn.kept then conn:text('{"type":"auth","token":"' .. (token or "") .. '"}') end
        end,
        on_message = function(_, message)
            local event = message:match('"event":"([^"]*)"')
            if event then set(device, "LastEvent", event) end
        end,
        on_error = function(_, reason) luup.log("Hub: " .. reason) end,
        on_close = function(_, code, reason) luup.log("Hub: " .. tostring(code) .. " " .. reason) end,
    })
    return connections[device] ~= nil, why or "", "Hub"
end

--- The action that the proxy invokes.
function Hub.handle_receive(device)
    local conn = connections[device]
    if conn then conn:poll() end
end

return Hub
