//! The way to the process that decodes, from the one that serves.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};
use rustix::process::Signal;

use super::wire::{Ask, Limits, Outcome, READY};
use super::{Chroma, Shape};
use crate::SourceFormat;
use crate::{CancelToken, Control, Error};

/// How AV1 is decoded: by a program that calls [`super::serve`], started for each picture.
#[derive(Clone, Debug)]
pub struct Av1 {
    program: PathBuf,
    arguments: Vec<OsString>,
}

/// How often a running process is asked whether its work is still wanted.
const TICK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// A test's harness says a word of its own before the process does.
const PREAMBLE_BYTES: usize = if cfg!(test) { 512 } else { 0 };

/// The time that a process may take where none is set.
const NO_DEADLINE: Duration = Duration::from_hours(1);

impl Av1 {
    /// `program` with `arguments` calls [`super::serve`] and does nothing else.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments }
    }

    /// Decodes a picture of this program's own, to see that the process can be started here, shut
    /// in and asked.
    ///
    /// # Errors
    ///
    /// What is in the way, as [`Error::Internal`]; [`Error::Corrupt`] where the process ends over
    /// the picture.
    pub fn check(&self) -> Result<(), Error> {
        let shape = Shape {
            width: SAMPLE_EDGE_PX,
            height: SAMPLE_EDGE_PX,
            bit_depth: 8,
            chroma: Chroma::None,
        };
        let control = Control::starting_now(Duration::from_secs(10), CancelToken::new());
        let mut decoder = self.start(shape.child_bytes(SAMPLE.len()), &control)?;
        decoder.decode(SAMPLE, shape, &control)?;
        Ok(())
    }

    /// Starts the process for one picture, of this shape or less.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] where the system has no room for it now, [`Error::Internal`] where it
    /// cannot be started or shut in at all, and what `control` says.
    pub(crate) fn open(
        &self,
        shape: Shape,
        stream_bytes: usize,
        control: &Control,
    ) -> Result<Decoder, Error> {
        self.start(shape.child_bytes(stream_bytes), control)
    }

    fn start(&self, memory_bytes: u64, control: &Control) -> Result<Decoder, Error> {
        let internal = |error: io::Error| {
            let reason = format!("the AV1 decoder does not start: {error}");
            if is_shortage(&error) {
                Error::Overloaded { reason }
            } else {
                Error::Internal { reason }
            }
        };
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(internal)?;
        let ends = process.stdin.take().zip(process.stdout.take());
        let mut decoder = Decoder {
            process,
            ends: ends.ok_or_else(|| internal(ErrorKind::BrokenPipe.into()))?,
        };
        let (to, from) = &decoder.ends;
        ioctl_fionbio(to, true)
            .and_then(|()| ioctl_fionbio(from, true))
            .map_err(|error| internal(error.into()))?;
        let limits = Limits {
            memory_bytes,
            cpu_seconds: control.left().unwrap_or(NO_DEADLINE).as_secs() + 1,
        };
        let begun = decoder
            .send(&limits.to_bytes(), control)
            .and_then(|()| decoder.await_ready(control));
        match begun {
            Ok(()) => Ok(decoder),
            Err(Broken::Stopped(error)) => Err(error),
            Err(Broken::Pipe(error)) => Err(decoder
                .ended_by_others(&error, control)
                .unwrap_or_else(|| internal(error))),
        }
    }
}

/// Whether a process could be had at another time: there are too many processes or open files, or
/// there is no memory.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE];
    Errno::from_io_error(error).is_some_and(|errno| shortages.contains(&errno))
}

/// Whether a process was told to end, by who runs the service or by a kernel that needs its memory.
/// No picture can make it tell itself, and what ends it of a picture are other signals.
fn is_told_to_end(status: ExitStatus) -> bool {
    let signals = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP];
    let ended = status.signal();
    signals.iter().any(|signal| ended == Some(signal.as_raw()))
}

/// A process that decodes, until this is dropped.
#[derive(Debug)]
pub(crate) struct Decoder {
    process: Child,
    ends: (ChildStdin, ChildStdout),
}

/// Why nothing more comes of a process.
enum Broken {
    /// `control` has ended the work.
    Stopped(Error),
    /// It is gone.
    Pipe(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Pipe(error)
    }
}

impl Decoder {
    /// Decodes the one picture of a stream to its planes: luma and both of colour, or luma and
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it cannot be decoded or has another shape, [`Error::Overloaded`]
    /// where somebody else has ended the process, and what `control` says; the process is of no more
    /// use then.
    pub(crate) fn decode(
        &mut self,
        stream: &[u8],
        shape: Shape,
        control: &Control,
    ) -> Result<[Vec<u16>; 3], Error> {
        self.ask(stream, shape, control)
            .and_then(|outcome| match outcome {
                outcome if outcome == Outcome::Decoded as u8 => self.planes(shape, control),
                outcome if outcome == Outcome::OtherShape as u8 => Err(Broken::Stopped(corrupt(
                    "it holds another picture than its header says",
                ))),
                _ => Err(Broken::Pipe(ErrorKind::InvalidData.into())),
            })
            .map_err(|broken| match broken {
                Broken::Stopped(error) => error,
                // Where nobody has ended it, it died of this picture.
                Broken::Pipe(error) => self
                    .ended_by_others(&error, control)
                    .unwrap_or_else(|| corrupt("its data is damaged")),
            })
    }

    /// What to say of a process behind a broken pipe that has not ended of itself.
    fn ended_by_others(&mut self, error: &io::Error, control: &Control) -> Option<Error> {
        if !matches!(
            error.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
        ) {
            return None;
        }
        // Its pipes are closed just before it has ended.
        loop {
            if let Some(status) = self.process.try_wait().ok()? {
                return is_told_to_end(status).then(|| Error::Overloaded {
                    reason: format!("the AV1 decoder was ended: {status}"),
                });
            }
            if let Err(stopped) = control.check() {
                return Some(stopped);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the process as somebody else would, and waits until it has ended.
    #[cfg(test)]
    pub(super) fn end_with(&self, signal: Signal) {
        use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
        let id = Pid::from_child(&self.process);
        let _ = kill_process(id, signal);
        // Its status is left for whoever asks.
        let _ = waitid(
            WaitId::Pid(id),
            WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
        );
    }

    fn ask(&mut self, stream: &[u8], shape: Shape, control: &Control) -> Result<u8, Broken> {
        let stream_bytes = u32::try_from(stream.len()).map_err(io::Error::other)?;
        let ask = Ask {
            stream_bytes,
            shape,
        };
        self.send(&ask.to_bytes(), control)?;
        self.send(stream, control)?;
        let mut outcome = [0];
        self.receive(&mut outcome, control)?;
        Ok(outcome[0])
    }

    fn planes(&mut self, shape: Shape, control: &Control) -> Result<[Vec<u16>; 3], Broken> {
        let sample_bytes = usize::from(shape.sample_bytes());
        let mut planes = [const { Vec::new() }; 3];
        let mut buffer = vec![0; 64 << 10];
        for (plane, (width, height)) in planes.iter_mut().zip(shape.planes()) {
            let count = width as usize * height as usize;
            plane.reserve_exact(count);
            while plane.len() < count {
                let length = ((count - plane.len()) * sample_bytes).min(buffer.len());
                let part = &mut buffer[..length];
                self.receive(part, control)?;
                if sample_bytes == 1 {
                    plane.extend(part.iter().copied().map(u16::from));
                } else {
                    // No more than there can be: what is computed with them must not overflow.
                    let most = (1 << shape.bit_depth) - 1;
                    let (pairs, _) = part.as_chunks::<2>();
                    plane.extend(pairs.iter().map(|pair| u16::from_ne_bytes(*pair).min(most)));
                }
            }
        }
        Ok(planes)
    }

    /// Waits for an answer to nothing.
    #[cfg(test)]
    pub(super) fn wait_for_nothing(&mut self, control: &Control) -> Result<(), Error> {
        match self.receive(&mut [0], control) {
            Err(Broken::Stopped(error)) => Err(error),
            _ => Ok(()),
        }
    }

    fn await_ready(&mut self, control: &Control) -> Result<(), Broken> {
        let mut said = vec![0; READY.len()];
        self.receive(&mut said, control)?;
        while !said.ends_with(&READY) {
            if said.len() >= READY.len() + PREAMBLE_BYTES {
                return Err(Broken::Pipe(ErrorKind::InvalidData.into()));
            }
            let mut next = [0];
            self.receive(&mut next, control)?;
            said.extend(next);
        }
        Ok(())
    }

    fn send(&mut self, mut bytes: &[u8], control: &Control) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.ends.0.write(bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(error) => retry(error, &self.ends.0, PollFlags::OUT, control)?,
            }
        }
        Ok(())
    }

    fn receive(&mut self, mut bytes: &mut [u8], control: &Control) -> Result<(), Broken> {
        while !bytes.is_empty() {
            match self.ends.1.read(bytes) {
                Ok(0) => return Err(Broken::Pipe(ErrorKind::UnexpectedEof.into())),
                Ok(count) => bytes = &mut bytes[count..],
                Err(error) => retry(error, &self.ends.1, PollFlags::IN, control)?,
            }
        }
        Ok(())
    }
}

/// Waits until one end of a pipe is ready where that is all that was amiss.
fn retry(
    error: io::Error,
    end: &impl AsFd,
    ready: PollFlags,
    control: &Control,
) -> Result<(), Broken> {
    match error.kind() {
        ErrorKind::Interrupted => return Ok(()),
        ErrorKind::WouldBlock => {}
        _ => return Err(error.into()),
    }
    loop {
        control.check().map_err(Broken::Stopped)?;
        match poll(&mut [PollFd::new(end, ready)], Some(&TICK)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(error) => return Err(io::Error::from(error).into()),
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it stays.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt {
        format: SourceFormat::Avif,
        reason,
    }
}

const SAMPLE_EDGE_PX: u32 = 16;

/// A grey picture of 16 × 16 pixels.
const SAMPLE: &[u8] =
    b"\x12\0\x0a\x08\x18\x0c\xff\xda\x60\x21\xa0\xd4\x32\x0b\x1d\x85\x9d\xdc\x70\x2c\0\x75\x7d\x83\xe0";
