"""Whether a training that is killed at any moment ends with the weights of one that ran whole, bit for bit.

    python benchmarks/kills.py [--kills 20] [--seed 0]      # of `modtf train kit`, and as many of `modtf train original`
    python benchmarks/kills.py --full-disk 12               # disks too small for it, then large enough (root, Linux)

A small T5 with random weights learns invented texts. Each kill is a SIGKILL at a random moment, while a checkpoint is
written, or while the result is; then the same command goes on. Where a training ends, each of its files is compared.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from transformers import AutoModelForSeq2SeqLM, T5Config, T5ForConditionalGeneration, set_seed

import modtf
from modtf.recipes.pocket import train_tokenizer
from modtf.training.runs import last_checkpoint

AIMS = ("at random", "at a checkpoint", "at the result")
#: Seconds in which the small checkpoint or result is written.
WRITING = 0.05
#: Files that say how long a training took or where it is; all others must be those of the whole one.
DIFFERENT = {"training.json", "report.html", "options.yaml", "trainer_state.json", "training_args.bin"}
STEPS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each of the two commands (default %(default)s)")
    parser.add_argument("--full-disk", type=int, metavar="N", help="instead, N disks of different sizes for each")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), random.Random(options.seed)
        write_model_and_data(folder, rng)
        for what in ("kit", "original"):
            whole, began = folder / f"{what}-whole", time.monotonic()
            assert run(what, folder, whole) == 0, (folder / "stderr").read_text()
            seconds = time.monotonic() - began
            check(what, whole, whole)
            print(
                f"{what}: the whole training takes {seconds:.0f} s, {STEPS} steps and {size(whole):.1f} MB", flush=True
            )
            if options.full_disk:
                fill_disks(what, folder, whole, options.full_disk)
            else:
                kill(what, folder, whole, options.kills, seconds, rng)


def write_model_and_data(folder: Path, rng: random.Random) -> None:
    words = ["".join(rng.choices("abcdefghij", k=4)) for _ in range(60)]
    rows = [(" ".join(chosen), " ".join(sorted(chosen))) for chosen in (rng.choices(words, k=6) for _ in range(200))]
    (folder / "data").mkdir()
    for split, part in (("train", rows[:-20]), ("dev", rows[-20:])):
        lines = [json.dumps({"source": source, "target": target}) + "\n" for source, target in part]
        (folder / "data" / f"{split}.jsonl").write_text("".join(lines))
    tokenizer = train_tokenizer([text for row in rows for text in row], vocabulary_size=400)
    set_seed(0)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_heads": 4, "num_layers": 6, "vocab_size": len(tokenizer)}
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def run(what: str, folder: Path, output: Path, aim: str = "", moment: float = 0.0) -> int:
    """Its exit status: -9 if it was killed, so many seconds after it began, or after what it is aimed at appeared."""
    of_kit = ["--pairs", "16", "--watch-steps", "5", "--watch-inputs", "4", "--report-inputs", "4"]
    command = [sys.executable, "-m", "modtf.cli", "train", what, "--model", folder / "model", "--data", folder / "data",
               "--output", output, "--steps", STEPS, "--save-steps", 4, "--save-total-limit", 2, "--batch-size", 8,
               "--max-target-length", 32, "--logging-steps", 1, "--disable-tqdm", "true", "--report-to", "none",
               *(of_kit if what == "kit" else [])]  # fmt: skip
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
        before = set(output.glob("checkpoint-*"))
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err, env=environment)
        while process.poll() is None and aim != AIMS[0]:
            new = output.glob(".saving-*") if aim == AIMS[2] else set(output.glob("checkpoint-*")) - before
            if aim and any(new):
                break
            time.sleep(0.001)
        try:
            return process.wait(moment if aim else None)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def kill(what: str, folder: Path, whole: Path, kills: int, seconds: float, rng: random.Random) -> None:
    killed, ended, writing = 0, 0, 0
    while killed < kills or ended == 0:
        output = folder / f"{what}-{ended}"
        while True:
            aim = rng.choice(AIMS) if killed < kills else ""
            moment = rng.uniform(0, seconds if aim == AIMS[0] else WRITING)
            begins = int((last_checkpoint(output) or "-0").rpartition("-")[2])
            if (status := run(what, folder, output, aim, moment)) != -9:
                assert status == 0, (folder / "stderr").read_text()
                break
            killed += 1
            step = begins + (folder / "stdout").read_text().count("{'loss'")
            half = half_written(output)
            writing += bool(half)
            print(
                f"{what}, kill {killed}, {aim} + {moment:.3f} s: step {step}, {half or 'nothing half-written'}",
                flush=True,
            )
        check(what, output, whole)
        ended += 1
    print(
        f"{what}: {killed} kills, {writing} of them in the middle of a file or a folder; {ended} trainings ended, each with all files of the whole one"
    )


def fill_disks(what: str, folder: Path, whole: Path, disks: int) -> None:
    for number in range(disks):
        output = folder / f"{what}-disk-{number}"
        output.mkdir()
        megabytes = size(whole) * (number + 1) / disks
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes * 1e3:.0f}k", "tmpfs", output], check=True)
        try:
            if run(what, folder, output):
                print(f"{what} on {megabytes:.1f} MB: {(folder / 'stderr').read_text().splitlines()[-1]}", flush=True)
                assert not half_written(output), half_written(output)
            subprocess.run(["mount", "-o", "remount,size=1g", output], check=True)
            assert run(what, folder, output) == 0, (folder / "stderr").read_text()
            check(what, output, whole)
        finally:
            subprocess.run(["umount", output], check=True)


def half_written(output: Path) -> str:
    """What is incomplete in a training's folder, and the last file of it."""
    checkpoints = [path for path in output.glob("checkpoint-*") if not (path / "trainer_state.json").is_file()]
    found = [*checkpoints, *output.glob(".saving-*"), *output.glob(".*.part")]
    files = [file for path in found for file in (path, *path.rglob("*")) if file.is_file()]
    last = max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
    names = ", ".join(path.name for path in found)
    return f"{names} up to {last.name} ({last.stat().st_size:,} bytes)" if last else names


def check(what: str, output: Path, whole: Path) -> None:
    """Nothing is missing, nothing is left over, and what does not depend on time and place is the same."""
    names, expected = ({str(path.relative_to(root)) for path in root.rglob("*")} for root in (output, whole))
    assert names == expected, names ^ expected
    for name in names - {name for name in names if Path(name).name in DIFFERENT or (output / name).is_dir()}:
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    options, known = ((root / "options.yaml").read_text().replace(str(root), "") for root in (output, whole))
    assert options == known and json.loads((output / "training.json").read_text())["steps"] == STEPS
    modtf.load(output) if what == "kit" else AutoModelForSeq2SeqLM.from_pretrained(output)
    if what == "kit":
        steps = [json.loads(line)["step"] for line in (output / "quality.jsonl").read_text().splitlines()]
        assert steps == list(range(5, STEPS + 1, 5)), steps


def size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    main()
