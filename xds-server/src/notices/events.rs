//! An Event about the TokenPolicy whose budget has come to a threshold. Events are for people: who comes too late finds the
//! same in the log and in the metrics.

use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Resource as _};
use tokio::sync::broadcast::{self, error::RecvError};
use tollgate_core::ledger::Crossing;
use tollgate_core::objects::places;

use crate::leader::Warnings;
use crate::ledger::{News, Notice};

/// Tells of what is crossed, for as long as there is somebody who tells.
pub async fn tell(client: Client, mut notices: broadcast::Receiver<Notice>) {
    let Some(resource) = token_policies() else { return };
    let warnings = Warnings::new(client.clone());
    loop {
        let crossing = match notices.recv().await {
            Ok(Notice { news: News::New, crossing, .. }) => crossing,
            Ok(Notice { news: News::Again, .. }) => continue,
            Err(RecvError::Lagged(missed)) => {
                tracing::debug!(missed, "too many budgets came to thresholds for an event about each");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &crossing.policy.namespace, &resource);
        match api.get(&crossing.policy.name).await {
            Ok(policy) => {
                let (about, reason) = (policy.object_ref(&resource), reason(&crossing));
                warnings.warn(&about, "Settle", reason.to_owned(), note(&crossing)).await;
            }
            Err(error) => tracing::debug!(%error, "the policy of a budget cannot be got for an event"),
        }
    }
}

fn token_policies() -> Option<ApiResource> {
    let place = places().find(|place| place.kind == "TokenPolicy")?;
    let version = place.versions.first()?;
    Some(ApiResource::from_gvk(&GroupVersionKind::gvk(place.group, version, place.kind)))
}

/// Events with the same reason about the same policy are counted together.
fn reason(crossing: &Crossing) -> &'static str {
    if crossing.threshold < 100 { "BudgetNearlySpent" } else { "BudgetSpent" }
}

fn note(Crossing { key, limit, threshold, spent, tokens, .. }: &Crossing) -> String {
    let whose = if key.scope.is_empty() { String::new() } else { format!(" of {}", key.scope.join(", ")) };
    format!("limit {limit}{whose}: {spent} of {tokens} tokens are spent in this window ({threshold} % and more)")
}
