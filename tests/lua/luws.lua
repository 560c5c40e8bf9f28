-- A plugin written for LuWS, with L_SockProxy_LuWS: each function, option and error text that LuWS documents.
--
-- usage: lua5.1 luws.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"

local at = lib.arguments()
engine.listen( at.luup )
-- Without the proxy, nothing listens at its port, and Luup's timers poll.
local direct = at.mode == "direct"
local port = direct and at.closed or at.proxy
if direct then engine.provide( true ) end

-- The plugin changes only this line.
local luws = require( "L_SockProxy_LuWS" ).with { port = port, PACE = 0, direct = direct, directory = at.directory, patience = 30, timeout = 30, RQTM = 60000, CTIM = 30000 }

local NOTIFY = engine.notify { device = 123, action = "HandleReceive" }
local plain, secure = "ws://127.0.0.1:" .. at.server, "wss://127.0.0.1:" .. at.secure

-- One handler for messages and errors, as plugins have it.
local got = engine.queue()
local function message_handler( _, opcode, data, ... )
    local words = { tostring( opcode ), data }
    for _, word in ipairs { ... } do words[#words + 1] = word end
    got.put( table.concat( words, " " ) )
end
local conn
function engine.actions.HandleReceive( device, parameters )
    lib.equal( device, 123 )
    lib.check( parameters.Pid, "no Pid" )
    luws.wsreceive( conn )
    return 4, 0
end
local function open( path, options )
    options = options or {}
    if options.notify == nil then options.notify = NOTIFY end
    local err
    conn, err = luws.wsopen( plain .. path, message_handler, options )
    if not conn then lib.equal( conn, false ) end
    return conn or err
end

-- wsopen, wssend, and wsreceive called by the action: messages of both kinds are complete.
lib.like( open( "/" ), "^luws%-websock%[" )
lib.equal( luws.wssend( conn, 1, "hello" ), true )
lib.equal( got.next(), "1 hello" )
lib.equal( luws.wssend( conn, 2, "\0\255" ), true )
lib.equal( got.next(), "2 \0\255" )
lib.equal( luws.wssend( conn, 1, 42 ), true )
lib.equal( got.next(), "1 42" )
luws.wssend( conn, 1, "pieces a bc def" )
lib.equal( got.next(), "1 abcdef" )
-- Longer than LuWS's frames, in both directions.
local long = string.rep( "0123456789", 6500 )
luws.wssend( conn, 1, long )
lib.equal( got.next(), "1 " .. long )
lib.check( math.abs( luws.wslastping( conn ) - socket.gettime() ) < 60 )
lib.equal( luws.wslastping( nil ), 0 )

-- LTN12 sources: in pieces, empty, one that returns an error and one that raises an error.
local function source( ... )
    local pieces = { ... }
    return function() return table.remove( pieces, 1 ) end
end
lib.equal( luws.wssend( conn, 2, source( "in ", "", "pieces" ) ), true )
lib.equal( got.next(), "2 in pieces" )
lib.equal( luws.wssend( conn, 1, source() ), true )
lib.equal( luws.wssend( conn, 1, source "one" ), true )
lib.equal( got.next(), "1 one" )
local calls = 0
local sent, why = luws.wssend( conn, 1, function()
    calls = calls + 1
    if calls == 1 then return "half" end
    return nil, "no more"
end )
lib.check( sent == false and why == "no more", why )
lib.equal( select( 2, luws.wssend( conn, 1, "next" ) ), "a message was left unfinished" )
luws.wsclose( conn )
open "/"
lib.like( select( 2, luws.wssend( conn, 1, function() error "broken" end ) ), "broken" )
luws.wsclose( conn )

-- The message handler does not see the answer to wssend's ping. wssend with opcode 8 starts a close.
open "/"
lib.equal( luws.wssend( conn, 9, "there?" ), true )
luws.wssend( conn, 1, "ping me" )
lib.equal( got.next(), "1 ponged me" )
lib.equal( luws.wssend( conn, 10, "unasked" ), true )
lib.equal( got.next(), "1 ponged unasked" )
lib.equal( select( 2, luws.wssend( conn, 5, "x" ) ), "invalid opcode: 5" )
lib.equal( luws.wssend( conn, 8, "\15\160bye" ), true )
lib.equal( select( 2, luws.wssend( conn, 1, "x" ) ), "closing" )
lib.equal( got.next(), "false receiver error: closed" )
lib.check( conn.conn.code == 4000 and conn.conn.reason == "bye" )
lib.equal( luws.wssend( conn, 1, "x" ), false )
lib.equal( select( 2, luws.wsreceive( conn ) ), "closed" )
luws.wsclose( conn )
lib.equal( select( 2, luws.wsreceive( conn ) ), "not connected" )

-- The server ends the connection: with a close, without one, and by an invalid frame.
for _, command in ipairs { "close", "close 1000 bye", "vanish", "reserved" } do
    open "/"
    luws.wssend( conn, 1, command )
    lib.equal( got.next(), "false receiver error: closed" )
    luws.wsclose( conn )
end
-- wsclose may be called at any time, and sends a close frame without a code.
luws.wsclose( nil )
luws.wsclose( conn )
open "/"
local watcher = conn
open "/"
luws.wsclose( conn )
luws.wsclose( conn )
conn = watcher
repeat
    luws.wssend( conn, 1, "next close" )
    local said = got.next()
    lib.check( said ~= "1 nobody closed", "the server did not receive wsclose's close frame" )
until said == "1 1005 "
luws.wsclose( conn )

-- wsopen returns errors as its second result.
lib.equal( open "/status/403", "BAD_HTTP_STATUS 403 Because" )
lib.like( select( 2, luws.wsopen( "ws://127.0.0.1:" .. at.closed, message_handler ) ), "^COULD_NOT_CONNECT" )
lib.equal( select( 2, luws.wsopen( "http://h/", message_handler ) ), "Invalid protocol/address for WebSocket open in http://h/" )
lib.equal( luws.wsopen( "wss://", message_handler ), false )
lib.like( select( 2, luws.wsopen( plain, message_handler, { port = at.closed, direct = false } ) ), "^no proxy at " )
-- Without a wait, the message handler gets the error.
open( "/status/404", { timeout = 0 } )
lib.equal( got.next(), "false BAD_HTTP_STATUS 404 Because" )

-- Each option. handler_args:
open( "/", { handler_args = { "more", "words" } } )
luws.wssend( conn, 1, "x" )
lib.equal( got.next(), "1 x more words" )
luws.wsclose( conn )
-- receive_timeout
open( "/", { receive_timeout = 0.2 } )
luws.wssend( conn, 1, "quiet" )
lib.equal( got.next(), "false message timeout" )
-- receive_chunk_size: the most that is read at once.
local asked = 0
open( "/", { receive_chunk_size = 7, connect = function( host, port )
    local sock = assert( socket.connect( host, port ) )
    local watched = {}
    for _, name in ipairs { "settimeout", "send", "close" } do
        watched[name] = function( _, ... ) return sock[name]( sock, ... ) end
    end
    function watched.receive( _, wanted )
        asked = math.max( asked, wanted )
        return sock:receive( wanted )
    end
    return watched
end } )
luws.wssend( conn, 1, "a message of more than seven bytes" )
lib.equal( got.next(), "1 a message of more than seven bytes" )
lib.equal( asked, 7 )
luws.wsclose( conn )
-- max_payload_size
open( "/", { max_payload_size = 100 } )
luws.wssend( conn, 1, "binary 100" )
lib.equal( got.next(), "2 " .. string.rep( "\7", 100 ) )
luws.wssend( conn, 1, "binary 101" )
lib.equal( got.next(), "false receiver error: message too long" )
open( "/" )
luws.wssend( conn, 1, "binary 65537" )
lib.equal( got.next(), "false receiver error: message too long" )
-- use_masking
for masked, answer in pairs { [true] = "1 yes", [false] = "1 no" } do
    open( "/", { use_masking = masked } )
    luws.wssend( conn, 1, "masked" )
    lib.equal( got.next(), answer )
    luws.wsclose( conn )
end
-- upgrade_headers
open( "/", { upgrade_headers = { ["X-Token"] = "a b" } } )
luws.wssend( conn, 1, "head" )
lib.check( got.next():find( "\nX-Token: a b", 1, true ), "no header" )
luws.wsclose( conn )
-- LuWS has no other way to ask for a subprotocol.
open( "/sub/news", { upgrade_headers = { ["X-Token"] = "a b", ["Sec-Websocket-Protocol"] = "chat, news" } } )
luws.wssend( conn, 1, "head" )
local asked_for = got.next()
lib.check( asked_for:find( "\nX-Token: a b", 1, true ) and asked_for:find( "\nSec-WebSocket-Protocol: chat, news", 1, true ), asked_for )
luws.wsclose( conn )
-- Without a control_handler the server's pings still count for wslastping.
open( "/" )
luws.wssend( conn, 1, "ping one" )
local read = 0
engine.poll_until( function() return conn.conn:sock() end, function()
    read = read + select( 2, luws.wsreceive( conn ) )
end, function() return #got > 0 end, "the pong" )
lib.equal( got.next(), "1 ponged one" )
-- The headers of MESG, or of RFC 6455.
lib.equal( read, direct and 2 + #"one" + 2 + #"ponged one" or #"PING 3\none" + #"TEXT 10\nponged one" )
luws.wsclose( conn )
-- What LuWS does not check: texts in Latin-1, also as the reason of a close frame, and masked frames. LENI has the last word.
local LATIN, MASKED = "hex 81054772fcdf65", "hex 8182010203046a6b"
open( "/" )
luws.wssend( conn, 1, LATIN )
lib.equal( got.next(), "1 Gr\252\223e" )
luws.wssend( conn, 1, MASKED )
lib.equal( got.next(), "1 ki" )
luws.wssend( conn, 1, "hex 880403e8fcdf" )
lib.equal( got.next(), "false receiver error: closed" )
lib.equal( conn.conn.reason, "\252\223" )
for command, strict in pairs { [LATIN] = "mask", [MASKED] = "utf8" } do
    for _, leniency in ipairs { strict, false } do
        open( "/", { LENI = leniency } )
        luws.wssend( conn, 1, command )
        lib.equal( got.next(), "false receiver error: closed" )
    end
end
-- What is sent as text must be UTF-8, though LuWS does not check that either.
open( "/" )
lib.equal( luws.wssend( conn, 1, "\252" ), not direct )
if direct then luws.wsclose( conn ) else lib.equal( got.next(), "false receiver error: closed" ) end
-- control_handler: called first. Returning false suppresses the default.
local controls, refuse = {}, false
local function control_handler( _, opcode, data, argument )
    controls[#controls + 1] = opcode .. " " .. data .. " " .. argument
    if refuse then return false end
end
local hand = { control_handler = control_handler, handler_args = { "arg" } }
open( "/", hand )
luws.wssend( conn, 1, "ping one" )
lib.equal( got.next(), "1 ponged one arg" )
luws.wssend( conn, 9, "two" )
luws.wssend( conn, 1, "pong three" )
luws.wssend( conn, 1, "x" )
lib.equal( got.next(), "1 x arg" )
luws.wssend( conn, 1, "close 4001 why" )
lib.equal( got.next(), "false receiver error: closed arg" )
lib.equal( table.concat( controls, ";" ), "9 one arg;10 two arg;10 three arg;8 \15\161why arg" )
controls, refuse = {}, true
open( "/", hand )
luws.wssend( conn, 1, "ping four" )
luws.wssend( conn, 1, "not ponged" )
lib.equal( got.next(), "1 not ponged arg" )
luws.wssend( conn, 1, "close" )
engine.run_until( function() return #controls == 2 end, "the close" )
lib.equal( table.concat( controls, ";" ), "9 four arg;8  arg" )
lib.equal( #got, 0 )
-- ssl_verify (default: none), ssl_protocol, ssl_options, ssl_mode.
local function secured( options, url )
    local answer, trouble = luws.wsopen( url or secure, message_handler, options )
    if answer then luws.wsclose( answer ) end
    return answer and "open" or trouble
end
lib.equal( secured {}, "open" )
lib.equal( secured { ssl_verify = "none" }, "open" )
lib.like( secured { ssl_verify = "peer" }, "^SSL_ERROR" )
lib.like( secured { ssl_verify = { "peer", "fail_if_no_peer_cert" } }, "^SSL_ERROR" )
lib.equal( secured { ssl_verify = "peer", CAFL = "ca.pem" }, "open" )
lib.equal( secured { ssl_verify = "peer", PINS = at.pin }, "open" )
local old = "wss://127.0.0.1:" .. at.old
for _, version in ipairs { "all", "any", "tlsv1_2", "tlsv1" } do lib.equal( secured( { ssl_protocol = version }, old ), "open" ) end
lib.like( secured( { ssl_protocol = "tlsv1_3" }, old ), "^SSL_ERROR" )
lib.equal( secured { ssl_protocol = "tlsv1_3" }, "open" )
lib.equal( secured { ssl_protocol = "sslv3" }, "ssl_protocol sslv3 is not supported" )
lib.equal( secured( { ssl_options = { "all" } }, old ), "open" )
lib.like( secured( { ssl_options = "all,no_tlsv1_2" }, old ), "^SSL_ERROR" )
lib.equal( secured { ssl_mode = "client" }, "open" )
lib.equal( secured { ssl_mode = "server" }, "ssl_mode must be client" )

-- connect: the function of LuWS's documentation, which connects through the proxy and asks for a notification; and without a
-- proxy at the expected port, its direct connection. In the mode "direct" the library finds no proxy that speaks WebSocket, as
-- with the Lua daemon: the plugin's function connects to the server through it, and the library speaks WebSocket.
local connect, used = lib.documented_connect( 123, NOTIFY.service, NOTIFY.action )
lib.redirect( 2504, at.proxy )
open( "/", { connect = connect, notify = false } )
lib.equal( used.proxy, true )
luws.wssend( conn, 1, "notified" )
lib.equal( got.next(), "1 notified" )
luws.wsclose( conn )
lib.redirect( 2504, at.closed )
open( "/", { connect = connect, notify = false } )
lib.equal( used.proxy, false )
-- Without notifications: wsreceive() at intervals, with a timeout of zero, while a message arrives slowly.
luws.wssend( conn, 1, "slow " .. long:sub( 1, 500 ) )
engine.poll_until( function() return conn.conn:sock() end,
    function() lib.equal( ( luws.wsreceive( conn ) ), false ) end, function() return #got > 0 end, "a message" )
lib.equal( table.remove( got, 1 ), "1 " .. long:sub( 1, 500 ) )
lib.equal( select( 2, luws.wsreceive( conn ) ), 0 )
luws.wsclose( conn )
lib.equal( select( 2, luws.wsopen( plain, message_handler, { connect = function() return nil, "no way" end } ) ),
    direct and "COULD_NOT_CONNECT no way" or "no proxy at 127.0.0.1:" .. port .. ": no way" )

-- handle(pid): the action does not have to know the connection.
local first, second = {}, {}
local function into( list ) return function( _, _, data ) list[#list + 1] = data end end
local one = luws.wsopen( plain, into( first ), { notify = NOTIFY } )
local two = luws.wsopen( plain, into( second ), { notify = NOTIFY } )
function engine.actions.HandleReceive( _, parameters ) luws.handle( parameters.Pid ) end
local last = luws.wslastping( one )
socket.sleep( 0.05 )
luws.wssend( one, 1, "for one" )
luws.wssend( two, 1, "for two" )
engine.run_until( function() return #first + #second == 2 end, "both" )
lib.equal( first[1] .. second[1], "for onefor two" )
-- wslastping() knows what handle() or Luup's timer has read.
lib.check( luws.wslastping( one ) > last + 0.04, luws.wslastping( one ) - last )

-- What wsreceive returns: nothing, a part of a message, a whole one, more, a close frame, the end.
local received
local function plain_open( options )
    options = options or {}
    options.notify = false
    received = {}
    local answer, trouble = luws.wsopen( plain, function( _, opcode, data )
        received[#received + 1] = tostring( opcode ) .. " " .. data
        if options.slow then socket.sleep( options.slow ) end
    end, { timeout = 30, notify = false } )
    return lib.check( answer, trouble )
end
local function receive_until( handle, count )
    local more, bytes
    engine.poll_until( function() return handle.conn:sock() end, function()
        more, bytes = luws.wsreceive( handle )
        return more
    end, function() return #received >= count end, "messages" )
    return more, bytes
end
local handle = plain_open()
local more, bytes = luws.wsreceive( handle )
lib.check( more == false and bytes == 0 )
luws.wssend( handle, 1, "hello" )
more, bytes = receive_until( handle, 1 )
lib.check( more == false and bytes > 0 )
luws.wssend( handle, 1, "close 4000 bye" )
more, bytes = receive_until( handle, 2 )
lib.equal( received[2], "false receiver error: closed" )
lib.check( more == false and bytes > 0, "a close frame has been received" )
more, bytes = luws.wsreceive( handle )
lib.check( more == nil and bytes == "closed" )
luws.wsclose( handle )
handle = plain_open()
luws.wssend( handle, 1, "vanish" )
more, bytes = receive_until( handle, 1 )
lib.check( more == nil and bytes == "closed", bytes )
lib.equal( received[1], "false receiver error: closed" )
luws.wsclose( handle )
-- A server that talks without pause: short turns, and `more` is true until everything was read.
handle = plain_open { slow = 0.01 }
for index = 1, 30 do luws.wssend( handle, 1, tostring( index ) ) end
local turns = 0
engine.poll_until( function() return handle.conn:sock() end, function()
    local before = #received
    more = luws.wsreceive( handle )
    lib.check( #received - before <= 7, #received - before )
    if more then turns = turns + 1 end
    return more
end, function() return #received == 30 end, "all" )
lib.check( turns >= 1, "no turn has ended early" )
luws.wsclose( handle )

-- async: wsopen() returns at once, and what is sent waits.
received = {}
handle = lib.check( luws.wsopen( plain, function( _, _, data ) received[#received + 1] = data end, { async = true, timeout = 0, notify = false } ) )
lib.equal( luws.wssend( handle, 1, "early" ), true )
receive_until( handle, 1 )
lib.equal( received[1], "early" )
luws.wsclose( handle )
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
local began = socket.gettime()
local impatient = luws.with { port = port, direct = direct, async = true, RQTM = 300 }
handle = lib.check( impatient.wsopen( "ws://127.0.0.1:" .. select( 2, mute:getsockname() ), function( _, opcode, data )
    received[#received + 1] = tostring( opcode ) .. " " .. data
end ) )
lib.check( socket.gettime() - began < 5, "wsopen() has waited" )
receive_until( handle, 2 )
lib.equal( received[2], "false REQUEST_TIMEOUT timeout" )

-- Opcodes: 0 is a piece of a message; those that RFC 6455 does not have are refused.
handle = plain_open()
lib.equal( luws.wssend( handle, 0, "two " ), true )
lib.equal( luws.wssend( handle, 1, "pieces" ), true )
receive_until( handle, 1 )
lib.equal( received[1], "1 two pieces" )
lib.equal( select( 2, luws.wssend( handle, 11, "x" ) ), "invalid opcode: 11" )
-- wshandleincoming and wsreset: the plugin's own bytes, in any pieces.
received = {}
local frames = "\1\3Hel" .. "\128\2lo" .. "\130\1\0" .. "\137\4ping"
for at_byte = 1, #frames do luws.wshandleincoming( frames:sub( at_byte, at_byte ), handle ) end
lib.equal( table.concat( received, ";" ), "1 Hello;2 \0" )
luws.wshandleincoming( "\129\5Hel", handle )
luws.wsreset( handle )
luws.wshandleincoming( "\129\2ok", handle )
lib.equal( received[3], "1 ok" )
luws.wshandleincoming( "\136\5\3\232bye", handle )
lib.equal( received[4], "false receiver error: closed" )
luws.wsreset( handle )
luws.wshandleincoming( "\129\1\252\129\129\1\2\3\4b", handle )
lib.equal( received[5] .. ";" .. received[6], "1 \252;1 c" )
luws.wsreset( nil )
luws.wsclose( handle )
-- sink: LTN12's for each message, or nil for the handler.
local chunks = {}
handle = lib.check( luws.wsopen( plain, function( _, _, data ) received[#received + 1] = data end, {
    notify = false, sink = function( _, opcode )
        if opcode == 2 then return nil end
        return function( chunk )
            chunks[#chunks + 1] = tostring( chunk )
            return 1
        end
    end,
} ) )
received = {}
luws.wssend( handle, 1, "into the sink" )
luws.wssend( handle, 2, "into the handler" )
receive_until( handle, 1 )
lib.equal( table.concat( chunks, ";" ), "into the sink;nil" )
lib.equal( received[1], "into the handler" )
luws.wsclose( handle )
-- debug_mode and dump; an option that does not exist.
local lines = {}
local talkative = luws.with { port = port, PACE = 0, direct = direct, log = function( words ) lines[#lines + 1] = words end }
lib.equal( talkative.debug_mode, false )
handle = lib.check( talkative.wsopen( plain, function() end, { receive_timout = 5 } ) )
lib.equal( table.concat( lines, ";" ), "luws: no such option: receive_timout" )
-- EzloBridge's LuWS has a function for it.
talkative.wsinit( true )
lib.equal( talkative.debug_mode, true )
talkative.wssend( handle, 1, "hello" )
talkative.wsclose( handle )
lib.equal( table.concat( lines, ";", 2 ), "luws: wssend(1, 5 bytes);luws: wsclose" )
lib.equal( luws.dump( { a = { "b" } } ), '{ a={ 1="b" } }' )

engine.withdraw()
lib.no_new_globals()
print "ok"
