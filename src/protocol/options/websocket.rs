//! The options for WebSocket.

use std::time::Duration;

use super::values::{LONGEST_CONNECT, decoded, lenient, limit, one_of};
use super::{OptionSpec, Parameters, Refused, Targets};
use crate::websocket::Control;
use crate::websocket::handshake::{Offer, OfferError};

/// What a plugin asks of the bridge.
#[derive(Clone, Debug, PartialEq)]
pub struct Bridge {
    /// What the opening handshake offers.
    pub offer: Offer,
    /// RDIR: redirects followed.
    pub redirects: u32,
    /// RQTM: time for everything up to the 101, redirects included.
    pub request_timeout: Duration,
    /// PNGI: silence of the remote after which it is pinged. `None`: never.
    pub ping_interval: Option<Duration>,
    /// MAXM: longest message from the remote in bytes.
    pub max_message: u64,
    /// MASK.
    pub mask: bool,
    /// CTRL.
    pub control: Control,
}

impl Default for Bridge {
    fn default() -> Self {
        Self {
            offer: Offer::default(),
            redirects: 4,
            request_timeout: Duration::from_secs(15),
            ping_interval: None,
            max_message: 65536,
            mask: true,
            control: Control::Auto,
        }
    }
}

/// The largest MAXM: what a process of 32 bits could ever hold in one piece.
const LARGEST_MESSAGE: f64 = (1u32 << 30) as f64;

fn bridge(parameters: &mut Parameters) -> &mut Bridge {
    parameters.bridge.get_or_insert_default()
}

fn switch(value: &[u8]) -> Result<bool, Refused> {
    one_of(value, &[("on", true), ("off", false)])
}

impl From<OfferError> for Refused {
    fn from(_: OfferError) -> Self {
        Self::Value
    }
}

/// The options for WebSocket.
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("SUBP", "a,b", Targets::WebSocket, "-", "subprotocols offered", |parameters, value| {
        let names: Vec<_> = value.split(|&b| b == b',').map(decoded).collect::<Result<_, _>>()?;
        Ok(bridge(parameters).offer.set_subprotocols(names.iter().map(Vec::as_slice))?)
    })
    .capable(&["WS"]),
    OptionSpec::new(
        "HDRS",
        "Name:value",
        Targets::WebSocket,
        "-",
        "a header of the request, repeatable; replaces ours",
        |parameters, value| Ok(bridge(parameters).offer.add_header(&decoded(value)?)?),
    )
    .secret(),
    OptionSpec::new("AUTH", "user:password", Targets::WebSocket, "-", "basic authentication", |parameters, value| {
        Ok(bridge(parameters).offer.set_auth(&decoded(value)?)?)
    })
    .secret(),
    OptionSpec::new("UAGT", "text", Targets::WebSocket, "sockproxyd/x.y", "User-Agent", |parameters, value| {
        Ok(bridge(parameters).offer.set_user_agent(&decoded(value)?)?)
    }),
    OptionSpec::new("ORIG", "url", Targets::WebSocket, "-", "Origin", |parameters, value| {
        Ok(bridge(parameters).offer.set_origin(&decoded(value)?)?)
    }),
    OptionSpec::new("RDIR", "n", Targets::WebSocket, "4", "redirects followed", |parameters, value| {
        lenient(value, |n| bridge(parameters).redirects = n.clamp(0.0, 20.0) as u32)
    }),
    OptionSpec::new(
        "RQTM",
        "ms",
        Targets::WebSocket,
        "15000",
        "time for everything up to the 101, redirects included",
        |parameters, value| {
            lenient(value, |ms| bridge(parameters).request_timeout = limit(ms, 0.001).unwrap_or(LONGEST_CONNECT))
        },
    ),
    OptionSpec::new(
        "PNGI",
        "seconds",
        Targets::WebSocket,
        "0",
        "ping after that much silence; unanswered as long again: lost",
        |parameters, value| lenient(value, |seconds| bridge(parameters).ping_interval = limit(seconds, 1.0)),
    ),
    OptionSpec::new(
        "MAXM",
        "bytes",
        Targets::WebSocket,
        "65536",
        "longest message from the remote",
        |parameters, value| {
            lenient(value, |bytes| {
                let most = if bytes > 0.0 { bytes.clamp(1.0, LARGEST_MESSAGE) } else { LARGEST_MESSAGE };
                bridge(parameters).max_message = most as u64;
            })
        },
    ),
    OptionSpec::new("DEFL", "on|off", Targets::WebSocket, "off", "permessage-deflate", |parameters, value| {
        bridge(parameters).offer.deflate = switch(value)?;
        Ok(())
    })
    .capable(&["DEFL"]),
    OptionSpec::new("MASK", "on|off", Targets::WebSocket, "on", "mask what is sent", |parameters, value| {
        bridge(parameters).mask = switch(value)?;
        Ok(())
    }),
    OptionSpec::new(
        "CTRL",
        "auto|show|hand",
        Targets::WebSocket,
        "auto",
        "control frames answered, answered and shown, or left to the plugin",
        |parameters, value| {
            let ways = [("auto", Control::Auto), ("show", Control::Show), ("hand", Control::Hand)];
            bridge(parameters).control = one_of(value, &ways)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "RHDR",
        "on|off",
        Targets::WebSocket,
        "off",
        "the peer's header block as the first message (HEAD)",
        |parameters, value| {
            bridge(parameters).offer.keep_head = switch(value)?;
            Ok(())
        },
    ),
];
