--- One stream socket without waits: joins what arrives in pieces, and sends the rest of a short write later.
-- Owns the socket, the received bytes that are not yet taken, and the bytes that are not yet sent. Does not know what the bytes
-- mean. The socket is LuaSocket's, to the proxy or to the remote itself, or LuaSec's.
--
-- With a timeout of zero, LuaSocket returns incomplete data as its third result and does not keep it. This module keeps every
-- byte until it is taken.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"
local Operation = require "L_SockProxyOperation"

local next = next
local byte, match, sub = string.byte, string.match, string.sub

local Transport = {}
Transport.__index = Transport

-- Bytes. The size of LuaSocket's own buffer.
local CHUNK = 8192
-- A socket of LuaSocket has this descriptor if it has none; closing it then closes nothing.
local NO_DESCRIPTOR = -1
-- LuaSec's words for "timeout".
local TIMEOUTS = { timeout = true, wantread = true, wantwrite = true }

local function reason(why)
    return why and (TIMEOUTS[why] and "timeout" or why)
end

--- Closes a socket. `plain`: LuaSocket's object, if the socket is LuaSec's, which has taken its descriptor. LuaSec's close makes
-- the socket a blocking one and sends an alert (close_notify): it would wait for a peer that does not read.
function Transport.close_socket(sock, plain)
    if plain and plain.setfd and sock.getfd then
        local _, writable = socket.select(nil, { sock }, 0)
        if not writable[sock] then
            plain:setfd(sock:getfd())
            plain:shutdown("both")
            plain:setfd(NO_DESCRIPTOR)
        end
    end
    sock:close()
end

--- Takes over a connected socket. `chunk`: bytes to read at once; `plain` as for Transport.close_socket.
function Transport.new(sock, chunk, plain)
    sock:settimeout(0)
    -- A long message goes out in several packets: the last one would otherwise wait up to 40 ms for an acknowledgement. Sockets
    -- of a plugin's own `connect` may lack the function.
    if sock.setoption then sock:setoption("tcp-nodelay", true) end
    -- Received and not yet taken: `text` from `at` on, then the strings of `later`, together `have` bytes.
    -- To be sent: `front` without its first `sent` bytes, then the strings of `behind`, together `unsent` bytes.
    return setmetatable({
        sock = sock, plain = plain, chunk = chunk or CHUNK, text = "", at = 1, later = {}, have = 0,
        behind = {}, sent = 0, unsent = 0,
    }, Transport)
end

--- Appends a piece to a list. A piece is joined with its neighbours once they are no longer than it, so that a peer which sends
-- single bytes does not take many times their memory. `longest`: bytes of a joined piece at most, or nil.
function Transport.append(pieces, piece, longest)
    local count = #pieces + 1
    pieces[count] = piece
    while count > 1 and #pieces[count - 1] <= #pieces[count]
        and not (longest and #pieces[count - 1] + #pieces[count] > longest) do
        pieces[count - 1] = pieces[count - 1] .. pieces[count]
        pieces[count] = nil
        count = count - 1
    end
end

--- Reads from the socket, one chunk at most, without waiting. Returns the number of bytes read and, if that was less than a chunk,
-- the reason: "timeout" (no more yet), "closed" or another error.
function Transport:fill()
    local sock = self.sock
    if not sock then return 0, "closed" end
    local data, why, part = sock:receive(self.chunk)
    data = data or part or ""
    local length, have = #data, self.have
    if length > 0 then
        if have == 0 then
            -- The usual case: what is read at once is all that there is.
            self.text, self.at = data, 1
        else
            Transport.append(self.later, data, self.chunk)
        end
        self.have = have + length
    elseif not why then
        -- Some releases of LuaSec have no words for an error of OpenSSL.
        why = "error"
    end
    return length, why and (TIMEOUTS[why] and "timeout" or why)
end

--- Reads one chunk, or waits if there is nothing to read. `seconds` since `started`, which Clock.now() gave: when the wait ends.
-- Returns true if the caller may find more than before, now or at its next call; else nil and the reason: "timeout", "closed" or
-- another error.
function Transport:await(started, seconds)
    local received, why = self:fill()
    if received > 0 or why == "timeout" and Operation.wait(self.sock, "read", started, seconds) then return true end
    return nil, why
end

-- Joins the received bytes into one string.
local function join(self)
    if not self.later[1] then return end
    self.text, self.at = self.text:sub(self.at) .. table.concat(self.later), 1
    self.later = {}
end

--- Takes the next `length` bytes behind `skipped` bytes, by default 0, which it takes, too. Returns nil, and takes nothing, if they
-- have not all arrived.
function Transport:bytes(length, skipped)
    local have = self.have - length - (skipped or 0)
    if have < 0 then return nil end
    self.have, self.searched = have, nil
    local text, from = self.text, self.at + (skipped or 0)
    local last = from + length - 1
    if last > #text then
        local following = self.later[1]
        if #text + #following >= last and from <= #text then
            -- The usual case: a read has ended within a message. Its rest alone is copied, not all that has come.
            table.remove(self.later, 1)
            self.text, self.at = following, last - #text + 1
            return text:sub(from) .. following:sub(1, last - #text)
        end
        join(self)
        text, from = self.text, self.at + (skipped or 0)
        last = from + length - 1
    end
    self.at = last + 1
    return sub(text, from, last)
end

--- Returns the numbers of the next bytes, `count` at most: fewer if fewer have come. They are not taken.
function Transport:peek(count)
    if #self.text - self.at + 1 < count then join(self) end
    return byte(self.text, self.at, self.at + count - 1)
end

--- Takes `length` bytes that peek() has returned.
function Transport:skip(length)
    self.at, self.have, self.searched = self.at + length, self.have - length, nil
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
    local line = self.text:sub(self.at, stop - 1)
    self.at, self.have = stop + 1, self.have - #line - 1
    if longest and #line >= longest then return nil, "line too long" end
    return line
end

--- Takes a header and the bytes that follow it. The pattern of the header begins with ^, and has two captures and () at its end;
-- the second capture is the number of bytes. Returns the first capture and the bytes. Returns nil, and takes nothing, if they are
-- not all in the piece that was read first, where they usually are. This is faster than line(), a match of the line, and bytes().
function Transport:record(pattern)
    local text, at = self.text, self.at
    local first, length, from = match(text, pattern, at)
    if not from then return nil end
    local stop = from + length
    if stop > #text + 1 then return nil end
    self.at, self.have, self.searched = stop, self.have - (stop - at), nil
    return first, sub(text, from, stop - 1)
end

--- The number of bytes that wait to be sent.
function Transport:queued()
    return self.unsent
end

--- Appends bytes to the send queue.
function Transport:push(data)
    if data == "" then return end
    if self.unsent == 0 then
        -- The usual case: nothing is copied.
        self.front, self.sent = data, 0
    else
        self.behind[#self.behind + 1] = data
    end
    self.unsent = self.unsent + #data
end

-- Sends what the socket takes now.
local function send(self)
    while self.unsent > 0 do
        if not self.sock then return nil, "closed" end
        if not self.front then
            self.front, self.behind, self.sent = table.concat(self.behind), {}, 0
        end
        local last, why, part = self.sock:send(self.front, self.sent + 1)
        local upto = math.max(self.sent, last or part or 0)
        self.unsent, self.sent = self.unsent - (upto - self.sent), upto
        if not last then return nil, reason(why or "error") end
        self.front = nil
    end
    return true
end

--- Sends the queue. Waits up to `seconds` (default: 0) while the peer does not read. The rest stays queued, in order,
-- for the next call. Returns true if the queue is empty, or nil and the reason: "timeout", "closed" or another error.
function Transport:flush(seconds)
    if self.unsent == 0 then return true end
    local sent, why = send(self)
    if sent or not seconds or why ~= "timeout" then return sent, why end
    local started = Clock.now()
    while why == "timeout" and Operation.wait(self.sock, "write", started, seconds) do
        sent, why = send(self)
    end
    return sent, why
end

--- Shuts down the sending side.
function Transport:shutdown_send()
    if self.sock and self.sock.shutdown then self.sock:shutdown("send") end
end

-- The closed transports whose sockets wait for the peer to close. Closing a socket with unread bytes resets the connection, and
-- the reset can destroy the last bytes that were sent.
local lingering = {}
-- Seconds since the peer has last taken bytes; the proxy takes at most five for a closing handshake. And seconds since the close:
-- a peer that reads slowly may take that long for a full send queue.
local MAX_LINGER, MAX_SENDING = 10, 60

--- Hands the socket and its send queue to Transport.close_lingering, which sends the queue and closes the socket after the peer has
-- closed its side. This transport has no socket afterwards. `half_close`: true if the sending side is shut down when the queue is
-- empty, which tells the peer of the end. `after`: called when the socket is closed, or nil.
function Transport:linger(half_close, after)
    if not self.sock then return end
    local rest = Transport.new(self.sock, self.chunk, self.plain)
    rest.front, rest.behind, rest.sent, rest.unsent = self.front, self.behind, self.sent, self.unsent
    rest.half_close, rest.after = half_close, after
    rest.closed_at = Clock.now()
    rest.progress_at = rest.closed_at
    lingering[rest] = true
    self.sock = nil
end

-- One step of a lingering transport. Returns true if its socket can be closed.
local function is_over(self)
    local before = self.unsent
    local sent, failed = self:flush()
    if self.unsent < before then self.progress_at = Clock.now() end
    if sent and self.half_close then
        self:shutdown_send()
        self.half_close = nil
    end
    local chunks = 0
    local why
    repeat
        chunks, why = chunks + 1, select(2, self:fill())
    until why or chunks == 64
    self.text, self.at, self.later, self.have = "", 1, {}, 0
    if Clock.since(self.progress_at) > MAX_LINGER or Clock.since(self.closed_at) > MAX_SENDING then return true end
    -- A peer that has shut down its sending side still reads. If it has closed the connection, flush() fails.
    if why == "closed" and failed == "timeout" then return false end
    return why ~= nil and why ~= "timeout"
end

--- Sends the queues of the lingering sockets, and closes those that the peer has closed or that have waited too long. Returns true
-- if any is left, and true if bytes of any wait to be sent.
function Transport.close_lingering()
    -- Every poll calls this.
    if not next(lingering) then return false end
    local over, unsent = {}, false
    for transport in pairs(lingering) do
        if is_over(transport) then
            over[#over + 1] = transport
        elseif transport.unsent > 0 then
            unsent = true
        end
    end
    for _, transport in ipairs(over) do
        lingering[transport] = nil
        transport:close()
    end
    -- These may call this function.
    for _, transport in ipairs(over) do
        if transport.after then transport.after() end
    end
    return next(lingering) ~= nil, unsent
end

--- Closes the socket.
function Transport:close()
    if self.sock then Transport.close_socket(self.sock, self.plain) end
    self.sock = nil
end

return Transport
