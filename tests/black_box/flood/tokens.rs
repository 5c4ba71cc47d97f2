//! Tokens with which nobody gets in.

use cameo_testing::tokens::{Signer, parts, with_changed_signature};
use data_encoding::BASE64URL_NOPAD;
use fastrand::Rng;
use serde_json::json;

use super::attack::{Attack, Expected, noise, pick};
use super::{SECRET, Target};

/// A request that only the owner, a service or an admin may make, with a token that is none of them.
pub(super) fn tokens(rng: &mut Rng, target: &Target) -> Attack {
    let encode = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let signer = Signer::secret(SECRET);
    let claims = r#"{"sub":"root","roles":["admin"],"exp":4000000000}"#;
    let header = r#"{"alg":"HS256","typ":"JWT"}"#;
    let [_, payload, signature] = parts(&target.admin);
    let with_header = |text: &str| format!("{}.{payload}.{signature}", encode(text.as_bytes()));
    let long = "x".repeat(rng.usize(1..12_000));
    let deep = rng.usize(1..3000);
    let token = match rng.u8(..26) {
        0 => {
            let none = pick(rng, &["none", "None", "NONE", "nOnE", "", "HS257", "null"]);
            let header = format!("{{\"alg\":\"{none}\"}}");
            let signature = pick(rng, &["", "AAAA", signature]);
            format!("{}.{}.{signature}", encode(header.as_bytes()), encode(claims.as_bytes()))
        }
        1 => Signer::secret("another secret of 32 bytes or so").signed(header, claims),
        2 => Signer::secret("").signed(header, claims),
        3 => Signer::of(pick(rng, &["rsa", "p256", "ed25519"])).signed(header, claims),
        4 => with_header(&format!("{{\"alg\":\"{}\"}}", pick(rng, &["RS256", "ES256", "EdDSA", "PS256", "HS512"]))),
        5 => with_header(&format!("{{\"alg\":\"HS256\",\"kid\":\"{}\"}}", pick(rng, &["../../dev/null", "' OR 1=1", long.as_str(), "\\u0000"]))),
        6 => with_header(r#"{"alg":"HS256","jku":"http://127.0.0.1:1/","jwk":{"kty":"oct","k":""}}"#),
        7 => signer.signed(r#"{"alg":"HS256","crit":["exp"]}"#, claims),
        8 => signer.signed(header, &format!("{{\"sub\":\"root\",\"roles\":[\"admin\"],\"exp\":4000000000,\"x\":\"{}\"}}", "y".repeat(9000))),
        9 => "a".repeat(rng.usize(1..60_000)),
        10 => signer.signed(header, &format!("{{\"roles\":[\"admin\"],\"sub\":{}{}}}", "[".repeat(deep), "]".repeat(deep))),
        11 => signer.signed(&format!("{{\"alg\":\"HS256\",\"x\":{}", "[".repeat(deep)), claims),
        12 => with_changed_signature(&target.admin),
        13 => {
            let cut = rng.usize(..target.admin.len());
            target.admin[..cut].to_owned()
        }
        14 => signer.signed(header, r#"{"sub":"a","sub":"root","roles":["admin"],"exp":4000000000}"#),
        15 => signer.signed(header, &format!("{{\"sub\":\"root\",\"roles\":[\"admin\"],\"exp\":{}}}", pick(rng, &["0", "-1", "1e400", "\"4000000000\"", "null", "[]", "1"]))),
        16 => signer.signed(header, r#"{"sub":"root","roles":["admin"]}"#),
        17 => signer.signed(header, &format!("{{\"sub\":{},\"roles\":[\"admin\"],\"exp\":4000000000}}", pick(rng, &["\"\"", "null", "1", "[]", "{}", "true"]))),
        18 => signer.signed(header, r#"{"sub":"root","roles":["admin"],"exp":4000000000,"nbf":3999999999}"#),
        // These tokens are valid, but no role of theirs is one of an admin.
        19 => signer.token(&json!({"sub": "nobody", "exp": 4_000_000_000_u64, "roles": pick(rng, &["Admin", "admin ", "admin,service", "\u{430}dmin", "root"])})),
        20 => signer.token(&json!({"sub": pick(rng, &["..", "me", "a/b", "a\0b", "\u{1f600}"]), "exp": 4_000_000_000_u64, "scope": "admin avatars:admin"})),
        21 => format!("{}..{}.{}", target.admin, target.admin, target.admin),
        22 => pick(rng, &[".", "..", "...", "....", "a.b", "a.b.c.d.e", "e30.e30.", "bnVsbA.bnVsbA.bnVsbA"]).to_owned(),
        23 => format!("{}=={}", target.admin, signature),
        24 => format!("{}.{}.{signature}", encode(&noise(rng, 60)), encode(&noise(rng, 600))),
        _ => format!("{}.{}.{}", encode(header.as_bytes()), encode(b"\xff\xfe{}"), encode(&noise(rng, 32))),
    };
    let mut line = match rng.u8(..8) {
        0 => format!("Cookie: access_token={token}").into_bytes(),
        1 => format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}").into_bytes(),
        2 => format!("authorization: bearer    {token}").into_bytes(),
        3 => format!("Authorization: Basic {token}").into_bytes(),
        4 => format!("Authorization: {token}").into_bytes(),
        _ => format!("Authorization: Bearer {token}").into_bytes(),
    };
    if rng.u8(..10) == 0 {
        line.extend(b"\xff\xfe\x80");
    }
    let head = format!(
        "DELETE {} HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\n",
        target.avatar
    );
    Attack::refused("token", [head.as_bytes(), &line, b"\r\n\r\n"].concat())
        .expecting(Expected::OneOf(&[400, 401, 403, 431]))
}
