//! Events in the embedded database.

use std::ops::Bound;

use async_trait::async_trait;
use redb::{ReadableDatabase, ReadableTable};

use super::EmbeddedCatalog;
use super::tables::EVENTS;
use crate::avatar::{Event, SubjectId};
use crate::catalog::codec;
use crate::catalog::{CatalogError, Cursor, Events};

#[async_trait]
impl Events for EmbeddedCatalog {
    fn event_partitions(&self) -> u16 {
        1
    }

    async fn latest_event(&self, partition: u16) -> Result<Cursor, CatalogError> {
        if partition >= self.event_partitions() {
            return Ok(Cursor::START);
        }
        self.read("find the latest event", |database| {
            let events = database.begin_read()?.open_table(EVENTS)?;
            let latest = events.last()?.map(|(number, _)| number.value());
            Ok(latest.map_or(Cursor::START, |number| Cursor(number.to_string())))
        })
        .await
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        if partition >= self.event_partitions() {
            return Ok(Vec::new());
        }
        let after = after.clone();
        self.read("read events", move |database| {
            // Events are numbered from 1.
            let after: u64 = if after == Cursor::START {
                0
            } else {
                after.0.parse()?
            };
            let events = database.begin_read()?.open_table(EVENTS)?;
            let range = events.range((Bound::Excluded(after), Bound::Unbounded))?;
            let mut found = Vec::new();
            for entry in range {
                let (number, entry) = entry?;
                let (subject, bytes): (&str, &[u8]) = entry.value();
                if let Ok(event) = codec::decode_event(SubjectId::new(subject)?, bytes) {
                    found.push((Cursor(number.value().to_string()), event));
                }
                if found.len() == limit {
                    break;
                }
            }
            Ok(found)
        })
        .await
    }
}
