"""The explorer's state, without widgets: the current request, its result, and which results are still valid.

A worker thread computes; the newest request wins. Each has a generation number: work whose number is no longer the
newest stops at its next token and its results are discarded, so that an outdated text never replaces a newer one. A
*request* asks for the texts of both models for one source and one assembly. A *job* (see :mod:`modtf.views.jobs`) is
what a button starts on top of that; the next move stops it.
"""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakKeyDictionary, ref

from transformers import PreTrainedModel

from modtf.decoding import weights_stamp
from modtf.errors import ModtfError
from modtf.evaluation import Latency, Size, size_of_assembly
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.strategies import STRATEGIES
from modtf.tasks import task_named
from modtf.views import jobs
from modtf.views.run import Run, Stale
from modtf.views.state import Job, Request, Result, Row, Side, State, words_of

#: Work begins once no request has come for this long: the slider may still be moving.
SETTLE_SECONDS = 0.01
#: An idle worker ends after this time, because its reference keeps the model in memory.
_IDLE_SECONDS = 60.0
_REMEMBERED_TEXTS = 64
#: Once no request has come for this long, both models are timed again, this many times each, in alternating runs.
_REST_SECONDS, _REST_RUNS = 0.3, 5


def _close_at_exit(reference: ReferenceType[Controller]) -> None:
    """Stop the worker before Python exits: a thread still inside torch would abort the process."""
    controller = reference()
    if controller is not None:
        controller._on_change = lambda state: None  # the view is gone
        controller.close()


class Controller:
    """Takes requests and jobs, and publishes states.

    ``on_change`` is called with each new :class:`State`, by the requesting thread or by the worker, never by both at
    once. ``table`` is the measured table (see :func:`modtf.evaluation.measured_table`); checkpoints are saved in
    ``folder``.
    """

    def __init__(
        self,
        modular: ModularModel,
        table: dict[str, Any] | None = None,
        on_change: Callable[[State], None] = lambda state: None,
        folder: str | Path = ".",
    ) -> None:
        self.modular = modular
        self.task = task_named(modular.task)
        self.rows: list[Row] = [row for row in (table or {}).get("rows", []) if row["trained"]]
        self.folder = Path(folder).resolve()
        self.state = State()
        self.changed = threading.Condition()  # re-entrant: on_change may make a request
        # Models that have had their first, slower run, and by which engines.
        self.warm: WeakKeyDictionary[PreTrainedModel, set[str]] = WeakKeyDictionary()
        self._on_change = on_change
        strategy = next(iter(STRATEGIES))
        self._wanted: dict[str, Any] = {"source": "", "ratio": 1.0, "strategy": strategy, "assembly": None}
        self._wanted["engine"] = ""
        self._job: jobs.Work | None = None
        self._pending = self._closing = False
        self._worker: threading.Thread | None = None
        self._remembered: OrderedDict[tuple[str, str], Side] = OrderedDict()
        self._full_texts: dict[str, str] = {}  # of the bundled examples, by source
        self._sizes: dict[Assembly, Size] = {}
        self._weights = self._stamp()
        atexit.register(_close_at_exit, ref(self))

    # -- requests and jobs ---------------------------------------------------------------------------------------------

    def request(
        self,
        source: str | None = None,
        ratio: float | None = None,
        strategy: str | None = None,
        assembly: Assembly | None = None,
        engine: str | None = None,
    ) -> int:
        """Request texts; arguments left out keep their last value. Returns the generation number without waiting.

        ``assembly`` overrides ratio and strategy until one of these is given again. The ``engine`` is one of
        :meth:`modtf.modular.ModularModel.write`, or empty to leave it open. Work under way is stopped. If the request is
        not possible, ``state.problem`` says why.
        """
        given = {"source": source, "ratio": ratio, "strategy": strategy, "assembly": assembly, "engine": engine}
        with self.changed:
            if ratio is not None or strategy is not None:
                self._wanted["assembly"] = None
            self._wanted |= {name: value for name, value in given.items() if value is not None}
            # The outcome of an earlier job no longer applies, except for where a checkpoint was saved.
            job = self.state.job
            fields: dict[str, Any] = {} if job is None or job.running or job.kind == "save" else {"job": None}
            try:
                chosen, by = self._chosen()
                fields |= {"assembly": chosen, "strategy": by, "size": self.size(chosen)}
                asked = Request(self.task.read(self._wanted["source"]), by, chosen, self._wanted["engine"])
            except ModtfError as error:
                self._pending = False
                # An empty text is no error before the first one has been entered.
                nothing_yet = not self._wanted["source"] and self.state.request is None and "size" in fields
                self._advance(busy=False, problem="" if nothing_yet else str(error), race=None, **fields)
            else:
                same_sweep = self.state.sweep is not None and self.state.sweep.source == asked.source
                sweep = self.state.sweep if same_sweep else None
                self._begin(None)
                self._advance(request=asked, busy=True, problem="", race=None, sweep=sweep, **fields)
            return self.state.generation

    def race(self, drafting: bool = False) -> int:
        """Let both models write the current text, then replay it token by token.

        With ``drafting`` it is the full model against itself with drafts of the assembly's decoder.
        """
        return self._start("race", jobs.race(drafting))

    def sweep(self, strategy: str) -> int:
        """Write a text for the current source with every assembly of a strategy."""
        return self._start("sweep", jobs.sweep(strategy))

    def measure(self, count: int) -> int:
        """Measure the current assembly on ``count`` bundled examples, with the full model's texts as references."""
        return self._start("measure", jobs.measure(count, self._full_texts))

    def save(self, name: str) -> int:
        """Save the current assembly as a checkpoint in a new subfolder ``name`` of the explorer's folder."""
        return self._start("save", jobs.save(name))

    def wait(self, timeout: float = 60.0, timed_in_turns: bool = False) -> State:
        """Wait until the texts are written and no job runs, or until there is a problem; return the state.

        With ``timed_in_turns``, wait for the times of alternating runs, too. Raises :class:`ModtfError` after
        ``timeout`` seconds.
        """

        def done() -> bool:
            state = self.state
            if state.busy or (state.job is not None and state.job.running):
                return False
            untimed = state.current and state.result is not None and not state.result.timed_in_turns
            return not (timed_in_turns and untimed)

        with self.changed:
            if not self.changed.wait_for(done, timeout):
                raise ModtfError(f"no result within {timeout:g} seconds; wait longer, or try a shorter text")
            return self.state

    def stop(self) -> None:
        """Stop all work; the last result stays."""
        with self.changed:
            self._pending = False
            self._advance(busy=False)

    def cancel(self) -> None:
        """Stop the running job; the requested texts are still written and timed."""
        with self.changed:
            if self.state.request is None or self.state.problem:
                self.stop()
            else:
                self._begin(None)
                self._advance(busy=not self.state.current)

    def close(self) -> None:
        """Stop all work and wait for the worker to end: a program must not exit while it computes."""
        worker = self._worker
        with self.changed:
            self._closing = True
            self.stop()
        if worker is not None:
            worker.join()
        with self.changed:
            self._closing = False

    def measured(self, assembly: Assembly, strategy: str | None) -> tuple[Row | None, bool]:
        """The table's row for this assembly, or for the strategy's nearest ratio; and whether the row is exact."""
        for row in self.rows:
            if row["assembly"] == assembly.to_json():
                return row, True
        candidates = [row for row in self.rows if row["strategy"] == strategy] or self.rows
        return min(candidates, key=lambda row: abs(row["ratio"] - assembly.ratio), default=None), False

    @property
    def strategy(self) -> str:
        """The strategy requested last; it stays while an assembly is built by hand."""
        return str(self._wanted["strategy"])

    def size(self, assembly: Assembly) -> Size:
        """The size of an assembly; computed once."""
        if assembly not in self._sizes:
            self._sizes[assembly] = size_of_assembly(self.modular, assembly)
        return self._sizes[assembly]

    def publish(self, state: State) -> None:
        """Set the state and show it. The caller must hold ``changed``."""
        self.state = state
        self.changed.notify_all()
        self._on_change(state)

    # -- inside, with the lock held ------------------------------------------------------------------------------------

    def _chosen(self) -> tuple[Assembly, str | None]:
        """The requested assembly, and the strategy that builds it (or None)."""
        assembly, ratio, strategy = (self._wanted[name] for name in ("assembly", "ratio", "strategy"))
        chosen = self.modular.choose(ratio, strategy) if assembly is None else self.modular.mapping.check(assembly)
        # An assembly built by hand may equal what a strategy builds; the current strategy is tried first.
        names = [
            name for name in (strategy, *self.modular.strategies) if self.modular.choose(chosen.ratio, name) == chosen
        ]
        return chosen, names[0] if names else None

    def _start(self, kind: str, work: jobs.Work) -> int:
        """Begin a job on the current request; a new race or sweep replaces the last one."""
        with self.changed:
            if self.state.request is None or self.state.problem:
                self._pending = False
                words = "correct the input above first" if self.state.problem else "write a text above first"
                self._advance(busy=False, job=Job(kind, running=False, problem=words))
            else:
                self._begin(work)
                former: dict[str, Any] = {kind: None} if kind in ("race", "sweep") else {}
                self._advance(busy=not self.state.current, job=Job(kind), **former)
            return self.state.generation

    def _stamp(self) -> Hashable:
        return weights_stamp(weight for stack in self.modular.stacks for weight in stack.banks.parameters())

    def _begin(self, job: jobs.Work | None) -> None:
        self._job, self._pending = job, True
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="modtf-explorer", daemon=True)
            self._worker.start()

    def _advance(self, **fields: Any) -> None:
        """Publish a new generation, which makes all work under way stale."""
        job = self.state.job
        if job is not None and job.running and not job.committed:
            fields.setdefault("job", replace(job, running=False, note="stopped"))
        weights = self._stamp()
        if weights != self._weights:  # trained or loaded meanwhile: all earlier texts are outdated
            self._weights = weights
            self._remembered.clear()
            self._full_texts.clear()
            fields = {"result": None, "race": None, "sweep": None, "measured_here": ()} | fields
            fields["busy"] = fields.get("busy", False) or self._pending
        self.publish(replace(self.state, generation=self.state.generation + 1, **fields))

    # -- working -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self.changed:
                asked_for = self.changed.wait_for(lambda: self._pending or self._closing, _IDLE_SECONDS)
                if self._closing or not asked_for:
                    self._worker = None
                    return
                self._settle()
                request, job, wanted = self.state.request, self._job, self._pending
                generation = self.state.generation
                self._pending = False
            if request is None or not wanted:
                continue
            run = Run(self, request, generation)
            try:
                self._carry_out(run, job)
            except Stale:
                continue
            except Exception as error:  # a worker must not die without a message
                with suppress(Exception):  # if the view itself fails, the message cannot be shown
                    self._fail(run, error)

    def _settle(self) -> None:
        """Wait until no new request has come for ``SETTLE_SECONDS``."""
        generation = -1
        while generation != self.state.generation:
            generation = self.state.generation
            self.changed.wait_for(lambda: self.state.generation != generation, SETTLE_SECONDS)  # noqa: B023

    def _carry_out(self, run: Run, job: jobs.Work | None) -> None:
        result = self.state.result
        if result is None or result.request != run.request:
            result = self._compute(run)
        run.answer(busy=False, result=result)
        if job is not None:
            job(run)
        run.pause(_REST_SECONDS)
        if not result.timed_in_turns:
            run.answer(result=self._time_in_turns(run, result))

    def _fail(self, run: Run, error: Exception) -> None:
        words, job = words_of(error), self.state.job
        with suppress(Stale):
            if job is not None and job.running and not self.state.busy:
                run.progress(running=False, problem=words)
                return
            if not isinstance(error, ModtfError):
                words = f"the models could not be run or shown ({words}); try another input or ratio"
            if job is not None and job.running:
                job = replace(job, running=False, note="stopped")
            run.answer(busy=False, problem=words, job=job)

    def _compute(self, run: Run) -> Result:
        """Both texts; the full model's may come from an earlier request."""
        source, assembly, engine = run.request.source, run.request.assembly, run.request.engine
        full = self._remembered.get((source, engine))
        if full is None:
            full = run.write(self.modular.mapping.original)
            self._remember(run.request, full)
        # At 1x both are the same model: a second run would only measure noise.
        small = full if assembly == full.assembly else run.write(assembly, full.text)
        return Result(run.request, full, small, self._remembered.get((source, "")) if engine else None)

    def _remember(self, request: Request, full: Side) -> None:
        self._remembered[request.source, request.engine] = replace(full, remembered=True)
        if len(self._remembered) > _REMEMBERED_TEXTS:
            self._remembered.popitem(last=False)

    def _time_in_turns(self, run: Run, result: Result) -> Result:
        """The same texts, with the times of alternating runs."""
        # At 1x, both keys are the same assembly.
        times: dict[Assembly, tuple[float, ...]] = {self.modular.mapping.original: (), run.request.assembly: ()}
        for _ in range(_REST_RUNS):
            for assembly in times:
                times[assembly] += run.write(assembly).latency.times_ms

        def timed(side: Side) -> Side:
            return replace(side, latency=Latency(times[side.assembly], side.latency.tokens), remembered=False)

        self._remember(run.request, timed(result.full))
        return replace(result, full=timed(result.full), small=timed(result.small))
