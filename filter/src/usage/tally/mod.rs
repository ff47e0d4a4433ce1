//! What an answer has said and shown so far, document by document, and what it used if it ends here.
//!
//! Usage in the middle of a stream does not tell all of it: some backends say usage in their first event, some in each.
//! Usage is exact if no text came after it and the answer came to its end. It is also exact if it stood alone behind
//! the text, as the last event does. Anything else is estimated: at least what was said, and the text since then.

use super::{
    Api, Habit, Tokens, Used,
    figures::{Figures, Sum},
    reader::{Choices, Document},
};

/// What an answer has said and shown so far. Its size is fixed: it is sums and flags.
#[derive(Debug, Default)]
pub struct Tally {
    figures: Figures,
    last_usage: LastUsage,
    /// All text.
    shown: Shown,
    /// The text since the last usage.
    since: Shown,
    is_over: bool,
    event: EventSummary,
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
    /// It came as a running count, in one document with text.
    WithText,
    Alone,
}

/// What the documents of one event were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSummary {
    is_empty: bool,
    pub has_text: bool,
    pub has_usage: bool,
    /// It carries nothing but usage: `choices` is there and empty.
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
    /// It is finished before its first byte comes, and its usage is in it.
    AtOnce,
    /// It is made while it comes.
    AsStream,
}

/// What is known of an answer besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Case {
    pub api: Api,
    pub end: End,
    pub delivery: Delivery,
    /// What was expected of it when the request came.
    pub expected: Tokens,
    pub habit: Habit,
}

// === impl Tally ===

impl Tally {
    /// Takes in a document.
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

    /// Takes in a document's figures. True: input and output are known now.
    fn says(&mut self, document: &Document) -> bool {
        let said = if document.begins { document.figures.without_output() } else { document.figures };
        let said = self.figures.then(said);
        let is_whole = matches!(said.sum(), Sum::All(_) | Sum::Total(_));
        if is_whole || self.last_usage == LastUsage::None {
            self.figures = said;
        }
        is_whole
    }

    /// Takes in something that is not a document.
    pub fn add_other(&mut self, text: &[u8]) {
        // `[DONE]` ends a stream of OpenAI's. It is not JSON, but it looks like an array.
        let is_last = text == b"DONE";
        self.is_over |= is_last;
        self.event.is_last |= is_last;
        (self.event.is_empty, self.event.is_usage_only) = (false, false);
    }

    /// Takes what came since this was last called.
    pub fn take_event(&mut self) -> EventSummary {
        std::mem::take(&mut self.event)
    }

    /// How many bytes of text the client was given.
    pub fn shown_bytes(&self) -> u64 {
        self.shown.bytes
    }

    /// What the answer used, if this is all of it.
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
        // Hidden reasoning comes before the text. Output that was counted has it in it.
        let usual = if known.output > 0 { 0 } else { case.expected.output };
        let since = habit.billed(self.since.tokens(habit), usual);
        let mut output = known.output.saturating_add(since).max(self.shown.tokens(habit));
        if known.output == 0 && case.end == End::Early && (case.delivery == Delivery::AtOnce || !habit.is_learnt()) {
            output = output.max(usual);
        }
        Tokens { output, ..known }
    }
}

// === impl EventSummary ===

impl Default for EventSummary {
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

    /// How many tokens that is. Each document with text has at least one.
    fn tokens(self, habit: &Habit) -> u64 {
        habit.tokens(self.bytes).max(self.documents)
    }
}

#[cfg(test)]
mod tests;
