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

#: What becomes of a part that a text was asked to say, in the order in which the parts are shown.
MARKS = ("said", "repeated", "missed", "wrong", "added")


@dataclass(frozen=True)
class Mark:
    """A part of the input, by the name that people see, and what a text makes of it: one of :data:`MARKS`."""

    kind: str
    name: str


@dataclass(frozen=True)
class Judgement:
    """What a task says of one text at once: its score in the unit of :attr:`Task.measure`, and its parts one by one."""

    value: float
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A score of many texts, in percent. ``errors`` is true where less is better.

    Quality is shown relative to the full model ("kept"), errors as they are.
    """

    key: str  # in records: "bleu"
    name: str  # in sentences: "BLEU"
    title: str  # above a figure: "slot error rate (%)"
    errors: bool = False

    @property
    def field(self) -> str:
        """The field of a measured row that is drawn."""
        return self.key if self.errors else f"{self.key}_kept"


@dataclass(frozen=True)
class Field:
    """A part of an input that people choose. ``open`` says that they may also type what is not among ``values``."""

    key: str
    label: str
    values: tuple[str, ...]
    open: bool = False


@dataclass(frozen=True)
class Form:
    """An input made of fields. ``read`` and ``write`` turn a source into the fields' values and back."""

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
    """Train on the example as it stands."""
    return source, references


@dataclass(frozen=True)
class Task:
    """A task, by its name. The defaults are those of any text: a field to type into, and likeness to the full model."""

    name: str

    # How people make an input.
    placeholder: str = "any text that the model was trained to work on"
    #: what the explorer opens with
    first: str = ""
    #: the source for what was typed; raises :class:`ModtfError` for what is no input of this task
    read: Callable[[str], str] = read_text
    form: Form | None = None
    #: a random source, for those who have none, and the words of the button that asks for it
    draw: Callable[[random.Random], str] | None = None
    draw_label: str = "another input"

    # Examples.
    #: examples of a split, from a folder or from the hub
    read_data: Callable[[str | Path, str], list[Example]] = read_folder
    #: where the folder of the data is named, and what it is called by default
    data_variable: str = ""
    data_folder: str = "data"
    train_split: str = "train"
    test_split: str = "test"
    #: the bundled model whose folder holds examples of this task
    model: str = ""
    #: another wording of an example, drawn anew each time that a training meets it
    vary: Callable[[str, tuple[str, ...], random.Random], tuple[str, tuple[str, ...]]] = as_it_is

    # The judgement of one text (source, text, the full model's text), while people watch.
    judge: Callable[[str, str, str], Judgement] = judge_likeness
    measure: str = "ROUGE-L against the full model's text"
    unit: str = " %"
    #: what a mark is about, and what to look for in a sweep
    part: str = "part"
    question: str = "where does the text begin to change?"

    # The scores of many; the first two metrics are drawn.
    metrics: tuple[Metric, ...] = (
        Metric("bleu", "BLEU", "BLEU kept (% of the full model)"),
        Metric("chrf", "chrF2", "chrF2 kept (% of the full model)"),
        Metric("rouge_l", "ROUGE-L", "ROUGE-L kept (% of the full model)"),
    )
    score: Callable[[Sequence[Example], Sequence[str]], dict[str, float]] = score_texts

    def bundled_examples(self, name: str) -> list[Example]:
        """What the bundled original wrote: ``"pairs"`` to train on, ``"evaluation"`` to measure on.

        Raises :class:`ModtfError` where no examples of this task are bundled.
        """
        if not self.model:
            raise ModtfError(
                f"no examples of the task {self.name!r} are bundled; "
                "modtf.evaluation.measure_quality scores a model on yours"
            )
        return read_pairs(bundled(f"{self.model}/{name}.jsonl"))


#: A model of one's own: any text in, any text out.
TEXT = Task("text")
