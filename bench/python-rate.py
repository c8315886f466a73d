#!/usr/bin/env python3
"""256 prompts of 4 to 123 tokens, 32 tokens (`--written`) written to each, greedy, in turns: LLM.generate, the same one by one, the engine's own
batch, and llama-cpp-python over the same file. Tokens written a second, each round and their medians.

    python bench/python-rate.py MODEL --batch target/release/examples/batch [--llama-cpp PYTHON] [--prompts 256] [--rounds 3]

`--batch` is the example of that name (`cargo build --release -p tern --example batch`, whose prompts are the same), `--llama-cpp` an
interpreter that has that package. One process runs at a time.
"""
import argparse
import statistics
import subprocess
import sys
import time



def prompts(start, count):
    """Ids in no order, another beginning for each: nothing is known from the prompt before."""
    return [[(i * 7919 + (n + int(1000 * start)) * 104729 + 11) % 4000 + 50 for i in range(4 + n * 37 % 120)] for n in range(count)]


def timed(work, batches):
    start = time.perf_counter()
    count = sum(work(ids) for ids in batches)
    return count / (time.perf_counter() - start)


def ours(told):
    """Both ways in one process, in turns; a line for each round."""
    import tern

    llm = tern.LLM(told.model, threads=told.threads, max_num_seqs=told.parallel, max_model_len=512,
                   draft_tokens=told.draft_tokens, kv_memory=told.kv_memory)
    params = tern.SamplingParams(temperature=0, max_tokens=told.written, ignore_eos=True)

    def work(many):
        asked = [{"prompt_token_ids": ids} for ids in many]
        return sum(len(one.outputs[0].token_ids) for one in llm.generate(asked, params, use_tqdm=False))

    # The memory for keys and values is full then, on both sides.
    work(prompts(0.5, min(64, told.prompts)))
    for nth in range(told.rounds):
        # Other prompts each time: 1000 beginnings for a set of 256.
        together = timed(work, [prompts(2 * nth % 4, told.prompts)])
        alone = timed(work, [[ids] for ids in prompts((2 * nth + 1) % 4, told.prompts)])
        print(f"{together:.1f} {alone:.1f}", flush=True)


def theirs(told):
    """llama-cpp-python has no batch behind its class: one by one."""
    import llama_cpp

    llm = llama_cpp.Llama(told.model, n_ctx=512, n_threads=told.threads, n_threads_batch=told.threads, n_batch=512, verbose=False)

    def work(many):
        done = 0
        for ids in many:
            # What it knows of the last prompt would help; here no beginning recurs.
            stream = llm.generate(ids, temp=0.0)
            done += sum(1 for _, _ in zip(range(told.written), stream))
            stream.close()
        return done

    work(prompts(0.5, 1))
    for nth in range(told.rounds):
        print(f"{timed(work, [[ids] for ids in prompts(nth % 4, told.prompts)]):.1f}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--batch")
    parser.add_argument("--llama-cpp")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--written", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--draft-tokens", type=int, default=15, help="0: what repeats itself is not guessed at")
    parser.add_argument("--kv-memory", type=int, default=1 << 31, help="bytes for keys and values: the same for both")
    parser.add_argument("--pause", type=int, default=200, help="of the engine's batch, in milliseconds: the package's")
    parser.add_argument("--only", choices=["ours", "theirs"], help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.only:
        return {"ours": ours, "theirs": theirs}[told.only](told)

    def ask(command):
        return [[float(word) for word in line.split()] for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]

    again = [__file__, told.model, "--prompts", str(told.prompts), "--rounds", "1", "--threads", str(told.threads), "--parallel", str(told.parallel), "--draft-tokens", str(told.draft_tokens),
             "--kv-memory", str(told.kv_memory), "--written", str(told.written)]
    found = {}
    for nth in range(told.rounds):
        ((together, alone),) = ask([sys.executable, *again, "--only", "ours"])
        row = {"LLM.generate": together, "one by one": alone}
        if told.batch:
            ((row["the engine's batch"],),) = ask([told.batch, told.model, *map(str, (told.threads, told.parallel, told.pause, 1, told.prompts, told.draft_tokens, told.kv_memory, told.written))])
        if told.llama_cpp:
            ((row["llama-cpp-python"],),) = ask([told.llama_cpp, *again, "--only", "theirs"])
        print(", ".join(f"{name} {value:.1f}" for name, value in row.items()), flush=True)
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    print("medians: " + ", ".join(f"{name} {statistics.median(values):.1f}" for name, values in found.items()))


if __name__ == "__main__":
    main()
