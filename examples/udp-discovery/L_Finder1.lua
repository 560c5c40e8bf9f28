--- Finds UPnP devices: asks by SSDP, and collects for a while which devices have answered.
--
-- The variable Found is a list of addresses. The action Search asks again. Variable Target: whom to ask, all by default.
-- MIT licence; an example of sockproxyd.

local proxy = require "L_SockProxyClient"

local SID = "urn:example-com:serviceId:Finder1"
local GROUP = "239.255.255.250:1900"

local SEARCH = table.concat({
    "M-SEARCH * HTTP/1.1", "HOST: " .. GROUP, 'MAN: "ssdp:discover"', "MX: 2", "ST: ssdp:all", "", "",
}, "\r\n")

local Finder = {}
local device, conn
local found = {}

local function handle_answer(_, answer, _, sender)
    local location = answer:match("[Ll][Oo][Cc][Aa][Tt][Ii][Oo][Nn]:%s*(%S+)")
    if not location or found[location] then return end
    found[location], found[#found + 1] = true, location
    luup.log("Finder: " .. tostring(sender) .. " is at " .. location)
    luup.variable_set(SID, "Found", table.concat(found, " "), device)
end

function Finder.startup(lul_device)
    device = lul_device
    local target = luup.variable_get(SID, "Target", device) or ""
    local why
    -- FRAM=MESG tells datagrams apart. At most one notification a second: strangers may send, too.
    conn, why = proxy.open(target ~= "" and target or GROUP, {
        PRTO = "udp", FRAM = "MESG", PACE = 1, notify = { device = device, service = SID, action = "HandleReceive" },
        on_message = handle_answer,
    })
    if not conn then return false, why, "Finder" end
    Finder.search()
    return true, "", "Finder"
end

--- Asks again; what was found is forgotten.
function Finder.search()
    found = {}
    luup.variable_set(SID, "Found", "", device)
    -- Any datagram may be lost.
    return conn:text(SEARCH) and conn:text(SEARCH) or false
end

--- The action that the proxy invokes.
function Finder.handle_receive()
    if conn then conn:poll() end
end

return Finder
