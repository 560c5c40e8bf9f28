--- Host names without waits: LuaSocket's own functions block until the name server answers.
--
-- Owns the hosts file, the addresses of name servers, and queries for A records (RFC 1035) by UDP. Runs in an operation.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"
local Operation = require "L_SockProxyOperation"
local Options = require "L_SockProxyOptions"

local Resolver = {
    --- Files and the port of name servers.
    hosts = "/etc/hosts", resolv_conf = "/etc/resolv.conf", port = 53,
}

-- Seconds for an answer of one server, and rounds over all of them: what resolv.conf(5) calls timeout and attempts.
local TIMEOUT, ATTEMPTS = 1.5, 2
-- resolv.conf(5) takes three name servers and six domains.
local MAX_SERVERS, MAX_DOMAINS = 3, 6
-- Names that point to other names, and pointers within a name, before an answer counts as a loop.
local MAX_POINTERS = 32

local UNKNOWN, UNAVAILABLE = "host or service not provided, or not known", "temporary failure in name resolution"

--- True for an address of IPv4 or IPv6. LuaSocket takes anything else for a name, and blocks while it asks for the address.
function Resolver.is_address(host)
    if host:find(":", 1, true) then return true end
    local octets = { host:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
    for _, octet in ipairs(octets) do
        if #octet > 3 or tonumber(octet) > 255 or octet:match("^0%d") then return false end
    end
    return #octets == 4
end

local function lines_of(path)
    local file = io.open(path, "r")
    if not file then return function() end end
    local text = file:read("*a")
    file:close()
    return text:gmatch("[^\n]+")
end

-- Returns the IPv4 address of a name in the hosts file, or nil.
local function from_hosts(name)
    for line in lines_of(Resolver.hosts) do
        local address, names = line:match("^%s*(%d+%.%d+%.%d+%.%d+)%s+([^#]*)")
        for known in (names or ""):gmatch("%S+") do
            if known:lower() == name and Resolver.is_address(address) then return address end
        end
    end
end

-- Returns the name servers and the domains to search.
local function settings()
    local servers, domains = {}, {}
    for line in lines_of(Resolver.resolv_conf) do
        local server = line:match("^%s*nameserver%s+(%d+%.%d+%.%d+%.%d+)")
        if server and Resolver.is_address(server) and #servers < MAX_SERVERS then servers[#servers + 1] = server end
        local words = line:match("^%s*search%s+(.*)") or line:match("^%s*domain%s+(%S+)")
        if words then
            domains = {}
            for domain in words:gmatch("%S+") do
                if #domains < MAX_DOMAINS then domains[#domains + 1] = domain:lower() end
            end
        end
    end
    if #servers == 0 then servers[1] = "127.0.0.1" end
    return servers, domains
end

-- Returns the question for a name: one A record, recursion desired. nil for a name that DNS cannot have.
local function question_of(name)
    local labels = {}
    for label in name:gmatch("[^.]+") do
        if #label > 63 then return nil end
        labels[#labels + 1] = string.char(#label) .. label
    end
    if #labels == 0 or #name > 253 then return nil end
    return table.concat(labels) .. "\0\0\1\0\1"
end

local function u16(bytes, at)
    local high, low = bytes:byte(at, at + 1)
    return low and high * 256 + low
end

-- Returns where a name that begins at `at` ends, or nil.
local function after_name(bytes, at)
    for _ = 1, MAX_POINTERS * 4 do
        local length = bytes:byte(at)
        if not length then return nil end
        if length >= 192 then return at + 2 end
        at = at + length + 1
        if length == 0 then return at end
    end
end

-- Parses an answer. Returns the address; false if the name has none; nil if the datagram does not answer this question; nil and
-- true if the answer reports a failure of the server or is truncated.
local function address_in(bytes, id, question)
    if #bytes < 12 or bytes:sub(1, 2) ~= id or bytes:byte(3) < 128 then return nil end
    -- Only this question's answer counts. Servers may change the case of letters.
    if bytes:sub(13, 12 + #question):lower() ~= question then return nil end
    local code, count = bytes:byte(4) % 16, u16(bytes, 7)
    if code == 3 then return false end
    if code ~= 0 then return nil, true end
    local at = 13 + #question
    for _ = 1, math.min(count, MAX_POINTERS) do
        at = after_name(bytes, at)
        local kind, length = at and u16(bytes, at), at and u16(bytes, at + 8)
        if not length then return nil end
        -- With recursion, the record at the end of a chain of aliases is in the same answer.
        if kind == 1 and length == 4 and #bytes >= at + 13 then
            return string.format("%d.%d.%d.%d", bytes:byte(at + 10, at + 13))
        end
        at = at + 10 + length
    end
    -- RFC 2181 section 9: a truncated answer says nothing about what it lacks.
    if bytes:byte(3) % 4 > 1 then return nil, true end
    return false
end

-- Asks one server. Returns the address, false if there is none, or nil if it does not answer in so many seconds.
local function ask(server, question, seconds)
    -- A program that guesses the id could answer in place of the server (RFC 5452 section 4.3).
    local id = Options.random(2)
    local sock = socket.udp()
    if not sock then return nil end
    sock:settimeout(0)
    -- A connected socket takes datagrams of the server alone.
    if not sock:setpeername(server, Resolver.port) then
        sock:close()
        return nil
    end
    sock:send(id .. "\1\0\0\1\0\0\0\0\0\0" .. question)
    local started = Clock.now()
    while Operation.wait(sock, "read", started, seconds) do
        local answer, why = sock:receive()
        local address, failed
        if answer then address, failed = address_in(answer, id, question) end
        -- "refused" is LuaSocket 2's word for an empty datagram.
        if address ~= nil or failed or (why and why ~= "timeout" and why ~= "refused") then
            sock:close()
            return address
        end
    end
    sock:close()
    return nil
end

--- Returns the address of a host, or nil and the reason in the proxy's words. `seconds` since `started`: how long it may take.
function Resolver.resolve(host, started, seconds)
    if Resolver.is_address(host) then return host end
    local name = host:lower():gsub("%.$", "")
    local address = from_hosts(name) or name == "localhost" and "127.0.0.1"
    if address then return address end
    local servers, domains = settings()
    local names = { name }
    -- A name without dots is first one of the local network.
    if not name:find(".", 1, true) then
        for index, domain in ipairs(domains) do table.insert(names, index, name .. "." .. domain) end
    end
    local answered = false
    for _, full in ipairs(names) do
        local question = question_of(full)
        if not question then return nil, UNKNOWN end
        for attempt = 1, ATTEMPTS * #servers do
            local left = seconds - Clock.since(started)
            if left <= 0 then return nil, "timeout" end
            address = ask(servers[(attempt - 1) % #servers + 1], question, math.min(left, TIMEOUT))
            if address then return address end
            answered = answered or address == false
            if address == false then break end
        end
    end
    return nil, answered and UNKNOWN or UNAVAILABLE
end

return Resolver
