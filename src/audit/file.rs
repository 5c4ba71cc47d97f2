//! The file of audit records.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::private_files;

/// The file of audit records, open for appending.
///
/// Each line is one write to a file that is open for appending. So the lines of several processes do
/// not mix.
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    /// Whether the file ends with a part of a line, because the disk was full.
    is_torn: bool,
}

impl AuditFile {
    /// Opens the file. If it does not exist, it is created with mode 0600.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: open(path, private_files::options().create(true))?,
            is_torn: false,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line. The line has its line break.
    pub(super) fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let separated;
        let mut rest = line;
        if self.is_torn {
            separated = [b"\n", line].concat();
            rest = &separated;
        }
        let whole = rest.len();
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.is_torn |= rest.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Opens the path again. After an error the file that is open stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        *self = Self::open(&self.path)?;
        Ok(())
    }

    /// Waits until the disk has all lines. A device is not synced.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.file.metadata()?.is_file() {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Checks that the file can be opened or created. Leaves no new file behind.
///
/// # Errors
/// If the file cannot be opened or created.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open(path, private_files::options().create_new(true))?;
            fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => open(path, &mut OpenOptions::new()).map(drop),
    }
}

/// Opens a path for appending. To open a pipe would wait for its reader, so it is refused.
fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if !can_be_appended_to(&found) => {
            let problem = "it is neither a file nor a character device";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        _ => {}
    }
    options.append(true).open(path)
}

#[cfg(unix)]
fn can_be_appended_to(found: &fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;

    found.is_file() || found.file_type().is_char_device()
}

#[cfg(not(unix))]
fn can_be_appended_to(found: &fs::Metadata) -> bool {
    found.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_after_a_torn_one_begins_on_a_line_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"whole\n").unwrap();
        // The disk was full in the middle of a line.
        file.file.write_all(b"to").unwrap();
        file.is_torn = true;
        file.append(b"next\n").unwrap();
        file.append(b"last\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "whole\nto\nnext\nlast\n"
        );
    }
}
