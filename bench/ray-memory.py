"""What models in several actors of one node take: `python bench/ray-memory.py MODEL`. Proportional set size (PSS) counts a
page that N processes share as an N-th in each, so the sum over actors is what they take together."""
import os, sys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray  # noqa: E402


class Holder:
    def __init__(self, model, mmap):
        import tern

        self.model = tern.Model(model, threads=1, n_ctx=256, parallel=1, mmap=mmap) if model else None
        if self.model:
            # Reads all of the weights once.
            self.model.logits(list(range(5, 40)))

    def memory(self):
        told = dict(line.split(":", 1) for line in open("/proc/self/smaps_rollup") if ":" in line and "kB" in line)
        return {name: int(told[name].split()[0]) / 1024 for name in ("Rss", "Pss", "Private_Clean", "Private_Dirty")}


ray.init(num_cpus=8, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
for model, mmap in ((None, True), (sys.argv[1], True), (sys.argv[1], False)):
    for count in (1, 2, 4):
        actors = [ray.remote(Holder).options(num_cpus=1).remote(model, mmap) for _ in range(count)]
        ray.get([actor.memory.remote() for actor in actors])
        told = ray.get([actor.memory.remote() for actor in actors])
        what = "no model" if model is None else "mapped" if mmap else "not mapped (mmap=False)"
        print(f"{what}, {count} actors: PSS of all {sum(one['Pss'] for one in told):.0f} MiB, RSS of all {sum(one['Rss'] for one in told):.0f} MiB", flush=True)
        for actor in actors:
            ray.kill(actor)
