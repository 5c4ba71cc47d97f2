//! Proof that the judgement can condemn: made-up runs, each with one promise broken.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::client::{Answer, Avatar};
use crate::history::{Act, Op, Outcome};
use crate::judgement::{Broken, Remains, Verdict, judge};
use crate::load::understand;

const SUBJECT: &str = "user-00";

type Headers<'a> = &'a [(&'static str, &'static str)];

/// A run that kept every promise, to be spoilt.
struct Run {
    on_the_way: Verdict,
    ops: Vec<Op>,
    remains: Remains,
}

/// Every promise is broken once or more, each in a run in which all others are kept, and is counted
/// as often; a run in which none is broken is clean.
pub(crate) fn self_test() {
    let clean = Run::clean();
    let verdict = clean.judge();
    assert!(verdict.is_clean(), "nothing is broken:\n{verdict}");

    let mut shown: Vec<Broken> = Vec::new();
    let mut show = |broken: Broken, spoil: &dyn Fn(&mut Run)| {
        let mut run = Run::clean();
        spoil(&mut run);
        let verdict = run.judge();
        for other in Broken::ALL {
            let wanted = usize::from(other == broken);
            assert_eq!(verdict.count(other), wanted, "{broken:?}:\n{verdict}");
        }
        assert!(!verdict.is_clean());
        shown.push(broken);
    };

    // What was acknowledged is not current; was not shown; its images went before their time.
    show(Broken::UploadLost, &|run| run.forget());
    show(Broken::UploadLost, &|run| {
        run.upload(3, 70, Outcome::Uploaded(avatar(3)));
    });
    show(Broken::UploadLost, &|run| {
        run.add(Act::Read, 55, Outcome::Nothing);
    });
    show(Broken::UploadLost, &|run| {
        run.remains.unreadable.push("404 medium".to_owned());
    });
    show(Broken::UploadLost, &|run| {
        let gone = "v2 is gone within its grace".to_owned();
        run.on_the_way.suspect(SUBJECT, at(50), gone);
    });
    // A deleted avatar is shown later; it is current in the end.
    show(Broken::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.forget();
        run.add(Act::Read, 40, Outcome::Seen(avatar(1)));
    });
    show(Broken::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.make_current(avatar(1));
    });
    // The version falls from an upload to a read, and to the next upload; it is given twice.
    show(Broken::VersionBackwards, &|run| {
        let mut fallen = avatar(9);
        fallen.version = 0;
        run.add(Act::Read, 70, Outcome::Seen(fallen));
    });
    show(Broken::VersionBackwards, &|run| {
        let mut fallen = avatar(3);
        fallen.version = 0;
        run.upload(3, 70, Outcome::Uploaded(fallen));
    });
    show(Broken::VersionTwice, &|run| {
        let mut same = avatar(3);
        same.version = 2;
        run.upload(3, 70, Outcome::Uploaded(same.clone()));
        run.make_current(same);
    });
    losses(&mut show);
    // One is there that was refused; that nobody sent; of somebody unknown.
    show(Broken::NeverUploaded, &|run| {
        run.upload(3, 70, Outcome::Refused("storage_unavailable".to_owned()));
        run.make_current(avatar(3));
    });
    show(Broken::NeverUploaded, &|run| run.make_current(avatar(4)));
    show(Broken::NeverUploaded, &|run| {
        for told in &mut run.remains.told {
            let mut other = avatar(5);
            other.images.clear();
            told.insert("user-99".to_owned(), Some(other));
        }
        run.remains.objects.insert(manifest(5), 9);
        run.remains.sums[0] = Some(2);
    });
    show(Broken::ReplicasDisagree, &|run| {
        run.remains.told[1].insert(SUBJECT.to_owned(), None);
    });
    show(Broken::Orphan, &|run| {
        run.remains.objects.insert(manifest(1), 9);
    });
    show(Broken::ObjectMissing, &|run| {
        run.remains.objects.remove(&manifest(2));
    });
    show(Broken::ObjectMissing, &|run| {
        run.remains.objects.insert(image(2), 99);
    });
    for sum in 0..3 {
        show(Broken::SumsDiffer, &|run| run.remains.sums[sum] = Some(99));
    }
    show(Broken::Outstanding, &|run| {
        run.remains.outstanding.push("pending: user-00".to_owned());
    });
    show(Broken::PartPromise, &|run| {
        run.on_the_way.add(Broken::PartPromise, "too late");
    });
    show(Broken::EndedByItself, &|run| {
        run.remains.ended.push("replica-0 ended".to_owned());
    });
    show(Broken::WrongAnswer, &|run| {
        run.on_the_way.add(Broken::WrongAnswer, "500");
    });
    for broken in Broken::ALL {
        assert!(shown.contains(&broken), "{broken:?} is never shown");
    }
    answers();
}

/// After a loss every promise holds that holds without one, except for what is read meanwhile.
fn losses(show: &mut impl FnMut(Broken, &dyn Fn(&mut Run))) {
    let mut lossy = Run::clean();
    lossy.lose(65, 90);
    lossy.add(Act::Read, 70, Outcome::Nothing);
    lossy.add(Act::Delete, 75, Outcome::Nothing);
    lossy.add(Act::Read, 80, Outcome::Seen(avatar(1)));
    let verdict = lossy.judge();
    assert!(verdict.is_clean(), "a loss shows older avatars:\n{verdict}");

    show(Broken::VersionTwice, &|run| {
        run.lose(65, 90);
        let mut same = avatar(3);
        same.version = 2;
        run.upload(3, 70, Outcome::Uploaded(same.clone()));
        run.make_current(same);
    });
    show(Broken::VersionBackwards, &|run| {
        run.lose(65, 90);
        let mut fallen = avatar(3);
        fallen.version = 0;
        run.upload(3, 70, Outcome::Uploaded(fallen));
    });
    show(Broken::UploadLost, &|run| {
        run.forget();
        run.lose(65, 90);
    });
    show(Broken::UploadLost, &|run| {
        run.lose(65, 90);
        run.add(Act::Read, 95, Outcome::Nothing);
    });
    show(Broken::VersionBackwards, &|run| {
        run.lose(65, 90);
        let mut older = avatar(9);
        older.version = 0;
        run.add(Act::Read, 95, Outcome::Seen(older));
    });
    show(Broken::DeletedReadable, &|run| {
        run.ops.truncate(3);
        run.forget();
        run.lose(32, 90);
        run.add(Act::Read, 95, Outcome::Seen(avatar(1)));
    });
}

/// Answers that the API has are understood, and everything else is told.
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
        let (_, wrong) = understand(act, &answer(status, body, headers));
        assert_eq!(wrong, None);
    }
    let wrong: [(Act, u16, &str, Headers<'_>); 8] = [
        (upload, 500, &problem("internal"), &[]),
        // Without Retry-After, or with one that is no number of seconds.
        (upload, 503, &unavailable, &[]),
        (upload, 503, &unavailable, &[("retry-after", "soon")]),
        // To another question, without what it is to bring, or with a code that is not its own.
        (Act::Read, 409, &problem("superseded"), &[]),
        (Act::Read, 503, &unavailable, &[later]),
        (upload, 200, "{}", &[]),
        (Act::Read, 404, &problem("not_found"), &[]),
        (upload, 503, &problem("teapot"), &[later]),
    ];
    for (act, status, body, headers) in wrong {
        let (_, wrong) = understand(act, &answer(status, body, headers));
        assert!(wrong.is_some(), "{act:?}: {status} {body}");
    }
    let mut nameless = answer(200, "{}", &[]);
    nameless.headers.remove("x-request-id");
    assert!(understand(Act::Delete, &nameless).1.is_some());
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
    /// One avatar was uploaded, read and deleted, another uploaded and read.
    fn clean() -> Self {
        let mut run = Self {
            on_the_way: Verdict::default(),
            ops: Vec::new(),
            remains: Remains::default(),
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
        judge(self.on_the_way.clone(), &self.ops, &self.remains)
    }

    /// Something that was done at this second, and took less than one.
    fn add(&mut self, act: Act, second: u64, outcome: Outcome) {
        self.ops.push(Op {
            subject: SUBJECT.to_owned(),
            act,
            begun: at(second),
            ended: at(second) + Duration::from_millis(500),
            outcome,
        });
    }

    /// The upload of the picture that this avatar comes from.
    fn upload(&mut self, number: u32, second: u64, outcome: Outcome) {
        let (width, height) = (100, number);
        self.add(Act::Upload { width, height }, second, outcome);
    }

    /// The catalog came back older at one second, and was rebuilt at the other.
    fn lose(&mut self, begun: u64, rebuilt: u64) {
        self.remains.losses.push(at(begun)..at(rebuilt));
    }

    /// Lets this be what remains, whole.
    fn make_current(&mut self, avatar: Avatar) {
        self.remains.objects = avatar.images.clone();
        let name = format!("private/avatars/{}/manifest.json", avatar.id);
        self.remains.objects.insert(name, 9);
        self.remains.sums = [1, 1, avatar.images.values().sum()].map(Some);
        self.remains.told = vec![BTreeMap::from([(SUBJECT.to_owned(), Some(avatar))]); 2];
    }

    /// Lets nothing remain.
    fn forget(&mut self) {
        let told = vec![BTreeMap::from([(SUBJECT.to_owned(), None)]); 2];
        let losses = std::mem::take(&mut self.remains.losses);
        self.remains = Remains {
            told,
            losses,
            ..Remains::default()
        };
    }
}

fn at(second: u64) -> Duration {
    Duration::from_secs(second)
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
