//! The port's fourth part: the events of all changes.

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::{CatalogError, Cursor};
use crate::avatar::Event;

/// The latest events, in partitions.
///
/// A step that changes a record appends one [`Event`] in the same step, so an event exists if and
/// only if its change happened. Steps that change no record append no event. Only the latest events
/// are kept. See [`Catalog`](super::Catalog) for what holds for every operation.
#[async_trait]
pub trait Events: Send + Sync + 'static {
    /// The number of event partitions, which are numbered from 0. All events of a subject are in
    /// the same partition.
    fn event_partitions(&self) -> u16;

    /// The position of the latest event of a partition; [`Cursor::START`] if there is none.
    async fn latest_event(&self, partition: u16) -> Result<Cursor, CatalogError>;

    /// Up to `limit` events of a partition after the position `after`, oldest first, each with its
    /// own position. [`Cursor::START`] gives the oldest events that are kept. The events of a subject
    /// are in the order of their versions. Events of an unknown layout are skipped.
    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError>;

    /// Like [`events`](Self::events), for every partition: the events after its position in `after`,
    /// in the order of the partitions.
    async fn events_of_all(
        &self,
        after: &[Cursor],
        limit: usize,
    ) -> Result<Vec<Vec<(Cursor, Event)>>, CatalogError> {
        let partitions = (0..).zip(after);
        try_join_all(partitions.map(|(partition, after)| self.events(partition, after, limit)))
            .await
    }
}
