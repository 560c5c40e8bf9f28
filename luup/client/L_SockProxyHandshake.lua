--- Setup mode of a connection to the proxy: the greeting, the proxy's capabilities, kept connections.
-- Owns the exchange of one command and one line of reply. Each takes at most `patience` seconds: the proxy runs on
-- this machine and replies at once unless it hangs.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Transport = require "L_SockProxyTransport"

local Handshake = {}

--- Reads one line of reply within so many seconds. Returns it, or nil and the reason.
function Handshake.reply(transport, seconds)
    local started = socket.gettime()
    while true do
        local line, err = transport:reply()
        if line then return line end
        if err then return nil, err end
        -- A clock that is set back does not extend the wait.
        local left = math.min(seconds, seconds - (socket.gettime() - started))
        if left <= 0 then return nil, "timeout" end
        local received, why = transport:fill(left)
        if why and received == 0 then return nil, why end
    end
end

--- Sends a command. Returns the reply, or nil and the reason.
function Handshake.request(transport, command, patience)
    transport:push(command .. "\n")
    local sent, why = transport:flush(patience)
    if not sent then return nil, why end
    return Handshake.reply(transport, patience)
end

local function tcp(host, port, options)
    local sock, why = socket.tcp()
    if not sock then return nil, why end
    sock:settimeout(options.patience)
    local connected
    connected, why = sock:connect(host, port)
    if connected then return sock end
    sock:close()
    return nil, why
end

--- Connects to the proxy and checks that it has the capabilities `needs`, which are words of CAPA. `options`: host,
-- port, patience, chunk, and `connect(host, port, options)` in place of LuaSocket's own.
-- Returns the transport and the pid of the greeting, or nil and the reason.
function Handshake.connect(options, needs)
    local address = options.host .. ":" .. options.port
    local sock, why = (options.connect or tcp)(options.host, options.port, options)
    if not sock then return nil, "no proxy at " .. address .. ": " .. tostring(why) end
    local transport = Transport.new(sock, options.chunk)
    local function give_up(words)
        transport:close()
        return nil, words
    end
    local greeting
    greeting, why = Handshake.reply(transport, options.patience)
    if not greeting then return give_up("the proxy at " .. address .. " does not greet: " .. tostring(why)) end
    local pid = greeting:match("^OK TOGGLEDBITS%-SOCKPROXY %d+ (%S+)$")
    if not pid then
        local words = greeting:match("^ERR .*")
        return give_up(words and "the proxy at " .. address .. " replies: " .. words
            or "the program at " .. address .. " is not sockproxyd")
    end
    if #needs == 0 then return transport, pid end
    -- The Lua daemon lacks these words. Its first releases do not know CAPA and close the connection.
    local words = " " .. (Handshake.request(transport, "CAPA", options.patience) or "") .. " "
    local missing = {}
    for _, need in ipairs(needs) do
        if not words:find(" " .. need .. " ", 1, true) then missing[#missing + 1] = need end
    end
    if #missing == 0 then return transport, pid end
    return give_up("the proxy at " .. address .. " is the Lua daemon or too old: it lacks " .. table.concat(missing, " "))
end

--- Resumes the kept connection of a pid. `seen`: how much of it the plugin has read, or nil.
-- Returns true, or false and the reason ("No such pid", "Gap"), or nil and the reason if the proxy does not reply.
function Handshake.attach(transport, pid, seen, patience)
    local answer, why = Handshake.request(transport, seen and string.format("ATCH %s SEEN=%.0f", pid, seen) or "ATCH " .. pid, patience)
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
