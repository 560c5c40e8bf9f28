//! What became of a notification, judged by Luup's answer.

/// The verdict on one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Luup took it: 2xx, and the body is no error.
    Delivered,
    /// Nobody listens, or the way there is shut: Luup as a whole is away.
    Unreachable,
    /// Whoever is there cannot be trusted, or does not speak TLS: Luup as a whole is away. That may pass, once the clock
    /// of the box is set.
    NoTls,
    /// No answer in time: this device's action hangs, or Luup does.
    TimedOut,
    /// There was no thread to send it: nobody was asked.
    NotSent,
    /// The connection broke before an answer: Luup is in trouble, and may recover.
    HungUp,
    /// Luup answered 5xx: likewise.
    Failed(u16),
    /// `200` with a body that begins with `ERROR:`. Vera answers so for an unknown action, but also while its engine
    /// is starting.
    ErrorBody,
    /// 401, 404, 501 and other answers that repeating would not change.
    Refused(u16),
    /// An answer that is none in HTTP: the request was taken, and asking again would get no other answer.
    NoHttp,
}

impl Outcome {
    /// Judges an answer: its status and the beginning of its body.
    pub fn of_answer(status: u16, body: &[u8]) -> Self {
        match status {
            200..=299 if body.trim_ascii_start().starts_with(b"ERROR:") => Self::ErrorBody,
            200..=299 => Self::Delivered,
            501 => Self::Refused(status),
            500..=599 => Self::Failed(status),
            _ => Self::Refused(status),
        }
    }

    /// One or two words for logs and STAT JSON.
    pub fn name(self) -> String {
        match self {
            Self::Delivered => "delivered".into(),
            Self::Unreachable => "unreachable".into(),
            Self::NoTls => "TLS failed".into(),
            Self::TimedOut => "timeout".into(),
            Self::ErrorBody => "ERROR body".into(),
            Self::NotSent => "not sent".into(),
            Self::HungUp => "connection lost".into(),
            Self::NoHttp => "no HTTP answer".into(),
            Self::Failed(status) | Self::Refused(status) => format!("status {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judges_as_the_protocol_says() {
        for (status, body, outcome) in [
            (200, &b"{\"u:HandleReceiveResponse\": {}}"[..], Outcome::Delivered),
            (204, b"", Outcome::Delivered),
            (200, b"ERROR: Invalid Service", Outcome::ErrorBody),
            (200, b"\r\nERROR: No implementation", Outcome::ErrorBody),
            (200, b"error: lower case is somebody's text", Outcome::Delivered),
            (401, b"", Outcome::Refused(401)),
            (404, b"", Outcome::Refused(404)),
            (501, b"", Outcome::Refused(501)),
            (302, b"", Outcome::Refused(302)),
            (500, b"ERROR: x", Outcome::Failed(500)),
            (503, b"", Outcome::Failed(503)),
        ] {
            assert_eq!(Outcome::of_answer(status, body), outcome, "{status} {body:?}");
        }
    }
}
