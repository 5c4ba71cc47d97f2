//! Makes the objects of a new avatar: from the bytes of a picture to renditions and a manifest in
//! the store.
//!
//! The order of the steps makes a crash harmless (see [`crate::catalog`]): the id is reserved before
//! the first object is written, and the manifest is written after the last rendition. The objects
//! belong to no user until [`Service::commit`] makes their record current.
//!
//! A failure on the way invalidates the reservation and removes the manifest, so that a rebuild
//! never restores the avatar. If the future is dropped, the id stays pending, and the sweep removes
//! the objects.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cameo_imaging::{self as imaging, Crop, Output, Processed};
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use tracing::warn;

use super::admission::Admitted;
use super::{Error, Service};
use crate::avatar::{
    AvatarId, Manifest, ObjectKey, Original, OriginalAccess, Record, Rendition, SourceSquare,
    SubjectId,
};
use crate::catalog::{CatalogError, Reservation, SubjectLocked, Uploader};
use crate::jail;
use crate::telemetry::chain;

/// How long a client waits at most for the clean-up after a failure.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The picture that an avatar is made from.
pub(super) struct Picture {
    /// The bytes of an image file.
    pub(super) bytes: Bytes,
    /// The part of the upright picture that becomes the avatar. Without it, the largest centred
    /// square does.
    pub(super) crop: Option<Crop>,
}

/// An upload that makes a new avatar.
#[derive(Clone, Copy)]
struct NewUpload<'a> {
    subject: &'a SubjectId,
    uploader: Uploader,
    /// The id of the new avatar.
    avatar: AvatarId,
}

/// The objects and reservations that a failed upload may leave besides its renditions.
#[derive(Clone, Copy)]
enum Traces {
    None,
    /// The catalog may have reserved the id.
    Reservation,
    /// The store may hold the manifest too.
    Manifest,
}

/// Waits for the writes that are under way, and returns the refusal. A write that ends later would
/// leave an object that was removed already.
async fn after_all<T>(mut writes: impl Stream<Item = T> + Unpin, refusal: Error) -> Error {
    while writes.next().await.is_some() {}
    refusal
}

/// The square of the upright picture that the renditions show.
fn square_of(probe: &imaging::Probe, crop: Option<Crop>) -> Result<SourceSquare, imaging::Error> {
    let square = Crop::square(probe.width, probe.height, crop)?;
    Ok(SourceSquare {
        x: square.x,
        y: square.y,
        edge: square.width,
    })
}

/// Waits for the writes and the reviews that are still under way.
async fn finish<E: Into<Error>>(
    mut writes: impl Stream<Item = Result<(), E>> + Unpin,
    mut reviews: impl Stream<Item = Result<(), Error>> + Unpin,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            Some(written) = writes.next() => written.map_err(Into::into)?,
            Some(reviewed) = reviews.next() => match reviewed {
                Ok(()) => {}
                Err(refusal) => return Err(after_all(writes, refusal).await),
            },
            else => return Ok(()),
        }
    }
}

impl Service {
    /// Makes a new avatar for the subject: probes the picture, waits for a worker, processes the
    /// picture, and stores each rendition and then the manifest. Stops when `abort` is done.
    ///
    /// When this returns a record, its manifest and every object that it names are durable, and its
    /// id is pending in the catalog. [`commit`](Self::commit) makes it current.
    ///
    /// # Errors
    /// What `abort` gives, and every kind but [`Error::NotFound`]. Nothing has changed for the
    /// subject then, and the sweep removes the objects that were written.
    pub(super) async fn make_objects(
        &self,
        subject: &SubjectId,
        uploader: Uploader,
        picture: Picture,
        admitted: Admitted,
        abort: impl Future<Output = Error>,
    ) -> Result<Record, Error> {
        let avatar = AvatarId::random().map_err(|error| Error::Internal(Box::new(error)))?;
        let upload = NewUpload {
            subject,
            uploader,
            avatar,
        };
        let mut traces = Traces::None;
        let stored = tokio::select! {
            stored = self.store_all(upload, picture, &mut traces, admitted) => stored,
            aborted = abort => Err(aborted),
        };
        match (&stored, traces) {
            (Ok(_), _) | (Err(_), Traces::None) => {}
            // Nothing of a refused picture is kept, not even until the next sweep.
            (Err(Error::Rejected(_) | Error::ModerationUnavailable(_)), _) => {
                self.abandon(subject, avatar).await;
            }
            (Err(_), traces) => self.clean_up(subject, avatar, traces).await,
        }
        stored
    }

    /// Does the work of [`make_objects`](Self::make_objects). Notes in `traces` what a failure
    /// may leave behind.
    async fn store_all(
        &self,
        upload: NewUpload<'_>,
        picture: Picture,
        traces: &mut Traces,
        admitted: Admitted,
    ) -> Result<Record, Error> {
        let NewUpload {
            subject, avatar, ..
        } = upload;
        let Admitted {
            account,
            user_slot: _user_slot,
            slot,
            body,
            mut wait,
        } = admitted;
        let body = Arc::new(body);
        let recipe = &self.settings.recipe;
        let probe = imaging::probe_for(&picture.bytes, recipe, picture.crop)?;
        let source = square_of(&probe, picture.crop)?;
        let worker = self.budget.worker(&account, &mut wait).await?;
        drop(slot);
        let memory = self
            .budget
            .decode(&account, probe.memory_bytes, &mut wait)
            .await?;
        self.metrics.waited(wait.waited());
        let Picture { bytes, crop } = picture;
        let mut work = self.workers.start(jail::Picture {
            bytes,
            recipe: Arc::clone(recipe),
            crop,
            probe,
            deadline: self.settings.picture_deadline,
            // Released when the work has ended, even if the client has gone.
            reserved: Box::new((worker, memory, Arc::clone(&body))),
        })?;

        let mut reservation = None;
        let mut original = None;
        let mut renditions = Vec::new();
        let mut writes = FuturesUnordered::new();
        let mut reviews = FuturesUnordered::new();
        loop {
            tokio::select! {
                output = work.outputs.recv() => {
                    let Some(output) = output else { break };
                    if reservation.is_none() {
                        reservation = Some(self.reserve(upload, traces).await?);
                    }
                    let (key, object) = match output {
                        Output::Rendition(rendition, object) => {
                            let key = ObjectKey::Rendition {
                                audience: self.settings.audience,
                                avatar,
                                variant: rendition.variant.clone(),
                                format: rendition.format,
                                animated: rendition.animated,
                            };
                            let object = Bytes::from(object);
                            let submission =
                                self.submission_of(subject, avatar, &rendition, &object);
                            reviews.extend(submission.map(|picture| self.moderate(picture)));
                            renditions.push(rendition);
                            (key, object)
                        }
                        Output::Original(found, object) => {
                            let object = Bytes::from(object);
                            let access =
                                self.settings.original.unwrap_or(OriginalAccess::Private);
                            let kept = Original {
                                format: found.format,
                                width: found.width,
                                height: found.height,
                                bytes: object.len() as u64,
                                access,
                                square: source,
                            };
                            let submission =
                                self.submission_of_original(subject, avatar, &kept, &object);
                            reviews.extend(submission.map(|picture| self.moderate(picture)));
                            original = Some(kept);
                            let audience = self.settings.audience;
                            (ObjectKey::of_original(avatar, audience, &kept), object)
                        }
                    };
                    writes.push(async move { self.store.put(&key, object).await });
                }
                Some(written) = writes.next() => written?,
                Some(Err(refusal)) = reviews.next() => {
                    drop(work);
                    return Err(after_all(writes, refusal).await);
                }
            }
        }
        let processed = work.outcome().await?;
        let Some(reservation) = reservation else {
            return Err(Error::Internal("a picture gave no rendition".into()));
        };
        finish(writes, reviews).await?;
        let record = self.record(avatar, reservation, renditions, original, processed);
        *traces = Traces::Manifest;
        self.write_manifest(subject, &record).await?;
        Ok(record)
    }

    /// Reserves the id of an upload. Notes in `traces` what a failure may leave behind.
    async fn reserve(
        &self,
        upload: NewUpload<'_>,
        traces: &mut Traces,
    ) -> Result<Reservation, Error> {
        let NewUpload {
            subject,
            uploader,
            avatar,
        } = upload;
        // Set before the call: if the future is dropped during the call, the catalog may have reserved
        // the id.
        *traces = Traces::Reservation;
        let within = self.settings.upload_deadline;
        let reserved = self
            .catalog
            .reserve(subject, avatar, within, uploader)
            .await;
        // Invalidating an id that was never reserved would add entries to a full catalog.
        if matches!(&reserved, Ok(Err(SubjectLocked)))
            || reserved.as_ref().is_err_and(CatalogError::is_refusal)
        {
            *traces = Traces::None;
        }
        match reserved? {
            Ok(reservation) => Ok(reservation),
            Err(SubjectLocked) => Err(self.locked(subject).await),
        }
    }

    fn record(
        &self,
        avatar_id: AvatarId,
        reservation: Reservation,
        mut renditions: Vec<Rendition>,
        original: Option<Original>,
        processed: Processed,
    ) -> Record {
        let recipe = &self.settings.recipe;
        renditions.sort_by_key(|rendition| {
            let format = recipe
                .formats
                .iter()
                .position(|format| *format == rendition.format);
            let variant = recipe
                .variants
                .iter()
                .position(|one| one.name == rendition.variant);
            (rendition.animated, format, variant)
        });
        let Processed {
            source,
            placeholder,
        } = processed;
        Record {
            avatar_id,
            version: reservation.version,
            reserved_at: reservation.reserved_at,
            uploaded_at: reservation.reserved_at,
            source,
            renditions,
            audience: self.settings.audience,
            original,
            master: None,
            placeholder,
        }
    }

    /// Writes the manifest of a record, after all objects that it names.
    pub(super) async fn write_manifest(
        &self,
        subject: &SubjectId,
        record: &Record,
    ) -> Result<(), Error> {
        let manifest = Manifest {
            subject: subject.clone(),
            record: record.clone(),
        };
        let body = manifest
            .to_json()
            .map_err(|error| Error::Internal(error.into()))?;
        let key = ObjectKey::Manifest {
            avatar: record.avatar_id,
        };
        Ok(self.store.put(&key, body.into()).await?)
    }

    /// Makes sure that the avatar never becomes current, and removes its manifest if one was sent.
    /// The sweep removes the other objects. The client waits for this, so it takes a limited time.
    async fn clean_up(&self, subject: &SubjectId, avatar: AvatarId, traces: Traces) {
        let delete_manifest = async {
            match traces {
                Traces::Manifest => self.store.delete(&ObjectKey::Manifest { avatar }).await,
                Traces::None | Traces::Reservation => Ok(()),
            }
        };
        let removed = async {
            // No commit was sent, so the manifest can be removed even if the catalog does not
            // answer. It must be removed, because a rebuild would restore the avatar.
            let (invalidated, deleted) =
                tokio::join!(self.invalidate(subject, avatar), delete_manifest);
            invalidated?;
            Ok::<_, Error>(deleted?)
        };
        match tokio::time::timeout(CLEANUP_TIMEOUT, removed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(
                    %avatar,
                    error = %chain(&error),
                    "the manifest of a failed upload is left to the sweep"
                );
            }
            Err(_) => warn!(%avatar, "the manifest of a failed upload is left to the sweep"),
        }
    }
}
