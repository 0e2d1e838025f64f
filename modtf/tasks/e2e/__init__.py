"""The task of the bundled pocket model, E2E NLG: a restaurant's attributes in, an English description out.

Data: Novikova, Dušek, Rieser (2017) and the cleaned release of Dušek, Howcroft, Rieser (2019), CC BY-SA 4.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from random import Random

from modtf.tasks.e2e.data import read_data
from modtf.tasks.e2e.mrs import OPEN_SLOTS, SLOTS, VALUES, draw_typical_mr, parse_mr, write_mr
from modtf.tasks.e2e.scores import score
from modtf.tasks.e2e.slots import check
from modtf.tasks.e2e.vary import vary
from modtf.tasks.examples import Example
from modtf.tasks.task import Field, Form, Judgement, Mark, Metric, Task

_LABELS = {
    "eatType": "type", "priceRange": "price", "customer rating": "rating", "familyFriendly": "family friendly",
}  # fmt: skip


def _label(slot: str) -> str:
    return _LABELS.get(slot, slot)


def _read(typed: str) -> str:
    return write_mr(parse_mr(typed))


def _draw(rng: Random) -> str:
    return write_mr(draw_typical_mr(rng))


def _judge(source: str, text: str, full: str) -> Judgement:
    """The number of slot errors, and what the text does with each slot."""
    report = check(parse_mr(source), text)
    slots = {
        "said": [slot for slot in report.said if slot not in report.repeated],
        "repeated": report.repeated,
        "missed": report.missed,
        "wrong": report.wrong,
        "added": report.added,
    }
    marks = tuple(Mark(kind, _label(slot)) for kind, of_kind in slots.items() for slot in of_kind)
    return Judgement(report.errors, marks)


def _faultless(source: str, text: str) -> bool:
    return check(parse_mr(source), text).errors == 0


def _score(examples: Sequence[Example], texts: Sequence[str]) -> dict[str, float]:
    mrs = [parse_mr(example.source) for example in examples]
    return asdict(score(mrs, texts, [example.references for example in examples]))


E2E = Task(
    "e2e",
    label="restaurant descriptions",
    input_label="the same as text",
    placeholder="name[The Vaults], food[French]",
    # Complete down to 4x; at 6x the price is forgotten.
    first=(
        "name[The Plough], eatType[pub], food[Italian], priceRange[more than £30], customer rating[average], "
        "area[city centre], familyFriendly[yes], near[Café Rouge]"
    ),
    read=_read,
    form=Form(
        tuple(Field(slot, _label(slot), VALUES[slot], open=slot in OPEN_SLOTS) for slot in SLOTS), parse_mr, write_mr
    ),
    draw=_draw,
    draw_label="another restaurant",
    read_data=read_data,
    data_variable="MODTF_E2E_DIR",
    data_folder="e2e",
    train_split="train-cleaned",
    test_inputs="meaning representations of the 2017 test set",
    model="pocket",
    vary=vary,
    faultless=_faultless,
    judge=_judge,
    measure="slot errors",
    unit="",
    part="slot",
    question="where does the first slot get lost?",
    metrics=(
        Metric("bleu", "BLEU", "BLEU kept (% of the full model)"),
        Metric("ser", "slot errors", "slot error rate (%)", errors=True),
        Metric("rouge_l", "ROUGE-L", "ROUGE-L kept (% of the full model)"),
    ),
    score=_score,
)
