//! Draws default images with pixels: on threads that serve no requests, a few at a time, with a cache of
//! their own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use tracing::error;

use super::Service;
use super::read::Loads;
use crate::avatar::{Format, SubjectId};
use crate::defaults::{self, Form, Kind, RasterEdge};
use crate::telemetry::chain;

/// The memory of the drawings in bytes, a part of the memory of the caches: one of so many.
pub(super) const PART_OF_CACHE: u64 = 16;
/// The size of a typical drawing in bytes.
const TYPICAL_BYTES: u64 = 2 << 10;
/// The memory of an entry beside the drawing, in bytes.
const ENTRY_BYTES: u64 = 200;
/// How long a drawing waits for its turn.
const MAX_WAIT: Duration = Duration::from_millis(200);
/// The number of drawings that wait or are drawn at once. Each needs up to 10 MiB while it is drawn,
/// and at most one per core is.
const MAX_PENDING: usize = 64;

#[derive(Clone)]
struct ByMemory;

impl Weighter<String, Bytes> for ByMemory {
    fn weight(&self, tag: &String, drawing: &Bytes) -> u64 {
        ENTRY_BYTES + (tag.len() + drawing.len()) as u64
    }
}

/// The drawings in memory, and those that are being drawn.
pub(super) struct Drawings {
    /// Drawings by their tags.
    entries: Cache<String, Bytes, ByMemory>,
    loads: Loads<String, Option<Bytes>>,
    turns: Arc<Semaphore>,
    pending: Arc<Semaphore>,
}

impl Drawings {
    /// At most `count` pictures are drawn at once. The drawings in memory have at most `max_bytes`.
    pub(super) fn new(max_bytes: u64, count: usize) -> Self {
        let typical = usize::try_from(max_bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        Self {
            entries: Cache::with_weighter(typical.max(16), max_bytes, ByMemory),
            loads: Loads::default(),
            turns: Arc::new(Semaphore::new(count)),
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
        }
    }
}

impl Service {
    /// A default image with pixels; `None` if too many others are being drawn.
    pub(crate) async fn draw_default(
        &self,
        kind: Kind,
        subject: &SubjectId,
        name: Option<&str>,
        edge: RasterEdge,
        format: Format,
    ) -> Option<Bytes> {
        let drawings = &self.drawings;
        let tag = defaults::tag(kind, subject, name, Form::Raster(edge, format));
        if let Some(drawing) = drawings.entries.get(&tag) {
            return Some(drawing);
        }
        // A drawing never changes.
        let drawn = drawings.loads.join(&tag, 0, || {
            let (subject, name) = (subject.clone(), name.map(str::to_owned));
            let (turns, pending) = (Arc::clone(&drawings.turns), Arc::clone(&drawings.pending));
            async move {
                let _place = pending.try_acquire_owned().ok()?;
                let turn = tokio::time::timeout(MAX_WAIT, turns.acquire_owned()).await;
                let turn = turn.ok()?.ok()?;
                let draw = move || {
                    // The turn ends when the drawing is done, even if nobody waits for it any more.
                    let _turn = turn;
                    defaults::raster(kind, &subject, name.as_deref(), edge, format)
                };
                match tokio::task::spawn_blocking(draw).await {
                    Ok(Ok(drawing)) => Some(drawing),
                    Ok(Err(error)) => {
                        error!(error = %chain(&error), "a default image could not be drawn");
                        None
                    }
                    Err(panic) => {
                        error!(error = %chain(&panic), "a default image could not be drawn");
                        None
                    }
                }
            }
        });
        let drawing = drawn.result().await.ok().flatten()?;
        drawings.entries.insert(tag, drawing.clone());
        Some(drawing)
    }
}
