//! The objects of a cluster once, without a watch: for commands that only look.

use std::collections::VecDeque;

use kube::Client;
use kube::api::ListParams;
use kube::core::ApiResource;
use tokio::time::Instant;

use super::Reading;
use super::access::{Access, AccessError};
use super::document::Document;
use super::gathered::{Asks, Gathered};
use super::got::{self, Got};
use super::kinds::{Content, Watched, all as kinds};
use super::trouble::{Cause, Trouble};
use super::watch::{Seen, Told};

/// So many objects of a list are asked for at once.
const PAGE: u32 = 500;

#[derive(Debug, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Access(#[from] AccessError),
    #[error("the API server does not answer (--kubeconfig and --kube-context name the cluster)")]
    Unreachable(#[source] kube::Error),
}

/// Everything that can be read. What cannot is a finding. `mesh`: the Pods of the mesh as well.
///
/// # Errors
/// When there is no cluster to ask.
pub async fn list(access: &Access, mesh: bool) -> Result<Reading, ListError> {
    let client = access.client().await?;
    let watched = kinds(&access.namespaces, mesh);
    let mut gathered = Gathered::new(watched.clone());
    let mut needs = Vec::new();
    let mut next: VecDeque<(usize, Watched)> = watched.into_iter().enumerate().collect();
    while let Some((id, watched)) = next.pop_front() {
        if watched.content != Content::All {
            continue;
        }
        let mut take = |told| {
            let Asks { get, watch, .. } = gathered.take(id, told, Instant::now());
            needs.extend(get);
            next.extend(watch);
        };
        match all(&client, &watched).await {
            Ok(documents) => {
                take(Told::Lists);
                for (resource, document) in documents {
                    let seen = Seen::Object { key: document.key(), document: document.into_value(&resource) };
                    take(Told::Listed(seen));
                }
                take(Told::ListedAll);
            }
            Err(error) => match Trouble::of_list(&watched, &error) {
                Trouble { cause: Cause::Unreachable, .. } => return Err(ListError::Unreachable(error)),
                trouble => take(Told::Fails(trouble)),
            },
        }
    }
    while let Some(needed) = needs.pop() {
        let Some(of) = got::watch_of(&needed) else { continue };
        let got: Got = got::get(&client, &of, &needed).await;
        let Asks { get, .. } = gathered.take_got(&needed, got, Instant::now());
        needs.extend(get);
    }
    gathered.close_what_is_unknown();
    let nothing = |gathered: &Gathered| Reading { changes: Default::default(), findings: gathered.findings() };
    Ok(gathered.read().unwrap_or_else(|| nothing(&gathered)))
}

/// All objects of a kind, in the best version that there is.
async fn all(client: &Client, watched: &Watched) -> Result<Vec<(ApiResource, Document)>, kube::Error> {
    let mut result = Ok(Vec::new());
    for resource in &watched.versions {
        result = pages(client, watched, resource).await;
        match &result {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            _ => break,
        }
    }
    result
}

async fn pages(
    client: &Client,
    watched: &Watched,
    resource: &ApiResource,
) -> Result<Vec<(ApiResource, Document)>, kube::Error> {
    let api = watched.api(client, resource);
    let mut documents = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    if let Some(selection) = &watched.selection {
        params = params.labels(&selection.to_string());
    }
    loop {
        let page = api.list(&params).await?;
        documents.extend(page.items.into_iter().map(|document| (resource.clone(), document)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(documents),
        }
    }
}
