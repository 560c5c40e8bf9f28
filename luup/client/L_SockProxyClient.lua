--- Client of sockproxyd for Luup plugins: TCP, TLS, UDP and WebSocket. No call blocks the Luup engine for long.
--
--     local proxy = require "L_SockProxyClient"
--     conn, why = proxy.open("wss://192.168.0.9:8123/api/websocket", {
--         notify = { device = lul_device, service = SID, action = "HandleReceive" },
--         VRFY = "none", PNGI = 30,                    -- options of CONN, by name
--         on_message = function(conn, message, kind) end,
--         on_close = function(conn, code, reason) end,
--     })
--     function handleReceive() if conn then conn:poll() end end   -- the action that the proxy calls
--
-- The other direction, connections to the plugin:
--
--     listener, why = proxy.listen { port = 8081, protocol = "ws", notify = ...,
--         on_incoming = function(listener, arrival) listener:accept(arrival.id, { on_message = ... }) end }
--
-- Owns the life of a connection: opening, claiming, polling, resuming it after a Luup reload, closing.
-- L_SockProxyListener owns that of a listener. Every wait has a limit:
-- `patience` seconds for a reply of the proxy, which runs on this machine and replies at once, and `timeout` seconds
-- for the connection that the proxy makes (0: open() returns at once, and on_open or on_error follows in a later poll).
-- Needs only LuaSocket. MIT licence; part of sockproxyd.

local socket = require "socket"
local Handshake = require "L_SockProxyHandshake"
local Listener = require "L_SockProxyListener"
local Options = require "L_SockProxyOptions"
local Transport = require "L_SockProxyTransport"

local Client = { secret = Options.secret }

--- Defaults for the options of a call: the proxy's address, the limit for its replies and the limit for the connection
-- (seconds).
Client.defaults = { host = "127.0.0.1", port = 2504, patience = 2, timeout = 5 }

local Connection = {}
Connection.__index = Connection

-- Seconds. A poll returns after this time even if the remote still sends. The limit is a time and not a number of
-- bytes: the proxy sends no further notification for bytes that are already in the plugin's socket, and a socket buffer
-- holds many.
local MAX_POLL_TIME = 2
-- Bytes. A longer send queue means that the remote does not read and the plugin ignores it.
local MAX_QUEUED = 1024 * 1024

-- Calls a callback of the plugin. An error in it is logged, and the next event is still delivered.
local function call_back(self, name, ...)
    local callback = self.options[name]
    if not callback then return end
    local ok, err = pcall(callback, self, ...)
    if not ok then Options.log(self.options, "SockProxyClient: " .. name .. ": " .. tostring(err)) end
end

-- Closes the connection on this side. The caller has sent the remote what it must know.
local function set_closed(self, code, reason)
    self.state, self.code, self.reason = "closed", code, reason ~= "" and reason or "closed"
    self.transport:close()
    if self.options.group then self.options.group[self] = nil end
end

-- Returns a connection that is not open yet, and its options. The caller's table is not changed.
local function new(given)
    Transport.close_lingering()
    local options = {}
    for name, value in pairs(Client.defaults) do options[name] = value end
    for name, value in pairs(given or {}) do options[name] = value end
    return setmetatable({ options = options, state = "connecting", seen = 0 }, Connection), options
end

-- Connects to the proxy. Returns true, or nil and the reason.
local function connect_proxy(self, needs)
    local transport, pid = Handshake.connect(self.options, needs)
    if not transport then return nil, pid end
    self.transport, self.pid = transport, pid
    return true
end

-- Marks the connection as open. `resumed`: the pid of the kept connection that it continues, or nil.
local function set_open(self, resumed)
    self.state, self.kept = "open", resumed ~= nil
    if resumed then self.pid, self.seen = resumed, self.options.seen or 0 end
    if self.options.group then self.options.group[self] = true end
    return self
end

-- Gives up a connection that was not opened.
local function give_up(self, why)
    set_closed(self, nil, why)
    return nil, why
end

-- Sends CONN or ACPT, and waits for the reply as `timeout` says. Returns the connection, or nil and the reason.
local function request(self, command)
    local options = self.options
    self.verb = command:sub(1, 4)
    self.transport:push(command .. "\n")
    local sent, ok, why
    sent, why = self.transport:flush(options.patience)
    if not sent then return give_up(self, "the proxy does not accept data: " .. tostring(why)) end
    if options.group then options.group[self] = true end
    if options.timeout <= 0 then return self end
    ok, why = self:wait(options.timeout)
    if not ok then return nil, why end
    return self
end

--- Opens a connection. `target` is host:port (with PRTO = "udp" or "tls" as an option) or a ws:// or wss:// URL.
-- With KEEP, the call resumes the connection that `notify.pid` left behind at a Luup reload, if there is one:
-- `conn.kept` is then true. `options.seen` is the last value that `on_seen` gave. If the plugin missed more than the
-- proxy keeps, `conn.gap` is true and the connection is a new one.
-- Returns the connection, or nil and the reason.
function Client.open(target, options)
    local self
    self, options = new(options)
    -- Without EVNT no notification follows when the connection is open.
    if options.timeout <= 0 and options.notify and options.EVNT == nil then options.EVNT = "on" end
    local command, why = Options.command(target, options)
    if not command then return nil, why end
    local pid, connected, ok
    if options.KEEP then
        pid, why = Options.kept_pid(options)
        if not pid then return nil, why end
    end
    self.framing = Options.framing(target, options)
    self.websocket = target:match("^[Ww][Ss][Ss]?://") ~= nil
    connected, why = connect_proxy(self, Options.required_capabilities(target, options))
    if not connected then return nil, why end
    if pid then
        ok, why = Handshake.attach(self.transport, pid, options.seen, options.patience)
        if ok then return set_open(self, pid) end
        if ok == nil then return give_up(self, why) end
        self.gap = why == "Gap"
        if self.gap then Handshake.drop(self.transport, pid, options.patience) end
    end
    if options.timeout <= 0 and options.notify and options.notify.service and options.notify.action then
        -- If the proxy knows the action before it reads CONN, it notifies of a syntax error in CONN, too.
        Handshake.request(self.transport, "NTFY " .. Options.notify(options.notify):gsub("/", " "), options.patience)
    end
    return request(self, command)
end

--- Listens for connections to the plugin; L_SockProxyListener has the options, the methods and the callbacks. Returns the
-- listener, or nil and the reason.
function Client.listen(options)
    Transport.close_lingering()
    local given = {}
    for name, value in pairs(options) do given[name] = value end
    for _, name in ipairs { "patience", "timeout" } do
        if given[name] == nil then given[name] = Client.defaults[name] end
    end
    local at = options.proxy or {}
    given.proxy = {
        host = at.host or Client.defaults.host, port = at.port or Client.defaults.port, patience = given.patience,
        chunk = at.chunk, connect = at.connect,
    }
    return Listener.open(given, Client.accept)
end

--- Claims the arrival of an id; Listener:accept does the same with the listener's defaults. `options` are those of
-- Client.open, with `protocol` ("tcp", "tls", "ws" or "wss"; default: "ws"). With KEEP, Client.attach resumes the
-- connection after a Luup reload. Returns the connection, or nil and the reason: "No such id" if the arrival is over.
function Client.accept(id, options)
    local self
    self, options = new(options)
    if options.KEEP then
        local pid, why = Options.kept_pid(options)
        if not pid then return nil, why end
    end
    local command, why = Options.accept_command(id, options)
    if not command then return nil, why end
    self.websocket = Options.is_websocket(options.protocol or "ws")
    self.framing = options.FRAM and tostring(options.FRAM):upper() or self.websocket and "MESG" or "RAW"
    local connected
    connected, why = connect_proxy(self, {})
    if not connected then return nil, why end
    return request(self, command)
end

--- Resumes a kept connection and never makes a new one. `options` are those of Client.open, with `seen`, and with FRAM
-- if the framing is not MESG. Returns the connection, or nil and the reason: "No such pid", "Gap" or the capabilities
-- that the proxy lacks.
function Client.attach(pid, options)
    local self
    self, options = new(options)
    self.framing = tostring(options.FRAM or "MESG"):upper()
    self.websocket = self.framing == "MESG"
    local connected, why = connect_proxy(self, { "KEEP" })
    if not connected then return nil, why end
    local kept
    kept, why = Handshake.attach(self.transport, pid, options.seen, options.patience)
    if not kept then return give_up(self, why) end
    return set_open(self, pid)
end

--- Ends the kept connection of a pid. Returns true, or nil and the reason.
function Client.drop(pid, options)
    local self
    self, options = new(options)
    local connected, why = connect_proxy(self, { "KEEP" })
    if not connected then return nil, why end
    local dropped
    dropped, why = Handshake.drop(self.transport, pid, options.patience)
    self.transport:close()
    return dropped, why
end

-- Reads the reply to CONN or ACPT. Returns true if the connection is open, false if no reply has arrived, or nil and the
-- reason.
local function read_conn_reply(self)
    local line, why = self.transport:reply()
    if not line and not why then return false end
    local pid = line and line:match("^OK " .. self.verb .. " (%S+)$")
    if not pid then return nil, line and (line:match("^ERR " .. self.verb .. " (.*)") or line) or why end
    -- ACPT's reply has the arrival's id, and notifications the pid that the plugin chose.
    local chosen = self.verb == "ACPT" and self.options.notify and self.options.notify.pid
    self.pid = chosen and chosen ~= "" and chosen or pid
    set_open(self)
    return true
end

-- Delivers one message to the callbacks. Returns false if the connection is closed afterwards.
local function deliver(self, verb, body, detail)
    self.seen = self.seen + (self.framing == "RAW" and #body or 1)
    if verb == "TEXT" or verb == "BINA" or verb == "DGRM" then
        call_back(self, "on_message", body, verb, detail)
    elseif verb == "PING" then
        call_back(self, "on_ping", body)
    elseif verb == "PONG" then
        call_back(self, "on_pong", body)
    elseif verb == "HEAD" then
        call_back(self, "on_head", body)
    elseif verb == "CLOS" then
        set_closed(self, detail, body)
        call_back(self, "on_close", detail, body)
    end
    return self.state == "open"
end

-- Delivers every complete message, until the plugin closes the connection.
local function dispatch(self)
    while self.state == "open" do
        local verb, body, detail = self.transport:message(self.framing)
        if verb then
            deliver(self, verb, body, detail)
        else
            if body then
                set_closed(self, 1002, body)
                call_back(self, "on_close", 1002, body)
            end
            return
        end
    end
end

-- Called when the proxy has closed the socket or the socket has failed.
local function connection_lost(self, why)
    local code = self.websocket and self.framing == "MESG" and 1006 or nil
    set_closed(self, code, why)
    call_back(self, "on_close", code, why)
end

local function poll(self, seconds)
    local bytes, started, elapsed = 0, socket.gettime(), 0
    while elapsed >= 0 and elapsed < MAX_POLL_TIME do
        if self.transport:queued() > 0 then self.transport:flush() end
        local received, why = self.transport:fill(seconds)
        seconds = nil
        bytes = bytes + received
        if self.state == "connecting" then
            local open, refused = read_conn_reply(self)
            if not open and (refused or (why and why ~= "timeout")) then
                refused = refused or why
                set_closed(self, nil, refused)
                if not self.waiting then call_back(self, "on_error", refused) end
                return nil, refused
            end
            if open and not self.waiting then call_back(self, "on_open") end
        end
        if not (self.waiting and self.state == "open") then dispatch(self) end
        if self.state == "closed" then return nil, self.reason end
        if why == "timeout" or self.waiting then return false, bytes end
        if why then
            connection_lost(self, why)
            return nil, why
        end
        elapsed = socket.gettime() - started
    end
    return true, bytes
end

--- Reads what has arrived and calls the callbacks, without waiting. The action that the proxy calls uses it; a plugin
-- without notifications calls it at intervals. Returns false if everything was read, or true if the remote still sends
-- after two seconds (call it again, by a delay of 0), and the number of bytes read. Returns nil and the reason once
-- the connection has ended.
function Connection:poll()
    -- Called from one of its own callbacks: the poll that is running continues.
    if self.polling then return false, 0 end
    if self.state == "closed" then return nil, self.reason end
    self.polling = true
    local before = self.seen
    local more, bytes = poll(self)
    if self.seen ~= before then call_back(self, "on_seen", self.seen) end
    self.polling = false
    return more, bytes
end

--- Waits up to `seconds` until the connection is open. Returns true, or nil and the reason; the connection is then
-- closed.
function Connection:wait(seconds)
    local started = socket.gettime()
    self.waiting = true
    while self.state == "connecting" do
        local left = math.min(seconds, seconds - (socket.gettime() - started))
        if left <= 0 then
            self.waiting = nil
            set_closed(self, nil, "timeout")
            return nil, "timeout"
        end
        poll(self, left)
    end
    self.waiting = nil
    if self.state == "closed" then return nil, self.reason end
    return true
end

--- True from the OK to CONN or ACPT until the connection closes.
function Connection:is_open()
    return self.state == "open"
end

-- Sends bytes to the proxy. Bytes that it does not accept within `patience` seconds stay queued, in order, for the next
-- call.
local function send(self, data)
    if self.state ~= "open" then return nil, self.state == "closed" and "closed" or "not connected" end
    if self.closing then return nil, "closing" end
    local queued = self.transport:queued()
    if queued > MAX_QUEUED then return nil, "send queue is full" end
    self.transport:push(data)
    -- The plugin waits once for a remote that does not read, not at each send.
    local sent, why = self.transport:flush(queued > 0 and 0 or self.options.patience)
    if sent or why == "timeout" then return true end
    return nil, why
end

--- Sends a message: TEXT, BINA, PING or PONG, or FRAG: one fragment of a message that ends with the next TEXT or BINA.
-- LINE and RAW have only TEXT and BINA. Returns true, or nil and the reason.
function Connection:send(verb, body)
    body = tostring(body)
    if self.framing == "MESG" then
        if #body > 125 and (verb == "PING" or verb == "PONG") then return nil, "a ping has at most 125 bytes" end
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

--- Sends a ping. on_pong has the answer.
function Connection:ping(body) return self:send("PING", body or "") end

--- Sends a pong. With CTRL=hand, the plugin answers on_ping by it.
function Connection:pong(body) return self:send("PONG", body or "") end

--- True if bytes are queued because the remote does not read.
function Connection:is_queued() return self.transport:queued() > 0 end

-- Queues CLOS if the framing has it. Returns true, or nil and the reason.
local function queue_close(self, code, reason)
    if self.framing ~= "MESG" then return true end
    local valid, why = Options.check_close(code, reason)
    if not valid then return nil, why end
    if self.state == "open" and not self.closing then
        self.transport:push(string.format("CLOS %d %d\n", code, #reason) .. reason)
    end
    self.closing = true
    return true
end

--- Starts the closing handshake of a WebSocket with `code` (1000; 1005: no code) and `reason` (at most 123 bytes).
-- Messages may still arrive. on_close follows when the remote has answered, after five seconds at most. Returns true,
-- or nil and the reason.
function Connection:shut(code, reason)
    if self.framing ~= "MESG" then return nil, "a closing handshake needs FRAM=MESG" end
    local ok, why = queue_close(self, code or 1000, reason or "")
    if ok then self.transport:flush(self.options.patience) end
    return ok, why
end

--- Closes the connection, kept or not; `code` and `reason` as for Connection:shut. No callback follows. The socket
-- itself is closed by a later call of this module, after the proxy has closed its side. Returns true, or nil and the
-- reason.
function Connection:close(code, reason)
    if self.state == "closed" then return true end
    code, reason = code or 1000, reason or ""
    local ok, why = queue_close(self, code, reason)
    if not ok then return nil, why end
    if self.state == "open" and self.transport:flush(self.options.patience) then
        if self.framing ~= "MESG" then self.transport:shutdown_send() end
        self.transport:linger()
        Transport.close_lingering()
    end
    set_closed(self, code, reason)
    if self.options.KEEP and self.framing ~= "MESG" then Client.drop(self.pid, self.options) end
    return true
end

--- Parks the connection at the proxy, where KEEP's pid finds it again. A Luup reload does the same without a call.
function Connection:leave()
    if self.state ~= "closed" then set_closed(self, nil, "left") end
end

--- Polls the connections of a group (`options.group`, a table that the group owns) that have this pid, or all of them
-- if `pid` is nil, and its listeners. Returns true if one of them may have more to read.
function Client.handle(group, pid)
    Transport.close_lingering()
    local more = false
    local connections = {}
    for connection in pairs(group) do connections[#connections + 1] = connection end
    for _, connection in ipairs(connections) do
        -- A poll of a listener takes one system call, and finds out that the proxy has ended, of which nothing notifies.
        if not pid or connection.pid == pid or connection.state ~= "open" then
            more = connection:poll() or more
        end
    end
    return more
end

--- For scripts outside of Luup, which may block: polls a group until its last connection and listener have closed, until
-- `done()` is true or until `seconds` have passed.
function Client.loop(group, done, seconds)
    local started = socket.gettime()
    while next(group) and not (done and done()) do
        local sockets, left = {}, seconds and seconds - (socket.gettime() - started)
        if left and left <= 0 then return false end
        for connection in pairs(group) do
            -- A listener that waits before it connects again has none.
            if connection.transport then sockets[#sockets + 1] = connection.transport.sock end
        end
        -- Queued bytes are sent within a second.
        socket.select(sockets, nil, math.min(left or 1, 1))
        Client.handle(group)
    end
    return true
end

return Client
