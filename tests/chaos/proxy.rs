//! A network that fails on demand: a TCP proxy on one way from one program to another.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How the way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Open.
    Pass,
    /// Every piece takes this much longer, in each direction.
    Delay(Duration),
    /// Every connection is reset, and so is every new one.
    Reset,
    /// Nothing comes through, and nobody is told. What was sent into it arrives when the way opens
    /// again, even where its sender has long given up and gone, as TCP's repetitions would have it.
    Blackhole,
    /// Each connection carries so many more bytes, then it is reset in the middle of whatever it
    /// was.
    Cut(usize),
}

/// How the way is, and how often that has changed before.
#[derive(Clone, Copy)]
struct State {
    way: Way,
    change: u64,
}

/// A listener that leads to another address.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// An open way to `to`, which need not be there yet.
    pub(crate) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State {
            way: Way::Pass,
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

    /// Makes the way so, for connections that are open and those to come.
    pub(crate) fn set(&self, way: Way) {
        self.state.send_modify(|state| {
            state.way = way;
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

/// Why a connection does not go on: it was reset, by whomever.
struct Broken;

async fn connect(client: TcpStream, to: SocketAddr, mut state: watch::Receiver<State>) {
    // Whatever ends the connection early ends it for both sides with a reset.
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
    // Both ended in order, or one broke, and the other with it.
    let _ = tokio::try_join!(there, back);
}

/// Waits until the way is open.
async fn open(state: &mut watch::Receiver<State>) -> Result<State, Broken> {
    let state = state.wait_for(|state| state.way != Way::Blackhole).await;
    match state.map(|state| *state) {
        Ok(State {
            way: Way::Reset, ..
        })
        | Err(_) => Err(Broken),
        Ok(state) => Ok(state),
    }
}

/// The bytes that a connection carried, both directions together, since a change of the way. Its
/// two directions notice the change at different moments, so the count says which one it follows.
#[derive(Default)]
struct Carried(Mutex<(u64, usize)>);

impl Carried {
    /// Counts `bytes` more since `change`; how many there were before them.
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

/// A side to write to that is reset where it is dropped: left to itself it would say goodbye first.
struct WriteSide(Option<OwnedWriteHalf>);

impl WriteSide {
    fn get(&mut self) -> Result<&mut OwnedWriteHalf, Broken> {
        self.0.as_mut().ok_or(Broken)
    }
}

impl Drop for WriteSide {
    fn drop(&mut self) {
        if let Some(half) = self.0.take() {
            half.forget();
        }
    }
}

/// Carries one direction of a connection to its end.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: WriteSide,
    mut state: watch::Receiver<State>,
    carried: Arc<Carried>,
) -> Result<(), Broken> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        open(&mut state).await?;
        let read = tokio::select! {
            changed = state.changed() => {
                changed.map_err(|_| Broken)?;
                continue;
            }
            read = from.read(&mut piece) => read.map_err(|_| Broken)?,
        };
        let mut left = read;
        let State { way, change } = open(&mut state).await?;
        match way {
            Way::Delay(by) => tokio::time::sleep(by).await,
            Way::Cut(after) => {
                let before = carried.add(change, read);
                left = read.min(after.saturating_sub(before));
            }
            _ => {}
        }
        let written = to.get()?.write_all(&piece[..left]).await;
        written.map_err(|_| Broken)?;
        if left < read {
            return Err(Broken);
        }
        if read == 0 {
            // This side is done; the other may still answer.
            return to.get()?.shutdown().await.map_err(|_| Broken);
        }
    }
}

/// What the run's faults stand on: each kind of way does to a connection what it says.
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

    proxy.set(Way::Delay(Duration::from_millis(60)));
    let begun = tokio::time::Instant::now();
    assert_eq!(ask(&mut socket, b"delay").await.unwrap(), b"delay");
    assert!(
        begun.elapsed() >= Duration::from_millis(120),
        "there and back"
    );

    proxy.set(Way::Cut(6));
    let mut answer = Vec::new();
    socket.write_all(b"cuts").await.unwrap();
    let cut = tokio::time::timeout(limit, socket.read_to_end(&mut answer)).await;
    assert!(cut.unwrap().is_err(), "reset after six bytes");
    assert!(answer.len() <= 2, "{answer:?}");

    proxy.set(Way::Pass);
    let mut socket = dial().await;
    ask(&mut socket, b"again").await.unwrap();
    proxy.set(Way::Reset);
    assert!(socket.read_u8().await.is_err(), "an open one is reset");
    let reset = match TcpStream::connect(proxy.address()).await {
        Ok(mut socket) => ask(&mut socket, b"new").await.is_err(),
        Err(_) => true,
    };
    assert!(reset, "a new one is reset");

    proxy.set(Way::Pass);
    let mut socket = dial().await;
    ask(&mut socket, b"open").await.unwrap();
    while said.try_recv().is_ok() {}
    proxy.set(Way::Blackhole);
    socket.write_all(b"late").await.unwrap();
    drop(socket);
    let heard = tokio::time::timeout(Duration::from_millis(200), said.recv()).await;
    assert!(heard.is_err(), "nothing comes through");
    proxy.set(Way::Pass);
    let heard = tokio::time::timeout(limit, said.recv()).await;
    assert_eq!(
        heard.unwrap().unwrap(),
        b"late",
        "it comes after its sender has gone"
    );
    server.abort();
}
