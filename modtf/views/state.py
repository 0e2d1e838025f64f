"""What the explorer knows, as plain records: the request, its result, and the progress of jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modtf.errors import ModtfError
from modtf.evaluation import Latency, Size
from modtf.mapping import Assembly
from modtf.tasks.task import Judgement

#: One row of the measured table, or one measurement made in the explorer.
Row = dict[str, Any]


def words_of(error: Exception) -> str:
    """The error as the page shows it; one that modtf did not foresee is shown with its type."""
    return str(error) if isinstance(error, ModtfError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Side:
    """One model's text, the task's judgement of it, and what it cost in size and time."""

    assembly: Assembly
    size: Size
    text: str
    judgement: Judgement
    latency: Latency  # of one or more runs that wrote this text
    engine: str
    remembered: bool = False  # text and times come from an earlier request
    cut: bool = False  # the text reached the token limit before its end


@dataclass(frozen=True)
class Request:
    """A source text, and the assembly and engine to run on it. ``strategy`` is None where that was built by hand."""

    source: str
    strategy: str | None
    assembly: Assembly
    engine: str = ""  # left open where it is empty


@dataclass(frozen=True)
class Result:
    """What both models wrote for one request."""

    request: Request
    full: Side
    small: Side
    by_loop: Side | None = None  # what the full model wrote earlier in the loop, where another engine is asked for

    @property
    def timed_in_turns(self) -> bool:
        """Whether both times come from alternating runs: single or older runs may have met a busier machine."""
        return not self.full.remembered and len(self.small.latency.times_ms) > 1

    @property
    def speed_up(self) -> float:
        """Tokens per second of the assembly over those of the full model: comparable even if one text is longer."""
        return self.small.latency.tokens_per_second / self.full.latency.tokens_per_second


@dataclass(frozen=True)
class Piece:
    """A token of a drafted text, as the replay shows it, and when: in ms from the start of the run."""

    text: str
    kind: str  # accepted, refused, left (a guess behind a refused one), or own: the large decoder's
    shown_ms: float
    judged_ms: float  # by the large decoder

    def seen(self, milliseconds: float) -> str | None:
        """Its kind, "guess" before it is judged, or None while it cannot be seen."""
        if milliseconds < self.shown_ms:
            return None
        if milliseconds < self.judged_ms:
            return "guess"
        return None if self.kind == "left" else self.kind


@dataclass(frozen=True)
class Runner:
    """One model in a race: its text after each token, and the time of each token in ms from the start of the run."""

    assembly: Assembly
    engine: str
    texts: tuple[str, ...]
    times_ms: tuple[float, ...]
    #: of a text that the assembly's decoder drafts and the full model's answers
    pieces: tuple[Piece, ...] = ()

    def tokens_at(self, milliseconds: float) -> int:
        return sum(time <= milliseconds for time in self.times_ms)


@dataclass(frozen=True)
class Race:
    """Two runs, timed one after the other with the machine to themselves, and replayed side by side.

    The replay is ``slowdown`` times slower than the runs; ``now_ms`` is its position on the runs' own clock.
    """

    full: Runner
    small: Runner
    slowdown: float
    now_ms: float = 0.0

    @property
    def finished(self) -> bool:
        return self.now_ms >= max(self.full.times_ms[-1], self.small.times_ms[-1])


@dataclass(frozen=True)
class Sweep:
    """The texts that all assemblies of a strategy write for one source, starting with the full model."""

    source: str
    strategy: str
    total: int
    sides: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Job:
    """Work that a button started. ``note`` says how it ended, or ``problem`` why it failed."""

    kind: str  # race, measure, sweep or save
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    running: bool = True
    committed: bool = False  # runs to its end, whatever is requested meanwhile
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class State:
    """All that a view draws. ``result`` may belong to an earlier request; then ``current`` is false."""

    generation: int = 0
    assembly: Assembly | None = None  # what the controls show, even if the text is invalid
    strategy: str | None = None  # builds this assembly; None where it was built by hand
    size: Size | None = None  # of this assembly
    request: Request | None = None
    result: Result | None = None
    busy: bool = False  # texts are being written
    problem: str = ""  # what is wrong with the request
    job: Job | None = None
    race: Race | None = None
    sweep: Sweep | None = None
    measured_here: tuple[Row, ...] = ()

    @property
    def current(self) -> bool:
        return self.result is not None and self.result.request == self.request and not self.problem
