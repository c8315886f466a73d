from pathlib import Path

import pytest

import tern

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def llama():
    with tern.Llama("story", n_ctx=0, n_threads=2, verbose=False) as model:
        yield model


@pytest.fixture(scope="session")
def llm():
    with tern.LLM("story", threads=2) as model:
        yield model
