-- Runs Autobahn's client cases with L_SockProxyClient where there is no proxy, as echo.py does through the proxy.
--
-- usage: lua5.1 echo.lua SERVER AGENT, in this directory
--
-- SERVER: the port of Autobahn's fuzzing server. Sends back every message, in each case that the server has, then tells the server
-- to write its report. Prints the number of cases.

package.path = "../../luup/client/?.lua;" .. package.path

local proxy = require "L_SockProxyClient"

local server, agent = arg[1], arg[2]
local group = {}
-- No proxy listens at port 1.
proxy.defaults.port, proxy.defaults.timeout, proxy.defaults.log = 1, 30, function() end

-- Opens a WebSocket and serves it until its end.
local function run(path, on_message)
    local conn, why = proxy.open("ws://127.0.0.1:" .. server .. path, {
        group = group, MAXM = 33554432, RQTM = 60000,
        on_message = function(conn, message, kind) on_message(conn, message, kind) end,
    })
    if not conn then error(path .. ": " .. why) end
    proxy.loop(group)
end

local count
run("/getCaseCount", function(_, message) count = tonumber(message) end)
for case = 1, count do
    run("/runCase?case=" .. case .. "&agent=" .. agent, function(conn, message, kind)
        conn:send(kind, message)
    end)
end
run("/updateReports?agent=" .. agent, function() end)
print(count)
