//! What a client is told when it gets no answer from a backend. An error has the shape of the API that the client
//! speaks, so that the official SDKs raise their own exceptions. No text shows a key, a backend or an address.

use crate::json::quote;

/// The API in whose shape errors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    OpenAi,
    Anthropic,
}

/// Every refusal there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    NoKey {
        /// Who the client is, by its certificate.
        identity: Option<String>,
    },
    WrongKey,
    /// The key is that of another Consumer than the client's identity.
    OthersKey,
    /// The headers have keys that differ.
    SeveralKeys,
    /// Nobody can be known by what Envoy has verified of a JWT.
    Jwt(WhyNobody),
    ModelNotAllowed {
        model: String,
    },
    ModelNotFound {
        model: String,
    },
    Invalid {
        message: String,
        param: Option<&'static str>,
    },
    /// None: how much is taken, only Envoy knows.
    TooLarge {
        limit: Option<usize>,
    },
    /// A budget is used up. It is worth asking again after so many seconds.
    OverBudget {
        limit: String,
        retry_after_s: u64,
    },
    Unavailable(Unavailable),
    /// A TokenPolicy that names the route is refused.
    PolicyInvalid {
        policy: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyNobody {
    /// No Consumer asks for its claims, and there is no key and no identity of one.
    Unknown,
    /// It is that of another Consumer than the key or the identity.
    Others,
    /// Several Consumers ask for its claims.
    Several,
    /// It has more than is looked at.
    TooMuch,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    /// The first set of keys has not arrived.
    KeysNotLoaded,
    /// The route is not in the filter's configuration yet.
    Unconfigured,
    /// The budget cannot be checked.
    Ledger,
    /// No target of the model takes requests.
    NoTarget,
    /// Envoy could not get an answer. The status is the one that it chose.
    Backend(u32),
}

/// What kind of refusal it is. Clients see its name, and it is counted under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    InvalidApiKey,
    ModelNotAllowed,
    ModelNotFound,
    InvalidRequest,
    RequestTooLarge,
    RateLimitExceeded,
    BackendUnavailable,
    PolicyInvalid,
}

/// An answer that the filter itself gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u32,
    pub body: Vec<u8>,
    pub retry_after_s: Option<u64>,
}

// === impl Refusal ===

impl Refusal {
    /// What an error means to a client that Envoy itself made. `taken` is the size of a body that it takes, where that is known.
    pub fn of_envoy(status: u32, taken: Option<usize>) -> Self {
        match status {
            413 => Self::TooLarge { limit: taken },
            400..=499 => Self::Invalid { message: "the request could not be read".to_owned(), param: None },
            status => Self::Unavailable(Unavailable::Backend(status)),
        }
    }

    pub fn status(&self) -> u32 {
        match self {
            Self::NoKey { .. } | Self::WrongKey | Self::OthersKey | Self::SeveralKeys | Self::Jwt(_) => 401,
            Self::ModelNotAllowed { .. } => 403,
            Self::ModelNotFound { .. } => 404,
            Self::Invalid { .. } => 400,
            Self::TooLarge { .. } => 413,
            Self::OverBudget { .. } => 429,
            Self::Unavailable(Unavailable::Backend(status)) => *status,
            Self::Unavailable(_) | Self::PolicyInvalid { .. } => 503,
        }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::NoKey { .. } | Self::WrongKey | Self::OthersKey | Self::SeveralKeys | Self::Jwt(_) => {
                Code::InvalidApiKey
            }
            Self::ModelNotAllowed { .. } => Code::ModelNotAllowed,
            Self::ModelNotFound { .. } => Code::ModelNotFound,
            Self::Invalid { .. } => Code::InvalidRequest,
            Self::TooLarge { .. } => Code::RequestTooLarge,
            Self::OverBudget { .. } => Code::RateLimitExceeded,
            Self::Unavailable(_) => Code::BackendUnavailable,
            Self::PolicyInvalid { .. } => Code::PolicyInvalid,
        }
    }

    pub fn reply(&self, shape: Shape) -> Reply {
        let retry_after_s = match self {
            Self::OverBudget { retry_after_s, .. } => Some(*retry_after_s),
            Self::Unavailable(Unavailable::KeysNotLoaded | Unavailable::Unconfigured | Unavailable::Ledger) => Some(1),
            _ => None,
        };
        Reply { status: self.status(), body: self.body(shape), retry_after_s }
    }

    pub fn body(&self, shape: Shape) -> Vec<u8> {
        let message = self.message();
        let mut body = Vec::with_capacity(128 + message.len());
        match shape {
            Shape::OpenAi => {
                body.extend_from_slice(b"{\"error\":{\"message\":");
                quote(&message, &mut body);
                body.extend_from_slice(b",\"type\":");
                quote(self.openai_type(), &mut body);
                body.extend_from_slice(b",\"param\":");
                match self.param() {
                    Some(param) => quote(param, &mut body),
                    None => body.extend_from_slice(b"null"),
                }
                body.extend_from_slice(b",\"code\":");
                quote(self.code().name(), &mut body);
            }
            Shape::Anthropic => {
                body.extend_from_slice(b"{\"type\":\"error\",\"error\":{\"type\":");
                quote(self.anthropic_type(), &mut body);
                body.extend_from_slice(b",\"message\":");
                quote(&message, &mut body);
            }
        }
        body.extend_from_slice(b"}}");
        body
    }

    fn message(&self) -> String {
        match self {
            Self::NoKey { identity: None } => {
                "No API key was given. Send it as \"Authorization: Bearer KEY\" or in the header x-api-key.".to_owned()
            }
            Self::NoKey { identity: Some(identity) } => {
                format!("No API key was given, and your identity {} is that of no Consumer here.", shown(identity))
            }
            Self::OthersKey => "The API key is that of another Consumer than your identity.".to_owned(),
            Self::WrongKey => "The API key is not valid or has expired.".to_owned(),
            Self::SeveralKeys => "Several API keys were given that differ. Send one.".to_owned(),
            Self::Jwt(why) => why.message().to_owned(),
            Self::ModelNotAllowed { model } => {
                format!("You may not use the model `{}`.", shown(model))
            }
            Self::ModelNotFound { model } => {
                format!("The model `{}` does not exist here. GET /v1/models lists what does.", shown(model))
            }
            Self::Invalid { message, .. } => message.clone(),
            Self::TooLarge { limit: Some(limit) } => {
                format!("The request body is larger than the {limit} bytes that are taken.")
            }
            Self::TooLarge { limit: None } => "The request body is larger than this proxy holds.".to_owned(),
            Self::OverBudget { limit, retry_after_s } => {
                format!("The token budget \"{limit}\" is used up. Try again in {retry_after_s} s.")
            }
            Self::Unavailable(why) => why.message().to_owned(),
            Self::PolicyInvalid { policy } => format!(
                "The token policy \"{}\" of this route is not valid, so nobody is let through until it is mended. \
                Tell the operator of the gateway.",
                shown(policy)
            ),
        }
    }

    fn param(&self) -> Option<&'static str> {
        match self {
            Self::ModelNotAllowed { .. } | Self::ModelNotFound { .. } => Some("model"),
            Self::Invalid { param, .. } => *param,
            _ => None,
        }
    }

    fn openai_type(&self) -> &'static str {
        match self {
            Self::OverBudget { .. } => "tokens",
            Self::Unavailable(_) | Self::PolicyInvalid { .. } => "server_error",
            _ => "invalid_request_error",
        }
    }

    fn anthropic_type(&self) -> &'static str {
        match self {
            Self::NoKey { .. } | Self::WrongKey | Self::OthersKey | Self::SeveralKeys | Self::Jwt(_) => {
                "authentication_error"
            }
            Self::ModelNotAllowed { .. } => "permission_error",
            Self::ModelNotFound { .. } => "not_found_error",
            Self::Invalid { .. } => "invalid_request_error",
            Self::TooLarge { .. } => "request_too_large",
            Self::OverBudget { .. } => "rate_limit_error",
            Self::Unavailable(_) | Self::PolicyInvalid { .. } => "api_error",
        }
    }
}

// === impl Code ===

impl Code {
    pub const ALL: [Self; 8] = [
        Self::InvalidApiKey,
        Self::ModelNotAllowed,
        Self::ModelNotFound,
        Self::InvalidRequest,
        Self::RequestTooLarge,
        Self::RateLimitExceeded,
        Self::BackendUnavailable,
        Self::PolicyInvalid,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidApiKey => "invalid_api_key",
            Self::ModelNotAllowed => "model_not_allowed",
            Self::ModelNotFound => "model_not_found",
            Self::InvalidRequest => "invalid_request_error",
            Self::RequestTooLarge => "request_too_large",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::BackendUnavailable => "backend_unavailable",
            Self::PolicyInvalid => "policy_invalid",
        }
    }
}

// === impl WhyNobody ===

impl WhyNobody {
    fn message(self) -> &'static str {
        match self {
            Self::Unknown => "No API key was given, and the claims of your JWT are those of no Consumer here.",
            Self::Others => "Your JWT is that of another Consumer than your API key or your identity.",
            Self::Several => "Your JWT could be that of several Consumers here, so it is nobody's.",
            Self::TooMuch => "Your JWT has more than is looked at here.",
        }
    }
}

// === impl Unavailable ===

impl Unavailable {
    fn message(self) -> &'static str {
        match self {
            Self::KeysNotLoaded => "The gateway has not loaded its API keys yet. Try again in a moment.",
            Self::Unconfigured => "The gateway is taking over a new configuration. Try again in a moment.",
            Self::Ledger => "The token budget cannot be checked at the moment. Try again in a moment.",
            Self::NoTarget => "No backend takes requests for this model at the moment.",
            Self::Backend(504) => "The model's backend did not answer in time.",
            Self::Backend(_) => "The model's backend cannot be reached at the moment.",
        }
    }
}

/// A client's name for something, cut for a message.
fn shown(name: &str) -> String {
    name.chars().take(128).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(refusal: &Refusal, shape: Shape) -> Value {
        serde_json::from_slice(&refusal.body(shape)).unwrap()
    }

    #[test]
    fn openai_shape() {
        let refusal = Refusal::ModelNotFound { model: "gpt\"9".into() };
        assert_eq!(
            body(&refusal, Shape::OpenAi),
            json!({"error": {
                "message": "The model `gpt\"9` does not exist here. GET /v1/models lists what does.",
                "type": "invalid_request_error", "param": "model", "code": "model_not_found"}})
        );
    }

    #[test]
    fn a_body_is_too_large_for_a_limit_that_is_known_or_not() {
        let said = |taken| body(&Refusal::of_envoy(413, taken), Shape::OpenAi)["error"]["message"].to_string();
        assert!(said(Some(1000)).contains("1000 bytes"));
        assert!(said(None).contains("than this proxy holds"));
    }

    #[test]
    fn anthropic_shape() {
        assert_eq!(
            body(&Refusal::WrongKey, Shape::Anthropic),
            json!({"type": "error", "error": {
                "type": "authentication_error", "message": "The API key is not valid or has expired."}})
        );
    }

    #[test]
    fn each_refusal_has_its_status_and_code() {
        let model = || "m".to_owned();
        for (refusal, status, code) in [
            (Refusal::NoKey { identity: None }, 401, "invalid_api_key"),
            (Refusal::SeveralKeys, 401, "invalid_api_key"),
            (Refusal::ModelNotAllowed { model: model() }, 403, "model_not_allowed"),
            (Refusal::ModelNotFound { model: model() }, 404, "model_not_found"),
            (Refusal::Invalid { message: model(), param: None }, 400, "invalid_request_error"),
            (Refusal::of_envoy(413, Some(5)), 413, "request_too_large"),
            (Refusal::OverBudget { limit: model(), retry_after_s: 7 }, 429, "rate_limit_exceeded"),
            (Refusal::of_envoy(504, Some(5)), 504, "backend_unavailable"),
            (Refusal::Unavailable(Unavailable::KeysNotLoaded), 503, "backend_unavailable"),
            (Refusal::PolicyInvalid { policy: model() }, 503, "policy_invalid"),
        ] {
            let reply = refusal.reply(Shape::OpenAi);
            let told: Value = serde_json::from_slice(&reply.body).unwrap();
            assert_eq!((reply.status, told["error"]["code"].as_str()), (status, Some(code)));
        }
        let over = Refusal::OverBudget { limit: model(), retry_after_s: 7 };
        assert_eq!(over.reply(Shape::OpenAi).retry_after_s, Some(7));
    }
}
