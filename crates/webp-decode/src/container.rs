//! The container (RFC 9649, section 2): the chunks of a RIFF file.

use crate::{Area, Error, vp8l};

/// A WebP file: its size, its metadata, and where its pictures are. Nothing is decoded yet.
#[derive(Clone, Debug)]
pub struct WebP<'a> {
    width: u32,
    height: u32,
    icc_profile: Option<&'a [u8]>,
    exif: Option<&'a [u8]>,
    content: Content<'a>,
    is_complete: bool,
}

/// The pictures in a file.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// One picture; `None` if the file has a header and no picture.
    Still(Option<Picture<'a>>),
    /// An animation.
    Animation(Animation<'a>),
}

/// An encoded picture: a still or a frame of an animation.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    width: u32,
    height: u32,
    pub(crate) data: Data<'a>,
    is_complete: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// VP8, and the payload of an `ALPH` chunk.
    Lossy(&'a [u8], Option<&'a [u8]>),
    /// VP8L.
    Lossless(&'a [u8]),
}

/// The frames of an animated file.
#[derive(Clone, Debug)]
pub struct Animation<'a> {
    plays: Option<u32>,
    frame_count: u32,
    chunks: Chunks<'a>,
}

/// A frame of an animation.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The part of the canvas that the frame covers. It lies within the canvas.
    pub area: Area,
    /// How long the frame is shown, in milliseconds.
    pub duration_ms: u32,
    /// How the frame is drawn on the canvas.
    pub blending: Blending,
    /// The fate of the frame's area before the next frame is drawn.
    pub disposal: Disposal,
    /// The picture, of the same size as the area; `None` if the file lacks it.
    pub picture: Option<Picture<'a>>,
}

/// How a frame is drawn on the canvas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blending {
    /// The canvas shows through where the frame is transparent.
    Over,
    /// The frame replaces its area of the canvas.
    Replace,
}

/// The fate of a frame's area before the next frame is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposal {
    /// The area stays as it is.
    Keep,
    /// The area becomes transparent. (Readers ignore the file's background colour.)
    Clear,
}

/// The size that a file claims, and its EXIF data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedSize<'a> {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The payload of the last `EXIF` chunk.
    pub exif: Option<&'a [u8]>,
}

const CONTRADICTION: Error = Error::Corrupt("its headers contradict each other");
const DAMAGED: Error = Error::Corrupt("its header is damaged");
const CUT_OFF: Error = Error::Corrupt("its header is cut off");
const NO_WEBP: Error = Error::Corrupt("it does not begin as a WebP file does");
const NO_PICTURE: Error = Error::Corrupt("it has a header and no picture");
const NO_SIZE: Error = Error::Corrupt("its header gives no size");

const ANIMATED: u8 = 0b0000_0010;

/// Reads the size that the first chunk claims, also of a file that [`WebP::parse`] refuses: a caller
/// can then say that the picture is too large before it says that it is damaged. Returns `None` if
/// the file claims no size.
pub fn claimed_size(bytes: &[u8]) -> Option<ClaimedSize<'_>> {
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
    Some(ClaimedSize {
        width,
        height,
        exif: exif.map(|chunk| chunk.payload),
    })
}

impl<'a> WebP<'a> {
    /// Reads the container of a file. Bytes behind the end that the file states are ignored.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the headers are damaged, cut off or contradict each other. A file that
    /// is cut off behind its headers is read; see [`Self::is_complete`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let (head, body) = bytes.split_first_chunk::<12>().ok_or(CUT_OFF)?;
        if !head.starts_with(b"RIFF") || !head.ends_with(b"WEBP") {
            return Err(NO_WEBP);
        }
        // The length counts from the form type on. Bytes behind it are not part of the file.
        let length = (u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize)
            .checked_sub(4)
            .ok_or(DAMAGED)?;
        let chunks = Chunks {
            rest: &body[..length.min(body.len())],
        };
        let mut file = Self {
            width: 0,
            height: 0,
            icc_profile: None,
            exif: None,
            content: Content::Still(None),
            is_complete: length <= body.len(),
        };
        let mut flags = 0;
        let mut size = None;
        let (mut picture, mut alpha) = (None, None);
        let (mut plays, mut frames) = (None, 0_u32);
        for (index, chunk) in chunks.clone().enumerate() {
            let Chunk {
                id,
                payload,
                is_complete,
            } = chunk;
            file.is_complete &= is_complete;
            match id {
                b"VP8X" if index == 0 => {
                    let &[first, _, _, _, w0, w1, w2, h0, h1, h2, ..] = payload else {
                        return Err(CUT_OFF);
                    };
                    flags = first;
                    size = Some((u24([w0, w1, w2]) + 1, u24([h0, h1, h2]) + 1));
                }
                // A later chunk must not contradict the first one.
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
                b"ALPH" => alpha = Some(payload),
                b"ANIM" => plays = plays.or(plays_of(payload)),
                b"ANMF" => {
                    frames = frames.saturating_add(1);
                    check_frame(payload, size)?;
                }
                b"ICCP" => file.icc_profile = file.icc_profile.or(Some(payload)),
                b"EXIF" => file.exif = Some(payload),
                _ => {}
            }
        }
        (file.width, file.height) = size.ok_or(NO_PICTURE)?;
        if file.width == 0 || file.height == 0 {
            return Err(NO_SIZE);
        }
        file.content = if flags & ANIMATED == 0 {
            Content::Still(picture)
        } else {
            Content::Animation(Animation {
                plays,
                frame_count: frames,
                chunks,
            })
        };
        Ok(file)
    }

    /// Width of the picture or of the animation's canvas, in pixels: 1 to 16,777,216.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height of the picture or of the animation's canvas, in pixels: 1 to 16,777,216.
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// The payload of the first `ICCP` chunk.
    pub const fn icc_profile(&self) -> Option<&'a [u8]> {
        self.icc_profile
    }

    /// The payload of the last `EXIF` chunk.
    pub const fn exif(&self) -> Option<&'a [u8]> {
        self.exif
    }

    /// The pictures.
    pub const fn content(&self) -> &Content<'a> {
        &self.content
    }

    /// Whether the file is as long as its headers say.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }
}

impl<'a> Picture<'a> {
    /// Width in pixels.
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Whether the picture has an alpha channel.
    pub fn has_alpha(&self) -> bool {
        match self.data {
            Data::Lossy(_, alpha) => alpha.is_some(),
            Data::Lossless(payload) => vp8l::shape(payload).is_some_and(|shape| shape.alpha),
        }
    }

    /// Whether the file holds all bytes of the picture. If not, it is not decoded.
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Reads the picture in a `VP8 ` or `VP8L` chunk, and in the payload of an `ALPH` chunk.
    fn read(chunk: &Chunk<'a>, alpha: Option<&'a [u8]>) -> Result<Self, Error> {
        let Chunk {
            id,
            payload,
            is_complete,
        } = *chunk;
        if id == b"VP8L" {
            let shape = vp8l::shape(payload).ok_or(DAMAGED)?;
            return Ok(Self {
                width: shape.width,
                height: shape.height,
                data: Data::Lossless(payload),
                is_complete,
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
            is_complete,
        })
    }
}

impl<'a> Animation<'a> {
    /// How often the animation plays, 0 for ever; `None` if the file does not say.
    pub const fn plays(&self) -> Option<u32> {
        self.plays
    }

    /// The number of frame chunks, complete or not.
    pub const fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// The frames in order, up to the first one whose header is cut off.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'a>> {
        self.chunks
            .clone()
            .filter(|chunk| chunk.id == b"ANMF")
            .map_while(|chunk| Frame::read(chunk.payload).ok().flatten())
    }
}

impl<'a> Frame<'a> {
    /// Reads the payload of an `ANMF` chunk. Returns `None` if the frame header is cut off.
    fn read(payload: &'a [u8]) -> Result<Option<Self>, Error> {
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
                x: u24([x0, x1, x2]) * 2,
                y: u24([y0, y1, y2]) * 2,
                width,
                height,
            },
            duration_ms: u24([d0, d1, d2]),
            blending: if flags & 0b10 == 0 {
                Blending::Over
            } else {
                Blending::Replace
            },
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

/// Checks that a frame lies within the canvas and that its data has the size that its header says.
fn check_frame(payload: &[u8], canvas: Option<(u32, u32)>) -> Result<(), Error> {
    let (Some(frame), Some((width, height))) = (Frame::read(payload)?, canvas) else {
        return Ok(());
    };
    if frame.area.is_within(width, height) {
        Ok(())
    } else {
        Err(CONTRADICTION)
    }
}

/// Reads how often an animation plays from the payload of an `ANIM` chunk.
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
    /// Whether the payload is as long as the chunk says.
    is_complete: bool,
}

/// Iterates over chunks. The payload of the last one may be cut off.
#[derive(Clone, Debug)]
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
        Some(Chunk {
            id,
            payload,
            is_complete: payload.len() == length,
        })
    }
}
