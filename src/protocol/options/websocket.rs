//! The options for WebSocket.

use std::time::Duration;

use super::OptionDefault::{Unset, Value};
use super::values::{MAX_CONNECT_TIMEOUT, decoded, lenient, one_of, switch, time_limit};
use super::{OptionScope, OptionSpec, Parameters, ValueError, apply_defaults};
use crate::websocket::handshake::{CompressionOffer, Offer, OfferError};
use crate::websocket::{Control, Leniency};

/// The WebSocket settings of one connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WebSocketSettings {
    /// What the opening handshake offers to the server.
    pub offer: Offer,
    /// RDIR: redirects to follow, 0 to 20.
    pub redirects: u32,
    /// RQTM: time limit until the 101 response, redirects included.
    pub request_timeout: Duration,
    /// PNGI: silence of the remote after which a ping is sent. `None`: never.
    pub ping_interval: Option<Duration>,
    /// MAXM: longest message from the remote, in bytes, 1 to 2^30.
    pub max_message: u64,
    /// MASK: outgoing frames are masked.
    pub mask: bool,
    /// CTRL: how control frames are handled.
    pub control: Control,
    /// LENI: what the remote may get wrong.
    pub leniency: Leniency,
}

impl Default for WebSocketSettings {
    /// The settings that the default texts of the options give.
    fn default() -> Self {
        let unset = Self {
            offer: Offer::default(),
            redirects: 0,
            request_timeout: Duration::ZERO,
            ping_interval: None,
            max_message: 0,
            mask: false,
            control: Control::Hand,
            leniency: Leniency::default(),
        };
        let mut parameters = Parameters { websocket: Some(Box::new(unset)), ..Parameters::UNSET };
        apply_defaults(OPTIONS, &mut parameters);
        *parameters.websocket.unwrap_or_else(|| unreachable!())
    }
}

/// Largest MAXM in bytes: a 32-bit process cannot allocate more in one piece.
const MAX_MESSAGE_LEN: f64 = (1u32 << 30) as f64;

fn settings(parameters: &mut Parameters) -> &mut WebSocketSettings {
    parameters.websocket.get_or_insert_default()
}

impl From<OfferError> for ValueError {
    fn from(_: OfferError) -> Self {
        Self::Invalid
    }
}

/// The options for WebSocket.
pub(super) static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("SUBP", "a,b", OptionScope::WebSocket, Unset("-"), "subprotocols to offer", |parameters, value| {
        let names: Vec<_> = value.split(|&b| b == b',').map(decoded).collect::<Result<_, _>>()?;
        Ok(settings(parameters).offer.set_subprotocols(names.iter().map(Vec::as_slice))?)
    })
    .capable(&["WS"]),
    OptionSpec::new(
        "HDRS",
        "Name:value",
        OptionScope::WebSocket,
        Unset("-"),
        "header of the request, repeatable; replaces the proxy's own",
        |parameters, value| Ok(settings(parameters).offer.add_header(&decoded(value)?)?),
    )
    .secret(),
    OptionSpec::new(
        "AUTH",
        "user:password",
        OptionScope::WebSocket,
        Unset("-"),
        "HTTP basic authentication",
        |parameters, value| Ok(settings(parameters).offer.set_auth(&decoded(value)?)?),
    )
    .connects()
    .secret(),
    OptionSpec::new(
        "UAGT",
        "text",
        OptionScope::WebSocket,
        Unset("sockproxyd/x.y"),
        "User-Agent header",
        |parameters, value| Ok(settings(parameters).offer.set_user_agent(&decoded(value)?)?),
    )
    .connects(),
    OptionSpec::new("ORIG", "url", OptionScope::WebSocket, Unset("-"), "Origin header", |parameters, value| {
        Ok(settings(parameters).offer.set_origin(&decoded(value)?)?)
    })
    .connects(),
    OptionSpec::new("RDIR", "n", OptionScope::WebSocket, Value("4"), "redirects to follow", |parameters, value| {
        lenient(value, |n| settings(parameters).redirects = n.clamp(0.0, 20.0) as u32)
    })
    .connects(),
    OptionSpec::new(
        "RQTM",
        "ms",
        OptionScope::WebSocket,
        Value("15000"),
        "time limit until the 101 response, redirects included",
        |parameters, value| {
            lenient(value, |ms| {
                settings(parameters).request_timeout = time_limit(ms, 0.001).unwrap_or(MAX_CONNECT_TIMEOUT);
            })
        },
    )
    .connects(),
    OptionSpec::new(
        "PNGI",
        "seconds",
        OptionScope::WebSocket,
        Value("0"),
        "send a ping after this much silence, and close if there is no answer for as long again; 0: no pings",
        |parameters, value| lenient(value, |seconds| settings(parameters).ping_interval = time_limit(seconds, 1.0)),
    ),
    OptionSpec::new(
        "MAXM",
        "bytes",
        OptionScope::WebSocket,
        Value("65536"),
        "longest message from the remote",
        |parameters, value| {
            lenient(value, |bytes| {
                let limit = if bytes > 0.0 { bytes.clamp(1.0, MAX_MESSAGE_LEN) } else { MAX_MESSAGE_LEN };
                settings(parameters).max_message = limit as u64;
            })
        },
    ),
    OptionSpec::new(
        "DEFL",
        "on|off",
        OptionScope::WebSocket,
        Value("off"),
        "permessage-deflate",
        |parameters, value| {
            let offers = [("on", CompressionOffer::SmallWindows), ("off", CompressionOffer::None)];
            settings(parameters).offer.deflate = one_of(value, &offers)?;
            Ok(())
        },
    )
    .capable(&["DEFL"]),
    OptionSpec::new(
        "MASK",
        "on|off",
        OptionScope::WebSocket,
        Value("on"),
        "mask outgoing frames",
        |parameters, value| {
            settings(parameters).mask = switch(value)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "CTRL",
        "auto|show|hand",
        OptionScope::WebSocket,
        Value("auto"),
        "control frames are answered, answered and shown, or left to the plugin",
        |parameters, value| {
            let ways = [("auto", Control::Auto), ("show", Control::Show), ("hand", Control::Hand)];
            settings(parameters).control = one_of(value, &ways)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "RHDR",
        "on|off",
        OptionScope::WebSocket,
        Value("off"),
        "the header of the server's response is the first message (HEAD)",
        |parameters, value| {
            settings(parameters).offer.keep_head = switch(value)?;
            Ok(())
        },
    ),
    OptionSpec::new(
        "LENI",
        "utf8,mask",
        OptionScope::WebSocket,
        Unset("-"),
        "what the remote may get wrong: text that is not UTF-8 is passed as it is; masked frames are unmasked",
        |parameters, value| {
            let excuses: [(_, fn(&mut Leniency)); 2] =
                [("utf8", |leniency| leniency.utf8 = true), ("mask", |leniency| leniency.mask = true)];
            let mut leniency = Leniency::default();
            for word in value.split(|&b| b == b',') {
                one_of(word, &excuses)?(&mut leniency);
            }
            settings(parameters).leniency = leniency;
            Ok(())
        },
    )
    .capable(&["LENI"]),
];
