--- Connections to a plugin: the proxy listens on a port, and the plugin accepts or denies each arrival.
--
--     listener, why = proxy.listen {
--         address = "0.0.0.0", port = 8081, protocol = "ws", path = "/panel",
--         notify = { device = lul_device, service = SID, action = "HandleReceive" }, timer = "handleReceive",
--         group = group, on_incoming = function(listener, arrival)
--             local conn, why = listener:accept(arrival.id, { on_message = ..., on_close = ... })
--         end,
--     }
--     function handleReceive() proxy.handle(group) end            -- the action that the proxy calls, and the timer
--
-- Owns the line of LSTN, and the life of a listener: its connection to the proxy (its owner, in the words of the protocol), the
-- arrivals that the proxy reports on it, and asking the proxy again after it has ended. L_SockProxyClient makes a claimed arrival
-- a connection, which outlives its listener.
--
-- No call waits except Listener.open, for the proxy's replies: the proxy runs on this machine. Everything else happens
-- in polls. After a Luup reload the plugin listens again: the proxy gives the port to the newer listener.
-- MIT licence; part of sockproxyd.

local Clock = require "L_SockProxyClock"
local Handshake = require "L_SockProxyHandshake"
local Operation = require "L_SockProxyOperation"
local Options = require "L_SockProxyOptions"
local Timer = require "L_SockProxyTimer"

local Listener = {}
Listener.__index = Listener

-- The listener's names of its options, and those of LSTN.
local NAMES = {
    protocol = "PRTO", path = "PATH", origins = "ORIG", subprotocols = "SUBP", auth = "AUTH", certificate = "CERT", key = "PKEY",
    wait = "WAIT", headers = "RHDR",
}

-- Seconds. A poll returns after this time even if arrivals are still reported; the rest follows in a poll that the library asks
-- Luup for. listen() returns after MAX_OPEN_WAIT.
local MAX_TURN, MAX_OPEN_WAIT = 0.05, 0.1
-- Bytes. Longer than any request's target that the proxy passes on; and the longest head.
local MAX_LINE, MAX_HEAD = 16384, 65536
-- Seconds before the proxy is asked again: doubled after each failure. A listener that lasted LASTING seconds sets it
-- back: longer than MAX_DELAY, so that two listeners that take the same path from each other do it once a minute.
local MIN_DELAY, MAX_DELAY, LASTING = 1, 60, 150
-- Seconds between the polls by Luup's timer while the listener listens: they find a proxy that has died.
local TIMER_INTERVAL = 5
-- Seconds that a poll which has asked the proxy waits for the replies. They usually take a millisecond.
local MAX_REPLY_WAIT = 0.05

local function log(self, words)
    Options.log(self.options, "SockProxyClient: port " .. tostring(self.options.port) .. ": " .. words)
end

-- Calls a callback of the plugin. An error in it is logged. Returns false then.
local function call_back(self, name, ...)
    local callback = self.options[name]
    if not callback then return true end
    local ok, err = pcall(callback, self, ...)
    if not ok then log(self, name .. ": " .. tostring(err)) end
    return ok
end

-- Has Luup poll the listener when something is due.
local function arm_timer(self)
    local wait = TIMER_INTERVAL
    if self.state == "closed" then return end
    if self.more then
        wait = 0
    elseif self.state == "connecting" then
        wait = MAX_REPLY_WAIT
    elseif self.state == "lost" then
        wait = math.max(self.retry_at - Clock.now(), 0)
    end
    Timer.arm(self, math.min(wait, MAX_DELAY))
end

-- Called when the proxy has closed the socket, does not reply, or refuses.
local function set_lost(self, why)
    if self.transport then self.transport:close() end
    self.operation = nil
    local now = Clock.now()
    local was_listening = self.state == "listening"
    if was_listening and now - self.since >= LASTING then self.delay = MIN_DELAY end
    self.state, self.transport, self.pid = "lost", nil, nil
    self.retry_at = now + self.delay
    self.delay = math.min(self.delay * 2, MAX_DELAY)
    local known = self.reason == why
    self.reason = why
    -- A reason that stays the same is reported once. Listener.open returns its own.
    if not self.opening and (was_listening or not known) then
        log(self, "not listening: " .. why)
        call_back(self, "on_lost", why)
    end
end

-- Begins to connect to the proxy, whose name may have to be looked up.
local function dial(self)
    local at = self.options.proxy
    self.state, self.operation = "connecting", Operation.start(function() return Handshake.dial(at, at.patience) end)
end

-- Called when that has an outcome. Sends everything at once; the replies are read by polls.
local function set_dialled(self, transport, why)
    if not transport then return set_lost(self, why) end
    self.operation = nil
    self.transport, self.state, self.expected, self.since = transport, "connecting", "greeting", Clock.now()
    self.arrival = nil
    transport:push("CAPA\n" .. self.command .. "\n")
    transport:flush()
end

-- The words of CAPA that a listener for this protocol needs.
local function capabilities_for(protocol)
    local needs = { "LSTN" }
    protocol = tostring(protocol):lower()
    if Options.is_websocket(protocol) then needs[#needs + 1] = "WS" end
    if protocol == "tls" or protocol == "wss" then needs[#needs + 1] = "TLS" end
    return needs
end

-- The replies to what dial() has sent. Each returns true, or nil and the reason why the listener does not listen.
local replies = {}

function replies.greeting(self, line)
    self.expected = "capabilities"
    return Handshake.greeted(self.options.proxy, line)
end

function replies.capabilities(self, line)
    self.expected, self.knows_leniency = "result", Handshake.has_capabilities(self.options.proxy, line, { "LENI" })
    return Handshake.has_capabilities(self.options.proxy, line, capabilities_for(self.options.protocol))
end

function replies.result(self, line)
    local pid = line:match("^OK LSTN (%S+)$")
    if not pid then return nil, line:match("^ERR LSTN (.*)") or line end
    self.pid, self.state, self.since, self.reason = pid, "listening", Clock.now(), nil
    if not self.opening then call_back(self, "on_listening") end
    return true
end

local function query_decoded(text)
    return (text:gsub("%+", " "):gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

--- Returns the parameters of a URL's query, decoded, in order: a list of { name =, value = }.
function Listener.query(text)
    local parameters = {}
    for word in text:gmatch("[^&]+") do
        local name, value = word:match("^([^=]*)=?(.*)$")
        parameters[#parameters + 1] = { name = query_decoded(name), value = query_decoded(value) }
    end
    return parameters
end

-- The parameters of a query by their names. Of several with one name, the first.
local function query_of(text)
    local query = {}
    for _, pair in ipairs(Listener.query(text)) do
        if query[pair.name] == nil then query[pair.name] = pair.value end
    end
    return query
end

-- The headers of a request's head by their names in lower case. Several of one name are joined as RFC 9110 section 5.3
-- says.
local function headers_of(head)
    local headers = {}
    for line in (head:match("\n(.*)$") or ""):gmatch("[^\r\n]+") do
        local name, value = line:match("^([^:]+):[ \t]*(.*)$")
        if name then
            name, value = name:lower(), value:sub(1, value:find("[^ \t][ \t]*$") or 0)
            headers[name] = headers[name] and headers[name] .. ", " .. value or value
        end
    end
    return headers
end

-- Parses INCO. Returns the arrival and the length of the head that follows, if any; nil if the line is something else.
local function arrival_of(line)
    local id, peer, target, offered, length = line:match("^INCO (%S+) (%S+) (%S+) (%S+) ?(%d*)$")
    if not id then return nil end
    local arrival = { id = id, peer = peer, address = peer:match("^%[?(.-)%]?:%d+$") or peer, subprotocols = {}, query = {} }
    if target ~= "-" then
        arrival.target, arrival.path = target, target:match("^[^?]*")
        arrival.query = query_of(target:match("%?(.*)$") or "")
    end
    if offered ~= "-" then
        for name in offered:gmatch("[^,]+") do table.insert(arrival.subprotocols, name) end
    end
    return arrival, tonumber(length)
end

-- Reads the head that belongs to the last INCO. Returns false until it has arrived.
local function take_head(self)
    local arrival, length = self.arrival, self.head_length
    if length then
        arrival.head = self.transport:bytes(length)
        if not arrival.head then return false end
        arrival.headers = headers_of(arrival.head)
    end
    self.arrival = nil
    if not call_back(self, "on_incoming", arrival) then self:deny(arrival.id, 500) end
    return true
end

-- Handles what has arrived since `started`. Returns false if it has handled all, true if it takes too long, or nil and the
-- reason for which the listener must end.
local function dispatch(self, started)
    local handled = false
    -- The plugin has no listener before Listener.open returns; arrivals are for the next poll.
    while self.transport and not (self.opening and self.state == "listening") do
        -- A callback that accepts waits for the proxy. However long one takes, each turn handles one.
        if handled and Clock.since(started) > MAX_TURN then return true end
        if self.arrival then
            if not take_head(self) then return false end
            handled = true
        else
            local line, why = self.transport:line(MAX_LINE)
            if why then return nil, why end
            if not line then return false end
            if self.state == "connecting" then
                local ok
                ok, why = replies[self.expected](self, line)
                if not ok then return nil, why end
            else
                self.arrival, self.head_length = arrival_of(line)
                if (self.head_length or 0) > MAX_HEAD then return nil, "a head is too long" end
                -- An arrival may be over before the plugin denies it.
                if line:match("^ERR ") and line ~= "ERR DENY No such id" then log(self, line) end
            end
        end
    end
    return false
end

-- Reads one chunk and handles it, or waits if there is none. `seconds` since `started`: when the wait ends, or nil for no wait.
-- Returns true if there may be more to read, or if what was read is not handled yet.
local function read_chunk(self, started, seconds)
    self.transport:flush()
    local _, why
    if seconds then _, why = self.transport:await(started, seconds) else _, why = self.transport:fill() end
    local unhandled, wrong = dispatch(self, started)
    if not self.transport then return false end
    if unhandled then return true end
    if wrong then
        set_lost(self, wrong)
    elseif why and why ~= "timeout" then
        set_lost(self, self.state == "connecting" and "the proxy does not reply: " .. why or "the proxy has ended it")
    end
    return not why
end

-- `seconds`: how long to wait for the replies to what dial() sends. Returns true if there may be more to read.
local function poll(self, seconds)
    local started = Clock.now()
    if self.state == "lost" then
        if Clock.now() < self.retry_at then return false end
        dial(self)
    end
    if self.operation then
        local done, transport, why = self.operation:run(seconds)
        if not done then return false end
        set_dialled(self, transport, why)
        while self.state == "connecting" and Clock.since(started) < seconds do
            read_chunk(self, started, seconds)
        end
        if self.opening then return false end
    end
    while self.transport and read_chunk(self, started) do
        if Clock.since(started) > MAX_TURN then return true end
    end
    if self.state == "connecting" and Clock.since(self.since) > self.options.proxy.patience then
        set_lost(self, "the proxy does not reply: timeout")
    end
    return false
end

--- Reads which arrivals there are and calls the callbacks, without waiting. After the proxy has ended, asks it again, at
-- growing intervals. L_SockProxyClient.handle calls it. Returns false, or true if there may be more to read; nil and
-- the reason after close().
function Listener:poll()
    -- Called from one of its own callbacks: the poll that is running continues.
    if self.polling then return false end
    if self.state == "closed" then return nil, self.reason end
    self.polling = true
    self.more = poll(self, MAX_REPLY_WAIT)
    self.polling = false
    arm_timer(self)
    return self.more
end

--- Returns the LSTN line for `options` in the names of L_SockProxyClient.listen or of LSTN, without its line end, or nil
-- and the reason.
function Listener.command(options)
    local port = tonumber(options.port)
    if not port or port % 1 ~= 0 or port < 1 or port > 65535 then return nil, "invalid port: " .. tostring(options.port) end
    local given = { notify = options.notify }
    for name, value in pairs(options) do
        name = NAMES[name] or name
        if Options.is_of_command(name) then given[name] = value end
    end
    local address = options.address
    if address and address ~= "*" and not tostring(address):match("^%[?[%w.:]+%]?$") then
        return nil, "invalid address: " .. tostring(address)
    end
    if address and address:match("^[^%[].*:") then address = "[" .. address .. "]" end
    local at = (address and address .. ":" or "") .. string.format("%d", port)
    return Options.line({ "LSTN", at }, given, { SUBP = true, ORIG = true })
end

--- Listens. L_SockProxyClient.listen is this function for plugins. `options`:
--
-- * port, address (default: 127.0.0.1, for this machine alone; "*": all), protocol ("tcp", "tls", "ws" or "wss"; default: "ws").
-- * path: the one path of a WebSocket that is wanted; without, all that no other listener of the port has. origins: the
--   pages that browsers may connect from, a list of patterns. subprotocols: a list. auth: "user:password". certificate,
--   key: files of the proxy's tls directory. wait: the seconds that an arrival waits for the plugin (10). headers: true
--   if arrivals have the request's head. Other options of LSTN by name.
-- * notify, group, log, patience as for L_SockProxyClient.open. timeout: with a number above 0, the call waits up to `patience`
--   for the outcome, and fails if the proxy is not there, refuses or does not reply. With 0 the call succeeds in these cases, and
--   the listener asks the proxy again until it listens. Without `timeout` the call waits for MAX_OPEN_WAIT. It then fails if the
--   proxy is not there or has refused, and succeeds if the proxy has not replied yet.
-- * timer: the name of a global function of the plugin that polls. It replaces the library's own function where Luup does not find
--   that one. proxy: { host =, port = }.
-- * on_incoming(listener, arrival); on_listening(listener); on_lost(listener, reason), after which the listener tries
--   again by itself.
--
-- `accept`: L_SockProxyClient.accept. Returns the listener, or nil and the reason.
function Listener.open(options, accept)
    if type(options.on_incoming) ~= "function" then return nil, "listen needs on_incoming" end
    options.protocol = options.protocol or options.PRTO or "ws"
    local command, why = Listener.command(options)
    if not command then return nil, why end
    local self = setmetatable({
        options = options, claim = accept, command = command, state = "lost", delay = MIN_DELAY, retry_at = 0,
    }, Listener)
    self.opening = not options.timeout or options.timeout > 0
    local wait = options.timeout and (self.opening and options.patience or MAX_REPLY_WAIT) or MAX_OPEN_WAIT
    self.more = poll(self, wait)
    if self.opening and self.state ~= "listening" and (options.timeout or self.state ~= "connecting") then
        why = self.reason or "the proxy does not reply: timeout"
        self:close()
        return nil, why
    end
    self.opening = nil
    if options.group then options.group[self] = true end
    arm_timer(self)
    return self
end

--- Claims an arrival. `options` are those of L_SockProxyClient.accept; `notify`, `group`, `log` and `patience` are the
-- listener's unless they are given. For a WebSocket, SUBP chooses the subprotocol and HDRS adds headers to the response.
-- Returns a connection as L_SockProxyClient.open does, or nil and the reason: "No such id" if the peer has gone.
function Listener:accept(id, options)
    local own, at = self.options, self.options.proxy
    local given = {
        protocol = own.protocol, group = own.group, log = own.log, patience = own.patience,
        host = at.host, port = at.port, chunk = at.chunk, connect = at.connect,
    }
    -- The listener's pid is not that of its connections.
    if own.notify then given.notify = { device = own.notify.device, service = own.notify.service, action = own.notify.action } end
    for name, value in pairs(options or {}) do given[name] = value end
    return self.claim(id, given)
end

--- Denies an arrival: `status`, 300 to 599 and by default 403, and a reason of one line are the response to a WebSocket.
-- Other protocols have no response, and are closed. Returns true, or nil and the reason.
function Listener:deny(id, status, reason)
    status = status or 403
    if type(status) ~= "number" or status % 1 ~= 0 or status < 300 or status > 599 then
        return nil, "invalid status: " .. tostring(status)
    end
    if self.state ~= "listening" then return nil, "not listening" end
    reason = tostring(reason or ""):gsub("%c+", " "):match("^%s*(.-)%s*$")
    if #reason > 1024 then reason = reason:sub(1, 1024) end
    self.transport:push(string.format("DENY %s %d", (tostring(id):gsub("[%s%c]", "")), status)
        .. (reason ~= "" and " " .. reason or "") .. "\n")
    self.transport:flush()
    return true
end

--- The socket, for select, or nil while the listener waits before it asks the proxy again.
function Listener:sock()
    if self.operation then return self.operation.sock end
    return self.transport and self.transport.sock
end

--- True while the proxy listens.
function Listener:is_listening()
    return self.state == "listening"
end

--- Ends the listener. Arrivals that were not claimed get 503; connections stay. No callback follows.
function Listener:close()
    if self.transport then
        self.transport:push("QUIT\n")
        self.transport:flush()
        self.transport:close()
    end
    if self.operation then self.operation:cancel() end
    self.transport, self.operation, self.state, self.reason = nil, nil, "closed", "closed"
    Timer.disarm(self)
    if self.options.group then self.options.group[self] = nil end
end

return Listener
