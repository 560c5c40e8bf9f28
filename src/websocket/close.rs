//! Which codes a close frame may carry (RFC 6455 sections 7.4.1 and 7.4.2).

/// The purpose is fulfilled.
pub const NORMAL: u16 = 1000;
/// The end goes away.
pub const GOING_AWAY: u16 = 1001;
/// The protocol was broken.
pub const PROTOCOL: u16 = 1002;
/// Never in a frame: the close frame had no code.
pub const NO_CODE: u16 = 1005;
/// Never in a frame: there was no close frame.
pub const ABNORMAL: u16 = 1006;
/// The data does not fit its kind.
pub const BAD_DATA: u16 = 1007;
/// The message is too big.
pub const TOO_BIG: u16 = 1009;

/// The longest reason in bytes: a control frame less the code.
pub const REASON_LIMIT: usize = super::CONTROL_LIMIT - 2;

/// Whether a frame may carry `code`, either way.
pub fn is_valid(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}
