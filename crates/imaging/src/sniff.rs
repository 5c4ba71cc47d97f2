//! Detects the format of bytes by their content, never by a name or a declared type.

use crate::SourceFormat;

/// The format of the bytes, if this crate can decode it.
pub(super) fn format_of(bytes: &[u8]) -> Option<SourceFormat> {
    for (names, format) in [(HEIC, SourceFormat::Heic), (AVIF, SourceFormat::Avif)] {
        if brands(bytes).iter().any(|brand| names.contains(&brand)) {
            return Some(format);
        }
    }
    let mime = infer::get(bytes)?.mime_type();
    // `infer` checks only a few bytes; here the whole signature must match.
    let format = match mime {
        "image/jpeg" => SourceFormat::Jpeg,
        "image/png" if bytes.starts_with(b"\x89PNG\r\n\x1a\n") => SourceFormat::Png,
        "image/webp" if bytes.get(8..12) == Some(b"WEBP") => SourceFormat::Webp,
        "image/gif" if bytes.starts_with(b"GIF87a") || bytes.starts_with(b"GIF89a") => {
            SourceFormat::Gif
        }
        _ => return None,
    };
    Some(format)
}

/// Names the kind of refused bytes in words, for the person who sent them.
pub(super) fn describe(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "an empty file".to_owned();
    }
    if let Some(format) = format_of(bytes) {
        return format!("a {} picture", format.label());
    }
    if is_svg(bytes) {
        return "an SVG drawing".to_owned();
    }
    match infer::get(bytes).map(|kind| kind.mime_type()) {
        Some("application/pdf") => "a PDF document".to_owned(),
        Some(
            "application/vnd.microsoft.portable-executable"
            | "application/x-executable"
            | "application/x-mach-binary",
        ) => "an executable program".to_owned(),
        Some("application/zip") => "a ZIP archive".to_owned(),
        Some("text/html") => "an HTML page".to_owned(),
        Some(mime) => format!("a file of type {mime}"),
        None => "a file of no known kind".to_owned(),
    }
}

/// Brands of HEVC pictures (ISO/IEC 23008-12, annex B). `infer` does not know those of several
/// layers, nor those of ten bits behind a general brand.
const HEIC: &[&[u8; 4]] = &[b"heic", b"heix", b"heim", b"heis"];
/// Brands of AV1 pictures and sequences (AVIF, 6).
const AVIF: &[&[u8; 4]] = &[b"avif", b"avis"];

/// The brands of a file: the major brand, a version number (which matches no brand), and the
/// compatible brands.
fn brands(bytes: &[u8]) -> &[[u8; 4]] {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return &[];
    };
    let length = u32::from_be_bytes(*length) as usize;
    let Some(brands) = rest.strip_prefix(b"ftyp") else {
        return &[];
    };
    let length = length.saturating_sub(8).min(brands.len());
    brands[..length].as_chunks().0
}

/// An SVG drawing may begin with a byte order mark, an XML declaration, a document type and
/// comments.
fn is_svg(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(1024)];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    text.trim_ascii_start().starts_with(b"<")
        && text
            .windows(4)
            .any(|window| window.eq_ignore_ascii_case(b"<svg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heic_and_avif_are_known_by_any_of_their_brands() {
        let (heic, avif) = (Some(SourceFormat::Heic), Some(SourceFormat::Avif));
        for (bytes, is) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heix", heic),
            (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", avif),
            (b"\0\0\0\x18ftypavis\0\0\0\0msf1miaf", avif),
            (b"\0\0\0\x10ftypmp42\0\0\0\0heic", None),
            (b"\0\0\0\x10ftypmp42\0\0\0\0avif", None),
            (b"\0\0\0\0ftypheic", None),
        ] {
            assert_eq!(format_of(bytes), is, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_a_picture_is_named() {
        for (bytes, words) in [
            (&b""[..], "an empty file"),
            (b"%PDF-1.7\n", "a PDF document"),
            (b"MZ\x90\0\x03\0\0\0", "an executable program"),
            (
                b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0>\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                "an executable program",
            ),
            (b"<?xml version=\"1.0\"?>\n<svg xmlns=\"\">", "an SVG drawing"),
            (b" <SVG onload=alert(1)>", "an SVG drawing"),
            (b"<!DOCTYPE html><html>", "an HTML page"),
            (b"hello", "a file of no known kind"),
            (b"\x89PNG\r\n", "a file of type image/png"),
        ] {
            assert_eq!(describe(bytes), words, "{bytes:?}");
        }
    }
}
