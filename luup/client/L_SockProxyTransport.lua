--- One LuaSocket connection to the proxy: joins what arrives in pieces, and sends the rest of a short write later.
-- Owns the socket, the received bytes that are not yet a complete message, and the bytes that are not yet sent. Knows
-- the three framings of FRAM, but not what messages mean.
--
-- With a timeout of zero, LuaSocket returns incomplete data as its third result and does not keep it. This module
-- keeps every byte until its message is complete.
-- MIT licence; part of sockproxyd.

local socket = require "socket"

local Transport = {}
Transport.__index = Transport

-- Bytes. The size of LuaSocket's own buffer.
local CHUNK = 8192
-- Bytes. The longest header in MESG, its newline included, has 64. A reply may contain a long reason.
local MAX_HEADER, MAX_LINE = 64, 16384

--- Takes over a connected socket. `chunk`: bytes to read at once.
function Transport.new(sock, chunk)
    -- A long message goes out in several packets: the last one would otherwise wait up to 40 ms for an acknowledgement. Sockets
    -- of a plugin's own `connect` may lack the function.
    if sock.setoption then sock:setoption("tcp-nodelay", true) end
    -- Received and not yet taken: `text` from `at` on, then the strings of `later`, together `have` bytes.
    -- To be sent: `unsent` without its first `sent` bytes.
    return setmetatable({ sock = sock, chunk = chunk or CHUNK, text = "", at = 1, later = {}, have = 0, sent = 0 }, Transport)
end

-- LuaSocket has two timeouts: "b" limits each wait, "t" all waits of one call together.
local function set_timeout(sock, seconds)
    sock:settimeout(seconds, "b")
    sock:settimeout(seconds, "t")
end

--- Reads from the socket without waiting, one chunk at most. With `seconds`, waits so long for the first byte. Returns
-- the number of bytes read and, if that was less than a chunk, the reason: "timeout" (no more yet), "closed" or
-- another error.
function Transport:fill(seconds)
    if not self.sock then return 0, "closed" end
    local wanted = self.chunk
    -- A wait for a whole chunk would not end when the remote sends less.
    if seconds and seconds > 0 then wanted = 1 else seconds = 0 end
    set_timeout(self.sock, seconds)
    local data, why, part = self.sock:receive(wanted)
    data = data or part or ""
    if data ~= "" then
        self.later[#self.later + 1] = data
        self.have = self.have + #data
    end
    return #data, why
end

-- Joins the received bytes into one string.
local function join(self)
    if #self.later == 0 then return end
    self.text, self.at = self.text:sub(self.at) .. table.concat(self.later), 1
    self.later = {}
end

--- Takes the next `length` bytes, or returns nil if they have not all arrived.
function Transport:bytes(length)
    if self.have < length then return nil end
    if #self.text - self.at + 1 < length then join(self) end
    local from = self.at
    self.at, self.have = from + length, self.have - length
    return self.text:sub(from, from + length - 1)
end

--- Takes the next line and returns it without its line end. Returns nil if the line is incomplete, or nil and the
-- reason if it has `longest` bytes or more.
function Transport:line(longest)
    join(self)
    -- The part that was searched before has no line end.
    local stop = self.text:find("\n", self.at + (self.searched or 0), true)
    if not stop then
        self.searched = self.have
        if longest and self.have >= longest then return nil, "line too long" end
        return nil
    end
    self.searched = nil
    local line = self:bytes(stop - self.at + 1):sub(1, -2)
    if longest and #line >= longest then return nil, "line too long" end
    return line
end

--- Takes a reply of setup mode; results as for Transport:line.
function Transport:reply()
    return self:line(MAX_LINE)
end

-- Parses a header: verb, length, and the code of CLOS or the address of DGRM.
local function header(line)
    local verb, length = line:match("^(%u%u%u%u) (%d+)$")
    if verb then return verb ~= "CLOS" and verb ~= "DGRM" and { verb = verb, length = tonumber(length) } or nil end
    local detail
    verb, detail, length = line:match("^(CLOS) (%d+) (%d+)$")
    if verb then return { verb = verb, length = tonumber(length), detail = tonumber(detail) } end
    verb, length, detail = line:match("^(DGRM) (%d+) (%S+)$")
    if verb then return { verb = verb, length = tonumber(length), detail = detail } end
end

local readers = {}

function readers.MESG(self)
    local head = self.head
    if not head then
        local line, why = self:line(MAX_HEADER)
        if not line then return nil, why end
        head = header(line)
        if not head then return nil, "invalid message header: " .. line end
        self.head = head
    end
    local body = self:bytes(head.length)
    if not body then return nil end
    self.head = nil
    return head.verb, body, head.detail
end

function readers.LINE(self)
    local line = self:line()
    if line then return "TEXT", line end
end

function readers.RAW(self)
    if self.have > 0 then return "BINA", self:bytes(self.have) end
end

--- Takes the next message in that framing. Returns its verb, its bytes and, for CLOS, its code or, for DGRM, its
-- sender. Returns nil if the message is incomplete, or nil and the reason if the bytes are not a message.
function Transport:message(framing)
    return readers[framing](self)
end

--- True if received bytes were not taken.
function Transport:pending()
    return self.have > 0
end

--- The number of bytes that wait to be sent.
function Transport:queued()
    return self.unsent and #self.unsent - self.sent or 0
end

--- Appends bytes to the send queue.
function Transport:push(data)
    self.unsent = self.unsent and self.unsent:sub(self.sent + 1) .. data or data
    self.sent = 0
end

--- Sends the queue. Waits up to `seconds` (default: 0) while the proxy does not read. The rest stays queued, in order,
-- for the next call. Returns true if the queue is empty, or nil and the reason: "timeout", "closed" or another error.
function Transport:flush(seconds)
    if not self.unsent then return true end
    if not self.sock then return nil, "closed" end
    set_timeout(self.sock, seconds or 0)
    local last, why, part = self.sock:send(self.unsent, self.sent + 1)
    if not last then
        self.sent = math.max(self.sent, part or 0)
        return nil, why
    end
    self.unsent, self.sent = nil, 0
    return true
end

--- Shuts down the sending side.
function Transport:shutdown_send()
    if self.sock then self.sock:shutdown("send") end
end

-- Closed transports whose sockets wait for the proxy to close, with the time of the close. Closing a socket with unread
-- bytes resets the connection, and the reset can destroy the last bytes that were sent.
local lingering = {}
-- Seconds. The proxy takes at most five for a closing handshake.
local MAX_LINGER = 10

--- Hands the socket to Transport.close_lingering, which closes it after the proxy has closed its side. This transport
-- has no socket afterwards.
function Transport:linger()
    lingering[Transport.new(self.sock, self.chunk)] = socket.gettime()
    self.sock = nil
end

--- Closes the lingering sockets that the proxy has closed or that have waited too long.
function Transport.close_lingering()
    local now = socket.gettime()
    for transport, since in pairs(lingering) do
        local chunks = 0
        local why
        repeat
            chunks, why = chunks + 1, select(2, transport:fill())
        until why or chunks == 64
        transport.text, transport.at, transport.later, transport.have = "", 1, {}, 0
        if (why and why ~= "timeout") or now - since > MAX_LINGER or now < since then
            lingering[transport] = nil
            transport:close()
        end
    end
end

--- Closes the socket.
function Transport:close()
    if self.sock then self.sock:close() end
    self.sock = nil
end

return Transport
