//! The colours of defaults.
//!
//! The palette has 24 hues in equal steps of `OKLCH`, a colour space in which equal distances look
//! equal, and two tones of each but those from orange to green, of which the darker one is brown.
//! The table is written out, so that a subject's colour does not depend on the mathematical library
//! of a platform. A test computes it anew, and others check the contrast.

use std::fmt;

use crate::avatar::SubjectHash;

/// A colour in sRGB: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color(pub(super) [u8; 3]);

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// The colour of initials.
pub(super) const WHITE: Color = Color([255; 3]);

/// The colours of one hue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tones {
    /// A strong colour. Its contrast with [`WHITE`] is at least 4.5:1.
    pub(super) strong: Color,
    /// A pale colour of the same hue.
    pub(super) pale: Color,
}

/// The colours of a subject.
pub(super) fn of(hash: &SubjectHash) -> Tones {
    PALETTE[usize::from(hash.as_bytes()[0]) % PALETTE.len()]
}

const fn tones(strong: [u8; 3], pale: [u8; 3]) -> Tones {
    Tones {
        strong: Color(strong),
        pale: Color(pale),
    }
}

/// The tones of each hue from 0° to 345°, the lighter one first.
static PALETTE: [Tones; 42] = [
    tones([181, 66, 110], [255, 222, 231]),
    tones([146, 53, 88], [252, 214, 224]),
    tones([186, 66, 84], [255, 223, 224]),
    tones([149, 53, 67], [254, 214, 216]),
    tones([187, 69, 54], [255, 224, 218]),
    tones([150, 55, 43], [254, 215, 208]),
    tones([183, 76, 5], [255, 225, 211]),
    tones([166, 92, 3], [255, 226, 203]),
    tones([152, 102, 0], [250, 228, 199]),
    tones([139, 110, 1], [243, 231, 198]),
    tones([124, 116, 2], [236, 234, 200]),
    tones([104, 124, 2], [228, 237, 204]),
    tones([70, 132, 14], [219, 239, 209]),
    tones([55, 106, 13], [213, 233, 203]),
    tones([2, 137, 61], [212, 241, 216]),
    tones([1, 110, 48], [205, 234, 210]),
    tones([3, 134, 96], [205, 242, 224]),
    tones([3, 108, 77], [199, 235, 218]),
    tones([4, 132, 116], [200, 242, 233]),
    tones([1, 106, 93], [194, 236, 226]),
    tones([5, 130, 130], [198, 242, 241]),
    tones([1, 104, 105], [192, 235, 234]),
    tones([1, 128, 144], [198, 241, 249]),
    tones([1, 103, 116], [192, 234, 242]),
    tones([1, 125, 159], [201, 239, 255]),
    tones([0, 101, 128], [194, 232, 248]),
    tones([4, 121, 178], [211, 236, 255]),
    tones([2, 97, 144], [199, 230, 253]),
    tones([37, 113, 201], [217, 234, 255]),
    tones([30, 91, 161], [206, 227, 255]),
    tones([79, 104, 203], [223, 231, 255]),
    tones([63, 83, 163], [214, 225, 255]),
    tones([107, 96, 199], [229, 229, 254]),
    tones([85, 77, 160], [221, 222, 255]),
    tones([129, 88, 189], [235, 227, 255]),
    tones([103, 70, 152], [229, 219, 252]),
    tones([147, 80, 175], [244, 223, 253]),
    tones([118, 64, 140], [237, 217, 246]),
    tones([162, 74, 156], [250, 222, 246]),
    tones([130, 59, 125], [243, 215, 240]),
    tones([173, 69, 134], [255, 221, 239]),
    tones([139, 55, 107], [248, 214, 232]),
];
