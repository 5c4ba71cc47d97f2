//! The caller's way to end a long decode.

use crate::Error;

/// Calls a function of the caller every few rows. The function decides whether decoding continues.
#[derive(Clone, Copy)]
pub(crate) struct Interrupt<'a>(&'a dyn Fn() -> bool);

impl<'a> Interrupt<'a> {
    /// Decoding ends when `keep_going` returns `false`.
    pub(crate) const fn new(keep_going: &'a dyn Fn() -> bool) -> Self {
        Self(keep_going)
    }

    /// # Errors
    ///
    /// [`Error::Interrupted`] if the caller ends the decode.
    pub(crate) fn check(self) -> Result<(), Error> {
        if (self.0)() {
            Ok(())
        } else {
            Err(Error::Interrupted)
        }
    }
}

#[cfg(test)]
impl Interrupt<'static> {
    pub(crate) const NEVER: Self = Self(&|| true);
}
