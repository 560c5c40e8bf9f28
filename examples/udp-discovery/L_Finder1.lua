--- Finds UPnP devices: asks by SSDP, and collects which devices have answered.
--
-- The variable Found lists the addresses of the devices that answered. The action Search sends the request again. The variable
-- Target is the host:port to which the plugin sends it; by default the multicast group of SSDP.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID = "urn:example-com:serviceId:Finder1"
local GROUP = "239.255.255.250:1900"
-- Any program of the network may answer.
local MAX_FOUND = 100

local SEARCH = table.concat({
    "M-SEARCH * HTTP/1.1", "HOST: " .. GROUP, 'MAN: "ssdp:discover"', "MX: 2", "ST: ssdp:all", "", "",
}, "\r\n")

local Finder = {}
-- By device number. openLuup loads this file once for all devices of the plugin.
local finders = {}

local function handle_answer(self, answer, sender)
    local location, found = answer:match("[Ll][Oo][Cc][Aa][Tt][Ii][Oo][Nn]:%s*(%S+)"), self.found
    if not location or found[location] or #found >= MAX_FOUND then return end
    found[location], found[#found + 1] = true, location
    luup.log("Finder: " .. tostring(sender) .. " is at " .. location)
    luup.variable_set(SID, "Found", table.concat(found, " "), self.device)
end

-- Any datagram may be lost.
local function ask(conn)
    return conn:text(SEARCH) and conn:text(SEARCH) or false
end

function Finder.startup(device)
    local self = { device = device, found = {} }
    finders[device] = self
    local target = luup.variable_get(SID, "Target", device) or ""
    luup.variable_set(SID, "Found", "", device)
    local why
    -- FRAM=MESG tells datagrams apart. At most one notification a second: strangers may send, too.
    self.conn, why = proxy.open(target ~= "" and target or GROUP, {
        PRTO = "udp", FRAM = "MESG", PACE = 1, notify = { device = device, service = SID, action = "HandleReceive" },
        reconnect = true, on_open = ask,
        on_message = function(_, answer, _, sender) handle_answer(self, answer, sender) end,
        on_error = function(_, reason) luup.log("Finder: " .. reason) end,
        on_close = function(_, _, reason) luup.log("Finder: " .. reason) end,
    })
    return self.conn ~= nil, why or "", "Finder"
end

--- Asks again; what was found is forgotten. Returns true if the question was sent.
function Finder.search(device)
    local self = finders[device]
    self.found = {}
    luup.variable_set(SID, "Found", "", device)
    return self.conn ~= nil and ask(self.conn)
end

--- The action that the proxy invokes.
function Finder.handle_receive(device)
    local conn = finders[device].conn
    if conn then conn:poll() end
end

return Finder
