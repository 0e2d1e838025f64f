"""The task of the translator: what people may type, its data, its scores, its tokenizer and its recipe."""

from __future__ import annotations

import gzip
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig

from modtf import cli
from modtf.errors import ModtfError
from modtf.recipes import recipe_for
from modtf.recipes.translator import new_translator, train_tokenizer, translator_config
from modtf.tasks import TRANSLATION, Example
from modtf.tasks.translation import MAX_BYTES, read_data, read_sentence

PAIRS = (
    ("I'm cold.", "Mir ist kalt."),
    ("Tom is reading a book.", "Tom liest ein Buch."),
    ("Tom's reading a book.", "Tom liest ein Buch."),
    ("How much is that?", "Wie viel kostet das?"),
    ("We were waiting for you.", "Wir haben auf dich gewartet."),
)

# -- what people may type ----------------------------------------------------------------------------------------------


@given(st.text(st.characters(), max_size=400))
def test_any_text_is_one_line_or_refused(typed: str) -> None:
    try:
        line = read_sentence(typed)
    except ModtfError as error:
        assert "is empty" in str(error) or "bytes" in str(error)
        return
    assert read_sentence(line) == line == unicodedata.normalize("NFC", line)
    assert 0 < len(line.encode()) <= MAX_BYTES
    assert line == " ".join(line.split()) and not any(unicodedata.category(sign) in ("Cc", "Cs") for sign in line)


def test_blanks_and_control_characters() -> None:
    assert read_sentence("  Mir\u00a0ist\n\tkalt.\x00\u2028 ") == "Mir ist kalt."
    assert read_sentence("Wir fu\u0308hren Bu\u0308cher.\ud800") == "Wir führen Bücher."
    assert read_sentence("<b>Mir</b> ist 寒い 🥶") == "<b>Mir</b> ist 寒い 🥶"


@pytest.mark.parametrize("typed", ["", " \n ", "\x00\x07"])
def test_words_for_no_text(typed: str) -> None:
    with pytest.raises(ModtfError, match="is empty; write one in German"):
        read_sentence(typed)


def test_words_for_a_long_text() -> None:
    with pytest.raises(ModtfError, match=rf"59,999 bytes \(10,000 words\); give at most {MAX_BYTES}"):
        read_sentence("lange " * 10_000)
    with pytest.raises(ModtfError, match="303 bytes"):
        read_sentence("寒" * 101)


# -- data and scores ---------------------------------------------------------------------------------------------------


def write_split(folder: Path, split: str, zipped: bool) -> None:
    content = "".join(f"{english}\t{german}\n" for english, german in PAIRS).encode()
    folder.mkdir(exist_ok=True)
    (folder / f"{split}.tsv{'.gz' if zipped else ''}").write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [True, False])
def test_read_data(tmp_path: Path, zipped: bool) -> None:
    write_split(tmp_path, "dev", zipped)
    examples = read_data(tmp_path, "dev")
    assert [example.source for example in examples] == list(dict.fromkeys(german for _, german in PAIRS))
    assert examples[1] == Example("Tom liest ein Buch.", ("Tom is reading a book.", "Tom's reading a book."))


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("I'm cold.\tMir ist kalt.\r\n", encoding="utf-8-sig")
    assert read_data(tmp_path, "dev") == [Example("Mir ist kalt.", ("I'm cold.",))]


def test_words_for_a_missing_split(tmp_path: Path) -> None:
    write_split(tmp_path, "dev", zipped=True)
    with pytest.raises(ModtfError, match=r"no test\.tsv or test\.tsv\.gz in .*; found dev\.tsv\.gz"):
        read_data(tmp_path, "test")
    with pytest.raises(ModtfError, match=r"found no \.tsv files"):
        read_data(tmp_path / "nowhere", "test")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("dev.tsv", b"I'm cold.\tMir ist kalt.\nHello.\n", "line 2: write English<TAB>German"),
        ("dev.tsv", b"I'm cold.\t \n", "line 1: write English<TAB>German"),
        ("dev.tsv", b"a\tb\tCC-BY\n", "line 1: write English<TAB>German"),
        ("dev.tsv", b"I'm cold.\tMir ist kalt.\n" + b"x" * 400 + b"\ty\n", "line 2: the text has 400 bytes"),
        ("dev.tsv", b"x\t" + b"y" * 400, "line 1: the text has 400 bytes"),
        ("dev.tsv", b"", "has no rows"),
        ("dev.tsv", "Hello.\tGrüß dich.\n".encode("latin-1"), "cannot be read as text in UTF-8"),
        ("dev.tsv.gz", b"no archive", "cannot be read as text in UTF-8"),
        ("dev.tsv.gz", gzip.compress(b"a\tb\n" * 99, mtime=0)[:-9], "cannot be read as text in UTF-8"),
    ],
)
def test_words_for_bad_files(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModtfError, match=words):
        read_data(tmp_path, "dev")


def test_scores_use_all_references() -> None:
    examples = [Example("Tom liest ein Buch.", ("Tom is reading a book.", "Tom reads one of the books."))]
    for text in examples[0].references:
        assert TRANSLATION.score(examples, [text]) == pytest.approx({"bleu": 100, "chrf": 100})
    assert TRANSLATION.score(examples, ["Tom is reading books."])["chrf"] < 90


def test_a_text_is_judged_by_its_likeness_to_the_full_models() -> None:
    same, near, far = (
        TRANSLATION.judge("Mir ist kalt.", text, "I am cold.").value for text in ("I am cold.", "I'm cold.", "Three.")
    )
    assert same == 100 > near > far >= 0
    assert TRANSLATION.judge("Mir ist kalt.", "", "").value == 100


# -- tokenizer and recipe ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return train_tokenizer((text for pair in PAIRS for text in pair), 400)


@given(st.text(st.characters(), max_size=80))
def test_the_tokenizer_writes_any_text(tokenizer: Any, typed: str) -> None:
    try:
        line = read_sentence(typed)
    except ModtfError:
        assume(False)
    assume(not any(token in line for token in tokenizer.all_special_tokens))
    ids = tokenizer(line)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == line
    assert ids[-1] == tokenizer.eos_token_id and len(ids) <= translator_config().max_position_embeddings


def test_a_new_translator() -> None:
    examples = [Example(german, (english,)) for english, german in PAIRS]
    model, tokenizer = new_translator(examples)
    assert (model.config.encoder_layers, model.config.decoder_layers) == (6, 6)
    assert model.config.vocab_size == len(tokenizer) == len(train_tokenizer(e for pair in PAIRS for e in pair))
    names = ("pad_token_id", "eos_token_id", "bos_token_id")
    assert all(getattr(model.config, name) == getattr(tokenizer, name) for name in names)
    assert recipe_for(TRANSLATION).new_original is new_translator


def test_the_shell_trains_evaluates_and_translates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(vocabulary_size: int) -> BartConfig:
        config = translator_config(vocabulary_size)
        config.update({"d_model": 16, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16})
        return config

    monkeypatch.setattr("modtf.recipes.translator.translator_config", small)
    for split in ("train", "test"):
        write_split(tmp_path / "data", split, zipped=True)
    task = ["--task", "translation", "--data", str(tmp_path / "data"), "--steps", "2", "--batch-size", "4"]
    task += ["--no-bf16", "--report-to", "none"]
    reach = ["--granularities", "2", "3", "6"]
    original, kit = str(tmp_path / "original"), str(tmp_path / "kit")
    assert cli.main(["train", "original", *task, "--output", original]) == 0
    assert AutoModelForSeq2SeqLM.from_pretrained(original).config.model_type == "bart"
    assert "Ġ" in AutoTokenizer.from_pretrained(original).tokenize("kalt")[0]
    assert cli.main(["train", "kit", *task, "--original", original, "--pairs", "3", *reach, "--output", kit]) == 0
    assert len((Path(kit) / "pairs.jsonl").read_text().splitlines()) == 3
    rows = tmp_path / "rows.json"
    evaluate = ["evaluate", "--model", kit, "--data", str(tmp_path / "data"), "--ratios", "1", "6"]
    assert cli.main([*evaluate, "--json", str(rows)]) == 0
    assert {"bleu", "chrf"} <= json.loads(rows.read_text())["rows"][0].keys()
    assert json.loads(rows.read_text())["task"] == "translation"
    capsys.readouterr()
    assert cli.main(["generate", "Mir ist kalt.", "--model", kit, "--ratio", "6"]) == 0
    assert "chrF2 against the full model's translation" in capsys.readouterr().out
    assert cli.main(["generate", " ", "--model", kit]) == 2
    assert "the sentence is empty" in capsys.readouterr().err
