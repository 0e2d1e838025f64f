# %% [markdown]
# # 7 · Your own model
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/7_your_own_model.ipynb) · runs in 2.5 minutes on two CPU cores · about 40 minutes to work through
#
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of header -->
#
# *You have a T5 or a BART, a file of examples and a shell. How do you get to a model of any size, and how do you know whether it is any good?*
#
# **You will be able to**
# - go from your model and your file to a kit with three commands, and read every line that they print;
# - compute how much memory such a training needs, before you rent a GPU for it;
# - choose granularities, also different ones for encoder and decoder;
# - say whether one kit is worth it for you, and hand it on: as a folder, as a small plain model, on the hub.
#
# **You need** the words of [notebook 1](1_layer_mapping.ipynb): granularity, bank, path, assembly. For the small model of this page a laptop is enough; for T5-base
# or BART-base you need a GPU and a network, for example on Colab (*Runtime*, *Change runtime type*). In a hurry, with a model of your own? Read *Read the data* and *A file of options*, then go to
# *With T5-base, BART-base, or yours*.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartConfig, T5Config, set_seed
from transformers.utils import logging

import modtf
from modtf.commands.training import parse_kit
from modtf.mapping import Assembly
from modtf.tasks import E2E, TEXT
from modtf.tasks.e2e import parse_mr
from modtf.tasks.examples import spread
from modtf.tasks.reading import Columns, read_split
from modtf.views import notebook
from modtf.views.figures import before_and_after, described
from modtf.views.report import course_figure, measure

torch.set_num_threads(1)
logging.disable_progress_bar()
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]  # where `modtf` is
os.environ.update(TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")  # lines only: bars of progress cannot be stored

# %% [markdown]
# ## A model and data on this disk
#
# All commands below read folders and files, as you have them. So we first put a model and data on the disk: a T5 of 6 + 6 layers with random weights (the depth of
# T5-small and of BART-base), and a folder with a file for each split. In a line that begins with `!`, the rest goes to the shell: in a terminal you leave the `!` out.

# %%
FAMILY = "t5"  # or "bart"
REPOSITORY = None  # "your-name/your-kit", and it is uploaded at the end
SCRATCH = tempfile.TemporaryDirectory(prefix="modtf-", ignore_cleanup_errors=True)  # goes away with this session
os.chdir(SCRATCH.name)  # from here on, all names are those of files in there
tokenizer = modtf.load("pocket").tokenizer


# %%
def small_model(family: str, encoder: int, decoder: int):
    """A T5 or BART of so many layers, narrow enough for a laptop, with random weights."""
    set_seed(0)
    shared = {"vocab_size": len(tokenizer), "d_model": 64, "pad_token_id": 0, "eos_token_id": 1}
    if family == "t5":
        sizes = {"num_layers": encoder, "num_decoder_layers": decoder, "d_kv": 16, "d_ff": 256, "num_heads": 4}
        config = T5Config(**shared, **sizes, decoder_start_token_id=0, dropout_rate=0.0)
    else:
        sizes = {"encoder_layers": encoder, "encoder_attention_heads": 4, "encoder_ffn_dim": 256, "max_position_embeddings": 256}
        sizes |= {"decoder_layers": decoder, "decoder_attention_heads": 4, "decoder_ffn_dim": 256, "init_std": 0.05}
        config = BartConfig(**shared, **sizes, bos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=1, dropout=0.0)
    return AutoModelForSeq2SeqLM.from_config(config)


for part in (small_model(FAMILY, 6, 6), tokenizer):
    part.save_pretrained("small")

# %% [markdown]
# The data are those that are bundled with `pocket`: a restaurant's attributes, and the text that `pocket` wrote for them. Only those of at most six attributes, so that half
# a minute is enough to learn from. Files that people have grown over years have faults, so we put three into ours: a row without a text, a row into which somebody
# has pasted thirty texts, and a row that was saved in another encoding than the rest.

# %%
bundled = [one for name in ("pairs", "evaluation") for one in E2E.bundled_examples(name) if len(parse_mr(one.source)) <= 6]
rows = [{"mr": source, "text": text} for source, text in {one.source: one.references[0] for one in bundled}.items()]
faults = [rows[300] | {"text": ""}, rows[301] | {"text": " ".join([rows[301]["text"]] * 30)}]

data = Path("data")
data.mkdir(exist_ok=True)
pd.DataFrame(rows[:200]).to_json(data / "test.jsonl", orient="records", lines=True, force_ascii=False)
pd.DataFrame(rows[200:300]).to_csv(data / "dev.csv", index=False)
pd.DataFrame(rows[300:] + faults).to_json(data / "train.jsonl", orient="records", lines=True, force_ascii=False)
with (data / "train.jsonl").open("ab") as file:
    file.write('{"mr": "name[Café Rouge], food[Thai]", "text": "Café Rouge has Thai food."}\n'.encode("latin-1"))

# %% tags=["nbval-check-output"]
print(*sorted(path.name for path in data.iterdir()))
print((data / "train.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()[0])

# %% [markdown]
# ## Can this model be modularized?
#
# Layers that are cut out, mixed and numbered anew must compute what they computed before. Whether they do depends on the family: where it keeps its layers, its depths, its position biases.
# modtf has a record of that for each family that it knows ([the table](../README.md#families)). For any model, `check` tries it on the model itself, which stays as it is:

# %% tags=["nbval-check-output"]
print("known families:", ", ".join(modtf.ARCHITECTURES))
print(modtf.check(AutoModelForSeq2SeqLM.from_pretrained("small")))

# %% [markdown]
# A family that is not on the list is compared with all that are: if one of them fits and all is exact, the last line says how to use it.
#
# ## Read the data
#
# Every command reads the same options for data. `--data` is a folder with a file for each split, a single file, or the name of a data set on the hub. Let us run one of
# the commands (`plan`, which trains nothing; what it is for comes below) without saying more:

# %% tags=["nbval-check-output", "long"]
# !modtf plan --model small --data data

# %% [markdown]
# Whatever is wrong is said in one line that begins with `modtf:`, before anything is computed. Here the columns have other names than the commands expect.
#
# ### Exercise 7.1
# Write the options of `modtf train kit`, as you would type them, for this case: the model lies in the folder `my-bart`. The data lie in the folder `tickets`, with the
# columns `question` and `answer`. The model was fine-tuned on questions that begin with `reply: ` (with a space after the colon). Questions may have 300 tokens; what is longer is cut. (`modtf train kit --help` has all options;
# those that are modtf's own come first. You need not break the line. If you do, no `\` is needed here.)

# %% tags=["exercise"]
options = None  # "--model my-bart ..." in place of None

# %% [markdown]
# <details><summary>Hint 1</summary>
#
# There are options for the folder, for each column, for the prefix and for the length of a source.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The error above names two of them. A text with a space in it needs quotation marks, as in any shell.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# options = """--model my-bart --data tickets --source-column question --target-column answer
#     --source-prefix "reply: " --max-source-length 300"""
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("7.1"):
    assert options is not None, "options is None; write a text"
    _, given, _ = parse_kit(["--output", "kit", *shlex.split(options)])  # as the command itself reads them
    assert given.original == "my-bart", f"the model would be {given.original!r}"
    assert given.data == "tickets", f"the data would be {given.data!r}"
    columns = given.source_column or "source", given.target_column or "target"
    assert columns == ("question", "answer"), f"it would read the columns {columns[0]!r} and {columns[1]!r}"
    read = given.source_prefix + "How do I log in?"
    assert read == "reply: How do I log in?", f"the model would read {read!r}"
    longest = given.max_source_length or 512
    assert longest == 300, f"questions would be cut to {longest} tokens"

# %% [markdown]
# ## A file of options
#
# What several commands share is better written once, into a file of options (YAML or JSON), which each takes as `--config`. What the shell says besides counts more.

# %%
with open("small.yaml", "w") as file:
    file.write("""
data: data
source_column: mr
target_column: text
batch_size: 16
# All below is for the small model of this page alone. It is so narrow that AdamW takes less time than the default, Muon,
# and bfloat16 saves none. And lines can be stored with a notebook, bars of progress cannot.
optim: adamw_torch
bf16: false
disable_tqdm: true
report_to: none
""")

# %% [markdown]
# ## What it costs: memory
#
# While the banks are trained, the device holds, in float32 (4 bytes a number):
#
# - the weights of the original **and** of the banks;
# - gradients, for what is trained: the banks only, since the original is frozen;
# - two moments of AdamW for each number that is trained.
#
# There is no second copy of the original for the teacher: the teacher *is* the original, inside the same model. On top of that come the activations of a batch, which
# no formula tells; they are measured below.
#
# ### Exercise 7.2
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
with notebook.check("7.2"):
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
six = {"encoder_layers": 6, "encoder_ffn_dim": 3072, "decoder_layers": 6, "decoder_ffn_dim": 3072}
SHAPES = {
    "BART-base": BartConfig(d_model=768, **six),
    "T5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0),
    "T5-large": T5Config(d_model=1024, d_ff=4096, num_layers=24, num_heads=16, decoder_start_token_id=0),
}


def held_gb(name: str, granularities: tuple[int, ...]) -> dict[str, float]:
    """What the training of a kit holds, without activations; no granularities: fine-tuning of the original."""
    with torch.device("meta"):
        modular = modtf.modularize(AutoModelForSeq2SeqLM.from_config(SHAPES[name]), granularities or (2,))
    original = sum(weight.numel() for weight in modular.original_weights().values())
    banks = sum(weight.numel() for weight in modular.bank_weights().values()) if granularities else 0
    trained = banks or original
    numbers = {"original": original, "banks": banks, "gradients": trained, "moments": 2 * trained}
    return {part: 4 * count / 1e9 for part, count in numbers.items()}


# %% tags=["nbval-check-output"]
notebook.reveal("T5-base with the kit 2, 3, 4, 6: GB", guess_gb, sum(held_gb("T5-base", (2, 3, 4, 6)).values()))

# %% tags=["nbval-check-output"]
kits = [("BART-base", (2, 3)), *(("T5-base", kit) for kit in ((), (2,), (2, 3), (2, 3, 6), (2, 3, 4, 6))), ("T5-large", (2, 3, 6))]
costs = [{"model": name, "kit": ", ".join(map(str, kit)) or "(fine-tuning)"} | held_gb(name, kit) for name, kit in kits]
print(pd.DataFrame(costs).assign(GB=lambda table: table.sum(axis=1, numeric_only=True)).round(2).to_string(index=False))

# %% [markdown]
# Each further granularity costs, and each gives more to choose from: 2 alone reaches 2x, 2 and 3 reach 3x, 6 is needed for 6x. **To save memory, leave granularities
# out.** A kit can be trained on a smaller GPU than fine-tuning needs, if it is small enough. (By default the commands train matrices by Muon. It keeps one moment, not two, so that
# banks need 12 bytes a number in place of 16.)
#
# ## What it costs: a plan
#
# The rest is measured, by `modtf plan`. It takes the options of `modtf train kit`, runs a few of its steps, among them the largest, at a learning rate of 0, and
# writes nothing:

# %% tags=["long"]
# !modtf plan --config small.yaml --model small --steps 240

# %% [markdown]
# Line by line:
#
# - `train:` what was read, and what was **left out**: the row without a text, and the row in another encoding. The pasted one is **cut**, and that is said, too. If these
#   numbers are larger than you expect, look at your file before you train on it. `dev` is the split on which the kit will be watched.
# - `parameters`: the banks are those of all granularities that divide the stacks, here 2 and 3. `--granularities` chooses.
# - `memory`: your formula's parts (`gradients` are fewer: no step trains all modules), and `batch`, all that the largest step needs besides. On a CPU that is mostly Python and torch themselves; on a GPU it is activations,
#   which grow with the texts at once and with their lengths.
# - `time`: an average step, times their number. **Read this one before you go home.**
# - `disk`: checkpoints hold the banks and what the optimizer keeps of them; the kit in the end holds a copy of the original as well.
# - `before that`: by default the original first writes texts of its own, and the kit learns from them as well as from people's.
#
# What saves memory, and what it costs:
#
# | option | what it does |
# |---|---|
# | `--granularities 2 3` | less to store and to train; fewer ratios |
# | `--batch-size 16 --gradient-accumulation-steps 4` | 4 texts at once instead of 16, four times a step; all four batches run the same assembly |
# | `--max-source-length 256` | no text is longer; what is cut is lost |
# | `--gradient-checkpointing true` | what modularized layers keep is computed twice instead; the originals of a mixed path keep theirs |
# | `--bf16 true` | half-size numbers in most operations; the default on machines that are good at it (on Colab: A100, L4; not T4) |
# | `--attention-weight 0` | the default: no attention maps to keep, and fast attention instead of eager |
#
# ## Train the original
#
# The first of the three commands. An original should be good at the task before it is compressed: the banks learn from what *it* writes. A checkpoint that is fine-tuned already (such as
# `facebook/bart-large-cnn` for CNN/DailyMail) needs nothing of this section. Ours does. Its weights are random and its layers narrow, hence the high learning rate. Leave it out for a model that was trained
# before: the default, 1e-4, is meant for such.

# %% tags=["long"]
# !modtf train original --config small.yaml --model small --output original \
#     --steps 300 --learning-rate 3e-3 --logging-steps 100

# %% [markdown]
# ### Exercise 7.3
# Stacks need not have the same depth, nor the same granularities: `modtf.modularize`, which the command below calls, takes `decoder_granularities` too. Here is a BART of **8 encoder and 4 decoder layers**.
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
with notebook.check("7.3"):
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
# As soon as banks exist, every assembly can be built. Each module is at first a copy of the first layer that it stands for. We make such a kit, and measure it on dev, as the
# command will measure the trained one in the end.
#
# **How much of the full model's BLEU does 2x keep now, before training? And after it?** Write two guesses, in percent.

# %%
guess_before = None  # percent of the full model's BLEU that 2x keeps before training
guess_after = None  # and after training

# %% tags=["long"]
original = AutoModelForSeq2SeqLM.from_pretrained("original")
untrained = modtf.modularize(original, tokenizer=AutoTokenizer.from_pretrained("original")).to(DEVICE)
print(f"{untrained.mapping.count_assemblies():,} assemblies, up to {untrained.mapping.maximum_ratio:g}x")

examples = spread(read_split("data", "dev", Columns("mr", "text")).examples, 100)
before = measure(untrained, examples)
print(f"full model: BLEU {before[0]['bleu']:.1f}")
for example, text in list(zip(spread(examples, 4), before[0]["texts"], strict=True))[::3]:
    print(f"\nin:         {example.source}\nreference:  {example.references[0]}\nfull model: {text}")

# %% [markdown]
# Is that good enough to compress? Look at the texts, not only at a score, and compare each with its input: the small original of this page has learned for half a minute, and not all of its texts
# say all. The banks will learn to write what it writes, mistakes included.
#
# ## Train the kit
#
# The second command. Each step draws an assembly ([notebook 2](2_module_replacement.ipynb)), and the original, inside the same model, is the teacher. The options of the method's own (losses, schedule) keep
# their defaults ([notebook 3](3_distillation.ipynb) is about them).
#
# > **In the paper**: attention maps and hidden states are distilled, in one training phase. How many steps and which learning rates it used, we do not know: ours are our
# > choice.

# %% tags=["long"]
# !modtf train kit --config small.yaml --model original --output kit \
#     --steps 240 --learning-rate 3e-3 --pairs 0 --logging-steps 60 --watch-steps 60

# %% [markdown]
# - First comes the **plan** again: if the disk is too small, the training stops here and not in the night.
# - `loss` is the mean since the last such line, and in brackets its parts: how far the token probabilities are from the original's, and the hidden states after each layer. It may
#   well *rise* at first: the longer the training lasts, the more layers of a step are modules.
# - The **watch** lets two sizes write 32 texts of dev now and then: the one half-way to the smallest, here of 4 + 3 layers, and the smallest. Is a training of hours worth its second hour? These lines know
#   it early. If the loss does not fall, or the smallest size still writes nothing of use half-way, the watch says so, and what to try.
# - `--pairs 0` leaves out the texts that the original writes first, to save their time here. You will want them.
# - An interrupted training goes on from its last checkpoint if you give the same command again. So does a notebook's cell.
#
# All of it is in the report: one page, `kit/report.html`, that needs nothing else. Open it in a browser. Its figure of the training:

# %% tags=["long"]
seen = [json.loads(line) for line in Path("kit/quality.jsonl").read_text().splitlines()]
shapes = [key for key in seen[0] if key not in ("step", "metric", "full")]
described(
    course_figure(Path("kit")),
    "The loss over the steps, and the BLEU of two sizes: "
    + ", ".join(f"{shape} layers reach {seen[-1][shape]:.0f} (full model {seen[-1]['full']:.0f})" for shape in shapes),
    title="The training, as the report shows it",
    margin={"t": 90, "r": 60},
    title_y=0.95,
)

# %% [markdown]
# ## After training

# %% tags=["long"]
after = json.loads(Path("kit/report.json").read_text(encoding="utf-8"))  # what the report shows
two_before, two_after = (next(row for row in rows if row["layers"] == "3-3") for rows in (before, after))
notebook.reveal("2x before training: % of the full model's BLEU", guess_before, two_before["bleu_kept"])
notebook.reveal("2x after training: % of the full model's BLEU", guess_after, two_after["bleu_kept"])

# %% tags=["long"]
described(
    before_and_after(before, after, TEXT.metrics[0]),
    "Lines over the ratio, two strategies, before and after training. "
    + " ".join(
        f"{new['strategy'].replace('_', ' ')} {new['ratio']:.2f}x: {old['bleu_kept']:.0f} % before, {new['bleu_kept']:.0f} % after."
        for old, new in zip(before, after, strict=True)
    ),
    title="BLEU kept, before and after one training",
    title_y=0.97,
    margin={"t": 100},
)

# %% [markdown]
# **This is the figure to remember.** The dotted lines are copied layers; the solid ones are the same assemblies after *one* training, for all ratios at once. What the
# texts look like:

# %% tags=["long"]
modular = modtf.load("kit").to(DEVICE)
for example in spread(examples, 4)[::3]:
    print(f"in:            {example.source}\nreference:     {example.references[0]}")
    for ratio in (1, 1.5, 2, 3):
        print(f"{ratio:>3}x:          {modular.generate(example.source, ratio=ratio)}")
    print(f"2x, untrained: {untrained.generate(example.source, ratio=2, max_new_tokens=40)}\n")

# %% [markdown]
# Look for what gets lost on the way down: a text that leaves out an attribute, or names another place, reads as well as the full model's. And all that a ratio can mean, side by side, as in [notebook 1](1_layer_mapping.ipynb): layers, parameters, milliseconds (32 tokens for one text; all sizes take turns, so
# that all meet the same machine), quality. It is the report's table.

# %% tags=["long"]
columns = ["layers", "ratio", "parameters", "latency_ms", "speed_up", "bleu", "chrf", "rouge_l"]
print(pd.DataFrame(after).drop_duplicates("layers").sort_values("ratio")[columns].round(2).to_string(index=False))

# %% [markdown]
# So far we have looked at dev again and again, and if you choose between trainings by it, its numbers become too good. The third command scores on the **test** split, once you are done choosing. The kit remembers what it was trained
# on: no options for data are needed.

# %% tags=["long"]
# !modtf evaluate --model kit --ratios 1 1.5 2 3 --strategies size_first

# %% [markdown]
# ## Is it worth it?
#
# One kit gives all sizes. If you need *one* size, a student of that size alone may be better, since each of its steps trains the layers that you want, and nothing else. Do not believe us; ask your data.
# `modtf versus` trains that student with the kit's own options, as many steps included, lets both write the test split, and says how far they are apart, with a 95 % interval (paired bootstrap over the
# texts). It takes as long as the training of a kit, so we have run it for you, on the kit of this page (and on a machine that had other work to do):
#
# ```text
# !modtf versus --model kit --ratios 2 --output versus
# ...
#  layers  ratio                   BLEU        chrF2      ROUGE-L  trained
#     6-6   1.00 original         69.33        79.19        80.58
#     3-3   2.00 kit              61.50        71.92        74.84  0.8 min, 240 steps
#     3-3   2.00 student          68.51        78.27        79.63  0.7 min, 240 steps
# 3-3, BLEU: kit less student -7.0 (95 % interval -9.4 to -4.8): the student is better
# ```
#
# **Here the student is better**, by 7 points of BLEU, and the interval is far from zero. Both had 240 steps: the student for its one size, the kit for 169 assemblies. So if 2x is all that you need, take the student; it lies in
# `versus/3-3`, a kit of one size. If you need three sizes, three such students cost three times as much. So ask again: with `--shared`, they have *together* as many steps as the kit had.
#
# ```text
# !modtf versus --model kit --ratios 1.5 2 3 --shared --output together
# ...
# 4-4, BLEU: kit less student -4.7 (95 % interval -6.7 to -2.9): the student is better
# 3-3, BLEU: kit less student -1.1 (95 % interval -3.4 to +1.1): no difference is shown
# 2-2, BLEU: kit less student +1.3 (95 % interval -1.0 to +3.4): no difference is shown
# The budgets differ: the kit had 240 steps of 16 texts, each student 80 steps of 16 texts.
# ```
#
# At 2x and 3x the kit holds its own, at 1.5x it does not, perhaps since few of its steps draw such mixtures of originals and modules. "No difference is shown" does not mean that there is none; with more texts the
# intervals are smaller. On our larger models the answer was alike: [students that cost as much as the kit are mostly better, students that share its cost about level](../README.md#what-it-keeps).
#
# ## Keep it
#
# The folder `kit` can be moved, copied and loaded as it is (`modtf.load("kit")`): banks, a copy of the original, tokenizer. Beside them lie the report, the last checkpoint, which you can delete, and `options.yaml`, which repeats the
# training:

# %% tags=["long"]
print("files:", ", ".join(sorted(path.name for path in Path("kit").iterdir())), end="\n\n")
print(Path("kit/options.yaml").read_text(encoding="utf-8"))

# %% [markdown]
# `modtf train kit --config kit/options.yaml --seed 1 --output second` trains it anew with another seed: what the shell says counts more than the file.
#
# Whoever needs one size only gets one size. `modtf export` writes an ordinary checkpoint:

# %% tags=["long"]
# !modtf export --model kit --ratio 2 small-2x

# %% [markdown]
# To prove it, another Python loads it in which modtf cannot be imported.

# %% tags=["long"]
PLAIN = """
import sys
sys.modules["modtf"] = None  # importing modtf would fail now
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained("small-2x"), AutoModelForSeq2SeqLM.from_pretrained("small-2x")
tokens = model.generate(**tokenizer(sys.argv[1], return_tensors="pt"), max_new_tokens=128, num_beams=1)
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
"""
run = subprocess.run([sys.executable, "-c", PLAIN, examples[0].source], capture_output=True, text=True, check=True)
print(run.stdout.strip())
print("as here:", run.stdout.strip() == modular.generate(examples[0].source, ratio=2))

# %% [markdown]
# `push_to_hub` uploads the kit and a model card; `modtf.load("your-name/your-kit")` takes it from there. Write the repository's name into `REPOSITORY` at the top, and log in
# (`huggingface_hub.login()`, or the secret `HF_TOKEN` on Colab). Say in the card what the original and the data were, and under which licences.

# %% tags=["long"]
print("no REPOSITORY: nothing is uploaded" if REPOSITORY is None else modular.push_to_hub(REPOSITORY))

# %% [markdown]
# ## With T5-base, BART-base, or yours
#
# The same commands, with other names. **We have not trained these to the end**, only a few steps of such kits, on a CPU; the largest model that we have trained has 8.5 million parameters. Take their numbers as a place to
# begin, not as a result, and ask `modtf plan` first. The data set is DialogSum from Hugging Face's hub, dialogues with their summaries (CC BY-NC-SA 4.0; read the licence of data and
# model before you share what you train). What all commands share goes into a file, `dialogsum.yaml`:
#
# ```yaml
# data: knkarthick/dialogsum
# source_column: dialogue
# target_column: summary
# source_prefix: "summarize: "   # T5 expects it; BART does not: leave the line out
# max_source_length: 384
# batch_size: 16
# gradient_accumulation_steps: 2   # 8 texts at once
# ```
#
# ```sh
# modtf train original --config dialogsum.yaml --model google-t5/t5-base --steps 2300 --output original
# modtf plan --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000
# modtf train kit --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000 --output kit
# modtf evaluate --model kit --metrics rouge_l
# modtf export --model kit --ratio 3 t5-base-3x
# ```
#
# For BART-base it is `--model facebook/bart-base`, and `--granularities 2 3`, since it has 6 + 6 layers. On Colab the
# folders are gone when the machine is; let `--output` lie in your Drive (`/content/drive/MyDrive/...`) before you train for hours.
#
# **More GPUs**: each process runs the same command, and all processes run the same assembly in a step, since the draw depends on seed and step only. `--batch-size` counts
# the texts of all together. Either launcher will do; on a machine with several GPUs of which you want one, put `CUDA_VISIBLE_DEVICES=0` before the plain command.
#
# ```sh
# torchrun --standalone --nproc-per-node 2 -m modtf.cli train kit --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000 --output kit
# accelerate launch --multi_gpu --num_processes 2 -m modtf.cli train kit --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000 --output kit
# ```
#
# ## When it does not work
#
# What we have met, and what helped. [The log](../benchmarks/LOG.md) has the trials with their numbers; they are single runs of small models, so take them as hints.
#
# | you see | look at | try |
# |---|---|---|
# | one size falls into loops ("food food food …"), others do not | the watch: does it still get better? | more steps first. Sharing one training between many sizes cost more steps, and nothing broke; a larger `--whole` draws every whole-grain stack more often |
# | all sizes lag behind, and the loss still falls | the learning rate: has it reached its end? | let it finish; the last third, with its falling rate, did much of the work |
# | the loss does not fall | the watch says so | a third and three times the `--learning-rate`, a few hundred steps each |
# | texts read well, but leave things out | the texts that it learned from: does the original leave things out, too? | a last part (`--begin-with kit`) on texts that have no faults, with `--labels-weight 1`; `pocket`'s kit became more faithful so than its original at most sizes (`--faultless` sifts texts, where the task can judge them) |
# | small sizes write what the original should not have written | the original alone, on held-out data | a better original. Ours was over-fitted at first; `--dropout` helped it |
# | larger batches do not help | how many *different* assemblies were drawn | a smaller `--batch-size`, more `--steps`: there is one assembly in a step, unless `--assemblies-per-step` says otherwise |
# | you initialise banks yourself, and they do not learn | from which layers | the *first* layer of each group, as `modularize` does; the last ones did not work |
# | numbers overflow, the loss is no number | the precision | `--no-bf16`, and no `--fp16`: T5 is known to overflow in it |
# | out of memory | the plan, and the two tables above | fewer granularities, smaller batches, checkpointing |
#
# You are not alone with it: shrinking a T5 from 6 + 6 to 3 + 3 layers and fine-tuning it, without a teacher, has stalled for others too
# ([bert-squeeze #58](https://github.com/JulesBelveze/bert-squeeze/pull/58)).
#
# ## Slide it
#
# The explorer of [notebook 0](0_quickstart.ipynb), for the model that you have just made. (Its task is any text, so it has a field to type into, and ROUGE-L against the
# full model's text in place of slots.)

# %% tags=["long"]
modtf.explore(modular, folder=SCRATCH.name)

# %% [markdown]
# ## In five lines
#
# 1. `modtf train original`, `modtf train kit`, `modtf evaluate`: from your model and your file to sizes with scores. What is wrong with either is said in a line before anything is trained, what it will cost by `modtf plan`.
# 2. Memory is 4 bytes for each weight of the original, 12 to 16 for each of the banks, and activations; fewer granularities and smaller batches save it.
# 3. Copied layers alone fall apart; one training serves all ratios at once. What the original does wrong, its kit learns too.
# 4. Look at texts, scores, parameters and time together; choose on dev, report on test, and let `modtf versus` say whether one student would do better.
# 5. `kit/` is all that others need to slide it, `modtf export` all that they need to serve one size without modtf.
#
# <!-- footer -->
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of footer -->
