"""From a model and a file of one's own to a kit, in the shell: every format, any family, and words for what is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from conftest import SENTENCES, randomize
from datasets import Dataset
from families import _bart, _t5
from transformers import AutoModelForSeq2SeqLM, PreTrainedModel, Seq2SeqTrainingArguments

import modtf
from modtf import cli
from modtf.commands.training import _FREE
from modtf.errors import ModtfError
from modtf.options_file import Parser, with_options_of_files, write_options
from modtf.tasks import TEXT, Example
from modtf.tasks.batches import TaskBatches
from modtf.training.runs import load_tokenizer

ROWS = [
    {"mr": f"name[{name}], food[{food}]", "text": f"{name} serves {food} food. {sentence}"}
    for name in ("The Mill", "Zizzi", "The Vaults")
    for food in ("Thai", "Chinese", "French")
    for sentence in SENTENCES
]
COLUMNS = ["--source-column", "mr", "--target-column", "text"]
FEW = ["--steps", "2", "--batch-size", "4", "--report-to", "none", "--optim", "adamw_torch", "--learning-rate", "1e-3"]
FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "mt5": lambda size: _t5("MT5", 4, 4, vocab_size=size),
    "marian": lambda size: _bart("Marian", 4, 4, model="MarianMTModel", vocab_size=size),
    "longt5": lambda size: _t5("LongT5", 4, 4, vocab_size=size, local_radius=15),
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    original = FAMILIES[request.param](len(tokenizer))
    original.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    original = _t5("T5", 4, 4, vocab_size=len(tokenizer))
    randomize(original.modules())
    original.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train as JSON Lines, dev as CSV, test as Parquet."""
    folder = tmp_path_factory.mktemp("restaurants")
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Dataset.from_list(ROWS[:6]).to_csv(folder / "dev.csv", index=False)
    Dataset.from_list(ROWS[:6]).to_parquet(folder / "test.parquet")
    return folder


def test_three_commands(model: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original, kit = tmp_path / "original", tmp_path / "kit"
    own = ["--data", str(data), *COLUMNS]
    assert cli.main(["train", "original", "--model", str(model), *own, *FEW, "--output", str(original)]) == 0
    said = capsys.readouterr()
    assert "train: 8 rows with" in said.err and "step 2: loss " in said.out and "{" not in said.out
    begun, tuned = (AutoModelForSeq2SeqLM.from_pretrained(folder) for folder in (model, original))
    assert not torch.equal(begun.get_input_embeddings().weight, tuned.get_input_embeddings().weight)
    assert cli.main(["evaluate", "--model", str(original), "--metrics", "bleu"]) == 0
    shown = capsys.readouterr()
    assert "source_column mr" in shown.err and len(shown.out.splitlines()) == 2, "one size"
    assert cli.main(["train", "kit", "--model", str(original), *own, *FEW, "--pairs", "4", "--output", str(kit)]) == 0
    said = capsys.readouterr()
    assert re.search(r"^step 2: loss [\d.e-]+ \(logits [\d.e-]+, hidden [\d.e-]+\)$", said.out, re.MULTILINE)
    assert "how good each size is: " in said.out and "Quality by size" in (kit / "report.html").read_text()
    modular = modtf.load(kit)
    assert modular.task == "text" and modular.mapping.encoder.granularities == (2,)
    capsys.readouterr()
    few = ["--ratios", "1", "2", "--strategies", "size_first", "--json", str(tmp_path / "scores.json")]
    assert cli.main(["evaluate", "--model", str(kit), *own, *few, "--metrics", "bleu", "rouge_l"]) == 0
    shown = capsys.readouterr()
    assert "BLEU" in shown.out and "ROUGE-L" in shown.out and "chrF2" not in shown.out
    assert "test: 6 rows with 2 different sources" in shown.err
    assert [row["ratio"] for row in json.loads((tmp_path / "scores.json").read_text())["rows"]] == [1, 2]
    assert cli.main(["generate", "--model", str(kit), "--ratio", "2", "name[Zizzi], food[Thai]"]) == 0
    assert "engine: " in capsys.readouterr().out


def test_a_prefix_is_saved_with_the_kit_and_added_where_it_is_missing(t5: Path, data: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    own = ["--data", str(data), *COLUMNS, "--source-prefix", "describe: "]
    assert cli.main(["train", "kit", "--model", str(t5), *own, *FEW, "--pairs", "4", "--output", str(kit)]) == 0
    assert {json.loads(line)["source"][:10] for line in (kit / "pairs.jsonl").open()} == {"describe: "}
    modular = modtf.load(kit)
    assert modular.prefix == "describe: "
    plain = modular.generate("name[Zizzi]", max_new_tokens=5)
    assert plain == modular.generate("describe: name[Zizzi]", max_new_tokens=5)
    modular.prefix = ""
    assert (
        modular.encode(["name[Zizzi]"])["input_ids"].shape
        != modular.encode(["describe: name[Zizzi]"])["input_ids"].shape
    )


def test_long_texts_are_cut_and_said(
    t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr("modtf.training.runs.train_original", lambda *given: seen.update(examples=given[3]))
    monkeypatch.setattr("modtf.commands.training._say_where", lambda *given: None)
    short = ["--max-source-length", "8", "--max-target-length", "12"]
    command = ["train", "original", "--model", str(t5), "--data", str(data), *COLUMNS, *FEW, *short]
    assert cli.main([*command, "--output", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert "train: 8 rows with" in said, "two steps of four texts need no more"
    assert "sources are cut to 8 tokens" in said and "8 targets are cut to 12 tokens" in said
    assert all(len(text) < 60 for example in seen["examples"] for text in example.references)


def test_a_profile_of_a_kit_of_ones_own(
    t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = tmp_path / "kit"
    own = ["--data", str(data), *COLUMNS]
    assert cli.main(["train", "kit", "--model", str(t5), *own, *FEW, "--pairs", "0", "--output", str(kit)]) == 0
    assert cli.main(["profile", "--model", str(kit), *own, "--inputs", "2"]) == 0
    assert "not measured with a correlation of" in capsys.readouterr().out
    assert "quality_first" in modtf.load(kit).strategies


WRONG = {
    "no data": ([], "--data is missing; give a file, a folder or a data set of the hub"),
    "no such file": (["--data", "/no/such/file.csv"], "/no/such/file.csv (train) is no file or folder here"),
    "another column": (["--data", "DATA"], "has no column 'source'; it has 'mr', 'text': name them, --source-column"),
    "no column": (["--data", "DATA", "--source-column", "mr", "--target-column", "x"], "has no column 'x'"),
    "too short": (["--data", "DATA", *COLUMNS, "--max-source-length", "1"], "--max-source-length is 1; give 4 or more"),
    "too short to write": (["--data", "DATA", *COLUMNS, "--max-target-length", "0"], "--max-target-length is 0"),
    "no number": (["--data", "DATA", *COLUMNS, "--max-target-length", "x"], "--max-target-length: invalid int value"),
    "a task with its own data": (
        ["--data", "DATA", *COLUMNS, "--task", "e2e"], "--source-column has no effect on the task 'e2e'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", ["original", "kit"])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_data_in_one_line(
    case: str, what: str, t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, words = WRONG[case]
    given = [str(data) if option == "DATA" else option for option in options]
    assert cli.main(["train", what, "--model", str(t5), *given, *FEW, "--output", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()


def test_words_for_a_missing_model(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], t5: Path) -> None:
    own = ["--data", str(data), *COLUMNS, *FEW, "--output", str(tmp_path / "run")]
    assert cli.main(["train", "original", *own]) == 2
    assert "give one to train further: --model" in capsys.readouterr().err
    assert cli.main(["train", "kit", "--model", "nobody/nothing", *own]) == 2
    assert "the model nobody/nothing could not be loaded" in capsys.readouterr().err
    AutoModelForSeq2SeqLM.from_pretrained(t5).save_pretrained(tmp_path / "bare")
    assert cli.main(["train", "kit", "--model", str(tmp_path / "bare"), *own]) == 2
    assert "holds no tokenizer" in capsys.readouterr().err


PIECES = ("▁The", "▁Mill", "▁is", "▁a", "▁cheap", "▁pub", "a", "b", "c", "▁")
LANGUAGES = {
    "nllb": (partial(_bart, "M2M100", 4, 4), ("deu_Latn", "eng_Latn"), "forced_bos_token_id"),
    "mbart50": (partial(_bart, "MBart", 4, 4), ("de_DE", "en_XX"), "forced_bos_token_id"),
    "mbart": (partial(_bart, "MBart", 4, 4), ("de_DE", "en_XX"), "decoder_start_token_id"),
}


def speaking_tokenizer(name: str) -> Any:
    special = ("<s>", "<pad>", "</s>", "<unk>")
    if name == "nllb":
        return transformers.NllbTokenizer(vocab={piece: i for i, piece in enumerate((*special, *PIECES))}, merges=[])
    kind = transformers.MBart50Tokenizer if name == "mbart50" else transformers.MBartTokenizer
    return kind(vocab=[(piece, 0.0) for piece in special] + [(piece, -1.0) for piece in PIECES])


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_kit_writes_in_the_target_language(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make, (german, english), begins = LANGUAGES[name]
    tokenizer = speaking_tokenizer(name)
    tokenizer.save_pretrained("original")
    make(vocab_size=len(tokenizer), pad_token_id=1, eos_token_id=2, decoder_start_token_id=2).save_pretrained(
        "original"
    )
    Path("train.jsonl").write_text('{"source": "The Mill", "target": "a pub"}\n' * 8)
    own = ["train", "kit", "--model", "original", "--data", "train.jsonl", *FEW, "--pairs", "2"]
    assert cli.main([*own, "--output", "run"]) == 2
    assert "give --source-language and --target-language, of " in capsys.readouterr().err
    assert cli.main([*own, "--output", "run", "--source-language", german, "--target-language", "klingon"]) == 2
    assert f"knows no language 'klingon'; it has {min(tokenizer.extra_special_tokens)}" in capsys.readouterr().err
    assert not Path("run").exists()
    assert cli.main([*own, "--output", "run", "--source-language", german, "--target-language", english]) == 0
    kit = modtf.load("run")
    code = kit.tokenizer.convert_tokens_to_ids(english)
    assert (kit.tokenizer.src_lang, kit.tokenizer.tgt_lang) == (german, english), "they are saved"
    assert getattr(kit.generation_config, begins) == code
    ids, mask = kit.encode(["The Mill"]).values()
    written = kit.assemble(ratio=2).generate(input_ids=ids, attention_mask=mask, max_new_tokens=3)
    assert code in written[0, :2]
    batch = TaskBatches(TEXT, [Example("The Mill", ("a pub",))], kit.tokenizer, 1)[0]
    assert code in batch["labels"] and kit.tokenizer.convert_tokens_to_ids(german) in batch["input_ids"]


def test_languages_are_refused_where_there_are_none(t5: Path) -> None:
    with pytest.raises(ModtfError, match="knows no languages; leave out --source-language"):
        load_tokenizer(str(t5), target_language="en")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "e2e", "--source-prefix", "x: "], "--source-prefix has no effect on the task 'e2e'"),
        (["--watch-inputs", "-1"], "--watch-inputs is -1; give 0 or more"),
        (["--watch-steps", "0"], "--watch-steps is 0; give 1 or more"),
        (["--report-inputs", "-1"], "--report-inputs is -1; give 0 or more"),
        (["--dev", "/no/such/file.csv"], "/no/such/file.csv (dev) is no file or folder here"),
    ],
)
def test_more_wrong_options(
    options: list[str], words: str, t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--model", str(t5), "--data", str(data), *([] if "--task" in options else COLUMNS), *FEW]
    assert cli.main(["train", "kit", *own, "--output", str(tmp_path / "run"), *options]) == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_kit_that_goes_on_keeps_its_prefix_and_no_secret_is_written(
    t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = [
        "train",
        "kit",
        "--model",
        str(t5),
        "--data",
        str(data),
        *COLUMNS,
        *FEW,
        "--pairs",
        "4",
        "--report-inputs",
        "0",
    ]
    first, more = tmp_path / "first", tmp_path / "more"
    assert cli.main([*own, "--source-prefix", "say: ", "--output", str(first), "--hub-token", "hf_secret"]) == 0
    assert not (first / "report.html").exists() and (first / "quality.jsonl").exists()
    assert "hf_secret" not in (first / "options.yaml").read_text()
    assert cli.main([*own, "--begin-with", str(first), "--output", str(more)]) == 0
    assert modtf.load(more).prefix == "say: "
    seconds = (first / "training.json").read_text()
    assert cli.main([*own, "--source-prefix", "say: ", "--output", str(first)]) == 0
    assert (first / "training.json").read_text() == seconds, "run again, it is finished already"
    assert f"the training in {first} is complete" in capsys.readouterr().err
    other = ["--source-prefix", "tell: ", "--output"]
    assert cli.main([*own, "--begin-with", str(first), *other, str(tmp_path / "other")]) == 2
    assert "--source-prefix is 'tell: ', but" in capsys.readouterr().err
    kept = (first / "options.yaml").read_bytes()
    assert cli.main([*own, *other, str(first), "--steps", "9", "--threads", "2"]) == 2
    said = capsys.readouterr().err
    assert "other options: --steps was 2 and is 9; --source-prefix was 'say: ' and is 'tell: '. Repeat those of" in said
    assert (first / "options.yaml").read_bytes() == kept


def test_a_folder_is_for_one_training(
    t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    own = [
        "train",
        "kit",
        "--model",
        str(t5),
        *COLUMNS,
        *FEW,
        "--pairs",
        "4",
        "--report-inputs",
        "0",
        "--output",
        "run",
    ]

    def again(*given: str, data: str = "data") -> str:
        status = cli.main([*own, "--save-steps", "1", "--save-total-limit", "2", "--data", data, *given])
        said = capsys.readouterr().err
        assert status == (2 if "holds a training with other options" in said else 0), said
        return said

    again()
    shutil.rmtree("run/checkpoint-2")
    free = ["--save-steps", "2", "--watch-inputs", "1", "--logging-steps", "1", "--ddp-timeout", "9"]
    assert "the training in run goes on from step 1" in again(*free, data="./data/"), "they change nothing of it"
    assert "the training in run is complete" in again()
    assert "--data was 'data' and is " in again(data=str(data)), "another one of that name"
    assert "--learning-rate was 0.001 and is 0.1. Repeat those of run/options.yaml" in again("--learning-rate", "0.1")
    assert "--hidden-weight was not given and is 0.5" in again("--hidden-weight", "0.5")
    methods = {field.name for field in dataclasses.fields(modtf.ModularTrainingArguments)}
    methods -= {field.name for field in dataclasses.fields(Seq2SeqTrainingArguments)}
    assert not [name for name in methods if name.startswith(_FREE)] and len(methods) > 9, "they change what is learned"
    shutil.rmtree("run/checkpoint-1", ignore_errors=True)
    shutil.rmtree("run/checkpoint-2")
    assert "--seed was 0 and is 1" in again("--seed", "1"), "its result is there"
    # Interrupted when the original had written its texts.
    for name in ("training.json", "modtf.json"):
        Path("run", name).unlink()
    assert "--source-prefix was not given and is 'say: '" in again("--source-prefix", "say: ")
    assert "--pairs was 4 and is 3" in again("--pairs", "3")
    again("--learning-rate", "0.1")
    Path("moved").mkdir()
    shutil.move("data", "moved")
    assert "is complete" in again("--learning-rate", "0.1", data="moved/data")


def test_metrics_are_the_tasks(t5: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--model", "pocket", "--metrics", "accuracy"]) == 2
    assert "--metrics accuracy is no metric of the task 'e2e'; it has " in capsys.readouterr().err


# -- options from a file -----------------------------------------------------------------------------------------------


def test_a_training_leaves_the_file_that_repeats_it(t5: Path, data: Path, tmp_path: Path) -> None:
    first, again, other = tmp_path / "first", tmp_path / "again", tmp_path / "other"
    options = {
        "model": str(t5), "data": str(data), "source_column": "mr", "target-column": "text", "steps": 2, "batch_size": 4,
        "optim": "adamw_torch", "learning_rate": 1e-3, "report_to": "none", "pairs": 0, "granularities": [2, 4],
        "hidden_weight": 0.5, "bf16": False, "save_total_limit": 2,
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(options))
    assert cli.main(["train", "kit", "--config", str(tmp_path / "run.json"), "--output", str(first)]) == 0
    assert modtf.load(first).mapping.encoder.granularities == (2, 4)
    repeat = ["train", "kit", "--config", str(first / "options.yaml"), "--output"]
    assert cli.main([*repeat, str(again)]) == 0
    assert cli.main([*repeat, str(other), "--learning-rate", "0.01"]) == 0, "the shell counts more"
    weights = [modtf.load(folder).bank_weights() for folder in (first, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert "config" not in yaml.safe_load((first / "options.yaml").read_text())
    kept = yaml.safe_load((first / "options.yaml").read_text())
    assert kept["max_steps"] == 2 and kept["seed"] == 0 and kept["hidden_weight"] == 0.5 and kept["bf16"] is False


def test_options_of_a_measurement_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "options.yaml").write_text("model: translator\nbeams: 0\n")
    assert cli.main(["evaluate", "--config", str(tmp_path / "options.yaml")]) == 2
    assert "--beams is 0" in capsys.readouterr().err
    assert cli.main(["evaluate", "--config", str(tmp_path / "options.yaml"), "--beams", "-3"]) == 2
    assert "--beams is -3" in capsys.readouterr().err


def test_a_text_in_a_file_may_look_like_an_option(tmp_path: Path) -> None:
    parser = Parser()
    parser.add_argument("--source-prefix")
    parser.add_argument("--ratios", nargs="+", type=float)
    write_options(tmp_path, {"source_prefix": "--short ", "ratios": [1, 2.5]})
    given = parser.parse_args(with_options_of_files(parser, ["--config", str(tmp_path / "options.yaml")]))
    assert (given.source_prefix, given.ratios) == ("--short ", [1, 2.5])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no such file"),
        ("a: [b", "cannot be read as YAML or JSON"),
        ("- steps", "holds no options; write lines such as 'steps: 1000'"),
        ("colour: red", "'colour' is no option of modtf train kit"),
        ("faultless: 3", "faultless is 3; give true or false"),
        ("steps: many", "--steps: invalid int value: 'many'"),
        ("task: poems", "the task 'poems' is unknown"),
        ("num_train_epochs: 3", "--num-train-epochs has no effect here"),
    ],
)
def test_words_for_a_wrong_file(
    content: str | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "options.yaml"
    if content is not None:
        file.write_text(content)
    assert cli.main(["train", "kit", "--model", "x", "--output", str(tmp_path / "run"), "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said
    assert not (tmp_path / "run").exists()
