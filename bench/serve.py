#!/usr/bin/env python3
"""Streams against an OpenAI-compatible server: total tokens/s and time to first token.

    bench/serve.py http://127.0.0.1:8080 [http://127.0.0.1:8081] --streams 1,4,16 --prompt 64 --tokens 32 --rounds 3

Several servers take turns in every round; each line shows medians over the rounds, the last field of a line the ratio of
the first server's figures to this one's.

Every stream sends its own prompt of random token ids, asks for a fixed number of tokens and counts the pieces that
arrive. Only the standard library is used; the same script drives any server of this dialect.
"""

import argparse
import json
import random
import socket
import statistics
import threading
import time
from urllib.parse import urlparse


def stream(url, prompt, tokens, result, more=None):
    body = json.dumps({"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0, "ignore_eos": True,
                       "cache_prompt": False, "stream_options": {"include_usage": True}} | (more or {}))
    start = time.perf_counter()
    with socket.create_connection((url.hostname, url.port), timeout=600) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\n"
                  f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        rest, first, pieces, told, last = b"", None, 0, None, None
        while data := s.recv(65536):
            rest += data
            *lines, rest = rest.split(b"\n")
            for line in lines:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event.get("usage"):
                    told = event["usage"]["completion_tokens"]
                choice = (event.get("choices") or [{}])[0]
                if "text" in choice and not choice.get("finish_reason"):
                    pieces += 1
                    last = time.perf_counter()
                    first = first or last
    result.append((told or pieces, first - start, last - start))


def run(url, streams, prompt, tokens, vocab, rng, more=None):
    prompts = [[rng.randrange(1000, vocab) for _ in range(prompt)] for _ in range(streams)]
    results = []
    threads = [threading.Thread(target=stream, args=(url, p, tokens, results, more)) for p in prompts]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall = time.perf_counter() - start
    assert len(results) == streams, f"{streams - len(results)} streams failed"
    firsts = sorted(first for _, first, _ in results)
    # From the last first token to the end: all streams are being written.
    return {
        "streams": streams,
        "tokens_per_s": sum(count for count, _, _ in results) / wall,
        "decode_tokens_per_s": sum((count - 1) / (last - first) for count, first, last in results if count > 1),
        "first_token_median_s": firsts[len(firsts) // 2],
        "first_token_p95_s": firsts[min(len(firsts) - 1, int(0.95 * len(firsts)))],
    }


def prefix(args, rng):
    """Each round: a new beginning, asked with one end and then with another. The time to the first token, both times."""
    for url in args.urls:
        pairs = []
        for _ in range(args.rounds):
            beginning, times = [rng.randrange(1000, args.vocab) for _ in range(args.prefix)], []
            for _ in range(2):
                result = []
                end = [rng.randrange(1000, args.vocab) for _ in range(args.prompt)]
                stream(urlparse(url), beginning + end, 2, result, {"cache_prompt": True})
                times.append(result[0][1])
            pairs.append(times)
        first, second = (round(statistics.median(side), 3) for side in zip(*pairs))
        print(json.dumps({"url": url, "prefix": args.prefix, "first_s": first, "second_s": second, "ratio": round(second / first, 3)}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--streams", default="1,4,16")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", type=json.loads, help="fields to add to every request; half of the rounds go without, for the ratio")
    parser.add_argument("--prefix", type=int, help="ask twice with a beginning of so many tokens in common")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    if args.prefix:
        return prefix(args, rng)
    for streams in map(int, args.streams.split(",")):
        kinds = [(url, None) for url in args.urls] + [(url, json.dumps(args.more)) for url in args.urls if args.more]
        rounds = {kind: [] for kind in kinds}
        for _ in range(args.rounds):
            for url, more in kinds:
                add = more and json.loads(more)
                rounds[url, more].append(run(urlparse(url), streams, args.prompt, args.tokens, args.vocab, rng, add))
        first = None
        for (url, more), results in rounds.items():
            middle = {key: round(statistics.median(result[key] for result in results), 3) for key in results[0]}
            first = first or middle
            ratio = {key: round(first[key] / middle[key], 2) for key in middle if key != "streams"}
            print(json.dumps({"url": url, "more": more} | middle | {"prompt": args.prompt, "tokens": args.tokens, "ratio": ratio}), flush=True)


if __name__ == "__main__":
    main()
