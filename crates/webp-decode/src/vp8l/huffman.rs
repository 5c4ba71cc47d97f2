//! Prefix codes (RFC 9649, section 3.7.2), decoded by tables of two levels.

use super::bits::Bits;
use crate::DAMAGED;
use crate::Error;

/// The length of the longest code in bits.
const MAX_LENGTH: usize = 15;

/// The number of bits that index the first level of a table.
const ROOT_BITS: u32 = 8;

const ROOT_LEN: usize = 1 << ROOT_BITS;

/// The largest number of symbols of a code: 256 literals, 24 lengths, 2048 indices of the colour
/// cache.
const MAX_SYMBOLS: usize = 256 + 24 + (1 << 11);

/// The order in which the lengths of the codes for lengths are stored.
const ORDER: [usize; 19] = [
    17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];

/// An entry of a table: a symbol in the upper 12 bits and the length of its code in the lower 4. In
/// the first level, a length above [`ROOT_BITS`] leads to the second level: the symbol is its
/// offset in entries, and the length less [`ROOT_BITS`] is the number of bits that index it.
type Entry = u16;

/// The tables of many codes. They lie in blocks of one size, so that growing copies nothing and the
/// memory used is known exactly.
pub(super) struct Tables {
    blocks: Vec<Vec<Entry>>,
    /// Tables of codes with one symbol, shared by all groups; by symbol.
    singles: Vec<Option<Place>>,
    /// The memory that is still available for tables.
    bytes_left: usize,
}

/// The position of a table.
#[derive(Clone, Copy)]
pub(super) struct Place {
    block: u16,
    begin: u16,
}

/// The number of entries in a block; an index into it fits 16 bits.
const BLOCK_LEN: usize = 1 << 15;

/// More than any one table takes: 2,704 entries, by zlib's `enough` for 2,328 symbols.
const MAX_TABLE_LEN: usize = 1 << 12;

/// A table of a code.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    root: &'a [Entry; ROOT_LEN],
    second: &'a [Entry],
}

impl<'a> Table<'a> {
    /// The table at the start of `entries`.
    fn of(entries: &'a [Entry]) -> Self {
        const EMPTY: [Entry; ROOT_LEN] = [0; ROOT_LEN];
        let (root, second) = entries.split_first_chunk().unwrap_or((&EMPTY, &[]));
        Self { root, second }
    }

    /// Reads the next symbol. It takes at most 15 bits, which must be in the window.
    #[inline(always)]
    pub(super) fn read(self, bits: &mut Bits<'_>) -> u16 {
        let entry = self.root[bits.window() as usize % ROOT_LEN];
        let length = u32::from(entry & 15);
        if length <= ROOT_BITS {
            bits.skip(length);
            return entry >> 4;
        }
        bits.skip(ROOT_BITS);
        let index = bits.window() as usize & ((1 << (length - ROOT_BITS)) - 1);
        let entry = self.second[usize::from(entry >> 4) + index];
        bits.skip(u32::from(entry & 15));
        entry >> 4
    }

    /// The symbol at the start of `bits`, and its length. Valid if 6 bits are enough for the code.
    pub(super) fn look_up(self, bits: usize) -> (u16, u32) {
        let entry = self.root[bits % ROOT_LEN];
        (entry >> 4, u32::from(entry & 15))
    }
}

/// A code that was read.
#[derive(Clone, Copy)]
pub(super) struct Code {
    pub(super) place: Place,
    /// The symbol of a code with one symbol, which takes no bits.
    pub(super) single: Option<u16>,
    /// The length of the longest code in bits.
    pub(super) longest: u32,
}

impl Tables {
    /// Makes room for tables of `most_bytes` in total.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self {
            blocks: Vec::new(),
            singles: Vec::new(),
            bytes_left: most_bytes,
        }
    }

    pub(super) fn get(&self, place: Place) -> Table<'_> {
        let block = &self.blocks[usize::from(place.block)];
        Table::of(&block[usize::from(place.begin)..])
    }

    /// Reserves `bytes`. Returns `false` if there is no room.
    pub(super) fn pay(&mut self, bytes: usize) -> bool {
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }

    fn keep(&mut self, table: &[Entry]) -> Result<Place, Error> {
        let full = |block: &Vec<Entry>| block.len() + table.len() > BLOCK_LEN;
        if self.blocks.last().is_none_or(full) {
            if !self.pay(BLOCK_LEN * size_of::<Entry>()) {
                return Err(TOO_MANY);
            }
            self.blocks.push(Vec::with_capacity(BLOCK_LEN));
        }
        let block = self.blocks.len() - 1;
        let last = &mut self.blocks[block];
        let begin = last.len() as u16;
        last.extend_from_slice(table);
        Ok(Place {
            block: block as u16,
            begin,
        })
    }

    fn keep_single(&mut self, symbol: u16) -> Result<Place, Error> {
        let index = usize::from(symbol);
        if let Some(&Some(place)) = self.singles.get(index) {
            return Ok(place);
        }
        let place = self.keep(&[symbol << 4; ROOT_LEN])?;
        if self.singles.len() <= index {
            self.singles.resize(MAX_SYMBOLS, None);
        }
        self.singles[index] = Some(place);
        Ok(place)
    }
}

pub(super) const TOO_MANY: Error = Error::TooComplex("it has more codes than its pixels justify");

/// Reads codes one after the other.
pub(super) struct Builder {
    lengths: [u8; MAX_SYMBOLS],
    /// Symbols ordered by the lengths of their codes.
    sorted: [u16; MAX_SYMBOLS],
    table: Vec<Entry>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            lengths: [0; MAX_SYMBOLS],
            sorted: [0; MAX_SYMBOLS],
            table: Vec::with_capacity(MAX_TABLE_LEN),
        }
    }

    /// Reads a code of `symbols` symbols and builds its table.
    pub(super) fn read(
        &mut self,
        bits: &mut Bits<'_>,
        symbols: usize,
        tables: &mut Tables,
    ) -> Result<Code, Error> {
        self.read_lengths(bits, symbols)?;
        let (single, longest) = self.build(symbols)?;
        let place = match single {
            Some(symbol) => tables.keep_single(symbol)?,
            None => tables.keep(&self.table)?,
        };
        Ok(Code {
            place,
            single,
            longest,
        })
    }

    /// Reads and checks a code that no pixel uses.
    pub(super) fn pass(&mut self, bits: &mut Bits<'_>, symbols: usize) -> Result<(), Error> {
        self.read_lengths(bits, symbols)?;
        self.build(symbols).map(drop)
    }

    fn read_lengths(&mut self, bits: &mut Bits<'_>, symbols: usize) -> Result<(), Error> {
        self.lengths[..symbols.max(256)].fill(0);
        if bits.read_flag() {
            let two = bits.read_flag();
            let width = if bits.read_flag() { 8 } else { 1 };
            // A symbol beyond the last one is ignored.
            self.lengths[bits.read(width) as usize] = 1;
            if two {
                self.lengths[bits.read(8) as usize] = 1;
            }
            return bits.check();
        }
        let mut lengths = [0; 19];
        let count = bits.read(4) as usize + 4;
        for place in ORDER.into_iter().take(count) {
            lengths[place] = bits.read(3) as u8;
        }
        build(&lengths, &mut self.sorted, &mut self.table)?;
        let mut codes_left = symbols;
        if bits.read_flag() {
            let width = 2 + 2 * bits.read(3);
            codes_left = 2 + bits.read(width) as usize;
            if codes_left > symbols {
                return Err(DAMAGED);
            }
        }
        let table = Table::of(&self.table);
        let mut before = 8;
        let mut at = 0;
        while at < symbols && codes_left > 0 {
            codes_left -= 1;
            bits.refill();
            let (length, repeat) = match table.read(bits) {
                length @ 0..16 => {
                    let length = length as u8;
                    if length != 0 {
                        before = length;
                    }
                    self.lengths[at] = length;
                    at += 1;
                    continue;
                }
                16 => (before, 3 + bits.take(2)),
                17 => (0, 3 + bits.take(3)),
                _ => (0, 11 + bits.take(7)),
            };
            let end = at + repeat as usize;
            if end > symbols {
                return Err(DAMAGED);
            }
            self.lengths[at..end].fill(length);
            at = end;
        }
        bits.check()
    }

    fn build(&mut self, symbols: usize) -> Result<(Option<u16>, u32), Error> {
        let lengths = &self.lengths[..symbols];
        build(lengths, &mut self.sorted, &mut self.table)
    }
}

/// Builds the table of a canonical code from the lengths of its codes. Returns the symbol of a code
/// with one symbol, and the length of the longest code.
///
/// # Errors
///
/// [`Error::Corrupt`] if there is no symbol, or if the code is over- or undersubscribed.
fn build(
    lengths: &[u8],
    sorted: &mut [u16; MAX_SYMBOLS],
    table: &mut Vec<Entry>,
) -> Result<(Option<u16>, u32), Error> {
    let mut counts = [0_usize; MAX_LENGTH + 1];
    for &length in lengths {
        counts[usize::from(length)] += 1;
    }
    counts[0] = 0;
    let mut ends = [0; MAX_LENGTH + 1];
    let mut total = 0;
    let mut used = 0;
    let mut longest = 0;
    for (length, &count) in counts.iter().enumerate() {
        ends[length] = total;
        total += count;
        used += count << (MAX_LENGTH - length);
        if count > 0 {
            longest = length as u32;
        }
    }
    for (symbol, &length) in lengths.iter().enumerate() {
        if length > 0 {
            let end = &mut ends[usize::from(length)];
            sorted[*end] = symbol as u16;
            *end += 1;
        }
    }
    table.clear();
    if total == 1 {
        table.resize(ROOT_LEN, sorted[0] << 4);
        return Ok((Some(sorted[0]), 0));
    }
    if used != 1 << MAX_LENGTH {
        return Err(DAMAGED);
    }
    table.resize(ROOT_LEN, 0);
    let root_bits = ROOT_BITS as usize;
    // The code, its first bit lowest; the first-level entry of the second-level table that is being
    // filled; and where that table begins and ends.
    let mut code = 0_usize;
    let (mut prefix, mut begin, mut end) = (usize::MAX, 0, 0);
    let mut symbols = sorted[..total].iter();
    for length in 1..=MAX_LENGTH {
        while counts[length] > 0
            && let Some(&symbol) = symbols.next()
        {
            let entry = symbol << 4;
            if length <= root_bits {
                let entries = table[code..].iter_mut().step_by(1 << length);
                entries.for_each(|place| *place = entry | length as u16);
            } else {
                if code % ROOT_LEN != prefix {
                    prefix = code % ROOT_LEN;
                    begin = table.len();
                    let bits = second_bits(&counts, length);
                    end = begin + (1 << bits);
                    if end > MAX_TABLE_LEN {
                        return Err(DAMAGED);
                    }
                    table.resize(end, 0);
                    table[prefix] = ((begin - ROOT_LEN) << 4 | (root_bits + bits)) as u16;
                }
                let length = length - root_bits;
                let entries = table[begin + (code >> root_bits)..end].iter_mut();
                let entries = entries.step_by(1 << length);
                entries.for_each(|place| *place = entry | length as u16);
            }
            code = after(code, length);
            counts[length] -= 1;
        }
    }
    Ok((None, longest))
}

/// The code of `length` bits that follows `code`; the first bit of both is the lowest.
const fn after(code: usize, length: usize) -> usize {
    let mut step = 1 << (length - 1);
    while code & step != 0 {
        step >>= 1;
    }
    if step == 0 {
        return 0;
    }
    (code & (step - 1)) + step
}

/// The number of bits that index the second-level table whose first code has `length` bits: enough
/// to complete it, given the number of remaining codes of each length.
fn second_bits(left: &[usize; MAX_LENGTH + 1], length: usize) -> usize {
    let root_bits = ROOT_BITS as usize;
    let mut free = 1_usize << (length - root_bits);
    for (length, &count) in left.iter().enumerate().skip(length) {
        if count >= free || length == MAX_LENGTH {
            return length - root_bits;
        }
        free = (free - count) * 2;
    }
    MAX_LENGTH - root_bits
}
