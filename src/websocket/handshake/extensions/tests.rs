//! Tests of the negotiation of permessage-deflate.

use super::*;

fn answer(value: &str) -> Result<Option<Deflate>, ExtensionError> {
    let headers = [httparse::Header { name: HEADER, value: value.as_bytes() }];
    read_response(Fields(&headers), CompressionOffer::SmallWindows)
}

fn agreed(value: &str) -> (u8, bool, u8, bool) {
    let deflate = answer(value).unwrap().unwrap();
    (
        deflate.peer_window_bits,
        deflate.peer_no_context_takeover,
        deflate.own_window_bits,
        deflate.own_no_context_takeover,
    )
}

#[test]
fn rfc_7692_section_7_1_absent_parameters_have_their_defaults() {
    assert_eq!(agreed("permessage-deflate"), (15, false, 15, false));
    assert_eq!(agreed("permessage-deflate; server_no_context_takeover"), (15, true, 15, false));
    assert_eq!(agreed("permessage-deflate; client_no_context_takeover"), (15, false, 15, true));
}

#[test]
fn rfc_7692_section_7_1_2_windows_are_8_to_15_without_leading_zeros() {
    for bits in 8..=15u8 {
        assert_eq!(agreed(&format!("permessage-deflate; client_max_window_bits={bits}")).2, bits);
    }
    for bad in ["0", "7", "16", "08", "+9", "9 9", "", "a", "300", "-8", "８"] {
        for side in [SERVER_WINDOW, CLIENT_WINDOW] {
            assert!(answer(&format!("permessage-deflate; {side}={bad}")).is_err(), "{side}={bad}");
        }
    }
}

#[test]
fn rfc_7692_section_7_1_2_1_a_server_window_larger_than_offered_is_refused() {
    for bits in 8..=OFFERED_WINDOW_BITS {
        assert_eq!(agreed(&format!("permessage-deflate; server_max_window_bits={bits}")).0, bits);
    }
    for bits in OFFERED_WINDOW_BITS + 1..=15 {
        let error = answer(&format!("permessage-deflate; server_max_window_bits={bits}")).unwrap_err();
        assert_eq!(error, ExtensionError::Parameter(SERVER_WINDOW.into()));
    }
}

#[test]
fn rfc_7692_section_7_1_misplaced_values_are_refused() {
    for bad in [
        "server_no_context_takeover=1",
        "client_no_context_takeover=\"\"",
        "server_max_window_bits",
        "client_max_window_bits",
        "made_up",
        "Server_No_Context_Takeover",
    ] {
        let error = answer(&format!("permessage-deflate; {bad}")).unwrap_err();
        assert!(matches!(error, ExtensionError::Parameter(_) | ExtensionError::Malformed), "{bad}: {error}");
    }
}

#[test]
fn rfc_7692_section_7_1_repeated_parameters_are_refused() {
    for twice in [
        "server_no_context_takeover",
        "client_no_context_takeover",
        "server_max_window_bits=9",
        "client_max_window_bits=9",
    ] {
        let error = answer(&format!("permessage-deflate; {twice}; {twice}")).unwrap_err();
        assert_eq!(error, ExtensionError::Parameter(twice.split('=').next().unwrap().into()));
    }
}

#[test]
fn rfc_6455_section_9_1_unoffered_and_repeated_extensions_are_refused() {
    for bad in ["x-webkit-deflate-frame", "permessage-deflate, permessage-deflate", "PERMESSAGE-DEFLATE", "mux"] {
        assert!(matches!(answer(bad), Err(ExtensionError::Unexpected(_))), "{bad}");
    }
    let headers = [httparse::Header { name: HEADER, value: b"permessage-deflate" }];
    assert!(matches!(read_response(Fields(&headers), CompressionOffer::None), Err(ExtensionError::Unexpected(_))));
    let twice = [headers[0], headers[0]];
    assert!(matches!(
        read_response(Fields(&twice), CompressionOffer::SmallWindows),
        Err(ExtensionError::Unexpected(_))
    ));
}

#[test]
fn rfc_6455_section_9_1_the_syntax() {
    assert_eq!(agreed(" permessage-deflate ;\tserver_max_window_bits = \"1\\0\" ").0, 10);
    assert_eq!(agreed(", ,permessage-deflate,").0, 15);
    assert_eq!(answer(""), Ok(None));
    for bad in [
        ";",
        "permessage-deflate;",
        "permessage-deflate; =",
        "permessage-deflate server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits=\"9",
        "permessage-deflate; server_max_window_bits=\"9\\",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=\"9 \"",
        "permessage-deflate; server_max_window_bits=9\"",
        "permessage-déflate",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(answer(bad), Err(ExtensionError::Malformed), "{bad}");
    }
}

fn offered(value: &str) -> Result<Option<String>, ExtensionError> {
    let headers = [httparse::Header { name: HEADER, value: value.as_bytes() }];
    read_offer(Fields(&headers)).map(|offer| offer.map(DeflateOffer::response))
}

#[test]
fn our_client_and_our_server_negotiate_the_same_parameters() {
    let offer = CompressionOffer::SmallWindows.header().unwrap();
    let headers = [httparse::Header { name: HEADER, value: offer.as_bytes() }];
    let server = Deflate::from(read_offer(Fields(&headers)).unwrap().unwrap());
    let client = answer(&offered(&offer).unwrap().unwrap()).unwrap().unwrap();
    assert_eq!((client.peer_window_bits, client.own_window_bits), (12, 12));
    assert!(client.peer_no_context_takeover && client.own_no_context_takeover);
    let mirrored = Deflate {
        peer_window_bits: client.own_window_bits,
        peer_no_context_takeover: client.own_no_context_takeover,
        own_window_bits: client.peer_window_bits,
        own_no_context_takeover: client.peer_no_context_takeover,
    };
    assert_eq!(server, mirrored);
}

#[test]
fn rfc_7692_section_7_1_a_server_takes_the_first_offer_that_it_can() {
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offer, taken) in [
        ("permessage-deflate", Some("")),
        ("permessage-deflate; client_max_window_bits", Some("; client_max_window_bits=12")),
        ("permessage-deflate; client_max_window_bits=9", Some("; client_max_window_bits=9")),
        ("permessage-deflate; client_max_window_bits=15", Some("; client_max_window_bits=12")),
        ("permessage-deflate; server_max_window_bits=10", Some("; server_max_window_bits=10")),
        ("permessage-deflate; server_max_window_bits=15", Some("; server_max_window_bits=15")),
        ("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Some("")),
        ("mux; max-channels=4; x, permessage-deflate", Some("")),
        (
            "permessage-deflate; made_up, permessage-deflate; server_max_window_bits=9",
            Some("; server_max_window_bits=9"),
        ),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; client_max_window_bits=7", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("x-webkit-deflate-frame", None),
        ("", None),
    ] {
        assert_eq!(offered(offer), Ok(taken.map(|more| [plain, more].concat())), "{offer}");
    }
    assert_eq!(offered("permessage-deflate;"), Err(ExtensionError::Malformed));
}
