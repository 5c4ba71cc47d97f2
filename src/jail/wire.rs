//! The messages between the service, the zygote and the workers.
//!
//! All three run the same program on the same machine, so numbers have the machine's own byte order
//! and there is no version number. The service trusts its own messages only: [`super::inspect`]
//! checks everything that a worker sends.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::stdio::stdin;
use serde::{Deserialize, Serialize};

use crate::avatar::{Format, Placeholder, SourceFormat, VariantName};
use cameo_imaging::{Crop, Limits, Recipe, Target};

/// A message from the service to the zygote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Fork a worker. The message carries the worker's socket. In tests it may carry an upload too,
    /// which names an action of the zygote.
    Start(u64),
    /// Kill a worker, if it still runs.
    Kill(u64),
}

/// A message from the zygote to the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// A worker runs in the process of this id.
    Started(u64, i32),
    /// A worker has ended, and the zygote has reaped it.
    Ended(u64, End),
}

/// How a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It ended with this exit code.
    Exited(i32),
    /// This signal ended it.
    Signalled(i32),
    /// It was not started, because of this error number.
    NotStarted(i32),
    /// The zygote ended first, and the worker with it.
    Lost,
}

/// The length of every [`Command`].
pub(super) const COMMAND_BYTES: usize = 9;
/// The length of every [`Report`].
pub(super) const REPORT_BYTES: usize = 13;

impl Command {
    pub(super) fn to_bytes(self) -> [u8; COMMAND_BYTES] {
        let (kind, id) = match self {
            Self::Start(id) => (1, id),
            Self::Kill(id) => (2, id),
        };
        let mut bytes = [kind; COMMAND_BYTES];
        bytes[1..].copy_from_slice(&id.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; COMMAND_BYTES]) -> Option<Self> {
        let [kind, id @ ..] = bytes;
        let id = u64::from_ne_bytes(id);
        match kind {
            1 => Some(Self::Start(id)),
            2 => Some(Self::Kill(id)),
            _ => None,
        }
    }
}

impl Report {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (kind, id, value) = match self {
            Self::Started(id, process) => (1, id, process),
            Self::Ended(id, End::Exited(code)) => (2, id, code),
            Self::Ended(id, End::Signalled(signal)) => (3, id, signal),
            Self::Ended(id, End::NotStarted(errno)) => (4, id, errno),
            Self::Ended(id, End::Lost) => (5, id, 0),
        };
        let mut bytes = [kind; REPORT_BYTES];
        bytes[1..9].copy_from_slice(&id.to_ne_bytes());
        bytes[9..].copy_from_slice(&value.to_ne_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; REPORT_BYTES]) -> Option<Self> {
        let [kind, rest @ ..] = bytes;
        let (id, value) = rest.split_first_chunk::<8>()?;
        let id = u64::from_ne_bytes(*id);
        let value = i32::from_ne_bytes(value.try_into().ok()?);
        let end = match kind {
            1 => return Some(Self::Started(id, value)),
            2 => End::Exited(value),
            3 => End::Signalled(value),
            4 => End::NotStarted(value),
            5 => End::Lost,
            _ => return None,
        };
        Some(Self::Ended(id, end))
    }
}

/// The request to a worker. It is the only message that a worker receives: its length in four bytes,
/// which carry the descriptor of the upload, then these fields.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    /// The length of the upload.
    pub(super) upload_bytes: usize,
    /// Upper bound on the peak memory of processing, without the upload.
    pub(super) memory_bytes: u64,
    /// Maximum processor time.
    pub(super) cpu_seconds: u64,
    /// Whether the worker may encode on a second thread.
    pub(super) second_thread: bool,
    recipe: RecipeFields,
    crop: Option<[u32; 4]>,
}

/// The fields of a [`Recipe`] and its [`Limits`].
#[derive(Serialize, Deserialize)]
struct RecipeFields {
    source_formats: Vec<SourceFormat>,
    min_edge_px: u32,
    max_edge_px: u32,
    max_frames: u32,
    variants: Vec<(VariantName, u32)>,
    formats: Vec<Format>,
    webp_quality: u8,
    jpeg_quality: u8,
    background: [u8; 3],
    animated: bool,
    keep_original: bool,
}

/// Maximum length of a request.
pub(super) const MAX_REQUEST_BYTES: usize = 64 << 10;

impl Request {
    pub(super) fn new(recipe: &Recipe, crop: Option<Crop>) -> Self {
        let limits = &recipe.limits;
        let variant = |target: &Target| (target.name.clone(), target.edge_px);
        Self {
            upload_bytes: 0,
            memory_bytes: 0,
            cpu_seconds: 0,
            second_thread: false,
            recipe: RecipeFields {
                source_formats: limits.formats.clone(),
                min_edge_px: limits.min_edge_px,
                max_edge_px: limits.max_edge_px,
                max_frames: limits.max_frames,
                variants: recipe.variants.iter().map(variant).collect(),
                formats: recipe.formats.clone(),
                webp_quality: recipe.webp_quality,
                jpeg_quality: recipe.jpeg_quality,
                background: recipe.background,
                animated: recipe.animated,
                keep_original: recipe.keep_original,
            },
            crop: crop.map(|crop| [crop.x, crop.y, crop.width, crop.height]),
        }
    }

    /// The length of the request, and the request.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let fields = postcard::to_allocvec(self).map_err(io::Error::other)?;
        if fields.len() > MAX_REQUEST_BYTES {
            return Err(io::Error::other("the recipe is too long"));
        }
        let mut bytes = (fields.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(fields);
        Ok(bytes)
    }

    pub(super) fn recipe(&self) -> Recipe {
        let fields = &self.recipe;
        let target = |(name, edge_px): &(VariantName, u32)| Target {
            name: name.clone(),
            edge_px: *edge_px,
        };
        Recipe {
            limits: Limits {
                formats: fields.source_formats.clone(),
                min_edge_px: fields.min_edge_px,
                max_edge_px: fields.max_edge_px,
                max_frames: fields.max_frames,
            },
            variants: fields.variants.iter().map(target).collect(),
            formats: fields.formats.clone(),
            webp_quality: fields.webp_quality,
            jpeg_quality: fields.jpeg_quality,
            background: fields.background,
            animated: fields.animated,
            keep_original: fields.keep_original,
        }
    }

    pub(super) fn crop(&self) -> Option<Crop> {
        self.crop.map(|[x, y, width, height]| Crop {
            x,
            y,
            width,
            height,
        })
    }
}

/// Maximum number of descriptors that accompany a message.
const MAX_DESCRIPTORS: usize = 2;

/// Sends a whole message with descriptors, without waiting.
///
/// # Errors
/// If the socket is closed, or has no room for the message.
pub(super) fn send_with_descriptors(
    socket: impl AsFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags)? {
        sent if sent == bytes.len() => Ok(()),
        _ => Err(Errno::MSGSIZE.into()),
    }
}

/// Waits for a message on the standard input. Returns the number of bytes received, 0 if the other end
/// is closed, and the descriptors that accompany them.
///
/// # Errors
/// Those of the system.
pub(super) fn receive_with_descriptors(bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(bytes)];
        match recvmsg(stdin(), &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok((0, Vec::new())),
            received => break received?.bytes,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok((received, descriptors))
}

/// The kinds of frames that a worker sends. A frame is its kind in one byte, its length in four, and
/// its contents.
pub(super) mod kind {
    /// A file: a [`FileTag`](super::FileTag) in four bytes, then the file.
    pub(in crate::jail) const FILE: u8 = 1;
    /// The last frame of a picture: an [`Outcome`](super::Outcome).
    pub(in crate::jail) const OUTCOME: u8 = 2;
    /// The first letter of the text that Rust's standard library writes to the standard error, which
    /// is the same socket, when an allocation fails: `memory allocation of 123 bytes failed`. The
    /// process aborts then, so there is no other way to send this.
    pub(in crate::jail) const OUT_OF_MEMORY: u8 = b'm';
}

/// The length of a frame's kind and length.
pub(super) const FRAME_HEAD_BYTES: usize = 5;
/// The length of a [`FileTag`].
pub(super) const FILE_TAG_BYTES: usize = 4;
/// Maximum length of a frame that is not a file.
pub(super) const MAX_OUTCOME_BYTES: usize = 4 << 10;

pub(super) fn frame_head(kind: u8, length: usize) -> io::Result<[u8; FRAME_HEAD_BYTES]> {
    let length = u32::try_from(length).map_err(io::Error::other)?;
    let [a, b, c, d] = length.to_ne_bytes();
    Ok([kind, a, b, c, d])
}

/// Identifies a file of a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileTag {
    /// A rendition: the position of its variant in the recipe.
    Rendition {
        variant: u8,
        format: Format,
        animated: bool,
    },
    /// The original.
    Original(Format),
}

impl FileTag {
    pub(super) fn to_bytes(self) -> [u8; FILE_TAG_BYTES] {
        let number = |format| match format {
            Format::Webp => 0,
            Format::Jpeg => 1,
            Format::Png => 2,
        };
        match self {
            Self::Rendition {
                variant,
                format,
                animated,
            } => [0, variant, number(format), animated.into()],
            Self::Original(format) => [1, 0, number(format), 0],
        }
    }

    pub(super) fn from_bytes(bytes: [u8; FILE_TAG_BYTES]) -> Option<Self> {
        let [kind, variant, format, animated] = bytes;
        let format = match format {
            0 => Format::Webp,
            1 => Format::Jpeg,
            2 => Format::Png,
            _ => return None,
        };
        match (kind, animated) {
            (0, 0 | 1) => Some(Self::Rendition {
                variant,
                format,
                animated: animated == 1,
            }),
            (1, 0) => Some(Self::Original(format)),
            _ => None,
        }
    }
}

/// The worker's report on how the work on its picture ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// Every file was sent before.
    Done(Placeholder),
    /// The picture is damaged, with the reason for the client.
    Corrupt(String),
    /// The picture takes too much work, with the reason for the client.
    TooComplex(String),
    /// A fault of this program, with the reason for the log.
    Failed(String),
    /// A panic, with its message for the log.
    Panicked(String),
    /// The worker could not be set up, with the reason for the log. It has not read the upload.
    NotReady(String),
}

impl Outcome {
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        postcard::to_allocvec(self).map_err(io::Error::other)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_reports_are_read_as_they_were_written() {
        for command in [Command::Start(7), Command::Kill(u64::MAX)] {
            assert_eq!(Command::from_bytes(command.to_bytes()), Some(command));
        }
        for report in [
            Report::Started(1, 4711),
            Report::Ended(2, End::Exited(3)),
            Report::Ended(3, End::Signalled(9)),
            Report::Ended(4, End::NotStarted(11)),
            Report::Ended(5, End::Lost),
        ] {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Command::from_bytes([9; COMMAND_BYTES]), None);
        assert_eq!(Report::from_bytes([9; REPORT_BYTES]), None);
    }

    #[test]
    fn only_tags_that_a_recipe_can_have_are_read() {
        for tag in [
            FileTag::Original(Format::Png),
            FileTag::Rendition {
                variant: 4,
                format: Format::Webp,
                animated: true,
            },
        ] {
            assert_eq!(FileTag::from_bytes(tag.to_bytes()), Some(tag));
        }
        for bytes in [[0, 0, 3, 0], [0, 0, 0, 2], [2, 0, 0, 0], [1, 0, 0, 1]] {
            assert_eq!(FileTag::from_bytes(bytes), None);
        }
    }
}
