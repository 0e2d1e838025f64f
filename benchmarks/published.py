"""Score two published systems, people, and deliberately wrong texts on the 2017 test set.

    python benchmarks/published.py --data <folder of the E2E CSV files>

writes data/published.json in a few minutes. The deliberately wrong texts omit or reverse something. The folder also
needs system-outputs/tgen.tsv and slug.tsv, the outputs of TGen and Slug in the E2E NLG challenge (columns MR and
output). Notebook 5 shows the results. The file holds measurements only, none of the texts.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import modtf
from modtf.bootstrap import DRAWS, differences, drawn_scores
from modtf.errors import ModtfError
from modtf.evaluation import write_texts
from modtf.tasks import E2E, Example
from modtf.tasks.e2e import SLOTS, check, parse_mr, read_data, write_mr

OUTPUT = Path(__file__).parents[1] / "data" / "published.json"
SYSTEMS = {"tgen": "TGen", "slug": "Slug"}
SOURCE = (
    "References: E2E NLG, 2017 (Novikova, Dušek, Rieser, 2017). Systems: outputs of the E2E NLG challenge (Dušek, "
    "Novikova, Rieser, 2020): TGen, its baseline (Dušek, Jurčíček, 2016), and Slug, its winner (Juraska, Karagiannis, "
    "Bowden, Walker, 2018). 'pocket' is the bundled original. Texts with something dropped, turned around or not "
    "told are made from these by benchmarks/published.py; no system wrote them so."
)
RATIOS = (2, 4, 6)
#: How Slug, TGen and people say it; to reverse it, "not" before it is removed or added.
_FAMILY_FRIENDLY = re.compile(r"(not )?(a )?((?:kids?|child|children|family|families)[- ]*friendly)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("MODTF_E2E_DIR", "e2e"))
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    examples = read_data(options.data, "test")
    texts = {
        name: read_outputs(options.data / "system-outputs" / f"{file}.tsv", examples) for file, name in SYSTEMS.items()
    }
    several = [i for i, example in enumerate(examples) if len(example.references) > 1]
    others = [Example(examples[i].source, examples[i].references[1:]) for i in several]
    first = [examples[i].references[0] for i in several]
    made = {
        "made_by": "benchmarks/published.py",
        "machine": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "source": SOURCE,
        "examples": len(examples),
        "rows": [
            *(row(name, examples, written) for name, written in texts.items()),
            row("Slug, last sentence dropped", examples, [without_last_sentence(text) for text in texts["Slug"]]),
            row("Slug, family friendliness turned around", examples, [turned_around(text) for text in texts["Slug"]]),
            *rows_with_hidden_slots(examples),
        ],
        # People: the first reference of each input against its other references, so the systems against those, too.
        "against_others": {
            "examples": len(others),
            "rows": [
                row("people", others, first),
                *(row(name, others, [written[i] for i in several]) for name, written in texts.items()),
            ],
        },
        "people_leave_out": people_leave_out(examples),
        # How much the choice of inputs could change the differences in the table, which the table itself does not say.
        "draws": DRAWS,
        "against_1x": differences_from_1x(examples),
    }
    options.output.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_outputs(path: Path, examples: Sequence[Example]) -> list[str]:
    """A system's texts, in the order of the examples."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            written = {write_mr(parse_mr(line["MR"])): line["output"] for line in csv.DictReader(file, delimiter="\t")}
        return [written[example.source] for example in examples]
    except (OSError, KeyError) as error:
        raise ModtfError(
            f"{path} cannot be used: {error!r}. It needs the columns MR and output, "
            "and a line for each MR of the test set"
        ) from error


def row(system: str, examples: Sequence[Example], texts: Sequence[str], **more: Any) -> dict[str, Any]:
    scores = E2E.score(examples, texts)
    words = sum(len(text.split()) for text in texts) / len(texts)
    made = {
        "system": system,
        **more,
        **{name: round(value, 2) for name, value in scores.items()},
        "words": round(words, 1),
    }
    print(made, flush=True)
    return made


def rows_with_hidden_slots(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The bundled original as it is, and with one slot always hidden: fluent texts that all omit the same thing."""
    pocket = modtf.load("pocket")

    def texts_without(hidden: str | None) -> list[str]:
        mrs = [parse_mr(example.source) for example in examples]
        told = [{slot: value for slot, value in mr.items() if slot != hidden} for mr in mrs]
        return write_texts(pocket, pocket.mapping.original, [write_mr(mr) for mr in told])

    rows = [row("pocket", examples, texts_without(None))]
    for slot in SLOTS:
        if slot != "name":
            rows.append(row(f"pocket, never told {slot}", examples, texts_without(slot), hidden=slot))
    return rows


def without_last_sentence(text: str) -> str:
    """The text without its last sentence; a text of one sentence stays as it is."""
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(sentences[:-1] or sentences)


def turned_around(text: str) -> str:
    """The text that says the opposite about whether families are welcome."""
    return _FAMILY_FRIENDLY.sub(lambda found: ("" if found[1] else "not ") + (found[2] or "") + found[3], text)


def people_leave_out(examples: Sequence[Example]) -> dict[str, float]:
    """For each slot, the percentage of people's texts that omit it although the MR has it."""
    asked, missed = Counter[str](), Counter[str]()
    for example in examples:
        mr = parse_mr(example.source)
        for text in example.references:
            asked.update(mr.keys())
            missed.update(check(mr, text).missed)
    return {slot: round(100 * missed[slot] / asked[slot], 1) for slot in SLOTS}


def differences_from_1x(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """BLEU and SER of bundled assemblies minus the original's, with 95 % intervals (paired bootstrap over inputs)."""
    pocket = modtf.load("pocket")
    scores = {
        ratio: drawn_scores(E2E, examples, write_texts(pocket, pocket.choose(ratio), [e.source for e in examples]))
        for ratio in (1, *RATIOS)
    }
    return [{"ratio": ratio, **differences(scores[ratio], scores[1])} for ratio in RATIOS]


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
