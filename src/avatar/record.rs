//! Records and manifests.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{AvatarId, Format, Placeholder, Rendition, Source, SubjectId, Timestamp, VariantName};

/// The number of an upload of a subject. Versions never decrease, not even after a delete or the loss
/// of a catalog. They begin at 1, or above a floor if a catalog was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u64);

impl Version {
    /// The time-based version floor: the milliseconds from 2025-01-01 UTC to `now`. No upload before
    /// `now` has a higher version, because no subject uploads a thousand avatars per second.
    pub fn time_floor(now: Timestamp) -> Self {
        const EPOCH: Timestamp = Timestamp::from_unix_ms(1_735_689_600_000);
        let since = now.since(EPOCH).as_millis();
        Self(u64::try_from(since).unwrap_or(u64::MAX))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may read an object directly from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Anyone who knows its URL.
    #[default]
    Public,
    /// Only the service.
    Private,
}

/// The catalog's record of a subject's current avatar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The upload.
    pub avatar_id: AvatarId,
    /// The upload's version.
    pub version: Version,
    /// The time of the reservation, by the catalog's clock.
    #[serde(default)]
    pub reserved_at: Timestamp,
    /// The time of the upload. It is for display only: an imported picture may be much older.
    pub uploaded_at: Timestamp,
    /// Facts about the uploaded picture.
    pub source: Source,
    /// The renditions: the primary format first, and each format from the largest variant to the
    /// smallest.
    pub renditions: Vec<Rendition>,
    /// Whether the renditions lie under `public/` or under `private/`.
    #[serde(default, skip_serializing_if = "is_public")]
    pub audience: Audience,
    /// The original, if it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// The format of the private square that earlier builds kept in place of an original. New records
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<Format>,
    /// The placeholder to show until the picture has loaded.
    pub placeholder: Placeholder,
}

/// The whole picture, kept beside the renditions: uncropped, upright, in sRGB, without metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    /// Its format.
    pub format: Format,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// Its size in bytes.
    pub bytes: u64,
    /// Who may see it.
    pub access: OriginalAccess,
    /// The part of the upload that the renditions show, so that they can be made again.
    pub square: SourceSquare,
}

/// Who may see an original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginalAccess {
    /// Only the service.
    Private,
    /// Everybody who may see the renditions.
    Public,
}

/// A square in pixels of the upright upload, whose size is in [`Source`]. An original may be smaller
/// than the upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSquare {
    /// Distance from the left edge.
    pub x: u32,
    /// Distance from the upper edge.
    pub y: u32,
    /// Its width and height.
    pub edge: u32,
}

// A field is passed to such a function by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_public(audience: &Audience) -> bool {
    *audience == Audience::Public
}

/// The number of versions in a group of [`Record::rank`].
const VERSION_GROUP: u64 = 1 << 16;

impl Record {
    /// The rank of the record: the group of its version, its reservation time, its version. If two
    /// records compete for a subject, the one with the greater rank wins.
    ///
    /// After a loss the version floor rises to the milliseconds since 2025. So versions from before
    /// and after a loss are in different groups of 65,536 (about a minute), and the higher group is
    /// the later one. This holds even if the new server's clock is behind. Within a group no floor
    /// has risen. Versions may then repeat (version 0.1.0 did not detect a loss), so the reservation
    /// time decides.
    pub const fn rank(&self) -> (u64, u64, u64) {
        let version = self.version.0;
        (version / VERSION_GROUP, self.reserved_at.unix_ms(), version)
    }

    /// The original, if everybody may see it who may see the renditions.
    pub fn public_original(&self) -> Option<&Original> {
        let original = self.original.as_ref();
        original.filter(|original| original.access == OriginalAccess::Public)
    }

    /// The still rendition of `variant` in `format`.
    pub fn still(&self, variant: &VariantName, format: Format) -> Option<&Rendition> {
        self.renditions.iter().find(|rendition| {
            !rendition.animated && rendition.variant == *variant && rendition.format == format
        })
    }
}

/// The object beside an avatar's renditions from which the catalog can be rebuilt.
///
/// It is JSON with a `layout` number. A reader skips fields that it does not know. So replicas of
/// neighbouring releases can read each other's manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The avatar's owner.
    pub subject: SubjectId,
    /// The committed record.
    #[serde(flatten)]
    pub record: Record,
}

/// The layout of new manifests.
const LAYOUT: u32 = 2;

/// The layout of a manifest without a number, as version 0.1.0 writes it.
const fn previous_layout() -> u32 {
    1
}

/// The bytes are not a manifest that this program can read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are damaged, or are not a manifest.
    #[error("a manifest is damaged")]
    Damaged(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("a manifest has the unknown layout {0}")]
    UnknownLayout(u32),
}

impl Manifest {
    /// Encodes the manifest.
    ///
    /// # Errors
    /// This does not fail in practice: every record can be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        struct Numbered<'a> {
            layout: u32,
            #[serde(flatten)]
            manifest: &'a Manifest,
        }
        serde_json::to_vec(&Numbered {
            layout: LAYOUT,
            manifest: self,
        })
    }

    /// Decodes a manifest. Layout 1 has no reservation time, so the upload time replaces it.
    ///
    /// # Errors
    /// [`ManifestError`]
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Number {
            #[serde(default = "previous_layout")]
            layout: u32,
        }
        let Number { layout } = serde_json::from_slice(bytes)?;
        if layout > LAYOUT {
            return Err(ManifestError::UnknownLayout(layout));
        }
        let mut manifest: Self = serde_json::from_slice(bytes)?;
        if layout == previous_layout() {
            manifest.record.reserved_at = manifest.record.uploaded_at;
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest of version 0.1.0.
    const PREVIOUS: &str = r#"{"subject":"42","avatar_id":"aeaqcaibaeaqcaibaeaqcaibae","version":700,"uploaded_at":1800000000000,"source":{"format":"jpeg","bytes":3273581,"width":3022,"height":4032,"animated":false},"renditions":[{"variant":"small","format":"webp","width":128,"height":128,"bytes":10241,"animated":true},{"variant":"full","format":"jpeg","width":1024,"height":1024,"bytes":81921}],"master":"png","placeholder":{"thumbhash":[1,1,1],"color":[1,2,1]}}"#;

    #[test]
    fn a_manifest_of_the_previous_layout_is_read() {
        let manifest = Manifest::from_json(PREVIOUS.as_bytes()).unwrap();
        let Record {
            version,
            reserved_at,
            uploaded_at,
            ..
        } = manifest.record;
        assert_eq!(version, Version(700));
        assert_eq!(uploaded_at.unix_ms(), 1_800_000_000_000);
        assert_eq!(reserved_at, uploaded_at);
    }

    #[test]
    fn a_manifest_round_trips_and_unknown_fields_are_skipped() {
        let mut manifest = Manifest::from_json(PREVIOUS.as_bytes()).unwrap();
        manifest.record.reserved_at = Timestamp::from_unix_ms(1_800_000_000_007);
        let bytes = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&bytes).unwrap(), manifest);
        assert_eq!(manifest.record.audience, Audience::Public);
        manifest.record.audience = Audience::Private;
        let private = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&private).unwrap(), manifest);
        manifest.record.audience = Audience::Public;
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with(r#"{"layout":2,"#), "{text}");
        // A later release may add fields to every object.
        let later = text.replace('{', r#"{"mood":"good","#);
        assert!(later.matches("mood").count() > 3, "{later}");
        assert_eq!(Manifest::from_json(later.as_bytes()).unwrap(), manifest);
    }

    /// The manifest of version 0.1.0.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct PreviousManifest {
        subject: SubjectId,
        #[serde(flatten)]
        record: PreviousRecord,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct PreviousRecord {
        avatar_id: AvatarId,
        version: Version,
        uploaded_at: Timestamp,
        source: Source,
        renditions: Vec<Rendition>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        master: Option<Format>,
        placeholder: Placeholder,
    }

    #[test]
    fn this_release_and_the_previous_one_read_each_others_manifests() {
        let previous: PreviousManifest = serde_json::from_str(PREVIOUS).unwrap();
        assert_eq!(serde_json::to_string(&previous).unwrap(), PREVIOUS);
        let mut manifest = Manifest::from_json(PREVIOUS.as_bytes()).unwrap();
        manifest.record.reserved_at = Timestamp::from_unix_ms(1_800_000_000_007);
        manifest.record.original = Some(Original {
            format: Format::Jpeg,
            width: 1535,
            height: 2048,
            bytes: 700_000,
            access: OriginalAccess::Public,
            square: SourceSquare {
                x: 0,
                y: 505,
                edge: 3022,
            },
        });
        let bytes = manifest.to_json().unwrap();
        assert_eq!(Manifest::from_json(&bytes).unwrap(), manifest);
        let read: PreviousManifest = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, previous);
    }

    #[test]
    fn a_manifest_of_an_unknown_layout_is_an_error_of_its_own() {
        let later = r#"{"layout":3,"subject":"42"}"#;
        let error = Manifest::from_json(later.as_bytes()).unwrap_err();
        assert!(matches!(error, ManifestError::UnknownLayout(3)));
    }

    #[test]
    fn a_version_floor_counts_milliseconds_since_2025() {
        let now = Timestamp::from_unix_ms(1_735_689_600_000 + 12_345);
        assert_eq!(Version::time_floor(now), Version(12_345));
    }
}
