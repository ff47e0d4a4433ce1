//! Usage and budgets between replicas, there and back.

use std::time::Duration;

use tollgate_core::ledger::usage::{Totals, UsageKey};
use tollgate_proto::replica as wire;

use crate::ledger::query::{BudgetRow, ENFORCE, Listed, MAX_ROWS, Page, SHADOW, UsageQuery, UsageRow};

pub fn page(page: Page) -> wire::Page {
    let limit = u32::try_from(page.limit).unwrap_or(u32::MAX);
    wire::Page { limit, after: page.after.unwrap_or_default() }
}

pub fn page_of(page: wire::Page) -> Page {
    let limit = usize::try_from(page.limit).unwrap_or(MAX_ROWS).min(MAX_ROWS);
    Page { limit, after: present(page.after) }
}

pub fn usage_query(query: UsageQuery) -> wire::UsageQuery {
    let UsageQuery { consumer, model, since, page: of } = query;
    wire::UsageQuery { consumer, model, since: since.map(|since| since.as_secs()), page: Some(page(of)) }
}

pub fn usage_query_of(query: wire::UsageQuery) -> UsageQuery {
    let wire::UsageQuery { consumer, model, since, page } = query;
    let since = since.map(Duration::from_secs);
    UsageQuery { consumer, model, since, page: page.map(page_of).unwrap_or_default() }
}

pub fn usage_rows(rows: wire::UsageRows) -> Listed<UsageRow> {
    let row = |row: wire::UsageRow| UsageRow {
        key: UsageKey { consumer: row.consumer, route: row.route, model: row.model, backend: row.backend },
        totals: Totals {
            requests: row.requests,
            input_tokens: row.input_tokens,
            output_tokens: row.output_tokens,
            cached_input_tokens: row.cached_input_tokens,
            reasoning_tokens: row.reasoning_tokens,
            estimated_requests: row.estimated_requests,
        },
    };
    Listed { rows: rows.rows.into_iter().map(row).collect(), next: present(rows.next) }
}

pub fn of_usage_rows(listed: Listed<UsageRow>) -> wire::UsageRows {
    let row = |UsageRow { key, totals }| wire::UsageRow {
        consumer: key.consumer,
        route: key.route,
        model: key.model,
        backend: key.backend,
        requests: totals.requests,
        input_tokens: totals.input_tokens,
        output_tokens: totals.output_tokens,
        cached_input_tokens: totals.cached_input_tokens,
        reasoning_tokens: totals.reasoning_tokens,
        estimated_requests: totals.estimated_requests,
    };
    wire::UsageRows { rows: listed.rows.into_iter().map(row).collect(), next: listed.next.unwrap_or_default() }
}

pub fn budget_rows(rows: wire::BudgetRows) -> Listed<BudgetRow> {
    let row = |row: wire::BudgetRow| BudgetRow {
        policy: row.policy,
        limit: row.limit,
        scope: row.scope,
        window_start: row.window_start,
        window_end: row.window_end,
        tokens: row.tokens,
        spent: row.spent,
        leased: row.leased,
        mode: if row.shadow { SHADOW } else { ENFORCE },
    };
    Listed { rows: rows.rows.into_iter().map(row).collect(), next: present(rows.next) }
}

pub fn of_budget_rows(listed: Listed<BudgetRow>) -> wire::BudgetRows {
    let row = |row: BudgetRow| wire::BudgetRow {
        policy: row.policy,
        limit: row.limit,
        scope: row.scope,
        window_start: row.window_start,
        window_end: row.window_end,
        tokens: row.tokens,
        spent: row.spent,
        leased: row.leased,
        shadow: row.mode == SHADOW,
    };
    wire::BudgetRows { rows: listed.rows.into_iter().map(row).collect(), next: listed.next.unwrap_or_default() }
}

/// A row's name is never empty.
fn present(name: Vec<String>) -> Option<Vec<String>> {
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_arrive_as_they_were() {
        let page = Page { limit: 7, after: Some(vec!["a".to_owned(), String::new()]) };
        let query = UsageQuery {
            consumer: Some("app".to_owned()),
            model: None,
            since: Some(Duration::from_secs(60)),
            page: page.clone(),
        };
        assert_eq!(usage_query_of(usage_query(query.clone())), query);
        assert_eq!(usage_query_of(usage_query(UsageQuery::default())), UsageQuery::default());

        let text = |text: &str| text.to_owned();
        let key = UsageKey { consumer: text("c"), route: text("r"), model: text("m"), backend: text("b") };
        let totals = Totals {
            requests: 1,
            input_tokens: 2,
            output_tokens: 3,
            cached_input_tokens: 4,
            reasoning_tokens: 5,
            estimated_requests: 6,
        };
        let listed = Listed { rows: vec![UsageRow { key, totals }], next: page.after };
        assert_eq!(usage_rows(of_usage_rows(listed.clone())), listed);

        for (mode, window_end) in [(ENFORCE, None), (SHADOW, Some(text("e")))] {
            let row = BudgetRow {
                policy: text("p"),
                limit: text("l"),
                scope: [(text("Model"), text("m"))].into(),
                window_start: text("s"),
                window_end,
                tokens: 1,
                spent: 2,
                leased: 3,
                mode,
            };
            let listed = Listed { rows: vec![row], next: None };
            assert_eq!(budget_rows(of_budget_rows(listed.clone())), listed);
        }
    }

    #[test]
    fn nobody_gets_more_rows_than_one_answer_has() {
        assert_eq!(page_of(wire::Page { limit: u32::MAX, after: Vec::new() }).limit, MAX_ROWS);
    }
}
