-- Ten megabytes of random bytes to a device that echoes them, sent and read by one thread, as in Luup.
--
-- usage: lua5.1 bulk.lua PROXY_PORT DEVICE_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local TOTAL = 10 * 1000 * 1000

local file = io.open( "/dev/urandom", "rb" )
local data = file:read( TOTAL )
file:close()

local sock = lib.echo_mode( arg[1], arg[2], "BLKS=2048" )
sock:settimeout( 0 )

local sent, pieces, received = 0, {}, 0
while received < TOTAL do
    local readable, writable = socket.select( { sock }, sent < TOTAL and { sock } or nil, 20 )
    lib.check( #readable + #writable > 0, "no progress for 20 s" )
    if #writable > 0 then
        local last, err, partial = sock:send( data, sent + 1, math.min( sent + 65536, TOTAL ) )
        lib.check( last or err == "timeout", err )
        sent = last or partial
    end
    if #readable > 0 then
        local whole, err, part = sock:receive( 65536 )
        lib.check( whole or err == "timeout", err )
        pieces[ #pieces + 1 ] = whole or part
        received = received + #pieces[ #pieces ]
    end
end
lib.check( table.concat( pieces ) == data, "the received bytes differ from the sent bytes" )
sock:close()
print "ok"
