//! What is measured of requests, and what access logs and spans are told of them.

use tollgate_proto::measures::Measure;

use super::*;
use crate::attempt::Unanswered;

const ASKED: &str = r#"{"model":"smol","max_tokens":50}"#;
const FIRST: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TEXT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
const USAGE: &str =
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n";

fn telling() -> World {
    World::new(|stage| stage.tells_fields = true)
}

/// How many are in the bucket of this value.
fn count(row: &wire::Usage, measure: Measure, value: u64) -> u32 {
    let bucket = u32::try_from(measure.bucket(value)).unwrap();
    row.spread.chunks(2).find(|pair| pair[0] == bucket).map_or(0, |pair| pair[1])
}

fn answers(world: &mut World, exchange: Exchange, text: &str, end: bool, seen: &mut Seen) -> Exchange {
    let chunk = &text.as_bytes().to_vec();
    world.step(exchange, Event::ResponseBody { chunk, end }, seen)
}

fn field<'s>(seen: &'s Seen, name: &str) -> Option<&'s str> {
    seen.fields
        .iter()
        .rfind(|(field, _)| field.strip_prefix("tollgate.") == Some(name))
        .map(|(_, value)| value.as_str())
}

#[test]
fn a_stream_is_measured_from_its_request_to_its_first_text_and_to_its_end() {
    let (mut world, mut seen) = (world(), Seen::default());
    let began = world.now;
    let sent = world.sent(ASKED, &mut seen);
    world.now = began + 15;
    let mut stream = world.answer(sent, "200", "text/event-stream", &[FIRST], &mut seen);
    assert!(stream.awaits_text(), "a role is no text");
    for (passed, text, awaits) in [(30, TEXT, false), (70, TEXT, false), (110, USAGE, false)] {
        world.now = began + passed;
        stream = answers(&mut world, stream, text, text == USAGE, &mut seen);
        assert_eq!(stream.awaits_text(), awaits);
    }
    let call = world.end(stream, Ending::default());
    let [row] = &call.usage[..] else { panic!("{call:?}") };
    assert_eq!((row.operation(), row.error_status), (wire::Operation::Chat, 0));
    assert_eq!(row.ended_at.cast_unsigned(), world.now);
    assert_eq!((row.duration_ms, row.first_token_ms, row.per_token_us), (110, 30, 20_000));
    for (measure, value) in [
        (Measure::Duration, 110),
        (Measure::FirstToken, 30),
        (Measure::PerToken, 20_000),
        (Measure::InputTokens, 8),
        (Measure::OutputTokens, 5),
    ] {
        assert_eq!(count(row, measure, value), 1, "{measure:?}");
    }
    assert_eq!(row.spread.len(), 10);
    assert!(seen.fields.is_empty(), "nobody asks for them");
}

#[test]
fn an_answer_at_once_has_a_duration_and_no_first_token() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    world.now += 300;
    let answer = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
    assert!(!answer.awaits_text());
    let row = world.end(answer, Ending::default()).usage.remove(0);
    assert_eq!((row.duration_ms, row.first_token_ms, row.spread.len()), (300, 0, 6));
    assert_eq!(row.error_status, 0, "its usage is exact, so all of it came");
}

/// It costs nothing, and how often it happens is to be seen.
#[test]
fn an_error_that_costs_nothing_has_a_row_of_its_own() {
    let backends_own =
        |world: &mut World, sent, seen: &mut Seen| world.answer(sent, "429", "application/json", &[], seen);
    let envoys_own = |world: &mut World, sent, seen: &mut Seen| {
        let headers = Headers::from_iter([(":status", "503")]);
        let head = AnswerHead { headers: &headers, origin: Origin::Envoy };
        world.step(sent, Event::ResponseHeaders { head, end: false }, seen)
    };
    let none = |_: &mut World, sent, _: &mut Seen| sent;
    type Comes = fn(&mut World, Exchange, &mut Seen) -> Exchange;
    for (status, comes) in [(429, backends_own as Comes), (503, envoys_own), (499, none)] {
        let (mut world, mut seen) = (world(), Seen::default());
        let sent = world.sent(ASKED, &mut seen);
        world.now += 25;
        let answer = comes(&mut world, sent, &mut seen);
        let [row] = &world.end(answer, Ending::default()).usage[..] else { panic!("{status}") };
        let tokens = (row.requests, row.estimated_requests, row.input_tokens, row.output_tokens);
        assert_eq!((row.error_status, tokens), (status, (0, 0, 0, 0)));
        assert_eq!((row.spread.len(), count(row, Measure::Duration, 25)), (2, 1));
        assert_eq!((&*row.consumer, &*row.model, &*row.backend), ("app", "smol", "a"), "{status}");
    }
}

#[test]
fn what_breaks_off_is_charged_as_an_error() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    let stream = world.answer(sent, "200", "text/event-stream", &[TEXT], &mut seen);
    let row = world.end(stream, Ending::default()).usage.remove(0);
    assert_eq!((row.error_status, row.requests, row.estimated_requests), (499, 1, 1));
    // Bytes that are not looked at end without anybody seeing it.
    let (mut world, mut seen) = (self::world(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    let sound = world.answer(sent, "200", "audio/mpeg", &[], &mut seen);
    let row = world.end(sound, Ending::default()).usage.remove(0);
    assert_eq!((row.error_status, row.requests), (0, 1));
}

#[test]
fn attempts_before_the_last_have_tokens_and_no_times() {
    let (mut world, mut seen) = (world(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    let answer = world.answer(sent, "200", "application/json", &[EXACT], &mut seen);
    let unanswered = vec![Unanswered { place: 0 }];
    let cluster = Some("backend/default/b".to_owned());
    let rows = world.end(answer, Ending { cluster, unanswered, ..Ending::default() }).usage;
    let told: Vec<_> = rows.iter().map(|row| (&*row.backend, row.requests, row.spread.len())).collect();
    assert_eq!(told, [("b", 1, 6), ("a", 0, 4)]);
}

#[test]
fn fields_say_who_asked_for_what_before_the_request_goes() {
    let (mut world, mut seen) = (telling(), Seen::default());
    world.sent(ASKED, &mut seen);
    let fields = ["operation", "consumer", "route", "model", "input_tokens", "error"].map(|name| field(&seen, name));
    assert_eq!(fields, [Some("chat"), Some("app"), Some("chat"), Some("smol"), None, None]);
}

#[test]
fn fields_say_usage_when_the_answer_is_whole_and_the_backend_at_the_end() {
    let (mut world, mut seen) = (telling(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    world.now += 12;
    let stream = world.answer(sent, "200", "text/event-stream", &[TEXT], &mut seen);
    assert_eq!(field(&seen, "output_tokens"), None);
    let stream = answers(&mut world, stream, USAGE, true, &mut seen);
    let told = |seen: &Seen| {
        ["input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens", "estimated", "first_token_ms"]
            .map(|name| field(seen, name).map(str::to_owned))
    };
    let usage = ["8", "5", "0", "0", "false", "12"].map(|value| Some(value.to_owned()));
    assert_eq!((told(&seen), field(&seen, "backend")), (usage.clone(), None));
    let mut at_end = Seen::default();
    let ended = Event::Ended(Ending { cluster: Some("backend/default/b".into()), ..Ending::default() });
    world.step(stream, ended, &mut at_end);
    assert_eq!((told(&at_end), field(&at_end, "backend")), (usage, Some("b")));
    let call = world.call().unwrap();
    assert_eq!((call.usage[0].output_tokens, call.usage[0].requests), (5, 1), "telling it charges nothing");
}

#[test]
fn fields_say_what_is_estimated_and_what_costs_nothing() {
    let (mut world, mut seen) = (telling(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    let stream = world.answer(sent, "200", "text/event-stream", &[TEXT], &mut seen);
    world.step(stream, Event::Ended(Ending::default()), &mut seen);
    assert_eq!(field(&seen, "estimated"), Some("true"));
    let (mut world, mut seen) = (telling(), Seen::default());
    let sent = world.sent(ASKED, &mut seen);
    let error = world.answer(sent, "500", "application/json", &[], &mut seen);
    world.step(error, Event::Ended(Ending::default()), &mut seen);
    assert_eq!((field(&seen, "output_tokens"), field(&seen, "backend")), (None, Some("a")));
}

#[test]
fn fields_say_why_a_request_was_refused() {
    let refused = |act: &dyn Fn(&mut World, &mut Seen)| {
        let (mut world, mut seen) = (telling(), Seen::default());
        act(&mut world, &mut seen);
        ["error", "consumer", "model"].map(|name| field(&seen, name).map(str::to_owned))
    };
    let some = |text: &str| Some(text.to_owned());
    let wrong_key = refused(&|world, seen| drop(world.arrive(CHAT, "wrong", seen)));
    assert_eq!(wrong_key, [some("invalid_api_key"), None, None]);
    let no_model = refused(&|world, seen| drop(world.ask(r#"{"model":"none"}"#, seen)));
    assert_eq!(no_model, [some("model_not_found"), some("app"), None]);
    let over = refused(&|world, seen| {
        let waiting = world.ask(ASKED, seen);
        let call = world.call().unwrap();
        world.ledger(&call, 0, 0);
        world.step(waiting, Event::LedgerAnswered, seen);
    });
    assert_eq!(over, [some("rate_limit_exceeded"), some("app"), some("smol")]);
    let envoys_own = refused(&|world, seen| {
        let sent = world.sent(ASKED, seen);
        let headers = Headers::from_iter([(":status", "504")]);
        let head = AnswerHead { headers: &headers, origin: Origin::Envoy };
        world.step(sent, Event::ResponseHeaders { head, end: false }, seen);
    });
    assert_eq!(envoys_own, [some("backend_unavailable"), some("app"), some("smol")]);
    let too_large = refused(&|world, seen| {
        let reading = world.arrive(CHAT, "good", seen);
        let headers = Headers::from_iter([(":status", "413")]);
        let head = AnswerHead { headers: &headers, origin: Origin::Envoy };
        world.step(reading, Event::ResponseHeaders { head, end: false }, seen);
    });
    assert_eq!(too_large[0], some("request_too_large"));
}

#[test]
fn a_made_up_name_is_cut() {
    let mut world = World::new(|stage| {
        stage.tells_fields = true;
        stage.pools[0].models[0] = wire::Model { name: "s".into(), prefix: true, ..stage.pools[0].models[0].clone() };
    });
    let mut seen = Seen::default();
    world.sent(&format!(r#"{{"model":"s{}","max_tokens":5}}"#, "x".repeat(100)), &mut seen);
    assert_eq!(field(&seen, "model").map(str::len), Some(64));
}
