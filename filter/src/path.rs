//! A request's path: what stands below the client's `/v1` is the API's own, what stands before is the
//! route's or the backend's.

/// A `:path`, split at its first `/v1` segment and at its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path<'p> {
    /// Below `/v1`, or the whole path when it has none; with the query.
    rest: &'p str,
    /// Length of `rest` without the query.
    path: usize,
}

// === impl Path ===

impl<'p> Path<'p> {
    pub fn of(raw: &'p str) -> Self {
        let end = raw.find(['?', '#']).unwrap_or(raw.len());
        let path = raw.get(..end).unwrap_or(raw);
        let below = path
            .match_indices("/v1")
            .map(|(at, found)| at + found.len())
            .find(|after| path.get(*after..).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let start = below.unwrap_or(0);
        Self { rest: raw.get(start..).unwrap_or(raw), path: end.saturating_sub(start) }
    }

    pub fn below(self) -> &'p str {
        self.rest.get(..self.path).unwrap_or(self.rest)
    }

    pub fn below_with_query(self) -> &'p str {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_v1_segment_counts() {
        for (raw, below, with_query) in [
            ("/v1/chat/completions?a=/v1/b", "/chat/completions", "/chat/completions?a=/v1/b"),
            ("/team/v1/models", "/models", "/models"),
            ("/v1", "", ""),
            ("/v1beta/models", "/v1beta/models", "/v1beta/models"),
            ("/v1beta/v1/models", "/models", "/models"),
            ("/chat/completions", "/chat/completions", "/chat/completions"),
            ("/x/v1/a/v1/b", "/a/v1/b", "/a/v1/b"),
        ] {
            let path = Path::of(raw);
            assert_eq!((path.below(), path.below_with_query()), (below, with_query), "{raw}");
        }
    }
}
