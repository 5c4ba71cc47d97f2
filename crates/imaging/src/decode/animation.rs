//! Composes frames, for the formats whose decoders give them separately.

use crate::raster::{Layout, Raster};

/// A composed frame of an animation.
pub(crate) struct Frame<'a> {
    /// The whole picture.
    pub(crate) canvas: &'a Raster,
    pub(crate) duration_ms: u32,
    /// How often the animation plays; 0 means for ever.
    pub(crate) plays: u32,
    pub(crate) colors: &'a super::Colors,
}

/// The shortest duration that viewers use. They show a shorter frame for a tenth of a second, and
/// files rely on that.
const MIN_MS: u32 = 11;

/// The longest duration of a frame. A WebP file can state four hours for a frame and 24 days in
/// total.
const MAX_MS: u32 = 10 * 60 * 1000;

/// The duration of a frame as viewers show it.
pub(super) fn shown_ms(duration_ms: u32) -> u32 {
    if duration_ms < MIN_MS {
        100
    } else {
        duration_ms.min(MAX_MS)
    }
}

/// A part of the canvas, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) x: usize,
    pub(super) y: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The state of a frame's area before the next frame is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposal {
    /// The area keeps the frame.
    Keep,
    /// The area becomes transparent.
    Clear,
    /// The area becomes what it was before the frame.
    Restore,
}

/// The picture on which frames are drawn: RGBA, at first transparent.
pub(super) struct Canvas {
    raster: Raster,
    /// The disposal and the area of the last frame, and the pixels below it if they have to be
    /// restored.
    pending: Option<(Disposal, Area, Vec<u8>)>,
}

impl Canvas {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let pixels = vec![0; Raster::len_of(width, height, Layout::Rgba)];
        Self {
            raster: Raster {
                width,
                height,
                layout: Layout::Rgba,
                pixels,
            },
            pending: None,
        }
    }

    /// Disposes of the previous frame and draws the next one from rows of RGBA `pixels`. With
    /// `over`, the canvas shows through where they are transparent. Pixels outside the canvas are
    /// ignored.
    pub(super) fn draw(&mut self, area: Area, pixels: &[u8], over: bool, disposal: Disposal) {
        self.dispose();
        let before = match disposal {
            Disposal::Restore => self.rows(area).flatten().copied().collect(),
            Disposal::Keep | Disposal::Clear => Vec::new(),
        };
        let sources = pixels.chunks_exact((area.width * 4).max(1));
        for (target, source) in self.rows_mut(area).zip(sources) {
            if over {
                blend(target, source);
            } else {
                target.copy_from_slice(&source[..target.len()]);
            }
        }
        self.pending = Some((disposal, area, before));
    }

    fn dispose(&mut self) {
        match self.pending.take() {
            Some((Disposal::Clear, area, _)) => self.rows_mut(area).for_each(|row| row.fill(0)),
            Some((Disposal::Restore, area, before)) => {
                let mut before = before.as_slice();
                for row in self.rows_mut(area) {
                    let (kept, rest) = before.split_at(row.len().min(before.len()));
                    row[..kept.len()].copy_from_slice(kept);
                    before = rest;
                }
            }
            Some((Disposal::Keep, ..)) | None => {}
        }
    }

    /// The canvas with the last frame.
    pub(super) const fn raster(&self) -> &Raster {
        &self.raster
    }

    pub(super) fn into_raster(self) -> Raster {
        self.raster
    }

    fn columns(&self, area: Area) -> std::ops::Range<usize> {
        let width = self.raster.width as usize;
        let begin = area.x.min(width);
        begin * 4..area.x.saturating_add(area.width).min(width).max(begin) * 4
    }

    fn rows(&self, area: Area) -> impl Iterator<Item = &[u8]> {
        let columns = self.columns(area);
        self.raster
            .pixels
            .chunks_exact(self.raster.stride())
            .skip(area.y)
            .take(area.height)
            .map(move |row| &row[columns.clone()])
    }

    fn rows_mut(&mut self, area: Area) -> impl Iterator<Item = &mut [u8]> {
        let columns = self.columns(area);
        let stride = self.raster.stride();
        self.raster
            .pixels
            .chunks_exact_mut(stride)
            .skip(area.y)
            .take(area.height)
            .map(move |row| &mut row[columns.clone()])
    }
}

/// Blends pixels with straight alpha over others.
fn blend(target: &mut [u8], source: &[u8]) {
    let (target, _) = target.as_chunks_mut::<4>();
    let (source, _) = source.as_chunks::<4>();
    for (under, over) in target.iter_mut().zip(source) {
        match (over[3], under[3]) {
            (0, _) => {}
            (255, _) | (_, 0) => *under = *over,
            (over_alpha, under_alpha) => {
                let over_weight = u32::from(over_alpha) * 255;
                let under_weight = u32::from(under_alpha) * (255 - u32::from(over_alpha));
                let weight = over_weight + under_weight;
                for channel in 0..3 {
                    let sum = u32::from(over[channel]) * over_weight
                        + u32::from(under[channel]) * under_weight;
                    under[channel] = ((sum + weight / 2) / weight) as u8;
                }
                under[3] = ((weight + 127) / 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Area = Area {
        x: 0,
        y: 0,
        width: 2,
        height: 1,
    };
    const RIGHT: Area = Area {
        x: 1,
        y: 0,
        width: 1,
        height: 1,
    };

    #[test]
    fn each_disposal_is_applied_before_the_next_frame() {
        for (disposal, expected) in [
            (Disposal::Keep, [7, 7, 7, 255]),
            (Disposal::Clear, [0; 4]),
            (Disposal::Restore, [3, 3, 3, 255]),
        ] {
            let mut canvas = Canvas::new(2, 1);
            canvas.draw(WHOLE, &[3, 3, 3, 255, 3, 3, 3, 255], false, Disposal::Keep);
            canvas.draw(RIGHT, &[7, 7, 7, 255], true, disposal);
            assert_eq!(canvas.raster().pixels[4..], [7, 7, 7, 255]);
            canvas.draw(WHOLE, &[0; 8], true, Disposal::Keep);
            assert_eq!(canvas.raster().pixels[..4], [3, 3, 3, 255]);
            assert_eq!(canvas.raster().pixels[4..], expected, "{disposal:?}");
        }
    }

    #[test]
    fn pixels_outside_the_canvas_are_ignored() {
        let mut canvas = Canvas::new(2, 1);
        let area = Area {
            x: 1,
            y: 0,
            width: 3,
            height: 2,
        };
        canvas.draw(area, &[9; 24], false, Disposal::Restore);
        assert_eq!(canvas.raster().pixels, [0, 0, 0, 0, 9, 9, 9, 9]);
        canvas.draw(WHOLE, &[0; 8], true, Disposal::Keep);
        assert_eq!(canvas.raster().pixels, [0; 8]);
    }

    #[test]
    fn half_opaque_over_half_opaque_is_three_quarters_opaque() {
        let mut under = [100, 0, 0, 128];
        blend(&mut under, &[0, 100, 0, 128]);
        assert_eq!(under, [33, 67, 0, 192]);
    }
}
