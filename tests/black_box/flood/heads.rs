//! Request lines, headers, lengths and chunks that no client library would send.

use fastrand::Rng;

use super::Target;
use super::attack::{Attack, Ending, Expected, noise, pick};

/// Request lines and first bytes of other protocols.
pub(super) fn lines(rng: &mut Rng, _: &Target) -> Attack {
    const REST: &str = "\r\nHost: cameo\r\nConnection: close\r\n\r\n";
    let long = "x".repeat(rng.usize(1..100_000));
    let bytes: Vec<u8> = match rng.u8(..16) {
        0 => noise(rng, 2000),
        1 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        2 => b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03ClientHello\r\n\r\n".to_vec(),
        3 => format!("GET /{long} HTTP/1.1{REST}").into(),
        4 => format!("{long} / HTTP/1.1{REST}").into(),
        5 => format!("GET /?{long} HTTP/1.1{REST}").into(),
        6 => format!("GET / HTTP/1.1{REST}").replace("\r\n", "\n").into(),
        7 => format!("{}GET / HTTP/1.1{REST}", "\r\n".repeat(rng.usize(1..500))).into(),
        8 => format!(
            "GET http://user:secret@elsewhere{} HTTP/1.1{REST}",
            "/..".repeat(9)
        )
        .into(),
        9 => [
            b"GET /\xff\xfe\xc0\xaf HTTP/1.1".as_slice(),
            REST.as_bytes(),
        ]
        .concat(),
        10 => [b"GET /\0\x01\x7f HTTP/1.1".as_slice(), REST.as_bytes()].concat(),
        11 => {
            let version = pick(
                rng,
                &["0.9", "1.0", "1.2", "2.0", "3", "11", "1.1.1", "", "-1"],
            );
            format!("GET / HTTP/{version}{REST}").into()
        }
        12 => {
            let method = pick(
                rng,
                &[
                    "get",
                    "TRACE",
                    "CONNECT",
                    "G@T",
                    "PATCH",
                    "PURGE",
                    "\u{1f600}",
                ],
            );
            let target = pick(rng, &["/", "*", "cameo:443", "//", "/health/live", "cameo"]);
            format!("{method} {target} HTTP/1.1{REST}").into()
        }
        13 => {
            let line = pick(
                rng,
                &[
                    "GET  / HTTP/1.1",
                    "GET\t/\tHTTP/1.1",
                    " GET / HTTP/1.1",
                    "GET / HTTP/1.1 x",
                    "GET /",
                    "GET",
                ],
            );
            format!("{line}{REST}").into()
        }
        14 => format!(
            "GET http://[::1{} HTTP/1.1{REST}",
            pick(rng, &["", "]:99999", "]:-1/", "%"])
        )
        .into(),
        _ => format!("GET /#{} HTTP/1.1{REST}", pick(rng, &["x", "\\", "?", "%"])).into(),
    };
    Attack::refused("line", bytes)
        .impatient()
        .expecting(Expected::NoFailure)
}

/// Headers that are malformed, too many, too large, or that contradict each other.
pub(super) fn headers(rng: &mut Rng, target: &Target) -> Attack {
    let long = "x".repeat(rng.usize(1..80_000));
    let many: Vec<_> = (0..rng.usize(90..3000))
        .map(|n| format!("x-{n}: {n}\r\n"))
        .collect();
    let many = many.concat();
    let lines = match rng.u8(..22) {
        0 => String::new(),
        1 => "Host: a\r\nHost: b\r\n".to_owned(),
        2 => {
            let host = pick(
                rng,
                &[
                    "", "a b", "a/b", "user@a", "a:99999", "[::1", "\u{e9}", "a,b", "%00",
                ],
            );
            format!("Host: {host}\r\n")
        }
        3 => format!("Host: cameo\r\nX-Long: {long}\r\n"),
        4 => format!("Host: cameo\r\n{long}: x\r\n"),
        5 => format!("Host: cameo\r\n{many}"),
        6 => "Host: cameo\r\nX-A: b\r\n folded\r\n".to_owned(),
        7 => "Host: cameo\r\nno colon\r\n".to_owned(),
        8 => "Host : cameo\r\n".to_owned(),
        9 => "Host: cameo\r\n: no name\r\n".to_owned(),
        10 => "Host: cameo\r\nX-A: \0\x01\r\n".to_owned(),
        11 => format!("Host: cameo\r\nCookie: access_token={long}\r\n"),
        12 => format!(
            "Host: cameo\r\nCookie: {}\r\n",
            "access_token=a.b.c; ".repeat(rng.usize(1..200))
        ),
        13 => format!(
            "Host: cameo\r\nX-Request-Id: {}\r\n",
            pick(rng, &["a\tb", "<script>", "${jndi}", "\u{e9}"])
        ),
        14 => format!(
            "Host: cameo\r\nUpgrade: {}\r\nConnection: upgrade\r\n",
            pick(rng, &["h2c", "websocket", "x"])
        ),
        15 => format!(
            "Host: cameo\r\nExpect: {}\r\n",
            pick(rng, &["100-continue", "200-ok", ""])
        ),
        16 => format!(
            "Host: cameo\r\nOrigin: {}\r\n",
            pick(rng, &["null", "http://evil", "\u{e9}", "http://"])
        ),
        17 => format!("Host: cameo\r\nX-Forwarded-For: {long}\r\nForwarded: for=\"{long}\"\r\n"),
        18 => "Host: cameo\r\nAccess-Control-Request-Method: DELETE\r\nOrigin: http://evil\r\n"
            .to_owned(),
        19 => "Host: cameo\r\nX-A: b\rX-B: c\r\n".to_owned(),
        20 => "Host: cameo\r\nContent-Encoding: gzip, br, x\r\nContent-Type: \u{e9}\r\n".to_owned(),
        _ => format!(
            "Host: cameo\r\n{}\r\n",
            String::from_utf8_lossy(&noise(rng, 300))
        ),
    };
    let method = pick(rng, &["GET", "HEAD", "PUT", "DELETE", "OPTIONS"]);
    let path = pick(
        rng,
        &[
            target.avatar.as_str(),
            "/health/ready",
            "/",
            target.image.as_str(),
        ],
    );
    let text = format!("{method} {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
    Attack::refused("headers", text)
        .impatient()
        .expecting(Expected::NoFailure)
}

/// Lengths that lie, and lengths that contradict another header.
pub(super) fn lengths(rng: &mut Rng, target: &Target) -> Attack {
    let body = noise(rng, 3000);
    let right = body.len();
    let lines = match rng.u8(..12) {
        0 => "Content-Length: 0".to_owned(),
        1 => format!(
            "Content-Length: {}",
            pick(rng, &["99999999999", "18446744073709551615"])
        ),
        2 => format!(
            "Content-Length: {}",
            pick(
                rng,
                &["18446744073709551616", "-1", "+5", "0x10", "1e3", "", " "]
            )
        ),
        3 => format!("Content-Length: {}", right + rng.usize(1..5000)),
        4 => format!("Content-Length: {}", rng.usize(..right)),
        5 => format!("Content-Length: {right}\r\nContent-Length: {}", right + 1),
        6 => format!("Content-Length: {right}, {right}"),
        7 => format!("Content-Length: {right}\r\nTransfer-Encoding: chunked"),
        8 => "Transfer-Encoding: chunked, gzip".to_owned(),
        9 => format!(
            "Transfer-Encoding: {}",
            pick(
                rng,
                &[
                    "xchunked",
                    "identity",
                    "",
                    "chunked\r\nTransfer-Encoding: chunked",
                    "\u{b}chunked"
                ]
            )
        ),
        10 => "Transfer-Encoding : chunked".to_owned(),
        _ => "X-No-Length: x".to_owned(),
    };
    let mut bytes = target.upload_head(&format!("Content-Type: image/png\r\n{lines}\r\n"));
    bytes.extend(body);
    // The body has fewer bytes than some of these lengths, so the service waits for the rest.
    Attack::refused("length", bytes).impatient()
}

/// Chunks that are malformed, tiny, huge, or never end.
pub(super) fn chunks(rng: &mut Rng, target: &Target) -> Attack {
    let mut bytes = target.upload_head("Content-Type: image/png\r\nTransfer-Encoding: chunked\r\n");
    let body: Vec<u8> = match rng.u8(..12) {
        0 => b"xyz\r\nabc\r\n0\r\n\r\n".to_vec(),
        1 => b"-1\r\nabc\r\n0\r\n\r\n".to_vec(),
        2 => b"FFFFFFFFFFFFFFFF\r\nabc".to_vec(),
        3 => b"10000000000000000\r\nabc".to_vec(),
        4 => b"0x3\r\nabc\r\n0\r\n\r\n".to_vec(),
        5 => b"3\r\nabcdef\r\n0\r\n\r\n".to_vec(),
        6 => b"3\nabc\n0\n\n".to_vec(),
        7 => format!(
            "3;{}\r\nabc\r\n0\r\n\r\n",
            "e=x;".repeat(rng.usize(1..20_000))
        )
        .into(),
        8 => format!(
            "3\r\nabc\r\n0\r\n{}\r\n",
            "x-trailer: y\r\n".repeat(rng.usize(1..5000))
        )
        .into(),
        9 => [
            b"1\r\nx\r\n".repeat(rng.usize(1..3000)),
            b"0\r\n\r\n".to_vec(),
        ]
        .concat(),
        10 => b"0".repeat(rng.usize(1..20_000)),
        _ => [b"3\r\nabc\r\n".to_vec(), noise(rng, 500)].concat(),
    };
    bytes.extend(body);
    Attack::refused("chunks", bytes).impatient()
}

/// Requests of every other kind whose client is slow and disappears.
pub(super) fn slow(rng: &mut Rng, target: &Target) -> Attack {
    let mut bytes = match rng.u8(..4) {
        0 => b"GET /health/live HTTP/1.1\r\nHost: cam".to_vec(),
        1 => target.upload_head("Content-Type: image/jpeg\r\nContent-Length: 5000000\r\n"),
        2 => target.upload_head("Content-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n"),
        _ => Vec::new(),
    };
    if rng.bool() && !bytes.is_empty() {
        bytes.extend(noise(rng, 60_000));
    }
    bytes.truncate(rng.usize(..=bytes.len()));
    let pieces = rng.usize(1..6);
    Attack {
        kind: "slow",
        bytes,
        ending: Ending::Reset(pieces),
        expected: Expected::NoFailure,
    }
}

/// Many requests on one connection, without a wait for the answers.
pub(super) fn pipelines(rng: &mut Rng, target: &Target) -> Attack {
    let one = format!("GET {} HTTP/1.1\r\nHost: cameo\r\n\r\n", target.avatar);
    let delete = format!("DELETE {} HTTP/1.1\r\nHost: cameo\r\n\r\n", target.avatar);
    let mut bytes = match rng.u8(..4) {
        0 => one.repeat(rng.usize(1..40)).into_bytes(),
        1 => delete.repeat(rng.usize(1..40)).into_bytes(),
        // Two ways to say where the body ends, and a request in the part that they disagree about.
        2 => format!(
            "POST {} HTTP/1.1\r\nHost: cameo\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\n{delete}",
            target.avatar,
            delete.len() + 5
        )
        .into_bytes(),
        _ => [one.as_bytes(), &noise(rng, 400)].concat(),
    };
    bytes.extend_from_slice(one.as_bytes());
    Attack::refused("pipeline", bytes)
        .impatient()
        .expecting(Expected::NoFailure)
}
