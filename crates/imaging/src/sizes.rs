//! The sizes that are made of a picture.

use super::{Error, Output, Recipe, Target};
use crate::{Format, Rendition};

/// Takes what is made.
pub(super) type Give<'a> = dyn FnMut(Output) -> Result<(), Error> + 'a;

/// A size that is made, and the variants that have it: several, where the picture is smaller than
/// they are.
#[derive(Clone)]
pub(super) struct Size<'a> {
    pub(super) edge_px: u32,
    targets: Vec<&'a Target>,
}

impl<'a> Size<'a> {
    /// The sizes to make of a square of `edge_px`, from the largest.
    pub(super) fn all(recipe: &'a Recipe, edge_px: u32) -> Vec<Self> {
        let mut targets: Vec<&Target> = recipe.variants.iter().collect();
        targets.sort_by_key(|target| std::cmp::Reverse(target.edge_px));
        let edge_of = |target: &Target| target.edge_px.clamp(1, edge_px);
        targets
            .chunk_by(|one, other| edge_of(one) == edge_of(other))
            .map(|targets| Self {
                edge_px: edge_of(targets[0]),
                targets: targets.to_vec(),
            })
            .collect()
    }

    /// Gives a still's file out, once for each variant.
    pub(super) fn give_still(
        &self,
        format: Format,
        file: Vec<u8>,
        give: &mut Give<'_>,
    ) -> Result<(), Error> {
        self.give(format, file, false, give)
    }

    /// Gives an animated WebP out, once for each variant.
    pub(super) fn give_moving(&self, file: Vec<u8>, give: &mut Give<'_>) -> Result<(), Error> {
        self.give(Format::Webp, file, true, give)
    }

    fn give(
        &self,
        format: Format,
        file: Vec<u8>,
        animated: bool,
        give: &mut Give<'_>,
    ) -> Result<(), Error> {
        let rendition = |target: &Target| Rendition {
            variant: target.name.clone(),
            format,
            width: self.edge_px,
            height: self.edge_px,
            bytes: file.len() as u64,
            animated,
        };
        let Some((last, others)) = self.targets.split_last() else {
            return Ok(());
        };
        for target in others {
            give(Output::Rendition(rendition(target), file.clone()))?;
        }
        give(Output::Rendition(rendition(last), file))
    }
}
