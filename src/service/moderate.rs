//! Asks for a verdict on the pictures of a new avatar before they are published.
//!
//! The pictures that would become visible are the largest still picture and the largest animation.
//! The smaller ones show the same. They are submitted as soon as they are made, while the others are
//! still made and written. The manifest waits for the verdicts, so nothing of a rejected avatar is
//! ever current or restored.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tracing::{info, warn};

use super::{Error, Service};
use crate::avatar::{AvatarId, Format, Original, OriginalAccess, Rendition, SubjectId};
use crate::config::WhenModerationIsDown;
use crate::moderation::{Moderator, Part, Submission, Verdict};
use crate::telemetry::chain;

/// The moderator of pictures, and the rule for pictures without a verdict.
#[derive(Clone)]
pub(crate) struct Moderation {
    /// Gives the verdicts.
    pub(crate) moderator: Arc<dyn Moderator>,
    /// What happens to an upload without a verdict.
    pub(crate) when_down: WhenModerationIsDown,
}

impl Service {
    /// The submission of a new rendition, if it is one that the moderator must see.
    pub(super) fn submission_of(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        rendition: &Rendition,
        bytes: &Bytes,
    ) -> Option<Submission> {
        self.moderation.as_ref()?;
        let recipe = &self.settings.recipe;
        let largest = recipe.variants.iter().max_by_key(|one| one.edge_px)?;
        if rendition.variant != largest.name {
            return None;
        }
        let part = if rendition.animated {
            Part::Animation
        } else {
            Part::Still
        };
        // PNG is the last choice, because every moderation service reads the other two.
        let mut formats = recipe.formats.iter();
        let still_format = formats
            .find(|format| **format != Format::Png)
            .or(recipe.formats.first())?;
        if part == Part::Still && rendition.format != *still_format {
            return None;
        }
        Some(Submission {
            subject: subject.clone(),
            avatar,
            part,
            format: rendition.format,
            bytes: bytes.clone(),
        })
    }

    /// The submission of a new original, if users will see it.
    pub(super) fn submission_of_original(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
        original: &Original,
        bytes: &Bytes,
    ) -> Option<Submission> {
        self.moderation.as_ref()?;
        (original.access == OriginalAccess::Public).then(|| Submission {
            subject: subject.clone(),
            avatar,
            part: Part::Original,
            format: original.format,
            bytes: bytes.clone(),
        })
    }

    /// Asks for the verdict on a picture. Without a moderator every picture is allowed.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::ModerationUnavailable`]
    pub(super) async fn moderate(&self, submission: Submission) -> Result<(), Error> {
        let Some(Moderation {
            moderator,
            when_down,
        }) = &self.moderation
        else {
            return Ok(());
        };
        let (avatar, part) = (submission.avatar, submission.part.name());
        let begun = Instant::now();
        let judged = moderator.judge(&submission).await;
        let verdict = match &judged {
            Ok(Verdict::Allow) => "allow",
            Ok(Verdict::Reject(_)) => "reject",
            Err(_) => "none",
        };
        self.metrics.moderated(verdict, begun.elapsed());
        match (judged, when_down) {
            (Ok(Verdict::Allow), _) => Ok(()),
            (Ok(Verdict::Reject(reason)), _) => {
                info!(%avatar, part, reason, "moderation rejected a picture");
                Err(Error::Rejected(reason))
            }
            (Err(error), WhenModerationIsDown::Deny) => Err(Error::ModerationUnavailable(error)),
            (Err(error), WhenModerationIsDown::Allow) => {
                warn!(
                    %avatar,
                    part,
                    error = %chain(&error),
                    "a picture is published without a verdict, because moderation.when_down is \
                     \"allow\""
                );
                Ok(())
            }
        }
    }
}
