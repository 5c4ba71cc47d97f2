//! The domain types: subjects, avatar ids, object keys, records, policies and events.
//!
//! This is a leaf module. The types of pictures come from [`cameo_imaging`]. Every type here is valid
//! by construction: every [`SubjectId`] is a legal user id, and every [`ObjectKey`] names an object
//! that this program could have written.

mod account;
mod event;
mod ids;
mod key;
mod policy;
mod record;
mod time;

pub use account::Account;
pub use cameo_imaging::{
    Format, InvalidVariantName, Placeholder, Rendition, Source, SourceFormat, VariantName,
};
pub use event::{Change, Event, Previous};
pub use ids::{AvatarId, InvalidAvatarId, InvalidSubjectId, SubjectHash, SubjectId};
pub use key::ObjectKey;
pub(crate) use key::{POLICY_ROOT, PRIVATE_ROOT, PUBLIC_ROOT};
pub use policy::{Lock, Policy, PolicyDocument, PolicyDocumentError};
pub use record::{
    Audience, Manifest, ManifestError, Original, OriginalAccess, Record, SourceSquare, Version,
};
pub use time::{InvalidTimestamp, Timestamp};
