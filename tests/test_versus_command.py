"""`modtf versus`: a kit against students of single sizes, on data of one's own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SENTENCES, randomize
from families import _t5

import modtf
from modtf import cli
from modtf.commands.versus import FILE, _table, _training
from modtf.tasks import E2E, TEXT

NAMES = ("The Mill", "Zizzi", "The Vaults")
ROWS = [{"mr": f"name[{name}], {i}", "text": f"{name}. {SENTENCES[i]}"} for name in NAMES for i in range(3)]
FEW = ["--steps", "4", "--batch-size", "4", "--report-to", "none", "--optim", "adamw_torch", "--learning-rate", "1e-3"]


@pytest.fixture(scope="module")
def folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained kit, and the data that it was trained on."""
    folder = tmp_path_factory.mktemp("versus")
    (folder / "data").mkdir()
    for split, rows in (("train", ROWS), ("dev", ROWS[:3]), ("test", ROWS[3:6])):
        (folder / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    original = _t5("T5", 4, 4, vocab_size=len(tokenizer))
    randomize(original.modules())
    original.save_pretrained(folder / "original")
    tokenizer.save_pretrained(folder / "original")
    before = os.getcwd()
    os.chdir(folder)
    try:
        own = ["--data", "data", "--source-column", "mr", "--target-column", "text", "--max-target-length", "16"]
        assert cli.main(["train", "kit", "--model", "original", *own, *FEW, "--pairs", "5", "--seed", "3", "--granularities", "2", "4",
                         "--assemblies-per-step", "2", "--watch-inputs", "0", "--report-inputs", "2", "--output", "kit"]) == 0  # fmt: skip
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def test_students_repeat_the_training_of_the_kit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["versus", "--model", "kit", "--ratios", "2", "4", "1.9", "--output", "result"]) == 0
    said = capsys.readouterr()
    assert said.err.count("student 1 of 2: encoder 2·2 | decoder 2·2, 4 steps") == 1
    of_kit = yaml.safe_load(Path("kit/options.yaml").read_text())
    for shape, assembly in {"2-2": "encoder 2·2 | decoder 2·2", "1-1": "encoder 4 | decoder 4"}.items():
        student = yaml.safe_load(Path(f"result/{shape}/options.yaml").read_text())
        new = {"output_dir": f"result/{shape}", "assembly": assembly, "report_inputs": 0}
        assert of_kit.pop("assemblies_per_step", 2) == 2, "of a student, the default"
        assert student == of_kit | new | {"original": student["original"]}
        assert Path(f"result/{shape}/pairs.jsonl").read_bytes() == Path("kit/pairs.jsonl").read_bytes()
        modtf.load(f"result/{shape}").generate("The Mill", assembly=assembly)
    record = json.loads(Path("result", FILE).read_text())
    assert (record["split"], record["examples"], record["shared"]) == ("test", 3, False)
    assert [(row["who"], row["layers"]) for row in record["rows"]] == [
        ("original", "4-4"), ("kit", "2-2"), ("student", "2-2"), ("kit", "1-1"), ("student", "1-1"),
    ]  # fmt: skip
    assert [row["minutes"] is None for row in record["rows"]] == [True, False, False, False, False]
    of_kit, of_students = record["rows"][1]["tflop"], [row["tflop"] for row in record["rows"][2::2]]
    assert of_kit == json.loads(Path("kit/training.json").read_text())["tflop"] > of_students[0] > of_students[1] > 0
    shares = [cost / of_kit for cost in (*of_students, sum(of_students))]
    words = "Cost of training, where the kit's is 1 ({:.3g} TFLOP): student 2-2 {:.3g}, 1-1 {:.3g}, together {:.3g}\n"
    assert words.format(of_kit, *shares) in said.out and said.out.count(" TFLOP\n") == 4
    for row, student in zip(record["rows"][1::2], record["rows"][2::2], strict=True):
        difference = student["student_minus_kit"]
        assert difference["bleu"] == pytest.approx(student["bleu"] - row["bleu"], abs=0.01)
        assert difference["bleu_interval"][0] <= difference["bleu"] <= difference["bleu_interval"][1]
        assert f"{row['layers']}, BLEU: student minus kit" in said.out
    assert "budgets differ" not in said.out
    banks = {path: path.read_bytes() for path in Path("result").glob("*/banks-*")}
    assert cli.main(["versus", "--model", "kit", "--ratios", "2", "4", "--output", "result", "--split", "dev"]) == 0
    assert banks == {path: path.read_bytes() for path in Path("result").glob("*/banks-*")}, "they were trained already"
    assert json.loads(Path("result", FILE).read_text())["split"] == "dev"


def test_students_can_share_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--shared", "--steps", "5", "--test", "data/dev.jsonl", "--pairs", "3"]
    assert cli.main(["versus", "--model", "kit", "--ratios", "2", "4", *shared, "--output", "shared"]) == 0
    assert yaml.safe_load(Path("shared/1-1/options.yaml").read_text())["max_steps"] == 2
    assert len(Path("shared/1-1/pairs.jsonl").read_text().splitlines()) == 3, "not the kit's, which are five"
    said = capsys.readouterr()
    assert "encoder 4 | decoder 4, 2 steps" in said.err
    assert said.out.count("The budgets differ: the kit had 4 steps of 4 texts, each student 2 steps of 4 texts.") == 1


def test_students_of_other_data_than_the_kits(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("kit", "of-hub")
    options = yaml.safe_load(Path("of-hub/options.yaml").read_text()) | {"data": "somebody/data", "data_config": "de"}
    Path("of-hub/options.yaml").write_text(yaml.safe_dump(options))
    enough = ["--steps", "20", "--output", "of-others"]  # for a plan
    assert cli.main(["versus", "--model", "of-hub", "--data", "data", "--ratios", "4", *enough]) == 0
    said = capsys.readouterr().out
    banks = modtf.load("of-hub").bank_weights()
    trained = sum(weight.numel() for name, weight in banks.items() if name.split(".")[1] == "4")
    assert f"{trained:,} of the banks, which train" in said, "the largest modules alone"
    assert "original writes" not in said, "the kit has its texts"


def test_evaluate_and_profile_read_what_the_kit_was_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--model", "kit", "--ratios", "2", "--metrics", "rouge_l"]) == 0
    as_trained = "data data, source_column mr, target_column text, max_target_length 16"
    assert f"as in {Path('kit', 'options.yaml')}: {as_trained}" in capsys.readouterr().err
    assert cli.main(["profile", "--model", "kit", "--inputs", "3"]) == 0
    assert "source_column mr" in capsys.readouterr().err
    options = Path("kit/options.yaml").read_text()
    try:
        Path("kit/options.yaml").write_text(options.replace("data: data", "data: data/train.jsonl"))
        assert cli.main(["evaluate", "--model", "kit"]) == 2, "not on what it learned from"
        assert "--data is missing" in capsys.readouterr().err
    finally:
        Path("kit/options.yaml").write_text(options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--output is missing"),
        (["--output", "no", "--ratios", "1"], "give --ratios above 1"),
        (["--output", "no", "--ratios", "7"], "ratios from 1 to 4"),
        (["--output", "no", "--data", "data/train.jsonl"], "is one file, from which the students learn"),
        (["--output", "no", "--split", "exam"], "has no exam.jsonl"),
        (["--output", "no", "--source-column", "question"], "has no column 'question'; it has 'mr', 'text'"),
        (["--output", "no", "--colour", "red"], "unrecognized arguments: --colour red; see modtf versus --help"),
        (["--output", "no", "--assembly", "6"], "--assembly has no effect here: --ratios and --strategy say"),
    ],
)
def test_words_for_what_is_wrong(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["versus", "--model", "kit", *options]) == 2
    said = capsys.readouterr().err
    assert words in said and said.splitlines()[-1].startswith("modtf: ")
    assert not Path("no", FILE).exists()


def test_of_a_kit_that_began_with_another_the_cost_is_not_known(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "kit", tmp_path / "second")
    assert _training(modtf.load(tmp_path / "second"))["steps"] == 4
    options = yaml.safe_load((tmp_path / "second" / "options.yaml").read_text())
    (tmp_path / "second" / "options.yaml").write_text(yaml.safe_dump(options | {"begin_with": "kit"}))
    assert not any(_training(modtf.load(tmp_path / "second")).values()), "its folder tells of the second part alone"


@pytest.mark.parametrize(
    ("task", "key", "interval", "verdict"),
    [
        (TEXT, "bleu", [0.2, 2.0], "the student is better"),
        (TEXT, "bleu", [-2.0, -0.2], "the kit is better"),
        (TEXT, "bleu", [-2.0, 0.2], "no difference is shown"),
        (E2E, "ser", [0.2, 2.0], "the kit is better"),
        (E2E, "ser", [-2.0, -0.2], "the student is better"),
    ],
)
def test_verdicts(task: Any, key: str, interval: list[float], verdict: str) -> None:
    cost = {"minutes": None, "steps": 4, "batch_size": 4, "tflop": None}  # of an earlier version
    row = {"who": "student", "layers": "2-2", "ratio": 2.0} | cost | {m.key: 1.0 for m in task.metrics}
    row["student_minus_kit"] = {key: sum(interval) / 2, f"{key}_interval": interval}
    assert _table(task, [row]).endswith(verdict)
