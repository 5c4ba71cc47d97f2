//! Detects the format of bytes by their content, never by a name or a declared type.

use crate::SourceFormat;

/// The format of the bytes, if this crate can decode it.
pub(super) fn format_of(bytes: &[u8]) -> Option<SourceFormat> {
    for (names, format) in [(HEIC, SourceFormat::Heic), (AVIF, SourceFormat::Avif)] {
        if brands(bytes).iter().any(|brand| names.contains(&brand)) {
            return Some(format);
        }
    }
    // `infer` takes some TIFF pictures for others, and every text that begins with `BM` for a BMP.
    if is_tiff(bytes) {
        return Some(SourceFormat::Tiff);
    }
    if is_bmp(bytes) {
        return Some(SourceFormat::Bmp);
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
    if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
        return "a BigTIFF picture".to_owned();
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

/// Whether bytes have the signature of TIFF (TIFF 6.0, section 2). Canon's raw pictures have it too,
/// with a signature of their own behind it.
fn is_tiff(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"II*\0") || bytes.starts_with(b"MM\0*"))
        && bytes.get(8..11) != Some(b"CR\x02")
}

/// Whether bytes begin with the two headers of a BMP: the second one has a known length (OS/2 1.x to
/// Windows 98) and one plane.
fn is_bmp(bytes: &[u8]) -> bool {
    let Some((length, fields)) = bytes.get(14..).and_then(<[u8]>::split_first_chunk) else {
        return false;
    };
    let planes = match u32::from_le_bytes(*length) {
        12 => fields.get(4..6),
        16 | 40 | 52 | 56 | 64 | 108 | 124 => fields.get(8..10),
        _ => None,
    };
    bytes.starts_with(b"BM") && planes == Some(&[1, 0])
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
    fn heic_and_avif_are_recognised_by_any_of_their_brands() {
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
    fn bmp_and_tiff_are_recognised_by_their_whole_signature() {
        let (bmp, tiff) = (Some(SourceFormat::Bmp), Some(SourceFormat::Tiff));
        let bmp_of = |length: u8, planes_at: usize| {
            let mut bytes = b"BM".to_vec();
            bytes.resize(40, 0);
            (bytes[14], bytes[planes_at]) = (length, 1);
            bytes
        };
        for (bytes, is) in [
            (bmp_of(40, 26), bmp),
            (bmp_of(12, 22), bmp),
            (bmp_of(124, 26), bmp),
            (bmp_of(41, 26), None),
            (bmp_of(40, 27), None),
            (
                b"BMW is a maker of cars in Bavaria. \x01\0\x01\0".to_vec(),
                None,
            ),
            (b"II*\0\x08\0\0\0".to_vec(), tiff),
            (b"MM\0*\0\0\0\x08".to_vec(), tiff),
            // Pixels may come first. `infer` does not know this one.
            (b"II*\0\xff\0\0\0CC".to_vec(), tiff),
            (b"II*\0\x10\0\0\0CR\x02\0".to_vec(), None),
            (b"II\0*".to_vec(), None),
            (b"II+\0\x08\0\0\0".to_vec(), None),
        ] {
            assert_eq!(format_of(&bytes), is, "{bytes:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_picture_are_named() {
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
            (b"MM\0+\0\x08\0\0", "a BigTIFF picture"),
            (b"II*\0\x08\0\0\0", "a TIFF picture"),
        ] {
            assert_eq!(describe(bytes), words, "{bytes:?}");
        }
    }
}
