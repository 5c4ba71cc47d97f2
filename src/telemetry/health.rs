//! The state of something that the service depends on.

/// What a check of the store or of the catalog found, where it answered at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    #[default]
    Healthy,
    /// Reads are served, but something else is wrong. The reason is for the operator. It names no
    /// path, address or secret, because anyone may read it in the answer of `/health/ready`.
    Degraded(String),
}

impl Health {
    /// Why the state is degraded; `None` where it is not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Healthy => None,
            Self::Degraded(reason) => Some(reason),
        }
    }
}
