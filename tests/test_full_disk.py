"""A training whose disk fills up: one sentence, nothing half-written, and the same weights when there is room again.

This file is also the program that trains: a limit on the size of files, which needs no rights, refuses what is larger,
as a full disk does (EFBIG in place of ENOSPC). It holds for a process, so the tests run another one, once.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import transformers.trainer
from conftest import SENTENCES, _make_model
from transformers import TrainerCallback

import modtf
from modtf import cli
from modtf.commands import training
from modtf.recipes.pocket import train_tokenizer

resource: Any = pytest.importorskip("resource", reason="this system does not limit the size of files")

FROM = "free some room and run the same command again: it goes on from the last complete checkpoint, OUTPUT/checkpoint-"
LATER = "run the same command again when there is room"


class Case(NamedTuple):
    what: str
    since: str  #: "start", the original's "texts", "checkpoint-N", or "end" of the steps
    room: int | str  #: bytes, or a file of the checkpoint: half as much again as it has
    words: tuple[str, ...]  #: in the sentence


CASES = {
    "options": Case("kit", "start", 99, ("OUTPUT/options.yaml could not be written: File too large", LATER)),
    "the original's texts": Case("kit", "texts", 99, ("OUTPUT/pairs.part could not be written: File too large", LATER)),
    "first checkpoint": Case("kit", "start", 4000, ("the checkpoint of step 1 could", "no checkpoint is complete yet")),
    "banks": Case("kit", "checkpoint-1", 64, ("the checkpoint of step 2 could", "os error 27", FROM + "1")),
    "optimizer": Case("kit", "checkpoint-1", "banks-*", ("the checkpoint of step 2", "MB are free there", FROM + "1")),
    "quality": Case("kit", "checkpoint-2", 64, ("what is noted while it trains could not be", FROM + "2")),
    "cost": Case("kit", "end", 64, ("training.json could not be written to OUTPUT (File too large; ", FROM + "3")),
    "kit": Case("kit", "end", 300, ("the kit could not be written to OUTPUT", FROM + "3")),
    "report": Case("kit", "end", 10**6, ("OUTPUT/report.html could not be written: File too large", LATER)),
    "model": Case("original", "checkpoint-1", 64, ("the checkpoint of step 2 could", FROM + "1")),
    "result": Case("original", "end", 300, ("the original could not be written to OUTPUT", FROM + "3")),
}


@pytest.fixture(scope="module")
def happened(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("disk")
    done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("case", CASES)
def test_a_disk_that_fills_up(case: str, happened: dict[str, Any]) -> None:
    found = happened[case]
    status, said = found["failed"]
    (sentence,) = [line for line in said.splitlines() if line.startswith("modtf: ")]
    assert status == 2 and "Traceback" not in said and all(words in sentence for words in CASES[case].words), said
    steps = {"start": [], "texts": [], "checkpoint-1": [1], "checkpoint-2": [1, 2], "end": [2, 3]}[CASES[case].since]
    assert found["checkpoints"] == [f"checkpoint-{step}" for step in steps] and not found["half-written"]
    assert found["again"] == 0 and found["began"] == max(steps, default=0)
    assert not found["differs"], "as if there had always been room"


# -- the program -------------------------------------------------------------------------------------------------------


class Fills(TrainerCallback):
    """Every training of this process has one."""

    case: Case
    began = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        type(self).began = state.global_step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.case.since == f"checkpoint-{state.global_step}":
            room, folder = self.case.room, Path(args.output_dir) / self.case.since
            set_room(room if isinstance(room, int) else next(folder.glob(room)).stat().st_size * 3 // 2)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.case.since == "end":
            assert isinstance(self.case.room, int)
            set_room(self.case.room)


def set_room(room: int = resource.RLIM_INFINITY) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def train(case: Case, folder: Path, output: Path) -> tuple[int, str]:
    """Exit status and stderr of a training."""
    Fills.case = case
    transformers.set_seed(1)  # as in a new process
    options = ["--model", folder / "model", "--data", folder / "data", "--output", output, "--steps", 3, "--save-steps", 1,
               "--save-total-limit", 2, "--batch-size", 4, "--report-to", "none", "--optim", "adamw_torch", "--no-bf16",
               "--learning-rate", 0.001, "--max-target-length", 16]  # fmt: skip
    if case.what == "kit":
        options += ["--pairs", 4, "--watch-inputs", 2, "--watch-steps", 3, "--report-inputs", int(case.room == 10**6)]
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()) as said,
        pytest.MonkeyPatch.context() as patched,
    ):
        if case.since == "start":
            assert isinstance(case.room, int)
            set_room(case.room)
        if case.since == "texts":
            write_texts = training._texts_of_the_original

            def write_with_little_room(*given: Any) -> Path:
                set_room(case.room)  # type: ignore[arg-type]
                return write_texts(*given)

            patched.setattr(training, "_texts_of_the_original", write_with_little_room)
        try:
            status = cli.main(["train", case.what, *map(str, options)])
        finally:
            set_room()
    return status, said.getvalue()


def contents(output: Path) -> dict[str, bytes]:
    """The files of a training; of those that say when and where it was, or in what order, the names alone."""
    named = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    for timed in ("report.html", "report.json"):
        named.pop(timed, None)
    others = {"training.json", "options.yaml", "training_args.bin", "trainer_state.json", "optimizer.pt"}
    return {name: b"" if path.name in others else path.read_bytes() for name, path in named.items()}


def half_written(output: Path) -> list[str]:
    """What is there in part: temporary files, and cut ones under their final names."""
    found = [path.name for path in output.rglob("*") if path.name.startswith(".") or path.suffix == ".part"]
    for path in [*output.rglob("*.json"), *output.glob("*.jsonl")]:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text)
    if (output / "modtf.json").exists():
        modtf.load(output)
    return found + [path.name for path in output.glob("model.safetensors")]


def main(folder: Path) -> dict[str, Any]:
    tokenizer = train_tokenizer(SENTENCES, vocabulary_size=300)
    for part in (_make_model("t5", 4, 4, vocabulary=len(tokenizer)), tokenizer):
        part.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    rows = "".join(json.dumps({"source": text[:20], "target": text}) + "\n" for text in SENTENCES * 4)
    for split in ("train", "dev"):
        (folder / "data" / f"{split}.jsonl").write_text(rows)
    transformers.trainer.DEFAULT_CALLBACKS.append(Fills)
    whole: dict[Any, dict[str, bytes]] = {}
    found = {}
    for number, (name, case) in enumerate(CASES.items()):
        roomy, output = case._replace(since=""), folder / f"run-{number}"
        if case.what not in whole:
            assert train(roomy, folder, folder / f"whole-{number}")[0] == 0
            whole[case.what] = contents(folder / f"whole-{number}")
        status, said = train(case, folder, output)
        row = {"failed": (status, said.replace(str(output), "OUTPUT")), "half-written": half_written(output)}
        row["checkpoints"] = sorted(path.name for path in output.glob("checkpoint-*"))
        row["again"] = train(roomy, folder, output)[0]
        row["began"], before, after = Fills.began, whole[case.what], contents(output)
        row["differs"] = [n for n in {*after, *before} if after.get(n) != before.get(n)]
        found[name] = row
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
