"""The replacing schedule: each step's assembly is a pure function of (seed, step), valid, and allowed by then."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from statistics import mean
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modtf.errors import ModtfError
from modtf.mapping import Assembly, Mapping, StackMapping, divisors
from modtf.replacing import ReplacingSchedule

TWELVE = StackMapping(12, (2, 3, 4, 6))
DEEP = Mapping(TWELVE, TWELVE)


@st.composite
def schedules(draw: st.DrawFn) -> ReplacingSchedule:
    depths = [draw(st.integers(1, 12)) for _ in range(2)]
    chosen = [
        tuple(sorted(draw(st.sets(st.sampled_from(divisors(depth)))))) if divisors(depth) else () for depth in depths
    ]
    if not any(chosen):
        depths[0], chosen[0] = 4, (2,)
    mixtures = draw(st.floats(0, 0.9))
    return ReplacingSchedule(
        Mapping(*map(StackMapping, depths, chosen)),
        steps=draw(st.integers(1, 1000)),
        seed=draw(st.integers(0, 99)),
        probability=draw(st.floats(0, 1)),
        full_at=draw(st.floats(0, 1)),
        coarse_at=draw(st.floats(0, 1)),
        mixtures=mixtures,
        whole=draw(st.floats(0.05, 1 - mixtures)),
        matched=draw(st.sampled_from((0.0, 0.5, 1.0))),
    )


@given(schedules(), st.data())
def test_draws_are_pure_valid_and_allowed(schedule: ReplacingSchedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps - 1))
    drawn = schedule.draw(step)
    random.seed(data.draw(st.integers()))  # the world's randomness does not matter ...
    schedule.draw(data.draw(st.integers(0, schedule.steps - 1)))  # ... nor what was drawn before
    assert schedule.draw(step) == drawn
    assert schedule.mapping.check(drawn) == drawn
    assert drawn != schedule.mapping.original, "a step without modules has no gradient"
    assert set(drawn.encoder + drawn.decoder) <= {1, *schedule.allowed_granularities(step)}


@given(schedules(), st.integers(1, 6), st.data())
def test_several_draws_are_valid_and_allowed(schedule: ReplacingSchedule, count: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps - 1))
    drawn = schedule.draw_several(step, count)
    assert len(drawn) == count and drawn == schedule.draw_several(step, count)
    allowed = {1, *schedule.allowed_granularities(step)}
    for one in drawn:
        assert schedule.mapping.check(one) != schedule.mapping.original
        assert set(one.encoder + one.decoder) <= allowed
    assert count > 1 or drawn == [schedule.draw(step)]


@given(schedules(), st.integers(2, 4), st.data())
def test_several_draws_hold_the_coarsest(schedule: ReplacingSchedule, count: int, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps - 1))
    schedule = replace(schedule, mixtures=0.5, whole=0.0)
    drawn, mapping = schedule.draw_several(step, count), schedule.mapping
    if {*schedule.allowed_granularities(step)} >= {*mapping.encoder.granularities, *mapping.decoder.granularities}:
        assert mapping.coarsest in drawn
        decoder_alone = Assembly(mapping.encoder.original, mapping.coarsest.decoder)
        assert count < 3 or decoder_alone in (*drawn, mapping.original)


@given(schedules(), st.data())
def test_whole_steps_deal_every_granularity(schedule: ReplacingSchedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps - 1))
    schedule = replace(schedule, mixtures=0.0, whole=1.0)
    allowed = schedule.allowed_granularities(step)
    decks = [{1, *(g for g in stack.granularities if g in allowed)} for stack in schedule.mapping.stacks]
    drawn = schedule.draw_several(step, max(map(len, decks)))
    for number, deck in enumerate(decks):
        paths = [set(one.paths[number]) for one in drawn]
        assert all(len(path) == 1 for path in paths), "one granularity from end to end"
        assert set().union(*paths) >= deck - {1}, "each learns"


def test_no_assembly_is_fixed_twice() -> None:
    schedule = ReplacingSchedule(Mapping(StackMapping(6), StackMapping(6, (2, 3))), 50, coarse_at=0, whole=0.0)
    assert schedule.draw_several(7, 3)[1:] == [schedule.draw(7, number, whole=False) for number in (0, 1)]


def test_several_draws_differ() -> None:
    schedule = ReplacingSchedule(DEEP, 200, coarse_at=0)
    assert sum(len(set(schedule.draw_several(step, 4))) == 4 for step in range(200)) > 100


@given(schedules())
def test_granularities_come_fine_to_coarse(schedule: ReplacingSchedule) -> None:
    every = tuple(sorted({g for stack in schedule.mapping.stacks for g in stack.granularities}))
    allowed = [schedule.allowed_granularities(step) for step in range(schedule.steps)]
    assert all(later[: len(earlier)] == earlier for earlier, later in pairwise(allowed)), "none is taken away again"
    assert all(granularities == every[: len(granularities)] != () for granularities in allowed)
    if schedule.coarse_at == 0:
        assert allowed[0] == every
    else:
        assert allowed[0] == every[:1]
    assert schedule.allowed_granularities(schedule.steps) == every


@given(schedules())
def test_probability_rises_to_one(schedule: ReplacingSchedule) -> None:
    rising = [schedule.replacing_probability(step) for step in range(schedule.steps + 1)]
    assert all(earlier <= later for earlier, later in pairwise(rising))
    assert rising[0] == (schedule.probability if schedule.full_at else 1)
    assert rising[-1] == 1
    assert all(0 <= p <= 1 for p in rising)


def test_values_on_the_way() -> None:
    schedule = ReplacingSchedule(DEEP, 1000, probability=0.4, full_at=0.5, coarse_at=0.3)
    assert [schedule.replacing_probability(step) for step in (0, 250, 500, 900)] == pytest.approx([0.4, 0.7, 1, 1])
    numbers = [len(schedule.allowed_granularities(step)) for step in (0, 99, 100, 199, 200, 299, 300)]
    assert numbers == [1, 1, 2, 2, 3, 3, 4]


def test_seeds_and_steps_differ() -> None:
    one, other = (list(ReplacingSchedule(DEEP, 200, seed)) for seed in (0, 1))
    assert len(one) == 200
    assert one != other
    assert len(set(one)) > 50
    assert one == [ReplacingSchedule(DEEP, 200, 0).draw(step) for step in range(200)]


def test_mixtures_replace_more_and_more() -> None:
    """The share of original layers in a mixture falls to none."""
    schedule = ReplacingSchedule(DEEP, 600, probability=0.2, full_at=1, coarse_at=0, mixtures=1, whole=0)
    kept = [(drawn.encoder + drawn.decoder).count(1) / drawn.layers for drawn in schedule]
    thirds = [mean(kept[i : i + 200]) for i in (0, 200, 400)]
    assert thirds[0] > thirds[1] > thirds[2]
    assert thirds[0] > 0.5
    last = schedule.draw(600)
    assert 1 not in last.encoder + last.decoder


def test_every_module_is_trained() -> None:
    """Over a training each m(g, j) of both stacks runs many times."""
    ran: Counter[tuple[str, int, int]] = Counter()
    for drawn in ReplacingSchedule(DEEP, 500):
        for stack, path in (("encoder", drawn.encoder), ("decoder", drawn.decoder)):
            start = 0
            for g in path:
                ran[stack, g, start // g] += 1
                start += g
    wanted = [(stack, g, j) for stack in ("encoder", "decoder") for g in (2, 3, 4, 6) for j in range(12 // g)]
    assert min(ran[module] for module in wanted) > 25


def test_kinds_of_steps() -> None:
    whole = list(ReplacingSchedule(DEEP, 100, coarse_at=0, mixtures=0, whole=1))
    assert all(len(set(drawn.encoder)) == len(set(drawn.decoder)) == 1 for drawn in whole)
    assert len(set(whole)) > 12, "full and compressed stacks in many combinations"
    matched = set(ReplacingSchedule(DEEP, 100, coarse_at=0, mixtures=0, whole=1, matched=1))
    assert matched == {Assembly((g,) * (12 // g), (g,) * (12 // g)) for g in (2, 3, 4, 6)}
    half = list(ReplacingSchedule(DEEP, 200, coarse_at=0, mixtures=0, whole=1, matched=0.5))
    assert 90 < sum(drawn in matched for drawn in half) < 140, "half of them, and a few of the others by chance"
    strategic = list(ReplacingSchedule(DEEP, 100, coarse_at=0, mixtures=0, whole=0))
    assert all(len(set(drawn.encoder)) <= 3 for drawn in strategic)
    assert {drawn.ratio for drawn in strategic} >= {2, 3, 6}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Limit the CPU time of this process, which does not depend on how busy the machine is."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"no end after {seconds} s of work")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers, which this system lacks")
@pytest.mark.parametrize(
    ("mapping", "options"),
    [
        (DEEP, {"probability": 0, "mixtures": 1, "whole": 0}),  # only mixtures, and at first they replace nothing
        (
            Mapping(StackMapping(3, (3,)), StackMapping(5, (5,))),
            {"mixtures": 0, "whole": 0},
        ),  # strategies begin with the granularity that comes last
        (Mapping(StackMapping(4, (4,)), StackMapping(7, (7,))), {"mixtures": 0, "whole": 0}),
    ],
)
def test_a_draw_ends(mapping: Mapping, options: dict[str, Any]) -> None:
    schedule = ReplacingSchedule(mapping, 100, **options)
    with at_most(2):
        drawn = schedule.draw(0)
    assert drawn != mapping.original
    assert set(drawn.encoder + drawn.decoder) <= {1, *schedule.allowed_granularities(0)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps is 0; give 1 or more"),
        ({"probability": 1.1}, "probability is 1.1; give a number from 0 to 1"),
        ({"full_at": -0.1}, "full_at is -0.1"),
        ({"coarse_at": 2}, "coarse_at is 2"),
        ({"mixtures": -1}, "mixtures is -1"),
        ({"whole": float("nan")}, "whole is nan"),
        ({"mixtures": 0.6, "whole": 0.5}, "more than 1"),
        ({"matched": 1.5}, "matched is 1.5; give a number from 0 to 1"),
        ({"steps": "10"}, "steps is '10'; give a whole number"),
        ({"steps": 10.0}, "steps is 10.0; give a whole number"),
        ({"steps": None}, "steps is None; give a whole number"),
        ({"steps": True}, "steps is True; give a whole number"),
        ({"seed": "a"}, "seed is 'a'; give a whole number"),
        ({"probability": "x"}, "probability is 'x'; give a number from 0 to 1"),
        ({"full_at": None}, "full_at is None; give a number from 0 to 1"),
        ({"coarse_at": [0.5]}, "coarse_at is [0.5]; give a number from 0 to 1"),
        ({"mixtures": 0.5j}, "mixtures is 0.5j; give a number from 0 to 1"),
        ({"whole": True}, "whole is True; give a number from 0 to 1"),
        ({"only": DEEP.original}, "is the original, which does not train"),
        ({"only": Assembly((5,), (1,))}, "has no granularity 5"),
        ({"mapping": (12, 12)}, "mapping is (12, 12); give the mapping of a modular model"),
    ],
)
def test_words_for_bad_options(options: dict[str, Any], words: str) -> None:
    given_: dict[str, Any] = {"mapping": DEEP, "steps": 10} | options
    with pytest.raises(ModtfError) as raised:
        ReplacingSchedule(**given_)
    assert words in str(raised.value)


def test_nothing_to_replace() -> None:
    with pytest.raises(ModtfError, match="nothing can be replaced; modularize it with granularities"):
        ReplacingSchedule(Mapping(StackMapping(1), StackMapping(6)), 10)


def test_a_student_is_drawn_alone() -> None:
    schedule = ReplacingSchedule(DEEP, 10, only=DEEP.coarsest)
    assert set(schedule) == {DEEP.coarsest}
