//! Bodies that the service must refuse: broken forms, pictures that lie, crops, and JSON.

use cameo_testing::photos;
use fastrand::Rng;

use super::Target;
use super::attack::{Attack, noise, pick};

/// A whole upload with this content type and body.
fn upload(target: &Target, kind: &str, body: &[u8]) -> Vec<u8> {
    let lines = format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
    let mut bytes = target.upload_head(&lines);
    bytes.extend_from_slice(body);
    bytes
}

/// A part of a form, with these header lines.
fn part(headers: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("--x\r\n{headers}\r\n\r\n");
    [head.as_bytes(), content, b"\r\n"].concat()
}

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"";

/// Content types that are no type of a form.
const TYPES: [&str; 7] = [
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=\"x",
    "multipart/form-data; boundary=\u{e9}",
    "multipart/mixed; boundary=x",
    "multipart/form-data;;;boundary==x",
    "multipart/",
];

/// Forms that are broken in every part.
pub(super) fn forms(rng: &mut Rng, target: &Target) -> Attack {
    let file = part(FILE, b"this is no picture");
    let end = b"--x--\r\n".to_vec();
    let long = "y".repeat(rng.usize(1..40_000));
    let usual = "multipart/form-data; boundary=x";
    let mut kind = usual.to_owned();
    let body: Vec<u8> = match rng.u8(..22) {
        0 => {
            pick(rng, &TYPES).clone_into(&mut kind);
            [file, end].concat()
        }
        1 => {
            kind = format!("multipart/form-data; boundary={long}");
            format!("--{long}\r\n{FILE}\r\n\r\nabc\r\n--{long}--\r\n").into()
        }
        2 => file,
        3 => end,
        4 => [part("", b"abc"), end].concat(),
        5 => [part("Content-Disposition: form-data", b"abc"), end].concat(),
        6 => [
            part("Content-Disposition: attachment; name=\"file\"", b"abc"),
            end,
        ]
        .concat(),
        7 => [file.clone(), file, end].concat(),
        8 => [
            part("Content-Disposition: form-data; name=\"n\"", b"v").repeat(rng.usize(1..2000)),
            end,
        ]
        .concat(),
        9 => [part(&format!("{FILE}\r\nX-Long: {long}"), b"abc"), end].concat(),
        10 => [
            part(
                &format!("{FILE}{}", "\r\nX-Many: y".repeat(rng.usize(1..500))),
                b"abc",
            ),
            end,
        ]
        .concat(),
        11 => {
            let inner = part("Content-Type: multipart/form-data; boundary=x", &file);
            [inner, end].concat()
        }
        12 => [file, end]
            .concat()
            .into_iter()
            .filter(|byte| *byte != b'\r')
            .collect(),
        13 => [long.as_bytes(), &file, &end].concat(),
        14 => [file, end, long.into_bytes()].concat(),
        15 => {
            let name = pick(
                rng,
                &[
                    "../../../etc/passwd",
                    "a\0b",
                    "%2e%2e%2f",
                    "\u{202e}gnp.exe",
                    "CON",
                    "a\\\"b",
                ],
            );
            let headers =
                format!("Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"");
            [part(&headers, b"abc"), end].concat()
        }
        16 => [
            part("Content-Disposition: form-data; name*=utf-8''file", b"abc"),
            end,
        ]
        .concat(),
        17 => [
            part(
                &format!("{FILE}\r\nContent-Transfer-Encoding: base64"),
                b"iVBORw0KGgo=",
            ),
            end,
        ]
        .concat(),
        18 => [part(FILE, &b"\r\n--".repeat(rng.usize(1..5000))), end].concat(),
        19 => [part(FILE, &b"\r\n--x".repeat(rng.usize(1..500))), end].concat(),
        20 => {
            let crop = part(
                "Content-Disposition: form-data; name=\"crop\"",
                &noise(rng, 3000),
            );
            [crop, part(FILE, photos::AVIF), end].concat()
        }
        _ => mutated(rng, [file, end].concat()),
    };
    Attack::refused("form", upload(target, &kind, &body))
}

/// The bytes with a few of them changed, removed or repeated.
fn mutated(rng: &mut Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(..bytes.len());
        match rng.u8(..4) {
            0 => bytes[at] ^= 1 << rng.u8(..8),
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, rng.u8(..)),
            _ => {
                let again = bytes[at..].to_vec();
                bytes.extend(again);
            }
        }
    }
    bytes
}

/// Files that look like pictures and are not, and pictures whose headers lie.
pub(super) fn pictures(rng: &mut Rng, target: &Target) -> Attack {
    let whole = pick(rng, &target.pictures);
    let body = match rng.u8(..8) {
        0 => photos::png_header(rng.u32(..=u32::MAX), rng.u32(..=u32::MAX)),
        1 => photos::png_header(rng.u32(100..4097), rng.u32(100..4097)),
        2 => whole[..whole.len() * rng.usize(1..60) / 100].to_vec(),
        3 => {
            let head = whole.len().min(rng.usize(4..40));
            [&whole[..head], &noise(rng, 5000)].concat()
        }
        4 => {
            let magic = pick(
                rng,
                &[
                    b"\xff\xd8\xff\xe0".as_slice(),
                    b"\x89PNG\r\n\x1a\n",
                    b"GIF89a",
                    b"RIFF\xff\xff\xff\xffWEBPVP8L",
                    b"\0\0\0\x20ftypavif",
                    b"\0\0\0\x18ftypheic",
                    b"BM",
                    b"II*\0",
                    b"%PDF-1.7",
                    b"<svg xmlns=\"http://www.w3.org/2000/svg\">",
                    b"PK\x03\x04",
                    b"MZ",
                ],
            );
            [magic, &noise(rng, 5000)].concat()
        }
        5 => vec![rng.u8(..); rng.usize(1..200_000)],
        6 => noise(rng, 50_000),
        // The size of the first box is larger than the file.
        _ => [b"\xff\xff\xff\xffftypavif".as_slice(), photos::AVIF].concat(),
    };
    let kind = pick(
        rng,
        &[
            "image/png",
            "image/jpeg",
            "image/gif",
            "IMAGE/AVIF",
            "application/octet-stream",
        ],
    );
    Attack::refused("picture", upload(target, kind, &body))
}

/// Crops that are no crop of the picture, with a good picture.
pub(super) fn crops(rng: &mut Rng, target: &Target) -> Attack {
    let crop = match rng.u8(..6) {
        0 => "1,2,3".to_owned(),
        1 => format!("{},0,1,1", rng.u64(101..)),
        2 => format!("0,0,{},{}", rng.u32(200..), rng.u32(..)),
        3 => pick(
            rng,
            &[
                "a,b,c,d",
                "-1,0,5,5",
                "1.5,0,5,5",
                "0,0,0,0",
                "%00",
                "1,1,1,1,1",
                ",,,",
                "%F0%9F%98%80",
            ],
        )
        .to_owned(),
        4 => "9".repeat(rng.usize(30..5000)),
        _ => "0,0,50,50&crop=0,0,60,60".to_owned(),
    };
    let picture = &target.pictures[0];
    let head = format!(
        "PUT {}?crop={crop} HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: image/png\r\nContent-Length: {}\r\n\r\n",
        target.own_avatar,
        target.owner,
        picture.len()
    );
    Attack::refused("crop", [head.as_bytes(), picture].concat())
}

/// JSON bodies of locks that are no lock.
pub(super) fn locks(rng: &mut Rng, target: &Target) -> Attack {
    let deep = rng.usize(1..7000);
    let body: Vec<u8> = match rng.u8(..12) {
        0 => Vec::new(),
        1 => b"{".to_vec(),
        2 => [
            b"{\"reason\":".to_vec(),
            b"[".repeat(deep),
            b"]".repeat(deep),
            b"}".to_vec(),
        ]
        .concat(),
        3 => b"{\"a\":".repeat(deep.min(3000)),
        4 => b"{\"reason\": \"\xff\xfe\"}".to_vec(),
        5 => format!("{{\"reason\": \"{}\"}}", "x".repeat(rng.usize(501..20_000))).into(),
        6 => format!(
            "{{\"until\": \"{}\"}}",
            pick(
                rng,
                &[
                    "soon",
                    "0000-00-00T00:00:00Z",
                    "-1",
                    "1970-01-01T00:00:00Z",
                    "9e99"
                ]
            )
        )
        .into(),
        7 => format!(
            "{{\"remove\": {}}}",
            pick(rng, &["1", "\"true\"", "null", "[]", "1e999"])
        )
        .into(),
        8 => b"{\"reason\": \"a\", \"reason\": \"b\", \"x\": 1}".to_vec(),
        9 => b"{\"reason\": \"\\u0000\\ud800\"}".to_vec(),
        10 => noise(rng, 2000),
        _ => b"[null]".to_vec(),
    };
    let head = format!(
        "PUT {}/lock HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        target.own_avatar,
        target.admin,
        body.len()
    );
    Attack::refused("lock", [head.as_bytes(), &body].concat())
}
