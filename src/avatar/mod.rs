//! The vocabulary: what the rest of the program talks about.
//!
//! A leaf module; the words for pictures come from [`cameo_imaging`]. Every type here is valid by
//! construction: a [`SubjectId`] that exists is a legal user id, an [`ObjectKey`] that exists names
//! an object that this program could have written.

mod event;
mod ids;
mod key;
mod record;
mod time;

pub use cameo_imaging::{
    Format, InvalidVariantName, Placeholder, Rendition, Source, SourceFormat, VariantName,
};
pub use event::{Change, Event, Previous};
pub use ids::{AvatarId, InvalidAvatarId, InvalidSubjectId, SubjectId};
pub use key::{Audience, ObjectKey};
pub(crate) use key::{PRIVATE_ROOT, PUBLIC_ROOT};
pub use record::{Manifest, ManifestError, Record, Version};
pub use time::Timestamp;
