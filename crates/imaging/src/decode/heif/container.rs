//! Counts the tables of the container (ISO/IEC 14496-12, 8.11) before they are read. The memory and
//! time that `heifer-isobmff` needs depend on the claims of the tables: a few bytes may claim
//! 65,535 extents that hold no bytes.

use heifer_isobmff::{BoxIter, HeifFile, RawBox};

use super::{BROKEN, HeaderError, MAX_TILES, is_sequence};
use crate::decode::Size;
use crate::orientation::Orientation;

/// The limit on items: a picture in as many tiles as possible, and its metadata. Phones write about
/// 60.
const MAX_ITEMS: usize = MAX_TILES + 64;
/// The limit on properties. Phones write about ten.
const MAX_PROPERTIES: usize = 2048;
/// The limit on associations of items with properties: about four per tile.
const MAX_ASSOCIATIONS: usize = 4 * MAX_ITEMS;
/// The limit on references between items: to the tiles of a picture and from its metadata.
const MAX_REFERENCES: usize = 2 * MAX_ITEMS;
/// The limit on extents of all items. Nearly every item has one.
const MAX_EXTENTS: usize = 4 * MAX_ITEMS;
/// The limit on parameter sets in all HEVC configurations. A real configuration has three.
const MAX_PARAMETER_SETS: usize = 4 * MAX_ITEMS;

/// Opens a file whose tables are no longer than a picture needs. Its memory is bounded by the size
/// of the file and a megabyte; its time is that of reading the file once.
///
/// # Errors
///
/// [`HeaderError::Complex`] for longer tables; the errors of a damaged container.
pub(super) fn open(bytes: &[u8]) -> Result<HeifFile<'_>, HeaderError> {
    if let Some(meta) = meta(bytes)? {
        Counts::default().count_meta(meta)?;
    }
    HeifFile::parse(bytes).map_err(|error| match error {
        // A film need not contain a picture beside its tracks.
        heifer_isobmff::Error::MissingBox(name) if name.0 == *b"meta" && is_sequence(bytes) => {
            HeaderError::Kind("a sequence without a still picture")
        }
        _ => BROKEN,
    })
}

/// Upper bound on the memory of [`open`]: the contents of the tables, and a megabyte for their
/// entries.
pub(super) fn kept_bytes(bytes: &[u8]) -> u64 {
    let tables = meta(bytes).ok().flatten().map_or(0, <[u8]>::len);
    tables as u64 + (1 << 20)
}

/// Reads the size of the primary item before any transformation. It does not use [`open`], because
/// the size must be known for a refused file too, and walks over each table once.
pub(in crate::decode) fn claimed_size(bytes: &[u8]) -> Option<Size> {
    let within = |bytes, name: &[u8; 4]| {
        let mut boxes = boxes(bytes);
        boxes.find_map(|(found, content)| (found == *name).then_some(content))
    };
    // The version and the flags come first.
    let meta = within(bytes, b"meta")?.get(4..)?;
    let mut fields = Fields(within(meta, b"pitm")?);
    let wide = fields.version().ok()? > 0;
    let primary = fields.number(wide).ok()?;
    let iprp = within(meta, b"iprp")?;
    let properties = boxes(iprp)
        .filter(|(name, _)| name == b"ipma")
        .find_map(|(_, ipma)| associated(Fields(ipma), primary).ok().flatten())?;
    let size = (1..)
        .zip(boxes(within(iprp, b"ipco")?))
        .find_map(|(index, (name, content))| {
            (name == *b"ispe" && properties.contains(&index)).then_some(content)
        })?;
    let (width, rest) = size.get(4..)?.split_first_chunk()?;
    let (height, _) = rest.split_first_chunk()?;
    Some(Size {
        width: u32::from_be_bytes(*width),
        height: u32::from_be_bytes(*height),
        orientation: Orientation::UPRIGHT,
    })
}

/// The boxes of a file or of a box with their types, up to the first damaged one.
fn boxes(bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    BoxIter::new(bytes).map_while(|raw| raw.ok().map(|raw| (raw.header.box_type.0, raw.content)))
}

/// The property indices of an item, in an `ipma` that lists the item.
fn associated(mut fields: Fields<'_>, item: usize) -> Result<Option<Vec<usize>>, HeaderError> {
    let [version, _, _, flags] = fields.take()?;
    for _ in 0..fields.number(true)? {
        let found = fields.number(version > 0)?;
        let [count] = fields.take()?;
        let mut properties = Vec::new();
        for _ in 0..count {
            // The highest bit marks essential properties.
            properties.push(if flags & 1 == 0 {
                let [index] = fields.take()?;
                usize::from(index & 0x7f)
            } else {
                fields.number(false)? & 0x7fff
            });
        }
        if found == item {
            return Ok(Some(properties));
        }
    }
    Ok(None)
}

/// The contents of the only `meta` box of a file.
fn meta(bytes: &[u8]) -> Result<Option<&[u8]>, HeaderError> {
    let mut found = None;
    for raw in BoxIter::new(bytes) {
        let raw = raw.map_err(|_| BROKEN)?;
        if raw.header.box_type.0 == *b"meta" && found.replace(raw.content).is_some() {
            return Err(HeaderError::Broken("its container has two indexes"));
        }
    }
    Ok(found)
}

/// The number of entries of each kind, in all tables of a file together.
#[derive(Default)]
struct Counts {
    items: usize,
    locations: usize,
    extents: usize,
    references: usize,
    properties: usize,
    parameter_sets: usize,
    associated: usize,
    associations: usize,
}

impl Counts {
    fn count_meta(&mut self, meta: &[u8]) -> Result<(), HeaderError> {
        // The version and the flags come first.
        for raw in BoxIter::new(meta.get(4..).ok_or(BROKEN)?) {
            let RawBox {
                header, content, ..
            } = raw.map_err(|_| BROKEN)?;
            let fields = Fields(content);
            match &header.box_type.0 {
                b"iinf" => self.count_items(fields)?,
                b"iloc" => self.count_locations(fields)?,
                b"iref" => self.count_references(fields)?,
                b"iprp" => self.count_properties(content)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `iinf`. It must not declare an item twice, because the data of the item would be counted
    /// twice.
    fn count_items(&mut self, mut fields: Fields<'_>) -> Result<(), HeaderError> {
        let wide = fields.version()? > 0;
        fields.number(wide)?; // entry_count; what counts are the boxes that there are
        let mut ids = Vec::new();
        for raw in BoxIter::new(fields.0) {
            let raw = raw.map_err(|_| BROKEN)?;
            add(&mut self.items, 1, MAX_ITEMS)?;
            if raw.header.box_type.0 == *b"infe" {
                let mut fields = Fields(raw.content);
                let wide = fields.version()? > 2;
                ids.push(fields.number(wide)?);
            }
        }
        ids.sort_unstable();
        if ids.is_sorted_by(|a, b| a < b) {
            Ok(())
        } else {
            Err(HeaderError::Broken("its container declares an item twice"))
        }
    }

    /// `iloc`
    fn count_locations(&mut self, mut fields: Fields<'_>) -> Result<(), HeaderError> {
        let version = fields.version()?;
        let [sizes, more_sizes] = fields.take()?;
        let [offset, length] = [sizes >> 4, sizes & 15].map(usize::from);
        let [base, index] = [more_sizes >> 4, more_sizes & 15].map(usize::from);
        let index = if version > 0 { index } else { 0 };
        let wide = version > 1;
        let count = fields.number(wide)?;
        add(&mut self.locations, count, MAX_ITEMS)?;
        for _ in 0..count {
            fields.number(wide)?;
            // `construction_method` from version 1 on, and `data_reference_index`.
            fields.skip(if version > 0 { 4 } else { 2 })?;
            fields.skip(base)?;
            let extents = fields.number(false)?;
            add(&mut self.extents, extents, MAX_EXTENTS)?;
            fields.skip(extents * (index + offset + length))?;
        }
        Ok(())
    }

    /// `iref`
    fn count_references(&mut self, mut fields: Fields<'_>) -> Result<(), HeaderError> {
        let wide = fields.version()? > 0;
        for raw in BoxIter::new(fields.0) {
            let mut fields = Fields(raw.map_err(|_| BROKEN)?.content);
            fields.number(wide)?;
            let to = fields.number(false)?;
            // A reference without targets counts too.
            add(&mut self.references, to.max(1), MAX_REFERENCES)?;
        }
        Ok(())
    }

    /// `iprp`: one `ipco` and any number of `ipma`.
    fn count_properties(&mut self, iprp: &[u8]) -> Result<(), HeaderError> {
        for raw in BoxIter::new(iprp) {
            let raw = raw.map_err(|_| BROKEN)?;
            match &raw.header.box_type.0 {
                b"ipco" => {
                    for property in BoxIter::new(raw.content) {
                        let property = property.map_err(|_| BROKEN)?;
                        add(&mut self.properties, 1, MAX_PROPERTIES)?;
                        if property.header.box_type.0 == *b"hvcC" {
                            self.count_parameter_sets(Fields(property.content))?;
                        }
                    }
                }
                b"ipma" => self.count_associations(Fields(raw.content))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// `hvcC` (ISO/IEC 14496-15, 8.3.3)
    fn count_parameter_sets(&mut self, mut fields: Fields<'_>) -> Result<(), HeaderError> {
        fields.skip(22)?;
        let [arrays] = fields.take()?;
        for _ in 0..arrays {
            fields.skip(1)?;
            let count = fields.number(false)?;
            add(&mut self.parameter_sets, count, MAX_PARAMETER_SETS)?;
            for _ in 0..count {
                let length = fields.number(false)?;
                fields.skip(length)?;
            }
        }
        Ok(())
    }

    /// `ipma`
    fn count_associations(&mut self, mut fields: Fields<'_>) -> Result<(), HeaderError> {
        let [version, _, _, flags] = fields.take()?;
        let index_bytes = if flags & 1 == 0 { 1 } else { 2 };
        let count = fields.number(true)?;
        add(&mut self.associated, count, MAX_ITEMS)?;
        for _ in 0..count {
            fields.number(version > 0)?;
            let [associations] = fields.take()?.map(usize::from);
            add(&mut self.associations, associations, MAX_ASSOCIATIONS)?;
            fields.skip(associations * index_bytes)?;
        }
        Ok(())
    }
}

/// Adds to a counter and checks its limit `most`.
fn add(counted: &mut usize, more: usize, most: usize) -> Result<(), HeaderError> {
    *counted = counted.saturating_add(more);
    if *counted > most {
        return Err(HeaderError::Complex("its container has too many entries"));
    }
    Ok(())
}

/// The unread rest of a box.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(BROKEN)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn skip(&mut self, count: usize) -> Result<(), HeaderError> {
        self.0 = self.0.get(count..).ok_or(BROKEN)?;
        Ok(())
    }

    /// Reads the version of a full box and skips its flags.
    fn version(&mut self) -> Result<u8, HeaderError> {
        let [version, ..] = self.take::<4>()?;
        Ok(version)
    }

    /// Reads an id or a count: 32 bits if `wide`, 16 otherwise.
    fn number(&mut self, wide: bool) -> Result<usize, HeaderError> {
        Ok(if wide {
            u32::from_be_bytes(self.take()?) as usize
        } else {
            u16::from_be_bytes(self.take()?).into()
        })
    }
}
