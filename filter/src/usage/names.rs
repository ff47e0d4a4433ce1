//! The names that are known in answers, of all vendors together. Names of figures count only inside a usage object, so
//! no model can write its own bill.

use super::figures::Figure;

/// What a key outside a usage object means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Name {
    #[default]
    Unknown,
    Type,
    Usage,
    /// Responses API: the answer so far, inside an event.
    Response,
    /// Anthropic: the answer so far, inside an event.
    Message,
    Choices,
    /// Gemini's choices, and names by which other known answers are told.
    Output,
    /// What the client is given to read, whatever the API.
    Text,
    /// A piece of text in the Responses API. Elsewhere it is an object.
    Delta,
    /// A string or an array that is no text: pictures, sounds, vectors, signatures.
    Blob,
}

/// What a key inside a usage object means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageName {
    Figure(Figure),
    /// An object that holds parts of figures.
    Details,
}

// === impl Name ===

impl Name {
    pub fn of(key: &[u8]) -> Self {
        match key {
            b"type" => Self::Type,
            b"usage" | b"usageMetadata" => Self::Usage,
            b"response" => Self::Response,
            b"message" => Self::Message,
            b"choices" => Self::Choices,
            b"candidates" | b"output" | b"object" => Self::Output,
            b"delta" => Self::Delta,
            b"content" | b"text" | b"reasoning_content" | b"reasoning" | b"thinking" | b"partial_json"
            | b"arguments" | b"refusal" | b"transcript" => Self::Text,
            b"b64_json" | b"embedding" | b"data" | b"result" | b"signature" | b"encrypted_content" => Self::Blob,
            _ => Self::Unknown,
        }
    }

    /// Whether an answer with this name is of a known API. There, text is told by its name.
    pub fn is_known(self) -> bool {
        !matches!(self, Self::Unknown | Self::Text | Self::Blob | Self::Usage)
    }
}

// === impl UsageName ===

impl UsageName {
    pub fn of(key: &[u8]) -> Option<Self> {
        Some(Self::Figure(match key {
            b"prompt_tokens" | b"promptTokenCount" => Figure::Prompt,
            b"input_tokens" | b"inputTokens" => Figure::Input,
            b"completion_tokens" | b"output_tokens" | b"outputTokens" => Figure::Output,
            b"candidatesTokenCount" => Figure::Candidates,
            b"thoughtsTokenCount" => Figure::Thoughts,
            b"total_tokens" | b"totalTokens" | b"totalTokenCount" => Figure::Total,
            b"cachedContentTokenCount" => Figure::Cached,
            b"toolUsePromptTokenCount" => Figure::Tool,
            b"cache_read_input_tokens" | b"cacheReadInputTokens" => Figure::CacheRead,
            b"cache_creation_input_tokens" | b"cacheWriteInputTokens" => Figure::CacheWritten,
            b"prompt_tokens_details"
            | b"input_tokens_details"
            | b"input_token_details"
            | b"completion_tokens_details"
            | b"output_tokens_details"
            | b"output_token_details"
            | b"cache_creation" => return Some(Self::Details),
            _ => return None,
        }))
    }

    /// The figure that a key inside the details means.
    pub fn of_detail(key: &[u8]) -> Option<Figure> {
        match key {
            b"cached_tokens" => Some(Figure::Cached),
            b"reasoning_tokens" => Some(Figure::Reasoning),
            b"ephemeral_5m_input_tokens" => Some(Figure::Written5m),
            b"ephemeral_1h_input_tokens" => Some(Figure::Written1h),
            _ => None,
        }
    }
}
