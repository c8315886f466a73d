"""Batch jobs with Ray Data, with the column names of `ray.data.llm`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import warnings
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Optional, Union

import numpy as np

from tern._llm import LLM, SamplingParams
from tern._model import Path

Row = dict[str, Any]
Function = Callable[[Row], Mapping[str, Any]]

#: The column that says what was wrong with a row, with `should_continue_on_error`.
ERROR = "__inference_error__"


@dataclass
class TernProcessorConfig:
    """How a batch job runs. `concurrency` actors (or from `m` to `n` with `(m, n)`) of `threads` threads each load `model`,
    whose file they map, so that its weights are in a node's memory once. Each works on `parallel` texts at a time and
    holds `max_concurrent_batches` batches of `batch_size` rows, so that it does not run empty between two; a batch is also
    a block of what comes out, and of a checkpoint. `options` are further settings of `tern.Model`."""

    model: Path
    threads: int = 1
    concurrency: Union[int, tuple[int, int]] = 1
    batch_size: int = 32
    parallel: int = 16
    max_concurrent_batches: int = 2
    task: str = "generate"
    seed: int = 0
    should_continue_on_error: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    runtime_env: Optional[Mapping[str, Any]] = None

    def __post_init__(self) -> None:
        if self.task not in ("generate", "embed"):
            raise ValueError(f"task={self.task!r}: expected 'generate' or 'embed'")
        for name in ("threads", "batch_size", "parallel", "max_concurrent_batches"):
            if not _positive(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)!r}: expected at least 1")
        least, most = self.actors
        if not (_positive(least) and _positive(most) and least <= most):
            raise ValueError(f"concurrency={self.concurrency!r}: expected a number of actors, or a pair from least to most")

    @property
    def actors(self) -> tuple[int, int]:
        """The fewest and the most actors."""
        if isinstance(self.concurrency, int):
            return self.concurrency, self.concurrency
        least, most = self.concurrency
        return least, most


def _positive(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def row_seed(seed: int, row: Mapping[str, Any]) -> int:
    """The seed of a row that names none: out of the job's and all that the row holds, so that no text depends on which
    actor wrote it, in which batch or in which order."""
    text = json.dumps([seed, _plain(row)], sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")


def _plain(value: Any) -> Any:
    """A value without what depends on how a batch was stored: NumPy's types, None in columns of numbers, filled fields."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items() if _plain(one) is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return [_plain(one) for one in value.tolist()]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and (value != value or value.is_integer()):
        return None if value != value else int(value)
    return value


def _rows(batch: Any) -> list[Row]:
    """The rows of a batch: an Arrow table, or columns."""
    if hasattr(batch, "to_pylist"):
        return list(batch.to_pylist())
    names = list(batch)
    return [dict(zip(names, row)) for row in zip(*(batch[name] for name in names))]


class Predictor:
    """The actor: loads the model once, answers batches. Plain enough for `map_batches`, and without Ray:
    `Predictor("story").rows([{"prompt": "The dog"}])`.

    A row has `prompt` (a text), `prompt_token_ids` or `messages`, and may have `sampling_params`, a dict with the names of
    `tern.SamplingParams`. It gets `prompt`, `prompt_token_ids`, `num_input_tokens`, `generated_text`, `generated_tokens`,
    `num_generated_tokens`, `finish_reason` and `time_taken_llm` (seconds, of its batch); with the task `embed`, `embeddings`."""

    def __init__(
        self,
        config: Union[TernProcessorConfig, Path],
        preprocess: Optional[Function] = None,
        postprocess: Optional[Function] = None,
        **settings: Any,
    ) -> None:
        if not isinstance(config, TernProcessorConfig):
            config = TernProcessorConfig(config, **settings)
        elif settings:
            config = dataclasses.replace(config, **settings)
        self.config, self._before, self._after = config, preprocess, postprocess
        self._llm = LLM(config.model, threads=config.threads, max_num_seqs=config.parallel, **config.options)

    def __call__(self, batch: Any) -> Any:
        rows = self.rows(_rows(batch))
        if not hasattr(batch, "to_pylist"):
            return _columns(rows)
        import pyarrow  # type: ignore[import-untyped,import-not-found,unused-ignore]

        names = dict.fromkeys(name for row in rows for name in row)
        return pyarrow.table({name: [row.get(name) for row in rows] for name in names})

    def rows(self, rows: list[Row]) -> list[Row]:
        """Answers rows, in their order."""
        rows = [{**row, "_seed": row_seed(self.config.seed, row)} for row in rows]
        if self._before is not None:
            rows = [{**row, **self._before({name: row[name] for name in row if name != "_seed"})} for row in rows]
        start = time.perf_counter()
        try:
            found = self._work(rows)
        except (ValueError, TypeError, KeyError):
            if not self.config.should_continue_on_error:
                raise
            found = [self._alone(row) for row in rows]
        took = time.perf_counter() - start
        return [self._end({**row, **one, "time_taken_llm": took}) for row, one in zip(rows, found)]

    def _end(self, row: Row) -> Row:
        del row["_seed"]
        wrong = row.get(ERROR, "")
        if wrong or self._after is None:
            return row
        told = dict(self._after(row))
        return {**told, ERROR: ""} if self.config.should_continue_on_error else told

    def _alone(self, row: Row) -> Row:
        try:
            (found,) = self._work([row])
            return {**found, ERROR: ""}
        except (ValueError, TypeError, KeyError) as wrong:
            return {ERROR: f"{type(wrong).__name__}: {wrong}"}

    def _work(self, rows: list[Row]) -> list[Row]:
        if self.config.task == "embed":
            return [{"embeddings": one.outputs.embedding, "num_input_tokens": len(one.prompt_token_ids)}
                    for one in self._llm.embed([row["prompt"] for row in rows])]
        params = [_params(row) for row in rows]
        return [_answer(output) for output in self._llm.generate([self._prompt(row) for row in rows], params, use_tqdm=False)]

    def _prompt(self, row: Row) -> Row:
        messages = _plain(row.get("messages"))
        if messages is not None:
            text, ids = self._llm.model.apply_chat_template(messages)
            return {"prompt": text, "prompt_token_ids": ids}
        ids = _plain(row.get("prompt_token_ids"))
        if ids is not None:
            return {"prompt_token_ids": ids}
        if row.get("prompt") is None:
            raise ValueError(f"a row needs `prompt`, `prompt_token_ids` or `messages`; it has {', '.join(sorted(set(row) - {'_seed'}))}")
        return {"prompt": row["prompt"]}


def _params(row: Row) -> SamplingParams:
    told = _plain(row.get("sampling_params")) or {}
    return SamplingParams(**{"seed": row["_seed"], **told})


def _answer(output: Any) -> Row:
    first = output.outputs[0]
    return {
        "prompt": output.prompt, "prompt_token_ids": output.prompt_token_ids,
        "num_input_tokens": len(output.prompt_token_ids), "generated_text": first.text,
        "generated_tokens": first.token_ids, "num_generated_tokens": len(first.token_ids),
        "finish_reason": first.finish_reason,
    }


def _columns(rows: list[Row]) -> dict[str, Any]:
    """Rows as columns; lists of different lengths stay lists."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        if any(isinstance(value, (list, tuple, dict, np.ndarray)) for value in values):
            column = np.empty(len(values), dtype=object)
            column[:] = values
            columns[name] = column
        else:
            columns[name] = np.array(values)
    return columns


def _room(cpus: int) -> None:
    """Ray's tasks that read, cut and write need a CPU that no actor holds, and what skips finished rows another one, or they
    wait for ever."""
    import ray  # type: ignore[import-not-found,unused-ignore]
    from ray.data import DataContext  # type: ignore[import-not-found,unused-ignore]

    if not ray.is_initialized():
        return
    there = ray.cluster_resources().get("CPU", 0)  # type: ignore[no-untyped-call,unused-ignore]
    more = 1 if DataContext.get_current().checkpoint_config is None else 2
    if there < cpus + more:
        warnings.warn(
            f"the actors take {cpus} CPUs of the cluster's {there:g}, and Ray needs {more} more to read and to write: unless"
            " nodes join, the job waits for ever; take fewer actors or threads, or tell `ray.init` of more CPUs than there are",
            stacklevel=3,
        )


def build_processor(
    config: TernProcessorConfig, preprocess: Optional[Function] = None, postprocess: Optional[Function] = None
) -> Callable[[Any], Any]:
    """A function from dataset to dataset, in the shape of `ray.data.llm.build_processor`: `preprocess` makes out of a row
    the columns that `Predictor` reads, which are added to it; `postprocess` chooses what is kept, by itself all."""

    def process(dataset: Any) -> Any:
        from ray.data import ActorPoolStrategy  # type: ignore[import-not-found,unused-ignore]

        least, most = config.actors
        _room(least * config.threads)
        pool = ActorPoolStrategy(
            min_size=least, max_size=most, initial_size=least,
            max_concurrent_calls_per_actor=config.max_concurrent_batches, enable_true_multi_threading=True,
        )
        environment = {"runtime_env": dict(config.runtime_env)} if config.runtime_env else {}
        # Else a file may be one block, and that one actor's alone; a block is also what a checkpoint holds.
        return dataset.repartition(target_num_rows_per_block=config.batch_size).map_batches(
            Predictor, fn_constructor_args=(config, preprocess, postprocess), compute=pool, num_cpus=config.threads,
            batch_size=config.batch_size, batch_format="pyarrow", **environment,
        )

    return process
