//! Backpressure: a slow reader slows down its writer, takes a bounded amount of memory, and delays no other connection.

use std::net::TcpStream;
use std::time::Duration;

use testkit::daemon::Daemon;
use testkit::plugin::Plugin;
use testkit::websocket::Server;

use crate::support::{
    LIMIT, Reader, StatClient, Writer, both_ways, configured, echo_mode, processor_time, skipped_under_emulation,
    started,
};

/// Configurations in which the relay moves bytes differently: with or without pipes, with buffers of several sizes.
const CONFIGS: [&str; 4] = [
    "[limits]\n",
    "[limits]\npipes=0\n",
    "[limits]\npipes=1\nbuffer=4096\n",
    "[limits]\npipes=0\nbuffer=2048\nbuffers=65536\n",
];

/// The writer's and the reader's end of a connection; `to_remote` selects the direction.
fn ends(daemon: &Daemon, to_remote: bool, options: &str) -> (TcpStream, TcpStream) {
    let (plugin, remote) = echo_mode(daemon, options);
    let (plugin, early) = plugin.into_stream();
    assert!(early.is_empty());
    if to_remote { (plugin, remote) } else { (remote, plugin) }
}

/// Runs `check` for each configuration and each direction.
fn for_each_configuration(check: impl Fn(&Daemon, bool) + Sync) {
    let check = &check;
    std::thread::scope(|scope| {
        for config in CONFIGS {
            scope.spawn(move || {
                println!("{config:?}");
                let daemon = configured(config);
                check(&daemon, true);
                check(&daemon, false);
            });
        }
    });
}

#[test]
fn a_reader_that_pauses_loses_no_byte() {
    for_each_configuration(|daemon, to_remote| {
        let (from, to) = ends(daemon, to_remote, "");
        let mut writer = Writer::new(&from, 7);
        let held = writer.write_until_blocked();
        let mut reader = Reader::new(&to, 7);
        // Reads a little, then pauses again, as a busy Luup does.
        reader.read(held / 3);
        let total = writer.write_until_blocked();
        reader.read(held / 3);
        let sender = std::thread::spawn(move || {
            writer.write(3_000_000);
            writer.finish();
        });
        assert_eq!(reader.rest(), total + 3_000_000);
        sender.join().unwrap();
    });
}

#[test]
fn a_slow_reader_gets_everything() {
    const MANY: u64 = 2_000_000;
    for_each_configuration(|daemon, to_remote| {
        for options in ["", "BLKS=700"] {
            let (from, to) = ends(daemon, to_remote, options);
            let reader = Reader::new(&to, 8).slow();
            let mut writer = Writer::new(&from, 8);
            let sender = std::thread::spawn(move || {
                writer.write(MANY);
                writer.finish();
            });
            assert_eq!(reader.rest(), MANY, "{options}");
            sender.join().unwrap();
        }
    });
}

#[test]
fn the_buffer_size_limits_what_a_connection_holds() {
    let daemon = configured("[limits]\nbuffer=16384\npipes=0\n");
    let mut stat = StatClient::new(daemon.addr());
    for to_remote in [true, false] {
        let (from, to) = ends(&daemon, to_remote, "");
        let mut buffered = || stat.connections()[0]["buffered"].as_u64().unwrap();
        // What each connection takes besides: the name of its target.
        let idle = buffered();
        assert!(idle < 100, "an idle connection holds {idle} bytes");
        let written = Writer::new(&from, 1).write_until_blocked();
        let held = buffered();
        assert!((1..=16_384).contains(&(held - idle)), "{held} of {written} bytes held, {idle} when idle");
        assert_eq!(stat.status()["buffered"], held);
        drop((from, to));
        stat.wait_connections(0);
        assert_eq!(stat.status()["buffered"], 0);
    }
}

#[test]
fn memory_is_bounded_while_many_readers_pause() {
    if skipped_under_emulation("memory is the emulator's") {
        return;
    }
    // Three times as many bytes as `buffers`. The kernel holds some 8 MB for each of them: many more, and it has too little
    // memory for TCP (tcp_mem in tcp(7)), and drops segments of any connection on the machine.
    const CONNECTIONS: usize = 24;
    for pipes in [0, 16] {
        // Segments that the kernel drops come again after seconds.
        let daemon = configured(&format!("[limits]\nbuffers=1048576\npipes={pipes}\nhalfclose=60\n"));
        let mut pairs: Vec<_> = (0..CONNECTIONS).map(|_| echo_mode(&daemon, "")).collect();
        let before = daemon.memory().rss;
        std::thread::scope(|scope| {
            for (plugin, remote) in &pairs {
                scope.spawn(move || Writer::new(remote, 1).write_until_blocked());
                scope.spawn(move || Writer::new(plugin.stream(), 2).write_until_blocked());
            }
        });
        let grown = daemon.memory().rss.saturating_sub(before);
        let mut stat = StatClient::new(daemon.addr());
        let held = stat.status()["buffered"].as_u64().unwrap();
        // Each direction may hold 1 KiB when the memory limit is reached, and its target counts, too.
        let bound = 1_048_576 + 2 * CONNECTIONS as u64 * 2048;
        assert!(held <= bound, "{held} bytes held");
        assert!(grown < bound / 1024 + 1024, "{CONNECTIONS} blocked connections took {grown} kB");
        // One more connection without a pause completes.
        let (plugin, remote) = echo_mode(&daemon, "");
        both_ways(plugin.stream(), &remote, 500_000);
        pairs.clear();
    }
}

/// For a session that waits for memory, the daemon ends sessions that hold a part of a message. The daemon ends no session for
/// the bytes of a tcp connection, however slowly its reader takes them.
#[test]
fn a_stream_whose_reader_pauses_is_not_ended_for_others_memory() {
    let daemon = configured("[limits]\nbuffers=262144\npipes=0\n");
    let streams: Vec<_> = (0..4).map(|_| echo_mode(&daemon, "")).collect();
    let written: Vec<_> = std::thread::scope(|scope| {
        let write = |stream, seed| scope.spawn(move || Writer::new(stream, seed).write_until_blocked());
        let writers = streams.iter().map(|(plugin, remote)| [write(remote, 1), write(plugin.stream(), 2)]);
        let writers: Vec<_> = writers.collect();
        writers.into_iter().map(|writers| writers.map(|writer| writer.join().unwrap())).collect()
    });
    let echo = Server::echo();
    let connected = || {
        let mut plugin = daemon.plugin();
        plugin.conn(echo.url("/"), "");
        plugin
    };
    let half = [&b"BINA 60000\n"[..], &[7; 30_000]].concat();
    let begin_message = || {
        let mut plugin = connected();
        plugin.send(&half);
        plugin
    };
    let mut halves: Vec<Plugin> = (0..4).map(|_| begin_message()).collect();
    // A message waits until parts of others stand still for long enough. How many parts use up the memory depends on how far
    // the kernel's buffers were filled. It is shorter than a part: otherwise its own session would hold most.
    let mut plugin = connected();
    for _ in 0..6 {
        plugin.send(&[&b"BINA 20000\n"[..], &[7; 20_000]].concat());
        assert_eq!((plugin.line(), plugin.bytes(20_000)), ("BINA 20000".into(), vec![7; 20_000]));
        if daemon.complete_log_text().contains("which others need") {
            break;
        }
        halves.push(begin_message());
    }
    daemon.wait_for_log(LIMIT, |line| line.contains("which others need"));
    std::thread::scope(|scope| {
        for ((plugin, remote), [to_plugin, to_remote]) in streams.iter().zip(written) {
            scope.spawn(move || Reader::new(plugin.stream(), 1).read(to_plugin));
            scope.spawn(move || Reader::new(remote, 2).read(to_remote));
        }
    });
    drop(halves);
}

#[test]
fn connections_do_not_wait_for_each_other_at_the_memory_limit() {
    const CONNECTIONS: usize = 60;
    const MANY: u64 = 300_000;
    // 64 KiB for 120 directions together.
    let daemon = configured("[limits]\nbuffers=65536\npipes=0\n");
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            let (from, to) = ends(&daemon, false, "");
            let mut writer = Writer::new(&from, 3);
            scope.spawn(move || {
                writer.write(MANY);
                writer.finish();
            });
            scope.spawn(move || assert_eq!(Reader::new(&to, 3).slow().rest(), MANY));
        }
    });
}

#[test]
fn both_sides_can_write_before_they_read() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "");
    let (mut up, mut down) = (Writer::new(plugin.stream(), 1), Writer::new(&remote, 2));
    let (sent_up, sent_down) = (up.write_until_blocked(), down.write_until_blocked());
    Reader::new(plugin.stream(), 2).read(sent_down);
    Reader::new(&remote, 1).read(sent_up);
    let mut plugin: Plugin = plugin;
    assert!(plugin.is_quiet());
    plugin.finish();
}

#[test]
fn a_reader_that_pauses_does_not_block_the_other_direction() {
    let daemon = started();
    let (plugin, remote) = echo_mode(&daemon, "");
    let full = Writer::new(&remote, 1).write_until_blocked();
    let mut up = Writer::new(plugin.stream(), 2);
    let sender = std::thread::spawn(move || up.write(5_000_000));
    Reader::new(&remote, 2).read(5_000_000);
    sender.join().unwrap();
    Reader::new(plugin.stream(), 1).read(full);
}

#[test]
fn blocked_connections_take_no_processor_time() {
    if skipped_under_emulation("processor time is the emulator's") {
        return;
    }
    let daemon = started();
    let pairs: Vec<_> = (0..4).map(|_| echo_mode(&daemon, "")).collect();
    for (plugin, remote) in &pairs {
        Writer::new(remote, 1).write_until_blocked();
        Writer::new(plugin.stream(), 2).write_until_blocked();
    }
    let used = processor_time(&daemon, Duration::from_secs(1));
    assert!(used < Duration::from_millis(200), "{used:?} of processor time in a second without progress");
}
