"""llm, the command: a model of its extra-openai-models.yaml, by its Python and by itself."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ANSWER, URL

with tempfile.TemporaryDirectory() as folder:
    os.environ["LLM_USER_PATH"] = folder
    Path(folder, "extra-openai-models.yaml").write_text(f"- model_id: tern\n  model_name: page\n  api_base: {URL}/v1\n  api_key_name: tern\n  supports_schema: true\n")
    words = [str(Path(sys.executable).parent / "llm"), "-m", "tern", "-o", "temperature", "0", "--key", "none", "Hello!"]
    for more in [], ["--no-stream"]:
        told = subprocess.run([*words, *more], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert told.returncode == 0 and told.stdout.strip() == ANSWER, told
    schema = subprocess.run([*words, "--schema", '{"type":"object","properties":{"city":{"enum":["Oslo","Bergen"]}},"required":["city"],"additionalProperties":false}'],
                            capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert '"city"' in schema.stdout, schema

    import llm

    answer = llm.get_model("tern").prompt("Hello!", key="none", temperature=0)
    assert "".join(answer) == ANSWER
