//! The rights that a worker gives up before it reads the first byte of an upload.
//!
//! Afterwards it can compute, allocate and free its own memory up to a limit, write to one socket,
//! and end. The kernel kills it at any other system call. The limits stay even where a filter has a
//! gap: no descriptor can be opened, no file grows, no core is dumped.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

/// The stack of a worker: that of a thread that Rust starts.
pub(super) const STACK_BYTES: u64 = 2 << 20;

/// The descriptor that a worker writes its answer to: its standard output.
const ANSWER: u64 = 1;
/// The same socket as [`ANSWER`]. The standard library writes there that an allocation failed.
const ERRORS: u64 = 2;

/// What a worker may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Address space, all of it.
    pub(super) address_bytes: u64,
    /// Processor time of all threads together.
    pub(super) cpu_seconds: u64,
}

/// Shuts this process in, for good: all its threads, and with it everything that it does later.
///
/// # Errors
/// The system's, where any part of it is not possible.
pub(super) fn enter(limits: Limits, filter: &BpfProgram) -> io::Result<()> {
    for (resource, current) in [
        (Resource::As, limits.address_bytes),
        (Resource::Stack, STACK_BYTES),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, 0),
        (Resource::Nproc, 0),
    ] {
        set(resource, current, current)?;
    }
    // The first limit sends SIGXCPU, which tells the end by this limit from others.
    set(Resource::Cpu, limits.cpu_seconds, limits.cpu_seconds + 1)?;
    apply_filter_all_threads(filter).map_err(io::Error::other)
}

fn set(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    Ok(setrlimit(resource, limit)?)
}

/// System calls that are allowed with any arguments: memory given back, the end, locks between the
/// threads of this process, the time, random numbers for hash tables, the size of the memory (sorting
/// in the C library asks for it), and what the standard library calls around a panic and at the end
/// of a thread.
const ANY_ARGUMENTS: [i64; 13] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_munmap,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
];

/// The filter that every worker is put under. The zygote makes it once.
///
/// # Errors
/// Where there is no filter for this processor.
pub(super) fn filter() -> io::Result<BpfProgram> {
    rules().map_err(io::Error::other)
}

fn rules() -> Result<BpfProgram, seccompiler::BackendError> {
    // The kernel reads these arguments as numbers of 32 bits.
    let is = |argument: u8, value: i32| {
        let value = u64::from(value.cast_unsigned());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
    };
    let readable = |argument: u8| {
        // No bit but those two: above all not `PROT_EXEC` and `PROT_GROWSDOWN`.
        let others = !(libc::PROT_READ | libc::PROT_WRITE);
        let mask = SeccompCmpOp::MaskedEq(others.cast_unsigned().into());
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, mask, 0)
    };
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mut rules = vec![
        (
            libc::SYS_write,
            vec![
                SeccompRule::new(vec![is(0, ANSWER as i32)?])?,
                SeccompRule::new(vec![is(0, ERRORS as i32)?])?,
            ],
        ),
        // Memory of this process alone, without `MAP_GROWSDOWN`, `MAP_FIXED` and all other flags.
        // The allocator reserves some without a promise that it will be there.
        (
            libc::SYS_mmap,
            [private, private | libc::MAP_NORESERVE]
                .map(|flags| SeccompRule::new(vec![readable(2)?, is(3, flags)?, is(4, -1)?]))
                .into_iter()
                .collect::<Result<_, _>>()?,
        ),
        (
            libc::SYS_mprotect,
            vec![SeccompRule::new(vec![readable(2)?])?],
        ),
        (
            libc::SYS_mremap,
            vec![SeccompRule::new(vec![is(3, libc::MREMAP_MAYMOVE)?])?],
        ),
        (
            libc::SYS_madvise,
            [libc::MADV_DONTNEED, libc::MADV_FREE, libc::MADV_HUGEPAGE]
                .map(|advice| SeccompRule::new(vec![is(2, advice)?]))
                .into_iter()
                .collect::<Result<_, _>>()?,
        ),
    ];
    rules.extend(ANY_ARGUMENTS.map(|call| (call, Vec::new())));
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}
