"""Every block of Python in docs/ray.md, and the example, run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet as parquet
import pytest
from conftest import prompts

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/ray.md").read_text(), re.M | re.S)


def test_there_are_blocks():
    assert len(BLOCKS) >= 4


@pytest.mark.parametrize("nth", range(len(BLOCKS)))
def test_a_block_runs(nth, tmp_path):
    # As on a machine of four cores, whatever this one has.
    code = "import ray; ray.init(num_cpus=4, include_dashboard=False, object_store_memory=200 << 20)\n" + BLOCKS[nth]
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_example_over_a_parquet_file(tmp_path):
    rows = [{"id": row["id"], "prompt": row["prompt"]} for row in prompts(60)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "prompts.parquet")
    words = [sys.executable, str(ROOT / "examples/batch_parquet.py"), "prompts.parquet", "answers", "--batch", "16", "--tokens", "8",
             "--actors", "1"]
    texts = []
    # The second time nothing is left to do.
    for _ in range(2):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        files = sorted((tmp_path / "answers").glob("*.parquet"))
        found = sorted((row for file in files for row in parquet.read_table(file).to_pylist()), key=lambda row: row["id"])
        assert [row["id"] for row in found] == list(range(60)) and all(row["answer"] for row in found)
        assert [row["question"] for row in found] == [row["prompt"] for row in rows]
        texts.append(found)
    assert texts[0] == texts[1]
