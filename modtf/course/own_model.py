"""Notebook 7, your own model: a small model and faulty data to begin with, checks of its exercises, and its figures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from transformers import AutoModelForSeq2SeqLM, BartConfig, PreTrainedModel, T5Config, set_seed

from modtf.mapping import Assembly
from modtf.modular import ModularModel, load, modularize
from modtf.tasks import E2E, TEXT
from modtf.tasks.e2e import parse_mr
from modtf.views.figures import before_and_after, described
from modtf.views.report import course_figure

#: Rows of the three splits that are not for training, and the longest inputs (attributes) among all.
_TEST, _DEV, _ATTRIBUTES = 200, 100, 6
_SIX = {"encoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_layers": 6, "decoder_ffn_dim": 3072}
#: Shapes of models to count with; no weights are downloaded for them.
SHAPES = {
    "BART-base": BartConfig(d_model=768, **_SIX),
    "T5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0),
    "T5-large": T5Config(d_model=1024, d_ff=4096, num_layers=24, num_heads=16, decoder_start_token_id=0),
}


# -- a model and data --------------------------------------------------------------------------------------------------


def small_model(family: str, encoder: int, decoder: int) -> PreTrainedModel:
    """A T5 or BART of so many layers, narrow enough for a laptop, with random weights and `pocket`'s vocabulary."""
    set_seed(0)
    shared = {"vocab_size": len(load("pocket").tokenizer), "d_model": 64, "pad_token_id": 0, "eos_token_id": 1}
    config: T5Config | BartConfig
    if family == "t5":
        sizes = {"num_layers": encoder, "num_decoder_layers": decoder, "d_kv": 16, "d_ff": 256, "num_heads": 4}
        config = T5Config(**shared, **sizes, decoder_start_token_id=0, dropout_rate=0.0)
    else:
        sizes = {"encoder_layers": encoder, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}
        sizes |= {"decoder_layers": decoder, "decoder_attention_heads": 4, "decoder_ffn_dim": 256}
        ids = {"bos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
        config = BartConfig(**shared, **sizes, **ids, max_position_embeddings=256, init_std=0.05, dropout=0.0)
    return AutoModelForSeq2SeqLM.from_config(config)


def write_model(folder: str | Path, family: str) -> None:
    """A small model of 6 + 6 layers and its tokenizer, in a folder."""
    small_model(family, 6, 6).save_pretrained(folder)
    load("pocket").tokenizer.save_pretrained(folder)


def write_data(folder: str | Path) -> None:
    """A folder with a file for each split: restaurants' attributes, and the texts that `pocket` wrote for them.

    ``train.jsonl`` has three faults: a row without a text, one into which thirty texts were pasted, and one that was
    saved in another encoding.
    """
    bundled = [example for name in ("pairs", "evaluation") for example in E2E.bundled_examples(name)]
    texts = {one.source: one.references[0] for one in bundled if len(parse_mr(one.source)) <= _ATTRIBUTES}
    rows = [{"mr": source, "text": text} for source, text in texts.items()]
    held = _TEST + _DEV
    pasted = rows[held + 1] | {"text": " ".join([rows[held + 1]["text"]] * 30)}
    splits = {"test": rows[:_TEST], "dev": rows[_TEST:held], "train": [*rows[held:], rows[held] | {"text": ""}, pasted]}
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    for name, of_split in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in of_split]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    with (folder / "train.jsonl").open("ab") as file:
        file.write('{"mr": "name[Café Rouge], food[Thai]", "text": "Café Rouge has Thai food."}\n'.encode("latin-1"))


# -- exercises ---------------------------------------------------------------------------------------------------------


def check_options(options: str | None, parse: Callable[[list[str]], Any]) -> None:
    """Of exercise 7.1; ``parse`` is what `modtf train kit` itself reads them with."""
    assert options is not None, "options is None; write a text"
    _, given, _ = parse(["--output", "kit", *shlex.split(options)])
    assert given.original == "my-bart", f"the model would be {given.original!r}"
    assert given.data == "tickets", f"the data would be {given.data!r}"
    columns = given.source_column or "source", given.target_column or "target"
    assert columns == ("question", "answer"), f"it would read the columns {columns[0]!r} and {columns[1]!r}"
    read = given.source_prefix + "How do I log in?"
    assert read == "reply: How do I log in?", f"the model would read {read!r}"
    longest = given.max_source_length or 512
    assert longest == 300, f"questions would be cut to {longest} tokens"


def memory_gb(original: int, banks: int) -> float:
    """GB (10⁹ bytes) that a training in float32 with AdamW holds, without activations."""
    return 4 * (original + 4 * banks) / 1e9


def check_memory_gb(function: Callable[[int, int], Any]) -> None:
    assert function(1, 1) is not None, "memory_gb(1, 1) gives nothing back yet"
    given = function(10**9, 0)
    assert round(given, 6) == 4, (
        f"an original of 10⁹ parameters alone is 4 GB, not {given:g}: only its weights are there"
    )
    given = function(0, 10**9)
    assert round(given, 6) == 16, (
        f"banks of 10⁹ parameters are 16 GB (weights 4, gradients 4, moments 8), not {given:g}"
    )
    given = function(2 * 10**8, 3 * 10**8)
    assert round(given, 6) == 5.6, f"for 200 and 300 million parameters it is 0.8 + 4.8 GB, not {given:g}"


def parameters_of(name: str, granularities: tuple[int, ...]) -> tuple[int, int]:
    """Parameters of the original and of the banks, counted on shapes alone (torch's device "meta")."""
    with torch.device("meta"):
        modular = modularize(AutoModelForSeq2SeqLM.from_config(SHAPES[name]), granularities or (2,))
    original, banks = (
        sum(weight.numel() for weight in of.values()) for of in (modular.original_weights(), modular.bank_weights())
    )
    return original, banks if granularities else 0


def memory_table(memory: Callable[[int, int], float]) -> list[dict[str, Any]]:
    """By a formula, what trainings of known models hold; without a kit, the fine-tuning of the original."""
    t5 = [("T5-base", kit) for kit in ((), (2,), (2, 3), (2, 3, 6), (2, 3, 4, 6))]
    rows = []
    for name, kit in [("BART-base", (2, 3)), *t5, ("T5-large", (2, 3, 6))]:
        original, banks = parameters_of(name, kit)
        millions = {"original (M)": round(original / 1e6), "banks (M)": round(banks / 1e6)}
        held = memory(original, banks) if kit else memory(0, original)
        rows.append(
            {"model": name, "kit": ", ".join(map(str, kit)) or "(fine-tuning)"} | millions | {"GB": round(held, 2)}
        )
    return rows


def weights_held(kit: str | Path, ratios: Sequence[float]) -> str:
    """Megabytes of a kit's weights, in its folder and when it is loaded, beside the original and separate models."""
    modular, folder = load(kit), Path(kit)
    files = [*folder.glob("banks-*.safetensors"), *folder.glob("original-*/*.safetensors")]
    on_disk = sum(file.stat().st_size for file in files) / 1e6
    original = sum(weight.nbytes for weight in modular.original_weights().values()) / 1e6
    whole, *sizes = (
        sum(weight.nbytes for weight in model.parameters()) / 1e6
        for model in (modular, *(modular.assemble(ratio=ratio) for ratio in ratios))
    )
    return (
        f"kit: {whole:.1f} MB, {on_disk:.1f} MB on disk; of them the original: {original:.1f} MB\n"
        f"{', '.join(f'{ratio:g}x' for ratio in ratios)} as separate models: "
        f"{' + '.join(f'{size:.1f}' for size in sizes)} = {sum(sizes):.1f} MB"
    )


def check_careful_kit(function: Callable[[PreTrainedModel], Any]) -> None:
    careful = function(small_model("bart", 8, 6))
    assert careful is not None, "careful_kit(original) gives nothing back yet"
    assert isinstance(careful, ModularModel), (
        f"a ModularModel is wanted, not a {type(careful).__name__}: what does modtf.modularize return?"
    )
    smallest = careful.assemble(assembly=careful.mapping.coarsest).config
    for stack, layers, wanted in (("encoder", smallest.encoder_layers, 2), ("decoder", smallest.decoder_layers, 3)):
        assert layers == wanted, f"the smallest {stack} has {layers} layers, and should have {wanted}"
    count = careful.mapping.count_assemblies()
    assert careful.mapping.encoder.granularities == (2, 4), (
        "the encoder could have more lengths: which other granularity divides 8?"
    )
    assert count == 200, f"{count} assemblies where 200 are possible"
    for encoder in careful.mapping.encoder.paths():
        for decoder in careful.mapping.decoder.paths():
            config = careful.assemble(assembly=Assembly(encoder, decoder)).config
            assert (config.encoder_layers, config.decoder_layers) == (len(encoder), len(decoder))


# -- figures -----------------------------------------------------------------------------------------------------------


def training_figure(folder: str | Path) -> go.Figure:
    """The figure of the report: losses, and the BLEU of two sizes while they learn."""
    seen = [json.loads(line) for line in (Path(folder) / "quality.jsonl").read_text(encoding="utf-8").splitlines()]
    shapes = [key for key in seen[0] if key not in ("step", "metric", "full")]
    last = ", ".join(f"{shape} layers reach {seen[-1][shape]:.0f}" for shape in shapes)
    return described(
        course_figure(Path(folder)),
        f"The loss over the steps, and the BLEU of two sizes: {last} (full model {seen[-1]['full']:.0f}).",
        title={"text": "The training, as the report shows it", "y": 0.95},
        margin={"l": 60, "r": 60, "t": 90, "b": 50},
        width=880,
    )


def before_and_after_figure(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> go.Figure:
    """The share of BLEU that each size keeps, before and after one training."""
    words = " ".join(
        f"{new['strategy'].replace('_', ' ')} {new['ratio']:.2f}x: {old['bleu_kept']:.0f} % before, {new['bleu_kept']:.0f} % after."
        for old, new in zip(before, after, strict=True)
    )
    return described(
        before_and_after(before, after, TEXT.metrics[0]),
        f"Lines over the ratio, two strategies, before and after training. {words}",
        title={"text": "BLEU kept, before and after one training", "y": 0.97},
        margin={"l": 60, "r": 20, "t": 100, "b": 50},
        width=880,
    )
