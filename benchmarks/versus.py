"""One kit against what people would use instead: trainings from one original, on the same data, at equal cost.

    python benchmarks/versus.py translator --data <folder> --pairs <pairs.jsonl of the kit's training>
    python benchmarks/versus.py translator --data <folder> --pairs <...> --ablation  # what its parts are worth
    python benchmarks/versus.py translator --data <folder> --pairs <...> --report

All methods have the kit's optimizer, no dropout, float32 (on GPUs TF32). Kits and most students train modules alone:
embeddings, head and original layers stay fixed, as a kit needs them. A student can also train all its weights ("all
weights"), as LayerDrop does. Cost is counted in floating-point operations of forward and backward passes, the teacher's
included, but not the optimizer's, nor the texts that the teacher wrote beforehand for the kit and for all KD. Its unit is
about a step of the kit (UNITS).

Each method has a budget twice: *equal total*, the students of all sizes share the budget of one kit; and *equal each*,
every student has it for itself. The costliest students are fewer (LARGEST_EACH, FEWER). Methods that train once for all
sizes have it once.

All methods tune: each has the learning rates of the kit's recipe times a factor, for each size the best one on dev (3x
has that of 2x); kits and LayerDrop have the one with the best mean over sizes. At the smallest budget factors 1 and 2 are
tried first, then half and twice the best one, until both are worse. Long trainings like lower ones: a larger budget
tries the best one of the next smaller budget, then half of it, until that is worse.

Each training has a folder in build/versus/<model>/; run again, the script resumes and leaves out what is done. Several
may work side by side (--workers); on a GPU, 14 of them do 2.7 times as much under CUDA MPS. --report writes
data/<model>/versus.json from what is done, and all texts into benchmarks/versus-<model>.jsonl.xz: what stands there is
done, on any machine.
"""

from __future__ import annotations

import argparse
import copy
import fcntl
import hashlib
import itertools
import json
import lzma
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from bootstrap import DRAWS, differences, drawn_scores
from pages import grid, insert
from safetensors.torch import load_model, save_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import modtf
from modtf.architectures import architecture_of, set_attention, stacks_of
from modtf.bundled import BUNDLED_MODELS
from modtf.cli import data_folder
from modtf.errors import ModtfError
from modtf.evaluation import size_of, write_texts
from modtf.mapping import Assembly, LayerPath, Mapping, start_indices
from modtf.modular import ModularModel
from modtf.recipes import recipe_for
from modtf.saving import fingerprint_of
from modtf.strategies import choose
from modtf.tasks import Example, task_named
from modtf.tasks.batches import TaskBatches
from modtf.tasks.examples import read_pairs, spread
from modtf.tasks.task import Metric
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once
from modtf.training.machine import use_cpu_well
from modtf.training.runs import set_dropout, train_kit, train_original, with_texts_of_the_original

ROOT = Path(__file__).parents[1]
#: Operations that a cost of 1 pays for: about a step of the kit.
UNITS = {"translator": 307e9, "pocket": 134e9}
#: Budgets. Four sizes, and a factor of 4: what is equal each at one budget is equal total at the next.
BUDGETS = (100, 400, 1600)
#: Factors of the recipe's learning rates: the two that are tried first, and the limits.
FIRST_RATES, RATE_LIMITS = (1.0, 2.0), (0.25, 16.0)
#: The size whose learning rate another one has.
RATE_OF = {"3x": "2x"}
#: The methods whose students also have the largest budget each. For all of them it would cost more than all the rest.
LARGEST_EACH = ("KD",)
#: The sizes of the costliest students: those with the largest budget each, and from the middle budget on those that
#: learn from people's texts alone or train all weights.
FEWER = ("2x", "6x", "fast")
#: Steps whose operations are counted, spread over a training; their texts; and the examples that these are taken from.
COUNTED, COUNTED_TEXTS, COUNTED_EXAMPLES = 100, (4, 16), 20_000
#: Steps whose assemblies the fingerprint of a training holds.
DRAWN = 200
DEV_INPUTS = 600
#: Sources in a batch as texts are written.
WRITTEN_TOGETHER = 256

LABELS = {"labels_weight": 1.0, "logits_weight": 0.0, "hidden_weight": 0.0}


@dataclass(frozen=True)
class Method:
    """How the layers of an assembly learn."""

    #: on what: people's texts, the original's, or both
    texts: str = "both"
    #: one training for all sizes
    for_all: bool = False
    #: what modules begin as: the first, the last or the mean layer of their group; or alternating layers, as DistilBART
    start: str = "first"
    #: whether embeddings, head and original layers train, too
    all_weights: bool = False
    #: probability that a layer is skipped; above 0 the method is LayerDrop
    drop: float = 0
    #: what differs from the defaults of ModularTrainingArguments
    options: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "kit": Method(for_all=True, options={"assemblies_per_step": 4}),
    "KD": Method(),
    "KD, all weights": Method(all_weights=True),
    "sequence-level KD": Method("original", options=LABELS),
    "SFT": Method("people", options=LABELS),
    "SFT, alternating layers": Method("people", start="alternating", options=LABELS),
    "SFT, all weights": Method("people", all_weights=True, options=LABELS),
    "Theseus": Method("people", options=LABELS | {"mixtures": 1.0, "whole": 0.0, "coarse_at": 0.0}),
    "LayerDrop": Method("people", for_all=True, drop=0.5),
    "LayerDrop, 0.8": Method("people", for_all=True, drop=0.8),
    "untrained": Method(for_all=True),
}


def kit_with(texts: str = "both", start: str = "first", **options: float) -> Method:
    """A kit that learns otherwise."""
    return Method(texts, for_all=True, start=start, options=METHODS["kit"].options | options)


LOSSES = ("labels", "logits", "hidden", "attention")


def one(loss: str) -> dict[str, float]:
    """Weights with this loss alone."""
    return {f"{name}_weight": float(name == loss) for name in LOSSES}


#: Logits have weight 1 already.
EVERY = {"labels_weight": 1.0, "hidden_weight": 0.2, "attention_weight": 0.2}
#: What each part of the kit's training is worth: kits at one budget.
ABLATIONS = {
    "people's texts alone": kit_with("people", **LABELS),
    "the original's texts alone": kit_with("original", **LABELS),
    "logits alone": kit_with(**one("logits")),
    "hidden states alone": kit_with(**one("hidden")),
    "attention maps alone": kit_with(**one("attention")),
    "every signal": kit_with(**EVERY),
    "every signal but people's texts": kit_with("original", **EVERY),
    "every signal but the original's texts": kit_with("people", **EVERY),
    "every signal but labels": kit_with(**EVERY | {"labels_weight": 0.0}),
    "every signal but logits": kit_with(**EVERY | {"logits_weight": 0.0}),
    "every signal but hidden states": kit_with(**EVERY | {"hidden_weight": 0.0}),
    "every signal but attention maps": kit_with(**EVERY | {"attention_weight": 0.0}),
    "no whole-grain paths": kit_with(whole=0.0),
    "no mixtures": kit_with(mixtures=0.0),
    "no strategies' paths": kit_with(whole=0.9),
    "begun as the last layer": kit_with(start="last"),
    "begun as the mean layer": kit_with(start="mean"),
}
EVERYTHING = METHODS | ABLATIONS


@dataclass(frozen=True)
class Run:
    """One training: of a method, for a size (all of them if it is empty), at a cost in UNITS."""

    method: str
    size: str
    cost: float
    seed: int
    rate: float = 1

    @property
    def name(self) -> str:
        """Of its folder."""
        method = self.method.replace(",", "").replace("'", "").replace(" ", "-")
        rate = f"-rate-{self.rate:g}" if self.rate != 1 else ""
        return f"{method}-{self.size or 'all'}-{self.cost:g}-{self.seed}{rate}"

    @classmethod
    def of(cls, result: dict[str, Any]) -> Run:
        return cls(*(result[name] for name in ("method", "size", "cost", "seed", "rate")))


class AllWeights(modtf.ModularTrainer):
    """Trains all weights of one assembly; a copy of the original teaches."""

    def __init__(self, model: ModularModel, args: modtf.ModularTrainingArguments, **given: Any) -> None:
        self._teacher = copy.deepcopy(model).requires_grad_(False)
        super().__init__(model, args, **given)
        self._teacher.to(args.device)

    @property
    def teacher(self) -> ModularModel:
        return self._teacher

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir or "")
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.modular, str(folder / "all.safetensors"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        load_model(self.modular, Path(resume_from_checkpoint) / "all.safetensors")


def sizes_of(mapping: Mapping) -> dict[str, Assembly]:
    """Size first at 2x, 3x and 6x, and a full encoder with the smallest decoder."""
    sizes = {f"{ratio}x": choose(mapping, ratio, "size_first") for ratio in (2, 3, 6)}
    return sizes | {"fast": Assembly(mapping.encoder.original, mapping.coarsest.decoder)}


def plan(sizes: dict[str, Assembly], budgets: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """All trainings, at learning rates that are to be found; each method's cheapest ones have all seeds."""
    runs = []
    middle, largest = middle_of(budgets), max(budgets)
    for name, method in METHODS.items():
        if name == "untrained":
            continue
        costs = set(budgets) if method.for_all else {*budgets, *(budget / len(sizes) for budget in budgets)}
        for cost, size in itertools.product(costs, [""] if method.for_all else sizes):
            costly = cost == largest or (cost >= middle and (method.texts == "people" or method.all_weights))
            if size and (
                (costly and size not in FEWER)
                or (cost == largest and name not in LARGEST_EACH)
                or (method.start == "alternating" and not differs(sizes[size]))
            ):
                continue
            runs += [Run(name, size, cost, seed) for seed in (seeds if cost == min(costs) else seeds[:1])]
    return runs


def middle_of(budgets: Sequence[float]) -> float:
    return sorted(budgets)[len(budgets) // 2]


def ablation(budgets: Sequence[float]) -> list[Run]:
    """Kits that learn otherwise, at the middle budget."""
    return [Run(name, "", middle_of(budgets), 0) for name in ABLATIONS]


def rates_to_try(tried: dict[float, float], smaller: float | None = None) -> list[float]:
    """Where rates that were ``tried`` have these scores: the first ones, then those beside the best; in the end none.

    ``smaller`` is the best rate of the next smaller budget, if there is one: then only it and lower ones are tried.
    """
    first = FIRST_RATES if smaller is None else (smaller, smaller / 2)
    wanted = list(first)
    if all(rate in tried or not _possible(rate) for rate in first):
        best = best_of(tried)
        wanted = [best / 2] if smaller else [best / 2, best * 2]
    return [rate for rate in wanted if rate not in tried and _possible(rate)]


def _possible(rate: float) -> bool:
    return RATE_LIMITS[0] <= rate <= RATE_LIMITS[1]


def best_of(tried: dict[float, float]) -> float:
    return max(tried, key=lambda rate: tried[rate])


# -- training ----------------------------------------------------------------------------------------------------------


Results = dict[Run, dict[str, Any]]


class Comparison:
    """What all trainings have in common."""

    def __init__(self, model: str, data: str | None, pairs: Path | None, budgets: Sequence[float] = BUDGETS) -> None:
        self.model, self.budgets = model, sorted(budgets)
        self.folder = ROOT / "build" / "versus" / model
        kit = modtf.load(model)
        self.mapping, self.tokenizer, self.task = kit.mapping, kit.tokenizer, task_named(kit.task)
        self.sizes = sizes_of(self.mapping)
        self.recipe = recipe_for(self.task)
        folder = data or data_folder(self.task)
        self.people = self.task.read_data(folder, self.task.train_split)
        self.written = read_pairs(pairs) if pairs else list(self.task.bundled_examples("pairs"))
        self.dev = spread(self.task.read_data(folder, "dev"), DEV_INPUTS)
        self.test = self.task.read_data(folder, self.task.test_split)
        self.original_fingerprint = fingerprint_of(kit.original_weights(), torch.float16)
        self._scores: dict[Run, dict[str, float]] = {}
        # Not the texts: another machine rounds otherwise, and so writes a few others.
        self.pairs_fingerprint = hashlib.sha256(json.dumps([pair.source for pair in self.written]).encode()).hexdigest()

    def tokenize(self) -> None:
        """Tokenize all texts, so that no training has to."""
        TaskBatches(self.task, self.examples("both"), self.tokenizer, 1).lengths  # noqa: B018

    def original(self) -> transformers.PreTrainedModel:
        original = modtf.load(self.model).assemble()
        set_attention(original, "eager")
        set_dropout(original, 0.0)
        return original

    def modular(self, run: Run) -> ModularModel:
        """The untrained modules of a run: of all granularities for a kit, of those of its size for a student."""
        original = self.original()
        paths = (self.mapping.encoder.granularities, self.mapping.decoder.granularities)
        if run.size:
            paths = tuple(tuple(sorted(set(path) - {1})) for path in self.sizes[run.size].paths)
        modular = modtf.modularize(
            original, paths[0], decoder_granularities=paths[1], tokenizer=self.tokenizer, task=self.task.name
        )
        if EVERYTHING[run.method].start == "alternating":
            take_alternating_layers(modular, self.sizes[run.size])
        elif EVERYTHING[run.method].start != "first":
            begin_with(modular, EVERYTHING[run.method].start)
        if EVERYTHING[run.method].all_weights:
            modular.model.requires_grad_(True)
        return modular

    def fingerprint(self, run: Run) -> str:
        """Of what a training depends on, apart from the code of its steps."""
        given = asdict(EVERYTHING[run.method])
        method = {name: value for name, value in given.items() if value != getattr(Method(), name)}
        about = [self.original_fingerprint, self.pairs_fingerprint, method, repr(self.recipe.kit)]
        about.append(UNITS.get(self.model))
        args = self.arguments(replace(run, rate=1), DRAWN, Path("any"))
        if isinstance(args, modtf.ModularTrainingArguments):
            schedule = args.schedule(self.mapping, DRAWN)
            about += [getattr(args, name) for name in ("temperature", *(f"{loss}_weight" for loss in LOSSES))]
            about += [str(schedule.draw_several(step, args.assemblies_per_step)) for step in range(DRAWN)]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def claim(self, run: Run, folder: Path) -> None:
        """Mark the folder of a training as this run's; raises :class:`ModtfError` if one of other settings began there."""
        folder.mkdir(parents=True, exist_ok=True)
        mark, of = folder / "of.txt", self.fingerprint(run)
        if not mark.exists() and not any(folder.iterdir()):
            mark.write_text(of)
        if not mark.exists() or mark.read_text() != of:
            raise ModtfError(f"a training of other settings began in {folder}; remove that folder")

    def check(self, done: Results) -> None:
        """Refuse results that say nothing about the bundled original, these texts and these methods."""
        for run, result in done.items():
            if run.method not in EVERYTHING or result["of"] != self.fingerprint(run):
                raise ModtfError(
                    f"{run.name} is of another original, other texts or other settings; remove its folder in "
                    f"{self.folder}, and benchmarks/versus-{self.model}.jsonl.xz if it is there"
                )

    @cache  # noqa: B019  (there is one comparison)
    def examples(self, texts: str) -> Sequence[Example]:
        if texts == "both":
            return with_texts_of_the_original(self.people, self.written)
        return self.people if texts == "people" else self.written

    def arguments(self, run: Run, steps: int, folder: Path) -> Any:
        given = {
            "output_dir": str(folder), "max_steps": steps, "learning_rate": self.recipe.kit.learning_rate * run.rate,
            "warmup_steps": min(100, steps // 10), "lr_scheduler_type": "linear", "seed": run.seed, "report_to": "none",
            "save_steps": max(200, steps // 10), "save_total_limit": 1, "logging_steps": 50, "disable_tqdm": True,
            "use_cpu": not torch.cuda.is_available(), "tf32": torch.cuda.is_available() or None,
            "dataloader_pin_memory": False, **WHOLE_BATCHES,
        }  # fmt: skip
        if EVERYTHING[run.method].drop:
            return transformers.Seq2SeqTrainingArguments(**given)
        options = dict(EVERYTHING[run.method].options)
        if run.size and run.method != "Theseus":
            options["assembly"] = str(self.sizes[run.size])
        return modtf.ModularTrainingArguments(**given, **options)

    def operations(self, run: Run, batch_size: int) -> float:
        """Floating-point operations of a step, without the optimizer's: the mean over the batches of many examples.

        A step needs so many for each of its :func:`places`. How many, small batches tell, which take little time. The
        mean needs all batches, since each holds texts of one length.
        """
        examples = spread(self.examples(EVERYTHING[run.method].texts), COUNTED_EXAMPLES)
        small = [TaskBatches(self.task, examples, self.tokenizer, COUNTED, texts) for texts in COUNTED_TEXTS]
        batches = [small[step % len(small)][step] for step in range(COUNTED)]
        args = self.arguments(replace(run, seed=0), COUNTED, self.folder / "counted")
        method = EVERYTHING[run.method]
        model: Any = (
            drop_layers(self.original().requires_grad_(True), method.drop) if method.drop else self.modular(run)
        )
        encode_sources_once(model if method.drop else model.model)
        trainer: Any = (transformers.Seq2SeqTrainer if method.drop else trainer_of(method))(model, args)
        trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
        torch.manual_seed(0)  # the layers that LayerDrop skips; a resumed training must count the same
        counted = []
        for step in range(COUNTED):
            trainer.state.global_step = step
            with FlopCounterMode(display=False) as counter:
                trainer.training_step(model, batches[step])
            counted.append(counter.get_total_flops())
        of_a_place, *_ = np.linalg.lstsq(places(batches), np.array(counted, float))
        texts = sum(len(example.references) for example in examples)
        steps = math.ceil(texts / batch_size)
        large = TaskBatches(self.task, examples, self.tokenizer, steps, batch_size)
        return float((places([large[step] for step in range(steps)]) @ of_a_place).mean())

    def steps(self, run: Run, batch_size: int) -> int:
        """As many as the run's cost pays for."""
        if self.model not in UNITS:
            raise ModtfError(
                f"what a cost of 1 pays for is not known for {self.model}; put about a step of its kit into UNITS"
            )
        path = self.folder / "operations" / f"{replace(run, cost=0, seed=0, rate=1).name}.json"
        of = self.fingerprint(replace(run, seed=0))
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("of") != of:
            known = {"of": of, "operations": self.operations(run, batch_size)}  # takes half a minute and more
            write_whole(path, json.dumps(known))
        return max(1, round(run.cost * UNITS[self.model] / known["operations"]))

    def train(self, run: Run, folder: Path) -> dict[str, Any]:
        """Train it, or go on with it, and write its texts for dev and test."""
        if run.method == "untrained":
            return self.result(run, self.modular(run), 0, 0.0)
        settings, examples = self.recipe.kit, self.examples(EVERYTHING[run.method].texts)
        transformers.set_seed(run.seed)
        steps = self.steps(run, settings.batch_size)
        args, adamw = self.arguments(run, steps, folder), settings.adamw_learning_rate * run.rate
        method = EVERYTHING[run.method]
        if method.drop:
            model = drop_layers(self.original().requires_grad_(True), method.drop)
            train_original(model, self.tokenizer, self.task, examples, args, settings.batch_size, adamw)
            kept = self.original()
            kept.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
            modular = modtf.modularize(
                kept, self.mapping.encoder.granularities, decoder_granularities=self.mapping.decoder.granularities,
                tokenizer=self.tokenizer, task=self.task.name,
            )  # fmt: skip
        else:
            modular = self.modular(run)
            train_kit(modular, self.task, examples, args, settings.batch_size, adamw, trainer_of(method))
        # Its seconds are those of all parts, if the training was resumed.
        record = json.loads((folder / "training.json").read_text())
        return self.result(run, modular.to(args.device), steps, record["seconds"], record["device"])

    def result(self, run: Run, modular: ModularModel, steps: int, seconds: float, device: str = "") -> dict[str, Any]:
        """What is written down: of the untrained modules also the original's texts, as the size 1x.

        LayerDrop changes the original: its 1x is another model.
        """
        modular.eval()
        sizes = {run.size: self.sizes[run.size]} if run.size else self.sizes
        if run.method == "untrained" or EVERYTHING[run.method].drop:
            sizes = {"1x": self.mapping.original} | sizes
        texts = {
            size: {
                split: write_texts(modular, assembly, [example.source for example in of_split], WRITTEN_TOGETHER)
                for split, of_split in (("dev", self.dev), ("test", self.test))
            }
            for size, assembly in sizes.items()
        }
        cost = {"steps": steps, "seconds": seconds, "device": device}
        return {**asdict(run), **cost, "of": self.fingerprint(run), "texts": texts}

    def megabytes(self) -> dict[str, float]:
        """Of the weights, stored in half precision.

        They are of the original, which is all that LayerDrop needs; of one kit; of a student of each size; and of those
        students, where they train modules alone and share the original's weights, as a kit does.
        """
        kit = modtf.load(self.model)
        assemblies = self.sizes.values()
        students = sum(size_of(kit.assemble(assembly=assembly)).parameters for assembly in assemblies)
        banks = {id(p) for stack in kit.stacks for p in stack.parameters()}
        shared = {id(p): p.numel() for p in kit.parameters() if id(p) not in banks}
        own = 0
        for assembly in assemblies:
            for stack, path in zip(kit.stacks, assembly.paths, strict=True):
                for g, layer in zip(path, stack.layers(path), strict=True):
                    of_layer = {id(p): p.numel() for p in layer.parameters()}
                    shared |= of_layer if g == 1 else {}
                    own += 0 if g == 1 else sum(of_layer.values())
        parameters = {
            "original": sum(weight.numel() for weight in kit.assemble(assembly=self.mapping.original).parameters()),
            "kit": sum(weight.numel() for weight in kit.parameters()),
            "students": students,
            "students_sharing": sum(shared.values()) + own,
        }
        return {name: round(2 * count / 1e6, 1) for name, count in parameters.items()}

    def on_dev(self, result: dict[str, Any]) -> dict[str, float]:
        """Scores on dev, the mean over the compressed sizes of the training."""
        scores = [self.task.score(self.dev, texts["dev"]) for size, texts in result["texts"].items() if size != "1x"]
        return {name: round(float(np.mean([of_size[name] for of_size in scores])), 2) for name in scores[0]}

    # -- learning rates ------------------------------------------------------------------------------------------------

    def trial(self, run: Run, rate: float) -> Run:
        """The training that says what a learning rate is worth for this one."""
        method = "kit" if run.method in ABLATIONS else run.method
        cost = max((budget for budget in self.budgets if budget <= run.cost), default=self.budgets[0])
        return Run(method, RATE_OF.get(run.size, run.size), cost, 0, rate)

    def tried(self, run: Run, done: Results) -> dict[float, float]:
        """By rate, the score that decides: BLEU, or slot errors (negative: fewer are better) where the task has slots."""
        scores = {}
        for other in done:
            if other == self.trial(run, other.rate):
                if other not in self._scores:
                    self._scores[other] = self.on_dev(done[other])
                of_rate = self._scores[other]
                scores[other.rate] = -of_rate["ser"] if "ser" in of_rate else of_rate["bleu"]
        return scores

    def trials(self, run: Run, done: Results) -> list[Run]:
        """What is still to be trained, as far as it is known now, to find the best learning rate of a run."""
        number, smaller = self.budgets.index(self.trial(run, 1).cost), None
        if number:
            below = replace(run, cost=self.budgets[number - 1])
            if trials := self.trials(below, done):
                return trials
            smaller = best_of(self.tried(below, done))
        return [self.trial(run, rate) for rate in rates_to_try(self.tried(run, done), smaller)]

    def with_rate(self, run: Run, done: Results) -> Run | None:
        """The run at its best learning rate; None until that is known."""
        return None if self.trials(run, done) else replace(run, rate=best_of(self.tried(run, done)))

    def open(self, planned: Sequence[Run], done: Results) -> list[Run]:
        """What is to be trained now, the costliest first, since others may work beside this script."""
        trials = {trial for run in planned for trial in self.trials(run, done)}
        ready = {self.with_rate(run, done) for run in planned}
        order = list(EVERYTHING)
        wanted = {Run("untrained", "", 0, 0), *trials, *(run for run in ready if run)} - done.keys()
        return sorted(
            wanted,
            key=lambda run: (
                -run.cost,
                not EVERYTHING[run.method].for_all,
                order.index(run.method),
                run.seed,
                run.name,
            ),
        )


def trainer_of(method: Method) -> type[modtf.ModularTrainer]:
    return AllWeights if method.all_weights else modtf.ModularTrainer


def places(batches: Sequence[dict[str, torch.Tensor]]) -> np.ndarray:
    """Of each batch, the places in its sources, in its texts, and in the sources that its texts attend to: (batches, 3).

    Padding is included. Each source is encoded once, however many texts it has; cross-attention is computed for each text.
    """
    shapes = [(*batch["input_ids"].shape, *batch["labels"].shape) for batch in batches]
    return np.array([(rows * source, texts * target, texts * source) for rows, source, texts, target in shapes], float)


def take_alternating_layers(modular: ModularModel, assembly: Assembly) -> None:
    """Begin with layers as far apart as possible, the first and the last among them (DistilBART's 0, 2, 5 of 6)."""
    for stack, path in zip(modular.stacks, assembly.paths, strict=True):
        layers = list(stack.layers(path))
        originals = list(stack.layers((1,) * sum(path)))
        for layer, taken in zip(layers, alternating(path), strict=True):
            if layer is not originals[taken]:
                layer.load_state_dict(originals[taken].state_dict())


def begin_with(modular: ModularModel, start: str) -> None:
    """Begin with the last layer of each module's group, or the mean of its layers."""
    for stack, mapping in zip(modular.stacks, modular.mapping.stacks, strict=True):
        originals = [layer.state_dict() for layer in stack.layers(mapping.original)]
        for g in mapping.granularities:
            for k, module in enumerate(stack.layers((g,) * (mapping.depth // g))):
                group = originals[g * k : g * (k + 1)]
                weights = {
                    name: group[-1][name] if start == "last" else torch.stack([layer[name] for layer in group]).mean(0)
                    for name in group[-1]
                }
                module.load_state_dict(module.state_dict() | weights)  # T5's first layer has position biases, too


def differs(assembly: Assembly) -> bool:
    """Whether alternating layers are others than the first ones of their groups."""
    return any(set(path) != {1} and alternating(path) != list(start_indices(path)) for path in assembly.paths)


def alternating(path: LayerPath) -> list[int]:
    """The original layers, as many as the path has."""
    last = sum(path) - 1
    return [round(last * i / (len(path) - 1)) if len(path) > 1 else 0 for i in range(len(path))]


class Dropping(nn.ModuleList):
    """Skips each layer but the first at random while it trains: LayerDrop (Fan, Grave, Joulin, 2020).

    The first layer always runs, since T5's makes the position biases of all.
    """

    def __init__(self, layers: Iterable[nn.Module], drop: float) -> None:
        super().__init__(layers)
        self.drop = drop

    def __iter__(self) -> Any:
        for number, layer in enumerate(super().__iter__()):
            if not self.training or number == 0 or torch.rand(()) >= self.drop:
                yield layer


def drop_layers(model: transformers.PreTrainedModel, drop: float) -> transformers.PreTrainedModel:
    architecture = architecture_of(model)
    for stack in stacks_of(model):
        setattr(stack, architecture.layers, Dropping(getattr(stack, architecture.layers), drop))
    return model


# -- results -----------------------------------------------------------------------------------------------------------


#: The results of trainings that differ in their seed alone, for one size.
Group = tuple[str, str, float]


def drawn_groups(comparison: Comparison, results: Sequence[dict[str, Any]]) -> dict[Group, dict[str, np.ndarray]]:
    """By method, size and cost, the test scores (1 + draws,): the mean of the seeds, then of samples of the inputs.

    Another seed would give other scores, too. How far they scatter is taken from all groups of several seeds, and added
    to the samples at random.
    """
    by_group: dict[Group, list[dict[str, np.ndarray]]] = defaultdict(list)
    for result in results:
        for size, texts in result["texts"].items():
            drawn = drawn_scores(comparison.task, comparison.test, texts["test"])
            by_group[result["method"], size, result["cost"]].append(drawn)
    made: dict[Group, dict[str, np.ndarray]] = {}
    scatter = scatter_of_seeds(list(by_group.values()))
    rng = np.random.default_rng(0)
    for group in sorted(by_group):
        seeds = by_group[group]
        means = {name: np.mean([scores[name] for scores in seeds], 0) for name in seeds[0]}
        if group[0] != "untrained":
            for name, values in means.items():
                values[1:] += rng.normal(0, scatter[name] / math.sqrt(len(seeds)), len(values) - 1)
        made[group] = means
    return made


def scatter_of_seeds(groups: Sequence[Sequence[dict[str, np.ndarray]]]) -> dict[str, float]:
    """Of each score, the standard deviation between trainings of different seeds; 0 where none has several."""
    several = [seeds for seeds in groups if len(seeds) > 1]
    scatter = {}
    for name in groups[0][0] if groups else ():
        variances = [np.var([scores[name][0] for scores in seeds], ddof=1) for seeds in several]
        scatter[name] = float(np.sqrt(np.mean(variances))) if variances else 0.0
    return scatter


def scored(comparison: Comparison, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each training and size, with its scores.

    The first seed's row also has the mean of all seeds, and its distance from the kit's at equal total and at equal each:
    the difference, the kit's share of this BLEU in percent, and their 95 % intervals. ``total`` is the cost of having all
    sizes.
    """
    task, test, rows = comparison.task, comparison.test, []
    drawn = drawn_groups(comparison, results)
    for result in results:
        run = Run.of(result)
        trainings = 1 if EVERYTHING[run.method].for_all else len(comparison.sizes)
        for size, texts in result["texts"].items():
            row = {**asdict(run), "size": size, "total": run.cost * trainings}
            row |= {name: result[name] for name in ("steps", "seconds", "device")}
            for split, examples in (("dev", comparison.dev), ("test", test)):
                row[split] = {name: round(value, 2) for name, value in task.score(examples, texts[split]).items()}
            if run.seed == 0:
                ours = drawn[run.method, size, run.cost]
                row["mean"] = {name: round(float(values[0]), 2) for name, values in ours.items()}
                for name, cost in (("equal_total", row["total"]), ("equal_each", run.cost)):
                    kit = drawn.get(("kit", size, cost))
                    if kit is not None and run.method != "kit":
                        row[name] = differences(ours, kit) | share(kit["bleu"], ours["bleu"])
            rows.append(row)
    return rows


def share(kit: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    """Of another's BLEU, what the kit has, in percent, with its interval; nothing where the other has hardly any."""
    if other.min() < 1:
        return {}
    shares = 100 * kit / other
    interval = np.percentile(shares[1:], [2.5, 97.5]).round(1).tolist()
    return {"share": round(float(shares[0]), 1), "share_interval": interval}


def markdown(made: dict[str, Any], metrics: Sequence[Metric]) -> str:
    """A table for each score whose differences have intervals: the kit, and all else at equal total and equal each."""
    rows = [row for row in made["rows"] if row["seed"] == 0]
    shown = [metric for metric in metrics if any(metric.key in row.get("equal_total", {}) for row in rows)]
    return "\n\n".join(_grid_of(metric, rows, made) for metric in shown) + "\n"


def _grid_of(metric: Metric, rows: Sequence[dict[str, Any]], made: dict[str, Any]) -> str:
    """Of the largest budget both accounts; of the next one, which more students have each, the second."""
    largest, *smaller = sorted({row["cost"] for row in rows if row["method"] == "kit"}, reverse=True)
    accounts = [("equal_total", "total", largest), ("equal_each", "cost", largest)]
    accounts += [("equal_each", "cost", budget) for budget in smaller[:1]]
    sizes = {size: Assembly.from_json(assembly).shape for size, assembly in made["sizes"].items()}
    lines = []

    def add(name: str, cost: str, found: dict[str, dict[str, Any]], account: str = "") -> None:
        scores = {f"{size} ({shape})": _cell(found.get(size), account, metric.key) for size, shape in sizes.items()}
        lines.append({"": name, "cost (TFLOP)": cost, **scores})

    whole = next((row for row in rows if (row["method"], row["size"]) == ("untrained", "1x")), None)
    if whole:
        add("original", "", dict.fromkeys(sizes, whole))
    add("untrained", "0", {row["size"]: row for row in rows if row["method"] == "untrained"})
    for account, which, budget in accounts:
        for name, method in METHODS.items():
            found = {row["size"]: row for row in rows if row["method"] == name and row[which] == budget}
            again = method.for_all and account == "equal_each" and (name != "kit" or budget == largest)
            if found and not again:
                together = "" if method.for_all else "together " if account == "equal_total" else "each "
                add(name, together + f"{budget * made['unit_operations'] / 1e12:,.0f}", found, account)
    return f"{metric.name}, and in brackets less the kit's at the same cost (95 % interval):\n\n{grid(lines)}"


def _cell(row: dict[str, Any] | None, account: str, key: str) -> str:
    """A score and its distance from the kit's, in bold where that is more than inputs and seeds explain."""
    if row is None:
        return ""
    difference = row.get(account)
    if difference is None:
        return f"{row['mean'][key]:.1f}"
    low, high = difference[f"{key}_interval"]
    words = f"{difference[key]:+.1f}, {low:+.1f} to {high:+.1f}"
    return f"{row['mean'][key]:.1f} ({f'**{words}**' if low > 0 or high < 0 else words})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    parser.add_argument("--pairs", type=Path, help="the original's texts (default: the bundled ones, which are few)")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="in steps of a kit")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="larger budgets have the first alone")
    parser.add_argument("--methods", nargs="+", choices=EVERYTHING, help="(default: all)")
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side, of one thread each")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--ablation", action="store_true", help="train kits that learn otherwise instead")
    instead.add_argument("--report", action="store_true", help="write data/<model>/versus.json from what is done")
    options = parser.parse_args()
    use_cpu_well(1)
    transformers.logging.disable_progress_bar()
    comparison = Comparison(options.model, options.data, options.pairs, options.budgets)
    otherwise, planned = ablation(options.budgets), plan(comparison.sizes, options.budgets, options.seeds)
    archive = ROOT / "benchmarks" / f"versus-{options.model}.jsonl.xz"
    if options.report:
        done = read_archive(archive) | results_in(comparison.folder)
        comparison.check(done)
        report(comparison, planned, otherwise, done)
        write_archive(archive, done)
        return
    wanted = [
        run for run in (otherwise if options.ablation else planned) if run.method in (options.methods or EVERYTHING)
    ]
    if options.workers == 1:
        work(comparison, wanted, archive)
        return
    comparison.tokenize()  # once for all workers, which are copies of this process
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(comparison, wanted, archive)) for _ in range(options.workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise ModtfError("not all trainings were done; see above")


def work(comparison: Comparison, planned: Sequence[Run], archive: Path) -> None:
    """Train what is planned, or go on with it, until all is done; leave out what another worker has taken."""
    # A copy of a process makes torch's pool of threads anew, which must not begin in two threads at once, as of a loader.
    use_cpu_well(1)
    failed: set[Run] = set()
    done = read_archive(archive)
    comparison.check(done | results_in(comparison.folder))
    while True:
        done |= results_in(comparison.folder, known=done)
        runs = [run for run in comparison.open(planned, done) if run not in failed]
        for run in runs:
            folder = comparison.folder / run.name
            with claimed(folder) as mine:
                if not mine or (folder / "result.json").exists():
                    continue
                if run.method != "untrained":
                    comparison.claim(run, folder)
                try:
                    made = comparison.train(run, folder)
                except Exception:  # out of memory, say; the other trainings go on
                    traceback.print_exc()
                    failed.add(run)
                    break
                write_whole(folder / "result.json", json.dumps(made, ensure_ascii=False) + "\n")
                print(f"{run.name}: {made['steps']} steps in {made['seconds']} s", flush=True)
                break
        else:
            if not runs:
                break
            time.sleep(1)  # others train them, and then more may be known
    if failed:
        sys.exit(1)


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process alone may work in a folder until the context ends; a process that dies gives it back."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def results_in(folder: Path, known: Iterable[Run] = ()) -> Results:
    """The results of trainings that were done on this machine, but for the known ones."""
    names = {run.name for run in known}
    paths = [path for path in sorted(folder.glob("*/result.json")) if path.parent.name not in names]
    return {Run.of(result): result for result in (json.loads(path.read_text(encoding="utf-8")) for path in paths)}


def write_whole(path: Path, text: str) -> None:
    """Write a file that is never there in part; several processes may do so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def read_archive(path: Path) -> Results:
    """The results of trainings that were done before, perhaps elsewhere."""
    if not path.exists():
        return {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return {Run.of(result): result for result in map(json.loads, lines)}


def write_archive(path: Path, results: Results) -> None:
    new = path.with_suffix(".new")
    with lzma.open(new, "wt", encoding="utf-8", preset=9) as file:
        file.writelines(
            json.dumps(results[run], ensure_ascii=False) + "\n" for run in sorted(results, key=lambda r: r.name)
        )
    new.replace(path)


def report(comparison: Comparison, planned: Sequence[Run], otherwise: Sequence[Run], done: Results) -> None:
    """Write versus.json, and the table in the README and the model card."""
    wanted = [Run("untrained", "", 0, 0), *(comparison.with_rate(run, done) for run in planned)]
    results = [done[run] for run in wanted if run in done]
    kits = [result for result in results if result["method"] == "kit"]
    changed = [done[run] for run in (comparison.with_rate(run, done) for run in otherwise) if run in done]
    trials = [run for run in done if run.method in METHODS and run == comparison.trial(run, run.rate)]
    made = {
        "made_by": "benchmarks/versus.py",
        "original": comparison.original_fingerprint,
        "of": len(wanted), "done": len(results), "examples": len(comparison.test), "draws": DRAWS,
        "unit_operations": UNITS[comparison.model],
        "megabytes": comparison.megabytes(),
        "sizes": {name: assembly.to_json() for name, assembly in comparison.sizes.items()},
        "rows": scored(comparison, results),
        "sweep": [
            {"method": run.method, "size": run.size, "cost": run.cost, "rate": run.rate} | comparison.on_dev(done[run])
            for run in sorted(trials, key=lambda run: (list(METHODS).index(run.method), run.size, run.cost, run.rate))
        ],
        "ablation": [row for row in scored(comparison, [*changed, *kits]) if row["method"] in ABLATIONS],
    }  # fmt: skip
    folder = ROOT / "data" / comparison.model
    (folder / "versus.json").write_text(json.dumps(made, indent=1) + "\n")
    if kits:
        for page in (ROOT / "README.md", folder / "README.md"):
            if page.is_file():
                insert(page, f"benchmarks/versus.py {comparison.model}", markdown(made, comparison.task.metrics))


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
