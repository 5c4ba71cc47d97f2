//! The program in a process of its own.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Runs a command of the program with these settings until it ends. Returns its exit code and its
/// output.
pub(crate) async fn run_program<'a>(
    words: &[&str],
    variables: impl IntoIterator<Item = (&'a str, String)>,
) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cameo"))
        .args(words)
        .envs(variables)
        .output()
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    (output.status.code().unwrap(), said)
}

/// Waits until a program that was started prints that it is ready. Returns its URL. The standard output
/// of the program must be a pipe.
pub(crate) async fn url_when_ready(program: &mut Child) -> String {
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap();
        let line = line.expect("the program prints its address");
        if let Some((_, rest)) = line.split_once("Cameo is ready at ") {
            return rest.split_whitespace().next().unwrap().to_owned();
        }
    }
}
