//! The Luup action that notifications invoke: the four parts of `NTFY`, as an option (`dev/sid/action[/pid]`) and as a
//! command (`dev sid action [pid]`).

use super::{is_blank, number, percent, text_memory};

/// The service if `NTFY` names none.
pub(crate) const DEFAULT_SERVICE: &[u8] = b"urn:toggledbits-com:serviceId:SockProxy1";
/// The action if `NTFY` names none.
pub(crate) const DEFAULT_ACTION: &[u8] = b"HandleReceiveData";

/// Bytes of the parts of `NTFY` in all. Usual ones have 80. A request has up to three times as many, percent-encoded, and
/// waits while Luup is away.
const MAX_LEN: usize = 1024;

/// What other clients see of a kept connection's pid.
const HIDDEN_PID: &[u8] = b"****";

/// The parts of `NTFY` have more than 1024 bytes in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotifyTargetTooLong;

/// An action of a Luup device, and the plugin's identifier of the connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NotifyTarget {
    /// Luup's device number. Negative: no notifications. A Lua number, so it need not be an integer.
    device: f64,
    service: Option<Box<[u8]>>,
    action: Option<Box<[u8]>>,
    pid: Option<Box<[u8]>>,
}

impl NotifyTarget {
    /// Parses the value of the option `NTFY=dev/sid/action[/pid]`.
    pub(crate) fn from_option(value: &[u8]) -> Result<Self, NotifyTargetTooLong> {
        Self::from_parts(value.split(|&b| b == b'/'), value.last() == Some(&b'/'))
    }

    /// Parses the arguments of the command `NTFY`: the same parts, separated by single blanks.
    pub(crate) fn from_command(words: &[u8]) -> Result<Self, NotifyTargetTooLong> {
        Self::from_parts(words.split(|&b| is_blank(b)), false)
    }

    /// An empty part in the middle is an empty service or action. An empty pid counts as absent, and so does an empty
    /// last part, because the Lua daemon's `split` dropped it.
    fn from_parts<'a>(
        parts: impl Iterator<Item = &'a [u8]>,
        ends_in_separator: bool,
    ) -> Result<Self, NotifyTargetTooLong> {
        let mut parts: Vec<&[u8]> = parts.take(5).collect();
        if ends_in_separator && parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        if parts.iter().take(4).map(|part| part.len()).sum::<usize>() > MAX_LEN {
            return Err(NotifyTargetTooLong);
        }
        let part = |at: usize| parts.get(at).map(|&part| Box::from(part));
        Ok(Self {
            device: parts
                .first()
                .and_then(|device| number::parse(device))
                .filter(|device| !device.is_nan())
                .unwrap_or(-1.0),
            service: part(1),
            action: part(2),
            pid: part(3).filter(|pid| !pid.is_empty()),
        })
    }

    /// Bytes of memory of its texts.
    pub(crate) fn held(&self) -> usize {
        [&self.service, &self.action, &self.pid].into_iter().flatten().map(|text| text_memory(text)).sum()
    }

    /// True if there is a device to notify. Device 0 is one.
    pub(crate) fn notifies(&self) -> bool {
        self.device >= 0.0
    }

    /// The device number as requests show it.
    pub(crate) fn device(&self) -> String {
        number::format(self.device)
    }

    /// The pid that the plugin chose for the connection. It replaces the proxy's own.
    pub(crate) fn pid(&self) -> Option<&[u8]> {
        self.pid.as_deref()
    }

    /// The path and query of the request that invokes the action, without `&Event=`.
    ///
    /// `own_pid` is the proxy's pid of the connection, for a plugin that chose none.
    pub(crate) fn query(&self, own_pid: &[u8]) -> String {
        let mut query = format!("/data_request?id=action&output_format=json&DeviceNum={}&serviceId=", self.device());
        percent::encode(self.service(), &mut query);
        query.push_str("&action=");
        percent::encode(self.action(), &mut query);
        query.push_str("&Pid=");
        percent::encode(self.pid().unwrap_or(own_pid), &mut query);
        query
    }

    /// STAT's last column: `dev/sid/action/pid`. Empty for device 0 and without a device, as in the Lua daemon.
    pub(crate) fn column(&self, own_pid: &[u8]) -> Vec<u8> {
        if self.device > 0.0 { self.joined(own_pid) } else { Vec::new() }
    }

    /// The column as other clients see it: without the plugin's pid, which is a secret.
    pub(crate) fn redacted_column(&self, own_pid: &[u8]) -> Vec<u8> {
        let mut column = self.column(own_pid);
        if let Some(pid) = self.pid()
            && !column.is_empty()
        {
            column.truncate(column.len() - pid.len());
            column.extend_from_slice(HIDDEN_PID);
        }
        column
    }

    /// `dev/sid/action/pid`.
    pub(crate) fn joined(&self, own_pid: &[u8]) -> Vec<u8> {
        let device = self.device();
        [device.as_bytes(), self.service(), self.action(), self.pid().unwrap_or(own_pid)].join(&b'/')
    }

    fn service(&self) -> &[u8] {
        self.service.as_deref().unwrap_or(DEFAULT_SERVICE)
    }

    fn action(&self) -> &[u8] {
        self.action.as_deref().unwrap_or(DEFAULT_ACTION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(value: &[u8]) -> NotifyTarget {
        NotifyTarget::from_option(value).unwrap()
    }

    fn option(value: &str) -> String {
        String::from_utf8(target(value.as_bytes()).joined(b"own")).unwrap()
    }

    fn command(words: &str) -> String {
        String::from_utf8(NotifyTarget::from_command(words.as_bytes()).unwrap().joined(b"own")).unwrap()
    }

    #[test]
    fn the_parts_have_1024_bytes_at_most_in_all() {
        for (pid, behind, accepted) in [(1000, 0, true), (1000, 9000, true), (1021, 0, true), (1022, 0, false)] {
            let parts = ["5", "s", "a", &"p".repeat(pid), &"x".repeat(behind)];
            let target = NotifyTarget::from_option(parts.join("/").as_bytes());
            assert_eq!(target.is_ok(), accepted, "{pid} {behind}");
            assert_eq!(NotifyTarget::from_command(parts.join(" ").as_bytes()), target);
        }
        for at in 0..4 {
            let mut parts = vec![String::new(); 4];
            parts[at] = "0".repeat(MAX_LEN);
            assert!(NotifyTarget::from_option(parts.join("/").as_bytes()).is_ok(), "part {at}");
            parts[at].push('0');
            assert_eq!(NotifyTarget::from_option(parts.join("/").as_bytes()), Err(NotifyTargetTooLong), "part {at}");
        }
    }

    #[test]
    fn missing_parts_have_defaults() {
        let defaults = "12/urn:toggledbits-com:serviceId:SockProxy1/HandleReceiveData/own";
        assert_eq!(option("12"), defaults);
        assert_eq!(option("12/"), defaults);
        assert_eq!(command("12"), defaults);
        assert_eq!(option("12/svc"), "12/svc/HandleReceiveData/own");
        assert_eq!(option("12/svc/"), "12/svc/HandleReceiveData/own");
        assert_eq!(option("12//Act"), "12//Act/own", "an empty service stays empty");
        assert_eq!(option("12/svc/Act/"), "12/svc/Act/own");
        assert_eq!(option("12/svc/Act/0"), "12/svc/Act/0");
        assert_eq!(option("12/svc/Act/0/more"), "12/svc/Act/0", "words after the fourth are ignored");
        assert_eq!(command("12 svc Act pid more"), "12/svc/Act/pid");
        assert_eq!(command("12 svc Act"), "12/svc/Act/own");
    }

    #[test]
    fn devices_are_lua_numbers() {
        assert_eq!(option("0x10/s/a"), "16/s/a/own");
        assert_eq!(option("1.5/s/a"), "1.5/s/a/own");
        assert_eq!(option("1e17/s/a"), "1e+17/s/a/own");
        for (value, notifies) in [("0", true), ("-1", false), ("x", false), ("", false), ("nan", false), ("7", true)] {
            assert_eq!(target(value.as_bytes()).notifies(), notifies, "{value}");
        }
    }

    #[test]
    fn device_0_is_notified_and_has_no_column() {
        let device_0 = target(b"0/s/a");
        assert!(device_0.notifies());
        assert_eq!(device_0.column(b"own"), b"");
        assert_eq!(target(b"3/s/a").column(b"own"), b"3/s/a/own");
    }

    #[test]
    fn a_redacted_pid_shows_none_of_its_bytes_and_not_how_many() {
        let column = |option: &[u8]| target(option).redacted_column(b"own");
        assert_eq!(column(b"3/s/a/abcdefgh"), b"3/s/a/****");
        assert_eq!(column(b"3/s/a/abcdefghijkl"), b"3/s/a/****");
        assert_eq!(column(b"0/s/a/abcdefgh"), b"");
        assert_eq!(column(b"3/s/a"), b"3/s/a/own", "the proxy's own name is no secret");
    }

    #[test]
    fn the_query_is_that_of_the_lua_daemon() {
        let target = target(b"123/urn:example-com:serviceId:Example1/HandleReceive");
        assert_eq!(
            target.query(b"1716058a"),
            "/data_request?id=action&output_format=json&DeviceNum=123\
             &serviceId=urn%3aexample-com%3aserviceId%3aExample1&action=HandleReceive&Pid=1716058a"
        );
    }
}
