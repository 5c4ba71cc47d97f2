use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;
use crate::{CancelToken, Control, Error};

const CHILD: &str = "av1::tests::child";

/// How this program, which is the tests', is told to be one of them alone.
fn arguments(test: &str) -> [&str; 5] {
    [
        test,
        "--exact",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]
}

impl Av1 {
    /// What tests decode with: the real thing, but for the program.
    pub(crate) fn of_tests() -> Self {
        let program = std::env::current_exe().unwrap();
        Self::new(program, arguments(CHILD).map(Into::into).to_vec())
    }
}

#[test]
#[ignore = "not a test: the process that tests have started to decode"]
fn child() {
    let done = serve();
    std::process::exit(i32::from(done.is_err()));
}

/// The one tile of a picture among the fixtures.
fn stream(fixture: &str) -> (Vec<u8>, Shape) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
    let bytes = std::fs::read(folder.to_owned() + fixture).unwrap();
    let file = heifer_isobmff::HeifFile::parse(&bytes).unwrap();
    let stream = file.item_data(file.primary_id).unwrap().into_owned();
    let (width, height) = file.image_size(file.primary_id).unwrap().unwrap();
    let shape = Sequence::read(&stream).unwrap().shape(width, height);
    (stream, shape)
}

fn decode(stream: &[u8], shape: Shape, control: &Control) -> Result<[Vec<u16>; 3], Error> {
    let mut decoder = Av1::of_tests().open(shape, stream.len(), control)?;
    decoder.decode(stream, shape, control)
}

#[test]
fn the_process_starts_is_shut_in_and_decodes() {
    assert_eq!(Av1::of_tests().check(), Ok(()));
}

#[test]
fn a_program_that_is_none_is_this_programs_fault_and_not_the_pictures() {
    for program in ["/nowhere", "/bin/true"] {
        let checked = Av1::new(program.into(), Vec::new()).check();
        assert!(
            matches!(checked, Err(Error::Internal { .. })),
            "{checked:?}"
        );
    }
}

#[test]
#[ignore = "not a test: what asks for a process where no more files may be open"]
fn without_files() {
    let av1 = Av1::of_tests();
    let none = rustix::process::Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, none).unwrap();
    let refused = av1.check();
    let overloaded = matches!(refused, Err(Error::Overloaded { .. }));
    std::process::exit(if overloaded { 77 } else { 1 });
}

#[test]
fn a_system_without_room_for_the_process_is_overloaded_and_the_picture_is_not_to_blame() {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(arguments("av1::tests::without_files"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(77));
}

#[test]
fn a_process_that_somebody_ends_is_not_the_pictures_fault() {
    let (stream, shape) = stream("plain.avif");
    let control = Control::unlimited();
    let ended = |signal| {
        let mut decoder = Av1::of_tests().open(shape, stream.len(), &control).unwrap();
        decoder.end_with(signal);
        decoder.decode(&stream, shape, &control).unwrap_err()
    };
    for signal in [Signal::KILL, Signal::TERM] {
        let error = ended(signal);
        assert!(matches!(error, Error::Overloaded { .. }), "{error:?}");
    }
    // What a picture may bring upon it: a panic, and a system call that is not allowed.
    for signal in [Signal::ABORT, Signal::SYS] {
        let error = ended(signal);
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn one_process_decodes_tile_after_tile_until_one_is_damaged() {
    let (stream, shape) = stream("ten-bit.avif");
    let control = Control::unlimited();
    let mut decoder = Av1::of_tests().open(shape, stream.len(), &control).unwrap();
    let first = decoder.decode(&stream, shape, &control).unwrap();
    assert_eq!(first[0].len(), 167 * 221);
    assert!(first[0].iter().any(|&sample| sample > 255));
    assert_eq!(decoder.decode(&stream, shape, &control).unwrap(), first);
    let cut = decoder.decode(&stream[..stream.len() / 2], shape, &control);
    assert!(matches!(cut, Err(Error::Corrupt { .. })), "{cut:?}");
}

#[test]
fn nothing_but_the_picture_that_was_asked_for_is_decoded() {
    let (stream, shape) = stream("plain.avif");
    let control = Control::unlimited();
    for other in [
        Shape {
            width: 168,
            ..shape
        },
        Shape {
            height: 100,
            ..shape
        },
        Shape {
            bit_depth: 10,
            ..shape
        },
        Shape {
            chroma: Chroma::Full,
            ..shape
        },
    ] {
        let result = decode(&stream, other, &control);
        assert!(matches!(result, Err(Error::Corrupt { .. })), "{other:?}");
    }
}

#[test]
fn a_damaged_stream_ends_at_most_its_own_process() {
    let control = Control::unlimited();
    let mut taken = 0;
    for fixture in ["plain.avif", "twelve-bit.avif", "lossless.avif"] {
        let (whole, shape) = stream(fixture);
        for round in 0_usize..60 {
            let mut stream = whole.clone();
            // Another place and another value every time, in the headers as in the data.
            for index in 0..=round % 4 {
                let scattered = (round * 4 + index + 1) * 7919;
                let range = if round % 3 == 0 { 40 } else { stream.len() };
                stream[scattered % range] ^= (scattered >> 3) as u8 | 1;
            }
            match decode(&stream, shape, &control) {
                Ok(_) => taken += 1,
                Err(Error::Corrupt { .. }) => {}
                Err(error) => panic!("{fixture}, {round}: {error:?}"),
            }
        }
    }
    assert!(taken > 0, "every stream was damaged beyond its headers");
}

#[test]
fn a_picture_that_takes_more_memory_than_it_may_is_refused() {
    let (stream, shape) = stream("lossless.avif");
    let huge = Shape {
        width: 1 << 15,
        height: 1 << 15,
        ..shape
    };
    // The limit is that of the small picture, and so much is asked for.
    let control = Control::unlimited();
    let mut decoder = Av1::of_tests().open(shape, 0, &control).unwrap();
    let result = decoder.decode(&vec![0; 64 << 20], huge, &control);
    assert!(matches!(result, Err(Error::Corrupt { .. })), "{result:?}");
    let mut decoder = Av1::of_tests().open(shape, 0, &control).unwrap();
    assert!(decoder.decode(&stream, shape, &control).is_ok());
}

#[test]
fn a_process_that_does_not_answer_ends_with_the_time_or_the_wish_for_it() {
    // It waits for pictures, and gets none.
    let waiting = |control: &Control| {
        let (_, shape) = stream("plain.avif");
        let mut decoder = Av1::of_tests()
            .open(shape, 0, &Control::unlimited())
            .unwrap();
        decoder.wait_for_nothing(control)
    };
    let begun = Instant::now();
    let deadline = Control::starting_now(Duration::from_millis(100), CancelToken::new());
    assert!(matches!(waiting(&deadline), Err(Error::TooComplex { .. })));
    let token = CancelToken::new();
    let control = Control::starting_now(Duration::from_mins(10), token.clone());
    let other = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        token.cancel();
    });
    assert_eq!(waiting(&control), Err(Error::Cancelled));
    other.join().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// What a decoder might be made to do by a picture, each tried once shut in.
#[cfg(target_os = "linux")]
mod forbidden {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shut_in() {
        sandbox::enter(wire::Limits {
            memory_bytes: 1 << 30,
            cpu_seconds: 60,
        })
        .unwrap();
    }

    /// Ends the process, which has come to no harm, in a way that a test does not end.
    fn survived<T>(_: T) -> ! {
        std::process::exit(77)
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn nothing() {
        shut_in();
        survived(vec![1; 1 << 20])
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn file() {
        shut_in();
        survived(std::fs::read("/etc/hostname"))
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn connection() {
        shut_in();
        survived(std::net::TcpStream::connect("127.0.0.1:9"))
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn program() {
        shut_in();
        survived(Command::new("/bin/true").status())
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn thread() {
        shut_in();
        survived(std::thread::spawn(|| ()))
    }

    #[test]
    #[ignore = "not a test: what one tries"]
    fn signal() {
        shut_in();
        let parent = rustix::process::getppid().unwrap();
        survived(rustix::process::test_kill_process(parent))
    }

    #[test]
    fn the_kernel_ends_whoever_tries_what_decoding_does_not_need() {
        let ended = |what: &str| {
            Command::new(std::env::current_exe().unwrap())
                .args(arguments(&format!("av1::tests::forbidden::{what}")))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
        };
        assert_eq!(ended("nothing").code(), Some(77));
        for what in ["file", "connection", "program", "thread", "signal"] {
            assert_eq!(ended(what).signal(), Some(libc::SIGSYS), "{what}");
        }
    }
}
