//! Clients that do not read, do not write, or only connect; and the start and end of the program.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::support::photos::PORTRAIT;
use crate::support::{Program, TestService};

fn address(service: &TestService) -> String {
    service.url().trim_start_matches("http://").to_owned()
}

/// Sends a GET request on a new connection and returns the whole answer, or an empty text if the
/// server did not answer.
async fn get(address: &str, path: &str) -> String {
    let answer = async {
        let mut stream = TcpStream::connect(address).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: cameo\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
    let answer = answer.expect("an answer in time").unwrap_or_default();
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    let status = answer
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status.map_or(0, |status| status.parse().unwrap())
}

/// The path of a large answer that needs no token.
const LARGE: &str = "/docs/swagger-ui-bundle.js";
/// How often a client requests it.
const REQUESTS: usize = 80;

/// A client that requests large answers and does not read them.
async fn client_that_does_not_read(address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let request = format!("GET {LARGE} HTTP/1.1\r\nHost: cameo\r\n\r\n");
    stream
        .write_all(request.repeat(REQUESTS).as_bytes())
        .await
        .unwrap();
    stream
}

/// The number of bytes that the server still sends before it closes the connection.
async fn bytes_until_closed(mut stream: TcpStream) -> usize {
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer));
        match read.await.expect("the connection is closed") {
            Ok(0) | Err(_) => return bytes,
            Ok(read) => bytes += read,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_its_answer_is_disconnected() {
    let service = TestService::start().await;
    let whole = service.anonymous().get(LARGE).await.body.len();
    let client = client_that_does_not_read(&address(&service)).await;
    // The service disconnects a client that has read nothing for 20 s.
    tokio::time::sleep(Duration::from_secs(23)).await;
    let bytes = bytes_until_closed(client).await;
    assert!(
        bytes < whole * REQUESTS / 2,
        "{bytes} of {}",
        whole * REQUESTS
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_do_not_delay_the_shutdown() {
    let service = TestService::start().await;
    let address = address(&service);
    let clients = [
        client_that_does_not_read(&address).await,
        client_that_does_not_read(&address).await,
    ];
    // This client has sent only a part of a request head.
    let mut silent = TcpStream::connect(&address).await.unwrap();
    silent.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let (ended, _data) = service.stop();
    ended.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    drop(clients);
}

/// Begins an upload: sends its head and this many bytes of its body, and no more.
async fn begin_upload(service: &TestService, user: &str, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(address(service)).await.unwrap();
    let token = service.token(user, &[]);
    let head = format!(
        "POST /api/v1/users/{user}/avatar HTTP/1.1\r\nHost: cameo\r\n\
         Authorization: Bearer {token}\r\nContent-Type: image/jpeg\r\n\
         Content-Length: 5242880\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![0; sent]).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_are_answered_at_the_connection_limit() {
    let variables = [("CAMEO_HTTP__MAX_CONNECTIONS", "4")];
    let service = TestService::start_with(&variables).await;
    let address = address(&service);
    let mut busy = Vec::new();
    for user in ["1", "2", "3", "4"] {
        busy.push(begin_upload(&service, user, 1000).await);
    }
    // More idle connections follow than the reserve for health checks allows.
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    for path in ["/health/live", "/health/ready"] {
        let answer = get(&address, path).await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
    let refused = get(&address, "/api/v1/users/42/avatar").await;
    assert_eq!(status(&refused), 503, "{refused}");
    let refused = refused.to_ascii_lowercase();
    for part in [
        "\"overloaded\"",
        "retry-after: 2",
        "connection: close",
        "x-request-id: ",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    // When connections are closed, every request is answered again.
    drop((busy, idle));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = get(&address, "/api/v1/users/42/avatar").await;
    assert_eq!(status(&answer), 404, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_connection_limit_an_idle_connection_is_closed_for_a_new_one() {
    let variables = [("CAMEO_HTTP__MAX_CONNECTIONS", "4")];
    let service = TestService::start_with(&variables).await;
    let address = address(&service);
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(&address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    service.owner("42").upload("42", PORTRAIT).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_do_not_block_the_uploads_of_others() {
    // Half of the budget is for bodies: six of 5 MiB fit. The queue timeout is much shorter than
    // the time after which a body counts as slow.
    let variables = [
        ("CAMEO_PROCESSING__MEMORY_BUDGET", "64MiB"),
        ("CAMEO_PROCESSING__QUEUE_TIMEOUT", "2s"),
    ];
    let service = TestService::start_with(&variables).await;
    let mut slow = Vec::new();
    for user in 0..11 {
        for _ in 0..2 {
            slow.push(begin_upload(&service, &format!("slow-{user}"), 20_000).await);
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    // The service reports the wrong type only after it has read the whole body.
    let whole = service
        .owner("42")
        .put_bare("42", "", vec![0xff; 5 << 20])
        .await;
    assert_eq!(whole.problem(), (400, "unsupported_format".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_upload_of_a_user_waits_and_an_upload_of_another_user_does_not() {
    let variables = [("CAMEO_PROCESSING__QUEUE_TIMEOUT", "1s")];
    let service = TestService::start_with(&variables).await;
    let first = begin_upload(&service, "42", 1000).await;
    let _second = begin_upload(&service, "42", 1000).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let owner = service.owner("42");
    let third = owner.upload("42", PORTRAIT).await;
    assert_eq!(third.problem(), (503, "overloaded".to_owned()));
    service.owner("43").upload("43", PORTRAIT).await.ok();
    // Uploads by a service for the same user count for the service.
    service.service().upload("42", PORTRAIT).await.ok();
    drop(first);
    owner.upload("42", PORTRAIT).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_preamble_is_refused_while_it_arrives() {
    let service = TestService::start().await;
    let token = service.token("42", &[]);
    for begin in ["", "--x\r\nX-Filler: "] {
        let mut stream = TcpStream::connect(address(&service)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head = format!(
            "POST /api/v1/users/42/avatar HTTP/1.1\r\nHost: cameo\r\n\
             Authorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=x\r\n\
             Content-Length: 5000000\r\n\r\n{begin}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut reading, mut writing) = stream.into_split();
        let trickle = tokio::spawn(async move {
            // This is fast enough, so the rate is no reason to refuse the body.
            for _ in 0..1100 {
                if writing.write_all(&[b'p'; 16]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            writing
        });
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(20), reading.read_exact(&mut answer));
        read.await.expect("an answer in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "{begin:?}");
        drop(trickle.await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_128_open_files_idle_connections_leave_enough_files_for_uploads() {
    let program = Program::spawn("ulimit -n 128; cameo", &[])
        .await
        .ready()
        .await;
    let mut idle = Vec::new();
    for _ in 0..140 {
        idle.push(TcpStream::connect(&program.address).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let client = crate::support::Client::new(
        &format!("http://{}", program.address),
        Some(program.token("42").await),
    );
    for _ in 0..3 {
        client.upload("42", PORTRAIT).await.ok();
    }
    assert_eq!(status(&get(&program.address, "/health/ready").await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_limit() {
    let program = Program::spawn("ulimit -S -n 64; cameo", &[])
        .await
        .ready()
        .await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id().unwrap()));
    let limits = limits.unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let figures: Vec<_> = files.split_whitespace().collect();
    assert_eq!(figures[3], figures[4], "{files}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_waits_for_redis_is_live_but_not_ready_and_ends_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let variables = [
        ("CAMEO_CATALOG__KIND", "redis"),
        ("CAMEO_CATALOG__REDIS__URL", &*url),
    ];
    let mut program = Program::spawn("cameo", &variables).await.listening().await;
    let live = get(&program.address, "/health/live").await;
    assert_eq!(status(&live), 200, "{live}");
    let ready = get(&program.address, "/health/ready").await;
    assert_eq!(status(&ready), 503, "{ready}");
    assert!(ready.contains("waiting for the catalog"), "{ready}");
    let other = get(&program.address, "/api/v1/users/42/avatar").await;
    assert_eq!(status(&other), 503, "{other}");
    assert!(other.contains("catalog_unavailable"), "{other}");
    assert!(
        other.to_ascii_lowercase().contains("retry-after: "),
        "{other}"
    );
    program.terminate();
    let (after, code) = program.end().await;
    assert!(after < Duration::from_secs(3), "{after:?}");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_sigterm_readiness_reports_draining_before_connections_are_refused() {
    let variables = [("CAMEO_LIFECYCLE__DRAIN", "10s")];
    let mut program = Program::spawn("cameo", &variables).await.ready().await;
    assert_eq!(status(&get(&program.address, "/health/ready").await), 200);
    program.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let ready = get(&program.address, "/health/ready").await;
    assert!(
        status(&ready) == 503 && ready.contains("draining"),
        "{ready}"
    );
    assert_eq!(
        status(&get(&program.address, "/api/v1/users/42/avatar").await),
        404
    );
    let (after, code) = program.end().await;
    assert!(after < Duration::from_secs(5), "{after:?}");
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_program_at_once() {
    let mut program = Program::spawn("cameo", &[]).await.ready().await;
    let token = program.token("42").await;
    let mut upload = TcpStream::connect(&program.address).await.unwrap();
    let head = format!(
        "POST /api/v1/users/42/avatar HTTP/1.1\r\nHost: cameo\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\nxxxx"
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    program.terminate();
    // The service waits some seconds for the body of this upload.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "the program waits for the upload"
    );
    program.terminate();
    let (after, code) = program.end().await;
    assert!(after < Duration::from_secs(2), "{after:?}");
    assert_eq!(code, Some(1));
}

/// A pipe without a writer simulates a disk that does not answer: opening it never returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_whose_disk_does_not_answer_ends_within_the_drain() {
    let variables = [("CAMEO_LIFECYCLE__DRAIN", "2s")];
    let command = "mkfifo \"$CAMEO_DATA_DIR/jwt-secret\"; cameo";
    let mut program = Program::spawn(command, &variables).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        program.child.try_wait().unwrap().is_none(),
        "the program waits for the file"
    );
    program.terminate();
    let (after, code) = program.end().await;
    assert!(
        after >= Duration::from_secs(1) && after < Duration::from_secs(4),
        "{after:?}"
    );
    assert_eq!(code, Some(1));
}
