//! System calls with which code could break out of a worker or of the zygote.

use super::*;

/// A system call: its number and arguments.
type Call = (i64, [i64; 6]);

fn map(protection: i32, flags: i32) -> Call {
    let arguments = [0, 4096, protection.into(), flags.into(), -1, 0];
    (libc::SYS_mmap, arguments)
}

const READABLE: i32 = libc::PROT_READ | libc::PROT_WRITE;
const PRIVATE: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Calls that neither a worker nor the zygote may make.
fn break_ins() -> Vec<(&'static str, Call)> {
    let own = i64::from(std::process::id());
    let here = i64::from(libc::AT_FDCWD);
    let executable = i64::from(READABLE | libc::PROT_EXEC);
    vec![
        ("open a file", (libc::SYS_openat, [here, 0, 0, 0, 0, 0])),
        (
            "open a file for writing",
            (libc::SYS_openat, [here, 0, libc::O_RDWR.into(), 0, 0, 0]),
        ),
        ("make a socket", (libc::SYS_socket, [1, 1, 0, 0, 0, 0])),
        ("connect", (libc::SYS_connect, [0, 0, 0, 0, 0, 0])),
        ("send descriptors", (libc::SYS_sendmsg, [1, 0, 0, 0, 0, 0])),
        (
            "write to another descriptor",
            (libc::SYS_write, [3, 0, 0, 0, 0, 0]),
        ),
        ("execute", (libc::SYS_execve, [0; 6])),
        (
            "execute a descriptor",
            (libc::SYS_execveat, [0, 0, 0, 0, 0, 0]),
        ),
        (
            "fork into a namespace of users",
            (
                libc::SYS_clone,
                [
                    i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD),
                    0,
                    0,
                    0,
                    0,
                    0,
                ],
            ),
        ),
        (
            "read the service's memory",
            (libc::SYS_process_vm_readv, [own, 0, 0, 0, 0, 0]),
        ),
        (
            "trace the service",
            (libc::SYS_ptrace, [16, own, 0, 0, 0, 0]),
        ),
        ("signal the service", (libc::SYS_kill, [own, 0, 0, 0, 0, 0])),
        (
            "change the limits of the service",
            (libc::SYS_prlimit64, [own, 9, 0, 0, 0, 0]),
        ),
        (
            "use io_uring",
            (libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ),
        (
            "make itself readable to others",
            (
                libc::SYS_prctl,
                [libc::PR_SET_DUMPABLE.into(), 1, 0, 0, 0, 0],
            ),
        ),
        (
            "map executable memory",
            map(READABLE | libc::PROT_EXEC, PRIVATE),
        ),
        (
            "map a stack that grows",
            map(READABLE, PRIVATE | libc::MAP_GROWSDOWN),
        ),
        (
            "map shared memory",
            map(READABLE, libc::MAP_SHARED | libc::MAP_ANONYMOUS),
        ),
        (
            "replace a mapping",
            map(READABLE, PRIVATE | libc::MAP_FIXED),
        ),
        (
            "make memory executable",
            (libc::SYS_mprotect, [0, 4096, executable, 0, 0, 0]),
        ),
        (
            "move a mapping",
            (libc::SYS_mremap, [0, 4096, 4096, 3, 0, 0]),
        ),
    ]
}

#[tokio::test]
async fn the_kernel_ends_a_worker_at_every_system_call_that_imaging_does_not_need() {
    let own = i64::from(std::process::id());
    let mut attempts = break_ins();
    attempts.extend([
        ("read its socket", (libc::SYS_read, [0; 6])),
        (
            "fork",
            (libc::SYS_clone, [i64::from(libc::SIGCHLD), 0, 0, 0, 0, 0]),
        ),
        ("fork in the new way", (libc::SYS_clone3, [0; 6])),
        (
            "signal by a descriptor",
            (libc::SYS_pidfd_open, [own, 0, 0, 0, 0, 0]),
        ),
        (
            "raise its limits",
            (libc::SYS_prlimit64, [0, 9, 0, 0, 0, 0]),
        ),
        ("change itself", (libc::SYS_prctl, [1, 0, 0, 0, 0, 0])),
    ]);
    let jail = jail();
    let survived = Error::Internal {
        reason: "survived".to_owned(),
    };
    assert_eq!(
        outcome_of(&jail, &Attempt::Nothing).await,
        Err(survived.clone())
    );
    // Memory of the kind that it may have.
    let (number, arguments) = map(READABLE, PRIVATE);
    let allowed = Attempt::Call(number, arguments);
    assert_eq!(outcome_of(&jail, &allowed).await, Err(survived));
    for (name, (number, arguments)) in attempts {
        let outcome = outcome_of(&jail, &Attempt::Call(number, arguments)).await;
        assert!(
            matches!(outcome, Err(Error::Corrupt { .. })),
            "{name}: {outcome:?}"
        );
    }
    expect_that_others_notice_nothing(&jail).await;
}

#[tokio::test]
async fn the_kernel_ends_a_zygote_at_every_system_call_that_it_does_not_need() {
    let mut attempts = break_ins();
    attempts.extend([
        (
            "send to another descriptor",
            (libc::SYS_sendto, [1, 0, 0, 0, 0, 0]),
        ),
        (
            "send to an address",
            (libc::SYS_sendto, [0, 0, 0, 0, 4096, 0]),
        ),
        (
            "stop a process",
            (
                libc::SYS_pidfd_send_signal,
                [-1, i64::from(libc::SIGSTOP), 0, 0, 0, 0],
            ),
        ),
    ]);
    let survived = Error::Internal {
        reason: "survived".to_owned(),
    };
    let jail_of_allowed = jail();
    for (name, (number, arguments)) in [
        ("its parent", (libc::SYS_getppid, [0; 6])),
        ("a call that is refused", (libc::SYS_clone3, [0; 6])),
    ] {
        let allowed = Attempt::CallInZygote(number, arguments);
        let outcome = outcome_of(&jail_of_allowed, &allowed).await;
        assert_eq!(outcome, Err(survived.clone()), "{name}");
    }
    for (name, (number, arguments)) in attempts {
        // A zygote that ended soon after its start is started again after a pause. A new jail has
        // none.
        let jail = jail();
        jail.check().await.unwrap();
        let attempt = Attempt::CallInZygote(number, arguments);
        let outcome = outcome_of(&jail, &attempt).await;
        // A zygote that ended can start no worker. One that survived starts it, as above.
        assert!(
            matches!(outcome, Err(Error::Overloaded { .. })),
            "{name}: {outcome:?}"
        );
    }
}
