//! Tests of the direction of imports: between the modules of this crate, as `lib.rs` describes it, and
//! between the files of one module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules, from the lowest level to the highest. A module imports only from lower levels, so
/// modules of the same level do not know each other, and there is no import cycle.
const LEVELS: &[&[&str]] = &[
    &["avatar"],
    &["defaults"],
    &["config"],
    &["private_files", "telemetry"],
    &[
        "audit",
        "command_socket",
        "data_folder",
        "jail",
        "outgoing",
        "redis",
        "waiting",
    ],
    &["auth", "catalog", "limits", "moderation", "storage"],
    &["access"],
    &["service"],
    &["http"],
    &["app"],
    &["server"],
    &["cli"],
];

#[test]
fn no_module_imports_upward() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = BTreeMap::<String, BTreeSet<String>>::new();
    for file in rust_files(&source) {
        let module = module_of(file.strip_prefix(&source).unwrap());
        if ["lib", "main", "directions"].contains(&module.as_str()) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let imported = names_behind("crate::", &without_tests(&text));
        imports.entry(module).or_default().extend(imported);
    }
    assert!(imports.len() > 10, "{imports:?}");
    let known: BTreeSet<&str> = LEVELS.iter().copied().flatten().copied().collect();
    for module in imports.keys() {
        assert!(known.contains(module.as_str()), "{module} has no level");
    }
    let mut upward = Vec::new();
    for (module, imported) in &imports {
        for other in imported.iter().filter(|other| known.contains(&***other)) {
            if other != module && level_of(other) >= level_of(module) {
                upward.push(format!("{module} imports {other}"));
            }
        }
    }
    assert!(upward.is_empty(), "{upward:?}");
}

#[test]
fn every_form_of_an_import_is_found_and_tests_are_not() {
    let text = "
        use crate::avatar::SubjectId;
        pub(crate) use crate::{config::Auth, limits::{self, Limiter}, service};
        // crate::comment
        fn f() { crate::storage::open() }
        #[cfg(test)]
        mod tests { use crate::cli; }
    ";
    let found = names_behind("crate::", &without_tests(text));
    let expected = ["avatar", "config", "limits", "service", "storage"];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn the_files_of_a_module_do_not_import_each_other_in_a_circle() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    // The imports of each file from files beside it.
    let mut imports = BTreeMap::<PathBuf, Vec<PathBuf>>::new();
    let files = rust_files(&source).into_iter();
    for file in files.filter(|file| !file.ends_with("mod.rs")) {
        let (folder, module) = (file.parent().unwrap(), file.with_extension(""));
        let text = fs::read_to_string(&file).unwrap();
        let names = names_behind("super::", &without_tests(&text));
        // A name is a file beside this one, or comes from such a file through the parent module.
        let parent = fs::read_to_string(folder.join("mod.rs"));
        let parent = parent.or_else(|_| fs::read_to_string(folder.with_extension("rs")));
        let parent = without_tests(&parent.unwrap_or_default()).replace("self::", "");
        let mut beside = Vec::new();
        for other in children(&parent).map(|name| folder.join(name)) {
            let stem = other.file_name().unwrap().to_str().unwrap();
            let exported = names_behind(&format!("use {stem}::"), &parent);
            if other != module && (names.contains(stem) || !names.is_disjoint(&exported)) {
                beside.push(other);
            }
        }
        imports.insert(module, beside);
    }
    assert!(imports.values().any(|imported| !imported.is_empty()));
    for file in imports.keys() {
        let mut reached = BTreeSet::new();
        let mut next = imports[file].clone();
        while let Some(other) = next.pop() {
            assert_ne!(other, *file, "it imports itself through {reached:?}");
            if reached.insert(other.clone()) {
                next.extend(imports.get(&other).into_iter().flatten().cloned());
            }
        }
    }
}

fn level_of(module: &str) -> Option<usize> {
    LEVELS.iter().position(|level| level.contains(&module))
}

/// The Rust files under a folder, without those of modules that are declared for tests only.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut test_modules = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            // A module `name` lies in `name.rs` or `name/` beside `mod.rs`, or below `other/`
            // beside `other.rs`.
            let stem = path.file_stem().unwrap();
            let base = match stem.to_str().unwrap() {
                "mod" | "lib" | "main" => folder.to_path_buf(),
                stem => folder.join(stem),
            };
            test_modules.extend(test_modules_of(&text).map(|name| base.join(name)));
            files.push(path);
        }
    }
    files.retain(|file| {
        let module = file.with_extension("");
        !test_modules.iter().any(|test| module.starts_with(test))
    });
    files
}

/// The names of the modules that a file declares for tests only.
fn test_modules_of(text: &str) -> impl Iterator<Item = &str> {
    let declared = text.split("#[cfg(test)]").skip(1);
    declared.filter_map(|rest| {
        let line = rest.trim_start().lines().next()?;
        let (_, name) = line.split_once("mod ")?;
        name.strip_suffix(';')
    })
}

/// The names of the modules that a file declares in files of their own.
fn children(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let (before, name) = line.split_once("mod ")?;
        let is_declaration = before.is_empty() || before.starts_with("pub");
        name.strip_suffix(';').filter(|_| is_declaration)
    })
}

/// A file's text without comments, and without the module of tests at its end.
fn without_tests(text: &str) -> String {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let tests = lines.windows(2).position(|pair| {
        let declares_module = pair[1].contains("mod ") && pair[1].contains('{');
        pair[0].trim() == "#[cfg(test)]" && declares_module
    });
    lines[..tests.unwrap_or(lines.len())].join("\n")
}

/// The names that follow a prefix such as `crate::` in a text.
fn names_behind(prefix: &str, text: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let name_at = |text: &str| {
        text.split(|character| !is_name(character))
            .next()
            .map(str::to_owned)
    };
    let mut found = BTreeSet::new();
    for rest in text.split(prefix).skip(1) {
        let Some(tree) = rest.strip_prefix('{') else {
            found.extend(name_at(rest));
            continue;
        };
        let mut depth = 0;
        let mut at_start = true;
        for (offset, character) in tree.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_start = true,
                character if at_start && is_name(character) => {
                    found.extend(name_at(&tree[offset..]));
                    at_start = false;
                }
                _ => {}
            }
        }
    }
    found
}

/// The top-level module of a file, by its path below `src`.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap();
    Path::new(first)
        .file_stem()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}
