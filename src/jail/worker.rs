//! A worker: the process that makes the renditions of one picture, and then ends.

use std::any::Any;
use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use bytes::Bytes;
use rustix::io::{Errno, read, writev};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout, stdin, stdout};
use seccompiler::BpfProgram;

use super::wire::{
    FileTag, MAX_REQUEST_BYTES, Outcome, Request, frame_head, kind, receive_with_descriptors,
};
use super::{sandbox, system};
use crate::avatar::{Format, SourceFormat, VariantName};
use cameo_imaging::{
    Control, Error, Executor, Limits, Output, Processed, Recipe, Target, Task, Workspace,
    encode_rgb, process, process_with,
};

/// Additional address space, for the stack and for memory that the allocator reserves in advance.
const SPARE_ADDRESS_BYTES: u64 = 32 << 20;

/// Maximum length of a reason.
const MAX_REASON_BYTES: usize = 1 << 10;

/// The data that every worker inherits from the zygote.
pub(super) struct Inherited {
    filter: BpfProgram,
    /// The address space of the zygote, which a worker starts with.
    address_bytes: u64,
}

impl Inherited {
    /// Makes the data once, in the zygote, after the zygote is set up.
    ///
    /// # Errors
    /// If there is no filter for this processor, or the size of the address space cannot be read.
    pub(super) fn prepare() -> io::Result<Self> {
        warm_up();
        system::trim_heap();
        let pages = std::fs::read_to_string("/proc/self/statm")?;
        let pages = pages
            .split_whitespace()
            .next()
            .and_then(|pages| pages.parse().ok());
        let pages: u64 = pages.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            filter: sandbox::worker_filter()?,
            address_bytes: pages * rustix::param::page_size() as u64,
        })
    }
}

/// Waits for a request on `socket`, executes it, and ends this process. The zygote has just forked it
/// for this.
pub(super) fn run(socket: &OwnedFd, inherited: &Inherited) -> ! {
    let outcome = match receive_request(socket) {
        // The service has closed the socket, because it needs no worker any more.
        Ok(None) => system::end(0),
        Ok(Some((request, upload))) => match prepare(&request, upload, inherited) {
            // The second thread ends with the process.
            Ok((bytes, second_thread)) => make(&request, bytes, &ManuallyDrop::new(second_thread)),
            Err(error) => Outcome::NotReady(error.to_string()),
        },
        Err(error) => Outcome::NotReady(error.to_string()),
    };
    // If the work was cancelled, the service has closed the socket.
    let sent = outcome
        .to_bytes()
        .and_then(|bytes| send_frame(kind::OUTCOME, &[], &bytes));
    system::end(i32::from(sent.is_err()))
}

/// Closes all descriptors except the socket, and waits for the request. Returns it with its upload;
/// `None` if the service closes the socket without a request.
fn receive_request(socket: &OwnedFd) -> io::Result<Option<(Request, OwnedFd)>> {
    // Lists of processes show this name.
    let _ = rustix::thread::set_name(c"cameo-waiting");
    // The outcome is sent to the standard output, even if a later step fails.
    dup2_stdout(socket)?;
    dup2_stderr(socket)?;
    dup2_stdin(socket)?;
    system::close_from(3)?;
    let mut length = [0; 4];
    let (received, descriptors) = receive_with_descriptors(&mut length)?;
    if received == 0 {
        return Ok(None);
    }
    let _ = rustix::thread::set_name(c"cameo-imaging");
    receive(&mut length[received..])?;
    let length = u32::from_ne_bytes(length) as usize;
    if length > MAX_REQUEST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut fields = vec![0; length];
    receive(&mut fields)?;
    let request = postcard::from_bytes(&fields).map_err(io::Error::other)?;
    let upload = descriptors.into_iter().next();
    Ok(Some((request, upload.ok_or(Errno::BADF)?)))
}

/// Maps the upload, and gives up all rights that the work does not need.
fn prepare(
    request: &Request,
    upload: OwnedFd,
    inherited: &Inherited,
) -> io::Result<(Bytes, SecondThread)> {
    system::extend_heap(usize::try_from(request.memory_bytes).unwrap_or(usize::MAX));
    let second_thread = SecondThread::start(request.second_thread)?;
    let bytes = Bytes::from_static(system::map_sealed(&upload, request.upload_bytes)?);
    drop(upload);
    let needed = request.upload_bytes as u64 + request.memory_bytes + SPARE_ADDRESS_BYTES;
    let cpu_seconds = request.cpu_seconds;
    #[cfg(test)]
    let cpu_seconds = super::tests::Attempt::cpu_seconds(&bytes).unwrap_or(cpu_seconds);
    let limits = sandbox::Limits {
        address_bytes: inherited.address_bytes + needed,
        cpu_seconds,
    };
    sandbox::limit(limits)?;
    // With the filter no thread can start.
    second_thread.wait_until_started()?;
    sandbox::filter(&inherited.filter)?;
    Ok((bytes, second_thread))
}

/// Processes the upload, and sends each file as soon as it is encoded.
fn make(request: &Request, bytes: Bytes, second_thread: &SecondThread) -> Outcome {
    #[cfg(test)]
    if let Some(attempt) = super::tests::Attempt::named_by(&bytes) {
        return attempt.make();
    }
    let recipe = request.recipe();
    let made = catch_unwind(AssertUnwindSafe(|| {
        process_with(
            bytes,
            &recipe,
            request.crop(),
            // The service kills this process at the deadline.
            &Control::unlimited(),
            &mut Workspace::new(),
            second_thread,
            &mut |output| match send_file(&recipe, &output) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            },
        )
    }));
    match made {
        Ok(Ok(Processed { placeholder, .. })) => Outcome::Done(placeholder),
        Ok(Err(error)) => error.into(),
        Err(panic) => Outcome::Panicked(short(message_of(&*panic).to_owned())),
    }
}

/// A thread that encodes one file while the first thread continues, if the service has an idle core.
struct SecondThread(Option<Thread>);

struct Thread {
    started: Receiver<()>,
    tasks: SyncSender<Task>,
}

impl SecondThread {
    /// Starts the thread, if it is wanted.
    fn start(wanted: bool) -> io::Result<Self> {
        if !wanted {
            return Ok(Self(None));
        }
        let (sender, tasks) = mpsc::sync_channel::<Task>(1);
        let (ready, started) = mpsc::sync_channel(1);
        thread::Builder::new().spawn(move || {
            let _ = ready.send(());
            while let Ok(task) = tasks.recv() {
                // After a panic the first thread misses the file.
                let _ = catch_unwind(AssertUnwindSafe(task));
            }
        })?;
        let tasks = sender;
        Ok(Self(Some(Thread { started, tasks })))
    }

    /// Waits until the thread runs. Its start makes system calls that the filter forbids.
    fn wait_until_started(&self) -> io::Result<()> {
        match &self.0 {
            Some(thread) => thread.started.recv().map_err(io::Error::other),
            None => Ok(()),
        }
    }
}

impl Executor for SecondThread {
    fn offer(&self, task: Task) -> bool {
        let thread = self.0.as_ref();
        thread.is_some_and(|thread| thread.tasks.try_send(task).is_ok())
    }
}

impl From<Error> for Outcome {
    fn from(error: Error) -> Self {
        match error {
            Error::Corrupt { reason, .. } => Self::Corrupt(reason.to_string()),
            Error::TooComplex { reason } => Self::TooComplex(reason.to_string()),
            Error::Internal { reason } | Error::Overloaded { reason } => {
                Self::Failed(short(reason))
            }
            // The service has checked the same headers already, so this is a fault of the program.
            error => Self::Failed(short(error.to_string())),
        }
    }
}

fn short(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    reason
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

fn send_file(recipe: &Recipe, output: &Output) -> io::Result<()> {
    let (tag, file) = match output {
        Output::Original(original, file) => (FileTag::Original(original.format), file),
        Output::Rendition(rendition, file) => {
            let variants = recipe.variants.iter();
            let variant = variants.map(|target| &target.name);
            let variant = variant
                .enumerate()
                .find(|(_, name)| **name == rendition.variant);
            let variant = variant.and_then(|(index, _)| u8::try_from(index).ok());
            let tag = FileTag::Rendition {
                variant: variant.ok_or(io::ErrorKind::InvalidData)?,
                format: rendition.format,
                animated: rendition.animated,
            };
            (tag, file)
        }
    };
    send_frame(kind::FILE, &tag.to_bytes(), file)
}

/// Sends a frame to the service, if possible in one call, so that the service wakes up once. The
/// standard output of the standard library would allocate and lock.
fn send_frame(kind: u8, tag: &[u8], contents: &[u8]) -> io::Result<()> {
    let mut head = frame_head(kind, tag.len() + contents.len())?.to_vec();
    head.extend_from_slice(tag);
    let mut parts = &mut [IoSlice::new(&head), IoSlice::new(contents)][..];
    while !parts.is_empty() {
        match writev(stdout(), parts) {
            Ok(count) => IoSlice::advance_slices(&mut parts, count),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads from the service.
fn receive(mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match read(stdin(), &mut *bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Processes built-in pictures. Libraries compute tables at their first use, and workers inherit those
/// tables.
fn warm_up() {
    const EDGE_PX: u32 = 64;

    let Ok(name) = VariantName::new("sample") else {
        return;
    };
    let recipe = Recipe {
        limits: Limits {
            formats: SourceFormat::ALL.to_vec(),
            min_edge_px: 1,
            max_edge_px: EDGE_PX,
            max_frames: 1,
        },
        variants: vec![Target {
            name,
            edge_px: EDGE_PX / 2,
        }],
        formats: Format::ALL.to_vec(),
        webp_quality: 80,
        jpeg_quality: 80,
        background: [255; 3],
        animated: false,
        keep_original: false,
    };
    let mut workspace = Workspace::new();
    for format in Format::ALL {
        let pixels = (0..EDGE_PX * EDGE_PX * 3).map(|number| (number * 7 % 251) as u8);
        let sample = encode_rgb(EDGE_PX, EDGE_PX, pixels.collect(), format, &recipe);
        let Ok(sample) = sample else { continue };
        // `Jail::check` reports faults.
        let _ = process(
            sample.into(),
            &recipe,
            None,
            &Control::unlimited(),
            &mut workspace,
            &mut |_| ControlFlow::Continue(()),
        );
    }
}
