//! The health of the store or the catalog.

/// The result of a check of the store or the catalog, if it answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It can be read and written.
    #[default]
    Healthy,
    /// It can be read, but something else is wrong. The reason is for the operator. It names no path,
    /// address or secret, because `/health/ready` shows it to anyone.
    Degraded(String),
}

impl Health {
    /// Why it is degraded; `None` if it is healthy.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Healthy => None,
            Self::Degraded(reason) => Some(reason),
        }
    }
}
