//! Files and folders that only their owner may read.
//!
//! The mode is set when a file or folder is created, so other users can never read it, whatever the
//! umask is. On a system without modes its own defaults apply.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::path::Path;

/// Options that create a new file with mode 0600.
pub(crate) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a folder with mode 0700.
///
/// # Errors
/// As [`fs::create_dir`].
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    builder().create(path)
}

/// Creates a folder and its missing parents with mode 0700. Existing folders keep their modes.
///
/// # Errors
/// As [`fs::create_dir_all`].
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    builder().recursive(true).create(path)
}

fn builder() -> DirBuilder {
    #[cfg_attr(not(unix), allow(unused_mut))]
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// A warning for an operator about each path that users other than the owner may use. Paths that do
/// not exist are skipped.
pub(crate) fn warnings<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Vec<String> {
    paths.into_iter().filter_map(warning).collect()
}

#[cfg(unix)]
fn warning(path: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;

    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        format!(
            "{} has mode {mode:04o}, so other users of this machine may access avatars; run \
             `chmod -R go= {}`",
            path.display(),
            path.display()
        )
    })
}

#[cfg(not(unix))]
fn warning(_: &Path) -> Option<String> {
    None
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_may_use_new_files_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (outer, inner) = (folder.path().join("a"), folder.path().join("a/b"));
        create_folders(&inner).unwrap();
        create_folder(&inner.join("c")).unwrap();
        let file = inner.join("file");
        options().write(true).create(true).open(&file).unwrap();
        assert_eq!(
            [mode(&outer), mode(&inner), mode(&inner.join("c"))],
            [0o700; 3]
        );
        assert_eq!(mode(&file), 0o600);
        assert!(warnings([&*outer, &*inner, &*file]).is_empty());
    }

    #[test]
    fn a_mode_that_allows_other_users_is_a_warning_with_the_path_and_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        create_folder(&path).unwrap();
        for (mode, warned) in [(0o755, true), (0o710, true), (0o701, true), (0o500, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let warnings = warnings([&*path, &folder.path().join("absent")]);
            assert_eq!(
                warnings.len(),
                usize::from(warned),
                "{mode:o}: {warnings:?}"
            );
            for warning in warnings {
                let expected = [
                    &format!("{mode:04o}"),
                    "chmod -R go=",
                    path.to_str().unwrap(),
                ];
                assert!(
                    expected.iter().all(|part| warning.contains(part)),
                    "{warning}"
                );
            }
        }
    }
}
