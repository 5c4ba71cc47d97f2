//! Looks up the records of several subjects at once.

use tracing::error;

use super::{Error, Service};
use crate::access::Sight;
use crate::avatar::{Record, SubjectId};
use crate::catalog::CatalogError;
use crate::telemetry::chain;

impl Service {
    /// The current records of many subjects, in their order. A record is `None` if there is none, if the
    /// caller may not see it, or if it cannot be decoded. All subjects of which the caller may be a
    /// viewer cause the same calls of the catalog.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub(crate) async fn current_many(
        &self,
        wanted: &[(SubjectId, Sight)],
    ) -> Result<Vec<Option<Record>>, Error> {
        let subjects: Vec<_> = wanted.iter().map(|(subject, _)| subject.clone()).collect();
        let sights = wanted.iter().map(|(_, sight)| sight);
        if sights.clone().all(|sight| *sight == Sight::Granted) {
            let records = self.catalog.get_many(&subjects).await?;
            return Ok(records.into_iter().map(readable).collect());
        }
        // Every subject has the same reader.
        let viewer = sights.clone().find_map(|sight| match sight {
            Sight::Granted => None,
            Sight::AsViewer(viewer) => viewer.as_ref(),
        });
        let found = self.catalog.look_up(&subjects, viewer).await?;
        let seen = found.into_iter().zip(sights).map(|(found, sight)| {
            let is_granted = *sight == Sight::Granted;
            let found = readable(found.map(Some))?;
            found.record.filter(|_| is_granted || found.is_viewer)
        });
        Ok(seen.collect())
    }
}

/// A value that can be decoded. Logs another one: it must not hide the values of other subjects.
fn readable<T>(read: Result<Option<T>, CatalogError>) -> Option<T> {
    read.unwrap_or_else(|error| {
        error!(error = %chain(&error), "an avatar is left out of a lookup");
        None
    })
}
