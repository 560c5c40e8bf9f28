--- What is said to the proxy before bytes pass: the greeting, what it can do, kept connections.
-- Owns: the conversation of one command and one line of reply, each within `patience` seconds: the proxy is on this
-- machine and answers at once. Only a sick one takes that long.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Transport = require "L_SockProxyTransport"

local Handshake = {}

--- One line of reply within so many seconds; nil and why not.
function Handshake.reply(wire, seconds)
    local began = socket.gettime()
    while true do
        local line, trouble = wire:reply()
        if line then return line end
        if trouble then return nil, trouble end
        -- Who sets the clock back does not make this wait longer.
        local left = math.min(seconds, seconds - (socket.gettime() - began))
        if left <= 0 then return nil, "timeout" end
        local came, why = wire:fill(left)
        if why and came == 0 then return nil, why end
    end
end

--- Says a command; the reply, or nil and why there is none.
function Handshake.ask(wire, command, patience)
    wire:push(command .. "\n")
    local sent, why = wire:flush(patience)
    if not sent then return nil, why end
    return Handshake.reply(wire, patience)
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

--- Connects to the proxy and looks who it is. `options`: host, port, patience, `connect(host, port, options)` where not
-- LuaSocket's own, `chunk`; `needs`: words of CAPA.
-- Returns the wire and the pid of the greeting, or nil and why not.
function Handshake.reach(options, needs)
    local where = options.host .. ":" .. options.port
    local sock, why = (options.connect or tcp)(options.host, options.port, options)
    if not sock then return nil, "no proxy at " .. where .. ": " .. tostring(why) end
    local wire = Transport.new(sock, options.chunk)
    local function refuse(words)
        wire:close()
        return nil, words
    end
    local greeting
    greeting, why = Handshake.reply(wire, options.patience)
    if not greeting then return refuse("the proxy at " .. where .. " does not greet: " .. tostring(why)) end
    local pid = greeting:match("^OK TOGGLEDBITS%-SOCKPROXY %d+ (%S+)$")
    if not pid then
        local words = greeting:match("^ERR .*")
        return refuse(words and "the proxy at " .. where .. " says: " .. words or "who listens at " .. where .. " is no proxy")
    end
    if #needs == 0 then return wire, pid end
    -- The Lua daemon has no such words, and its first releases not even CAPA: they close.
    local words = " " .. (Handshake.ask(wire, "CAPA", options.patience) or "") .. " "
    local missing = {}
    for _, need in ipairs(needs) do
        if not words:find(" " .. need .. " ", 1, true) then missing[#missing + 1] = need end
    end
    if #missing == 0 then return wire, pid end
    return refuse("the proxy at " .. where .. " is the Lua daemon or too old: it lacks " .. table.concat(missing, " "))
end

--- Goes on with the kept connection of that pid; `seen`: what was read of it, if that is known.
-- Returns true, or false and why not ("No such pid", "Gap"), or nil and why where the proxy does not answer.
function Handshake.attach(wire, pid, seen, patience)
    local answer, why = Handshake.ask(wire, seen and string.format("ATCH %s SEEN=%.0f", pid, seen) or "ATCH " .. pid, patience)
    if not answer then return nil, "the proxy does not answer: " .. tostring(why) end
    if answer == "OK ATCH " .. pid then return true end
    return false, answer:match("^ERR ATCH (.*)") or answer
end

--- Ends the kept connection of that pid. Returns true, or nil and why not.
function Handshake.drop(wire, pid, patience)
    local answer, why = Handshake.ask(wire, "DROP " .. pid, patience)
    if answer == "OK DROP" then return true end
    return nil, answer and answer:match("^ERR DROP (.*)") or answer or why
end

return Handshake
