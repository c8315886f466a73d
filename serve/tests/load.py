#!/usr/bin/env python3
"""64 streams at once, some of whose readers leave or are slow: no answer is lost, garbled or another's, memory stays flat.

    serve/tests/load.py TERN [SECONDS] [STREAMS]

Starts `TERN serve` with the model of testdata/models/page. Every stream asks for one of several greedy texts and compares what comes with the text that the
same request gave alone; a third of them leave in the middle, a few read slowly. At the end all pages must be free within
a second, the memory as it was after the first quarter, and the server must answer as before.
"""

import asyncio
import json
import random
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TERN = sys.argv[1]
MODEL = Path(__file__).parents[2] / "testdata/models/page/page.gguf"
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 60
STREAMS = int(sys.argv[3]) if len(sys.argv) > 3 else 64
QUESTIONS = ["Hello!", "Tell me a story.", "Who are you?", "What is Tern?", "Thank you.", "What can you do?"]


def body(question, stream, seed):
    more = {"temperature": 0} if seed == 0 else {"temperature": 1.3, "top_k": 0, "top_p": 1, "min_p": 0, "seed": seed}
    return json.dumps({"messages": [{"role": "user", "content": question}], "stream": stream} | more).encode()


def get(url):
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read().decode()


def metric(url, name):
    return float(re.search(rf"^{re.escape(name)} (\S+)$", get(url + "/metrics"), re.M)[1])


def memory(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) // 1024


class Load:
    def __init__(self, url, alone):
        self.url, self.alone, self.host, self.port = url, alone, *url.split("//")[1].split(":")
        self.whole = self.left = self.slow = self.busy = 0
        self.firsts, self.faults, self.health = [], [], []

    async def one(self, rng):
        key = rng.choice(list(self.alone))
        leaves, slow = rng.random() < 0.33, rng.random() < 0.1
        data = body(key[0], True, key[1])
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
        try:
            writer.write(b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
            await writer.drain()
            status = (await reader.readline()).split()[1]
            if status == b"429":
                self.busy += 1
                return
            text, ended, stop_after = "", False, rng.randrange(1, 40) if leaves else None
            while line := await reader.readline():
                if line == b"data: [DONE]\n":
                    ended = True
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    self.faults.append(event)
                    return
                piece = event["choices"][0]["delta"].get("content")
                if piece:
                    if not text:
                        self.firsts.append(time.perf_counter() - start)
                    text += piece
                    if not self.alone[key].startswith(text):
                        self.faults.append((key, text[-80:]))
                        return
                    if stop_after is not None:
                        stop_after -= 1
                        if stop_after == 0:
                            self.left += 1
                            return
                    if slow and rng.random() < 0.1:
                        await asyncio.sleep(0.5)
            if not ended or text != self.alone[key]:
                self.faults.append((key, "cut short", status, text[-80:]))
            self.whole += 1
            self.slow += slow
        finally:
            writer.close()

    async def client(self, seed, until):
        rng = random.Random(seed)
        while time.time() < until:
            try:
                await asyncio.wait_for(self.one(rng), 120)
            except (OSError, asyncio.TimeoutError) as error:
                self.faults.append(repr(error))

    async def watch(self, pid, until):
        seen = []
        while time.time() < until:
            start = time.perf_counter()
            await asyncio.to_thread(get, self.url + "/health")
            self.health.append(time.perf_counter() - start)
            seen.append(memory(pid))
            await asyncio.sleep(0.5)
        return seen

    async def run(self, pid):
        until = time.time() + SECONDS
        clients = [self.client(seed, until) for seed in range(STREAMS)]
        seen, *_ = await asyncio.gather(self.watch(pid, until), *clients)
        return seen


def main():
    server = subprocess.Popen([TERN, "serve", MODEL, "--port", "0", "--log", "none"], stderr=subprocess.PIPE, text=True)
    try:
        url = server.stderr.readline().split()[-1]
        while True:
            try:
                get(url + "/health")
                break
            except OSError:
                time.sleep(0.1)

        def whole(key):
            request = urllib.request.Request(url + "/v1/chat/completions", body(key[0], False, key[1]))
            return json.load(urllib.request.urlopen(request, timeout=60))["choices"][0]["message"]["content"]

        keys = [(question, seed) for question in QUESTIONS for seed in range(3)]
        alone = {key: whole(key) for key in keys}
        load = Load(url, alone)
        seen = asyncio.run(load.run(server.pid))
        start = time.time()
        while metric(url, "tern_kv_pages_used") or metric(url, "tern_requests_active"):
            assert time.time() - start < 1, "pages are still used a second after the last reader left"
            time.sleep(0.02)
        assert {key: whole(key) for key in keys} == alone, "texts changed under load"
        load.firsts.sort()
        figures = {
            "streams": STREAMS, "seconds": SECONDS, "whole": load.whole, "left": load.left, "slow": load.slow,
            "refused_busy": load.busy, "first_token_p50_ms": round(1e3 * load.firsts[len(load.firsts) // 2], 1),
            "first_token_p95_ms": round(1e3 * load.firsts[int(0.95 * len(load.firsts))], 1),
            "health_worst_ms": round(1e3 * max(load.health), 1), "memory_mb": [seen[len(seen) // 4], seen[-1]],
            "tokens": int(metric(url, "tern_generated_tokens_total")), "cancelled": int(metric(url, 'tern_answers_total{end="cancelled"}')),
        }
        print(json.dumps(figures))
        assert not load.faults, load.faults[:5]
        assert load.whole > STREAMS and seen[-1] < seen[len(seen) // 4] + 32, seen
    finally:
        server.terminate()
        assert server.wait(40) == 0, server.returncode


if __name__ == "__main__":
    main()
