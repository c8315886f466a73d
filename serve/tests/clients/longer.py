"""Writes a GGUF again with another context length: longer.py IN OUT TOKENS."""

import sys

data = bytearray(open(sys.argv[1], "rb").read())
key = b".context_length" + (4).to_bytes(4, "little")  # 4: an unsigned 32-bit number
at = data.index(key) + len(key)
data[at : at + 4] = int(sys.argv[3]).to_bytes(4, "little")
open(sys.argv[2], "wb").write(data)
