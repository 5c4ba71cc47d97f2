//! System calls that need `unsafe` code, each in a function that is safe to call under the conditions in
//! its documentation.
//!
//! This is the only module of the service with `unsafe` code. Its functions run in the zygote, which
//! has one thread, or in a worker before it reads an upload.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::io;
use std::os::fd::AsFd;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise};
use rustix::process::Pid;

/// The process in which [`fork`] returned.
pub(super) enum Forked {
    /// The zygote, with the id of the worker.
    Zygote(Pid),
    /// The worker.
    Worker,
}

/// Forks this process.
///
/// # Errors
/// If the system has no room for another process.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the new process has only the thread that calls `fork`. A lock that another thread holds,
    // such as the allocator's, would stay locked in it. The zygote has one thread (see
    // `zygote::serve`), so no other thread holds a lock, and the new process may call any function.
    let id = unsafe { libc::fork() };
    match id {
        0 => Ok(Forked::Worker),
        id => match Pid::from_raw(id.max(0)) {
            Some(id) => Ok(Forked::Zygote(id)),
            None => Err(io::Error::last_os_error()),
        },
    }
}

/// Closes all descriptors from `first` on. The caller must not use any of them later.
///
/// # Errors
/// If the kernel is older than Linux 5.9.
pub(super) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers and accesses no memory of this process. If it closed the
    // descriptor of an `OwnedFd`, the drop of the `OwnedFd` could close another file that got the same
    // number. The zygote owns no descriptor when it calls this, and a worker ends without dropping
    // the ones that it owns.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0_u32) };
    if closed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Maps the first `length` bytes of a sealed file until this process ends.
///
/// # Errors
/// Those of the system; `InvalidInput` if the file is not sealed or is too short.
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
    // SAFETY: the kernel chooses the address, so no other mapping is replaced. The mapping is never
    // removed. The seals, checked above, prevent changes of the bytes and of the length, so a shared
    // slice of them is sound.
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

/// Ignores the signals with which a terminal or a service manager ends a group of processes. The
/// zygote ends when the service closes its socket, after the uploads under way.
pub(super) fn ignore_requests_to_end() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: ignoring a signal runs no code of this process.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Ends this process with all its threads. Unlike [`std::process::exit`], it runs no functions that
/// libraries registered for the end of the program: a worker has nothing to flush.
pub(super) fn end(code: i32) -> ! {
    // SAFETY: the call runs no further code of this process.
    unsafe { libc::_exit(code) }
}

/// Sets up the allocator of this process and of those that it forks.
///
/// All threads allocate from one arena. Each further arena would reserve 128 MiB of address space,
/// which a worker's limit counts. The allocator keeps freed memory for later buffers, because each
/// new page costs a page fault.
pub(super) fn set_up_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls set numbers inside the allocator, before a second thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAX_HEAP_BUFFER_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

/// Returns free memory of the allocator to the kernel. The zygote calls it before it forks: a worker
/// would have to copy each of these pages before it writes to it.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call changes no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Extends the heap by memory in large pages, if the system has them: by `bytes`, rounded up to whole
/// large pages, and at most [`MAX_EXTENSION_BYTES`]. One page fault then gives 2 MiB instead of 4 KiB.
pub(super) fn extend_heap(bytes: usize) {
    // These buffers are larger than every free part of the heap, so the allocator places them at its
    // end. The first one finds the end. The second one fills the heap up to a large page and is never
    // freed. The third one begins at that page. Without `black_box` the compiler would remove the
    // first two allocations, because no code writes to them.
    let end = black_box(Vec::<u8>::with_capacity(LARGE_PAGE_BYTES));
    let to_page = end.as_ptr().align_offset(LARGE_PAGE_BYTES);
    drop(end);
    let padding = LARGE_PAGE_BYTES + to_page - ALLOCATION_HEADER_BYTES;
    std::mem::forget(black_box(Vec::<u8>::with_capacity(padding)));
    let bytes = bytes.min(MAX_EXTENSION_BYTES);
    let buffer = Vec::<u8>::with_capacity(bytes.next_multiple_of(LARGE_PAGE_BYTES));
    let skipped = buffer.as_ptr().align_offset(LARGE_PAGE_BYTES);
    let length = buffer.capacity().saturating_sub(skipped) & !(LARGE_PAGE_BYTES - 1);
    if length > 0 {
        let start = buffer.as_ptr().wrapping_add(skipped).cast_mut();
        // SAFETY: the range lies within the buffer, and the advice changes no byte of it.
        let advised = unsafe { madvise(start.cast(), length, Advice::LinuxHugepage) };
        // A kernel without large pages refuses the advice and gives small pages.
        let _ = advised;
    }
    // The allocator keeps the memory of `buffer`.
}

/// The largest buffer that the allocator takes from the heap; it maps larger ones one by one. This is
/// the maximum that the GNU allocator accepts.
const MAX_HEAP_BUFFER_BYTES: i32 = 32 << 20;

/// The most by which a worker's heap is extended ahead, in bytes.
const MAX_EXTENSION_BYTES: usize = 16 << 20;

/// The size of a large page of x86-64, and of `AArch64` with small pages of 4 KiB.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// The bytes of the GNU allocator between two buffers.
const ALLOCATION_HEADER_BYTES: usize = 8;

/// Makes a system call with any arguments, for tests of the filters.
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
