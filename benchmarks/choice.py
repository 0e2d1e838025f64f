"""What `quality_first` is worth on a bundled model: is its forecast right, and does it choose better than the others?

    python benchmarks/choice.py --model translator --data <folder of the data of the model's task>

writes data/<model>/choice.json. First, random assemblies that the profile's fit has not seen: the rank correlations
(Spearman) of the loss that the fit predicts for them, and of the measured one, with their scores on dev. Then,
for each number of layers, the strategies' assemblies on the test set, and the difference of quality_first from each
other strategy with its 95 % interval (paired bootstrap over the inputs).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd
import torch

import modtf
from modtf.bootstrap import differences, drawn_scores
from modtf.bundled import BUNDLED_MODELS
from modtf.commands.data import data_folder
from modtf.errors import ModtfError
from modtf.evaluation import write_texts
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.profile import Losses, random_assembly
from modtf.strategies import QUALITY_FIRST, STRATEGIES
from modtf.tasks import Example, task_named
from modtf.tasks.examples import spread

ROOT = Path(__file__).parents[1]
#: Random assemblies, drawn with another seed than those of the profile.
RANDOM, SEED = 60, 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="translator", choices=BUNDLED_MODELS)
    parser.add_argument("--data", help="(default: the folder that the task's environment variable names)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    modular = modtf.load(options.model)
    task = task_named(modular.task)
    folder = options.data or data_folder(task)
    made = {
        "made_by": "benchmarks/choice.py",
        "forecast": forecast(modular, task.read_data(folder, "dev")),
        "layers": by_layers(modular, task.read_data(folder, task.test_split)),
    }
    (ROOT / "data" / options.model / "choice.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def forecast(modular: ModularModel, examples: list[Example]) -> dict[str, Any]:
    """Rank correlations of the predicted and the measured loss with each score; near -1 where more is better.

    And the scores between which eight of ten assemblies lie, and the rank correlation that chance leaves possible: the
    scores are of few inputs, so even a forecast of the true ones would not rank them perfectly. It is the root of their
    reliability, which follows from the agreement of two halves of the inputs (Spearman, Brown, 1910).
    """
    rng, drawn = Random(SEED), dict[Assembly, None]()
    while len(drawn) < RANDOM:
        assembly = random_assembly(rng, modular.mapping)
        if assembly not in modular.profile.losses:
            drawn[assembly] = None
    predicted = [modular.profile.fit.predicted(assembly) for assembly in drawn]
    losses = Losses(modular, spread(examples, modular.profile.examples))
    scores, of_halves = [], []
    for assembly in drawn:
        of_all, *halves = quality(modular, assembly, examples)
        scores.append({"loss": losses.of(assembly), **of_all})
        of_halves.append(halves)
        print(f"{assembly}: {scores[-1]}", flush=True)
    table = pd.DataFrame(scores)
    ranks = table.rank()
    first, second = (pd.DataFrame(half) for half in zip(*of_halves, strict=True))
    agreement = {name: max(0.0, first[name].rank().corr(second[name].rank())) for name in first}
    return {
        "assemblies": RANDOM, "examples": len(examples),
        "rank_correlation": {name: round(ranks[name].corr(pd.Series(predicted).rank()), 3) for name in table},
        "rank_correlation_of_the_measured": {
            name: round(ranks[name].corr(ranks["loss"]), 3) for name in table if name != "loss"
        },
        "rank_correlation_possible": {
            name: round(math.sqrt(2 * r / (1 + r)), 3) for name, r in agreement.items()
        },
        "eight_of_ten": {name: table[name].quantile([0.1, 0.9]).round(3).tolist() for name in table},
    }  # fmt: skip


def quality(modular: ModularModel, assembly: Assembly, examples: list[Example]) -> list[dict[str, float]]:
    """Scores of all inputs, and of two halves of them."""
    task, texts = task_named(modular.task), write_texts(modular, assembly, [example.source for example in examples])
    return [task.score(examples[part], texts[part]) for part in (slice(None), slice(0, None, 2), slice(1, None, 2))]


def by_layers(modular: ModularModel, examples: list[Example]) -> list[dict[str, Any]]:
    """For each number of layers that all strategies reach: their assemblies, scores and differences."""
    task, sources, scores = task_named(modular.task), [example.source for example in examples], {}
    rows = []
    for ratio in modular.mapping.ratios():
        chosen = {name: modular.choose(ratio, name) for name in (*STRATEGIES, QUALITY_FIRST)}
        if len({assembly.layers for assembly in chosen.values()}) > 1:
            continue
        for assembly in chosen.values():
            if assembly not in scores:
                scores[assembly] = drawn_scores(task, examples, write_texts(modular, assembly, sources))
        ours = scores[chosen[QUALITY_FIRST]]
        rows.append({
            "layers": chosen[QUALITY_FIRST].layers,
            "assemblies": {name: str(assembly) for name, assembly in chosen.items()},
            "scores": {
                name: {key: round(float(values[0]), 2) for key, values in scores[assembly].items()}
                for name, assembly in chosen.items()
            },
            "differences": {name: differences(ours, scores[chosen[name]]) for name in STRATEGIES},
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    try:
        main()
    except ModtfError as error:
        sys.exit(str(error))
