//! A backend that costs next to nothing: fixed answers of 1 KB, whole or as events, in the shape of
//! an OpenAI-compatible runner, with usage.

use std::io::Write;
use std::net::{TcpListener, TcpStream};

use crate::bench::wire;

/// Starts the backend and returns its port. It ends with the process.
pub fn start() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let _ = serve(stream);
            });
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (whole, events) = (whole(), events());
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(length) = wire::read_message(&mut stream, &mut buffer)? else {
            return Ok(());
        };
        let body = buffer.get(..length).unwrap_or_default();
        if wire::contains(body, b"\"stream\":true") {
            for part in &events {
                stream.write_all(part)?;
            }
        } else {
            stream.write_all(&whole)?;
        }
        buffer.drain(..length);
    }
}

/// One answer of 1 KB.
fn whole() -> Vec<u8> {
    let text = "lorem ipsum ".repeat(58);
    let body = format!(
        "{{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":500,\"completion_tokens\":170,\"total_tokens\":670}}}}"
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Ten events, each sent by itself, as a runner sends tokens.
fn events() -> Vec<Vec<u8>> {
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
    let event = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
             \"choices\":[{choices}]{usage}}}\n\n"
        )
    };
    let mut parts =
        vec![b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec()];
    for _ in 0..8 {
        parts.push(chunk(&event("{\"index\":0,\"delta\":{\"content\":\"lorem\"}}", "")));
    }
    let usage = ",\"usage\":{\"prompt_tokens\":500,\"completion_tokens\":8,\"total_tokens\":508}";
    parts.push(chunk(&event("", usage)));
    parts.push([chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat());
    parts
}
