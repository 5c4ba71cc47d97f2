//! The scripts that Redis runs for the steps of the catalog.

use crate::redis::Script;

/// The catalog's clock: Redis's own, in Unix milliseconds.
pub(super) const CLOCK: &str = "local function now() \
     local time = redis.call('TIME') \
     return time[1] * 1000 + math.floor(time[2] / 1000) \
     end\n";

/// One script for each step.
pub(super) struct Scripts {
    pub(super) reserve: Script,
    pub(super) replace: Script,
    pub(super) remove: Script,
    pub(super) claim: Script,
    pub(super) defer: Script,
    pub(super) invalidate: Script,
    pub(super) forget: Script,
    pub(super) upload_state: Script,
    pub(super) restore: Script,
    pub(super) drop: Script,
    pub(super) initialize: Script,
    pub(super) raise_version_floor: Script,
    pub(super) look_up: Script,
    pub(super) stats: Script,
    pub(super) policy: Script,
    pub(super) lock: Script,
    pub(super) set_policy: Script,
    /// Like `set_policy`; Redis also runs it at its maxmemory.
    pub(super) shrink_policy: Script,
    pub(super) upgrade: Script,
    pub(super) probe: Script,
}

impl Scripts {
    /// The scripts of a catalog that keeps about `events_kept` events in each partition. `clock` is
    /// Lua code that defines the function `now`.
    pub(super) fn new(events_kept: u32, clock: &str) -> Self {
        let kept = format!("local EVENTS_KEPT = {events_kept}\n");
        let script = |step| Script::new(&[clock, &kept, include_str!("prelude.lua"), step]);
        // These scripts free memory, or prepare it. So Redis runs them even at its maxmemory;
        // otherwise a full Redis could not free memory.
        let freeing = |step| {
            let prelude = include_str!("prelude.lua");
            Script::new(&["#!lua flags=allow-oom\n", clock, &kept, prelude, step])
        };
        Self {
            reserve: script(include_str!("reserve.lua")),
            replace: script(include_str!("replace.lua")),
            remove: freeing(include_str!("remove.lua")),
            claim: freeing(include_str!("claim.lua")),
            defer: freeing(include_str!("defer.lua")),
            invalidate: freeing(include_str!("invalidate.lua")),
            forget: freeing(include_str!("forget.lua")),
            upload_state: script(include_str!("upload_state.lua")),
            restore: script(include_str!("restore.lua")),
            drop: freeing(include_str!("drop.lua")),
            initialize: script(include_str!("initialize.lua")),
            raise_version_floor: script(include_str!("raise_version_floor.lua")),
            look_up: script(include_str!("look_up.lua")),
            stats: script(include_str!("stats.lua")),
            policy: script(include_str!("policy.lua")),
            lock: script(include_str!("lock.lua")),
            set_policy: script(include_str!("set_policy.lua")),
            shrink_policy: freeing(include_str!("set_policy.lua")),
            upgrade: freeing(include_str!("upgrade.lua")),
            probe: Script::new(&["#!lua\n", include_str!("probe.lua")]),
        }
    }
}
