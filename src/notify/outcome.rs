//! [`NotifyOutcome`]: the result of a notification, from Luup's answer.

/// The result of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotifyOutcome {
    /// Luup accepted it: 2xx, and the body is no error.
    Delivered,
    /// No connection: Luup as a whole is away.
    Unreachable,
    /// The server failed verification or does not speak TLS: Luup as a whole is away. This can pass, for example once
    /// the clock of the box is set.
    TlsFailed,
    /// No answer in time: the device's action hangs, or Luup does.
    TimedOut,
    /// No thread could be started to send the request.
    NotSent,
    /// The connection broke before an answer. Luup may recover.
    ConnectionLost,
    /// Luup answered 5xx other than 501. Luup may recover.
    ServerError(u16),
    /// 2xx with a body that begins with `ERROR:`. Vera answers so for an unknown action, and also while its engine
    /// starts.
    ErrorBody,
    /// 401, 404, 501 and other answers that a repetition would not change.
    Refused(u16),
    /// The answer is not HTTP. Luup has received the request, and a repetition would get no other answer.
    InvalidHttp,
}

impl NotifyOutcome {
    /// The outcome for an answer with this status and this beginning of the body.
    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        match status {
            200..=299 if body.trim_ascii_start().starts_with(b"ERROR:") => Self::ErrorBody,
            200..=299 => Self::Delivered,
            501 => Self::Refused(status),
            500..=599 => Self::ServerError(status),
            _ => Self::Refused(status),
        }
    }

    /// The name in logs and STAT JSON.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Delivered => "delivered".into(),
            Self::Unreachable => "unreachable".into(),
            Self::TlsFailed => "TLS failed".into(),
            Self::TimedOut => "timeout".into(),
            Self::ErrorBody => "ERROR body".into(),
            Self::NotSent => "not sent".into(),
            Self::ConnectionLost => "connection lost".into(),
            Self::InvalidHttp => "no HTTP answer".into(),
            Self::ServerError(status) | Self::Refused(status) => format!("status {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_decide_the_outcome() {
        for (status, body, outcome) in [
            (200, &b"{\"u:HandleReceiveResponse\": {}}"[..], NotifyOutcome::Delivered),
            (204, b"", NotifyOutcome::Delivered),
            (200, b"ERROR: Invalid Service", NotifyOutcome::ErrorBody),
            (200, b"\r\nERROR: No implementation", NotifyOutcome::ErrorBody),
            (200, b"error: in lower case is an action's own text", NotifyOutcome::Delivered),
            (401, b"", NotifyOutcome::Refused(401)),
            (404, b"", NotifyOutcome::Refused(404)),
            (501, b"", NotifyOutcome::Refused(501)),
            (302, b"", NotifyOutcome::Refused(302)),
            (500, b"ERROR: x", NotifyOutcome::ServerError(500)),
            (503, b"", NotifyOutcome::ServerError(503)),
        ] {
            assert_eq!(NotifyOutcome::from_answer(status, body), outcome, "{status} {body:?}");
        }
    }
}
