//! Decodes JPEG (ITU-T T.81) at the smallest sufficient scale.

mod markers;
mod samples;
mod turbo;
#[cfg_attr(
    not(test),
    allow(dead_code, reason = "the way back from a young decoder")
)]
mod zune;

use super::{CONTRADICTION, Chroma, Colors, DecodeRequest, Decoded, Header, HeaderError, Memory};
use crate::Error;
use crate::SourceFormat;
use crate::geometry::{Area, Window};
use crate::planes::{Picture, Planes};
use crate::raster::{Layout, Raster};
pub(super) use markers::claimed_size;
use markers::{Coding, Markers};
use std::borrow::Cow;

/// A decoder of JPEG data. There are two, so that the other one can be used if one has a fault.
trait Decoder {
    /// Decodes a part of a picture at a scale of at least `eighths`/8.
    ///
    /// # Errors
    ///
    /// A reason that is safe to show, if any part of the picture cannot be decoded.
    fn decode(bytes: &[u8], markers: &Markers, part: Part) -> Result<Scaled, &'static str>;

    /// Decodes the whole picture at `eighths`/8 to its stored planes, at most at the size of luma.
    /// Returns `None` if the picture is not stored in luma and chroma, or if this decoder cannot do
    /// it.
    ///
    /// # Errors
    ///
    /// As [`Decoder::decode`].
    fn decode_planes(
        bytes: &[u8],
        markers: &Markers,
        eighths: u32,
    ) -> Result<Option<Planes>, &'static str>;
}

/// The part of a stored picture to decode, and the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    /// 1 to 8
    eighths: u32,
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// A decoded part, possibly with a border around it.
struct Scaled {
    raster: Raster,
    /// The scale that was used.
    eighths: u32,
    /// The position of the raster's corner in the scaled picture.
    left: u32,
    top: u32,
}

/// The decoder in use; `zune::Zune` can replace it.
type Chosen = turbo::Turbo;

/// The limit on scans. Real pictures have about ten, and the most thorough optimisers write a few
/// dozen. Each scan visits the whole picture, however few bytes it has.
const MAX_SCANS: u32 = 100;

/// The limit on samples times scans: the work for the maximum number of scans of 4096 × 4096 pixels
/// in three full channels. The decoder cannot be interrupted, so this bounds its time.
const MAX_WALKED_SAMPLES: u64 = MAX_SCANS as u64 * 4096 * 4096 * 3;

pub(super) fn header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let markers = Markers::read(bytes).map_err(HeaderError::Broken)?;
    check(&markers)?;
    // With several scans, and in every progressive picture, the decoder keeps the coefficients of
    // the whole picture, 16 bits each.
    let coefficient_bytes = if markers.scans > 1 || markers.coding == Coding::Progressive {
        markers.samples * 2
    } else {
        0
    };
    // A sampling that the decoder does not convert to pixels is decoded to all its samples first.
    let sample_bytes = if markers.sampling_is_usual() {
        0
    } else {
        markers.samples
    };
    // Of four channels, two may be held twice: partially and completely.
    let planes = match markers.components {
        4 => 5,
        components => u64::from(components),
    };
    let pixels = u64::from(markers.width) * u64::from(markers.height);
    Ok(Header {
        format: SourceFormat::Jpeg,
        width: markers.width,
        height: markers.height,
        orientation: markers.orientation,
        frames: 1,
        alpha: false,
        profile_bytes: markers.profile_bytes,
        memory: Memory {
            fixed_bytes: coefficient_bytes + sample_bytes + markers.kept_bytes,
            // The planes of the channels, of equal size after scaling; and once more if they are
            // the result, because they are copied out of whole blocks.
            scaled_bytes: pixels * planes,
            // Or the pixels made from them, twice.
            pixel_bytes: u64::from(markers.components) * 2,
        },
    })
}

/// Whether the picture is of a supported kind and takes no more work than a picture needs.
fn check(markers: &Markers) -> Result<(), HeaderError> {
    match markers.coding {
        Coding::Baseline | Coding::Progressive => {}
        Coding::Arithmetic => return Err(HeaderError::Kind("an arithmetic-coded JPEG")),
        Coding::Lossless => return Err(HeaderError::Kind("a lossless JPEG")),
        Coding::Hierarchical => return Err(HeaderError::Kind("a hierarchical JPEG")),
    }
    match markers.precision {
        8 => {}
        12 => return Err(HeaderError::Kind("a 12-bit JPEG")),
        _ => return Err(HeaderError::Broken("its sample precision does not exist")),
    }
    if !matches!(markers.components, 1 | 3 | 4) {
        return Err(HeaderError::Kind(
            "a JPEG with a number of channels that has no meaning",
        ));
    }
    if markers.scans > MAX_SCANS {
        return Err(HeaderError::Complex("it has more than 100 scans"));
    }
    if markers.samples * u64::from(markers.scans) > MAX_WALKED_SAMPLES {
        return Err(HeaderError::Complex("it has too many scans for its size"));
    }
    // T.81, A.2: in a sequential picture, each channel belongs to one scan. Each further scan would
    // cost as much as the whole picture.
    if markers.coding == Coding::Baseline && markers.scans > u32::from(markers.components) {
        return Err(HeaderError::Complex("it has more scans than channels"));
    }
    Ok(())
}

/// The limit on the memory for notes in a JPEG that is a part of another picture, which has none.
pub(super) const EMBEDDED_NOTES_BYTES: u64 = 256 << 10;

/// Decodes a JPEG that is a part of a picture in another format, and returns its samples. It is
/// `width` pixels wide, has at least `rows` and at most `max_rows` rows, and this number of
/// `channels`. Inks are returned as they are stored.
pub(super) fn decode_embedded(
    bytes: &[u8],
    (width, rows, max_rows): (u32, u32, u32),
    channels: usize,
) -> Result<Vec<u8>, HeaderError> {
    let markers = Markers::read(bytes).map_err(HeaderError::Broken)?;
    check(&markers)?;
    let fits = markers.width == width
        && (rows..=max_rows).contains(&markers.height)
        && usize::from(markers.components) == channels;
    if !fits {
        return Err(HeaderError::Broken(CONTRADICTION));
    }
    if markers.kept_bytes > EMBEDDED_NOTES_BYTES {
        return Err(HeaderError::Complex("a part of it has too many notes"));
    }
    let part = Part {
        eighths: 8,
        x: 0,
        y: 0,
        width,
        height: markers.height,
    };
    let decoded = Chosen::decode(bytes, &markers, part).map_err(HeaderError::Broken)?;
    Ok(decoded.raster.pixels)
}

/// The smallest scale, in eighths, at which the part still has the requested size.
pub(super) fn eighths(request: &DecodeRequest) -> u32 {
    let (to, from) = request.scale();
    (to * 8).div_ceil(from).clamp(1, 8)
}

pub(super) fn decode(
    bytes: &[u8],
    header: &Header,
    request: &DecodeRequest,
) -> Result<Decoded<Picture>, Error> {
    let corrupt = |reason| Error::Corrupt {
        format: SourceFormat::Jpeg,
        reason: Cow::Borrowed(reason),
    };
    let markers = Markers::read(bytes).map_err(corrupt)?;
    debug_assert!(header.width == markers.width && header.height == markers.height);
    let colors = Colors::from(markers.icc_profile(bytes));
    let area = request.area();
    let part = Part {
        eighths: eighths(request),
        x: area.x,
        y: area.y,
        width: area.width,
        height: area.height,
    };
    if planes_serve(&markers, request)
        && let Some(planes) =
            Chosen::decode_planes(bytes, &markers, part.eighths).map_err(corrupt)?
    {
        return Ok(Decoded {
            raster: Picture::Planes(planes),
            window: window_in(area, part.eighths, 0, 0),
            colors,
        });
    }
    let mut scaled = Chosen::decode(bytes, &markers, part).map_err(corrupt)?;
    if scaled.raster.layout == Layout::Cmyk && markers.inks_are_inverted() {
        for ink in &mut scaled.raster.pixels {
            *ink = 255 - *ink;
        }
    }
    Ok(Decoded {
        window: window_in(area, scaled.eighths, scaled.left, scaled.top),
        raster: Picture::Pixels(scaled.raster),
        colors,
    })
}

/// Whether a picture may be stored in luma and chroma of a sampling that planes support.
fn has_planes(markers: &Markers) -> bool {
    markers.sampling_is_usual() && markers.chroma_is_sampled_alike()
}

/// Whether planes are worthwhile: they hold the whole picture, even if only a small part is
/// requested.
fn planes_serve(markers: &Markers, request: &DecodeRequest) -> bool {
    has_planes(markers)
        && matches!(request.chroma, Chroma::Halved)
        && request.square.edge >= markers.height / 2
        && request.square.edge >= markers.width / 2
}

/// The position of an area in a scaled picture whose corner lies at `left` and `top`.
fn window_in(area: Area, eighths: u32, left: u32, top: u32) -> Window {
    let scale = f64::from(eighths) / 8.0;
    let whole = Window::from(area);
    Window {
        x: whole.x * scale - f64::from(left),
        y: whole.y * scale - f64::from(top),
        width: whole.width * scale,
        height: whole.height * scale,
    }
}

#[cfg(test)]
mod tests {
    use libjpeg_turbo_rs::tj3::{TjHandle, TjParam};
    use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

    use super::*;
    use crate::geometry::Square;

    fn soft_picture(width: usize, height: usize) -> Vec<u8> {
        let mut pixels = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let wave = |from: usize, step: usize| (from / step % 256) as u8;
                pixels.extend([wave(x * 3 + y, 4), wave(y * 2, 3), wave(x + 2 * y, 5)]);
            }
        }
        pixels
    }

    #[test]
    fn both_decoders_give_the_same_picture() {
        let (width, height) = (203, 117);
        let bytes = Encoder::new(
            &soft_picture(width, height),
            width,
            height,
            PixelFormat::Rgb,
        )
        .quality(90)
        .subsampling(Subsampling::S420)
        .encode()
        .unwrap();
        let markers = Markers::read(&bytes).unwrap();
        let part = Part {
            eighths: 8,
            x: 60,
            y: 10,
            width: 100,
            height: 100,
        };
        let turbo = turbo::Turbo::decode(&bytes, &markers, part).unwrap();
        let zune = zune::Zune::decode(&bytes, &markers, part).unwrap();
        assert_eq!((turbo.left, turbo.top), (48, 10));
        let mut sum = 0;
        for y in 0..100_usize {
            for x in 0..turbo.raster.width as usize {
                let near = (y * turbo.raster.width as usize + x) * 3;
                let far = ((y + 10) * width + x + 48) * 3;
                for channel in 0..3 {
                    let (a, b) = (
                        turbo.raster.pixels[near + channel],
                        zune.raster.pixels[far + channel],
                    );
                    sum += u32::from(a.abs_diff(b));
                }
            }
        }
        let mean = f64::from(sum) / turbo.raster.pixels.len() as f64;
        assert!(mean < 1.5, "mean difference {mean}");
    }

    #[test]
    fn a_smaller_scale_shows_the_same_part() {
        let (width, height) = (400, 300);
        let bytes = Encoder::new(
            &soft_picture(width, height),
            width,
            height,
            PixelFormat::Rgb,
        )
        .encode()
        .unwrap();
        let header = header(&bytes).ok().unwrap();
        for (edge_px, chroma) in [200, 130, 60, 25]
            .into_iter()
            .flat_map(|edge_px| [(edge_px, Chroma::Whole), (edge_px, Chroma::Halved)])
        {
            let square = Square {
                x: 77,
                y: 31,
                edge: 200,
            };
            let request = DecodeRequest {
                square,
                edge_px,
                original: None,
                chroma,
            };
            let decoded = decode(&bytes, &header, &request).unwrap();
            let (width, height) = match &decoded.raster {
                Picture::Pixels(raster) => (raster.width, raster.height),
                Picture::Planes(planes) => (planes.luma.width, planes.luma.height),
            };
            assert_eq!(
                matches!(decoded.raster, Picture::Planes(_)),
                chroma == Chroma::Halved
            );
            let window = decoded.window;
            assert!(window.width >= f64::from(edge_px));
            assert!(window.x >= 0.0 && window.x + window.width <= f64::from(width));
            assert!(window.y >= 0.0 && window.y + window.height <= f64::from(height));
        }
    }

    /// Planes of odd sizes match the pixels, with every chroma sampling.
    #[test]
    fn planes_show_the_same_picture_as_pixels() {
        let (width, height) = (203, 117);
        let pixels = soft_picture(width, height);
        for (sampling, shared) in [
            (Subsampling::S444, (1, 1)),
            (Subsampling::S422, (2, 1)),
            (Subsampling::S420, (2, 2)),
            (Subsampling::S440, (1, 2)),
            (Subsampling::S411, (4, 1)),
        ] {
            let bytes = Encoder::new(&pixels, width, height, PixelFormat::Rgb)
                .quality(95)
                .subsampling(sampling)
                .encode()
                .unwrap();
            let markers = Markers::read(&bytes).unwrap();
            for eighths in [8, 5, 4, 3, 1] {
                let planes = turbo::Turbo::decode_planes(&bytes, &markers, eighths)
                    .unwrap()
                    .unwrap();
                assert_eq!(planes.shared, shared);
                let part = Part {
                    eighths,
                    x: 0,
                    y: 0,
                    width: width as u32,
                    height: height as u32,
                };
                let whole = turbo::Turbo::decode(&bytes, &markers, part).unwrap().raster;
                let rgb = planes.to_rgb();
                assert_eq!((rgb.width, rgb.height), (whole.width, whole.height));
                let sum: u32 = (rgb.pixels.iter().zip(&whole.pixels))
                    .map(|(a, b)| u32::from(a.abs_diff(*b)))
                    .sum();
                let mean = f64::from(sum) / rgb.pixels.len() as f64;
                assert!(mean < 4.0, "{sampling:?} at {eighths}/8: {mean}");
            }
        }
    }

    /// The decoder holds planes of whole blocks and copies of them, at full size if no channel is
    /// subsampled.
    #[test]
    fn the_memory_estimate_covers_planes_of_the_whole_picture() {
        let (width, height) = (1024, 1024);
        let bytes = Encoder::new(
            &soft_picture(width, height),
            width,
            height,
            PixelFormat::Rgb,
        )
        .subsampling(Subsampling::S444)
        .encode()
        .unwrap();
        // The smallest part for which planes are used, at its full size.
        let edge = (width / 2) as u32;
        let request = DecodeRequest {
            square: Square { x: 0, y: 0, edge },
            edge_px: edge,
            original: None,
            chroma: Chroma::Halved,
        };
        let header = header(&bytes).ok().unwrap();
        let decoded = decode(&bytes, &header, &request).unwrap();
        assert!(matches!(decoded.raster, Picture::Planes(_)));
        // The library has its own memory limit, and refuses to exceed it.
        let takes = |mebibytes: u64| {
            let mut handle = TjHandle::new();
            handle
                .set(TjParam::MaxMemory, i32::try_from(mebibytes).unwrap())
                .unwrap();
            handle.decompress_to_yuv_planes(&bytes).is_ok()
        };
        assert!(takes(header.memory_bytes(&request).div_ceil(1 << 20)));
        assert!(!takes(5), "planes are held once and not twice");
    }

    #[test]
    fn planes_are_not_used_if_only_a_small_part_of_the_picture_is_requested() {
        for (width, height, served) in [(200, 100, true), (240, 100, false), (100, 240, false)] {
            let bytes = Encoder::new(
                &soft_picture(width, height),
                width,
                height,
                PixelFormat::Rgb,
            )
            .encode()
            .unwrap();
            let request = DecodeRequest {
                square: Square {
                    x: 0,
                    y: 0,
                    edge: 100,
                },
                edge_px: 100,
                original: None,
                chroma: Chroma::Halved,
            };
            let header = header(&bytes).ok().unwrap();
            let decoded = decode(&bytes, &header, &request).unwrap();
            assert_eq!(matches!(decoded.raster, Picture::Planes(_)), served);
        }
    }

    /// A picture stored as red, green and blue has no luma.
    #[test]
    fn planes_exist_only_for_luma_and_chroma() {
        let bytes = Encoder::new(&soft_picture(32, 32), 32, 32, PixelFormat::Rgb)
            .colorspace(libjpeg_turbo_rs::ColorSpace::Rgb)
            .subsampling(Subsampling::S444)
            .encode()
            .unwrap();
        let markers = Markers::read(&bytes).unwrap();
        assert_eq!(turbo::Turbo::decode_planes(&bytes, &markers, 8), Ok(None));
    }
}
