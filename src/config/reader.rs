//! Reads single values by their keys, and collects faults.

use std::path::Path;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::fault::Fault;
use super::layers::Layers;
use super::units;
use crate::avatar::VariantName;

/// The largest edge of a WebP picture.
pub(super) const MAX_EDGE_PX: i64 = 16_383;
/// The largest number of variants. Each one costs every upload time and storage.
const MAX_VARIANTS: usize = 16;

/// Reads values by their keys, and collects faults and warnings.
pub(super) struct Reader<'a> {
    pub(super) layers: &'a Layers,
    faults: &'a mut Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
}

impl<'a> Reader<'a> {
    /// Reads from the merged layers, and adds faults to `faults`.
    pub(super) fn new(layers: &'a Layers, faults: &'a mut Vec<Fault>) -> Self {
        Self {
            layers,
            faults,
            warnings: Vec::new(),
        }
    }

    /// Adds a warning about the value of a key.
    pub(super) fn warn(&mut self, path: &str, problem: impl Into<String>) {
        self.warnings
            .push(Fault::new(self.layers.place(path), problem));
    }

    /// Adds a fault of the value of a key.
    pub(super) fn fault(&mut self, path: &str, problem: impl Into<String>) {
        self.faults
            .push(Fault::new(self.layers.place(path), problem));
    }

    /// Reads a text.
    pub(super) fn text(&self, path: &str) -> String {
        let value = self.layers.get(path).and_then(toml::Value::as_str);
        value.unwrap_or_default().to_owned()
    }

    /// Reads a text that must not be empty.
    pub(super) fn filled(&mut self, path: &str) -> String {
        let text = self.text(path);
        if text.is_empty() {
            self.fault(path, "is empty");
        }
        text
    }

    /// Reads a text; `None` if it is empty.
    pub(super) fn optional(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self, path: &str) -> bool {
        self.layers
            .get(path)
            .and_then(toml::Value::as_bool)
            .unwrap_or_default()
    }

    /// Reads a text and parses it; `None` if that fails.
    pub(super) fn parsed<T>(
        &mut self,
        path: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(&self.text(path)) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(path, problem);
                None
            }
        }
    }

    /// Reads a whole number within bounds.
    pub(super) fn number(&mut self, path: &str, least: i64, most: i64) -> i64 {
        let number = self
            .layers
            .get(path)
            .and_then(toml::Value::as_integer)
            .unwrap_or(least);
        if !(least..=most).contains(&number) {
            self.fault(path, format!("is {number}; give {least} to {most}"));
        }
        number.clamp(least, most)
    }

    /// Reads a size in bytes within bounds.
    pub(super) fn size(&mut self, path: &str, least: u64, most: u64) -> u64 {
        let size = self.parsed(path, units::size).unwrap_or(least);
        if !(least..=most).contains(&size) {
            let problem = format!("is {}; give {} to {}", iec(size), iec(least), iec(most));
            self.fault(path, problem);
        }
        size.clamp(least, most)
    }

    /// Reads a time within bounds. A minimum above zero only excludes zero.
    pub(super) fn time(&mut self, path: &str, least_s: u64, most_s: u64) -> Duration {
        let (least, most) = (Duration::from_secs(least_s), Duration::from_secs(most_s));
        let time = self.parsed(path, units::duration).unwrap_or(least);
        // Nothing can happen within a time of zero, so a zero is a mistake.
        let too_short = least_s > 0 && time.is_zero();
        if too_short || time > most {
            let show = humantime::format_duration;
            let problem = format!(
                "is {}; give more than 0s, at most {}",
                show(time),
                show(most)
            );
            self.fault(path, problem);
        }
        time
    }

    /// Reads one of the named choices; the first one if there is a fault.
    pub(super) fn choice<T: Clone>(&mut self, path: &str, choices: &[(&str, T)]) -> T {
        let text = self.text(path);
        if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
            return choice.clone();
        }
        let names: Vec<_> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        self.fault(path, format!("is {text:?}; give {}", names.join(" or ")));
        choices[0].1.clone()
    }

    /// Reads a list of texts and parses each of them.
    pub(super) fn list<T>(
        &mut self,
        path: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let mut items = Vec::new();
        let array = self.layers.get(path).and_then(toml::Value::as_array);
        for item in array.into_iter().flatten() {
            let parsed = match item.as_str() {
                Some(text) => parse(text),
                None => Err("holds something else than texts in quotes".to_owned()),
            };
            match parsed {
                Ok(item) => items.push(item),
                Err(problem) => self.fault(path, problem),
            }
        }
        items
    }

    /// Reads the variants, the largest first.
    pub(super) fn variants(&mut self, path: &str) -> Vec<(VariantName, u32)> {
        let mut variants: Vec<(VariantName, u32)> = Vec::new();
        let table = self.layers.get(path).and_then(toml::Value::as_table);
        for (name, edge) in table.into_iter().flatten() {
            let edge_px = edge
                .as_integer()
                .filter(|edge| (1..=MAX_EDGE_PX).contains(edge));
            match (VariantName::new(name.as_str()), edge_px) {
                (Ok(name), Some(edge)) => variants.push((name, edge as u32)),
                (Err(invalid), _) => self.fault(path, format!("holds {name:?}: {invalid}")),
                (_, None) => {
                    let problem = format!("holds {name} = {edge}; give 1 to {MAX_EDGE_PX} pixels");
                    self.fault(path, problem);
                }
            }
        }
        if table.is_some_and(toml::map::Map::is_empty) {
            self.fault(
                path,
                "is empty; give at least one size, such as { medium = 256 }",
            );
        }
        if variants.len() > MAX_VARIANTS {
            let problem = format!("holds {} sizes; at most {MAX_VARIANTS}", variants.len());
            self.fault(path, problem);
        }
        variants.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        variants
    }

    /// Reads a secret from the key itself, or from the file that the key with `_file` names.
    pub(super) fn secret(&mut self, path: &str) -> Option<SecretString> {
        let file_path = format!("{path}_file");
        let secret = match (self.optional(path), self.optional(&file_path)) {
            (Some(_), Some(_)) => {
                self.fault(
                    path,
                    format!("is given, and {file_path} too; give one of them"),
                );
                return None;
            }
            (Some(secret), None) => secret,
            (None, None) => return None,
            (None, Some(_)) => return self.secret_file(&file_path),
        };
        Some(SecretString::from(secret))
    }

    /// Reads secrets from a list, and from the lines of the file that the key with `_file` names.
    pub(super) fn secrets(&mut self, path: &str) -> Vec<SecretString> {
        let mut secrets = self.list(path, |text| match text.trim() {
            "" => Err("holds an empty text".to_owned()),
            _ => Ok(SecretString::from(text)),
        });
        let file_path = format!("{path}_file");
        if self.optional(&file_path).is_some()
            && let Some(text) = self.secret_file(&file_path)
        {
            let lines = text.expose_secret().lines();
            let filled = lines.filter(|line| !line.trim().is_empty());
            secrets.extend(filled.map(SecretString::from));
        }
        secrets
    }

    /// The number of tables in a list.
    pub(super) fn items(&self, path: &str) -> usize {
        let list = self.layers.get(path).and_then(toml::Value::as_array);
        list.map_or(0, Vec::len)
    }

    /// Reads a secret from the file that a key names.
    pub(super) fn secret_file(&mut self, path: &str) -> Option<SecretString> {
        let file = self.text(path);
        let secret = match std::fs::read_to_string(Path::new(&file)) {
            Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
            Err(error) => {
                // A value that does not look like a path may be the secret itself, so the fault does
                // not repeat it.
                let is_path = ["/", "./", "../"].iter().any(|root| file.starts_with(root));
                let problem = if is_path {
                    format!("is {file:?}, which cannot be read: {error}")
                } else {
                    format!("names a file that cannot be read: {error}")
                };
                self.fault(path, problem);
                return None;
            }
        };
        if secret.trim().is_empty() {
            self.fault(path, "names an empty file");
            return None;
        }
        Some(SecretString::from(secret))
    }
}

/// A size for the text of a fault, in binary units.
pub(super) fn iec(bytes: u64) -> bytesize::Display {
    bytesize::ByteSize(bytes).display().iec()
}

/// Checks a URL and removes a trailing slash. A query and a user name are refused: the URL appears in
/// logs and answers, so a password in it would be public.
///
/// # Errors
/// The problem. The text does not repeat a URL that may hold a password.
pub(super) fn url(text: &str, example: &str) -> Result<String, String> {
    let uri = text.parse::<http::Uri>().ok();
    let authority = uri.as_ref().and_then(http::Uri::authority);
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(
            "holds a user name or a password, which logs and answers would repeat; give the URL \
             without them"
                .to_owned(),
        );
    }
    let good = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some()
            && uri.query().is_none()
    });
    if good {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err(format!("is {}; {example}", shown(text)))
    }
}

/// A value for the text of a fault.
pub(super) fn shown(text: &str) -> String {
    if text.contains('@') {
        "a text that is not repeated here, because it may hold a password".to_owned()
    } else {
        format!("{text:?}")
    }
}
