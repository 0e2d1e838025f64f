"""Is an export what it was made of? Its texts, read back by its own engine, beside those of the assembly."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from safetensors import SafetensorError

from modtf.errors import ModtfError
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks import Example, task_named

#: Greedy texts for sources, by an export's own engine.
Reader = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class Check:
    """What came of a check; ``own`` is the assembly in full precision, written by modtf itself."""

    inputs: int
    #: of the export's texts, how many are the assembly's
    equal: int
    #: by the task's metrics, by their names, against the inputs' references
    scores: dict[str, float]
    own_scores: dict[str, float]
    #: of one text, medians, taken in turns
    milliseconds: float
    own_milliseconds: float
    #: who wrote the assembly's texts: see :func:`modtf.decoding.decode`
    own_engine: str

    def __str__(self) -> str:
        pairs = [f"{name} {value:.2f} / {self.own_scores[name]:.2f}" for name, value in self.scores.items()]
        pairs.append(
            f"ms a text {self.milliseconds:.1f} by its own engine / {self.own_milliseconds:.1f} by modtf's {self.own_engine}"
        )
        return (
            f"{self.equal} of {self.inputs} texts are those of the assembly in full precision; "
            f"export / assembly: {', '.join(pairs)}"
        )


@contextmanager
def converting(assembly: Assembly, name: str) -> Iterator[None]:
    """What a converter or an engine of others raises here, which may be anything, becomes a :class:`ModtfError`."""
    try:
        yield
    except (ModtfError, OSError, SafetensorError):  # the last two are of the disk
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModtfError(
            f"{name} cannot take {assembly}: {type(error).__name__}: {reason}; choose another format"
        ) from error


def single_words(config: Any) -> list[int]:
    """The tokens that are never written: those of ``bad_words_ids`` that are a word of their own."""
    return [word[0] for word in config.bad_words_ids or () if len(word) == 1]


def compare(modular: ModularModel, assembly: Assembly, read: Reader, examples: Sequence[Example]) -> Check:
    """Write a text for each example with an export and with its assembly, one by one and in turns.

    Raises :class:`ModtfError` for a source that is too long.
    """
    times: tuple[list[float], list[float]] = ([], [])
    texts: tuple[list[str], list[str]] = ([], [])
    engine = ""

    def own(source: str) -> str:
        nonlocal engine
        written = modular.write([source], assembly)
        engine = written.engine
        return written.texts[0]

    modular.encode([example.source for example in examples])  # says what is too long; an engine would not
    writers = (lambda source: read([modular.prefixed(source)])[0]), own
    for number, example in enumerate([examples[0], *examples]):
        for write, of_writer, took in zip(writers, texts, times, strict=True):
            started = time.perf_counter()
            text = write(example.source)
            if number:  # the first one only warms up
                took.append(1000 * (time.perf_counter() - started))
                of_writer.append(text)
    task = task_named(modular.task)
    names = {metric.key: metric.name for metric in task.metrics}
    scores, own_scores = ({names.get(k, k): v for k, v in task.score(examples, of_one).items()} for of_one in texts)
    return Check(
        inputs=len(examples),
        equal=sum(theirs == ours for theirs, ours in zip(*texts, strict=True)),
        scores=scores,
        own_scores=own_scores,
        milliseconds=statistics.median(times[0]),
        own_milliseconds=statistics.median(times[1]),
        own_engine=engine,
    )
