//! The container (RFC 9649, section 2): chunks of a RIFF file, and what they say of the picture.

use super::super::animation::{Area, Disposal};
use super::super::{HeaderError, Size};
use super::vp8l;
use crate::orientation::Orientation;

/// What a file holds. What is asked of it before it is decoded and what is decoded come from here
/// both, so that they cannot differ.
pub(super) struct File<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    /// An ICC profile.
    pub(super) profile: Option<&'a [u8]>,
    pub(super) content: Content<'a>,
    /// Whether the file is as long as it says.
    pub(super) whole: bool,
}

pub(super) enum Content<'a> {
    /// The picture, where there is one.
    Still(Option<Picture<'a>>),
    Moving(Animation<'a>),
}

/// A picture as it is coded: a still or a frame.
#[derive(Clone, Copy)]
pub(super) struct Picture<'a> {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) data: Data<'a>,
    /// Whether all of its data is there.
    pub(super) whole: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Data<'a> {
    /// VP8, and the payload of an `ALPH` chunk.
    Lossy(&'a [u8], Option<&'a [u8]>),
    /// VP8L.
    Lossless(&'a [u8]),
}

pub(super) struct Animation<'a> {
    /// How often it plays, 0 for ever; `None` where nothing says.
    pub(super) plays: Option<u32>,
    /// How many frames there are, whole or not.
    pub(super) frames: u32,
    chunks: Chunks<'a>,
}

/// A frame of an animation.
pub(super) struct FrameData<'a> {
    pub(super) area: Area,
    pub(super) duration_ms: u32,
    /// Whether what is there shows through; else the frame takes its place.
    pub(super) over: bool,
    pub(super) disposal: Disposal,
    /// The picture, where there is one.
    pub(super) picture: Option<Picture<'a>>,
}

const CONTRADICTION: HeaderError = HeaderError::Broken("its headers contradict each other");
const DAMAGED: HeaderError = HeaderError::Broken("its header is damaged");

const ANIMATED: u8 = 0b0000_0010;
const ALPHA: u8 = 0b0001_0000;

/// The size in the first chunk, and the orientation that any chunk says.
pub(in crate::decode) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let chunks = Chunks {
        rest: bytes.get(12..)?,
    };
    let first = chunks.clone().next()?;
    let (width, height) = match first.id {
        b"VP8X" => {
            let &[w0, w1, w2, h0, h1, h2] = first.payload.get(4..10)? else {
                return None;
            };
            (u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1)
        }
        b"VP8 " | b"VP8L" => {
            let picture = Picture::read(&first, None).ok()?;
            (picture.width, picture.height)
        }
        _ => return None,
    };
    let exif = chunks.filter(|chunk| chunk.id == b"EXIF").last();
    Some(Size {
        width,
        height,
        orientation: exif.map_or(Orientation::UPRIGHT, |chunk| {
            Orientation::from_exif_data(chunk.payload)
        }),
    })
}

impl<'a> File<'a> {
    /// Reads all that is said of the picture, and nothing of the picture itself.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, HeaderError> {
        let Some((&[_, _, _, _, l0, l1, l2, l3, _, _, _, _], body)) =
            bytes.split_first_chunk::<12>()
        else {
            return Err(HeaderError::Broken("its header is cut off"));
        };
        // The length counts from the form on; what comes behind is no part of the file.
        let length = (u32::from_le_bytes([l0, l1, l2, l3]) as usize)
            .checked_sub(4)
            .ok_or(DAMAGED)?;
        let chunks = Chunks {
            rest: &body[..length.min(body.len())],
        };
        let mut file = Self {
            width: 0,
            height: 0,
            orientation: Orientation::UPRIGHT,
            profile: None,
            content: Content::Still(None),
            whole: length <= body.len(),
        };
        let mut flags = 0;
        let mut size = None;
        let (mut picture, mut alpha) = (None, None);
        let (mut plays, mut frames) = (None, 0_u32);
        for (index, chunk) in chunks.clone().enumerate() {
            let Chunk { id, payload, whole } = chunk;
            file.whole &= whole;
            match id {
                b"VP8X" if index == 0 => {
                    let &[first, _, _, _, w0, w1, w2, h0, h1, h2, ..] = payload else {
                        return Err(HeaderError::Broken("its header is cut off"));
                    };
                    flags = first;
                    size = Some((u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1));
                }
                // What comes later may not say otherwise than what comes first.
                b"VP8X" => return Err(CONTRADICTION),
                b"VP8 " | b"VP8L" => {
                    let found = Picture::read(&chunk, alpha)?;
                    let coded = (found.width, found.height);
                    if *size.get_or_insert(coded) != coded {
                        return Err(CONTRADICTION);
                    }
                    picture = picture.or(Some(found));
                }
                _ if index == 0 => return Err(DAMAGED),
                b"ALPH" if flags & ALPHA != 0 => alpha = Some(payload),
                b"ANIM" => plays = plays.or(plays_of(payload)),
                b"ANMF" => {
                    frames = frames.saturating_add(1);
                    check_frame(payload, size)?;
                }
                b"ICCP" => file.profile = file.profile.or(Some(payload)),
                b"EXIF" => file.orientation = Orientation::from_exif_data(payload),
                _ => {}
            }
        }
        (file.width, file.height) =
            size.ok_or(HeaderError::Broken("it has a header and no picture"))?;
        if file.width == 0 || file.height == 0 {
            return Err(HeaderError::Broken("its header gives no size"));
        }
        file.content = if flags & ANIMATED == 0 {
            Content::Still(picture)
        } else {
            Content::Moving(Animation {
                plays,
                frames,
                chunks,
            })
        };
        Ok(file)
    }
}

impl<'a> Picture<'a> {
    /// The picture in a `VP8 ` or `VP8L` chunk, and in the payload of an `ALPH` chunk.
    fn read(chunk: &Chunk<'a>, alpha: Option<&'a [u8]>) -> Result<Self, HeaderError> {
        let Chunk { id, payload, whole } = *chunk;
        if id == b"VP8L" {
            let shape = vp8l::shape(payload).ok_or(DAMAGED)?;
            return Ok(Self {
                width: shape.width,
                height: shape.height,
                data: Data::Lossless(payload),
                whole,
            });
        }
        let &[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] = payload else {
            return Err(DAMAGED);
        };
        let edge = |low, high| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
        Ok(Self {
            width: edge(w0, w1),
            height: edge(h0, h1),
            data: Data::Lossy(payload, alpha),
            whole,
        })
    }
}

impl<'a> Animation<'a> {
    /// The frames, as far as their headers are whole.
    pub(super) fn frames(&self) -> impl Iterator<Item = FrameData<'a>> {
        self.chunks
            .clone()
            .filter(|chunk| chunk.id == b"ANMF")
            .map_while(|chunk| FrameData::read(chunk.payload).ok().flatten())
    }
}

impl<'a> FrameData<'a> {
    /// Reads the payload of an `ANMF` chunk; gives nothing where it is cut off.
    fn read(payload: &'a [u8]) -> Result<Option<Self>, HeaderError> {
        let Some((head, data)) = payload.split_first_chunk::<16>() else {
            return Ok(None);
        };
        let &[
            x0,
            x1,
            x2,
            y0,
            y1,
            y2,
            w0,
            w1,
            w2,
            h0,
            h1,
            h2,
            d0,
            d1,
            d2,
            flags,
        ] = head;
        let (width, height) = (u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1);
        let mut frame = Self {
            area: Area {
                x: u24([x0, x1, x2]) as usize * 2,
                y: u24([y0, y1, y2]) as usize * 2,
                width: width as usize,
                height: height as usize,
            },
            duration_ms: u24([d0, d1, d2]),
            over: flags & 0b10 == 0,
            disposal: if flags & 1 == 0 {
                Disposal::Keep
            } else {
                Disposal::Clear
            },
            picture: None,
        };
        let mut alpha = None;
        for chunk in (Chunks { rest: data }) {
            match chunk.id {
                b"ALPH" => alpha = Some(chunk.payload),
                b"VP8 " | b"VP8L" => {
                    let found = Picture::read(&chunk, alpha)?;
                    if (found.width, found.height) != (width, height) {
                        return Err(CONTRADICTION);
                    }
                    frame.picture = frame.picture.or(Some(found));
                }
                _ => {}
            }
        }
        Ok(Some(frame))
    }
}

/// A frame lies within the canvas, and its data has the size that it says.
fn check_frame(payload: &[u8], canvas: Option<(u32, u32)>) -> Result<(), HeaderError> {
    let (Some(frame), Some((width, height))) = (FrameData::read(payload)?, canvas) else {
        return Ok(());
    };
    let Area { x, y, .. } = frame.area;
    if x + frame.area.width > width as usize || y + frame.area.height > height as usize {
        return Err(CONTRADICTION);
    }
    Ok(())
}

/// How often an animation plays, from the payload of an `ANIM` chunk.
fn plays_of(payload: &[u8]) -> Option<u32> {
    match payload {
        &[_, _, _, _, low, high, ..] => Some(u16::from_le_bytes([low, high]).into()),
        _ => None,
    }
}

fn u24([low, middle, high]: [u8; 3]) -> u32 {
    u32::from_le_bytes([low, middle, high, 0])
}

struct Chunk<'a> {
    id: &'a [u8; 4],
    payload: &'a [u8],
    /// Whether the payload is as long as it should be.
    whole: bool,
}

/// Chunks one after the other. Of one that is cut off, what is there still says what it begins with.
#[derive(Clone)]
struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (id, rest) = self.rest.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let payload = &rest[..length.min(rest.len())];
        self.rest = rest
            .get(length.saturating_add(length & 1)..)
            .unwrap_or_default();
        let whole = payload.len() == length;
        Some(Chunk { id, payload, whole })
    }
}
