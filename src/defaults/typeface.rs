//! Turns initials into outlines with the bundled fonts.
//!
//! The fonts are parts of Noto Sans; `fonts/README.md` beside this file says how they are made.
//! Each is inflated when an initial first needs it.

use std::io::Read as _;
use std::ops::RangeInclusive;
use std::sync::OnceLock;

use flate2::read::ZlibDecoder;
use harfrust::font::glyph::outline::{DrawMemory, DrawOptions, PathSink};
use harfrust::{Buffer, BufferFlags, Direction, Font, GlyphId, ShapeOptions, ShaperFont, shape};

use super::initials::Initials;
use super::path::{EDGE, Path, Step};

/// The length limit of an inflated font in bytes. The largest has a third of it.
const MAX_FONT_BYTES: u64 = 1 << 20;

/// The height of capitals, in the units of every bundled font: thousandths of the font size.
const CAPITALS: f32 = 714.0;

/// The font size of one initial, as a part of the side of the square.
const SIZE_OF_ONE: f32 = 0.54;

/// The font size of two initials, as a part of the side of the square.
const SIZE_OF_TWO: f32 = 0.44;

/// Initials fit into a circle of this radius, as a part of the side of the square, because pages
/// often cut avatars round.
const RADIUS: f32 = 0.38;

/// The minimum size of two initials, as a part of [`SIZE_OF_TWO`]. If two wide ones would be
/// smaller, the first is drawn alone.
const MIN_SIZE_OF_TWO: f32 = 0.8;

/// The maximum enlargement of letters that are lower than capitals.
const MAX_ENLARGEMENT: f32 = 1.2;

/// The minimum space between two initials, in thousandths of the font size.
const MIN_GAP: f32 = 40.0;

/// The minimum space between initials of scripts from right to left. Their letters would read as one
/// word without it.
const MIN_GAP_RIGHT_TO_LEFT: f32 = 100.0;

/// A bundled font.
struct Face {
    /// The characters with which a grapheme of this font can begin.
    ranges: &'static [RangeInclusive<char>],
    /// Whether initials stand between the base line and the height of capitals. Others are centred
    /// by their outlines.
    has_capitals: bool,
    packed: &'static [u8],
    font: OnceLock<Option<Font>>,
}

impl Face {
    const fn new(
        ranges: &'static [RangeInclusive<char>],
        has_capitals: bool,
        packed: &'static [u8],
    ) -> Self {
        Self {
            ranges,
            has_capitals,
            packed,
            font: OnceLock::new(),
        }
    }

    /// The font, inflated once; `None` if it is damaged, which a test rules out.
    fn font(&self) -> Option<&Font> {
        self.font.get_or_init(|| inflate(self.packed)).as_ref()
    }
}

fn inflate(packed: &[u8]) -> Option<Font> {
    let mut plain = Vec::new();
    let mut limited = ZlibDecoder::new(packed).take(MAX_FONT_BYTES);
    limited.read_to_end(&mut plain).ok()?;
    Font::new(plain, 0)
}

/// A font by the name of its file.
macro_rules! face {
    ($name:literal, $has_capitals:literal, $($range:expr),+) => {
        Face::new(
            &[$($range),+],
            $has_capitals,
            include_bytes!(concat!("fonts/", $name, ".ttf.zz")),
        )
    };
}

/// The bundled fonts. Chinese follows Japanese, which has most of the characters.
static FACES: [Face; 24] = [
    face!("latin", true, '0'..='\u{52f}', '\u{1e00}'..='\u{1fff}'),
    face!("armenian", true, '\u{530}'..='\u{58f}'),
    face!("hebrew", false, '\u{590}'..='\u{5ff}'),
    face!(
        "arabic",
        false,
        '\u{600}'..='\u{6ff}',
        '\u{750}'..='\u{77f}'
    ),
    face!("thaana", false, '\u{780}'..='\u{7bf}'),
    face!("devanagari", false, '\u{900}'..='\u{97f}'),
    face!("bengali", false, '\u{980}'..='\u{9ff}'),
    face!("gurmukhi", false, '\u{a00}'..='\u{a7f}'),
    face!("gujarati", false, '\u{a80}'..='\u{aff}'),
    face!("oriya", false, '\u{b00}'..='\u{b7f}'),
    face!("tamil", false, '\u{b80}'..='\u{bff}'),
    face!("telugu", false, '\u{c00}'..='\u{c7f}'),
    face!("kannada", false, '\u{c80}'..='\u{cff}'),
    face!("malayalam", false, '\u{d00}'..='\u{d7f}'),
    face!("sinhala", false, '\u{d80}'..='\u{dff}'),
    face!("thai", false, '\u{e00}'..='\u{e7f}'),
    face!("lao", false, '\u{e80}'..='\u{eff}'),
    face!("myanmar", false, '\u{1000}'..='\u{109f}'),
    face!("georgian", false, '\u{10d0}'..='\u{10ff}'),
    face!("ethiopic", false, '\u{1200}'..='\u{137f}'),
    face!("khmer", false, '\u{1780}'..='\u{17ff}'),
    face!(
        "japanese",
        false,
        '\u{3005}'..='\u{30ff}',
        '\u{3400}'..='\u{9fff}',
        '\u{f900}'..='\u{faff}'
    ),
    face!("chinese", false, '\u{3400}'..='\u{9fff}'),
    face!(
        "korean",
        false,
        '\u{1100}'..='\u{11ff}',
        '\u{ac00}'..='\u{d7a3}'
    ),
];

/// The outline of initials, centred in the square. `None` if no font has any of them.
pub(super) fn outline(initials: &Initials) -> Option<Path> {
    let mut figures: Vec<_> = initials
        .graphemes
        .iter()
        .filter_map(|grapheme| figure(grapheme))
        .collect();
    let both = (figures.len() > 1).then(|| Figure::line(&figures));
    let minimum = MIN_SIZE_OF_TWO * SIZE_OF_TWO;
    if let Some(both) = both.filter(|both| both.size(SIZE_OF_TWO) >= minimum) {
        return Some(both.centered(SIZE_OF_TWO));
    }
    figures.truncate(1);
    Some(figures.pop()?.centered(SIZE_OF_ONE))
}

/// The shape of a grapheme in the first font that has it, else that of its base character.
fn figure(grapheme: &str) -> Option<Figure> {
    let base = grapheme.chars().next()?;
    let faces = || {
        FACES
            .iter()
            .filter(|face| face.ranges.iter().any(|range| range.contains(&base)))
    };
    let mut whole = faces().filter_map(|face| shaped(face, grapheme));
    whole.next().or_else(|| {
        let base = base.encode_utf8(&mut [0; 4]).to_owned();
        faces().find_map(|face| shaped(face, &base))
    })
}

/// Shapes a grapheme. `None` if the font does not have all of it, or if it has no outline.
fn shaped(face: &Face, grapheme: &str) -> Option<Figure> {
    let font = face.font()?;
    let mut buffer = Buffer::new();
    buffer.push_str(grapheme);
    buffer.guess_segment_properties();
    buffer.set_flags(
        BufferFlags::DO_NOT_INSERT_DOTTED_CIRCLE | BufferFlags::REMOVE_DEFAULT_IGNORABLES,
    );
    shape(&ShaperFont::new(font), &mut buffer, ShapeOptions::new()).ok()?;
    let mut figure = Figure {
        has_capitals: face.has_capitals,
        right_to_left: buffer.direction() == Direction::RightToLeft,
        ..Figure::default()
    };
    let outlines = font.outline_glyphs();
    for (glyph, position) in buffer.glyph_infos().iter().zip(buffer.glyph_positions()) {
        if glyph.glyph_id == 0 {
            return None;
        }
        let mut pen = Pen {
            figure: &mut figure,
            x: position.x_offset as f32,
            y: position.y_offset as f32,
        };
        pen.x += pen.figure.advance;
        let outline = outlines.get(GlyphId::new(glyph.glyph_id))?;
        outline
            .draw(&DrawOptions::new(), DrawMemory::Scratch, &mut pen)
            .ok()?;
        figure.advance += position.x_advance as f32;
    }
    (!figure.steps.is_empty()).then_some(figure)
}

/// A step of an outline in font units. The y axis points up.
#[derive(Clone, Copy, Debug)]
enum FontStep {
    Move((f32, f32)),
    Line((f32, f32)),
    Quad((f32, f32), (f32, f32)),
    Cubic((f32, f32), (f32, f32), (f32, f32)),
    Close,
}

impl FontStep {
    fn map(self, to: impl Fn((f32, f32)) -> (f32, f32)) -> Self {
        match self {
            Self::Move(end) => Self::Move(to(end)),
            Self::Line(end) => Self::Line(to(end)),
            Self::Quad(control, end) => Self::Quad(to(control), to(end)),
            Self::Cubic(first, second, end) => Self::Cubic(to(first), to(second), to(end)),
            Self::Close => Self::Close,
        }
    }
}

/// The shape of some graphemes in font units.
#[derive(Clone, Debug)]
struct Figure {
    steps: Vec<FontStep>,
    /// The width of the text, up to the next grapheme.
    advance: f32,
    /// The bounds of the outlines: left, bottom, right, top.
    bounds: [f32; 4],
    has_capitals: bool,
    right_to_left: bool,
}

impl Default for Figure {
    fn default() -> Self {
        let (far, near) = (f32::INFINITY, f32::NEG_INFINITY);
        Self {
            steps: Vec::new(),
            advance: 0.0,
            bounds: [far, far, near, near],
            has_capitals: false,
            right_to_left: false,
        }
    }
}

impl Figure {
    fn push(&mut self, step: FontStep) {
        self.steps.push(step);
    }

    /// Extends the bounds to a point.
    fn cover(&mut self, (x, y): (f32, f32)) {
        let [left, bottom, right, top] = self.bounds;
        self.bounds = [left.min(x), bottom.min(y), right.max(x), top.max(y)];
    }

    /// Puts figures beside each other, in the direction of the first.
    fn line(figures: &[Self]) -> Self {
        let mut figures: Vec<_> = figures.iter().collect();
        let right_to_left = figures.first().is_some_and(|first| first.right_to_left);
        if right_to_left {
            figures.reverse();
        }
        let mut line = Self {
            has_capitals: true,
            right_to_left,
            ..Self::default()
        };
        for figure in figures {
            line.append(figure);
        }
        line
    }

    /// Puts another figure to the right of this one.
    fn append(&mut self, next: &Self) {
        let mut shift = self.advance;
        if !self.steps.is_empty() {
            // Marks can reach over the edges of a letter.
            let gap = next.bounds[0] + shift - self.bounds[2];
            let minimum = if self.right_to_left {
                MIN_GAP_RIGHT_TO_LEFT
            } else {
                MIN_GAP
            };
            shift += (minimum - gap).max(0.0);
        }
        for step in &next.steps {
            self.push(step.map(|(x, y)| (x + shift, y)));
        }
        let [left, bottom, right, top] = next.bounds;
        self.cover((left + shift, bottom));
        self.cover((right + shift, top));
        self.advance = shift + next.advance;
        self.has_capitals &= next.has_capitals;
    }

    /// The point that is put in the middle of the square.
    fn middle(&self) -> (f32, f32) {
        let [left, bottom, right, top] = self.bounds;
        let y = if self.has_capitals {
            // Accents and descenders move the letters by less than their own height.
            CAPITALS / 2.0 + 0.25 * ((top - CAPITALS).max(0.0) + bottom.min(0.0))
        } else {
            f32::midpoint(bottom, top)
        };
        (f32::midpoint(left, right), y)
    }

    /// The font size at which the figure is drawn, as a part of the side of the square: the preferred
    /// one, more for low letters, and less if they do not fit into the circle.
    fn size(&self, preferred: f32) -> f32 {
        let [_, bottom, right, top] = self.bounds;
        let (x, y) = self.middle();
        let reach = (right - x).hypot((top - y).max(y - bottom));
        let enlargement = if self.has_capitals {
            1.0
        } else {
            (CAPITALS / (top - bottom)).clamp(1.0, MAX_ENLARGEMENT)
        };
        (preferred * enlargement).min(RADIUS * 1000.0 / reach.max(1.0))
    }

    /// Scales the figure to about a font size, and centres it.
    fn centered(&self, size: f32) -> Path {
        let (x, y) = self.middle();
        let edge = f32::from(EDGE);
        let scale = self.size(size) * edge / 1000.0;
        let unit = |length: f32| (edge / 2.0 + length * scale).round().clamp(0.0, edge) as i16;
        let place = |(px, py): (f32, f32)| (unit(px - x), unit(y - py));
        let mut path = Path::default();
        for step in &self.steps {
            path.push(match *step {
                FontStep::Move(end) => Step::Move(place(end)),
                FontStep::Line(end) => Step::Line(place(end)),
                FontStep::Quad(control, end) => Step::Quad(place(control), place(end)),
                FontStep::Cubic(first, second, end) => {
                    Step::Cubic(place(first), place(second), place(end))
                }
                FontStep::Close => Step::Close,
            });
        }
        path
    }
}

/// Adds the outline of a glyph to a figure.
struct Pen<'a> {
    figure: &'a mut Figure,
    x: f32,
    y: f32,
}

impl Pen<'_> {
    fn to(&mut self, x: f32, y: f32) -> (f32, f32) {
        let point = (x + self.x, y + self.y);
        self.figure.cover(point);
        point
    }
}

impl PathSink for Pen<'_> {
    fn move_to(&mut self, x: f32, y: f32) {
        let end = self.to(x, y);
        self.figure.push(FontStep::Move(end));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        let end = self.to(x, y);
        self.figure.push(FontStep::Line(end));
    }

    fn quad_to(&mut self, cx: f32, cy: f32, x: f32, y: f32) {
        let (control, end) = (self.to(cx, cy), self.to(x, y));
        self.figure.push(FontStep::Quad(control, end));
    }

    fn curve_to(&mut self, cx0: f32, cy0: f32, cx1: f32, cy1: f32, x: f32, y: f32) {
        let (first, second, end) = (self.to(cx0, cy0), self.to(cx1, cy1), self.to(x, y));
        self.figure.push(FontStep::Cubic(first, second, end));
    }

    fn close(&mut self) {
        self.figure.push(FontStep::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(graphemes: &[&str]) -> Option<Path> {
        outline(&Initials {
            graphemes: graphemes.iter().map(ToString::to_string).collect(),
        })
    }

    fn points(path: &Path) -> Vec<(i16, i16)> {
        let ends = path.steps().iter().filter_map(|step| match *step {
            Step::Move(end) | Step::Line(end) | Step::Quad(_, end) | Step::Cubic(_, _, end) => {
                Some(end)
            }
            Step::Close => None,
        });
        ends.collect()
    }

    #[test]
    fn every_bundled_font_has_the_letters_of_its_script() {
        let samples = [
            "A Z Ä Ł Ñ Þ Ș Ω Α Я Ї Ђ 7",
            "Ա Հ",
            "א ת",
            "ا م ی",
            "ހ",
            "अ श्री",
            "অ ক্ষ",
            "ਅ",
            "અ",
            "ଅ",
            "அ கி",
            "అ శ్రీ",
            "ಅ",
            "അ",
            "අ",
            "ก",
            "ກ",
            "အ",
            "ა",
            "አ",
            "ក",
            "あ ア 山 藤",
            "刘 龚",
            "김 뷔",
        ];
        for (face, samples) in FACES.iter().zip(samples) {
            for sample in samples.split(' ') {
                assert!(shaped(face, sample).is_some(), "{sample}");
                assert!(
                    face.ranges
                        .iter()
                        .any(|range| range.contains(&sample.chars().next().unwrap()))
                );
            }
        }
        assert_eq!(FACES.len(), samples.len());
    }

    #[test]
    fn letters_of_common_alphabets_are_complete() {
        let letters = ('A'..='Z')
            .chain('À'..='Ö')
            .chain('Ø'..='Þ')
            .chain('Α'..='Ρ')
            .chain('А'..='Я');
        let letters = letters
            .chain('א'..='ת')
            .chain('ა'..='ჰ')
            .chain('Ա'..='Ֆ')
            .chain('ぁ'..='ん')
            .chain('ァ'..='ン');
        for letter in letters
            .chain('ক'..='ন')
            .chain('अ'..='ह')
            .chain('ก'..='ฮ')
            .chain('ا'..='غ')
        {
            assert!(path_of(&[&letter.to_string()]).is_some(), "{letter}");
        }
    }

    #[test]
    fn initials_are_shaped() {
        let whole = path_of(&["क्ष"]).unwrap();
        assert_ne!(whole, path_of(&["क"]).unwrap());
        assert_ne!(whole, path_of(&["ष"]).unwrap());
        // A vowel sign that is written before its consonant.
        assert_ne!(path_of(&["कि"]), path_of(&["क"]));
        assert_eq!(path_of(&["E\u{301}"]), path_of(&["É"]));
        assert_eq!(path_of(&["\u{1100}\u{1161}"]), path_of(&["가"]));
        assert_eq!(path_of(&["か\u{3099}"]), path_of(&["が"]));
        // A letter with a mark that no single character has: the mark is above the letter.
        let marked = path_of(&["J\u{308}"]).unwrap();
        let top = |path: &Path| points(path).iter().map(|point| point.1).min();
        assert!(top(&marked) < top(&path_of(&["J"]).unwrap()));
    }

    #[test]
    fn a_mark_that_the_font_lacks_is_dropped() {
        assert_eq!(path_of(&["A\u{1abe}"]), path_of(&["A"]));
        assert_eq!(path_of(&["\u{1abe}"]), None);
        assert_eq!(path_of(&["𝓐", "B"]), path_of(&["B"]));
        assert_eq!(path_of(&[]), None);
    }

    #[test]
    fn the_first_of_two_hebrew_initials_is_on_the_right() {
        let half = EDGE / 2;
        let area = |path: &Path, left: bool| {
            let outline = points(path);
            let side = outline.iter().filter(|point| (point.0 < half) == left);
            side.count()
        };
        // Shin has more points than vav.
        let path = path_of(&["ו", "ש"]).unwrap();
        assert!(area(&path, true) > area(&path, false));
        let latin = path_of(&["I", "S"]).unwrap();
        assert!(area(&latin, false) > area(&latin, true));
    }

    #[test]
    fn two_initials_that_would_be_tiny_are_one() {
        assert_eq!(path_of(&["മോ", "ലാ"]), path_of(&["മോ"]));
        assert_ne!(path_of(&["W", "M"]), path_of(&["W"]));
    }

    #[test]
    fn initials_fit_into_a_circle_around_the_middle() {
        let pairs = [
            &["A", "L"][..],
            &["W", "W"],
            &["Ǻ", "Q\u{323}"],
            &["I"],
            &["W"],
            &["ش", "ض"],
            &["ङ्क्ष्म्यि"],
            &["山"],
            &["ញ", "ឈ"],
        ];
        for graphemes in pairs {
            let path = path_of(graphemes).unwrap();
            let reach = points(&path)
                .into_iter()
                .map(|(x, y)| f32::from(x - EDGE / 2).hypot(f32::from(y - EDGE / 2)));
            let reach = reach.fold(0.0, f32::max) / f32::from(EDGE);
            assert!(reach < RADIUS + 0.002, "{graphemes:?}: {reach}");
            assert!(reach > 0.15, "{graphemes:?}: {reach}");
        }
    }
}
