"""2,000 prompts: one process of two threads, then two Ray actors of one thread; the same bytes, and the time of both.

    python bench/ray-batch.py [ROUNDS]

Told is the time of the work itself: of the actors from the first batch that begins to the last that ends, with all that
Ray does in between, without the start of the cluster and of the actors (as the other's time is without its loading).
"""
import os, statistics, sys, tempfile, time

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray  # noqa: E402

import tern  # noqa: E402
from tern.ray import TernProcessorConfig, build_processor, row_seed  # noqa: E402

WORDS = "Once upon a time|The dog|Tom and his mum went|One day, a little girl named Lily|A bird|In the park|Every morning".split("|")
ROWS = [{"id": nth, "prompt": f"{WORDS[nth % 7]} {nth % 13} " * (1 + nth % 5),
         "sampling_params": {"temperature": 0.0 if nth % 4 == 0 else 1.0, "max_tokens": 16 + nth * 37 % 97}} for nth in range(2000)]


def alone():
    with tern.LLM("story", threads=2, max_num_seqs=16) as llm:
        begin = time.perf_counter()
        params = [tern.SamplingParams(**row["sampling_params"], seed=row_seed(0, row)) for row in ROWS]
        outputs = llm.generate([row["prompt"] for row in ROWS], params, use_tqdm=False)
        took = time.perf_counter() - begin
    return {row["id"]: output.outputs[0].text for row, output in zip(ROWS, outputs)}, took, sum(
        len(output.outputs[0].token_ids) for output in outputs)


def actors():
    folder = tempfile.mkdtemp()

    def before(row):
        begin = os.path.join(folder, f"begin-{os.getpid()}")
        if not os.path.exists(begin):
            open(begin, "w").write(repr(time.time()))
        return {}

    process = build_processor(
        TernProcessorConfig("story", concurrency=2, threads=1, batch_size=50), preprocess=before,
        postprocess=lambda row: {"id": row["id"], "text": row["generated_text"], "end": time.time()})
    rows = process(ray.data.from_items(ROWS, override_num_blocks=8)).take_all()
    begins = [float(open(os.path.join(folder, name)).read()) for name in os.listdir(folder)]
    assert len(begins) == 2, begins
    assert sorted(row["id"] for row in rows) == list(range(2000))
    return {row["id"]: row["text"] for row in rows}, max(row["end"] for row in rows) - min(begins)


# One more than there are: Ray's own tasks need one that no actor holds.
ray.init(num_cpus=3, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
ratios = []
for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 3):
    one, first, tokens = alone()
    two, second = actors()
    assert one == two, "the texts differ"
    ratios.append(first / second)
    print(f"{tokens} tokens: one process {first:.2f} s ({tokens / first:.0f} tokens/s), two actors {second:.2f} s "
          f"({tokens / second:.0f} tokens/s), {ratios[-1]:.3f} of its rate; the same bytes", flush=True)
print(f"median {statistics.median(ratios):.3f}")
