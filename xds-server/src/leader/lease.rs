//! Who leads, by a Lease of the cluster. It is pure: what the Lease says and the time go in, and what to do comes out.
//!
//! As in client-go, no clock but our own counts: whoever leads has to change the Lease before it has looked the same to us
//! for as long as it is given. Whoever leads stops before others may think that it does not.

use std::time::Duration;

use tokio::time::Instant;

/// A leader that says nothing for so long is replaced.
pub const GIVEN: Duration = Duration::from_secs(10);
/// A leader says so this often.
pub const RENEW: Duration = Duration::from_secs(3);
/// A leader that could not say so for this long does not lead any more. A request that has begun by then has the rest of
/// the time to end.
const STOPS: Duration = Duration::from_secs(5);
/// The others look this often, and a leader that could not renew tries again. So a leader that was killed is replaced
/// within 12 s.
pub const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Lease {
    identity: String,
    /// The version of it that somebody else made, and since when we know it.
    seen: Option<(String, Instant)>,
    leads_until: Option<Instant>,
}

/// The Lease as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Empty: nobody's.
    pub holder: String,
    pub version: String,
    pub given: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    Create,
    /// It is free, or its holder says nothing any more.
    Take,
    Renew,
    Wait,
}

// === impl Lease ===

impl Lease {
    pub fn new(identity: String) -> Self {
        Self { identity, seen: None, leads_until: None }
    }

    /// Decides what to do with the Lease.
    pub fn look(&mut self, held: Option<&Held>, now: Instant) -> Move {
        let Some(held) = held else {
            self.leads_until = None;
            return Move::Create;
        };
        if held.holder == self.identity {
            return Move::Renew;
        }
        self.leads_until = None;
        if held.holder.is_empty() {
            return Move::Take;
        }
        match &self.seen {
            Some((version, since)) if *version == held.version => {
                if now.saturating_duration_since(*since) >= held.given { Move::Take } else { Move::Wait }
            }
            _ => {
                self.seen = Some((held.version.clone(), now));
                Move::Wait
            }
        }
    }

    /// It is ours. `asked` is when the request began.
    pub fn won(&mut self, asked: Instant) {
        self.leads_until = Some(asked + STOPS);
    }

    /// Until when we lead, if nothing else is heard.
    pub fn leads_until(&self) -> Option<Instant> {
        self.leads_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(holder: &str, version: &str) -> Held {
        Held { holder: holder.to_owned(), version: version.to_owned(), given: GIVEN }
    }

    #[test]
    fn a_leader_that_says_nothing_is_replaced_in_time() {
        let start = Instant::now();
        let mut lease = Lease::new("b".to_owned());
        let mut now = start;
        let mut looks = 0;
        while lease.look(Some(&held("a", "1")), now) == Move::Wait {
            now += LOOK;
            looks += 1;
        }
        assert_eq!(looks, 10);
        assert!(now - start + LOOK <= Duration::from_secs(12));
    }

    #[test]
    fn a_leader_that_renews_stays() {
        let mut lease = Lease::new("b".to_owned());
        let mut now = Instant::now();
        for version in 0..100 {
            assert_eq!(lease.look(Some(&held("a", &version.to_string())), now), Move::Wait);
            now += RENEW;
        }
    }

    #[test]
    fn whoever_leads_stops_before_others_may_begin() {
        let start = Instant::now();
        let mut lease = Lease::new("a".to_owned());
        assert_eq!(lease.look(None, start), Move::Create);
        assert_eq!(lease.leads_until(), None);
        lease.won(start);
        assert_eq!(lease.look(Some(&held("a", "1")), start), Move::Renew);
        assert!(lease.leads_until().is_some_and(|until| until > start + RENEW + LOOK && until < start + GIVEN));
        assert_eq!(lease.look(Some(&held("b", "2")), start), Move::Wait);
        assert_eq!(lease.leads_until(), None);
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let mut lease = Lease::new("b".to_owned());
        assert_eq!(lease.look(Some(&held("a", "1")), Instant::now()), Move::Wait);
        assert_eq!(lease.look(Some(&held("", "2")), Instant::now()), Move::Take);
    }
}
