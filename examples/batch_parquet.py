"""Answers every row of a Parquet file (or a folder of them) on a Ray cluster, and goes on where it stopped when it was killed.

    pip install "ray[data]==2.60.0" wheels/tern-*.whl
    python examples/batch_parquet.py prompts.parquet answers --model story --actors 2

The file has a column `id`, different in each row, and a column `prompt`. The folder `answers` gets Parquet files with both and the
answer; beside it `answers.done` keeps which rows are finished. Run again with the same words, the rest is done.
"""

import argparse
import os

import ray
from ray.data.checkpoint import CheckpointConfig

from tern.ray import TernProcessorConfig, build_processor


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--model", default="story")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each actor")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer, at most")
    parser.add_argument("--batch", type=int, default=64, help="rows of a batch, of an output file and of a checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    told = parser.parse_args()

    if "RAY_ADDRESS" not in os.environ:
        # A cluster of this machine alone. Ray's own tasks need CPUs, too, that no actor holds.
        ray.init(num_cpus=told.actors * told.threads + 2)
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=everywhere(told.out) + ".done", delete_checkpoint_on_success=False)
    process = build_processor(
        TernProcessorConfig(told.model, threads=told.threads, concurrency=told.actors, batch_size=told.batch, seed=told.seed),
        preprocess=lambda row: {
            "messages": [{"role": "user", "content": row["prompt"]}],
            "sampling_params": {"temperature": 0.7, "max_tokens": told.tokens},
        },
        postprocess=lambda row: {"id": row["id"], "question": row["messages"][0]["content"], "answer": row["generated_text"]},
    )
    process(ray.data.read_parquet(everywhere(told.source))).write_parquet(everywhere(told.out))


def everywhere(path):
    """A path that does not depend on the folder that a process runs in."""
    return path.rstrip("/") if "://" in path else os.path.abspath(path)


if __name__ == "__main__":
    main()
