"""A real LLM server: llama.cpp with a small model, on a port of its own choice.

Prints one line of JSON when it is ready: {"url": ..., "pid": ...}. Ends on SIGTERM or SIGINT, and
with --with-parent also when the process that started it dies, whatever way.
"""

import argparse
import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import urllib.request


def main():
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--model", required=True, help="GGUF file")
    args.add_argument("--host", default="127.0.0.1", help="address to listen on")
    args.add_argument("--port", type=int, default=0, help="0: a free one")
    args.add_argument("--parallel", type=int, default=8, help="requests at a time")
    args.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    args.add_argument("--embeddings", action="store_true", help="serve embeddings as well")
    args.add_argument("--with-parent", action="store_true")
    args = args.parse_args()
    if args.with_parent:
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.hostnames = [args.host]
    params.port = args.port or free_port()
    params.n_parallel = args.parallel
    params.n_ctx = 1024 * args.parallel
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = args.threads
    if args.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    server = xllamacpp.Server(params)
    url = server.listening_address
    wait_for_health(url)

    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    print(json.dumps({"url": url, "pid": os.getpid()}), flush=True)
    over.wait()
    # The server's own end waits for running requests; whoever ends it here does not.
    os._exit(0)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_health(url):
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=20) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit(f"the model server at {url} was not healthy within two minutes")


if __name__ == "__main__":
    main()
