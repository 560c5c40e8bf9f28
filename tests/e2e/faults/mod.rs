//! The faults of the original Lua daemon, each with a test that it fails.
//!
//! Found by reading its source:
//!
//! | fault | test |
//! | --- | --- |
//! | a failed send to the remote calls a function that does not exist | [`streams::a_send_to_a_closed_remote_ends_the_connection_and_is_logged`] |
//! | the result of a send to the plugin is ignored, so a slow plugin loses bytes | [`streams::a_slow_plugin_loses_no_byte`] |
//! | a full socket buffer towards the remote counts as an error | [`streams::a_slow_remote_does_not_end_the_connection`] |
//! | connecting, name lookups and notifications block all connections | [`blocking::a_hanging_connect_blocks_no_other_connection`], [`blocking::a_hanging_lookup_blocks_no_other_connection`], [`blocking::a_hanging_luup_blocks_no_connection`] |
//! | notifications are sent only when all connections are idle | [`notifying::traffic_of_other_connections_delays_no_notification`], [`notifying::traffic_of_its_own_connection_delays_no_notification`] |
//! | one notification a second, and the queue's index goes stale | [`notifying::a_burst_on_many_connections_is_notified_within_a_second`] |
//! | only one command in a packet is executed; bytes behind CONN are lost | [`commands::several_commands_in_one_packet_are_all_answered`], [`commands::bytes_behind_conn_are_not_lost`] |
//! | a bad PACE closes without a reply | [`commands::a_bad_pace_is_answered`] |
//! | the end of one side closes the other without draining | [`streams::a_late_answer_after_half_close_arrives`] |
//! | UDP datagrams above 2048 bytes are truncated | [`datagrams::a_datagram_above_2048_bytes_is_not_truncated`] |
//! | a restarted daemon finds its port in use | [`commands::the_port_is_free_after_a_restart`] |
//! | no IPv6 addresses | [`commands::an_ipv6_address_is_a_target`] |
//! | every client may STOP | [`commands::stop_can_be_restricted`] |
//! | no keep-alive | [`streams::keep_alive_is_enabled_on_both_sides`] |
//!
//! Found by running it:
//!
//! | fault | test |
//! | --- | --- |
//! | every notification takes a second | [`notifying::a_notification_does_not_take_a_second`] |
//! | BLKS inf and 0.5, and BLKS=0: an endless busy loop; BLKS=-1: closed | [`commands::odd_block_sizes_do_not_spin`], [`commands::a_block_size_below_zero_does_not_close`] |
//! | the 510th connection ends the daemon | [`commands::six_hundred_connections_do_not_end_the_daemon`] |
//! | Nagle's algorithm towards the remote: 44 ms for two small writes | [`streams::two_small_writes_do_not_wait_for_each_other`] |
//! | RTIM is late, or ignored during other traffic | [`timing::rtim_applies_while_the_plugin_sends`], [`timing::rtim_is_not_late`] |
//! | RTIM closes when the plugin is silent | [`timing::rtim_does_not_close_for_a_silent_plugin`] |
//! | lower case and two blanks between options are refused | [`commands::lower_case_and_several_blanks_are_accepted`] |
//! | a line of any length is buffered | [`commands::a_line_without_end_is_refused`] |
//! | boundaries of UDP datagrams are lost | [`datagrams::datagram_boundaries_are_kept`] |
//! | STAT's Idle is `-1m59`, and its order is random | [`commands::stat_shows_sane_times_in_a_sane_order`] |
//! | `[direct]` as documented does not work | [`commands::direct_as_documented_works`] |
//! | the timeout of setup mode is up to 5 s late | [`crate::relay::timeouts::setup_mode_times_out`] |

mod blocking;
mod commands;
mod datagrams;
mod notifying;
mod streams;
mod timing;
