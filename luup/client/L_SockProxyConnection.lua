--- The life of one connection of L_SockProxyClient: opening it in steps, polls and their timer, callbacks, opening it again, its
-- end. Plugins know its methods.
--
-- A connection is "connecting" (an operation runs), "open" (it has a channel: L_SockProxyRelayed's or L_SockProxyDirect's),
-- "waiting" before it is opened again, or "closed". L_SockProxyClient says how to connect.
-- MIT licence; part of sockproxyd.

local Clock = require "L_SockProxyClock"
local Framing = require "L_SockProxyFraming"
local Operation = require "L_SockProxyOperation"
local Options = require "L_SockProxyOptions"
local Timer = require "L_SockProxyTimer"
local Transport = require "L_SockProxyTransport"

local Connection = {}
Connection.__index = Connection

-- Seconds. open() returns after this time, and a poll, even if the remote still sends: Luup stands still meanwhile. The rest
-- follows in a poll that the library asks Luup for.
local MAX_OPEN_WAIT, MAX_TURN = 0.1, 0.05
-- Seconds that one call waits for a peer that does not read. The rest stays queued.
local MAX_SEND_WAIT = 0.05
-- Bytes. A longer send queue means that the remote does not read and the plugin ignores it.
local MAX_QUEUED = 1024 * 1024
-- Seconds between polls while the proxy notifies: they find a proxy that has died, and a notification that was lost.
local BACKUP_INTERVAL = 5
-- Seconds between polls without notifications: the first after something was received or sent, then longer by GROWTH each time,
-- up to the last. Vera's timers have whole seconds.
local MIN_INTERVAL, MAX_INTERVAL, GROWTH = 0.02, 2, 1.5
-- Seconds before a connection is opened again: doubled after each failure. A connection that lasted longer than MAX_DELAY sets it
-- back.
local MIN_DELAY, MAX_DELAY = 1, 60
-- Seconds. With HEAL, a connection that lasted so long sets the delay back, as in the proxy.
local HEAL_LASTING = 10
-- A connection through the proxy that is silent for so many times `proxy_interval` has the library ask whether the proxy hangs.
local HANG_INTERVALS = 10
-- Seconds of silence before a direct connection may be replaced by one through the proxy, and seconds beyond RTIM after which the
-- library asks whether the proxy, which enforces it, hangs.
local MIN_SILENCE = 5
-- The kinds of messages that a plugin may send by their names.
local KINDS = { TEXT = true, BINA = true, FRAG = true, PING = true, PONG = true }

local function log(self, words)
    Options.log(self.options, "SockProxyClient: " .. words)
end

-- Calls a callback of the plugin. An error in it is logged, and the next event is still delivered.
local function call_back(self, name, ...)
    local callback = self.options[name]
    if not callback then return end
    local ok, err = pcall(callback, self, ...)
    if not ok then log(self, name .. ": " .. tostring(err)) end
end

-- The seconds until the next poll is due without a notification.
local function next_poll(self)
    if self.more then return 0 end
    if self.state == "waiting" then return math.max(self.retry_at - Clock.now(), 0) end
    local seconds = self.interval
    if self.state == "open" and self.channel:queued() > 0 then
        -- The notifications do not tell when the peer takes more.
        seconds = math.min(seconds, 10 * MIN_INTERVAL)
    elseif self.state == "open" and self.channel.notified and not self.probe then
        seconds = BACKUP_INTERVAL
    end
    if self.due then seconds = math.min(seconds, self.due) end
    return seconds
end

local function arm_timer(self)
    if self.state ~= "closed" and Timer.available() then Timer.arm(self, next_poll(self)) end
end

-- Polls soon: something was sent or received, so that something may come.
local function expect_data(self)
    self.interval = MIN_INTERVAL
end

-- Polls the sockets whose peers have not closed yet.
local lingerer = { options = {} }
function lingerer:poll()
    local left, unsent = Transport.close_lingering()
    if left then Timer.arm(self, unsent and 0.1 or 1) else Timer.disarm(self) end
end

-- Ends the channel after what is queued. `after`: called then, or nil.
local function finish(self, after)
    self.channel:finish(after)
    lingerer:poll()
end

-- Closes the channel of a connection, and cancels its operations.
local function release(self)
    if self.operation then self.operation:cancel() end
    if self.probe then self.probe:cancel() end
    if self.channel then self.channel:close() end
    self.operation, self.probe, self.channel, self.requesting, self.due = nil, nil, nil, nil, nil
end

-- Closes the connection on this side for good. The caller has sent the remote what it must know.
local function set_closed(self, code, reason)
    release(self)
    self.state, self.code, self.reason, self.more = "closed", code, reason ~= "" and reason or "closed", false
    self.early = nil
    if self.options.group then self.options.group[self] = nil end
    Timer.disarm(self)
end

-- Returns the longest delay of HEAL in seconds, or nil if the library does not open the connection again for HEAL. The proxy does
-- that for a connection through it. A connection that has never been open fails as without HEAL.
local function heal_delay(self)
    local seconds = tonumber(self.options.HEAL)
    local is_ours = self.direct and (self.opened_at or self.healing) and not self.closing
    return is_ours and seconds and seconds > 0 and math.max(seconds, MIN_DELAY) or nil
end

-- Ends the connection; it is opened again if the plugin wants that and has not closed it. Messages that wait for a connection
-- that could not be made wait for the next one.
local function set_ended(self, code, reason)
    local max_delay, lasting = heal_delay(self), HEAL_LASTING
    self.healing = max_delay ~= nil
    if not max_delay then max_delay, lasting = MAX_DELAY, MAX_DELAY end
    if not (self.healing or self.options.reconnect) then return set_closed(self, code, reason) end
    release(self)
    if self.opened_at and Clock.since(self.opened_at) > lasting then self.delay = MIN_DELAY end
    self.state, self.code, self.reason, self.opened_at, self.more = "waiting", code, reason, nil, false
    -- A kept connection may still be at the proxy.
    if self.kept ~= nil then self.resume_at = self.seen end
    self.retry_at = Clock.now() + self.delay
    self.delay = math.min(self.delay * 2, max_delay)
end

-- Tells the plugin of the end.
local function tell_end(self, code, reason)
    if self.healing then call_back(self, "on_lost", reason) else call_back(self, "on_close", code, reason) end
end

--- Returns a connection that is not open yet. `options`: those of Client.open, with defaults. `connect(self)` runs in an operation
-- and returns a channel, or nil and the reason. `framing` and `websocket` are those of its messages.
function Connection.new(options, framing, websocket, connect)
    return setmetatable({
        options = options, framing = framing, websocket = websocket, connect = connect, resume_at = options.seen,
        state = "connecting", seen = 0, read = 0, interval = MIN_INTERVAL, delay = MIN_DELAY,
    }, Connection)
end

-- Sends what the plugin sent before the connection was open.
local function send_early(self)
    local early = self.early
    self.early = nil
    for _, message in ipairs(early or {}) do
        local sent, why = self.channel:push(message[1], message[2], message[3])
        if not sent then log(self, "not sent: " .. why) end
    end
    self.channel:flush()
end

-- Returns true if polls are to look at whether the proxy is there, and after how many seconds. It is kept, so that polls need not
-- find it out. Without the proxy, a connection that may be opened again moves to it. A proxy that hangs closes nothing, and no RTIM
-- holds.
local function proxy_watch(self)
    local options = self.options
    local seconds = options.proxy_interval
    if self.direct then return options.direct and (options.reconnect or heal_delay(self)), seconds end
    seconds = seconds * HANG_INTERVALS
    local limit = tonumber(options.RTIM) or 0
    if limit > 0 then seconds = math.min(seconds, limit / 1000 + MIN_SILENCE) end
    return self.find_proxy ~= nil, seconds
end

-- Marks the connection as open. `quiet`: without on_open, since the caller of open() learns it otherwise.
local function set_open(self, channel, quiet)
    self.channel, self.state, self.operation, self.opened_at = channel, "open", nil, Clock.now()
    self.looked_at, self.read_at = self.opened_at, self.opened_at
    self.kept, self.pid, self.direct = channel.resumed or false, channel.pid, channel.direct
    self.seen = self.kept and self.resume_at or 0
    self.closing, self.code, self.reason, self.undelivered = nil, nil, nil, nil
    self.watches_proxy, self.look_interval = proxy_watch(self)
    local healed = self.healing
    self.healing = false
    expect_data(self)
    if self.options.group then self.options.group[self] = true end
    -- What was stored of an earlier connection would count as a gap.
    if self.options.KEEP and not self.kept then call_back(self, "on_seen", 0) end
    if self.state == "open" then send_early(self) end
    if self.state ~= "open" then return end
    if healed then call_back(self, "on_back") elseif not quiet then call_back(self, "on_open") end
end

-- Called when a connection was not opened. `quiet`: without on_error.
local function set_failed(self, why, quiet)
    set_ended(self, nil, why)
    if not quiet and not self.healing then call_back(self, "on_error", why) end
end

-- Begins to open the connection.
local function begin(self)
    self.state, self.gap = "connecting", nil
    expect_data(self)
    self.operation = Operation.start(function() return self:connect() end)
end

-- Called with the outcome of opening. `quiet`: without callbacks, since the caller of open() learns it otherwise.
local function settle(self, quiet, done, channel, why)
    if not done then return end
    self.operation = nil
    if channel then set_open(self, channel, quiet) else set_failed(self, why, quiet) end
end

--- Opens the connection for the first time. Returns it, or nil and the reason.
function Connection:start()
    local options = self.options
    if options.group then options.group[self] = true end
    begin(self)
    local quiet = not options.reconnect
    if not options.timeout then
        settle(self, quiet, self.operation:run(MAX_OPEN_WAIT))
    elseif options.timeout > 0 then
        self:wait(options.timeout)
    else
        -- Until the proxy reads the request: its notification tells of the outcome. A script of its own, which no timer polls, may
        -- block as long as the proxy needs: `patience` limits each of its replies.
        local limit = Timer.available() and MAX_OPEN_WAIT or math.huge
        local function requested() return self.requesting and self.requesting.requested end
        local done, channel, why = self.operation:run(limit, requested)
        if done and requested() then
            -- The callbacks are for a poll, when the plugin has the connection.
            self.operation = Operation.start(function() return channel, why end)
        else
            settle(self, quiet, done, channel, why)
        end
    end
    if self.state == "closed" then return nil, self.reason end
    arm_timer(self)
    return self
end

-- Delivers one message to the callbacks.
local function deliver(self, verb, body, detail)
    self.seen = self.seen + (self.framing == "RAW" and #body or 1)
    if verb == "TEXT" or verb == "BINA" or verb == "DGRM" then
        -- Each message passes here: by call_back() it would take 475 instructions more, of some 29 000.
        local on_message = self.options.on_message
        if not on_message then return end
        local ok, err = pcall(on_message, self, body, verb, detail)
        if not ok then log(self, "on_message: " .. tostring(err)) end
    elseif verb == "PING" then
        call_back(self, "on_ping", body)
    elseif verb == "PONG" then
        call_back(self, "on_pong", body)
    elseif verb == "HEAD" then
        call_back(self, "on_head", body)
    elseif verb == "CLOS" then
        -- What the library has queued in answer is still sent.
        self.channel:flush()
        finish(self)
        set_ended(self, detail, body)
        tell_end(self, detail, body)
    elseif verb == "EVNT" then
        local reason = body:match("^lost ?(.*)$")
        if reason then call_back(self, "on_lost", reason) else call_back(self, "on_back") end
    end
end

-- Called when a channel breaks off: the socket was closed, has failed, or has brought what is no message.
local function set_lost(self, why, code)
    if not code and self.websocket and self.framing == "MESG" then code = 1006 end
    set_ended(self, code, why)
    tell_end(self, code, why)
end

-- Delivers the complete messages, until the plugin closes the connection. Returns false if the turn took too long before that.
local function dispatch(self, started)
    local channel = self.channel
    while self.state == "open" do
        local verb, body, detail = channel:next()
        if not verb then
            if body then set_lost(self, body, 1002) end
            return true
        end
        deliver(self, verb, body, detail)
        -- Usually one message has come, and the time does not matter.
        if channel:left() == 0 then return true end
        if Clock.now() - started > MAX_TURN then return false end
    end
    return true
end

-- Asks at intervals whether the proxy is there. A connection without it that is silent moves to it. A connection through a proxy
-- that hangs ends: such a proxy closes nothing.
local function look_for_proxy(self, now)
    local direct = self.direct
    if not self.probe then
        if now - self.looked_at < self.look_interval or self.closing then return end
        if direct then
            if now - self.channel.heard < math.min(self.look_interval, MIN_SILENCE) then return end
        elseif self.seen ~= self.looked_seen then
            self.looked_at, self.looked_seen = now, self.seen
            return
        end
        self.probe = Operation.start(function() return self:find_proxy() end)
    end
    local done, found, why = self.probe:step()
    if not done then
        expect_data(self)
        return
    end
    self.probe, self.looked_at = nil, Clock.now()
    if not direct then
        -- A proxy that has ended closes the connection, and one that refuses another connection may still serve this one.
        if found == false then
            set_lost(self, why)
            self.retry_at, self.delay = Clock.now(), MIN_DELAY
        end
        return
    end
    if not found then return end
    why = "the proxy is there again"
    local code = self.framing == "MESG" and self.websocket and 1001 or nil
    if code then self.channel:push("CLOS", "", code) end
    self.channel:flush()
    finish(self)
    set_ended(self, code, why)
    -- This was no failure.
    self.retry_at, self.delay = Clock.now(), MIN_DELAY
    tell_end(self, code, why)
end

-- One turn of an open connection. Returns as Connection:poll does.
local function take_turn(self, started)
    local channel, bytes = self.channel, 0
    repeat
        -- What an earlier turn has left comes first: a remote that is faster than the plugin would fill the memory.
        local received, why = 0, nil
        if not self.undelivered then received, why = channel:read(started) end
        bytes = bytes + received
        local finished = dispatch(self, started)
        self.undelivered = not finished
        if self.state ~= "open" then return nil, bytes end
        channel:flush()
        if not finished then return true, bytes end
        if why == "timeout" then return false, bytes end
        if why then
            set_lost(self, why)
            return nil, bytes
        end
    until Clock.now() - started > MAX_TURN
    return true, bytes
end

-- Does what is due at a time: looks for the proxy and, without it, checks the limit of silence and sends pings.
local function tick(self, now)
    if self.direct then
        local why
        why, self.due = self.channel:tick()
        if why then return set_lost(self, why) end
    end
    if self.watches_proxy then look_for_proxy(self, now) end
end

local function poll(self)
    local started = Clock.now()
    if self.state ~= "open" then
        if self.state == "waiting" then
            if started < self.retry_at then return false, 0 end
            begin(self)
        end
        settle(self, false, self.operation:step())
        if self.state == "connecting" then
            self.interval = math.min(self.interval * GROWTH, MAX_INTERVAL)
            return false, 0
        end
        if self.state ~= "open" then return nil, 0 end
    end
    local more, bytes = take_turn(self, started)
    if bytes > 0 then
        self.interval, self.read_at = MIN_INTERVAL, started
    else
        self.interval = math.min(self.interval * GROWTH, MAX_INTERVAL)
    end
    if more == false and (self.direct or self.watches_proxy) then
        tick(self, started)
        if self.state ~= "open" then return nil, bytes end
    end
    return more, bytes
end

-- Called after an error in a poll, which LuaSocket raises where the process has no descriptors left, or a plugin's own socket. It
-- ends the connection, and not the plugin's action.
local function set_broken(self, why)
    log(self, why)
    if self.state == "open" then set_lost(self, why) elseif self.state == "connecting" then set_failed(self, why) end
end

--- Reads what has arrived and calls the callbacks, without waiting, for MAX_TURN seconds or one message. The action that the proxy
-- calls uses it. In Luup the library calls it by itself, too: soon if there is more, and at intervals, which are short without the
-- proxy. Returns true if there is more to read, else false, and the number of bytes read. Returns nil and the reason once
-- the connection has ended; with `reconnect` while it is not open, too.
function Connection:poll()
    -- Called from one of its own callbacks: the poll that is running continues.
    if self.polling then return false, 0 end
    if self.state == "closed" then return nil, self.reason end
    Transport.close_lingering()
    self.polling = true
    local before = self.seen
    local ok, more, bytes = pcall(poll, self)
    if not ok then
        set_broken(self, tostring(more))
        more, bytes = nil, 0
    end
    -- Known after the end, too.
    self.read = bytes
    if self.seen ~= before and self.options.on_seen and self.state ~= "connecting" then call_back(self, "on_seen", self.seen) end
    self.polling, self.more = false, more == true
    arm_timer(self)
    if more == nil then return nil, self.reason end
    return more, bytes
end

--- Waits up to `seconds` until the connection is open. Returns true, or nil and the reason; the connection is then
-- closed.
function Connection:wait(seconds)
    local started = Clock.now()
    while self.state == "connecting" do
        local left = seconds - Clock.since(started)
        if left <= 0 then
            set_ended(self, nil, "timeout")
            break
        end
        settle(self, not self.options.reconnect, self.operation:run(left))
    end
    if self.state ~= "open" then return nil, self.reason end
    return true
end

--- True from the OK to CONN or ACPT until the connection closes.
function Connection:is_open()
    return self.state == "open"
end

-- Keeps a message until the connection is open. Returns true, or nil and the reason.
local function keep_early(self, verb, body, detail)
    local early = self.early or { bytes = 0 }
    if early.bytes + #body > MAX_QUEUED then return nil, "send queue is full" end
    early.bytes, self.early = early.bytes + #body, early
    early[#early + 1] = { verb, body, detail }
    return true
end

-- Sends a message. Bytes that the peer does not accept within MAX_SEND_WAIT stay queued, in order, for the next call.
local function send(self, verb, body, detail)
    local valid, why = Framing.check(self.framing, verb, body)
    if not valid then return nil, why end
    -- HEAL: what the plugin sends while the remote is lost waits, as in the proxy.
    if self.state == "connecting" or self.healing then return keep_early(self, verb, body, detail) end
    if self.state ~= "open" then return nil, self.state == "closed" and "closed" or "not connected" end
    if self.closing then return nil, "closing" end
    local channel = self.channel
    local queued = channel:queued()
    if queued > MAX_QUEUED then return nil, "send queue is full" end
    local pushed, sent
    pushed, why = channel:push(verb, body, detail)
    if not pushed then return nil, why end
    -- The plugin waits once for a remote that does not read, not at each send.
    sent, why = channel:flush(queued == 0 and MAX_SEND_WAIT or nil)
    -- Without notifications an answer is seen by a poll alone.
    if not channel.notified or not sent then
        expect_data(self)
        if not self.polling then arm_timer(self) end
    end
    if sent or why == "timeout" then return true end
    return nil, why
end

--- Sends a message: TEXT, BINA, PING or PONG, or FRAG: one fragment of a message that ends with the next TEXT or BINA.
-- LINE and RAW have only TEXT and BINA. While the connection is being made, messages wait for it. Returns true, or nil and the
-- reason.
function Connection:send(verb, body)
    if not KINDS[verb] then return nil, "no such kind of message: " .. tostring(verb) end
    body = tostring(body)
    if #body > 125 and (verb == "PING" or verb == "PONG") then return nil, "a ping has at most 125 bytes" end
    return send(self, verb, body)
end

--- Sends a text, which must be UTF-8.
function Connection:text(body) return self:send("TEXT", body) end

--- Sends bytes; over UDP with FRAM=MESG, a datagram to the target.
function Connection:binary(body) return self:send("BINA", body) end

--- Sends a datagram to "address:port", over UDP with FRAM=MESG.
function Connection:datagram(body, to)
    if tostring(to):find("[%s%c]") then return nil, "no address: " .. tostring(to) end
    return send(self, "DGRM", tostring(body), to)
end

--- Sends a ping. on_pong has the answer.
function Connection:ping(body) return self:send("PING", body or "") end

--- Sends a pong. With CTRL=hand, the plugin answers on_ping by it.
function Connection:pong(body) return self:send("PONG", body or "") end

--- True if bytes are queued because the remote does not read.
function Connection:is_queued() return self.channel ~= nil and self.channel:queued() > 0 end

--- The socket, for select, or nil: between two attempts to connect there is none.
function Connection:sock()
    if self.operation then return self.operation.sock end
    return self.channel and self.channel:sock()
end

-- Queues CLOS if the framing has it. Returns true, or nil and the reason.
local function queue_close(self, code, reason)
    if self.framing ~= "MESG" then return true end
    local valid, why = Options.check_close(code, reason)
    if not valid then return nil, why end
    if self.state == "open" and not self.closing then self.channel:push("CLOS", reason, code) end
    self.closing = true
    return true
end

--- Starts the closing handshake of a WebSocket with `code` (1000; 1005: no code) and `reason` (at most 123 bytes).
-- Messages may still arrive. on_close follows when the remote has answered, after five seconds at most. Returns true,
-- or nil and the reason.
function Connection:shut(code, reason)
    if self.framing ~= "MESG" then return nil, "a closing handshake needs FRAM=MESG" end
    if self.state ~= "open" then return nil, self.state == "closed" and "closed" or "not connected" end
    -- The plugin ends it.
    self.options.reconnect = false
    local ok, why = queue_close(self, code or 1000, reason or "")
    if ok then
        self.channel:flush(MAX_SEND_WAIT)
        expect_data(self)
        if not self.polling then arm_timer(self) end
    end
    return ok, why
end

--- Closes the connection, kept or not; `code` and `reason` as for Connection:shut. No callback follows. The socket
-- itself is closed by a later call of this module, after the other side has closed. Returns true, or nil and the
-- reason.
function Connection:close(code, reason)
    if self.state == "closed" then return true end
    code, reason = code or 1000, reason or ""
    local ok, why = queue_close(self, code, reason)
    if not ok then return nil, why end
    local drop
    if self.options.KEEP and self.framing ~= "MESG" and self.state == "open" and not self.direct then
        local pid = self.pid
        drop = function() self.drop_kept(pid, self.options) end
    end
    local is_sent = true
    if self.state == "open" then
        is_sent = self.channel:flush(MAX_SEND_WAIT)
        -- DROP ends the connection at once. It must not come before the bytes that are queued.
        finish(self, not is_sent and drop or nil)
    end
    set_closed(self, code, reason)
    if is_sent and drop then drop() end
    return true
end

--- Parks the connection at the proxy, where KEEP's pid finds it again. A Luup reload does the same without a call.
function Connection:leave()
    if self.state ~= "closed" then set_closed(self, nil, "left") end
end

return Connection
