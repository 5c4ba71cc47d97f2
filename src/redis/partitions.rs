//! Spreads subjects over partitions.

use crate::config::Partitions;

impl Partitions {
    /// All partitions.
    pub(crate) fn all(self) -> impl Iterator<Item = Partition> + Clone {
        (0..self.count()).map(Partition)
    }

    /// The partition of `name`: the 32-bit FNV-1a hash of its bytes, modulo the number of partitions
    /// (<http://www.isthe.com/chongo/tech/comp/fnv/>).
    pub(crate) fn of(self, name: &str) -> Partition {
        let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        Partition((hash % u32::from(self.count())) as u16)
    }
}

/// The number of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Partition(pub(crate) u16);

impl Partition {
    /// The Redis key of `name` in this partition. The braces keep all keys of a partition in one slot.
    pub(crate) fn key(self, name: &str) -> String {
        format!("cameo:{{p{:02}}}:{name}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_subject_never_changes() {
        // These values are fixed: another hash would not find the stored records.
        let partitions = Partitions::new(16).unwrap();
        assert_eq!(partitions.of("a").0, 0xe40c_292c_u32 as u16 % 16);
        assert_eq!(partitions.of("foobar").0, 0xbf9c_f968_u32 as u16 % 16);
        assert_eq!(partitions.of("a").key("subjects"), "cameo:{p12}:subjects");
    }

    #[test]
    fn subjects_spread_evenly() {
        let partitions = Partitions::new(16).unwrap();
        let mut counts = [0_u32; 16];
        for number in 0..16_000 {
            counts[usize::from(partitions.of(&format!("user-{number}")).0)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_single_partition_holds_every_subject() {
        assert_eq!(Partitions::new(1).unwrap().of("x"), Partition(0));
    }
}
