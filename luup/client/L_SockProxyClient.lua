--- Client of sockproxyd for Luup plugins: TCP, TLS, UDP and WebSocket. No call blocks the Luup engine for long.
--
--     local proxy = require "L_SockProxyClient"
--     conn, why = proxy.open("wss://192.168.0.9:8123/api/websocket", {
--         notify = { device = lul_device, service = SID, action = "HandleReceive" }, reconnect = true,
--         VRFY = "none", PNGI = 30,                    -- options of CONN, by name
--         on_open = function(conn) conn:text("hello") end,
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
-- Where no proxy answers, the library connects by itself, with the same callbacks; the option `direct` = false forbids that.
--
-- This module makes connections, through the proxy or without it; L_SockProxyClaims takes kept ones and those that a listener
-- reports. L_SockProxyConnection has the states and the methods of a connection, L_SockProxyListener those of a listener. open()
-- returns after 0.1 s at the latest, and on_open or on_error follows in a later poll. With the option `timeout`, open() waits so
-- many seconds and returns the outcome.
-- Needs only LuaSocket, and LuaSec for TLS without the proxy. MIT licence; part of sockproxyd.

local Clock = require "L_SockProxyClock"
local Connection = require "L_SockProxyConnection"
local Options = require "L_SockProxyOptions"
local Relayed = require "L_SockProxyRelayed"
local Transport = require "L_SockProxyTransport"

local Client = {}

--- Defaults for the options of a call: the proxy's address, the limit for one reply of the proxy itself (seconds), whether the
-- library may connect without the proxy, and the seconds after which it then looks for the proxy again; and the shortest time
-- between two notifications (seconds): openLuup keeps each job for three minutes, and hundreds of them make it slow.
Client.defaults = { host = "127.0.0.1", port = 2504, patience = 2, direct = true, proxy_interval = 30, PACE = 0.1 }

-- Three tables by the proxy's address. `answered_at`: the time of its last answer. `hangs_until`: the time until which the library
-- does not connect to the proxy, which has not reacted to a connection. `missing`: the last reason for connecting without the proxy
-- that was logged.
local answered_at, hangs_until, missing = {}, {}, {}

-- Returns the options of a call with the defaults, or nil and the reason. The caller's table is not changed.
local function options_of(given)
    given = given or {}
    local valid, why = Options.check(given)
    if not valid then return nil, why end
    Transport.close_lingering()
    local options = {}
    for name, value in pairs(Client.defaults) do options[name] = value end
    for name, value in pairs(given) do options[name] = value end
    -- Without notifications there is nothing to pace.
    if not options.notify and given.PACE == nil then options.PACE = nil end
    Options.to_numbers(options)
    return options
end

-- Connects to the proxy for a connection of its own, in an operation. Returns the channel; or nil and the reason if no proxy that
-- can do it is there; or false and the reason if the proxy hangs.
local function connect_proxy(options, framing, needs)
    local address = options.host .. ":" .. options.port
    if options.direct and hangs_until[address] and hangs_until[address] > Clock.now() then
        return false, "the proxy at " .. address .. " hangs"
    end
    local channel, why = Relayed.connect(options, framing, needs)
    if channel then answered_at[address], missing[address] = Clock.now(), nil end
    hangs_until[address] = channel == false and Clock.now() + options.proxy_interval or nil
    return channel, why
end

-- The steps of Client.open, for a connection with the fields that open() sets.
local steps = {}

-- Connects without the proxy. `why`: the reason, for the log.
function steps.connect_direct(self, why)
    local options = self.options
    local address = options.host .. ":" .. options.port
    if missing[address] ~= why then
        missing[address] = why
        local lost = options.KEEP and ". KEEP needs the proxy" or ""
        Options.log(options, "SockProxyClient: " .. why .. "; connecting without it" .. lost)
    end
    -- There is no request that the proxy has to read first.
    self.requesting = { requested = true }
    -- Most plugins never need it, and it takes memory.
    return require("L_SockProxyDirect").open(self.target, options)
end

-- Goes on with a kept connection, or asks the proxy for a new one, or connects without it.
function steps.connect(self)
    local options, pid = self.options, self.keeps
    local channel, why = connect_proxy(options, self.framing, Options.required_capabilities(self.target, options))
    if not channel then
        if options.direct then return steps.connect_direct(self, why) end
        return nil, why
    end
    local command = self.command
    -- Unlike LENI, this does not need a proxy that knows it.
    if self.websocket and channel.knows_leniency and not options.LENI then
        command = Options.line({ command }, { LENI = options.lenient })
    end
    if pid then
        local attached
        attached, why = channel:attach(pid, self.resume_at, self.target)
        if attached == false and why == "Invalid option" then
            -- A proxy older than the option CONN of ATCH has ended this connection.
            channel:close()
            channel, why = connect_proxy(options, self.framing, {})
            if not channel then return nil, why end
            attached, why = channel:attach(pid, self.resume_at)
        end
        if attached then return channel end
        if attached == nil then return nil, why end
        self.gap = why == "Gap"
        -- The user has changed the address: the old device's connection is of no use.
        if self.gap or why == "Other target" then channel:drop(pid) end
    end
    if self.announces then channel:announce(options.notify) end
    self.requesting = channel
    local opened
    opened, why = channel:request(command, Options.reply_limit(options, self.websocket))
    -- This proxy has ended before it could reply.
    if channel.ended and options.direct then return steps.connect_direct(self, "the proxy has closed the connection") end
    return opened, why
end

-- Returns true if a proxy that can make this connection is there; or nil and the reason if not; or false and the reason if the
-- proxy hangs.
function steps.find_proxy(self)
    local options = self.options
    local answered = answered_at[options.host .. ":" .. options.port]
    -- One connection asks for all that go through the same proxy.
    if not self.direct and answered and Clock.since(answered) < self.look_interval then return true end
    local channel, why = connect_proxy(options, self.framing, Options.required_capabilities(self.target, options))
    if channel then channel:quit() end
    return channel and true, why
end

--- Returns a random pid for KEEP. The plugin stores it in a variable of its device.
function Client.secret()
    return Options.secret()
end

--- Opens a connection. `target` is host:port (with PRTO = "udp" or "tls" as an option) or a ws:// or wss:// URL.
-- With KEEP, the call resumes the connection that `notify.pid` left behind at a Luup reload, if there is one:
-- `conn.kept` is then true. `options.seen` is the last value that `on_seen` gave. If the plugin missed more than the
-- proxy keeps, `conn.gap` is true and the connection is a new one. With `reconnect`, the connection is opened again after each
-- end and each failure, until the plugin closes it.
-- Returns the connection, which may not be open yet, or nil and the reason.
function Client.open(target, given)
    local options, why = options_of(given)
    if not options then return nil, why end
    local blocks, notify = options.timeout and options.timeout > 0, options.notify
    if type(target) == "string" and not blocks and notify and options.EVNT == nil
        and #Options.required_capabilities(target, options) > 0 then
        -- Without EVNT no notification follows when the connection is open. The Lua daemon, which does not have it, may do for TCP.
        options.EVNT = "on"
    end
    local command, pid
    command, why = Options.command(target, options)
    if not command then return nil, why end
    if options.KEEP then
        pid, why = Options.kept_pid(options)
        if not pid then return nil, why end
    end
    local self = Connection.new(options, Options.framing(target, options), Options.is_websocket_url(target), steps.connect)
    self.target, self.command, self.keeps, self.find_proxy, self.drop_kept = target, command, pid, steps.find_proxy, Client.drop
    -- If the proxy knows the action before it reads CONN, it notifies of a syntax error in CONN, too.
    self.announces = not blocks and notify and notify.service and notify.action
    return self:start()
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
    -- Most plugins never listen, and it takes memory.
    return require("L_SockProxyListener").open(given, Client.accept)
end

--- Claims the arrival of an id; Listener:accept does the same with the listener's defaults. `options` are those of
-- Client.open, with `protocol` ("tcp", "tls", "ws" or "wss"; default: "ws"). With KEEP, Client.attach resumes the
-- connection after a Luup reload. Returns the connection, or nil and the reason: "No such id" if the arrival is over.
function Client.accept(id, given)
    local options, why = options_of(given)
    if not options then return nil, why end
    return require("L_SockProxyClaims").accept(id, options, connect_proxy, Client.drop)
end

--- Resumes a kept connection and never makes a new one. `options` are those of Client.open, with `seen`, and with FRAM
-- if the framing is not MESG. Returns the connection, or nil and the reason: "No such pid", "Gap" or the capabilities
-- that the proxy lacks.
function Client.attach(pid, given)
    local options, why = options_of(given)
    if not options then return nil, why end
    return require("L_SockProxyClaims").attach(pid, options, connect_proxy, Client.drop)
end

--- Ends the kept connection of a pid. Returns true, or nil and the reason; after 0.1 s nil and "timeout", and the
-- library goes on.
function Client.drop(pid, given)
    local options, why = options_of(given)
    if not options then return nil, why end
    return require("L_SockProxyClaims").drop(pid, options, connect_proxy)
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

--- For scripts outside of Luup, which may block: polls a group until its last connection and listener have closed and what they
-- had queued is sent, until `done()` is true or until `seconds` have passed. Returns true, or false if the time has passed.
function Client.loop(group, done, seconds)
    -- Plugins in Luup never need it, and it takes memory.
    return require("L_SockProxyLoop")(group, done, seconds, Client.handle)
end

return Client
