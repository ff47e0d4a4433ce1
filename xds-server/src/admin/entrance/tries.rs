//! How often an address may show a wrong token. A token of 16 characters is not guessed by so few, and whoever shows wrong
//! ones keeps nobody at another address out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// So many wrong tokens in this time.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses that are remembered.
const SOURCES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Tries(HashMap<IpAddr, Failed>);

/// The wrong tokens of one address.
#[derive(Debug, Clone, Copy)]
struct Failed {
    first: Instant,
    count: u32,
}

// === impl Tries ===

impl Tries {
    /// The seconds that this address must wait for another try, if it must.
    pub fn wait(&self, source: IpAddr, now: Instant) -> Option<u64> {
        let failed = self.0.get(&network(source)).filter(|failed| failed.count >= MOST)?;
        let left = failed.ends().checked_duration_since(now).filter(|left| !left.is_zero())?;
        Some(left.as_secs().saturating_add(1))
    }

    pub fn failed(&mut self, source: IpAddr, now: Instant) {
        let source = network(source);
        if self.0.len() >= SOURCES && !self.0.contains_key(&source) {
            self.0.retain(|_, failed| failed.ends() > now);
            let oldest = self.0.iter().min_by_key(|(_, failed)| failed.first).map(|(source, _)| *source);
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= SOURCES) {
                self.0.remove(&oldest);
            }
        }
        let failed = self.0.entry(source).or_insert(Failed { first: now, count: 0 });
        if failed.ends() <= now {
            *failed = Failed { first: now, count: 0 };
        }
        failed.count = failed.count.saturating_add(1);
    }
}

// === impl Failed ===

impl Failed {
    fn ends(&self) -> Instant {
        self.first + WINDOW
    }
}

/// Whoever has an IPv6 address has the /64 that it is in.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn after_ten_wrong_tokens_an_address_waits_and_no_other_does() {
        let now = Instant::now();
        let mut tries = Tries::default();
        for _ in 0..MOST {
            assert_eq!(tries.wait(v4(1), now), None);
            tries.failed(v4(1), now);
        }
        assert_eq!(tries.wait(v4(1), now), Some(61));
        assert_eq!(tries.wait(v4(2), now), None);
        assert_eq!(tries.wait(v4(1), now + WINDOW), None);
        tries.failed(v4(1), now + WINDOW);
        assert_eq!(tries.wait(v4(1), now + WINDOW), None, "it begins anew");
        let v6 = |text: &str| text.parse::<IpAddr>().unwrap();
        (0..MOST).for_each(|_| tries.failed(v6("2001:db8::1"), now));
        assert!(tries.wait(v6("2001:db8::2"), now).is_some(), "a /64 is one source");
        assert_eq!(tries.wait(v6("2001:db8:0:1::1"), now), None);
    }

    #[test]
    fn the_number_of_addresses_is_bounded() {
        let now = Instant::now();
        let mut tries = Tries::default();
        for number in 0..5000u32 {
            tries.failed(IpAddr::V4(number.into()), now);
        }
        assert_eq!(tries.0.len(), SOURCES);
    }
}
