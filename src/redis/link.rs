//! The connection to Redis.
//!
//! If Redis is unreachable, commands fail fast: connecting times out after 300 ms, an answer after
//! 500 ms. The next command replaces a broken connection. Concurrent commands share the new one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, Pipeline,
    RedisError, RedisResult, ServerErrorKind, TlsMode, Value,
};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::{RedisAddress, RedisForm};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The number of times that a Cluster's client follows a redirection or tries another node. With its
/// default, a command hung for over ten seconds while one master was dead.
const CLUSTER_RETRIES: u32 = 2;
/// The longest wait of a script for a slot whose keys are on two masters of a Cluster. A slot usually
/// moves in milliseconds. The limit is for a slot whose move was interrupted.
const SLOT_MOVE_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest wait of a probe for such a slot. Health checks wait for probes.
const SLOT_PROBE_TIMEOUT: Duration = Duration::from_millis(800);
/// The first pause between two attempts in that time. Each further pause is twice as long, up to
/// [`MAX_SLOT_PAUSE`]. Each pause is shortened at random, so that replicas do not retry together.
const FIRST_SLOT_PAUSE: Duration = Duration::from_millis(20);
const MAX_SLOT_PAUSE: Duration = Duration::from_millis(320);

/// A connection to Redis. Its clones share it.
#[derive(Clone)]
pub struct RedisLink(Kind);

#[derive(Clone)]
enum Kind {
    /// One server, or the master that the Sentinels name.
    Node(Arc<Node>),
    Cluster(ClusterConnection),
}

impl RedisLink {
    /// Connects. If Redis is not up yet, the caller retries later.
    ///
    /// # Errors
    /// If Redis is unreachable or refuses this client.
    pub async fn connect(address: &RedisAddress) -> RedisResult<Self> {
        let link = match Source::of(address, ANSWER_TIMEOUT)? {
            Source::Cluster(client) => Self(Kind::Cluster(client.get_async_connection().await?)),
            source => Self(Kind::Node(Arc::new(Node {
                source,
                current: Mutex::default(),
            }))),
        };
        match link.run::<()>(&redis::cmd("PING")).await {
            // A server that cannot write to its disk refuses even PING, but can be read.
            Err(error) if error.code() == Some("MISCONF") => Ok(link),
            answer => answer.map(|()| link),
        }
    }

    /// Sends a command and waits for its answer. If the answer is lost with the connection, the
    /// command is sent again. So it may run twice, and must allow that.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match &self.0 {
            Kind::Cluster(connection) => command.query_async(&mut connection.clone()).await,
            Kind::Node(node) => match node.run(command).await {
                Err(error) if error.is_connection_dropped() => node.run(command).await,
                answer => answer,
            },
        }
    }

    /// Runs a script on keys of one slot. It may run twice, as in [`run`](Self::run). While the slot
    /// moves to another master, this waits up to three seconds.
    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let moves = SlotMoves::new(SLOT_MOVE_TIMEOUT);
        self.call_while(moves, script, keys, arguments).await
    }

    /// Runs a script as a test. This waits less long for a slot that moves.
    pub(crate) async fn probe(&self, script: &Script, keys: &[String]) -> RedisResult<()> {
        let moves = SlotMoves::new(SLOT_PROBE_TIMEOUT);
        self.call_while(moves, script, keys, &[]).await
    }

    async fn call_while<T: FromRedisValue>(
        &self,
        mut moves: SlotMoves,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let by_hash = script.by_hash(keys, arguments);
        loop {
            let mut answer = self.run(&by_hash).await;
            // A restarted server or a new master does not have the script yet.
            if answer.as_ref().is_err_and(is_unknown_script) {
                answer = self.run(&script.by_code(keys, arguments)).await;
            }
            match answer {
                Err(error) if moves.has_time_for(&error) => moves.pause().await,
                answer => return answer,
            }
        }
    }

    /// Sends a command to every server that holds data, and returns all answers.
    pub(crate) async fn query_all<T: FromRedisValue>(&self, command: Cmd) -> RedisResult<Vec<T>> {
        match &self.0 {
            Kind::Node(_) => Ok(vec![self.run(&command).await?]),
            Kind::Cluster(connection) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answers = connection.clone().route_command(command, masters).await?;
                let answers: Vec<(Value, T)> = redis::from_redis_value(answers)?;
                Ok(answers.into_iter().map(|(_, answer)| answer).collect())
            }
        }
    }

    /// Whether the address names a Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(_))
    }
}

/// A Lua script. It is sent once, and then called by its hash.
pub(crate) struct Script {
    code: String,
    inner: redis::Script,
}

impl Script {
    /// Joins `parts` to a script.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let code = parts.concat();
        let inner = redis::Script::new(&code);
        Self { code, inner }
    }

    /// The command that runs the script on a server that has it.
    fn by_hash(&self, keys: &[String], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVALSHA", self.inner.get_hash(), keys, arguments)
    }

    /// The command that sends the script to the server and runs it.
    pub(super) fn by_code(&self, keys: &[String], arguments: &[&[u8]]) -> Cmd {
        Self::command("EVAL", &self.code, keys, arguments)
    }

    fn command(verb: &str, script: &str, keys: &[String], arguments: &[&[u8]]) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
        command
    }
}

/// Whether the server does not have the script, so that it must be sent as code.
fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether a master did not run the command because its slot is moving. The client follows only a
/// few redirections (`ASK`, `MOVED`), and the slot may move on meanwhile.
fn is_moving_slot_error(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::TryAgain | ServerErrorKind::Ask | ServerErrorKind::Moved
        )
    )
}

/// Retries of a script while the keys of its slot are on two masters (`TRYAGAIN`).
pub(super) struct SlotMoves {
    deadline: Instant,
    pause: Duration,
}

impl SlotMoves {
    /// Retries for at most `limit`.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            deadline: Instant::now() + limit,
            pause: FIRST_SLOT_PAUSE,
        }
    }

    /// Whether the error is of a moving slot and there is time for another attempt.
    fn has_time_for(&self, error: &RedisError) -> bool {
        is_moving_slot_error(error) && self.has_time()
    }

    /// Whether there is time for another attempt.
    pub(super) fn has_time(&self) -> bool {
        Instant::now() + self.pause <= self.deadline
    }

    /// Waits before the next attempt.
    pub(super) async fn pause(&mut self) {
        tokio::time::sleep(self.pause.mul_f64(0.5 + random_fraction() / 2.0)).await;
        self.pause = MAX_SLOT_PAUSE.min(self.pause * 2);
    }
}

/// A random number from 0 to below 1; 0 if the system gives no random number.
fn random_fraction() -> f64 {
    f64::from(getrandom::u32().unwrap_or(0)) / (f64::from(u32::MAX) + 1.0)
}

/// One server and the connection to it.
struct Node {
    source: Source,
    /// The current attempt to connect. All commands wait for it and share its result. A command that
    /// finds it failed replaces it with a new attempt.
    current: Mutex<Arc<Attempt>>,
}

type Attempt = OnceCell<RedisResult<MultiplexedConnection>>;

/// Opens connections.
pub(super) enum Source {
    Server(Client),
    /// The lock is held across an await, because a query to the Sentinels changes the client's own
    /// connections. Only a task that opens a connection locks it.
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster(ClusterClient),
}

impl Node {
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let attempt = Arc::clone(&self.lock());
        let connection = attempt
            .get_or_init(|| self.source.connect(ANSWER_TIMEOUT))
            .await;
        let answer = match connection {
            Ok(connection) => command.query_async(&mut connection.clone()).await,
            Err(error) => Err(error.clone()),
        };
        if connection.is_err() || answer.as_ref().is_err_and(needs_new_connection) {
            let mut current = self.lock();
            if Arc::ptr_eq(&current, &attempt) {
                *current = Arc::default();
            }
        }
        answer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Attempt>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client of the Sentinels that finds the master.
fn sentinel_client(
    sentinels: &[ConnectionInfo],
    master: &str,
    node: &ConnectionInfo,
    tls: bool,
) -> RedisResult<SentinelClient> {
    let mut info = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(node.redis_settings().clone());
    if tls {
        info = info.set_tls_mode(TlsMode::Secure);
    }
    SentinelClient::build(
        sentinels.to_vec(),
        master,
        Some(info),
        SentinelServerType::Master,
    )
}

/// Whether another connection may succeed: this one is broken, or its server is no longer the master.
pub(super) fn needs_new_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

impl Source {
    /// The source of connections to this address. Only a Cluster's client needs the answer timeout in
    /// advance.
    pub(super) fn of(address: &RedisAddress, answer_timeout: Duration) -> RedisResult<Self> {
        match &address.0 {
            RedisForm::Server(info) => Ok(Self::Server(Client::open(info.clone())?)),
            RedisForm::Sentinel {
                sentinels,
                master,
                node,
                tls,
            } => {
                let client = sentinel_client(sentinels, master, node, *tls)?;
                Ok(Self::Sentinel(tokio::sync::Mutex::new(client)))
            }
            RedisForm::Cluster(nodes) => {
                let client = ClusterClient::builder(nodes.clone())
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(answer_timeout)
                    .overall_response_timeout(Some(answer_timeout * 3))
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(20)
                    .max_retry_wait(100)
                    .build()?;
                Ok(Self::Cluster(client))
            }
        }
    }

    /// Opens a connection to one server.
    async fn connect(&self, answer_timeout: Duration) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(answer_timeout));
        match self {
            Self::Server(client) => {
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
            }
            Self::Sentinel(client) => {
                let mut client = client.lock().await;
                let asked = client.get_async_connection_with_config(&config);
                // The `redis` crate sets no timeout for its queries to Sentinels.
                match tokio::time::timeout(CONNECT_TIMEOUT + ANSWER_TIMEOUT, asked).await {
                    Ok(connected) => connected,
                    Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                }
            }
            Self::Cluster(_) => Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "a cluster has no single server",
            ))),
        }
    }

    /// Opens a connection that is not shared, for commands that block it.
    pub(super) async fn open(&self, answer_timeout: Duration) -> RedisResult<Exclusive> {
        match self {
            Self::Cluster(client) => Ok(Exclusive::Cluster(client.get_async_connection().await?)),
            node => Ok(Exclusive::Node(node.connect(answer_timeout).await?)),
        }
    }
}

/// A connection that only one task at a time uses.
pub(super) enum Exclusive {
    Node(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Exclusive {
    /// Sends all commands together to the server that holds the keys of the first command. Returns
    /// the answer of each command.
    pub(super) async fn send(
        &mut self,
        commands: &Pipeline,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        match self {
            Self::Node(connection) => commands.query_async(connection).await,
            Self::Cluster(connection) => commands.query_async(connection).await,
        }
    }
}
