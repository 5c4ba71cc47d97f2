//! Groups of five prefix codes, and the map from pixels to groups (RFC 9649, section 3.7.2.2).

use super::Rows;
use super::bits::Bits;
use super::huffman::{Builder, Code, Place, TOO_MANY, Table, Tables};
use crate::Error;
use crate::interrupt::Interrupt;

/// The number of symbols of the first code that are green values.
pub(super) const LITERALS: u16 = 256;
/// The number of symbols that follow and are lengths.
pub(super) const LENGTHS: u16 = 24;
const DISTANCES: usize = 40;

/// The memory limit of a single group: more than its five codes can take.
const ONE_GROUP_BYTES: usize = 1 << 17;

/// Five codes: one for green values, lengths of copies and indices of the colour cache; one each
/// for red, blue and alpha; one for distances of copies.
pub(super) struct Group {
    places: [Place; 5],
    pub(super) literals: Literals,
    /// The channels whose codes have one symbol; the other channels are 0.
    pub(super) constant: u32,
}

/// How the literal pixels of a group are read.
pub(super) enum Literals {
    /// All are equal.
    Solid,
    /// In one table lookup, because all codes together are short.
    Packed(Box<Packed>),
    /// Green from its code; the other channels are constant.
    Green,
    /// Green, red and blue from their codes; alpha is constant.
    Opaque,
    /// Each channel from its code.
    Full,
}

/// The meaning of the next 6 bits. The lower 32 bits are a pixel, or a symbol of the first code
/// that is not a literal. The next 8 bits are the number of bits used. Then comes 1 for a symbol.
pub(super) type Packed = [u64; 1 << PACKED_BITS];

const PACKED_BITS: u32 = 6;

/// The tables of a group's codes.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    pub(super) green: Table<'a>,
    pub(super) red: Table<'a>,
    pub(super) blue: Table<'a>,
    pub(super) alpha: Table<'a>,
    pub(super) distance: Table<'a>,
}

/// The groups of a picture.
pub(super) struct Groups {
    tables: Tables,
    groups: Vec<Group>,
    /// The group of every tile; empty if there is one group.
    map: Vec<u16>,
    /// The edge of a tile is 1 << `tile_bits`.
    pub(super) tile_bits: u32,
    tiles_across: usize,
}

impl Groups {
    /// Reads the only group of a picture.
    pub(super) fn read_one(bits: &mut Bits<'_>, cache_bits: u32) -> Result<Self, Error> {
        let mut groups = Self::with_room(1, ONE_GROUP_BYTES)?;
        groups.read_group(bits, &mut Builder::new(), cache_bits)?;
        Ok(groups)
    }

    /// Reads the groups that the red and green values of `map` name.
    ///
    /// # Errors
    ///
    /// [`Error::TooComplex`] if they take more than `most_bytes`.
    pub(super) fn read_many(
        bits: &mut Bits<'_>,
        cache_bits: u32,
        map: Rows,
        tile_bits: u32,
        most_bytes: usize,
        interrupt: Interrupt<'_>,
    ) -> Result<Self, Error> {
        let mut map_of_tiles = Vec::with_capacity(map.pixels.len());
        let named = map
            .pixels
            .iter()
            .map(|&[red, green, ..]| u16::from_be_bytes([red, green]));
        map_of_tiles.extend(named);
        let tiles_across = map.width;
        drop(map);
        let mut used = vec![false; 1 << 16];
        for &name in &map_of_tiles {
            used[usize::from(name)] = true;
        }
        let count = used.iter().filter(|used| **used).count();
        let last = used.iter().rposition(|used| *used).unwrap_or(0);
        let mut groups = Self::with_room(count, most_bytes)?;
        groups.tile_bits = tile_bits;
        groups.tiles_across = tiles_across;
        // Groups that no tile names are read and discarded.
        let mut numbers = vec![0; last + 1];
        let mut builder = Builder::new();
        for (name, number) in numbers.iter_mut().enumerate() {
            if name % 64 == 0 {
                interrupt.check()?;
            }
            if used[name] {
                *number = groups.groups.len() as u16;
                groups.read_group(bits, &mut builder, cache_bits)?;
            } else {
                for symbols in alphabets(cache_bits) {
                    builder.pass(bits, symbols)?;
                }
            }
        }
        for name in &mut map_of_tiles {
            *name = numbers[usize::from(*name)];
        }
        groups.map = map_of_tiles;
        Ok(groups)
    }

    fn with_room(count: usize, most_bytes: usize) -> Result<Self, Error> {
        let of_groups = count * size_of::<Group>();
        let of_tables = most_bytes.checked_sub(of_groups).ok_or(TOO_MANY)?;
        Ok(Self {
            tables: Tables::new(of_tables),
            groups: Vec::with_capacity(count),
            map: Vec::new(),
            tile_bits: usize::BITS - 1,
            tiles_across: 0,
        })
    }

    fn read_group(
        &mut self,
        bits: &mut Bits<'_>,
        builder: &mut Builder,
        cache_bits: u32,
    ) -> Result<(), Error> {
        let [green, red, blue, alpha, distance] = alphabets(cache_bits);
        let mut code = |symbols| builder.read(bits, symbols, &mut self.tables);
        let codes = [
            code(green)?,
            code(red)?,
            code(blue)?,
            code(alpha)?,
            code(distance)?,
        ];
        let places = codes.map(|code| code.place);
        let [green, red, blue, alpha, _] = codes.map(|code: Code| {
            let byte = code.single.map(u8::try_from);
            byte.and_then(Result::ok)
        });
        let channel = |value: Option<u8>| value.unwrap_or(0);
        let constant = [red, green, blue, alpha].map(channel);
        let longest: u32 = codes[..4].iter().map(|code| code.longest).sum();
        let literals = match (green, red, blue, alpha) {
            (Some(_), Some(_), Some(_), Some(_)) => Literals::Solid,
            _ if longest <= PACKED_BITS && self.tables.pay(size_of::<Packed>()) => {
                Literals::Packed(self.pack(places))
            }
            (_, Some(_), Some(_), Some(_)) => Literals::Green,
            (_, _, _, Some(_)) => Literals::Opaque,
            _ => Literals::Full,
        };
        let constant = match literals {
            Literals::Green => [constant[0], 0, constant[2], constant[3]],
            Literals::Opaque => [0, 0, 0, constant[3]],
            _ => constant,
        };
        self.groups.push(Group {
            places,
            literals,
            constant: u32::from_le_bytes(constant),
        });
        Ok(())
    }

    fn pack(&self, places: [Place; 5]) -> Box<Packed> {
        let [green, red, blue, alpha, _] = places.map(|place| self.tables.get(place));
        let mut packed = [0; 1 << PACKED_BITS];
        for (bits, entry) in packed.iter_mut().enumerate() {
            let (symbol, mut length) = green.look_up(bits);
            if symbol >= LITERALS {
                *entry = u64::from(symbol) | u64::from(length) << 32 | 1 << 40;
                continue;
            }
            let mut pixel = u32::from(symbol) << 8;
            for (table, shift) in [(red, 0), (blue, 16), (alpha, 24)] {
                let (value, more) = table.look_up(bits >> length);
                pixel |= u32::from(value) << shift;
                length += more;
            }
            *entry = u64::from(pixel) | u64::from(length) << 32;
        }
        Box::new(packed)
    }

    /// The group of the pixel at column `x` of row `y`.
    #[inline]
    pub(super) fn at(&self, x: usize, y: usize) -> &Group {
        let number = match self
            .map
            .get((y >> self.tile_bits) * self.tiles_across + (x >> self.tile_bits))
        {
            Some(&number) => usize::from(number),
            None => 0,
        };
        &self.groups[number]
    }

    pub(super) fn codes(&self, group: &Group) -> Codes<'_> {
        let [green, red, blue, alpha, distance] = group.places.map(|place| self.tables.get(place));
        Codes {
            green,
            red,
            blue,
            alpha,
            distance,
        }
    }
}

/// The number of symbols of each code of a group.
const fn alphabets(cache_bits: u32) -> [usize; 5] {
    let places = if cache_bits == 0 { 0 } else { 1 << cache_bits };
    let green = (LITERALS + LENGTHS) as usize + places;
    [green, 256, 256, 256, DISTANCES]
}
