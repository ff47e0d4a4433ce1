//! The model that the filter reads in a form is the one that backends read: what the filter takes is given
//! to the form parsers of Python, Go and Node.js, and each must find the same one model.
//!
//! The forms are hand-written ones, what a generator makes in the spelling of clients, and mutations of
//! both. They are the same in each run. What the filter refuses needs no agreement.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tollgate_filter::body::content_type::ContentType;
use tollgate_filter::body::form;

use crate::suite::{Shared, e2e};

e2e! {
    forms_mean_the_same_to_python,
    forms_mean_the_same_to_go,
    forms_mean_the_same_to_node,
}

/// A request's content type and body.
#[derive(Clone)]
struct Form {
    kind: String,
    body: Vec<u8>,
}

/// A form that the filter takes, and the model that it reads.
struct Taken {
    form: Form,
    model: String,
}

/// Of the generator, before mutation.
const GENERATED: usize = 400;
/// Mutations of each.
const MUTATIONS: usize = 8;
/// Fewer would mean that the generator makes nothing that the filter takes, or the reverse.
const AT_LEAST: usize = 300;
const SEED: u64 = 6;

/// python-multipart is FastAPI's, so that of vLLM and most model servers.
async fn forms_mean_the_same_to_python(shared: Arc<Shared>) -> anyhow::Result<()> {
    agree(Command::new(&shared.tools.python).arg(scripts(&shared).join("parse.py"))).await
}

/// mime/multipart is in Go's standard library.
async fn forms_mean_the_same_to_go(shared: Arc<Shared>) -> anyhow::Result<()> {
    if !is_there("go", "version").await {
        eprintln!("SKIP forms_mean_the_same_to_go: there is no `go` on this machine");
        return Ok(());
    }
    agree(Command::new("go").arg("run").arg(scripts(&shared).join("main.go")).env("GOTOOLCHAIN", "local")).await
}

/// busboy is under multer and so most servers on Node.js.
async fn forms_mean_the_same_to_node(shared: Arc<Shared>) -> anyhow::Result<()> {
    for program in ["node", "npm"] {
        if !is_there(program, "--version").await {
            eprintln!("SKIP forms_mean_the_same_to_node: there is no `{program}` on this machine");
            return Ok(());
        }
    }
    // Node looks for packages beside the script.
    let home = shared.tools.logs.join("forms_mean_the_same_to_node");
    std::fs::create_dir_all(&home)?;
    for name in ["package.json", "package-lock.json", "parse.mjs"] {
        std::fs::copy(scripts(&shared).join(name), home.join(name))?;
    }
    if !home.join("node_modules/busboy").exists() {
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        let output = Command::new("npm").args(install).current_dir(&home).stdin(Stdio::null()).output().await?;
        anyhow::ensure!(output.status.success(), "npm ci: {}", String::from_utf8_lossy(&output.stderr));
    }
    agree(Command::new("node").arg(home.join("parse.mjs"))).await
}

fn scripts(shared: &Shared) -> std::path::PathBuf {
    shared.tools.scripts.parent().unwrap_or(Path::new(".")).join("forms")
}

async fn is_there(program: &str, question: &str) -> bool {
    let output = Command::new(program).arg(question).stdin(Stdio::null()).output().await;
    output.is_ok_and(|output| output.status.success())
}

/// Gives a parser all that the filter takes; an error for each form that it reads differently.
async fn agree(parser: &mut Command) -> anyhow::Result<()> {
    let forms = corpus();
    let taken: Vec<Taken> = forms.iter().filter_map(Form::taken).collect();
    let refused = forms.len() - taken.len();
    anyhow::ensure!(taken.len() >= AT_LEAST && refused >= AT_LEAST, "{} taken, {refused} refused", taken.len());
    let mut lines = String::new();
    for Taken { form, .. } in &taken {
        lines += &json!({"type": form.kind, "body": hex::encode(&form.body)}).to_string();
        lines.push('\n');
    }
    let mut child = parser
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {parser:?}"))?;
    let mut input = child.stdin.take().context("no standard input")?;
    // Apart, because the parser answers while it reads.
    let writing = tokio::spawn(async move { input.write_all(lines.as_bytes()).await });
    let output = child.wait_with_output().await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{stderr}");
    writing.await??;
    let readings: Vec<Value> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    anyhow::ensure!(readings.len() == taken.len(), "{} of {} answers: {stderr}", readings.len(), taken.len());
    let differ: Vec<String> = taken
        .iter()
        .zip(&readings)
        .filter(|(taken, reading)| **reading != json!({"models": [hex::encode(&taken.model)], "error": null}))
        .map(|(Taken { form, model }, reading)| {
            format!("{model:?} here, {reading} there: {:?}\n{:?}", form.kind, String::from_utf8_lossy(&form.body))
        })
        .collect();
    let examples = differ.iter().take(5).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    anyhow::ensure!(differ.is_empty(), "{} of {} are read differently:\n{examples}", differ.len(), taken.len());
    Ok(())
}

// === impl Form ===

impl Form {
    fn taken(&self) -> Option<Taken> {
        let Ok(ContentType::Form(boundary)) = ContentType::parse(self.kind.as_bytes()) else {
            return None;
        };
        let model = form::read(&boundary, &self.body).ok()?.model.into_owned();
        Some(Taken { form: self.clone(), model })
    }
}

// === the forms ===

fn corpus() -> Vec<Form> {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut forms = hand_written();
    forms.extend((0..GENERATED).map(|_| generated(&mut random)));
    let mutated: Vec<Form> = forms
        .iter()
        .flat_map(|form| std::iter::repeat_n(form, MUTATIONS))
        .map(|form| mutated(form, &mut random))
        .collect();
    forms.extend(mutated);
    forms
}

/// What attackers try, around a good field `model`.
fn hand_written() -> Vec<Form> {
    let good = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ncheap\r\n";
    let heads = [
        "Content-Disposition: form-data; name =\"model\"",
        "Content-Disposition: form-data; name\t=\"model\"",
        "Content-Disposition: form-data; name= \"model\"",
        "Content-Disposition: form-data; name=model",
        "Content-Disposition: form-data; NAME=\"model\"",
        "Content-Disposition: form-data; name*=utf-8''model",
        "Content-Disposition: form-data; name=\"a\"; name*=utf-8''model",
        "Content-Disposition: form-data; name*0=\"mo\"; name*1=\"del\"",
        "Content-Disposition: form-data; name=\"a\"; name=\"model\"",
        "Content-Disposition: form-data; name=\"mo\\del\"",
        "Content-Disposition: form-data; name=\"a\"; filename=\"\\\"; name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"; filename=\"b\\\"; name=\\\"model\"",
        "Content-Disposition: form-data; name=\"model\"; filename=\"\"",
        "Content-Disposition: form-data;\r\n name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"\r\n ; name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: quoted-printable",
        "Content-Disposition: form-data; name=\"a\"\r\nContent-Type: multipart/mixed; boundary=x",
        "Content-Disposition: attachment; name=\"model\"",
        "Content-Disposition: form-data; name=\"model[]\"",
        "Content-Type: text/plain\r\nContent-Disposition: form-data; name=\"a;b\"",
        "Content-Disposition: form-data; name=\"a\"; filename=\"b;c=d.wav\"",
    ];
    let mut bodies: Vec<String> = Vec::new();
    for head in heads {
        let part = format!("--x\r\n{head}\r\n\r\ndear\r\n");
        bodies.extend([format!("{good}{part}--x--\r\n"), format!("{part}{good}--x--\r\n"), format!("{part}--x--\r\n")]);
    }
    let whole = format!("{good}--x--\r\n");
    bodies.push(format!("{{\"model\":\"dear\"}}\r\n{whole}"));
    bodies.push(format!("\r\n{whole}"));
    bodies.push(format!("{whole}{good}--x--\r\n"));
    bodies.push(format!("{good}--x--\r\n\r\n"));
    bodies.push(whole.replace("\r\n", "\n"));
    bodies.push(whole.replace("--x\r\n", "--x \t\r\n"));
    bodies.push(format!("{good}\n--x\n{}", good.replace("cheap", "dear")));
    let kinds = [
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=\"x\"",
        "multipart/form-data; boundary=x; boundary=y",
    ];
    let form = |body: &String, kind: &str| Form { kind: kind.to_owned(), body: body.clone().into_bytes() };
    bodies.iter().flat_map(|body| kinds.map(|kind| form(body, kind))).collect()
}

/// A form as clients write it, with all that the filter allows in it.
fn generated(random: &mut StdRng) -> Form {
    let quoted = random.random_bool(0.5);
    let allowed: &[u8] = if quoted { b"09azAZ'()+_,-./:=? " } else { b"09azAZ'+_-." };
    let length = *[1, 2, 16, 70].choose(random).unwrap_or(&1);
    let mut boundary: String = (0..length).map(|_| pick(allowed, random)).collect();
    // A space may not be the last, and no value is only one.
    boundary = boundary.trim().to_owned() + if boundary.trim().len() < length { "z" } else { "" };
    let kind = if quoted { format!("\"{boundary}\"") } else { boundary.clone() };
    let parts = random.random_range(0..4);
    let place = random.random_range(0..=parts);
    let mut body = Vec::new();
    for part in 0..=parts {
        let (head, value) = if part == place {
            let kind = ["", "\r\nContent-Type: text/plain", "\r\ncontent-type: text/plain; charset=UTF-8"];
            let kind = kind.choose(random).copied().unwrap_or_default();
            let model = ["whisper-1", "org/model:tag", "modèle 4", "a", "=?utf-8?q?dear?=", "a&b;c%20\""];
            let model = model.choose(random).copied().unwrap_or_default();
            (format!("Content-Disposition: form-data; name=\"model\"{kind}"), model.as_bytes().to_vec())
        } else {
            other_part(&boundary, random)
        };
        body.extend_from_slice(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        body.extend(value);
        body.extend_from_slice(b"\r\n");
    }
    let end = if random.random_bool(0.8) { "\r\n" } else { "" };
    body.extend_from_slice(format!("--{boundary}--{end}").as_bytes());
    Form { kind: format!("multipart/form-data; boundary={kind}"), body }
}

/// A part beside the model: its headers and its value.
fn other_part(boundary: &str, random: &mut StdRng) -> (String, Vec<u8>) {
    let name: String = (0..random.random_range(1..65)).map(|_| pick(b"abMODELmodel019_-.[]", random)).collect();
    let file = [
        "",
        "a.wav",
        "a b;c=d.wav",
        "é模.png",
        "%22model%22",
        "model",
        "a'b",
        "=?utf-8?q?x?=",
        "C:/x/y",
        "..",
        "a:b",
        "(c)",
    ];
    let file = file.choose(random).copied().unwrap_or_default();
    let mut lines = vec![format!("Content-Disposition: form-data; name=\"{name}\"")];
    if let (false, Some(first)) = (file.is_empty(), lines.first_mut()) {
        *first += &format!("; filename=\"{file}\"");
    }
    let values: [&[u8]; 7] = [
        b"RIFF\0\xff\xfe\r\n\r\n--",
        b"",
        b"\r\n",
        b"\r\n\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ndear",
        b"{\"model\":\"dear\"}",
        b"model=dear",
        b"=41=0D=0A--",
    ];
    let mut value = values.choose(random).copied().unwrap_or_default().to_vec();
    if random.random_bool(0.3) {
        // Nearly the boundary.
        let near = boundary.get(..boundary.len() / 2).unwrap_or_default();
        value.extend_from_slice(format!("\r\n--{near}\r\n\n-{boundary}").as_bytes());
    }
    let more = [
        "Content-Type: application/octet-stream",
        "CONTENT-TYPE: multipart/mixed; boundary=\"q\"",
        "Content-Type: nonsense \"; name=\"model\"",
        "Content-Transfer-Encoding: binary",
        "content-transfer-encoding: 8bit",
    ];
    if random.random_bool(0.5) {
        let line = more.choose(random).copied().unwrap_or_default().to_owned();
        let place = random.random_range(0..=lines.len());
        lines.insert(place, line);
    }
    if random.random_bool(0.2) {
        lines.push(format!("Content-Length: {}", value.len()));
    }
    (lines.join("\r\n"), value)
}

fn pick(from: &[u8], random: &mut StdRng) -> char {
    char::from(from.choose(random).copied().unwrap_or(b'x'))
}

/// The form with one or two places changed to something that matters to form parsers.
fn mutated(form: &Form, random: &mut StdRng) -> Form {
    const PIECES: [&[u8]; 26] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"--",
        b"-",
        b" ",
        b"\t",
        b";",
        b"=",
        b"\"",
        b"\\",
        b"\0",
        b"\x0b",
        b"\xff",
        b"*",
        b":",
        b"a",
        b"\r\n ",
        b"\r\n\r\n",
        b"name=\"model\"",
        b"; name=\"model\"",
        b"; name*=utf-8''model",
        b"; filename=\"x\"",
        b"\r\nContent-Disposition: form-data; name=\"model\"",
        b"\r\n--x\r\n",
        b"\r\n--x--\r\n",
    ];
    let mut body = form.body.clone();
    for _ in 0..random.random_range(1..3) {
        let at = random.random_range(0..=body.len());
        // Nothing goes, or up to four bytes go; nothing comes, or one of the pieces comes.
        let end = (at + random.random_range(0..5)).min(body.len());
        let piece = if random.random_bool(0.8) { PIECES.choose(random).copied().unwrap_or_default() } else { b"" };
        body.splice(at..end, piece.iter().copied());
    }
    Form { kind: form.kind.clone(), body }
}
