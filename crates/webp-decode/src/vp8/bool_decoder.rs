//! The boolean entropy decoder (section 7 of RFC 6386).

/// Reads booleans of known probabilities from one partition.
///
/// It differs from the decoder of the RFC in two ways, with the same results. It holds up to eight
/// bytes at once. And it normalises the range when a boolean begins, not when it ends, so that the
/// multiplication does not wait for the shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct BoolDecoder<'a> {
    /// Bits that were read and not yet used, from the top bit down.
    value: u64,
    /// 1 to 255, before it is normalised.
    range: u32,
    /// The number of bits in `value` beyond the eight that are always needed.
    spare_bits: i32,
    rest: &'a [u8],
    past_end: bool,
}

impl<'a> BoolDecoder<'a> {
    pub(super) fn new(partition: &'a [u8]) -> Self {
        let mut decoder = Self {
            value: 0,
            range: 255,
            spare_bits: -8,
            rest: partition,
            past_end: false,
        };
        decoder.refill();
        decoder
    }

    /// Whether the decoder read beyond the end of the partition. Bits beyond the end are zeros.
    pub(super) const fn is_past_end(&self) -> bool {
        self.past_end
    }

    /// Reads a boolean that is false with a probability of `probability` / 256.
    #[inline(always)]
    pub(super) fn read(&mut self, probability: u8) -> bool {
        let probability = u32::from(probability);
        let shift = self.range_shift();
        let product = self.range * probability;
        let range = self.range << shift;
        self.shift(shift);
        // 1 + (((range - 1) * probability) >> 8)
        let split = (((product << shift) - probability) >> 8) + 1;
        let big_split = u64::from(split) << 56;
        if self.value >= big_split {
            self.range = range - split;
            self.value -= big_split;
            true
        } else {
            self.range = split;
            false
        }
    }

    /// Reads a boolean with even probabilities as a mask, without a branch: all ones for true.
    #[inline(always)]
    pub(super) fn read_mask(&mut self) -> i32 {
        let shift = self.range_shift();
        let range = self.range << shift;
        self.shift(shift);
        let split = (range + 1) >> 1;
        let big_split = u64::from(split) << 56;
        let mask = -i32::from(self.value >= big_split);
        self.value -= big_split & i64::from(mask) as u64;
        self.range = split - ((range & 1) & mask as u32);
        mask
    }

    /// The shift that brings the range to 128 or more.
    #[inline(always)]
    fn range_shift(&self) -> u32 {
        7 ^ (self.range | 1).ilog2()
    }

    #[inline(always)]
    fn shift(&mut self, shift: u32) {
        self.value <<= shift;
        self.spare_bits -= shift.cast_signed();
        if self.spare_bits < 0 {
            self.refill();
        }
    }

    #[inline(always)]
    fn refill(&mut self) {
        // One to seven bits are filled, or none at the start.
        let filled = (self.spare_bits + 8) as u32 & 7;
        if let Some((bytes, _)) = self.rest.split_first_chunk::<8>() {
            // The bits of the eighth byte that fit are already in `value` when that byte is read
            // again.
            self.value |= u64::from_be_bytes(*bytes) >> filled;
            self.rest = &self.rest[7..];
            self.spare_bits += 56;
        } else {
            *self = self.refilled_at_end(filled);
        }
    }

    #[cold]
    #[inline(never)]
    fn refilled_at_end(mut self, filled: u32) -> Self {
        let mut bytes = [0; 8];
        bytes[..self.rest.len()].copy_from_slice(self.rest);
        self.value |= u64::from_be_bytes(bytes) >> filled;
        if self.rest.is_empty() {
            self.past_end = true;
            self.spare_bits += 56;
        }
        self.spare_bits += 8 * i32::from(self.rest.len() as u8);
        self.rest = &[];
        self
    }

    /// Reads a flag (section 8).
    pub(super) fn flag(&mut self) -> bool {
        self.read(128)
    }

    /// Reads an unsigned number of `bits` bits, the highest first.
    pub(super) fn literal(&mut self, bits: u32) -> u32 {
        (0..bits).fold(0, |value, _| value << 1 | u32::from(self.flag()))
    }

    /// Reads a number of `bits` bits and its sign.
    pub(super) fn signed(&mut self, bits: u32) -> i32 {
        let magnitude = self.literal(bits).cast_signed();
        if self.flag() { -magnitude } else { magnitude }
    }

    /// Reads a flag, and a signed number if the flag is set.
    pub(super) fn optional_signed(&mut self, bits: u32) -> Option<i32> {
        self.flag().then(|| self.signed(bits))
    }
}
