-- A simulation of the Lua daemon, as far as the plugin sees it. It answers on port 2504 until it receives STOP or
-- a signal. With a file /tmp/lua-daemon.ignores-stop it ignores STOP.
local socket = require "socket"

local server = assert(socket.tcp())
assert(server:bind("*", 2504))
server:setoption("reuseaddr", true)
server:listen(16)
while true do
    local peer = server:accept()
    peer:settimeout(1)
    peer:send("OK TOGGLEDBITS-SOCKPROXY 1 1a2b3c\n")
    repeat
        local line = peer:receive("*l")
        if line == "BILD" then
            peer:send("OK 23068\n")
        elseif line == "STOP" and not io.open("/tmp/lua-daemon.ignores-stop") then
            peer:send("OK STOP\n")
            os.exit(0)
        elseif line then
            peer:send("OK " .. line .. "\n")
        end
    until line == nil or line == "QUIT"
    peer:close()
end
