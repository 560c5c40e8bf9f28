--- The framings of FRAM, which tell messages apart on a connection to the proxy: MESG, LINE and RAW.
-- Owns how a message is written and read, and which codes a close frame may have; the transport owns the bytes. Does not know
-- what messages mean.
-- MIT licence; part of sockproxyd.

local Framing = {}

-- Bytes. The longest header in MESG, its newline included.
local MAX_HEADER = 64
-- The usual header, of two words. CLOS and DGRM have three, so C and D do not match.
local SHORT_HEADER = "^([ABE-Z]%u%u%u) (%d+)\n()"

-- Parses a header. Returns the verb, the length, and the code of CLOS or the address of DGRM; nil if it is none.
local function header(line)
    local verb, length = line:match("^(%u%u%u%u) (%d+)$")
    if verb then
        if verb == "CLOS" or verb == "DGRM" then return nil end
        return verb, tonumber(length)
    end
    local detail
    verb, detail, length = line:match("^(CLOS) (%d+) (%d+)$")
    if verb then return verb, tonumber(length), tonumber(detail) end
    verb, length, detail = line:match("^(DGRM) (%d+) (%S+)$")
    if verb then return verb, tonumber(length), detail end
end

local readers, writers = {}, {}

--- For each framing the function that takes the next message from a transport that has bytes. It returns the verb, the bytes and,
-- for CLOS, the code or, for DGRM, the sender. It returns nil if the message is incomplete, or nil and the reason if the bytes are
-- not a message.
Framing.readers = readers

-- Takes the next header. Returns a table of its parts; nil if it is incomplete, or nil and the reason if the bytes are none.
local function next_header(transport)
    local line, why = transport:line(MAX_HEADER)
    if not line then return nil, why end
    local verb, length, detail = header(line)
    if not verb then return nil, "invalid message header: " .. line end
    return { verb = verb, length = length, detail = detail }
end

function readers.MESG(transport)
    -- The header whose body has not arrived.
    local head = transport.head
    if not head then
        -- The usual case in one call.
        local verb, body = transport:record(SHORT_HEADER)
        if verb then return verb, body end
        local why
        head, why = next_header(transport)
        if not head then return nil, why end
    end
    local body = transport:bytes(head.length)
    transport.head = not body and head or nil
    if body then return head.verb, body, head.detail end
end

function readers.LINE(transport)
    local line = transport:line()
    if line then return "TEXT", line end
end

function readers.RAW(transport)
    return "BINA", transport:bytes(transport.have)
end

function writers.MESG(verb, body, detail)
    if verb == "DGRM" then return "DGRM " .. #body .. " " .. detail .. "\n" .. body end
    if verb == "CLOS" then return string.format("CLOS %d %d\n", detail, #body) .. body end
    return verb .. " " .. #body .. "\n" .. body
end

function writers.LINE(_, body)
    return body .. "\n"
end

function writers.RAW(_, body)
    return body
end

--- True for a code that a close frame may have. RFC 6455 sections 7.4.1 and 7.4.2; 1012 to 1014 are in IANA's registry.
function Framing.is_close_code(code)
    return code >= 1000 and code <= 1003 or code >= 1007 and code <= 1014 or code >= 3000 and code <= 4999
end

--- Returns the payload of a close frame (RFC 6455 section 5.5.1). 1005 and 1006 stand for a frame without a code.
function Framing.close_payload(code, reason)
    if code == 1005 or code == 1006 then return "" end
    return string.char(math.floor(code / 256), code % 256) .. reason
end

--- Returns true if the framing can have a message of the plugin, else nil and the reason.
function Framing.check(framing, verb, body)
    if framing ~= "MESG" and verb ~= "TEXT" and verb ~= "BINA" then return nil, verb .. " needs FRAM=MESG" end
    if framing == "LINE" and body:find("\n", 1, true) then return nil, "a line end inside a line" end
    return true
end

--- Returns the bytes of a message. `detail`: the code of CLOS or the address of DGRM.
function Framing.write(framing, verb, body, detail)
    return writers[framing](verb, body, detail)
end

return Framing
