//! GET /v1/models. The filter itself answers it, with the models that this caller may use.

use crate::{
    config::{ModelName, Pool},
    errors::{Refusal, Shape},
    json::quote,
    key::Caller,
    path::{MODELS, Path},
};

/// What is asked about models.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    List,
    /// One model, by its decoded name.
    One(String),
}

/// Whether a path asks about models.
pub fn question(path: &Path<'_>) -> Option<Question> {
    match path.below().strip_prefix(MODELS)? {
        "" | "/" => Some(Question::List),
        id => id.strip_prefix('/').map(|id| Question::One(id.to_owned())),
    }
}

pub fn answer(question: &Question, pool: &Pool, caller: &Caller, shape: Shape) -> Result<Vec<u8>, Refusal> {
    let known = pool.models.iter().filter_map(|model| match &model.name {
        ModelName::Exact(name) => Some(&**name),
        ModelName::Prefix(_) => None,
    });
    let mut body = Vec::with_capacity(256);
    match question {
        Question::List => {
            let allowed: Vec<_> = known.filter(|name| caller.may_use(name)).collect();
            body.extend_from_slice(b"{\"data\":[");
            for (index, name) in allowed.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                one(name, shape, &mut body);
            }
            body.push(b']');
            match shape {
                Shape::OpenAi => body.extend_from_slice(b",\"object\":\"list\"}"),
                Shape::Anthropic => {
                    for (member, name) in [(",\"first_id\":", allowed.first()), (",\"last_id\":", allowed.last())] {
                        body.extend_from_slice(member.as_bytes());
                        match name {
                            Some(name) => quote(name, &mut body),
                            None => body.extend_from_slice(b"null"),
                        }
                    }
                    body.extend_from_slice(b",\"has_more\":false}");
                }
            }
        }
        Question::One(id) => {
            let mut known = known;
            let name = known.find(|name| name == id).ok_or_else(|| Refusal::ModelNotFound { model: id.clone() })?;
            if !caller.may_use(name) {
                return Err(Refusal::ModelNotAllowed { model: id.clone() });
            }
            one(name, shape, &mut body);
        }
    }
    Ok(body)
}

fn one(id: &str, shape: Shape, body: &mut Vec<u8>) {
    body.extend_from_slice(b"{\"id\":");
    quote(id, body);
    match shape {
        Shape::OpenAi => {
            // SDKs require `created`; nobody knows it.
            body.extend_from_slice(b",\"object\":\"model\",\"owned_by\":\"tollgate\",\"created\":0");
        }
        Shape::Anthropic => {
            body.extend_from_slice(b",\"type\":\"model\",\"display_name\":");
            quote(id, body);
            body.extend_from_slice(b",\"created_at\":\"1970-01-01T00:00:00Z\"");
        }
    }
    body.push(b'}');
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::{Access, Model, Namespaces},
        key::AllowedModels,
        path::EscapedSlash,
    };

    fn pool() -> Pool {
        let names =
            [ModelName::Exact("smol".into()), ModelName::Exact("org/big".into()), ModelName::Prefix("gpt-".into())];
        let model = |name: ModelName| Rc::new(Model { counts_as: name.pattern(), name, targets: vec![], retries: 0 });
        Pool { access: Access::Required, consumers: Namespaces::All, models: names.map(model).into(), most_retries: 0 }
    }

    fn ask(path: &str, caller: &Caller, shape: Shape) -> Result<Value, Refusal> {
        let question = question(&Path::parse(path, EscapedSlash::InModelName).unwrap()).unwrap();
        answer(&question, &pool(), caller, shape).map(|body| serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn a_list_has_what_the_caller_may_use() {
        let mut caller = Caller::anonymous();
        let list = ask("/v1/models", &caller, Shape::OpenAi).unwrap();
        assert_eq!(list["data"].as_array().unwrap().len(), 2);
        caller.models = AllowedModels::Only(vec!["smol".into()]);
        let object = json!({"id": "smol", "object": "model", "created": 0, "owned_by": "tollgate"});
        assert_eq!(ask("/v1/models", &caller, Shape::OpenAi).unwrap(), json!({"object": "list", "data": [object]}));
        assert_eq!(ask("/v1/models/smol", &caller, Shape::OpenAi).unwrap(), object);
        let refused = Refusal::ModelNotAllowed { model: "org/big".into() };
        assert_eq!(ask("/v1/models/org%2Fbig", &caller, Shape::OpenAi), Err(refused));
        assert!(matches!(ask("/v1/models/gpt-4", &caller, Shape::OpenAi), Err(Refusal::ModelNotFound { .. })));
    }

    #[test]
    fn anthropic_has_its_own_list() {
        let list = ask("/v1/models", &Caller::anonymous(), Shape::Anthropic).unwrap();
        assert_eq!((&list["first_id"], &list["last_id"]), (&json!("smol"), &json!("org/big")));
        assert_eq!(list["data"][0]["created_at"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn other_paths_are_no_question() {
        for path in ["/v1/chat/completions", "/v1/modelsx", "/v1"] {
            assert_eq!(question(&Path::parse(path, EscapedSlash::InModelName).unwrap()), None);
        }
    }
}
