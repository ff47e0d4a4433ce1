//! The sessions of people who have logged in. Only hashes of their ids are kept.

use std::time::{Duration, Instant};

use super::token::Hash;

/// A working day.
pub(super) const LIFETIME: Duration = Duration::from_secs(8 * 3600);
/// Whoever has the token may log in as often as he likes, so the oldest session gives way.
const MOST: usize = 256;

/// In the order in which they began, which is the one in which they end.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Session>);

#[derive(Debug)]
struct Session {
    id: Hash,
    /// What he has shown.
    token: Hash,
    ends: Instant,
}

// === impl Sessions ===

impl Sessions {
    /// Begins a session of somebody who has shown this token. The id is for him alone.
    pub fn begin(&mut self, token: Hash, now: Instant) -> String {
        self.0.retain(|session| session.ends > now && session.token == token);
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        let id = hex::encode(rand::random::<[u8; 32]>());
        self.0.push(Session { id: Hash::of(id.as_bytes()), token, ends: now + LIFETIME });
        id
    }

    /// Whether there is this session, by the token that counts now.
    pub fn has(&self, id: &str, token: Hash, now: Instant) -> bool {
        let id = Hash::of(id.as_bytes());
        self.0.iter().any(|session| session.id == id && session.token == token && session.ends > now)
    }

    pub fn end(&mut self, id: &str) {
        let id = Hash::of(id.as_bytes());
        self.0.retain(|session| session.id != id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_session_ends_by_time_by_logout_and_by_a_new_token() {
        let (token, now) = (Hash::of(b"one"), Instant::now());
        let mut sessions = Sessions::default();
        let (id, other) = (sessions.begin(token, now), sessions.begin(token, now));
        assert_ne!(id, other);
        assert!(sessions.has(&id, token, now) && sessions.has(&id, token, now + LIFETIME - SECOND));
        assert!(!sessions.has(&id, token, now + LIFETIME));
        assert!(!sessions.has(&id, Hash::of(b"another"), now));
        assert!(!sessions.has("", token, now));
        sessions.end(&id);
        assert!(!sessions.has(&id, token, now) && sessions.has(&other, token, now));
    }

    #[test]
    fn the_oldest_gives_way_to_one_too_many() {
        let (token, now) = (Hash::of(b"one"), Instant::now());
        let mut sessions = Sessions::default();
        let ids: Vec<String> = (0..=MOST).map(|_| sessions.begin(token, now)).collect();
        assert_eq!(sessions.0.len(), MOST);
        assert!(!sessions.has(&ids[0], token, now));
        assert!(ids[1..].iter().all(|id| sessions.has(id, token, now)));
    }
}
