"""Whether a training works, before it is done: the quality of three sizes now and then, and a word when it goes wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from transformers import TrainerCallback

from modtf.evaluation import measure_quality
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.saving import write_whole
from modtf.tasks import Example, task_named

#: The file in the output folder that keeps what was measured, one line each time.
FILE = "quality.jsonl"
#: A loss that has not fallen by this share in a fifth of the steps does not fall.
_FALLS, _AFTER = 0.02, 0.2
#: Steps whose mean loss tells more of the training than of the sizes that were drawn.
_STEPS_OF_A_MEAN = 50
#: Below this share of the full model's score, half-way through the training, a size writes nothing of use.
_OF_USE = 0.1


def read_quality(path: Path) -> list[dict[str, Any]]:
    """The complete lines of the file."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):  # the last one may be cut off
            rows.append(json.loads(line))
    return rows


class Watch(TrainerCallback):
    """Measures the original, the size half-way and the smallest on ``examples`` every ``every`` steps.

    A resumed training continues the file; nothing of the training itself changes. ``say`` takes each line.
    """

    def __init__(
        self, modular: ModularModel, examples: Sequence[Example], every: int, say: Callable[[str], Any] = print
    ) -> None:
        self.modular, self.examples, self.every, self.say = modular, examples, every, say
        self.metric = task_named(modular.task).metrics[0]
        self._of_original: float | None = None
        self._has_spoken = False
        self._was_half_way = False

    def sizes(self, args: Any) -> list[Assembly]:
        """The original, and one or two others: a student's own size, or the kit's half-way and smallest one."""
        mapping = self.modular.mapping
        if args.assembly is not None:
            return [mapping.original, Assembly.parse(args.assembly)]
        half = self.modular.choose(math.sqrt(mapping.maximum_ratio))
        return list(dict.fromkeys([mapping.original, half, mapping.coarsest]))

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what was measured up to the checkpoint from which the training goes on."""
        path = Path(args.output_dir) / FILE
        if state.is_world_process_zero and path.is_file():
            kept = [row for row in read_quality(path) if row["step"] <= state.global_step]
            write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        ends = state.global_step == state.max_steps
        if self.examples and state.is_world_process_zero and (ends or state.global_step % self.every == 0):
            self._measure(args, state)

    def _measure(self, args: Any, state: Any) -> None:
        scores: dict[str, float] = {}
        original, *others = self.sizes(args)
        with torch.random.fork_rng():
            if self._of_original is None:
                self._of_original = measure_quality(self.modular, original, self.examples)[self.metric.key]
            for assembly in others:
                scores[assembly.shape] = measure_quality(self.modular, assembly, self.examples)[self.metric.key]
        full, step = self._of_original, state.global_step
        row = {"step": step, "metric": self.metric.key, "full": full, **scores}
        path = Path(args.output_dir) / FILE
        before = path.read_text(encoding="utf-8") if path.is_file() else ""
        write_whole(path, before + json.dumps(row) + "\n")
        words = ", ".join(f"{shape} {score:.1f}" for shape, score in scores.items())
        self.say(f"step {step:,}: {self.metric.name} {words} (full model {full:.1f}; {len(self.examples)} inputs)")
        smallest = min(scores.values())
        half_way = 0.5 <= step / state.max_steps < 1 and not self._was_half_way
        self._was_half_way |= half_way
        if half_way and not self.metric.errors and smallest < _OF_USE * full:
            self.say(
                f"step {step:,}: the smallest size writes little of use yet. It learns last, with the falling learning rate; if it "
                "stays so, give more steps, or leave out the coarsest granularity"
            )

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Say where the loss does not fall once the schedule stays as it is."""
        if "loss" not in (logs or {}) or self._has_spoken or not state.is_world_process_zero:
            return
        # Before, coarser modules come in and more layers are replaced, so that the loss may rise however well they learn.
        settled = 0.0 if args.assembly is not None else max(args.full_at, args.coarse_at)
        losses = [
            float(entry["loss"])
            for entry in state.log_history
            if "loss" in entry and entry["step"] > settled * state.max_steps
        ]
        few, step = max(1, len(losses) // 4), state.global_step
        enough = len(losses) > few and few * args.logging_steps >= _STEPS_OF_A_MEAN
        if not enough or step < (settled + _AFTER) * state.max_steps:
            return
        self._has_spoken = True  # once is enough: later the learning rate is small, and so is the fall
        first, last = mean(losses[:few]), mean(losses[-few:])
        if last > (1 - _FALLS) * first:
            self.say(
                f"step {step:,}: the loss does not fall ({first:.3g} at step {round(settled * state.max_steps):,}, {last:.3g} now). Is "
                "--learning-rate too low or too high? Try a few hundred steps with a third and with three times as much"
            )
