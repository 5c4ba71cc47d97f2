//! The data folder of one machine: creates it, checks that it can be written, and keeps the generated
//! secret of tokens in it.
//!
//! The folder store and the embedded catalog open their own files in it.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::config::{Algorithm, Catalog, Config, Environment, SecretString, Storage};
use crate::private_files;

/// Creates the data folder if it does not exist.
///
/// # Errors
/// If it cannot be created.
pub(crate) fn create(path: &Path) -> anyhow::Result<()> {
    private_files::create_folders(path)
        .with_context(|| format!("the data folder {}", path.display()))
}

/// The secret that signs tokens of the main issuer: the configured one, or one that the first start
/// generates in the data folder. `None` if no secret signs the tokens of that issuer. (A production
/// configuration that needs a secret does not load without one.)
///
/// # Errors
/// If the file of the secret cannot be read or created.
pub(crate) fn jwt_secret(config: &Config) -> anyhow::Result<Option<SecretString>> {
    let issuer = &config.auth.main;
    if !issuer.algorithms.contains(&Algorithm::Hs256) {
        return Ok(None);
    }
    if let Some(secret) = &issuer.jwt_secret {
        return Ok(Some(secret.clone()));
    }
    create(&config.data_dir)?;
    let path = config.data_dir.join("jwt-secret");
    let secret = generated_secret(&path);
    let secret = secret.with_context(|| format!("the secret in {}", path.display()))?;
    Ok(Some(secret))
}

/// The secret that signs URLs: the configured one, or a generated one. In development the first start
/// generates one in the data folder. In production this happens only if the bucket signs URLs; the
/// secret then signs nothing and is not kept.
///
/// # Errors
/// If the file of the secret cannot be read or created.
pub(crate) fn url_secret(config: &Config) -> anyhow::Result<SecretString> {
    if let Some(secret) = &config.access.url_secret {
        return Ok(secret.clone());
    }
    if config.environment == Environment::Production {
        let mut bits = [0; 32];
        getrandom::fill(&mut bits)?;
        return Ok(SecretString::from(data_encoding::HEXLOWER.encode(&bits)));
    }
    create(&config.data_dir)?;
    let path = config.data_dir.join("url-secret");
    generated_secret(&path).with_context(|| format!("the secret in {}", path.display()))
}

fn generated_secret(path: &Path) -> anyhow::Result<SecretString> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim().len() >= 32 => return Ok(SecretString::from(text.trim())),
        Ok(_) => anyhow::bail!(
            "the file does not hold a secret of this program; remove it, and a new one is generated"
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let mut bits = [0; 40];
    getrandom::fill(&mut bits)?;
    let (secret, name) = bits.split_at(32);
    // The secret is written to another file first, which is then linked. So if several processes
    // start at once, one creates the secret and the others use it, and no process reads half of it.
    let aside = path.with_extension(data_encoding::HEXLOWER.encode(name));
    let linked = write_secret(&aside, &data_encoding::HEXLOWER.encode(secret))
        .and_then(|()| fs::hard_link(&aside, path));
    fs::remove_file(&aside)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(SecretString::from(fs::read_to_string(path)?.trim()))
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut options = private_files::options();
    let mut file = options.write(true).create_new(true).open(path)?;
    writeln!(file, "{secret}")?;
    file.sync_all()
}

/// Finds settings that do not work on this system. Returns each key and the problem of its value.
/// Leaves no files behind.
pub(crate) fn probe(config: &Config) -> Vec<(String, String)> {
    let main = &config.auth.main;
    let generates_secret = main.algorithms.contains(&Algorithm::Hs256) && main.jwt_secret.is_none();
    let needs_folder = generates_secret
        || matches!(config.storage, Storage::Disk)
        || matches!(config.catalog, Catalog::Embedded { .. });
    match probe_folder(&config.data_dir) {
        Err(problem) if needs_folder => {
            vec![(
                "data_dir".to_owned(),
                format!(
                    "is \"{}\", which cannot be written: {problem}",
                    config.data_dir.display()
                ),
            )]
        }
        _ => Vec::new(),
    }
}

/// Writes a file into a folder and removes it. If the folder does not exist, uses the nearest existing
/// folder above it.
fn probe_folder(path: &Path) -> Result<(), String> {
    let problem = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    let path = std::path::absolute(path).map_err(|error| problem(path, &error))?;
    let mut folder = path.as_path();
    loop {
        match (fs::metadata(folder), folder.parent()) {
            (Ok(found), _) if found.is_dir() => break,
            (Ok(_), _) => return Err(format!("{} is not a folder", folder.display())),
            (Err(error), Some(above)) if error.kind() == io::ErrorKind::NotFound => folder = above,
            (Err(error), _) => return Err(problem(folder, &error)),
        }
    }
    let mut name = [0; 8];
    getrandom::fill(&mut name).map_err(|error| error.to_string())?;
    let file = folder.join(format!(
        ".cameo-probe-{}",
        data_encoding::HEXLOWER.encode(&name)
    ));
    let written = fs::write(&file, "probe");
    let removed = fs::remove_file(&file);
    written
        .and(removed)
        .map_err(|error| problem(folder, &error))
}
