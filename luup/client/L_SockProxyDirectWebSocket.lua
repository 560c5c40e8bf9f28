--- A WebSocket without the proxy: the client of RFC 6455 over a connection of L_SockProxyDirect.
--
-- This module orders the opening and the closing handshake, answers control frames or leaves them to the plugin (CTRL), sends the
-- pings of PNGI, and follows redirects.
-- L_SockProxyUpgrade has the opening handshake's text, L_SockProxyFrames the frames. The methods are those of L_SockProxyRelayed.
-- There is no compression: DEFL is not offered.
-- MIT licence; part of sockproxyd.

local Clock = require "L_SockProxyClock"
local Direct = require "L_SockProxyDirect"
local Frames = require "L_SockProxyFrames"
local Framing = require "L_SockProxyFraming"
local Options = require "L_SockProxyOptions"
local Relayed = require "L_SockProxyRelayed"
local Upgrade = require "L_SockProxyUpgrade"

local WebSocket = { direct = true, left = Relayed.left, queued = Relayed.queued, close = Relayed.close, sock = Relayed.sock }
WebSocket.__index = WebSocket

-- The proxy's defaults of RDIR, and of MAXM in bytes.
local REDIRECTS, MAX_MESSAGE = 4, 65536
local MAX_REDIRECTS = 20
-- Seconds that the server has to answer a close frame.
local CLOSE_TIMEOUT = 5
-- Pings of the plugin whose pongs are awaited: an older one is forgotten.
local MAX_PINGS = 16
-- Bytes that wait to be sent. Beyond, only the last ping is answered: the server sends pings and does not read.
local MAX_QUEUED_PONGS = 4096

local function is_on(value)
    return value == true or tostring(value):lower() == "on"
end

-- Reads the next head of a response. `secure`: over TLS. Returns it, or nil and the reason.
local function read_head(reader, transport, secure, started, seconds)
    while true do
        local head, why = reader:next(transport)
        if head or why then return head, why end
        local readable
        readable, why = transport:await(started, seconds)
        if why == "timeout" then return nil, "REQUEST_TIMEOUT timeout" end
        -- The proxy's words for a connection that ends before the response.
        if why == "closed" then
            return nil, "SOCKET_ERROR " .. (reader.start == "" and "closed without an answer" or "closed during its answer")
        end
        -- In TLS 1.3, a server refuses a certificate after the client's handshake.
        if not readable then return nil, (secure and "SSL_ERROR " or "SOCKET_ERROR ") .. why end
    end
end

-- Returns the options for the server of a redirect that is not the host which the plugin named: without headers, credentials, the
-- certificate and the name for TLS, which are for that host alone.
local function untrusted(options)
    local others = {}
    for name, value in pairs(options) do others[name] = value end
    for _, name in ipairs { "HDRS", "AUTH", "CERT", "PKEY", "SNIH" } do others[name] = nil end
    return others
end

-- Makes the opening handshake with one server. Returns the transport, its response and the head; or nil, the reason and, after
-- a redirect, its location.
local function handshake(url, options, started, seconds)
    local key = Upgrade.key(Options.random(16))
    local subprotocols = options.SUBP and Options.items(options.SUBP)
    local request, why = Upgrade.request(url, key, {
        headers = options.HDRS and Options.headers(options.HDRS), subprotocols = subprotocols,
        agent = options.UAGT, auth = options.AUTH, origin = options.ORIG,
    })
    if not request then return nil, why end
    local transport
    transport, why = Direct.stream(url.host, url.port, url.secure, options, true)
    if not transport then return nil, why end
    local function give_up(words, location)
        transport:close()
        return nil, words, location
    end
    transport:push(request)
    local left = math.max(seconds - Clock.since(started), 0)
    local sent
    sent, why = transport:flush(left)
    if not sent then return give_up(why == "timeout" and "REQUEST_TIMEOUT timeout" or "SOCKET_ERROR " .. why) end
    local reader = Upgrade.head_reader()
    while true do
        local head
        head, why = read_head(reader, transport, url.secure, started, seconds)
        if not head then return give_up(why) end
        local ok, response, location = Upgrade.response(head, key, { subprotocols = subprotocols })
        if ok then return transport, response, head end
        if response ~= "interim" then return give_up(response, location) end
    end
end

-- Returns what the server may get wrong, as Frames.decoder takes it, or nil and the reason.
local function leniency_of(options)
    local words = Options.leniency(options)
    if not words then return {} end
    local leniency = Frames.leniency(words)
    if leniency then return leniency end
    return nil, (Options.line({ "Invalid option" }, { LENI = words }))
end

--- Opens a WebSocket; called by L_SockProxyDirect.open. Returns it, or nil and the reason.
function WebSocket.open(target, options, framing)
    local started, seconds = Clock.now(), Options.request_limit(options)
    local leniency, url, why
    leniency, why = leniency_of(options)
    if not leniency then return nil, why end
    url, why = Upgrade.parse(target)
    if not url then return nil, why end
    local first = url
    local redirects = math.min(tonumber(options.RDIR) or REDIRECTS, MAX_REDIRECTS)
    while true do
        local transport, result, extra = handshake(url, options, started, seconds)
        if transport then
            local max = tonumber(options.MAXM) or MAX_MESSAGE
            local self = setmetatable({
                transport = transport, framing = framing,
                decoder = Frames.decoder { max = max, leniency = leniency }, max = max,
                mask = options.MASK == nil or is_on(options.MASK), control = tostring(options.CTRL or "auto"):lower(),
                pings = {}, pieces = {}, pieces_length = 0,
                interval = (tonumber(options.PNGI) or 0) > 0 and tonumber(options.PNGI),
                -- What every turn looks at is false and not nil, for which Lua would search the metatable, too.
                head = false, over = false, closing = false, silence = false, late_pong = false,
            }, WebSocket)
            if is_on(options.RHDR) and framing == "MESG" then self.head = extra end
            return self
        end
        if result ~= "redirect" then return nil, result end
        redirects = redirects - 1
        if redirects < 0 then return nil, "REDIRECT_MAX too many redirects" end
        local following
        following, why = Upgrade.join(url, extra)
        if not following then return nil, why end
        if url.secure and not following.secure then return nil, "REDIRECT_MAX from wss to ws" end
        -- The proxy knows which network an address is in, and which headers another server may have. Here it is the same host.
        if following.host:lower() ~= first.host:lower() then
            return nil, "REDIRECT_MAX a redirect to another host needs the proxy"
        end
        if not Upgrade.same_host(url, following) then options = untrusted(options) end
        url = following
    end
end

-- Queues a frame. RFC 6455 section 5.3: the masking key MUST NOT be predictable for the server.
local function push_frame(self, verb, payload)
    self.transport:push(Frames.encode(Frames.OPCODES[verb], payload, true, self.mask and Options.random(4) or nil))
end

function WebSocket:read(now)
    local bytes, why = self.transport:fill()
    if bytes > 0 then self.heard, self.pinged = now, nil end
    -- The proxy's words for an end without a close frame.
    if why == "closed" and self.framing == "MESG" then why = "closed without a close frame" end
    return bytes, why
end

-- What the plugin sees of the end: without MESG, the stream ends.
local function closed(self, code, reason)
    self.over = true
    if self.framing ~= "MESG" then return "CLOS", "closed", nil end
    return "CLOS", reason, code
end

-- Handles a control frame. Returns what the plugin sees, or nil.
local function control(self, verb, body, code)
    if verb == "CLOS" then
        -- RFC 6455 5.5.1: an endpoint that receives a Close frame and did not send one MUST send one in response.
        if not self.closing then push_frame(self, "CLOS", Framing.close_payload(code, "")) end
        return closed(self, code, body)
    end
    local shown = self.control ~= "auto" and self.framing == "MESG"
    if verb == "PING" then
        -- RFC 6455 5.5.2 and 5.5.3: a Pong MUST be sent in response, with the Ping's payload.
        -- 5.5.3: it MAY be sent for the last Ping alone.
        if self.control ~= "hand" and not self.closing then
            if self.late_pong or self.transport:queued() > MAX_QUEUED_PONGS then
                self.late_pong = body
            else
                push_frame(self, "PONG", body)
            end
        end
        return shown and verb or nil, body
    end
    if body == self.own_ping then
        self.own_ping = nil
        return nil
    end
    for index, payload in ipairs(self.pings) do
        if payload == body then
            table.remove(self.pings, index)
            shown = true
            break
        end
    end
    return shown and verb or nil, body
end

function WebSocket:next()
    if self.over then return nil end
    if self.head then
        local head = self.head
        self.head = false
        return "HEAD", head
    end
    while true do
        local verb, body, detail = self.decoder:next(self.transport)
        if not verb then
            if not body then return nil end
            -- A violation: `body` is the code of the close frame, `detail` the reason.
            if not self.closing then push_frame(self, "CLOS", Framing.close_payload(body, "")) end
            return closed(self, body, detail)
        end
        if verb == "TEXT" or verb == "BINA" then
            if self.framing == "RAW" then return "BINA", body end
            if self.framing == "LINE" then
                -- Without the line ends behind it; gsub would take quadratic time for those within it.
                local last = body:find("[^\r\n][\r\n]*$") or 0
                return "TEXT", (body:sub(1, last):gsub("\r\n", " "):gsub("[\r\n]", " "))
            end
            return verb, body
        end
        verb, body, detail = control(self, verb, body, detail)
        if verb then return verb, body, detail end
    end
end

-- Takes the pieces of a message that FRAG began, and its last one.
local function whole(self, body)
    if #self.pieces == 0 then return body end
    self.pieces[#self.pieces + 1] = body
    body = table.concat(self.pieces)
    self.pieces, self.pieces_length = {}, 0
    return body
end

function WebSocket:push(verb, body, detail)
    if verb == "CLOS" then
        push_frame(self, "CLOS", Framing.close_payload(detail, body))
        self.closing = Clock.now()
        return true
    end
    local valid, why = Framing.check(self.framing, verb, body)
    if not valid then return nil, why end
    if self.framing == "LINE" and body == "" then return true end
    if verb == "TEXT" or verb == "BINA" or verb == "FRAG" then
        -- As the proxy, so that what works here works there.
        if self.pieces_length + #body > math.max(self.max, MAX_MESSAGE) then return nil, "message too long" end
        if verb == "FRAG" then
            -- The first frame has the message's kind, which only its last piece tells.
            self.pieces[#self.pieces + 1], self.pieces_length = body, self.pieces_length + #body
            return true
        end
        body = whole(self, body)
        local is_text = self.framing == "LINE" or verb == "TEXT" and self.framing == "MESG"
        if is_text and not Frames.is_utf8(body) then return nil, "text is not UTF-8" end
        push_frame(self, is_text and "TEXT" or "BINA", body)
        return true
    end
    if verb ~= "PING" and verb ~= "PONG" then return nil, verb .. " needs FRAM=MESG" end
    if verb == "PING" then
        table.insert(self.pings, body)
        if #self.pings > MAX_PINGS then table.remove(self.pings, 1) end
    end
    push_frame(self, verb, body)
    return true
end

--- What is due at this time: a ping of PNGI, or the end. Returns the reason for which the connection ends, or nil, and the seconds
-- until something is due.
function WebSocket:tick()
    if not (self.closing or self.interval or self.silence) then return nil end
    local silence = Clock.since(self.heard)
    local left
    local function due(seconds) left = math.min(left or seconds, seconds) end
    if self.closing then
        local waited = Clock.since(self.closing)
        if waited >= CLOSE_TIMEOUT then return "no answer to the close" end
        due(CLOSE_TIMEOUT - waited)
    elseif self.interval then
        if self.pinged and Clock.since(self.pinged) >= self.interval then return "no answer to a ping" end
        if not self.pinged and silence >= self.interval then
            self.own_ping, self.pinged = Options.random(8), Clock.now()
            push_frame(self, "PING", self.own_ping)
            self.transport:flush()
        end
        due(self.interval - (self.pinged and Clock.since(self.pinged) or silence))
    end
    if self.silence then
        if silence >= self.silence then return "silent for too long" end
        due(self.silence - silence)
    end
    return nil, left
end

function WebSocket:flush(seconds)
    local transport = self.transport
    if transport.unsent == 0 and not self.late_pong then return true end
    local sent, why = transport:flush(seconds)
    if not sent or not self.late_pong then return sent, why end
    local payload = self.late_pong
    self.late_pong = false
    if not self.closing then push_frame(self, "PONG", payload) end
    return transport:flush()
end

--- Ends the connection after everything that is queued. The server closes first (RFC 6455 section 7.1.1).
function WebSocket:finish()
    -- LINE and RAW have no CLOS. The code is that of the proxy for a plugin whose stream ends.
    if not self.over and not self.closing then push_frame(self, "CLOS", Framing.close_payload(1001, "")) end
    self.transport:linger(false)
end

return WebSocket
