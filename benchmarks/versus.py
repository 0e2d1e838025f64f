"""One kit against what people would use instead: trainings from one original, on the same data, at equal cost.

    python benchmarks/versus.py translator --data <folder> --pairs <pairs.jsonl of the kit's training>
    python benchmarks/versus.py translator --data <folder> --pairs <...> --sweep     # learning rates
    python benchmarks/versus.py translator --data <folder> --pairs <...> --ablation  # what its parts are worth
    python benchmarks/versus.py translator --data <folder> --pairs <...> --report

All methods but LayerDrop train the same parameters, those of the modules, with the kit's optimizer and without dropout;
embeddings, head and original layers stay fixed. LayerDrop trains the whole model. Cost is counted in
floating-point operations of forward and backward passes, the teacher's included, but not the optimizer's, nor the texts
that the teacher wrote beforehand for the kit and for both kinds of KD. Its unit is about a step of the kit (UNITS).
Each method has a budget twice: *equal total*, the students of all sizes share the budget of one kit; and *equal each*,
every student has it for itself. The costliest students are fewer (LARGEST_EACH, FEWER). Methods that train once for all
sizes have it once.

All methods may tune: each has the learning rates of the kit's recipe times a factor, the best of RATES on dev, at 2x
(kits and LayerDrop: the mean over all sizes) and the smallest budget (--sweep). Rates beyond one that is already worse
than the best are not tried.

Each training has a folder in build/versus/<model>/; run again, the script resumes and leaves out what is done. Several
of them may work side by side (--part 1/2 and --part 2/2). --report writes data/<model>/versus.json from what is done,
and all texts into benchmarks/versus-<model>.jsonl.xz: what stands there is done, on any machine.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import lzma
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from bootstrap import DRAWS, differences, drawn_scores
from pages import grid, insert
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
from modtf.training.machine import fast_bf16, use_cpu_well
from modtf.training.runs import set_dropout, train_kit, train_original, with_texts_of_the_original

ROOT = Path(__file__).parents[1]
#: Operations that a cost of 1 pays for: about a step of the kit.
UNITS = {"translator": 307e9}
#: Budgets. Four sizes, and a factor of 4: what is equal each at one budget is equal total at the next.
BUDGETS = (100, 400, 1600)
#: Factors of the recipe's learning rates that --sweep tries, in this order.
RATES = (1, 2, 0.5, 4, 8)
#: The method whose students also have the largest budget each. For all methods it would cost more than all the rest.
LARGEST_EACH = "KD"
#: The sizes of the costliest students: those with the largest budget each, and from the middle budget on those that
#: learn from people's texts alone.
FEWER = ("2x", "6x")
#: Steps whose operations are counted, spread over a training; their texts; and the examples that these are taken from.
COUNTED, COUNTED_TEXTS, COUNTED_EXAMPLES = 100, (4, 16), 20_000
#: Steps whose assemblies the fingerprint of a training holds.
DRAWN = 200
#: Probability that LayerDrop skips a layer.
LAYER_DROP = 0.5
DEV_INPUTS = 600

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
    #: of the recipe's learning rates: the best of RATES on dev
    rate: float = 1
    #: what differs from the defaults of ModularTrainingArguments
    options: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "kit": Method(for_all=True, options={"assemblies_per_step": 4}),
    "KD": Method(),
    "sequence-level KD": Method("original", options=LABELS),
    "SFT": Method("people", options=LABELS),
    "SFT, alternating layers": Method("people", start="alternating", options=LABELS),
    "Theseus": Method("people", options=LABELS | {"mixtures": 1.0, "whole": 0.0, "coarse_at": 0.0}),
    "LayerDrop": Method("people", for_all=True),
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


def sizes_of(mapping: Mapping) -> dict[str, Assembly]:
    """Size first at 2x, 3x and 6x, and a full encoder with the smallest decoder."""
    sizes = {f"{ratio}x": choose(mapping, ratio, "size_first") for ratio in (2, 3, 6)}
    return sizes | {"fast": Assembly(mapping.encoder.original, mapping.coarsest.decoder)}


def plan(sizes: dict[str, Assembly], budgets: Sequence[float], seeds: Sequence[int]) -> list[Run]:
    """All trainings, the cheapest first; each method's cheapest ones have all seeds."""
    runs = [Run("untrained", "", 0, 0)]
    middle, largest = middle_of(budgets), max(budgets)
    for name, method in METHODS.items():
        if name == "untrained":
            continue
        costs = set(budgets) if method.for_all else {*budgets, *(budget / len(sizes) for budget in budgets)}
        for cost, size in itertools.product(costs, [""] if method.for_all else sizes):
            costly = cost == largest or (cost >= middle and method.texts == "people")
            if size and (
                (costly and size not in FEWER)
                or (cost == largest and name != LARGEST_EACH)
                or (method.start == "alternating" and not differs(sizes[size]))
            ):
                continue
            runs += [Run(name, size, cost, seed, method.rate) for seed in (seeds if cost == min(costs) else seeds[:1])]
    return sorted(runs, key=lambda run: (run.cost, run.seed))


def middle_of(budgets: Sequence[float]) -> float:
    return sorted(budgets)[len(budgets) // 2]


def ablation(budgets: Sequence[float]) -> list[Run]:
    """Kits that learn otherwise, at the middle budget."""
    return [Run(name, "", middle_of(budgets), 0, METHODS["kit"].rate) for name in ABLATIONS]


def sweep(budgets: Sequence[float]) -> list[Run]:
    """Each method with each learning rate, at 2x and the smallest budget."""
    return [
        Run(name, "" if method.for_all else "2x", min(budgets), 0, rate)
        for rate in RATES
        for name, method in METHODS.items()
        if name != "untrained"
    ]


def is_beyond(rate: float, tried: dict[float, float]) -> bool:
    """Whether one of the rates that were ``tried`` (their scores on dev) lies between this one and the best of them."""
    best = max(tried, key=lambda other: tried[other], default=rate)
    return any(min(rate, best) < other < max(rate, best) for other in tried)


# -- training ----------------------------------------------------------------------------------------------------------


class Comparison:
    """What all trainings have in common."""

    def __init__(self, model: str, data: str | None, pairs: Path | None) -> None:
        self.model = model
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
        # Not the texts: another machine rounds otherwise, and so writes a few others.
        self._operations: dict[tuple[str, str], float] = {}
        self.pairs_fingerprint = hashlib.sha256(json.dumps([pair.source for pair in self.written]).encode()).hexdigest()

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
        return modular

    def fingerprint(self, run: Run) -> str:
        """Of what a training depends on, apart from the code of its steps."""
        given = asdict(replace(EVERYTHING[run.method], rate=1))
        method = {name: value for name, value in given.items() if value != getattr(Method(), name)}
        about = [self.original_fingerprint, self.pairs_fingerprint, method, repr(self.recipe.kit)]
        about.append(UNITS.get(self.model))
        args = self.arguments(replace(run, rate=1), DRAWN, Path("any"))
        if isinstance(args, modtf.ModularTrainingArguments):
            schedule = args.schedule(self.mapping, DRAWN)
            about += [getattr(args, name) for name in ("temperature", *(f"{loss}_weight" for loss in LOSSES))]
            about += [str(schedule.draw_several(step, args.assemblies_per_step)) for step in range(DRAWN)]
        else:
            about.append(LAYER_DROP)
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def claim(self, run: Run, folder: Path) -> None:
        """Mark the folder of a training as this run's; raises :class:`ModtfError` if one of other settings began there."""
        folder.mkdir(parents=True, exist_ok=True)
        mark, of = folder / "of.txt", self.fingerprint(run)
        if not mark.exists() and not any(folder.iterdir()):
            mark.write_text(of)
        if not mark.exists() or mark.read_text() != of:
            raise ModtfError(f"a training of other settings began in {folder}; remove that folder")

    def check(self, done: dict[Run, dict[str, Any]]) -> None:
        """Refuse results that say nothing about the bundled original, these texts and these methods."""
        for run, result in done.items():
            if run.method not in EVERYTHING or result["of"] != self.fingerprint(run):
                raise ModtfError(
                    f"{run.name} is of another original, other texts or other settings; remove its folder in "
                    f"build/versus/{self.model}, and benchmarks/versus-{self.model}.jsonl.xz if it is there"
                )

    def examples(self, texts: str) -> Sequence[Example]:
        if texts == "both":
            return with_texts_of_the_original(self.people, self.written)
        return self.people if texts == "people" else self.written

    def arguments(self, run: Run, steps: int, folder: Path) -> Any:
        given = {
            "output_dir": str(folder), "max_steps": steps, "learning_rate": self.recipe.kit.learning_rate * run.rate,
            "warmup_steps": min(100, steps // 10), "lr_scheduler_type": "linear", "seed": run.seed, "report_to": "none",
            "save_steps": max(200, steps // 10), "save_total_limit": 1, "logging_steps": 50, "disable_tqdm": True,
            "use_cpu": not torch.cuda.is_available(), "bf16": fast_bf16(), "dataloader_pin_memory": False,
            **WHOLE_BATCHES,
        }  # fmt: skip
        if run.method == "LayerDrop":
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
        args = self.arguments(replace(run, seed=0), COUNTED, ROOT / "build" / "versus" / "counted")
        if run.method == "LayerDrop":
            model: Any = drop_layers(self.original().requires_grad_(True))
            trainer: Any = transformers.Seq2SeqTrainer(model, args)
        else:
            model = self.modular(run)
            trainer = modtf.ModularTrainer(model, args)
        encode_sources_once(model if run.method == "LayerDrop" else model.model)
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
        counted = run.method, run.size
        if counted not in self._operations:
            self._operations[counted] = self.operations(run, batch_size)
        return max(1, round(run.cost * UNITS[self.model] / self._operations[counted]))

    def train(self, run: Run, folder: Path) -> dict[str, Any]:
        """Train it, or go on with it, and write its texts for dev and test."""
        if run.method == "untrained":
            return self.result(run, self.modular(run), 0, 0.0)
        self.claim(run, folder)
        settings, examples = self.recipe.kit, self.examples(EVERYTHING[run.method].texts)
        transformers.set_seed(run.seed)
        steps = self.steps(run, settings.batch_size)
        args, adamw = self.arguments(run, steps, folder), settings.adamw_learning_rate * run.rate
        if run.method == "LayerDrop":
            model = drop_layers(self.original().requires_grad_(True))
            train_original(model, self.tokenizer, self.task, examples, args, settings.batch_size, adamw)
            kept = self.original()
            kept.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
            modular = modtf.modularize(
                kept, self.mapping.encoder.granularities, decoder_granularities=self.mapping.decoder.granularities,
                tokenizer=self.tokenizer, task=self.task.name,
            )  # fmt: skip
        else:
            modular = self.modular(run)
            train_kit(modular, self.task, examples, args, settings.batch_size, adamw)
        # Its seconds are those of all parts, if the training was resumed.
        record = json.loads((folder / "training.json").read_text())
        return self.result(run, modular, steps, record["seconds"], record["bf16"])

    def result(
        self, run: Run, modular: ModularModel, steps: int, seconds: float, bf16: bool | None = None
    ) -> dict[str, Any]:
        """What is written down: of the untrained modules also the original's texts, as the size 1x."""
        modular.eval()
        sizes = {run.size: self.sizes[run.size]} if run.size else self.sizes
        if run.method == "untrained":
            sizes = {"1x": self.mapping.original} | sizes
        texts = {
            size: {
                split: write_texts(modular, assembly, [example.source for example in of_split])
                for split, of_split in (("dev", self.dev), ("test", self.test))
            }
            for size, assembly in sizes.items()
        }
        cost = {"steps": steps, "seconds": seconds, "bf16": bf16}
        return {**asdict(run), **cost, "of": self.fingerprint(run), "texts": texts}

    def megabytes(self) -> dict[str, float]:
        """Of the weights, stored in half precision: of one kit, and of a student of each size."""
        kit = modtf.load(self.model)
        students = sum(size_of(kit.assemble(assembly=assembly)).parameters for assembly in self.sizes.values())
        parameters = {"kit": sum(weight.numel() for weight in kit.parameters()), "students": students}
        return {name: round(2 * count / 1e6, 1) for name, count in parameters.items()}

    def on_dev(self, result: dict[str, Any]) -> dict[str, float]:
        """Scores on dev, the mean over the sizes of the training."""
        scores = [self.task.score(self.dev, texts["dev"]) for texts in result["texts"].values()]
        return {name: round(float(np.mean([of_size[name] for of_size in scores])), 2) for name in scores[0]}

    def on_dev_by_rate(self, done: dict[Run, dict[str, Any]], runs: Sequence[Run]) -> dict[float, float]:
        """The score that decides: BLEU, or slot errors (negative: fewer are better) where the task has slots."""
        scores = {run.rate: self.on_dev(done[run]) for run in runs if run in done}
        return {rate: -of_rate["ser"] if "ser" in of_rate else of_rate["bleu"] for rate, of_rate in scores.items()}


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

    T5's first layer makes the position biases of all.
    """

    def __iter__(self) -> Any:
        for number, layer in enumerate(super().__iter__()):
            if not self.training or number == 0 or torch.rand(()) >= LAYER_DROP:
                yield layer


def drop_layers(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    architecture = architecture_of(model)
    for stack in stacks_of(model):
        setattr(stack, architecture.layers, Dropping(getattr(stack, architecture.layers)))
    return model


# -- results -----------------------------------------------------------------------------------------------------------


def scored(comparison: Comparison, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each training and size, with its scores, and the difference from the kit at equal total and each.

    A difference has its 95 % interval: a paired bootstrap over the inputs of the test set. ``total`` is the cost of
    having all sizes.
    """
    task, test, rows = comparison.task, comparison.test, []
    scores = {
        (Run.of(result), size): drawn_scores(task, test, texts["test"])
        for result in results
        for size, texts in result["texts"].items()
    }
    for result in results:
        run = Run.of(result)
        trainings = 1 if EVERYTHING[run.method].for_all else len(comparison.sizes)
        for size, texts in result["texts"].items():
            row = {**asdict(run), "size": size, "total": run.cost * trainings}
            row |= {name: result[name] for name in ("steps", "seconds")}
            for split, examples in (("dev", comparison.dev), ("test", test)):
                row[split] = {name: round(value, 2) for name, value in task.score(examples, texts[split]).items()}
            for name, cost in (("equal_total", row["total"]), ("equal_each", run.cost)):
                kit = Run("kit", "", cost, run.seed, METHODS["kit"].rate), size
                if kit in scores and run.method != "kit":
                    row[name] = differences(scores[run, size], scores[kit])
            rows.append(row)
    return rows


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
    lines = []
    for account, which, budget in accounts:
        for name, method in METHODS.items():
            found = {row["size"]: row for row in rows if row["method"] == name and row[which] == budget}
            again = method.for_all and account == "equal_each" and (name != "kit" or budget == largest)
            if found and not again:
                share = "" if method.for_all else "together " if account == "equal_total" else "each "
                scores = {
                    f"{size} ({Assembly.from_json(assembly).shape})": _cell(found.get(size), account, metric.key)
                    for size, assembly in made["sizes"].items()
                }
                cost = f"{budget * made['unit_operations'] / 1e12:,.0f}"
                lines.append({"": name, "cost (TFLOP)": share + cost, **scores})
    return f"{metric.name}, and in brackets less the kit's at the same cost (95 % interval):\n\n{grid(lines)}"


def _cell(row: dict[str, Any] | None, account: str, key: str) -> str:
    """A score and its distance from the kit's, in bold where that is more than the choice of inputs explains."""
    if row is None:
        return ""
    difference = row.get(account)
    if difference is None:
        return f"{row['test'][key]:.1f}"
    low, high = difference[f"{key}_interval"]
    words = f"{difference[key]:+.1f}, {low:+.1f} to {high:+.1f}"
    return f"{row['test'][key]:.1f} ({f'**{words}**' if low > 0 or high < 0 else words})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    parser.add_argument("--pairs", type=Path, help="the original's texts (default: the bundled ones, which are few)")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, help="in steps of a kit")
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2), help="larger budgets have the first alone")
    parser.add_argument("--methods", nargs="+", choices=EVERYTHING, help="(default: all)")
    parser.add_argument("--part", default="1/1", help="which of several scripts that share the work this one is")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--sweep", action="store_true", help="try learning rates instead")
    instead.add_argument("--ablation", action="store_true", help="train kits that learn otherwise instead")
    instead.add_argument("--report", action="store_true", help="write data/<model>/versus.json from what is done")
    options = parser.parse_args()
    use_cpu_well(1)
    transformers.logging.disable_progress_bar()
    comparison = Comparison(options.model, options.data, options.pairs)
    folder = ROOT / "build" / "versus" / options.model
    tried, otherwise = sweep(options.budgets), ablation(options.budgets)
    wanted = plan(comparison.sizes, options.budgets, options.seeds)
    if options.sweep or options.ablation:
        wanted = tried if options.sweep else otherwise
    archive = ROOT / "benchmarks" / f"versus-{options.model}.jsonl.xz"
    done = read_archive(archive)
    for run in (*wanted, *tried, *otherwise):
        if (path := folder / run.name / "result.json").exists():
            done[run] = json.loads(path.read_text(encoding="utf-8"))
    comparison.check(done)
    if options.report:
        report(comparison, wanted, tried, otherwise, done)
        write_archive(archive, done)
        return
    part, parts = map(int, options.part.split("/"))
    if not 1 <= part <= parts:
        raise ModtfError(f"--part is {options.part}; give 1/2 and 2/2 to two scripts, for example")
    for number, run in enumerate(wanted):
        result = folder / run.name / "result.json"
        # All rates of a method are tried by one script, which knows the results of the others.
        place = list(METHODS).index(run.method) if options.sweep else number
        if place % parts == part - 1 and run.method in (options.methods or EVERYTHING) and run not in done:
            alike = [other for other in wanted if (other.method, other.seed) == (run.method, run.seed)]
            if options.sweep and is_beyond(run.rate, comparison.on_dev_by_rate(done, alike)):
                continue
            made = comparison.train(run, folder / run.name)
            result.parent.mkdir(parents=True, exist_ok=True)
            new = result.with_suffix(".new")
            new.write_text(json.dumps(made, ensure_ascii=False) + "\n", encoding="utf-8")
            new.replace(result)
            done[run] = made
            print(f"{run.name}: {made['steps']} steps in {made['seconds']} s", flush=True)


def read_archive(path: Path) -> dict[Run, dict[str, Any]]:
    """The results of trainings that were done before, perhaps elsewhere."""
    if not path.exists():
        return {}
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return {Run.of(result): result for result in map(json.loads, lines)}


def write_archive(path: Path, results: dict[Run, dict[str, Any]]) -> None:
    new = path.with_suffix(".new")
    with lzma.open(new, "wt", encoding="utf-8", preset=9) as file:
        file.writelines(json.dumps(result, ensure_ascii=False) + "\n" for result in results.values())
    new.replace(path)


def report(
    comparison: Comparison,
    wanted: Sequence[Run],
    tried: Sequence[Run],
    otherwise: Sequence[Run],
    done: dict[Run, dict[str, Any]],
) -> None:
    """Write versus.json, and the table in the README and the model card."""
    results = [done[run] for run in wanted if run in done]
    kits = [run for run in wanted if run.method == "kit"]
    made = {
        "made_by": "benchmarks/versus.py",
        "original": comparison.original_fingerprint,
        "of": len(wanted), "done": len(results), "examples": len(comparison.test), "draws": DRAWS,
        "unit_operations": UNITS[comparison.model],
        "megabytes": comparison.megabytes(),
        "sizes": {name: assembly.to_json() for name, assembly in comparison.sizes.items()},
        "rows": scored(comparison, results),
        "sweep": [
            {"method": run.method, "rate": run.rate} | comparison.on_dev(done[run]) for run in tried if run in done
        ],
        "ablation": [
            row for row in scored(comparison, [done[run] for run in (*otherwise, *kits) if run in done])
            if row["method"] in ABLATIONS
        ],
    }  # fmt: skip
    folder = ROOT / "data" / comparison.model
    (folder / "versus.json").write_text(json.dumps(made, indent=1) + "\n")
    if any(run.method == "kit" for run in map(Run.of, results)):
        for page in (ROOT / "README.md", folder / "README.md"):
            if page.is_file():
                insert(page, f"benchmarks/versus.py {comparison.model}", markdown(made, comparison.task.metrics))


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
