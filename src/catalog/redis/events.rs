//! Events in Redis.

use std::collections::HashMap;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::RedisCatalog;
use super::values::{Failure, StreamEntry, event};
use crate::avatar::Event;
use crate::catalog::{CatalogError, Cursor, Events};
use crate::redis::Partition;

#[async_trait]
impl Events for RedisCatalog {
    fn event_partitions(&self) -> u16 {
        self.partitions.count()
    }

    async fn latest_event(&self, partition: u16) -> Result<Cursor, CatalogError> {
        let read = async {
            let mut read = redis::cmd("XREVRANGE");
            read.arg(Partition(partition).key("events"));
            read.arg("+").arg("-").arg("COUNT").arg(1);
            let latest: Vec<StreamEntry> = self.link.run(&read).await?;
            let latest = latest.into_iter().next();
            Ok(latest.map_or(Cursor::START, |(place, _)| Cursor(place)))
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("find the latest event"))
    }

    async fn events(
        &self,
        partition: u16,
        after: &Cursor,
        limit: usize,
    ) -> Result<Vec<(Cursor, Event)>, CatalogError> {
        let read = async {
            let mut place = if *after == Cursor::START {
                "0".to_owned()
            } else {
                after.0.clone()
            };
            loop {
                let mut read = redis::cmd("XREAD");
                read.arg("COUNT").arg(limit).arg("STREAMS");
                read.arg(Partition(partition).key("events")).arg(&place);
                let streams: Option<Vec<(String, Vec<StreamEntry>)>> = self.link.run(&read).await?;
                let entries: Vec<StreamEntry> = streams
                    .into_iter()
                    .flatten()
                    .flat_map(|(_, entries)| entries)
                    .collect();
                let Some((last, _)) = entries.last() else {
                    return Ok(Vec::new());
                };
                place.clone_from(last);
                let events: Vec<_> = entries
                    .into_iter()
                    .filter_map(|(place, fields)| Some((Cursor(place), event(&fields).ok()?)))
                    .collect();
                // An empty result means that there are no more events. So if no event of this page
                // can be decoded, this reads the next page.
                if !events.is_empty() {
                    return Ok(events);
                }
            }
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("read events"))
    }

    async fn events_of_all(
        &self,
        after: &[Cursor],
        limit: usize,
    ) -> Result<Vec<Vec<(Cursor, Event)>>, CatalogError> {
        let partitions = (0..).zip(after);
        if self.link.is_cluster() {
            // The streams lie on several servers.
            let each = partitions.map(|(partition, after)| self.events(partition, after, limit));
            return try_join_all(each).await;
        }
        let read = async {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(limit).arg("STREAMS");
            let keys = partitions.map(|(partition, _)| Partition(partition).key("events"));
            let keys: Vec<String> = keys.collect();
            read.arg(&keys);
            for after in after {
                read.arg(if *after == Cursor::START {
                    "0"
                } else {
                    &after.0
                });
            }
            let streams: Option<Vec<(String, Vec<StreamEntry>)>> = self.link.run(&read).await?;
            let mut streams: HashMap<_, _> = streams.into_iter().flatten().collect();
            Ok(keys
                .iter()
                .map(|key| {
                    let entries = streams.remove(key).unwrap_or_default().into_iter();
                    entries
                        .filter_map(|(place, fields)| Some((Cursor(place), event(&fields).ok()?)))
                        .collect()
                })
                .collect())
        };
        read.await
            .map_err(|failure: Failure| failure.into_error("read events"))
    }
}
