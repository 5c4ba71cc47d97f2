//! The socket in the data folder, through which a service executes commands.
//!
//! One process at a time can have the embedded catalog open. A command that needs the catalog while a
//! service has it open sends its name to that service as one line. The answer is a line, `ok` or
//! `failed`, and a text. Only the user of the service and root can use the socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::warn;

use crate::telemetry::chain;

/// The command that answers the totals of the catalog.
pub(crate) const STATS: &str = "stats";

/// The file of the socket in the data folder.
const FILE: &str = "commands.sock";
/// The length limit of the name of a command, in bytes.
const MAX_COMMAND_BYTES: u64 = 64;
/// The length limit of an answer in bytes.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// How long a client waits for its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the service waits for a client that sends its command or reads its answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

const OK: &str = "ok\n";
const FAILED: &str = "failed\n";

/// The listening socket. Dropping it removes its file.
pub struct CommandSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The user of this process.
    owner: u32,
}

impl CommandSocket {
    /// Listens like [`listen`](Self::listen). Without the socket a service works all the same, so a
    /// failure is only logged.
    pub(crate) fn listen_or_warn(folder: &Path) -> Option<Self> {
        let listening = Self::listen(folder);
        let warned = listening.inspect_err(|error| {
            warn!(
                error = %chain(error),
                "there is no socket for commands in the data folder; `cameo stats` does not work \
                 while this service runs"
            );
        });
        warned.ok()
    }

    /// Listens in the data folder. The caller has the embedded catalog in this folder open. So a file
    /// that exists belongs to a process that has ended, and is replaced.
    ///
    /// # Errors
    /// If the file cannot be created, for instance because its path is longer than the system permits.
    fn listen(folder: &Path) -> io::Result<Self> {
        let path = folder.join(FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let owner = fs::metadata(&path)?.uid();
        Ok(Self {
            listener,
            path,
            owner,
        })
    }

    /// Waits for the next command. `None` for a connection of another user.
    ///
    /// # Errors
    /// If no connection can be accepted, or if a client sends no command in time.
    pub(crate) async fn next(&self) -> io::Result<Option<Command>> {
        let (mut stream, _) = self.listener.accept().await?;
        // The file had looser permissions for a moment.
        let peer = stream.peer_cred()?.uid();
        if peer != self.owner && peer != 0 {
            return Ok(None);
        }
        let mut line = String::new();
        let mut lines = BufReader::new((&mut stream).take(MAX_COMMAND_BYTES));
        timeout(SEND_TIMEOUT, lines.read_line(&mut line)).await??;
        Ok(Some(Command {
            name: line.trim_end().to_owned(),
            stream,
        }))
    }
}

/// A command that waits for its answer.
pub(crate) struct Command {
    /// Its name.
    pub(crate) name: String,
    stream: UnixStream,
}

impl Command {
    /// Sends the answer: a text, or the reason why there is none.
    ///
    /// # Errors
    /// If the client does not read it in time.
    pub(crate) async fn answer(mut self, answer: Result<String, String>) -> io::Result<()> {
        let text = match answer {
            Ok(text) => format!("{OK}{text}"),
            Err(text) => format!("{FAILED}{text}"),
        };
        let sent = async {
            self.stream.write_all(text.as_bytes()).await?;
            self.stream.shutdown().await
        };
        timeout(SEND_TIMEOUT, sent).await?
    }
}

impl Drop for CommandSocket {
    fn drop(&mut self) {
        // A file that stays is replaced by the next service.
        let _ = fs::remove_file(&self.path);
    }
}

/// Sends a command to the service that uses the data folder. Returns its answer.
///
/// # Errors
/// If no service listens there, or if the command fails.
pub(crate) async fn ask(folder: &Path, command: &str) -> io::Result<String> {
    let asked = async {
        let mut stream = UnixStream::connect(folder.join(FILE)).await?;
        stream.write_all(format!("{command}\n").as_bytes()).await?;
        let mut answer = String::new();
        let mut limited = stream.take(MAX_ANSWER_BYTES);
        limited.read_to_string(&mut answer).await?;
        if let Some(text) = answer.strip_prefix(OK) {
            return Ok(text.to_owned());
        }
        let text = answer.strip_prefix(FAILED);
        Err(io::Error::other(
            text.unwrap_or("the service gave no answer").to_owned(),
        ))
    };
    timeout(TIMEOUT, asked).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_gets_its_answer_and_only_the_owner_may_open_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        // A process that was killed leaves its file.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = CommandSocket::listen(folder.path()).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let serve = async || {
            let command = socket.next().await.unwrap().unwrap();
            let answer = match command.name.as_str() {
                "good" => Ok("a text\nof two lines".to_owned()),
                other => Err(format!("there is no {other}")),
            };
            command.answer(answer).await.unwrap();
        };
        for (command, expected) in [
            ("good", Ok("a text\nof two lines")),
            ("bad", Err("there is no bad")),
        ] {
            let ((), answer) = tokio::join!(serve(), ask(folder.path(), command));
            let answer = answer.map_err(|error| error.to_string());
            let answer = answer.as_ref().map_err(String::as_str).map(String::as_str);
            assert_eq!(answer, expected);
        }
        drop(socket);
        assert!(!path.exists());
        let refused = ask(folder.path(), "good").await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    }
}
