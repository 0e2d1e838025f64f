"""The task of the translator: a German sentence in, an English one out.

Data: sentence pairs of tatoeba.org in the selection of manythings.org/anki, CC BY 2.0.
"""

from __future__ import annotations

import gzip
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from modtf.errors import ModtfError
from modtf.tasks.examples import Example, group_pairs
from modtf.tasks.scores import bleu, chrf, sentence_chrf
from modtf.tasks.task import Judgement, Metric, Task

#: The longest input, in bytes of UTF-8. No tokenizer makes more tokens of a text than it has bytes.
MAX_BYTES = 300


def read_sentence(typed: str) -> str:
    """One line of text in NFC: a run of blanks, line breaks and control characters becomes one blank.

    Raises :class:`ModtfError` for a text with nothing to translate, and for one of more than ``MAX_BYTES`` bytes.
    """
    spaced = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign for sign in typed)
    sentence = " ".join(unicodedata.normalize("NFC", spaced).split())
    if not sentence:
        raise ModtfError("the sentence is empty; write one in German")
    size = len(sentence.encode())
    if size > MAX_BYTES:
        raise ModtfError(
            f"the text has {size:,} bytes ({len(sentence.split()):,} words); give at most {MAX_BYTES}. The translator "
            "learned from short sentences: translate a longer text one sentence at a time"
        )
    return sentence


def read_data(data: str | Path, split: str) -> list[Example]:
    """Read ``{split}.tsv`` or ``{split}.tsv.gz``, lines of ``English<TAB>German``: an example for each German sentence.

    Both are read by :func:`read_sentence`. Raises :class:`ModtfError` where the file is missing, or is not such a table
    in UTF-8.
    """
    folder = Path(data)
    path = next((folder / name for name in (f"{split}.tsv.gz", f"{split}.tsv") if (folder / name).is_file()), None)
    if path is None:
        found = ", ".join(sorted(file.name for file in folder.glob("*.tsv*"))) or "no .tsv files"
        raise ModtfError(
            f"no {split}.tsv or {split}.tsv.gz in {folder}; found {found}. "
            "Give the folder of the Tatoeba data (MODTF_TATOEBA_DIR, or the command's --data)"
        )
    try:
        reading: Any = gzip.open if path.suffix == ".gz" else open
        with reading(path, "rt", encoding="utf-8-sig") as lines:
            rows = [line.rstrip("\n").split("\t") for line in lines]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ModtfError(f"{path} cannot be read as text in UTF-8: {error}; copy it again") from error
    pairs: list[tuple[str, str]] = []
    for number, columns in enumerate(rows, start=1):
        if len(columns) != 2 or not all(column.strip() for column in columns):
            raise ModtfError(f"{path}, line {number}: write English<TAB>German, both of them texts")
        try:
            english, german = map(read_sentence, columns)
        except ModtfError as error:
            raise ModtfError(f"{path}, line {number}: {error}") from error
        pairs.append((german, english))
    if not pairs:
        raise ModtfError(f"{path} has no rows")
    return group_pairs(pairs)


@cache
def _people() -> dict[str, tuple[str, ...]]:
    """People's translations of the bundled sentences."""
    if not TRANSLATION.model:
        return {}
    return {example.source: example.references for example in TRANSLATION.bundled_examples("evaluation")}


def _judge(source: str, text: str, full: str) -> Judgement:
    """chrF2 against the full model's translation and, for bundled sentences, the best against one of people's."""
    references = _people().get(source, ())
    agreement = max((sentence_chrf(text, reference) for reference in references), default=None)
    return Judgement(sentence_chrf(text, full), references=references, agreement=agreement)


def _score(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, float]:
    references = [example.references for example in examples]
    return {"bleu": bleu(texts, references), "chrf": chrf(texts, references)}


TRANSLATION = Task(
    "translation",
    label="German → English",
    model="translator",
    input_label="a German sentence",
    placeholder="type one, or choose one from the menu",
    # 2x, at which the explorer opens, loses one word of it: "not".
    first="Obwohl es kalt war, trug er keinen Mantel.",
    notice=("The translator learned from short everyday sentences (tatoeba.org), never from long or technical text."),
    suggestions=(
        "Wo ist der nächste Bahnhof?",
        "Ich habe meinen Schlüssel verloren.",
        "Wenn es morgen regnet, bleiben wir zu Hause.",
        "Der Film war so langweilig, dass ich eingeschlafen bin.",
        "Das Haus, in dem wir wohnen, ist sehr alt.",
        "Kannst du mir sagen, wie spät es ist?",
        "Er tut so, als ob er nichts gehört hätte.",
        "Obwohl sie müde war, arbeitete sie bis Mitternacht.",
        "Nachdem er gegessen hatte, ging er spazieren.",
        "Ich wünschte, ich könnte Klavier spielen.",
    ),
    draw_label="another sentence",
    read=read_sentence,
    read_data=read_data,
    data_variable="MODTF_TATOEBA_DIR",
    data_folder="tatoeba",
    test_inputs="German sentences of the Tatoeba test split",
    judge=_judge,
    measure="chrF2 against the full model's translation",
    agreement="chrF2 against people's translations",
    question="where does the translation begin to break?",
    metrics=(
        Metric("bleu", "BLEU", "BLEU kept (% of the full model)"),
        Metric("chrf", "chrF2", "chrF2 kept (% of the full model)"),
    ),
    score=_score,
)
