"""Put a trained kit and what its original wrote into data/, in half precision.

python benchmarks/bundle.py build/original build/kit
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

import modtf

DATA = Path(__file__).parent.parent / "data"


def main(original: Path, kit: Path) -> None:
    modtf.load(kit).save_pretrained(DATA / "pocket", copy_original=True, dtype=torch.float16)
    for name in ("pairs.jsonl", "evaluation.jsonl"):
        shutil.copy(kit / name, DATA / name)
    training = {name: json.loads((folder / "training.json").read_text()) for name, folder in (("original", original), ("kit", kit))}
    (DATA / "pocket" / "training.json").write_text(json.dumps(training, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
