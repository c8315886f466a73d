"""Every block of Python in docs/python.md, run as it stands."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S)


def test_there_are_blocks():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("nth", range(len(BLOCKS)))
def test_a_block_runs(nth, tmp_path):
    (tmp_path / "items").symlink_to(ROOT / "testdata/golden/eval")
    done = subprocess.run([sys.executable, "-c", BLOCKS[nth]], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
