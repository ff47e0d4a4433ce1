//! Streams, cut into chunks at any place, are compared with an oracle that sees the whole stream at once.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::usage::{
    Api, Habit, Tokens, Used,
    tally::{Case, Delivery, End},
};

const TEXT: &str = r#"{"choices":[{"delta":{"content":"Hé"}}],"usage":null}"#;
const ROLE: &str = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
const RUNNING: &str = r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":3,"completion_tokens":7}}"#;
const EMPTY: &str = r#"{"choices":[],"usage":{}}"#;
const DONE: &str = "[DONE]";
const DATA_OF_EVENTS: [&str; 9] =
    [TEXT, ROLE, STOP, USAGE, RUNNING, EMPTY, DONE, "not json", "{\"choices\":[{\"text\":\"op"];

fn event(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn events(data: &[&str]) -> String {
    data.iter().map(|data| event(data)).collect()
}

fn case(end: End) -> Case {
    let expected = Tokens { input: 100, output: 50, ..Tokens::default() };
    Case { api: Api::Chat, end, delivery: Delivery::AsStream, expected, habit: Habit::default() }
}

fn exactly(input: u64, output: u64) -> Used {
    Used::Exactly(Tokens { input, output, ..Tokens::default() })
}

fn feed(scan: &mut Scan, chunk: &[u8], end: bool, out: &mut Vec<u8>) {
    match scan.feed(chunk, end) {
        Passed::Unchanged => out.extend_from_slice(chunk),
        Passed::Instead(bytes) => out.extend_from_slice(&bytes),
    }
}

/// Feeds the stream in pieces. Its end comes as an empty chunk, as it often does.
fn run(usage_only: UsageOnly, last_text: LastText, stream: &[u8], cuts: &[usize]) -> (Vec<u8>, Scan) {
    let mut scan = Scan::new(usage_only, last_text, &Room::default());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(stream.len());
    let (mut start, mut out) = (0, Vec::new());
    for cut in cuts {
        feed(&mut scan, &stream[start..cut], false, &mut out);
        start = cut;
    }
    feed(&mut scan, &[], true, &mut out);
    (out, scan)
}

// === the oracle ===

/// The events of a whole stream, as bytes and as data. The last one may be open.
fn parse(stream: &[u8]) -> Vec<(Vec<u8>, String, bool)> {
    let mut events = Vec::new();
    let (mut bytes, mut data, mut line) = (Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < stream.len() {
        let end = match &stream[at..] {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        bytes.extend_from_slice(&stream[at..at + end.max(1)]);
        if end == 0 {
            line.push(stream[at]);
            at += 1;
            continue;
        }
        at += end;
        let text = String::from_utf8_lossy(&line).into_owned();
        // The mark stands at the beginning alone.
        let text = if events.is_empty() { text.trim_start_matches('\u{feff}').to_owned() } else { text };
        line.clear();
        if let Some(value) = text.strip_prefix("data:") {
            data.push(value.strip_prefix(' ').unwrap_or(value).to_owned());
        }
        if text.is_empty() {
            events.push((std::mem::take(&mut bytes), data.join("\n"), true));
            data.clear();
        }
    }
    if !bytes.is_empty() {
        if let Some(value) = String::from_utf8_lossy(&line).strip_prefix("data:") {
            data.push(value.trim_start_matches(' ').to_owned());
        }
        events.push((bytes, data.join("\n"), false));
    }
    events
}

fn is_usage_only(data: &str) -> bool {
    serde_json::from_str::<Value>(data).is_ok_and(|event| event["choices"] == json!([]) && event["usage"].is_object())
}

/// The last usage with both figures.
fn last_usage(events: &[(Vec<u8>, String, bool)]) -> Option<(u64, u64)> {
    let usage = |data: &str| {
        let event: Value = serde_json::from_str(data).ok()?;
        Some((event["usage"]["prompt_tokens"].as_u64()?, event["usage"]["completion_tokens"].as_u64()?))
    };
    events.iter().rev().find_map(|(_, data, _)| usage(data))
}

fn streams() -> impl Strategy<Value = String> {
    let line_end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    let field = prop_oneof![
        8 => prop::sample::select(&DATA_OF_EVENTS[..]).prop_map(|data| format!("data: {data}")),
        2 => prop::sample::select(&DATA_OF_EVENTS[..]).prop_map(|data| format!("data:{data}")),
        1 => Just("data".to_owned()),
        1 => Just("dat: x".to_owned()),
        1 => Just(": comment".to_owned()),
        1 => Just("event: message".to_owned()),
        // One JSON text over two lines.
        1 => Just("data: {\"choices\":[],\ndata: \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}".to_owned()),
    ];
    let event = (prop::option::weighted(0.9, field), line_end);
    (any::<bool>(), prop::collection::vec(event, 0..8), any::<bool>()).prop_map(|(mark, events, open)| {
        let mut stream = if mark { "\u{feff}".to_owned() } else { String::new() };
        for (field, end) in &events {
            if let Some(field) = field {
                stream.push_str(&field.replace('\n', end));
                stream.push_str(end);
            }
            stream.push_str(end);
        }
        if open {
            stream.push_str("data: {\"choices\":[],\"usage\":{\"prompt_tok");
        }
        stream
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(any::<usize>(), 0..12)
}

proptest! {
    #[test]
    fn any_split_gives_the_same_bytes_and_usage(stream in streams(), cuts in cuts()) {
        let stream = stream.as_bytes();
        let parsed = parse(stream);
        let (_, whole) = &mut run(UsageOnly::Keep, LastText::Pass, stream, &[]);
        let used = whole.finish().used(&case(End::Whole));
        for usage_only in [UsageOnly::Keep, UsageOnly::Remove] {
            let removed = |event: &&(Vec<u8>, String, bool)| {
                usage_only == UsageOnly::Remove && event.2 && is_usage_only(&event.1)
            };
            let expected: Vec<u8> = parsed.iter().filter(|event| !removed(event)).flat_map(|event| event.0.clone()).collect();
            for last_text in [LastText::Pass, LastText::Hold] {
                let (out, mut scan) = run(usage_only, last_text, stream, &cuts);
                prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&expected));
                prop_assert_eq!(scan.finish().used(&case(End::Whole)), used);
                prop_assert_eq!(scan.back.len() + scan.tail.len(), 0);
            }
        }
        if let Used::Exactly(tokens) = used {
            prop_assert_eq!(Some((tokens.input, tokens.output)), last_usage(&parsed));
        }
    }

    /// Nobody has the end of the last event with text before its usage is known.
    #[test]
    fn the_last_text_waits_for_its_usage(stream in streams(), cuts in cuts(), upto in any::<prop::sample::Index>()) {
        let stream = &stream.as_bytes()[..upto.index(stream.len() + 1)];
        let mut scan = Scan::new(UsageOnly::Remove, LastText::Hold, &Room::default());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(stream.len());
        let (mut start, mut out) = (0, Vec::new());
        for cut in cuts {
            feed(&mut scan, &stream[start..cut], false, &mut out);
            start = cut;
        }
        let parsed = parse(stream);
        let tells = |data: &str| [USAGE, RUNNING, DONE].iter().any(|known| data.contains(known)) || is_usage_only(data);
        let whole: Vec<_> = parsed.iter().filter(|event| event.2).collect();
        if let Some(last) = whole.iter().rposition(|event| event.1.contains("Hé") || event.1.contains("\"op"))
            && !whole.iter().skip(last).any(|event| tells(&event.1))
        {
            let passed = whole.iter().take(last).filter(|event| !is_usage_only(&event.1));
            let before: usize = passed.map(|event| event.0.len()).sum();
            prop_assert!(out.len() <= before, "{} of {before}: {:?}", out.len(), String::from_utf8_lossy(&out));
        }
        prop_assert!(scan.back.len() + scan.tail.len() <= MAX_HELD);
    }

    #[test]
    fn nothing_is_lost_of_any_bytes(
        stream in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..300),
        cuts in cuts(),
    ) {
        for last_text in [LastText::Pass, LastText::Hold] {
            let (out, _) = run(UsageOnly::Remove, last_text, &stream, &cuts);
            prop_assert_eq!(&out, &stream);
        }
    }
}

#[test]
fn usage_behind_the_text_is_exact() {
    for end in [End::Whole, End::Early] {
        let (_, mut scan) =
            run(UsageOnly::Keep, LastText::Pass, events(&[ROLE, TEXT, TEXT, STOP, USAGE]).as_bytes(), &[]);
        assert_eq!(scan.finish().used(&case(end)), exactly(3, 2));
    }
}

#[test]
fn usage_in_front_of_the_text_is_not_the_end() {
    let early = r#"{"choices":[{"delta":{"role":"assistant"}}],"usage":{"prompt_tokens":11,"completion_tokens":0}}"#;
    let words = [&[early][..], &[TEXT; 40]].concat();
    for end in [End::Whole, End::Early] {
        let (_, mut scan) = run(UsageOnly::Keep, LastText::Pass, events(&words).as_bytes(), &[]);
        let Used::About(tokens) = scan.finish().used(&case(end)) else { panic!() };
        assert_eq!((tokens.input, tokens.output >= 40), (11, true), "{tokens:?}");
    }
    // Nothing came yet: the backend is at work all the same.
    let (_, mut scan) = run(UsageOnly::Keep, LastText::Pass, event(early).as_bytes(), &[]);
    assert_eq!(
        scan.finish().used(&case(End::Early)),
        Used::About(Tokens { input: 11, output: 50, ..Tokens::default() })
    );
}

#[test]
fn a_running_count_is_exact_at_the_end_alone() {
    let stream = events(&[RUNNING, RUNNING]);
    let (_, mut scan) = run(UsageOnly::Keep, LastText::Pass, stream.as_bytes(), &[]);
    assert_eq!(scan.finish().used(&case(End::Whole)), exactly(3, 7));
    assert_eq!(
        scan.finish().used(&case(End::Early)),
        Used::About(Tokens { input: 3, output: 7, ..Tokens::default() }),
        "at least what was said"
    );
    let (_, mut scan) = run(UsageOnly::Keep, LastText::Pass, format!("{stream}{}", event(DONE)).as_bytes(), &[]);
    assert_eq!(scan.finish().used(&case(End::Early)), exactly(3, 7), "the end mark came");
}

#[test]
fn usage_from_any_event_counts() {
    let anthropic = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":\
        {\"input_tokens\":3,\"output_tokens\":1}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\
        \"delta\":{\"type\":\"text_delta\",\"text\":\"Hi\"}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\
        \"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let (out, mut scan) = run(UsageOnly::Remove, LastText::Hold, anthropic.as_bytes(), &[7, 90, 91, 200]);
    assert_eq!((out.as_slice(), scan.finish().used(&case(End::Whole))), (anthropic.as_bytes(), exactly(3, 2)));
}

#[test]
fn anthropics_last_event_ends_its_answer() {
    let all = [
        r#"{"type":"message_start","message":{"usage":{"input_tokens":3,"output_tokens":0}}}"#,
        r#"{"type":"message_delta","usage":{"output_tokens":0}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let used = |data: &[&str]| {
        let (_, mut scan) = run(UsageOnly::Keep, LastText::Pass, events(data).as_bytes(), &[]);
        scan.finish().used(&case(End::Early))
    };
    assert_eq!(used(&all), exactly(3, 0));
    assert!(matches!(used(&all[..2]), Used::About(_)), "a count of nothing is no end");
}

#[test]
fn an_event_of_megabytes_is_read_and_not_held() {
    let text = "words \\\" and more ".repeat(100_000);
    let completed = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{{\"output\":[{{\"content\":\
         [{{\"text\":\"{text}\"}}]}}],\"usage\":{{\"input_tokens\":40,\"output_tokens\":256200}}}}}}\n\n"
    );
    assert!(completed.len() > 1 << 20);
    let mut scan = Scan::new(UsageOnly::Remove, LastText::Hold, &Room::default());
    let (mut out, mut most) = (Vec::new(), 0);
    for chunk in completed.as_bytes().chunks(16_000) {
        feed(&mut scan, chunk, false, &mut out);
        most = most.max(scan.back.len() + scan.tail.len());
    }
    assert!(out == completed.as_bytes() && most <= MAX_HELD, "{most} held");
    assert_eq!(scan.finish().used(&case(End::Early)), exactly(40, 256_200));
}

#[test]
fn texts_come_one_event_late_and_the_last_with_its_usage() {
    let mut scan = Scan::new(UsageOnly::Remove, LastText::Hold, &Room::default());
    let mut given = |data: &str| {
        let mut out = Vec::new();
        feed(&mut scan, event(data).as_bytes(), false, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(given(ROLE), event(ROLE), "nothing to read in it");
    assert_eq!(given(TEXT), "");
    assert_eq!(given(TEXT), event(TEXT));
    assert_eq!(given(STOP), "");
    assert_eq!(given(USAGE), events(&[TEXT, STOP]));
    assert_eq!(given(DONE), event(DONE));
    let responses = [
        r#"{"type":"response.output_text.delta","delta":"words"}"#,
        r#"{"type":"response.output_text.done","text":"words"}"#,
        r#"{"type":"response.completed","response":{"usage":{"input_tokens":1,"output_tokens":1}}}"#,
    ];
    assert_eq!(responses.map(&mut given), [String::new(), String::new(), events(&responses)]);
}

#[test]
fn beyond_the_bounds_nothing_is_held() {
    let long = TEXT.replace("Hé", &"long ".repeat(4000));
    let (hold, room) = (LastText::Hold, Room::default());
    let mut out = Vec::new();
    feed(&mut Scan::new(UsageOnly::Keep, hold, &room), event(&long).as_bytes(), false, &mut out);
    assert_eq!(out, event(&long).as_bytes());
    let full = room.share().hold(64 << 20);
    assert!(full, "up to the bound");
    let mut others = room.share();
    others.hold(64 << 20);
    let mut out = Vec::new();
    feed(&mut Scan::new(UsageOnly::Keep, hold, &room), event(TEXT).as_bytes(), false, &mut out);
    assert_eq!(out, event(TEXT).as_bytes());
    drop(others);
    let mut out = Vec::new();
    feed(&mut Scan::new(UsageOnly::Keep, hold, &room), event(TEXT).as_bytes(), false, &mut out);
    assert!(out.is_empty(), "the room is free again");
}
