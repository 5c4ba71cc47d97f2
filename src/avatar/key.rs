//! Object keys: the path, content type, cache policy and audience of an object.

use std::fmt;

use super::{
    Audience, AvatarId, Format, Original, OriginalAccess, Record, Rendition, SubjectHash,
    VariantName,
};

/// The key of one stored object. The key alone decides the object's path, content type, cache policy
/// and audience; adapters do not.
///
/// ```
/// use cameo::avatar::{Audience, ObjectKey};
///
/// let path = "public/avatars/nzh63m6zuw5popmityvbkr6lh4/medium.webp";
/// let key = ObjectKey::parse(path).expect("a path of this program");
/// assert_eq!(key.to_string(), path);
/// assert_eq!(key.content_type(), "image/webp");
/// assert_eq!(key.audience(), Audience::Public);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKey {
    /// `public/avatars/{avatar_id}/{variant}.{ext}`, or the same under `private/` if not everybody may
    /// see it. An animated rendition is `{variant}.animated.{ext}`.
    Rendition {
        /// Whether it lies under `public/` or under `private/`.
        audience: Audience,
        /// The upload that it was made from.
        avatar: AvatarId,
        /// Its variant.
        variant: VariantName,
        /// Its format.
        format: Format,
        /// Whether it is animated.
        animated: bool,
    },
    /// `private/avatars/{avatar_id}/manifest.json`: the data from which the catalog can be rebuilt.
    Manifest {
        /// The upload that it describes.
        avatar: AvatarId,
    },
    /// `private/avatars/{avatar_id}/master.{ext}`: an original that only the service reads. An original
    /// that users may see is a rendition with the variant `original`, so this one has another name.
    PrivateOriginal {
        /// The upload that it was made from.
        avatar: AvatarId,
        /// Its format.
        format: Format,
    },
    /// `private/subjects/{hash}`: the lock and the viewers of a subject. Unlike the other objects it
    /// changes, and it belongs to no upload.
    Policy {
        /// The hash of the subject.
        owner: SubjectHash,
    },
}

/// The folder of the objects that anyone may read.
pub(crate) const PUBLIC_ROOT: &str = "public/avatars";
/// The folder of the objects that only the service may read.
pub(crate) const PRIVATE_ROOT: &str = "private/avatars";
/// The folder of the policies of subjects, which only the service may read.
pub(crate) const POLICY_ROOT: &str = "private/subjects";

impl ObjectKey {
    /// Parses a path, as [`fmt::Display`] writes it. Returns `None` for any other path. A key has
    /// exactly one path, so nothing is normalised.
    pub fn parse(path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix(PUBLIC_ROOT) {
            let (id, name) = rest.strip_prefix('/')?.split_once('/')?;
            return Self::rendition(Audience::Public, id.parse().ok()?, name);
        }
        if let Some(rest) = path.strip_prefix(POLICY_ROOT) {
            let owner = SubjectHash::parse(rest.strip_prefix('/')?)?;
            return Some(Self::Policy { owner });
        }
        let (id, name) = path
            .strip_prefix(PRIVATE_ROOT)?
            .strip_prefix('/')?
            .split_once('/')?;
        let avatar = id.parse().ok()?;
        if name == "manifest.json" {
            return Some(Self::Manifest { avatar });
        }
        if let Some(extension) = name.strip_prefix("master.")
            && let Some(format) = Format::from_extension(extension)
        {
            return Some(Self::PrivateOriginal { avatar, format });
        }
        Self::rendition(Audience::Private, avatar, name)
    }

    /// The key of the rendition with this file name.
    fn rendition(audience: Audience, avatar: AvatarId, name: &str) -> Option<Self> {
        let (stem, extension) = name.rsplit_once('.')?;
        let (stem, animated) = match stem.strip_suffix(".animated") {
            Some(stem) => (stem, true),
            None => (stem, false),
        };
        Some(Self::Rendition {
            audience,
            avatar,
            variant: VariantName::new(stem).ok()?,
            format: Format::from_extension(extension)?,
            animated,
        })
    }

    /// The key of a rendition of this record.
    pub fn of_rendition(record: &Record, rendition: &Rendition) -> Self {
        Self::Rendition {
            audience: record.audience,
            avatar: record.avatar_id,
            variant: rendition.variant.clone(),
            format: rendition.format,
            animated: rendition.animated,
        }
    }

    /// The key of the original of an avatar whose renditions have this audience.
    pub fn of_original(avatar: AvatarId, audience: Audience, original: &Original) -> Self {
        let Original { format, access, .. } = *original;
        match access {
            OriginalAccess::Private => Self::PrivateOriginal { avatar, format },
            OriginalAccess::Public => Self::Rendition {
                audience,
                avatar,
                variant: VariantName::original(),
                format,
                animated: false,
            },
        }
    }

    /// The folders of all objects of one upload, each with its final slash.
    pub fn prefixes_of(avatar: AvatarId) -> [String; 2] {
        // The private folder comes first: a manifest must not outlive the objects that it names.
        [
            format!("{PRIVATE_ROOT}/{avatar}/"),
            format!("{PUBLIC_ROOT}/{avatar}/"),
        ]
    }

    /// The upload that the object belongs to; `None` for an object that belongs to no upload.
    pub const fn avatar(&self) -> Option<AvatarId> {
        match self {
            Self::Rendition { avatar, .. }
            | Self::Manifest { avatar }
            | Self::PrivateOriginal { avatar, .. } => Some(*avatar),
            Self::Policy { .. } => None,
        }
    }

    /// The media type with which the object is stored and served.
    pub const fn content_type(&self) -> &'static str {
        match self {
            Self::Rendition { format, .. } | Self::PrivateOriginal { format, .. } => {
                format.content_type()
            }
            Self::Manifest { .. } | Self::Policy { .. } => "application/json",
        }
    }

    /// The `Cache-Control` with which the object is stored and served.
    pub const fn cache_control(&self) -> &'static str {
        match self.audience() {
            // An avatar id is never reused, so the object never changes.
            Audience::Public => "public, max-age=31536000, immutable",
            // A browser keeps a private image not much longer than its URL works.
            Audience::Private if matches!(self, Self::Rendition { .. }) => "private, max-age=900",
            Audience::Private => "private, no-store",
        }
    }

    /// Who may read the object.
    pub const fn audience(&self) -> Audience {
        match self {
            Self::Rendition { audience, .. } => *audience,
            Self::Manifest { .. } | Self::PrivateOriginal { .. } | Self::Policy { .. } => {
                Audience::Private
            }
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rendition {
                audience,
                avatar,
                variant,
                format,
                animated,
            } => {
                let root = match audience {
                    Audience::Public => PUBLIC_ROOT,
                    Audience::Private => PRIVATE_ROOT,
                };
                let suffix = if *animated { ".animated" } else { "" };
                write!(
                    f,
                    "{root}/{avatar}/{variant}{suffix}.{}",
                    format.extension()
                )
            }
            Self::Manifest { avatar } => write!(f, "{PRIVATE_ROOT}/{avatar}/manifest.json"),
            Self::PrivateOriginal { avatar, format } => {
                write!(f, "{PRIVATE_ROOT}/{avatar}/master.{}", format.extension())
            }
            Self::Policy { owner } => write!(f, "{POLICY_ROOT}/{owner}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::avatar::SubjectId;

    fn any_key() -> impl Strategy<Value = ObjectKey> {
        let avatar = any::<[u8; 16]>().prop_map(AvatarId::from_bytes);
        let variant = "[a-z][a-z0-9_-]{0,31}".prop_map(|name| VariantName::new(name).unwrap());
        let format = proptest::sample::select(Format::ALL.to_vec());
        let owner = "[0-9]{1,20}".prop_map(|id| SubjectHash::of(&SubjectId::new(id).unwrap()));
        let parts = (avatar, owner, variant, format, 0..6_u8);
        parts.prop_map(|(avatar, owner, variant, format, kind)| match kind {
            0 | 1 | 5 => ObjectKey::Rendition {
                audience: if kind == 5 {
                    Audience::Private
                } else {
                    Audience::Public
                },
                avatar,
                variant,
                format,
                animated: kind != 0,
            },
            2 => ObjectKey::Manifest { avatar },
            3 => ObjectKey::Policy { owner },
            _ => ObjectKey::PrivateOriginal { avatar, format },
        })
    }

    proptest! {
        #[test]
        fn a_key_round_trips_through_its_path(key in any_key()) {
            prop_assert_eq!(ObjectKey::parse(&key.to_string()), Some(key));
        }

        #[test]
        fn a_path_that_parses_is_the_only_one_of_its_key(path in "(public|private)/avatars/[a-z2-7./]{20,40}") {
            if let Some(key) = ObjectKey::parse(&path) {
                prop_assert_eq!(key.to_string(), path);
            }
        }

        #[test]
        fn a_key_lies_in_a_folder_of_its_avatar_or_among_the_policies(key in any_key()) {
            let path = key.to_string();
            let folders = key.avatar().map(ObjectKey::prefixes_of).into_iter().flatten();
            let folders = folders.chain(key.avatar().is_none().then(|| format!("{POLICY_ROOT}/")));
            prop_assert!(folders.into_iter().any(|prefix| path.starts_with(&prefix)));
        }
    }

    #[test]
    fn a_private_rendition_lies_beside_the_manifest_and_is_no_private_original() {
        let id = AvatarId::from_bytes([7; 16]);
        let path = format!("private/avatars/{id}/medium.webp");
        let key = ObjectKey::parse(&path).unwrap();
        assert_eq!(key.audience(), Audience::Private);
        assert_eq!(key.to_string(), path);
        assert!(key.cache_control().starts_with("private"));
        let hidden = ObjectKey::parse(&format!("private/avatars/{id}/master.png"));
        assert!(matches!(hidden, Some(ObjectKey::PrivateOriginal { .. })));
        let shown = ObjectKey::parse(&format!("private/avatars/{id}/original.png"));
        assert!(matches!(shown, Some(ObjectKey::Rendition { .. })));
    }

    #[test]
    fn paths_outside_the_public_folder_are_not_keys() {
        let id = AvatarId::from_bytes([7; 16]);
        for path in [
            format!("public/avatars/{id}/../{id}/medium.webp"),
            format!("public/avatars/{id}//medium.webp"),
            format!("/public/avatars/{id}/medium.webp"),
            format!("public/avatars/{id}/medium.exe"),
            format!("public/avatars/{id}/.webp"),
            format!("public/avatars/{id}/medium.webp/"),
            "public/avatars/../../etc/passwd".to_owned(),
        ] {
            assert_eq!(ObjectKey::parse(&path), None, "{path}");
        }
    }
}
