//! One upload, from its bytes to the record that makes it the current avatar.
//!
//! The order is what makes a crash harmless (see [`crate::catalog`]): the id is reserved before
//! the first object is written, the manifest is written after the last rendition, and the commit
//! is the only moment at which anything changes. Whatever fails or is dropped before it leaves the
//! id pending, and the sweep removes what was written.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::budget::{Patience, Room, SEATED};
use super::{Error, Service};
use crate::avatar::{
    AvatarId, Format, Manifest, ObjectKey, Record, Rendition, SourceFormat, SubjectId, Timestamp,
    Version,
};
use crate::catalog::{Precondition, Replaced};
use crate::imaging::{self, CancelToken, Crop, Job, Output, Processed};
use crate::storage::StoreError;

/// Leave to bring an upload of up to some size: room for it has been reserved.
pub struct Admission {
    seat: Option<Room>,
    room: Room,
    patience: Patience,
}

impl Admission {
    /// Waits for the body. One that is slow to come keeps nobody else from being admitted.
    pub async fn while_reading<T>(&mut self, read: impl Future<Output = T>) -> T {
        let mut read = pin!(read);
        if let Ok(done) = tokio::time::timeout(SEATED, &mut read).await {
            return done;
        }
        self.seat = None;
        read.await
    }
}

/// One upload.
pub struct Upload {
    /// Whose avatar it is to be.
    pub subject: SubjectId,
    /// The picture.
    pub bytes: Bytes,
    /// The part of it that the client chose.
    pub crop: Option<Crop>,
    /// What must hold of the current avatar.
    pub precondition: Precondition,
    /// When it came.
    pub at: Timestamp,
}

impl Service {
    /// Reserves room for an upload of at most `bytes`, to be had before its body is read.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where there is none within the time that an upload may wait.
    pub async fn admit(&self, bytes: usize) -> Result<Admission, Error> {
        let mut patience = self.budget.patience();
        let seat = self.budget.seat(&mut patience).await?;
        let room = self.budget.hold(bytes as u64, &mut patience).await?;
        Ok(Admission {
            seat: Some(seat),
            room,
            patience,
        })
    }

    /// Makes the picture the subject's avatar, unless `given_up` is done before the commit begins.
    ///
    /// When this returns a record, it and every object that it names are durable. Otherwise, and
    /// where the future is dropped before the commit, the avatar before it is unchanged, and the
    /// sweep removes what was written.
    ///
    /// # Errors
    /// Every kind but [`Error::NotFound`].
    pub async fn upload(
        &self,
        admission: Admission,
        upload: Upload,
        given_up: impl Future<Output = ()>,
    ) -> Result<Record, Error> {
        let Admission {
            seat,
            room: _held,
            patience,
        } = admission;
        let started = Instant::now();
        // Given up well before the sweep may take the objects for a dead upload's.
        let limit = self.settings.upload_deadline.mul_f32(0.8);
        let record = tokio::select! {
            stored = self.store_all(&upload, seat, patience) => stored?,
            () = given_up => return Err(Error::GivenUp),
            () = tokio::time::sleep(limit) => return Err(Error::TimedOut),
        };
        self.commit(&upload, record, upload.at.plus(started.elapsed()))
            .await
    }

    /// Everything of an upload up to its commit: its objects and its manifest are in the store.
    async fn store_all(
        &self,
        upload: &Upload,
        seat: Option<Room>,
        mut patience: Patience,
    ) -> Result<Record, Error> {
        self.expect(upload).await?;
        let recipe = &self.settings.recipe;
        let probe = imaging::probe_for(&upload.bytes, recipe, upload.crop)?;
        let turn = self.budget.turn(&mut patience).await?;
        drop(seat);
        let room = self
            .budget
            .decode(probe.memory_bytes, &mut patience)
            .await?;
        self.metrics.waited(patience.waited());
        let avatar = AvatarId::random().map_err(|error| Error::Internal(Box::new(error)))?;
        let mut work = self.start(upload, probe.format, (turn, room))?;

        let mut version = None;
        let mut master = None;
        let mut renditions = Vec::new();
        let mut writes = FuturesUnordered::new();
        loop {
            tokio::select! {
                output = work.outputs.recv() => {
                    let Some(output) = output else { break };
                    if version.is_none() {
                        version = Some(self.reserve(upload, avatar).await?);
                    }
                    let (key, body) = match output {
                        Output::Rendition(rendition, body) => {
                            let key = rendition.key(avatar);
                            renditions.push(rendition);
                            (key, body)
                        }
                        Output::Master(format, body) => {
                            master = Some(format);
                            (ObjectKey::Master { avatar, format }, body)
                        }
                    };
                    writes.push(self.write(key, body.into()));
                }
                Some(written) = writes.next() => written?,
            }
        }
        let processed = work.outcome().await?;
        let Some(version) = version else {
            return Err(Error::Internal("a picture gave no rendition".into()));
        };
        while let Some(written) = writes.next().await {
            written?;
        }
        drop(writes);
        let record = self.record(avatar, version, upload.at, renditions, master, processed);
        self.write_manifest(&upload.subject, &record).await?;
        Ok(record)
    }

    /// Checks the precondition before any work is done; the commit checks it again.
    async fn expect(&self, upload: &Upload) -> Result<(), Error> {
        if upload.precondition == Precondition::Anything {
            return Ok(());
        }
        let current = self.catalog.get(&upload.subject).await?;
        let current = current.map(|record| record.avatar_id);
        if upload.precondition.holds(current) {
            Ok(())
        } else {
            Err(Error::PreconditionFailed)
        }
    }

    /// Hands the picture to the pool. What is reserved for it is given back when the worker is done
    /// with it, even where nobody waits any more.
    fn start(
        &self,
        upload: &Upload,
        format: SourceFormat,
        reserved: (Room, Room),
    ) -> Result<Work, Error> {
        let recipe = &self.settings.recipe;
        // Stills, twins and a master: the worker never waits for the store.
        let most = recipe.variants.len() * (recipe.formats.len() + 1) + 1;
        let (sender, outputs) = mpsc::channel(most);
        let (done, outcome) = oneshot::channel();
        let work = Work {
            outputs,
            outcome,
            cancel: CancelToken::new(),
        };
        // Its worker is free: the time from now on is the work's.
        let (metrics, begun) = (self.metrics.clone(), Instant::now());
        let job = Job {
            bytes: upload.bytes.clone(),
            recipe: Arc::clone(recipe),
            crop: upload.crop,
            deadline: self.settings.picture_deadline,
            cancel: work.cancel.clone(),
            on_output: Box::new(move |output| match sender.try_send(output) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }),
            on_done: Box::new(move |processed| {
                drop(reserved);
                metrics.processed(format, begun.elapsed());
                // Where nobody waits any more, there is nobody to tell.
                let _ = done.send(processed);
            }),
        };
        let retry_after = self.settings.queue_timeout;
        self.pool
            .submit(job)
            .map_err(|_| Error::Overloaded { retry_after })?;
        Ok(work)
    }

    async fn reserve(&self, upload: &Upload, avatar: AvatarId) -> Result<Version, Error> {
        let deadline = upload.at.plus(self.settings.upload_deadline);
        Ok(self
            .catalog
            .reserve(&upload.subject, avatar, deadline)
            .await?)
    }

    async fn write(&self, key: ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.store.put(&key, body).await
    }

    fn record(
        &self,
        avatar_id: AvatarId,
        version: Version,
        uploaded_at: Timestamp,
        mut renditions: Vec<Rendition>,
        master: Option<Format>,
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
            version,
            uploaded_at,
            source,
            renditions,
            master,
            placeholder,
        }
    }

    async fn write_manifest(&self, subject: &SubjectId, record: &Record) -> Result<(), Error> {
        let manifest = Manifest {
            subject: subject.clone(),
            record: record.clone(),
        };
        let body = serde_json::to_vec(&manifest).map_err(|error| Error::Internal(error.into()))?;
        let key = ObjectKey::Manifest {
            avatar: record.avatar_id,
        };
        Ok(self.store.put(&key, body.into()).await?)
    }

    async fn commit(
        &self,
        upload: &Upload,
        record: Record,
        now: Timestamp,
    ) -> Result<Record, Error> {
        let retire_at = now.plus(self.settings.retire_after);
        let subject = &upload.subject;
        let replaced = self
            .catalog
            .replace(subject, &record, &upload.precondition, now, retire_at)
            .await?;
        let refusal = match replaced {
            Replaced::Committed => return Ok(record),
            Replaced::Superseded => Error::Superseded,
            Replaced::PreconditionFailed => Error::PreconditionFailed,
            // Swept meanwhile; but what was written after the sweep had listed it is still there.
            Replaced::NotPending => Error::TimedOut,
        };
        // Nobody will ever commit the id. The sweep looks at it again, as at every upload that was
        // given up.
        if let Err(error) = self.remove_objects(record.avatar_id).await {
            let (avatar, error) = (record.avatar_id, &error as &dyn std::error::Error);
            warn!(%avatar, error, "a lost upload's objects are left to the sweep");
        }
        Err(refusal)
    }
}

/// A picture in the pool. Dropping it gives the picture up.
struct Work {
    outputs: mpsc::Receiver<Output>,
    outcome: oneshot::Receiver<Result<Processed, imaging::Error>>,
    cancel: CancelToken,
}

impl Work {
    async fn outcome(mut self) -> Result<Processed, Error> {
        match (&mut self.outcome).await {
            Ok(processed) => Ok(processed?),
            Err(gone) => Err(Error::Internal(Box::new(gone))),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::budget::Budget;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_slow_to_come_gives_its_seat_up_and_keeps_its_room() {
        let budget = Budget::new(64 << 20, 1, Duration::from_secs(10));
        let mut patience = budget.patience();
        let mut admission = Admission {
            seat: Some(budget.seat(&mut patience).await.unwrap()),
            room: budget.hold(5 << 20, &mut patience).await.unwrap(),
            patience,
        };
        let body = admission.while_reading(async { 1 }).await;
        assert!(body == 1 && admission.seat.is_some());
        let slow = async {
            tokio::time::sleep(SEATED * 2).await;
            2
        };
        let body = admission.while_reading(slow).await;
        assert!(body == 2 && admission.seat.is_none());
        assert_eq!(budget.load().uploads.reserved_bytes, 5 << 20);
    }
}
