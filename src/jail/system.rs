//! The calls of the system that Rust cannot check, each behind a function that is safe to call as
//! its text says.
//!
//! This is the only module of the service with `unsafe` code. Everything here runs in the zygote,
//! which has one thread, or in a worker before it sees an upload.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use rustix::mm::{MapFlags, ProtFlags};
use rustix::process::Pid;

/// Which process [`fork`] returned in.
pub(super) enum Forked {
    /// The zygote, with the id of the worker.
    Zygote(Pid),
    /// The worker.
    Worker,
}

/// Copies this process.
///
/// # Errors
/// The system's, where it has no room for one more process.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: `fork` copies only the thread that calls it. A lock that another thread holds stays
    // locked in the copy for ever, also the allocator's. The zygote has one thread (see
    // `zygote::serve`), so no lock is held at this moment, and the copy may do everything that the
    // zygote may do.
    let id = unsafe { libc::fork() };
    match id {
        0 => Ok(Forked::Worker),
        id => match Pid::from_raw(id.max(0)) {
            Some(id) => Ok(Forked::Zygote(id)),
            None => Err(io::Error::last_os_error()),
        },
    }
}

/// Closes every descriptor from `first` on. The caller owns no descriptor among them that it uses
/// later.
///
/// # Errors
/// The system's, where its kernel is older than Linux 5.9.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers and reads no memory of this process. An `OwnedFd` whose
    // descriptor it closes would later close a number that may name something else; the two callers
    // run before they open anything, and the worker never returns to code that owns a descriptor.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if closed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Maps the first `length` bytes of a file for as long as this process runs. The file is sealed
/// against every change.
///
/// # Errors
/// The system's, or `InvalidInput` for a file that is not sealed or too short.
pub(super) fn map_sealed(file: impl AsFd, length: usize) -> io::Result<&'static [u8]> {
    use rustix::fs::{SealFlags, fcntl_get_seals, fstat};

    let needed = SealFlags::WRITE | SealFlags::SHRINK;
    let sealed = fcntl_get_seals(&file)?.contains(needed);
    let size = fstat(&file)?.st_size;
    if !sealed || u64::try_from(size).is_ok_and(|size| size < length as u64) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if length == 0 {
        return Ok(&[]);
    }
    // SAFETY: the address is the kernel's choice, so no other mapping is replaced. The mapping is
    // never removed. The seals, checked above, keep its bytes as they are and the file as long as it
    // is, so a shared slice of them is sound.
    unsafe {
        let start = rustix::mm::mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::POPULATE,
            file,
            0,
        )?;
        Ok(std::slice::from_raw_parts(start.cast::<u8>(), length))
    }
}

/// Ignores the signals that ask a whole group of processes to end. The service ends first, after
/// the uploads under way.
pub(super) fn ignore_requests_to_end() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Makes all threads of this process allocate from one arena. Each further arena would reserve 128 MiB
/// of address space, which a worker's limit counts.
pub(super) fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call sets a number inside the allocator, before a second thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Makes a system call with any arguments, for tests of what the kernel refuses.
#[cfg(test)]
pub(super) fn call(number: i64, arguments: [i64; 6]) -> i64 {
    // SAFETY: tests make only calls that the filter of the process refuses, which ends the process
    // before the call, or that fail with these arguments, or that change no memory.
    unsafe {
        libc::syscall(
            number,
            arguments[0],
            arguments[1],
            arguments[2],
            arguments[3],
            arguments[4],
            arguments[5],
        )
    }
}
