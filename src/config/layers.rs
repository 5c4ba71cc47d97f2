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
/// Lists of tables. They are empty by default, and a later layer replaces the whole list.
const LISTS_OF_TABLES: [ListOfTables; 1] = [ListOfTables {
    path: "auth.issuers",
    like: "auth",
    without: &["cookie_name", "issuers"],
    empty: &["admin_roles", "service_roles", "stats_roles"],
    also: &["subject_prefix"],
}];

/// The keys of the tables in a list, and their defaults.
struct ListOfTables {
    /// The path of the list.
    path: &'static str,
    /// The table whose keys and defaults each table of the list has.
    like: &'static str,
    /// The keys of that table that the tables of the list do not have.
    without: &'static [&'static str],
    /// The lists of that table that are empty by default in the tables of the list.
    empty: &'static [&'static str],
    /// Further keys. They are texts and empty by default.
    also: &'static [&'static str],
}

impl ListOfTables {
    /// The keys and defaults of a table in the list.
    fn template(&self, defaults: &Table) -> Table {
        let mut template = match at(defaults, self.like) {
            Some(Value::Table(like)) => like.clone(),
            _ => Table::new(),
        };
        for key in self.without {
            template.remove(*key);
        }
        for key in self.empty {
            template.insert((*key).to_owned(), Value::Array(Vec::new()));
        }
        for key in self.also {
            template.insert((*key).to_owned(), Value::String(String::new()));
        }
        template
    }
}

/// The merged settings.
pub(super) struct Layers {
    values: Table,
    defaults: Table,
    /// For each key that does not have its default: the file or the variable that sets it.
    origins: BTreeMap<String, String>,
    /// The keys that were read, so that a test can compare them with the defaults.
    #[cfg(test)]
    read: std::cell::RefCell<BTreeSet<String>>,
}

impl Layers {
    /// The defaults.
    pub(super) fn of_defaults(faults: &mut Vec<Fault>) -> Self {
        let mut values = DEFAULTS.parse().unwrap_or_else(|error: toml::de::Error| {
            faults.push(Fault::new("the compiled-in config.toml", error.message()));
            Table::new()
        });
        for list in LISTS_OF_TABLES {
            let (parent, key) = list.path.rsplit_once('.').unwrap_or(("", list.path));
            if let Some(Value::Table(parent)) = find(&mut values, parent) {
                parent.insert(key.to_owned(), Value::Array(Vec::new()));
            }
        }
        Self {
            defaults: values.clone(),
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
                self.complete_lists(faults);
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
        self.complete_lists(faults);
    }

    /// Checks the keys of the tables in lists, and adds the defaults of those that are not given.
    fn complete_lists(&mut self, faults: &mut Vec<Fault>) {
        for list in LISTS_OF_TABLES {
            let template = list.template(&self.defaults);
            let Some(Value::Array(items)) = find(&mut self.values, list.path) else {
                continue;
            };
            let mut items = std::mem::take(items);
            for (at, item) in items.iter_mut().enumerate() {
                let path = format!("{}[{at}]", list.path);
                let Value::Table(given) = item else {
                    let problem = format!("is {}; give a table", kind(item));
                    faults.push(Fault::new(self.place(&path), problem));
                    *item = Value::Table(template.clone());
                    continue;
                };
                let mut completed = template.clone();
                for (key, value) in std::mem::take(given) {
                    let path = format!("{path}.{key}");
                    match completed.get_mut(&key) {
                        Some(known) if known.same_type(&value) => *known = value,
                        Some(known) => {
                            let problem = format!("is {}; give {}", kind(&value), kind(known));
                            faults.push(Fault::new(self.place(&path), problem));
                        }
                        None => {
                            let item = path.rsplit_once('.').map_or("", |(item, _)| item);
                            let known = keys(&template, item);
                            let suggestion = suggestion(&path, &known);
                            let problem = format!("there is no such setting{suggestion}");
                            faults.push(Fault::new(self.place(&path), problem));
                        }
                    }
                }
                *given = completed;
            }
            if let Some(list) = find(&mut self.values, list.path) {
                *list = Value::Array(items);
            }
        }
    }

    /// The value of a key. Every key that is read has a default. `list[2]` in a path is the third
    /// table of a list.
    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        #[cfg(test)]
        if let Some(setting) = path.split('[').next() {
            self.read.borrow_mut().insert(setting.to_owned());
        }
        at(&self.values, path)
    }

    /// Whether the value of a key is an empty text or an empty list.
    pub(super) fn is_empty(&self, path: &str) -> bool {
        match self.get(path) {
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            value => value.is_none(),
        }
    }

    /// The place of a fault: the key, and the file or the variable that sets it.
    pub(super) fn place(&self, path: &str) -> String {
        match self.origins.get(path) {
            Some(origin) if origin.starts_with(PREFIX) => origin.clone(),
            Some(origin) => format!("{path} (in {origin})"),
            // A key in a list is set where the list is.
            None => match path
                .split_once('[')
                .map(|(list, _)| (list, self.origins.get(list)))
            {
                Some((list, Some(origin))) if origin.starts_with(PREFIX) => {
                    format!("{origin}{}", &path[list.len()..])
                }
                Some((_, Some(origin))) => format!("{path} (in {origin})"),
                _ => path.to_owned(),
            },
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

/// The value at a path in a table.
fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let mut value: Option<&'a Value> = None;
    for level in path.split('.') {
        let (key, index) = match level
            .strip_suffix(']')
            .and_then(|level| level.split_once('['))
        {
            Some((key, index)) => (key, Some(index.parse::<usize>().ok()?)),
            None => (level, None),
        };
        let found = match value {
            None => table.get(key)?,
            Some(Value::Table(inner)) => inner.get(key)?,
            Some(_) => return None,
        };
        value = Some(match index {
            Some(index) => found.get(index)?,
            None => found,
        });
    }
    value
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

/// Keys of earlier builds, and what replaces them.
const REPLACED: [(&str, &str); 1] = [(
    "images.keep_master",
    "images.original, which \"private\" sets to keep a private picture",
)];

/// Names the key that replaces an unknown one; otherwise suggests the nearest known key, if it is near
/// enough.
fn suggestion(path: &str, known: &[String]) -> String {
    if let Some((_, by)) = REPLACED.iter().find(|(replaced, _)| *replaced == path) {
        return format!("; it is replaced by {by}");
    }
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
