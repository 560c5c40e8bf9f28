-- Fakes of what the client libraries use. Not a script.

local lib = require "lib"

local fakes = {}

-- A fake of LuaSocket's socket. Its peer has sent these pieces, one for each receive; then comes `ending`, or nothing yet. A
-- send accepts `room` bytes, if given.
function fakes.socket( pieces, ending, room )
    local sock = { pieces = pieces, taken = {}, closed = false }
    function sock.settimeout() return 1 end
    function sock:receive( wanted )
        lib.check( type( wanted ) == "number" and wanted > 0, "some versions of LuaSocket never return from a read of zero bytes" )
        local piece
        repeat piece = table.remove( self.pieces, 1 ) until piece ~= ""
        if not piece then return nil, ending or "timeout", "" end
        if #piece > wanted then
            table.insert( self.pieces, 1, piece:sub( wanted + 1 ) )
            piece = piece:sub( 1, wanted )
        end
        if #piece == wanted then return piece end
        return nil, #self.pieces == 0 and ending or "timeout", piece
    end
    function sock:send( data, from )
        local last = math.min( #data, from - 1 + ( room or #data ) )
        self.taken[#self.taken + 1] = data:sub( from, last )
        if last == #data then return last end
        return nil, "timeout", last
    end
    function sock.shutdown() end
    function sock:close() self.closed = true end
    return sock
end

-- The bytes that a fake socket has accepted.
function fakes.sent_bytes( sock ) return table.concat( sock.taken ) end

return fakes
