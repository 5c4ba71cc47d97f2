//! The connection to Redis.
//!
//! Nobody waits long for a Redis that is away: connecting ends after 300 ms, an answer is waited
//! for 500 ms. A connection that broke is made anew by the next command, and once for however many
//! commands come at the same time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, RedisError,
    RedisResult, ServerErrorKind, TlsMode, Value,
};
use tokio::sync::OnceCell;

use crate::config::{RedisAddress, RedisForm};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a Cluster's client follows a redirection or tries another node. Its default made a
/// command hang for over ten seconds while one master was dead.
const CLUSTER_RETRIES: u32 = 2;

/// A connection to Redis that is shared by all who clone it.
#[derive(Clone)]
pub struct RedisLink(Kind);

#[derive(Clone)]
enum Kind {
    /// One server, or whichever the Sentinels say is the master.
    Node(Arc<Node>),
    Cluster(ClusterConnection),
}

impl RedisLink {
    /// Connects. The caller tries again later where this fails because Redis is not up yet.
    ///
    /// # Errors
    /// Where Redis is not reached or does not let this client in.
    pub async fn connect(address: &RedisAddress) -> RedisResult<Self> {
        let node = |source| {
            Arc::new(Node {
                source,
                current: Mutex::default(),
            })
        };
        let link = match &address.0 {
            RedisForm::Server(info) => Self(Kind::Node(node(Source::Server(Client::open(
                info.clone(),
            )?)))),
            RedisForm::Sentinel {
                sentinels,
                master,
                node: info,
                tls,
            } => {
                let client = sentinel_client(sentinels, master, info, *tls)?;
                let client = tokio::sync::Mutex::new(client);
                Self(Kind::Node(node(Source::Sentinel(client))))
            }
            RedisForm::Cluster(nodes) => {
                let client = ClusterClient::builder(nodes.clone())
                    .connection_timeout(CONNECT_TIMEOUT)
                    .response_timeout(ANSWER_TIMEOUT)
                    .overall_response_timeout(Some(ANSWER_TIMEOUT * 3))
                    .retries(CLUSTER_RETRIES)
                    .min_retry_wait(20)
                    .max_retry_wait(100)
                    .build()?;
                Self(Kind::Cluster(client.get_async_connection().await?))
            }
        };
        link.run::<()>(&redis::cmd("PING")).await?;
        Ok(link)
    }

    /// Sends a command and waits for its answer. Where the answer is lost with the connection the
    /// command is sent again, so it may happen twice: whatever is sent must stand that.
    pub(crate) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match &self.0 {
            Kind::Cluster(connection) => command.query_async(&mut connection.clone()).await,
            Kind::Node(node) => match node.run(command).await {
                Err(error) if error.is_connection_dropped() => node.run(command).await,
                answer => answer,
            },
        }
    }

    /// Runs a script on keys of one slot. It may happen twice, as in [`run`](Self::run).
    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
    ) -> RedisResult<T> {
        let command = |verb: &str, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let known = command("EVALSHA", script.inner.get_hash());
        match self.run(&known).await {
            // A server that was restarted, or a new master, has not heard of the script.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.run(&command("EVAL", &script.code)).await
            }
            answer => answer,
        }
    }

    /// Asks every server that holds data, each for itself.
    pub(crate) async fn ask_all(&self, command: Cmd) -> RedisResult<Vec<String>> {
        match &self.0 {
            Kind::Node(_) => Ok(vec![self.run(&command).await?]),
            Kind::Cluster(connection) => {
                let masters = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                let answers = connection.clone().route_command(command, masters).await?;
                let answers: Vec<(Value, String)> = redis::from_redis_value(answers)?;
                Ok(answers.into_iter().map(|(_, answer)| answer).collect())
            }
        }
    }

    /// Whether the address meant a Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.0, Kind::Cluster(_))
    }
}

/// A Lua script, sent once and called by its hash.
pub(crate) struct Script {
    code: String,
    inner: redis::Script,
}

impl Script {
    /// The script that these parts make.
    pub(crate) fn new(parts: &[&str]) -> Self {
        let code = parts.concat();
        let inner = redis::Script::new(&code);
        Self { code, inner }
    }
}

/// One server and the connection to it.
struct Node {
    source: Source,
    /// Everybody waits for the same attempt and shares what came of it; whoever sees it fail
    /// puts a fresh one into its place.
    current: Mutex<Arc<Attempt>>,
}

type Attempt = OnceCell<RedisResult<MultiplexedConnection>>;

enum Source {
    Server(Client),
    /// Locked across an await because asking the Sentinels changes the client's own connections;
    /// only the one task that reconnects ever wants it.
    Sentinel(tokio::sync::Mutex<SentinelClient>),
}

impl Node {
    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let attempt = Arc::clone(&self.lock());
        let connection = attempt.get_or_init(|| self.source.connect()).await;
        let answer = match connection {
            Ok(connection) => command.query_async(&mut connection.clone()).await,
            Err(error) => Err(error.clone()),
        };
        if connection.is_err() || answer.as_ref().is_err_and(is_of_the_connection) {
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

/// Whether another connection may do better: this one is broken, or leads to a server that is no
/// longer the master.
fn is_of_the_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

impl Source {
    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        match self {
            Self::Server(client) => {
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await
            }
            Self::Sentinel(client) => {
                let mut client = client.lock().await;
                let asked = client.get_async_connection_with_config(&config);
                // The crate asks Sentinels without a limit of its own.
                match tokio::time::timeout(CONNECT_TIMEOUT + ANSWER_TIMEOUT, asked).await {
                    Ok(connected) => connected,
                    Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
                }
            }
        }
    }
}
