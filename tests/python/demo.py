"""The demo's calls, with the official OpenAI SDK as an application uses it.

    demo.py URL tour         RESEARCH_KEY and TRIAL_KEY are in the environment
    demo.py URL failover

Every figure printed is of the calls made here and now.
"""

import os
import sys
import time

from openai import APIStatusError, OpenAI

QUESTION = "Name three uses of a lighthouse, in one sentence."
WIDTH = 96


def main():
    url, part = sys.argv[1:3]
    research = client(url, os.environ["RESEARCH_KEY"])
    if part == "tour":
        title("1. A chat")
        ask(research)
        title("2. The same as a stream")
        stream(research)
        title("3. With a wrong key")
        refused(client(url, "not-a-key"))
        title("4. trial-app asks until its 600 tokens are used up")
        until_refused(client(url, os.environ["TRIAL_KEY"]))
    else:
        ask(research)


def client(url, key):
    return OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=120)


def messages():
    return [{"role": "user", "content": QUESTION}]


def ask(sdk):
    started = time.monotonic()
    raw = sdk.chat.completions.with_raw_response.create(model="smol", messages=messages(), max_tokens=40)
    took = time.monotonic() - started
    answer = raw.parse()
    say(f"> {QUESTION}")
    say(f"< {line(answer.choices[0].message.content)}")
    usage = answer.usage
    left = raw.headers.get("x-ratelimit-remaining-tokens")
    note(f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, {took:.2f} s, {left} tokens left")


def stream(sdk):
    started = time.monotonic()
    first, pieces, usage = None, [], None
    options = {"include_usage": True}
    for chunk in sdk.chat.completions.create(
        model="smol", messages=messages(), max_tokens=40, stream=True, stream_options=options
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.monotonic() - started
            pieces.append(chunk.choices[0].delta.content)
        usage = chunk.usage or usage
    took = time.monotonic() - started
    say(f"< {line(''.join(pieces))}")
    note(
        f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, the first text after {first:.2f} s, "
        f"all {len(pieces)} pieces after {took:.2f} s"
    )


def refused(sdk):
    try:
        sdk.chat.completions.create(model="smol", messages=messages(), max_tokens=5)
    except APIStatusError as error:
        exception(error)
    else:
        sys.exit("a wrong key was let in")


def until_refused(sdk):
    answers = tokens = 0
    # A budget in use up ends in 429 long before this.
    for _ in range(100):
        try:
            answer = sdk.chat.completions.create(model="smol", messages=messages(), max_tokens=40)
        except APIStatusError as error:
            say(f"  {answers} answers with {tokens} tokens, then:")
            exception(error)
            return
        answers += 1
        tokens += answer.usage.total_tokens
    sys.exit(f"{answers} answers with {tokens} tokens, and never a 429")


def exception(error):
    say(f"  {type(error).__name__} {error.status_code}: {line(error.body.get('message', ''))}")
    retry = error.response.headers.get("retry-after")
    note(f"code {error.code}" + (f", retry-after {retry} s" if retry else ""))


def line(text):
    text = " ".join((text or "").split())
    return text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"


def title(text):
    print(f"\n{text}")


def say(text):
    print(f"   {text}", flush=True)


def note(text):
    print(f"     ({text})", flush=True)


if __name__ == "__main__":
    main()
