--- The proxy's client for Luup plugins: TCP, TLS, UDP and WebSocket, without ever holding up Luup for long.
--
--     local proxy = require "L_SockProxyClient"
--     conn, why = proxy.open("wss://192.168.0.9:8123/api/websocket", {
--         notify = { device = lul_device, service = SID, action = "HandleReceive" },
--         VRFY = "none", PNGI = 30,                    -- options of CONN by their names
--         on_message = function(conn, message, kind) end,
--         on_close = function(conn, code, reason) end,
--     })
--     function handleReceive() if conn then conn:poll() end end   -- the action that the proxy invokes
--
-- Owns: how a connection begins, is polled, kept over a Luup reload, and ends. What may take time has a bound:
-- `patience` seconds for the proxy itself, which is on this machine and answers at once, `timeout` seconds for the
-- connection that it makes (0: does not wait; on_open or on_error come with a later poll).
-- Uses LuaSocket alone. MIT licence; part of sockproxyd.

local socket = require "socket"
local Handshake = require "L_SockProxyHandshake"
local Options = require "L_SockProxyOptions"
local Transport = require "L_SockProxyTransport"

local Client = { secret = Options.secret }

--- What holds where the options of a call say nothing else: where the proxy is, and how long is waited for it and for
-- the connection (seconds).
Client.defaults = { host = "127.0.0.1", port = 2504, patience = 2, timeout = 5 }

local Connection = {}
Connection.__index = Connection

-- Seconds for which a remote that never stops talking may hold up Luup. Not bytes: what is left in a socket to which nothing
-- is added is told of by nobody, and a socket holds much.
local LONGEST_TURN = 2
-- Bytes that may wait to be sent. Beyond, the remote takes nothing and the plugin does not notice.
local MOST_QUEUED = 1024 * 1024

-- A plugin's mistake must not lose what comes after: it is logged, and the next event goes on.
local function tell(self, name, ...)
    local callback = self.options[name]
    if not callback then return end
    local sound, trouble = pcall(callback, self, ...)
    if not sound then Options.log(self.options, "SockProxyClient: " .. name .. ": " .. tostring(trouble)) end
end

-- Ends it here. What the peer is told is said before.
local function finish(self, code, reason)
    self.state, self.code, self.reason = "closed", code, reason ~= "" and reason or "closed"
    self.wire:close()
    if self.options.group then self.options.group[self] = nil end
end

-- A connection that is not made yet, and its options: the caller's table is left as it is.
local function new(given)
    Transport.sweep()
    local options = {}
    for name, value in pairs(Client.defaults) do options[name] = value end
    for name, value in pairs(given or {}) do options[name] = value end
    return setmetatable({ options = options, state = "asking", seen = 0 }, Connection), options
end

-- Connects to the proxy. Returns true, or nil and why not.
local function reach(self, needs)
    local wire, pid = Handshake.reach(self.options, needs)
    if not wire then return nil, pid end
    self.wire, self.pid = wire, pid
    return true
end

-- It is open; `kept`: the pid under which it was kept, where it was.
local function opened(self, kept)
    self.state, self.kept = "open", kept ~= nil
    if kept then self.pid, self.seen = kept, self.options.seen or 0 end
    if self.options.group then self.options.group[self] = true end
    return self
end

-- Gives up what has not been opened.
local function refuse(self, why)
    finish(self, nil, why)
    return nil, why
end

--- Makes a connection: `target` is host:port (with PRTO = "udp" or "tls" as an option) or a ws:// or wss:// URL.
-- With KEEP it goes on with the connection of `notify.pid` that a Luup reload has left, where there is one: `conn.kept`
-- is true then, and `options.seen` is what `on_seen` said last. Where more was missed than the proxy had kept,
-- `conn.gap` is true, and the connection is a new one.
-- Returns the connection, or nil and why not.
function Client.open(target, options)
    local self
    self, options = new(options)
    -- Without it nobody says when the connection is there.
    if options.timeout <= 0 and options.notify and options.EVNT == nil then options.EVNT = "on" end
    local command, why = Options.command(target, options)
    if not command then return nil, why end
    local pid, reached, sent, there
    if options.KEEP then
        pid, why = Options.secret_of(options)
        if not pid then return nil, why end
    end
    self.framing = Options.framing(target, options)
    self.websocket = target:match("^[Ww][Ss][Ss]?://") ~= nil
    reached, why = reach(self, Options.needs(target, options))
    if not reached then return nil, why end
    if pid then
        there, why = Handshake.attach(self.wire, pid, options.seen, options.patience)
        if there then return opened(self, pid) end
        if there == nil then return refuse(self, why) end
        self.gap = why == "Gap"
        if self.gap then Handshake.drop(self.wire, pid, options.patience) end
    end
    if options.timeout <= 0 and options.notify and options.notify.service and options.notify.action then
        -- A CONN that is not even understood is told, too, if this is known before.
        Handshake.ask(self.wire, "NTFY " .. Options.notify(options.notify):gsub("/", " "), options.patience)
    end
    self.wire:push(command .. "\n")
    sent, why = self.wire:flush(options.patience)
    if not sent then return refuse(self, "the proxy takes nothing: " .. tostring(why)) end
    if options.group then options.group[self] = true end
    if options.timeout <= 0 then return self end
    there, why = self:wait(options.timeout)
    if not there then return nil, why end
    return self
end

--- Goes on with a kept connection, and makes no new one. `options` as for Client.open; `seen`, and FRAM where it is not
-- that of a WebSocket. Returns the connection, or nil and why not: "No such pid", "Gap" or what the proxy lacks.
function Client.attach(pid, options)
    local self
    self, options = new(options)
    self.framing = tostring(options.FRAM or "MESG"):upper()
    self.websocket = self.framing == "MESG"
    local reached, why = reach(self, { "KEEP" })
    if not reached then return nil, why end
    local kept
    kept, why = Handshake.attach(self.wire, pid, options.seen, options.patience)
    if not kept then return refuse(self, why) end
    return opened(self, pid)
end

--- Ends the kept connection of that pid. Returns true, or nil and why not.
function Client.drop(pid, options)
    local self
    self, options = new(options)
    local reached, why = reach(self, { "KEEP" })
    if not reached then return nil, why end
    local dropped
    dropped, why = Handshake.drop(self.wire, pid, options.patience)
    self.wire:close()
    return dropped, why
end

-- The reply to CONN, if it is there. Returns true once the connection is open, false while it is asked for, nil and why not.
local function answered(self)
    local line, why = self.wire:reply()
    if not line and not why then return false end
    local pid = line and line:match("^OK CONN (%S+)$")
    if not pid then return nil, line and (line:match("^ERR CONN (.*)") or line) or why end
    self.pid = pid
    opened(self)
    return true
end

-- What a message means. Returns false when it was the last.
local function handle(self, verb, body, detail)
    self.seen = self.seen + (self.framing == "RAW" and #body or 1)
    if verb == "TEXT" or verb == "BINA" or verb == "DGRM" then
        tell(self, "on_message", body, verb, detail)
    elseif verb == "PING" then
        tell(self, "on_ping", body)
    elseif verb == "PONG" then
        tell(self, "on_pong", body)
    elseif verb == "HEAD" then
        tell(self, "on_head", body)
    elseif verb == "CLOS" then
        finish(self, detail, body)
        tell(self, "on_close", detail, body)
    end
    return self.state == "open"
end

-- Everything that is there whole, until the plugin has closed.
local function dispatch(self)
    while self.state == "open" do
        local verb, body, detail = self.wire:message(self.framing)
        if verb then
            handle(self, verb, body, detail)
        else
            if body then
                finish(self, 1002, body)
                tell(self, "on_close", 1002, body)
            end
            return
        end
    end
end

-- The proxy has closed its end, or that was lost.
local function ended(self, why)
    local code = self.websocket and self.framing == "MESG" and 1006 or nil
    finish(self, code, why)
    tell(self, "on_close", code, why)
end

local function poll(self, seconds)
    local bytes, began, spent = 0, socket.gettime(), 0
    while spent >= 0 and spent < LONGEST_TURN do
        if self.wire:queued() > 0 then self.wire:flush() end
        local came, why = self.wire:fill(seconds)
        seconds = nil
        bytes = bytes + came
        if self.state == "asking" then
            local there, refused = answered(self)
            if not there and (refused or (why and why ~= "timeout")) then
                refused = refused or why
                finish(self, nil, refused)
                if not self.waiting then tell(self, "on_error", refused) end
                return nil, refused
            end
            if there and not self.waiting then tell(self, "on_open") end
        end
        if not (self.waiting and self.state == "open") then dispatch(self) end
        if self.state == "closed" then return nil, self.reason end
        if why == "timeout" or self.waiting then return false, bytes end
        if why then
            ended(self, why)
            return nil, why
        end
        spent = socket.gettime() - began
    end
    return true, bytes
end

--- Takes what has come and calls back for it, without waiting: to be called by the action that the proxy invokes, or now
-- and then. Returns false when all was taken, or true after two seconds of a remote that talks without end (call
-- again then, by a delay of 0), and how many bytes came; nil and why once the connection has ended.
function Connection:poll()
    -- From a callback of its own: the poll that is under way goes on.
    if self.polling then return false, 0 end
    if self.state == "closed" then return nil, self.reason end
    self.polling = true
    local before = self.seen
    local more, bytes = poll(self)
    if self.seen ~= before then tell(self, "on_seen", self.seen) end
    self.polling = false
    return more, bytes
end

--- Waits up to `seconds` for the connection to be made. Returns true, or nil and why not; it is given up then.
function Connection:wait(seconds)
    local began = socket.gettime()
    self.waiting = true
    while self.state == "asking" do
        local left = math.min(seconds, seconds - (socket.gettime() - began))
        if left <= 0 then
            self.waiting = nil
            finish(self, nil, "timeout")
            return nil, "timeout"
        end
        poll(self, left)
    end
    self.waiting = nil
    if self.state == "closed" then return nil, self.reason end
    return true
end

--- True from the OK to the end.
function Connection:is_open()
    return self.state == "open"
end

-- Hands bytes to the proxy. What it does not take within `patience` stays queued, in order, for the next call.
local function send(self, data)
    if self.state ~= "open" then return nil, self.state == "closed" and "closed" or "not connected" end
    if self.shutting then return nil, "closing" end
    local waiting = self.wire:queued()
    if waiting > MOST_QUEUED then return nil, "too much is waiting to be sent" end
    self.wire:push(data)
    -- Waited once: who takes nothing does not hold up Luup again.
    local sent, why = self.wire:flush(waiting > 0 and 0 or self.options.patience)
    if sent or why == "timeout" then return true end
    return nil, why
end

--- Sends a message: TEXT, BINA, PING or PONG, or FRAG: a piece, whose message ends with the next TEXT or BINA. In LINE and
-- RAW there are only texts and bytes. Returns true, or nil and why not.
function Connection:send(verb, body)
    body = tostring(body)
    if self.framing == "MESG" then
        if #body > 125 and (verb == "PING" or verb == "PONG") then return nil, "a ping holds at most 125 bytes" end
        return send(self, verb .. " " .. #body .. "\n" .. body)
    end
    if verb ~= "TEXT" and verb ~= "BINA" then return nil, verb .. " needs FRAM=MESG" end
    if self.framing == "LINE" then
        if body:find("\n", 1, true) then return nil, "a line end inside a line" end
        body = body .. "\n"
    end
    return send(self, body)
end

--- Sends a text, which must be UTF-8.
function Connection:text(body) return self:send("TEXT", body) end

--- Sends bytes; over UDP with FRAM=MESG, a datagram to the target.
function Connection:binary(body) return self:send("BINA", body) end

--- Sends a datagram to "address:port", over UDP with FRAM=MESG.
function Connection:datagram(body, to)
    if tostring(to):find("[%s%c]") then return nil, "no address: " .. tostring(to) end
    return send(self, "DGRM " .. #body .. " " .. to .. "\n" .. body)
end

--- Asks whether the remote is there; on_pong has its answer.
function Connection:ping(body) return self:send("PING", body or "") end

--- Answers on_ping, where CTRL=hand leaves that to the plugin.
function Connection:pong(body) return self:send("PONG", body or "") end

--- True if bytes are waiting because the remote takes none.
function Connection:is_queued() return self.wire:queued() > 0 end

-- Says CLOS, where there is such a thing. Returns true, or nil and why not.
local function say_close(self, code, reason)
    if self.framing ~= "MESG" then return true end
    local allowed, why = Options.may_close(code, reason)
    if not allowed then return nil, why end
    if self.state == "open" and not self.shutting then
        self.wire:push(string.format("CLOS %d %d\n", code, #reason) .. reason)
    end
    self.shutting = true
    return true
end

--- Begins the closing handshake of a WebSocket: with `code` (1000; 1005: none) and `reason`, at most 123 bytes. Messages
-- come still; on_close comes with the answer, after five seconds at most. Returns true, or nil and why not.
function Connection:shut(code, reason)
    if self.framing ~= "MESG" then return nil, "a closing handshake needs FRAM=MESG" end
    local said, why = say_close(self, code or 1000, reason or "")
    if said then self.wire:flush(self.options.patience) end
    return said, why
end

--- Ends the connection, kept or not; `code` and `reason` as for Connection:shut. No callback comes any more. The socket
-- itself is closed once the proxy has closed its end, by any later call of this module. Returns true, or nil and why not.
function Connection:close(code, reason)
    if self.state == "closed" then return true end
    code, reason = code or 1000, reason or ""
    local said, why = say_close(self, code, reason)
    if not said then return nil, why end
    if self.state == "open" and self.wire:flush(self.options.patience) then
        if self.framing ~= "MESG" then self.wire:finish() end
        self.wire:linger()
        Transport.sweep()
    end
    finish(self, code, reason)
    if self.options.KEEP and self.framing ~= "MESG" then Client.drop(self.pid, self.options) end
    return true
end

--- Leaves the connection to the proxy, to be found again by KEEP's pid: what a Luup reload does unasked.
function Connection:leave()
    if self.state ~= "closed" then finish(self, nil, "left") end
end

--- Polls those connections of a group (`options.group`, a table that is theirs) whose pid it is; all, without one.
-- Returns true if one of them may have more.
function Client.handle(group, pid)
    Transport.sweep()
    local more = false
    local known = {}
    for connection in pairs(group) do known[#known + 1] = connection end
    for _, connection in ipairs(known) do
        if not pid or connection.pid == pid or connection.state == "asking" then
            more = connection:poll() or more
        end
    end
    return more
end

--- For scripts outside of Luup, which may wait: polls the connections of a group until the last has ended, `done()` or
-- for as many seconds.
function Client.loop(group, done, seconds)
    local began = socket.gettime()
    while next(group) and not (done and done()) do
        local sockets, left = {}, seconds and seconds - (socket.gettime() - began)
        if left and left <= 0 then return false end
        for connection in pairs(group) do sockets[#sockets + 1] = connection.wire.sock end
        -- What could not be sent is tried again within a second.
        socket.select(sockets, nil, math.min(left or 1, 1))
        Client.handle(group)
    end
    return true
end

return Client
