--- Connections that exist already: arrivals, which a listener reports, and kept ones. L_SockProxyClient.accept, attach and drop are
-- these functions, with checked options; `connect_proxy` and `drop_kept` are its functions, too.
--
-- Owns the requests ACPT, ATCH without a new connection, and DROP. Loaded only where a plugin uses them, since it takes memory.
-- MIT licence; part of sockproxyd.

local Connection = require "L_SockProxyConnection"
local Operation = require "L_SockProxyOperation"
local Options = require "L_SockProxyOptions"
local Timer = require "L_SockProxyTimer"

local Claims = {}

-- Seconds after which drop() returns.
local MAX_DROP_WAIT = 0.1

--- Claims the arrival of an id. Returns the connection, or nil and the reason.
function Claims.accept(id, options, connect_proxy, drop_kept)
    if options.KEEP then
        local pid, why = Options.kept_pid(options)
        if not pid then return nil, why end
    end
    -- An arrival cannot be claimed a second time, and there is none without the proxy.
    options.reconnect, options.direct = false, false
    local command, why = Options.accept_command(id, options)
    if not command then return nil, why end
    local websocket = Options.is_websocket(options.protocol or "ws")
    local framing = Options.framing_of(options, websocket)
    local self = Connection.new(options, framing, websocket, function(self)
        local channel, refused = connect_proxy(options, framing, {})
        if not channel then return nil, refused end
        local chosen = options.notify and options.notify.pid
        self.requesting = channel
        return channel:request(command, Options.reply_limit(options, true), chosen ~= "" and chosen or nil)
    end)
    self.drop_kept = drop_kept
    return self:start()
end

--- Resumes the kept connection of a pid. Returns the connection, or nil and the reason.
function Claims.attach(pid, options, connect_proxy, drop_kept)
    options.direct, options.reconnect = false, false
    options.timeout = options.timeout or options.patience
    local framing = Options.framing_of(options, true)
    local self = Connection.new(options, framing, framing == "MESG", function()
        local channel, refused = connect_proxy(options, framing, { "KEEP" })
        if not channel then return nil, refused end
        local attached
        attached, refused = channel:attach(pid, options.seen)
        if attached then return channel end
        channel:close()
        return nil, refused
    end)
    self.drop_kept = drop_kept
    return self:start()
end

-- An operation that no caller waits for. Luup's timer continues it.
local function continue_later(operation)
    local background = { options = {} }
    function background:poll()
        if operation:step() then Timer.disarm(self) else Timer.arm(self, MAX_DROP_WAIT) end
    end
    Timer.arm(background, 0)
end

--- Ends the kept connection of a pid. Returns true, or nil and the reason; after MAX_DROP_WAIT nil and "timeout", and the library
-- goes on.
function Claims.drop(pid, options, connect_proxy)
    options.direct = false
    local operation = Operation.start(function()
        local channel, refused = connect_proxy(options, "RAW", { "KEEP" })
        if not channel then return nil, refused end
        local dropped
        dropped, refused = channel:drop(pid)
        channel:close()
        return dropped, refused
    end)
    local limit = options.timeout and options.timeout > 0 and options.timeout or MAX_DROP_WAIT
    local done, dropped, why = operation:run(limit)
    if done then return dropped, why end
    continue_later(operation)
    return nil, "timeout"
end

return Claims
