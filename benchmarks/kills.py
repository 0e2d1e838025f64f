"""Whether a training that is killed at any moment ends with the weights of one that ran whole, bit for bit.

    python benchmarks/kills.py [--kills 20] [--seed 0]   # of `modtf train kit`, and as many of `modtf train original`
    python benchmarks/kills.py --disks 1 5 10 15 20      # instead, disks of so many MB that fill up (root, Linux)

A small T5 with random weights learns invented texts. Each kill is a SIGKILL at a random moment of the training, in a
checkpoint that is being written, or in the result; then the same command goes on. Where it ends, every file is compared.
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

os.environ["PYTHONUNBUFFERED"] = "1"  # each step is printed at once
STEPS = 40
#: What a kill waits for, and how long it takes to be written here: the kill comes within as many seconds.
AIMS = {"at random": ("", 0.0), "checkpoint": ("checkpoint-*", 0.1), "result": (".saving-*", 0.1)}
#: Files that say when and where a training ran, or in which order; all others must be those of the one that ran whole.
DIFFERENT = {"training.json", "report.html", "options.yaml", "trainer_state.json", "training_args.bin", "optimizer.pt"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each of the two commands (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disks", type=float, nargs="+", metavar="MB")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        write_model_and_data(folder := Path(name), rng)
        for what in ("kit", "original"):
            whole, began = folder / f"{what}-whole", time.monotonic()
            ends(what, folder, whole, whole)
            for size in options.disks or ():
                fill(what, folder, whole, size)
            if not options.disks:
                kill(what, folder, whole, options.kills, rng, seconds=time.monotonic() - began)


def write_model_and_data(folder: Path, rng: random.Random) -> None:
    words = ["".join(rng.choices("abcdefghij", k=4)) for _ in range(60)]
    rows = [(" ".join(chosen), " ".join(sorted(chosen))) for chosen in (rng.choices(words, k=6) for _ in range(200))]
    (folder / "data").mkdir()
    for split, part in (("train", rows[:-20]), ("dev", rows[-20:])):
        lines = (json.dumps({"source": source, "target": target}) for source, target in part)
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines))
    tokenizer = train_tokenizer([text for row in rows for text in row], vocabulary_size=400)
    tokenizer.save_pretrained(folder / "model")
    set_seed(0)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 256, "num_heads": 4, "num_layers": 6, "vocab_size": len(tokenizer)}
    T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0)).save_pretrained(folder / "model")


def run(what: str, folder: Path, output: Path, aim: str = "", moment: float = 0.0) -> int:
    """The exit status; -9 where it was killed, ``moment`` seconds after its beginning or that of what is aimed at."""
    command = [sys.executable, "-m", "modtf.cli", "train", what, "--model", folder / "model", "--data", folder / "data",
               "--output", output, "--steps", STEPS, "--save-steps", 4, "--save-total-limit", 2, "--batch-size", 8,
               "--max-target-length", 32, "--logging-steps", 1, "--disable-tqdm", "true", "--report-to", "none"]  # fmt: skip
    if what == "kit":
        command += ["--pairs", 16, "--watch-steps", 5, "--watch-inputs", 4, "--report-inputs", 4]
    awaited = AIMS[aim][0] if aim else ""
    before = set(output.glob(awaited or "-"))
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        process = subprocess.Popen([str(part) for part in command], stdout=out, stderr=err)
        while awaited and process.poll() is None and not set(output.glob(awaited)) - before:
            time.sleep(0.001)
        try:
            return process.wait(moment if aim else None)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def kill(what: str, folder: Path, whole: Path, kills: int, rng: random.Random, seconds: float) -> None:
    killed, trainings, in_the_middle = 0, 0, 0
    while killed < kills:
        output, trainings = folder / f"{what}-{trainings}", trainings + 1
        while killed < kills:
            aim = rng.choice(list(AIMS))
            moment, begins = rng.uniform(0, AIMS[aim][1] or seconds), last_checkpoint(output)
            if (status := run(what, folder, output, aim, moment)) != -9:
                assert status == 0, (folder / "stderr").read_text()
                break
            killed += 1
            step = int((begins or "-0").rpartition("-")[2]) + (folder / "stdout").read_text().count("{'loss'")
            in_the_middle += bool(half := half_written(output))
            print(f"{what}, kill {killed}: {aim} + {moment:.3f} s, step {step}, {half or '-'}", flush=True)
        ends(what, folder, output, whole)
    print(
        f"{what}: {killed} kills, {in_the_middle} in the middle of a file; {trainings} trainings end as the whole one"
    )


def fill(what: str, folder: Path, whole: Path, size: float) -> None:
    output = folder / f"{what}-{size}"
    output.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size * 1e3:.0f}k", "tmpfs", output], check=True)
    try:
        status = run(what, folder, output)
        said = (folder / "stderr").read_text().splitlines()[-1] if status else "it fits"
        print(f"{what}, disk of {size} MB: {said.replace(str(output), 'OUTPUT')}", flush=True)
        assert said.startswith(("it fits", "modtf: ")) and not half_written(output), half_written(output)
        subprocess.run(["mount", "-o", "remount,size=1g", output], check=True)
        ends(what, folder, output, whole)
    finally:
        subprocess.run(["umount", output], check=True)


def half_written(output: Path) -> str:
    """What is incomplete in the folder of a training, and the last file of it."""
    found = [path for path in output.glob("checkpoint-*") if not (path / "trainer_state.json").is_file()]
    found += [*output.glob(".saving-*"), *output.glob("*.part")]
    files = sorted((path.stat().st_mtime_ns, path) for top in found for path in (top, *top.rglob("*")))
    last = f", at last {files[-1][1].name} ({files[-1][1].stat().st_size:,} bytes)" if files else ""
    return ", ".join(path.name for path in found) + last


def ends(what: str, folder: Path, output: Path, whole: Path) -> None:
    """The training goes on to its end: nothing is missing, nothing left over, and all but times is the same."""
    assert run(what, folder, output) == 0, (folder / "stderr").read_text()
    names, expected = ({str(path.relative_to(root)) for path in root.rglob("*")} for root in (output, whole))
    assert names == expected, names ^ expected
    for name in names:
        if Path(name).name not in DIFFERENT and (output / name).is_file():
            assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    options, known = ((root / "options.yaml").read_text().replace(str(root), "") for root in (output, whole))
    assert options == known and json.loads((output / "training.json").read_text())["steps"] == STEPS
    (modtf.load if what == "kit" else AutoModelForSeq2SeqLM.from_pretrained)(output)
    for file in output.glob("quality.jsonl"):
        steps = [json.loads(line)["step"] for line in file.read_text().splitlines()]
        assert steps == list(range(5, STEPS + 1, 5)), steps


if __name__ == "__main__":
    main()
