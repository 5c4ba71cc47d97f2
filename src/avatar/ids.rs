//! Identifiers of subjects and uploads.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use ring::digest;
use serde::{Deserialize, Serialize};

/// The owner of an avatar: a user id of 1 to 128 characters of `A-Z a-z 0-9 . _ ~ @ : + - |`, not only
/// dots, and not `me`, which means the caller in paths.
///
/// The id is opaque to this program. It never becomes part of an object key or a public object URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectId(String);

/// The text is not a user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user id has 1 to 128 characters of A-Z a-z 0-9 . _ ~ @ : + - |, is not only dots and not \"me\""
)]
pub struct InvalidSubjectId;

impl SubjectId {
    /// The length limit in characters. All are ASCII, so it is also the limit in bytes.
    pub const MAX_LEN: usize = 128;

    /// Parses a user id.
    ///
    /// # Errors
    /// [`InvalidSubjectId`] if it is empty, too long, only dots, `me`, or has another character.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidSubjectId> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~@:+-|".contains(&byte);
        let only_dots = text.bytes().all(|byte| byte == b'.');
        if text.len() > Self::MAX_LEN || only_dots || text == "me" || !text.bytes().all(legal) {
            return Err(InvalidSubjectId);
        }
        Ok(Self(text))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SubjectId {
    type Err = InvalidSubjectId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl TryFrom<String> for SubjectId {
    type Error = InvalidSubjectId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(text)
    }
}

impl From<SubjectId> for String {
    fn from(id: SubjectId) -> Self {
        id.0
    }
}

/// The SHA-256 of a user id. It names the object that keeps the subject's policy, because a user id
/// never becomes part of an object key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectHash([u8; 32]);

impl SubjectHash {
    /// The hash of a user id.
    pub fn of(subject: &SubjectId) -> Self {
        let hash = digest::digest(&digest::SHA256, subject.as_str().as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self(bytes)
    }

    /// The 256 bits.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 64 hexadecimal digits in lower case, as [`fmt::Display`] writes them. Returns `None` for
    /// any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok()?;
        bytes.try_into().map(Self).ok()
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The id of one upload: 128 random bits, written as 26 characters of lower-case base32 (RFC 4648, no
/// padding). It is new for every upload and never reused, so the objects stored under it are
/// immutable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AvatarId([u8; 16]);

/// The text is not an avatar id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an avatar id is 26 characters of lower-case base32")]
pub struct InvalidAvatarId;

impl AvatarId {
    /// A new id from the system's random source.
    ///
    /// # Errors
    /// If the operating system gives no random bytes. This does not happen on supported systems.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bits = [0; 16];
        getrandom::fill(&mut bits)?;
        Ok(Self(bits))
    }

    /// The id with these bits.
    pub const fn from_bytes(bits: [u8; 16]) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for AvatarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for AvatarId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AvatarId {
    type Err = InvalidAvatarId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 26 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(InvalidAvatarId);
        }
        let bits = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| InvalidAvatarId)?;
        bits.try_into().map(Self).map_err(|_| InvalidAvatarId)
    }
}

impl TryFrom<String> for AvatarId {
    type Error = InvalidAvatarId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AvatarId> for String {
    fn from(id: AvatarId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn user_ids_of_the_documented_alphabet_are_accepted() {
        for text in [
            "42",
            "a.b_c~d@e:f+g-h",
            "auth0|5f7c",
            "..a",
            "Me",
            "me.",
            &"x".repeat(128),
        ] {
            assert_eq!(SubjectId::new(text).map(String::from), Ok(text.to_owned()));
        }
    }

    #[test]
    fn user_ids_that_could_become_a_path_or_are_too_long_are_refused() {
        for text in [
            "",
            ".",
            "..",
            "...",
            "me",
            "a/b",
            "a\\b",
            "a b",
            "ä",
            "a\0",
            "%2e",
            &"x".repeat(129),
        ] {
            assert_eq!(SubjectId::new(text), Err(InvalidSubjectId), "{text:?}");
        }
    }

    #[test]
    fn an_avatar_id_is_written_in_lower_case_base32() {
        let id = AvatarId::from_bytes(*b"\0\x01\x02\x03\xff\xfe\xfd\xfc0123abcd");
        assert_eq!(id.to_string(), "aaaqea777367ymbrgizwcytdmq");
    }

    #[test]
    fn a_subject_hash_is_the_sha_256_in_lower_case_hexadecimal_digits() {
        // printf 42 | sha256sum
        let text = "73475cb40a568e8da8a045ced110137e159f890ac4da883b6b17dc651b3a8049";
        let hash = SubjectHash::of(&SubjectId::new("42").unwrap());
        assert_eq!(hash.to_string(), text);
        assert_eq!(SubjectHash::parse(text), Some(hash));
        for bad in ["", "73475c", &text.to_uppercase(), &format!("{text}00")] {
            assert_eq!(SubjectHash::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_avatar_ids_differ() {
        assert_ne!(AvatarId::random().unwrap(), AvatarId::random().unwrap());
    }

    proptest! {
        #[test]
        fn avatar_ids_round_trip_through_their_text(bits: [u8; 16]) {
            let id = AvatarId::from_bytes(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn a_text_that_parses_is_the_only_one_of_its_id(text in "[a-z2-7]{26}") {
            if let Ok(id) = text.parse::<AvatarId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
