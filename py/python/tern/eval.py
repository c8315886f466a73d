"""How good a model is: the perplexity of a text, and its accuracy in tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, Union

from tern._model import Model, Path


@dataclass
class Perplexity:
    """A perplexity, its standard error, the tokens that were scored, and the window."""

    perplexity: float
    error: float
    tokens: int
    n_ctx: int


@dataclass
class Figure:
    """A mean over items, its standard error, and how many grades are in it."""

    value: float
    error: float
    count: int


@dataclass
class TaskResult:
    """What came out of a task: its figures, of which `metric` names the one that stands for it; each item's line in the file,
    its grades and what led to them; and the lines that were left out, with the reason."""

    task: str
    metric: str
    figures: dict[str, Figure]
    items: list[dict[str, Any]]
    bad: list[tuple[int, str]]
    data: str
    seconds: float
    tokens: int

    @property
    def value(self) -> float:
        """The figure that stands for the task."""
        return self.figures[self.metric].value


def perplexity(
    model: Union[Path, Model],
    text: Union[str, Sequence[int]],
    *,
    n_ctx: Optional[int] = None,
    stride: Optional[int] = None,
) -> Perplexity:
    """The perplexity of a text (or of its ids). Without `stride` it is llama.cpp's convention: chunks of `n_ctx` tokens, of
    which the second half is scored. With it, Hugging Face's: windows of `n_ctx` tokens that begin every `stride` tokens."""
    loaded = model if isinstance(model, Model) else Model(model)
    try:
        ids = loaded.tokenize(text) if isinstance(text, str) else text
        window = min(loaded.n_ctx_train, len(ids)) if n_ctx is None else n_ctx
        found = loaded.perplexity(ids, n_ctx=window, stride=stride)
        return Perplexity(*found, window)
    finally:
        if loaded is not model:
            loaded.close()


def tasks(
    model: Union[Path, Model],
    tasks: Sequence[Union[Path, Mapping[str, Any]]],
    *,
    data: Path = ".",
    limit: Optional[int] = None,
    batch: int = 16,
    skip_bad: bool = False,
    callback: Optional[Callable[[str, int, int], Any]] = None,
) -> list[TaskResult]:
    """Puts tasks to a model, as `tern eval tasks` does, with the same answers. A task is the name of a built-in one, a JSON file
    of your own, or what is in such a file as a dict; `data` is the folder with the files of items. `limit` asks the first
    items only, `batch` is how many are worked on side by side, `skip_bad` leaves out what cannot be asked, which is an
    error otherwise. `callback(task, done, all)` hears how far it is; its exception ends the run, and so does Ctrl-C."""
    loaded = model if isinstance(model, Model) else Model(model, parallel=1)
    try:
        found = loaded.tasks(tasks, data=data, limit=limit, batch=batch, skip_bad=skip_bad, callback=callback)
    finally:
        if loaded is not model:
            loaded.close()
    return [
        TaskResult(
            one["task"], one["metric"], {name: Figure(**figure) for name, figure in one["figures"].items()}, one["items"],
            [(line, what) for line, what in one["bad"]], one["data"], one["seconds"], one["tokens"],
        )
        for one in found
    ]
