"""Asks a URL all the time on kept connections, and says what was not answered as it should be.

Ends when its standard input is closed, or after --seconds, and prints one line of JSON: {"requests": N, "wrong": [...]}.
"""

import argparse
import http.client
import json
import sys
import threading
import time
import urllib.parse

stop = threading.Event()


def ask(url, method, headers, body, status, counts):
    connection = None
    while not stop.is_set():
        try:
            # A connection that the server has announced to end is not used again.
            connection = connection or http.client.HTTPConnection(url.hostname, url.port or 80, timeout=30)
            connection.request(method, url.path or "/", body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != status:
                counts["wrong"].append(f"{time.time():.3f} status {answer.status}")
            if answer.will_close:
                connection.close()
                connection = None
        except (OSError, http.client.HTTPException) as error:
            counts["wrong"].append(f"{time.time():.3f} {type(error).__name__} {error}")
            if connection:
                connection.close()
            connection = None
        counts["requests"] += 1
        time.sleep(0.005)


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("url")
    args.add_argument("--seconds", type=float, default=60)
    args.add_argument("--threads", type=int, default=4)
    args.add_argument("--status", type=int, default=200)
    args.add_argument("--header", action="append", default=[], help="name: value")
    args.add_argument("--body", help="makes it a POST")
    args = args.parse_args()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    headers = dict(header.split(": ", 1) for header in args.header)
    url, method = urllib.parse.urlsplit(args.url), "POST" if args.body else "GET"
    counts = [{"requests": 0, "wrong": []} for _ in range(args.threads)]
    for one in counts:
        each = (url, method, headers, args.body, args.status, one)
        threading.Thread(target=ask, args=each, daemon=True).start()
    stop.wait(args.seconds)
    stop.set()
    time.sleep(0.5)
    wrong = [one for count in counts for one in count["wrong"]]
    print(json.dumps({"requests": sum(count["requests"] for count in counts), "wrong": wrong}), flush=True)


main()
