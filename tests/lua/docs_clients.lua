-- Runs the examples of docs/lua.md and README.md, each as it stands there: it sends hello, and logs the answer.
--
-- usage: lua5.1 docs_clients.lua NAME=VALUE..., in this directory; see tests/e2e/lua_clients.rs

local lib = require "lib"
local engine = require "engine"

local at = lib.arguments()
engine.listen( at.luup )
local proxy = require "L_SockProxyClient"
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.timeout = at.proxy, 30, 30
proxy.defaults.PACE, proxy.defaults.direct = 0, false

local url = "ws://127.0.0.1:" .. at.server .. "/"

-- The Lua examples of a document. An address that stands in one becomes that of the server.
local function examples_of( name )
    local file = assert( io.open( "../../" .. name ) )
    local examples = {}
    for text in file:read( "*a" ):gmatch( "\n```lua\n(.-)```" ) do
        examples[#examples + 1] = text:gsub( '"ws://[%d.:]+/"', '"' .. url .. '"' )
    end
    file:close()
    return examples
end

local examples = examples_of( "docs/lua.md" )
lib.equal( #examples, 5 )
local first = examples_of( "README.md" )
lib.equal( #first, 1 )
examples[#examples + 1] = first[1]

for _, text in ipairs( examples ) do
    local logged, variables = {}, {}
    local plugin = setmetatable( {
        URL = url, device = 123, SID = "urn:example-com:serviceId:Example1",
        luup = {
            log = function( words ) logged[#logged + 1] = words end,
            variable_get = function( _, name ) return variables[name] end,
            variable_set = function( _, name, value ) variables[name] = tostring( value ) end,
        },
    }, { __index = _G } )
    local chunk = lib.load_in( plugin, text, "example" )
    engine.actions.HandleReceive = function( device, parameters ) plugin.handleReceive( device, parameters ) end
    -- Callback names are looked up in the environment that defines them. Lua after 5.1 has only the global table.
    for _, name in ipairs( setfenv and {} or { "onError", "onEstablished", "onReceive" } ) do
        rawset( _G, name, function( ... ) plugin[name]( ... ) end )
    end
    chunk()
    if text:find( "KEEP", 1, true ) then
        lib.equal( variables.ProxyPid, plugin.conn.pid )
        plugin.conn:text( "hello" )
    end
    engine.run_until( function() return #logged > 0 end, text )
    lib.like( table.concat( logged, ";" ), "hello$" )
    if text:find( "KEEP", 1, true ) then
        lib.equal( variables.ProxySeen, "1" )
        -- After the reload.
        plugin.conn:leave()
        chunk()
        lib.equal( plugin.conn.kept, true )
        plugin.conn:text( "again" )
        engine.run_until( function() return #logged > 1 end, text )
        lib.equal( table.concat( logged, ";" ), "hello;again" )
    end
end
print "ok"
