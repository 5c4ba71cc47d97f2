//! Checks of what a worker sends.
//!
//! A malicious picture may have taken control of its worker. So the service checks every length, every
//! size and the format of every file. In the worst case a worker makes a wrong picture for its own
//! upload.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::FileTag;
use crate::avatar::{Format, Placeholder, Rendition, Source, SourceFormat};
use cameo_imaging::{Limits, Original, Output, Probe, Processed, Recipe, probe};

/// The longest thumbhash: `ThumbHash` has 25 bytes at most.
const MAX_THUMBHASH_BYTES: usize = 32;

/// A problem in the data of a worker.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A frame that the protocol does not have.
    #[error("a frame that has no meaning")]
    Frame,
    /// The files of this picture are longer than its memory estimate.
    #[error("{0} bytes, more than this picture may send")]
    Length(u64),
    /// The recipe has no such file.
    #[error("a file that the recipe does not have")]
    Unwanted,
    /// The same file was sent before.
    #[error("a file for the second time")]
    Twice,
    /// The file is not of the format or the size that it should have.
    #[error("a file that is no {0} of the right size")]
    Contents(&'static str),
    /// A file is missing.
    #[error("the end before every file was sent")]
    Incomplete,
    /// The placeholder is too long.
    #[error("a placeholder of {0} bytes")]
    Placeholder(usize),
}

/// The files of one picture that have arrived.
pub(super) struct Arrivals {
    recipe: Arc<Recipe>,
    upload: Probe,
    upload_bytes: u64,
    arrived: BTreeSet<[u8; 4]>,
    /// Number of bytes that may still arrive. All files together must fit into the memory estimate of
    /// the picture.
    left_bytes: u64,
}

impl Arrivals {
    /// No file of a picture with these headers has arrived yet.
    pub(super) fn new(recipe: Arc<Recipe>, upload: Probe, upload_bytes: usize) -> Self {
        Self {
            recipe,
            upload,
            upload_bytes: upload_bytes as u64,
            arrived: BTreeSet::new(),
            left_bytes: upload.memory_bytes,
        }
    }

    /// Counts the bytes of a frame before they are read.
    pub(super) fn reserve(&mut self, bytes: u32) -> Result<(), Fault> {
        let bytes = u64::from(bytes);
        let left = self.left_bytes.checked_sub(bytes);
        self.left_bytes = left.ok_or(Fault::Length(bytes))?;
        Ok(())
    }

    /// Checks a file.
    pub(super) fn accept(&mut self, tag: FileTag, file: Vec<u8>) -> Result<Output, Fault> {
        let output = match tag {
            FileTag::Original(format) => {
                if !self.recipe.keep_original || format == Format::Png {
                    return Err(Fault::Unwanted);
                }
                let other = ORIGINAL_FORMATS
                    .into_iter()
                    .filter(|other| *other != format);
                if other.map(FileTag::Original).any(|tag| self.has(tag)) {
                    return Err(Fault::Twice);
                }
                let (width, height) = Original::size_of(self.upload.width, self.upload.height);
                let found = measure(&file, format, width.max(height))?;
                if (found.width, found.height, found.frames) != (width, height, 1) {
                    return Err(Fault::Contents(format.name()));
                }
                let original = Original {
                    format,
                    width,
                    height,
                };
                Output::Original(original, file)
            }
            FileTag::Rendition {
                variant,
                format,
                animated,
            } => {
                let target = self.recipe.variants.get(usize::from(variant));
                let target = target.ok_or(Fault::Unwanted)?;
                let wanted = if animated {
                    self.recipe.animated && self.upload.frames > 1 && format == Format::Webp
                } else {
                    self.recipe.formats.contains(&format)
                };
                if !wanted {
                    return Err(Fault::Unwanted);
                }
                let found = measure(&file, format, target.edge_px)?;
                if found.width != found.height || found.frames > 1 && !animated {
                    return Err(Fault::Contents(format.name()));
                }
                let rendition = Rendition {
                    variant: target.name.clone(),
                    format,
                    width: found.width,
                    height: found.height,
                    bytes: file.len() as u64,
                    animated,
                };
                Output::Rendition(rendition, file)
            }
        };
        if !self.arrived.insert(tag.to_bytes()) {
            return Err(Fault::Twice);
        }
        Ok(output)
    }

    /// Whether this file has arrived.
    fn has(&self, tag: FileTag) -> bool {
        self.arrived.contains(&tag.to_bytes())
    }

    /// Checks that all stills, and the original if the recipe keeps it, have arrived.
    pub(super) fn finish(&self, placeholder: Placeholder) -> Result<Processed, Fault> {
        let bytes = placeholder.thumbhash.len();
        if bytes > MAX_THUMBHASH_BYTES {
            return Err(Fault::Placeholder(bytes));
        }
        let variants = 0..self.recipe.variants.len();
        let mut stills = variants.flat_map(|variant| {
            let formats = self.recipe.formats.iter();
            formats.map(move |&format| FileTag::Rendition {
                variant: variant as u8,
                format,
                animated: false,
            })
        });
        let mut originals = ORIGINAL_FORMATS.into_iter().map(FileTag::Original);
        let lacks_original =
            self.recipe.keep_original && !originals.any(|original| self.has(original));
        if !stills.all(|still| self.has(still)) || lacks_original {
            return Err(Fault::Incomplete);
        }
        Ok(Processed {
            source: Source {
                format: self.upload.format,
                bytes: self.upload_bytes,
                width: self.upload.width,
                height: self.upload.height,
                animated: self.upload.frames > 1,
            },
            placeholder,
        })
    }
}

/// The formats of originals.
const ORIGINAL_FORMATS: [Format; 2] = [Format::Jpeg, Format::Webp];

/// Reads the headers of a file in the format, whose sides have at most `max_edge_px`.
fn measure(file: &[u8], format: Format, max_edge_px: u32) -> Result<Probe, Fault> {
    let source = match format {
        Format::Webp => SourceFormat::Webp,
        Format::Jpeg => SourceFormat::Jpeg,
        Format::Png => SourceFormat::Png,
    };
    let limits = Limits {
        formats: vec![source],
        min_edge_px: 1,
        max_edge_px,
        max_frames: u32::MAX,
    };
    let found = probe(file, &limits).ok();
    let found = found.filter(|found| found.format == source);
    found.ok_or(Fault::Contents(format.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::avatar::VariantName;
    use cameo_imaging::{Target, encode_rgb};

    fn recipe() -> Recipe {
        let target = |name, edge_px| Target {
            name: VariantName::new(name).unwrap(),
            edge_px,
        };
        Recipe {
            limits: Limits {
                formats: SourceFormat::ALL.to_vec(),
                min_edge_px: 1,
                max_edge_px: 100,
                max_frames: 1,
            },
            variants: vec![target("small", 8), target("large", 16)],
            formats: vec![Format::Webp, Format::Jpeg],
            webp_quality: 80,
            jpeg_quality: 80,
            background: [0; 3],
            animated: false,
            keep_original: false,
        }
    }

    fn arrivals() -> Arrivals {
        let upload = Probe {
            format: SourceFormat::Png,
            width: 40,
            height: 30,
            frames: 1,
            memory_bytes: 1 << 20,
        };
        Arrivals::new(Arc::new(recipe()), upload, 1234)
    }

    fn file(width: u32, height: u32, format: Format) -> Vec<u8> {
        let pixels = vec![90; (width * height * 3) as usize];
        encode_rgb(width, height, pixels, format, &recipe()).unwrap()
    }

    fn still(variant: u8, format: Format) -> FileTag {
        FileTag::Rendition {
            variant,
            format,
            animated: false,
        }
    }

    fn placeholder() -> Placeholder {
        Placeholder {
            thumbhash: vec![7; 25],
            color: [1, 2, 3],
        }
    }

    #[test]
    fn a_picture_is_complete_when_every_file_of_the_recipe_has_arrived() {
        let mut arrivals = arrivals();
        for (variant, edge) in [(0, 8), (1, 16)] {
            for format in [Format::Webp, Format::Jpeg] {
                let unfinished = arrivals.finish(placeholder());
                assert_eq!(unfinished, Err(Fault::Incomplete));
                let file = file(edge, edge, format);
                let Output::Rendition(rendition, _) =
                    arrivals.accept(still(variant, format), file).unwrap()
                else {
                    panic!("a master");
                };
                assert_eq!((rendition.width, rendition.height), (edge, edge));
            }
        }
        let source = arrivals.finish(placeholder()).unwrap().source;
        assert_eq!((source.bytes, source.width, source.height), (1234, 40, 30));
        let long = Placeholder {
            thumbhash: vec![0; 33],
            ..placeholder()
        };
        assert_eq!(arrivals.finish(long), Err(Fault::Placeholder(33)));
    }

    #[test]
    fn a_file_of_another_format_or_size_than_its_tag_says_is_refused() {
        let mut arrivals = arrivals();
        let mut refused = |tag, file| arrivals.accept(tag, file).unwrap_err();
        let webp = |edge| file(edge, edge, Format::Webp);
        let contents = Fault::Contents("webp");
        assert_eq!(refused(still(0, Format::Webp), webp(9)), contents);
        assert_eq!(
            refused(still(1, Format::Webp), file(16, 12, Format::Webp)),
            contents
        );
        assert_eq!(
            refused(still(1, Format::Webp), file(16, 16, Format::Jpeg)),
            contents
        );
        assert_eq!(
            refused(still(0, Format::Webp), b"<script>".to_vec()),
            contents
        );
        assert_eq!(refused(still(2, Format::Webp), webp(8)), Fault::Unwanted);
        assert_eq!(refused(still(0, Format::Png), webp(8)), Fault::Unwanted);
        let animated = FileTag::Rendition {
            variant: 0,
            format: Format::Webp,
            animated: true,
        };
        assert_eq!(refused(animated, webp(8)), Fault::Unwanted);
        assert_eq!(
            refused(FileTag::Original(Format::Webp), webp(8)),
            Fault::Unwanted
        );
    }

    #[test]
    fn an_original_comes_once_in_the_size_of_its_upload() {
        let with_original = || {
            let mut arrivals = arrivals();
            let recipe = Recipe {
                keep_original: true,
                ..recipe()
            };
            arrivals.recipe = Arc::new(recipe);
            arrivals
        };
        let jpeg = FileTag::Original(Format::Jpeg);
        for (width, height) in [(30, 30), (40, 40), (30, 40), (41, 30), (20, 15)] {
            let other = file(width, height, Format::Jpeg);
            let refused = with_original().accept(jpeg, other);
            assert_eq!(refused, Err(Fault::Contents("jpeg")), "{width} × {height}");
        }
        let mut arrivals = with_original();
        for (variant, edge) in [(0, 8), (1, 16)] {
            for format in [Format::Webp, Format::Jpeg] {
                let file = file(edge, edge, format);
                arrivals.accept(still(variant, format), file).unwrap();
            }
        }
        assert_eq!(arrivals.finish(placeholder()), Err(Fault::Incomplete));
        let original = Original {
            format: Format::Jpeg,
            width: 40,
            height: 30,
        };
        let bytes = file(40, 30, Format::Jpeg);
        let accepted = arrivals.accept(jpeg, bytes.clone());
        assert_eq!(accepted, Ok(Output::Original(original, bytes)));
        let webp = FileTag::Original(Format::Webp);
        let second = arrivals.accept(webp, file(40, 30, Format::Webp));
        assert_eq!(second, Err(Fault::Twice));
        arrivals.finish(placeholder()).unwrap();
    }

    #[test]
    fn a_file_comes_once_and_all_files_together_fit_into_the_reserved_memory() {
        let mut arrivals = arrivals();
        let file = file(8, 8, Format::Webp);
        arrivals
            .accept(still(0, Format::Webp), file.clone())
            .unwrap();
        let again = arrivals.accept(still(0, Format::Webp), file);
        assert_eq!(again, Err(Fault::Twice));
        assert_eq!(arrivals.reserve(1 << 19), Ok(()));
        assert_eq!(arrivals.reserve(1 << 19), Ok(()));
        assert_eq!(arrivals.reserve(1), Err(Fault::Length(1)));
    }
}
