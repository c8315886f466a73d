"""A batch job whose finished blocks are checkpointed: `job.py IN OUT CHECKPOINT`. Run again after it was killed, it goes on."""

import os
import sys
import time

import ray
from ray.data.checkpoint import CheckpointConfig

from tern.ray import TernProcessorConfig, build_processor

source, out, checkpoint = sys.argv[1:4]
actors = int(os.environ.get("ACTORS", "2"))
ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
context = ray.data.DataContext.get_current()
context.enable_progress_bars = False
context.checkpoint_config = CheckpointConfig(id_column="id", checkpoint_path=checkpoint, delete_checkpoint_on_success=False)


def slow(row):
    time.sleep(float(os.environ.get("SLOW", "0")))
    return {}


process = build_processor(
    TernProcessorConfig("story", concurrency=actors, batch_size=16),
    preprocess=slow,
    postprocess=lambda row: {"id": row["id"], "generated_text": row["generated_text"]},
)
process(ray.data.read_parquet(source)).write_parquet(out)
print("done", flush=True)
