//! A backend that costs next to nothing: answers of 1 KB, or streams of events, in the shape of an OpenAI-compatible
//! runner, with usage. What to answer stands in the prompt itself ([`Answer::ask`]), because that is what every gateway
//! leaves as it is.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::bench::wire;

/// What the backend answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Whole,
    /// This number of events with text, each sent by itself, as a runner sends tokens. Then come usage and the end.
    Events {
        count: usize,
        every: Duration,
    },
}

/// What is in each event with text, and over and over in an answer as a whole.
pub const WORD: &[u8] = b"lorem";
/// How often an answer as a whole has it.
pub const WORDS: usize = 58;

/// A stream has a thread of its own. A thousand of them are alive at once.
const STACK: usize = 256 * 1024;

/// Starts the backend and returns its port. It ends with the process.
pub fn start() -> anyhow::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _refused = std::thread::Builder::new().stack_size(STACK).spawn(move || {
                let _client_left = serve(stream);
            });
        }
    });
    Ok(port)
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (whole, events) = (whole(), Events::new());
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        let Some(length) = wire::read_message(&mut stream, &mut buffer)? else {
            return Ok(());
        };
        match Answer::asked(buffer.get(..length).unwrap_or_default()) {
            Answer::Whole => stream.write_all(&whole)?,
            Answer::Events { count, every } => events.send(&mut stream, count, every)?,
        }
        buffer.drain(..length);
    }
}

// === impl Answer ===

impl Answer {
    /// The words in the prompt that ask for it.
    pub fn ask(self) -> String {
        match self {
            Self::Whole => "[answer whole]".to_owned(),
            Self::Events { count, every } => format!("[answer {count} events {} us]", every.as_micros()),
        }
    }

    fn asked(request: &[u8]) -> Self {
        Self::read(request).unwrap_or(Self::Whole)
    }

    fn read(request: &[u8]) -> Option<Self> {
        const BEGIN: &[u8] = b"[answer ";
        let words = request.get(wire::find(request, BEGIN)? + BEGIN.len()..)?;
        let words = std::str::from_utf8(words.get(..wire::find(words, b" us]")?)?).ok()?;
        let (count, every) = words.split_once(" events ")?;
        Some(Self::Events { count: count.parse().ok()?, every: Duration::from_micros(every.parse().ok()?) })
    }
}

/// One answer of 1 KB.
fn whole() -> Vec<u8> {
    let text = "lorem ipsum ".repeat(WORDS);
    let body = format!(
        "{{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\
         \"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}},\"finish_reason\":\"stop\"}}],\
         \"usage\":{{\"prompt_tokens\":500,\"completion_tokens\":170,\"total_tokens\":670}}}}"
    );
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Two texts by turns: a gateway may take the same text over and over for a model that hangs (LiteLLM ends such a stream
/// after a hundred).
struct Events {
    texts: [Vec<u8>; 2],
    usage: Vec<u8>,
    end: Vec<u8>,
}

// === impl Events ===

impl Events {
    fn new() -> Self {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
        let event = |choices: &str, usage: &str| {
            format!(
                "data: {{\"id\":\"chatcmpl-0\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\
                 \"choices\":[{choices}]{usage}}}\n\n"
            )
        };
        let usage = ",\"usage\":{\"prompt_tokens\":500,\"completion_tokens\":8,\"total_tokens\":508}";
        Self {
            texts: ["lorem ", "lorem, "]
                .map(|text| chunk(&event(&format!("{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}"), ""))),
            usage: chunk(&event("", usage)),
            end: [chunk("data: [DONE]\n\n"), b"0\r\n\r\n".to_vec()].concat(),
        }
    }

    fn send(&self, stream: &mut TcpStream, count: usize, every: Duration) -> std::io::Result<()> {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let mut next = Instant::now();
        for text in self.texts.iter().cycle().take(count) {
            stream.write_all(text)?;
            next += every;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        stream.write_all(&self.usage)?;
        stream.write_all(&self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_read_again() {
        for answer in [Answer::Whole, Answer::Events { count: 210, every: Duration::from_micros(1_000) }] {
            let request = format!("{{\"content\":\"{} The quick [brown] fox\"}}", answer.ask());
            assert_eq!(Answer::asked(request.as_bytes()), answer);
        }
        assert_eq!(Answer::asked(b"[answer many events 0 us]"), Answer::Whole);
    }

    #[test]
    fn the_word_is_as_often_in_the_answer_as_is_said() {
        assert_eq!(wire::count(&whole(), WORD), WORDS);
        assert_eq!(Events::new().texts.map(|text| wire::count(&text, WORD)), [1, 1]);
        assert_eq!(wire::count(&[Events::new().usage, Events::new().end].concat(), WORD), 0);
    }
}
