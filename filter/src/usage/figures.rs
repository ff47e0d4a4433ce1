//! The numbers of one usage object, and what they mean together. A figure is a whole number from 0 up to a ceiling.
//! Anything else counts as absent. If too few figures are there, there is no usage, and the answer is estimated.

use tollgate_proto::v1::MAX_TOKENS;

use super::Tokens;

/// A number that a backend can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// All input, cached or not (OpenAI, Gemini).
    Prompt,
    /// All input (Responses API), or the part of it that no cache had (Anthropic, Bedrock).
    Input,
    Output,
    /// Gemini counts the visible output and the thoughts apart.
    Candidates,
    Thoughts,
    Total,
    /// A part of the input.
    Cached,
    Reasoning,
    /// Gemini: results of tools, which the prompt does not include.
    Tool,
    /// [`Figure::Input`] does not include it.
    CacheRead,
    CacheWritten,
    /// The parts of [`Figure::CacheWritten`].
    Written5m,
    Written1h,
}

/// The figures that were said. Those of several events complete one usage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures([u64; Self::COUNT]);

/// What figures amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    Nothing,
    /// The output is not known. An answer of Anthropic's begins so, and embeddings have none.
    Input(Tokens),
    /// There is one number for both.
    Total(u64),
    All(Tokens),
}

const UNKNOWN: u64 = u64::MAX;

// === impl Figures ===

impl Default for Figures {
    fn default() -> Self {
        Self([UNKNOWN; Self::COUNT])
    }
}

impl Figures {
    const COUNT: usize = Figure::Written1h as usize + 1;
    const OF_INPUT: [Figure; 7] = [
        Figure::Prompt,
        Figure::Input,
        Figure::Tool,
        Figure::CacheRead,
        Figure::CacheWritten,
        Figure::Written5m,
        Figure::Written1h,
    ];

    fn get(&self, figure: Figure) -> Option<u64> {
        self.0.get(figure as usize).copied().filter(|number| *number != UNKNOWN)
    }

    fn set(&mut self, figure: Figure, number: Option<u64>) {
        if let Some(slot) = self.0.get_mut(figure as usize) {
            *slot = number.unwrap_or(UNKNOWN);
        }
    }

    /// Takes a figure as it is written.
    pub fn say(&mut self, figure: Figure, text: &[u8]) {
        self.set(figure, whole(text));
    }

    pub fn forget(&mut self, figure: Figure) {
        self.set(figure, None);
    }

    /// The figures without the output, because Anthropic's first event only begins to count it.
    pub fn without_output(mut self) -> Self {
        self.set(Figure::Output, None);
        self
    }

    /// What is known after a later event. It may leave out the input that an earlier one said.
    pub fn then(self, mut later: Self) -> Self {
        if later.input().is_none() && later.get(Figure::Total).is_none() {
            for figure in Self::OF_INPUT.into_iter().chain([Figure::Cached]) {
                if later.get(figure).is_none() {
                    later.set(figure, self.get(figure));
                }
            }
        }
        later
    }

    fn input(&self) -> Option<u64> {
        let of = |figure| self.get(figure).unwrap_or(0);
        match (self.get(Figure::Prompt), self.get(Figure::Input)) {
            (Some(prompt), _) => Some(prompt + of(Figure::Tool)),
            (None, Some(input)) if self.get(Figure::Cached).is_some() => Some(input),
            (None, Some(input)) => {
                let written = self.get(Figure::CacheWritten).unwrap_or(of(Figure::Written5m) + of(Figure::Written1h));
                Some(input + of(Figure::CacheRead) + written)
            }
            (None, None) => None,
        }
    }

    fn output(&self) -> Option<u64> {
        self.get(Figure::Output).or_else(|| match (self.get(Figure::Candidates), self.get(Figure::Thoughts)) {
            (None, None) => None,
            (candidates, thoughts) => Some(candidates.unwrap_or(0) + thoughts.unwrap_or(0)),
        })
    }

    pub fn sum(&self) -> Sum {
        let tokens = |input: u64, output: u64| {
            let cached = self.get(Figure::Cached).or(self.get(Figure::CacheRead)).unwrap_or(0);
            let reasoning = self.get(Figure::Reasoning).or(self.get(Figure::Thoughts)).unwrap_or(0);
            Tokens { input, output, cached: cached.min(input), reasoning: reasoning.min(output) }
        };
        match (self.input(), self.output(), self.get(Figure::Total)) {
            // Some backends count reasoning in the total only.
            (Some(input), Some(output), total) => {
                Sum::All(tokens(input, output.max(total.unwrap_or(0).saturating_sub(input))))
            }
            (Some(input), None, Some(total)) => Sum::All(tokens(input, total.saturating_sub(input))),
            (None, Some(output), Some(total)) => Sum::All(tokens(total.saturating_sub(output), output)),
            (Some(input), None, None) => Sum::Input(tokens(input, 0)),
            (None, None, Some(total)) => Sum::Total(total),
            (None, _, None) => Sum::Nothing,
        }
    }
}

/// Reads a whole number as JSON writes it. `12.0` is one, `5e2` is not.
fn whole(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let (digits, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit())
        && !fraction.is_empty()
        && fraction.bytes().all(|byte| byte == b'0');
    // A larger number is a fault. It would empty any budget.
    digits.parse().ok().filter(|number| is_whole && *number <= MAX_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_a_whole_number_below_the_ceiling() {
        for (text, number) in [
            ("7", Some(7)),
            ("0", Some(0)),
            ("12.0", Some(12)),
            ("1099511627776", Some(MAX_TOKENS)),
            ("1099511627777", None),
            ("99999999999999999999999", None),
            ("7.9", None),
            ("7.", None),
            (".0", None),
            ("5e2", None),
            ("-7", None),
            ("-0", None),
            ("+7", None),
            ("\"7\"", None),
            ("null", None),
            ("true", None),
            ("", None),
        ] {
            assert_eq!(whole(text.as_bytes()), number, "{text}");
        }
    }

    #[test]
    fn a_total_is_kept_exact() {
        let said = |figures: &[(Figure, &str)]| {
            let mut all = Figures::default();
            figures.iter().for_each(|(figure, text)| all.say(*figure, text.as_bytes()));
            all.sum()
        };
        use Figure::{Input, Output, Prompt, Reasoning, Total};
        let all = |input, output| Sum::All(Tokens { input, output, ..Tokens::default() });
        assert_eq!(said(&[(Prompt, "5"), (Total, "9")]), all(5, 4));
        assert_eq!(said(&[(Output, "4"), (Total, "9")]), all(5, 4));
        assert_eq!(said(&[(Prompt, "9"), (Total, "5")]), all(9, 0));
        assert_eq!(said(&[(Total, "9")]), Sum::Total(9));
        assert_eq!(said(&[(Output, "4")]), Sum::Nothing);
        assert_eq!(said(&[(Input, "null"), (Output, "4"), (Total, "9")]), all(5, 4));
        let apart = Tokens { input: 5, output: 104, cached: 0, reasoning: 100 };
        let figures = [(Prompt, "5"), (Output, "4"), (Reasoning, "100"), (Total, "109")];
        assert_eq!(said(&figures), Sum::All(apart), "reasoning beside the output is part of it here");
    }
}
