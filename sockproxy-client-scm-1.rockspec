rockspec_format = "3.0"
package = "sockproxy-client"
version = "scm-1"
source = { url = "." }
description = {
   summary = "TCP, TLS, UDP and WebSocket for Luup plugins, through sockproxyd or without it",
   detailed = [[
      L_SockProxyClient connects a plugin of MiOS Vera or openLuup to devices without blocking Luup. Where sockproxyd runs, it
      makes the connections and notifies the plugin; else the library connects by itself, and Luup's timer polls. With
      libraries for plugins that were written for LuWS, verawebsockets or turbo.websocket. TLS without the proxy needs LuaSec.
   ]],
   license = "MIT",
}
dependencies = { "lua >= 5.1", "luasocket >= 2.0.2" }
build = {
   type = "builtin",
   modules = {
      ["L_SockProxyClaims"] = "luup/client/L_SockProxyClaims.lua",
      ["L_SockProxyClient"] = "luup/client/L_SockProxyClient.lua",
      ["L_SockProxyClock"] = "luup/client/L_SockProxyClock.lua",
      ["L_SockProxyConnection"] = "luup/client/L_SockProxyConnection.lua",
      ["L_SockProxyDigest"] = "luup/client/L_SockProxyDigest.lua",
      ["L_SockProxyDirect"] = "luup/client/L_SockProxyDirect.lua",
      ["L_SockProxyDirectWebSocket"] = "luup/client/L_SockProxyDirectWebSocket.lua",
      ["L_SockProxyFrames"] = "luup/client/L_SockProxyFrames.lua",
      ["L_SockProxyFraming"] = "luup/client/L_SockProxyFraming.lua",
      ["L_SockProxyHandshake"] = "luup/client/L_SockProxyHandshake.lua",
      ["L_SockProxyListener"] = "luup/client/L_SockProxyListener.lua",
      ["L_SockProxyLoop"] = "luup/client/L_SockProxyLoop.lua",
      ["L_SockProxyOperation"] = "luup/client/L_SockProxyOperation.lua",
      ["L_SockProxyOptions"] = "luup/client/L_SockProxyOptions.lua",
      ["L_SockProxyRelayed"] = "luup/client/L_SockProxyRelayed.lua",
      ["L_SockProxyResolver"] = "luup/client/L_SockProxyResolver.lua",
      ["L_SockProxyTimer"] = "luup/client/L_SockProxyTimer.lua",
      ["L_SockProxyTransport"] = "luup/client/L_SockProxyTransport.lua",
      ["L_SockProxyUpgrade"] = "luup/client/L_SockProxyUpgrade.lua",
      ["L_SockProxyArguments"] = "luup/compat/L_SockProxyArguments.lua",
      ["L_SockProxyClass"] = "luup/compat/L_SockProxyClass.lua",
      ["L_SockProxyHeaders"] = "luup/compat/L_SockProxyHeaders.lua",
      ["L_SockProxyTurbo"] = "luup/compat/L_SockProxyTurbo.lua",
      ["L_SockProxyTurboServer"] = "luup/compat/L_SockProxyTurboServer.lua",
      ["L_SockProxyTurboStream"] = "luup/compat/L_SockProxyTurboStream.lua",
      ["L_SockProxyVeraWebSockets"] = "luup/compat/L_SockProxyVeraWebSockets.lua",
      ["L_SockProxy_LuWS"] = "luup/compat/L_SockProxy_LuWS.lua",
   },
}
