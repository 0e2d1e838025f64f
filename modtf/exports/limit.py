"""The best assembly that an engine runs within a time on this machine: measured, not predicted."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from modtf.errors import ModtfError
from modtf.evaluation import in_turns
from modtf.exports.check import converting
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.profile import corners, per_layer

#: What is timed: texts of so many inputs, each so often.
INPUTS, REPEATS = 5, 5


def time_of(modular: ModularModel, assembly: Assembly, made: Any, precision: str, sources: Sequence[str]) -> float:
    """Milliseconds of one text by the engine of a format (a module of this package): the median of the inputs, of each that of its runs."""
    with tempfile.TemporaryDirectory() as temporary, converting(assembly, made.__name__.rpartition(".")[2]):
        folder = Path(temporary) / "export"
        made.write(modular.assemble(assembly=assembly), modular.tokenizer, folder, precision)
        read = made.reader(folder, modular.longest)
        texts = [[modular.prefixed(source)] for source in sources[:INPUTS]]
        runs: dict[Any, Callable[[], Any]] = {number: partial(read, text) for number, text in enumerate(texts)}
        return statistics.median(map(statistics.median, in_turns(runs, REPEATS).values()))


def within(modular: ModularModel, limit: float, timed: Callable[[Assembly], float]) -> tuple[Assembly, float]:
    """The best assembly of those whose ``timed`` milliseconds are at most ``limit``, and what was measured of it.

    The best is that of the least loss by the kit's profile, or the one with the most layers where there is none. Only
    assemblies that might be fast enough are timed, which the largest and the smallest tell. Raises :class:`ModtfError`
    if none is.
    """
    if not limit > 0:
        raise ModtfError(f"max_latency_ms is {limit}; give a number above 0")
    ranked: Sequence[Assembly] = sorted(modular.assemblies("size_first"), key=lambda assembly: -assembly.layers)
    with suppress(ModtfError):
        ranked = modular.profile.ranked
    measured = {assembly: timed(assembly) for assembly in corners(modular.mapping)}
    cost = per_layer(measured)

    def predicted(assembly: Assembly) -> float:
        return cost["constant"] + cost["encoder"] * len(assembly.encoder) + cost["decoder"] * len(assembly.decoder)

    for assembly in ranked:
        if measured.get(assembly, predicted(assembly)) <= limit:
            if assembly not in measured:
                measured[assembly] = timed(assembly)
            if measured[assembly] <= limit:
                return assembly, measured[assembly]
    fastest = min(measured, key=measured.__getitem__)
    raise ModtfError(
        f"no assembly takes {limit:g} ms or less for a text; the fastest of {len(measured)} that were measured, "
        f"{fastest}, takes {measured[fastest]:.1f}: give more, or another engine or precision"
    )
