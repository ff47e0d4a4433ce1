//! Providers as LiteLLM names them: which of our schemas is their API's, where they are, and which variable has their key.

use crate::objects::Schema;

/// A provider whose API is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) name: &'static str,
    pub(super) schema: Schema,
    pub(super) base: Base,
    /// Where LiteLLM finds a key that is not given, the first that is set.
    pub(super) variables: &'static [&'static str],
    /// How the names of its own models begin, where that is known.
    pub(super) families: &'static [&'static str],
}

/// What its `api_base` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Base {
    /// The whole base of OpenAI's paths. With a default for providers that are in one place.
    Whole(Option<&'static str>),
    /// The same without this ending, which LiteLLM adds or has an API of its own in place of.
    Before(&'static str, Option<&'static str>),
}

/// Providers with OpenAI's API in one place: name, base, variables of the key.
type Row = (&'static str, Option<&'static str>, &'static [&'static str]);

const OPENAI_LIKE: [Row; 37] = [
    ("baseten", Some("https://inference.baseten.co/v1"), &["BASETEN_API_KEY"]),
    ("cerebras", Some("https://api.cerebras.ai/v1"), &["CEREBRAS_API_KEY"]),
    ("codestral", Some("https://codestral.mistral.ai/v1"), &["CODESTRAL_API_KEY"]),
    ("custom_openai", None, &[]),
    ("dashscope", Some("https://dashscope.aliyuncs.com/compatible-mode/v1"), &["DASHSCOPE_API_KEY"]),
    ("deepinfra", Some("https://api.deepinfra.com/v1/openai"), &["DEEPINFRA_API_KEY"]),
    ("deepseek", Some("https://api.deepseek.com/beta"), &["DEEPSEEK_API_KEY"]),
    ("docker_model_runner", Some("http://localhost:22088/engines/llama.cpp"), &[]),
    ("featherless_ai", Some("https://api.featherless.ai/v1"), &["FEATHERLESS_AI_API_KEY"]),
    ("fireworks_ai", Some("https://api.fireworks.ai/inference/v1"), &["FIREWORKS_API_KEY", "FIREWORKS_AI_API_KEY"]),
    ("friendliai", Some("https://api.friendli.ai/serverless/v1"), &["FRIENDLIAI_API_KEY", "FRIENDLI_TOKEN"]),
    ("github", Some("https://models.inference.ai.azure.com"), &["GITHUB_API_KEY"]),
    ("groq", Some("https://api.groq.com/openai/v1"), &["GROQ_API_KEY"]),
    ("hosted_vllm", None, &[]),
    ("hyperbolic", Some("https://api.hyperbolic.xyz/v1"), &["HYPERBOLIC_API_KEY"]),
    ("lambda_ai", Some("https://api.lambda.ai/v1"), &["LAMBDA_API_KEY"]),
    ("litellm_proxy", None, &[]),
    ("llamafile", Some("http://127.0.0.1:8080/v1"), &[]),
    ("lm_studio", None, &[]),
    ("meta_llama", Some("https://api.llama.com/compat/v1"), &["LLAMA_API_KEY"]),
    ("mistral", Some("https://api.mistral.ai/v1"), &["MISTRAL_API_KEY"]),
    ("moonshot", Some("https://api.moonshot.ai/v1"), &["MOONSHOT_API_KEY"]),
    ("nebius", Some("https://api.studio.nebius.ai/v1"), &["NEBIUS_API_KEY"]),
    ("novita", Some("https://api.novita.ai/v3/openai"), &["NOVITA_API_KEY"]),
    ("nscale", Some("https://inference.api.nscale.com/v1"), &["NSCALE_API_KEY"]),
    ("nvidia_nim", Some("https://integrate.api.nvidia.com/v1"), &["NVIDIA_NIM_API_KEY"]),
    ("openai_like", None, &[]),
    ("openrouter", Some("https://openrouter.ai/api/v1"), &["OPENROUTER_API_KEY", "OR_API_KEY"]),
    ("perplexity", Some("https://api.perplexity.ai"), &["PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"]),
    ("sambanova", Some("https://api.sambanova.ai/v1"), &["SAMBANOVA_API_KEY"]),
    ("text-completion-openai", Some("https://api.openai.com/v1"), &["OPENAI_API_KEY"]),
    (
        "together_ai",
        Some("https://api.together.ai/v1"),
        &["TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHERAI_API_KEY"],
    ),
    ("vercel_ai_gateway", Some("https://ai-gateway.vercel.sh/v1"), &["VERCEL_AI_GATEWAY_API_KEY"]),
    ("volcengine", Some("https://ark.cn-beijing.volces.com/api/v3"), &["VOLCENGINE_API_KEY", "ARK_API_KEY"]),
    ("xai", Some("https://api.x.ai/v1"), &["XAI_API_KEY"]),
    ("xinference", None, &[]),
    ("zai", Some("https://api.z.ai/api/paas/v4"), &["ZAI_API_KEY"]),
];

const OPENAI: Provider = Provider {
    name: "openai",
    schema: Schema::OpenAI,
    base: Base::Whole(Some("https://api.openai.com/v1")),
    variables: &["OPENAI_API_KEY"],
    families: &[
        "gpt-",
        "chatgpt-",
        "o1",
        "o3",
        "o4",
        "text-embedding-",
        "whisper-",
        "tts-",
        "dall-e-",
        "omni-moderation-",
    ],
};
const ANTHROPIC: Provider = Provider {
    name: "anthropic",
    schema: Schema::Anthropic,
    base: Base::Before("/v1", Some("https://api.anthropic.com")),
    variables: &["ANTHROPIC_API_KEY"],
    families: &["claude-"],
};
const AZURE: Provider = Provider {
    name: "azure",
    schema: Schema::AzureOpenAI,
    base: Base::Before("/openai/v1", None),
    variables: &["AZURE_API_KEY"],
    families: &[],
};
/// Its own API is another one; below /v1 it has OpenAI's.
const OLLAMA: Provider = Provider {
    name: "ollama",
    schema: Schema::OpenAI,
    base: Base::Before("/v1", Some("http://localhost:11434")),
    variables: &[],
    families: &[],
};

/// Providers of LiteLLM's whose API is none of ours, for those whose name stands before a model.
const OTHERS: [&str; 30] = [
    "ai21",
    "aleph_alpha",
    "azure_ai",
    "azure_text",
    "bedrock",
    "clarifai",
    "cloudflare",
    "cohere",
    "cohere_chat",
    "databricks",
    "gemini",
    "github_copilot",
    "huggingface",
    "infinity",
    "jina_ai",
    "maritalk",
    "nlp_cloud",
    "oci",
    "palm",
    "petals",
    "predibase",
    "replicate",
    "sagemaker",
    "sagemaker_chat",
    "snowflake",
    "triton",
    "vertex_ai",
    "vertex_ai_beta",
    "voyage",
    "watsonx",
];

/// What stands before a model's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named<'a> {
    Ours(Provider),
    /// LiteLLM has a translation for it.
    Other(&'a str),
    /// LiteLLM would not know it either, unless its list of models has the name.
    Unknown,
}

/// The provider of this name.
pub(super) fn named(name: &str) -> Named<'_> {
    match name {
        "openai" => return Named::Ours(OPENAI),
        "anthropic" => return Named::Ours(ANTHROPIC),
        "azure" => return Named::Ours(AZURE),
        "ollama" | "ollama_chat" => return Named::Ours(OLLAMA),
        _ => {}
    }
    if let Some((name, base, variables)) = OPENAI_LIKE.iter().find(|row| row.0 == name).copied() {
        return Named::Ours(Provider {
            name,
            schema: Schema::OpenAI,
            base: Base::Whole(base),
            variables,
            families: &[],
        });
    }
    if OTHERS.contains(&name) { Named::Other(name) } else { Named::Unknown }
}

/// The provider and the name that it knows the model by. `explicit` is `custom_llm_provider`.
pub(super) fn of<'a>(model: &'a str, explicit: Option<&'a str>) -> (Named<'a>, &'a str) {
    let before = model.split_once('/');
    if let Some(explicit) = explicit {
        let model = before.filter(|(name, _)| *name == explicit).map_or(model, |(_, rest)| rest);
        return (named(explicit), model);
    }
    if let Some((name, rest)) = before {
        let named = named(name);
        return (named, if named == Named::Unknown { model } else { rest });
    }
    let known = [OPENAI, ANTHROPIC];
    let family = known.into_iter().find(|provider| provider.families.iter().any(|family| model.starts_with(family)));
    (family.map_or(Named::Unknown, Named::Ours), model)
}

/// What to do about a provider that has none of our schemas.
pub(super) fn hint(name: &str) -> &'static str {
    match name {
        "gemini" => {
            "Gemini has OpenAI's API too: schema OpenAI, generativelanguage.googleapis.com:443, pathPrefix /v1beta/openai"
        }
        "azure_ai" => "where the resource has Azure's v1 API (/openai/v1), import it as azure/DEPLOYMENT",
        "huggingface" => "Hugging Face has OpenAI's API too: schema OpenAI, router.huggingface.co:443, pathPrefix /v1",
        "databricks" => "Databricks has OpenAI's API too: schema OpenAI, pathPrefix /serving-endpoints",
        "cohere" | "cohere_chat" => {
            "Cohere has OpenAI's API too: schema OpenAI, api.cohere.ai:443, pathPrefix /compatibility/v1"
        }
        _ => "keep LiteLLM for it, behind a ModelBackend of schema OpenAI",
    }
}

/// The name that the provider is asked for.
pub(super) fn upstream(provider: Provider, model: &str) -> String {
    // LiteLLM writes short names of Fireworks out.
    if provider.name == "fireworks_ai" && !model.contains('*') && !model.starts_with("accounts/") {
        return format!("accounts/fireworks/models/{model}");
    }
    model.to_owned()
}
