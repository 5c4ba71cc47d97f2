//! Bits, from the least significant one of each byte on.

use crate::Error;
use crate::decode::webp::CUT_OFF;

/// A reader of bits. Behind the end it gives zeros, and tells so when it is asked: to ask once for
/// many pixels is enough, for what was read until then is thrown away.
pub(super) struct Bits<'a> {
    rest: &'a [u8],
    /// The next bits, the first lowest. Those above `count` are of no meaning.
    window: u64,
    /// How many of them there are; fewer than 64.
    count: u32,
    /// How many zeros were added behind the end.
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

    /// Brings at least 56 bits into the window.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if let Some(next) = self.rest.first_chunk::<8>() {
            // What does not fit stays for the next time; the bits that did not count are the same
            // then.
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
        // The bits that do not count may be left over from a refill.
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

    /// The next bits. As many are true as the last refill brought less those taken since.
    #[inline(always)]
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// How many bits of the window are true.
    #[inline(always)]
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// Takes `count` bits away, at most 15 and those that are there.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.window >>= count;
        self.count -= count;
    }

    /// Takes `count` bits, at most 32 and those that are there.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        let value = self.window & ((1 << count) - 1);
        self.skip(count);
        value as u32
    }

    /// Takes `count` bits, at most 32.
    pub(super) fn read(&mut self, count: u32) -> u32 {
        self.refill();
        self.take(count)
    }

    pub(super) fn read_flag(&mut self) -> bool {
        self.read(1) == 1
    }

    /// Whether all that was taken was there.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where the bits ended before.
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

    /// Every bit comes in its order, however many are taken at once.
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
