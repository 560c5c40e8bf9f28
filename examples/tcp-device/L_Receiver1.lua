--- An audio receiver, as a switch: it says PWR ON and PWR OFF, a line each, and takes the same lines as commands.
--
-- The variable Address is its host and port. The library connects, through the proxy or without it, and connects again when the
-- receiver was away; the plugin only says what it wants to know.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID, SWITCH = "urn:example-com:serviceId:Receiver1", "urn:upnp-org:serviceId:SwitchPower1"

local Receiver = {}
local device, conn
-- What has come of a line.
local rest = ""

local function set(service, name, value)
    if luup.variable_get(service, name, device) ~= value then luup.variable_set(service, name, value, device) end
end

local function handle_line(line)
    local state = line:match("^PWR (%u+)")
    if state == "ON" or state == "OFF" then set(SWITCH, "Status", state == "ON" and "1" or "0") end
end

-- A stream has no messages: a line may come in pieces, and several lines at once.
local function handle_bytes(_, bytes)
    rest = rest .. bytes
    for line in rest:gmatch("([^\r\n]+)\r?\n") do handle_line(line) end
    rest = rest:match("[^\n]*$")
end

function Receiver.startup(lul_device)
    device = lul_device
    local address = luup.variable_get(SID, "Address", device) or ""
    if address == "" then
        luup.variable_set(SID, "Address", "", device)
        return true, "Set the variable Address to the host and port of the receiver, and reload", "Receiver"
    end
    set(SID, "Connected", "0")
    local why
    conn, why = proxy.open(address, {
        notify = { device = device, service = SID, action = "HandleReceive" }, reconnect = true,
        on_open = function(self)
            rest = ""
            set(SID, "Connected", "1")
            self:binary("PWR ?\r\n")
        end,
        on_message = handle_bytes,
        on_close = function(_, _, reason)
            set(SID, "Connected", "0")
            luup.log("Receiver: " .. reason)
        end,
    })
    return conn ~= nil, why or "", "Receiver"
end

--- The action that the proxy invokes.
function Receiver.handle_receive()
    if conn then conn:poll() end
end

--- SetTarget of the switch.
function Receiver.set_target(value)
    local sent = conn and conn:binary((tostring(value) == "1" and "PWR ON" or "PWR OFF") .. "\r\n")
    return sent == true
end

return Receiver
