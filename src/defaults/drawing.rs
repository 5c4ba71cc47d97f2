//! A drawing of two colours, and its SVG.

use std::fmt::Write as _;

use super::colors::Color;
use super::path::{EDGE, Path};

/// A square of one colour with a figure of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Drawing {
    /// The colour of the square.
    pub(super) ground: Color,
    /// The colour of the figure.
    pub(super) figure: Color,
    /// The outline of the figure.
    pub(super) path: Path,
}

impl Drawing {
    /// The drawing as an SVG document. Its natural size is 256 × 256 px.
    pub(super) fn to_svg(&self) -> String {
        let mut svg = String::with_capacity(1024);
        // Writing to a string cannot fail.
        let _ = write!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256" viewBox="0 0 {EDGE} {EDGE}"><path fill="{}" d="M0 0h{EDGE}v{EDGE}H0z"/><path fill="{}" d=""#,
            self.ground, self.figure,
        );
        self.path.write_svg(&mut svg);
        svg.push_str(r#""/></svg>"#);
        svg
    }
}
