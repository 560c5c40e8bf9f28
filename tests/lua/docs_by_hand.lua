-- Runs the functions in the section "By hand from Lua" of docs/protocol.md, as they stand there.
--
-- usage: lua5.1 docs_by_hand.lua PROXY_PORT DEVICE_PORT CLOSED_PORT, in this directory

local lib = require "lib"
local socket = require "socket"
lib.redirect( 2504, arg[1] )

local file = assert( io.open( "../../docs/protocol.md" ) )
local section = file:read( "*a" ):match( "\n## By hand from Lua\n(.-)\n## " )
file:close()

-- What a plugin has besides.
MY_DEVICE, MY_SERVICE = 123, "urn:example-com:serviceId:Example1"
local lines, ended = {}, false
pending = ""
function process( line ) lines[#lines + 1] = line end
function reconnect() ended = true end

for text in section:gmatch( "\n```lua\n(.-)```" ) do assert( loadstring( text, "docs/protocol.md" ) )() end

local function receive_until( done )
    while not done() do
        lib.check( #socket.select( { sock }, nil, 20 ) == 1, "nothing comes" )
        handleReceive()
    end
end

local by_proxy
sock, by_proxy = connect( "127.0.0.1", arg[2] )
lib.equal( by_proxy, true )
sock:send( "one\ntwo\nhal" )
receive_until( function() return #lines == 2 and pending == "hal" end )
sock:send( "f a line\n" )
receive_until( function() return #lines == 3 end )
lib.equal( table.concat( lines, ";" ), "one;two;half a line" )
sock:shutdown( "send" )
receive_until( function() return ended end )
sock:close()

-- And without a proxy.
lib.redirect( 2504, arg[3] )
sock, by_proxy = connect( "127.0.0.1", arg[2] )
lib.equal( by_proxy, false )
sock:send( "hello\n" )
receive_until( function() return #lines == 4 end )
lib.equal( lines[4], "hello" )
sock:close()
print "ok"
