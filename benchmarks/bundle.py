"""Put a trained kit into data/<name>/: in half precision, with examples and with what its training took.

    python benchmarks/bundle.py pocket --original build/plain build/original --kit build/kit

Each training is given by its folders, one for each of its parts; the last folder of --kit holds the kit.
pairs.jsonl gets at most 4,000 of the texts that the original wrote for the kit's first part. evaluation.jsonl is that
part's, too; a kit whose task cannot draw inputs has none, and 400 sources of the test split take its place, with all
their references.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import modtf
from modtf.commands.data import data_folder
from modtf.errors import ModtfError
from modtf.tasks import task_named
from modtf.tasks.examples import read_pairs, spread, write_pairs

ROOT = Path(__file__).parent.parent
PAIRS, EVALUATION = 4_000, 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the bundled model")
    parser.add_argument("--original", type=Path, nargs="+", required=True)
    parser.add_argument("--kit", type=Path, nargs="+", required=True)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    options = parser.parse_args()
    bundle(ROOT / "data" / options.name, options.original, options.kit, options.data)


def bundle(folder: Path, originals: Sequence[Path], kits: Sequence[Path], data: str | None = None) -> None:
    """Read and check everything first, then write ``folder``."""
    first = kits[0]
    modular = modtf.load(kits[-1])
    task = task_named(modular.task)
    pairs = spread((first / "pairs.jsonl").read_text(encoding="utf-8").strip().split("\n"), PAIRS)
    if (first / "evaluation.jsonl").is_file():
        examples = read_pairs(first / "evaluation.jsonl")
    else:
        examples = spread(task.read_data(data or data_folder(task), task.test_split), EVALUATION)
    training = {
        name if len(folders) == 1 else f"{name}, part {number}": json.loads((part / "training.json").read_text())
        for name, folders in {"original": originals, "kit": kits}.items()
        for number, part in enumerate(folders, 1)
    }

    modular.save_pretrained(folder, copy_original=True, dtype=torch.float16)
    (folder / "pairs.jsonl").write_text("\n".join(pairs) + "\n", encoding="utf-8")
    write_pairs(
        [(example.source, text) for example in examples for text in example.references], folder / "evaluation.jsonl"
    )
    (folder / "training.json").write_text(json.dumps(training, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
