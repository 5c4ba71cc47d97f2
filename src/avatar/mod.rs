//! The vocabulary: what the rest of the program talks about.
//!
//! A leaf module. Every type here is valid by construction: a [`SubjectId`] that exists is a legal
//! user id, an [`ObjectKey`] that exists names an object that this program could have written.

mod event;
mod ids;
mod key;
mod record;
mod time;

pub use event::{Change, Event, Previous};
pub use ids::{
    AvatarId, InvalidAvatarId, InvalidSubjectId, InvalidVariantName, SubjectId, VariantName,
};
pub use key::{Audience, ObjectKey};
pub(crate) use key::{PRIVATE_ROOT, PUBLIC_ROOT};
pub use record::{
    Format, Manifest, ManifestError, Placeholder, Record, Rendition, Source, SourceFormat, Version,
};
pub use time::Timestamp;
