//! The store in an S3 bucket.
//!
//! Bodies are sent from bytes with a known length, and with checksums only if S3 requires them,
//! because Garage, Ceph and MinIO refuse the SDK's default. Objects are deleted one by one, because
//! some servers refuse batch deletes. This adapter does not retry; a decorator of the port adds
//! deadlines and retries. A bucket that disappears is created again, as at startup.

mod client;
mod error;
mod policy;
mod recovery;
mod start_error;
mod startup;
#[cfg(test)]
pub(crate) mod testing;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::stream;

use super::{
    Checkup, Object, PublicRead, RangedObject, Store, StoreError, StoredUpload, Uploads, covered,
};
use crate::avatar::{
    AvatarId, ObjectKey, POLICY_ROOT, PRIVATE_ROOT, PUBLIC_ROOT, SubjectHash, Timestamp,
};
use crate::config::S3Settings;
#[cfg(test)]
use crate::config::{PublicAccess, S3Credentials};
use crate::telemetry::Health;
use error::{Failure, sdk_error};
use recovery::Recovery;
pub(crate) use start_error::{S3StartError, S3StartupWarning};
use startup::Probe;

/// The largest number of objects in a page of a listing. Some servers return larger pages by default,
/// and a page is held in memory.
const PAGE: i32 = 1000;

/// The store in an S3 bucket.
pub(crate) struct S3Store {
    client: Client,
    /// A client without credentials; `None` if `public/` need not be publicly readable.
    anonymous: Option<Client>,
    bucket: String,
    /// The time of the last search for abandoned probes.
    last_cleanup: Mutex<Option<Instant>>,
    recovery: Recovery,
}

/// The interval between searches for probes that dead processes left.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);
/// The age at which a probe counts as abandoned. A check takes seconds.
const ABANDONED_AFTER: Duration = Duration::from_secs(20);

impl S3Store {
    /// Prepares the bucket and tests it: the service can write, read, list and delete; anyone can
    /// read `public/` if the settings say so; `private/` needs credentials. Returns the warnings for the log.
    ///
    /// # Errors
    /// If the bucket cannot be used; each case says what to change.
    pub(crate) async fn open(
        settings: &S3Settings,
    ) -> Result<(Self, Vec<S3StartupWarning>), S3StartError> {
        startup::open(settings, Arc::default()).await
    }

    async fn put_bytes(
        &self,
        path: &str,
        body: Bytes,
        content_type: &str,
        cache_control: &str,
    ) -> Result<(), Failure> {
        self.client
            .put_object()
            .bucket(&self.bucket)
            .key(path)
            .content_type(content_type)
            .cache_control(cache_control)
            .body(ByteStream::from(body))
            .send()
            .await
            .map_err(sdk_error("PutObject"))?;
        Ok(())
    }

    /// The error of the port for `operation`. If the bucket is gone, this starts to create it again,
    /// and the error is transient.
    fn failed(&self, operation: &'static str, failure: Failure) -> StoreError {
        if failure.code() == "NoSuchBucket" {
            self.recovery.begin();
            return StoreError::transient(operation, failure);
        }
        failure.into_error(operation)
    }

    /// Opens an object; `None` if it does not exist.
    async fn open_path(&self, path: &str) -> Result<Option<GetObjectOutput>, Failure> {
        let get = self.client.get_object().bucket(&self.bucket).key(path);
        match get.send().await.map_err(sdk_error("GetObject")) {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.is_missing_object() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Opens a part of an object; `None` if the object does not exist.
    async fn open_range(
        &self,
        path: &str,
        range: &RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, Failure> {
        // Servers parse offsets as signed numbers. No object is large enough for this to matter.
        let first = (*range.start()).min(i64::MAX.unsigned_abs());
        let header = match *range.end() {
            last if last > i64::MAX.unsigned_abs() => format!("bytes={first}-"),
            last => format!("bytes={first}-{last}"),
        };
        let get = self.client.get_object().bucket(&self.bucket).key(path);
        let object = match get
            .range(header)
            .send()
            .await
            .map_err(sdk_error("GetObject"))
        {
            Ok(object) => object,
            Err(failure) if failure.is_missing_object() => return Ok(None),
            Err(failure) if failure.status() == 416 => {
                // The answer does not have the size of the object.
                let whole = self.open_path(path).await?;
                let total = whole.map(|object| length_of(&object)).transpose()?;
                return Ok(total.map(|total| RangedObject::Unsatisfiable { total }));
            }
            Err(failure) => return Err(failure),
        };
        let described = object.content_range.as_deref().and_then(content_range);
        let Some((answered, total)) = described else {
            return Err(Failure::InvalidAnswer(
                "a part without a valid content-range",
            ));
        };
        if covered(range, total).as_ref() != Some(&answered) {
            return Err(Failure::InvalidAnswer("another range than requested"));
        }
        let len = answered.end() - answered.start() + 1;
        Ok(Some(RangedObject::Part {
            first,
            total,
            part: streamed(object.body, len),
        }))
    }

    async fn delete_path(&self, path: &str) -> Result<(), Failure> {
        let delete = self.client.delete_object().bucket(&self.bucket).key(path);
        match delete.send().await.map_err(sdk_error("DeleteObject")) {
            Err(failure) if !failure.is_missing_object() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Writes a probe and reads it, with and without credentials.
    async fn run_probe(&self, probe: &Probe) -> Result<PublicRead, Failure> {
        self.write_probe(probe).await?;
        let object = self.open_path(&probe.path).await?;
        let object = object.ok_or(Failure::InvalidAnswer(
            "an object that was just written does not exist",
        ))?;
        let body = object.body.collect().await;
        let body = body.map_err(|error| Failure::NoAnswer(error.into()))?;
        if body.into_bytes() != Probe::BODY {
            return Err(Failure::InvalidAnswer(
                "the object read differs from the object written",
            ));
        }
        let Some(anonymous) = &self.anonymous else {
            return Ok(PublicRead::Proxy);
        };
        let get = anonymous.get_object().bucket(&self.bucket).key(&probe.path);
        match get.send().await.map_err(sdk_error("GetObject")) {
            Ok(_) => Ok(PublicRead::Anyone),
            Err(failure) if failure.is_transient() => Err(failure),
            Err(_) => Ok(PublicRead::Refused),
        }
    }

    async fn write_probe(&self, probe: &Probe) -> Result<(), Failure> {
        let body = Bytes::from_static(Probe::BODY);
        self.put_bytes(&probe.path, body, "text/plain", "no-store")
            .await
    }

    /// Whether a search for abandoned probes is due. If it is, its time counts as now.
    fn cleanup_is_due(&self) -> bool {
        let mut last_cleanup = self
            .last_cleanup
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let untidy = last_cleanup.is_none_or(|last| last.elapsed() >= CLEANUP_INTERVAL);
        if untidy {
            *last_cleanup = Some(Instant::now());
        }
        untidy
    }

    /// Removes the probes of processes that were killed during a check. The store's own clock decides
    /// their age; the time of the probe `own`, which was just written, shows that clock.
    async fn remove_abandoned_probes(&self, own: &Probe, age: Duration) -> Result<(), Failure> {
        let mut probes = Vec::new();
        for folder in Probe::FOLDERS {
            let list = self.client.list_objects_v2().bucket(&self.bucket);
            let page = list.prefix(folder).send().await;
            let page = page.map_err(sdk_error("ListObjectsV2"))?;
            let listed = page.contents.unwrap_or_default().into_iter();
            probes.extend(listed.filter_map(|probe| Some((probe.key?, probe.last_modified?))));
        }
        let now = probes.iter().find(|(path, _)| *path == own.path);
        let Some((_, now)) = now.cloned() else {
            return Ok(());
        };
        for (path, written) in probes {
            if now.secs() - written.secs() > age.as_secs().cast_signed() {
                self.delete_path(&path).await?;
            }
        }
        Ok(())
    }

    /// The paths of all objects under `prefix`.
    async fn list_prefix(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        let mut paths = Vec::new();
        let mut next = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(prefix)
                .set_continuation_token(next)
                .send()
                .await
                .map_err(sdk_error("ListObjectsV2"))?;
            paths.extend(
                page.contents
                    .unwrap_or_default()
                    .into_iter()
                    .filter_map(|object| object.key),
            );
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(paths);
            }
        }
    }
}

impl S3Store {
    /// The next page of uploads. Both folders are listed from the same id on, and only uploads that
    /// both pages cover completely are returned.
    async fn list_uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, Failure> {
        // A tilde sorts after every character of an object's name.
        let mut after = after.map(|avatar| format!("{avatar}/~"));
        loop {
            let (uploads, end) = self.list_some_uploads(after.as_deref()).await?;
            let uploads = uploads.in_order();
            let Some(end) = end.filter(|_| uploads.is_empty()) else {
                return Ok(uploads);
            };
            // The page held only foreign objects; resume after this prefix. If the prefix is still
            // the same, one foreign folder fills the page. A zero sorts after the slash, so this
            // skips the folder.
            let stuck = after.as_ref().is_some_and(|after| end <= *after);
            after = Some(if stuck { format!("{end}0") } else { end });
        }
    }

    /// The next page of subjects whose policy is stored. A page that holds only foreign objects is
    /// skipped.
    async fn list_policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, Failure> {
        let mut after = after.map(|hash| format!("{POLICY_ROOT}/{hash}"));
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{POLICY_ROOT}/"))
                .set_start_after(after.take())
                .max_keys(PAGE)
                .send()
                .await
                .map_err(sdk_error("ListObjectsV2"))?;
            let listed = page.contents.unwrap_or_default().into_iter();
            let paths: Vec<_> = listed.filter_map(|object| object.key).collect();
            let hashes = paths
                .iter()
                .filter_map(|path| match ObjectKey::parse(path) {
                    Some(ObjectKey::Policy { owner }) => Some(owner),
                    _ => None,
                });
            let hashes: Vec<_> = hashes.collect();
            if !hashes.is_empty() || page.is_truncated != Some(true) {
                return Ok(hashes);
            }
            after = paths.into_iter().next_back();
        }
    }

    /// The uploads that the next pages of both folders cover completely, and the first id that they
    /// may not cover; `None` if the pages are the last.
    async fn list_some_uploads(
        &self,
        after: Option<&str>,
    ) -> Result<(Uploads, Option<String>), Failure> {
        let mut objects = Vec::new();
        let mut end: Option<String> = None;
        for root in [PRIVATE_ROOT, PUBLIC_ROOT] {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(format!("{root}/"))
                .set_start_after(after.map(|after| format!("{root}/{after}")))
                .max_keys(PAGE)
                .send()
                .await
                .map_err(sdk_error("ListObjectsV2"))?;
            let listed = page.contents.unwrap_or_default();
            if page.is_truncated == Some(true)
                && let Some(last) = listed.last().and_then(|object| object.key.as_deref())
            {
                let id = last.split('/').nth(2).unwrap_or_default().to_owned();
                end = Some(end.map_or(id.clone(), |end| end.min(id)));
            }
            objects.extend(listed);
        }
        let mut uploads = Uploads::default();
        for object in objects {
            let path = object.key.unwrap_or_default();
            let written = object.last_modified.and_then(|time| time.to_millis().ok());
            let written = Timestamp::from_unix_ms(written.unwrap_or_default().unsigned_abs());
            let bytes = object.size.unwrap_or_default().unsigned_abs();
            uploads.add(&path, written, bytes);
        }
        if let Some(end) = &end {
            uploads.0.retain(|id, _| id < end);
        }
        Ok((uploads, end))
    }
}

fn length_of(object: &GetObjectOutput) -> Result<u64, Failure> {
    let len = object
        .content_length
        .and_then(|len| u64::try_from(len).ok());
    len.ok_or(Failure::InvalidAnswer("an object without a length"))
}

/// The offsets and the whole size in a `Content-Range`, such as `bytes 5-9/100`.
fn content_range(text: &str) -> Option<(RangeInclusive<u64>, u64)> {
    let (offsets, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = offsets.split_once('-')?;
    Some((
        first.parse().ok()?..=last.parse().ok()?,
        total.parse().ok()?,
    ))
}

/// An object with a body of `len` bytes. Reading fails if the body ends earlier.
fn streamed(body: ByteStream, len: u64) -> Object {
    let body = stream::try_unfold((body, len), |(mut body, left)| async move {
        let failed = |failure: Failure| failure.into_error("read an object");
        match body.next().await {
            Some(Ok(chunk)) => {
                let left = left.saturating_sub(chunk.len() as u64);
                Ok(Some((chunk, (body, left))))
            }
            Some(Err(error)) => Err(failed(Failure::NoAnswer(error.into()))),
            None if left > 0 => Err(failed(Failure::InvalidAnswer("an object that ends early"))),
            None => Ok(None),
        }
    });
    Object {
        len,
        body: Box::pin(body),
    }
}

#[async_trait]
impl Store for S3Store {
    async fn put(&self, key: &ObjectKey, body: Bytes) -> Result<(), StoreError> {
        self.put_bytes(
            &key.to_string(),
            body,
            key.content_type(),
            key.cache_control(),
        )
        .await
        .map_err(|failure| self.failed("write an object", failure))
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let opened = self.open_path(&key.to_string()).await;
        let Some(object) = opened.map_err(|failure| self.failed("open an object", failure))? else {
            return Ok(None);
        };
        let len = length_of(&object).map_err(|failure| failure.into_error("open an object"))?;
        Ok(Some(streamed(object.body, len)))
    }

    async fn get_range(
        &self,
        key: &ObjectKey,
        range: RangeInclusive<u64>,
    ) -> Result<Option<RangedObject>, StoreError> {
        let opened = self.open_range(&key.to_string(), &range).await;
        opened.map_err(|failure| failure.into_error("open a part of an object"))
    }

    async fn presign(&self, key: &ObjectKey, ttl: Duration) -> Result<Option<String>, StoreError> {
        const OPERATION: &str = "sign a URL";
        let config =
            PresigningConfig::expires_in(ttl).map_err(|error| StoreError::new(OPERATION, error))?;
        let get = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key.to_string());
        let presigned = get.presigned(config).await;
        let presigned =
            presigned.map_err(|error| sdk_error("GetObject")(error).into_error(OPERATION))?;
        Ok(Some(presigned.uri().to_owned()))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        let deleted = self.delete_path(&key.to_string()).await;
        deleted.map_err(|failure| self.failed("delete an object", failure))
    }

    async fn list(&self, avatar: AvatarId) -> Result<Vec<ObjectKey>, StoreError> {
        let mut keys = Vec::new();
        for prefix in ObjectKey::prefixes_of(avatar) {
            let listed = self.list_prefix(&prefix).await;
            let paths =
                listed.map_err(|failure| self.failed("list the objects of an avatar", failure))?;
            keys.extend(paths.iter().filter_map(|path| ObjectKey::parse(path)));
        }
        keys.sort_by_key(|key| !matches!(key, ObjectKey::Manifest { .. }));
        Ok(keys)
    }

    async fn uploads(&self, after: Option<AvatarId>) -> Result<Vec<StoredUpload>, StoreError> {
        let listed = self.list_uploads(after).await;
        listed.map_err(|failure| self.failed("list uploads", failure))
    }

    async fn policies(&self, after: Option<SubjectHash>) -> Result<Vec<SubjectHash>, StoreError> {
        let listed = self.list_policies(after).await;
        listed.map_err(|failure| self.failed("list policies", failure))
    }

    async fn check(&self) -> Result<Checkup, StoreError> {
        // The recovery task uses the same probes.
        if self.recovery.is_under_way() {
            return Err(self.failed("write, read and delete a probe", Failure::Recovering));
        }
        let probe = match self.anonymous {
            Some(_) => Probe::public(),
            None => Probe::private(),
        };
        let seen = match self.run_probe(&probe).await {
            Ok(seen) if self.cleanup_is_due() => self
                .remove_abandoned_probes(&probe, ABANDONED_AFTER)
                .await
                .map(|()| seen),
            seen => seen,
        };
        // The probe is deleted in any case. The first error is returned.
        let deleted = self.delete_path(&probe.path).await;
        match seen.and_then(|public_read| deleted.map(|()| public_read)) {
            Ok(public_read) => Ok(Checkup {
                public_read,
                health: Health::Healthy,
            }),
            Err(failure) => Err(self.failed("write, read and delete a probe", failure)),
        }
    }

    fn losses(&self) -> u64 {
        self.recovery.losses()
    }
}

#[cfg(test)]
mod tests;
