-- The Lua libraries and the plugin run in Lua 5.1, LuaJIT and Lua 5.4; Luup gives them the global table `luup`.
std = "max"
globals = { "luup" }
max_line_length = 132
-- The tests have long tables, and run examples that define globals.
files["tests"] = { max_line_length = false, allow_defined = true, ignore = { "113", "131", "311", "331", "42", "43" } }
