"""The examples that need nothing but the wheel; the others run in .ci/lm-eval and .ci/ray."""

import re
import subprocess
import sys

from conftest import ROOT


def run(cwd, *words, **rest):
    done = subprocess.run([sys.executable, *words], cwd=cwd, capture_output=True, text=True, timeout=300, **rest)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat(tmp_path):
    told = run(tmp_path, ROOT / "examples/chat.py", "story", "--tokens", "12", input="Hello!\nAnd then?\n")
    assert len([line for line in told.splitlines() if line.strip()]) >= 2, told


def test_fine_tune_and_serve(tmp_path):
    text = "The little tern flew over the grey sea. It looked for a small fish. "
    (tmp_path / "stories.txt").write_text("\n\n".join(f"Day {n}. " + text * 3 for n in range(8)))
    words = [ROOT / "examples/fine_tune_and_serve.py", "stories.txt", "out", "--steps", "8", "--prompt", "The little tern"]
    told = run(tmp_path, *words)
    before, after = re.search(r"([\d.]+) before, ([\d.]+) after", told).groups()
    assert float(after) < 0.7 * float(before), told
    assert "\nThe little tern" in told
