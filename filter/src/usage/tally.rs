//! What an answer has said and shown so far, document by document, and what it used if it ends here.
//!
//! Usage in the middle of a stream is not its end: some backends say it in their first event, some in
//! each. It is exact when nothing came after it and the answer came to its end, or when it stood alone
//! behind the text, as the last event does. All else is estimated: at least what was said, and the text
//! since then.

use super::{
    Api, Habit, Tokens, Used,
    figures::{Figures, Sum},
    reader::{Choices, Document},
};

/// Bounded: sums and flags.
#[derive(Debug, Default)]
pub struct Tally {
    figures: Figures,
    last_usage: LastUsage,
    /// All text, and what of it came after the last usage.
    shown: Shown,
    since: Shown,
    is_over: bool,
    event: Event,
}

/// Text that a client was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shown {
    documents: u64,
    bytes: u64,
}

/// How the last whole usage came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum LastUsage {
    #[default]
    None,
    /// With text in the same document, as a running count.
    WithText,
    Alone,
}

/// What the documents since the last look were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    is_empty: bool,
    pub has_text: bool,
    pub has_usage: bool,
    /// A chunk that carries nothing but usage: `choices` is there and empty.
    pub is_usage_only: bool,
    pub is_last: bool,
}

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All of it came.
    Whole,
    /// The client left, or the backend broke off.
    Early,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Made when its first byte comes, its usage with it.
    AtOnce,
    /// Made while it comes.
    AsStream,
}

/// What is known of an answer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    pub api: Api,
    pub end: End,
    pub delivery: Delivery,
    /// What was expected when the request came.
    pub expected: Tokens,
    pub habit: Habit,
}

// === impl Tally ===

impl Tally {
    /// Takes a document in.
    #[inline(never)]
    pub fn add(&mut self, document: &Document) {
        let text = document.text();
        let shown = Shown { documents: u64::from(text > 0), bytes: text };
        self.shown.add(shown);
        self.since.add(shown);
        let has_usage = document.has_usage && self.says(document);
        if has_usage {
            self.since = Shown::default();
            self.last_usage = if text > 0 { LastUsage::WithText } else { LastUsage::Alone };
        }
        self.is_over |= document.kind.is_last();
        self.event.has_text |= text > 0;
        self.event.has_usage |= has_usage;
        let is_usage_only = document.has_usage && document.choices == Choices::Empty && text == 0;
        self.event.is_usage_only = is_usage_only && self.event.is_empty;
        self.event.is_empty = false;
        self.event.is_last |= document.kind.is_last();
    }

    /// True: input and output are known now.
    fn says(&mut self, document: &Document) -> bool {
        if document.figures.are_silent() {
            return false;
        }
        let said = if document.begins { document.figures.without_output() } else { document.figures };
        let said = self.figures.then(said);
        let is_whole = matches!(said.sum(), Sum::All(_) | Sum::Total(_));
        if is_whole || self.last_usage == LastUsage::None {
            self.figures = said;
        }
        is_whole
    }

    /// Something came that is no document.
    pub fn add_other(&mut self, text: &[u8]) {
        // What ends a stream of OpenAI's is no JSON, but looks like an array.
        let is_last = text == b"DONE";
        self.is_over |= is_last;
        self.event.is_last |= is_last;
        (self.event.is_empty, self.event.is_usage_only) = (false, false);
    }

    /// What came since the last look.
    pub fn take_event(&mut self) -> Event {
        std::mem::take(&mut self.event)
    }

    /// Bytes of text, to learn from.
    pub fn shown_bytes(&self) -> u64 {
        self.shown.bytes
    }

    /// What the answer used if this is all of it.
    pub fn used(&self, case: &Case) -> Used {
        let known = match self.figures.sum() {
            Sum::Input(tokens) if case.api == Api::Embeddings => return Used::Exactly(tokens),
            Sum::Input(tokens) | Sum::All(tokens) => tokens,
            Sum::Total(total) => {
                let input = if case.api == Api::Embeddings { total } else { total.min(case.expected.input) };
                Tokens { input, output: total - input, ..Tokens::default() }
            }
            Sum::Nothing => Tokens { input: case.expected.input, ..Tokens::default() },
        };
        if self.is_exact(case, known) { Used::Exactly(known) } else { Used::About(self.estimate(case, known)) }
    }

    fn is_exact(&self, case: &Case, known: Tokens) -> bool {
        let came_whole = case.end == End::Whole || self.is_over || case.delivery == Delivery::AtOnce;
        self.since == Shown::default()
            && match self.last_usage {
                LastUsage::None => false,
                LastUsage::WithText => came_whole,
                LastUsage::Alone => came_whole || known.output > 0,
            }
    }

    fn estimate(&self, case: &Case, known: Tokens) -> Tokens {
        if case.api == Api::Embeddings {
            return Tokens { output: 0, ..known };
        }
        let habit = &case.habit;
        // Hidden reasoning comes before the text; once some output was counted, it is in that.
        let usual = if known.output > 0 { 0 } else { case.expected.output };
        let since = habit.billed(self.since.tokens(habit), usual);
        let mut output = known.output.saturating_add(since).max(self.shown.tokens(habit));
        if known.output == 0 && case.end == End::Early && (case.delivery == Delivery::AtOnce || !habit.is_learnt()) {
            output = output.max(usual);
        }
        Tokens { output, ..known }
    }
}

// === impl Event ===

impl Default for Event {
    fn default() -> Self {
        Self { is_empty: true, has_text: false, has_usage: false, is_usage_only: false, is_last: false }
    }
}

// === impl Shown ===

impl Shown {
    fn add(&mut self, more: Self) {
        self.documents += more.documents;
        self.bytes += more.bytes;
    }

    /// A document with text has at least one token.
    fn tokens(self, habit: &Habit) -> u64 {
        habit.tokens(self.bytes).max(self.documents)
    }
}

#[cfg(test)]
mod tests;
