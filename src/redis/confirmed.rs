//! Writes that are confirmed before they are acknowledged.
//!
//! By default Redis acknowledges a write that may still be lost: with the last second of its
//! append-only file, or with a master whose replica lags. `WAITAOF` and `WAIT` tell when the writes
//! of a connection are on the disk or on a replica. Both block their connection, so these
//! connections are not shared.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::link::{Exclusive, Script, SlotMoves, Source, is_of_the_connection};
use crate::config::{RedisAddress, RedisConfirmation};

/// The most connections for confirmed writes; further writes wait for one, within their timeout.
const MAX_CONNECTIONS: usize = 64;
/// The most of them that are kept open while nobody uses them.
const MAX_IDLE: usize = 8;
/// How much longer than the server waits the client waits for its answer.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// Why a write has no confirmation. It may have happened: its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    /// Redis refused the write, or the connection failed.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// Nobody confirmed the write in time.
    #[error("no {} confirmed the write within {timeout:?}; its outcome is unknown", confirmer(*.confirmation))]
    Unconfirmed {
        /// What should have confirmed it.
        confirmation: RedisConfirmation,
        /// `catalog.redis.wait_timeout`.
        timeout: Duration,
    },
}

const fn confirmer(confirmation: RedisConfirmation) -> &'static str {
    match confirmation {
        RedisConfirmation::Aof => "append-only file",
        RedisConfirmation::Replica => "replica",
    }
}

/// Runs scripts and waits until what they wrote is confirmed.
pub(crate) struct ConfirmedWrites {
    source: Source,
    confirmation: RedisConfirmation,
    timeout: Duration,
    /// Writes a key, so that the wait that follows covers everything the server wrote before.
    marker: Script,
    permits: Semaphore,
    idle: Mutex<Vec<Exclusive>>,
}

impl ConfirmedWrites {
    /// Confirms writes in this way, within `timeout`.
    ///
    /// # Errors
    /// Where the address cannot be used.
    pub(crate) fn new(
        address: &RedisAddress,
        confirmation: RedisConfirmation,
        timeout: Duration,
    ) -> RedisResult<Self> {
        Ok(Self {
            source: Source::of(address, timeout + ANSWER_MARGIN)?,
            confirmation,
            timeout,
            marker: Script::new(&[include_str!("marker.lua")]),
            permits: Semaphore::new(MAX_CONNECTIONS),
            idle: Mutex::default(),
        })
    }

    /// Runs a script on keys of one slot and waits until the server's append-only file or a replica
    /// has what it wrote. `marker` is a key of the same slot.
    ///
    /// The script, a write of the marker and the wait go over one connection. If it is lost,
    /// nothing is confirmed, and all three are sent again over another one: the script may run
    /// twice. The second run of a script may find its work done and write nothing; the wait would
    /// then cover nothing of this connection, if the marker did not write.
    ///
    /// # Errors
    /// [`ConfirmError`]; the script may have happened.
    pub(crate) async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
        marker: &str,
    ) -> Result<T, ConfirmError> {
        let deadline = Instant::now() + self.timeout;
        let called = self.attempts(script, keys, arguments, marker, deadline);
        match tokio::time::timeout_at(deadline + ANSWER_MARGIN, called).await {
            Ok(called) => called,
            Err(_) => Err(self.unconfirmed()),
        }
    }

    /// Writes a marker and waits for its confirmation; `false` where there is none in time.
    ///
    /// # Errors
    /// Where Redis refuses the write or the wait.
    pub(crate) async fn probe(&self, marker: &str) -> RedisResult<bool> {
        let keys = [marker.to_owned()];
        match self.call::<Value>(&self.marker, &keys, &[], marker).await {
            Ok(_) => Ok(true),
            Err(ConfirmError::Unconfirmed { .. }) => Ok(false),
            Err(ConfirmError::Redis(error)) => Err(error),
        }
    }

    async fn attempts<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[&[u8]],
        marker: &str,
        deadline: Instant,
    ) -> Result<T, ConfirmError> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(self.unconfirmed());
        };
        let markers = [marker.to_owned()];
        let mut is_repeated = false;
        let mut moves = SlotMoves::new(self.timeout);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.unconfirmed());
            }
            let mut commands = Pipeline::new();
            commands.ignore_errors();
            // As code: a server that does not know a script would refuse its hash, and the answer
            // would come only after the wait.
            commands.add_command(script.by_code(keys, arguments));
            commands.add_command(self.marker.by_code(&markers, &[]));
            commands.add_command(self.wait(left));
            let [answer, mark, waited] = match self.send(&commands).await {
                Ok(answers) => answers,
                // While a slot moves, its old master answers ASK. The client then follows for the
                // first command alone, and the new master refuses the others with MOVED. So this
                // waits until the slot has one master.
                Err(error) if error.is_cluster_error() && moves.has_time() => {
                    moves.pause().await;
                    continue;
                }
                // An idle connection may have died long ago, and a lost one proves nothing.
                Err(error) if is_of_the_connection(&error) && !is_repeated => {
                    is_repeated = true;
                    self.lock().clear();
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let answer = redis::from_redis_value(answer?).map_err(RedisError::from)?;
            mark?;
            return if self.is_confirmed(waited?)? {
                Ok(answer)
            } else {
                Err(self.unconfirmed())
            };
        }
    }

    /// Sends the three commands over a connection that nobody else uses meanwhile. One that failed,
    /// or whose answers nobody waited for, is closed.
    async fn send(&self, commands: &Pipeline) -> RedisResult<[RedisResult<Value>; 3]> {
        let idle = self.lock().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.source.open(self.timeout + ANSWER_MARGIN).await?,
        };
        let answers = connection.send(commands).await?;
        let answers: [RedisResult<Value>; 3] = answers
            .try_into()
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof))?;
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err())
            && (is_of_the_connection(error) || error.is_cluster_error())
        {
            return Err(error.clone());
        }
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(answers)
    }

    /// The command that waits. Zero would mean for ever.
    fn wait(&self, left: Duration) -> redis::Cmd {
        let left = left.as_millis().max(1).to_string();
        match self.confirmation {
            RedisConfirmation::Aof => {
                let mut wait = redis::cmd("WAITAOF");
                wait.arg(1).arg(0).arg(left);
                wait
            }
            RedisConfirmation::Replica => {
                let mut wait = redis::cmd("WAIT");
                wait.arg(1).arg(left);
                wait
            }
        }
    }

    fn is_confirmed(&self, waited: Value) -> RedisResult<bool> {
        let confirmations: u64 = match self.confirmation {
            RedisConfirmation::Aof => {
                let (local, _): (u64, u64) = redis::from_redis_value(waited)?;
                local
            }
            RedisConfirmation::Replica => redis::from_redis_value(waited)?,
        };
        Ok(confirmations >= 1)
    }

    const fn unconfirmed(&self) -> ConfirmError {
        ConfirmError::Unconfirmed {
            confirmation: self.confirmation,
            timeout: self.timeout,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Exclusive>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
