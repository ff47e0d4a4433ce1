//! How many connections each source address has, so that one client does not take the places of others. Each worker counts
//! its own and refuses beyond its share of what the source may have. The kernel spreads connections over the workers.

/// No worker's share is less. Connections are spread by chance, and with many workers the shares are small.
const LEAST: u32 = 64;

/// A worker takes itself for one of so many until it knows how many there are.
const ASSUMED: u32 = 4;

/// Who a connection is from: an IPv4 address, or the first half of an IPv6 address. The second half is the client's to
/// choose (RFC 4291, section 2.5.1). No client has an IPv6 address that begins with 32 zeros, so IPv4 addresses stand
/// there. All whose address cannot be read are the source 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(u64);

#[derive(Debug, Default)]
pub struct Sources {
    /// Each source that has connections, and how many. Sorted.
    open: Vec<(Source, u32)>,
    /// How many workers share what a source may have. None: that is not known yet.
    workers: Option<u32>,
}

// === impl Source ===

impl Source {
    /// Reads an address with its port as Envoy writes it: `192.0.2.1:443` or `[2001:db8::1]:443` (RFC 5952).
    pub fn of(address: &[u8]) -> Self {
        let end = address.iter().rposition(|byte| *byte == b':').unwrap_or(0);
        let host = address.get(..end).unwrap_or_default();
        let source = host.strip_prefix(b"[").map_or_else(|| ipv4(host), first_half_of_ipv6);
        Self(source.unwrap_or(0))
    }
}

// The standard library's parsers would make the filter 5 KB larger. They are the oracles in the tests.

fn ipv4(host: &[u8]) -> Option<u64> {
    host.split(|byte| *byte == b'.').try_fold(0, |address, part| Some((address << 8) | number(part, 10)?))
}

fn first_half_of_ipv6(host: &[u8]) -> Option<u64> {
    let parts = || host.split(|byte| *byte == b':');
    let written = parts().filter(|part| !part.is_empty()).count();
    let mut left_out = 8_usize.saturating_sub(written);
    let mut groups = [0; 4];
    let mut place = 0;
    for part in parts() {
        if part.is_empty() {
            place += std::mem::take(&mut left_out);
            continue;
        }
        if let Some(group) = groups.get_mut(place) {
            *group = number(part, 16)?;
        }
        place += 1;
    }
    Some(groups.into_iter().fold(0, |half, group| (half << 16) | group))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    digits.iter().try_fold(0, |value: u64, byte| {
        let digit = char::from(*byte).to_digit(radix)?;
        Some(value.wrapping_mul(radix.into()).wrapping_add(digit.into()))
    })
}

// === impl Sources ===

impl Sources {
    /// Each of so many workers has a share of what a source may have.
    pub fn share_among(&mut self, workers: u64) {
        self.workers = Some(u32::try_from(workers).unwrap_or(u32::MAX));
    }

    /// Counts a connection, unless its source has this worker's share of `most` already. Says whether it is counted.
    #[must_use]
    pub fn admit(&mut self, source: Source, most: u32) -> bool {
        let share = most.checked_div(self.workers.unwrap_or(ASSUMED)).unwrap_or(most).max(LEAST).min(most);
        match self.place(source) {
            Ok(place) => self.open.get_mut(place).is_some_and(|(_, count)| {
                let admitted = *count < share;
                *count += u32::from(admitted);
                admitted
            }),
            Err(place) => {
                self.open.insert(place, (source, 1));
                true
            }
        }
    }

    /// One of the connections that were counted is over.
    pub fn left(&mut self, source: Source) {
        if let Ok(place) = self.place(source)
            && let Some((_, count)) = self.open.get_mut(place)
        {
            *count -= 1;
            if *count == 0 {
                self.open.remove(place);
            }
        }
    }

    fn place(&self, source: Source) -> Result<usize, usize> {
        self.open.binary_search_by(|(other, _)| other.cmp(&source))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6},
    };

    use proptest::prelude::*;

    use super::*;

    const UNKNOWN: Source = Source(0);

    fn source(address: &str) -> Source {
        Source::of(address.as_bytes())
    }

    #[test]
    fn the_port_does_not_matter_and_the_address_does() {
        assert_eq!(source("192.0.2.1:1"), source("192.0.2.1:65535"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.11:1"));
        assert_ne!(source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert_ne!(source("255.255.255.254:1"), source("255.255.255.255:1"));
        assert_ne!(source("255.255.255.255:1"), UNKNOWN);
    }

    #[test]
    fn a_client_does_not_get_more_by_other_addresses_of_its_own_ipv6_network() {
        assert_eq!(source("[2001:db8:0:7::1]:443"), source("[2001:db8:0:7:ffff:1:2:3]:443"));
        assert_eq!(source("[fe80::1%2]:443"), source("[fe80::9]:443"));
        assert_ne!(source("[2001:db8:0:7::1]:443"), source("[2001:db8:0:8::1]:443"));
        assert_ne!(source("[::1]:443"), source("[1::]:443"));
    }

    #[test]
    fn what_is_no_address_is_one_source() {
        for text in ["", "443", "@hidden.socket", "/a/long/path/of/a/socket:1", "[xyz::1]:443", "\u{e9}:1", "1.2.3.x:1"]
        {
            assert_eq!(source(text), UNKNOWN, "{text}");
        }
        assert_eq!(Source::of(&[0xff, 0xfe]), UNKNOWN);
    }

    #[test]
    fn a_source_has_no_more_than_it_may_and_others_have_their_own() {
        let mut sources = Sources::default();
        let (one, other) = (source("192.0.2.1:1"), source("192.0.2.2:1"));
        assert!(sources.admit(one, 2));
        assert!(sources.admit(one, 2));
        assert!(!sources.admit(one, 2));
        assert!(sources.admit(other, 2));
        sources.left(one);
        assert!(sources.admit(one, 2));
        assert!(!sources.admit(one, 2));
        // A lower limit closes nobody, and holds for those who come.
        sources.left(one);
        assert!(!sources.admit(one, 1));
    }

    /// How many connections a source gets to this worker.
    fn admitted(sources: &mut Sources, source: Source, most: u32) -> usize {
        (0..10_000).take_while(|_| sources.admit(source, most)).count()
    }

    #[test]
    fn workers_share_what_a_source_may_have() {
        for (workers, most, share) in [
            (0, 2_000, 2_000),
            (1, 2_000, 2_000),
            (4, 2_000, 500),
            (3, 2_000, 666),
            (31, 2_000, 64),
            (32, 2_000, 64),
            (u64::MAX, 2_000, 64),
            (1, 3, 3),
            (9, 3, 3),
        ] {
            let mut sources = Sources::default();
            sources.share_among(workers);
            assert_eq!(admitted(&mut sources, source("192.0.2.1:1"), most), share, "{workers} workers");
        }
        assert_eq!(admitted(&mut Sources::default(), source("192.0.2.1:1"), 2_000), 500, "it does not know yet");
    }

    #[test]
    fn a_worker_more_closes_nobody_and_one_less_makes_room() {
        let (mut sources, one) = (Sources::default(), source("192.0.2.1:1"));
        sources.share_among(2);
        assert_eq!(admitted(&mut sources, one, 400), 200);
        sources.share_among(4);
        sources.left(one);
        assert_eq!(admitted(&mut sources, one, 400), 0);
        sources.share_among(1);
        assert_eq!(admitted(&mut sources, one, 400), 201);
    }

    proptest! {
        /// Many groups are zero, so that addresses are written short in every place.
        #[test]
        fn any_ipv6_address_is_read_as_the_standard_library_reads_it(
            groups in prop::array::uniform8(prop_oneof![Just(0), any::<u16>()]),
            port: u16,
        ) {
            let text = SocketAddrV6::new(Ipv6Addr::from(groups), port, 0, 0).to_string();
            let [a, b, c, d, ..] = groups;
            let half = [a, b, c, d].into_iter().fold(0, |half, group| (half << 16) | u64::from(group));
            prop_assert_eq!(source(&text), Source(half));
        }

        #[test]
        fn any_ipv4_address_is_read_as_the_standard_library_reads_it(address: u32, port: u16) {
            let text = SocketAddrV4::new(Ipv4Addr::from_bits(address), port).to_string();
            prop_assert_eq!(source(&text), Source(address.into()));
        }

        #[test]
        fn no_text_breaks_it(text: Vec<u8>) {
            Source::of(&text);
            Source::of(&[b"[".as_slice(), &text, b"]:1"].concat());
        }

        /// A step is whether a connection comes or leaves, and of which source.
        #[test]
        fn counts_are_those_of_a_model_in_any_order(steps: Vec<(bool, u8)>, most in 1..4_u32) {
            let mut sources = Sources::default();
            let mut model: BTreeMap<u8, u32> = BTreeMap::new();
            for (comes, number) in steps {
                let number = number % 5;
                let source = source(&format!("192.0.2.{number}:1"));
                let count = model.entry(number).or_default();
                if comes {
                    prop_assert_eq!(sources.admit(source, most), *count < most);
                    *count = most.min(*count + 1);
                } else if *count > 0 {
                    sources.left(source);
                    *count -= 1;
                }
                // Those who have no connection take no memory.
                prop_assert_eq!(sources.open.len(), model.values().filter(|count| **count > 0).count());
            }
        }
    }
}
