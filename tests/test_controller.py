"""The explorer's state: requests, stale runs, problems in words; and the widgets that draw it, without a browser."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

import modtf
from modtf.mapping import Assembly
from modtf.pocket import train_tokenizer
from modtf.views.controller import Controller, Side, State, bundled_table
from modtf.views.explorer import Explorer, chips_html, result_html
from modtf.views.serve import HOST, free_port, serve

MR = "name[The Vaults], food[French]"
TEXTS = ["The Vaults is a cheap French pub near Café Adriatic.", "The Mill serves English food in the city centre."] * 5


def make_modular(slots: bool = True, min_new_tokens: int = 1) -> modtf.ModularModel:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS, 320)
    if not slots:  # as any other model's: no token of a slot is known as such
        tokenizer = tokenizer.train_new_from_iterator(TEXTS, 300)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=4, num_decoder_layers=4,
        dropout_rate=0.0, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    original = T5ForConditionalGeneration(config).eval()
    original.generation_config.min_new_tokens = min_new_tokens
    original.generation_config.exponential_decay_length_penalty = (8, 5.0)  # random weights would never come to an end
    return modtf.modularize(original, (2, 4), tokenizer=tokenizer)


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
    """The state once the result's times are medians of so many runs."""
    with controller._changed:
        assert controller._changed.wait_for(lambda: controller.state.result is not None and controller.state.result.full.runs == runs, 60)
        return controller.state


def test_both_texts_with_reports_sizes_and_times(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2, strategy="speed_first")
    state = controller.wait()
    result = state.result
    assert state.current and result is not None
    assert result.small.assembly == modular.choose(2, "speed_first")
    assert result.full.text == modular.generate(MR)
    assert result.small.text == modular.generate(MR, ratio=2, strategy="speed_first")
    for side in (result.full, result.small):
        assert side.milliseconds > 0 and side.tokens > 0 and side.report is not None
        assert {*side.report.said, *side.report.missed, *side.report.wrong} == {"name", "food"}
    assert result.small.size.parameters < result.full.size.parameters
    assert result.speed_up == pytest.approx(result.small.tokens_per_second / result.full.tokens_per_second)
    assert result.measured is None


def test_the_full_text_is_remembered_and_timed_again_at_rest(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2)
    first = controller.wait().result
    controller.request(ratio=1.6)
    second = controller.wait().result
    assert first is not None and second is not None
    assert not first.full.remembered and second.full.remembered
    assert second.full.text == first.full.text
    again = settle(controller, runs=3).result
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


def test_a_request_called_off_while_it_settles_does_not_run(modular: modtf.ModularModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modtf.views.controller._SETTLE_SECONDS", 0.3)
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


def test_a_view_that_fails_does_not_end_the_answers(modular: modtf.ModularModel) -> None:
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


def test_many_threads_may_ask(modular: modtf.ModularModel) -> None:
    controller = Controller(modular)
    threads = [threading.Thread(target=controller.request, args=(MR, ratio)) for ratio in modular.mapping.ratios()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert controller.wait().current


@pytest.mark.filterwarnings("ignore:Unfeasible length")  # the warm-up writes two tokens
def test_a_stale_run_stops_at_its_next_token() -> None:
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
    assert controller.wait().current, "the worker goes on after a run that was stopped"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"source": "name[The Vaults"}, "does not parse"),
        ({"source": "name[The Vaults], colour[red]"}, "the slots are"),
        ({"source": ""}, "empty"),
        ({"ratio": 9.0}, "ratios from 1 to 4"),
        ({"strategy": "luck"}, "possible are"),
        ({"assembly": Assembly((4,), (3, 1))}, "no granularity 3"),
    ],
)
def test_problems_are_said(modular: modtf.ModularModel, request_: dict[str, Any], words: str) -> None:
    controller = Controller(modular)
    controller.request(MR, ratio=2)
    before = controller.wait().result
    controller.request(**request_)
    assert words in controller.state.problem and not controller.state.busy and not controller.state.current
    assert before is not None and controller.state.result is not None
    assert controller.state.result.request == before.request, "the last result stays"
    controller.request(MR, 2.0, "size_first")
    assert controller.wait().current and not controller.state.problem


def test_a_failing_model_is_said() -> None:
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
    assert controller.measured(modular.choose(1.6), "size_first") == (rows[0], False), "untrained rows are no measurements of this model"
    assert controller.measured(modular.choose(3.9, "speed_first"), "speed_first")[0] == rows[1]


def test_pockets_measurements_are_pockets_only(modular: modtf.ModularModel) -> None:
    table, note = bundled_table(modular)
    assert table is None and "No measurements" in note


# -- the widgets, without a browser ------------------------------------------------------------------------------------


@pytest.fixture
def explorer(modular: modtf.ModularModel) -> Iterator[Explorer]:
    explorer = Explorer(modular)
    explorer.controller.wait()
    yield explorer
    explorer.controller.stop()


def test_fields_follow_each_other(explorer: Explorer) -> None:
    explorer.slots["food"].value = "Thai"
    explorer.slots["near"].value = ""
    assert "food[Thai]" in explorer.source.value and "near[" not in explorer.source.value
    explorer.source.value = "name[Aromi], area[riverside]"
    assert {slot: field.value for slot, field in explorer.slots.items() if field.value} == {"name": "Aromi", "area": "riverside"}
    assert explorer.controller.wait().request.mr == {"name": "Aromi", "area": "riverside"}


def test_a_wrong_mr_is_said_and_fields_stay(explorer: Explorer) -> None:
    explorer.source.value = "name[Aromi], area[<b>moon</b>]"
    assert "area[&lt;b&gt;moon&lt;/b&gt;] is unknown" in explorer.problem.value
    assert explorer.slots["name"].value == "The Vaults"
    explorer.source.value = "name[Aromi]"
    assert explorer.problem.value == ""


def test_the_slider_has_what_the_strategy_reaches(explorer: Explorer) -> None:
    for strategy in ("speed_first", "size_first"):
        explorer.strategy.value = strategy
        for _, ratio in explorer.ratio.options:
            assert explorer.controller.modular.choose(ratio, strategy).ratio == ratio
        assert explorer.controller.state.request.assembly == explorer.controller.modular.choose(explorer.ratio.value, strategy)


def test_nothing_generated_becomes_html(explorer: Explorer) -> None:
    state = explorer.controller.wait()
    assert state.result is not None
    evil = "<img src=x onerror=alert(1)>"
    side = Side(**{**vars(state.result.small), "text": evil})
    drawn = result_html(State(1, state.request, type(state.result)(**{**vars(state.result), "small": side}), False, ""))
    assert evil not in drawn and "&lt;img src=x onerror" in drawn


def test_chips_name_each_slot_once(explorer: Explorer) -> None:
    state = explorer.controller.wait()
    assert state.result is not None and state.request is not None and state.request.mr is not None
    report = state.result.small.report
    assert report is not None
    assert chips_html(state.result.small).count("modtf-chip ") == len(state.request.mr) + len(report.added)


def test_other_models_get_a_text_and_no_chips() -> None:
    explorer = Explorer(make_modular(slots=False))
    assert not explorer.slots and "Type a text" in explorer.result.value
    explorer.source.value = "The Mill serves <food>."
    state = explorer.controller.wait()
    assert state.current and "modtf-chip " not in explorer.result.value and "modtf-card" in explorer.result.value
    explorer.controller.stop()


# -- the server, before it runs ----------------------------------------------------------------------------------------


def test_without_voila_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "voila.app", None)
    with pytest.raises(modtf.ModtfError, match=r"pip install 'modtf\[demo\]'"):
        serve(open_browser=False)


def test_a_taken_port_is_left_alone() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(port) not in (0, port)
    with pytest.raises(modtf.ModtfError, match="does not exist"):
        serve(port=70000)
