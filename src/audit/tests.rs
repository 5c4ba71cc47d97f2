use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::telemetry::Exposition;

fn record<'a>(request_id: &'a str, subject: &'a SubjectId) -> AuditRecord<'a> {
    AuditRecord {
        actor: "a \"service\"\n",
        role: "service",
        subject: Some(subject),
        action: "upload",
        avatar: Some(AvatarId::from_bytes([0; 16])),
        viewer: None,
        request_id: Some(request_id),
        outcome: "done",
    }
}

fn subject() -> SubjectId {
    SubjectId::new("42").unwrap()
}

/// The request ids of the lines of a file.
fn request_ids(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let id_of = |line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["request_id"].as_str().unwrap().to_owned()
    };
    text.lines().map(id_of).collect()
}

fn count(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.text(Exposition::Prometheus).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn lost(metrics: &Metrics) -> u64 {
    count(metrics, "cameo_audit_records_lost_total ")
}

/// Reopens the file and waits until that is done.
async fn reopen(audit: &AuditLog) {
    audit.reopen();
    audit.flush().await;
}

#[tokio::test]
async fn a_line_has_every_field_and_the_file_is_readable_by_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let audit = AuditLog::open(Some(&path), &Metrics::new()).unwrap();
    let (subject, viewer) = (subject(), SubjectId::new("43").unwrap());
    audit.record(&record("1", &subject));
    audit.record(&AuditRecord {
        viewer: Some(&viewer),
        ..AuditRecord::of_system("gc", "failed")
    });
    audit.flush().await;
    let text = fs::read_to_string(&path).unwrap();
    let (first, second) = text.split_once('\n').unwrap();
    let time: String = first.chars().skip(9).take(24).collect();
    assert!(time.ends_with('Z') && time[..4].parse::<u32>().unwrap() > 2024);
    assert_eq!(
        first,
        format!(
            "{{\"time\":\"{time}\",\"actor\":\"a \\\"service\\\"\\n\",\"role\":\"service\",\
             \"subject\":\"42\",\"action\":\"upload\",\
             \"avatar_id\":\"aaaaaaaaaaaaaaaaaaaaaaaaaa\",\"request_id\":\"1\",\"outcome\":\"done\"}}"
        )
    );
    assert!(
        second.ends_with(
            "\"actor\":\"system\",\"role\":\"system\",\"subject\":null,\"action\":\"gc\",\
             \"avatar_id\":null,\"viewer\":\"43\",\"request_id\":null,\"outcome\":\"failed\"}\n"
        ),
        "{second}"
    );
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_rotation_loses_no_record_and_later_records_go_to_the_new_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let rotated = folder.path().join("audit.log.1");
    let metrics = Metrics::new();
    let audit = AuditLog::open(Some(&path), &metrics).unwrap();
    let subject = subject();
    audit.record(&record("1", &subject));
    audit.flush().await;
    fs::rename(&path, &rotated).unwrap();
    audit.record(&record("2", &subject));
    audit.flush().await;
    reopen(&audit).await;
    audit.record(&record("3", &subject));
    audit.flush().await;
    assert_eq!(request_ids(&rotated), ["1", "2"]);
    assert_eq!(request_ids(&path), ["3"]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Without the folder the file cannot be opened again, so the one that is open stays in use.
    let moved = tempfile::tempdir().unwrap();
    let moved = moved.path().join("moved");
    fs::rename(folder.path(), &moved).unwrap();
    reopen(&audit).await;
    audit.record(&record("4", &subject));
    audit.flush().await;
    assert_eq!(request_ids(&moved.join("audit.log")), ["3", "4"]);
    assert_eq!(count(&metrics, "cameo_audit_reopen_failures_total "), 1);
    assert_eq!(lost(&metrics), 0);
}

#[tokio::test]
async fn every_record_is_in_the_file_or_counted_and_a_record_never_waits_for_the_disk() {
    const THREADS: usize = 4;
    const RECORDS: usize = 25_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let metrics = Metrics::new();
    let audit = AuditLog::open(Some(&path), &metrics).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let audit = &audit;
            scope.spawn(move || {
                let subject = subject();
                for number in 0..RECORDS {
                    audit.record(&record(&format!("{thread}-{number}"), &subject));
                }
            });
        }
    });
    audit.flush().await;
    let ids = request_ids(&path);
    assert_eq!(
        ids.len() as u64 + lost(&metrics),
        (THREADS * RECORDS) as u64
    );
    // The lines of one thread are in their order, and none is there twice.
    for thread in 0..THREADS {
        let of_thread = ids
            .iter()
            .filter_map(|id| id.strip_prefix(&format!("{thread}-")));
        let numbers: Vec<usize> = of_thread.map(|number| number.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|one, other| one < other));
    }
}

#[tokio::test]
async fn a_full_disk_loses_records_only_in_the_file_and_counts_them() {
    let metrics = Metrics::new();
    let audit = AuditLog::open(Some(Path::new("/dev/full")), &metrics).unwrap();
    let begun = Instant::now();
    for _ in 0..3 {
        audit.record(&record("1", &subject()));
    }
    audit.flush().await;
    assert_eq!(lost(&metrics), 3);
    assert!(begun.elapsed() < Duration::from_secs(5));

    let audit = AuditLog::open_direct(Some(Path::new("/dev/full"))).unwrap();
    audit.record(&record("1", &subject()));
    let lost = audit.take_lost();
    let cause = lost.cause.unwrap();
    assert_eq!(
        (lost.records, cause.kind()),
        (1, io::ErrorKind::StorageFull)
    );
    assert_eq!(audit.take_lost().records, 0);
}

#[test]
fn records_that_are_queued_when_the_last_owner_goes_are_still_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let audit = AuditLog::open(Some(&path), &Metrics::new()).unwrap();
    for number in 0..1000 {
        audit.record(&record(&number.to_string(), &subject()));
    }
    drop(audit);
    let begun = Instant::now();
    while fs::read_to_string(&path).unwrap().lines().count() < 1000 {
        assert!(begun.elapsed() < Duration::from_secs(10));
        std::thread::yield_now();
    }
}

#[test]
fn a_path_that_cannot_be_appended_to_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let missing = folder.path().join("missing/audit.log");
    for path in [folder.path(), &pipe, &missing] {
        let refused = AuditLog::open(Some(path), &Metrics::new()).err().unwrap();
        let said = refused.to_string();
        assert!(
            said.contains("telemetry.audit_file") && said.contains(path.to_str().unwrap()),
            "{said}"
        );
        assert!(AuditLog::open_direct(Some(path)).is_err());
        assert!(probe(path).is_err(), "{}", path.display());
    }
}

#[test]
fn a_probe_leaves_nothing_behind_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    probe(&path).unwrap();
    assert!(!path.exists());
    fs::write(&path, "a line\n").unwrap();
    probe(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a line\n");
}
