//! Detects secrets that can be guessed.

/// The advice in faults: how to make a secret that cannot be guessed.
pub(super) const HOW_TO_MAKE: &str = "make one with: openssl rand -base64 48";

/// The minimum length of a secret for HS256 (RFC 7518, section 3.2).
const MIN_BYTES: usize = 32;
/// How many bytes at the end of a secret may differ from the pattern before them, such as a digit
/// that a password rule demands.
const MAX_TAIL: usize = 8;
/// The minimum number of different bytes. 32 random hexadecimal digits have fewer once in 100 million
/// times.
const MIN_DIFFERENT: usize = 8;

/// Words that examples use. An attacker tries them first, so they do not count towards the length of
/// a secret. Each has at least five letters, so that a random secret hardly ever contains one.
const KNOWN: [&str; 42] = [
    // From this program's tests and documents.
    "a secret that only the tests know",
    "a secret that the tests share",
    "main-application",
    "avatar",
    "cameo",
    // From the documents of token libraries.
    "a-string-secret-at-least-256-bits-long",
    "your-256-bit-secret",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    // Words that people use first.
    "0123456789",
    "1234567890",
    "abcdefghij",
    "admin",
    "at-least",
    "at_least",
    "atleast",
    "bytes",
    "change",
    "characters",
    "chars",
    "correct horse battery staple",
    "default",
    "development",
    "example",
    "hs256",
    "insecure",
    "letmein",
    "passphrase",
    "password",
    "passwd",
    "placeholder",
    "please",
    "production",
    "qwerty",
    "replace",
    "sample",
    "secret",
    "secure",
    "signing",
    "string",
    "super",
    "testing",
    "token",
];

/// Why a secret can be guessed; `None` if it cannot. The text does not repeat the secret.
pub(super) fn weakness(secret: &str) -> Option<String> {
    if secret.len() < MIN_BYTES {
        return Some(format!(
            "is shorter than {MIN_BYTES} bytes and can be guessed"
        ));
    }
    let bytes = secret.as_bytes();
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let different = seen.iter().filter(|seen| **seen).count();
    if different < MIN_DIFFERENT {
        return Some(format!(
            "has only {different} different characters and can be guessed"
        ));
    }
    for tail in 0..=MAX_TAIL {
        let period = period(&bytes[..bytes.len() - tail]);
        if period + tail < MIN_BYTES {
            return Some(format!(
                "repeats a pattern of {period} characters and can be guessed"
            ));
        }
    }
    let steps = bytes.windows(2);
    let small = steps.filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    if small * 2 > bytes.len() {
        return Some("is a sequence of neighbouring characters and can be guessed".to_owned());
    }
    let secret = secret.to_lowercase();
    let compact = without_separators(&secret);
    let words = || KNOWN.into_iter();
    let removed = removed(secret.clone(), words().map(str::to_owned))
        .max(self::removed(compact, words().map(without_separators)));
    // Separators between other words count, because random text has some too.
    let rest = secret.len() - removed;
    (rest < MIN_BYTES).then(|| {
        format!("consists of words that examples use, but for {rest} bytes, and can be guessed")
    })
}

/// How many bytes of a text belong to these words.
fn removed(mut text: String, words: impl Iterator<Item = String>) -> usize {
    let whole = text.len();
    for word in words {
        text = text.replace(&word, "");
    }
    whole - text.len()
}

/// A text without the separators that people put between words.
fn without_separators(text: impl AsRef<str>) -> String {
    text.as_ref().replace([' ', '-', '_'], "")
}

/// The length of the pattern that a text repeats; the whole length if it repeats none.
fn period(bytes: &[u8]) -> usize {
    (1..=bytes.len() / 2)
        .find(|period| bytes[*period..] == bytes[..bytes.len() - period])
        .unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_anybody_tries_first_are_weak() {
        for (secret, why) in [
            ("secret", "shorter than 32 bytes"),
            (&"a".repeat(32), "only 1 different"),
            (&"ab".repeat(40), "only 2 different"),
            ("0123456789abcdef0123456789abcdef", "a pattern of 16"),
            (&"p7Kd9sQ2xZ".repeat(5), "a pattern of 10"),
            ("abcdefghijklmnopqrstuvwxyz012345", "neighbouring"),
            ("jwt-key-jwt-key-jwt-key-jwt-key-0", "a pattern of 8"),
            ("jwt-key-jwt-key-jwt-key-jwt-key-2026!", "a pattern of 8"),
            ("correcthorsebatterystaplecorrecthorse!", "examples use"),
            ("Correct-Horse_Battery Staple correct horse", "examples use"),
            ("asecretthatonlythetestsknow+0123456789", "examples use"),
            ("changeme-changeme-please-change-me-now", "examples use"),
            ("my-super-secret-signing-token-of-32-bytes", "examples use"),
            ("a-string-secret-at-least-256-bits-long", "examples use"),
            (
                "a secret that only the tests know, 32 bytes",
                "examples use",
            ),
            (
                "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
                "examples use",
            ),
        ] {
            let weakness = weakness(secret).unwrap_or_else(|| panic!("{secret} is weak"));
            assert!(weakness.contains(why), "{secret}: {weakness}");
            assert!(!weakness.contains(secret), "{weakness}");
        }
    }

    #[test]
    fn random_secrets_are_not_weak() {
        let mut bits = [0; 48];
        for _ in 0..200 {
            getrandom::fill(&mut bits).unwrap();
            for secret in [
                data_encoding::BASE64.encode(&bits),
                data_encoding::BASE64URL_NOPAD.encode(&bits[..24]),
                format!(
                    "cameo-{}",
                    data_encoding::BASE64URL_NOPAD.encode(&bits[..24])
                ),
                data_encoding::HEXLOWER.encode(&bits[..16]),
                data_encoding::HEXLOWER.encode(&bits[..32]),
            ] {
                assert_eq!(weakness(&secret), None, "{secret}");
            }
        }
    }

    #[test]
    fn known_words_cannot_hide_in_a_random_secret_by_accident() {
        assert!(KNOWN.iter().all(|word| word.len() >= 5));
        assert!(KNOWN.iter().all(|word| *word == word.to_lowercase()));
    }
}
