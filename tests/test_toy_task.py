"""A new task needs one record and its entry in the list: to reverse the words of a line, in shell and page."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import modtf
from modtf import cli
from modtf.errors import ModtfError
from modtf.evaluation import measured_table
from modtf.saving import fingerprint_of
from modtf.tasks import TASKS, TEXT, Example, Task
from modtf.tasks.scores import bleu
from modtf.tasks.task import Judgement, Metric
from modtf.views.explorer import Explorer

WORDS = "a cat sees the old mill near two small houses today".split()
LINES = [" ".join(random.Random(seed).choices(WORDS, k=2 + seed % 4)) for seed in range(40)]

# -- the task, as its file would have it -------------------------------------------------------------------------------


def read_line(typed: str) -> str:
    words = typed.split()
    if len(words) < 2:
        raise ModtfError(f"{typed!r} has no two words to reverse; write at least two")
    return " ".join(words)


def reverse(line: str) -> str:
    return " ".join(reversed(line.split()))


def misplaced(source: str, text: str) -> float:
    """The share of words that are not where they should be, in percent."""
    wanted, words = source.split()[::-1], text.split()
    right = sum(word == other for word, other in zip(wanted, words, strict=False))
    return 100 * (1 - right / max(len(wanted), len(words)))


def judge(source: str, text: str, full: str) -> Judgement:
    value = 100 - misplaced(source, text)
    if source != "a small house":
        return Judgement(value)
    return Judgement(value, references=("house small a", "<b>house</b>"), agreement=value)


def score(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, float]:
    errors = [misplaced(example.source, text) for example, text in zip(examples, texts, strict=True)]
    return {
        "misplaced": sum(errors) / len(errors),
        "bleu": bleu(texts, [example.references for example in examples]),
    }


REVERSE = Task(
    "reverse",
    placeholder="two words or more",
    first="the old mill",
    read=read_line,
    judge=judge,
    measure="words in place",
    agreement="words in place against people's",
    notice="It never saw the words <big> & dog.",
    suggestions=("the old mill", "two small houses near"),
    metrics=(
        Metric("misplaced", "words misplaced", "words misplaced (%)", errors=True),
        Metric("bleu", "BLEU", "BLEU kept (% of the full model)"),
    ),
    score=score,
)

# -- where it goes -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, REVERSE.name, REVERSE)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    """A token for each word."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.train_from_iterator(LINES, trainers.WordLevelTrainer(special_tokens=["<pad>", "</s>", "<unk>"]))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for split, lines in (("train", LINES[:34]), ("test", LINES[34:])):
        rows = [json.dumps({"source": line, "target": reverse(line)}) for line in lines]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def modular(make_modular: Any, words: PreTrainedTokenizerFast) -> modtf.ModularModel:
    modular = make_modular("t5", 4, 4, tokenizer=words, vocabulary=len(words))
    modular.task = "reverse"
    return modular


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_the_shell(
    family: str,
    make_model: Any,
    words: PreTrainedTokenizerFast,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where the task's data are looked for, as ./data
    for save in (make_model(family, 4, 4, vocabulary=len(words)).save_pretrained, words.save_pretrained):
        save("first")

    def run(*arguments: str) -> str:
        assert cli.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    few = ("--task", "reverse", "--steps", "4", "--batch-size", "8", "--report-to", "none")
    run("train", "original", "--begin-with", "first", "--output", "original", *few)
    run("train", "kit", "--original", "original", "--output", "kit", "--pairs", "10", *few)
    assert json.loads(Path("kit/modtf.json").read_text())["task"] == "reverse"
    written = [json.loads(line) for line in Path("kit/pairs.jsonl").read_text().splitlines()]
    assert len(written) == 10 and all(row["source"] in LINES[:34] for row in written)
    assert not Path("kit/evaluation.jsonl").exists(), "the task draws no inputs"

    kit = modtf.load("kit")
    assert kit.task == "reverse" and kit.mapping.encoder.granularities == (2,)
    examples = REVERSE.read_data(data, "test")
    assert [example.references for example in examples] == [(reverse(example.source),) for example in examples]
    texts = [kit.generate(example.source, ratio=2) for example in examples]
    table = run("evaluate", "--model", "kit", "--ratios", "1", "2", "--json", "scores.json")
    assert "words misplaced" in table and "BLEU" in table and "slot" not in table
    record = json.loads(Path("scores.json").read_text())
    assert (record["task"], record["split"], record["examples"]) == ("reverse", "test", 6)
    assert record["rows"][-1]["ratio"] == 2
    assert {name: record["rows"][-1][name] for name in ("misplaced", "bleu")} == pytest.approx(score(examples, texts))

    said = run("generate", "--model", "kit", "--ratio", "2", "the  old mill")
    assert f"  {kit.generate('the old mill', ratio=2)}\n" in said and "words in place: " in said
    assert cli.main(["generate", "--model", "kit", "--ratio", "2", "mill"]) == 2
    assert capsys.readouterr().err == "modtf: 'mill' has no two words to reverse; write at least two\n"


def test_a_new_original_needs_a_recipe(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = str(tmp_path / "original")
    assert cli.main(["train", "original", "--task", "reverse", "--data", str(data), "--output", output]) == 2
    assert "no recipe makes a new model for the task 'reverse'" in capsys.readouterr().err


def test_the_page(modular: modtf.ModularModel) -> None:
    explorer = Explorer(modular)
    assert explorer.task is REVERSE and not explorer.fields and not explorer.measurable
    assert explorer.source.value == "the old mill" and explorer.source.placeholder == "two words or more"
    assert explorer.controller.wait().current
    explorer.source.value = "mill"
    assert "&#x27;mill&#x27; has no two words to reverse" in explorer.problem.value
    explorer.source.value = "  a small   house"
    state = explorer.controller.wait()
    assert explorer.problem.value == "" and state.request.source == "a small house"
    for side in (state.result.full, state.result.small):
        assert side.text == modular.generate("a small house", assembly=side.assembly)
        assert side.judgement == judge("a small house", side.text, "")
    assert "words in place" in explorer.result.value and "modtf-chip " not in explorer.result.value
    # People's texts, where they are known, and each model's agreement with them.
    assert "People wrote: “house small a” · “&lt;b&gt;house&lt;/b&gt;”" in explorer.result.value
    assert "words in place against people&#x27;s" in explorer.result.value
    explorer.menu.value = "two small houses near"
    state = explorer.controller.wait()
    assert explorer.source.value == state.request.source == "two small houses near" and not explorer.menu.value
    assert "People wrote" not in explorer.result.value and "people&#x27;s" not in explorer.result.value
    shown = [part.value for part in explorer.widget.children[0].children if hasattr(part, "value")]
    assert any("It never saw the words &lt;big&gt; &amp; dog." in text for text in shown)
    explorer.sweep_button.click()
    assert len(explorer.controller.wait().sweep.sides) == explorer.controller.state.sweep.total > 2
    assert "words in place" in explorer.sweep.value and "The first text that differs" in explorer.sweep.value
    assert "words in place is shown beside the texts" in explorer.quality.value
    explorer.controller.measure(30)
    assert "no examples of the task 'reverse' are bundled" in explorer.controller.wait().job.problem
    explorer.controller.close()


def test_the_page_measures_on_bundled_examples(
    modular: modtf.ModularModel, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "test.jsonl").rename(data / "evaluation.jsonl")
    monkeypatch.setattr("modtf.tasks.task.bundled", lambda name: data / Path(name).name)
    monkeypatch.setitem(TASKS, "reverse", replace(REVERSE, model="reverser"))
    explorer = Explorer(modular)
    explorer.measure_button.click()
    (row,) = explorer.controller.wait().measured_here
    examples = REVERSE.read_data(data, "evaluation")
    full, small = ([modular.generate(e.source, ratio=ratio) for e in examples] for ratio in (1, row["ratio"]))
    against_full = [Example(example.source, (text,)) for example, text in zip(examples, full, strict=True)]
    assert row["examples"] == 6
    assert {name: row[name] for name in ("misplaced", "bleu")} == pytest.approx(score(against_full, small))
    assert f"<b>{row['misplaced']:.1f} %</b> words misplaced" in explorer.measured.value
    assert "words misplaced (%), bundled inputs" in explorer.figure.value
    explorer.controller.close()


def test_a_table_beside_the_kit_is_shown(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is of these very weights."""
    monkeypatch.setitem(TASKS, "reverse", replace(REVERSE, model="reverser"))
    modular.save_pretrained(tmp_path / "kit")
    kit = modtf.load(tmp_path / "kit")
    assert measured_table(kit) == (None, "No measurements exist for this model.")
    assembly = kit.choose(2)
    row = {
        "trained": True, "strategy": "size_first", "ratio": assembly.ratio, "layers": assembly.shape,
        "assembly": assembly.to_json(), "misplaced": 12.3, "bleu": 50.0, "bleu_kept": 98.0, "speed_up": 1.7,
    }  # fmt: skip
    table = {"banks": fingerprint_of(kit.bank_weights(), torch.float16), "engine": "loop", "examples": 6, "rows": [row]}
    (tmp_path / "kit" / "table.json").write_text(json.dumps(table))
    explorer = Explorer(kit)
    explorer.controller.wait()
    assert "<b>12.3 %</b> words misplaced" in explorer.quality.value and "BLEU 50.0" in explorer.quality.value
    assert "you are here" in explorer.figure.value
    explorer.controller.close()
    other = modtf.load(tmp_path / "kit", task="text")  # for which nothing was measured
    assert measured_table(other) == (
        None, f"The measurements in {tmp_path / 'kit' / 'table.json'} are for another task than 'text'."
    )  # fmt: skip
    explorer = Explorer(other)
    assert "another task than &#x27;text&#x27;" in explorer.quality.value
    explorer.controller.close()
    (tmp_path / "kit" / "table.json").write_text("{")
    found, note = measured_table(kit)
    assert found is None and "could not be read" in note
    (tmp_path / "kit" / "table.json").write_text(json.dumps(table))
    with torch.no_grad():
        next(iter(kit.bank_weights().values())).add_(1)
    assert measured_table(kit)[0] is None


def test_a_kit_of_a_task_that_is_not_here(
    modular: modtf.ModularModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, and can still be used as a model of any text."""
    modular.save_pretrained(tmp_path / "kit")
    monkeypatch.delitem(TASKS, "reverse")
    kit = str(tmp_path / "kit")
    assert modtf.load(kit).generate("the old mill", ratio=2) == modular.generate("the old mill", ratio=2)
    assert cli.main(["generate", "--model", kit, "the old mill"]) == 2
    assert "the task 'reverse' is unknown; choose from text, e2e" in capsys.readouterr().err
    assert cli.main(["generate", "--model", kit, "--task", TEXT.name, "--ratio", "2", "mill"]) == 0
    assert TEXT.measure in capsys.readouterr().out
