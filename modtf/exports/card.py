"""The model card of an export: what it was made of, what was measured, how it is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import ModelCard
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from modtf.architectures import longest_texts
from modtf.bundled import BUNDLED_MODELS
from modtf.compiled import UNSET, options_of
from modtf.errors import ModtfError
from modtf.evaluation import measured_table, size_of_assembly
from modtf.exports.check import Check, single_words
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.profile import machine
from modtf.tasks import task_named

CARD = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was written: one assembly in one format."""

    #: of its folder
    name: str
    assembly: Assembly
    to: str
    precision: str
    #: on disk, tokenizer and all
    megabytes: float
    #: None where there were no inputs, or no engine, to check it with
    check: Check | None
    unchecked: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "assembly": str(self.assembly),
            "ratio": self.assembly.ratio,
            "layers": self.assembly.shape,
            "megabytes": round(self.megabytes, 2),
            "check": self.check and asdict(self.check),
        }


_CARD = """---
library_name: {to}
tags: [modular-transformers, {model_type}]
---

# {title}

{lines}

```python
{how}
```

{licence}
"""
_KIT = "[modtf](https://github.com/modtf/modtf)"


def model_card(modular: ModularModel, exported: Exported, how: str, source: str) -> str:
    """The text of a model card in Markdown; ``source`` as in :func:`lines_of`."""
    assembly, stacks = exported.assembly, modular.mapping.stacks
    size = size_of_assembly(modular, assembly)
    kit = _name_of(modular)
    about = [
        f"made of: `{assembly}`, one size of {kit}, a kit of {_KIT}; ratio {assembly.ratio:.3g}",
        f"layers: {assembly.shape}, of {stacks[0].depth}-{stacks[1].depth}; the model type is "
        f"{modular.architecture.model_type}",
        f"parameters: {size.parameters:,}, {size.without_embeddings:,} of them without embeddings",
        f"precision: {exported.precision}; {exported.megabytes:.1f} MB on disk",
        f"measured by modtf in full precision: {scores_of(modular, assembly)}",
        f"checked as it was written ({machine(modular)}): {exported.check or f'no: {exported.unchecked}'}",
    ]
    longest = min(modular.tokenizer.model_max_length, longest_texts(modular.model)[0] or VERY_LARGE_INTEGER)
    if longest < VERY_LARGE_INTEGER:
        about.append(f"reads sources of up to {longest} tokens")
    if modular.prefix:
        about.append(f"each source begins with `{modular.prefix}`")
    return _CARD.format(
        to=exported.to,
        model_type=modular.architecture.model_type,
        title=f"{kit} {assembly.ratio:.3g}x for {exported.to}",
        lines="\n".join(f"- {line}" for line in about),
        how=lines_of(modular, exported.name, how, source),
        licence=_licence(modular),
    )


def _name_of(modular: ModularModel) -> str:
    return Path(modular.source).name if modular.source else "a kit"


def _licence(modular: ModularModel) -> str:
    if modular.source in BUNDLED_MODELS:
        about: Any = ModelCard.load(modular.folder / CARD).data
        return f"Licence: {about.license}, by the modtf authors; where the data are from is in the card of the kit."
    return "Licence: for the owner of these weights to state; those of the original and of its training data apply."


def lines_of(modular: ModularModel, folder: str, how: str, source: str = "...") -> str:
    """The lines with which a format is used, for this model and folder; with ``source`` where its task has no first one."""
    source = task_named(modular.task).first or source
    config: Any = modular.generation_config
    settings = {"options": "", "forced": "", "never": ""}
    if config.forced_bos_token_id is not None:
        settings["forced"] = "\n    if len(tokens) == 2:\n        tokens[1] = config.forced_bos_token_id"
    if never := single_words(config):
        settings["never"] = f"    logits[:, {never}] = -np.inf\n"
    if "$options" in how:
        options = options_of(config, modular.tokenizer)
        if options["target_prefix"]:
            options["target_prefix"] = [options["target_prefix"]]
        settings["options"] = "".join(f", {name}={value!r}" for name, value in options.items() if value != UNSET[name])
    return Template(how.strip()).substitute(
        folder=folder,
        source=json.dumps(modular.prefixed(source), ensure_ascii=False),
        longest=modular.longest,
        words=modular.config.vocab_size,
        **settings,
    )


def scores_of(modular: ModularModel, assembly: Assembly) -> str:
    """What the kit's measured table says of an assembly, or else its profile."""
    table, _ = measured_table(modular)
    rows = [row for row in (table or {"rows": []})["rows"] if row["trained"]]
    row = next((row for row in rows if Assembly.from_json(row["assembly"]) == assembly), None)
    if row is None:
        with suppress(ModtfError):
            if assembly in modular.profile.kept:
                return (
                    f"keeps at least {modular.profile.kept[assembly]:.1f} % of each of the full model's scores on dev"
                )
        return "not this size"
    task = task_named(modular.task)
    scores = ", ".join(
        f"{metric.name} {row[metric.key]}" + ("" if metric.errors else f" ({row[metric.field]} % of the full model's)")
        for metric in task.metrics
        if metric.field in row
    )
    return f"{scores}, on {task.test_inputs}"


def card_of_sizes(modular: ModularModel, sizes: Sequence[Exported], how: str, source: str) -> str:
    """The card of a folder that holds several sizes, each with a card of its own."""
    lines = ["| folder | layers | ratio | MB | equal texts | ms a text |", "|---|---|---|---|---|---|"]
    for size in sizes:
        found = size.check
        checked = [f"{found.equal} of {found.inputs}", f"{found.milliseconds:.1f}"] if found else ["", ""]
        cells = [f"[{size.name}]({size.name}/README.md)", size.assembly.shape, f"{size.assembly.ratio:.3g}"]
        lines.append(f"| {' | '.join([*cells, f'{size.megabytes:.1f}', *checked])} |")
    kit = _name_of(modular)
    return (
        f"---\nlibrary_name: {sizes[0].to}\ntags: [modular-transformers, {modular.architecture.model_type}]\n---\n\n"
        f"# {kit} for {sizes[0].to}, {sizes[0].precision}\n\nSizes of one kit of {_KIT}; `sizes.json` has the same for "
        "programs. Equal texts are those that the size writes in full precision, too.\n\n" + "\n".join(lines) + "\n\n"
        f"```python\n{lines_of(modular, sizes[0].name, how, source)}\n```\n"
    )
