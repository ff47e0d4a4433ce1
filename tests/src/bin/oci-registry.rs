//! A registry of images that has one: a file of WebAssembly, as Istio's agents read it. Of the OCI distribution specification
//! it has what a pull asks for.
//!
//! `oci-registry IP:PORT FILE` prints the digest of the image, and ends when its standard input does.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of an image that is a filter (github.com/solo-io/wasm, spec/spec.md): two layers, of which one is the code as it is.
const RUNTIME: &str = "application/vnd.module.wasm.config.v1+json";
const CODE: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

/// What there is, by its digest.
type Contents = HashMap<String, (&'static str, Bytes)>;

#[tokio::main]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (address, file) = arguments.next().zip(arguments.next()).context("oci-registry IP:PORT FILE")?;
    let (digest, contents) = image(std::fs::read(&file).with_context(|| file.clone())?);
    let listener = TcpListener::bind(&address).await.with_context(|| address.clone())?;
    println!("{digest}");
    std::io::stdout().flush()?;
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let router = Router::new()
        .route("/v2/", routing::get(StatusCode::OK))
        .route("/v2/{user}/{image}/{kind}/{digest}", routing::get(found))
        .with_state(Arc::new(contents));
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        _ = end => Ok(()),
    }
}

/// A manifest that names its parts, and all of them.
fn image(code: Vec<u8>) -> (String, Contents) {
    let mut contents = Contents::new();
    let mut add = |media_type: &'static str, content: Bytes| {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&content)));
        let named = json!({"mediaType": media_type, "size": content.len(), "digest": digest});
        contents.insert(digest.clone(), (media_type, content));
        (digest, named)
    };
    let json = |value: Value| Bytes::from(value.to_string());
    let (_, config) = add("application/vnd.oci.image.config.v1+json", json(json!({})));
    let layers = [add(RUNTIME, json(json!({"type": "envoy_proxy"}))).1, add(CODE, code.into()).1];
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
    let (digest, _) = add(MANIFEST, json(manifest));
    (digest, contents)
}

async fn found(State(contents): State<Arc<Contents>>, Path([_, _, _, digest]): Path<[String; 4]>) -> Response {
    match contents.get(&digest) {
        Some((media_type, content)) => ([(header::CONTENT_TYPE, *media_type)], content.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
