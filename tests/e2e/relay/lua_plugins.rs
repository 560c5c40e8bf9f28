//! Plugins in Lua 5.1 with LuaSocket. The scripts are in `tests/lua`.

use std::process::Command;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::ports::Reserved;

use crate::support::{LIMIT, StatClient, started, with_luup};

/// Runs a script with the ports of the proxy, of an echo device, and of no listener.
///
/// # Panics
/// If it prints anything but `ok`, and if Lua or LuaSocket is missing.
#[track_caller]
fn lua(script: &str, daemon: &Daemon, device: &Device) {
    let closed = Reserved::new().unwrap();
    let ports = [daemon.port(), device.port(), closed.port()].map(|port| port.to_string());
    let mut command = Command::new("lua5.1");
    command.arg(script).args(ports).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lua"));
    let output = command.output().expect("lua5.1 is needed (apt-get install lua5.1 lua-socket)");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!err.contains("module 'socket' not found"), "LuaSocket is needed (apt-get install lua-socket)");
    assert!(output.status.success() && out == "ok\n", "{script}: {out}{err}");
}

#[test]
fn the_connect_function_of_the_readme_works_and_leaves_nothing_behind() {
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let mut stat = StatClient::new(daemon.addr());
    lua("readme_connect.lua", &daemon, &device);
    stat.wait_connections(0);
    assert!(device.wait_finished(device.accepted(), LIMIT), "the device's connections have ended");
}

#[test]
fn the_connect_function_of_luws_works_and_is_notified() {
    let (luup, daemon) = with_luup("");
    let device = Device::start(Kind::Echo);
    lua("luws_connect.lua", &daemon, &device);
    let request = &luup.wait_for(1, LIMIT)[0];
    assert_eq!((request.device(), request.action()), (Some(123), "HandleReceive"));
    assert_eq!(request.service(), "urn:example-com:serviceId:Example1");
}

#[test]
fn the_functions_in_docs_protocol_for_manual_use_work() {
    lua("docs_by_hand.lua", &started(), &Device::start(Kind::Echo));
}

#[test]
fn every_receive_pattern_works() {
    lua("receive.lua", &started(), &Device::start(Kind::Echo));
}

#[test]
fn a_sequence_of_setup_commands_works() {
    lua("setup_mode.lua", &started(), &Device::start(Kind::Echo));
}

#[test]
fn ten_megabytes_pass_unchanged_in_both_directions() {
    lua("bulk.lua", &started(), &Device::start(Kind::Echo));
}
