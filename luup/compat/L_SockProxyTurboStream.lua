--- turbo.websocket's WebSocketStream: what its client and its handler have in common once they are connected.
-- Owns the methods that send, and the state `_closed`. `conn` is the connection of L_SockProxyClient; `_error(code, words)`
-- is what the client and the handler do about an error.
-- MIT licence; part of sockproxyd.

local Headers = require "L_SockProxyHeaders"

local Stream = {}

--- turbo's error codes.
local errors = {
    INVALID_URL = -1, INVALID_SCHEMA = -2, COULD_NOT_CONNECT = -3, PARSE_ERROR_HEADERS = -4, CONNECT_TIMEOUT = -5,
    REQUEST_TIMEOUT = -6, NO_HEADERS = -7, REQUIRES_BODY = -8, INVALID_BODY = -9, SOCKET_ERROR = -10, SSL_ERROR = -11, BUSY = -12,
    REDIRECT_MAX = -13, CALLBACK_ERROR = -14, BAD_HTTP_STATUS = -15, WEBSOCKET_PROTOCOL_ERROR = -16,
}

local function send(self, verb, data)
    if self._closed then error("WebSocket connection has been closed. Can not write message.", 3) end
    if not (self.conn and self.conn:is_open()) then error("WebSocket connection is not open yet.", 3) end
    local sent, why = self.conn:send(verb, data)
    if not sent then self:_error(errors.SOCKET_ERROR, why) end
end

--- Sends a string, or a table as JSON; `binary`: as bytes. Raises an error if the connection is not open.
function Stream:write_message(msg, binary)
    if type(msg) == "table" then msg = Headers.json(msg) end
    send(self, binary and "BINA" or "TEXT", msg)
end

--- Sends a ping. When its pong arrives, `callback(callback_arg, data)` is called, or `callback(data)` if callback_arg is
-- nil.
function Stream:ping(data, callback, callback_arg)
    self.ping_callback, self.ping_argument = callback, callback_arg
    send(self, "PING", data or "")
end

--- Answers a ping. Needed only with on_ping, which replaces the automatic answer.
function Stream:pong(data)
    send(self, "PONG", data or "")
end

--- Closes the connection; on_close follows.
function Stream:close()
    if self._closed then return end
    self._closed = true
    if not self.conn then return end
    if self.conn:is_open() then self.conn:shut(1005) else self.conn:close() end
end

--- True if either side has closed the connection, else nil.
function Stream:closed()
    return self._closed
end

--- Takes the callback of the last ping. Returns it, or nil, and its arguments for a pong with that data.
function Stream:_take_ping_callback(data)
    local callback, argument = self.ping_callback, self.ping_argument
    self.ping_callback, self.ping_argument = nil, nil
    if argument ~= nil then return callback, argument, data end
    return callback, data
end

-- The codes and the beginnings of the reasons with which the proxy, or the library without it, ends a connection whose peer broke
-- a rule of the protocol. A peer may send the same codes in a close frame, to report the plugin's error.
local VIOLATIONS = { [1002] = true, [1007] = true, [1009] = true }
local REASONS = {
    "^a ", "^the message is too long", "^invalid close code", "^unknown opcode", "^close reason is not UTF%-8", "^RSV1 is set",
    "^PARSE ", "buffers=",
}

--- True if a connection ended because the peer broke a rule of the protocol, and not by the peer's own close frame.
local function is_violation(code, reason)
    if not VIOLATIONS[code] then return false end
    for _, pattern in ipairs(REASONS) do
        if tostring(reason):find(pattern) then return true end
    end
    return false
end

return { mixin = Stream, errors = errors, is_violation = is_violation }
