"""The work that the explorer's buttons start on the current request: race, sweep, measurement, checkpoint."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.tasks import Example
from modtf.views.run import MACHINE, Run
from modtf.views.state import Job, Piece, Race, Runner, Sweep, words_of

#: A job: does its work and publishes its progress. Raises :class:`ModtfError` for what is not possible.
Work = Callable[[Run], None]

#: A replay is slowed down to last at least this long.
RACE_SECONDS, FRAMES_PER_SECOND = 5.0, 20
#: Of a measurement: texts per batch, with progress after each; inputs to time both models on; runs on each of those.
BATCH, TIMED_INPUTS, TIMED_RUNS = 10, 3, 3


def race(drafting: bool) -> Work:
    """Let both models write the text, then replay it token by token.

    With ``drafting`` the second one is the full model, too, for which the assembly's decoder drafts.
    """

    def work(run: Run) -> None:
        full = _runner(run, run.modular.mapping.original, "" if drafting else None)
        small = _drafted(run) if drafting else _runner(run, run.request.assembly)
        last = max(full.times_ms[-1], small.times_ms[-1])
        replay = Race(full, small, max(1.0, 1000 * RACE_SECONDS / last))
        started = time.perf_counter()
        while not replay.finished:
            replay = replace(replay, now_ms=1000 * (time.perf_counter() - started) / replay.slowdown)
            run.answer(race=replay)
            run.pause(1 / FRAMES_PER_SECOND)
        run.progress(running=False)

    return work


def _runner(run: Run, assembly: Assembly, engine: str | None = None) -> Runner:
    tokens: list[int] = []
    stamps: list[float] = []

    def each(chosen: torch.Tensor) -> None:
        tokens.append(int(chosen[0]))
        stamps.append(time.perf_counter())

    run.write(assembly, engine=engine)  # so that each model is timed right after a run of its own
    side = run.write(assembly, each=each, engine=engine)
    # The run's time ends at its last token; the earlier tokens count back from there.
    times_ms = tuple(side.latency.median_ms - 1000 * (stamps[-1] - stamp) for stamp in stamps)
    with run.machine():
        decode = run.modular.tokenizer.decode
        texts = tuple(decode(tokens[:count], skip_special_tokens=True) for count in range(1, len(tokens) + 1))
    return Runner(assembly, side.engine, texts, times_ms)


def _drafted(run: Run) -> Runner:
    original, small = run.modular.mapping.original, run.request.assembly
    for _ in range(2):  # as above, the second run is the one that counts
        written = run.write_all([run.request.source], original, draft=small)
    assert written.draft is not None
    tokens, passes = written.tokens[0].tolist(), written.draft.passes
    with run.machine():
        decode = run.modular.tokenizer.decode

        def text_of(ids: list[int]) -> str:
            return str(decode(ids, skip_special_tokens=True))

        def at(stamp: float) -> float:
            return 1000 * (written.seconds - (passes[-1].ended - stamp))

        pieces: list[Piece] = []
        times_ms: list[float] = []
        for one in passes:
            (guesses,), (accepted,) = one.guesses, one.accepted
            so_far, judged = tokens[: len(times_ms)], at(one.ended)
            for i, _ in enumerate(guesses):
                kind = "accepted" if i < accepted else "refused" if i == accepted else "left"
                before = text_of(so_far + guesses[:i])
                shown = at(one.began + (i + 1) / len(guesses) * (one.drafted - one.began))
                pieces.append(Piece(text_of(so_far + guesses[: i + 1])[len(before) :], kind, shown, judged))
            times_ms += [judged] * len(tokens[len(so_far) : len(so_far) + accepted + 1])
            if len(times_ms) > len(so_far) + accepted:  # the text may have ended with a guess
                before = text_of(tokens[: len(times_ms) - 1])
                pieces.append(Piece(text_of(tokens[: len(times_ms)])[len(before) :], "own", judged, judged))
        texts = tuple(text_of(tokens[: count + 1]) for count in range(len(tokens)))
    drafting = run.modular.drafting(original, small)
    assert drafting is not None
    return Runner(drafting, written.engine, texts, tuple(times_ms), tuple(pieces))


def sweep(strategy: str) -> Work:
    """Write a text for the current source with every assembly of a strategy."""

    def work(run: Run) -> None:
        chosen = run.modular.assemblies(strategy)
        so_far = Sweep(run.request.source, strategy, len(chosen))
        full = None
        for done, assembly in enumerate(chosen, start=1):
            side = run.write(assembly, full, engine="")  # not to compile them all
            full = full or side.text  # the first is the full model
            so_far = replace(so_far, sides=(*so_far.sides, side))
            run.answer(sweep=so_far, job=Job("sweep", done=done, total=len(chosen)))
        run.progress(running=False)

    return work


def measure(count: int, full_texts: dict[str, str]) -> Work:
    """Score the assembly on ``count`` bundled examples, with the full model's texts as references, and time it.

    ``full_texts`` keeps the full model's texts, by source, for later measurements.
    """

    def work(run: Run) -> None:
        examples = run.task.bundled_examples("evaluation")[:count]
        sources = [example.source for example in examples]
        original, assembly = run.modular.mapping.original, run.request.assembly
        unknown = [source for source in sources if source not in full_texts]
        total, started = len(unknown) + len(sources), time.perf_counter()

        def report(done: int) -> None:
            elapsed = time.perf_counter() - started
            run.progress(done=done, total=total, seconds_left=elapsed / done * (total - done))

        run.progress(done=0, total=total)
        done = 0
        for batch, texts in _texts(run, unknown, original):
            full_texts.update(zip(batch, texts, strict=True))
            done += len(batch)
            report(done)
        written: list[str] = []
        for _, texts in _texts(run, sources, assembly):
            written += texts
            report(done + len(written))
        scores = run.task.score([Example(source, (full_texts[source],)) for source in sources], written)
        speeds, engine = _speeds(run, sources[:TIMED_INPUTS], (original, assembly))
        row: dict[str, Any] = {
            "assembly": assembly.to_json(),
            "ratio": assembly.ratio,
            "layers": assembly.shape,
            "examples": len(examples),
            **scores,
            "engine": engine,
            "speed_up": statistics.median(speeds[assembly]) / statistics.median(speeds[original]),
        }
        others = tuple(other for other in run.controller.state.measured_here if other["assembly"] != row["assembly"])
        run.answer(measured_here=(*others, row), job=Job("measure", done=total, total=total, running=False))

    return work


def _texts(run: Run, sources: Sequence[str], assembly: Assembly) -> Iterator[tuple[Sequence[str], list[str]]]:
    """Yield the sources in batches, each with its texts."""
    for start in range(0, len(sources), BATCH):
        batch = sources[start : start + BATCH]
        yield batch, run.write_all(batch, assembly).texts


def _speeds(run: Run, sources: Sequence[str], models: Sequence[Assembly]) -> tuple[dict[Assembly, list[float]], str]:
    """Tokens per second of each model, one value per run, and the engine; the models take turns."""
    speeds: dict[Assembly, list[float]] = {assembly: [] for assembly in models}
    engine = ""
    for source in sources:
        for _ in range(TIMED_RUNS):
            for assembly, of_assembly in speeds.items():
                side = run.write(assembly, source=source, engine="")  # as the texts whose scores stand beside it
                of_assembly.append(side.latency.tokens_per_second)
                engine = side.engine
    return speeds, engine


def save(name: str) -> Work:
    """Save the assembly as a checkpoint in a new subfolder ``name`` of the explorer's folder.

    Once begun, the checkpoint is written to its end.
    """

    def work(run: Run) -> None:
        controller = run.controller
        if not re.fullmatch(r"\w([\w .+-]{0,98}[\w+-])?", name):
            raise ModtfError(
                f"{name!r} is not a valid folder name; use at most 100 letters, digits, spaces and .+-_ (no slashes)"
            )
        path = controller.folder / name
        run.progress(committed=True)
        outcome: dict[str, Any] = {"note": str(path)}
        try:
            with MACHINE:
                run.modular.export(path, run.request.assembly)
        except Exception as error:  # a newer request makes the run stale, but the error must still be shown
            outcome = {"problem": words_of(error)}
        with controller.changed:
            controller.publish(replace(controller.state, job=Job("save", running=False, **outcome)))

    return work
