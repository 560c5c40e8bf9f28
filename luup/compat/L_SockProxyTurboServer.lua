--- turbo.web and turbo.websocket.WebSocketHandler on top of the proxy, as far as a server of WebSockets needs them:
--
--     local turbo, class = require("L_SockProxyTurbo").with {
--         notify = { device = dev, service = SID, action = "HandleReceive" }, timer = "handleReceive" }
--     local Panel = class("Panel", turbo.websocket.WebSocketHandler)
--     function Panel:on_message(msg) self:write_message("Hello World.") end
--     turbo.web.Application({{"^/ws$", Panel}}):listen(8888)
--     function handleReceive(device, settings) turbo.handle(settings and settings.Pid) end     -- the action, and the timer
--
-- Owns which handler a request gets, the order of its callbacks and what their errors cause. The order is turbo's:
-- initialize, subprotocol if the client offers any, prepare, the response, open. An error before the response denies the
-- request: turbo.web.HTTPError with its code and message, any other with 500. An error in a later callback closes the
-- connection with 1011: on_error, then on_close. Differences from turbo:
--
-- * Application has handlers of the class WebSocketHandler only. The proxy answers requests that are not for a WebSocket.
-- * Browsers connect only from pages of the same host and port, until listen's third argument names others: ORIG = { "http://*" },
--   or ORIG = "*" if prepare() checks self.origin itself. In turbo nothing is checked.
-- * Of RequestHandler: initialize, on_create, prepare, get_argument, get_arguments, settings, and the fields application,
--   request, options. Headers of the response cannot be set.
-- * listen's `ssl_options` (key_file, cert_file) are files below `directory` of [tls] in the proxy's configuration.
-- * As in turbo, texts of the client need not be UTF-8 (LENI; false: they must be).
-- * A message over `max_buffer_size` of listen's third argument (1 MiB) ends the connection.
-- * listen raises an error if the proxy is not there or the port is taken. With `timeout = 0` it tries again instead.
--
-- New: on_ping(data), which replaces the automatic answer to pings by pong(); Application:close(); listen's third argument
-- takes options of LSTN and ACPT by name (AUTH, WAIT, PNGI, DEFL, ...).
-- MIT licence; part of sockproxyd.

local Arguments = require "L_SockProxyArguments"
local Client = require "L_SockProxyClient"
local Headers = require "L_SockProxyHeaders"
local Listener = require "L_SockProxyListener"
local Options = require "L_SockProxyOptions"
local Stream = require "L_SockProxyTurboStream"
local class = require "L_SockProxyClass"

-- The options of LSTN that listen's third argument may name. The others go to ACPT.
local LISTENER = { ORIG = true, AUTH = true, CERT = true, PKEY = true, WAIT = true }
-- Options that this file sets.
local OWN = { PRTO = true, PATH = true, RHDR = true, SUBP = true, CTRL = true, KEEP = true, FRAM = true }

local HTTPError = class("HTTPError")

--- An error that on_create(), prepare() or get_argument() raises before the connection is accepted. `code` and `message`: the
-- HTTP status and the reason that the client gets.
function HTTPError:initialize(code, message)
    if type(code) ~= "number" then error("HTTPError code argument must be number.") end
    self.code, self.message = code, message and tostring(message) or ""
end

function HTTPError:__tostring() return "HTTPError " .. self.code .. " " .. self.message end

local RequestHandler = class("RequestHandler")

--- Called with each request. Calls on_create().
function RequestHandler:initialize(application, request, url_args, options)
    self.application, self.request, self._url_args, self.options = application, request, url_args, options
    self:on_create(options)
end

--- Called after initialize(), with the third item of the handler's entry in Application.
function RequestHandler.on_create() end

--- The second argument of Application.
function RequestHandler:settings() return self.application.kwargs end

--- The value of a parameter of the query, else `default`. Without either, raises HTTPError 400.
function RequestHandler:get_argument(name, default)
    local value = self.request.arguments[name]
    if type(value) == "table" then value = value[1] end
    if value == nil then value = default end
    if value == nil then error(HTTPError(400, "no argument " .. tostring(name)), 0) end
    return value
end

--- The values of a parameter: a string, a list if there are several, an empty table if there is none.
function RequestHandler:get_arguments(name) return self.request.arguments[name] or {} end

local Handler = class("WebSocketHandler", RequestHandler):include(Stream.mixin)

--- Called when the connection is open.
function Handler.open() end
--- Called with each message.
function Handler.on_message() end
--- Called when the plugin, the client or the proxy has closed the connection.
function Handler.on_close() end
--- Called with the reason of an error. The connection closes.
function Handler.on_error() end
--- Called before the response; may deny the request by an error.
function Handler.prepare() end
--- Called with the list of offered subprotocols; returns the one to use, or nil to deny the request.
function Handler.subprotocol() end

local function log(self, words)
    Options.log(self.application.defaults, "turbo.websocket: " .. words)
end

-- Calls a method of the plugin, or a callback. Returns false if it failed; that closes the connection.
local function call(self, name, callback, ...)
    if type(callback) ~= "function" then return true end
    local ok, err = pcall(callback, ...)
    if not ok then self:_error(Stream.errors.CALLBACK_ERROR, name .. ": " .. tostring(err)) end
    return ok
end

-- Calls on_error, and logs an error in it.
local function report(self, words)
    log(self, words)
    local ok, err = pcall(self.on_error, self, words)
    if not ok then log(self, "on_error: " .. tostring(err)) end
end

-- Calls on_close once.
local function set_closed(self)
    self._closed = true
    if self.was_closed then return end
    self.was_closed = true
    local ok, err = pcall(self.on_close, self)
    if not ok then report(self, "on_close: " .. tostring(err)) end
end

-- Reports an error and closes the connection.
function Handler:_error(code, words)
    if self.conn then self.conn:close(code == Stream.errors.CALLBACK_ERROR and 1011 or 1000) end
    self._closed = true
    report(self, words)
    set_closed(self)
end

-- The parameters of a query by their names, as turbo has them: a list where there are several of one name.
local function arguments_of(target)
    local arguments = {}
    for _, pair in ipairs(Listener.query(target:match("%?(.*)$") or "")) do
        local name, known = pair.name, arguments[pair.name]
        if type(known) == "table" then
            table.insert(known, pair.value)
        else
            arguments[name] = known and { known, pair.value } or pair.value
        end
    end
    return arguments
end

-- turbo's request, from an arrival of L_SockProxyClient.
local function request_of(arrival, secure)
    local headers = Headers.new(arrival.head)
    return {
        headers = headers, method = headers:get_method() or "GET", version = headers:get_version(), uri = arrival.target,
        path = arrival.path, arguments = arguments_of(arrival.target), remote_ip = arrival.address, host = (headers:get("Host")),
        protocol = secure and "https" or "http",
    }
end

local function is_in(wanted, list)
    for _, item in ipairs(list) do
        if item == wanted then return true end
    end
    return false
end

-- What happens before the response: returns the handler, or raises an error that denies the request.
local function prepared(application, arrival)
    for _, entry in ipairs(application.handlers) do
        local captures = { arrival.path:match(entry[1]) }
        if captures[1] then
            local self = entry[2](application, request_of(arrival, application.secure), captures, entry[3])
            self.sec_websocket_protocol = self.request.headers:get("Sec-WebSocket-Protocol")
            if #arrival.subprotocols > 0 then
                local chosen = self:subprotocol(arrival.subprotocols)
                if not is_in(chosen, arrival.subprotocols) then error(HTTPError(400, "Invalid subprotocol."), 0) end
                self.subprotocol = chosen
            end
            self.origin = self.request.headers:get("Origin")
            self:prepare()
            if self._closed then error(HTTPError(403), 0) end
            return self
        end
    end
    error(HTTPError(404), 0)
end

-- Claims the arrival for a handler, and opens it.
local function open(self, listener, arrival, settings)
    local given = {}
    for name, value in pairs(settings) do given[name] = value end
    if type(self.subprotocol) == "string" then given.SUBP = { self.subprotocol } end
    given.CTRL = self.on_ping and "hand" or "auto"
    -- turbo does not check texts. An older proxy always does.
    if given.LENI == nil and listener.knows_leniency then given.LENI = "utf8" end
    function given.on_message(_, data)
        if not self._closed then call(self, "on_message", self.on_message, self, data) end
    end
    function given.on_ping(_, data)
        if not self._closed then call(self, "on_ping", self.on_ping, self, data) end
    end
    function given.on_pong(_, data)
        if not self._closed then call(self, "ping", self:_take_ping_callback(data)) end
    end
    function given.on_close(_, code, reason)
        self._closed = true
        if Stream.is_violation(code, reason) then report(self, reason) end
        set_closed(self)
    end
    local conn, why = listener:accept(arrival.id, given)
    -- The client has gone, or the proxy. The handler was never open.
    if not conn then return log(self, arrival.peer .. ": " .. why) end
    self.conn = conn
    call(self, "open", self.open, self)
end

-- The path that a pattern stands for, or nil if it is one for several paths.
local function literal(pattern)
    local body = pattern:match("^%^(/.*)%$$")
    if not body or body:gsub("%%%W", ""):find("[%^%$%(%)%%%.%[%]%*%+%-%?]") then return nil end
    return (body:gsub("%%(%W)", "%1"))
end

local function is_handler(handler)
    if type(handler) ~= "table" then return false end
    return handler == Handler or type(handler.isSubclassOf) == "function" and handler:isSubclassOf(Handler)
end

--- Returns turbo.web. `defaults`: keyword arguments of turbo.with(); `group`: the connections that turbo.handle() polls.
local function web(defaults, group)
    local Application = class("Application")

    --- `handlers`: a list of { pattern, class, options }; the first whose pattern matches a request's path is used.
    function Application:initialize(handlers, kwargs)
        self.handlers, self.kwargs, self.listeners, self.defaults = {}, kwargs or {}, {}, defaults
        for _, entry in ipairs(handlers or {}) do self:add_handler(entry[1], entry[2], entry[3]) end
    end

    --- Adds a class for the paths that match a pattern of Lua. `options`: the argument of the class's on_create().
    function Application:add_handler(pattern, handler, options)
        if type(pattern) ~= "string" then error("a handler needs a pattern", 2) end
        if not is_handler(handler) then error(pattern .. ": the class must be below turbo.websocket.WebSocketHandler", 2) end
        table.insert(self.handlers, { pattern, handler, options })
    end

    --- Listens. `address`: one of this machine; default: all of IPv4. Returns the application. Raises an error if that fails.
    function Application:listen(port, address, kwargs)
        kwargs = kwargs or {}
        local ssl = kwargs.ssl_options
        local settings = { MAXM = kwargs.max_buffer_size or 1024 * 1024 }
        local options = {
            port = port, address = address or "0.0.0.0", protocol = ssl and "wss" or "ws", headers = true, group = group,
            proxy = { host = defaults.host, port = defaults.port, connect = defaults.connect },
            certificate = ssl and Arguments.file_of(ssl.cert_file), key = ssl and Arguments.file_of(ssl.key_file),
            -- Other handlers of this port, and other plugins, keep their paths.
            path = #self.handlers == 1 and literal(self.handlers[1][1]) or nil,
        }
        for _, name in ipairs { "notify", "timer", "log", "patience", "timeout" } do
            options[name] = kwargs[name]
            if options[name] == nil then options[name] = defaults[name] end
        end
        for name, value in pairs(kwargs) do
            if Options.is_of_command(name) then
                if OWN[name] then error("listen sets " .. name .. " itself", 2) end
                local to = LISTENER[name] and options or settings
                to[name] = value
            end
        end
        self.secure = ssl ~= nil
        function options.on_incoming(listener, arrival)
            local ok, result = pcall(prepared, self, arrival)
            if ok then return open(result, listener, arrival, settings) end
            if type(result) == "table" and result.code then
                if listener:deny(arrival.id, result.code, result.message) then return end
            end
            Options.log(defaults, "turbo.websocket: " .. tostring(arrival.path) .. ": " .. tostring(result))
            listener:deny(arrival.id, 500)
        end
        local listener, why = Client.listen(options)
        if not listener then error("cannot listen on port " .. tostring(port) .. ": " .. why, 2) end
        table.insert(self.listeners, listener)
        return self
    end

    --- Ends all that listen() began. Open connections stay.
    function Application:close()
        for _, listener in ipairs(self.listeners) do listener:close() end
        self.listeners = {}
    end

    return { Application = Application, HTTPError = HTTPError, RequestHandler = RequestHandler }
end

return { web = web, WebSocketHandler = Handler }
