--- An audio receiver, as a switch: it says PWR ON and PWR OFF, a line each, and takes the same lines as commands.
--
-- The variable Address is its host and port. The library connects, through the proxy or without it, and connects again when the
-- receiver was away; the plugin only says what it wants to know.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID, SWITCH = "urn:example-com:serviceId:Receiver1", "urn:upnp-org:serviceId:SwitchPower1"
-- Bytes. No line of the receiver is longer.
local MAX_LINE = 1024

local Receiver = {}
-- By device number. openLuup loads this file once for all devices of the plugin.
local receivers = {}

local function set(self, service, name, value)
    if luup.variable_get(service, name, self.device) ~= value then luup.variable_set(service, name, value, self.device) end
end

local function handle_line(self, line)
    local state = line:match("^PWR (%u+)")
    if state == "ON" or state == "OFF" then set(self, SWITCH, "Status", state == "ON" and "1" or "0") end
end

-- A stream has no messages: a line may come in pieces, and several lines at once.
local function handle_bytes(self, bytes)
    local received, first = self.rest .. bytes, 1
    -- A pattern would take a time that grows with the square of what has no line end.
    local last = received:find("\n", first, true)
    while last do
        handle_line(self, received:sub(first, last - 1))
        first = last + 1
        last = received:find("\n", first, true)
    end
    self.rest = received:sub(math.max(first, #received - MAX_LINE + 1))
end

local function report_end(self, reason)
    set(self, SID, "Connected", "0")
    luup.log("Receiver: " .. reason)
end

function Receiver.startup(device)
    local self = { device = device, rest = "" }
    receivers[device] = self
    local address = luup.variable_get(SID, "Address", device) or ""
    if address == "" then
        luup.variable_set(SID, "Address", "", device)
        return true, "Set the variable Address to the host and port of the receiver, and reload", "Receiver"
    end
    set(self, SID, "Connected", "0")
    local why
    self.conn, why = proxy.open(address, {
        notify = { device = device, service = SID, action = "HandleReceive" }, reconnect = true,
        on_open = function(conn)
            self.rest = ""
            set(self, SID, "Connected", "1")
            conn:binary("PWR ?\r\n")
        end,
        on_message = function(_, bytes) handle_bytes(self, bytes) end,
        on_error = function(_, reason) report_end(self, reason) end,
        on_close = function(_, _, reason) report_end(self, reason) end,
    })
    return self.conn ~= nil, why or "", "Receiver"
end

--- The action that the proxy invokes.
function Receiver.handle_receive(device)
    local conn = receivers[device].conn
    if conn then conn:poll() end
end

--- SetTarget of the switch.
function Receiver.set_target(device, value)
    local conn = receivers[device].conn
    local sent = conn and conn:binary((tostring(value) == "1" and "PWR ON" or "PWR OFF") .. "\r\n")
    return sent == true
end

return Receiver
