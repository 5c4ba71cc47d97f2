//! Reads bits, from the least significant bit of each byte on.

use crate::CUT_OFF;
use crate::Error;

/// A bit reader. It gives zeros behind the end of the data; [`Bits::check`] reports that later. A
/// caller checks once for many pixels and discards them on error.
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits; the lowest one comes first. Bits above `count` are undefined.
    window: u64,
    /// The number of valid bits in the window; less than 64.
    count: u32,
    /// The number of zeros that were added behind the end.
    padding: u64,
}

impl<'a> Bits<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            window: 0,
            count: 0,
            padding: 0,
        }
    }

    /// Fills the window to at least 56 bits.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if let Some(next) = self.rest.first_chunk::<8>() {
            // Bytes that do not fit are read again next time, and give the same bits above `count`.
            self.window |= u64::from_le_bytes(*next) << self.count;
            let bytes = (!self.count >> 3) & 7;
            self.rest = &self.rest[bytes as usize..];
            self.count |= 0b11_1000;
        } else {
            self.refill_at_the_end();
        }
    }

    #[cold]
    #[inline(never)]
    fn refill_at_the_end(&mut self) {
        // Bits above `count` may be left over from a refill.
        self.window &= (1 << self.count) - 1;
        while self.count < 56 {
            if let Some((&byte, rest)) = self.rest.split_first() {
                self.window |= u64::from(byte) << self.count;
                self.rest = rest;
            } else {
                self.padding += 8;
            }
            self.count += 8;
        }
    }

    /// The next bits. Only the lower [`Self::count`] bits are valid.
    #[inline(always)]
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// The number of valid bits in the window.
    #[inline(always)]
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Skips `count` bits: at most 15, and at most those in the window.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.window >>= count;
        self.count -= count;
    }

    /// Takes `count` bits: at most 32, and at most those in the window.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.window & ((1 << count) - 1);
        self.skip(count);
        value as u32
    }

    /// Refills the window and takes `count` bits, at most 32.
    pub(super) fn read(&mut self, count: u32) -> u32 {
        self.refill();
        self.take(count)
    }

    pub(super) fn read_flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Checks that no bits behind the end were taken.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the data ended too early.
    pub(super) fn check(&self) -> Result<(), Error> {
        if u64::from(self.count) < self.padding {
            return Err(CUT_OFF);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits come in order, however many are taken at once.
    #[test]
    fn bits_come_in_order_to_the_last_one() {
        let bytes: Vec<u8> = (0..61_u32).map(|at| (at * 151 + 17) as u8).collect();
        let bit = |at: usize| u32::from(bytes[at / 8] >> (at % 8) & 1);
        for step in 1..=32 {
            let mut bits = Bits::new(&bytes);
            let mut at = 0;
            while at + step <= bytes.len() * 8 {
                let expected = (0..step).map(|i| bit(at + i) << i).sum::<u32>();
                assert_eq!(bits.read(step as u32), expected, "{step} bits at {at}");
                at += step;
            }
            for _ in at..bytes.len() * 8 {
                bits.read(1);
            }
            assert!(bits.check().is_ok());
            bits.read(1);
            assert!(bits.check().is_err());
            bits.read(32);
            assert!(bits.check().is_err());
        }
    }
}
