//! Chooses the initials of a name or of a user id.

use unicode_segmentation::UnicodeSegmentation;

use crate::avatar::SubjectId;

/// The number of characters of a name that are read. The rest does not matter.
pub(super) const MAX_NAME_CHARS: usize = 128;

/// The number of characters of a grapheme that are kept: a base with more marks than any language
/// uses.
const MAX_GRAPHEME_CHARS: usize = 8;

/// The length of a part of a user id above which it counts as generated.
const MAX_HANDLE_CHARS: usize = 20;

/// Titles before a name, in lower case and without stops.
const TITLES: &[&str] = &[
    "dr",
    "frau",
    "herr",
    "mlle",
    "mme",
    "mr",
    "mrs",
    "ms",
    "mx",
    "prof",
    "professor",
    "sir",
    "sra",
    "srta",
];

/// Titles and generations after a name, in lower case and without stops.
const SUFFIXES: &[&str] = &[
    "bsc", "cpa", "dds", "esq", "ii", "iii", "iv", "jr", "mba", "md", "msc", "phd", "sr",
];

/// Words that do not identify a user, as in `user_42`. They are ignored in an id with a number.
const GENERIC: &[&str] = &[
    "account", "acct", "client", "customer", "employee", "guest", "id", "member", "person",
    "player", "profile", "student", "u", "uid", "user", "usr",
];

/// The initials of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Initials {
    /// At most two graphemes in reading order, in capitals where the script has them.
    pub(super) graphemes: Vec<String>,
}

impl Initials {
    /// The initials of the name. A name without any letter or digit counts as absent, and then they
    /// are the initials of the subject. There are none if the subject looks generated, such as
    /// a number or a random id.
    pub(super) fn of(subject: &SubjectId, name: Option<&str>) -> Self {
        let named = name.map(Self::of_name).unwrap_or_default();
        if named.graphemes.is_empty() {
            Self::of_subject(subject.as_str())
        } else {
            named
        }
    }

    /// The first letters of the first and the last word of a name, without titles.
    fn of_name(name: &str) -> Self {
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        let outside = without_brackets(&name);
        let name = if outside.contains(char::is_alphanumeric) {
            &outside
        } else {
            &name
        };
        let mut words = in_given_name_order(name);
        if let [word] = words[..] {
            // A handle or an address.
            let local = word
                .split(['@', '+'])
                .find(|part| has_letter_or_digit(part));
            words = parts(local.unwrap_or(word)).collect();
        } else {
            words = without_titles(&words).to_vec();
        }
        Self::of_words(&words)
    }

    /// The initials of a user id that is a handle or an e-mail address.
    ///
    /// A prefix such as that of an identity provider (`auth0|`) is ignored. Numbers are ignored. An
    /// id with a part that looks generated has no initials: letters by chance would mislead.
    fn of_subject(subject: &str) -> Self {
        let id = subject.rsplit(['|', ':']).next().unwrap_or(subject);
        // A tag such as "+news" belongs to the address, not to the name.
        let local = id.split(['@', '+']).next().unwrap_or(id);
        let mut has_number = false;
        let mut words = Vec::new();
        for part in parts(local) {
            let word = part.trim_end_matches(|character: char| character.is_ascii_digit());
            has_number |= word.len() < part.len();
            let generated = word.contains(|character: char| character.is_ascii_digit());
            if generated || part.len() > MAX_HANDLE_CHARS {
                return Self::default();
            }
            if !word.is_empty() {
                words.push(word);
            }
        }
        if has_number {
            words.retain(|word| !GENERIC.contains(&word.to_ascii_lowercase().as_str()));
        }
        Self::of_words(&words)
    }

    /// The initials of the first and the last word. Chinese, Japanese and Korean names have one
    /// initial, the family name's first character, because two read as another word.
    fn of_words(words: &[&str]) -> Self {
        let mut graphemes: Vec<_> = words
            .first()
            .and_then(|word| initial(word))
            .into_iter()
            .collect();
        if words.len() > 1 {
            graphemes.extend(words.last().and_then(|word| initial(word)));
        }
        if graphemes.iter().any(|grapheme| is_east_asian(grapheme)) {
            graphemes.truncate(1);
        }
        Self { graphemes }
    }
}

/// The text outside brackets, such as "(she/her)".
fn without_brackets(name: &str) -> String {
    let mut depth = 0_usize;
    name.chars()
        .filter(|character| match character {
            '(' | '[' | '{' | '（' | '【' => {
                depth += 1;
                false
            }
            ')' | ']' | '}' | '）' | '】' => {
                depth = depth.saturating_sub(1);
                false
            }
            _ => depth == 0,
        })
        .collect()
}

/// The words of a name. In "Lovelace, Ada" the text before the comma is the family name; in "Ada
/// Lovelace, M.D." the text after it is a title.
fn in_given_name_order(name: &str) -> Vec<&str> {
    let mut pieces = name
        .split([',', '،', '，'])
        .map(words)
        .filter(|words| !words.is_empty());
    let Some(family) = pieces.next() else {
        return Vec::new();
    };
    let given = pieces.find(|words| !words.iter().all(|word| is_one_of(word, SUFFIXES)));
    let mut words = given.unwrap_or_default();
    words.extend(family);
    words
}

/// The words between spaces that have a letter or digit.
fn words(text: &str) -> Vec<&str> {
    let words = text.split_whitespace();
    words.filter(|word| has_letter_or_digit(word)).collect()
}

/// The parts of a handle that have a letter or digit, such as those of `ada.lovelace`.
fn parts(handle: &str) -> impl Iterator<Item = &str> {
    handle
        .split(['.', '_', '-', '~', '·', '・', '‐', '–', '/'])
        .filter(|part| has_letter_or_digit(part))
}

fn has_letter_or_digit(text: &str) -> bool {
    text.contains(char::is_alphanumeric)
}

/// A name without titles before and after it. One word stays in any case.
fn without_titles<'a, 'b>(mut words: &'a [&'b str]) -> &'a [&'b str] {
    while let [first, rest @ ..] = words
        && !rest.is_empty()
        && (is_one_of(first, TITLES) || is_abbreviation(first))
    {
        words = rest;
    }
    while let [rest @ .., last] = words
        && !rest.is_empty()
        && (is_one_of(last, SUFFIXES) || is_abbreviation(last))
    {
        words = rest;
    }
    words
}

/// Whether a word has several letters and ends with a stop, as "Prof." does. "J." is an initial.
fn is_abbreviation(word: &str) -> bool {
    word.ends_with('.')
        && word
            .chars()
            .filter(|character| character.is_alphanumeric())
            .count()
            > 1
        && !word.trim_end_matches('.').contains('.')
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    let plain: String = word.chars().filter(|character| *character != '.').collect();
    list.contains(&plain.to_lowercase().as_str())
}

/// The first grapheme of a word that begins with a letter or digit.
fn initial(word: &str) -> Option<String> {
    let mut graphemes = word.graphemes(true);
    let grapheme = graphemes.find(|grapheme| {
        let first = grapheme.chars().next();
        first.is_some_and(|first| first.is_alphanumeric() && !is_skipped(first))
    })?;
    Some(simplified(&capital(grapheme)))
}

/// A grapheme in capitals. Georgian has none at the beginning of a word.
fn capital(grapheme: &str) -> String {
    let mut characters = grapheme.chars();
    let Some(first) = characters.next() else {
        return String::new();
    };
    let upper: String = match first {
        '\u{10d0}'..='\u{10ff}' => first.into(),
        // Full-width letters and digits.
        '\u{ff10}'..='\u{ff5a}' => {
            let narrow = u32::from(first) - 0xfee0;
            char::from_u32(narrow)
                .unwrap_or(first)
                .to_uppercase()
                .collect()
        }
        _ => first.to_uppercase().collect(),
    };
    let upper = upper + characters.as_str();
    // "ß" becomes "SS", of which one letter is the initial.
    let first = upper.graphemes(true).next().unwrap_or_default();
    first.to_owned()
}

/// Reduces a grapheme to the usual form of an initial: Thai, Lao, Khmer and Burmese ones without vowels and tones,
/// others without a final sign that joins them to the next consonant.
fn simplified(grapheme: &str) -> String {
    let base_only = grapheme.starts_with(|first| {
        matches!(first, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}')
    });
    let length = if base_only { 1 } else { MAX_GRAPHEME_CHARS };
    let kept: String = grapheme.chars().take(length).collect();
    let free = kept.trim_end_matches(is_joiner);
    if free.is_empty() {
        kept
    } else {
        free.to_owned()
    }
}

/// A virama, except that of Tamil, which stays visible; or an invisible joiner.
fn is_joiner(character: char) -> bool {
    matches!(
        character,
        '\u{94d}'
            | '\u{9cd}'
            | '\u{a4d}'
            | '\u{acd}'
            | '\u{b4d}'
            | '\u{c4d}'
            | '\u{ccd}'
            | '\u{d4d}'
            | '\u{dca}'
            | '\u{200c}'
            | '\u{200d}'
    )
}

/// Letters that are no initials: a vowel of Thai or Lao that is written before its consonant, and a
/// modifier letter such as the okina of Hawaiian. The initial is the letter that follows.
fn is_skipped(character: char) -> bool {
    matches!(
        character,
        '\u{e40}'..='\u{e44}' | '\u{ec0}'..='\u{ec4}' | '\u{2b0}'..='\u{2ff}'
    )
}

/// Whether a grapheme is Chinese, Japanese or Korean.
fn is_east_asian(grapheme: &str) -> bool {
    grapheme.starts_with(|first| {
        matches!(
            first,
            '\u{1100}'..='\u{11ff}'
                | '\u{3005}'..='\u{30ff}'
                | '\u{3130}'..='\u{318f}'
                | '\u{3400}'..='\u{9fff}'
                | '\u{ac00}'..='\u{d7ff}'
                | '\u{f900}'..='\u{faff}'
                | '\u{20000}'..='\u{3ffff}'
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_name(name: &str) -> String {
        Initials::of_name(name).graphemes.join(" ")
    }

    fn of_subject(subject: &str) -> String {
        Initials::of_subject(subject).graphemes.join(" ")
    }

    #[test]
    fn a_name_has_the_initials_of_its_first_and_last_word() {
        for (name, initials) in [
            ("Ada Lovelace", "A L"),
            ("Ada", "A"),
            ("ada king lovelace", "A L"),
            ("  Ada\t Lovelace ", "A L"),
            ("Ludwig van Beethoven", "L B"),
            ("J. R. R. Tolkien", "J T"),
            ("Jean-Luc Picard", "J P"),
            ("Jean-Luc", "J L"),
            ("Jeanne d'Arc", "J D"),
            ("50 Cent", "5 C"),
            ("7 of 9", "7 9"),
            ("ada_lovelace", "A L"),
            ("ada.lovelace@example.com", "A L"),
            ("@ada", "A"),
        ] {
            assert_eq!(of_name(name), initials, "{name}");
        }
    }

    #[test]
    fn titles_brackets_and_symbols_are_no_part_of_a_name() {
        for (name, initials) in [
            ("Dr. Ada Lovelace", "A L"),
            ("Prof. Dr. Ada Lovelace, PhD", "A L"),
            ("Mr Bean", "B"),
            ("Dr.", "D"),
            ("Martin Luther King, Jr.", "M K"),
            ("Martin Luther King Jr.", "M K"),
            ("Henry Ford II", "H F"),
            ("Lovelace, Ada", "A L"),
            ("Lovelace, Ada, PhD", "A L"),
            ("Ada Lovelace (she/her)", "A L"),
            ("Ada [admin] Lovelace 🦊", "A L"),
            ("(Ada)", "A"),
            ("🦊", ""),
            ("«Ада» — Лавлейс", "А Л"),
            ("...", ""),
            (", ,", ""),
            ("", ""),
        ] {
            assert_eq!(of_name(name), initials, "{name}");
        }
    }

    #[test]
    fn initials_are_graphemes_in_capitals() {
        for (name, initials) in [
            ("émile zola", "É Z"),
            ("e\u{301}mile", "E\u{301}"),
            ("ßeta", "S"),
            ("ﬁona", "F"),
            ("όλγα", "Ό"),
            ("юрий", "Ю"),
            ("հայկ", "Հ"),
            ("გიორგი", "გ"),
            ("ａｄａ", "A"),
            ("ʻaukai", "A"),
            ("क्षत्रिय शर्मा", "क्ष श"),
            ("नरेंद्र मोदी", "न मो"),
            ("ශ්‍රී", "ශ"),
            ("தமிழ்", "த"),
        ] {
            assert_eq!(of_name(name), initials, "{name}");
        }
    }

    #[test]
    fn thai_lao_khmer_and_burmese_initials_are_consonants() {
        for (name, initials) in [
            ("เปรม ติณสูลานนท์", "ป ต"),
            ("น้ำ", "น"),
            ("ໄກສອນ", "ກ"),
            ("ខ្មែរ", "ខ"),
            ("အောင်ဆန်း", "အ"),
        ] {
            assert_eq!(of_name(name), initials, "{name}");
        }
    }

    #[test]
    fn chinese_japanese_and_korean_names_have_one_initial() {
        for (name, initials) in [
            ("山田 太郎", "山"),
            ("王伟", "王"),
            ("김 민준", "김"),
            ("さくら", "さ"),
            ("Taro 山田", "T"),
        ] {
            assert_eq!(of_name(name), initials, "{name}");
        }
    }

    #[test]
    fn handles_and_addresses_have_initials() {
        for (subject, initials) in [
            ("ada", "A"),
            ("ada.lovelace", "A L"),
            ("ada_king_lovelace", "A L"),
            ("ada.lovelace+news@example.com", "A L"),
            ("ada42", "A"),
            ("ada_42", "A"),
            ("user", "U"),
            ("ldap:ada-lovelace", "A L"),
            ("saml|ada.lovelace", "A L"),
            ("acct:ada@example.com", "A"),
        ] {
            assert_eq!(of_subject(subject), initials, "{subject}");
        }
    }

    #[test]
    fn numbers_and_generated_ids_have_no_initials() {
        for subject in [
            "42",
            "user_42",
            "USER-42",
            "u42",
            "auth0|5f7c8ec7c33c6c004bbafe82",
            "google-oauth2|103547991597142817347",
            "550e8400-e29b-41d4-a716-446655440000",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "usr_2x8Yz1",
            "abcdefghijklmnopqrstuvwxyz",
            "ada|",
            "---",
        ] {
            assert_eq!(of_subject(subject), "", "{subject}");
        }
    }

    #[test]
    fn a_name_without_letters_counts_as_absent() {
        let ada = SubjectId::new("ada").unwrap();
        assert_eq!(Initials::of(&ada, Some("🦊")).graphemes, ["A"]);
        assert_eq!(Initials::of(&ada, Some("Grace")).graphemes, ["G"]);
        assert_eq!(Initials::of(&ada, None).graphemes, ["A"]);
    }
}
