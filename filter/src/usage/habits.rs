//! What requests are like, by consumer and model, learnt from exact answers. Estimates are made from it: how much to
//! reserve, and what an answer has cost that ended early.
//!
//! Nobody can make requests cheap, neither for itself nor for others. A consumer that is known has habits of its own,
//! which no other one moves. One answer moves them by an eighth of the way. Bytes per token stay within what tokenisers
//! do.

use std::collections::HashMap;

use super::{Api, Tokens, Weighed};

/// What one consumer's requests of one model are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Habit {
    bytes_per_token: f64,
    /// The output tokens of an answer.
    output: f64,
    /// How many tokens are billed for one that is seen. Hidden reasoning makes it more than 1.
    hidden: f64,
    /// The input tokens of a request that refers to what is not in it.
    elsewhere: f64,
    is_learnt: bool,
}

/// An exact answer, to learn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub weighed: Weighed,
    pub tokens: Tokens,
    /// How many bytes of text the answer showed.
    pub shown_bytes: u64,
}

/// Habits by consumer and model, and for each model those of all consumers, for who is new to it. The model's name is
/// the pool's. If there are too many, consumers are forgotten and learnt anew.
#[derive(Debug, Default)]
pub struct Habits(HashMap<String, Habit>);

/// The weight of a new answer in the moving averages.
const FRESH: f64 = 0.125;
/// The least and the most bytes that tokenisers put into a token, from dense code to long words.
const BYTES_PER_TOKEN: (f64, f64) = (2.0, 8.0);
/// The least and the most tokens that are billed for one that is seen.
const HIDDEN: (f64, f64) = (1.0, 64.0);
/// The most habits in one worker. Each takes about 100 bytes.
const MAX_HABITS: usize = 4096;

// === impl Habits ===

impl Habits {
    /// The habit of this consumer. If none is known, it is that of the model, or one that is assumed.
    pub fn of(&self, consumer: &str, model: &str) -> Habit {
        let known = self.0.get(&key(consumer, model)).or_else(|| self.0.get(&key("", model)));
        known.copied().unwrap_or_default()
    }

    /// Learns from an exact answer.
    pub fn learn(&mut self, consumer: &str, model: &str, sample: &Sample) {
        if self.0.len() >= MAX_HABITS {
            self.0.retain(|key, _| key.starts_with(SEPARATOR));
            if self.0.len() >= MAX_HABITS / 2 {
                self.0.clear();
            }
        }
        for consumer in [consumer, ""] {
            let mut habit = self.of(consumer, model);
            habit.learn(sample);
            self.0.insert(key(consumer, model), habit);
        }
    }
}

/// What no name of a consumer has in it.
const SEPARATOR: char = '\n';

/// The key of a consumer's habit. An empty consumer stands for all.
fn key(consumer: &str, model: &str) -> String {
    let mut key = String::with_capacity(consumer.len() + 1 + model.len());
    key.push_str(consumer);
    key.push(SEPARATOR);
    key.push_str(model);
    key
}

// === impl Habit ===

impl Default for Habit {
    fn default() -> Self {
        Self { bytes_per_token: 4.0, output: 256.0, hidden: 1.0, elsewhere: 1024.0, is_learnt: false }
    }
}

impl Habit {
    fn learn(&mut self, Sample { weighed, tokens, shown_bytes }: &Sample) {
        self.is_learnt = true;
        let input = tokens.input as f64;
        if weighed.refers_elsewhere {
            approach(&mut self.elsewhere, input);
        } else if weighed.is_plain && tokens.input > 0 {
            approach(&mut self.bytes_per_token, within(weighed.content_bytes as f64 / input, BYTES_PER_TOKEN));
        }
        approach(&mut self.output, tokens.output as f64);
        if *shown_bytes > 0 {
            let seen = *shown_bytes as f64 / self.bytes_per_token;
            approach(&mut self.hidden, within(tokens.output as f64 / seen, HIDDEN));
        }
    }

    /// Whether an exact answer has been seen.
    pub fn is_learnt(&self) -> bool {
        self.is_learnt
    }

    /// How many tokens so many bytes of text are.
    pub fn tokens(&self, bytes: u64) -> u64 {
        (bytes as f64 / self.bytes_per_token).ceil() as u64
    }

    /// What is billed when so many tokens were seen of an answer that usually has `usual`. Its hidden part may have
    /// been made before the first one was seen.
    pub fn billed(&self, seen: u64, usual: u64) -> u64 {
        let hidden_first = usual as f64 * (1.0 - 1.0 / self.hidden);
        (seen as f64 * self.hidden).max(hidden_first).ceil() as u64
    }

    pub fn input(&self, weighed: Weighed) -> u64 {
        let read = self.tokens(weighed.content_bytes);
        if weighed.refers_elsewhere { read.max(self.elsewhere.ceil() as u64) } else { read }
    }

    /// What to reserve before the answer is known.
    pub fn estimate(&self, api: Api, weighed: Weighed, max_output: Option<u64>, answers: u64) -> Tokens {
        let output = match api {
            Api::Embeddings => 0,
            _ => max_output.unwrap_or(u64::MAX).min(self.output.ceil() as u64).saturating_mul(answers.max(1)),
        };
        Tokens { input: self.input(weighed), output, ..Tokens::default() }
    }
}

fn approach(average: &mut f64, sample: f64) {
    *average += FRESH * (sample - *average);
}

fn within(value: f64, (least, most): (f64, f64)) -> f64 {
    value.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(content_bytes: u64, input: u64, output: u64, shown_bytes: u64) -> Sample {
        let weighed = Weighed { content_bytes, is_plain: true, ..Weighed::default() };
        Sample { weighed, tokens: Tokens { input, output, ..Tokens::default() }, shown_bytes }
    }

    fn words(content_bytes: u64) -> Weighed {
        Weighed { content_bytes, is_plain: true, ..Weighed::default() }
    }

    #[test]
    fn estimates_learn() {
        let mut habits = Habits::default();
        let expect = |habits: &Habits, max| habits.of("app", "m").estimate(Api::Chat, words(400), max, 1);
        assert_eq!(expect(&habits, None), Tokens { input: 100, output: 256, ..Tokens::default() });
        assert_eq!(expect(&habits, Some(10)).output, 10);
        for _ in 0..100 {
            habits.learn("app", "m", &sample(200, 100, 20, 0));
        }
        let learnt = expect(&habits, None);
        assert!((190..=201).contains(&learnt.input) && (20..=21).contains(&learnt.output), "{learnt:?}");
    }

    #[test]
    fn nobody_lowers_anybodys_estimates() {
        let mut habits = Habits::default();
        habits.learn("app", "m", &sample(400, 100, 20, 0));
        for _ in 0..120 {
            habits.learn("mallory", "m", &sample(1_000_000, 10, 1, 0));
        }
        assert_eq!(habits.of("app", "m").input(words(800)), 200);
        assert!(habits.of("mallory", "m").input(words(800)) >= 100, "within what tokenisers do");
        let padded = Weighed { is_plain: false, ..words(1_000_000) };
        let before = habits.of("app", "m");
        habits.learn("app", "m", &Sample { weighed: padded, ..sample(0, 10, 20, 0) });
        assert_eq!(habits.of("app", "m").input(words(800)), before.input(words(800)), "padding teaches nothing");
    }

    #[test]
    fn one_answer_moves_little() {
        let mut habits = Habits::default();
        habits.learn("app", "m", &sample(80_000, 10, 1_000_000, 8));
        let habit = habits.of("app", "m");
        assert!((89..=100).contains(&habit.input(words(400))), "{habit:?}");
        assert!(habit.billed(10, 0) <= 90, "{habit:?}");
    }

    #[test]
    fn what_is_hidden_is_billed_at_an_early_end() {
        let mut habits = Habits::default();
        for _ in 0..40 {
            // 3,450 billed tokens for a text of 100.
            habits.learn("app", "m", &sample(400, 100, 3450, 400));
        }
        let habit = habits.of("app", "m");
        assert!((3000..=3800).contains(&habit.billed(100, 3450)), "{habit:?}");
        assert!(habit.billed(0, 3450) > 3000, "hidden work comes before the first word: {habit:?}");
        assert!(habit.billed(1000, 3450) >= 30_000, "each word that is seen stands for many: {habit:?}");
        assert_eq!(habits.of("app", "other").billed(100, 256), 100);
    }

    #[test]
    fn what_is_elsewhere_is_known_by_experience() {
        let mut habits = Habits::default();
        let refers = Weighed { refers_elsewhere: true, ..words(40) };
        assert_eq!(habits.of("app", "m").input(refers), 1024);
        for _ in 0..100 {
            habits.learn("app", "m", &Sample { weighed: refers, ..sample(0, 60_000, 20, 0) });
        }
        let habit = habits.of("app", "m");
        assert!((59_000..=60_000).contains(&habit.input(refers)), "{habit:?}");
        assert_eq!(habit.input(words(40)), 10, "of those that refer elsewhere only");
    }

    #[test]
    fn habits_are_bounded() {
        let mut habits = Habits::default();
        for number in 0..MAX_HABITS * 2 {
            habits.learn(&format!("consumer {number}"), "m", &sample(400, 50, 20, 0));
            assert!(habits.0.len() <= MAX_HABITS + 2);
        }
        assert_ne!(habits.of("new", "m"), Habit::default(), "what all are like is kept");
        for number in 0..MAX_HABITS * 2 {
            habits.learn("app", &format!("model {number}"), &sample(400, 50, 20, 0));
            assert!(habits.0.len() <= MAX_HABITS + 2);
        }
    }
}
