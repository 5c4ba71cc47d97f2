//! Public keys in PEM files (RFC 7468).

use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use spki::SubjectPublicKeyInfoRef;
use spki::der::asn1::{ObjectIdentifier, UintRef};
use spki::der::{Decode, Reader, SliceReader};

use super::keys::{InvalidKey, Key};

/// The largest number of keys in a file. A token without a key id is tried with each of them.
const MAX_KEYS: usize = 16;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Why a PEM file cannot be used. Blocks are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidPem {
    #[error("it has no block such as -----BEGIN PUBLIC KEY-----")]
    Empty,
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    #[error("block {block} has no end, or is not base64")]
    Broken { block: usize },
    #[error(
        "block {block} is a private key, which this service must not have; give the public key: \
         openssl pkey -in FILE -pubout"
    )]
    Private { block: usize },
    #[error("block {block} is a {label:?}; give PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE")]
    Label { block: usize, label: String },
    #[error("block {block} cannot be read as a {label}")]
    Encoding { block: usize, label: String },
    #[error(
        "block {block} is a key of another kind; RSA, elliptic curve P-256 and Ed25519 are accepted"
    )]
    Kind { block: usize },
    #[error("block {block} is {problem}")]
    Key { block: usize, problem: InvalidKey },
}

/// Reads all keys of a PEM text. Of a certificate only the key is read: its dates and its issuer do
/// not matter.
pub(super) fn keys(text: &str) -> Result<Vec<Key>, InvalidPem> {
    let mut keys = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = boundary(line, "BEGIN") else {
            continue;
        };
        let block = keys.len() + 1;
        let mut body = String::new();
        loop {
            let line = lines.next().ok_or(InvalidPem::Broken { block })?;
            if boundary(line, "END") == Some(label) {
                break;
            }
            body.push_str(line);
        }
        if label.ends_with("PRIVATE KEY") {
            return Err(InvalidPem::Private { block });
        }
        let der = BASE64.decode(body.as_bytes());
        let der = der.map_err(|_| InvalidPem::Broken { block })?;
        if block > MAX_KEYS {
            return Err(InvalidPem::TooMany);
        }
        keys.push(key(block, label, &der)?);
    }
    if keys.is_empty() {
        return Err(InvalidPem::Empty);
    }
    Ok(keys)
}

/// The label of a line such as `-----BEGIN PUBLIC KEY-----`.
fn boundary<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let line = line.strip_prefix("-----")?.strip_suffix("-----")?;
    line.strip_prefix(word)?.strip_prefix(' ')
}

fn key(block: usize, label: &str, der: &[u8]) -> Result<Key, InvalidPem> {
    let encoding = || InvalidPem::Encoding {
        block,
        label: label.to_owned(),
    };
    match label {
        "PUBLIC KEY" => public_key(block, der, encoding),
        "RSA PUBLIC KEY" => rsa_key(block, der, encoding),
        "CERTIFICATE" => {
            let certificate = CertificateDer::from(der);
            let parsed = ParsedCertificate::try_from(&certificate).map_err(|_| encoding())?;
            public_key(block, &parsed.subject_public_key_info(), encoding)
        }
        label => Err(InvalidPem::Label {
            block,
            label: label.to_owned(),
        }),
    }
}

/// Reads a key with its kind (RFC 5280, section 4.1.2.7).
fn public_key(
    block: usize,
    der: &[u8],
    encoding: impl Fn() -> InvalidPem,
) -> Result<Key, InvalidPem> {
    let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| encoding())?;
    let bytes = info.subject_public_key.as_bytes().ok_or_else(&encoding)?;
    let key = match info.algorithm.oid {
        RSA => return rsa_key(block, bytes, encoding),
        EC if info.algorithm.parameters_oid() == Ok(P256) => Key::from_p256(bytes),
        ED25519 => Key::from_ed25519(bytes),
        _ => return Err(InvalidPem::Kind { block }),
    };
    key.map_err(|problem| InvalidPem::Key { block, problem })
}

/// Reads an RSA key without its kind (RFC 8017, appendix A.1.1).
fn rsa_key(block: usize, der: &[u8], encoding: impl Fn() -> InvalidPem) -> Result<Key, InvalidPem> {
    let parts = || {
        let mut reader = SliceReader::new(der)?;
        let parts = reader.sequence(|reader| {
            let modulus = UintRef::decode(reader)?;
            Ok((modulus, UintRef::decode(reader)?))
        })?;
        reader.finish(parts)
    };
    let (modulus, exponent) = parts().map_err(|_: spki::der::Error| encoding())?;
    Key::from_rsa(modulus.as_bytes(), exponent.as_bytes())
        .map_err(|problem| InvalidPem::Key { block, problem })
}

#[cfg(test)]
mod tests {
    use cameo_testing::tokens::text as fixture;

    use super::*;
    use crate::config::Algorithm;

    fn algorithms(text: &str) -> Result<Vec<Algorithm>, InvalidPem> {
        let keys = keys(text)?;
        Ok(keys.iter().map(Key::algorithm).collect())
    }

    #[test]
    fn each_kind_of_block_is_read_and_other_text_is_ignored() {
        for (file, algorithm) in [
            ("rsa.public.pem", Algorithm::Rs256),
            ("rsa.pkcs1.pem", Algorithm::Rs256),
            ("rsa.certificate.pem", Algorithm::Rs256),
            ("p256.public.pem", Algorithm::Es256),
            ("p256.certificate.pem", Algorithm::Es256),
            ("ed25519.public.pem", Algorithm::EdDsa),
        ] {
            assert_eq!(algorithms(&fixture(file)), Ok(vec![algorithm]), "{file}");
        }
        let several = format!(
            "Our keys:\r\n{}\n\n# the next one\n  {}",
            fixture("rsa.public.pem").replace('\n', "\r\n"),
            fixture("ed25519.public.pem")
        );
        let expected = vec![Algorithm::Rs256, Algorithm::EdDsa];
        assert_eq!(algorithms(&several), Ok(expected));
    }

    #[test]
    fn a_file_that_holds_something_else_is_refused_with_the_block_and_the_reason() {
        let good = fixture("rsa.public.pem");
        let block = |label: &str, body: &str| {
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
        };
        let label = |label: &str| label.to_owned();
        for (text, expected) in [
            (String::new(), InvalidPem::Empty),
            ("ssh-ed25519 AAAA".to_owned(), InvalidPem::Empty),
            (fixture("rsa.key.pem"), InvalidPem::Private { block: 1 }),
            (
                format!("{good}{}", fixture("p256.key.pem")),
                InvalidPem::Private { block: 2 },
            ),
            (
                good.replace("-----END PUBLIC KEY-----", ""),
                InvalidPem::Broken { block: 1 },
            ),
            (block("PUBLIC KEY", "A!"), InvalidPem::Broken { block: 1 }),
            (
                block("PUBLIC KEY", "AAAA"),
                InvalidPem::Encoding {
                    block: 1,
                    label: label("PUBLIC KEY"),
                },
            ),
            (
                block("CERTIFICATE", "AAAA"),
                InvalidPem::Encoding {
                    block: 1,
                    label: label("CERTIFICATE"),
                },
            ),
            (
                block("RSA PUBLIC KEY", "MAMCAQE="),
                InvalidPem::Encoding {
                    block: 1,
                    label: label("RSA PUBLIC KEY"),
                },
            ),
            (
                block("X509 CRL", "AAAA"),
                InvalidPem::Label {
                    block: 1,
                    label: label("X509 CRL"),
                },
            ),
            (fixture("p384.public.pem"), InvalidPem::Kind { block: 1 }),
            (
                format!("{good}{}", fixture("rsa1024.public.pem")),
                InvalidPem::Key {
                    block: 2,
                    problem: InvalidKey::RsaSize { bits: 1024 },
                },
            ),
            (good.repeat(17), InvalidPem::TooMany),
        ] {
            assert_eq!(algorithms(&text).unwrap_err(), expected, "{text}");
        }
        assert_eq!(algorithms(&good.repeat(16)).unwrap().len(), 16);
    }

    #[test]
    fn a_key_whose_numbers_are_no_key_is_refused() {
        let modulus = [&[0x80][..], &[0; 254], &[1]].concat();
        assert!(Key::from_rsa(&modulus, &[1, 0, 1]).is_ok());
        let padded = [&[0, 0][..], &modulus].concat();
        assert!(Key::from_rsa(&padded, &[0, 1, 0, 1]).is_ok());
        let even = [&[0x80][..], &[0; 255]].concat();
        for (modulus, exponent) in [
            (&modulus[..], &[1][..]),
            (&modulus, &[2]),
            (&modulus, &[]),
            (&modulus, &[1, 0, 0, 0, 1]),
            (&even, &[1, 0, 1]),
            (&[], &[1, 0, 1]),
        ] {
            assert_eq!(
                Key::from_rsa(modulus, exponent).unwrap_err(),
                InvalidKey::Rsa
            );
        }
        let sizes = [(&modulus[1..], 1), (&[1; 513], 4097)];
        for (modulus, bits) in sizes {
            let refused = Key::from_rsa(modulus, &[3]).unwrap_err();
            assert_eq!(refused, InvalidKey::RsaSize { bits });
        }
        for bytes in [&[][..], &[4; 65], &[0], &[2; 33]] {
            let refused = Key::from_p256(bytes).map(|_| bytes);
            // A compressed point may be on the curve.
            assert!(bytes.len() == 33 || refused.is_err(), "{bytes:?}");
        }
        for length in [0, 31, 33] {
            let refused = Key::from_ed25519(&vec![9; length]).unwrap_err();
            assert_eq!(refused, InvalidKey::Edwards);
        }
        // These 32 bytes are no point of the curve.
        let mut no_point = [0; 32];
        no_point[0] = 2;
        assert_eq!(
            Key::from_ed25519(&no_point).unwrap_err(),
            InvalidKey::Edwards
        );
    }
}
