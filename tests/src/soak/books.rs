//! What the ledger must say, from what the backend counted; and what it says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Add;

use super::backend::{Answer, Count, Port};
use super::load::Sent;
use super::{Consumer, Model, figures};
use crate::admin::UsageRow;

/// Requests, input, output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    requests: u64,
    input: u64,
    output: u64,
}

/// The sums side by side, and what is wrong with them.
#[derive(Debug, Default)]
pub struct Verdict {
    pub table: String,
    pub wrong: Vec<String>,
}

/// Compares what stands in the books of these consumers. `excused`: requests that were under way, or just over, when Envoy was killed; what a killed process knew
/// and had not yet told is in no row, and what it had leased is charged to the budgets when it expires.
pub fn compare(
    consumers: &[Consumer],
    rows: &[UsageRow],
    count: &Count,
    sent: &Sent,
    excused: &BTreeSet<u64>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let _ = writeln!(verdict.table, "{:<8} {:<8} {:>32} {:>42}", "", "", "backend", "ledger");
    let _ = writeln!(
        verdict.table,
        "{:<8} {:<8} {:>9} {:>9} {:>12} {:>9} {:>9} {:>12} {:>9}",
        "consumer", "model", "requests", "in vain", "tokens", "requests", "estimated", "tokens", "exact"
    );
    for consumer in consumers.iter().copied() {
        for model in Model::ALL {
            line(&mut verdict, (consumer, model), rows, count, sent, excused);
        }
    }
    // A client that got its whole answer had a backend that wrote it whole, or nothing here counts right.
    let unseen = sent
        .whole
        .iter()
        .filter(|number| count.get(number).is_none_or(|work| !matches!(work.answer, Answer::Whole(_))));
    let unseen = unseen.count();
    if unseen > 0 {
        verdict.wrong.push(format!("{unseen} whole answers that the backend did not write"));
    }
    let known: BTreeSet<&str> = Model::ALL.iter().map(|model| model.name()).collect();
    for row in rows.iter().filter(|row| !known.contains(row.model.as_str())) {
        verdict.wrong.push(format!("a row that nobody sent: {row:?}"));
    }
    verdict
}

fn line(
    verdict: &mut Verdict,
    (consumer, model): (Consumer, Model),
    rows: &[UsageRow],
    count: &Count,
    sent: &Sent,
    excused: &BTreeSet<u64>,
) {
    let (mut worked, mut in_vain, mut excuse) = (0, 0, 0);
    // Of the two that answer.
    let mut whole = [(Port::Steady, Sums::default()), (Port::Spare, Sums::default())];
    for (number, work) in count.iter().filter(|(_, work)| (work.consumer, work.model) == (consumer, model)) {
        worked += 1;
        in_vain += work.in_vain;
        excuse += u64::from(excused.contains(number));
        if let Answer::Whole(at) = work.answer {
            let (input, output) = figures(*number);
            let sums = whole.iter_mut().filter(|(port, _)| *port == at).map(|(_, sums)| sums);
            sums.for_each(|sums| *sums = Sums { requests: 1, input, output } + *sums);
        }
    }
    let rows: Vec<&UsageRow> =
        rows.iter().filter(|row| row.consumer == consumer.name() && row.model == model.name()).collect();
    let sum = |field: fn(&UsageRow) -> u64| rows.iter().map(|row| field(row)).sum::<u64>();
    let (requests, estimated) = (sum(|row| row.requests), sum(|row| row.estimated_requests));
    let told = |port: Port| rows.iter().filter(move |row| row.backend == port.name());
    let of = |port: Port| {
        told(port)
            .map(|row| Sums { requests: row.requests, input: row.input_tokens, output: row.output_tokens })
            .fold(Sums::default(), Sums::add)
    };
    let guessed: u64 = whole.iter().flat_map(|(port, _)| told(*port)).map(|row| row.estimated_requests).sum();
    let exact = guessed == 0 && whole.iter().all(|(port, sums)| of(*port) == *sums);
    let worked_tokens: u64 = whole.iter().map(|(_, sums)| sums.input + sums.output).sum();
    let _ = writeln!(
        verdict.table,
        "{:<8} {:<8} {worked:>9} {in_vain:>9} {:>12} {requests:>9} {estimated:>9} {:>12} {:>9}",
        consumer.name(),
        model.name(),
        worked_tokens,
        sum(|row| row.input_tokens) + sum(|row| row.output_tokens),
        match (consumer.is_exact(), exact) {
            (false, _) => "",
            (true, true) => "yes",
            (true, false) => "NO",
        }
    );
    let mut wrong = |what: String| verdict.wrong.push(format!("{}, {}: {what}", consumer.name(), model.name()));
    if requests + excuse < worked {
        wrong(format!("{worked} requests were worked on, {requests} have rows ({excuse} are excused)"));
    }
    // Who leaves before the answer, between two attempts or while the request is on its way, is charged though the
    // backend may not know it. Each charge beyond what was worked on is such a request; of those who stay there is none.
    let unseen = |number: &u64| !count.contains_key(number);
    let left = sent.left.iter().filter(|(number, whose)| **whose == (consumer, model) && unseen(number)).count() as u64;
    if requests > worked + left {
        wrong(format!("{requests} requests are charged, {worked} were worked on and {left} left before the answer"));
    }
    // Their attempts in vain are rows of the other backend.
    if consumer.is_exact() && !exact {
        let says = whole.map(|(port, _)| (port, of(port)));
        wrong(format!("the backend answered {whole:?}, its rows say {says:?} with {guessed} estimated"));
    }
    if consumer.is_exact() && estimated < in_vain {
        wrong(format!("{in_vain} attempts were worked on in vain, {estimated} are charged"));
    }
}

impl Add for Sums {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            input: self.input + other.input,
            output: self.output + other.output,
        }
    }
}

/// What the clients saw.
pub fn sent(sent: &Sent) -> String {
    let mut by_row: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
    for ((consumer, model, _, end), times) in &sent.ends {
        *by_row.entry((consumer, model)).or_default().entry(end).or_default() += times;
    }
    let mut protocols: BTreeMap<&str, u64> = BTreeMap::new();
    for ((_, _, protocol, _), times) in &sent.ends {
        *protocols.entry(protocol).or_default() += times;
    }
    let mut text = format!("sent: {protocols:?}\n");
    for ((consumer, model), ends) in by_row {
        let ends: Vec<String> = ends.iter().map(|(end, times)| format!("{end}: {times}")).collect();
        let _ = writeln!(text, "{consumer:<8} {model:<8} {}", ends.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::backend::Work;
    use super::*;

    /// Charged for a request of model `down`, which no backend works on.
    fn charged(consumer: Consumer, requests: u64) -> UsageRow {
        UsageRow {
            consumer: consumer.name().to_owned(),
            route: "chat".to_owned(),
            model: Model::Down.name().to_owned(),
            backend: "flaky".to_owned(),
            requests,
            input_tokens: 20,
            output_tokens: 60,
            cached_input_tokens: 0,
            reasoning_tokens: 0,
            estimated_requests: requests,
        }
    }

    fn wrong(row: UsageRow, count: &Count, left: &[(u64, Consumer, Model)]) -> Vec<String> {
        let left = left.iter().map(|(number, consumer, model)| (*number, (*consumer, *model))).collect();
        compare(&Consumer::RICH, &[row], count, &Sent { left, ..Sent::default() }, &BTreeSet::new()).wrong
    }

    #[test]
    fn a_charge_that_no_backend_knows_is_that_of_a_client_who_left() {
        let (leaves, stays) = (Consumer::Leaves, Consumer::Stays);
        let none = Count::new();
        assert_eq!(wrong(charged(leaves, 1), &none, &[(7, leaves, Model::Down)]), Vec::<String>::new());
        assert_eq!(wrong(charged(leaves, 1), &none, &[]).len(), 1, "nobody left");
        assert_eq!(wrong(charged(leaves, 2), &none, &[(7, leaves, Model::Down)]).len(), 1, "one left");
        assert_eq!(wrong(charged(leaves, 1), &none, &[(7, leaves, Model::Slow)]).len(), 1, "it left another model");
        assert_eq!(wrong(charged(stays, 1), &none, &[(7, leaves, Model::Down)]).len(), 1, "those who stay never leave");
    }

    #[test]
    fn who_left_what_the_backend_knows_counts_once() {
        let leaves = Consumer::Leaves;
        let work = Work { consumer: leaves, model: Model::Down, in_vain: 0, answer: Answer::Begun };
        let known = Count::from([(7, work)]);
        let left = [(7, leaves, Model::Down)];
        assert_eq!(wrong(charged(leaves, 1), &known, &left), Vec::<String>::new());
        assert_eq!(wrong(charged(leaves, 2), &known, &left).len(), 1);
    }
}
