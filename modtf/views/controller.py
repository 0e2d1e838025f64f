"""The explorer's state, without widgets: requests and jobs, what comes of them, and which of them still counts.

A worker thread computes; the newest wish wins. Each has a generation number: a run whose number is no longer the newest stops at its
next token, and what it made is thrown away, so that a stale text never stands where a fresh one belongs. A *request* asks for
both texts of a source and an assembly. A *job* (race, measurement, sweep, saving) is what a button starts on top of that; the next move
calls it off.
"""

from __future__ import annotations

import atexit
import json
import re
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, WeakSet, ref

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from modtf.data import bundled
from modtf.decoding import decode
from modtf.errors import ModtfError
from modtf.evaluation import Size, seconds_now, size_of_assembly
from modtf.mapping import Assembly
from modtf.modular import ModularModel, fingerprint_of
from modtf.pocket import bundled_examples
from modtf.strategies import STRATEGIES, assemblies
from modtf.tasks.e2e import SLOTS, parse_mr, write_mr
from modtf.tasks.scores import likeness, score
from modtf.tasks.slots import check
from modtf.views.state import Job, Race, Request, Result, Row, Runner, Side, State, Sweep

#: A worker waits so long for the next move of the slider before it begins.
_SETTLE_SECONDS = 0.01
#: An idle worker ends after so long, and with it the last thing that keeps the model in memory.
_IDLE_SECONDS = 60.0
_REMEMBERED_TEXTS = 64
#: Once a result stands and nothing else is asked for, both models are timed again, in turns.
_REST_SECONDS, _REST_RUNS = 0.3, 5
#: A race is replayed in slow motion where the slower model would need less than this, with so many pictures a second.
_RACE_SECONDS, _PICTURES_PER_SECOND = 5.0, 20
#: A measurement looks up after so many texts, and times so many sentences so often, in turns.
_BATCH, _TIMED_SENTENCES, _TIMED_RUNS = 10, 3, 3
#: One generation at a time in this process: two at once would each be timed wrong, and tokenizers are not made for threads.
_MACHINE = threading.Lock()


class _Stale(Exception):
    """A newer wish has come."""


def _close_unseen(reference: ReferenceType[Controller]) -> None:
    """At the program's end, when nobody looks any more: a thread that is inside of torch then would abort the process."""
    controller = reference()
    if controller is not None:
        controller._on_change = lambda state: None
        controller.close()


class Controller:
    """Takes requests and jobs, publishes states.

    ``on_change`` is called with each new :class:`State`, by the thread that asked or by the worker, never by both at once.
    ``table`` is the measured table (see :func:`bundled_table`); ``folder`` is where checkpoints are saved.
    """

    def __init__(
        self,
        modular: ModularModel,
        table: dict[str, Any] | None = None,
        on_change: Callable[[State], None] = lambda state: None,
        folder: str | Path = ".",
    ) -> None:
        self.modular = modular
        self.has_slots = has_slots(modular)
        self.rows: list[Row] = [row for row in (table or {}).get("rows", []) if row["trained"]]
        self.folder = Path(folder).resolve()
        self.state = State()
        self._on_change = on_change
        self._wanted: dict[str, Any] = {
            "source": "",
            "ratio": 1.0,
            "strategy": next(iter(STRATEGIES)),
            "assembly": None,
        }
        self._job: tuple[Callable[..., None], dict[str, Any]] | None = None
        self._pending = self._closing = False
        self._worker: threading.Thread | None = None
        self._changed = threading.Condition()  # re-entrant: on_change may request again
        self._remembered: OrderedDict[str, Side] = OrderedDict()
        self._full_texts: dict[str, str] = {}  # of measurements
        self._warm: WeakSet[PreTrainedModel] = WeakSet()
        self._sizes: dict[Assembly, Size] = {}
        self._banks = list(modular.bank_weights().values())
        self._weights = self._stamp()
        atexit.register(_close_unseen, ref(self))

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
            job = self.state.job  # what was said of an earlier one is over, but where a checkpoint is stays true
            fields: dict[str, Any] = {} if job is None or job.running or job.kind == "save" else {"job": None}
            try:
                chosen, by = self._chosen()
                fields |= {"assembly": chosen, "strategy": by, "size": self._size(chosen)}
                asked = self._read(chosen, by)
            except ModtfError as error:
                self._pending = False
                nothing_yet = (
                    not self._wanted["source"] and self.state.request is None
                )  # no text is no mistake before the first one
                self._wish(
                    busy=False, problem="" if nothing_yet and "size" in fields else str(error), race=None, **fields
                )
            else:
                same_sweep = self.state.sweep is not None and self.state.sweep.source == asked.source
                self._begin(None)
                self._wish(
                    request=asked,
                    busy=True,
                    problem="",
                    race=None,
                    sweep=self.state.sweep if same_sweep else None,
                    **fields,
                )
            return self.state.generation

    def race(self) -> int:
        """Write the present text by both models and replay how it came, token by token."""
        return self._start("race", self._race)

    def sweep(self, strategy: str) -> int:
        """Write the present source by every assembly of a strategy."""
        return self._start("sweep", self._sweep, strategy=strategy)

    def measure(self, examples: int) -> int:
        """Measure the present assembly on so many of the bundled MRs, against the full model's texts for them."""
        return self._start("measure", self._measure, examples=examples)

    def save(self, name: str) -> int:
        """Save the present assembly as a checkpoint in a new folder of this name, in the explorer's folder."""
        return self._start("save", self._save, name=name)

    def wait(self, timeout: float = 60.0, timed_again: bool = False) -> State:
        """The state once texts (and, if ``timed_again``, the medians of their times) are there and no job runs, or a problem.

        Raises :class:`ModtfError` where that takes longer than ``timeout`` seconds.
        """

        def done() -> bool:
            state = self.state
            once = state.current and state.result is not None and not state.result.timed_again
            return not state.busy and not (state.job and state.job.running) and not (timed_again and once)

        with self._changed:
            if not self._changed.wait_for(done, timeout):
                raise ModtfError(f"no result within {timeout:g} seconds; wait longer, or ask for a shorter text")
            return self.state

    def stop(self) -> None:
        """Give up whatever is under way; the last result stays."""
        with self._changed:
            self._pending = False
            self._wish(busy=False)

    def cancel(self) -> None:
        """Call off the job that runs; the texts that were asked for are still written, and timed."""
        with self._changed:
            if self.state.request is None or self.state.problem:
                self.stop()
            else:
                self._begin(None)
                self._wish(busy=not self.state.current)

    def close(self) -> None:
        """Stop and wait for the worker's end: a program must not exit in the middle of its computation."""
        worker = self._worker
        with self._changed:
            self._closing = True
            self.stop()
        if worker is not None:
            worker.join()
        with self._changed:
            self._closing = False

    def measured(self, assembly: Assembly, strategy: str | None) -> tuple[Row | None, bool]:
        """The table's row of this assembly, or else of this strategy's nearest ratio; and whether it is the very assembly."""
        for row in self.rows:
            if row["assembly"] == assembly.to_json():
                return row, True
        candidates = [row for row in self.rows if row["strategy"] == strategy] or self.rows
        return min(candidates, key=lambda row: abs(row["ratio"] - assembly.ratio), default=None), False

    @property
    def strategy(self) -> str:
        """The strategy that was asked for last; it stays while an assembly is built by hand."""
        return str(self._wanted["strategy"])

    # -- within, under the lock ----------------------------------------------------------------------------------------

    def _chosen(self) -> tuple[Assembly, str | None]:
        """The assembly that is wanted, and the strategy that builds it (or None)."""
        assembly, ratio, strategy = (self._wanted[name] for name in ("assembly", "ratio", "strategy"))
        chosen = self.modular.choose(ratio, strategy) if assembly is None else self.modular.mapping.check(assembly)
        # What was built by hand may be what a strategy builds; the one in use has the first word.
        names = [name for name in (strategy, *STRATEGIES) if self.modular.choose(chosen.ratio, name) == chosen]
        return chosen, names[0] if names else None

    def _read(self, assembly: Assembly, strategy: str | None) -> Request:
        source = self._wanted["source"]
        mr = parse_mr(source) if self.has_slots else None
        if mr is None and not source.strip():
            raise ModtfError("the text is empty; write something for the model to work on")
        return Request(write_mr(mr) if mr else source, mr, strategy, assembly)

    def _start(self, kind: str, work: Callable[..., None], **options: Any) -> int:
        """Begin a job on the present request; the former race or sweep gives way to a new one."""
        with self._changed:
            if self.state.request is None or self.state.problem:
                self._pending = False
                words = "correct the input above first" if self.state.problem else "write a text above first"
                self._wish(busy=False, job=Job(kind, running=False, problem=words))
            else:
                self._begin((work, options))
                self._wish(
                    busy=not self.state.current, job=Job(kind), **({kind: None} if kind in ("race", "sweep") else {})
                )
            return self.state.generation

    def _begin(self, job: tuple[Callable[..., None], dict[str, Any]] | None) -> None:
        self._job, self._pending = job, True
        if self._worker is None or not self._worker.is_alive():
            self._worker = threading.Thread(target=self._work, name="modtf-explorer", daemon=True)
            self._worker.start()

    def _wish(self, **fields: Any) -> None:
        """Publish a new generation: whatever was under way is stale from here on (but a saving, which goes on to its end)."""
        job = self.state.job
        if job is not None and job.running and job.kind != "save":
            fields.setdefault("job", replace(job, running=False, note="stopped"))
        if self._weights != (weights := self._stamp()):  # trained or loaded meanwhile: no text is theirs any more
            self._weights = weights
            self._remembered.clear()
            self._full_texts.clear()
            fields = {"result": None, "race": None, "sweep": None, "measured_here": ()} | fields
            fields["busy"] = fields.get("busy", False) or self._pending
        self._publish(replace(self.state, generation=self.state.generation + 1, **fields))

    def _stamp(self) -> tuple[float, ...]:
        """Other numbers whenever the banks were trained or loaded. Fused optimizers do not count up versions, so some values are looked at."""
        versions = sum(0 if weight.is_inference() else weight._version for weight in self._banks)
        return (versions, *(float(weight.detach().flatten()[0]) for weight in self._banks[::8]))

    def _size(self, assembly: Assembly) -> Size:
        if assembly not in self._sizes:
            self._sizes[assembly] = size_of_assembly(self.modular, assembly)
        return self._sizes[assembly]

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
                state, job, called_off = self.state, self._job, not self._pending
                self._pending = False
            if state.request is None or called_off:
                continue
            try:
                self._run(state.request, job, generation)
            except _Stale:
                continue
            except Exception as error:  # a worker must not end in silence
                words = str(error) if isinstance(error, ModtfError) else f"{type(error).__name__}: {error}"
                with suppress(Exception):  # unless it is the view that fails
                    self._fail(words, generation, expected=isinstance(error, ModtfError))

    def _run(self, asked: Request, job: tuple[Callable[..., None], dict[str, Any]] | None, generation: int) -> None:
        result = self.state.result
        if result is None or result.request != asked:
            result = self._compute(asked, generation)
        self._answer(generation, busy=False, result=result)
        if job is not None:
            work, options = job
            work(asked, generation, **options)
        with self._changed:
            self._changed.wait_for(lambda: self.state.generation != generation, _REST_SECONDS)
        if not result.timed_again:
            self._answer(generation, result=self._timed_again(result, generation))

    def _answer(self, generation: int, **fields: Any) -> None:
        """Publish what came of a wish; raises :class:`_Stale` where a newer one has come."""
        with self._changed:
            if generation != self.state.generation:
                raise _Stale
            self._publish(replace(self.state, **fields))

    def _progress(self, generation: int, **fields: Any) -> None:
        self._answer(generation, job=replace(self.state.job or Job(""), **fields))

    def _fail(self, words: str, generation: int, expected: bool) -> None:
        job = self.state.job
        with suppress(_Stale):
            if job is not None and job.running and not self.state.busy:
                self._progress(generation, running=False, problem=words)
            else:
                hint = (
                    words if expected else f"the models could not be run or shown ({words}); try another input or ratio"
                )
                stopped = replace(job, running=False, note="stopped") if job is not None and job.running else job
                self._answer(generation, busy=False, problem=hint, job=stopped)

    def _compute(self, asked: Request, generation: int) -> Result:
        full = self._remembered.get(asked.source)
        if full is None:
            full = self._write(asked, self.modular.mapping.original, generation)
            self._remember(asked.source, full)
        # At 1x both are the same model: a second run would only measure noise.
        small = full if asked.assembly == full.assembly else self._write(asked, asked.assembly, generation)
        fidelity = None if self.has_slots else likeness(small.text, full.text)
        return Result(asked, full, small, fidelity)

    def _remember(self, source: str, full: Side) -> None:
        self._remembered[source] = replace(full, remembered=True)
        if len(self._remembered) > _REMEMBERED_TEXTS:
            self._remembered.popitem(last=False)

    def _timed_again(self, result: Result, generation: int) -> Result:
        """The same texts with the times of runs in turns."""
        asked = result.request
        models = dict.fromkeys((self.modular.mapping.original, asked.assembly))
        times: dict[Assembly, list[float]] = {assembly: [] for assembly in models}
        for _ in range(_REST_RUNS):
            for assembly in models:
                times[assembly] += self._write(asked, assembly, generation).times_ms
        full, small = (
            replace(side, times_ms=tuple(times[side.assembly]), remembered=False)
            for side in (result.full, result.small)
        )
        self._remember(asked.source, full)
        return replace(result, full=full, small=small)

    def _write(
        self, asked: Request, assembly: Assembly, generation: int, each: Callable[[torch.Tensor, float], None] | None = None
    ) -> Side:  # fmt: skip
        """One greedy text, timed after the model's first run; raises :class:`_Stale` where a newer wish came meanwhile.

        ``each`` is called with each token, and the milliseconds that had passed when it was there.
        """

        def watch(tokens: torch.Tensor) -> bool:
            if each is not None:
                each(tokens, 1000 * (seconds_now(model) - started))
            return self.state.generation != generation

        with self._machine(generation):
            encoded = self.modular.encode([asked.source])
            model = self.modular.assembled(assembly)
            if model not in self._warm:
                decode(model, encoded["input_ids"], encoded["attention_mask"], max_new_tokens=2)
                self._warm.add(model)
            started = seconds_now(model)
            tokens, engine = decode(
                model, encoded["input_ids"], encoded["attention_mask"], max_new_tokens=self.modular.longest, watch=watch
            )
            milliseconds = 1000 * (seconds_now(model) - started)
            if self.state.generation != generation:
                raise _Stale
            text = self.modular.tokenizer.decode(tokens[0, 1:], skip_special_tokens=True)
        report = check(asked.mr, text) if asked.mr is not None else None
        written = tokens[0, 1:].tolist()
        ends = model.generation_config.eos_token_id
        cut = len(written) >= self.modular.longest and written[-1] not in (ends if isinstance(ends, list) else [ends])
        return Side(
            assembly, self._size(assembly), text, report, (milliseconds,), max(1, len(written)), engine, cut=cut
        )

    @contextmanager
    def _machine(self, generation: int) -> Iterator[None]:
        """The machine for itself; raises :class:`_Stale` where a newer wish came while it was another's."""
        with _MACHINE:
            if self.state.generation != generation:
                raise _Stale
            yield

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def _race(self, asked: Request, generation: int) -> None:
        full, small = (
            self._runner(asked, assembly, generation) for assembly in (self.modular.mapping.original, asked.assembly)
        )
        last = max(full.times_ms[-1], small.times_ms[-1])
        race = Race(full, small, max(1.0, 1000 * _RACE_SECONDS / last))
        started = time.perf_counter()
        while not race.finished:
            race = replace(race, now_ms=1000 * (time.perf_counter() - started) / race.slowdown)
            self._answer(generation, race=race)
            with self._changed:
                self._changed.wait_for(lambda: self.state.generation != generation, 1 / _PICTURES_PER_SECOND)
        self._progress(generation, running=False)

    def _runner(self, asked: Request, assembly: Assembly, generation: int) -> Runner:
        tokens: list[int] = []
        times_ms: list[float] = []

        def each(chosen: torch.Tensor, milliseconds: float) -> None:
            tokens.append(int(chosen[0]))
            times_ms.append(milliseconds)

        self._write(asked, assembly, generation)  # the same care for both: each run follows one of its own
        engine = self._write(asked, assembly, generation, each).engine
        with self._machine(generation):
            decode_text = self.modular.tokenizer.decode
            texts = tuple(decode_text(tokens[:count], skip_special_tokens=True) for count in range(1, len(tokens) + 1))
        return Runner(assembly, engine, texts, tuple(times_ms))

    def _sweep(self, asked: Request, generation: int, strategy: str) -> None:
        path = assemblies(self.modular.mapping, strategy)
        sweep = Sweep(asked.source, strategy, len(path))
        for done, assembly in enumerate(path, start=1):
            sweep = replace(sweep, sides=(*sweep.sides, self._write(asked, assembly, generation)))
            self._answer(
                generation, sweep=sweep, job=replace(self.state.job or Job("sweep"), done=done, total=len(path))
            )
        self._progress(generation, running=False)

    def _measure(self, asked: Request, generation: int, examples: int) -> None:
        if not self.has_slots:
            raise ModtfError("there are no bundled examples for this model; modtf.evaluation measures it on yours")
        chosen = bundled_examples("evaluation")[:examples]
        sources = [write_mr(example.mr) for example in chosen]
        unknown = [source for source in sources if source not in self._full_texts]
        total, started = len(unknown) + len(sources), time.perf_counter()
        original = self.modular.mapping.original

        def note(done: int) -> None:
            passed = time.perf_counter() - started
            self._progress(
                generation, done=done, total=total, seconds_left=passed / done * (total - done) if done else None
            )

        note(0)
        for done, text in enumerate(self._texts(unknown, original, generation), start=1):
            self._full_texts[unknown[done - 1]] = text
            if done % _BATCH == 0:
                note(done)
        texts = []
        for text in self._texts(sources, asked.assembly, generation):
            texts.append(text)
            if len(texts) % _BATCH == 0:
                note(len(unknown) + len(texts))
        scores = score([example.mr for example in chosen], texts, [[self._full_texts[source]] for source in sources])
        speeds: dict[Assembly, list[float]] = {original: [], asked.assembly: []}
        for example, source in zip(chosen[:_TIMED_SENTENCES], sources, strict=False):
            sentence = Request(source, example.mr, None, asked.assembly)
            for _ in range(_TIMED_RUNS):
                for assembly, of_assembly in speeds.items():
                    side = self._write(sentence, assembly, generation)
                    of_assembly.append(side.tokens_per_second)
        row = {
            "assembly": asked.assembly.to_json(), "ratio": asked.assembly.ratio, "layers": asked.assembly.shape, "examples": len(chosen),
            "bleu": scores.bleu, "ser": scores.ser, "engine": side.engine,
            "speed_up": statistics.median(speeds[asked.assembly]) / statistics.median(speeds[original]),
        }  # fmt: skip
        others = tuple(other for other in self.state.measured_here if other["assembly"] != row["assembly"])
        job = replace(self.state.job or Job("measure"), running=False, done=total, total=total, seconds_left=None)
        self._answer(generation, measured_here=(*others, row), job=job)

    def _texts(self, sources: Sequence[str], assembly: Assembly, generation: int) -> Iterator[str]:
        for start in range(0, len(sources), _BATCH):
            with self._machine(generation):
                model = self.modular.assembled(assembly)
                encoded = self.modular.encode(list(sources[start : start + _BATCH]))
                tokens, _ = decode(
                    model,
                    encoded["input_ids"],
                    encoded["attention_mask"],
                    max_new_tokens=self.modular.longest,
                    watch=lambda tokens: self.state.generation != generation,
                )
                if self.state.generation != generation:
                    raise _Stale
                texts = self.modular.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            yield from texts

    def _save(self, asked: Request, generation: int, name: str) -> None:
        """Goes on to its end whatever is wished meanwhile, and says what came of it."""
        if not re.fullmatch(r"\w([\w .+-]{0,98}[\w+-])?", name):
            raise ModtfError(
                f"{name!r} is no name for a folder; write one of letters, digits, spaces and .+-_ (no slashes), at most 100 of them"
            )
        path = self.folder / name
        outcome: dict[str, Any] = {"note": str(path)}
        try:
            with _MACHINE:
                self.modular.export(path, asked.assembly)
        except ModtfError as error:
            outcome = {"problem": str(error)}
        with self._changed:
            self._publish(replace(self.state, job=replace(Job("save"), running=False, **outcome)))


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
