//! The contract suite: the cases that every adapter of the catalog port must pass.
//!
//! The cases are grouped like the port: [`records`] and [`restores`], [`removals`], [`policies`] and
//! [`events`].
//! `contract_tests!` makes one test of each case for an adapter. Every case gets an empty catalog.

pub(crate) mod events;
pub(crate) mod policies;
pub(crate) mod records;
pub(crate) mod removals;
pub(crate) mod restores;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::{
    Catalog, Claimed, Clock, EmbeddedCatalog, InitialState, Outstanding, Precondition, Replaced,
    Reservation, SubjectLocked, Uploader,
};
use crate::avatar::{
    Audience, AvatarId, Format, Original, OriginalAccess, Placeholder, Record, Rendition, Source,
    SourceFormat, SourceSquare, SubjectId, Timestamp, VariantName, Version,
};
use crate::telemetry::Health;

pub(crate) use events::all as events;

/// The time at which a [`ManualClock`] starts.
pub(crate) const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

/// The number of events that the catalog under test keeps: six in each of sixteen partitions.
pub(crate) const EVENTS_KEPT: u32 = 96;

/// A clock that changes only when a test sets it.
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(NOW.unix_ms()))
    }

    pub(crate) fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        self.0.fetch_sub(by, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_ms(self.0.load(Ordering::Relaxed))
    }
}

/// An embedded catalog in this folder, and its clock.
pub(crate) fn embedded(folder: &Path) -> (EmbeddedCatalog, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new());
    let path = folder.join("catalog.redb");
    let catalog = EmbeddedCatalog::open_with_clock(&path, EVENTS_KEPT, clock.clone());
    (catalog.unwrap(), clock)
}

/// Sets the clock of a catalog under test forward.
#[async_trait]
pub(crate) trait AdvanceClock: Sync {
    async fn advance(&self, seconds: u64);
}

#[async_trait]
impl AdvanceClock for ManualClock {
    async fn advance(&self, seconds: u64) {
        ManualClock::advance(self, Duration::from_secs(seconds));
    }
}

/// An empty catalog that keeps [`EVENTS_KEPT`] events, with its clock, folder or server.
pub(crate) trait Fixture {
    fn bench(&self) -> Bench<'_>;
}

/// The catalog under test, and its clock.
#[derive(Clone, Copy)]
pub(crate) struct Bench<'a> {
    pub(crate) catalog: &'a (dyn Catalog + 'static),
    pub(crate) clock: &'a dyn AdvanceClock,
}

impl Bench<'_> {
    /// Initialises the catalog for versions from 1.
    pub(crate) async fn initialized(self) -> Self {
        self.initialize(InitialState::New).await.unwrap();
        self
    }
}

impl std::ops::Deref for Bench<'_> {
    type Target = dyn Catalog;

    fn deref(&self) -> &Self::Target {
        self.catalog
    }
}

/// Makes one test of each case for an adapter, so that a failure names the case. `$fixture` is a
/// function that returns a future of a new [`Fixture`].
macro_rules! contract_tests {
    ($fixture:path) => {
        $crate::catalog::contract::contract_tests! { $fixture,
            records: [
                an_upload_becomes_current_only_when_it_is_committed,
                versions_count_up_and_survive_a_delete,
                a_reservation_can_be_repeated,
                a_later_reservation_has_a_later_time,
                the_later_reservation_wins,
                the_earlier_reservation_can_commit_first,
                concurrent_commits_leave_the_last_reservation_current,
                an_id_that_was_never_reserved_cannot_be_committed,
                an_id_of_another_subject_cannot_be_committed,
                a_claimed_upload_cannot_be_committed,
                preconditions_are_checked_by_the_commit,
                a_repeated_commit_gets_the_answer_of_the_first,
                stats_are_the_totals_of_the_current_records,
                stats_count_pending_and_retired_uploads,
                an_original_is_kept_with_its_record_and_counted,
                many_records_are_returned_in_the_order_of_the_request,
                a_lookup_says_of_which_subjects_the_reader_is_a_viewer,
                pages_return_every_record,
                every_new_version_is_above_the_floor,
            ]
            restores: [
                a_restored_upload_keeps_its_version,
                the_newest_of_several_restored_uploads_is_current_in_any_order,
                a_restore_of_a_known_upload_changes_nothing,
                a_deleted_upload_is_not_restored,
                an_expired_upload_is_restored_and_an_invalidated_one_is_not,
                the_later_reservation_wins_even_with_a_lower_version,
                an_upload_after_a_loss_wins_even_if_the_clock_is_behind,
                an_upload_without_the_mark_of_its_commit_counts_as_not_committed,
                a_refused_upload_is_never_restored,
            ]
            removals: [
                a_replaced_avatar_is_due_after_its_delay_and_not_before,
                a_removal_checks_its_precondition,
                a_delete_returns_every_id_of_the_subject_and_invalidates_uploads_under_way,
                a_delete_without_a_record_invalidates_uploads_under_way,
                the_next_delete_finishes_an_unfinished_delete,
                a_delete_covers_the_versions_up_to_the_last_reservation,
                a_record_is_dropped_only_if_it_is_current,
                a_claimed_id_is_due_again_after_its_lease,
                an_expired_upload_can_be_deferred_and_then_invalidated,
                an_upload_under_way_can_be_invalidated_and_a_current_one_cannot,
                forgetting_an_unknown_id_is_not_an_error,
                outstanding_ids_are_listed,
                the_state_of_an_upload_is_known_until_it_is_forgotten,
            ]
            policies: [
                a_policy_is_stored_after_the_one_that_its_writer_read,
                many_viewers_are_kept,
                the_later_of_two_restored_policies_wins,
                a_lock_ends_by_the_catalogs_clock,
                a_lock_refuses_every_commit_but_an_admins,
                a_lock_refuses_every_reservation_but_an_admins,
                an_upload_that_a_lock_refused_is_never_restored,
                a_policy_survives_uploads_deletes_sweeps_and_drops,
            ]
            events: [
                a_change_appends_one_event,
                a_step_without_a_change_appends_no_event,
                a_restore_and_a_drop_append_events_and_a_sweep_does_not,
                pages_of_events_have_no_gap_and_no_repetition,
                only_the_latest_events_are_kept,
            ]
        }

        #[tokio::test]
        async fn a_catalog_is_initialized_once() {
            use $crate::catalog::contract::{self, Fixture};

            let fixture = $fixture().await;
            contract::a_catalog_is_initialized_once(fixture.bench()).await;
        }
    };
    ($fixture:path, $($part:ident: [$($case:ident,)*])*) => {
        $(mod $part {
            use $crate::catalog::contract::{$part, Fixture};

            $(#[tokio::test]
            async fn $case() {
                let fixture = $fixture().await;
                $part::$case(fixture.bench().initialized().await).await;
            })*
        })*
    };
}
pub(crate) use contract_tests;

pub(crate) async fn a_catalog_is_initialized_once(catalog: Bench<'_>) {
    assert!(!catalog.is_initialized().await.unwrap());
    catalog.initialize(InitialState::New).await.unwrap();
    assert!(catalog.is_initialized().await.unwrap());
    catalog.initialize(InitialState::Lost).await.unwrap();
    let first = uploaded(catalog, &subject("the-first")).await;
    assert_eq!(first.version, Version(1));
    assert_eq!(catalog.check().await.unwrap(), Health::Healthy);
}

/// A realistic record with ten renditions, whose sizes depend on `seed`.
pub(crate) fn record(seed: u8, version: u64) -> Record {
    let sizes = [
        ("full", 1024),
        ("large", 512),
        ("medium", 256),
        ("small", 128),
        ("thumbnail", 64),
    ];
    let of = |format| {
        sizes.map(|(name, edge)| Rendition {
            variant: VariantName::new(name).unwrap(),
            format,
            width: edge,
            height: edge,
            bytes: u64::from(edge) * 80 + u64::from(seed),
            animated: false,
        })
    };
    Record {
        avatar_id: AvatarId::from_bytes([seed; 16]),
        version: Version(version),
        reserved_at: NOW.plus(Duration::from_secs(version)),
        uploaded_at: NOW,
        source: Source {
            format: SourceFormat::Jpeg,
            bytes: 3_273_581,
            width: 3022,
            height: 4032,
            animated: false,
        },
        renditions: [of(Format::Webp), of(Format::Jpeg)].concat(),
        audience: Audience::Public,
        original: None,
        master: None,
        placeholder: Placeholder {
            thumbhash: vec![seed; 25],
            color: [1, 2, seed],
        },
    }
}

/// The same record with an original.
pub(crate) fn with_original(access: OriginalAccess) -> Record {
    Record {
        original: Some(Original {
            format: Format::Jpeg,
            width: 1535,
            height: 2048,
            bytes: 700_123,
            access,
            square: SourceSquare {
                x: 0,
                y: 505,
                edge: 3022,
            },
        }),
        ..record(1, 7)
    }
}

fn subject(name: &str) -> SubjectId {
    SubjectId::new(name).unwrap()
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Seconds after which every id is due.
const AGES: u64 = 1_000_000;

/// A record in layout 1, as hexadecimal digits.
pub(crate) const PREVIOUS_RECORD: &str = "0101010101010101010101010101010101bc0580a0f1c2b13400ede6c701ce17c01f00050466756c6c056c61726765066d656469756d05736d616c6c097468756d626e61696c0a0000800880088180050001008004800481c0020002008002800281a00100030080018001815001040040408128000001800880088180050001018004800481c0020002018002800281a001000301800180018150000401404081280001021901010101010101010101010101010101010101010101010101010201";

/// The record in [`PREVIOUS_RECORD`].
pub(crate) fn previous_record() -> Record {
    let mut record = record(1, 700);
    record.renditions[3].animated = true;
    record.master = Some(Format::Png);
    // Layout 1 has no reservation time, so the upload time replaces it.
    record.reserved_at = record.uploaded_at;
    record
}

/// Reserves an id for the subject, and returns the record that its upload would commit.
async fn reserved(catalog: Bench<'_>, subject: &SubjectId) -> Record {
    let reserved = reserved_by(catalog, subject, Uploader::Ordinary).await;
    reserved.unwrap()
}

/// Like [`reserved`], for this uploader.
async fn reserved_by(
    catalog: Bench<'_>,
    subject: &SubjectId,
    uploader: Uploader,
) -> Result<Record, SubjectLocked> {
    let mut record = record(1, 0);
    record.avatar_id = AvatarId::random().unwrap();
    let reserved = catalog.reserve(subject, record.avatar_id, seconds(120), uploader);
    Reservation {
        version: record.version,
        reserved_at: record.reserved_at,
    } = reserved.await.unwrap()?;
    Ok(record)
}

/// Commits a record without a precondition. The replaced record is due after an hour.
async fn commit(catalog: Bench<'_>, subject: &SubjectId, record: &Record) -> Replaced {
    let anything = Precondition::Anything;
    let (hour, uploader) = (seconds(3600), Uploader::Ordinary);
    let replaced = catalog.replace(subject, record, &anything, hour, uploader);
    replaced.await.unwrap()
}

/// Reserves and commits an upload, and returns its record.
async fn uploaded(catalog: Bench<'_>, subject: &SubjectId) -> Record {
    let record = reserved(catalog, subject).await;
    assert!(matches!(
        commit(catalog, subject, &record).await,
        Replaced::Committed
    ));
    record
}

/// Sets the clock forward by `after` seconds, then claims and forgets every id that is due. Returns
/// these ids.
async fn sweep(catalog: Bench<'_>, after: u64) -> HashSet<AvatarId> {
    catalog.clock.advance(after).await;
    let mut ids = HashSet::new();
    loop {
        let claimed = catalog.claim(seconds(60), 3).await.unwrap();
        assert!(claimed.len() <= 3);
        if claimed.is_empty() {
            return ids;
        }
        for Claimed { outstanding, .. } in claimed {
            catalog.forget(&outstanding).await.unwrap();
            assert!(ids.insert(outstanding.avatar), "claimed twice");
        }
    }
}

fn outstanding(subject: &SubjectId, record: &Record) -> Outstanding {
    Outstanding {
        subject: subject.clone(),
        avatar: record.avatar_id,
    }
}
