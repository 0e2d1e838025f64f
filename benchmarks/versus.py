"""One kit against what people would use instead: trainings from one original, on the same data, at equal cost.

    python benchmarks/versus.py translator --data <folder> --pairs <pairs.jsonl>
    python benchmarks/versus.py translator --data <folder> --pairs <...> --ablation  # what its parts are worth
    python benchmarks/versus.py translator --data <folder> --pairs <...> --time      # minutes; nothing else should run
    python benchmarks/versus.py translator --data <folder> --pairs <...> --report

The pairs are texts that the original wrote: `modtf train kit` begins with them, and leaves them in its output folder
(--steps 1 does little else). The translator's are those of the first part of `make translator` (150,000, seed 0); pocket's
those of the last part of `make pocket` (24,000, seed 2), of inputs that are drawn at random, and those with slot errors are
left out. All methods have the batches of the kit's recipe, its optimizer, and no dropout. Products are in TF32 on GPUs, in
bfloat16 on CPUs that are faster so, and in float32 elsewhere; weights are always in float32, and Muon's iteration is in
bfloat16 wherever that is faster. Kits and most students train modules alone: embeddings, head and original layers stay
fixed, as a kit needs them. A student can also train all its weights ("all weights"), as LayerDrop does.

Cost is counted in floating-point operations of forward and backward passes, the teacher's included, in UNITS. Not counted
are the optimizer's (for students of the translator that train modules alone about 10 to 28 % more, for the kit 19), the
search of learning rates, and the texts that the original wrote beforehand. Minutes include the optimizer. They are those
of TIMED steps of each method and size on one machine, one after another, since the trainings ran on several machines.

Each method has a budget twice: *equal total*, the students of all sizes share the budget of one kit; and *equal each*,
every student has it for itself, but for the largest budget, which would cost more so than all the rest. The costliest
students are fewer (FEWER); a share that is not trained is a share all the same. Methods that train once for all sizes
have it once. Several seeds have those that together cost one budget (SEEDED), on pocket only kits and KD (ONE_SEED); it
goes without alternating layers (LEFT_OUT).

All methods tune: each has the learning rates of the kit's recipe times a factor, for each size the best one on dev (3x
has that of 2x); kits and LayerDrop have the one with the best mean over sizes. At the smallest budget factors 1 and 2 are
tried first, then half and twice the best one, until both are worse or beyond RATE_LIMITS. Long trainings like lower ones:
the next budget tries the best one of the smallest, then half of it, until that is worse. Larger ones take the best of a
quarter of their cost, found likewise, if that is more than the second budget, whose best they take otherwise; shares of
the smallest budget try its best and twice that. Ablations have the kit's rates. LayerDrop skips a layer with a probability
of 0.8, which was better than 0.5. What the kits are was changed after a first comparison, by
trials on dev, the translator's at the first two budgets, pocket's at every one (LOG.md); the students were not.

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
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from pages import grid, insert
from safetensors.torch import load_model, save_model
from table import cpu_name
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import modtf
from modtf.architectures import architecture_of, set_attention, stacks_of
from modtf.bootstrap import DRAWS, differences, drawn_scores
from modtf.bundled import BUNDLED_MODELS
from modtf.commands.data import data_folder
from modtf.errors import ModtfError
from modtf.evaluation import size_of, write_texts
from modtf.mapping import Assembly, LayerPath, Mapping, StackMapping, start_indices
from modtf.modular import ModularModel
from modtf.recipes import recipe_for
from modtf.saving import fingerprint_of, write_whole
from modtf.strategies import choose
from modtf.tasks import Example, task_named
from modtf.tasks.batches import TaskBatches
from modtf.tasks.examples import read_pairs, spread, without_faults
from modtf.tasks.scores import chrf
from modtf.tasks.task import Metric
from modtf.training.batches import WHOLE_BATCHES, encode_sources_once
from modtf.training.machine import fast_bf16, use_cpu_well
from modtf.training.runs import set_dropout, train_kit, train_original, with_texts_of_the_original

ROOT = Path(__file__).parents[1]
#: Operations that a cost of 1 pays for: about a step that teaches four assemblies.
UNITS = {"translator": 307e9, "pocket": 134e9}
#: Budgets, in UNITS. Four sizes, and a factor of 4: what is equal each at one budget is equal total at the next.
BUDGETS = {"translator": (100, 400, 1600), "pocket": (25, 100, 400, 1600)}
#: Factors of the recipe's learning rates: the two that are tried first, and the limits.
FIRST_RATES, RATE_LIMITS = (1.0, 2.0), (0.25, 16.0)
#: The size whose learning rate another one has.
RATE_OF = {"3x": "2x"}
#: The sizes of the costliest students: of those that learn from people's texts alone or train all weights, from the
#: middle budget on.
FEWER = ("2x", "6x", "fast")
#: The budget at equal total whose trainings have several seeds, where at the smallest one many do not learn to write.
SEEDED = {"pocket": 400}
#: Methods that have one seed on a model, and no shares of its smallest budget, which teach no student to write.
ONE_SEED = {"pocket": ("sequence-level KD", "SFT", "SFT, all weights", "Theseus", "LayerDrop")}
#: Methods that a model goes without.
LEFT_OUT = {"pocket": ("SFT, alternating layers",)}
#: What fewer errors count as where their logarithm is taken, in percent: about one slot of pocket's test set.
LEAST_ERRORS = 0.02
#: Steps whose operations are counted, spread over a training; their texts; and the examples that these are taken from.
COUNTED, COUNTED_TEXTS, COUNTED_EXAMPLES = 100, (4, 16), 20_000
#: Draws of assemblies over a training, whose mean counts.
COUNTED_DRAWS = 2000
#: Marks the scores of trainings for which the rule still asks for other learning rates.
UNSETTLED = "°"
#: Steps of each method and size whose seconds are measured.
TIMED = 60
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
    #: probability that a layer is skipped as all weights of the original train on: LayerDrop
    drop: float = 0.0
    #: what differs from the defaults of ModularTrainingArguments
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def drops(self) -> bool:
        return self.drop > 0


METHODS = {
    "kit": Method("people", for_all=True, options=LABELS | {"whole": 0.5, "matched": 0.6}),
    "KD": Method(),
    "sequence-level KD": Method("original", options=LABELS),
    "SFT": Method("people", options=LABELS),
    "SFT, alternating layers": Method("people", start="alternating", options=LABELS),
    "SFT, all weights": Method("people", all_weights=True, options=LABELS),
    "Theseus": Method("people", options=LABELS | {"mixtures": 1.0, "whole": 0.0, "coarse_at": 0.0}),
    "LayerDrop": Method("people", for_all=True, drop=0.8),
    "untrained": Method(for_all=True),
}


def kit_with(texts: str = METHODS["kit"].texts, start: str = "first", **options: float) -> Method:
    """A kit that learns otherwise."""
    return Method(texts, for_all=True, start=start, options=METHODS["kit"].options | options)


LOSSES = ("labels", "logits", "hidden", "attention")


def one(loss: str) -> dict[str, float]:
    """Weights with this loss alone."""
    return {f"{name}_weight": float(name == loss) for name in LOSSES}


EVERY = {"labels_weight": 1.0, "logits_weight": 1.0, "hidden_weight": 0.2, "attention_weight": 0.2}
#: What each part of the kit's training is worth: kits at one budget. The kit learns from people's texts alone.
ABLATIONS = {
    "the original's texts alone": kit_with("original"),
    "logits alone": kit_with("both", **one("logits")),
    "hidden states alone": kit_with("both", **one("hidden")),
    "attention maps alone": kit_with("both", **one("attention")),
    "every signal": kit_with("both", **EVERY),
    "every signal but people's texts": kit_with("original", **EVERY),
    "every signal but the original's texts": kit_with(**EVERY),
    "every signal but labels": kit_with("both", **EVERY | {"labels_weight": 0.0}),
    "every signal but logits": kit_with("both", **EVERY | {"logits_weight": 0.0}),
    "every signal but hidden states": kit_with("both", **EVERY | {"hidden_weight": 0.0}),
    "every signal but attention maps": kit_with("both", **EVERY | {"attention_weight": 0.0}),
    "logits and hidden states, four assemblies a step": Method(for_all=True, options={"assemblies_per_step": 4}),
    "two assemblies a step": kit_with(assemblies_per_step=2),
    "four assemblies a step": kit_with(assemblies_per_step=4),
    "no whole-grain paths": kit_with(whole=0.0),
    "no matched whole-grain paths": kit_with(matched=0.0),
    "no mixtures": kit_with(mixtures=0.0),
    "no strategies' paths": kit_with(whole=0.9),
    "begun as the last layer": kit_with(start="last"),
    "begun as the mean layer": kit_with(start="mean"),
}
EVERYTHING = METHODS | ABLATIONS

#: Methods that are others on one model. Pocket's kits learn from the texts that its bundled kit learned from last.
OF_MODEL = {
    "pocket": {
        "kit": kit_with("original"),
        "KD": Method("original", options=LABELS | {"logits_weight": 1.0}),
    }
}


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

    @property
    def step(self) -> str:
        """The name of its steps, which are the same at any cost, seed and learning rate."""
        return replace(self, cost=0, seed=0, rate=1).name

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


def plan(
    sizes: dict[str, Assembly],
    budgets: Sequence[float],
    seeds: Sequence[int],
    seeded: float | None = None,
    one_seed: Collection[str] = (),
) -> list[Run]:
    """All trainings, at learning rates that are to be found.

    Those that together cost ``seeded`` (the smallest budget, if it is none of them) have all seeds, but for the methods of
    ``one_seed``, which also have no shares of the smallest budget.
    """
    runs, (*each, _) = [], sorted(budgets)
    middle = sorted(budgets)[len(budgets) // 2]
    seeded = seeded if seeded in budgets else min(budgets)
    for name, method in METHODS.items():
        if name == "untrained":
            continue
        costs = set(budgets) if method.for_all else {*each, *(budget / len(sizes) for budget in budgets)}
        if name in one_seed:
            costs.discard(min(budgets) / len(sizes))
        for cost, size in itertools.product(sorted(costs), [""] if method.for_all else sizes):
            costly = cost >= middle and (method.texts == "people" or method.all_weights)
            if size and (
                (costly and size not in FEWER)
                or (method.start == "alternating" and not differs(sizes[size]))
                or (name == "Theseus" and modules_of(sizes[size]) == 1)  # there is nothing to mix: it is SFT
            ):
                continue
            several = name not in one_seed and cost == (seeded if method.for_all else seeded / len(sizes))
            runs += [Run(name, size, cost, seed) for seed in (seeds if several else seeds[:1])]
    return runs


def ablation(budgets: Sequence[float]) -> list[Run]:
    """Kits that learn otherwise, at the smallest budget."""
    return [Run(name, "", min(budgets), 0) for name in ABLATIONS]


def rates_to_try(tried: dict[float, float], known: float | None = None, factor: float = 1) -> list[float]:
    """Where rates that were ``tried`` have these scores: the first ones, then those beside the best; in the end none.

    ``known`` is the best rate of the smallest budget, if this is another one: then it and its products with ``factor``
    are tried.
    """
    first = FIRST_RATES if known is None else (known, known * factor)
    wanted = list(first)
    if all(rate in tried or not _possible(rate) for rate in first):
        best = best_of(tried)
        wanted = [best / 2, best * 2] if known is None else [best * factor]
    return [rate for rate in wanted if rate not in tried and _possible(rate)]


def _possible(rate: float) -> bool:
    return RATE_LIMITS[0] <= rate <= RATE_LIMITS[1]


def best_of(tried: dict[float, float]) -> float:
    return max(tried, key=lambda rate: tried[rate])


# -- training ----------------------------------------------------------------------------------------------------------


Results = dict[Run, dict[str, Any]]


class Comparison:
    """What all trainings have in common."""

    def __init__(
        self, model: str, data: str | None, pairs: Path | None, budgets: Sequence[float] | None = None
    ) -> None:
        self.model, self.budgets = model, sorted(budgets or BUDGETS[model])
        self.folder = ROOT / "build" / "versus" / model
        kit = modtf.load(model)
        self.mapping, self.tokenizer, self.task = kit.mapping, kit.tokenizer, task_named(kit.task)
        self.sizes = sizes_of(self.mapping)
        self.recipe = recipe_for(self.task)
        folder = data or data_folder(self.task)
        self.people = self.task.read_data(folder, self.task.train_split)
        self.methods = EVERYTHING | OF_MODEL.get(model, {})
        self.dev = spread(self.task.read_data(folder, "dev"), DEV_INPUTS)
        self.test = self.task.read_data(folder, self.task.test_split)
        held_out = {example.source for example in (*self.dev, *self.test)}
        written = read_pairs(pairs) if pairs else list(self.task.bundled_examples("pairs"))
        # Inputs that are drawn at random may be among them.
        written = [example for example in written if example.source not in held_out]
        faultless = self.task.faultless
        self.written = written if faultless is None else without_faults(written, faultless)
        self.original_fingerprint = fingerprint_of(kit.original_weights(), torch.float16)
        self._scores: dict[tuple[Run, str, str], dict[str, float]] = {}
        self.fingerprints = {
            name: hashlib.sha256(json.dumps([(one.source, one.references) for one in examples]).encode()).hexdigest()
            for name, examples in (("people", self.people), ("dev", self.dev), ("test", self.test))
        }
        # Not the texts: another machine rounds otherwise, and so writes a few others.
        sources = [pair.source for pair in written]
        self.fingerprints["original"] = hashlib.sha256(json.dumps(sources).encode()).hexdigest()
        self.bf16 = not torch.cuda.is_available() and fast_bf16()  # measured once, before there are workers

    def tokenize(self) -> None:
        """Tokenize all texts, so that no training has to."""
        TaskBatches(self.task, self.examples("both"), self.tokenizer, 1).lengths  # noqa: B018

    def original(self) -> transformers.PreTrainedModel:
        original = modtf.load(self.model).assemble()
        set_attention(original, "eager")
        set_dropout(original, 0.0)
        return original

    def mapping_of(self, run: Run) -> Mapping:
        """All granularities for a kit, those of its size for a student."""
        if not run.size:
            return self.mapping
        stacks = zip(self.mapping.stacks, self.sizes[run.size].paths, strict=True)
        return Mapping(*(StackMapping(stack.depth, tuple(sorted(set(path) - {1}))) for stack, path in stacks))

    def modular(self, run: Run) -> ModularModel:
        """The untrained modules of a run: of all granularities for a kit, of those of its size for a student."""
        mapping = self.mapping_of(run)
        modular = modtf.modularize(
            self.original(), mapping.encoder.granularities, decoder_granularities=mapping.decoder.granularities,
            tokenizer=self.tokenizer, task=self.task.name,
        )  # fmt: skip
        if self.methods[run.method].start == "alternating":
            take_alternating_layers(modular, self.sizes[run.size])
        elif self.methods[run.method].start != "first":
            begin_with(modular, self.methods[run.method].start)
        if self.methods[run.method].all_weights:
            modular.model.requires_grad_(True)
        return modular

    def dropping(self, method: Method) -> transformers.PreTrainedModel:
        """The original, all of whose weights train, under LayerDrop."""
        return drop_layers(self.original().requires_grad_(True), method.drop)

    def fingerprint(self, run: Run) -> str:
        """Of what a training depends on, apart from the code of its steps."""
        method = self.methods[run.method]
        given = {name: value for name, value in asdict(method).items() if value != getattr(Method(), name)}
        texts = {"people": ["people"], "original": ["original"], "both": ["people", "original"]}[method.texts]
        about = [self.original_fingerprint, given, repr(self.recipe.kit), UNITS.get(self.model)]
        about += [self.fingerprints[name] for name in (*texts, "dev", "test")]
        about += [str(assembly) for size, assembly in self.sizes.items() if run.size in ("", size)]
        args = self.arguments(replace(run, rate=1), DRAWN, Path("any"))
        if isinstance(args, modtf.ModularTrainingArguments):
            schedule = args.schedule(self.mapping_of(run), DRAWN)
            about += [getattr(args, name) for name in ("temperature", *(f"{loss}_weight" for loss in LOSSES))]
            about += [str(schedule.draw_several(step, args.assemblies_per_step)) for step in range(DRAWN)]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def claim(self, run: Run, folder: Path) -> None:
        """Mark the folder of a training as this run's; raises :class:`ModtfError` if one of other settings began there."""
        folder.mkdir(parents=True, exist_ok=True)
        mark, of = folder / "of.txt", self.fingerprint(run) + (" bf16" if self.bf16 else "")
        if not mark.exists() and not any(folder.iterdir()):
            mark.write_text(of)
        if not mark.exists() or mark.read_text() != of:
            raise ModtfError(f"a training of other settings or precision began in {folder}; remove that folder")

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
            "bf16": self.bf16,
            "dataloader_pin_memory": False, **WHOLE_BATCHES,
        }  # fmt: skip
        if self.methods[run.method].drops:
            return transformers.Seq2SeqTrainingArguments(**given)
        options = dict(self.methods[run.method].options)
        if run.size and run.method != "Theseus":
            options["assembly"] = str(self.sizes[run.size])
        return modtf.ModularTrainingArguments(**given, **options)

    def operations(self, run: Run, batch_size: int) -> float:
        """Floating-point operations of a step, without the optimizer's: the mean over many batches and draws.

        They are a sum over layers and :func:`places`, so small batches and a few draws tell the operations of each
        kind of layer at each place (:func:`layer_places`). Of these, the mean is over the batches of many examples,
        since each holds texts of one length, and over the draws of a whole training.
        """
        method, args = self.methods[run.method], self.arguments(replace(run, seed=0), COUNTED, self.folder / "counted")
        examples = spread(self.examples(method.texts), COUNTED_EXAMPLES)
        small = [TaskBatches(self.task, examples, self.tokenizer, COUNTED, texts) for texts in COUNTED_TEXTS]
        batches = [small[step % len(small)][step] for step in range(COUNTED)]
        model: Any = self.dropping(method) if method.drops else self.modular(run)
        encode_sources_once(model if method.drops else model.model)
        trainer: Any = (transformers.Seq2SeqTrainer if method.drops else trainer_of(method))(model, args)
        trainer.current_gradient_accumulation_steps = 1  # the training loop sets it
        torch.manual_seed(0)  # the layers that LayerDrop skips; a resumed training must count the same
        counted, ran = [], []
        for step in range(COUNTED):
            trainer.state.global_step = step
            with FlopCounterMode(display=False) as counter:
                trainer.training_step(model, batches[step])
            counted.append(counter.get_total_flops())
            ran.append(layers_run(model) if method.drops else sum(map(numbers_of, trainer.drawn())))
        fitted, *_ = np.linalg.lstsq(layer_places(np.array(ran), places(batches)), np.array(counted, float))
        if method.drops:
            kept = 1 - method.drop
            mean = layers_alone(*(1 + (stack.depth - 1) * kept for stack in self.mapping.stacks))
        else:
            schedule = args.schedule(model.mapping, COUNTED_DRAWS)
            draws = (schedule.draw_several(step, args.assemblies_per_step) for step in range(COUNTED_DRAWS))
            mean = np.mean([sum(map(numbers_of, drawn)) for drawn in draws], 0)
        texts = sum(len(example.references) for example in examples)
        steps = math.ceil(texts / batch_size)
        large = TaskBatches(self.task, examples, self.tokenizer, steps, batch_size)
        of_batch = places([large[step] for step in range(steps)]).mean(0)
        return float((layer_places(mean[None], of_batch[None]) @ fitted)[0])

    def steps(self, run: Run, batch_size: int) -> int:
        """As many as the run's cost pays for."""
        if self.model not in UNITS:
            raise ModtfError(
                f"what a cost of 1 pays for is not known for {self.model}; put some number of operations into UNITS"
            )
        path = self.folder / "operations" / f"{run.step}.json"
        of = self.fingerprint(replace(run, seed=0))
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("of") != of:
            known = {"of": of, "operations": self.operations(run, batch_size)}  # takes half a minute and more
            write_whole(path, json.dumps(known))
        return max(1, round(run.cost * UNITS[self.model] / known["operations"]))

    def train(self, run: Run, folder: Path) -> dict[str, Any]:
        """Train it, or go on with it, and write its texts for dev and test."""
        if run.method == "untrained":
            return self.result(run, self.modular(run), 0)
        steps = self.steps(run, self.recipe.kit.batch_size)
        args, model = self.trained(run, steps, folder)
        if self.methods[run.method].drops:
            kept = self.original()
            kept.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
            modular = modtf.modularize(
                kept, self.mapping.encoder.granularities, decoder_granularities=self.mapping.decoder.granularities,
                tokenizer=self.tokenizer, task=self.task.name,
            )  # fmt: skip
        else:
            modular = model
        return self.result(run, modular.to(args.device), steps, args.device.type + (" bf16" if args.bf16 else ""))

    def trained(self, run: Run, steps: int, folder: Path) -> tuple[Any, Any]:
        """The arguments of a training, and what was trained with them."""
        method, settings = self.methods[run.method], self.recipe.kit
        args, adamw = self.arguments(run, steps, folder), settings.adamw_learning_rate * run.rate
        examples = self.examples(method.texts)
        if method.drops:
            model: Any = self.dropping(method)
            train_original(model, self.tokenizer, self.task, examples, args, settings.batch_size, adamw)
        else:
            model = self.modular(run)
            train_kit(model, self.task, examples, args, settings.batch_size, adamw, trainer_of(method))
        return args, model

    def seconds(self, run: Run) -> float:
        """Of a step, measured now."""
        with tempfile.TemporaryDirectory() as folder:
            self.trained(run, TIMED, Path(folder))
            return float(json.loads((Path(folder) / "training.json").read_text())["seconds"]) / TIMED

    def result(self, run: Run, modular: ModularModel, steps: int, device: str = "") -> dict[str, Any]:
        """What is written down: of the untrained modules also the original's texts, as the size 1x.

        LayerDrop changes the original: its 1x is another model.
        """
        modular.eval()
        sizes = {run.size: self.sizes[run.size]} if run.size else self.sizes
        method = self.methods[run.method]
        if run.method == "untrained" or method.drops:
            sizes = {"1x": self.mapping.original} | sizes
        texts = {
            size: {
                split: write_texts(modular, assembly, [example.source for example in of_split], WRITTEN_TOGETHER)
                for split, of_split in (("dev", self.dev), ("test", self.test))
            }
            for size, assembly in sizes.items()
        }
        return {**asdict(run), "steps": steps, "device": device, "of": self.fingerprint(run), "texts": texts}

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

    def scores(self, result: dict[str, Any], size: str, split: str) -> dict[str, float]:
        """Of the texts for "dev" or "test": those that have intervals, and chrF2 where the explorer shows it.

        Those of a result are computed once.
        """
        key = Run.of(result), size, split
        if key not in self._scores:
            examples, texts = getattr(self, split), result["texts"][size][split]
            scores = {name: float(values[0]) for name, values in drawn_scores(self.task, examples, texts, 0).items()}
            if "chrf" in (metric.key for metric in self.task.metrics):
                scores["chrf"] = chrf(texts, [example.references for example in examples])
            self._scores[key] = scores
        return self._scores[key]

    def on_dev(self, result: dict[str, Any]) -> dict[str, float]:
        """Scores on dev, the mean over the compressed sizes of the training."""
        sizes = [size for size in result["texts"] if size != "1x"]
        scores = [self.scores(result, size, "dev") for size in sizes]
        return {name: round(float(np.mean([of_size[name] for of_size in scores])), 2) for name in scores[0]}

    # -- learning rates ------------------------------------------------------------------------------------------------

    def trial(self, run: Run, rate: float) -> Run:
        """The training that says what a learning rate is worth for this one."""
        method = "kit" if run.method in ABLATIONS else run.method
        cost = min(run.cost, max(self.budgets[:2][-1], run.cost / 4))
        return Run(method, RATE_OF.get(run.size, run.size), cost, 0, rate)

    def tried(self, run: Run, done: Results) -> dict[float, float]:
        """By rate, the score that decides: BLEU, or slot errors (negative: fewer are better) where the task has slots."""
        scores = {}
        for other in done:
            if other == self.trial(run, other.rate):
                of_rate = self.on_dev(done[other])
                scores[other.rate] = -of_rate["ser"] if "ser" in of_rate else of_rate["bleu"]
        return scores

    def trials(self, run: Run, done: Results) -> list[Run]:
        """What is still to be trained, as far as it is known now, to find the best learning rate of a run."""
        trial, known, factor = self.trial(run, 1), None, 1.0
        if trial.cost != self.budgets[0]:
            smaller = (budget for budget in self.budgets if budget < trial.cost)
            nearest = replace(run, cost=max(smaller, default=self.budgets[0]))
            if trials := self.trials(nearest, done):
                return trials
            known, factor = best_of(self.tried(nearest, done)), 0.5 if trial.cost > self.budgets[0] else 2.0
        return [self.trial(run, rate) for rate in rates_to_try(self.tried(run, done), known, factor)]

    def with_rate(self, run: Run, done: Results, *, settled: bool = True) -> Run | None:
        """The run at its best learning rate; None until that is known.

        If it need not be ``settled``, it is the best of those tried so far, at the smallest budget where none was tried
        at the run's own; None if there is none.
        """
        tried = self.tried(run, done) or self.tried(replace(run, cost=self.budgets[0]), done)
        return replace(run, rate=best_of(tried)) if tried and not (settled and self.trials(run, done)) else None

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
                not self.methods[run.method].for_all,
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


def numbers_of(assembly: Assembly) -> np.ndarray:
    """What an assembly computes besides embeddings and head, as numbers of layers (7,).

    They are, of the encoder: its layers, those behind its first module, through which gradients flow on, and its modules;
    of the decoder the same, and all of its layers if the encoder has modules, which learn through their cross-attention.
    """
    numbers: list[int] = []
    for path in assembly.paths:
        first = next((i for i, g in enumerate(path) if g > 1), len(path))
        numbers += [len(path), max(0, len(path) - first - 1), sum(g > 1 for g in path)]
    through = len(assembly.decoder) if set(assembly.encoder) != {1} else 0
    return np.array([*numbers[:4], max(numbers[4], through), numbers[5], through], float)


def layers_alone(encoder: float, decoder: float) -> np.ndarray:
    """:func:`numbers_of` layers that all train."""
    return np.array([encoder, 0, 0, decoder, 0, 0, 0], float)


def layers_run(model: transformers.PreTrainedModel) -> np.ndarray:
    """:func:`numbers_of` the layers that were not dropped in the last step."""
    name = architecture_of(model).layers
    return layers_alone(*(getattr(stack, name).ran for stack in stacks_of(model)))


def layer_places(numbers: np.ndarray, of_batches: np.ndarray) -> np.ndarray:
    """Products of :func:`numbers_of` (steps, 7) and :func:`places` (steps, 3), of which operations are a sum: (steps, 13).

    A step has embeddings, head and a teacher whatever it draws; an encoder layer works at the places of sources; one of
    the decoder at those of texts and, in cross-attention, at those that texts attend to.
    """
    source, text, attended = of_batches.T[:, :, None]
    return np.concatenate(
        [of_batches, numbers[:, :3] * source, numbers[:, 3:6] * text, numbers[:, [3, 4, 5, 6]] * attended], 1
    )


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


def modules_of(assembly: Assembly) -> int:
    return sum(g > 1 for path in assembly.paths for g in path)


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
        #: layers of the last pass
        self.ran = 0

    def __iter__(self) -> Any:
        self.ran = 0
        for number, layer in enumerate(super().__iter__()):
            if not self.training or number == 0 or torch.rand(()) >= self.drop:
                self.ran += 1
                yield layer


def drop_layers(model: transformers.PreTrainedModel, drop: float) -> transformers.PreTrainedModel:
    architecture = architecture_of(model)
    for stack in stacks_of(model):
        setattr(stack, architecture.layers, Dropping(getattr(stack, architecture.layers), drop))
    return model


# -- results -----------------------------------------------------------------------------------------------------------


#: The results of trainings that differ in their seed alone, for one size.
Group = tuple[str, str, float]
#: By size and score, the standard deviation between trainings of different seeds, and its degrees of freedom. Of errors it
#: is that of their logarithm, since a model that makes few of them scatters by few.
Scatter = dict[str, dict[str, tuple[float, int]]]


def drawn_groups(
    comparison: Comparison, results: Sequence[dict[str, Any]], scatter: Scatter
) -> dict[Group, dict[str, np.ndarray]]:
    """By method, size and cost, the test scores (1 + draws,): the mean of the seeds, then of samples of the inputs.

    Another seed would give other scores, too: the ``scatter`` of the size is added to the samples at random; errors are
    multiplied by its exponential. It is an estimate itself: each sample has another one, as likely as the true one is
    (chi-squared), so that differences between groups scatter as Student's t.
    """
    errors = {metric.key for metric in comparison.task.metrics if metric.errors}
    by_group: dict[Group, list[dict[str, np.ndarray]]] = defaultdict(list)
    for result in results:
        for size, texts in result["texts"].items():
            drawn = drawn_scores(comparison.task, comparison.test, texts["test"])
            by_group[result["method"], size, result["cost"]].append(drawn)
    made: dict[Group, dict[str, np.ndarray]] = {}
    rng = np.random.default_rng(0)
    deviations = {
        size: {name: deviation * np.sqrt(df / rng.chisquare(df, DRAWS)) for name, (deviation, df) in of_size.items()}
        for size, of_size in scatter.items()
    }
    for group in sorted(by_group):
        (method, size, _), seeds = group, by_group[group]
        means = {name: np.mean([scores[name] for scores in seeds], 0) for name in seeds[0]}
        if method != "untrained":
            for name, values in means.items():
                noise = rng.normal(0, deviations.get(size, {}).get(name, 0) / math.sqrt(len(seeds)), DRAWS)
                values[1:] = (
                    np.maximum(values[1:], LEAST_ERRORS) * np.exp(noise) if name in errors else values[1:] + noise
                )
        made[group] = means
    return made


def scatter_of_seeds(comparison: Comparison, results: Sequence[dict[str, Any]]) -> Scatter:
    """From the trainings that differ in their seed alone; longer ones may scatter less.

    The variance is pooled over methods, since each has few seeds; small sizes scatter more than large ones.
    """
    by_group: dict[Group, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        for size in result["texts"]:
            by_group[result["method"], size, result["cost"]].append(result)
    errors = {metric.key for metric in comparison.task.metrics if metric.errors}
    squares: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    degrees: dict[str, int] = defaultdict(int)
    for (_, size, _), seeds in by_group.items():
        if len(seeds) > 1:
            degrees[size] += len(seeds) - 1
            scores = [comparison.scores(result, size, "test") for result in seeds]
            for name in scores[0]:
                values = np.array([of_seed[name] for of_seed in scores])
                values = np.log(np.maximum(values, LEAST_ERRORS)) if name in errors else values
                squares[size][name] += float(((values - values.mean()) ** 2).sum())
    return {
        size: {name: (math.sqrt(total / degrees[size]), degrees[size]) for name, total in of_size.items()}
        for size, of_size in squares.items()
    }


def scored(
    comparison: Comparison,
    results: Sequence[dict[str, Any]],
    scatter: Scatter,
    seconds: dict[str, float] | None = None,
    unsettled: Collection[Run] = (),
) -> list[dict[str, Any]]:
    """A row for each training and size, with its scores, and its minutes where the ``seconds`` of a step are known.

    It also says whether its learning rate is settled: not for the ``unsettled`` ones, where others are still to be tried.
    The first seed's row also has the mean of all seeds, and its distance from the kit's at equal total and at equal each:
    the difference, the kit's share of this BLEU in percent, and their 95 % intervals. ``total`` is the cost of having all
    sizes.
    """
    rows = []
    drawn = drawn_groups(comparison, results, scatter)
    for result in results:
        run = Run.of(result)
        trainings = 1 if comparison.methods[run.method].for_all else len(comparison.sizes)
        for size in result["texts"]:
            row = {**asdict(run), "size": size, "total": run.cost * trainings}
            row |= {name: result[name] for name in ("steps", "device")} | {"settled": run not in unsettled}
            if seconds and run.step in seconds:
                row["minutes"] = round(result["steps"] * seconds[run.step] / 60, 1)
            for split in ("dev", "test"):
                row[split] = {name: round(value, 2) for name, value in comparison.scores(result, size, split).items()}
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
    of, count = made["megabytes"], len(made["sizes"])
    weights = (
        f"Weights in half precision: the original {of['original']:.0f} MB, the kit with it {of['kit']:.0f}, {count} students "
        f"{of['students']:.0f}, or {of['students_sharing']:.0f} where they share what they did not train."
    )
    minutes = f" Minutes are those of one thread: {made['timed_on']}." if made["timed_on"] else ""
    grids = [_grid_of(metric, rows, made) for metric in shown]
    marked = f" {UNSETTLED}: not all learning rates were tried yet." if UNSETTLED in "".join(grids) else ""
    return "\n\n".join([*grids, weights + minutes + marked]) + "\n"


def _grid_of(metric: Metric, rows: Sequence[dict[str, Any]], made: dict[str, Any]) -> str:
    """Of the largest budget what is equal in total; of the next one, which students have each, what is equal each."""
    largest, *smaller = sorted({row["cost"] for row in rows if row["method"] == "kit"}, reverse=True)
    accounts = [("equal_total", "total", largest), *(("equal_each", "cost", budget) for budget in smaller[:1])]
    assemblies = {size: Assembly.from_json(assembly) for size, assembly in made["sizes"].items()}
    sizes = {"1x": "original"} | {size: assembly.shape for size, assembly in assemblies.items()}
    tera = made["unit_operations"] / 1e12
    lines = []

    def add(name: str, cost: str, found: dict[str, dict[str, Any]], account: str = "", minutes: str = "") -> None:
        scores = {f"{size} ({shape})": _cell(found.get(size), account, metric.key) for size, shape in sizes.items()}
        known = {"minutes": minutes} if made["timed_on"] else {}
        lines.append({"": name, "cost (TFLOP)": cost, **known, **scores})

    whole = next((row for row in rows if (row["method"], row["size"]) == ("untrained", "1x")), None)
    if whole:
        add("original", "", {"1x": whole})
    add("untrained", "0", {row["size"]: row for row in rows if row["method"] == "untrained" and row["size"] != "1x"})
    for account, which, budget in accounts:
        for name, method in METHODS.items():
            found = {row["size"]: row for row in rows if row["method"] == name and row[which] == budget}
            if not found:
                continue
            times = "" if method.for_all else f"{len(assemblies)} × "
            cost = f"{times}{next(iter(found.values()))['cost'] * tera:,.4g}"
            timed = [row["minutes"] for row in found.values() if "minutes" in row]
            minutes = f"{times}{np.mean(timed):.0f}" if timed else ""
            if name == "kit" and whole:
                found["1x"] = whole  # it has the original's weights
            # What trains once has all sizes for its cost, so both accounts are one.
            add(name, cost, found, "equal_total" if method.for_all else account, minutes)
    unit = " in %" if metric.errors else ""
    words = f"{metric.name}{unit}, and in brackets minus the kit's at the same cost (95 % interval, in bold where it excludes zero)"
    if smaller and metric.key == "bleu":
        words += "; where each student costs as much as the kit, the kit's share of it"
    return f"{words}:\n\n{grid(lines)}"


def ablation_markdown(made: dict[str, Any], metric: Metric) -> str:
    """A table of the kits that learn otherwise, each with its distance from the kit's at the same cost."""
    cost = made["ablation"][0]["cost"]
    assemblies = {size: Assembly.from_json(assembly) for size, assembly in made["sizes"].items()}
    by_method = {
        name: {row["size"]: row for row in rows if (row["method"], row["cost"], row["seed"]) == (name, cost, 0)}
        for rows, names in ((made["rows"], ["kit"]), (made["ablation"], ABLATIONS))
        for name in names
    }
    lines = [
        {"": name}
        | {f"{size} ({of.shape})": _cell(found.get(size), "equal_total", metric.key) for size, of in assemblies.items()}
        for name, found in by_method.items()
        if found
    ]
    words = f"{metric.name}, and in brackets minus the kit's (95 % interval, in bold where it excludes zero)"
    return f"{words}; each for {cost * made['unit_operations'] / 1e12:,.4g} TFLOP:\n\n{grid(lines)}\n"


def _cell(row: dict[str, Any] | None, account: str, key: str) -> str:
    """A score and its distance from the kit's, in bold where that is more than inputs and seeds explain."""
    if row is None:
        return ""
    score = f"{row['mean'][key]:.1f}{'' if row['settled'] else UNSETTLED}"
    difference = row.get(account)
    of_each = account == "equal_each" and key == "bleu"
    if difference is None or (of_each and "share" not in difference):
        return score
    if of_each:
        low, high = difference["share_interval"]
        return f"{score} ({difference['share']:.0f} %, {low:.0f} to {high:.0f})"
    low, high = difference[f"{key}_interval"]
    words = f"{difference[key]:+.1f}, {low:+.1f} to {high:+.1f}"
    return f"{score} ({f'**{words}**' if low > 0 or high < 0 else words})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    parser.add_argument("--pairs", type=Path, help="the original's texts (default: the bundled ones, which are few)")
    parser.add_argument("--budgets", type=float, nargs="+", help="in UNITS (default: the model's)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=(0, 1, 2), help="of one budget; the others have the first alone"
    )
    parser.add_argument("--methods", nargs="+", choices=EVERYTHING, help="(default: all); a report has these alone")
    parser.add_argument("--workers", type=int, default=1, help="trainings side by side, of one thread each")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--ablation", action="store_true", help="train kits that learn otherwise instead")
    instead.add_argument("--time", action="store_true", help="measure the seconds of a step of each method and size")
    instead.add_argument("--report", action="store_true", help="write data/<model>/versus.json from what is done")
    options = parser.parse_args()
    if options.ablation and options.model in OF_MODEL:
        raise ModtfError("the ablation is of the translator's kit; give translator")
    use_cpu_well(1)
    transformers.logging.disable_progress_bar()
    comparison = Comparison(options.model, options.data, options.pairs, options.budgets)
    seeded, one_seed = SEEDED.get(options.model), ONE_SEED.get(options.model, ())
    methods = options.methods or EVERYTHING.keys() - set(LEFT_OUT.get(options.model, ()))
    otherwise, planned = (
        [run for run in runs if run.method in methods]
        for runs in (
            ablation(comparison.budgets),
            plan(comparison.sizes, comparison.budgets, options.seeds, seeded, one_seed),
        )
    )
    archive = ROOT / "benchmarks" / f"versus-{options.model}.jsonl.xz"
    seconds = ROOT / "benchmarks" / f"versus-{options.model}-seconds.json"
    if options.time:
        time_steps(comparison, planned, seconds)
        return
    if options.report:
        done = read_archive(archive) | results_in(comparison.folder)
        comparison.check(done)
        timed = json.loads(seconds.read_text()) if seconds.exists() else {}
        report(comparison, planned, otherwise, done, timed)
        write_archive(archive, done)
        return
    wanted = otherwise if options.ablation else planned
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
                try:
                    if run.method != "untrained":
                        comparison.claim(run, folder)
                    made = comparison.train(run, folder)
                except Exception as error:  # out of memory, say; the other trainings go on
                    if isinstance(error, ModtfError):
                        print(f"{run.name}: {error}", file=sys.stderr, flush=True)
                    else:
                        traceback.print_exc()
                    failed.add(run)
                    break
                write_whole(folder / "result.json", json.dumps(made, ensure_ascii=False) + "\n")
                for checkpoint in folder.glob("checkpoint-*"):
                    shutil.rmtree(checkpoint)
                print(f"{run.name}: {made['steps']} steps", flush=True)
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


def time_steps(comparison: Comparison, planned: Sequence[Run], path: Path) -> None:
    """Write the seconds of a step of each method and size; what is known is left out."""
    machine = f"{cpu_name()}{', bfloat16' if comparison.bf16 else ''}, torch {torch.__version__}"
    timed = json.loads(path.read_text()) if path.exists() else {"machine": machine, "seconds": {}}
    if timed["machine"] != machine:
        raise ModtfError(f"the seconds in {path} are of another machine ({timed['machine']}); remove that file")
    for name, run in {run.step: run for run in planned}.items():
        if name not in timed["seconds"]:
            timed["seconds"][name] = round(comparison.seconds(run), 3)
            write_whole(path, json.dumps(timed, indent=1) + "\n")
            print(f"{name}: {timed['seconds'][name]:.2f} s a step", flush=True)


def report(
    comparison: Comparison, planned: Sequence[Run], otherwise: Sequence[Run], done: Results, timed: dict[str, Any]
) -> None:
    """Write versus.json, the table in docs/results.md and the model card, and that of the ablation in LOG.md."""
    rated = [(run, comparison.with_rate(run, done, settled=False)) for run in planned]
    wanted = [Run("untrained", "", 0, 0), *(at_rate for _, at_rate in rated)]
    results = [done[run] for run in wanted if run in done]
    unsettled = [at_rate for run, at_rate in rated if at_rate and comparison.trials(run, done)]
    kits = [result for result in results if result["method"] == "kit"]
    changed = [done[run] for run in (comparison.with_rate(run, done) for run in otherwise) if run in done]
    scatter = scatter_of_seeds(comparison, [*results, *changed])
    trained = METHODS.keys() - {"untrained"}
    trials = [run for run in done if run.method in trained and run == comparison.trial(run, run.rate)]
    made = {
        "made_by": "benchmarks/versus.py",
        "original": comparison.original_fingerprint,
        "of": len(wanted), "done": len(results), "examples": len(comparison.test), "draws": DRAWS,
        "unit_operations": UNITS[comparison.model],
        "megabytes": comparison.megabytes(), "timed_on": timed.get("machine", ""),
        "sizes": {name: assembly.to_json() for name, assembly in comparison.sizes.items()},
        "scatter_of_seeds": {
            size: {name: (round(deviation, 2), df) for name, (deviation, df) in of_size.items()}
            for size, of_size in scatter.items()
        },
        "rows": scored(comparison, results, scatter, timed.get("seconds"), unsettled),
        "sweep": [
            {"method": run.method, "size": run.size, "cost": run.cost, "rate": run.rate} | comparison.on_dev(done[run])
            for run in sorted(trials, key=lambda run: (list(METHODS).index(run.method), run.size, run.cost, run.rate))
        ],
        "ablation": [row for row in scored(comparison, [*changed, *kits], scatter) if row["method"] in ABLATIONS],
    }  # fmt: skip
    folder = ROOT / "data" / comparison.model
    (folder / "versus.json").write_text(json.dumps(made, indent=1) + "\n")
    if kits:
        for page in (ROOT / "docs" / "results.md", folder / "README.md"):
            if page.is_file():
                insert(page, f"benchmarks/versus.py {comparison.model}", markdown(made, comparison.task.metrics))
    if kits and made["ablation"]:
        table = ablation_markdown(made, comparison.task.metrics[0])
        insert(ROOT / "benchmarks" / "LOG.md", f"benchmarks/versus.py {comparison.model} --ablation", table)


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
