//! The steps of the catalog, as Redis runs them.

use crate::redis::Script;

/// One script for each step.
pub(super) struct Scripts {
    pub(super) reserve: Script,
    pub(super) replace: Script,
    pub(super) remove: Script,
    pub(super) claim: Script,
    pub(super) forget: Script,
    pub(super) knows: Script,
    pub(super) restore: Script,
    pub(super) raise_floor: Script,
}

impl Scripts {
    /// The scripts of a catalog that keeps about so many events in each partition.
    pub(super) fn new(events_kept: u32) -> Self {
        let kept = format!("local EVENTS_KEPT = {events_kept}\n");
        let script = |step| Script::new(&[&kept, include_str!("prelude.lua"), step]);
        Self {
            reserve: script(include_str!("reserve.lua")),
            replace: script(include_str!("replace.lua")),
            remove: script(include_str!("remove.lua")),
            claim: script(include_str!("claim.lua")),
            forget: script(include_str!("forget.lua")),
            knows: script(include_str!("knows.lua")),
            restore: script(include_str!("restore.lua")),
            raise_floor: script(include_str!("raise_floor.lua")),
        }
    }
}
