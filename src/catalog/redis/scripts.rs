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
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |step| Script::new(&[include_str!("prelude.lua"), step]);
        Self {
            reserve: script(include_str!("reserve.lua")),
            replace: script(include_str!("replace.lua")),
            remove: script(include_str!("remove.lua")),
            claim: script(include_str!("claim.lua")),
            forget: script(include_str!("forget.lua")),
            knows: script(include_str!("knows.lua")),
            restore: script(include_str!("restore.lua")),
        }
    }
}
