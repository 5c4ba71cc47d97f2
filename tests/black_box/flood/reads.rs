//! Paths, queries and headers of reads.

use fastrand::Rng;

use super::Target;
use super::attack::{Attack, Expected, noise, pick};

/// Statuses of a read of an image that exists.
const OF_AN_IMAGE: Expected = Expected::OneOf(&[200, 206, 304, 400, 412, 416, 431]);

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\n{lines}\r\n")
}

/// Paths that try to leave their folder, and user ids that are none.
pub(super) fn paths(rng: &mut Rng, target: &Target) -> Attack {
    let step = pick(
        rng,
        &[
            "..",
            "%2e%2e",
            ".%2e",
            "%252e%252e",
            "..%00",
            "..;",
            "%c0%ae%c0%ae",
            "..%5c",
            "%2e%2e%2f",
            "...",
            ".",
            "",
            "%",
            "%zz",
            "%u002e",
            "\\..",
        ],
    );
    let steps = format!("{step}/").repeat(rng.usize(1..12));
    let secret = pick(
        rng,
        &[
            "jwt-secret",
            "catalog.redb",
            "etc/passwd",
            "private/subjects/x",
            "proc/self/environ",
        ],
    );
    let long = "a".repeat(rng.usize(129..9000));
    let id = target.image.split('/').nth(4).unwrap_or_default();
    let path = match rng.u8(..9) {
        0 => format!("/files/{steps}{secret}"),
        1 => format!("/files/public/{steps}{secret}"),
        2 => format!("/files/public/avatars/{id}/{steps}{secret}"),
        3 => format!("/files/private/{steps}{secret}"),
        4 => format!(
            "/files/public/avatars/{id}/{}",
            pick(
                rng,
                &[
                    "medium",
                    "medium.svg",
                    "manifest.json",
                    "medium.webp%00",
                    "MEDIUM.WEBP",
                    "medium.webp/",
                    "%6dedium.webp.webp"
                ]
            )
        ),
        5 => format!("/api/v1/users/{steps}avatar"),
        6 => format!("/api/v1/users/{long}/avatar"),
        7 => format!(
            "/api/v1/users/{}/avatar",
            pick(
                rng,
                &[
                    "%00",
                    "%2f",
                    "a%2fb",
                    "%0d%0ax:y",
                    "\u{e9}",
                    "%ff",
                    "a b",
                    "%20",
                    "'%22<",
                    "..",
                    "%F0%9F%98%80"
                ]
            )
        ),
        _ => format!("/docs/{steps}{secret}"),
    };
    Attack::refused("path", get(&path, ""))
        .expecting(Expected::OneOf(&[303, 400, 401, 404, 405, 414, 431]))
}

/// Queries of an avatar that exists.
pub(super) fn queries(rng: &mut Rng, target: &Target) -> Attack {
    let query = match rng.u8(..7) {
        0 => format!(
            "size={}",
            pick(
                rng,
                &[
                    "-1",
                    "0",
                    "99999999999999999999",
                    "1e3",
                    "NaN",
                    "%00",
                    "medium%00",
                    "\u{e9}",
                    ""
                ]
            )
        ),
        1 => format!("size={}", "9".repeat(rng.usize(1..5000))),
        2 => "size=64&".repeat(rng.usize(2..2000)),
        3 => format!(
            "expires={}&signature={}",
            rng.u64(..),
            "A".repeat(rng.usize(..3000))
        ),
        4 => "&=&=%=%%&;;".repeat(rng.usize(1..100)),
        5 => format!("size[{}]=x", rng.u8(..)),
        _ => format!("x={}", "%41".repeat(rng.usize(1..5000))),
    };
    let path = pick(rng, &[&target.avatar, &target.image]);
    Attack::refused("query", get(&format!("{path}?{query}"), "")).expecting(OF_AN_IMAGE)
}

/// Ranges of an image that exists.
pub(super) fn ranges(rng: &mut Rng, target: &Target) -> Attack {
    let range = match rng.u8(..7) {
        0 => format!("bytes=0-{}", "0-,".repeat(rng.usize(1..5000))),
        1 => format!(
            "bytes={}",
            (0..rng.usize(2..2000))
                .map(|n| format!("{n}-,"))
                .collect::<Vec<_>>()
                .concat()
        ),
        2 => pick(
            rng,
            &[
                "bytes=",
                "bytes=-",
                "bytes=--1",
                "bytes=5-1",
                "bytes",
                "=",
                "lines=0-1",
                "bytes=a-b",
                "bytes=0x0-1",
            ],
        )
        .to_owned(),
        3 => format!("bytes={}-{}", rng.u64(..), rng.u64(..)),
        4 => format!("bytes=-{}", rng.u128(..)),
        5 => format!("bytes={}-", "9".repeat(rng.usize(1..2000))),
        _ => "bytes=0-0\r\nRange: bytes=1-1".to_owned(),
    };
    let path = pick(rng, &[&target.avatar, &target.image]);
    let lines = format!(
        "Accept: image/webp\r\nRange: {range}\r\nIf-Range: {}\r\n",
        pick(rng, &["\"x\"", "W/\"x\"", "x", "*", ""])
    );
    Attack::refused("range", get(path, &lines)).expecting(OF_AN_IMAGE)
}

/// Preconditions of an avatar that exists.
pub(super) fn conditions(rng: &mut Rng, target: &Target) -> Attack {
    let tags = match rng.u8(..6) {
        0 => "\"x\",".repeat(rng.usize(1..5000)),
        1 => "\"".repeat(rng.usize(1..3000)),
        2 => format!("W/\"{}\"", "x".repeat(rng.usize(1..20_000))),
        3 => pick(
            rng,
            &[
                "*,*",
                "* ",
                "\"",
                "W/",
                "w/\"x\"",
                ",,,",
                "\"\u{e9}\"",
                "\"a\"b\"c\"",
            ],
        )
        .to_owned(),
        4 => "*".repeat(rng.usize(1..500)),
        _ => "Thu, 99 Foo 99999 99:99:99 GMT".to_owned(),
    };
    let name = pick(
        rng,
        &[
            "If-Match",
            "If-None-Match",
            "If-Modified-Since",
            "If-Unmodified-Since",
            "If-Range",
        ],
    );
    Attack::refused(
        "condition",
        get(&target.avatar, &format!("{name}: {tags}\r\n")),
    )
    .expecting(OF_AN_IMAGE)
}

/// Lists of accepted types.
pub(super) fn accepts(rng: &mut Rng, target: &Target) -> Attack {
    let accept = match rng.u8(..6) {
        0 => "image/webp;q=0.1,".repeat(rng.usize(1..3000)),
        1 => ",;=".repeat(rng.usize(1..5000)),
        2 => format!(
            "image/webp;q={}",
            pick(
                rng,
                &[
                    "NaN",
                    "-1",
                    "1e9",
                    "0.0000001",
                    "inf",
                    "",
                    "1.1.1",
                    "\u{e9}"
                ]
            )
        ),
        3 => format!("image/*;{}", "a=\"b\\\"c\";".repeat(rng.usize(1..3000))),
        4 => {
            let types: Vec<_> = (0..rng.usize(1..3000)).map(|n| format!("x/{n},")).collect();
            types.concat()
        }
        _ => String::from_utf8_lossy(&noise(rng, 300))
            .chars()
            .filter(|c| !c.is_control())
            .collect(),
    };
    let path = pick(rng, &[target.avatar.as_str(), "/metrics", "/docs/"]);
    Attack::refused("accept", get(path, &format!("Accept: {accept}\r\n")))
        .expecting(Expected::OneOf(&[200, 400, 431]))
}
