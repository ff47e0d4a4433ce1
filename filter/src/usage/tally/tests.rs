//! Answers of each API, whole and cut at any place.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::usage::reader::Reader;

fn case(api: Api) -> Case {
    let expected = Tokens { input: 10, output: 50, ..Tokens::default() };
    Case { api, end: End::Whole, delivery: Delivery::AtOnce, expected, habit: Habit::default() }
}

fn tally_of(answer: &[u8], piece: usize) -> Tally {
    let (mut reader, mut tally) = (Reader::default(), Tally::default());
    for piece in answer.chunks(piece.max(1)) {
        reader.feed(piece, &mut tally);
    }
    reader.finish(&mut tally);
    tally
}

fn used(answer: &str) -> Used {
    tally_of(answer.as_bytes(), answer.len()).used(&case(Api::Chat))
}

fn exactly(input: u64, output: u64, cached: u64, reasoning: u64) -> Used {
    Used::Exactly(Tokens { input, output, cached, reasoning })
}

#[test]
fn each_api_says_it_in_its_own_words() {
    for (name, answer, expected) in [
        (
            "OpenAI chat",
            r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":5,
            "total_tokens":8,"prompt_tokens_details":{"cached_tokens":2,"audio_tokens":0},
            "completion_tokens_details":{"reasoning_tokens":4,"accepted_prediction_tokens":0}}}"#,
            exactly(3, 5, 2, 4),
        ),
        (
            "reasoning beside the completion",
            r#"{"usage":{"prompt_tokens":32,"completion_tokens":9,"total_tokens":135,
            "completion_tokens_details":{"reasoning_tokens":94}}}"#,
            exactly(32, 103, 0, 94),
        ),
        (
            "embeddings",
            r#"{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#,
            exactly(7, 0, 0, 0),
        ),
        (
            "Responses",
            r#"{"object":"response","output":[{"content":[{"text":"x"}]}],"usage":{"input_tokens":9,"output_tokens":4,
            "input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2},"total_tokens":13}}"#,
            exactly(9, 4, 1, 2),
        ),
        (
            "Responses, the last event",
            r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":4}}}"#,
            exactly(9, 4, 0, 0),
        ),
        (
            "audio",
            r#"{"text":"x","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":0,
            "audio_tokens":14},"output_tokens":45,"total_tokens":59}}"#,
            exactly(14, 45, 0, 0),
        ),
        (
            "Anthropic",
            r#"{"type":"message","content":[{"text":"x"}],"usage":{"input_tokens":10,"cache_creation_input_tokens":20,
            "cache_read_input_tokens":30,"cache_creation":{"ephemeral_5m_input_tokens":15,"ephemeral_1h_input_tokens":5},
            "output_tokens":6}}"#,
            exactly(60, 6, 30, 0),
        ),
        (
            "Anthropic, the cache by its lives alone",
            r#"{"usage":{"input_tokens":10,"cache_creation":{"ephemeral_5m_input_tokens":15,
            "ephemeral_1h_input_tokens":5},"output_tokens":6}}"#,
            exactly(30, 6, 0, 0),
        ),
        (
            "Anthropic, events",
            r#"{"type":"message_start","message":{"usage":{"input_tokens":11,"cache_read_input_tokens":4,"output_tokens":1}}}
            {"type":"message_delta","usage":{"output_tokens":42}}"#,
            exactly(15, 42, 4, 0),
        ),
        (
            "Gemini",
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{"promptTokenCount":20,
            "candidatesTokenCount":7,"thoughtsTokenCount":30,"toolUsePromptTokenCount":3,"cachedContentTokenCount":12,
            "totalTokenCount":60,"promptTokensDetails":[{"modality":"TEXT","tokenCount":20}]}}"#,
            exactly(23, 37, 12, 30),
        ),
        (
            "Gemini, a stream as an array",
            r#"[{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{"promptTokenCount":5,"totalTokenCount":5}},
            {"candidates":[{"content":{"parts":[{"text":"y"}]}}],"usageMetadata":{"promptTokenCount":5,
            "candidatesTokenCount":9,"totalTokenCount":14}}]"#,
            exactly(5, 9, 0, 0),
        ),
        (
            "Bedrock",
            r#"{"output":{"message":{"content":[{"text":"x"}]}},"usage":{"inputTokens":8,"outputTokens":2,"totalTokens":25,
            "cacheReadInputTokens":10,"cacheWriteInputTokens":5}}"#,
            exactly(23, 2, 10, 0),
        ),
        ("a total alone is split", r#"{"usage":{"total_tokens":25}}"#, exactly(10, 15, 0, 0)),
        (
            "of two the last counts",
            r#"{"usage":{"prompt_tokens":1,"prompt_tokens":2,"completion_tokens":3}}"#,
            exactly(2, 3, 0, 0),
        ),
    ] {
        assert_eq!(used(answer), expected, "{name}");
        for piece in 1..9 {
            assert_eq!(tally_of(answer.as_bytes(), piece).used(&case(Api::Chat)), expected, "{name} by {piece} bytes");
        }
    }
}

#[test]
fn what_says_no_numbers_is_estimated() {
    let text = r#""choices":[{"message":{"content":"eight by"}}]"#;
    for usage in [
        "{}",
        "null",
        "[]",
        "7",
        r#"{"type":"duration","seconds":600}"#,
        r#"{"prompt_tokens":5e2,"completion_tokens":1e1}"#,
        r#"{"prompt_tokens":"5","completion_tokens":"6"}"#,
        r#"{"prompt_tokens":null,"completion_tokens":null,"total_tokens":null}"#,
        r#"{"prompt_tokens":-5,"completion_tokens":-6,"total_tokens":-11}"#,
        r#"{"prompt_tokens":{"prompt_tokens":5},"completion_tokens":[6]}"#,
        r#"{"prompt_tokens":5}"#,
        r#"{"completion_tokens":5}"#,
        r#"{"tokens_in":5,"tokens_out":6}"#,
        r#"{"prompt_tokens":1099511627777,"completion_tokens":6}"#,
        r#"{"prompt_tokens":5,"completion_tokens":18446744073709551616}"#,
    ] {
        let answer = format!("{{{text},\"usage\":{usage}}}");
        let Used::About(tokens) = used(&answer) else { panic!("{usage}") };
        assert_eq!(tokens.output, 2, "{usage}");
        assert!(tokens.input >= 5, "{usage}");
    }
    // One figure too much is enough for a number of neither.
    let late = format!("{{{text},\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":6}},\"usage\":null}}");
    assert!(matches!(used(&late), Used::About(_)), "of two the last counts");
}

#[test]
fn a_name_with_an_escape_is_not_a_known_one() {
    for answer in [
        r#"{"\\usage":{"prompt_tokens":3,"completion_tokens":5}}"#,
        r#"{"\u0075sage":{"prompt_tokens":3,"completion_tokens":5}}"#,
        r#"{"usage":{"\"prompt_tokens":3,"completion_tokens":5}}"#,
    ] {
        assert!(matches!(used(answer), Used::About(_)), "{answer}");
    }
}

/// The client reads the text. Names, pictures and signatures are none. In the Responses API only the pieces are, since
/// later events repeat them.
#[test]
fn what_is_shown_is_the_text_alone() {
    for (answer, bytes) in [
        (r#"{"choices":[{"message":{"role":"assistant","content":"four"}}]}"#, 4),
        (r#"{"choices":[{"delta":{"content":"fo"}},{"delta":{"content":"ur"}}]}"#, 4),
        (r#"{"choices":[{"text":"a\nb"}]}"#, 3),
        (r#"{"type":"content_block_delta","delta":{"type":"text_delta","text":"four"}}"#, 4),
        (r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"four"}}"#, 0),
        (r#"{"type":"response.output_text.delta","item_id":"an item","delta":"four"}"#, 4),
        (r#"{"type":"response.output_text.done","item_id":"an item","text":"four"}"#, 0),
        (r#"{"created":1,"data":[{"b64_json":"a picture"}]}"#, 0),
        (r#"{"words of another API":"four"}"#, 4),
    ] {
        assert_eq!(tally_of(answer.as_bytes(), answer.len()).shown_bytes(), bytes, "{answer}");
    }
}

#[test]
fn a_model_cannot_write_its_bill() {
    let bill = r#"\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0}"#;
    let inner = r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#;
    for answer in [
        format!(r#"{{"choices":[{{"message":{{"content":"{bill}","tool":{inner},"message":{inner}}}}}]}}"#),
        format!(r#"{{"metadata":{inner},"output":[{inner}],"choices":[{inner}]}}"#),
    ] {
        assert!(matches!(used(&answer), Used::About(_)), "{answer}");
    }
}

#[test]
fn embeddings_have_no_output() {
    let used = |answer: &str| tally_of(answer.as_bytes(), 7).used(&case(Api::Embeddings));
    assert_eq!(used(r#"{"usage":{"prompt_tokens":7}}"#), exactly(7, 0, 0, 0));
    assert_eq!(used(r#"{"usage":{"total_tokens":700}}"#), exactly(700, 0, 0, 0));
    assert_eq!(used(r#"{"data":[]}"#), Used::About(Tokens { input: 10, ..Tokens::default() }));
}

#[test]
fn an_answer_that_is_cut_off_costs_what_is_usual() {
    let whole = r#"{"choices":[{"message":{"content":"eight by"}}],"usage":{"prompt_tokens":5,"completion_tokens":6}}"#;
    let cut = &whole[..50];
    let early = |answer: &str| tally_of(answer.as_bytes(), 7).used(&Case { end: End::Early, ..case(Api::Chat) });
    assert_eq!(early(cut), Used::About(Tokens { input: 10, output: 50, ..Tokens::default() }));
    let words = "word ".repeat(100);
    let longer = format!("{{\"choices\":[{{\"message\":{{\"content\":\"{words}");
    assert_eq!(early(&longer), Used::About(Tokens { input: 10, output: 125, ..Tokens::default() }));
    assert_eq!(early(&whole[..whole.len() - 1]), exactly(5, 6, 0, 0), "it is made at once, its usage too");
}

#[test]
fn seven_megabytes_are_read_in_a_few_hundred_bytes() {
    let held = size_of::<Reader>() + size_of::<Tally>();
    assert!(held < 1024, "{held}");
    let choice = json!({"message": {"content": "a word or two ".repeat(700_000 / 14)}}).to_string();
    let answer = format!(
        "{{\"choices\":[{}],\"usage\":{{\"prompt_tokens\":40,\"completion_tokens\":256200}}}}",
        vec![choice; 10].join(",")
    );
    assert!(answer.len() > 6_900_000);
    assert_eq!(tally_of(answer.as_bytes(), 64 << 10).used(&case(Api::Chat)), exactly(40, 256_200, 0, 0));
}

#[test]
fn what_is_nested_too_deep_is_estimated() {
    let deep = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!("{{\"x\":{open}{close},\"usage\":{{\"prompt_tokens\":5,\"completion_tokens\":6}}}}")
    };
    assert_eq!(used(&deep(126)), exactly(5, 6, 0, 0));
    assert!(matches!(used(&deep(200)), Used::About(_)));
    assert!(matches!(used(&deep(100_000)), Used::About(_)));
}

// === against another parser ===

/// The usage that serde_json's tree has.
fn oracle(answer: &Value) -> Option<(u64, u64)> {
    let usage = answer.get("usage")?;
    Some((usage.get("prompt_tokens")?.as_u64()?, usage.get("completion_tokens")?.as_u64()?))
}

/// How many bytes of text serde_json's tree has.
fn text(value: &Value) -> usize {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value {
                Value::String(text) if name == "content" || name == "text" => {
                    // As it is written: an escape counts for one less than its bytes.
                    let written = serde_json::to_string(text).unwrap();
                    let escapes = written.matches('\\').count() - written.matches("\\\\").count();
                    written.len() - 2 - escapes
                }
                value => text(value),
            })
            .sum(),
        Value::Array(values) => values.iter().map(text).sum(),
        _ => 0,
    }
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0u64..1000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z\\\\\"\n é{}\\[\\]:,]{0,12}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "content",
        "text",
        "choices",
        "message",
        "x",
        "a\"b",
    ]);
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// The tokens that came since the last figures are not forgotten because of an object without any.
#[test]
fn usage_that_says_nothing_is_not_the_last_word() {
    let mut tally = Tally::default();
    let case = Case { end: End::Early, delivery: Delivery::AsStream, ..case(Api::Chat) };
    for (event, exact) in [
        (r#"{"usage":{"prompt_tokens":11,"completion_tokens":1}}"#, true),
        (r#"{"choices":[{"delta":{"content":"forty bytes of text that nobody counted."}}]}"#, false),
        (r#"{"usage":{}}"#, false),
        (r#"{"usage":{"prompt_tokens":11,"completion_tokens":12}}"#, true),
    ] {
        let mut reader = Reader::default();
        reader.feed(event.as_bytes(), &mut tally);
        reader.finish(&mut tally);
        assert_eq!(matches!(tally.used(&case), Used::Exactly(_)), exact, "{event}");
    }
}

proptest! {
    #[test]
    fn it_agrees_with_another_parser(
        mut answer in values(),
        usage in prop::option::of((prop::option::of(0u64..1000), prop::option::of(0u64..1000))),
        pretty in any::<bool>(),
        piece in 1usize..40,
    ) {
        if !answer.is_object() {
            answer = json!({"x": answer});
        }
        if let Some(members) = answer.as_object_mut().filter(|members| members.get("usage").is_some_and(|usage| text(usage) > 0)) {
            // Text in a usage object is nobody's.
            members.remove("usage");
        }
        if let (Some(members), Some((input, output))) = (answer.as_object_mut(), usage) {
            let figures = [("prompt_tokens", input), ("completion_tokens", output)];
            let figures = figures.into_iter().filter_map(|(name, figure)| Some((name.to_owned(), Value::from(figure?))));
            members.insert("usage".to_owned(), Value::Object(figures.collect()));
        }
        if let Some(members) = answer.as_object_mut() {
            members.insert("object".to_owned(), json!("chat.completion"));
            members.remove("message");
        }
        let written = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.unwrap();
        let tally = tally_of(written.as_bytes(), piece);
        let expected = oracle(&answer).map(|(input, output)| exactly(input, output, 0, 0));
        match tally.used(&case(Api::Chat)) {
            Used::About(_) => prop_assert_eq!(expected, None, "{}", written),
            used => prop_assert_eq!(Some(used), expected, "{}", written),
        }
        prop_assert_eq!(tally.shown_bytes(), text(&answer) as u64, "{}", written);
    }

    #[test]
    fn no_bytes_make_it_panic_and_no_split_matters(
        answer in "[\\{\\}\\[\\]\",:\\\\ 0-9truefalsn\\x00-\\x1f\\x7f]{0,80}|\\{\"usage\":\\{\"prompt_tokens\":[0-9,\\}\\{\"a]{0,40}",
        piece in 1usize..9,
    ) {
        let case = case(Api::Chat);
        prop_assert_eq!(tally_of(answer.as_bytes(), piece).used(&case), tally_of(answer.as_bytes(), 1000).used(&case));
    }
}
