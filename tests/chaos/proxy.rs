//! A network that fails on demand: a TCP proxy for the link from one program to another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The link works.
    Pass,
    /// Data are delayed by this time, in each direction.
    Delay(Duration),
    /// Open connections and new connections are reset.
    Reset,
    /// The link is silent: no data pass, and no connection ends. Data that were sent arrive when
    /// the link works again, even if the sender has closed its connection, as with TCP
    /// retransmission.
    Blackhole,
    /// Each connection carries this many more bytes and is then reset.
    Cut(usize),
}

/// The state of the link, and the number of earlier changes.
#[derive(Clone, Copy)]
struct State {
    link: Link,
    change: u64,
}

/// A listener that forwards connections to another address.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a working link to `to`. The server at `to` need not run yet.
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State {
            link: Link::Pass,
            change: 0,
        });
        let task = tokio::spawn(listen(listener, to, watched));
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the state of the link for open and for new connections.
    pub(crate) fn set(&self, link: Link) {
        self.state.send_modify(|state| {
            state.link = link;
            state.change += 1;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, to: SocketAddr, state: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        connections.spawn(connect(client, to, state.clone()));
        while connections.try_join_next().is_some() {}
    }
}

/// The connection was reset, by one of its sides or by the proxy.
struct Disconnected;

async fn connect(client: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) {
    // If the connection ends early, both sides see a reset.
    let _ = client.set_zero_linger();
    let _ = client.set_nodelay(true);
    if open(&mut state).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else {
        return;
    };
    let _ = server.set_zero_linger();
    let _ = server.set_nodelay(true);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (to_client, to_server) = (WriteSide(Some(to_client)), WriteSide(Some(to_server)));
    let carried = Arc::new(Carried::default());
    let there = pump(from_client, to_server, state.clone(), Arc::clone(&carried));
    let back = pump(from_server, to_client, state, carried);
    // Both directions end in order, or the first error ends both.
    let _ = tokio::try_join!(there, back);
}

/// Waits while the link is silent.
async fn open(state: &mut watch::Receiver<State>) -> Result<State, Disconnected> {
    let state = state.wait_for(|state| state.link != Link::Blackhole).await;
    match state.map(|state| *state) {
        Ok(State {
            link: Link::Reset, ..
        })
        | Err(_) => Err(Disconnected),
        Ok(state) => Ok(state),
    }
}

/// The number of bytes that a connection carried in both directions since a change of the link. The
/// two directions notice a change at different moments, so the count belongs to a numbered change.
#[derive(Default)]
struct Carried(Mutex<(u64, usize)>);

impl Carried {
    /// Adds `bytes` since `change`. Returns the number of bytes before them.
    fn add(&self, change: u64, bytes: usize) -> usize {
        let mut carried = self.0.lock().unwrap();
        if carried.0 < change {
            *carried = (change, 0);
        }
        let before = carried.1;
        carried.1 += bytes;
        before
    }
}

/// The write half of a connection. Dropping it resets the connection instead of closing it in
/// order.
struct WriteSide(Option<OwnedWriteHalf>);

impl WriteSide {
    fn get(&mut self) -> Result<&mut OwnedWriteHalf, Disconnected> {
        self.0.as_mut().ok_or(Disconnected)
    }
}

impl Drop for WriteSide {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

/// Forwards one direction of a connection until its end.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: WriteSide,
    mut state: watch::Receiver<State>,
    carried: Arc<Carried>,
) -> Result<(), Disconnected> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        open(&mut state).await?;
        let read = tokio::select! {
            changed = state.changed() => {
                changed.map_err(|_| Disconnected)?;
                continue;
            }
            read = from.read(&mut piece) => read.map_err(|_| Disconnected)?,
        };
        let mut left = read;
        let State { link, change } = open(&mut state).await?;
        match link {
            Link::Delay(by) => tokio::time::sleep(by).await,
            Link::Cut(after) => {
                let before = carried.add(change, read);
                left = read.min(after.saturating_sub(before));
            }
            _ => {}
        }
        let written = to.get()?.write_all(&piece[..left]).await;
        written.map_err(|_| Disconnected)?;
        if left < read {
            return Err(Disconnected);
        }
        if read == 0 {
            // This direction has ended; the other may still carry an answer.
            return to.get()?.shutdown().await.map_err(|_| Disconnected);
        }
    }
}

/// Checks that each state of a link has its effect on connections.
pub(crate) async fn self_test() {
    let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = echo.local_addr().unwrap();
    let (heard, mut said) = tokio::sync::mpsc::unbounded_channel();
    let server = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut socket, _) = echo.accept().await.unwrap();
            let heard = heard.clone();
            connections.spawn(async move {
                let mut piece = [0; 1024];
                while let Ok(read @ 1..) = socket.read(&mut piece).await {
                    let _ = heard.send(piece[..read].to_vec());
                    let _ = socket.write_all(&piece[..read]).await;
                }
            });
        }
    });
    let proxy = Proxy::start(to).await;
    let limit = Duration::from_secs(5);
    let ask = async |socket: &mut TcpStream, text: &[u8]| {
        let mut answer = vec![0; text.len()];
        socket.write_all(text).await?;
        socket.read_exact(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let dial = async || TcpStream::connect(proxy.address()).await.unwrap();

    let mut socket = dial().await;
    assert_eq!(ask(&mut socket, b"pass").await.unwrap(), b"pass");

    proxy.set(Link::Delay(Duration::from_millis(60)));
    let begun = tokio::time::Instant::now();
    assert_eq!(ask(&mut socket, b"delay").await.unwrap(), b"delay");
    assert!(
        begun.elapsed() >= Duration::from_millis(120),
        "both directions are delayed"
    );

    proxy.set(Link::Cut(6));
    let mut answer = Vec::new();
    socket.write_all(b"cuts").await.unwrap();
    let cut = tokio::time::timeout(limit, socket.read_to_end(&mut answer)).await;
    assert!(
        cut.unwrap().is_err(),
        "the connection is reset after six bytes"
    );
    assert!(answer.len() <= 2, "{answer:?}");

    proxy.set(Link::Pass);
    let mut socket = dial().await;
    ask(&mut socket, b"again").await.unwrap();
    proxy.set(Link::Reset);
    assert!(
        socket.read_u8().await.is_err(),
        "an open connection is reset"
    );
    let reset = match TcpStream::connect(proxy.address()).await {
        Ok(mut socket) => ask(&mut socket, b"new").await.is_err(),
        Err(_) => true,
    };
    assert!(reset, "a new connection is reset");

    proxy.set(Link::Pass);
    let mut socket = dial().await;
    ask(&mut socket, b"open").await.unwrap();
    while said.try_recv().is_ok() {}
    proxy.set(Link::Blackhole);
    socket.write_all(b"late").await.unwrap();
    drop(socket);
    let heard = tokio::time::timeout(Duration::from_millis(200), said.recv()).await;
    assert!(heard.is_err(), "no data pass");
    proxy.set(Link::Pass);
    let heard = tokio::time::timeout(limit, said.recv()).await;
    assert_eq!(
        heard.unwrap().unwrap(),
        b"late",
        "the data arrive after the sender has closed its connection"
    );
    server.abort();
}
