--- A connection that the proxy has made: its bytes pass through the proxy, in one of the framings of FRAM.
--
-- Owns the requests that lead to it (CONN, ACPT, ATCH), and how its messages are written and read. L_SockProxyDirect's
-- connections have the same methods. Everything that waits runs in an operation.
-- MIT licence; part of sockproxyd.

local Framing = require "L_SockProxyFraming"
local Handshake = require "L_SockProxyHandshake"
local Options = require "L_SockProxyOptions"

local readers = Framing.readers

local Relayed = { direct = false }
Relayed.__index = Relayed

--- Connects to the proxy. `framing`: "MESG", "LINE" or "RAW"; `needs`: the words of CAPA that it must have. Returns the
-- connection, which is in setup mode, or nil and the reason.
function Relayed.connect(options, framing, needs)
    local transport, pid, reply = Handshake.connect(options, needs)
    if not transport then return transport, pid end
    return setmetatable({
        transport = transport, pid = pid, framing = framing, patience = options.patience,
        notified = options.notify or options.NTFY,
        knows_leniency = options.lenient and Handshake.has_capabilities(options, reply, { "LENI" }),
    }, Relayed)
end

-- Closes the connection. Returns nil and the reason.
local function give_up(self, why)
    self.transport:close()
    return nil, why
end

--- Resumes the kept connection of a pid. Returns as Handshake.attach does; without a reply the connection is closed.
function Relayed:attach(pid, seen, target)
    local attached, why = Handshake.attach(self.transport, pid, seen, target, self.patience)
    if attached == nil then return give_up(self, why) end
    if attached then self.pid, self.resumed = pid, true end
    return attached, why
end

--- Ends the kept connection of a pid. Returns true, or nil and the reason.
function Relayed:drop(pid)
    return Handshake.drop(self.transport, pid, self.patience)
end

--- Leaves setup mode as the protocol has it, so that the proxy does not log an end without a word. Closes the connection.
function Relayed:quit()
    Handshake.request(self.transport, "QUIT", self.patience)
    self.transport:close()
end

--- Names the action of `notify` before CONN, so that the proxy also notifies of an error in CONN.
function Relayed:announce(notify)
    Handshake.request(self.transport, "NTFY " .. Options.notify(notify):gsub("/", " "), self.patience)
end

--- Sends CONN or ACPT, and sets `requested` then. `seconds`: how long the reply may take. `pid`: the pid that the plugin has
-- chosen, or nil. Returns the connection, or nil and the reason. Sets `ended` if the proxy has closed the connection without a
-- reply; "closed" may also be its reply.
function Relayed:request(command, seconds, pid)
    local verb = command:sub(1, 4)
    self.transport:push(command .. "\n")
    local sent, why = self.transport:flush(self.patience)
    self.requested = sent
    local line
    if sent then line, why = Handshake.reply(self.transport, seconds) end
    if not line then
        self.ended = why == "closed"
        return give_up(self, sent and why or "the proxy does not accept data: " .. tostring(why))
    end
    local given = line:match("^OK " .. verb .. " (%S+)$")
    if not given then return give_up(self, line:match("^ERR " .. verb .. " (.*)") or line) end
    -- ACPT's reply has the arrival's id, and notifications the pid that the plugin chose.
    self.pid = verb == "ACPT" and pid or given
    return self
end

--- Reads one chunk. Returns the number of bytes and the reason, as Transport:fill. Connections without the proxy have an
-- argument, the time of the turn by Clock.now().
function Relayed:read()
    return self.transport:fill()
end

--- Takes the next message; results as for Framing.readers, or nil if there is none.
function Relayed:next()
    local transport = self.transport
    if transport.have > 0 then return readers[self.framing](transport) end
end

--- The number of bytes that were read and belong to no message that was taken.
function Relayed:left()
    return self.transport.have
end

--- Queues a message, which Framing.check allows. Returns true.
function Relayed:push(verb, body, detail)
    self.transport:push(Framing.write(self.framing, verb, body, detail))
    return true
end

--- Sends what is queued; as Transport:flush.
function Relayed:flush(seconds)
    local transport = self.transport
    if transport.unsent == 0 then return true end
    return transport:flush(seconds)
end

--- The number of bytes that wait to be sent.
function Relayed:queued()
    return self.transport.unsent
end

--- Ends the connection after everything that is queued: the socket is closed when the proxy has closed its side. In MESG, CLOS
-- tells the proxy of the end. `after`: called when the socket is closed, or nil.
function Relayed:finish(after)
    self.transport:linger(self.framing ~= "MESG", after)
end

--- Closes the socket.
function Relayed:close()
    self.transport:close()
end

--- The socket, for select; nil after the end.
function Relayed:sock()
    return self.transport.sock
end

return Relayed
