# %% [markdown]
# # 6 · Your own model
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/6_your_own_model.ipynb) · runs in 1.5 minutes on two CPU cores · about 40 minutes to work through
#
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of header -->
#
# *How do you get from a model of your own to a kit of banks that others can slide?*
#
# **You will be able to**
# - take an original from fine-tuning to trained banks, and say at each step what is kept;
# - compute how much memory such a training needs, before you rent a GPU for it;
# - choose granularities, also different ones for encoder and decoder;
# - save, export and upload what you have made, and go on with more GPUs.
#
# **You need** the words of [notebook 1](1_layer_mapping.ipynb): granularity, bank, path, assembly. For the small models of this page a laptop is enough; for T5-base
# or BART-base you need a GPU and a network, for example on Colab (*Runtime*, *Change runtime type*).

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import gc
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import datasets
import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
import torch
from datasets import Dataset, load_dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

import modtf
from modtf.decoding import decode
from modtf.evaluation import in_turns, size_of_assembly, write_texts
from modtf.mapping import Assembly, parse_path
from modtf.tasks import E2E
from modtf.tasks.e2e import parse_mr
from modtf.tasks.scores import likeness, rouge_l
from modtf.views import notebook
from modtf.views.figures import described

torch.set_num_threads(1)
datasets.disable_progress_bars()
logging.disable_progress_bar()
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
BF16 = GPU and torch.cuda.get_device_capability() >= (8, 0)  # older GPUs, such as the T4, are slow in bfloat16

# %% [markdown]
# ## One variable
#
# Everything below is the same code for a small model on your laptop and for T5-base on a GPU. `SOURCE` chooses a record of names and sizes; nothing else changes.
#
# **What you read here was made with `SOURCE = "small"`**, without GPU and network. The records `"t5-base"` and `"bart-base"` could not be run there: their steps
# and learning rates are a place to begin, not a result. Their dataset is DialogSum from Hugging Face's hub, dialogues with their summaries (CC BY-NC-SA 4.0; read the
# licence of data and model before you share what you train).

# %%
SOURCE = "small"  # or "small-bart"; with a GPU and a network "t5-base", "bart-base"
REPOSITORY = None  # "your-name/your-banks", and they are uploaded at the end
SCRATCH = tempfile.TemporaryDirectory(prefix="modtf-")  # goes away with this session
FOLDER = Path(SCRATCH.name) if SOURCE.startswith("small") else Path("my-model")  # where all that is made here is kept


@dataclass(frozen=True)
class Settings:
    model: str  # a name on the hub, or a folder
    dataset: str  # a name on the hub, or a folder with train.jsonl and validation.jsonl
    source: str  # column of what goes in
    target: str  # column of what should come out
    longest: int  # tokens of a source; longer ones are left out
    batch_size: int  # texts on the device at once
    accumulation: int  # such batches for one step
    granularities: tuple[int, ...]
    tuning_steps: int  # 0 where the model is fine-tuned already
    tuning_rate: float
    kit_steps: int
    kit_rate: float
    prefix: str = ""  # what this original expects before each source


restaurants = {"dataset": str(FOLDER / "restaurants"), "source": "mr", "target": "text", "longest": 64, "batch_size": 16, "accumulation": 1}
dialogues = {
    "dataset": "knkarthick/dialogsum", "source": "dialogue", "target": "summary", "longest": 384, "batch_size": 8, "accumulation": 2
}  # fmt: skip
RECORDS = {
    "small": Settings(
        str(FOLDER / "small"), **restaurants, granularities=(2, 3),
        tuning_steps=300, tuning_rate=3e-3, kit_steps=240, kit_rate=3e-3,
    ),
    "small-bart": Settings(
        str(FOLDER / "small-bart"), **restaurants, granularities=(2, 3),
        tuning_steps=300, tuning_rate=2e-3, kit_steps=240, kit_rate=2e-3,
    ),
    "t5-base": Settings(
        "google-t5/t5-base", **dialogues, granularities=(2, 3, 6), prefix="summarize: ",
        tuning_steps=2_300, tuning_rate=3e-4, kit_steps=10_000, kit_rate=3e-4,
    ),
    "bart-base": Settings(
        "facebook/bart-base", **dialogues, granularities=(2, 3),
        tuning_steps=2_300, tuning_rate=5e-5, kit_steps=10_000, kit_rate=1e-4,
    ),
    # "mine": Settings("your-model", "your-folder", source="...", target="...", longest=384, batch_size=8, accumulation=2,
    #     granularities=(2, 3), tuning_steps=0, tuning_rate=0, kit_steps=10_000, kit_rate=3e-4),
}  # fmt: skip
settings = RECORDS[SOURCE]

# %% [markdown]
# **In a hurry, with a model of your own?** Fill in the record `"mine"`, set `SOURCE = "mine"`, run all, and go to the trial (*What it costs: time*): it says how many hours your training would take here. On Colab the
# folder `my-model` is gone when the machine is; let `FOLDER` lie in your Drive (`/content/drive/MyDrive/...`) before you train for hours. What was done is then found again: the cells below go on where they were stopped.
#
# ## A hub on this disk
#
# `from_pretrained` and `load_dataset` take a folder as well as a name on the hub. So we put into folders what the hub would give us: a T5 and a BART of 6 + 6 layers
# (the depth of BART-base) with random weights, and a dataset with the splits `train` and `validation`. The dataset is the one bundled with `pocket`: a restaurant's attributes, and the
# text that `pocket` wrote for them. Only those of at most six attributes, so that half a minute is enough to learn from.

# %%
tokenizer = modtf.load("pocket").tokenizer


def small_model(family: str, encoder: int, decoder: int):
    """A T5 or BART of so many layers, narrow enough for a laptop, with random weights."""
    set_seed(0)
    shared = {"vocab_size": len(tokenizer), "d_model": 64, "pad_token_id": 0, "eos_token_id": 1}
    if family == "t5":
        return T5ForConditionalGeneration(
            T5Config(
                **shared, d_kv=16, d_ff=256, num_heads=4, num_layers=encoder, num_decoder_layers=decoder, decoder_start_token_id=0, dropout_rate=0.0
            )
        )  # fmt: skip
    return BartForConditionalGeneration(
        BartConfig(
            **shared, encoder_layers=encoder, decoder_layers=decoder, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=256, decoder_ffn_dim=256, max_position_embeddings=256, bos_token_id=1, decoder_start_token_id=1,
            forced_eos_token_id=1, dropout=0.0, init_std=0.05,
        )
    )  # fmt: skip


for family, name in (("t5", "small"), ("bart", "small-bart")):
    small_model(family, 6, 6).save_pretrained(FOLDER / name)
    tokenizer.save_pretrained(FOLDER / name)
for bundled, split in (("pairs", "train"), ("evaluation", "validation")):
    few = [example for example in E2E.bundled_examples(bundled) if len(parse_mr(example.source)) <= 6]
    rows = [{"mr": example.source, "text": text} for example in few for text in example.references]
    Dataset.from_list(rows).to_parquet(FOLDER / "restaurants" / f"{split}.parquet")

# %% [markdown]
# ## Can this model be modularized?
#
# From here on, no line knows whether it works with the small model or with T5-base.
#
# Layers that are cut out, mixed and numbered anew must compute what they computed before. Whether they do depends on the family: where it keeps its layers, its depths, its position biases.
# modtf has a record of that for each family that it knows. For any model, `check` tries it on the model itself, which stays as it is:

# %% tags=["nbval-check-output"]
print("known families:", ", ".join(modtf.ARCHITECTURES))
print(modtf.check(AutoModelForSeq2SeqLM.from_pretrained(settings.model)))

# %% [markdown]
# A family that is not on the list is compared with all that are: if one of them fits and all is exact, the last line says how to use it.
#
# ## The data

# %% tags=["nbval-check-output"]
tokenizer = AutoTokenizer.from_pretrained(settings.model)
data = load_dataset(settings.dataset, cache_dir=str(FOLDER / "cache"))
row = data["train"][0]
print({split: len(rows) for split, rows in data.items()})
print("in: ", settings.prefix + row[settings.source])
print("out:", row[settings.target])

# %% [markdown]
# ### Exercise 6.1
# A model takes numbers. Write `model_input(row)`: what `tokenizer` makes of the row's source (with the prefix before it), cut to `settings.longest` tokens, together with
# the row's target as `labels`.


# %% tags=["exercise"]
def model_input(row: dict) -> dict:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `settings.source` and `settings.target` are the names of columns: `row[settings.source]` is the text.
# </details>
#
# <details><summary>Hint 2</summary>
#
# A tokenizer of transformers takes the target as `text_target=...`, and calls what it makes of it `labels`. `truncation=True, max_length=...` cuts.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def model_input(row: dict) -> dict:
#     source, target = settings.prefix + row[settings.source], row[settings.target]
#     return tokenizer(source, text_target=target, truncation=True, max_length=settings.longest)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.1"):
    given = model_input(row)
    assert given is not None, "model_input(row) gives nothing back yet"
    assert {"input_ids", "attention_mask", "labels"} <= set(given), (
        f"input_ids, attention_mask and labels are needed; yours has {list(given)}"
    )
    assert given["labels"] == tokenizer(row[settings.target])["input_ids"], "labels should be the tokens of the target"
    read = tokenizer.decode(given["input_ids"], skip_special_tokens=True)
    assert given["input_ids"] == tokenizer(settings.prefix + row[settings.source])["input_ids"], f"the model would read {read!r}"
    long = model_input(row | {settings.source: row[settings.source] * 50})
    assert len(long["input_ids"]) == settings.longest, (
        f"a long source becomes {len(long['input_ids'])} tokens; cut it to {settings.longest}"
    )


# %%
def tokenize(row: dict) -> dict:
    return tokenizer(settings.prefix + row[settings.source], text_target=row[settings.target], truncation=True)


def short(row: dict) -> bool:
    return len(tokenizer(settings.prefix + row[settings.source])["input_ids"]) <= settings.longest


data = data.filter(short)
train = data["train"].map(tokenize, remove_columns=data["train"].column_names)
chosen = data["validation"].select(range(min(100, len(data["validation"]))))
sources = [settings.prefix + text for text in chosen[settings.source]]
references = [[text] for text in chosen[settings.target]]

# %% [markdown]
# ## What it costs: memory
#
# While the banks are trained, the device holds, in float32 (4 bytes a number):
#
# - the weights of the original **and** of the banks;
# - gradients, for what is trained: the banks only, since the original is frozen;
# - two moments of AdamW for each number that is trained.
#
# There is no second copy of the original for the teacher: the teacher *is* the original, inside the same model. On top of that come the activations of a batch, which we
# count below.
#
# ### Exercise 6.2
# `memory_gb(original, banks)`: how many GB (10⁹ bytes) is that, for so many parameters of the original and of the banks?


# %% tags=["exercise"]
def memory_gb(original: int, banks: int) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# How many numbers are there for each parameter of the original? And for each of the banks: weight, gradient, two moments?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def memory_gb(original: int, banks: int) -> float:
#     numbers = original + banks * 4  # weight, gradient, two moments
#     return 4 * numbers / 1e9
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.2"):
    assert memory_gb(1, 1) is not None, "memory_gb(1, 1) gives nothing back yet"
    assert round(memory_gb(10**9, 0), 6) == 4, (
        f"an original of 10⁹ parameters alone is 4 GB, not {memory_gb(10**9, 0):g}: only its weights are there"
    )
    assert round(memory_gb(0, 10**9), 6) == 16, (
        f"banks of 10⁹ parameters are 16 GB (weights 4, gradients 4, moments 8), not {memory_gb(0, 10**9):g}"
    )
    assert round(memory_gb(2 * 10**8, 3 * 10**8), 6) == 5.6, "for 200 and 300 million parameters it should be 0.8 + 4.8 GB"

# %% [markdown]
# Shapes are enough to count with: on torch's device `"meta"` a model has shapes and no numbers, so T5-large takes no memory here, and nothing is downloaded.
#
# **How many GB does T5-base need for the kit 2, 3, 4, 6, without activations?** (It has 223 million parameters, most of them in 12 + 12 layers.) Write a guess.

# %%
guess_gb = None  # GB for T5-base with the kit 2, 3, 4, 6


# %%
def from_shapes(name: str):
    """An original without numbers."""
    with torch.device("meta"):
        if name == "BART-base":
            sizes = {
                "encoder_layers": 6, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072,
                "decoder_layers": 6, "decoder_attention_heads": 12, "decoder_ffn_dim": 3072,
            }  # fmt: skip
            return BartForConditionalGeneration(BartConfig(d_model=768, **sizes))
        sizes = {
            "T5-base": {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
            "T5-large": {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
        }[name]
        return T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))


def parts_gb(name: str, granularities: tuple[int, ...]) -> dict[str, float]:
    """What the training holds in memory, without activations; no granularities: fine-tuning of the original."""
    original = from_shapes(name)
    weights = sum(p.numel() for p in original.parameters())
    trained = weights
    if granularities:
        modular = modtf.modularize(original, granularities)
        trained = sum(p.numel() for p in modular.parameters() if p.requires_grad)
    return {
        "original": 4 * weights / 1e9,
        "banks": 4 * trained / 1e9 if granularities else 0.0,
        "gradients": 4 * trained / 1e9,
        "AdamW's moments": 8 * trained / 1e9,
    }


# %% tags=["nbval-check-output"]
notebook.reveal("T5-base with the kit 2, 3, 4, 6: GB", guess_gb, sum(parts_gb("T5-base", (2, 3, 4, 6)).values()))

# %% tags=["nbval-check-output"]
wanted = [(name, kit) for name in ("BART-base", "T5-base", "T5-large") for kit in ((), (2,), (2, 3), (2, 3, 6), (2, 3, 4, 6))]
wanted = [(name, kit) for name, kit in wanted if name != "BART-base" or set(kit) <= {2, 3}]  # 6 layers have no other divisors
costs = [{"model": name, "kit": ", ".join(map(str, kit)) or "(fine-tuning)"} | parts_gb(name, kit) for name, kit in wanted]
for cost in costs:
    cost["all, GB"] = sum(value for value in cost.values() if isinstance(value, float))
print(pd.DataFrame(costs).round(2).to_string(index=False))


# %%
def cost_figure(rows: list[dict], title: str) -> go.Figure:
    figure = go.Figure()
    for part in ("original", "banks", "gradients", "AdamW's moments"):
        figure.add_bar(name=part, orientation="h", y=[f"{row['model']}: {row['kit']}" for row in rows], x=[row[part] for row in rows])
    figure.update_layout(template="plotly_white", title=title, barmode="stack", height=190 + 26 * len(rows))
    figure.update_layout(legend={"orientation": "h", "y": 1, "yanchor": "bottom", "traceorder": "normal"}, title_y=0.97)
    figure.update_xaxes(title="GB, without activations")
    figure.update_yaxes(autorange="reversed")
    return figure


described(
    cost_figure(costs, "What training holds in memory (float32, AdamW)"),
    "Stacked bars: original, banks, gradients, moments of AdamW. "
    + " ".join(f"{cost['model']}, {cost['kit']}: {cost['all, GB']:.1f} GB." for cost in costs)
    + " Banks, their gradients and their moments grow with each granularity.",
    margin={"l": 170, "t": 80},
)

# %% [markdown]
# Each further granularity costs, and each gives more to choose from: 2 alone reaches 2x, 2 and 3 reach 3x, 6 is needed for 6x. **To save memory, leave granularities
# out.** A kit can be trained on a smaller GPU than fine-tuning needs, if it is small enough.
#
# Try it: granularities that do not divide a stack's depth are refused.


# %%
def draw_cost(model: str, granularities: str):
    kit = parse_path(granularities)
    return cost_figure([{"model": model, "kit": ", ".join(map(str, kit))} | parts_gb(model, kit)], "What training holds in memory")


notebook.play(
    draw_cost,
    model=widgets.Dropdown(options=["T5-base", "T5-large", "BART-base"], description="model"),
    granularities=widgets.Text("2 3 4", description="granularities"),
)

# %% [markdown]
# Now the **activations**: what the forward pass keeps until the backward pass has used it. They grow with the batch, and depend on the assembly that a step draws. We
# count every tensor that autograd keeps in the student's pass, on meta again: T5-base, texts of 384 tokens in and 64 out, for a whole-grain assembly and for one in which
# only the first two layers of each stack are replaced. (The teacher's pass is not counted: it runs without a backward pass. And attention is counted with its maps, as eager attention keeps them; a GPU's fused attention keeps less, so this is the most.) *Gradient checkpointing* keeps only what goes
# into each modularized layer, and computes the rest a second time.


# %%
def activations_gb(modular, assembly: Assembly, texts: int) -> float:
    """What autograd keeps of one forward pass, apart from the weights."""
    with torch.device("meta"):
        batch = {"input_ids": torch.zeros(texts, 384, dtype=torch.long), "labels": torch.zeros(texts, 64, dtype=torch.long)}
    weights = {p.untyped_storage()._cdata for p in modular.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()  # tensors that are views share one, and _cdata tells which
        kept[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = modular(assembly, **batch)  # while it lives, so does what was kept
    del outputs
    return sum(size for storage, size in kept.items() if storage not in weights) / 1e9


base = modtf.modularize(from_shapes("T5-base"), (2, 3, 6)).train()
mixed = (2, *(1,) * 10)
counted = []
for texts in (8, 4):
    for name, assembly in (("whole-grain, 6-6", base.choose(2)), ("mixed, 11-11", Assembly(mixed, mixed))):
        base.gradient_checkpointing_disable()
        plain = activations_gb(base, assembly, texts)
        base.gradient_checkpointing_enable()
        counted.append({"texts": texts, "assembly": name, "GB": plain, "GB with checkpointing": activations_gb(base, assembly, texts)})
print(pd.DataFrame(counted).round(1).to_string(index=False))

# %% [markdown]
# Add this to the table above. A GPU must hold the most that any step needs, and steps draw mixed assemblies too: there, the frozen originals between the modules keep
# their activations, whatever is checkpointed. Smaller batches help always.
#
# What saves memory, and what it costs:
#
# | option | where | what it does |
# |---|---|---|
# | fewer granularities | `modularize(..., granularities=(2, 3))` | less to store and to train; fewer ratios |
# | smaller batches, accumulated | `per_device_train_batch_size=4, gradient_accumulation_steps=4` | activations of 4 texts instead of 16; all four batches of a step run the same assembly |
# | checkpointing | `gradient_checkpointing=True` | what modularized layers keep is computed twice instead; the originals of a mixed path keep theirs |
# | bfloat16 | `bf16=True` | half-size numbers in most operations, on GPUs that are good at it (on Colab: A100, L4; not T4) |
# | no attention maps | `attention_weight=0`, the default | fast attention instead of eager, and no maps to keep |
#
# All of them are arguments of `ModularTrainingArguments` but the first.
#
# ## What it costs: time
#
# We write down once how both trainings are run. `ModularTrainingArguments` are `Seq2SeqTrainingArguments` with the method's own settings. The weights of the losses are
# the defaults: those of the first part of `pocket`'s kit ([notebook 3](3_distillation.ipynb) is about them).
#
# > **In the paper**: attention maps and hidden states are distilled, in one training phase. How many steps and which learning rates it used, we do not know: ours are our
# > choice.


# %%
def arguments(kind, name: str, steps: int, learning_rate: float, **more):
    given = {
        "output_dir": str(FOLDER / name), "max_steps": steps, "learning_rate": learning_rate, "warmup_steps": steps // 10, "bf16": BF16,
        "per_device_train_batch_size": settings.batch_size, "gradient_accumulation_steps": settings.accumulation,
        "logging_steps": max(1, steps // 12), "save_steps": max(1, steps // 4), "save_total_limit": 1, "report_to": "none", "seed": 0,
        "use_cpu": not GPU, "dataloader_pin_memory": GPU,
    }  # fmt: skip
    return kind(**given | more)


def collator(original) -> DataCollatorForSeq2Seq:
    return DataCollatorForSeq2Seq(tokenizer, original, pad_to_multiple_of=8)  # fewer different shapes


# %% [markdown]
# Before you train for hours, run a few steps and compute how long the whole will take. The trial gets a model of its own, so nothing is spoiled.


# %%
class Stopwatch(TrainerCallback):
    def __init__(self):
        self.ends = []

    def on_step_end(self, *_, **__):
        if GPU:
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


trial = AutoModelForSeq2SeqLM.from_pretrained(settings.model, dtype=torch.float32)  # whatever it was stored in
trial = modtf.modularize(trial, settings.granularities, tokenizer=tokenizer)
stopwatch = Stopwatch()
modtf.ModularTrainer(
    trial,
    arguments(modtf.ModularTrainingArguments, "trial", 12, settings.kit_rate, save_strategy="no", logging_strategy="no"),
    train_dataset=train,
    data_collator=collator(trial.model),
    callbacks=[stopwatch],
).train()
del trial
gc.collect()  # on a GPU its memory is wanted
if GPU:
    print(f"memory, at most: {torch.cuda.max_memory_allocated() / 1e9:.1f} GB")

# %%
steps_ms = [1000 * (end - start) for start, end in pairwise(stopwatch.ends)]
minutes = mean(steps_ms) * settings.kit_steps / 60_000
print(f"a step: {median(steps_ms):.0f} ms (median), from {min(steps_ms):.0f} to {max(steps_ms):.0f}, since each runs another assembly")
print(f"{settings.kit_steps:,} steps: about {minutes:.1f} minutes here")

# %% [markdown]
# ## The original
#
# An original should be good at the task before it is compressed: the banks learn from what *it* writes. A checkpoint that is fine-tuned already (such as
# `facebook/bart-large-cnn` for CNN/DailyMail) needs nothing of this section. Ours does; it is the ordinary fine-tuning of transformers.

# %% tags=["long"]
set_seed(0)
tuned = FOLDER / "original"
original = AutoModelForSeq2SeqLM.from_pretrained(tuned if tuned.exists() else settings.model, dtype=torch.float32).to(DEVICE)
if settings.tuning_steps and not tuned.exists():
    tuner = Seq2SeqTrainer(
        model=original,
        args=arguments(Seq2SeqTrainingArguments, "tuning", settings.tuning_steps, settings.tuning_rate),
        train_dataset=train,
        data_collator=collator(original),
    )
    tuner.train()
    del tuner
    for part in (original, tokenizer):
        part.save_pretrained(tuned)

# %% [markdown]
# ## Banks
#
# One line. From now on the original is frozen; its weights will not change any more.

# %% tags=["long"]
gc.collect()  # on a GPU, the trainer's moments would take the banks' place
modular = modtf.modularize(original, settings.granularities, tokenizer=tokenizer)
print(f"{modular.mapping.count_assemblies():,} assemblies, up to {modular.mapping.maximum_ratio:g}x")
full = write_texts(modular, modular.mapping.original, sources)
for source, text, (reference,) in list(zip(sources, full, references, strict=True))[:3]:
    print(f"\nin:        {source}\nreference: {reference}\noriginal:  {text}")

# %% [markdown]
# Is that good enough to compress? Look at the texts, not only at a score: the small original of this page has learned for half a minute, and it still leaves attributes
# out or invents one. The banks will learn to write what it writes, mistakes included.
#
# ### Exercise 6.3
# Stacks need not have the same depth, nor the same granularities: `modularize` takes `decoder_granularities` too. Here is a BART of **8 encoder and 4 decoder layers**.
# Give it a kit with which the encoder can be assembled down to **2** layers, but the decoder to no fewer than **2**, with as many lengths between as possible. Return the
# modular model. (The check builds all 100 of its assemblies and counts their layers.)


# %% tags=["exercise"]
def careful_kit(original):
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A whole stack of granularity g has depth / g layers. Which g brings 8 layers to 2? Which brings 4 layers to 2?
# </details>
#
# <details><summary>Hint 2</summary>
#
# "As many lengths as possible": the encoder gets every granularity up to the coarsest that is allowed, if it divides 8.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def careful_kit(original):
#     return modtf.modularize(original, granularities=(2, 4), decoder_granularities=(2,))
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.3"):
    careful = careful_kit(small_model("bart", 8, 4))
    assert careful is not None, "careful_kit(original) gives nothing back yet"
    assert isinstance(careful, modtf.ModularModel), (
        f"a ModularModel is wanted, not a {type(careful).__name__}: what does modtf.modularize return?"
    )
    smallest = careful.assemble(assembly=careful.mapping.coarsest).config
    assert smallest.encoder_layers == 2, f"the smallest encoder has {smallest.encoder_layers} layers, and should have 2"
    assert smallest.decoder_layers == 2, f"the smallest decoder has {smallest.decoder_layers} layers, and should have 2"
    assert careful.mapping.encoder.granularities == (2, 4), "the encoder could have more lengths: which other granularity divides 8?"
    assert careful.mapping.count_assemblies() == 100, f"{careful.mapping.count_assemblies()} assemblies where 100 are possible"
    for assembly in (Assembly(e, d) for e in careful.mapping.encoder.paths() for d in careful.mapping.decoder.paths()):
        config = careful.assemble(assembly=assembly).config
        assert 12 / (config.encoder_layers + config.decoder_layers) == assembly.ratio, f"{assembly} is not {assembly.ratio:g}x"

# %% [markdown]
# ## Before training
#
# The banks exist, and every assembly can be built. Each module is so far a copy of the first layer that it stands for. We measure two things, on texts that were not
# trained on: ROUGE-L against the reference, and likeness (ROUGE-L too) to what the full model writes for the same source.
#
# **How much of the full model's ROUGE-L does 2x keep now, before training? And after it?** Write two guesses, in percent.

# %%
guess_before = None  # percent of the full model's ROUGE-L that 2x keeps before training
guess_after = None  # and after training


# %% tags=["long"]
def measured() -> dict:
    """Texts and scores of the assemblies that both strategies give at a few ratios."""
    ratios = (1.33, 1.5, 2, modular.mapping.maximum_ratio)
    wanted = {(strategy, modular.choose(ratio, strategy)): None for strategy in ("size_first", "speed_first") for ratio in ratios}
    results = {}
    for strategy, assembly in wanted:
        texts = write_texts(modular, assembly, sources)
        like = mean(likeness(text, of_full) for text, of_full in zip(texts, full, strict=True))
        results[strategy, assembly] = {"texts": texts, "rouge_l": rouge_l(texts, references), "like the full model": like}
    return results


full_rouge_l = rouge_l(full, references)
before = measured()
print(f"full model: ROUGE-L {full_rouge_l:.1f}")
for (strategy, assembly), scores in before.items():
    print(f"{strategy:<11} {assembly.ratio:.2f}x, {assembly.shape}: ROUGE-L {scores['rouge_l']:.1f}")

# %% [markdown]
# ## Training the banks
#
# `ModularTrainer` is transformers' `Seq2SeqTrainer`. Each step draws an assembly ([notebook 2](2_module_replacement.ipynb)), and the original, inside the same model, is
# the teacher. Checkpoints hold banks only; after an interruption, run the cells again: the training goes on from the last checkpoint.

# %% tags=["long"]
set_seed(0)
trainer = modtf.ModularTrainer(
    modular,
    arguments(modtf.ModularTrainingArguments, "training", settings.kit_steps, settings.kit_rate),
    train_dataset=train,
    data_collator=collator(original),
)
(FOLDER / "training").mkdir(exist_ok=True)
result = trainer.train(resume_from_checkpoint=get_last_checkpoint(FOLDER / "training"))  # None the first time
print(f"{settings.kit_steps:,} steps in {result.metrics['train_runtime'] / 60:.1f} minutes; the trial said {minutes:.1f}")

# %% tags=["long"]
history = [entry for entry in trainer.state.log_history if "loss_logits" in entry]
figure = go.Figure()
for name, what in (("loss_logits", "token probabilities (KL)"), ("loss_hidden", "hidden states (relative squared error)")):
    figure.add_scatter(x=[entry["step"] for entry in history], y=[entry[name] for entry in history], name=what, mode="lines+markers")
figure.update_layout(template="plotly_white", title="What the banks still do differently from the original", height=340)
figure.update_xaxes(title="step")
figure.update_yaxes(title="loss, mean over the last steps", rangemode="tozero")
figure.update_layout(legend={"orientation": "h", "y": 1, "yanchor": "bottom"}, title_y=0.95)
described(
    figure,
    f"Two losses over the steps. That of the token probabilities falls from {history[0]['loss_logits']:.2f} to {history[-1]['loss_logits']:.2f}, "
    f"that of the hidden states from {history[0]['loss_hidden']:.2f} to {history[-1]['loss_hidden']:.2f}.",
    margin={"t": 80},
)

# %% [markdown]
# ## After training

# %% tags=["long"]
after = measured()
two = "size_first", modular.choose(2)
notebook.reveal("2x before training: % of the full model's ROUGE-L", guess_before, 100 * before[two]["rouge_l"] / full_rouge_l)
notebook.reveal("2x after training: % of the full model's ROUGE-L", guess_after, 100 * after[two]["rouge_l"] / full_rouge_l)

# %% tags=["long"]
figure = go.Figure()
for results, when, dash in ((before, "before training", "dot"), (after, "after", "solid")):
    for strategy, color in (("size_first", "#3b8fd0"), ("speed_first", "#e07b1a")):
        points = [(assembly, scores) for (by, assembly), scores in results.items() if by == strategy]
        figure.add_scatter(
            x=[1, *(assembly.ratio for assembly, _ in points)], y=[100, *(100 * scores["rouge_l"] / full_rouge_l for _, scores in points)],
            name=f"{strategy.replace('_', ' ')}, {when}", line={"color": color, "dash": dash}, mode="lines+markers",
            text=["full model", *(assembly.shape for assembly, _ in points)], hovertemplate="%{text}: %{y:.0f} %<extra></extra>",
        )  # fmt: skip
figure.update_layout(template="plotly_white", title="ROUGE-L kept, before and after one training", height=440)
figure.update_layout(legend={"orientation": "h", "y": 1, "yanchor": "bottom"}, title_y=0.96)
figure.update_xaxes(title="ratio of layers")
figure.update_yaxes(title="% of the full model's ROUGE-L", rangemode="tozero")
described(
    figure,
    "Lines over the ratio, two strategies, before and after training. "
    + " ".join(
        f"{strategy.replace('_', ' ')} {assembly.ratio:.2f}x: {100 * before[strategy, assembly]['rouge_l'] / full_rouge_l:.0f} % before, "
        f"{100 * after[strategy, assembly]['rouge_l'] / full_rouge_l:.0f} % after."
        for strategy, assembly in after
    ),
    margin={"t": 100},
)

# %% [markdown]
# **This is the figure to remember.** The dotted lines are copied layers; the solid ones are the same assemblies after *one* training, for all ratios at once. What the
# texts look like:

# %% tags=["long"]
smallest = modular.mapping.coarsest
coarsest = next(key for key in after if key[1] == smallest)
for i in (0, 1):
    print(f"in:          {sources[i]}\nreference:   {references[i][0]}\nfull model:  {full[i]}")
    for name, key in (("2x", two), (f"{smallest.ratio:g}x", coarsest)):
        for when, results in (("before", before), ("after", after)):
            text = results[key]["texts"][i]
            print(f"{name} {when + ':':<9}{text if len(text) < 160 else text[:160] + ' …'}")
    print()

# %% [markdown]
# And now all that a ratio can mean, side by side, as in [notebook 1](1_layer_mapping.ipynb): layers, parameters, bytes, time (32 tokens for one text, in turns, so that
# all meet the same machine), and quality.

# %% tags=["long"]
original_assembly = modular.mapping.original
assemblies = sorted({original_assembly, *(assembly for _, assembly in after)}, key=lambda assembly: assembly.ratio)
encoded = modular.encode(sources[:1])
runs = {a: lambda a=a: decode(modular.assembled(a), **encoded, max_new_tokens=32, exactly=True) for a in assemblies}
times = in_turns(runs, repeats=15)
whole = size_of_assembly(modular, original_assembly)
table = []
for assembly in assemblies:
    size = size_of_assembly(modular, assembly)
    scores = next((scores for (_, a), scores in after.items() if a == assembly), {"rouge_l": full_rouge_l, "like the full model": 100.0})
    table.append(
        {
            "layers": assembly.shape, "ratio": round(assembly.ratio, 2), "parameters (M)": round(size.parameters / 1e6, 2),
            "times fewer": round(whole.parameters / size.parameters, 2), "MB": round(size.megabytes, 1), "ms": round(median(times[assembly]), 1),
            "times as fast": round(median(times[original_assembly]) / median(times[assembly]), 2), "ROUGE-L": round(scores["rouge_l"], 1),
            "like the full model": round(scores["like the full model"], 1),
        }
    )  # fmt: skip
print(pd.DataFrame(table).to_string(index=False))

# %% [markdown]
# ROUGE-L against references and likeness to the full model are two questions. A text can be as good as the full model's and another one; a text that is like the full
# model's repeats its mistakes too.
#
# ## Keep it
#
# `save_pretrained` writes the banks and what they belong to: a *pointer* to the original (its name on the hub, or its folder), or a *copy* of it. A pointer is small, but one to a folder breaks when the folder moves. We
# want to upload, so we copy. Loaded again, the model writes the same:

# %% tags=["long"]
modular.save_pretrained(FOLDER / "kit", copy_original=True)
files = [path for path in sorted((FOLDER / "kit").rglob("*")) if path.is_file()]
for path in files:
    print(f"{path.stat().st_size / 1e6:7.2f} MB  {path.relative_to(FOLDER)}")
again = modtf.load(FOLDER / "kit").to(modular.device)
print("\nthe same texts:", write_texts(again, again.choose(2), sources) == after[two]["texts"])

# %% [markdown]
# Whoever needs one size only gets one size: an exported assembly is an ordinary checkpoint. To prove it, another Python loads it in which modtf cannot be imported.

# %% tags=["long"]
exported = FOLDER / f"2x-{time.time_ns()}"  # export wants a new folder
modular.export(exported, modular.choose(2))
PLAIN = """
import sys
sys.modules["modtf"] = None  # importing modtf would fail now
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
folder, text = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder)
tokens = model.generate(**tokenizer(text, return_tensors="pt", return_token_type_ids=False), max_new_tokens=128, num_beams=1)
print(type(model).__name__, model.config.num_hidden_layers, model.config.decoder_layers, tokenizer.decode(tokens[0], skip_special_tokens=True), sep="|")
"""
run = subprocess.run([sys.executable, "-c", PLAIN, str(exported), sources[0]], capture_output=True, text=True, check=True)
kind, encoder, decoder, text = run.stdout.strip().split("|", 3)
print(f"{kind} of {encoder} + {decoder} layers: {text}")
print("as here:", text == after[two]["texts"][0])

# %% [markdown]
# ## Upload
#
# `push_to_hub` uploads the same files and a model card; `modtf.load("your-name/your-banks")` takes it from there. Write the repository's name into `REPOSITORY` at the top, and log in
# (`huggingface_hub.login()`, or the secret `HF_TOKEN` on Colab). Say in the card what the original and the data were, and under which licences.

# %% tags=["long"]
if REPOSITORY is None:
    print(f"no REPOSITORY: nothing is uploaded. It would be {len(files)} files, {sum(p.stat().st_size for p in files) / 1e6:.1f} MB.")
else:
    print(modular.push_to_hub(REPOSITORY))

# %% [markdown]
# ## More GPUs
#
# For a training of hours a script is better than a notebook, and on several GPUs it is needed (let a notebook see one of them:
# `CUDA_VISIBLE_DEVICES=0`). Each process runs the whole script. Save this as `train_kit.py`:
#
# ```python
# """python train_kit.py ORIGINAL DATASET SOURCE-COLUMN TARGET-COLUMN PREFIX OUTPUT STEPS"""
# import os
# import sys
#
# import torch
# from datasets import load_dataset
# from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, DataCollatorForSeq2Seq
# from transformers.trainer_utils import get_last_checkpoint
#
# import modtf
#
# name, dataset, source, target, prefix, output, steps = sys.argv[1:]
# gpu = torch.cuda.is_available()
# args = modtf.ModularTrainingArguments(
#     output_dir=f"{output}/training", max_steps=int(steps), warmup_steps=int(steps) // 10, learning_rate=3e-4,  # BART: 1e-4
#     per_device_train_batch_size=8, gradient_accumulation_steps=2, save_total_limit=2, report_to="none",
#     bf16=gpu and torch.cuda.get_device_capability() >= (8, 0),
#     use_cpu=not gpu, dataloader_pin_memory=gpu, ddp_backend="gloo" if not gpu and "LOCAL_RANK" in os.environ else None,
# )
# tokenizer = AutoTokenizer.from_pretrained(name)
# original = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
# modular = modtf.modularize(original, tokenizer=tokenizer)  # granularities=(2, 3) needs less memory
# with args.main_process_first():  # one process prepares the data, the others find it done
#     rows = load_dataset(dataset, split="train")
#     rows = rows.map(
#         lambda row: tokenizer(prefix + row[source], text_target=row[target], truncation=True, max_length=384),
#         remove_columns=rows.column_names,
#     )
# collator = DataCollatorForSeq2Seq(tokenizer, original, pad_to_multiple_of=8)
# trainer = modtf.ModularTrainer(modular, args, train_dataset=rows, data_collator=collator)
# os.makedirs(args.output_dir, exist_ok=True)
# trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))  # goes on where it was stopped
# if trainer.is_world_process_zero():
#     modular.save_pretrained(output, copy_original=True)
# ```
#
# and start it in one of these ways. `original` is the folder that this notebook saved after fine-tuning, or a fine-tuned model of yours; in place of the dataset's name a folder with `train.jsonl` will do. On
# a machine with several GPUs the first way wants `CUDA_VISIBLE_DEVICES=0` before it.
#
# ```sh
# python train_kit.py original knkarthick/dialogsum dialogue summary "summarize: " my-banks 10000
# accelerate launch --multi_gpu --num_processes 2 train_kit.py original knkarthick/dialogsum dialogue summary "summarize: " my-banks 10000
# torchrun --standalone --nproc-per-node 2 train_kit.py original knkarthick/dialogsum dialogue summary "summarize: " my-banks 10000
# ```
#
# All processes run the same assembly in a step, since the draw depends on seed and step only. Two processes read 2 × 8 texts a step. (The shell command
# `modtf train kit` does the same for a folder with `train.jsonl`, if you give it `--task text`.)
#
# ## When it does not work
#
# What we have met, and what helped. [The log](../benchmarks/LOG.md) has the trials with their numbers; they are single runs of a small model, so take them as hints.
#
# | you see | look at | try |
# |---|---|---|
# | one size falls into loops ("food food food …"), others do not | how often the schedule has drawn it: `trainer.schedule().draw(step)` | more steps first. Sharing one training between many sizes cost more steps, and nothing broke; a larger share of `whole` steps draws every whole-grain stack more often |
# | all sizes lag behind, and the losses still fall | the learning rate: has it reached its end? | let it finish; the last third, with its falling rate, did much of the work |
# | texts read well, but leave things out | the texts that it learned from: does the original leave things out, too? | a last part on the texts that have no faults, labels beside logits; `pocket`'s kit became more faithful so than its original at most sizes (`--faultless` of `modtf train kit` sifts texts, where the task can judge them) |
# | small sizes write what the original should not have written | the original alone, on held-out data | a better original. Ours was over-fitted at first; dropout helped it |
# | you initialise banks yourself, and they do not learn | from which layers | the *first* layer of each group, as `modularize` does; the last ones did not work |
# | AdamW learns slowly | the loss after the same time | `modtf.training.optimizer.MuonWithAdamW` as `optimizers=(..., None)`: better for `pocket`, each step costs more |
# | larger batches do not help | how many *different* assemblies were drawn | smaller batches, more steps: there is one assembly in a step |
# | slow steps on a CPU | how many different shapes the batches have | `pad_to_multiple_of=8` in the collator |
# | an error about half precision | how the original was stored | `from_pretrained(..., dtype=torch.float32)`; banks learn in float32, and `bf16=True` computes in bfloat16 where the GPU is good at it. Not `fp16=True`: T5 is known to overflow in it |
# | out of memory | the two tables above | fewer granularities, smaller batches, checkpointing |
#
# You are not alone with it: shrinking a T5 from 6 + 6 to 3 + 3 layers and fine-tuning it, without a teacher, has stalled for others too
# ([bert-squeeze #58](https://github.com/JulesBelveze/bert-squeeze/pull/58)).
#
# ## Slide it
#
# The explorer of [notebook 0](0_quickstart.ipynb), for the model that you have just made. (Its task is any text, so it has a field to type into, and ROUGE-L against the
# full model's text in place of slots.)

# %% tags=["long"]
modtf.explore(modular, folder=FOLDER)

# %% [markdown]
# ## In five lines
#
# 1. Fine-tune, `modularize`, train, `save_pretrained`: four steps, each with the classes of transformers that you know.
# 2. Memory is 4 bytes for each weight of the original and 16 for each of the banks, and activations; fewer granularities and smaller batches save it.
# 3. Run a few steps and measure before you train for hours.
# 4. Copied layers alone fall apart; one training serves all ratios at once. What the original does wrong, its kit learns too.
# 5. Look at texts, ROUGE-L, parameters and time together, then upload the folder: others need one line to slide it.
#
# <!-- footer -->
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of footer -->
