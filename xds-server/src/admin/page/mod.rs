//! The pages for people. Each is one answer, put together from the files of this folder, which asks `/api/*` and needs
//! nothing else. Its content security policy names its style and its script by their hashes, so nothing else runs.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

const PAGE: &str = include_str!("page.html");
const LOGIN: &str = include_str!("login.html");
const STYLE: &str = include_str!("page.css");
/// In this order, because each uses those before it.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("text.js"),
    include_str!("budgets.js"),
    include_str!("plot.js"),
    include_str!("usage.js"),
    include_str!("status.js"),
    include_str!("refresh.js"),
);
const LOGOUT: &str = "<form method=\"post\" action=\"logout\"><button type=\"submit\">Log out</button></form>";

static FOR_ANYBODY: LazyLock<Page> = LazyLock::new(|| Page::new(&PAGE.replace("LOGOUT", "")));
static FOR_SESSION: LazyLock<Page> = LazyLock::new(|| Page::new(&PAGE.replace("LOGOUT", LOGOUT)));
static POLICY_OF_LOGIN: LazyLock<String> = LazyLock::new(|| policy("'none'"));

/// An answer that is always the same.
struct Page {
    html: String,
    policy: String,
}

/// Where nobody is asked who he is.
pub(super) async fn for_anybody() -> Response {
    FOR_ANYBODY.answer()
}

/// For whoever has logged in, and may log out.
pub(super) async fn for_session() -> Response {
    FOR_SESSION.answer()
}

/// The login form. `problem` says why there is no session yet, if one was tried to get.
pub(super) fn login(problem: &str) -> Response {
    // The texts are our own.
    let html = LOGIN.replace("STYLE", STYLE).replace("PROBLEM", problem);
    ([(header::CONTENT_SECURITY_POLICY, POLICY_OF_LOGIN.clone())], Html(html)).into_response()
}

/// How a policy names an element with this content.
pub(super) fn source(content: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(content)))
}

fn policy(script: &str) -> String {
    let style = source(STYLE);
    format!(
        "default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

// === impl Page ===

impl Page {
    fn new(html: &str) -> Self {
        Self { html: html.replace("STYLE", STYLE).replace("SCRIPT", SCRIPT), policy: policy(&source(SCRIPT)) }
    }

    fn answer(&self) -> Response {
        ([(header::CONTENT_SECURITY_POLICY, self.policy.clone())], Html(self.html.clone())).into_response()
    }
}
