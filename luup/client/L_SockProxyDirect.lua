--- Connections without the proxy: TCP, UDP, and TLS where LuaSec is. L_SockProxyDirectWebSocket makes WebSockets of them.
--
-- Owns resolving, connecting and the TLS handshake, in the time of CTIM, and the datagrams of UDP. The methods of its connections
-- are those of L_SockProxyRelayed, and reasons have the proxy's words. Everything that waits runs in an operation. Loaded only
-- where no proxy answers.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"
local Handshake = require "L_SockProxyHandshake"
local Operation = require "L_SockProxyOperation"
local Options = require "L_SockProxyOptions"
local Relayed = require "L_SockProxyRelayed"
local Resolver = require "L_SockProxyResolver"
local Transport = require "L_SockProxyTransport"

local Direct = {}

-- Files with the system's certificate authorities.
local AUTHORITIES = { "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt" }

local NO_IPV6 = "this LuaSocket has no IPv6: it needs the proxy"

-- Connects to a host. Returns the socket, or nil and the reason.
local function connect(host, port, options, started, seconds)
    if options.connect then return Handshake.call_connect(options, host, port) end
    local address, why = Resolver.resolve(host, started, seconds)
    if not address then return nil, why end
    if address:find(":", 1, true) and not socket.tcp6 then return nil, NO_IPV6 end
    local sock
    sock, why = Handshake.connect_tcp(address, port, seconds - Clock.since(started))
    return sock, why and why:lower()
end

local function readable(path)
    local file = path and io.open(path, "r")
    if file then file:close() end
    return file ~= nil
end

-- Returns the path of a file that CAFL, CERT or PKEY names.
local function path_of(name, options)
    if not name then return nil end
    name = tostring(name)
    return name:match("^/") and name or (options.directory or ".") .. "/" .. name
end

-- LuaSec's parameters for these options, or nil and the reason.
local function tls_parameters(ssl, options)
    local verify = options.PINS == nil and tostring(options.VRFY or "peer"):lower() == "peer"
    local parameters = {
        mode = "client", verify = verify and "peer" or "none",
        -- "any" came with LuaSec 0.7; before, the same was called "sslv23".
        protocol = ssl.config and "any" or "sslv23",
        certificate = path_of(options.CERT, options), key = path_of(options.PKEY, options),
        options = { "all", "no_sslv2", "no_sslv3", "no_tlsv1", "no_tlsv1_1" },
    }
    if tostring(options.TLSV or "") == "1.3" then table.insert(parameters.options, "no_tlsv1_2") end
    if verify then
        parameters.cafile = path_of(options.CAFL, options)
        for _, path in ipairs(AUTHORITIES) do
            if not parameters.cafile and readable(path) then parameters.cafile = path end
        end
        if not parameters.cafile then return nil, "no certificate authorities on this machine: set CAFL, PINS or VRFY=none" end
    end
    for _, path in ipairs { parameters.cafile or false, parameters.certificate or false, parameters.key or false } do
        if path and not readable(path) then return nil, "cannot read " .. path end
    end
    return parameters
end

-- True if a certificate's name, which may begin with "*.", is that of the host (RFC 6125 section 6.4.3).
local function name_matches(name, host)
    name, host = tostring(name):lower(), host:lower()
    if name == host then return true end
    local rest = name:match("^%*(%..+)$")
    return rest ~= nil and host:match("^[^.]+(%..+)$") == rest
end

-- True if a certificate's address is that of the host. LuaSec before 0.6 returns the bytes of an address.
local function address_matches(address, host)
    if address == host:lower() then return true end
    local a, b, c, d = address:byte(1, 4)
    return #address == 4 and string.format("%d.%d.%d.%d", a, b, c, d) == host
end

-- Returns the certificate of a TLS connection, or nil.
local function certificate_of(sock)
    return sock.getpeercertificate and sock:getpeercertificate()
end

-- Returns true if the certificate is that of the host, by its subjectAltName, else nil and the reason.
local function check_name(certificate, host)
    if not certificate or not certificate.extensions then
        return nil, "this LuaSec cannot verify names: set PINS or VRFY=none"
    end
    local names = (certificate:extensions() or {})["2.5.29.17"] or {}
    -- RFC 6125 section 6.4: a name, and its wildcard, is not compared with an address.
    local kind, matches = "dNSName", name_matches
    if Resolver.is_address(host) then kind, matches = "iPAddress", address_matches end
    for _, name in ipairs(names[kind] or {}) do
        if matches(name, host) then return true end
    end
    return nil, "certificate is not for " .. host
end

-- Returns true if the certificate has one of the fingerprints, else nil and the reason.
local function check_pins(certificate, pins)
    if not certificate or not certificate.digest then return nil, "this LuaSec cannot verify fingerprints: PINS needs the proxy" end
    local own = "sha256/" .. certificate:digest("sha256"):lower()
    for _, pin in ipairs(type(pins) == "table" and pins or { pins }) do
        for word in tostring(pin):gmatch("[^,%s]+") do
            if word:lower() == own then return true end
        end
    end
    return nil, "certificate is " .. own
end

-- Makes TLS of a connected socket. Returns LuaSec's socket, or nil and the reason. The socket is closed then.
local function secure(plain, host, options, started, seconds)
    local sock = plain
    local function give_up(why)
        Transport.close_socket(sock, sock ~= plain and plain or nil)
        return nil, "SSL_ERROR " .. tostring(why or "error")
    end
    local has_ssl, ssl = pcall(require, "ssl")
    if not has_ssl then return give_up("no LuaSec on this machine, and no proxy") end
    if sock.setoption then sock:setoption("tcp-nodelay", true) end
    local parameters, why = tls_parameters(ssl, options)
    if not parameters then return give_up(why) end
    local context
    context, why = ssl.newcontext(parameters)
    if not context then
        -- Old releases do not know all options.
        parameters.options = { "all", "no_sslv2", "no_sslv3" }
        context = tostring(why):find("option") and ssl.newcontext(parameters)
        if not context then return give_up(why) end
    end
    local wrapped
    wrapped, why = ssl.wrap(sock, context)
    if not wrapped then return give_up(why) end
    sock = wrapped
    sock:settimeout(0)
    local name = options.SNIH or host
    if sock.sni and not Resolver.is_address(name) then sock:sni(name) end
    local done
    done, why = sock:dohandshake()
    while not done do
        local direction = why == "wantwrite" and "write" or "read"
        if why ~= "wantread" and why ~= "wantwrite" and why ~= "timeout" then return give_up(why) end
        if not Operation.wait(sock, direction, started, seconds) then
            Transport.close_socket(sock, plain)
            return nil, "CONNECT_TIMEOUT timeout"
        end
        done, why = sock:dohandshake()
    end
    local ok = true
    if options.PINS then
        ok, why = check_pins(certificate_of(sock), options.PINS)
    elseif parameters.verify == "peer" then
        ok, why = check_name(certificate_of(sock), name)
    end
    if not ok then return give_up(why) end
    return sock
end

--- Connects to a host, by TLS if `tls` is true. Returns the transport, or nil and the reason: of TLS and, with `word`, of
-- TCP with the proxy's word for programs before it.
function Direct.stream(host, port, tls, options, word)
    local started, seconds = Clock.now(), Options.connect_limit(options)
    local sock, why = connect(host, port, options, started, seconds)
    if not sock then
        if not (word or tls) then return nil, why end
        return nil, (why == "timeout" and "CONNECT_TIMEOUT " or "COULD_NOT_CONNECT ") .. why
    end
    if not tls then return Transport.new(sock, options.chunk) end
    local wrapped
    wrapped, why = secure(sock, host, options, started, seconds)
    if not wrapped then return nil, why end
    return Transport.new(wrapped, options.chunk, sock)
end

--- Returns the host and the port of a target, or nil.
function Direct.target(target)
    local host, port = target:match("^%[([%x:.]+)%]:(%d+)$")
    if not host then host, port = target:match("^([^:/]+):(%d+)$") end
    port = tonumber(port)
    if not port or port < 1 or port > 65535 then return nil end
    return host, port
end

-- A stream: the bytes are those that the proxy would pass on.
local Stream = {
    direct = true, framing = "RAW", next = Relayed.next, left = Relayed.left, push = Relayed.push, flush = Relayed.flush,
    queued = Relayed.queued, finish = Relayed.finish, close = Relayed.close, sock = Relayed.sock,
}
Stream.__index = Stream

function Stream:read(now)
    local bytes, why = self.transport:fill()
    if bytes > 0 then self.heard = now end
    return bytes, why
end

--- What is due at this time. Returns nil, or the reason for which the connection ends; and the seconds until the next time.
function Stream:tick()
    if not self.silence then return nil end
    local left = self.silence - Clock.since(self.heard)
    if left <= 0 then return "silent for too long" end
    return nil, left
end

-- Datagrams. RAW: the payloads; MESG: with their senders.
local Datagrams = { direct = true }
Datagrams.__index = Datagrams

-- Datagrams. One read takes MAX_READ at most, so that a turn stays short. MAX_UNSENT wait to be sent; usually none does, since the
-- kernel takes each datagram at once.
local MAX_READ, MAX_UNSENT = 64, 64

local function is_v6(host)
    return host:find(":", 1, true) ~= nil
end

local function address_of(host, port)
    return (is_v6(host) and "[" .. host .. "]" or host) .. ":" .. port
end

function Datagrams:read(now)
    local bytes = 0
    for _ = 1, MAX_READ do
        local datagram, host, port = self.udp:receivefrom()
        -- LuaSocket 2 returns no empty datagram: it says "refused", and more may follow.
        if not datagram and host ~= "refused" then
            -- A datagram that could not be delivered is no end: "connection refused" is about an earlier one.
            return bytes, self.udp_closed and "closed" or "timeout"
        end
        self.heard = now
        if datagram then
            bytes = bytes + #datagram
            self.received[#self.received + 1] = { datagram, address_of(host, port) }
        end
    end
    return bytes
end

function Datagrams:next()
    local datagram = table.remove(self.received, 1)
    if not datagram then return nil end
    if self.framing == "RAW" then return "BINA", datagram[1] end
    return "DGRM", datagram[1], datagram[2]
end

function Datagrams:push(verb, body, detail)
    local host, port = self.host, self.port
    if verb == "DGRM" then
        if self.framing ~= "MESG" then return nil, "DGRM needs FRAM=MESG" end
        host, port = Direct.target(detail)
        -- LuaSocket 2 raises an error for a name, and for an address of the other family.
        if not host or not Resolver.is_address(host) or is_v6(host) ~= is_v6(self.host) then
            return nil, "no address: " .. detail
        end
    elseif verb ~= "TEXT" and verb ~= "BINA" then
        return nil, verb .. " is not for datagrams"
    end
    if #self.unsent >= MAX_UNSENT then return nil, "send queue is full" end
    table.insert(self.unsent, { body, host, port })
    return true
end

function Datagrams:flush()
    while self.unsent[1] do
        local datagram = self.unsent[1]
        local sent, why = self.udp:sendto(datagram[1], datagram[2], datagram[3])
        if not sent and why == "timeout" then return nil, why end
        table.remove(self.unsent, 1)
    end
    return true
end

function Datagrams:left() return #self.received end
function Datagrams:queued() return #self.unsent end
function Datagrams:sock() return not self.udp_closed and self.udp or nil end
function Datagrams:finish() self:close() end
Datagrams.tick = Stream.tick

function Datagrams:close()
    if not self.udp_closed then self.udp:close() end
    self.udp_closed = true
end

-- Opens a UDP socket with BIND, JOIN and MTTL. Returns it, or nil and the reason.
local function udp_socket(options, v6)
    if v6 and not socket.udp6 then return nil, NO_IPV6 end
    local udp, why = (v6 and socket.udp6 or socket.udp)()
    if not udp then return nil, why end
    local function attempt(what, done, words)
        if not done then
            udp:close()
            error({ what .. ": " .. tostring(words):lower() })
        end
    end
    local ok
    ok, why = pcall(function()
        local any = v6 and "::" or "*"
        local address, port = any, 0
        if options.BIND then
            local bind = tostring(options.BIND)
            address, port = bind:match("^%[?(.-)%]?:(%d+)$")
            if not port then address, port = any, bind:match("^%d+$") end
            attempt("BIND=" .. bind, port, "no port")
            udp:setoption("reuseaddr", true)
            -- A socket that is bound to a unicast address gets no multicasts: the address chooses the interface.
            if options.JOIN then address = any end
        end
        attempt("BIND=" .. tostring(options.BIND), udp:setsockname(address, tonumber(port)))
        if not v6 then
            udp:setoption("broadcast", true)
            udp:setoption("ip-multicast-ttl", tonumber(options.MTTL) or 2)
        end
        local groups = options.JOIN
        if type(groups) ~= "table" then
            local words = {}
            for word in tostring(groups or ""):gmatch("[^,%s]+") do words[#words + 1] = word end
            groups = words
        end
        for _, group in ipairs(groups) do
            local multiaddr, interface = group:match("^([^@]+)@?(.*)$")
            local own = options.BIND and tostring(options.BIND):match("^(%d+%.%d+%.%d+%.%d+):")
            if v6 then attempt("JOIN=" .. group, nil, "groups of IPv6 need the proxy") end
            attempt("JOIN=" .. group, udp:setoption("ip-add-membership", {
                multiaddr = multiaddr, interface = interface ~= "" and interface or own or "0.0.0.0",
            }))
        end
    end)
    if not ok then return nil, type(why) == "table" and why[1] or tostring(why) end
    udp:settimeout(0)
    return udp
end

local function datagrams(host, port, options, framing)
    local address, why = Resolver.resolve(host, Clock.now(), Options.connect_limit(options))
    if not address then return nil, why end
    local udp
    udp, why = udp_socket(options, is_v6(address))
    if not udp then return nil, why end
    return setmetatable({ udp = udp, host = address, port = port, framing = framing, received = {}, unsent = {} }, Datagrams)
end

-- The options of CONN, by the targets that they are for (docs/protocol.md).
local ALL = " RTIM BLKS NTFY PACE CTIM EVNT KEEP"
local TLS = " VRFY PINS TLSV SNIH CAFL CERT PKEY"
local OPTIONS = {
    tcp = ALL .. " PRTO FRAM HEAL HELO ",
    tls = ALL .. " PRTO FRAM HEAL HELO" .. TLS .. " ",
    udp = ALL .. " PRTO FRAM BIND JOIN MTTL ",
    ws = ALL .. TLS .. " FRAM SUBP HDRS AUTH UAGT ORIG RDIR RQTM PNGI MAXM DEFL MASK CTRL RHDR LENI HEAL HELO ",
}

-- Options whose values no error shows: an error stands in Luup's log, where passwords do not belong.
local SECRET = { AUTH = true, HDRS = true, HELO = true }

-- Returns the reason for which an option is none for this kind of target, or nil.
local function check_options(options, kind)
    for name, value in pairs(options) do
        if Options.is_of_command(name) and not OPTIONS[kind]:find(" " .. name .. " ", 1, true) then
            if SECRET[name] then return "Invalid option " .. name end
            local line, why = Options.line({ "Invalid option" }, { [name] = value })
            return line or why
        end
    end
end

--- Opens a connection. `target` and `options` as for L_SockProxyClient.open. Returns it, or nil and the reason.
function Direct.open(target, options)
    local framing, protocol = Options.framing(target, options), tostring(options.PRTO or "tcp"):lower()
    local websocket = Options.is_websocket_url(target)
    local host, port = Direct.target(target)
    if not websocket and not host then return nil, "Invalid host:port" end
    if not OPTIONS[protocol] or protocol == "ws" then return nil, "Invalid protocol " .. protocol end
    local why = check_options(options, websocket and "ws" or protocol)
    if why then return nil, why end
    local channel
    if websocket then
        channel, why = require("L_SockProxyDirectWebSocket").open(target, options, framing)
    elseif protocol == "udp" then
        if framing == "LINE" then return nil, "FRAM=LINE over UDP needs the proxy" end
        channel, why = datagrams(host, port, options, framing)
    else
        if framing ~= "RAW" then return nil, "Invalid option FRAM=" .. framing end
        local transport
        transport, why = Direct.stream(host, port, protocol == "tls", options)
        channel = transport and setmetatable({ transport = transport }, Stream)
    end
    if not channel then return nil, why end
    local silence = tonumber(options.RTIM) or 0
    channel.silence = silence > 0 and silence / 1000
    channel.heard = Clock.now()
    for _, text in ipairs(options.HELO and Options.texts(options.HELO) or {}) do
        local said
        said, why = channel:push("TEXT", text)
        if not said then
            channel:close()
            return nil, "Invalid option HELO: " .. why
        end
    end
    return channel
end

return Direct
