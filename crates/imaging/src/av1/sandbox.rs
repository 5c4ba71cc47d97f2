//! How a process gives up what it does not need: all but reading its standard input, writing its
//! standard output, and so much memory and time.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use super::wire::Limits;

/// Shuts this process in, for good. On Linux the kernel ends it at the first system call that
/// decoding does not need; elsewhere only the limits hold.
///
/// # Errors
///
/// The system's, where any part of it cannot be had.
pub(super) fn enter(limits: Limits) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Data, limits.memory_bytes),
        (Resource::Cpu, limits.cpu_seconds),
        // No file grows, is opened, or is left behind by a crash; no process or thread is started.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    #[cfg(target_os = "linux")]
    linux::enter()?;
    Ok(())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;

    use rustix::process::{Signal, set_parent_process_death_signal};
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
        SeccompRule, TargetArch, apply_filter,
    };

    /// What may be called whatever its arguments: memory given back or resized, the end, waiting
    /// for a lock, the time, and what the panic that precedes an abort calls.
    const PLAIN: [i64; 13] = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
    ];

    pub(super) fn enter() -> io::Result<()> {
        // It does not outlive the thread that waits for it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let program = program().map_err(io::Error::other)?;
        apply_filter(&program).map_err(io::Error::other)
    }

    fn program() -> Result<BpfProgram, seccompiler::BackendError> {
        let is = |argument: u8, value: u64| {
            let operator = SeccompCmpOp::Eq;
            SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)
        };
        let has = |argument: u8, mask: i32, value: i32| {
            let operator = SeccompCmpOp::MaskedEq(mask as u64);
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value as u64)
        };
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let mut rules = vec![
            (libc::SYS_read, vec![SeccompRule::new(vec![is(0, 0)?])?]),
            (
                libc::SYS_write,
                vec![
                    SeccompRule::new(vec![is(0, 1)?])?,
                    SeccompRule::new(vec![is(0, 2)?])?,
                ],
            ),
            // Memory of its own that the limit counts, and that is never run.
            (
                libc::SYS_mmap,
                vec![SeccompRule::new(vec![
                    has(2, libc::PROT_EXEC, 0)?,
                    has(3, private | libc::MAP_SHARED, private)?,
                ])?],
            ),
            (
                libc::SYS_mprotect,
                vec![SeccompRule::new(vec![has(2, libc::PROT_EXEC, 0)?])?],
            ),
        ];
        rules.extend(PLAIN.map(|call| (call, Vec::new())));
        SeccompFilter::new(
            rules.into_iter().collect(),
            SeccompAction::KillProcess,
            SeccompAction::Allow,
            TargetArch::try_from(std::env::consts::ARCH)?,
        )?
        .try_into()
    }
}
