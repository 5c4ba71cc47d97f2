//! The sizes that are made from a picture.

use super::{Error, Output, Recipe, Target};
use crate::{Format, Rendition};

/// Receives each output.
pub(super) type Emit<'a> = dyn FnMut(Output) -> Result<(), Error> + 'a;

/// A size to make, and its variants: several if the picture is smaller than they are.
#[derive(Clone)]
pub(super) struct Size<'a> {
    pub(super) edge_px: u32,
    targets: Vec<&'a Target>,
}

impl<'a> Size<'a> {
    /// The sizes to make from a square of `edge_px`, from the largest to the smallest.
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

    /// Emits the file of a still, once for each variant.
    pub(super) fn emit_still(
        &self,
        format: Format,
        file: Vec<u8>,
        emit: &mut Emit<'_>,
    ) -> Result<(), Error> {
        self.emit_all(format, file, false, emit)
    }

    /// Emits an animated WebP, once for each variant.
    pub(super) fn emit_animated(&self, file: Vec<u8>, emit: &mut Emit<'_>) -> Result<(), Error> {
        self.emit_all(Format::Webp, file, true, emit)
    }

    fn emit_all(
        &self,
        format: Format,
        file: Vec<u8>,
        animated: bool,
        emit: &mut Emit<'_>,
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
            emit(Output::Rendition(rendition(target), file.clone()))?;
        }
        emit(Output::Rendition(rendition(last), file))
    }
}
