//! Outlines on a square of [`EDGE`] units.

/// The length of a side of the square in units. Coordinates are whole units, so both forms of a
/// default have exactly the same outlines.
pub(super) const EDGE: i16 = 1024;

/// A step of an outline, to a point `(x, y)`. The y axis points down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Begins a contour.
    Move(Point),
    /// A straight line.
    Line(Point),
    /// A quadratic curve with its control point.
    Quad(Point, Point),
    /// A cubic curve with its control points.
    Cubic(Point, Point, Point),
    /// Closes the contour.
    Close,
}

/// A point: distances from the left and the upper edge.
pub(super) type Point = (i16, i16);

/// Some closed contours, filled by the non-zero rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Path {
    steps: Vec<Step>,
}

impl Path {
    /// The steps in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Adds a step.
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Writes the path as the `d` attribute of SVG, with relative coordinates, which are shorter.
    pub(super) fn write_svg(&self, out: &mut String) {
        let (mut start, mut at) = ((0, 0), (0, 0));
        for step in &self.steps {
            match *step {
                Step::Move(to) => {
                    out.push('m');
                    write_points(out, at, &[to]);
                    (start, at) = (to, to);
                }
                Step::Line(to) if to == at => {}
                Step::Line(to) => {
                    if to.1 == at.1 {
                        out.push('h');
                        write_number(out, to.0 - at.0, true);
                    } else if to.0 == at.0 {
                        out.push('v');
                        write_number(out, to.1 - at.1, true);
                    } else {
                        out.push('l');
                        write_points(out, at, &[to]);
                    }
                    at = to;
                }
                Step::Quad(control, to) => {
                    out.push('q');
                    write_points(out, at, &[control, to]);
                    at = to;
                }
                Step::Cubic(first, second, to) => {
                    out.push('c');
                    write_points(out, at, &[first, second, to]);
                    at = to;
                }
                Step::Close => {
                    out.push('z');
                    at = start;
                }
            }
        }
    }
}

/// Writes points relative to another one.
fn write_points(out: &mut String, from: Point, points: &[Point]) {
    for (index, point) in points.iter().enumerate() {
        write_number(out, point.0 - from.0, index == 0);
        write_number(out, point.1 - from.1, false);
    }
}

/// Writes a number. A space separates it from the number before it, unless it has a sign.
fn write_number(out: &mut String, number: i16, first: bool) {
    if !first && number >= 0 {
        out.push(' ');
    }
    let mut digits = [0; 5];
    let mut rest = number.unsigned_abs();
    let mut length = 0;
    loop {
        digits[length] = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push('-');
    }
    out.extend(
        digits[..length]
            .iter()
            .rev()
            .map(|digit| char::from(*digit)),
    );
}
