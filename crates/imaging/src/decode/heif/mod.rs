//! Decodes HEIF (ISO/IEC 23008-12) with HEVC (HEIC) and with AV1 (AVIF): the container with
//! `heifer-isobmff`, each tile with its [`codec`]. Only the tiles that the avatar shows are
//! decoded; they are halved if that is enough.
//!
//! Of the derived pictures it supports `grid`, which places tiles side by side, and `iden`, which
//! transforms another picture once more. It refuses `iovl`, which overlays pictures, and `tmap`,
//! which is HDR; the error names them.

mod codec;
mod container;
mod planes;

use heifer_isobmff::boxes::{ColorInfo, Property};
use heifer_isobmff::{HeifFile, ItemId};
use std::borrow::Cow;

use super::{Colors, DecodeRequest, Decoded, Header, HeaderError, MAX_PROFILE_BYTES, Memory};
use crate::Error;
use crate::SourceFormat;
use crate::control::Control;
use crate::geometry::{Area, Window};
use crate::orientation::Orientation;
use crate::raster::{Layout, Raster};
use codec::{Codec, Samples, Tiles};
pub(super) use container::claimed_size;
use planes::{Coefficients, Patch, Planes};

/// The largest padding of a tile: to whole coding blocks, of 64 px at most.
const PADDING_PX: u32 = 64;
/// The edge of the tiles of phones, even of small pictures.
const USUAL_TILE_PX: u32 = 512;
/// The limit on tiles. A phone stores 4096 × 4096 px in 64.
const MAX_TILES: usize = 1024;

/// Reads the header of a picture whose brands say `format`.
pub(super) fn header(bytes: &[u8], format: SourceFormat) -> Result<Header, HeaderError> {
    let file = container::open(bytes)?;
    let picture = Picture::read(&file, file.primary_id)?;
    if picture.codec.format() != format {
        return Err(HeaderError::Kind(picture.codec.name()));
    }
    let cover = match alpha_of(&file, &picture.items) {
        Some(alpha) => Some(Picture::read(&file, alpha)?),
        None => None,
    };
    let mut tile_bytes = 0;
    for picture in [Some(&picture), cover.as_ref()].into_iter().flatten() {
        // Tiles are decoded one after the other, so the largest one counts.
        tile_bytes = tile_bytes.max(picture.tile_bytes(&file, bytes.len())?);
    }
    if picture.transfer(&file)? == Some(PQ) {
        // PQ pictures are far brighter than sRGB. Without tone mapping they would come out dark.
        return Err(HeaderError::Kind("an HDR picture with the PQ curve"));
    }
    Ok(Header {
        format,
        width: picture.shown.width,
        height: picture.shown.height,
        orientation: picture.shown.orientation,
        frames: 1,
        alpha: cover.is_some(),
        profile_bytes: profile(&file, &picture.items).map_or(0, |profile| profile.len() as u64),
        memory: Memory {
            fixed_bytes: tile_bytes.saturating_add(container::kept_bytes(bytes)),
            scaled_bytes: 0,
            pixel_bytes: 4,
        },
    })
}

/// Whether the major brand is that of an AV1 or HEVC film.
fn is_sequence(bytes: &[u8]) -> bool {
    matches!(
        bytes.get(8..12),
        Some(b"avis" | b"hevc" | b"hevx" | b"msf1")
    )
}

const BROKEN: HeaderError = HeaderError::Broken("its container is damaged");

/// One coded picture of a file, and its presentation.
struct Picture {
    /// The item that is shown, then the items that it is derived from by `iden`, and last the coded
    /// item or grid.
    items: Vec<ItemId>,
    /// The size after the tiles were joined.
    coded_width: u32,
    coded_height: u32,
    shown: Shown,
    tile_width: u32,
    tile_height: u32,
    /// The tiles, row by row.
    tiles: Vec<ItemId>,
    columns: u32,
    codec: Codec,
}

impl Picture {
    fn read(file: &HeifFile<'_>, shown: ItemId) -> Result<Self, HeaderError> {
        let items = derivation(file, shown)?;
        let id = items.last().copied().unwrap_or(shown);
        let item = file.item(id).map_err(|_| BROKEN)?;
        let (tiles, columns, output) = match &item.item_type.0 {
            b"hvc1" | b"av01" => (vec![id], 1, None),
            b"grid" => {
                let grid = file.grid(id).map_err(|_| BROKEN)?;
                let tiles = file.referenced_items(id, b"dimg").to_vec();
                if tiles.len() != usize::from(grid.rows) * usize::from(grid.columns) {
                    return Err(HeaderError::Broken("tiles of it are missing"));
                }
                if tiles.len() > MAX_TILES {
                    return Err(HeaderError::Complex("it is cut into more than 1024 tiles"));
                }
                let output = (grid.output_width, grid.output_height);
                (tiles, u32::from(grid.columns), Some(output))
            }
            other => return Err(unsupported_item(*other)),
        };
        let first = tiles.first().copied().ok_or(BROKEN)?;
        let first_type = file.item(first).map_err(|_| BROKEN)?.item_type.0;
        let codec = Codec::of(first_type).ok_or_else(|| match &first_type {
            b"iden" | b"grid" | b"iovl" => HeaderError::Kind("a HEIF grid of derived pictures"),
            _ => unsupported_item(first_type),
        })?;
        let (tile_width, tile_height) = file
            .image_size(first)
            .ok()
            .flatten()
            .ok_or(HeaderError::Broken("its header gives no size"))?;
        let (width, height) = output.unwrap_or((tile_width, tile_height));
        if width == 0 || height == 0 || tile_width == 0 || tile_height == 0 {
            return Err(HeaderError::Broken("its header gives no size"));
        }
        let rows = tiles.len() as u32 / columns;
        // Tiles cover the picture, none lies completely outside, and a single one is not much
        // larger than it.
        let fits = |tile: u32, count: u32, length: u32| {
            u64::from(tile) * u64::from(count) >= u64::from(length)
                && u64::from(tile) * u64::from(count - 1) < u64::from(length)
                && (count > 1 || tile <= length.max(USUAL_TILE_PX).saturating_add(PADDING_PX))
        };
        // An edge between tiles must not separate two pixels that are merged into one.
        let even = |tile: u32, count: u32| count == 1 || tile.is_multiple_of(2);
        if !even(tile_width, columns) || !even(tile_height, rows) {
            return Err(HeaderError::Kind("a HEIF picture cut at odd places"));
        }
        if !fits(tile_width, columns, width) || !fits(tile_height, rows, height) {
            return Err(HeaderError::Broken("its tiles do not fit together"));
        }
        Ok(Self {
            coded_width: width,
            coded_height: height,
            shown: Shown::read(file, &items, width, height)?,
            items,
            tile_width,
            tile_height,
            tiles,
            columns,
            codec,
        })
    }

    /// Upper bound on the memory of decoding a tile in a file of this size.
    fn tile_bytes(&self, file: &HeifFile<'_>, file_bytes: usize) -> Result<u64, HeaderError> {
        let (width, height) = (self.tile_width, self.tile_height);
        match self.codec {
            Codec::Hevc => {
                let padded = |length: u32| u64::from(length) + u64::from(PADDING_PX);
                let samples = Samples::of_hevc(file, self.tiles[0])?;
                let pixel_bytes = samples.hevc_pixel_bytes();
                let pixels = padded(width).saturating_mul(padded(height));
                let decoding = pixels.saturating_mul(pixel_bytes);
                let streams = self
                    .tiles
                    .iter()
                    .map(|&tile| codec::hevc_stream_bytes(file, tile, file_bytes));
                Ok(decoding.saturating_add(streams.max().unwrap_or(0)))
            }
            Codec::Av1 => {
                let sequence = codec::sequence(file, self.tiles[0], (width, height))?;
                // Its extents are joined.
                let joined = file_bytes as u64;
                let decoding = sequence.shape(width, height).memory_bytes(file_bytes);
                Ok(decoding.saturating_add(joined))
            }
        }
    }

    /// The transfer characteristics, if the file or its first tile states them.
    fn transfer(&self, file: &HeifFile<'_>) -> Result<Option<u16>, HeaderError> {
        let first = self.tiles[0];
        if let Some((_, transfer, ..)) = nclx(file, &self.items, first) {
            return Ok(Some(transfer));
        }
        Ok(match self.codec {
            Codec::Hevc => None,
            Codec::Av1 => {
                let size = (self.tile_width, self.tile_height);
                Some(u16::from(codec::sequence(file, first, size)?.transfer))
            }
        })
    }
}

/// Describes an item of an unsupported type in words.
const fn unsupported_item(item_type: [u8; 4]) -> HeaderError {
    HeaderError::Kind(match &item_type {
        b"iovl" => "a HEIF overlay of several pictures (iovl)",
        b"tmap" => "an HDR picture with a tone map (tmap)",
        b"jpeg" => "a HEIF picture that is coded in JPEG",
        b"unci" => "a HEIF picture that is not compressed (unci)",
        _ => "a HEIF picture that is coded in neither HEVC nor AV1",
    })
}

/// The items from the shown one to the coded one: each `iden` is another item with its own
/// transformations (ISO/IEC 23008-12, 6.6.2.1).
fn derivation(file: &HeifFile<'_>, shown: ItemId) -> Result<Vec<ItemId>, HeaderError> {
    let mut items = vec![shown];
    let mut id = shown;
    while file.item(id).map_err(|_| BROKEN)?.item_type.0 == *b"iden" {
        let &[from] = file.referenced_items(id, b"dimg") else {
            return Err(HeaderError::Broken(
                "it is derived from no picture or several",
            ));
        };
        // This also ends a circle of items.
        if items.len() > MAX_DERIVATIONS {
            return Err(HeaderError::Complex("it is derived too many times"));
        }
        items.push(from);
        id = from;
    }
    Ok(items)
}

/// The limit on derivations. Real files derive a picture once.
const MAX_DERIVATIONS: usize = 8;

/// The visible part of a coded picture, and its orientation.
#[derive(Clone, Copy)]
struct Shown {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    orientation: Orientation,
}

impl Shown {
    /// Applies the transformations of the items, from the last item to the first, each in the order
    /// of the file. EXIF repeats them and is ignored.
    fn read(
        file: &HeifFile<'_>,
        items: &[ItemId],
        width: u32,
        height: u32,
    ) -> Result<Self, HeaderError> {
        let mut shown = Self {
            x: 0,
            y: 0,
            width,
            height,
            orientation: Orientation::UPRIGHT,
        };
        let mut properties = Vec::new();
        for &id in items.iter().rev() {
            properties.extend(file.item_properties(id).map_err(|_| BROKEN)?);
        }
        for property in properties {
            match property {
                Property::Rotation(quarters) => {
                    shown.orientation = shown.orientation.then_rotated_left(*quarters);
                }
                Property::Mirror(true) => shown.orientation = shown.orientation.then_flipped(),
                Property::Mirror(false) => shown.orientation = shown.orientation.then_mirrored(),
                Property::CleanAperture {
                    width: across,
                    height: down,
                    horiz_offset,
                    vert_offset,
                } => {
                    // The standard puts the clean aperture first; encoders use it to remove their
                    // padding.
                    if shown.orientation != Orientation::UPRIGHT {
                        return Err(HeaderError::Kind(
                            "a HEIF picture that is turned before it is cut",
                        ));
                    }
                    let (x, width) = clean(*across, *horiz_offset, shown.width)?;
                    let (y, height) = clean(*down, *vert_offset, shown.height)?;
                    (shown.x, shown.width) = (shown.x + x, width);
                    (shown.y, shown.height) = (shown.y + y, height);
                }
                _ => {}
            }
        }
        Ok(shown)
    }
}

/// The begin and the length of a clean aperture on one axis of `coded` pixels (ISO/IEC 14496-12,
/// 12.1.4): fractions, with the offset between both centres.
fn clean(length: (u32, u32), offset: (i32, u32), coded: u32) -> Result<(u32, u32), HeaderError> {
    if length.1 == 0 || offset.1 == 0 {
        return Err(BROKEN);
    }
    let length = f64::from(length.0) / f64::from(length.1);
    let centre = f64::from(coded) / 2.0 + f64::from(offset.0) / f64::from(offset.1);
    let begin = (centre - length / 2.0).round().max(0.0);
    let end = (begin + length.round()).min(f64::from(coded));
    if end - begin < 1.0 {
        return Err(BROKEN);
    }
    Ok((begin as u32, (end - begin) as u32))
}

/// The number of pixels, across and down, that are merged into one.
pub(super) fn shrink(request: &DecodeRequest) -> u32 {
    let (to, from) = request.scale();
    if from >= to * 2 { 2 } else { 1 }
}

pub(super) fn decode(
    bytes: &[u8],
    request: &DecodeRequest,
    control: &Control,
) -> Result<Decoded, Error> {
    // The header was accepted, so the codec is known.
    let broken = |refusal: &HeaderError| refused(Codec::Hevc, refusal);
    let file = container::open(bytes).map_err(|refusal| broken(&refusal))?;
    let picture = Picture::read(&file, file.primary_id).map_err(|refusal| broken(&refusal))?;
    let codec = picture.codec;
    let area = request.area();
    let area = Area {
        x: area.x + picture.shown.x,
        y: area.y + picture.shown.y,
        ..area
    };
    let shrink = shrink(request);
    // From the pixel in which the area begins to the one in which it ends, within the picture.
    let span = |from: u32, wanted: u32, length: u32| {
        let begin = from / shrink;
        let end = (from + wanted).div_ceil(shrink);
        // The last pixel of an odd length is not merged.
        (begin, end.min(length / shrink).max(begin + 1) - begin)
    };
    let (left, width) = span(area.x, area.width, picture.coded_width);
    let (top, height) = span(area.y, area.height, picture.coded_height);
    let alpha = alpha_of(&file, &picture.items);
    let layout = if alpha.is_some() {
        Layout::Rgba
    } else {
        Layout::Rgb
    };
    let patch = Patch {
        left,
        top,
        shrink,
        raster: Raster {
            width,
            height,
            layout,
            pixels: vec![255; Raster::len_of(width, height, layout)],
        },
    };
    let mut colors = None;
    // The decoder of the colours ends before that of the alpha begins.
    let mut patch = {
        let mut tiles = Tiles::open(&file, &picture)?;
        let mut decode = |tile, halved| tiles.decode(&file, &picture, tile, halved, control);
        fill(&picture, patch, &mut decode, |patch, planes, tile, at| {
            let (coefficients, described) = coefficients(&file, &picture, tile, planes)?;
            colors.get_or_insert(described);
            patch.draw_colors(planes, &coefficients, at);
            Ok(())
        })?
    };
    if let Some(alpha) = alpha {
        let cover = Picture::read(&file, alpha).map_err(|refusal| refused(codec, &refusal))?;
        let size = |picture: &Picture| (picture.coded_width, picture.coded_height);
        if size(&cover) != size(&picture) {
            return Err(corrupt(codec, "its alpha has another size"));
        }
        let mut tiles = Tiles::open(&file, &cover)?;
        let mut decode = |tile, halved| tiles.decode(&file, &cover, tile, halved, control);
        patch = fill(&cover, patch, &mut decode, |patch, planes, tile, at| {
            let (coefficients, _) = coefficients(&file, &cover, tile, planes)?;
            patch.draw_alpha(planes, &coefficients, at);
            Ok(())
        })?;
        let mut premultiplied = picture.items.iter();
        if premultiplied.any(|&id| file.referenced_items(id, b"prem").contains(&alpha)) {
            patch.divide_by_alpha();
        }
    }
    let profile = profile(&file, &picture.items);
    let scale = f64::from(shrink);
    let x = f64::from(area.x) / scale - f64::from(left);
    let y = f64::from(area.y) / scale - f64::from(top);
    let (wide, high) = (
        f64::from(area.width) / scale,
        f64::from(area.height) / scale,
    );
    // Both sides lose the same part, so the proportions stay.
    let left_over = ((f64::from(width) - x) / wide).min((f64::from(height) - y) / high);
    let kept = left_over.min(1.0);
    Ok(Decoded {
        window: Window {
            x,
            y,
            width: (wide * kept).min(f64::from(width) - x),
            height: (high * kept).min(f64::from(height) - y),
        },
        raster: patch.raster,
        colors: profile.map_or(colors.unwrap_or(Colors::Unmarked), |profile| {
            Colors::Profile(profile.to_vec())
        }),
    })
}

/// The profile of the first item that has one, unless it is too large.
fn profile<'a>(file: &'a HeifFile<'_>, items: &[ItemId]) -> Option<&'a [u8]> {
    let mut profiles = items
        .iter()
        .filter_map(|&id| file.icc_profile(id).ok().flatten());
    let profile = profiles.next()?;
    (profile.len() <= MAX_PROFILE_BYTES).then_some(profile)
}

const fn corrupt(codec: Codec, reason: &'static str) -> Error {
    Error::Corrupt {
        format: codec.format(),
        reason: Cow::Borrowed(reason),
    }
}

/// Maps an error of the header that appears only during decoding.
const fn refused(codec: Codec, refusal: &HeaderError) -> Error {
    match refusal {
        HeaderError::Broken(reason) | HeaderError::Kind(reason) | HeaderError::Complex(reason) => {
            corrupt(codec, reason)
        }
    }
}

/// Decodes the tiles that the patch shows, one after the other. Passes each tile and its position
/// in the picture to `draw`.
fn fill(
    picture: &Picture,
    mut patch: Patch,
    decode: &mut dyn FnMut(ItemId, bool) -> Result<Planes, Error>,
    mut draw: impl FnMut(&mut Patch, &Planes, ItemId, (u32, u32)) -> Result<(), Error>,
) -> Result<Patch, Error> {
    for (index, &tile) in (0..).zip(&picture.tiles) {
        let at = (
            index % picture.columns * picture.tile_width,
            index / picture.columns * picture.tile_height,
        );
        if !patch.shows(at, picture.tile_width, picture.tile_height) {
            continue;
        }
        let planes = decode(tile, patch.shrink > 1)?;
        draw(&mut patch, &planes, tile, at)?;
    }
    Ok(patch)
}

/// The auxiliary picture with the alpha of the first item that has one. Depth maps and gain maps
/// are auxiliary pictures too, and are ignored.
fn alpha_of(file: &HeifFile<'_>, items: &[ItemId]) -> Option<ItemId> {
    items
        .iter()
        .flat_map(|&id| file.referencing_items(id, b"auxl"))
        .find(|&aux| {
            file.item_properties(aux).is_ok_and(|mut properties| {
                properties.any(|property| {
                    matches!(property, Property::AuxiliaryType(kind)
                    if kind == "urn:mpeg:hevc:2015:auxid:1"
                        || kind == "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")
                })
            })
        })
}

/// The colour coding of the samples of a tile: from the picture, else from the tile, else from its
/// own stream (ISO/IEC 23008-12, 6.5.5).
fn coefficients(
    file: &HeifFile<'_>,
    picture: &Picture,
    tile: ItemId,
    planes: &Planes,
) -> Result<(Coefficients, Colors), Error> {
    let (colors, matrix, full_range) = match nclx(file, &picture.items, tile) {
        Some((primaries, transfer, matrix, full_range)) => (
            Colors::Coded {
                primaries: primaries as u8,
                transfer: transfer as u8,
            },
            matrix,
            full_range,
        ),
        None => (
            planes
                .colors
                .map_or(Colors::Unmarked, |(primaries, transfer)| Colors::Coded {
                    primaries,
                    transfer,
                }),
            u16::from(planes.matrix),
            planes.full_range,
        ),
    };
    let coefficients =
        Coefficients::new(matrix, full_range, planes.bit_depth).ok_or_else(|| {
            corrupt(
                picture.codec,
                "it uses a colour matrix that is not supported",
            )
        })?;
    Ok((coefficients, colors))
}

/// The transfer characteristics of SMPTE ST 2084 (PQ).
const PQ: u16 = 16;

/// Primaries, transfer characteristics, matrix coefficients and the full-range flag, from the first
/// source that states them: the items, then the tile.
fn nclx(file: &HeifFile<'_>, items: &[ItemId], tile: ItemId) -> Option<(u16, u16, u16, bool)> {
    items.iter().chain([&tile]).find_map(|&id| {
        file.item_properties(id)
            .ok()?
            .find_map(|property| match property {
                Property::Color(ColorInfo::Nclx {
                    primaries,
                    transfer,
                    matrix,
                    full_range,
                }) => Some((*primaries, *transfer, *matrix, *full_range)),
                _ => None,
            })
    })
}
