//! The process that decodes: what it does from its first moment to its last.

use std::io;

use rustix::io::{Errno, read, write};
use rustix::stdio::{stdin, stdout};

use super::wire::{Ask, Limits, Outcome, READY};
use super::{decoder, sandbox};

/// Shuts this process in, then decodes the pictures that come on its standard input and gives their
/// samples on its standard output, until no more come. For a process that [`super::Av1`] has
/// started; there is no way out of it but its end.
///
/// # Errors
///
/// The system's, where it does not let itself be shut in.
pub fn serve() -> io::Result<()> {
    let mut limits = [0; Limits::BYTES];
    if !fill(&mut limits)? {
        return Ok(());
    }
    sandbox::enter(Limits::from_bytes(limits))?;
    give(&READY)?;
    let mut ask = [0; Ask::BYTES];
    while fill(&mut ask)? {
        let Ask {
            stream_bytes,
            shape,
        } = Ask::from_bytes(ask);
        let mut stream = vec![0; stream_bytes as usize];
        if !fill(&mut stream)? {
            break;
        }
        match decoder::decode(stream, shape) {
            Ok(picture) => {
                give(&[Outcome::Decoded as u8])?;
                picture.rows(give)?;
            }
            Err(outcome) => give(&[outcome as u8])?,
        }
    }
    Ok(())
}

/// Fills `bytes` from the standard input, without a buffer that would have to be asked first;
/// `false` where it ends before.
fn fill(mut bytes: &mut [u8]) -> io::Result<bool> {
    while !bytes.is_empty() {
        match read(stdin(), &mut *bytes) {
            Ok(0) => return Ok(false),
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn give(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
