//! Merges the layers of settings: the defaults, a file, the environment.
//!
//! The defaults hold every key, so they are also the schema: a key that they do not hold is unknown,
//! and a value must have the same type as its default.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use toml::{Table, Value};

use super::DEFAULTS;
use super::fault::Fault;

const PREFIX: &str = "CAMEO_";
/// Tables whose keys the operator chooses. A later layer replaces the whole table.
const FREE_TABLES: [&str; 1] = ["images.variants"];

/// The merged settings.
pub(super) struct Layers {
    values: Table,
    /// For each key that does not have its default: the file or the variable that sets it.
    origins: BTreeMap<String, String>,
    /// The keys that were read, so that a test can compare them with the defaults.
    #[cfg(test)]
    read: std::cell::RefCell<BTreeSet<String>>,
}

impl Layers {
    /// The defaults.
    pub(super) fn of_defaults(faults: &mut Vec<Fault>) -> Self {
        let values = DEFAULTS.parse().unwrap_or_else(|error: toml::de::Error| {
            faults.push(Fault::new("the compiled-in config.toml", error.message()));
            Table::new()
        });
        Self {
            values,
            origins: BTreeMap::new(),
            #[cfg(test)]
            read: std::cell::RefCell::default(),
        }
    }

    /// Overrides values with those of a file.
    pub(super) fn lay_file(&mut self, path: &Path, text: &str, faults: &mut Vec<Fault>) {
        match text.parse::<Table>() {
            Ok(table) => {
                let layer = Layer {
                    origin: path.display().to_string(),
                };
                layer.lay(&mut self.values, table, "", &mut self.origins, faults);
            }
            Err(error) => {
                let line = error
                    .span()
                    .map_or(0, |span| text[..span.start].lines().count().max(1));
                let problem = format!("line {line} is not TOML: {}", error.message());
                faults.push(Fault::of_file(path, problem));
            }
        }
    }

    /// Overrides values with those of the environment.
    pub(super) fn lay_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        faults: &mut Vec<Fault>,
    ) {
        let mut variables = Vec::new();
        for (name, text) in environment {
            if !name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            match (name.into_string(), text.into_string()) {
                (Ok(name), Ok(text)) => variables.push((name, text)),
                // The fault does not repeat the value, which may be a secret.
                (name, _) => {
                    let name = name.unwrap_or_else(|name| name.to_string_lossy().into_owned());
                    faults.push(Fault::new(name, "is not UTF-8; give text that is"));
                }
            }
        }
        variables.sort();
        let links = service_links(variables.iter().map(|(name, _)| name.as_str()));
        variables.retain(|(name, _)| !links.contains(name));
        for (name, text) in variables {
            let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            match find(&mut self.values, &path) {
                Some(value) if !value.is_table() || FREE_TABLES.contains(&path.as_str()) => {
                    match parse_like(value, &text) {
                        Ok(parsed) => {
                            *value = parsed;
                            self.origins.insert(path, name);
                        }
                        Err(wanted) => faults.push(Fault::new(name, wanted)),
                    }
                }
                _ => {
                    let problem = format!("there is no setting {path:?}{}", self.suggestion(&path));
                    faults.push(Fault::new(name, problem));
                }
            }
        }
    }

    /// The value of a key. Every key that is read has a default.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        #[cfg(test)]
        self.read.borrow_mut().insert(path.to_owned());
        let mut levels = path.split('.');
        let first = self.values.get(levels.next()?)?;
        levels.try_fold(first, |value, level| value.get(level))
    }

    /// The place of a fault: the key, and the file or the variable that sets it.
    pub(super) fn place(&self, path: &str) -> String {
        match self.origins.get(path) {
            Some(origin) if origin.starts_with(PREFIX) => origin.clone(),
            Some(origin) => format!("{path} (in {origin})"),
            None => path.to_owned(),
        }
    }

    /// Whether a key has its default.
    pub(super) fn is_default(&self, path: &str) -> bool {
        !self.origins.contains_key(path)
    }

    fn suggestion(&self, path: &str) -> String {
        suggestion(path, &self.keys())
    }

    /// All keys.
    pub(super) fn keys(&self) -> Vec<String> {
        keys(&self.values, "")
    }

    /// The keys that were read so far.
    #[cfg(test)]
    pub(super) fn read_keys(&self) -> BTreeSet<String> {
        self.read.borrow().clone()
    }
}

struct Layer {
    origin: String,
}

impl Layer {
    fn lay(
        &self,
        under: &mut Table,
        over: Table,
        at: &str,
        origins: &mut BTreeMap<String, String>,
        faults: &mut Vec<Fault>,
    ) {
        for (key, value) in over {
            let path = if at.is_empty() {
                key.clone()
            } else {
                format!("{at}.{key}")
            };
            let place = || format!("{path} (in {})", self.origin);
            let siblings = || keys(under, at);
            let Some(_) = under.get(&key) else {
                let problem = format!("there is no such setting{}", suggestion(&path, &siblings()));
                faults.push(Fault::new(place(), problem));
                continue;
            };
            let Some(known) = under.get_mut(&key) else {
                continue;
            };
            match (known, value) {
                (Value::Table(known), Value::Table(value))
                    if !FREE_TABLES.contains(&path.as_str()) =>
                {
                    self.lay(known, value, &path, origins, faults);
                }
                (known, value) if known.same_type(&value) => {
                    *known = value;
                    origins.insert(path, self.origin.clone());
                }
                (known, value) => {
                    let problem = format!("is {}; give {}", kind(&value), kind(known));
                    faults.push(Fault::new(place(), problem));
                }
            }
        }
    }
}

fn find<'a>(table: &'a mut Table, path: &str) -> Option<&'a mut Value> {
    let mut levels = path.split('.');
    let first = table.get_mut(levels.next()?)?;
    levels.try_fold(first, |value, level| value.get_mut(level))
}

/// The variables that Kubernetes adds to every container for a Service whose name begins with
/// `cameo`. They look like settings, but are not. A Service is recognised by its `…_SERVICE_HOST`,
/// because no setting has such a name.
fn service_links<'a>(names: impl Iterator<Item = &'a str> + Clone) -> BTreeSet<String> {
    let services: Vec<&str> = names
        .clone()
        .filter_map(|name| name.strip_suffix("_SERVICE_HOST"))
        .collect();
    let is_link = |name: &&str| {
        services.iter().any(|service| {
            name.strip_prefix(service).is_some_and(|rest| {
                rest == "_PORT" || rest.starts_with("_PORT_") || rest.starts_with("_SERVICE_")
            })
        })
    };
    names.filter(is_link).map(str::to_owned).collect()
}

/// The keys of a table and of the tables in it.
fn keys(table: &Table, at: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (key, value) in table {
        let path = if at.is_empty() {
            key.clone()
        } else {
            format!("{at}.{key}")
        };
        match value {
            Value::Table(inner) if !FREE_TABLES.contains(&path.as_str()) => {
                paths.extend(keys(inner, &path));
            }
            _ => paths.push(path),
        }
    }
    paths
}

/// Parses the text of a variable as a value of the same type as `like`. The error names that type.
fn parse_like(like: &Value, text: &str) -> Result<Value, String> {
    let wanted = || format!("is {text:?}; give {}", kind(like));
    match like {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => text
            .trim()
            .parse()
            .map(Value::Integer)
            .map_err(|_| wanted()),
        Value::Boolean(_) => text
            .trim()
            .parse()
            .map(Value::Boolean)
            .map_err(|_| wanted()),
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(items
                .map(|item| Value::String(item.to_owned()))
                .collect::<Vec<_>>()
                .into())
        }
        _ => {
            let table: Table = format!("value = {text}").parse().map_err(|_| wanted())?;
            let value = table.get("value").filter(|value| value.same_type(like));
            value.cloned().ok_or_else(wanted)
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a fraction",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// Suggests the nearest known key, if it is near enough.
fn suggestion(path: &str, known: &[String]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(path, candidate), candidate))
        .min();
    match nearest {
        Some((distance, candidate)) if distance <= 1 + path.len() / 5 => {
            format!("; did you mean {candidate:?}?")
        }
        _ => String::new(),
    }
}
