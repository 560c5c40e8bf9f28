-- A Luup plugin that talks to a device through sockproxyd, inside a simulated Luup engine.
--
-- usage: lua5.1 demo_plugin.lua PROXY_PORT LUUP_PORT DEVICE_PORT REFUSING_PORT
--
-- scripts/demo starts it. The engine below works like Luup: it has one thread, serves HTTP, answers a request for an action
-- at once and then runs the plugin's job. The plugin follows the developer's guide: its connect function tries the proxy and
-- falls back to the device, and its HandleReceive action reads what has arrived. The plugin never waits and never polls.
--
-- Exit status: 0 if every step succeeded, else 1.

local socket = require "socket"

local PROXY_PORT, LUUP_PORT, DEVICE_PORT, REFUSING_PORT =
    tonumber(arg[1]), tonumber(arg[2]), tonumber(arg[3]), tonumber(arg[4])

local DEVICE_NUMBER = 123
local SERVICE = "urn:example-com:serviceId:Demo1"
local ACTION = "HandleReceive"

-- Seconds. Users notice a lamp's delay from about this on; the daemon takes about a thousandth of it.
local SLOW = 0.5
local READINGS = 5

------------------------------------------------------------------------------------------------
-- Output

local COLOUR = os.getenv("DEMO_COLOUR") == "yes"

local function colour(code, text)
    return COLOUR and ("\27[" .. code .. "m" .. text .. "\27[0m") or text
end

local step_number = 0
local function step(title)
    step_number = step_number + 1
    io.write("\n", colour("1", step_number .. ". " .. title), "\n")
    io.flush()
end

local function show(from, arrow, to, text)
    io.write(("   %s %s %s  %s\n"):format(
        colour("36", ("%-6s"):format(from)), arrow, colour("36", ("%-6s"):format(to)), text))
    io.flush()
end

local function failed(why)
    io.write("\n", colour("31", "FAILED: " .. why), "\n")
    os.exit(1)
end

local function check(condition, why)
    if not condition then failed(why) end
    return condition
end

------------------------------------------------------------------------------------------------
-- The simulated Luup: one thread, HTTP, actions

local luup = { actions = {}, requests = {} }

local function decode(text)
    return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

function luup.listen(port)
    luup.server = check(socket.bind("127.0.0.1", port), "Luup's port " .. port .. " is in use")
end

-- Serves one request and runs the action's job. Returns false if no request arrives in time.
function luup.serve(timeout)
    luup.server:settimeout(timeout)
    local client = luup.server:accept()
    if not client then return false end
    client:settimeout(5)
    local request = client:receive("*l")
    check(request, "an empty request")
    local arrival = socket.gettime()
    repeat local header = client:receive("*l") until not header or header == ""

    local query = check(request:match("^GET /data_request%?(%S+) HTTP/1%.[01]$"), "unexpected request: " .. request)
    local params = {}
    for name, value in query:gmatch("([^&=]+)=([^&]*)") do params[name] = decode(value) end
    if #luup.requests == 0 then
        show("Luup", "<-", "proxy", "GET /data_request?" .. query)
    else
        show("Luup", "<-", "proxy", ("the same for device %s: %s, Pid %s"):format(
            tostring(params.DeviceNum), tostring(params.action), tostring(params.Pid)))
    end

    local job = params.id == "action" and params.serviceId == SERVICE and luup.actions[params.action]
    local body = job and '{"u:' .. params.action .. 'Response":{"JobID":"1"}}' or "ERROR: Invalid Service"
    client:send(("HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"):format(#body, body))
    client:close()
    check(job, "unknown action: " .. query)
    table.insert(luup.requests, params)
    job(tonumber(params.DeviceNum), params, arrival)
    return true
end

-- Serves requests until `done()` is true; fails if that takes too long.
function luup.run_until(done, what)
    local deadline = socket.gettime() + 10
    while not done() do
        local left = deadline - socket.gettime()
        check(left > 0 and luup.serve(left), "no notification although " .. what)
    end
end

------------------------------------------------------------------------------------------------
-- The plugin

local plugin = { received = {}, latencies = {}, buffer = "" }

-- Tries the proxy first, then the device itself. Returns the socket, whether it leads through the proxy, and the pid.
function plugin.connect(ip, port, proxy_port)
    local sock = socket.tcp()
    sock:settimeout(10)
    if sock:connect("127.0.0.1", proxy_port) then
        local greeting = sock:receive("*l")
        if greeting and greeting:match("^OK TOGGLEDBITS%-SOCKPROXY 1 ") then
            show("plugin", "<-", "proxy", greeting)
            local conn = ("CONN %s:%d NTFY=%d/%s/%s"):format(ip, port, DEVICE_NUMBER, SERVICE, ACTION)
            sock:send(conn .. "\n")
            show("plugin", "->", "proxy", conn)
            local answer = sock:receive("*l")
            show("plugin", "<-", "proxy", tostring(answer))
            if answer and answer:match("^OK CONN") then
                return sock, true, answer:match("^OK CONN (%S+)")
            end
        end
        sock:shutdown("both")
    else
        show("plugin", "->", "proxy", "(connection refused)")
    end
    sock:close()
    sock = socket.tcp()
    sock:settimeout(10)
    if sock:connect(ip, port) then
        show("plugin", "->", "device", "(connects directly)")
        return sock, false
    end
    sock:close()
    return nil
end

-- Reads complete lines from the socket, without waiting. Returns false if the connection has ended.
function plugin.read()
    plugin.sock:settimeout(0)
    while true do
        local line, problem, part = plugin.sock:receive("*l")
        if line then
            table.insert(plugin.received, plugin.buffer .. line)
            plugin.buffer = ""
        else
            plugin.buffer = plugin.buffer .. (part or "")
            return problem ~= "closed"
        end
    end
end

-- The action that the proxy calls (a <job>, as the guide recommends).
luup.actions[ACTION] = function(device, params, arrival)
    check(device == DEVICE_NUMBER, "notification for device " .. tostring(device))
    check(params.Pid == plugin.pid, "notification with pid " .. tostring(params.Pid))
    local before = #plugin.received
    plugin.open = plugin.read()
    for n = before + 1, #plugin.received do
        local text, sent = plugin.received[n]:match("^(.*) @([%d.]+)$")
        check(text, "unexpected line from the device: " .. plugin.received[n])
        plugin.received[n] = text
        local latency = arrival - tonumber(sent)
        -- Lines that arrive while a notification is in flight do not measure latency.
        if latency >= 0 then
            table.insert(plugin.latencies, latency)
            text = ("%-22s %s"):format(text, colour("32", ("%.2f ms after the device sent it"):format(latency * 1000)))
        end
        show("plugin", "<-", "device", text)
    end
    if not plugin.open then show("plugin", "<-", "device", "(end of the connection)") end
end

function plugin.has(text)
    for n, line in ipairs(plugin.received) do
        if line == text then return n end
    end
    return false
end

------------------------------------------------------------------------------------------------
-- The steps

luup.listen(LUUP_PORT)

step("The plugin connects: to the proxy, which connects to the device")
local through_proxy
plugin.sock, through_proxy, plugin.pid = plugin.connect("127.0.0.1", DEVICE_PORT, PROXY_PORT)
check(plugin.sock and through_proxy, "no connection through the proxy")
plugin.open = true

step("It sends a request and returns to Luup; the proxy notifies it when the answer arrives")
plugin.sock:send("status\n")
show("plugin", "->", "device", "status")
luup.run_until(function() return plugin.has("OK status") end, "the device was asked")

step("The device sends on its own; the plugin does not poll")
local wanted = #plugin.received + READINGS
luup.run_until(function() return #plugin.received >= wanted end, "the device sends")

step("The proxy's state: STAT, over another connection (nc works as well)")
local client = check(socket.connect("127.0.0.1", PROXY_PORT), "the proxy does not answer")
client:settimeout(10)
client:receive("*l")
client:send("STAT\nQUIT\n")
local listed
repeat
    local line = check(client:receive("*l"), "STAT ends early")
    if line ~= "OK QUIT" then io.write("   ", line, "\n") end
    listed = listed or line:find(tostring(DEVICE_NUMBER) .. "/" .. SERVICE, 1, true)
until line == "OK QUIT"
client:close()
check(listed, "STAT does not list the plugin's connection")

step("The device closes the connection; the proxy notifies the plugin of that, too")
plugin.sock:send("bye\n")
show("plugin", "->", "device", "bye")
luup.run_until(function() return plugin.has("OK bye") and not plugin.open end, "the device closed the connection")
plugin.sock:close()

step("The same connect function without a proxy: the plugin works as before, but has to wait for answers")
local direct, proxied = plugin.connect("127.0.0.1", DEVICE_PORT, REFUSING_PORT)
check(direct and not proxied, "no connection without the proxy")
direct:settimeout(10)
direct:send("status\n")
show("plugin", "->", "device", "status")
local answer
repeat answer = check(direct:receive("*l"), "the device does not answer") until answer:match("^OK status ")
show("plugin", "<-", "device", (answer:gsub(" @[%d.]+$", "")) .. "  (the plugin had to wait for it)")
direct:close()

table.sort(plugin.latencies)
local count = #plugin.latencies
check(count >= READINGS, "only " .. count .. " notifications could be timed")
local median, worst = plugin.latencies[math.ceil(count / 2)], plugin.latencies[count]
io.write("\n", colour("1", ("All steps passed. From the device to Luup: median %.2f ms, slowest %.2f ms, of %d.")
    :format(median * 1000, worst * 1000, count)), "\n")
check(median < SLOW, "the median is too slow")
