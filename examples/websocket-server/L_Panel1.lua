--- A WebSocket for pages: each shows a switch, and turns it. Needs the proxy, which listens.
--
-- The variable Port is where pages connect (8081), with the path /switch; Switch is the number of the switch's device. Only pages
-- of this box may connect; Origins names others.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID, SWITCH = "urn:example-com:serviceId:Panel1", "urn:upnp-org:serviceId:SwitchPower1"

local Panel = {}
local device, switch
-- The pages that are open, and all that is to be polled.
local pages, group = {}, {}

local function get(name, default)
    local value = luup.variable_get(SID, name, device)
    if value == nil then luup.variable_set(SID, name, default or "", device) end
    return value ~= nil and value ~= "" and value or default
end

local function count_pages()
    local count = 0
    for _ in pairs(pages) do count = count + 1 end
    luup.variable_set(SID, "Pages", count, device)
end

local function handle_incoming(listener, arrival)
    local conn, why = listener:accept(arrival.id, {
        PNGI = 30,                                             -- a page that has vanished is closed after a minute
        on_message = function(_, message)
            luup.call_action(SWITCH, "SetTarget", { newTargetValue = message == "1" and "1" or "0" }, switch)
        end,
        on_close = function(conn)
            pages[conn] = nil
            count_pages()
        end,
    })
    if not conn then return luup.log("Panel: " .. why) end
    pages[conn] = true
    count_pages()
    conn:text(luup.variable_get(SWITCH, "Status", switch) or "0")
end

--- The switch has changed.
function Panel.changed(status)
    for conn in pairs(pages) do conn:text(tostring(status)) end
end

function Panel.startup(lul_device)
    device = lul_device
    switch = tonumber(get("Switch", "0"))
    local listener, why = proxy.listen {
        address = "0.0.0.0", port = tonumber(get("Port", "8081")), path = "/switch", origins = get("Origins"),
        notify = { device = device, service = SID, action = "HandleReceive" }, timeout = 0, group = group,
        on_incoming = handle_incoming,
    }
    if not listener then return false, why, "Panel" end
    luup.variable_watch("Panel1_changed", SWITCH, "Status", switch)
    return true, "", "Panel"
end

--- The action that the proxy invokes.
function Panel.handle_receive()
    proxy.handle(group)
end

return Panel
