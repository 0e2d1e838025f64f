"""What modtf knows of a task: the one record that a new task fills in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modtf.bundled import bundled
from modtf.errors import ModtfError
from modtf.tasks.examples import Example, read_pairs
from modtf.tasks.scores import bleu, chrf, likeness, rouge_l

#: What a text may do with a part of its input, in the order in which the parts are shown.
MARKS = ("said", "repeated", "missed", "wrong", "added")


@dataclass(frozen=True)
class Mark:
    """What a text does with a part of the input: one of :data:`MARKS`, and the part's name as people see it."""

    kind: str
    name: str


@dataclass(frozen=True)
class Judgement:
    """The live judgement of one text: its score in terms of :attr:`Task.measure`, and a mark for each part.

    Where people's texts for the source are known, ``references`` holds them, and ``agreement`` is the text's score in
    terms of :attr:`Task.agreement`.
    """

    value: float
    marks: tuple[Mark, ...] = ()
    references: tuple[str, ...] = ()
    agreement: float | None = None


@dataclass(frozen=True)
class Metric:
    """A score of many texts, in percent. ``errors`` is true where lower is better.

    Figures show quality relative to the full model ("kept"), and errors as they are.
    """

    key: str  # in records: "bleu"
    name: str  # in sentences: "BLEU"
    title: str  # above a figure: "slot error rate (%)"
    errors: bool = False

    @property
    def field(self) -> str:
        """The field of a measured row that figures show."""
        return self.key if self.errors else f"{self.key}_kept"


@dataclass(frozen=True)
class Field:
    """A part of an input to be chosen from ``values``; if ``open``, any other text may be typed instead."""

    key: str
    label: str
    values: tuple[str, ...]
    open: bool = False


@dataclass(frozen=True)
class Form:
    """An input made of fields: ``read`` turns a source into their values, ``write`` turns them into a source."""

    fields: tuple[Field, ...]
    read: Callable[[str], dict[str, str]]
    write: Callable[[dict[str, str]], str]


def read_text(typed: str) -> str:
    """Any text that is not blank; raises :class:`ModtfError` otherwise."""
    if not typed.strip():
        raise ModtfError("the text is empty; write something for the model to work on")
    return typed


def read_folder(data: str | Path, split: str) -> list[Example]:
    """Read ``{split}.jsonl`` from a folder (see :func:`read_pairs`)."""
    path = Path(data) / f"{split}.jsonl"
    if not path.is_file():
        found = ", ".join(sorted(file.name for file in Path(data).glob("*.jsonl"))) or "no .jsonl files"
        raise ModtfError(
            f'no {split}.jsonl in {data}; found {found}. Write lines of {{"source": "...", "target": "..."}}'
        )
    return read_pairs(path)


def judge_likeness(source: str, text: str, full: str) -> Judgement:
    """ROUGE-L between a text and the full model's text for the same source, in percent."""
    return Judgement(likeness(text, full))


def score_texts(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, float]:
    """BLEU, chrF2 and ROUGE-L against the references, in percent."""
    references = [example.references for example in examples]
    return {"bleu": bleu(texts, references), "chrf": chrf(texts, references), "rouge_l": rouge_l(texts, references)}


def as_it_is(source: str, references: tuple[str, ...], rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Train on the example unchanged."""
    return source, references


@dataclass(frozen=True)
class Task:
    """A task. The defaults fit any text: one field to type into, judged by likeness to the full model's text."""

    name: str
    #: what people call it, where they choose between bundled models
    label: str = ""

    # How an input is made.
    input_label: str = "text"
    placeholder: str = "any text that the model was trained to work on"
    #: the input that the explorer opens with
    first: str = ""
    #: turns typed text into a source; raises :class:`ModtfError` if it is not an input of this task
    read: Callable[[str], str] = read_text
    form: Form | None = None
    #: a line below the input: what the model was never taught
    notice: str = ""
    #: inputs to choose from, for those who have none of their own
    suggestions: tuple[str, ...] = ()
    #: draws a random source, as many different ones as a training needs
    draw: Callable[[random.Random], str] | None = None
    #: the label of the button for a random input, drawn or bundled
    draw_label: str = "another input"

    # Examples.
    #: examples of a split, from a folder or from the hub
    read_data: Callable[[str | Path, str], list[Example]] = read_folder
    #: the environment variable that names the data folder, and the folder's default name
    data_variable: str = ""
    data_folder: str = "data"
    train_split: str = "train"
    test_split: str = "test"
    #: what the examples of the test split are called below the measured table
    test_inputs: str = "inputs of the test split"
    #: the bundled model whose folder holds examples of this task, if any
    model: str = ""
    #: varies an example (source, references), at random and anew each time that it is trained on
    vary: Callable[[str, tuple[str, ...], random.Random], tuple[str, tuple[str, ...]]] = as_it_is

    #: whether a text (source, text) says all that its source does, and nothing else; None where that cannot be told
    faultless: Callable[[str, str], bool] | None = None

    # The live judgement of one text, from (source, text, the full model's text).
    judge: Callable[[str, str, str], Judgement] = judge_likeness
    measure: str = "ROUGE-L against the full model's text"
    unit: str = " %"
    #: the score against people's texts, where they are known
    agreement: str = ""
    #: what a mark is about, and the question that a sweep over all sizes answers
    part: str = "part"
    question: str = "where does the text begin to change?"

    # The scores of many texts; figures show the first two metrics.
    metrics: tuple[Metric, ...] = (
        Metric("bleu", "BLEU", "BLEU kept (% of the full model)"),
        Metric("chrf", "chrF2", "chrF2 kept (% of the full model)"),
        Metric("rouge_l", "ROUGE-L", "ROUGE-L kept (% of the full model)"),
    )
    score: Callable[[Sequence[Example], Sequence[str]], dict[str, float]] = score_texts

    def suggest(self, rng: random.Random) -> str | None:
        """A random input for people to try: drawn, or one of the bundled examples; None where there are neither."""
        if self.draw is not None:
            return self.draw(rng)
        return rng.choice(self.bundled_examples("evaluation")).source if self.model else None

    def bundled_examples(self, name: str) -> list[Example]:
        """Bundled examples: ``"pairs"``, written by the bundled original, to train on; ``"evaluation"`` to measure on.

        Raises :class:`ModtfError` if no examples of this task are bundled.
        """
        if not self.model:
            raise ModtfError(
                f"no examples of the task {self.name!r} are bundled; "
                "modtf.evaluation.measure_quality scores a model on your own"
            )
        return read_pairs(bundled(f"{self.model}/{name}.jsonl"))


#: Any text in, any text out: the task of a model that no other task fits.
TEXT = Task("text")
