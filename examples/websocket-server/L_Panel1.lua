--- A WebSocket for pages: each shows a switch, and turns it. Needs the proxy, which listens.
--
-- The variable Port is where pages connect (8081), with the path /switch; Switch is the number of the switch's device. Only pages
-- of this box may connect; Origins names others.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID, SWITCH = "urn:example-com:serviceId:Panel1", "urn:upnp-org:serviceId:SwitchPower1"

local Panel = {}
-- By device number. openLuup loads this file once for all devices of the plugin.
local panels = {}

local function get(self, name, default)
    local value = luup.variable_get(SID, name, self.device)
    if value == nil then luup.variable_set(SID, name, default or "", self.device) end
    return value ~= nil and value ~= "" and value or default
end

local function count_pages(self)
    local count = 0
    for _ in pairs(self.pages) do count = count + 1 end
    luup.variable_set(SID, "Pages", count, self.device)
end

local function handle_incoming(self, listener, arrival)
    local conn, why = listener:accept(arrival.id, {
        PNGI = 30,                                             -- a page that has vanished is closed after a minute
        on_message = function(_, message)
            luup.call_action(SWITCH, "SetTarget", { newTargetValue = message == "1" and "1" or "0" }, self.switch)
        end,
        on_close = function(conn)
            self.pages[conn] = nil
            count_pages(self)
        end,
    })
    if not conn then return luup.log("Panel: " .. why) end
    self.pages[conn] = true
    count_pages(self)
    conn:text(luup.variable_get(SWITCH, "Status", self.switch) or "0")
end

--- A switch has changed.
function Panel.changed(switch, status)
    for _, self in pairs(panels) do
        if self.switch == switch then
            for conn in pairs(self.pages) do conn:text(tostring(status)) end
        end
    end
end

function Panel.startup(device)
    -- The pages that are open, and all that is to be polled.
    local self = { device = device, pages = {}, group = {} }
    panels[device] = self
    self.switch = tonumber(get(self, "Switch", "0"))
    count_pages(self)
    local listener, why = proxy.listen {
        address = "0.0.0.0", port = tonumber(get(self, "Port", "8081")), path = "/switch", origins = get(self, "Origins"),
        notify = { device = device, service = SID, action = "HandleReceive" }, timeout = 0, group = self.group,
        on_incoming = function(listener, arrival) handle_incoming(self, listener, arrival) end,
    }
    if not listener then return false, why, "Panel" end
    luup.variable_watch("Panel1_changed", SWITCH, "Status", self.switch)
    return true, "", "Panel"
end

--- The action that the proxy invokes.
function Panel.handle_receive(device)
    proxy.handle(panels[device].group)
end

return Panel
