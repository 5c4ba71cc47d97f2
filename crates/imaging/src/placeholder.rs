//! Makes the placeholder that is shown until a rendition has loaded.

use super::raster::{Layout, Raster};
use crate::Placeholder;

/// The longest side in pixels that `ThumbHash` accepts.
pub(super) const MAX_EDGE_PX: u32 = 100;

/// Makes the placeholder of an RGB or RGBA picture of at most [`MAX_EDGE_PX`] a side.
pub(super) fn placeholder(raster: &Raster) -> Placeholder {
    debug_assert!(raster.width.max(raster.height) <= MAX_EDGE_PX);
    let rgba = match raster.layout {
        Layout::Rgba => raster.pixels.clone(),
        _ => raster
            .pixels
            .as_chunks::<3>()
            .0
            .iter()
            .flat_map(|&[red, green, blue]| [red, green, blue, 255])
            .collect(),
    };
    Placeholder {
        thumbhash: thumbhash::rgba_to_thumb_hash(
            raster.width as usize,
            raster.height as usize,
            &rgba,
        ),
        color: dominant_color(&rgba),
    }
}

/// The mean of the most frequent group of similar colours: colours that share the upper three bits
/// of each channel. Transparent pixels are ignored.
fn dominant_color(rgba: &[u8]) -> [u8; 3] {
    let mut boxes = vec![[0_u32; 4]; 512];
    for &[red, green, blue, alpha] in rgba.as_chunks::<4>().0 {
        if alpha < 128 {
            continue;
        }
        let index =
            usize::from(red >> 5) << 6 | usize::from(green >> 5) << 3 | usize::from(blue >> 5);
        let [count, sums @ ..] = &mut boxes[index];
        *count += 1;
        for (sum, channel) in sums.iter_mut().zip([red, green, blue]) {
            *sum += u32::from(channel);
        }
    }
    let [count, sums @ ..] = boxes
        .into_iter()
        .max_by_key(|[count, ..]| *count)
        .unwrap_or_default();
    sums.map(|sum| ((sum + count / 2) / count.max(1)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dominant_colour_occurs_in_the_picture() {
        let mut pixels = [200_u8, 10, 10].repeat(60);
        pixels.extend([10, 10, 200].repeat(40));
        let raster = Raster::new(10, 10, Layout::Rgb, pixels).unwrap();
        assert_eq!(placeholder(&raster).color, [200, 10, 10]);
    }

    #[test]
    fn a_transparent_picture_has_a_placeholder() {
        let raster = Raster::new(2, 2, Layout::Rgba, vec![0; 16]).unwrap();
        assert_eq!(placeholder(&raster).color, [0, 0, 0]);
    }
}
