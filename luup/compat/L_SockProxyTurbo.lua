--- turbo.websocket on top of the proxy, its client and its server: a plugin written for turbo changes its `require` and
-- names, once, the action that the proxy calls.
--
--     local turbo, class = require("L_SockProxyTurbo").with {
--         notify = { device = dev, service = SID, action = "HandleReceive" } }
--     turbo.websocket.WebSocketClient("wss://host/path", { on_message = function(self, msg) end, ... })
--     function handleReceive(device, settings) turbo.handle(settings.Pid) end      -- the action
--
-- Owns the arguments, callbacks and error codes of turbo.websocket's client; L_SockProxyTurboServer owns those of the
-- server. L_SockProxyClient does the rest. Differences from turbo:
--
-- * The client returns at once. handle() calls the callbacks; the action that the proxy calls runs it, or the plugin runs it
--   at intervals. turbo.ioloop exists for scripts outside of Luup, as far as client and server need it. In Luup, which must
--   not block, its start() runs the added functions and returns.
-- * class() is no global: with() returns it as its second result. WebSocketClient cannot be subclassed.
-- * `body` is ignored, as turbo ignores it for WebSockets: REQUIRES_BODY, INVALID_BODY and BUSY never occur there either. For
--   NO_HEADERS ("Shouldn't happen") there is SOCKET_ERROR.
-- * modify_headers cannot change Upgrade, Connection and Sec-WebSocket-* (except -Protocol), which belong to the proxy. A
--   redirect to another host does not get the plugin's headers, `cookie` included.
-- * `priv_file`, `cert_file` and `ca_path` are files below `directory` of [tls] in the proxy's configuration; only the last
--   part of a path is used. Without `ca_path` the proxy's authorities apply, which are Mozilla's.
-- * As in turbo, texts of the server need not be UTF-8, and its frames may be masked (LENI; false: RFC 6455 holds).
-- * A message over `max_buffer_size` (1 MiB) ends the connection: WEBSOCKET_PROTOCOL_ERROR.
--
-- New: with(), handle(), and options of CONN by name (PINS, PNGI, KEEP with `seen`, ...) except HDRS: see modify_headers.
-- MIT licence; part of sockproxyd.

local Arguments = require "L_SockProxyArguments"
local Client = require "L_SockProxyClient"
local Options = require "L_SockProxyOptions"
local Headers = require "L_SockProxyHeaders"
local Server = require "L_SockProxyTurboServer"
local Stream = require "L_SockProxyTurboStream"
local class = require "L_SockProxyClass"

local errors = Stream.errors

-- The value of User-Agent if the plugin sets none: turbo's own.
local USER_AGENT = "Turbo Client v2.0.0"

-- What turbo does not check.
local LENIENCY = "utf8,mask"
-- Headers that the proxy sets.
local RESERVED = {
    upgrade = true, connection = true, ["sec-websocket-key"] = true, ["sec-websocket-version"] = true,
    ["sec-websocket-extensions"] = true, ["sec-websocket-accept"] = true,
}

-- The keyword arguments that turbo or this file knows, besides those that are passed on.
local KNOWN = Arguments.set [[
    modify_headers on_headers on_connect on_message on_ping on_close on_error params cookie method allow_redirects
    max_redirects body request_timeout connect_timeout auth_username auth_password user_agent websocket_protocol max_buffer_size
    priv_file cert_file ca_path verify_ca ssl_options]]

-- The metatable of clients.
local Peer = {}
Peer.__index = Peer
for name, method in pairs(Stream.mixin) do Peer[name] = method end

local function report(self, code, words)
    local callback = self.kwargs.on_error
    if type(callback) ~= "function" then return end
    local ok, err = pcall(callback, self, code, words)
    if not ok then Options.log(self.kwargs, "turbo.websocket: on_error: " .. tostring(err)) end
end

local call_back

-- Calls on_close once, and only if the connection was open.
local function call_on_close(self)
    self._closed = true
    if self.was_open then
        self.was_open = false
        call_back(self, "on_close", self.kwargs.on_close, self)
    end
end

-- Reports an error and closes the connection.
function Peer:_error(code, words)
    if self.conn then self.conn:close(code == errors.CALLBACK_ERROR and 1011 or 1000) end
    self._closed = true
    report(self, code, words)
    call_on_close(self)
end

-- Calls a callback of the plugin. Returns false if it failed; a failed callback closes the connection, as in turbo.
function call_back(self, name, callback, ...)
    if type(callback) ~= "function" then return true end
    local ok, err = pcall(callback, ...)
    if not ok then
        self:_error(errors.CALLBACK_ERROR, string.format('error in callback "%s": %s', name, tostring(err)))
    end
    return ok
end

-- Reports an error of the client under turbo's error code.
local function open_failed(self, words)
    local code = errors[words:match("^[%u_]+") or ""]
    -- With redirects forbidden, a redirect is a status other than 101.
    if code == errors.REDIRECT_MAX and self.kwargs.allow_redirects == false then code = errors.BAD_HTTP_STATUS end
    -- These reasons are about the proxy: it is not there, does not greet, or lacks a capability.
    if not code then
        code = (words:match("^no proxy") or words:match("^the p%w+ at ")) and errors.COULD_NOT_CONNECT or errors.SOCKET_ERROR
    end
    self._closed = true
    report(self, code, words)
end

-- Returns the value of Cookie: the plugin's text, or a table of names and values.
local function cookie_of(cookie)
    if type(cookie) ~= "table" then return cookie end
    local words = {}
    for name, value in pairs(cookie) do words[#words + 1] = name .. "=" .. tostring(value) end
    table.sort(words)
    return table.concat(words, "; ")
end

-- Lets modify_headers change the request's headers and converts them to options of CONN. Returns false if that callback
-- failed.
local function set_headers(self, address, settings)
    local kwargs, headers = self.kwargs, Headers.new()
    local host = address:match("^%a+://([^/?#]*)")
    headers:add("Host", host)
    headers:add("User-Agent", kwargs.user_agent or USER_AGENT)
    if kwargs.cookie then headers:add("Cookie", cookie_of(kwargs.cookie)) end
    headers:add("Upgrade", "websocket")
    headers:add("Connection", "Upgrade")
    headers:add("Sec-WebSocket-Version", "13")
    if kwargs.websocket_protocol then headers:add("Sec-WebSocket-Protocol", kwargs.websocket_protocol) end
    if not call_back(self, "modify_headers", kwargs.modify_headers, self, headers) then return false end
    settings.HDRS = {}
    for _, line in ipairs(headers.lines) do
        local name = line.name:lower()
        if name == "sec-websocket-protocol" then
            settings.SUBP = line.value
        elseif name == "user-agent" then
            settings.UAGT = line.value
        elseif not RESERVED[name] and not (name == "host" and line.value == host) then
            table.insert(settings.HDRS, line.name .. ":" .. line.value)
        end
    end
    return true
end

-- Converts turbo's keyword arguments to options of CONN.
local function settings_of(kwargs)
    local function either(name)
        local value = kwargs[name]
        if value == nil and kwargs.ssl_options then value = kwargs.ssl_options[name] end
        return value
    end
    local settings = {
        timeout = 0,
        RQTM = (kwargs.request_timeout or 60) * 1000,
        CTIM = (kwargs.connect_timeout or 20) * 1000,
        RDIR = kwargs.allow_redirects == false and 0 or kwargs.max_redirects or 4,
        MAXM = kwargs.max_buffer_size or 1024 * 1024,
        CERT = Arguments.file_of(either("cert_file")), PKEY = Arguments.file_of(either("priv_file")),
        CAFL = Arguments.file_of(either("ca_path")),
        directory = Arguments.folder_of(either("cert_file") or either("ca_path")),
        VRFY = either("verify_ca") == false and "none" or "peer",
        CTRL = kwargs.on_ping and "hand" or "auto",
        RHDR = kwargs.on_headers ~= nil,
        AUTH = kwargs.auth_username and kwargs.auth_username .. ":" .. (kwargs.auth_password or ""),
    }
    Arguments.pass(kwargs, settings, LENIENCY)
    return settings
end

-- Called when the connection is open and its headers, if requested, have arrived.
local function connected(self)
    self.was_open = true
    if not self._closed then call_back(self, "on_connect", self.kwargs.on_connect, self) end
end

local function start(self, group)
    local address, kwargs = Headers.with_query(tostring(self.address), self.kwargs.params or {}), self.kwargs
    Arguments.log_unknown(kwargs, KNOWN, "turbo.websocket: no such keyword argument: ")
    local valid, why = Arguments.check_url(address)
    if not valid then return open_failed(self, why) end
    local settings = settings_of(kwargs)
    settings.group = group
    if not set_headers(self, address, settings) then return end
    function settings.on_error(_, words) open_failed(self, words) end
    -- With on_headers, the response's head arrives before all messages.
    function settings.on_open()
        if not kwargs.on_headers then connected(self) end
    end
    function settings.on_head(_, head)
        self.was_open = true
        if call_back(self, "on_headers", kwargs.on_headers, self, Headers.new(head)) then connected(self) end
    end
    function settings.on_message(_, data)
        if not self._closed then call_back(self, "on_message", kwargs.on_message, self, data) end
    end
    function settings.on_ping(_, data)
        if not self._closed then call_back(self, "on_ping", kwargs.on_ping, self, data) end
    end
    function settings.on_pong(_, data)
        call_back(self, "ping", self:_take_ping_callback(data))
    end
    function settings.on_close(_, code, reason)
        if Stream.is_violation(code, reason) then
            self._closed = true
            report(self, errors.WEBSOCKET_PROTOCOL_ERROR, reason)
        end
        call_on_close(self)
    end
    local conn
    conn, why = Client.open(address, settings)
    if not conn then return open_failed(self, why) end
    self.conn = conn
    if conn.kept then connected(self) end
end

-- Returns the functions. `defaults`: keyword arguments for calls that do not set them.
local function library(defaults)
    local turbo, group, callbacks, running = { websocket = {}, ioloop = {}, class = class }, {}, {}, false

    turbo.web = Server.web(defaults, group)
    turbo.websocket.WebSocketHandler = Server.WebSocketHandler
    turbo.websocket.errors = errors
    turbo.websocket.WebSocketStream = Stream.mixin

    --- Starts a connection; on_connect or on_error follows. Without a proxy, on_error is called before this function
    -- returns.
    local function new(_, address, kwargs)
        local all = {}
        for name, value in pairs(defaults) do all[name] = value end
        for name, value in pairs(kwargs or {}) do all[name] = value end
        local self = setmetatable({ address = address, kwargs = all }, Peer)
        start(self, group)
        return self
    end
    turbo.websocket.WebSocketClient = setmetatable({ new = new }, { __call = new, __index = Peer })

    local loop = {}

    --- Adds a function that start() calls.
    function loop:add_callback(callback, argument)
        callbacks[#callbacks + 1] = function() callback(argument) end
        return self
    end

    --- Calls the added functions. Outside of Luup it also serves the connections and the applications until the last one has
    -- closed or close() is called.
    function loop.start()
        running = true
        repeat
            while callbacks[1] do table.remove(callbacks, 1)() end
            if not rawget(_G, "luup") then Client.loop(group, function() return not running or callbacks[1] end) end
        until not running or not callbacks[1]
        running = false
    end

    --- Makes start() return.
    function loop.close()
        running = false
    end

    --- Returns the loop, with add_callback(), start() and close().
    function turbo.ioloop.instance()
        return loop
    end

    --- For the action that the proxy calls: reads what has arrived on the connection with that Pid, or on all, and calls the
    -- callbacks. Returns true if there may be more.
    function turbo.handle(pid)
        return Client.handle(group, pid)
    end

    --- Returns this library with other defaults, such as `notify`, for one plugin; and class(), which turbo makes a global.
    function turbo.with(kwargs)
        return library(kwargs), class
    end

    return turbo
end

return library({})
