//! XXH64, by which Envoy compares keys of scopes, and how a client makes a text with the hash that it wants: all that
//! is done after the last eight bytes can be taken back.

const P1: u64 = 11_400_714_785_074_694_791;
const P2: u64 = 14_029_467_366_897_019_727;
const P3: u64 = 1_609_587_929_392_839_161;
const P4: u64 = 9_650_029_242_287_828_579;
const P5: u64 = 2_870_177_450_012_600_261;

/// The hash of a text of less than 64 bytes.
pub fn hash(text: &[u8]) -> u64 {
    let (mut sum, rest) = match text.split_first_chunk::<32>() {
        Some((first, rest)) => (of_lanes(first), rest),
        None => (P5, text),
    };
    sum = sum.wrapping_add(text.len() as u64);
    let (eights, rest) = rest.as_chunks::<8>();
    for lane in eights {
        sum = mix(sum, u64::from_le_bytes(*lane));
    }
    let (fours, rest) = rest.as_chunks::<4>();
    for four in fours {
        sum ^= u64::from(u32::from_le_bytes(*four)).wrapping_mul(P1);
        sum = sum.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for byte in rest {
        sum = (sum ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    sum = (sum ^ (sum >> 33)).wrapping_mul(P2);
    sum = (sum ^ (sum >> 29)).wrapping_mul(P3);
    sum ^ (sum >> 32)
}

/// The eight bytes after these by which the whole gets this hash.
pub fn last_for(first: &[u8; 32], wanted: u64) -> [u8; 8] {
    let mut sum = wanted;
    sum = (sum ^ (sum >> 32)).wrapping_mul(inverse(P3));
    sum = (sum ^ (sum >> 29) ^ (sum >> 58)).wrapping_mul(inverse(P2));
    sum ^= sum >> 33;
    let before = of_lanes(first).wrapping_add(40);
    let lane = before ^ sum.wrapping_sub(P4).wrapping_mul(inverse(P1)).rotate_right(27);
    lane.wrapping_mul(inverse(P1)).rotate_right(31).wrapping_mul(inverse(P2)).to_le_bytes()
}

fn of_lanes(text: &[u8; 32]) -> u64 {
    let (lanes, _) = text.as_chunks::<8>();
    let starts = [P1.wrapping_add(P2), P2, 0, 0_u64.wrapping_sub(P1)];
    let lanes: Vec<u64> =
        starts.iter().zip(lanes).map(|(start, lane)| round(*start, u64::from_le_bytes(*lane))).collect();
    let sum =
        lanes.iter().zip([1, 7, 12, 18]).fold(0_u64, |sum, (lane, turn)| sum.wrapping_add(lane.rotate_left(turn)));
    lanes.iter().fold(sum, |sum, lane| (sum ^ round(0, *lane)).wrapping_mul(P1).wrapping_add(P4))
}

fn round(sum: u64, lane: u64) -> u64 {
    sum.wrapping_add(lane.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn mix(sum: u64, lane: u64) -> u64 {
    (sum ^ round(0, lane)).rotate_left(27).wrapping_mul(P1).wrapping_add(P4)
}

/// By which a product with this odd number is taken back, modulo 2^64.
fn inverse(number: u64) -> u64 {
    // Each turn doubles how many bits are right.
    (0..6).fold(1_u64, |found, _| found.wrapping_mul(2_u64.wrapping_sub(number.wrapping_mul(found))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_xxh64() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"0123456789abcdefghijklmnopqrstuvwxyzABCD"), 0x1b3c_e041_c106_b50b);
    }

    #[test]
    fn a_text_gets_the_hash_that_is_wanted() {
        let first = *b"0123456789abcdefghijklmnopqrstuv";
        for wanted in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
            assert_eq!(hash(&[&first[..], &last_for(&first, wanted)].concat()), wanted);
        }
    }
}
