"""What the explorer knows, as plain records: what was asked for, what came of it, and how things stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modtf.errors import ModtfError
from modtf.evaluation import Latency, Size
from modtf.mapping import Assembly
from modtf.tasks.task import Judgement

#: One row of the measured table, or of what was measured here.
Row = dict[str, Any]


def words_of(error: Exception) -> str:
    """What the page says of an error; one that modtf did not foresee is named."""
    return str(error) if isinstance(error, ModtfError) else f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Side:
    """What one model wrote, how the task judges it, and what it took."""

    assembly: Assembly
    size: Size
    text: str
    judgement: Judgement
    latency: Latency  # of equal runs
    engine: str
    remembered: bool = False  # text and times are from an earlier request of this session
    cut: bool = False  # the text was not at its end when it had as many tokens as are allowed


@dataclass(frozen=True)
class Request:
    """A text to work on, and the assembly to do it with. ``strategy`` is None where the assembly was built by hand."""

    source: str
    strategy: str | None
    assembly: Assembly


@dataclass(frozen=True)
class Result:
    """Both models on one request."""

    request: Request
    full: Side
    small: Side

    @property
    def timed_in_turns(self) -> bool:
        """Whether both times are of runs in turns; a single run, or one of minutes ago, met another machine."""
        return not self.full.remembered and len(self.small.latency.times_ms) > 1

    @property
    def speed_up(self) -> float:
        """Tokens per second of the assembled model over those of the full one: fair where one text is longer."""
        return self.small.latency.tokens_per_second / self.full.latency.tokens_per_second


@dataclass(frozen=True)
class Runner:
    """One model in a race: its text after each token, and when it stood there, in milliseconds from the run's start."""

    assembly: Assembly
    engine: str
    texts: tuple[str, ...]
    times_ms: tuple[float, ...]

    def tokens_at(self, milliseconds: float) -> int:
        return sum(time <= milliseconds for time in self.times_ms)


@dataclass(frozen=True)
class Race:
    """Two runs that were timed one after the other, each with the machine to itself, replayed side by side.

    The replay is ``slowdown`` times slower than the runs; ``now_ms`` is where it stands, in the runners' time.
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
    """One source by every assembly of a strategy, from the full model down."""

    source: str
    strategy: str
    total: int
    sides: tuple[Side, ...] = ()


@dataclass(frozen=True)
class Job:
    """What a button started. ``note`` says how it ended, or ``problem`` why it could not."""

    kind: str  # race, measure, sweep or save
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    running: bool = True
    committed: bool = False  # goes on to its end, whatever is asked for meanwhile
    note: str = ""
    problem: str = ""


@dataclass(frozen=True)
class State:
    """All that a view draws. ``result`` may be of an earlier request than ``request``: then ``current`` is false."""

    generation: int = 0
    assembly: Assembly | None = None  # what the controls say, whatever is wrong with the text
    strategy: str | None = None  # that builds it; None where it was built by hand
    size: Size | None = None  # of it
    request: Request | None = None
    result: Result | None = None
    busy: bool = False  # texts are being written
    problem: str = ""  # what is wrong with the request, in words
    job: Job | None = None
    race: Race | None = None
    sweep: Sweep | None = None
    measured_here: tuple[Row, ...] = ()

    @property
    def current(self) -> bool:
        return self.result is not None and self.result.request == self.request and not self.problem
