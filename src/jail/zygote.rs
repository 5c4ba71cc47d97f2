//! The zygote: a process with one thread that forks workers and reaps them.
//!
//! It is this program's own file, executed with an empty environment. So its memory, which every worker
//! inherits, contains no secret. It starts once, computes tables, and gives up the rights that it does
//! not need (`sandbox`). Then the start of a worker is a fork, which is faster than the start of a
//! program.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use rustix::process::{
    DumpableBehavior, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitIdStatus,
    getppid, pidfd_open, pidfd_send_signal, set_dumpable_behavior, set_parent_process_death_signal,
    setrlimit, waitid,
};
use rustix::stdio::stdin;

use super::sandbox;
use super::system::{self, Forked};
use super::wire::{COMMAND_BYTES, Command, End, Report, receive_with_descriptors};
use super::worker;

/// Forks workers for the service at the other end of the standard input, until that end is closed.
///
/// The process must have been started for this alone, and must have no second thread. The standard
/// input is a sequenced-packet socket.
///
/// # Errors
/// If this process cannot be set up, or its socket fails. Faults of a worker are reported to the
/// service instead.
pub fn serve() -> io::Result<()> {
    // Workers inherit only the standard input, output and error.
    system::close_from(3)?;
    // Lists of processes show this name instead of the name of the file.
    rustix::thread::set_name(c"cameo-zygote")?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::chdir("/")?;
    system::ignore_requests_to_end();
    system::set_up_allocator();
    // A worker sends its panics to the service, and must not print them.
    std::panic::set_hook(Box::new(|_| ()));
    let inherited = worker::Inherited::prepare()?;
    sandbox::confine_zygote()?;
    Zygote {
        inherited,
        workers: BTreeMap::new(),
    }
    .run()
}

struct Zygote {
    inherited: worker::Inherited,
    /// The running workers, by the ids that the service gave them.
    workers: BTreeMap<u64, OwnedFd>,
}

impl Zygote {
    fn run(mut self) -> io::Result<()> {
        loop {
            let service = stdin();
            let ended: Vec<u64> = {
                let mut polled = vec![PollFd::from_borrowed_fd(service, PollFlags::IN)];
                let workers = self.workers.values();
                polled.extend(workers.map(|worker| PollFd::new(worker, PollFlags::IN)));
                match poll(&mut polled, None) {
                    Ok(_) => {}
                    Err(Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                }
                let has_ended =
                    |(poll, (&id, _)): (&PollFd<'_>, _)| (!poll.revents().is_empty()).then_some(id);
                let ended = polled[1..].iter().zip(&self.workers).filter_map(has_ended);
                let ended = ended.collect();
                if polled[0].revents().is_empty() {
                    self.reap(ended)?;
                    continue;
                }
                ended
            };
            self.reap(ended)?;
            match receive()? {
                Some((Command::Start(id), descriptors)) => self.start(id, descriptors)?,
                Some((Command::Kill(id), _)) => {
                    if let Some(worker) = self.workers.get(&id) {
                        // This fails if the worker has ended already; the next turn reaps it.
                        let _ = pidfd_send_signal(worker, Signal::KILL);
                    }
                }
                // The service has ended. The workers end with this process.
                None => return Ok(()),
            }
        }
    }

    fn reap(&mut self, ended: Vec<u64>) -> io::Result<()> {
        for id in ended {
            let Some(worker) = self.workers.remove(&id) else {
                continue;
            };
            let status = waitid(WaitId::PidFd(worker.as_fd()), WaitIdOptions::EXITED)?;
            let signal = status.as_ref().and_then(WaitIdStatus::terminating_signal);
            let code = status.as_ref().and_then(WaitIdStatus::exit_status);
            let end = match (signal, code) {
                (Some(signal), _) => End::Signalled(signal),
                (None, code) => End::Exited(code.unwrap_or_default()),
            };
            report(Report::Ended(id, end))?;
        }
        Ok(())
    }

    fn start(&mut self, id: u64, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        let Some(socket) = descriptors.next() else {
            return report(Report::Ended(
                id,
                End::NotStarted(Errno::BADF.raw_os_error()),
            ));
        };
        #[cfg(test)]
        if let Some(upload) = descriptors.next() {
            super::tests::make_attempt_in_zygote(&upload);
        }
        let own = rustix::process::getpid();
        match system::fork() {
            Ok(Forked::Worker) => {
                // The zygote may have ended before this call. Then the kernel does not end this
                // process, and its parent is another process.
                let alone = set_parent_process_death_signal(Some(Signal::KILL)).is_err()
                    || getppid() != Some(own);
                if alone {
                    system::end(1);
                }
                worker::run(&socket, &self.inherited)
            }
            Ok(Forked::Zygote(process)) => {
                // From now on the socket closes when the worker ends.
                drop(socket);
                // Without a descriptor the end of the worker could not be noticed. So this error ends
                // the zygote and all its workers, and the service starts another zygote.
                let worker = pidfd_open(process, PidfdFlags::empty())?;
                self.workers.insert(id, worker);
                report(Report::Started(id, process.as_raw_nonzero().get()))
            }
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                report(Report::Ended(id, End::NotStarted(errno)))
            }
        }
    }
}

/// The next command and its descriptors; `None` once the service has closed its end.
fn receive() -> io::Result<Option<(Command, Vec<OwnedFd>)>> {
    let mut bytes = [0; COMMAND_BYTES];
    let (received, descriptors) = receive_with_descriptors(&mut bytes)?;
    if received == 0 {
        return Ok(None);
    }
    match Command::from_bytes(bytes) {
        Some(command) if received == COMMAND_BYTES => Ok(Some((command, descriptors))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn report(report: Report) -> io::Result<()> {
    match send(stdin(), &report.to_bytes(), SendFlags::NOSIGNAL) {
        // The service has ended. The next `receive` reports this.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
