"""Calls through the official OpenAI and Anthropic SDKs, as an application makes them.

Reads one job as JSON from standard input and prints the results as JSON:

    {"url": "http://127.0.0.1:8080", "concurrency": 1,
     "calls": [{"api": "chat", "key": "...", "stream": false, "params": {...}}]}

Each result is {"answer": ..., "events": [...], "headers": {...}} or
{"error": {"classes": ["RateLimitError", "APIStatusError", ...], "status": 429, "headers": {...},
"body": ..., "text": "..."}}. Nothing is retried: a test sees the first answer.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import anthropic
import openai

# api -> (SDK, the method of its client). Streams come by the same method with stream=True.
APIS = {
    "chat": ("openai", lambda client: client.chat.completions),
    "completions": ("openai", lambda client: client.completions),
    "responses": ("openai", lambda client: client.responses),
    "embeddings": ("openai", lambda client: client.embeddings),
    "models": ("openai", lambda client: client.models),
    "messages": ("anthropic", lambda client: client.messages),
    "count_tokens": ("anthropic", lambda client: client.messages),
    "anthropic_models": ("anthropic", lambda client: client.models),
}
METHODS = {"models": "list", "anthropic_models": "list", "count_tokens": "count_tokens"}


def main():
    job = json.load(sys.stdin)
    with ThreadPoolExecutor(max_workers=job.get("concurrency", 1)) as pool:
        results = list(pool.map(lambda one: call(job["url"], one), job["calls"]))
    json.dump(results, sys.stdout)


def client_for(sdk, url, key):
    if sdk == "openai":
        return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=600)
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=600)


def call(url, one):
    sdk, part = APIS[one["api"]]
    client = client_for(sdk, url, one["key"])
    method = METHODS.get(one["api"], "create")
    params = dict(one.get("params", {}))
    if one.get("stream"):
        params["stream"] = True
    try:
        raw = getattr(part(client).with_raw_response, method)(**params)
        headers = {name.lower(): value for name, value in raw.headers.items()}
        parsed = raw.parse()
        if one.get("stream"):
            return {"events": [event.model_dump(mode="json") for event in parsed], "headers": headers}
        return {"answer": parsed.model_dump(mode="json"), "headers": headers}
    except (openai.APIError, anthropic.APIError) as error:
        return {"error": describe(error)}
    finally:
        client.close()


def describe(error):
    found = {"classes": [c.__name__ for c in type(error).__mro__], "message": str(error)}
    response = getattr(error, "response", None)
    if response is not None:
        found["status"] = response.status_code
        found["headers"] = {name.lower(): value for name, value in response.headers.items()}
        try:
            found["body"] = response.json()
        except Exception:
            found["text"] = response.text
    return found


if __name__ == "__main__":
    main()
