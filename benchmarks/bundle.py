"""Copy a trained kit, in half precision, and the texts that its original wrote into data/pocket/.

    python benchmarks/bundle.py build/kit build/plain build/original

The folders after that of the kit are those of the training of its original, one for each part of that training.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

import modtf

POCKET = Path(__file__).parent.parent / "data" / "pocket"


def main(kit: Path, *originals: Path) -> None:
    modtf.load(kit).save_pretrained(POCKET, copy_original=True, dtype=torch.float16)
    for name in ("pairs.jsonl", "evaluation.jsonl"):
        shutil.copy(kit / name, POCKET / name)
    parts = {**{f"original, part {i}": folder for i, folder in enumerate(originals, 1)}, "kit": kit}
    training = {name: json.loads((folder / "training.json").read_text()) for name, folder in parts.items()}
    (POCKET / "training.json").write_text(json.dumps(training, indent=1) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
