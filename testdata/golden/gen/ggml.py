"""Holds goldens of blocks against llama.cpp's own decoders: `ggml.py GOLDEN LIBRARY`, where LIBRARY exports ggml's symbols (the module of
the PyPI package `xllamacpp`, say). Prints for each type how many weights were compared; ends with an error where one differs."""
import ctypes as c, json, os, sys
import numpy as np

golden, library = sys.argv[1:]
lib = c.CDLL(library)
lib.ggml_type_name.restype = c.c_char_p


class Traits(c.Structure):
    _fields_ = [("name", c.c_char_p), ("block", c.c_int64), ("interleave", c.c_int64), ("size", c.c_size_t),
                ("quantized", c.c_bool), ("to_float", c.CFUNCTYPE(None, c.c_void_p, c.POINTER(c.c_float), c.c_int64))]


lib.ggml_get_type_traits.restype = c.POINTER(Traits)
types = {}
for number in range(43):  # beyond the last type there is no bound check
    name = lib.ggml_type_name(number)
    if name:
        types.setdefault(name.decode().upper(), number)


def decoded(name, data):
    traits = lib.ggml_get_type_traits(types[name]).contents
    assert len(data) % traits.size == 0, (name, len(data), traits.size)
    count = len(data) // traits.size * traits.block
    out = (c.c_float * count)()
    traits.to_float(c.create_string_buffer(data, len(data)), out, count)
    return np.ctypeslib.as_array(out).copy()


def compare(name, data, want, told):
    if name not in types:
        print(f"{name}: not known to this llama.cpp")
        return
    found = decoded(name, data)
    same = found.view(np.uint32) == want.view(np.uint32)
    # A trit of 0 under a scale may be 0 or -0.
    same |= (found == 0) & (want == 0)
    assert found.size == want.size and same.all(), f"{name} {told}: {np.flatnonzero(~same)[:5]}"
    print(f"{name} (type {types[name]}), {told}: {found.size} weights, {len(set(data))} byte values")


for case in json.load(open(os.path.join(golden, "float_blocks.json")))["cases"]:
    compare(case["type"], bytes.fromhex(case["bytes_hex"]), np.frombuffer(bytes.fromhex(case["f32_hex"]), np.float32), "floats")
for case in json.load(open(os.path.join(golden, "trit_blocks.json")))["cases"]:
    trits = np.array(["-0+".index(sign) - 1 for sign in case["trits"]], np.float32)
    want = trits * np.repeat(np.array(case["scales"], np.float32), trits.size // len(case["scales"]))
    compare(case["type"], bytes.fromhex(case["bytes_hex"]), want, "trits")
# Every byte of four codes, 3 among them: what a 3 is worth, and that the order of codes in a byte is known.
if "Q2_0" in types:
    rows = np.zeros((256, 18), np.uint8)
    rows[:, :2], rows[:, 2:] = np.frombuffer(np.float16(1).tobytes(), np.uint8), 0x55
    rows[:, 7] = np.arange(256)
    found = decoded("Q2_0", rows.tobytes()).reshape(256, 64)[:, 20:24]
    assert (found == (np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3) - 1.0).all()
    print("Q2_0, every byte of four codes: a code is worth itself less 1, 3 with them")
