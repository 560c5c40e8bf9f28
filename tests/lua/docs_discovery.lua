-- Runs the Lua examples of docs/discovery.md, each as it stands there, in a network whose devices answer and announce
-- themselves.
--
-- usage: lua5.1 docs_discovery.lua, in this directory and in that network; see tests/e2e/relay/discovery.rs

local lib = require "lib"
local engine = require "engine"

engine.listen( 3480 )
local proxy = require "L_SockProxyClient"
proxy.defaults.patience, proxy.defaults.timeout = 30, 30

-- What each example logs.
local expected = {
    ["SSDP: search"] = "^192%.168%.1%.20:1900 is at http://192%.168%.1%.20/description%.xml$",
    ["SSDP: announcements"] = "^192%.168%.1%.20:1900 says alive$",
    ["mDNS"] = "^a bridge at 192%.168%.1%.20:5353$",
    ["Broadcasts"] = "^a module at 192%.168%.1%.20$",
    ["CoIoT"] = '^192%.168%.1%.20:5683 {"G":%[%[0,112,1%]%]}$',
}

local file = assert( io.open( "../../docs/discovery.md" ) )
local document = file:read( "*a" )
file:close()

local count = 0
for section in document:gsub( "\n## ", "\1" ):gmatch( "\1([^\1]+)" ) do
    local heading = section:match( "^[^\n]+" )
    local text = section:match( "\n```lua\n(.-)```" )
    lib.equal( text ~= nil, expected[heading] ~= nil )
    if text then
        count = count + 1
        local logged = {}
        local plugin = setmetatable( {
            device = 123, SID = "urn:example-com:serviceId:Example1",
            luup = { log = function( words ) logged[#logged + 1] = words end },
        }, { __index = _G } )
        local chunk
        if setfenv then
            chunk = setfenv( assert( loadstring( text, heading ) ), plugin ) -- luacheck: ignore 113
        else
            chunk = assert( load( text, heading, "t", plugin ) )
        end
        engine.actions.HandleReceive = function() plugin.handleReceive() end
        chunk()
        engine.run_until( function() return #logged > 0 end, heading )
        lib.like( logged[1], expected[heading] )
        plugin.conn:close()
    end
end
lib.equal( count, 5 )
print "ok"
