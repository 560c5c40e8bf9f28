--- turbo.websocket's client, over the proxy: a plugin written for turbo changes its `require` and says, once, which action
-- the proxy is to invoke.
--
--     local turbo = require("L_SockProxyTurbo").with { notify = { device = dev, service = SID, action = "HandleReceive" } }
--     turbo.websocket.WebSocketClient("wss://host/path", { on_message = function(self, msg) end, ... })
--     function handleReceive(device, settings) turbo.handle(settings.Pid) end      -- the action
--
-- Owns: turbo.websocket's client with its arguments, callbacks and error codes; all else is L_SockProxyClient's. What is other
-- than it was:
--
-- * The client returns at once; callbacks come by handle(), which the action calls that the proxy invokes, or whoever else
--   does, now and then. turbo.ioloop is there for scripts outside of Luup, as far as the client needs it; in Luup, which may not
--   be held up, its start() runs what was added and returns.
-- * There is no server, for the proxy does not listen: no WebSocketHandler (open, on_message, on_close, on_error, prepare,
--   subprotocol) and no turbo.web. Nothing can be made a subclass: class() is not here.
-- * `body` is ignored, as turbo ignored it here; so NO_HEADERS, REQUIRES_BODY, INVALID_BODY and BUSY are never given.
-- * modify_headers: Upgrade, Connection and Sec-WebSocket-* are the proxy's own (but for -Protocol). Redirects do not get
--   headers of the plugin's on another host. `cookie` is a header, too.
-- * `priv_file`, `cert_file`, `ca_path`: files below `directory` of [tls] in the proxy's configuration; of a whole path the
--   last part counts. Without `ca_path` the proxy's own authorities hold, which are Mozilla's.
-- * Messages over `max_buffer_size` (1 MiB) end the connection: WEBSOCKET_PROTOCOL_ERROR.
--
-- New: with(), handle(), and options of CONN by their names (PINS, PNGI, KEEP with `seen`, ...), but for HDRS: see modify_headers.
-- MIT licence; part of sockproxyd.

local Client = require "L_SockProxyClient"
local Options = require "L_SockProxyOptions"
local Headers = require "L_SockProxyHeaders"

local errors = {
    INVALID_URL = -1, INVALID_SCHEMA = -2, COULD_NOT_CONNECT = -3, PARSE_ERROR_HEADERS = -4, CONNECT_TIMEOUT = -5,
    REQUEST_TIMEOUT = -6, NO_HEADERS = -7, REQUIRES_BODY = -8, INVALID_BODY = -9, SOCKET_ERROR = -10, SSL_ERROR = -11, BUSY = -12,
    REDIRECT_MAX = -13, CALLBACK_ERROR = -14, BAD_HTTP_STATUS = -15, WEBSOCKET_PROTOCOL_ERROR = -16,
}

-- Headers that are the proxy's own.
local RESERVED = {
    upgrade = true, connection = true, ["sec-websocket-key"] = true, ["sec-websocket-version"] = true,
    ["sec-websocket-extensions"] = true, ["sec-websocket-accept"] = true,
}

-- `path` as the proxy wants it: below its directory.
local function file_of(path)
    return path and (path:match("^/.*/([^/]+)$") or path:match("^/([^/]+)$") or path)
end

local Stream = {}
Stream.__index = Stream

local function report(self, code, words)
    local callback = self.kwargs.on_error
    if type(callback) ~= "function" then return end
    local sound, trouble = pcall(callback, self, code, words)
    if not sound then Options.log(self.kwargs, "turbo.websocket: on_error: " .. tostring(trouble)) end
end

local guarded

-- on_close, once, and only for what was open.
local function ended(self)
    self._closed = true
    if self.was_open then
        self.was_open = false
        guarded(self, "on_close", self.kwargs.on_close, self)
    end
end

-- An error ends the connection.
local function fail(self, code, words)
    if self.conn then self.conn:close(code == errors.CALLBACK_ERROR and 1011 or 1000) end
    self._closed = true
    report(self, code, words)
    ended(self)
end

-- Calls back; false where that failed, which ends the connection, as in turbo.
function guarded(self, name, callback, ...)
    if type(callback) ~= "function" then return true end
    local sound, trouble = pcall(callback, ...)
    if not sound then
        fail(self, errors.CALLBACK_ERROR, string.format('error in callback "%s": %s', name, tostring(trouble)))
    end
    return sound
end

-- The client's errors, and turbo's for them.
local function failed(self, words)
    local code = errors[words:match("^[%u_]+") or ""]
    -- With redirects forbidden the answer was not the 101 that was expected.
    if code == errors.REDIRECT_MAX and self.kwargs.allow_redirects == false then code = errors.BAD_HTTP_STATUS end
    if not code then code = words:match("^no proxy") and errors.COULD_NOT_CONNECT or errors.SOCKET_ERROR end
    self._closed = true
    report(self, code, words)
end

local function say(self, verb, data)
    if self._closed then error("WebSocket connection has been closed. Can not write message.", 3) end
    if not (self.conn and self.conn:is_open()) then error("WebSocket connection is not open yet.", 3) end
    local sent, why = self.conn:send(verb, data)
    if not sent then fail(self, errors.SOCKET_ERROR, why) end
end

--- Sends a string, or a table as JSON; as bytes where `binary`. Raises an error if the connection is not open.
function Stream:write_message(msg, binary)
    if type(msg) == "table" then msg = Headers.json(msg) end
    say(self, binary and "BINA" or "TEXT", msg)
end

--- Sends a ping; when its pong comes, `callback(callback_arg, data)` is called, or `callback(data)` without an argument.
function Stream:ping(data, callback, callback_arg)
    self.ping_callback, self.ping_argument = callback, callback_arg
    say(self, "PING", data or "")
end

--- Answers a ping; only where there is an on_ping, which is called instead of the answer.
function Stream:pong(data)
    say(self, "PONG", data or "")
end

--- Closes the connection; on_close follows.
function Stream:close()
    if self._closed then return end
    self._closed = true
    if not self.conn then return end
    if self.conn:is_open() then self.conn:shut(1005) else self.conn:close() end
end

--- True if it was closed, by either side; else nil.
function Stream:closed()
    return self._closed
end

-- The headers of the request as modify_headers may change them; then as options of CONN. False where that callback failed.
local function headers_of(self, address, settings)
    local kwargs, headers = self.kwargs, Headers.new()
    local host = address:match("^%a+://([^/?#]*)")
    headers:add("Host", host)
    if kwargs.user_agent then headers:add("User-Agent", kwargs.user_agent) end
    if kwargs.cookie then headers:add("Cookie", kwargs.cookie) end
    headers:add("Upgrade", "websocket")
    headers:add("Connection", "Upgrade")
    headers:add("Sec-WebSocket-Version", "13")
    if kwargs.websocket_protocol then headers:add("Sec-WebSocket-Protocol", kwargs.websocket_protocol) end
    if not guarded(self, "modify_headers", kwargs.modify_headers, self, headers) then return false end
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

-- turbo's keyword arguments as options of CONN.
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
        CERT = file_of(either("cert_file")), PKEY = file_of(either("priv_file")), CAFL = file_of(either("ca_path")),
        VRFY = either("verify_ca") == false and "none" or "peer",
        CTRL = kwargs.on_ping and "hand" or "auto",
        RHDR = kwargs.on_headers ~= nil,
        AUTH = kwargs.auth_username and kwargs.auth_username .. ":" .. (kwargs.auth_password or ""),
    }
    for _, name in ipairs { "notify", "seen", "on_seen", "log", "host", "port", "patience", "connect" } do
        settings[name] = kwargs[name]
    end
    for name, value in pairs(kwargs) do
        if type(name) == "string" and name:match("^%u%u%u%u$") then settings[name] = value end
    end
    return settings
end

-- The connection is there, and so are its headers, if they were asked for.
local function connected(self)
    self.was_open = true
    if not self._closed then guarded(self, "on_connect", self.kwargs.on_connect, self) end
end

local function start(self, group)
    local address, kwargs = Headers.with_query(tostring(self.address), self.kwargs.params or {}), self.kwargs
    local good, why = Options.websocket_url(address)
    if not good then return failed(self, why) end
    local settings = settings_of(kwargs)
    settings.group = group
    if not headers_of(self, address, settings) then return end
    function settings.on_error(_, words) failed(self, words) end
    -- With on_headers the head comes first of all that comes.
    function settings.on_open()
        if not kwargs.on_headers then connected(self) end
    end
    function settings.on_head(_, head)
        self.was_open = true
        if guarded(self, "on_headers", kwargs.on_headers, self, Headers.new(head)) then connected(self) end
    end
    function settings.on_message(_, data)
        if not self._closed then guarded(self, "on_message", kwargs.on_message, self, data) end
    end
    function settings.on_ping(_, data)
        if not self._closed then guarded(self, "on_ping", kwargs.on_ping, self, data) end
    end
    function settings.on_pong(_, data)
        local callback, argument = self.ping_callback, self.ping_argument
        self.ping_callback, self.ping_argument = nil, nil
        if argument ~= nil then guarded(self, "ping", callback, argument, data) else guarded(self, "ping", callback, data) end
    end
    function settings.on_close(_, code, reason)
        -- The proxy says so of what broke a rule; a server may say it of us.
        if code == 1002 or code == 1007 or code == 1009 then
            self._closed = true
            report(self, errors.WEBSOCKET_PROTOCOL_ERROR, reason)
        end
        ended(self)
    end
    local conn
    conn, why = Client.open(address, settings)
    if not conn then return failed(self, why) end
    self.conn = conn
    if conn.kept then connected(self) end
end

-- The functions, with keyword arguments that hold wherever a call says nothing else.
local function library(defaults)
    local turbo, group, callbacks, running = { websocket = {}, ioloop = {} }, {}, {}, false

    turbo.websocket.errors = errors
    turbo.websocket.WebSocketStream = Stream

    --- A connection that is being made: on_connect or on_error follows. Where there is no proxy, on_error comes before this
    -- returns.
    local function new(_, address, kwargs)
        local all = {}
        for name, value in pairs(defaults) do all[name] = value end
        for name, value in pairs(kwargs or {}) do all[name] = value end
        local self = setmetatable({ address = address, kwargs = all }, Stream)
        start(self, group)
        return self
    end
    turbo.websocket.WebSocketClient = setmetatable({ new = new }, { __call = new, __index = Stream })

    local loop = {}

    --- Has a function called by start().
    function loop:add_callback(callback, argument)
        callbacks[#callbacks + 1] = function() callback(argument) end
        return self
    end

    --- Calls what was added; outside of Luup, calls back until the last connection has ended, or close().
    function loop.start()
        running = true
        repeat
            while callbacks[1] do table.remove(callbacks, 1)() end
            if not rawget(_G, "luup") then Client.loop(group, function() return not running or callbacks[1] end) end
        until not running or not callbacks[1]
        running = false
    end

    --- Has start() return.
    function loop.close()
        running = false
    end

    function turbo.ioloop.instance()
        return loop
    end

    --- For the action that the proxy invokes: calls back for what has come, on the connection of that Pid, or on all.
    -- Returns true if there may be more.
    function turbo.handle(pid)
        return Client.handle(group, pid)
    end

    --- This library with other defaults, such as `notify`, for a plugin of its own.
    function turbo.with(kwargs)
        return library(kwargs)
    end

    return turbo
end

return library({})
