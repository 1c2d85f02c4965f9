//! What is left of deleted sessions once their tombstones are pruned too: the places of their events in the order of all
//! events, one bit each. So every gap in the order stays explained, however old it is.

use entity::pruned_places::Model;

use crate::keys::Keys;

/// Places in one row, one bit each.
pub(crate) const BLOCK: i64 = 8_192;
const BLOCK_BYTES: usize = 1_024;

/// Returns the number of the block that a place is in.
pub(crate) fn block_of(place: i64) -> i64 {
    place.div_euclid(BLOCK)
}

/// Returns a block without any place; it is not sealed.
pub(crate) fn empty(block: i64) -> Model {
    Model { block, places: vec![0; BLOCK_BYTES], mac: vec![] }
}

/// Adds a place of this block. The row must be sealed again after it.
pub(crate) fn add(row: &mut Model, place: i64) {
    let (byte, bit) = bit_of(place);
    if let Some(byte) = row.places.get_mut(byte) {
        *byte |= bit;
    }
}

/// Returns whether the block contains the place.
pub(crate) fn holds(row: &Model, place: i64) -> bool {
    let (byte, bit) = bit_of(place);
    block_of(place) == row.block && row.places.get(byte).is_some_and(|byte| byte & bit != 0)
}

fn bit_of(place: i64) -> (usize, u8) {
    let within = usize::try_from(place.rem_euclid(BLOCK)).unwrap_or_default();
    (within / 8, 1 << (within % 8))
}

/// Sets the row's MAC for its current content.
pub(crate) fn seal(keys: &Keys, row: &mut Model) {
    row.mac = keys.pruned_places(row);
}

/// Returns whether the row is as a server sealed it.
pub(crate) fn is_sealed(keys: &Keys, row: &Model) -> bool {
    row.places.len() == BLOCK_BYTES && row.mac == keys.pruned_places(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_what_was_added_and_is_sealed_as_it_is() {
        let keys = Keys::new("a key");
        for (block, places) in [(0, [1, 7, 8, 8_191]), (3, [24_576, 24_577, 24_600, 32_767])] {
            let mut row = empty(block);
            for place in places {
                assert!(block_of(place) == block && !holds(&row, place));
                add(&mut row, place);
                assert!(!is_sealed(&keys, &row));
                seal(&keys, &mut row);
                assert!(is_sealed(&keys, &row) && holds(&row, place));
            }
            let held = (block * BLOCK..(block + 1) * BLOCK).filter(|place| holds(&row, *place));
            assert_eq!(held.collect::<Vec<_>>(), places);
            assert!(!holds(&row, places[1] + BLOCK), "that place is in another block");
            let other = Model { block: block + 1, ..row.clone() };
            assert!(!is_sealed(&keys, &other) && !is_sealed(&Keys::new("another"), &row));
        }
    }
}
