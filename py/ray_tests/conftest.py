import os

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # noqa: E402


@pytest.fixture(scope="session")
def cluster():
    """Ray on this machine, as if it had four cores: what is tested is what comes out, not how fast."""
    ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


def prompts(count):
    """Rows that differ, some alike in their beginnings; most sample, some are greedy."""
    words = ["Once upon a time", "The dog", "Tom and his mum went", "One day, a little girl named Lily", "A bird"]
    rows = []
    for nth in range(count):
        params = {"max_tokens": 4 + nth * 7 % 21, "temperature": 0.0 if nth % 5 == 0 else 1.0}
        rows.append({"id": nth, "prompt": f"{words[nth % 5]} {nth % 11}", "sampling_params": params})
    return rows
