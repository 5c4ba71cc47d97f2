//! Writes that are confirmed before they are acknowledged.
//!
//! By default Redis acknowledges a write that it may still lose: with the last second of its
//! append-only file, or with a master whose replica lags behind. `WAITAOF` and `WAIT` report when the
//! writes of a connection are on the disk or on a replica. Both block their connection, so these
//! connections are not shared.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{FromRedisValue, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::link::{Exclusive, Script, SlotMoves, Source, needs_new_connection};
use crate::config::{RedisAddress, RedisConfirmation};

/// The largest number of connections for confirmed writes. Further writes wait for a connection,
/// within their timeout.
const MAX_CONNECTIONS: usize = 64;
/// The largest number of idle connections.
const MAX_IDLE: usize = 8;
/// The client waits this much longer for the answer than the server waits for the confirmation.
const ANSWER_MARGIN: Duration = Duration::from_millis(500);

/// A write was not confirmed. It may have happened: its outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfirmError {
    /// Redis refused the write, or the connection failed.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The write was not confirmed in time.
    #[error("no {} confirmed the write within {timeout:?}; its outcome is unknown", confirmer(*.confirmation))]
    Unconfirmed {
        /// The expected confirmation.
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
    /// Writes a key, so that the following wait covers everything that the server wrote before.
    marker: Script,
    permits: Semaphore,
    idle: Mutex<Vec<Exclusive>>,
}

impl ConfirmedWrites {
    /// Waits for this confirmation of each write, at most for `timeout`.
    ///
    /// # Errors
    /// If the address cannot be used.
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

    /// Runs a script on keys of one slot, and waits until the append-only file or a replica has its
    /// writes. `marker` is a key of the same slot.
    ///
    /// The script, a write of the marker and the wait use the same connection. If the connection is
    /// lost, nothing is confirmed, and all three are sent again over another connection. So the
    /// script may run twice. The second run may write nothing, because its work is done. The marker
    /// is written in any case, so the wait always covers a write of its own connection.
    ///
    /// # Errors
    /// [`ConfirmError`]. The script may have run.
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

    /// Writes a marker and waits for its confirmation. Returns `false` if there is none in time.
    ///
    /// # Errors
    /// If Redis refuses the write or the wait.
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
            // The script is sent as code. A server that does not have the script would refuse its
            // hash, and this answer would come only after the wait.
            commands.add_command(script.by_code(keys, arguments));
            commands.add_command(self.marker.by_code(&markers, &[]));
            commands.add_command(self.wait(left));
            let [answer, mark, waited] = match self.send(&commands).await {
                Ok(answers) => answers,
                // While a slot moves, its old master answers ASK. The client follows this only for
                // the first command, and the new master refuses the others with MOVED. So this waits
                // until the slot has one master.
                Err(error) if error.is_cluster_error() && moves.has_time() => {
                    moves.pause().await;
                    continue;
                }
                // An idle connection may be broken, so the commands are sent again once.
                Err(error) if needs_new_connection(&error) && !is_repeated => {
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

    /// Sends the three commands over a connection that no other task uses. A connection is closed if
    /// it failed, or if the caller dropped the future.
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
            && (needs_new_connection(error) || error.is_cluster_error())
        {
            return Err(error.clone());
        }
        let mut idle = self.lock();
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
        Ok(answers)
    }

    /// The command that waits. Its timeout is at least 1 ms, because 0 means no limit.
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
