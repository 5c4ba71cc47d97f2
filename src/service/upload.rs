//! One upload, from its bytes to the record that makes it the current avatar.
//!
//! The order is what makes a crash harmless (see [`crate::catalog`]): the id is reserved before
//! the first object is written, the manifest is written after the last rendition, and the commit
//! is the only moment at which anything changes. An upload that fails before it is invalidated, and
//! its manifest is removed, so that it is never restored. If the upload is dropped, or the outcome of
//! its commit is unknown, its id stays pending, and the sweep decides.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cameo_imaging::{self as imaging, CancelToken, Crop, Job, Output, Processed};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::warn;

use super::budget::{self, Account, BodyReservation, SLOT_TIME, UserSlot, WaitDeadline};
use super::{Error, Service};
use crate::avatar::{
    AvatarId, Format, Manifest, ObjectKey, Record, Rendition, SourceFormat, SubjectId,
};
use crate::catalog::{CatalogError, Invalidated, Outstanding, Precondition, Replaced, Reservation};
use crate::storage::StoreError;

/// Permission to send an upload of up to some size. Memory is reserved as its body arrives.
pub struct Admission {
    account: Account,
    user_slot: Option<UserSlot>,
    /// Kept until a worker is free, or until the body turns out to be slow.
    slot: Option<budget::Reservation>,
    slot_ends: Instant,
    body: BodyReservation,
    wait: WaitDeadline,
}

/// Why a body is not read any further for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Others wait for the memory that the body holds, and it is slow.
    Revoked,
    /// The time that the caller gave has passed.
    TimedOut,
}

impl Admission {
    /// Reserves memory for the first `bytes` of the body. Call it before they are read.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where there is none within the time that an upload may wait.
    pub async fn hold(&mut self, bytes: usize) -> Result<(), Error> {
        self.body.hold(bytes as u64, &mut self.wait).await
    }

    /// Notes when the body counts as slow unless more of it arrives. While others wait for memory,
    /// a slow body is ended.
    pub fn set_slow_after(&self, at: Instant) {
        self.body.set_slow_after(at);
    }

    /// Waits until `deadline` for more of the body. A slow body releases its admission slot; only
    /// the memory budget limits slow uploads.
    ///
    /// # Errors
    /// Why there is nothing more.
    pub async fn wait_for<T>(
        &mut self,
        more: impl Future<Output = T>,
        deadline: Instant,
    ) -> Result<T, Interruption> {
        let mut more = pin!(more);
        loop {
            let until = match self.slot {
                Some(_) => deadline.min(self.slot_ends),
                None => deadline,
            };
            tokio::select! {
                biased;
                more = &mut more => return Ok(more),
                () = self.body.revoked() => return Err(Interruption::Revoked),
                () = tokio::time::sleep_until(until) => {}
            }
            if until == deadline {
                return Err(Interruption::TimedOut);
            }
            self.slot = None;
        }
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
}

impl Service {
    /// Admits an upload of at most `bytes`. Call it before its body is read.
    ///
    /// # Errors
    /// [`Error::Overloaded`] where there is no place for it within the time that an upload may wait.
    pub async fn admit(&self, account: Account, bytes: usize) -> Result<Admission, Error> {
        let mut wait = self.budget.wait_deadline();
        let user_slot = self.budget.user_slot(&account, &mut wait).await?;
        let slot = self.budget.admission_slot(&account, &mut wait).await?;
        let body = self.budget.body(&account, bytes as u64, &mut wait).await?;
        Ok(Admission {
            account,
            user_slot,
            slot: Some(slot),
            slot_ends: Instant::now() + SLOT_TIME,
            body,
            wait,
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
        let avatar = AvatarId::random().map_err(|error| Error::Internal(Box::new(error)))?;
        // Abort before the sweep could treat this upload as abandoned.
        let limit = self.settings.upload_deadline.mul_f32(0.8);
        let mut is_reserved = false;
        let stored = tokio::select! {
            stored = self.store_all(&upload, avatar, &mut is_reserved, admission) => stored,
            () = given_up => Err(Error::GivenUp),
            () = tokio::time::sleep(limit) => Err(Error::TimedOut),
        };
        match stored {
            Ok(record) => self.commit(&upload, record).await,
            Err(error) => {
                if is_reserved {
                    self.give_up(&upload.subject, avatar).await;
                }
                Err(error)
            }
        }
    }

    /// Everything of an upload up to its commit: its objects and its manifest are in the store.
    async fn store_all(
        &self,
        upload: &Upload,
        avatar: AvatarId,
        is_reserved: &mut bool,
        admission: Admission,
    ) -> Result<Record, Error> {
        let Admission {
            account,
            user_slot: _user_slot,
            slot,
            body,
            mut wait,
            ..
        } = admission;
        let held = Arc::new(body.complete(upload.bytes.len() as u64, &mut wait).await?);
        self.expect(&upload.subject, &upload.precondition).await?;
        let recipe = &self.settings.recipe;
        let probe = imaging::probe_for(&upload.bytes, recipe, upload.crop)?;
        let worker = self.budget.worker(&account, &mut wait).await?;
        drop(slot);
        let memory = self
            .budget
            .decode(&account, probe.memory_bytes, &mut wait)
            .await?;
        self.metrics.waited(wait.waited());
        let mut work = self.start(upload, probe.format, (worker, memory, Arc::clone(&held)))?;

        let mut reservation = None;
        let mut master = None;
        let mut renditions = Vec::new();
        let mut writes = FuturesUnordered::new();
        loop {
            tokio::select! {
                output = work.outputs.recv() => {
                    let Some(output) = output else { break };
                    if reservation.is_none() {
                        // Before the call: if the caller gives up meanwhile, it may have happened.
                        *is_reserved = true;
                        let within = self.settings.upload_deadline;
                        let reserved = self.catalog.reserve(&upload.subject, avatar, within).await;
                        // Invalidating an upload that was never reserved would add entries to a
                        // full catalog.
                        *is_reserved = !reserved.as_ref().is_err_and(CatalogError::is_refusal);
                        reservation = Some(reserved?);
                    }
                    let (key, body) = match output {
                        Output::Rendition(rendition, body) => {
                            let key = ObjectKey::of_rendition(avatar, &rendition);
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
        let Some(reservation) = reservation else {
            return Err(Error::Internal("a picture gave no rendition".into()));
        };
        while let Some(written) = writes.next().await {
            written?;
        }
        drop(writes);
        let record = self.record(avatar, reservation, renditions, master, processed);
        self.write_manifest(&upload.subject, &record).await?;
        Ok(record)
    }

    /// Hands the picture to the pool. Its reservations are released when the worker has finished,
    /// even if the client has gone.
    fn start(
        &self,
        upload: &Upload,
        format: SourceFormat,
        reserved: (
            budget::Reservation,
            budget::Reservation,
            Arc<budget::Reservation>,
        ),
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

    async fn write(&self, key: ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.store.put(&key, body).await
    }

    fn record(
        &self,
        avatar_id: AvatarId,
        reservation: Reservation,
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
            version: reservation.version,
            reserved_at: reservation.reserved_at,
            uploaded_at: reservation.reserved_at,
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
        let body = manifest
            .to_json()
            .map_err(|error| Error::Internal(error.into()))?;
        let key = ObjectKey::Manifest {
            avatar: record.avatar_id,
        };
        Ok(self.store.put(&key, body.into()).await?)
    }

    async fn commit(&self, upload: &Upload, record: Record) -> Result<Record, Error> {
        let subject = &upload.subject;
        let retire_after = self.settings.retire_after;
        // After an error the outcome is unknown: the upload may be committed. It is left as it is.
        let replaced = self
            .catalog
            .replace(subject, &record, &upload.precondition, retire_after)
            .await?;
        let refusal = match replaced {
            Replaced::Committed => return Ok(record),
            Replaced::Superseded => Error::Superseded,
            Replaced::PreconditionFailed => Error::PreconditionFailed,
            // A sweep claimed it; but objects that were written after the sweep are still there.
            Replaced::NotPending => Error::TimedOut,
        };
        self.abandon(subject, record.avatar_id).await;
        Err(refusal)
    }

    /// Makes sure that a refused upload never becomes current, and removes its objects, the manifest
    /// first. If this fails, the sweep removes them.
    async fn abandon(&self, subject: &SubjectId, avatar: AvatarId) {
        let removed = async {
            match self.invalidate(subject, avatar).await? {
                Invalidated::Removable => self.remove_objects(avatar).await.map(drop),
                Invalidated::Kept => Ok(()),
            }
        };
        if let Err(error) = removed.await {
            let error = &error as &dyn std::error::Error;
            warn!(%avatar, error, "the sweep removes the objects of a refused upload");
        }
    }

    /// Makes sure that a failed upload never becomes current, and removes its manifest. The sweep
    /// removes the other objects. A client waits for this, so it takes a limited time.
    async fn give_up(&self, subject: &SubjectId, avatar: AvatarId) {
        const LIMIT: Duration = Duration::from_secs(2);

        let manifest = ObjectKey::Manifest { avatar };
        let removed = async {
            // The commit was never sent. So the manifest may go even if the catalog does not answer,
            // and must: a rebuild would restore the upload.
            let (invalidated, deleted) = tokio::join!(
                self.invalidate(subject, avatar),
                self.store.delete(&manifest)
            );
            invalidated?;
            Ok::<_, Error>(deleted?)
        };
        match tokio::time::timeout(LIMIT, removed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                warn!(%avatar, error, "the manifest of a failed upload is left to the sweep");
            }
            Err(_) => warn!(%avatar, "the manifest of a failed upload is left to the sweep"),
        }
    }

    async fn invalidate(
        &self,
        subject: &SubjectId,
        avatar: AvatarId,
    ) -> Result<Invalidated, Error> {
        let outstanding = Outstanding {
            subject: subject.clone(),
            avatar,
        };
        let lease = self.removal_lease();
        Ok(self.catalog.invalidate(&outstanding, lease).await?)
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
    use std::ops::RangeInclusive;
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::super::budget::Budget;
    use super::super::testing::Parts;
    use super::*;
    use crate::catalog::{Catalog, InitialState, RedisCatalog};
    use crate::config::{Partitions, RedisSettings};
    use crate::redis::testing::RedisServer;
    use crate::storage::{Checkup, DiskStore, Object, RangedObject, Store, StoredUpload};

    /// A store that loses the answer to the manifest, together with the catalog.
    struct LastWrite {
        store: Arc<DiskStore>,
        catalog: Mutex<RedisServer>,
    }

    #[async_trait]
    impl Store for LastWrite {
        async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
            self.store.put(key, body).await?;
            if matches!(key, ObjectKey::Manifest { .. }) {
                self.catalog.lock().unwrap().kill();
                return Err(StoreError::new("write an object", "its answer was lost"));
            }
            Ok(())
        }

        async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
            self.store.get(key).await
        }

        async fn get_range(
            &self,
            key: &ObjectKey,
            range: RangeInclusive<u64>,
        ) -> Result<Option<RangedObject>, StoreError> {
            self.store.get_range(key, range).await
        }

        async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
            self.store.delete(key).await
        }

        async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
            self.store.list(avatar).await
        }

        async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
            self.store.uploads(after).await
        }

        async fn check(&self) -> Result<Checkup, StoreError> {
            self.store.check().await
        }
    }

    #[tokio::test]
    async fn a_failed_upload_leaves_no_manifest_even_if_the_catalog_is_down() {
        const PICTURE: &[u8] = include_bytes!("../../tests/fixtures/baseline.jpg");

        let parts = Parts::new();
        let server = RedisServer::start();
        let settings = RedisSettings {
            address: server.url().parse().unwrap(),
            partitions: Partitions::new(16).unwrap(),
            events_kept: 100,
            wait: None,
            wait_timeout: Duration::from_secs(3),
        };
        let catalog = RedisCatalog::open(&settings).await.unwrap().0;
        catalog.initialize(InitialState::New).await.unwrap();
        let store = LastWrite {
            store: parts.store.clone(),
            catalog: Mutex::new(server),
        };
        let service = Parts::service_of(Arc::new(store), Arc::new(catalog));
        let subject = SubjectId::new("42").unwrap();
        let account = Account::User(subject.clone());
        let admission = service.admit(account, PICTURE.len()).await.unwrap();
        let upload = Upload {
            subject,
            bytes: Bytes::from_static(PICTURE),
            crop: None,
            precondition: Precondition::Anything,
        };
        let uploaded = service.upload(admission, upload, std::future::pending());
        let error = uploaded.await.unwrap_err();
        assert!(matches!(error, Error::Storage(_)), "{error:?}");
        let left = parts.store.uploads(None).await.unwrap();
        assert_eq!(left.len(), 1);
        assert!(!left[0].has_manifest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_releases_its_admission_slot_and_keeps_its_memory() {
        let budget = Budget::new(64 << 20, 1, Duration::from_secs(10));
        let account = Account::User(SubjectId::new("42").unwrap());
        let mut wait = budget.wait_deadline();
        let mut admission = Admission {
            user_slot: budget.user_slot(&account, &mut wait).await.unwrap(),
            slot: Some(budget.admission_slot(&account, &mut wait).await.unwrap()),
            slot_ends: Instant::now() + SLOT_TIME,
            body: budget.body(&account, 5 << 20, &mut wait).await.unwrap(),
            account,
            wait,
        };
        let deadline = Instant::now() + SLOT_TIME * 3;
        admission.hold(5 << 20).await.unwrap();
        let fast = admission.wait_for(async { 1 }, deadline).await;
        assert!(fast == Ok(1) && admission.slot.is_some());
        let slow = async {
            tokio::time::sleep(SLOT_TIME * 2).await;
            2
        };
        let slow = admission.wait_for(slow, deadline).await;
        assert!(slow == Ok(2) && admission.slot.is_none());
        assert_eq!(budget.load().uploads.reserved_bytes, 5 << 20);
        let never = admission.wait_for(std::future::pending::<()>(), deadline);
        assert_eq!(never.await, Err(Interruption::TimedOut));
    }
}
