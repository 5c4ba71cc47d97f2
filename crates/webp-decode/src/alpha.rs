//! The alpha channel of a lossy picture: the `ALPH` chunk (RFC 9649, section 2.7.1.2).

use crate::Area;
use crate::Error;
use crate::interrupt::Interrupt;
use crate::vp8l::{self, Channels};
use crate::{CUT_OFF, DAMAGED};

/// Decodes the payload of an `ALPH` chunk into rows of one byte per pixel.
pub(super) fn decode(
    payload: &[u8],
    (width, height): (u32, u32),
    interrupt: Interrupt<'_>,
) -> Result<Vec<u8>, Error> {
    let (&head, data) = payload.split_first().ok_or(CUT_OFF)?;
    // The other four bits may say that the encoder reduced the number of levels, which needs no
    // undoing. libwebp refuses their other values, although RFC 9649 says to ignore them.
    if head >> 4 > 1 {
        return Err(DAMAGED);
    }
    let part = Area::whole(width, height);
    let size = (width as usize, height as usize);
    let mut plane = match head & 3 {
        0 => data.get(..part.pixels()).ok_or(CUT_OFF)?.to_vec(),
        1 => vp8l::decode_stream(data, size, part, Channels::Green, interrupt)?,
        _ => return Err(DAMAGED),
    };
    let filter = head >> 2 & 3;
    if filter != 0 {
        unfilter(filter, &mut plane, width as usize);
    }
    Ok(plane)
}

/// Undoes a filter: turns differences from predicted values into values.
fn unfilter(filter: u8, plane: &mut [u8], width: usize) {
    let mut above: &mut [u8] = &mut [];
    for row in plane.chunks_exact_mut(width) {
        match (filter, above.first()) {
            (_, None) => add_left(row, 0),
            (1, Some(&first)) => add_left(row, first),
            (2, _) => {
                for (value, above) in row.iter_mut().zip(&*above) {
                    *value = value.wrapping_add(*above);
                }
            }
            (_, Some(&first)) => {
                let (mut left, mut corner) = (first, first);
                for (value, &top) in row.iter_mut().zip(&*above) {
                    let sum = i16::from(left) + i16::from(top) - i16::from(corner);
                    left = value.wrapping_add(sum.clamp(0, 255) as u8);
                    *value = left;
                    corner = top;
                }
            }
        }
        above = row;
    }
}

fn add_left(row: &mut [u8], mut left: u8) {
    for value in row {
        left = left.wrapping_add(*value);
        *value = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of a picture of 3 × 3 pixels, and their differences for each filter.
    #[test]
    fn filters_are_undone() {
        let plane = [10, 12, 9, 250, 255, 3, 7, 0, 255];
        let raw = |head: u8, differences: [u8; 9]| {
            let payload = [&[head][..], &differences].concat();
            decode(&payload, (3, 3), Interrupt::NEVER).unwrap()
        };
        assert_eq!(raw(0, plane), plane);
        let n = |value: i16| value as u8;
        let left = [10, 2, n(-3), 240, 5, n(3 - 255), n(7 - 250), n(-7), 255];
        assert_eq!(raw(1 << 2, left), plane);
        let above = [10, 2, n(-3), 240, 243, n(-6), n(7 - 250), n(-255), 252];
        assert_eq!(raw(2 << 2, above), plane);
        // Predictions: above; 250 + 12 - 10, 255 + 9 - 12; above; 7 + 255 - 250, 0 + 3 - 255
        // clamped to 0.
        let both = [10, 2, n(-3), 240, 3, n(3 - 252), n(7 - 250), n(-12), 255];
        assert_eq!(raw(3 << 2, both), plane);
    }

    #[test]
    fn alpha_that_is_too_short_or_of_an_unknown_kind_is_corrupt() {
        let interrupt = Interrupt::NEVER;
        assert_eq!(decode(&[], (1, 1), interrupt), Err(CUT_OFF));
        assert_eq!(decode(&[0, 1, 2, 3], (2, 2), interrupt), Err(CUT_OFF));
        assert_eq!(decode(&[2, 1, 2, 3, 4], (2, 2), interrupt), Err(DAMAGED));
        assert!(decode(&[1], (2, 2), interrupt).is_err());
        assert!(decode(&[0x10, 1], (1, 1), interrupt).is_ok());
        for reserved in [0x20, 0x40, 0x80] {
            let refused = decode(&[reserved, 1], (1, 1), interrupt);
            assert_eq!(refused, Err(DAMAGED));
        }
    }
}
