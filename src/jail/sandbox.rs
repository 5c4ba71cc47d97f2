//! The rights that the zygote gives up before its first request, and a worker before it reads the
//! first byte of an upload. The kernel kills a process at any other system call.
//!
//! The zygote can then fork workers and end them, start threads, allocate memory, and talk to the
//! service over the socket that it has. It cannot open a file, make or connect a socket, execute a
//! program, or make memory executable. Its filter cannot say which process a signal is for, so it
//! could still end processes of the same user.
//!
//! A worker inherits this filter and adds its own. It can then compute, allocate and free its own
//! memory up to a limit, write to one socket, and end. The limits hold even if a filter has a gap: no
//! descriptor can be opened, no file grows, no core is dumped.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, apply_filter_all_threads,
};

/// The stack of a worker: that of a thread that Rust starts.
pub(super) const STACK_BYTES: u64 = 2 << 20;

/// The descriptor that a worker writes its answer to: its standard output.
const ANSWER: i32 = 1;
/// The same socket as [`ANSWER`]. The standard library writes there that an allocation failed.
const ERRORS: i32 = 2;

/// The resources that a worker may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The whole address space.
    pub(super) address_bytes: u64,
    /// Processor time of all threads together.
    pub(super) cpu_seconds: u64,
}

/// Sets the limits of this process, which cannot be removed.
///
/// # Errors
/// If the system refuses one of them.
pub(super) fn limit(limits: Limits) -> io::Result<()> {
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
    // The lower limit sends SIGXCPU, which no other cause sends to a worker.
    set(Resource::Cpu, limits.cpu_seconds, limits.cpu_seconds + 1)
}

/// Installs the filter for all threads of this process. It cannot be removed.
///
/// # Errors
/// If the system refuses it.
pub(super) fn filter(filter: &BpfProgram) -> io::Result<()> {
    apply_filter_all_threads(filter).map_err(io::Error::other)
}

fn set(resource: Resource, current: u64, maximum: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(current),
        maximum: Some(maximum),
    };
    Ok(setrlimit(resource, limit)?)
}

/// System calls that a worker may make with any arguments. They free memory, end the process, lock
/// between its threads, read the time, random numbers for hash tables and the size of the memory (the C
/// library reads it to sort), or belong to a panic and to the end of a thread.
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

/// The system calls that the zygote may make in addition, with any arguments. They serve its own work
/// or that of a worker before it installs its filter: the descriptors that the process has, its
/// children, the registration of a thread with the C library, and further filters.
const ANY_ARGUMENTS_IN_ZYGOTE: [i64; 18] = [
    libc::SYS_close,
    libc::SYS_close_range,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(not(target_arch = "x86_64"))]
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_sched_getaffinity,
    libc::SYS_seccomp,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_waitid,
];

/// The descriptor of the service: the zygote's standard input.
const SERVICE: i32 = 0;

/// Takes away the rights that the zygote does not need. Its workers inherit the filters.
///
/// # Errors
/// If there is no filter for this processor, or the system refuses it.
pub(super) fn confine_zygote() -> io::Result<()> {
    for filter in zygote_filters().map_err(io::Error::other)? {
        apply_filter(&filter).map_err(io::Error::other)?;
    }
    Ok(())
}

/// If several filters decide about a system call, the strictest decision counts.
fn zygote_filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    // A filter cannot read the flags of `clone3`. The C library uses `clone` where it is missing.
    let without_clone3 = SeccompFilter::new(
        [(libc::SYS_clone3, Vec::new())].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?;
    // The flags with which a process forks and a thread starts. The flags for a new namespace and for
    // tracing are missing.
    let clone_flags = libc::SIGCHLD
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID;
    // The flags with which the upload, a stack and the heap are mapped. `MAP_SHARED` and `MAP_FIXED`
    // are missing.
    let map_flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | libc::MAP_NORESERVE
        | libc::MAP_POPULATE
        | libc::MAP_STACK;
    let no_address = SeccompCondition::new(4, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?;
    let mut rules = vec![
        (libc::SYS_clone, any_of([vec![only(0, clone_flags)?]])?),
        (libc::SYS_clone3, Vec::new()),
        (
            libc::SYS_fcntl,
            any_of([vec![is(1, libc::F_GETFD)?], vec![is(1, libc::F_GET_SEALS)?]])?,
        ),
        (
            libc::SYS_mmap,
            any_of([vec![readable(2)?, only(3, map_flags)?]])?,
        ),
        (libc::SYS_mprotect, any_of([vec![readable(2)?]])?),
        (
            libc::SYS_mremap,
            any_of([vec![is(3, libc::MREMAP_MAYMOVE)?]])?,
        ),
        (
            libc::SYS_pidfd_send_signal,
            any_of([vec![is(1, libc::SIGKILL)?]])?,
        ),
        (
            libc::SYS_prctl,
            any_of([
                vec![is(0, libc::PR_SET_PDEATHSIG)?],
                vec![is(0, libc::PR_SET_NAME)?],
                vec![is(0, libc::PR_SET_NO_NEW_PRIVS)?],
            ])?,
        ),
        // The limits of the process itself, which it can only lower.
        (libc::SYS_prlimit64, any_of([vec![is(0, 0)?]])?),
        (libc::SYS_recvmsg, any_of([vec![is(0, SERVICE)?]])?),
        (
            libc::SYS_sendto,
            any_of([vec![is(0, SERVICE)?, no_address]])?,
        ),
        (libc::SYS_write, writes()?),
        (libc::SYS_writev, writes()?),
    ];
    rules.extend(ANY_ARGUMENTS.map(|call| (call, Vec::new())));
    rules.extend(ANY_ARGUMENTS_IN_ZYGOTE.map(|call| (call, Vec::new())));
    Ok([without_clone3.try_into()?, allow_only(rules)?])
}

/// The filter of a worker. The zygote makes it once.
///
/// # Errors
/// If there is no filter for this processor.
pub(super) fn worker_filter() -> io::Result<BpfProgram> {
    worker_rules()
        .and_then(allow_only)
        .map_err(io::Error::other)
}

fn worker_rules() -> Result<Vec<Rule>, seccompiler::BackendError> {
    let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let mut rules = vec![
        (libc::SYS_write, writes()?),
        (libc::SYS_writev, writes()?),
        // Memory of this process alone, without `MAP_GROWSDOWN`, `MAP_FIXED` and all other flags.
        // The allocator reserves address space with `MAP_NORESERVE`.
        (
            libc::SYS_mmap,
            any_of([
                vec![readable(2)?, is(3, private)?, is(4, -1)?],
                vec![
                    readable(2)?,
                    is(3, private | libc::MAP_NORESERVE)?,
                    is(4, -1)?,
                ],
            ])?,
        ),
        (libc::SYS_mprotect, any_of([vec![readable(2)?]])?),
        (
            libc::SYS_mremap,
            any_of([vec![is(3, libc::MREMAP_MAYMOVE)?]])?,
        ),
        (
            libc::SYS_madvise,
            any_of([
                vec![is(2, libc::MADV_DONTNEED)?],
                vec![is(2, libc::MADV_FREE)?],
                vec![is(2, libc::MADV_HUGEPAGE)?],
            ])?,
        ),
    ];
    rules.extend(ANY_ARGUMENTS.map(|call| (call, Vec::new())));
    Ok(rules)
}

/// A system call, and the rules for its arguments. Without a rule, all arguments are allowed.
type Rule = (i64, Vec<SeccompRule>);

/// Compiles a filter that kills the process at every other system call.
fn allow_only(rules: Vec<Rule>) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        TargetArch::try_from(std::env::consts::ARCH)?,
    )?
    .try_into()
}

/// Rules that allow a call if all conditions of at least one rule hold.
fn any_of<const N: usize>(
    rules: [Vec<SeccompCondition>; N],
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    rules.into_iter().map(SeccompRule::new).collect()
}

fn writes() -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    any_of([vec![is(0, ANSWER)?], vec![is(0, ERRORS)?]])
}

/// The argument has this value. The kernel reads it as a number of 32 bits.
fn is(argument: u8, value: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
}

/// The argument has no bits but these. The kernel reads it as a number of 32 bits.
fn only(argument: u8, bits: i32) -> Result<SeccompCondition, seccompiler::BackendError> {
    let others = SeccompCmpOp::MaskedEq((!bits).cast_unsigned().into());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, others, 0)
}

/// The argument is a memory protection of `PROT_READ` and `PROT_WRITE` only, so not `PROT_EXEC` or
/// `PROT_GROWSDOWN`.
fn readable(argument: u8) -> Result<SeccompCondition, seccompiler::BackendError> {
    only(argument, libc::PROT_READ | libc::PROT_WRITE)
}
