--- Setup mode of a connection to the proxy: the greeting, the proxy's capabilities, kept connections.
-- Owns the exchange of one command and one line of reply. Each takes at most `patience` seconds: the proxy runs on
-- this machine and replies at once unless it hangs. The waits are those of L_SockProxyOperation.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"
local Operation = require "L_SockProxyOperation"
local Transport = require "L_SockProxyTransport"

local Handshake = {}

-- Bytes. A reply may contain a long reason.
local MAX_LINE = 16384
-- Seconds that are left for connecting at least, however long the look-up of the proxy's name took.
local MIN_DIAL = 0.05
-- The host of the proxy unless the plugin names another.
local LOOPBACK = "127.0.0.1"

--- Reads one line of reply within so many seconds. Returns it, or nil and the reason.
function Handshake.reply(transport, seconds)
    local started = Clock.now()
    while true do
        local line, why = transport:line(MAX_LINE)
        if line or why then return line, why end
        local readable
        readable, why = transport:await(started, seconds)
        if not readable then return nil, why end
    end
end

--- Sends a command. Returns the reply, or nil and the reason.
function Handshake.request(transport, command, patience)
    transport:push(command .. "\n")
    local sent, why = transport:flush(patience)
    if not sent then return nil, why end
    return Handshake.reply(transport, patience)
end

--- Connects a TCP socket within so many seconds. Returns it, or nil and the reason in the system's words.
function Handshake.connect_tcp(host, port, seconds)
    local sock, why = socket.tcp()
    if not sock then return nil, why end
    sock:settimeout(0)
    local started = Clock.now()
    local connected
    connected, why = sock:connect(host, port)
    while not connected and why == "timeout" and Operation.wait(sock, "write", started, seconds) do
        -- A second connect(2) reports how the first one ended. Before that, its words are the system's, not LuaSocket's.
        local _, writable = socket.select(nil, { sock }, 0)
        if writable[sock] then connected, why = sock:connect(host, port) end
    end
    if connected or why == "already connected" then return sock end
    sock:close()
    return nil, why
end

local function address_of(options)
    return options.host .. ":" .. options.port
end

-- Returns false if the reason is that the proxy does not react, else nil.
local function failure(why)
    if why == "timeout" then return false end
    return nil
end

--- Calls a plugin's own `connect(host, port, options)`. Returns the socket, or nil and the reason. If the function
-- raises an error, the error is the reason.
function Handshake.call_connect(options, host, port)
    local ok, sock, why = pcall(options.connect, host, port, options)
    if not ok then sock, why = nil, sock end
    return sock, tostring(why)
end

-- Connects to the proxy's port within so many seconds. Returns the socket, or nil and the reason.
local function connect_to_proxy(options, seconds)
    local host, started = options.host, Clock.now()
    if host ~= LOOPBACK then
        -- LuaSocket would wait for the name server. Most plugins never need this, and it takes memory.
        local why
        host, why = require("L_SockProxyResolver").resolve(host, started, seconds)
        -- A name server that does not answer says nothing about the proxy.
        if not host then return nil, "no address: " .. why end
    end
    return Handshake.connect_tcp(host, options.port, math.max(seconds - Clock.since(started), MIN_DIAL))
end

--- Connects to the proxy and reads nothing. `options`: host, port, patience, chunk, and `connect(host, port, options)`
-- in place of LuaSocket's own, which may block. `seconds`: how long it may take. Returns the transport; or nil and the reason;
-- or false and the reason if the proxy does not react, as one that hangs.
function Handshake.dial(options, seconds)
    local sock, why
    if options.connect then
        sock, why = Handshake.call_connect(options, options.host, options.port)
    else
        sock, why = connect_to_proxy(options, seconds)
    end
    if not sock then return failure(why), "no proxy at " .. address_of(options) .. ": " .. tostring(why) end
    return Transport.new(sock, options.chunk)
end

--- Returns the pid of a greeting, or nil and the reason if the line is not a greeting.
function Handshake.greeted(options, line)
    local pid = line:match("^OK TOGGLEDBITS%-SOCKPROXY %d+ (%S+)$")
    if pid then return pid end
    local words = line:match("^ERR .*")
    return nil, words and "the proxy at " .. address_of(options) .. " replies: " .. words
        or "the program at " .. address_of(options) .. " is not sockproxyd"
end

--- Returns true if the reply to CAPA has the words `needs`, else nil and the reason. Without a reply, all words are
-- missing: the first releases of the Lua daemon do not know CAPA and close the connection.
function Handshake.has_capabilities(options, reply, needs)
    local words, missing = " " .. (reply or "") .. " ", {}
    for _, need in ipairs(needs) do
        if not words:find(" " .. need .. " ", 1, true) then missing[#missing + 1] = need end
    end
    if #missing == 0 then return true end
    return nil, "the proxy at " .. address_of(options) .. " is the Lua daemon or too old: it lacks " .. table.concat(missing, " ")
end

--- Connects to the proxy and checks that it has the capabilities `needs`, which are words of CAPA. `options` as for
-- Handshake.dial. Returns the transport, the pid of the greeting, and the reply to CAPA, which is nil if `needs` is empty. Else
-- returns nil or false and the reason, as Handshake.dial.
function Handshake.connect(options, needs)
    local transport, why = Handshake.dial(options, options.patience)
    if not transport then return transport, why end
    local function give_up(words, result)
        transport:close()
        return result, words
    end
    local greeting, pid, reply, capable
    greeting, why = Handshake.reply(transport, options.patience)
    if not greeting then
        return give_up("the proxy at " .. address_of(options) .. " does not greet: " .. tostring(why), failure(why))
    end
    pid, why = Handshake.greeted(options, greeting)
    if not pid then return give_up(why) end
    if #needs == 0 then return transport, pid end
    reply = Handshake.request(transport, "CAPA", options.patience)
    capable, why = Handshake.has_capabilities(options, reply, needs)
    if not capable then return give_up(why) end
    return transport, pid, reply
end

--- Resumes the kept connection of a pid. `seen`: how much of it the plugin has read, or nil; `target`: where it must lead, or
-- nil. Returns true, or false and the reason ("No such pid", "Gap", "Other target"), or nil and the reason if the proxy does not
-- reply.
function Handshake.attach(transport, pid, seen, target, patience)
    local command = "ATCH " .. pid .. (seen and string.format(" SEEN=%.0f", seen) or "") .. (target and " CONN=" .. target or "")
    local answer, why = Handshake.request(transport, command, patience)
    if not answer then return nil, "the proxy does not reply: " .. tostring(why) end
    if answer == "OK ATCH " .. pid then return true end
    return false, answer:match("^ERR ATCH (.*)") or answer
end

--- Ends the kept connection of a pid. Returns true, or nil and the reason.
function Handshake.drop(transport, pid, patience)
    local answer, why = Handshake.request(transport, "DROP " .. pid, patience)
    if answer == "OK DROP" then return true end
    return nil, answer and answer:match("^ERR DROP (.*)") or answer or why
end

return Handshake
