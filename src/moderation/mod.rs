//! The port of the moderation of pictures, and its adapter.
//!
//! A moderator sees each picture that would become visible, before it is published, and gives a
//! verdict. The port knows nothing of HTTP. The adapter asks a service at `moderation.url`.

mod http;

use async_trait::async_trait;
use bytes::Bytes;

use crate::avatar::{AvatarId, Format, SubjectId};

pub(crate) use self::http::{HttpModerator, ModerationError};

/// A picture that would become visible.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    /// Its owner.
    pub(crate) subject: SubjectId,
    /// The avatar that it belongs to.
    pub(crate) avatar: AvatarId,
    /// Its part in the avatar.
    pub(crate) part: Part,
    /// Its format.
    pub(crate) format: Format,
    /// Its bytes, as they would be published.
    pub(crate) bytes: Bytes,
}

/// The part of a picture in an avatar. A moderator sees each part at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The largest still picture.
    Still,
    /// The largest animation.
    Animation,
    /// The original, if users will see it.
    Original,
}

impl Part {
    /// The name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Still => "still",
            Self::Animation => "animation",
            Self::Original => "original",
        }
    }
}

/// The verdict on a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The picture may become visible.
    Allow,
    /// The picture must not become visible. The reason is for its owner: one line of at most 500
    /// characters. It may be empty.
    Reject(String),
}

/// Gives verdicts on pictures.
///
/// A verdict may be asked for again: asking changes nothing. The call ends within a time limit of the
/// adapter. Dropping the future ends the request.
#[async_trait]
pub(crate) trait Moderator: Send + Sync + 'static {
    /// Asks for the verdict on a picture.
    ///
    /// # Errors
    /// If there is no verdict, for any reason.
    async fn judge(&self, submission: &Submission) -> Result<Verdict, ModerationError>;
}
