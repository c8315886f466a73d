"""Starts `tern serve` with the flags of `llama-server`: llama-server.py TERN MODEL FLAGS. A flag without a counterpart that
changes what is served ends it with a word, and the test that needs it with an error."""

import os
import sys

tern, model, *flags = sys.argv[1:]
# Which model is asked for does not matter, there is this one; the rest is always on, or never there.
ignored = {"--hf-repo": 1, "--hf-file": 1, "--model": 1, "--offline": 0, "--batch-size": 1, "--ubatch-size": 1, "--n-predict": 1,
           "--cont-batching": 0, "--metrics": 0, "--slots": 0, "--no-slots": 0, "--jinja": 0, "--no-jinja": 0, "--verbose": 0,
           "--kv-unified": 0, "--swa-full": 0, "--cache-ram": 1, "--no-cache-idle-slots": 0, "--threads": 1, "--tags": 1}
renamed = {"--no-ui": "--no-page"}
kept = {"--port", "--host", "--temp", "--seed", "--alias", "--api-key"}
out, room, parallel = [], 512, 1
while flags:
    flag = flags.pop(0)
    if flag in kept:
        out += [flag, flags.pop(0)]
    elif flag in renamed:
        out.append(renamed[flag])
    elif flag == "--ctx-size":
        room = int(flags.pop(0))
    elif flag == "--parallel":
        parallel = int(flags.pop(0))
    elif flag in ignored:
        del flags[: ignored[flag]]
    else:
        sys.exit(f"{flag} has no counterpart")
# There it is the room of all texts together.
out += ["--parallel", str(parallel), "--ctx-size", str(room // parallel), "--threads", "1", "--log", "none"]
os.execv(tern, [tern, "serve", model, *out])
