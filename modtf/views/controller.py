"""The explorer's state, without widgets: requests, what comes of them, and which of them still counts.

A worker thread computes; the newest request wins. Each request has a generation number: a run whose number is no longer the
newest stops at its next token, and what it made is thrown away, so that a stale text never stands where a fresh one belongs.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakSet

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, StoppingCriteria, StoppingCriteriaList

from modtf.data import bundled
from modtf.errors import ModtfError
from modtf.evaluation import Size, size_of
from modtf.mapping import Assembly
from modtf.modular import ModularModel, fingerprint_of
from modtf.strategies import STRATEGIES
from modtf.tasks.e2e import MR, SLOTS, parse_mr, write_mr
from modtf.tasks.slots import SlotReport, check

#: One row of the measured table.
Row = dict[str, Any]

#: A worker waits so long for the next move of the slider before it begins.
_SETTLE_SECONDS = 0.01
#: An idle worker ends after so long, and with it the last thing that keeps the model in memory.
_IDLE_SECONDS = 60.0
_REMEMBERED_TEXTS = 64
#: Once a result stands and nothing else is asked for, both models are timed again, in turns.
_REST_SECONDS, _REST_RUNS = 0.3, 3
#: One generation at a time in this process: two at once would each be timed wrong, and tokenizers are not made for threads.
_MACHINE = threading.Lock()


@dataclass(frozen=True)
class Side:
    """What one model wrote, and what it took."""

    assembly: Assembly
    size: Size
    text: str
    report: SlotReport | None  # None where the model knows no slots
    milliseconds: float
    tokens: int
    remembered: bool = False  # text and time are from an earlier request of this session
    runs: int = 1  # how many runs the time is the median of

    @property
    def tokens_per_second(self) -> float:
        return 1000 * self.tokens / self.milliseconds


@dataclass(frozen=True)
class Request:
    """A text to work on, and what to do it with. ``ratio`` is the wanted one, ``assembly.ratio`` the one in force."""

    source: str
    mr: MR | None
    ratio: float
    strategy: str
    assembly: Assembly


@dataclass(frozen=True)
class Result:
    """Both models on one request, and the measured row that is nearest to its assembly."""

    request: Request
    full: Side
    small: Side
    measured: Row | None
    exact: bool  # the measured row is of this very assembly

    @property
    def speed_up(self) -> float:
        """Tokens per second of the assembled model / those of the full one: fair where one text is longer than the other."""
        return self.small.tokens_per_second / self.full.tokens_per_second


@dataclass(frozen=True)
class State:
    """All that a view draws. ``result`` may be of an earlier request than ``request``: then ``current`` is false."""

    generation: int = 0
    request: Request | None = None
    result: Result | None = None
    busy: bool = False
    problem: str = ""  # what is wrong, in words

    @property
    def current(self) -> bool:
        return self.result is not None and self.result.request == self.request and not self.problem


class _Stale(Exception):
    """A newer request has come."""


class _StopWhenStale(StoppingCriteria):
    """Ends a generation at its next token once nobody waits for it any more."""

    def __init__(self, stale: Callable[[], bool]) -> None:
        self.stale = stale

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self.stale(), dtype=torch.bool, device=input_ids.device)


class Controller:
    """Takes requests, publishes states.

    ``on_change`` is called with each new :class:`State`, by the thread that requested or by the worker, never by both at once.
    ``table`` is the measured table (see :func:`bundled_table`).
    """

    def __init__(
        self, modular: ModularModel, table: dict[str, Any] | None = None, on_change: Callable[[State], None] = lambda state: None
    ) -> None:
        self.modular = modular
        self.has_slots = has_slots(modular)
        self.rows: list[Row] = [row for row in (table or {}).get("rows", []) if row["trained"]]
        self.state = State()
        self._on_change = on_change
        self._wanted: dict[str, Any] = {"source": "", "ratio": 1.0, "strategy": next(iter(STRATEGIES)), "assembly": None}
        self._pending = self._closing = False
        self._worker: threading.Thread | None = None
        self._changed = threading.Condition()  # re-entrant: on_change may request again
        self._remembered: OrderedDict[str, Side] = OrderedDict()
        self._warm: WeakSet[PreTrainedModel] = WeakSet()

    # -- asking --------------------------------------------------------------------------------------------------------

    def request(
        self, source: str | None = None, ratio: float | None = None, strategy: str | None = None, assembly: Assembly | None = None
    ) -> int:  # fmt: skip
        """Ask for texts; what is not given stays as it was. Returns at once with the request's generation number.

        ``assembly`` takes the place of ratio and strategy until one of these is given again. Whatever ran before is stopped. Where
        the request is not possible, the state says why.
        """
        given = {"source": source, "ratio": ratio, "strategy": strategy, "assembly": assembly}
        with self._changed:
            if ratio is not None or strategy is not None:
                self._wanted["assembly"] = None
            self._wanted |= {name: value for name, value in given.items() if value is not None}
            generation = self.state.generation + 1
            try:
                asked = self._checked(**self._wanted)
            except ModtfError as error:
                self._pending = False
                self._publish(replace(self.state, generation=generation, busy=False, problem=str(error)))
                return generation
            self._pending = True
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="modtf-explorer", daemon=True)
                self._worker.start()
            self._publish(replace(self.state, generation=generation, request=asked, busy=True, problem=""))
            self._changed.notify_all()
            return generation

    def wait(self, timeout: float = 60.0, timed_again: bool = False) -> State:
        """The state once texts (and, if ``timed_again``, the medians of their times) are there, or a problem.

        Raises :class:`ModtfError` where that takes longer than ``timeout`` seconds.
        """

        def done() -> bool:
            state = self.state
            return not state.busy and not (timed_again and state.current and state.result and state.result.full.runs == 1)

        with self._changed:
            if not self._changed.wait_for(done, timeout):
                raise ModtfError(f"no result within {timeout:g} seconds; wait longer, or ask for a shorter text")
            return self.state

    def stop(self) -> None:
        """Give up whatever is under way; the last result stays."""
        with self._changed:
            self._pending = False
            self._publish(replace(self.state, generation=self.state.generation + 1, busy=False))

    def close(self) -> None:
        """Stop and wait for the worker's end: a program must not exit in the middle of its computation."""
        worker = self._worker
        with self._changed:
            self._closing = True
            self.stop()
        if worker is not None:
            worker.join()
        self._closing = False

    def _checked(self, source: str, ratio: float, strategy: str, assembly: Assembly | None) -> Request:
        mr = parse_mr(source) if self.has_slots else None
        if mr is None and not source.strip():
            raise ModtfError("the text is empty; write something for the model to work on")
        chosen = self.modular.choose(ratio, strategy) if assembly is None else self.modular.mapping.check(assembly)
        return Request(write_mr(mr) if mr else source, mr, ratio, strategy, chosen)

    def _publish(self, state: State) -> None:
        self.state = state
        self._changed.notify_all()
        self._on_change(state)

    # -- working -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                asked_for = self._changed.wait_for(lambda: self._pending or self._closing, _IDLE_SECONDS)
                if self._closing or not asked_for:
                    self._worker = None
                    return
                # The slider may still be moving: begin when it rests for a moment.
                generation = -1
                while generation != self.state.generation:
                    generation = self.state.generation
                    self._changed.wait_for(lambda: self.state.generation != generation, _SETTLE_SECONDS)  # noqa: B023
                asked, called_off = self.state.request, not self._pending
                self._pending = False
            if asked is None or called_off:
                continue
            try:
                result = self._compute(asked, generation)
                self._answer(generation, result=result)
                with self._changed:
                    self._changed.wait_for(lambda: self.state.generation != generation, _REST_SECONDS)  # noqa: B023
                self._answer(generation, result=self._timed_again(result, generation))
            except _Stale:
                continue
            except ModtfError as error:
                self._answer(generation, problem=str(error))
            except Exception as error:  # a worker must not end in silence
                with suppress(Exception):  # unless it is the view that fails
                    self._answer(
                        generation,
                        problem=f"the models could not be run or shown ({type(error).__name__}: {error}); try another input or ratio",
                    )

    def _answer(self, generation: int, **fields: Any) -> None:
        """Publish what came of a request, unless a newer one has come."""
        with self._changed:
            if generation == self.state.generation:
                self._publish(replace(self.state, busy=False, **fields))

    def _compute(self, asked: Request, generation: int) -> Result:
        full = self._remembered.get(asked.source)
        if full is None:
            full = self._write(asked, self.modular.mapping.original, generation)
            self._remembered[asked.source] = replace(full, remembered=True)
            if len(self._remembered) > _REMEMBERED_TEXTS:
                self._remembered.popitem(last=False)
        # At 1x both are the same model: a second run would only measure noise.
        small = full if asked.assembly == full.assembly else self._write(asked, asked.assembly, generation)
        row, exact = self.measured(asked.assembly, asked.strategy)
        return Result(asked, full, small, row, exact)

    def _timed_again(self, result: Result, generation: int) -> Result:
        """The same texts with the medians of runs in turns: a single run, or one of minutes ago, met another machine."""
        asked = result.request
        models = dict.fromkeys((self.modular.mapping.original, asked.assembly))
        times: dict[Assembly, list[float]] = {assembly: [] for assembly in models}
        for _ in range(_REST_RUNS):
            for assembly in models:
                times[assembly].append(self._write(asked, assembly, generation).milliseconds)
        full, small = (
            replace(side, milliseconds=statistics.median(times[side.assembly]), runs=_REST_RUNS, remembered=False)
            for side in (result.full, result.small)
        )
        self._remembered[asked.source] = replace(full, remembered=True)
        return replace(result, full=full, small=small)

    def _write(self, asked: Request, assembly: Assembly, generation: int) -> Side:
        """One greedy text, timed after the model's first run; raises :class:`_Stale` where a newer request came meanwhile."""

        def stale() -> bool:
            return self.state.generation != generation

        with _MACHINE, torch.inference_mode():
            if stale():
                raise _Stale
            encoded = self.modular.encode([asked.source])
            model = self.modular.assembled(assembly)
            options = {"do_sample": False, "num_beams": 1, "stopping_criteria": StoppingCriteriaList([_StopWhenStale(stale)])}
            if model not in self._warm:
                model.generate(**encoded, max_new_tokens=2, **options)
                self._warm.add(model)
            started = _now(model)
            written = model.generate(**encoded, max_new_tokens=128, **options)[0, 1:]
            milliseconds = 1000 * (_now(model) - started)
            if stale():
                raise _Stale
            text = self.modular.tokenizer.decode(written, skip_special_tokens=True)
        report = check(asked.mr, text) if asked.mr is not None else None
        return Side(assembly, size_of(model), text, report, milliseconds, max(1, written.numel()))

    def measured(self, assembly: Assembly, strategy: str) -> tuple[Row | None, bool]:
        """The measured row of this assembly, or else of this strategy's nearest ratio; and whether it is the very assembly."""
        for row in self.rows:
            if row["assembly"] == assembly.to_json():
                return row, True
        candidates = [row for row in self.rows if row["strategy"] == strategy] or self.rows
        return min(candidates, key=lambda row: abs(row["ratio"] - assembly.ratio), default=None), False


def _now(model: PreTrainedModel) -> float:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def has_slots(modular: ModularModel) -> bool:
    """Whether this model writes from the bundled task's MRs: its tokenizer then has a token for each slot."""
    vocabulary = modular.tokenizer.get_vocab()
    return all(f"{slot}[" in vocabulary for slot in SLOTS)


def bundled_table(modular: ModularModel) -> tuple[dict[str, Any] | None, str]:
    """The measured table that is bundled, or None and why there is none for this model: it holds for pocket's own banks only."""
    try:
        index = json.loads((bundled("pocket") / "modtf.json").read_text())
        banks = load_file(bundled("pocket") / index["banks"])
        own = {name: weight.cpu() for name, weight in modular.bank_weights().items()}
        if fingerprint_of(own, torch.float16) != fingerprint_of(banks, torch.float16):
            return None, "No measurements exist for this model: the bundled ones are pocket's."
        table = json.loads(bundled("table.json").read_text())
    except ModtfError:
        return None, "No measurements are bundled."
    except (OSError, ValueError) as error:
        return None, f"The bundled measurements could not be read ({error}); install modtf again."
    return table, ""
