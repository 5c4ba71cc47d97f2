//! Tests of the judgement: invented runs, each with one violation.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::client::{Answer, Avatar};
use crate::history::{Act, Op, Outcome};
use crate::judgement::{FinalState, Verdict, Violation, judge};
use crate::load::classify;

const SUBJECT: &str = "user-00";

type Headers<'a> = &'a [(&'static str, &'static str)];

/// An invented run. [`Run::clean`] has no violation; the tests add one.
struct Run {
    during_run: Verdict,
    ops: Vec<Op>,
    state: FinalState,
}

/// Checks that a clean run has no violation, and that each kind of violation is counted in a run
/// that has only this one.
#[allow(clippy::too_many_lines)] // one case for each kind of violation
pub(crate) fn self_test() {
    let clean = Run::clean();
    let verdict = clean.judge();
    assert!(
        verdict.is_clean(),
        "a clean run has no violation:\n{verdict}"
    );

    let mut shown: Vec<Violation> = Vec::new();
    let mut show = |violation: Violation, spoil: &dyn Fn(&mut Run)| {
        let mut run = Run::clean();
        spoil(&mut run);
        let verdict = run.judge();
        for other in Violation::ALL {
            let wanted = usize::from(other == violation);
            assert_eq!(verdict.count(other), wanted, "{violation:?}:\n{verdict}");
        }
        assert!(!verdict.is_clean());
        shown.push(violation);
    };

    // An acknowledged upload is not current, is not shown, or loses its images too early.
    show(Violation::UploadLost, &|run| run.forget());
    show(Violation::UploadLost, &|run| {
        run.upload(3, 70, Outcome::Uploaded(avatar(3)));
    });
    show(Violation::UploadLost, &|run| {
        run.add(Act::Read, 55, Outcome::NotFound);
    });
    show(Violation::UploadLost, &|run| {
        run.state.unreadable.push("404 medium".to_owned());
    });
    show(Violation::UploadLost, &|run| {
        let gone = "v2 is gone within its grace period".to_owned();
        run.during_run.suspect(SUBJECT, at(50), gone);
    });
    // A deleted avatar is shown later, or is current at the end.
    show(Violation::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.forget();
        run.add(Act::Read, 40, Outcome::Seen(avatar(1)));
    });
    show(Violation::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.make_current(avatar(1));
    });
    // The version decreases from an upload to a read or to the next upload, or is assigned twice.
    show(Violation::VersionBackwards, &|run| {
        let mut fallen = avatar(9);
        fallen.version = 0;
        run.add(Act::Read, 70, Outcome::Seen(fallen));
    });
    show(Violation::VersionBackwards, &|run| {
        let mut fallen = avatar(3);
        fallen.version = 0;
        run.upload(3, 70, Outcome::Uploaded(fallen));
    });
    show(Violation::VersionTwice, &|run| {
        let mut same = avatar(3);
        same.version = 2;
        run.upload(3, 70, Outcome::Uploaded(same.clone()));
        run.make_current(same);
    });
    losses(&mut show);
    // The current avatar was refused, was never sent, or belongs to an unknown subject.
    show(Violation::NeverUploaded, &|run| {
        run.upload(3, 70, Outcome::Refused("storage_unavailable".to_owned()));
        run.make_current(avatar(3));
    });
    show(Violation::NeverUploaded, &|run| run.make_current(avatar(4)));
    show(Violation::NeverUploaded, &|run| {
        for reported in &mut run.state.reported {
            let mut other = avatar(5);
            other.images.clear();
            reported.insert("user-99".to_owned(), Some(other));
        }
        run.state.objects.insert(manifest(5), 9);
        run.state.sums[0] = Some(2);
    });
    show(Violation::ReplicasDisagree, &|run| {
        run.state.reported[1].insert(SUBJECT.to_owned(), None);
    });
    show(Violation::Orphan, &|run| {
        run.state.objects.insert(manifest(1), 9);
    });
    show(Violation::ObjectMissing, &|run| {
        run.state.objects.remove(&manifest(2));
    });
    show(Violation::ObjectMissing, &|run| {
        run.state.objects.insert(image(2), 99);
    });
    for sum in 0..3 {
        show(Violation::SumsDiffer, &|run| run.state.sums[sum] = Some(99));
    }
    show(Violation::Outstanding, &|run| {
        run.state.outstanding.push("pending: user-00".to_owned());
    });
    show(Violation::PartPromise, &|run| {
        run.during_run.add(Violation::PartPromise, "too late");
    });
    show(Violation::EndedByItself, &|run| {
        run.state.ended.push("replica-0 ended".to_owned());
    });
    show(Violation::WrongAnswer, &|run| {
        run.during_run.add(Violation::WrongAnswer, "500");
    });
    for violation in Violation::ALL {
        assert!(shown.contains(&violation), "{violation:?} is not tested");
    }
    answers();
}

/// Checks that after a loss every promise holds, except for reads during the loss.
fn losses(show: &mut impl FnMut(Violation, &dyn Fn(&mut Run))) {
    let mut lossy = Run::clean();
    lossy.lose(65, 90);
    lossy.add(Act::Read, 70, Outcome::NotFound);
    lossy.add(Act::Delete, 75, Outcome::NotFound);
    lossy.add(Act::Read, 80, Outcome::Seen(avatar(1)));
    let verdict = lossy.judge();
    assert!(
        verdict.is_clean(),
        "reads during a loss may show older avatars:\n{verdict}"
    );

    show(Violation::VersionTwice, &|run| {
        run.lose(65, 90);
        let mut same = avatar(3);
        same.version = 2;
        run.upload(3, 70, Outcome::Uploaded(same.clone()));
        run.make_current(same);
    });
    show(Violation::VersionBackwards, &|run| {
        run.lose(65, 90);
        let mut fallen = avatar(3);
        fallen.version = 0;
        run.upload(3, 70, Outcome::Uploaded(fallen));
    });
    show(Violation::UploadLost, &|run| {
        run.forget();
        run.lose(65, 90);
    });
    show(Violation::UploadLost, &|run| {
        run.lose(65, 90);
        run.add(Act::Read, 95, Outcome::NotFound);
    });
    show(Violation::VersionBackwards, &|run| {
        run.lose(65, 90);
        let mut older = avatar(9);
        older.version = 0;
        run.add(Act::Read, 95, Outcome::Seen(older));
    });
    show(Violation::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.forget();
        run.lose(32, 90);
        run.add(Act::Read, 95, Outcome::Seen(avatar(1)));
    });
}

/// Checks that answers that the API defines are accepted, and all others are reported.
fn answers() {
    let upload = Act::Upload {
        width: 100,
        height: 1,
    };
    let later = ("retry-after", "1");
    let problem = |code: &str| format!(r#"{{"code":"{code}"}}"#);
    let unavailable = problem("storage_unavailable");
    let starting = r#"{"code":"storage_unavailable","detail":"the service is starting and waits for its store"}"#;
    let right: [(Act, u16, &str, Headers<'_>); 4] = [
        (Act::Delete, 200, "{}", &[]),
        (Act::Read, 404, &problem("avatar_not_found"), &[]),
        (upload, 503, &unavailable, &[later]),
        (Act::Read, 503, starting, &[later]),
    ];
    for (act, status, body, headers) in right {
        let (_, wrong) = classify(act, &answer(status, body, headers));
        assert_eq!(wrong, None);
    }
    let wrong: [(Act, u16, &str, Headers<'_>); 8] = [
        (upload, 500, &problem("internal"), &[]),
        // `Retry-After` is missing or is not a number of seconds.
        (upload, 503, &unavailable, &[]),
        (upload, 503, &unavailable, &[("retry-after", "soon")]),
        // The answer does not fit the request, lacks its content, or has a wrong code.
        (Act::Read, 409, &problem("superseded"), &[]),
        (Act::Read, 503, &unavailable, &[later]),
        (upload, 200, "{}", &[]),
        (Act::Read, 404, &problem("not_found"), &[]),
        (upload, 503, &problem("teapot"), &[later]),
    ];
    for (act, status, body, headers) in wrong {
        let (_, wrong) = classify(act, &answer(status, body, headers));
        assert!(wrong.is_some(), "{act:?}: {status} {body}");
    }
    let mut nameless = answer(200, "{}", &[]);
    nameless.headers.remove("x-request-id");
    assert!(classify(Act::Delete, &nameless).1.is_some());
}

fn answer(status: u16, body: &str, headers: Headers<'_>) -> Answer {
    let all = headers.iter().chain([&("x-request-id", "some")]);
    let named = |(name, value): &(&'static str, &'static str)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    Answer {
        status,
        headers: all.map(named).collect::<HeaderMap>(),
        body: body.as_bytes().to_vec(),
    }
}

impl Run {
    /// A run without violations: one avatar is uploaded, read and deleted, another is uploaded and
    /// read.
    fn clean() -> Self {
        let mut run = Self {
            during_run: Verdict::default(),
            ops: Vec::new(),
            state: FinalState::default(),
        };
        run.upload(1, 10, Outcome::Uploaded(avatar(1)));
        run.add(Act::Read, 20, Outcome::Seen(avatar(1)));
        run.add(Act::Delete, 30, Outcome::Deleted);
        run.upload(2, 50, Outcome::Uploaded(avatar(2)));
        run.add(Act::Read, 60, Outcome::Seen(avatar(2)));
        run.make_current(avatar(2));
        run
    }

    fn judge(&self) -> Verdict {
        judge(self.during_run.clone(), &self.ops, &self.state)
    }

    /// Adds an operation that begins at this minute and takes half a second.
    fn add(&mut self, act: Act, minute: u64, outcome: Outcome) {
        self.ops.push(Op {
            subject: SUBJECT.to_owned(),
            act,
            begun: at(minute),
            ended: at(minute) + Duration::from_millis(500),
            outcome,
        });
    }

    /// Adds an upload of the picture of this avatar.
    fn upload(&mut self, number: u32, minute: u64, outcome: Outcome) {
        let (width, height) = (100, number);
        self.add(Act::Upload { width, height }, minute, outcome);
    }

    /// Adds a loss: the catalog has an older state from the first minute until the second one.
    fn lose(&mut self, begun: u64, rebuilt: u64) {
        self.state.losses.push(at(begun)..at(rebuilt));
    }

    /// Makes this avatar current at the end, with all its objects.
    fn make_current(&mut self, avatar: Avatar) {
        self.state.objects = avatar.images.clone();
        let name = format!("private/avatars/{}/manifest.json", avatar.id);
        self.state.objects.insert(name, 9);
        self.state.sums = [1, 1, avatar.images.values().sum()].map(Some);
        self.state.reported = vec![BTreeMap::from([(SUBJECT.to_owned(), Some(avatar))]); 2];
    }

    /// Makes the final state empty.
    fn forget(&mut self) {
        let reported = vec![BTreeMap::from([(SUBJECT.to_owned(), None)]); 2];
        let losses = std::mem::take(&mut self.state.losses);
        self.state = FinalState {
            reported,
            losses,
            ..FinalState::default()
        };
    }
}

/// The minutes lie further apart than the age of what a read may show.
fn at(minute: u64) -> Duration {
    Duration::from_mins(minute)
}

fn id(number: u32) -> String {
    format!("{number:026}")
}

pub(crate) fn avatar(number: u32) -> Avatar {
    Avatar {
        id: id(number),
        version: u64::from(number),
        dimensions: format!("100x{number}"),
        images: BTreeMap::from([(image(number), 7)]),
    }
}

fn image(number: u32) -> String {
    format!("public/avatars/{}/medium.webp", id(number))
}

fn manifest(number: u32) -> String {
    format!("private/avatars/{}/manifest.json", id(number))
}
