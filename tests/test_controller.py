"""The explorer's state (requests, stale runs, problems, jobs), and the widgets that draw it, without a browser."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, T5Config, T5ForConditionalGeneration

import modtf
from modtf.decoding import forget
from modtf.evaluation import measured_table, size_of, size_of_assembly
from modtf.mapping import Assembly
from modtf.recipes.pocket import train_tokenizer
from modtf.saving import fingerprint_of
from modtf.tasks import E2E, TRANSLATION
from modtf.tasks.e2e import parse_mr
from modtf.views import markup
from modtf.views.controller import Controller
from modtf.views.explorer import Explorer
from modtf.views.markup import chips_html, marked_html, python_lines, race_html, result_html, sweep_html
from modtf.views.serve import HOST, free_port, serve
from modtf.views.state import Job, Piece, Race, Runner, Side, State, Sweep

MR = "name[The Vaults], food[French]"
TEXTS = ["The Vaults is a cheap French pub near Café Adriatic.", "The Mill serves English food in the city centre."] * 5


def make_modular(task: str = "e2e", min_new_tokens: int = 1) -> modtf.ModularModel:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 320)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=4, num_decoder_layers=4,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    original = T5ForConditionalGeneration(config).eval()
    original.generation_config.min_new_tokens = min_new_tokens
    original.generation_config.exponential_decay_length_penalty = (8, 5.0)  # random weights would never end a text
    return modtf.modularize(original, (2, 4), tokenizer=tokenizer, task=task)


def make_modular_tokenizer() -> Any:
    return train_tokenizer(TEXTS, 97)


@pytest.fixture(scope="module")
def modular() -> modtf.ModularModel:
    return make_modular()


class Listener:
    def __init__(self) -> None:
        self.states: list[State] = []

    def __call__(self, state: State) -> None:
        self.states.append(state)

    def results(self) -> list[State]:
        return [state for state in self.states if state.result is not None and not state.busy]


def row(strategy: str, assembly: Assembly, **fields: Any) -> dict[str, Any]:
    measured = {"bleu": 60.0, "bleu_kept": 99.0, "ser": 1.5, "speed_up": assembly.ratio * 0.9}
    return {
        "trained": True,
        "strategy": strategy,
        "ratio": assembly.ratio,
        "layers": assembly.shape,
        "assembly": assembly.to_json(),
        **measured,
        **fields,
    }


def settle(controller: Controller, runs: int) -> State:
    """The state once the result's times come from this many runs."""

    def settled() -> bool:
        result = controller.state.result
        return result is not None and len(result.full.latency.times_ms) == runs

    with controller.changed:
        assert controller.changed.wait_for(settled, 60)
        return controller.state


def test_a_result_has_both_texts_with_judgements_sizes_and_times(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2, strategy="speed_first")
    state = controller.wait()
    result = state.result
    assert state.current and result is not None
    assert result.small.assembly == modular.choose(2, "speed_first")
    assert result.full.text == modular.generate(MR)
    assert result.small.text == modular.generate(MR, ratio=2, strategy="speed_first")
    for side in (result.full, result.small):
        assert side.latency.median_ms > 0 and side.latency.tokens > 0 and side.engine == "generate"
        assert {mark.name for mark in side.judgement.marks if mark.kind != "added"} == {"name", "food"}
    assert result.small.size.parameters < result.full.size.parameters
    assert result.speed_up == pytest.approx(
        result.small.latency.tokens_per_second / result.full.latency.tokens_per_second
    )


def test_the_full_text_is_remembered_and_timed_again_at_rest(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2)
    first = controller.wait().result
    controller.request(ratio=1.6)
    second = controller.wait().result
    assert first is not None and second is not None
    assert not first.full.remembered and second.full.remembered
    assert second.full.text == first.full.text
    again = settle(controller, runs=5).result
    assert again is not None and not again.full.remembered and again.small.text == second.small.text


def test_the_newest_request_wins(modular: modtf.ModularModel) -> None:
    listener = Listener()
    controller = Controller(modular, on_change=listener)
    ratios = modular.mapping.ratios()
    for i in range(40):
        controller.request(MR, ratio=ratios[i % len(ratios)])
    state = controller.wait()
    assert state.generation == 40 and state.current
    for shown in listener.results():
        assert shown.current, "a result of an earlier request was shown"


def test_a_request_replaced_before_it_settles_does_not_run(
    modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modtf.views.controller.SETTLE_SECONDS", 0.3)
    controller = Controller(modular)
    ran: list[object] = []
    monkeypatch.setattr(controller, "_compute", lambda *request: ran.append(request))
    controller.request(MR, ratio=2)
    time.sleep(0.1)  # the worker waits for the slider to rest
    controller.request(ratio=99)
    assert "out of reach" in controller.wait().problem
    time.sleep(0.7)
    assert not ran and controller.state.result is None
    controller.close()


def test_the_worker_survives_a_view_that_fails(modular: modtf.ModularModel) -> None:
    def fails_in_the_worker(state: State) -> None:
        if broken and threading.current_thread() is not threading.main_thread():
            raise RuntimeError("the page is gone")

    broken = True
    controller = Controller(modular, on_change=fails_in_the_worker)
    controller.request(MR, ratio=2)
    time.sleep(1)
    broken = False
    controller.request(ratio=4)
    state = controller.wait()
    assert state.current and state.result is not None and state.result.small.assembly.ratio == 4


def test_many_threads_may_make_requests(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    threads = [threading.Thread(target=controller.request, args=(MR, ratio)) for ratio in modular.mapping.ratios()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.wait().current


@pytest.mark.filterwarnings("ignore:Unfeasible length")  # the warm-up writes two tokens
def test_a_stale_run_stops_at_the_next_token() -> None:
    modular = make_modular(min_new_tokens=60)
    listener = Listener()
    controller = Controller(modular, on_change=listener)
    small = modular.choose(4)
    passes = []

    def count(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 5:  # two for the warm-up
            controller.stop()

    hook = modular.assembled(small).register_forward_hook(count)
    controller.request(MR, assembly=small)
    controller._worker.join(3) if controller._worker else None
    hook.remove()
    assert len(passes) == 5
    assert not listener.results()
    controller.request(ratio=2)
    assert controller.wait().current, "the worker continues after a stopped run"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"source": "name[The Vaults"}, "does not parse"),
        ({"source": "name[The Vaults], colour[red]"}, "the slots are"),
        ({"source": ""}, "empty"),
        ({"ratio": 9.0}, "ratios from 1 to 4"),
        ({"strategy": "luck"}, "is unknown"),
        ({"assembly": Assembly((4,), (3, 1))}, "no granularity 3"),
    ],
)
def test_problems_are_reported(modular: modtf.ModularModel, request_: dict[str, Any], words: str) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2)
    before = controller.wait().result
    controller.request(**request_)
    assert words in controller.state.problem and not controller.state.busy and not controller.state.current
    assert before is not None and controller.state.result is not None
    assert controller.state.result.request == before.request, "the last result stays"
    controller.request(MR, 2.0, "size_first")
    assert controller.wait().current and not controller.state.problem


def test_a_failing_model_is_reported() -> None:
    modular = make_modular()
    controller = Controller(modular)

    def fail(*_: Any) -> None:
        raise RuntimeError("out of luck")

    with_hook = modular.assembled(modular.choose(4)).register_forward_hook(fail)
    controller.request(MR, ratio=4)
    assert "RuntimeError: out of luck" in controller.wait().problem
    with_hook.remove()
    controller.request(ratio=4)
    assert controller.wait().current


def test_the_measured_row_is_exact_or_the_nearest(modular: modtf.ModularModel) -> None:
    exact, other = modular.choose(2), modular.choose(4)
    rows = [row("size_first", exact), row("size_first", other), row("size_first", modular.choose(1.6), trained=False)]
    controller = Controller(modular, {"rows": rows})
    assert controller.measured(exact, "size_first") == (rows[0], True)
    assert controller.measured(modular.choose(1.6), "size_first") == (rows[0], False), (
        "untrained rows do not describe this model"
    )
    assert controller.measured(modular.choose(3.9, "speed_first"), "speed_first")[0] == rows[1]


def test_pockets_table_is_for_pockets_weights_only(modular: modtf.ModularModel) -> None:
    table, note = measured_table(modular)
    assert table is None and "No measurements" in note
    pocket = modtf.load("pocket")
    table, note = measured_table(pocket)
    assert table is not None and len(table["rows"]) > 16 and not note
    with torch.no_grad():
        next(iter(pocket.bank_weights().values())).mul_(1.1)
    assert measured_table(pocket)[0] is None, "these are other weights"


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def controller(modular: modtf.ModularModel) -> Iterator[Controller]:
    controller = Controller(modular)
    controller.request(MR, ratio=2)
    controller.wait()
    yield controller
    controller.close()


def test_a_race_replays_what_was_measured(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtf.views.jobs.RACE_SECONDS", 0.3)
    result = controller.state.result
    controller.race()
    state = controller.wait()
    race = state.race
    assert race is not None and race.finished and result is not None and state.job is not None and not state.job.running
    for runner, side in ((race.full, result.full), (race.small, result.small)):
        assert runner.texts[-1] == side.text and len(runner.texts) == side.latency.tokens
        assert list(runner.times_ms) == sorted(runner.times_ms) and runner.times_ms[0] > 0
        assert runner.tokens_at(0) == 0 and runner.tokens_at(runner.times_ms[-1]) == side.latency.tokens
    assert race.slowdown == pytest.approx(max(1, 300 / max(race.full.times_ms[-1], race.small.times_ms[-1])))


def test_the_replay_shows_the_leader_first() -> None:
    path = Assembly((1,), (1,))
    race = Race(
        Runner(path, "loop", ("a", "a b"), (10.0, 20.0)),
        Runner(path, "loop", ("a", "a c"), (2.0, 4.0)),
        50.0,
        now_ms=5.0,
    )
    html = race_html(race)
    assert (
        "0 tokens · 5 ms" in html
        and "2 tokens · 4 ms, finished" in html
        and "50 times slower" in html
        and 'data-finished="false"' in html
    )
    assert "5.00 times as fast" in race_html(replace(race, now_ms=20.0))


def test_a_race_with_drafts_shows_what_was_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtf.views.jobs.RACE_SECONDS", 0.3)
    controller = Controller(modtf.load("pocket"))
    controller.request(MR, ratio=6)
    controller.race(drafting=True)
    state = controller.wait()
    controller.close()
    race, result = state.race, state.result
    assert not state.job.problem and race is not None and race.finished and result is not None
    full, drafted = race.full, race.small
    assert drafted.texts[-1] == full.texts[-1] == result.full.text and len(drafted.times_ms) == len(full.times_ms)
    assert drafted.assembly == Assembly(race.full.assembly.encoder, result.small.assembly.decoder)
    end = drafted.times_ms[-1]
    kept = [piece.text for piece in drafted.pieces if piece.seen(end) in ("accepted", "own")]
    assert "".join(kept) == full.texts[-1] and {piece.kind for piece in drafted.pieces} >= {"accepted", "own"}
    assert all(0 < piece.shown_ms <= piece.judged_ms <= end for piece in drafted.pieces)
    assert all(piece.seen(piece.shown_ms - 0.001) is None for piece in drafted.pieces)
    html = race_html(race)
    passes = len(set(drafted.times_ms))
    assert f"the large decoder ran {passes} times for {len(drafted.texts)} tokens" in html
    assert "full model, drafted by 2 layers" in html
    assert 'class="modtf-accepted"' in html


def test_a_replay_judges_guesses_when_the_large_decoder_does() -> None:
    path = Assembly((1,), (1,))
    pieces = (
        Piece("The", "accepted", 1.0, 4.0),
        Piece(" dog", "refused", 2.0, 4.0),
        Piece(" eats", "left", 3.0, 4.0),
        Piece(" <cat>", "own", 4.0, 4.0),
    )
    drafted = Runner(path, "loop", ("The", "The <cat>"), (4.0, 4.0), pieces)
    race = Race(Runner(path, "loop", ("The", "The <cat>"), (4.0, 8.0)), drafted, 50.0)

    def shown(now_ms: float) -> str:
        lane = race_html(replace(race, now_ms=now_ms)).split("modtf-small")[1].split("</section>")[0]
        return re.sub(r".*modtf-text.>|<span class=modtf-caret>.*|</?div>|</span>", "", lane)

    guess = '<span class="modtf-guess">'
    assert shown(0.5) == "" and shown(2.0) == f"{guess}The{guess} dog"
    assert shown(3.0) == f"{guess}The{guess} dog{guess} eats"
    judged = '<span class="modtf-accepted">The<span class="modtf-refused"> dog<span class="modtf-own"> &lt;cat&gt;'
    assert shown(4.0) == judged == shown(9.0)
    assert "ran once for 2 tokens and accepted 1 of 3 guesses" in race_html(replace(race, now_ms=9.0))
    assert "2.00 times as fast, word for word the same" in race_html(replace(race, now_ms=9.0))
    other = replace(race, now_ms=9.0, full=replace(race.full, texts=("The", "The <dog>")))
    assert "another text, since two words were as good as tied" in race_html(other)


def test_a_race_says_why_nothing_can_be_drafted(controller: Controller) -> None:
    controller.race(drafting=True)
    state = controller.wait()
    assert "min_new_tokens; leave out the draft" in state.job.problem and state.race is None


@pytest.mark.parametrize("job", ["race", "measure", "sweep"])
def test_a_move_stops_a_job(controller: Controller, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = Listener()
    controller._on_change = listener
    {
        "race": controller.race,
        "measure": lambda: controller.measure(300),
        "sweep": lambda: controller.sweep("size_first"),
    }[job]()
    with controller.changed:  # wait until the job has published something
        begun = {"race": "race", "measure": "job", "sweep": "sweep"}[job]
        assert controller.changed.wait_for(
            lambda: getattr(controller.state, begun) and (job != "measure" or controller.state.job.total), 60
        )
    generation = controller.request(ratio=4)
    state = controller.wait()
    assert state.current and state.result.small.assembly.ratio == 4
    assert state.job == replace(state.job, kind=job, running=False, note="stopped") and not state.measured_here
    time.sleep(0.3)
    after = [state for state in listener.states if state.generation >= generation]
    assert all(state.race is None and not state.job.running for state in after), "nothing of a stopped job appears"


def test_a_job_waits_for_the_text_it_needs(controller: Controller) -> None:
    controller.request("name[Zizzi]")
    controller.sweep("speed_first")
    state = controller.wait()
    assert state.current and state.result.request.source == "name[Zizzi]"
    assert [side.assembly.ratio for side in state.sweep.sides] == sorted(
        side.assembly.ratio for side in state.sweep.sides
    )
    assert state.sweep.sides[0].text == state.result.full.text and state.sweep.source == "name[Zizzi]"
    controller.request(ratio=4)
    assert controller.wait().sweep is not None, "a sweep stays valid for its source, whatever the slider does"
    controller.request("name[Aromi]")
    assert controller.wait().sweep is None


def test_a_measurement_publishes_progress_and_a_row(controller: Controller) -> None:
    listener = Listener()
    controller._on_change = listener
    controller.measure(20)
    state = controller.wait()
    (row,) = state.measured_here
    assert row["assembly"] == state.request.assembly.to_json() and row["examples"] == 20
    assert 0 <= row["bleu"] <= 100 and row["ser"] >= 0 and row["speed_up"] > 0
    done = [state.job.done for state in listener.states if state.job]
    assert (
        done == sorted(done)
        and done[-1] == 40
        and {state.job.total for state in listener.states if state.job} <= {0, 40}
    )
    assert any(state.job.seconds_left for state in listener.states if state.job)


def test_the_full_model_measured_against_itself() -> None:
    controller = Controller(modtf.load("pocket"))
    controller.request(MR, ratio=6)
    controller.measure(10)
    small = controller.wait().measured_here[0]
    controller.request(ratio=1)
    controller.measure(10)
    state = controller.wait()
    assert state.job.total == 10, "the full model's texts are known by now"
    assert small["bleu"] < state.measured_here[1]["bleu"] == pytest.approx(100)
    controller.close()


def test_stop_keeps_the_text(controller: Controller) -> None:
    before = controller.state.result
    controller.measure(300)
    controller.stop()
    state = controller.wait()
    assert state.result.small.text == before.small.text and state.current and state.job.note == "stopped"
    controller.request(ratio=4)
    assert controller.wait().current


def test_text_and_times_still_come_after_a_cancelled_job(controller: Controller) -> None:
    controller.request("name[Zizzi]")
    controller.race()
    controller.cancel()
    state = controller.wait(timed_in_turns=True)
    assert (
        state.current
        and state.result.request.source == "name[Zizzi]"
        and state.result.timed_in_turns
        and state.job.note == "stopped"
    )
    controller.request(ratio=4)
    assert controller.wait().job is None, "the next move clears the outcome of a job"


def test_the_assembly_changes_even_if_the_text_is_invalid(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.request(ratio=4)
    state = controller.state
    assert (
        state.assembly == modular.choose(4)
        and state.size == size_of(modular.assembled(state.assembly))
        and not state.problem
    )
    controller.request("nonsense[", assembly=Assembly((2, 2), (4,)))
    assert controller.state.assembly == Assembly((2, 2), (4,)) and controller.state.problem
    controller.request(MR)
    assert controller.wait().result.small.assembly == Assembly((2, 2), (4,))
    controller.close()


def test_sizes_without_assembling(make_modular: Any, family: str) -> None:
    modular = make_modular(family)
    for strategy in ("size_first", "speed_first"):
        for ratio in modular.mapping.ratios():
            assembly = modular.choose(ratio, strategy)
            assert size_of_assembly(modular, assembly) == size_of(modular.assemble(assembly=assembly))


def fused_step(weights: list[torch.Tensor]) -> None:
    """An optimizer step that does not raise the tensors' version counters."""
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    torch.optim.SGD(weights, lr=1.0, fused=True).step()


def other_signs(weights: list[torch.Tensor]) -> None:
    """A change that keeps the norms."""
    with torch.no_grad():
        for weight in weights:
            weight.neg_()


def writes_through_data(weights: list[torch.Tensor]) -> None:
    """Writes that no version counter sees."""
    for weight in weights:
        weight.data.neg_()
    forget()


@pytest.mark.parametrize("change", [fused_step, other_signs, writes_through_data])
def test_new_weights_invalidate_old_texts(change: Callable[[list[torch.Tensor]], None]) -> None:
    modular = make_modular()
    controller = Controller(modular)
    controller.request(MR, ratio=4)
    before = controller.wait().result
    change(list(modular.bank_weights().values()))
    controller.request(MR)
    after = controller.wait().result
    assert after is not before and after.small.text == modular.generate(MR, ratio=4) != before.small.text
    controller.close()


def test_a_cut_text_is_marked() -> None:
    modular = make_modular()
    modular.generation_config.eos_token_id = None  # no token ends a text
    modular.generation_config.exponential_decay_length_penalty = None
    modular.generation_config.min_new_tokens = None
    controller = Controller(modular)
    controller.request(MR, ratio=4)
    state = controller.wait()
    assert state.result.small.cut and "cut at 128 tokens" in result_html(state, E2E)
    controller.close()


def test_a_checkpoint_is_written_to_its_end(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = modular.export
    monkeypatch.setattr(modular, "export", lambda *given: (time.sleep(0.4), export(*given)))
    controller = Controller(modular, folder=tmp_path)
    controller.request(MR, ratio=2)
    controller.wait()
    controller.save("mine")
    time.sleep(0.2)
    controller.request(ratio=4)
    state = controller.wait()
    assert state.job.note == str(tmp_path / "mine") and (tmp_path / "mine" / "config.json").is_file()
    assert state.current and state.result.small.assembly.ratio == 4
    controller.close()


def test_a_move_stops_a_checkpoint_that_waits_for_its_text(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has been written yet, so the job stops and the folder stays empty."""
    write, writing, go_on = modular.write, threading.Event(), threading.Event()

    def slow_write(*given: Any, **options: Any) -> Any:
        writing.set()
        assert go_on.wait(60)
        return write(*given, **options)

    monkeypatch.setattr(modular, "write", slow_write)
    controller = Controller(modular, folder=tmp_path)
    controller.request(MR, ratio=2)
    assert writing.wait(60)
    controller.save("mine")
    assert controller.state.busy and controller.state.job == Job("save")
    controller.request(ratio=4)
    assert controller.state.job == Job("save", running=False, note="stopped")
    go_on.set()
    state = controller.wait()
    assert state.current and state.result.small.assembly.ratio == 4
    assert state.job.note == "stopped" and "stopped" in markup.saved_html(state.job) and not list(tmp_path.iterdir())
    controller.save("mine")
    assert controller.wait().job.note == str(tmp_path / "mine")
    controller.close()


def test_a_checkpoint_that_fails_after_a_move_is_reported(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fail(*given: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(modular, "export", fail)
    controller = Controller(modular, folder=tmp_path)
    controller.request(MR, ratio=2)
    controller.wait()
    controller.save("mine")
    assert begun.wait(60)
    controller.request(ratio=4)
    assert controller.state.job.running, "a checkpoint is written to its end"
    go_on.set()
    state = controller.wait()
    assert state.job == Job("save", running=False, problem="RuntimeError: out of memory")
    assert state.current and state.result.small.assembly.ratio == 4 and not state.problem
    controller.close()


def test_jobs_need_a_valid_request(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.race()
    assert controller.wait().job.problem
    controller.request("nonsense[")
    controller.sweep("size_first")
    state = controller.wait()
    assert state.job.problem and state.problem, "the request's problem stays"


def test_a_failing_job_is_reported_with_the_job(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "task", replace(E2E, score=lambda *_: 1 / 0))
    controller.measure(10)
    state = controller.wait()
    assert "ZeroDivisionError" in state.job.problem and not state.problem and state.current


def test_saving_and_its_problems(modular: modtf.ModularModel, tmp_path: Path) -> None:
    controller = Controller(modular, folder=tmp_path)
    controller.request(MR, assembly=Assembly((2, 2), (4,)))
    controller.save("small")
    state = controller.wait()
    assert state.job.note == str(tmp_path / "small") and not state.job.problem
    tokenizer = AutoTokenizer.from_pretrained(state.job.note)
    small = AutoModelForSeq2SeqLM.from_pretrained(state.job.note)
    tokens = small.generate(
        **tokenizer(state.request.source, return_tensors="pt", return_token_type_ids=False), max_new_tokens=128
    )
    assert tokenizer.decode(tokens[0], skip_special_tokens=True) == state.result.small.text
    for name, words in (
        ("small", "not empty"),
        ("../out", "not a valid folder name"),
        ("", "not a valid folder name"),
        (".hidden", "not a valid folder name"),
        ("/etc", "not a valid folder name"),
    ):
        controller.save(name)
        assert words in controller.wait().job.problem
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    controller.close()


def test_several_explorers_do_not_interfere(modular: modtf.ModularModel) -> None:
    several = [Controller(modular) for _ in range(3)]
    for i, controller in enumerate(several):
        controller.request(MR, ratio=modular.mapping.ratios()[i])
    several[0].measure(20)
    for i, controller in enumerate(several):
        state = controller.wait()
        assert state.current and state.result.small.assembly.ratio == modular.mapping.ratios()[i]
    assert several[0].state.measured_here and not several[1].state.measured_here
    for controller in several:
        controller.close()


def test_the_python_lines_rebuild_the_text() -> None:
    modular = modtf.load("pocket")
    controller = Controller(modular)
    assembly = Assembly((1, 1, 1, 3, 6), (6, 2, 2, 2))
    controller.request('name[L\'"Orangerie"], food[Thai]', assembly=assembly)
    state = controller.wait()
    names: dict[str, Any] = {}
    exec(python_lines(modular, state.request), names)
    assert names["text"] == state.result.small.text and names["small"].assembly == assembly
    modular.source = None
    assert "that you gave to modtf.explore" in python_lines(modular, state.request)
    controller.close()


def test_pockets_texts_come_from_the_loop() -> None:
    controller = Controller(modtf.load("pocket"))
    controller.request(MR, ratio=6)
    state = controller.wait(timed_in_turns=True)
    assert {state.result.full.engine, state.result.small.engine} == {"loop"} and "greedy loop" in result_html(
        state, E2E
    )
    controller.close()


@pytest.mark.parametrize(
    ("text", "other", "marked"),
    [
        ("a b c", "a b c", "a b c"),
        ("a x c", "a b c", "a <mark>x</mark> c"),
        ("a b", "a b c", "a b"),
        ("x y", "", "<mark>x y</mark>"),
        ("", "a", ""),
        ("<b> c", "c", "<mark>&lt;b&gt;</mark> c"),
    ],
)
def test_differing_words_are_marked(text: str, other: str, marked: str) -> None:
    assert marked_html(text, other) == marked


def test_the_first_lost_slot_is_named(controller: Controller) -> None:
    full = controller.state.result.full
    mr = "name[Zizzi], food[Thai], area[riverside]"

    def side(text: str, assembly: Assembly) -> Side:
        return replace(full, text=text, assembly=assembly, judgement=E2E.judge(mr, text, ""))

    paths = [Assembly((1, 1, 1, 1), (1, 1, 1, 1)), Assembly((2, 2), (2, 2)), Assembly((4,), (4,))]
    texts = ["Zizzi serves Thai food.", "Zizzi is a restaurant.", "A restaurant."]
    html = sweep_html(Sweep("", "size_first", 3, tuple(map(side, texts, paths))), E2E)
    assert "<b>food</b>, at 2.00×" in html, "the full model misses the area, too"
    assert html.count("modtf-first-loss") == 1
    assert "is lost at any ratio" in sweep_html(Sweep("", "size_first", 1, (side(texts[0], paths[0]),)), E2E)
    assert "lost so far" in sweep_html(Sweep("", "size_first", 2, (side(texts[0], paths[0]),)), E2E)


def test_without_parts_the_first_change_is_named(controller: Controller) -> None:
    full = controller.state.result.full

    def swept(*texts: str) -> str:
        paths = [Assembly((1, 1, 1, 1), (1, 1, 1, 1)), Assembly((2, 2), (2, 2)), Assembly((4,), (4,))]
        sides = tuple(
            replace(full, text=text, assembly=path, judgement=TRANSLATION.judge("Mir ist kalt.", text, texts[0]))
            for text, path in zip(texts, paths, strict=False)
        )
        return sweep_html(Sweep("Mir ist kalt.", "size_first", 3, sides), TRANSLATION)

    html = swept("I'm cold.", "I am cold.", "Three.")
    assert "at <b>2.00×</b> (2-2)." in html
    assert html.count("modtf-first-loss") == 1
    assert "at <b>4.00×</b> (1-1)" in swept("I'm cold.", "I'm cold.", "I am cold.")
    assert "Every assembly writes the full model's text." in swept("I'm cold.", "I'm cold.", "I'm cold.")
    assert "Every assembly" not in swept("I'm cold.", "I'm cold."), "the last one is still to come"


# -- the widgets, without a browser ------------------------------------------------------------------------------------


@pytest.fixture
def explorer(modular: modtf.ModularModel) -> Iterator[Explorer]:
    explorer = Explorer(modular)
    explorer.controller.wait()
    yield explorer
    explorer.controller.stop()


def test_fields_and_text_follow_each_other(explorer: Explorer) -> None:
    explorer.fields["food"].value = "Thai"
    explorer.fields["near"].value = ""
    assert "food[Thai]" in explorer.source.value and "near[" not in explorer.source.value
    explorer.source.value = "name[Aromi], area[riverside]"
    assert {slot: field.value for slot, field in explorer.fields.items() if field.value} == {
        "name": "Aromi",
        "area": "riverside",
    }
    assert explorer.controller.wait().request.source == "name[Aromi], area[riverside]"


def test_an_invalid_mr_is_reported_and_fields_stay(explorer: Explorer) -> None:
    explorer.source.value = "name[Aromi], area[<b>moon</b>]"
    assert "area[&lt;b&gt;moon&lt;/b&gt;] is unknown" in explorer.problem.value
    assert explorer.fields["name"].value == "The Plough"
    explorer.source.value = "name[Aromi]"
    assert explorer.problem.value == ""


def test_the_slider_has_the_strategys_ratios(explorer: Explorer) -> None:
    for strategy in ("speed_first", "size_first"):
        explorer.strategy.value = strategy
        for _, ratio in explorer.ratio.options:
            assert explorer.controller.modular.choose(ratio, strategy).ratio == ratio
        assert explorer.controller.state.request.assembly == explorer.controller.modular.choose(
            explorer.ratio.value, strategy
        )


def test_every_control_follows_the_assembly(explorer: Explorer) -> None:
    def shown() -> tuple[Any, ...]:
        return (
            explorer.ratio.value,
            explorer.strategy.value,
            explorer.lengths["encoder"].value,
            explorer.lengths["decoder"].value,
        )

    explorer.ratio.value = 4.0
    assert shown() == (4.0, "size_first", 1, 1)
    explorer.lengths["encoder"].value = 4
    assert shown() == (8 / 5, None, 4, 1) or shown() == (8 / 5, "speed_first", 4, 1)
    explorer.picture.blocks["decoder"][0].click()
    assert shown() == (8 / 6, "speed_first", 4, 2) and explorer.controller.state.request.assembly == Assembly(
        (1, 1, 1, 1), (2, 2)
    )
    explorer.picture.blocks["decoder"][2].click()
    assert explorer.controller.state.request.assembly == Assembly((1, 1, 1, 1), (2, 1, 1))
    assert explorer.strategy.value is None or explorer.controller.modular.choose(
        8 / 7, explorer.strategy.value
    ).decoder == (2, 1, 1)
    explorer.picture.joints["decoder"][1].click()  # between layers 1 and 2
    assert explorer.controller.state.request.assembly == Assembly((1, 1, 1, 1), (4,))
    explorer.ratio.value = 1.0
    assert shown()[0] == 1.0 and explorer.strategy.value in ("size_first", "speed_first")
    assert explorer.controller.wait().current


def test_impossible_moves_are_explained(explorer: Explorer) -> None:
    explorer.ratio.value = 1.0
    before = explorer.controller.state.generation
    explorer.picture.blocks["encoder"][1].click()
    assert "original layer" in explorer.impossible.value and explorer.controller.state.generation == before
    explorer.ratio.value = 4.0
    assert explorer.impossible.value == ""
    assert explorer.picture.joints["encoder"][1].tooltip == "", "hidden buttons have no tooltip"


def test_the_picture_draws_an_assembly(explorer: Explorer) -> None:
    explorer.picture.draw(Assembly((2, 1, 1), (4,)))
    blocks = {
        stack: [b for b in explorer.picture.blocks[stack] if "modtf-gone" not in b._dom_classes]
        for stack in ("encoder", "decoder")
    }
    assert [b.description for b in blocks["encoder"]] == ["2", "\u00a0", "\u00a0"] and [
        b.description for b in blocks["decoder"]
    ] == ["4"]
    assert "modtf-g4" in blocks["decoder"][0]._dom_classes and "m(4, 0)" in blocks["decoder"][0].tooltip
    assert "original layer" in blocks["encoder"][1].tooltip
    visible = [
        i
        for i, joint in enumerate(explorer.picture.joints["encoder"], start=1)
        if "modtf-gone" not in joint._dom_classes
    ]
    assert visible == [2, 3]


def test_buttons_start_and_stop_jobs(explorer: Explorer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("modtf.views.jobs.RACE_SECONDS", 0.5)
    explorer.race_button.click()
    assert explorer.race_button.description == "stop"
    explorer.race_button.click()
    assert explorer.controller.wait().job.note == "stopped" and explorer.race_button.description == "race"
    assert "stopped" in explorer.race_status.value
    explorer.sweep_button.click()
    explorer.controller.wait()
    assert "modtf-swept" in explorer.sweep.value
    explorer.measure_button.click()
    explorer.controller.wait(120)
    assert "Measured here" not in explorer.quality.value, "the line is in the measurements, not in the table's sentence"
    assert explorer.measured.value.count("Measured here on 30 bundled inputs") == 1
    assert explorer.curve.layout.display == "" and "star" in explorer.figure.value
    explorer.controller.folder = tmp_path
    explorer.name.value = "../x"
    explorer.save_button.click()
    explorer.controller.wait()
    assert "not a valid folder name" in explorer.saved.value
    explorer.name.value = "mine"
    explorer.save_button.click()
    explorer.controller.wait()
    assert "AutoModelForSeq2SeqLM" in explorer.saved.value and (tmp_path / "mine" / "config.json").is_file()


def test_the_slider_shows_a_ratio_that_the_strategy_does_not_reach(make_modular: Any) -> None:
    modular = make_modular("t5", encoder=4, decoder=3, tokenizer=make_modular_tokenizer())
    explorer = Explorer(modular)
    explorer.ratio.value = 1.0
    explorer.lengths["encoder"].value = 3
    assembly = explorer.controller.state.assembly
    assert (
        assembly.shape == "3-3"
        and explorer.ratio.value == pytest.approx(7 / 6)
        and f"{7 / 6:.2f}×" in dict(explorer.ratio.options)
    )
    explorer.ratio.value = 1.0
    assert explorer.controller.state.assembly == modular.mapping.original
    explorer.controller.close()


def test_a_second_measurement_draws_a_new_point(explorer: Explorer) -> None:
    explorer.controller.measure(10)
    explorer.controller.wait()
    first = explorer.figure.value
    explorer.controller.measure(20)
    explorer.controller.wait()
    assert explorer.figure.value != first


def test_without_a_text_the_controls_still_work() -> None:
    explorer = Explorer(make_modular("text"))
    assert explorer.ratio.value == 2.0 and explorer.lengths["encoder"].value == 2 and "2-2" in explorer.structure.value
    assert explorer.problem.value == "" and explorer.name.value.endswith("2-2")
    explorer.lengths["encoder"].value = 1
    explorer.lengths["decoder"].value = 1
    assert explorer.ratio.value == 4.0
    explorer.race_button.click()
    assert "write a text above first" in explorer.race_status.value
    explorer.source.value = "The Mill"
    assert (
        explorer.controller.wait().result.small.assembly.ratio == 4 and "write a text" not in explorer.race_status.value
    )
    explorer.controller.close()


def test_a_view_error_stays_until_the_next_move(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "_ratios", lambda strategy: 1 / 0)
    explorer.ratio.value = 4.0
    explorer.controller.wait()
    assert "ZeroDivisionError" in explorer.failure.value
    monkeypatch.undo()
    explorer.ratio.value = 2.0
    assert explorer.failure.value == ""


def test_a_table_is_drawn_even_if_nothing_can_be_measured_here(tmp_path: Path) -> None:
    """The task of any text has no bundled examples, but this kit has its own table."""
    make_modular("text").save_pretrained(tmp_path / "kit")
    kit = modtf.load(tmp_path / "kit")
    scores = {"bleu": 50.0, "bleu_kept": 98.0, "chrf": 60.0, "chrf_kept": 99.0}
    table = {
        "banks": fingerprint_of(kit.bank_weights(), torch.float16),
        "rows": [row("size_first", kit.choose(2), **scores)],
    }
    (tmp_path / "kit" / "table.json").write_text(json.dumps(table))
    explorer = Explorer(kit)
    explorer.source.value = "The Mill"
    assert explorer.controller.wait().current
    assert "BLEU 50.0 (<b>98.0 %</b> of the full model's)" in explorer.quality.value
    assert "you are here" in explorer.figure.value and explorer.curve.layout.display != "none"
    assert explorer.yardstick.layout.display == "none", "there is one kind of references only"
    assert not explorer.measurable and "measure" not in explorer.job_buttons
    explorer.controller.close()


def test_only_modular_models_can_be_explored(make_model: Any) -> None:
    with pytest.raises(modtf.ModtfError, match=r"modtf\.modularize"):
        modtf.explore(make_model("t5"))


def test_without_a_model_there_is_a_switch_between_the_bundled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    kits = {"pocket": make_modular("e2e"), "other": make_modular("text")}
    loaded = []
    monkeypatch.setattr("modtf.views.explorer.BUNDLED_MODELS", tuple(kits))
    monkeypatch.setattr("modtf.views.explorer.load", lambda name: loaded.append(name) or kits[name])
    bar, page = modtf.explore().children
    (switch,) = bar.children
    assert switch.options == (("restaurant descriptions", "pocket"), ("other", "other"))
    (first,) = page.children
    switch.value = "other"
    assert page.children != (first,) and loaded == ["pocket", "other"]
    switch.value = "pocket"
    assert page.children == (first,) and loaded == ["pocket", "other"], "what was made once stays"
    result = first.children[2].children[0]
    for _ in range(600):  # the text and its times, which the switch interrupted
        if "median of" in result.value and 'aria-busy="false"' in result.value:
            break
        time.sleep(0.1)
    else:
        pytest.fail(result.value)


def test_a_quiet_explorer_shows_its_scores_when_asked(modular: modtf.ModularModel) -> None:
    """The style sheet hides what has a score; what is hidden is all there."""
    for quiet, words in ((True, "show the scores"), (False, "hide the scores")):
        explorer = Explorer(modular, quiet=quiet)
        try:
            assert ("modtf-quiet" in explorer.widget._dom_classes) == quiet and explorer.scores.description == words
            explorer.scores.click()
            assert ("modtf-quiet" in explorer.widget._dom_classes) != quiet and explorer.scores.description != words
        finally:
            explorer.controller.close()
    assert modtf.explore(modular, quiet=True)._dom_classes == ("modtf", "modtf-quiet")
    style = Path(markup.__file__).with_name("style.css").read_text(encoding="utf-8")
    assert ".modtf-quiet .modtf-score { display: none" in style and ".modtf-quiet mark {" in style


class Loud(HTMLParser):
    """The text outside elements of the class that a quiet explorer hides."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self._depth = "", 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag != "br" and (self._depth or "modtf-score" in (dict(attributes).get("class") or "").split()):
            self._depth += 1

    def handle_endtag(self, tag: str) -> None:
        self._depth -= self._depth > 0

    def handle_data(self, data: str) -> None:
        self.text += f" {data}" * (not self._depth)


def test_an_explorer_can_open_with_an_input_of_ones_own(modular: modtf.ModularModel) -> None:
    explorer = Explorer(modular, source=MR)
    state = explorer.controller.wait()
    assert state.request is not None and state.request.source == MR and explorer.fields["food"].value == "French"
    explorer.controller.close()


def test_scores_can_be_told_from_texts(explorer: Explorer) -> None:
    """Texts, layers and ratios are seen in a quiet explorer; times, slots and shares are not."""
    state = explorer.controller.wait()
    assert state.result is not None and state.request is not None
    side = state.result.small
    swept = sweep_html(Sweep(state.request.source, "size_first", 1, (side, side)), E2E)
    for html, seen in ((result_html(state, E2E), side.assembly.shape), (swept, f"{side.assembly.ratio:.2f}×")):
        loud = Loud(html).text
        assert side.text.split()[0] in loud and seen in loud
        assert not any(sign in loud for sign in ("%", "✓", "○", "≠", "ms", "tokens", "marked")), loud
    scores = [child for child in explorer.widget.children if "modtf-score" in child._dom_classes]
    assert [section.children[0].value for section in scores] == ["<h3>Quality</h3>"]


def test_a_damaged_bundled_model_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> modtf.ModularModel:
        if name == "other":
            raise modtf.ModtfError("the banks in <b>other</b> are damaged")
        return make_modular("e2e")

    monkeypatch.setattr("modtf.views.explorer.BUNDLED_MODELS", ("pocket", "other"))
    monkeypatch.setattr("modtf.views.explorer.load", load)
    bar, page = modtf.explore().children
    (switch,), first = bar.children, page.children
    switch.value = "other"
    assert "the banks in &lt;b&gt;other&lt;/b&gt; are damaged" in page.children[0].value
    switch.value = "pocket"
    assert page.children == first


def test_only_core_widgets_are_used(explorer: Explorer) -> None:
    """No FigureWidget, and nothing that ipywidgets 7.7 (Colab) lacks."""
    seen, waiting = set(), [explorer.widget]
    while waiting:
        widget = waiting.pop()
        seen.add(type(widget))
        waiting += getattr(widget, "children", ())
    assert {kind.__module__.partition(".")[0] for kind in seen} == {"ipywidgets"}
    known = "HTML VBox HBox GridBox Text Combobox Dropdown Checkbox Button ToggleButtons SelectionSlider IntProgress"
    assert {kind.__name__ for kind in seen} <= set(known.split())


EVIL = "<img src=x onerror=alert(1)>"


def test_generated_text_is_escaped(explorer: Explorer) -> None:
    state = explorer.controller.wait()
    assert state.result is not None and state.request is not None
    side = replace(state.result.small, text=EVIL)
    drawn = [
        result_html(replace(state, result=replace(state.result, small=side)), E2E),
        sweep_html(Sweep(EVIL, "size_first", 1, (side,)), E2E),
        race_html(Race(*(Runner(side.assembly, "loop", (EVIL,), (1.0,)),) * 2, slowdown=1.0, now_ms=2.0)),
        markup.code_html(explorer.controller.modular, replace(state.request, source=EVIL)),
        markup.saved_html(Job("save", running=False, note=EVIL)),
        markup.saved_html(Job("save", running=False, problem=EVIL)),
        markup.job_html(Job("measure", running=False, problem=EVIL), "measure"),
    ]
    for html in drawn:
        assert "<img" not in html and "&lt;img" in html


def test_chips_name_each_slot_once(explorer: Explorer) -> None:
    state = explorer.controller.wait()
    assert state.result is not None and state.request is not None
    judgement = state.result.small.judgement
    added = [mark for mark in judgement.marks if mark.kind in ("added", "repeated")]
    assert chips_html(judgement).count("modtf-chip ") == len(parse_mr(state.request.source)) + len(added)


def test_other_models_get_a_text_and_no_chips() -> None:
    explorer = Explorer(make_modular("text"))
    assert not explorer.fields and "Type a text" in explorer.result.value
    explorer.source.value = "The Mill serves <food>."
    state = explorer.controller.wait()
    assert state.current and "modtf-chip " not in explorer.result.value and "modtf-card" in explorer.result.value
    assert state.result is not None and 0 <= state.result.small.judgement.value <= 100
    assert state.result.full.judgement.value == 100
    assert "ROUGE-L" in explorer.result.value
    explorer.controller.measure(30)
    assert "no examples of the task 'text' are bundled" in explorer.controller.wait().job.problem
    explorer.controller.stop()


def test_a_program_may_exit_while_texts_are_written() -> None:
    """Exit must wait for the worker: ending while a thread is inside torch aborts the process."""
    code = "import modtf; modtf.explore()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stderr


# -- the server, before it runs ----------------------------------------------------------------------------------------


def test_without_voila_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "voila.app", None)
    with pytest.raises(modtf.ModtfError, match=r"pip install 'modtf\[demo\]'"):
        serve(open_browser=False)


def test_the_server_leaves_heavy_libraries_to_its_kernels() -> None:
    pytest.importorskip("voila", reason="Voila is not installed; the page's server was not tested")
    names = ("torch", "transformers", "datasets", "plotly", "pandas", "ipywidgets", "rfc3987_syntax")
    code = f"""
import sys
from modtf.views.serve import serve
sys.modules["rfc3987_syntax"] = None  # as serve() does
import modtf.views.voila_app as voila_app
del sys.modules["rfc3987_syntax"]
voila_app.PageApp.start = lambda app: print(*[name for name in {names} if name in sys.modules], sep=",")
serve(open_browser=False)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert (run.returncode, run.stdout) == (0, "\nStopped.\n"), run.stdout + run.stderr


def test_taken_and_invalid_ports() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in (0, port)
    with pytest.raises(modtf.ModtfError, match="not a valid port"):
        serve(port=70000)
