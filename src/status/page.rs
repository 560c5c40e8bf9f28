//! The page of the status port: one file, which gets the status by a WebSocket.

use std::borrow::Cow;

use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// `page.html`, as `gzip -9n` writes it. The binary holds it compressed, and nearly every client takes it so.
static PAGE: &[u8] = include_bytes!("page.html.gz");

/// Bytes of the header before the compressed data, which has no optional field, and of the trailer behind it (RFC 1952 section 2.3).
const HEADER_LEN: usize = 10;
const TRAILER_LEN: usize = 8;

/// The page in HTML, compressed by gzip or not.
pub(crate) fn page(is_gzip: bool) -> Cow<'static, [u8]> {
    if is_gzip {
        return PAGE.into();
    }
    let (data, trailer) = PAGE[HEADER_LEN..].split_at(PAGE.len() - HEADER_LEN - TRAILER_LEN);
    // RFC 1952 section 2.3.1: ISIZE, the size of the input, is the last field.
    let size = trailer.last_chunk().map_or(0, |size| u32::from_le_bytes(*size));
    let mut html = vec![0; size as usize];
    decompress(&mut Box::<DecompressorOxide>::default(), data, &mut html, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
    html.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("page.html");

    #[test]
    fn the_compressed_page_is_that_of_the_source() {
        let renew = "renew it: gzip -9nc src/status/page.html > src/status/page.html.gz";
        assert!(*page(false) == *SOURCE.as_bytes(), "{renew}");
        assert!(page(true).starts_with(b"\x1f\x8b\x08\x00") && page(true).len() < 15 * 1024);
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_makes_no_html_of_data() {
        for word in
            ["http:", "https:", "src=", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!SOURCE.contains(word), "{word}");
        }
    }
}
