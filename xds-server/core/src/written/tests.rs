use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::status::{
    AncestorStatus, BackendCount, Brief, Condition, ListenerStatus, ObjectRef, ParentStatus, Reason, RouteKind, Status,
    UsedBy,
};

fn object(kind: StatusKind, status: Status) -> ObjectStatus {
    let status = status.observed();
    ObjectStatus { kind, namespace: "a".to_owned(), name: "n".to_owned(), brief: Brief::Refused {}, status }
}

/// A condition is good, or bad with one of two messages.
fn accepted(how: u8) -> Condition {
    match how {
        0 => Condition::good(ConditionType::Accepted, Reason::Accepted),
        1 => Condition::bad(ConditionType::Accepted, Reason::NoMatchingParent, "first"),
        _ => Condition::bad(ConditionType::Accepted, Reason::NotAllowedByListeners, "second"),
    }
}

/// A route with these parents, by name and how it is accepted there.
fn route(generation: i64, parents: &[(u8, u8)]) -> Wanted {
    let parent = |(name, how): &(u8, u8)| ParentStatus {
        parent_ref: ObjectRef { name: format!("g{name}"), ..ObjectRef::default() },
        controller_name: CONTROLLER_NAME,
        conditions: [accepted(*how)].into_iter().collect(),
    };
    let parents = Some(parents.iter().map(parent).collect());
    Wanted::new(&object(StatusKind::HttpRoute, Status { generation: Some(generation), parents, ..Status::default() }))
}

fn gateway(how: u8, attached_routes: usize) -> Wanted {
    let kind = RouteKind { group: GATEWAY_GROUP, kind: StatusKind::HttpRoute };
    let listener = ListenerStatus {
        name: "http".to_owned(),
        attached_routes,
        supported_kinds: vec![kind],
        conditions: [accepted(how)].into_iter().collect(),
    };
    let conditions = [accepted(how)].into_iter().collect();
    let status = Status { generation: Some(1), conditions, listeners: Some(vec![listener]), ..Status::default() };
    Wanted::new(&object(StatusKind::Gateway, status))
}

/// As the API server keeps it: it fills in the defaults of references.
fn stored(mut status: Value) -> Value {
    for parent in status.get_mut("parents").and_then(Value::as_array_mut).into_iter().flatten() {
        let reference = parent["parentRef"].as_object_mut().unwrap();
        reference.entry("group").or_insert(json!(GATEWAY_GROUP));
        reference.entry("kind").or_insert(json!("Gateway"));
    }
    status
}

fn foreign(name: u8) -> Value {
    json!({
        "parentRef": {"group": GATEWAY_GROUP, "kind": "Gateway", "name": format!("f{name}")}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "True", "lastTransitionTime": "then"}],
    })
}

fn foreign_of(status: &Value) -> Vec<Value> {
    let entries = status["parents"].as_array().cloned().unwrap_or_default();
    entries.into_iter().filter(|entry| !is_own_entry(entry)).collect()
}

#[test]
fn a_condition_has_the_time_of_its_last_change_of_verdict() {
    let first = route(1, &[(0, 1)]).into_status(None, "t1").unwrap();
    assert_eq!(
        first,
        json!({"parents": [{
            "parentRef": {"name": "g0"}, "controllerName": CONTROLLER_NAME,
            "conditions": [{
                "type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "first",
                "observedGeneration": 1, "lastTransitionTime": "t1",
            }],
        }]})
    );
    let condition = |status: &Value| status["parents"][0]["conditions"][0].clone();
    let other_reason = route(2, &[(0, 2)]).into_status(Some(&stored(first)), "t2").unwrap();
    let is = condition(&other_reason);
    assert_eq!((&is["lastTransitionTime"], &is["message"]), (&json!("t1"), &json!("second")));
    assert_eq!(is["observedGeneration"], 2);
    let good = route(2, &[(0, 0)]).into_status(Some(&other_reason), "t3").unwrap();
    assert_eq!(condition(&good)["lastTransitionTime"], "t3");
}

#[test]
fn what_others_wrote_stays_where_it_is_and_what_is_ours_and_old_goes() {
    let mut status = stored(route(1, &[(0, 0), (1, 0)]).into_status(None, "t1").unwrap());
    let parents = status["parents"].as_array_mut().unwrap();
    parents.insert(1, foreign(0));
    parents.push(foreign(1));
    let next = route(1, &[(1, 0)]).into_status(Some(&status), "t2").unwrap();
    let names: Vec<&Value> =
        next["parents"].as_array().unwrap().iter().map(|entry| &entry["parentRef"]["name"]).collect();
    assert_eq!(names, ["g1", "f0", "f1"]);
    let none = Wanted::nothing(StatusKind::HttpRoute).unwrap();
    assert_ne!(none.print(), Print::of(StatusKind::HttpRoute, Some(&next)));
    let next = none.into_status(Some(&next), "t3").unwrap();
    assert_eq!(next, json!({"parents": [foreign(0), foreign(1)]}));
    assert_eq!(Wanted::nothing(StatusKind::Gateway), None);
}

#[test]
fn there_are_no_more_entries_than_the_api_allows() {
    let all: Vec<(u8, u8)> = (0..40).map(|name| (name, 0)).collect();
    let status = json!({"parents": [foreign(0), foreign(1)]});
    let next = route(1, &all).into_status(Some(&status), "t").unwrap();
    assert_eq!(next["parents"].as_array().unwrap().len(), 32);
    assert_eq!(foreign_of(&next).len(), 2);
}

#[test]
fn a_gateway_keeps_the_conditions_of_others_and_leads_to_no_unspecified_address() {
    let others = json!({"type": "example.com/Checked", "status": "True", "lastTransitionTime": "then"});
    let pending = json!({"type": "Accepted", "status": "Unknown", "reason": "Pending", "lastTransitionTime": "1970"});
    let status = json!({"conditions": [others, pending], "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}]});
    let next = gateway(0, 1).into_status(Some(&status), "now").unwrap();
    assert_eq!(next["conditions"][0], others);
    assert_eq!(next["conditions"][1]["lastTransitionTime"], "now");
    assert_eq!((&next["addresses"], &next["listeners"][0]["attachedRoutes"]), (&json!([]), &json!(1)));
    assert_eq!(gateway(0, 1).into_status(Some(&next), "later"), None);
    assert!(gateway(0, 2).into_status(Some(&next), "later").is_some());
    let mut anywhere = gateway(0, 1);
    let addresses = json!([{"type": "IPAddress", "value": "0.0.0.0"}, {"type": "IPAddress", "value": "10.0.0.2"}]);
    anywhere.put("addresses", addresses);
    anywhere.keep_reachable_addresses();
    assert_eq!(anywhere.status["addresses"].as_array().unwrap().len(), 1);
}

#[test]
fn a_policy_that_is_read_again_says_no_longer_that_it_is_refused() {
    let conditions = [accepted(1)].into_iter().collect();
    let refused = Status { generation: Some(3), conditions, ..Status::default() };
    let refused = Wanted::new(&object(StatusKind::TokenPolicy, refused)).into_status(None, "t1").unwrap();
    assert_eq!((&refused["observedGeneration"], &refused["ancestors"]), (&json!(3), &json!([])));
    let ancestor = AncestorStatus {
        ancestor_ref: ObjectRef { name: "chat".to_owned(), ..ObjectRef::default() },
        controller_name: CONTROLLER_NAME,
        conditions: [accepted(0)].into_iter().collect(),
    };
    let good = Status { generation: Some(4), ancestors: Some(vec![ancestor]), ..Status::default() };
    let good = Wanted::new(&object(StatusKind::TokenPolicy, good));
    let next = good.clone().into_status(Some(&refused), "t2").unwrap();
    assert_eq!((&next["conditions"], next["ancestors"].as_array().map(Vec::len)), (&json!([]), Some(1)));
    assert_eq!(good.into_status(Some(&next), "t3"), None);
}

#[test]
fn a_class_names_its_features_in_order() {
    for has_own_proxies in [false, true] {
        let conditions = [accepted(0)].into_iter().collect();
        let brief = Brief::GatewayClass { controller: "c".to_owned(), has_own_proxies };
        let class =
            ObjectStatus { brief, ..object(StatusKind::GatewayClass, Status { conditions, ..Status::default() }) };
        let next = Wanted::new(&class).into_status(None, "t").unwrap();
        let features = next["supportedFeatures"].as_array().unwrap();
        let names: Vec<&str> = features.iter().map(|feature| feature["name"].as_str().unwrap()).collect();
        assert!(names.is_sorted() && names.contains(&"HTTPRoute"), "{names:?}");
        assert_eq!(names.contains(&"GatewayStaticAddresses"), has_own_proxies);
    }
}

#[test]
fn people_are_told_once_of_a_policy_that_is_refused_and_not_of_what_is_well() {
    let policy = |how| {
        let status = Status { conditions: [accepted(how)].into_iter().collect(), ..Status::default() };
        Wanted::new(&object(StatusKind::TokenPolicy, status))
    };
    let alarm = Alarm { reason: "NoMatchingParent".to_owned(), message: "first".to_owned() };
    assert_eq!(policy(1).alarms(None), [alarm].into());
    let status = policy(1).into_status(None, "t").unwrap();
    assert_eq!(policy(1).alarms(Some(&status)), BTreeSet::new());
    assert_eq!(policy(2).alarms(Some(&status)).len(), 1);
    assert_eq!(policy(0).alarms(None), BTreeSet::new());
    // A route that is not accepted is told of by its status alone.
    assert_eq!(route(1, &[(0, 1)]).alarms(None), BTreeSet::new());
}

fn consumer(message: &str, last_used: Option<&str>) -> ObjectStatus {
    let expiring = Condition::bad(ConditionType::KeysExpiring, Reason::KeyEnds, message);
    let conditions = if message.is_empty() { Vec::new() } else { vec![expiring] };
    let last_used = last_used.map(str::to_owned);
    let status =
        Status { generation: Some(1), conditions: conditions.into_iter().collect(), last_used, ..Status::default() };
    ObjectStatus { brief: Brief::Consumer { keys: 2, ends: Vec::new() }, ..object(StatusKind::Consumer, status) }
}

#[test]
fn a_consumer_says_how_many_keys_it_has_and_its_last_use_never_goes_back() {
    let kind = StatusKind::Consumer;
    let at = |minute: &str| Wanted::new(&consumer("", Some(&format!("2026-12-01T00:{minute}:00Z"))));
    let first = at("10").into_status(None, "t").unwrap();
    assert_eq!((&first["keys"], &first["lastUsed"]), (&json!(2), &json!("2026-12-01T00:10:00Z")));
    assert_eq!((Print::of(kind, Some(&first)), at("10").into_status(Some(&first), "t")), (at("10").print(), None));
    assert_eq!(Print::of(kind, Some(&first)).last_used(), Some(1_796_083_800));
    let later = at("15").into_status(Some(&first), "t").unwrap();
    assert_eq!(later["lastUsed"], "2026-12-01T00:15:00Z");
    assert_eq!(at("10").into_status(Some(&later), "t"), None);
    // Whoever does not know of a use says nothing of it.
    let unknown = Wanted::new(&consumer("", None));
    assert_eq!(unknown.clone().into_status(Some(&later), "t"), None);
    let new = unknown.clone().into_status(None, "t").unwrap();
    assert_eq!((&new["keys"], &new["lastUsed"]), (&json!(2), &Value::Null));
    assert_eq!(unknown.print(), Print::of(kind, Some(&json!({"observedGeneration": 1, "keys": 2}))));
}

#[test]
fn a_consumer_says_what_it_spent_on_which_day() {
    let spent = |tokens: u64| {
        let spent = Spent { date: "2026-12-01".parse().unwrap(), tokens };
        let mut object = consumer("", None);
        object.status.spent_today = Some(spent);
        (spent, Wanted::new(&object))
    };
    let (ten, wanted) = spent(10);
    let first = wanted.into_status(None, "t").unwrap();
    assert_eq!(first["spentToday"], json!({"date": "2026-12-01", "tokens": 10}));
    assert_eq!(Print::of(StatusKind::Consumer, Some(&first)).spent_today(), Some(ten));
    assert_eq!(spent(10).1.into_status(Some(&first), "t"), None);
    assert_eq!(spent(11).1.into_status(Some(&first), "t").unwrap()["spentToday"]["tokens"], 11);
    let tomorrow = Wanted::new(&consumer("", None)).into_status(Some(&first), "t").unwrap();
    assert_eq!(tomorrow["spentToday"], Value::Null);
}

#[test]
fn who_uses_a_pool_is_said_and_taken_back() {
    let kind = StatusKind::ModelPool;
    let pool = |ready, total| {
        let name = ObjectRef { kind: Some("HTTPRoute".to_owned()), name: "r".to_owned(), ..ObjectRef::default() };
        let used_by = Some(UsedBy { total, objects: vec![name] });
        let backends = Some(BackendCount { total: 3, ready });
        Wanted::new(&object(kind, Status { used_by, backends, ..Status::default() }))
    };
    let first = pool(2, 1).into_status(None, "t").unwrap();
    assert_eq!(first["usedBy"], json!({"total": 1, "objects": [{"kind": "HTTPRoute", "name": "r"}]}));
    assert_eq!(first["backends"], json!({"total": 3, "ready": 2}));
    // The API server has its own order of fields.
    let stored =
        json!({"usedBy": {"objects": first["usedBy"]["objects"], "total": 1}, "backends": {"ready": 2, "total": 3}});
    assert_eq!(pool(2, 1).print(), Print::of(kind, Some(&stored)));
    for other in [pool(1, 1), pool(2, 7)] {
        assert_ne!(other.print(), Print::of(kind, Some(&stored)));
    }
    // Nothing is known of a pool that is refused.
    let refused = Wanted::new(&object(kind, Status::default()));
    let next = refused.into_status(Some(&first), "t").unwrap();
    assert_eq!((&next["usedBy"], &next["backends"]), (&Value::Null, &Value::Null));
}

#[test]
fn people_are_told_once_of_each_key_when_its_end_is_near_and_when_it_has_ended() {
    let alarms = |message: &str, before: Option<&Value>| -> Vec<(String, String)> {
        let alarms = Wanted::new(&consumer(message, None)).alarms(before).into_iter();
        alarms.map(|alarm| (alarm.reason, alarm.message)).collect()
    };
    let alarm = |reason: &str, message: &str| (reason.to_owned(), message.to_owned());
    let (a, b) = ("the key with sha256 a ends at T1", "the key with sha256 b ends at T2");
    assert_eq!(alarms(a, None), [alarm("KeyEnds", a)]);
    let said = Wanted::new(&consumer(a, None)).into_status(None, "t").unwrap();
    let both = format!("{a}; {b}");
    assert_eq!(alarms(&both, Some(&said)), [alarm("KeyEnds", b)]);
    let said = Wanted::new(&consumer(&both, None)).into_status(Some(&said), "t").unwrap();
    let ended = "the key with sha256 a has ended at T1";
    assert_eq!(alarms(&format!("{ended}; {b}"), Some(&said)), [alarm("KeyEnded", ended)]);
    assert_eq!(alarms(b, Some(&said)), [], "a key that was removed is no news");
}

#[test]
fn an_object_that_is_newer_than_what_is_known_waits() {
    assert!(route(2, &[]).is_about(Some(2)) && route(2, &[]).is_about(Some(3)));
    // Another object of the same name begins again at 1.
    assert!(!route(2, &[]).is_about(Some(1)));
}

#[test]
fn a_message_is_as_long_as_the_api_allows() {
    let conditions = [Condition::bad(ConditionType::Accepted, Reason::Refused, "ä".repeat(20_000))];
    let status = Status { conditions: conditions.into_iter().collect(), ..Status::default() };
    let next = Wanted::new(&object(StatusKind::ModelPool, status)).into_status(None, "t").unwrap();
    assert_eq!(next["conditions"][0]["message"].as_str().unwrap().len(), MESSAGE);
}

proptest! {
    /// Whatever we say of a route one time after the other: what others wrote is as they wrote it, what is ours is what we
    /// said last, and saying it again changes nothing.
    #[test]
    fn others_are_left_alone_and_twice_is_once(
        said in prop::collection::vec((1_i64..4, prop::collection::btree_map(0_u8..5, 0_u8..3, 0..5)), 1..6),
        others in prop::collection::vec((0_usize..6, 0_u8..9), 0..4),
    ) {
        let mut status = json!({"parents": []});
        for (place, name) in others {
            let parents = status["parents"].as_array_mut().unwrap();
            parents.insert(place.min(parents.len()), foreign(name));
        }
        let before = foreign_of(&status);
        for (generation, parents) in said {
            let parents: Vec<(u8, u8)> = parents.into_iter().collect();
            let wanted = route(generation, &parents);
            let differs = wanted.print() != Print::of(StatusKind::HttpRoute, Some(&status));
            let next = wanted.clone().into_status(Some(&status), "now");
            prop_assert_eq!(next.is_some(), differs);
            status = stored(next.unwrap_or(status));
            prop_assert_eq!(&foreign_of(&status), &before);
            let own = status["parents"].as_array().unwrap().len() - before.len();
            prop_assert_eq!(own, parents.len());
            prop_assert_eq!(wanted.print(), Print::of(StatusKind::HttpRoute, Some(&status)));
            prop_assert_eq!(wanted.into_status(Some(&status), "later"), None);
        }
    }
}
