"""Tern on Ray: batch jobs over datasets (Ray Data), a service of many replicas (Ray Serve), training on many nodes.

`import tern` does not import Ray; this module needs `pip install "ray[data]"` or `"ray[serve]"` for what it is used for.
"""

from __future__ import annotations

from typing import Any, Sequence

from tern.ray._config import TernServeConfig
from tern.ray._data import Predictor, TernProcessorConfig, build_processor, row_seed
from tern.ray._train import train

__all__ = ["Predictor", "TernProcessorConfig", "TernServeConfig", "build_openai_app", "build_processor", "row_seed", "train"]


def build_openai_app(models: Sequence[TernServeConfig], **ingress: Any) -> Any:
    """An application for `serve.run`: these models behind OpenAI's interface. `ingress` are options of the deployment that
    clients talk to, such as `num_replicas`."""
    from tern.ray._serve import application

    return application(models, ingress)
