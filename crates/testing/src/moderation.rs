//! A moderation service: an HTTP server that keeps what it gets, and misbehaves on request.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How the server answers.
#[derive(Clone, Debug)]
pub enum Judgement {
    /// `{"verdict": "allow"}`
    Allow,
    /// `{"verdict": "reject"}` with this reason.
    Reject(&'static str),
    /// 200 with this body.
    Body(String),
    /// This status with an `allow` in the body, and these header lines.
    Status(u16, String),
    /// No answer. The connection stays open.
    Hang,
    /// The head of an answer, and the connection ends in the middle of the body.
    BreakOff,
    /// A body without an end.
    Endless,
}

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// Its method and path.
    pub line: String,
    /// Its headers. The names are in lower case.
    pub headers: HashMap<String, String>,
    /// Its body.
    pub body: Vec<u8>,
}

struct Shared {
    judgement: Judgement,
    /// A judgement for requests with this content type only.
    of_type: Option<(String, Judgement)>,
    submitted: Vec<Submitted>,
    under_way: usize,
}

/// A running server. Dropping it ends it and its connections.
pub struct ModerationServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _server: JoinSet<()>,
}

impl ModerationServer {
    /// Starts a server that allows every picture.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            judgement: Judgement::Allow,
            of_type: None,
            submitted: Vec::new(),
            under_way: 0,
        }));
        let mut server = JoinSet::new();
        let accepted = Arc::clone(&shared);
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&accepted)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            shared,
            _server: server,
        }
    }

    /// The address for `moderation.url`.
    pub fn url(&self) -> String {
        format!("http://{}/check?key=of-the-query", self.address)
    }

    /// Answers so from now on.
    pub fn set(&self, judgement: Judgement) {
        self.shared.lock().unwrap().judgement = judgement;
    }

    /// Answers pictures whose content type is `kind` so from now on.
    pub fn set_for(&self, kind: &str, judgement: Judgement) {
        self.shared.lock().unwrap().of_type = Some((kind.to_owned(), judgement));
    }

    /// The requests since the last call.
    pub fn take(&self) -> Vec<Submitted> {
        std::mem::take(&mut self.shared.lock().unwrap().submitted)
    }

    /// The number of requests whose connection is open and that have no complete answer.
    pub fn under_way(&self) -> usize {
        self.shared.lock().unwrap().under_way
    }
}

impl Submitted {
    /// Whether the signature is right for this secret. Python's `hmac` decides, which shares no code
    /// with the service.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        const CHECK: &str = "
import base64, hmac, sys
secret, message, stamp, signatures = sys.argv[1:]
key = base64.b64decode(secret.removeprefix('whsec_'))
body = sys.stdin.buffer.read()
mac = hmac.new(key, f'{message}.{stamp}.'.encode() + body, 'sha256').digest()
sys.exit(0 if 'v1,' + base64.b64encode(mac).decode() in signatures.split(' ') else 3)
";
        let header = |name: &str| self.headers.get(name).cloned().unwrap_or_default();
        let mut python = Command::new("python3")
            .args(["-c", CHECK, secret])
            .args(["webhook-id", "webhook-timestamp", "webhook-signature"].map(header))
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut input = python.stdin.take().unwrap();
        input.write_all(&self.body).unwrap();
        drop(input);
        match python.wait().unwrap().code() {
            Some(0) => true,
            Some(3) => false,
            other => panic!("python3 ended with {other:?}"),
        }
    }
}

/// Counts a request as under way until it is dropped.
struct UnderWay(Arc<Mutex<Shared>>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap().under_way -= 1;
    }
}

/// Answers the one request of a connection.
async fn answer(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let Some(submitted) = read(&mut stream).await else {
        return;
    };
    let (judgement, _under_way) = {
        let mut state = shared.lock().unwrap();
        let kind = submitted.headers.get("content-type");
        let of_type = state.of_type.clone();
        let special = of_type.filter(|(special, _)| kind == Some(special));
        state.submitted.push(submitted);
        state.under_way += 1;
        let judgement = special.map_or(state.judgement.clone(), |(_, judgement)| judgement);
        drop(state);
        (judgement, UnderWay(Arc::clone(&shared)))
    };
    let whole = |status: u16, lines: &str, body: &str| {
        let length = body.len();
        format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\n{lines}content-length: \
             {length}\r\n\r\n{body}"
        )
    };
    let allow = "{\"verdict\": \"allow\", \"score\": 0.1}";
    let text = match judgement {
        Judgement::Allow => whole(200, "", allow),
        Judgement::Reject(reason) => {
            let body = serde_json::json!({"verdict": "reject", "reason": reason});
            whole(200, "", &body.to_string())
        }
        Judgement::Body(body) => whole(200, "", &body),
        Judgement::Status(status, lines) => whole(status, &lines, allow),
        Judgement::Hang => {
            // Ends when the client closes the connection.
            let _ = stream.read(&mut [0]).await;
            return;
        }
        Judgement::BreakOff => {
            "HTTP/1.1 200 -\r\ncontent-length: 90\r\n\r\n{\"verdict\": ".to_owned()
        }
        Judgement::Endless => {
            let head = "HTTP/1.1 200 -\r\ncontent-type: application/json\r\n\r\n";
            let mut sent = stream.write_all(head.as_bytes()).await;
            while sent.is_ok() {
                sent = stream.write_all(&[b' '; 4096]).await;
            }
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
}

/// Reads a request; `None` if the client closes the connection before its end.
async fn read(stream: &mut TcpStream) -> Option<Submitted> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().unwrap();
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Submitted {
        line,
        headers,
        body,
    })
}
