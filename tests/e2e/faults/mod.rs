//! The faults of the Lua daemon, each with a test that it fails.
//!
//! Found by reading its source:
//!
//! | fault | test |
//! | --- | --- |
//! | a failed send to the remote calls a function that does not exist | [`streams::a_send_to_a_remote_that_is_gone_ends_that_connection_and_is_logged`] |
//! | the result of a send to the plugin is ignored: a slow one loses bytes | [`streams::a_slow_plugin_loses_no_byte`] |
//! | a full socket towards the remote counts as an error | [`streams::a_slow_remote_is_no_reason_to_close`] |
//! | connecting, names and notifications block everybody | [`blocking::a_connect_that_hangs_stops_nobody`], [`blocking::a_name_that_hangs_stops_nobody`], [`blocking::a_luup_that_hangs_stops_nobody`] |
//! | notifications go out only when nothing else happens | [`notifying::steady_traffic_of_others_starves_no_notification`], [`notifying::steady_traffic_of_its_own_starves_no_notification`] |
//! | one notification a second, and the queue's index goes stale | [`notifying::a_burst_on_many_connections_is_told_within_a_second`] |
//! | one command a packet; bytes behind CONN are lost | [`commands::several_commands_in_one_packet_are_all_answered`], [`commands::bytes_behind_conn_are_not_lost`] |
//! | a bad PACE closes without a word | [`commands::a_bad_pace_is_answered`] |
//! | the end of one side closes the other, and nothing is drained | [`streams::a_late_answer_after_half_a_close_arrives`] |
//! | UDP datagrams above 2048 bytes are cut | [`datagrams::one_above_2048_bytes_is_not_cut`] |
//! | the port of a daemon that was restarted is taken | [`commands::the_port_is_free_after_a_restart`] |
//! | no IPv6 addresses | [`commands::an_ipv6_address_is_a_target`] |
//! | STOP is open to everybody | [`commands::stop_can_be_kept_to_some`] |
//! | no keep-alive | [`streams::tcp_asks_whether_the_others_are_still_there`] |
//!
//! Found by running it:
//!
//! | fault | test |
//! | --- | --- |
//! | a notification takes a second, always | [`notifying::a_notification_does_not_take_a_second`] |
//! | BLKS inf and 0.5, and BLKS=0: a busy loop for ever; BLKS=-1: closed | [`commands::odd_block_sizes_do_not_spin`], [`commands::a_block_size_below_zero_does_not_close`] |
//! | the 510th connection ends the daemon | [`commands::six_hundred_connections_do_not_end_the_daemon`] |
//! | Nagle's algorithm towards the remote: 44 ms for two small writes | [`streams::two_small_writes_do_not_wait_for_each_other`] |
//! | RTIM is late, or not kept while somebody talks | [`timing::rtim_is_kept_while_the_plugin_talks`], [`timing::rtim_is_not_late`] |
//! | RTIM closes when the plugin is silent | [`timing::rtim_does_not_close_for_a_silent_plugin`] |
//! | lower case is not taken, nor two blanks between options | [`commands::lower_case_and_many_blanks_are_forgiven`] |
//! | a line of any length is held | [`commands::a_line_without_end_is_refused`] |
//! | UDP datagrams run into each other | [`datagrams::each_can_be_told_from_the_next`] |
//! | STAT's Idle is `-1m59`, its order that of a hash | [`commands::stat_shows_sane_times_in_a_sane_order`] |
//! | `[direct]` as documented does not work | [`commands::direct_as_documented_works`] |
//! | the time limit of setup mode comes up to 5 s late | [`crate::timeouts::silence_in_setup_mode_is_ended`] |

mod blocking;
mod commands;
mod datagrams;
mod notifying;
mod streams;
mod timing;
