"""What a kit is worth, on data: `modtf evaluate` and `modtf profile`."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtf.bundled import BUNDLED_MODELS
from modtf.commands.data import (
    as_in_training,
    check_configuration,
    check_writable,
    device,
    hide_loading,
    load_model,
    moving,
    read_examples,
    recorded_options,
)
from modtf.errors import ModtfError

if TYPE_CHECKING:
    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.quality import Profile
    from modtf.tasks import Example, Task
    from modtf.tasks.task import Metric


#: By default evaluated, where a kit can be assembled to them.
_RATIOS = (1, 2, 3, 4, 6)


def evaluate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from modtf.evaluation import measure_quality
    from modtf.saving import write_whole
    from modtf.tasks import task_named

    if options.json:
        folder = options.json.absolute().parent
        if not folder.is_dir():
            raise ModtfError(f"--json {options.json}: there is no folder {folder}; create it first")
        if options.json.is_dir():
            raise ModtfError(f"--json {options.json} is a folder; give a file")
        check_writable("--json", folder)
    if options.beams < 1:
        raise ModtfError(f"--beams is {options.beams}; give 1 or more")
    as_original = _is_original(options.model)
    modular = (_original if as_original else load_model)(options).to(device())
    task = task_named(modular.task)
    metrics = chosen_metrics(task, options.metrics)
    if as_original and options.ratios not in (None, [1]):
        raise ModtfError(
            f"{options.model} is an original, of one size; leave out --ratios, or train a kit for it first"
        )
    ratios = options.ratios or [ratio for ratio in _RATIOS if ratio <= modular.mapping.maximum_ratio]
    chosen = dict.fromkeys(modular.choose(ratio, strategy) for ratio in ratios for strategy in options.strategies)
    as_in_training(options)
    check_configuration(options)
    if options.split and options.data and Path(options.data).is_file():
        raise ModtfError(f"--split has no effect on one file, {options.data}; leave it out")
    split = options.split or task.test_split
    examples = read_examples(options, task, split, modular.model, modular.tokenizer, modular.prefix)
    rows = []
    print(f"{'layers':>7} {'ratio':>6} {''.join(f'{metric.name:>13}' for metric in metrics)}  assembly")
    for assembly in chosen:
        with tqdm(total=len(examples), desc=assembly.shape, leave=False, file=sys.stderr, disable=None) as bar:
            scores = measure_quality(modular, assembly, examples, progress=moving(bar), num_beams=options.beams)
        values = "".join(f"{scores[metric.key]:13.2f}" for metric in metrics)
        print(f"{assembly.shape:>7} {assembly.ratio:6.2f} {values}  {assembly}", flush=True)
        rows.append({"assembly": assembly.to_json(), "ratio": assembly.ratio, **scores})
    if options.json:
        record = {
            "model": options.model,
            "task": task.name,
            "split": split,
            "examples": len(examples),
            "beams": options.beams,
            "rows": rows,
        }
        write_whole(options.json, json.dumps(record, indent=2) + "\n")


def _is_original(model: str) -> bool:
    from modtf.saving import INDEX

    return (
        model not in BUNDLED_MODELS and (Path(model) / "config.json").is_file() and not (Path(model) / INDEX).is_file()
    )


def _original(options: argparse.Namespace) -> ModularModel:
    """A model of which there is no kit yet, as one that is not trained."""
    from modtf.modular import modularize
    from modtf.training.runs import load_original, load_tokenizer, write_in

    hide_loading()
    recorded = {"task": "text", "source_prefix": ""} | recorded_options(options)
    task = recorded["task"] if options.task is None else options.task
    original, tokenizer = load_original(options.model), load_tokenizer(options.model)
    write_in(original, tokenizer)
    return modularize(original, [], tokenizer=tokenizer, task=task, prefix=recorded["source_prefix"])


def chosen_metrics(task: Task, keys: Sequence[str] | None) -> Sequence[Metric]:
    """The metrics of a task with these keys, or all of them."""
    known = {metric.key: metric for metric in task.metrics}
    for key in keys or ():
        if key not in known:
            raise ModtfError(f"--metrics {key} is no metric of the task {task.name!r}; it has {', '.join(known)}")
    return [known[key] for key in keys] if keys else task.metrics


def profile(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from modtf.profile import machine, time_layers
    from modtf.quality import FILE
    from modtf.tasks import task_named
    from modtf.tasks.examples import spread

    if options.inputs < 1:
        raise ModtfError(f"--inputs is {options.inputs}; give 1 or more")
    modular = load_model(options).to(device())
    folder, task = modular.folder, task_named(modular.task)
    before = modular.profile if options.times else None
    as_in_training(options)
    check_configuration(options)
    examples = spread(
        read_examples(options, task, options.split, modular.model, modular.tokenizer, modular.prefix), options.inputs
    )
    try:
        if before is not None:
            times = time_layers(modular, examples)
            profile = replace(before, milliseconds=times, machine=machine(modular))
            profile.save(folder)
        else:
            profile = _measured_profile(modular, examples, options.seed, folder / f"{FILE}.part")
            profile.save(folder)
            (folder / f"{FILE}.part").unlink()
    except OSError as error:
        raise ModtfError(f"no profile can be written to {folder}: {error}; copy the kit to another folder") from error
    for assembly, kept in sorted(profile.kept.items(), key=lambda item: -item[0].layers):
        print(
            f"{assembly.ratio:5.2f}x  {profile.loss(assembly):.4f} nats a token, {kept:5.1f} % of the scores, "
            f"{profile.latency_ms(assembly):5.1f} ms  {assembly}"
        )
    print(
        f"{folder / FILE}: it ranks assemblies that were not measured with a correlation of "
        f"{profile.held_out['rank_correlation']:.2f} (1 is perfect)"
    )


def _measured_profile(modular: ModularModel, examples: Sequence[Example], seed: int, unfinished: Path) -> Profile:
    """Goes on with what an interrupted run left in the file ``unfinished``."""
    from tqdm import tqdm

    from modtf.profile import measure
    from modtf.saving import fingerprint_of

    inputs = hashlib.sha256(json.dumps([[e.source, *e.references] for e in examples]).encode()).hexdigest()
    banks, original = fingerprint_of(modular.bank_weights()), fingerprint_of(modular.original_weights())
    about = {"banks": banks, "original": original, "inputs": inputs, "seed": seed, "of": "losses"}
    known = _read_measured(unfinished, about)
    with (
        unfinished.open("a", encoding="utf-8") as file,
        tqdm(initial=len(known), unit=" assemblies", disable=None) as bar,
    ):

        def measured(assembly: Assembly, value: float) -> None:
            file.write(json.dumps([str(assembly), value], ensure_ascii=False) + "\n")
            file.flush()
            bar.update()

        return measure(modular, examples, seed=seed, known=known, progress=measured)


def _read_measured(path: Path, about: dict[str, Any]) -> dict[Assembly, float]:
    """The losses that an interrupted run with the same settings measured; begins a new file otherwise."""
    from modtf.mapping import Assembly

    first, *lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else [""]
    if first != json.dumps(about):
        path.write_text(json.dumps(about) + "\n", encoding="utf-8")
        return {}
    complete = [line for line in lines if line.endswith("]")]  # the last one may be cut off
    path.write_text("".join(f"{line}\n" for line in (first, *complete)), encoding="utf-8")
    return {Assembly.parse(text): value for text, value in map(json.loads, complete)}
