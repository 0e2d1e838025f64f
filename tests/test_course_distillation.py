"""Notebook 3: checks that accept the solution and name what is wrong, figures with titles and words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_table import load_script

import modtf
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.course import distillation as course
from modtf.distillation import hidden_loss, logits_loss
from modtf.mapping import Assembly, boundaries, start_indices
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches

Loss = Callable[..., Any]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def pocket() -> modtf.ModularModel:
    torch.set_num_threads(1)
    kit = modtf.load("pocket")
    set_attention(kit.model, "eager")
    return kit


@pytest.fixture(scope="module")
def heads(pocket: modtf.ModularModel) -> course.Heads:
    return course.Heads(pocket, course.new_modules(pocket), E2E.bundled_examples("evaluation")[45:55])


# -- exercise 3.1 ------------------------------------------------------------------------------------------------------


def at(places: Callable[[Any], Any]) -> Loss:
    def loss(path: Any, student: Any, teacher: Any, keep: Any) -> Any:
        return hidden_loss(student, [teacher[i] for i in places(path)], keep)

    return loss


def token_by_token(path: Any, student: Any, teacher: Any, keep: Any) -> list[Any]:
    pairs = [(s[keep], teacher[end - 1][keep]) for s, end in zip(student, boundaries(path), strict=True)]
    return [((s - t).square().mean(-1) / t.square().mean(-1)).mean() for s, t in pairs]


def absolute(path: Any, student: Any, teacher: Any, keep: Any) -> Any:
    pairs = zip(student, boundaries(path), strict=True)
    return torch.stack([(s - teacher[end - 1])[keep].square().mean() for s, end in pairs]).mean()


def all_at_once(path: Any, student: Any, teacher: Any, keep: Any) -> Any:
    pairs = [(s[keep], teacher[end - 1][keep]) for s, end in zip(student, boundaries(path), strict=True)]
    return torch.stack([(s - t).square().mean() / t.square().mean() for s, t in pairs]).mean()


def everywhere(path: Any, student: Any, teacher: Any, keep: Any) -> Any:
    return course.boundary_loss(path, student, teacher, torch.ones_like(keep))


def test_boundary_loss_is_accepted() -> None:
    course.check_boundary_loss(course.boundary_loss)
    course.check_boundary_loss(lambda *given: torch.stack(token_by_token(*given)).mean())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda *given: None, "nothing back"),
        (at(lambda path: range(len(path))), "layers 0, 1, 2, 3, 4"),
        (at(start_indices), "where its work begins"),
        (lambda *given: torch.stack(token_by_token(*given)).sum(), "take their mean"),
        (absolute, "divide each token's error"),
        (everywhere, "padding"),
        (all_at_once, "token by token"),
        (lambda *given: course.boundary_loss(*given).item(), "return a number"),
        (lambda *given: course.boundary_loss(*given).detach(), "return a number"),
        (
            lambda *given: torch.tensor([error.item() for error in token_by_token(*given)]).mean(),
            "torch.stack does not",
        ),
    ],
)
def test_boundary_loss_faults_are_named(wrong: Loss, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        course.check_boundary_loss(wrong)


# -- exercise 3.3 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda s, t: None, "nothing back"),
        (lambda s, t: course.divergence(t, s), "KL"),
        (lambda s, t: course.divergence(s, t) * len(s), "take their mean"),
        (lambda s, t: course.divergence(s, t).item(), "return a number"),
        (lambda s, t: course.divergence(s.detach(), t), "return a number"),
        (lambda s, t: (t.exp() * (t - s)).sum(-1).mean(), "adding a number"),
        (lambda s, t: -(t.softmax(-1) * s.log_softmax(-1)).sum(-1).mean(), "diverge from itself"),
    ],
)
def test_divergence_faults_are_named(wrong: Loss, said: str) -> None:
    course.check_divergence(course.divergence)
    with pytest.raises(AssertionError, match=said):
        course.check_divergence(wrong)


# -- exercise 3.4 ------------------------------------------------------------------------------------------------------


def step(**change: Any) -> Loss:
    """Our step with something wrong in it."""

    def loss(modular: Any, assembly: Assembly, batch: Any, weights: Any) -> Any:
        original = modular.mapping.original
        with torch.no_grad(), modular.record(original) as taught:
            teacher = modular(original, **batch)
        with torch.set_grad_enabled(not change.get("frozen")), modular.record(assembly) as learned:
            student = modular(assembly, **batch)
        keeps = batch["attention_mask"].bool(), batch["labels"] != -100
        parts = [
            course.boundary_loss(path, s.hidden, t.hidden, keep)
            for path, s, t, keep in zip(assembly.paths, learned, taught, keeps, strict=True)
        ]
        if "cut" in change:
            parts[change["cut"]] = parts[change["cut"]].detach()
        hidden = sum(parts[i] for i in change.get("stacks", (0, 1)))
        keep = torch.ones_like(keeps[1]) if change.get("padding") else keeps[1]
        pair = student.logits, teacher.logits
        logits = logits_loss(*(pair[::-1] if change.get("swapped") else pair), keep)
        if change.get("number"):
            logits = logits.item()
        w = dict.fromkeys(weights, 1) if change.get("unweighted") else weights
        return w["labels"] * student.loss + w["logits"] * logits + w["hidden"] * hidden * change.get("scale", 1)

    return loss


def test_the_step_is_accepted() -> None:
    course.check_step_loss(course.step_loss)
    course.check_step_loss(step())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda *given: None, "nothing back"),
        (lambda modular, assembly, batch, weights: modular(assembly, **batch).loss, "original was never run"),
        (step(frozen=True), "no gradient"),
        (step(unweighted=True), "labels alone"),
        (step(padding=True), "padding"),
        (step(swapped=True), "changed places"),
        (step(stacks=(0,)), "the encoder only"),
        (step(stacks=(1,)), "the decoder only"),
        (step(scale=0.5), "mean of both stacks"),
        (lambda *given: course.step_loss(*given).item(), "no gradient"),
        (step(number=True), "logits alone .* not its gradient"),
        (step(cut=0), "hidden alone .* not its gradient"),
        (step(cut=1), "hidden alone .* not its gradient"),
    ],
)
def test_faults_of_the_step_are_named(wrong: Loss, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        course.check_step_loss(wrong)


def test_the_check_leaves_random_numbers_alone() -> None:
    course._tiny.cache_clear()
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    course.check_step_loss(course.step_loss)
    assert torch.rand(1) == wanted


# -- exercise 3.2 ------------------------------------------------------------------------------------------------------


def test_a_head_that_reads_along_is_accepted(heads: course.Heads) -> None:
    course.check_reading_head((3, 0), heads)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "still None"),
        ("m(2, 3)", "two whole numbers"),
        ((6, 0), "there is no"),
        ((2, 2), r"looks at most is 'food\['"),
    ],
)
def test_other_heads_are_named(found: Any, said: str, heads: course.Heads) -> None:
    with pytest.raises(AssertionError, match=said):
        course.check_reading_head(found, heads)


def test_slots_of_a_step_are_those_of_its_word(pocket: modtf.ModularModel) -> None:
    (example,) = (
        e for e in E2E.bundled_examples("evaluation") if e.source.startswith("name[The Cambridge Blue], food[Fast")
    )
    text = course._Text.read(pocket, example)
    of = {text.words[i]: [text.facts[k] for k in slot] for i, slot in text.slots.items()}
    assert of["centre"] == ["area[", "city", "centre"] and of["King"] == ["near[", "Burger", "King"]
    assert "is" not in of and "(end)" not in of


# -- models ------------------------------------------------------------------------------------------------------------


def test_modules_begin_as_the_first_or_the_last_layer_of_their_group(pocket: modtf.ModularModel) -> None:
    for begin, layers in (("first", (0, 6)), ("last", (2, 8)), ("mixed", (0, 8))):
        decoder = course.new_modules(pocket, (3,), begin).stacks[1]
        for module, layer in zip((0, 2), layers, strict=True):
            weights = dict(decoder.banks["3"][module].named_parameters())  # type: ignore[index]
            wanted = dict(decoder.originals[layer].named_parameters())
            assert all(torch.equal(weight, wanted[name]) for name, weight in weights.items() if weight.requires_grad)


def test_a_silent_head_changes_the_loss_and_nothing_else(pocket: modtf.ModularModel) -> None:
    batch = TaskBatches(E2E, E2E.bundled_examples("evaluation"), pocket.tokenizer, 1, batch_size=4)[0]
    modular = course.new_modules(pocket)
    two = Assembly((2,) * 6, (2,) * 6)
    with torch.no_grad():
        before = modular(two, **batch).loss.item()
    held = course.Held(modular, batch)
    assert held.cross_entropy(modular, two) == before
    assert course.loss_without(modular, two, held, 5, 0) != before
    assert held.cross_entropy(modular, two) == before


def test_the_original_does_not_diverge_from_itself(pocket: modtf.ModularModel) -> None:
    modular = course.new_modules(pocket)
    batch = TaskBatches(E2E, E2E.bundled_examples("evaluation"), pocket.tokenizer, 1, batch_size=4)[0]
    held = course.Held(modular, batch)
    assert held.divergence(modular, modular.mapping.original) == pytest.approx(0, abs=1e-6)
    assert held.divergence(modular, Assembly((2,) * 6, (2,) * 6)) > 0.1


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_have_titles_words_and_room(pocket: modtf.ModularModel, heads: course.Heads) -> None:
    comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
    error = torch.rand(6, 12)
    figures = [
        course.where_compared((1, 1, 2, 2, 6)),
        course.heatmaps(lambda name: error, ["untrained", "trained"], 2, "decoder"),
        course.beginnings([0.1, 0.2], [5.0, 0.3]),
        *(heads.figure(kind, 2, 2) for kind in course.KINDS),
        course.next_words(pocket, "name[The Mill], food[Thai]", "The Mill serves Thai food.", 2),
        course.learning_curves({("texts", 0): [(0, 1.0, 2.0), (20, 0.5, 1.0)], ("logits", 0): [(0, 1.0, 2.0)]}),
        course.signals_figure(comparison),
    ]
    for figure in figures:
        words = figure.layout.title.text or " ".join(note.text or "" for note in figure.layout.annotations)
        assert words.strip() and len(figure.layout.meta["alt"].split()) >= 8
        assert (figure.layout.width or 900) <= 900
        sizes = [axis.tickfont.size for axis in (figure.layout.xaxis, figure.layout.yaxis)]
        assert all(size is None or size >= 11 for size in sizes)


def test_heatmaps_say_which_modules_are_late() -> None:
    error = torch.ones(4, 12)
    for row, layer in enumerate((2, 4, 7, 11)):
        error[row, layer] = 0
    figure = course.heatmaps(lambda name: error, ["trained"], 3, "decoder")
    assert "most like layers 2, 5, 8, 11" in figure.layout.meta["alt"]
    assert "trained, layers 2, 4, 7, 11" in figure.layout.meta["alt"]
    assert "Decoder, granularity 3" in figure.layout.title.text
    assert "last layer of its group" in " ".join(trace.name or "" for trace in figure.data)


def test_shown_differences_are_green_where_better_and_orange_where_worse() -> None:
    comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
    colors = set()
    for trace in course.signals_figure(comparison).data:
        for ahead, color, symbol in zip(trace.customdata, trace.marker.color, trace.marker.symbol, strict=True):
            if symbol == "circle":
                assert color == (course.GREEN if ahead > 0 else course.ORANGE)
                colors.add(color)
            elif symbol == "circle-open":
                assert color == course.BLUE
    assert colors == {course.GREEN, course.ORANGE}


def test_the_kit_draws_the_shares_that_the_notebook_tells() -> None:
    options = load_script("versus").METHODS["kit"].options
    mixtures = options.get("mixtures", modtf.ModularTrainingArguments.mixtures)
    shares = mixtures, options["whole"], 1 - mixtures - options["whole"]
    text = (ROOT / "notebooks" / "3_distillation.py").read_text(encoding="utf-8")
    told = re.findall(r"^# - \*(?:mixtures|whole-grain|strategies' paths)\*[^(\n]*\((\d+) %\)", text, re.MULTILINE)
    assert [int(share) for share in told] == [round(100 * share) for share in shares]


def test_the_findings_tell_what_the_comparison_has() -> None:
    comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
    behind = {(row["method"], row["size"]): -row["equal_total"]["bleu"] for row in comparison["ablation"]}
    taught = {*course._KITS["one signal"].values(), *course._KITS["all five, or all but one or two"].values()}
    taught -= {"kit", "the original's texts alone", "attention maps alone"}
    told = []
    for size in ("6x", "fast"):
        values = [behind[method, size] for method in taught]
        told.append(f"{min(values):.0f} to {max(values):.0f}")
    maps = [value for (method, _), value in behind.items() if method == "attention maps alone"]
    text = (ROOT / "notebooks" / "3_distillation.py").read_text(encoding="utf-8")
    assert f"{told[0]} points at 6x, {told[1]} at `fast`" in text
    assert f"{min(maps):.0f} to {max(maps):.0f} points behind" in text


def test_signals_come_from_the_comparison() -> None:
    comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
    figure = course.signals_figure(comparison)
    at_six = [trace for trace in figure.data if trace.customdata is not None][list(comparison["sizes"]).index("6x")]
    method_of = {label: method for group in course._KITS.values() for label, method in group.items()}
    of = {method_of[label]: ahead for label, ahead in zip(at_six.text, at_six.customdata, strict=True)}
    measured = {row["method"]: row["equal_total"]["bleu"] for row in comparison["ablation"] if row["size"] == "6x"}
    assert of.pop("kit") == 0 and of == {name: measured[name] for name in of} and len(of) == 13


def test_rows_of_signals_say_what_a_kit_learned_from_and_its_steps() -> None:
    comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
    figure = course.signals_figure(comparison)
    steps = {row["method"]: row["steps"] for row in comparison["ablation"]}
    pair = steps["logits and hidden states, four assemblies a step"]
    assert figure.layout.yaxis.ticktext[-3:] == (
        "<b>four assemblies a step</b>",
        f"people's texts, {steps['four assemblies a step']} steps",
        f"logits and hidden states, {pair} steps",
    )
    for trace in figure.data:
        assert all(not figure.layout.yaxis.ticktext[y].startswith("<b>") for y in trace.y)


# -- the bundled kits --------------------------------------------------------------------------------------------------


def test_kits_learned_what_their_trainings_were_told() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in makefile.splitlines() if line.strip().startswith("$(TRAIN) kit")]
    assert len(lines) == 4
    table = course.who_learned_what().set_index("kit")
    for line in lines:
        model = "pocket" if "--task e2e" in line else "translator"
        row = table.loc[f"{model}, part {2 if '--begin-with' in line else 1}"]
        told = {loss: float(weight) for loss, weight in re.findall(r"--(\w+)-weight (\S+)", line)}
        assert row.losses == ", ".join(f"{loss} {weight:g}" for loss, weight in course.weights(**told).items())
        assert ("faultless" in row["whose texts"]) == ("--faultless" in line)
        assert (row["whose texts"] == "both") == ("--data" in line)  # else those of the original alone


def test_compared_kits_learned_what_the_comparison_says() -> None:
    script = load_script("versus")
    table = course.who_learned_what().set_index("kit")
    for model in ("translator", "pocket"):
        method = script.OF_MODEL.get(model, {}).get("kit", script.METHODS["kit"])
        row = table.loc[f"{model}, compared"]
        told = {name.removesuffix("_weight"): weight for name, weight in method.options.items() if "weight" in name}
        assert row.losses == ", ".join(f"{loss} {weight:g}" for loss, weight in course.weights(**told).items())
        assert ("people's" in row["whose texts"]) == (method.texts == "people")


def test_the_notebooks_that_a_kit_is_in_load_it() -> None:
    loads = {
        model: {page.name[0] for page in (ROOT / "notebooks").glob("?_*.py") if f'load("{model}")' in page.read_text()}
        for model in ("pocket", "translator")
    }
    for row in course.who_learned_what().to_dict("records"):
        model, part = row["kit"].split(", ")
        if part != "compared":
            parts = [part.split("-") for part in row["notebooks"].split(", ")]
            assert loads[model] == {str(n) for ends in parts for n in range(int(ends[0]), int(ends[-1]) + 1)}
