# %% [markdown]
# # 7 · Your own model
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/7_your_own_model.ipynb) · runs in 3 minutes on two CPU cores · about 40 minutes to work through
#
# [← 6 · One kit or several students?](6_one_kit_or_students.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of header -->
#
# *You have a T5 or a BART, a file of examples and a shell. How do you get to a model of any size, and how do you know whether it is any good?*
#
# **You will be able to**
# - go from your model and your file to a kit with three commands, a plan before them, a comparison and an export after, and read what they print;
# - compute how much memory such a training needs, before you rent a GPU for it;
# - choose granularities, also different ones for encoder and decoder;
# - say whether a student would have been better, and hand a size on to those who serve it.
#
# **You need** the words of [notebook 1](1_layer_mapping.ipynb): granularity, bank, path, assembly. For the small model of this page a laptop is enough; for T5-base
# or BART-base you need a GPU and a network, for example on Colab (*Runtime*, *Change runtime type*).
#
# ## In a hurry
#
# 1. **Do you need a kit at all?** For one size, train a student; for speed alone, try an engine in int8 first. [Notebook 6](6_one_kit_or_students.ipynb) has the rule and its evidence.
# 2. **Is your model one of the [families](../README.md#families)?** If not, `modtf.check(model)` says in seconds whether it can be modularized.
# 3. **Is your original good at its task?** The kit learns to write what the original writes, mistakes included (unless you sift its texts).
#
# Then it is six commands. Here for T5-base and DialogSum from Hugging Face's hub, dialogues with their summaries (CC BY-NC-SA 4.0). What all commands share goes into a file, `dialogsum.yaml`:
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
# # an original that is good at the task; where you have one, begin below
# modtf train original --config dialogsum.yaml --model google-t5/t5-base --steps 2300 --output original
# # what will a kit cost? Memory, hours, disk
# modtf plan --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000
# # train it: all sizes at once
# modtf train kit --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000 --output kit
# # how good is each size, on test?
# modtf evaluate --model kit --metrics rouge_l
# # would one student of 3x have been better? Trains it, for as many steps
# modtf versus --model kit --ratios 3 --output versus
# # one size, for those who serve it
# modtf export --model kit --ratio 3 t5-base-3x
# ```
#
# For BART-base it is `--model facebook/bart-base` and `--granularities 2 3`, since it has 6 + 6 layers. **We have not trained these to the end**, only a few steps of such kits, on a CPU: take the numbers as a place to begin, and ask
# `plan` first. On Colab the folders are gone when the machine is; let `--output` lie in your Drive. With several GPUs, put a launcher in front; `--batch-size` counts the texts of all together:
#
# ```sh
# torchrun --standalone --nproc-per-node 2 -m modtf.cli train kit --config dialogsum.yaml --model original --granularities 2 3 6 --steps 10000 --output kit
# ```
#
# While that runs, read [*What it costs*](#what-it-costs-memory), [*Is it worth it?*](#is-it-worth-it) and [*When it does not work*](#when-it-does-not-work). The rest of this page does the same with a model so small that every command takes half a minute.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pandas as pd
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

import modtf
from modtf.course import own_model as course
from modtf.tasks.examples import spread
from modtf.tasks.reading import Columns, read_split
from modtf.views import notebook
from modtf.views.report import measure

torch.set_num_threads(1)
logging.disable_progress_bar()
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]  # where `modtf` is
os.environ.update(TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")  # lines only: bars of progress cannot be stored

# %% [markdown]
# ## A model and data on this disk
#
# The commands read folders and files, as you have them. So we first write some: a T5 of 6 + 6 layers with random weights (the depth of T5-small and of BART-base), and a folder with a file for each split. The data are
# restaurants' attributes, and the texts that `pocket` wrote for them. Files that people have grown over years have faults, so ours has three: a row without a text, a row into which somebody has pasted thirty texts, and a row in
# another encoding than the rest.

# %%
FAMILY = "t5"  # or "bart"
REPOSITORY = None  # "your-name/your-kit", and it is uploaded at the end
SCRATCH = tempfile.TemporaryDirectory(prefix="modtf-", ignore_cleanup_errors=True)  # goes away with this session
os.chdir(SCRATCH.name)  # from here on, all names are those of files in there
course.write_model("small", FAMILY)
course.write_data("data")

# %% tags=["nbval-check-output"]
print(*sorted(path.name for path in Path("data").iterdir()))
print(Path("data/train.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()[0])

# %% [markdown]
# ## Can this model be modularized?
#
# Layers that are cut out, mixed and numbered anew must compute what they computed before. Whether they do depends on the family: where it keeps its layers, its depths, its position biases. `check` tries it on the model itself, which stays as it is:

# %% tags=["nbval-check-output"]
print(modtf.check(AutoModelForSeq2SeqLM.from_pretrained("small")))

# %% [markdown]
# ## Read the data
#
# Every command reads the same options for data. `--data` is a folder with a file for each split, a single file, or the name of a data set on the hub. In a line that begins with `!`, the rest goes to the shell; in a terminal you leave the `!` out. Let us say no more than that:

# %% tags=["nbval-check-output", "long"]
# !modtf plan --model small --data data

# %% [markdown]
# Whatever is wrong is said in one line that begins with `modtf:`, before anything is computed. Here the columns have other names than the commands expect.
#
# ### Exercise 7.1
# Write the options of `modtf train kit`, as you would type them, for this case: the model lies in the folder `my-bart`, the data in the folder `tickets`, with the columns `question` and `answer`. The model was fine-tuned on questions that
# begin with `reply: ` (with a space after the colon). Questions may have 300 tokens; what is longer is cut. (`modtf train kit --help` has all options, modtf's own first. If you break the line, no `\` is needed here.)

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
from modtf.commands.training import parse_kit

with notebook.check("7.1"):
    course.check_options(options, parse_kit)

# %% [markdown]
# What several commands share is better written once, into a file of options (YAML or JSON), which each takes as `--config`. An option in the shell overrides the file.

# %%
with open("small.yaml", "w") as file:
    file.write("""
data: data
source_column: mr
target_column: text
batch_size: 16
# All below is for this page alone. Its model is so narrow that AdamW takes less time than the default, Muon, and that
# bfloat16 saves none. And lines can be stored with a notebook, bars of progress cannot.
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
# There is no second copy of the original for the teacher: the teacher *is* the original, inside the same model. On top come the activations of a batch, which no formula tells; they are measured below.
#
# ### Exercise 7.2
# `memory_gb(original, banks)`: how many GB (10⁹ bytes) is that, for so many parameters of the original and of the banks?


# %% tags=["exercise"]
def memory_gb(original: int, banks: int) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Count numbers first, bytes last. What does a parameter that only computes need, and what does one that learns?
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
    course.check_memory_gb(memory_gb)

# %% [markdown]
# Shapes are enough to count with: on torch's device `"meta"` a model has shapes and no numbers, so T5-large takes no memory here, and nothing is downloaded. **How many GB does T5-base need for the kit 2, 3, 4, 6, without activations?** (It has 223 million
# parameters, most of them in 12 + 12 layers.)

# %%
guess_gb = None  # GB for T5-base with the kit 2, 3, 4, 6

# %% tags=["nbval-check-output"]
memory = notebook.chosen("memory_gb", memory_gb, course.memory_gb, course.check_memory_gb)
table = pd.DataFrame(course.memory_table(memory)).to_string(index=False)
of_base = memory(*course.parameters_of("T5-base", (2, 3, 4, 6)))
notebook.reveal("T5-base with the kit 2, 3, 4, 6: GB", guess_gb, of_base, table=table)

# %% [markdown]
# Each further granularity costs, and each gives more to choose from: 2 alone reaches 2x, 2 and 3 reach 3x, 6 is needed for 6x. **To save memory, leave granularities out.** T5-base with batches of 4 on a CPU took 3.2 GB for a kit of granularity 2 alone, and 4.8 GB to fine-tune ([measured](../benchmarks/LOG.md#your-own-model)). (By default the commands train
# matrices by Muon, which keeps one moment, not two: 12 bytes a number in the banks in place of 16.)
#
# ## What it costs: a plan
#
# The rest is measured. `modtf plan` takes the options of `modtf train kit`, runs a few of its steps, among them the largest, at a learning rate of 0, and writes nothing:

# %% tags=["long"]
# !modtf plan --config small.yaml --model small --steps 240

# %% [markdown]
# - `train:` what was read, and what was **left out**: the row without a text, and the row in another encoding. The pasted one is **cut**, and that is said, too. Larger numbers than you expect? Look at your file first.
# - `parameters`: the banks are those of all granularities that divide the stacks, here 2 and 3. `--granularities` chooses.
# - `memory`: your formula's parts (`gradients` are fewer: no step trains all modules), and `batch`, all that the largest step needs besides. On a CPU that is mostly Python and torch; on a GPU, activations.
# - `time`: an average step, times their number. **Read this one before you go home.**
# - `before that`: by default the original first writes texts of its own. Original and kit read them as they read people's; what the labels say counts only with `--labels-weight`.
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
# The first of the three commands. A checkpoint that is fine-tuned already (such as `facebook/bart-large-cnn`) needs nothing of this section. Ours does. Its weights are random and its layers narrow, hence the high learning rate; for a model that was trained before, leave it
# out: the default is meant for such.

# %% tags=["long"]
# !modtf train original --config small.yaml --model small --output original \
#     --steps 300 --learning-rate 3e-3 --logging-steps 100

# %% [markdown]
# ### Exercise 7.3
# The two stacks need not have the same depth, nor the same granularities: `modtf.modularize`, which the command below calls, takes `decoder_granularities` too. Here is a BART of **8 encoder and 6 decoder layers**.
# Give it a kit with which the encoder can be assembled down to **2** layers, but the decoder, which has the harder work, to no fewer than **3**, with as many lengths between as possible. Return the modular model. (The check builds all 200 of its assemblies and counts their layers.)


# %% tags=["exercise"]
def careful_kit(original: PreTrainedModel) -> modtf.ModularModel:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# A whole stack of granularity g has depth / g layers. Which g brings 8 layers to 2? Which brings 6 layers to 3?
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
# def careful_kit(original: PreTrainedModel) -> modtf.ModularModel:
#     return modtf.modularize(original, granularities=(2, 4), decoder_granularities=(2,))
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("7.3"):
    course.check_careful_kit(careful_kit)

# %% [markdown]
# ## Before training
#
# As soon as banks exist, every assembly can be built. Each module is at first a copy of the first layer that it stands for. We make such a kit, and measure it on dev, as the command will measure the trained one.
#
# **How much of the full model's BLEU does 2x keep now, before training? And after it?** In percent.

# %%
guess_before = None  # percent of the full model's BLEU that 2x keeps before training
guess_after = None  # and after training

# %% tags=["long"]
original = AutoModelForSeq2SeqLM.from_pretrained("original")
untrained = modtf.modularize(original, tokenizer=AutoTokenizer.from_pretrained("original"))
print(f"{untrained.mapping.count_assemblies():,} assemblies, up to {untrained.mapping.maximum_ratio:g}x")

examples = spread(read_split("data", "dev", Columns("mr", "text")).examples, 100)
before = measure(untrained, examples)
print(f"full model: BLEU {before[0]['bleu']:.1f}\n")
example, text = examples[0], untrained.generate(examples[0].source)
print(f"in:         {example.source}\nreference:  {example.references[0]}\nfull model: {text}")

# %% [markdown]
# Is that good enough to compress? Compare texts with their inputs, not only scores: the small original of this page has learned for half a minute, and not all of its texts say all.
#
# ## Train the kit
#
# The second command. Each step draws an assembly ([notebook 2](2_module_replacement.ipynb)), and the original, inside the same model, is the teacher. The options of the method (losses, schedule) keep their defaults: your kit learns from logits and hidden states, while the kits of [notebook 6](6_one_kit_or_students.ipynb) learned from labels. At the smallest sizes and little time labels alone may serve you better, and cost no teacher (`--labels-weight 1 --logits-weight 0 --hidden-weight 0`): an open question, see [notebook 3](3_distillation.ipynb).
#
# > **In the paper**: attention maps and hidden states are distilled, in one training phase. How many steps and which learning rates it used, we do not know: ours are our choice.

# %% tags=["long"]
# !modtf train kit --config small.yaml --model original --output kit \
#     --steps 240 --learning-rate 3e-3 --pairs 0 --logging-steps 60 --watch-steps 60

# %% [markdown]
# - First comes the **plan** again: if the disk is too small, the training stops here and not in the night.
# - `loss` may well *rise* at first: the longer the training lasts, the more layers of a step are modules. Its parts are how far the token probabilities are from the original's, and the hidden states.
# - The **watch** lets two sizes write 32 texts of dev now and then. Is a training of hours worth its second hour? Here a quarter of the steps brought the smallest size half of the full model's BLEU.
# - `--pairs 0` leaves out the texts that the original writes first, to save their time here. You will want them.
# - An interrupted training goes on from its last checkpoint if you give the same command again.
#
# And when a training does not go well? We give one much too few steps, and the watch has a word half-way. (`train:` has fewer rows now: 16 steps of 16 texts see 256, and no more are read.)

# %% tags=["long"]
# !modtf train kit --config small.yaml --model original --output hasty \
#     --steps 16 --pairs 0 --watch-steps 8 --logging-steps 16 --report-inputs 0

# %% [markdown]
# All of the long training is in its report, one page that needs nothing else: open `kit/report.html` in a browser. Its figure:

# %% tags=["long"]
course.training_figure("kit")

# %% [markdown]
# ## After training

# %% tags=["long"]
after = json.loads(Path("kit/report.json").read_text(encoding="utf-8"))  # what the report shows
two_before, two_after = (next(row for row in rows if row["layers"] == "3-3") for rows in (before, after))
notebook.reveal("2x before training: % of the full model's BLEU", guess_before, two_before["bleu_kept"])
notebook.reveal("2x after training: % of the full model's BLEU", guess_after, two_after["bleu_kept"])

# %% tags=["long"]
course.before_and_after_figure(before, after)

# %% [markdown]
# **This is the figure to remember.** The dotted lines are copied layers; the solid ones are the same assemblies after *one* training, for all ratios at once. What the texts look like:

# %% tags=["long"]
modular = modtf.load("kit")
print(f"in:            {example.source}\nreference:     {example.references[0]}")
for ratio in (1, 1.5, 2, 3):
    print(f"{ratio:>3}x:          {modular.generate(example.source, ratio=ratio)}")
print(f"2x, untrained: {untrained.generate(example.source, ratio=2, max_new_tokens=12)} …")

# %% [markdown]
# Look for what gets lost on the way down: a text that leaves out an attribute reads as well as the full model's. And all that a ratio can mean, side by side (milliseconds for 32 tokens of one text):

# %% tags=["long"]
columns = ["layers", "ratio", "parameters", "latency_ms", "speed_up", "bleu", "chrf", "rouge_l"]
print(pd.DataFrame(after).drop_duplicates("layers").sort_values("ratio")[columns].round(2).to_string(index=False))

# %% [markdown]
# 2-2 is hardly faster than 4-2: for one short text the decoder decides, and both have two of its layers. That 3-3 beats 4-4 may be chance (below, on 200 texts, it moves differences by two points to either side), or few of the kit's steps drew such mixtures.
#
# We have looked at dev again and again, and whoever chooses by it makes its numbers too good. The third command scores on the **test** split, once you are done choosing. The kit remembers what it was trained on: no options for data are needed.

# %% tags=["long"]
# !modtf evaluate --model kit --ratios 1 1.5 2 3 --strategies size_first

# %% [markdown]
# ## Is it worth it?
#
# Would one student have been better? Do not believe us; ask your data. `modtf versus` trains a student of one size, with the kit's own options and as many steps, lets both write the test split, and says how far they are apart. It takes as long as the kit's training (`--watch-inputs 0`: no watch):

# %% tags=["long"]
# !modtf versus --model kit --ratios 2 --watch-inputs 0 --output versus > versus.txt 2>&1
print(*Path("versus.txt").read_text(errors="replace").splitlines()[-7:], sep="\n")  # before them, the lines of a training

# %% [markdown]
# **The student is better**: the interval does not hold zero. Equal steps are not equal cost, so look at `Cost`, too (operations without optimizer and attention; such ratios are right to about 6 %): close to 1 for the student, so this is *equal each* of [notebook 6](6_one_kit_or_students.ipynb). If 2x is all that you need, take the student; it lies in `versus/3-3`, a kit of one size.
#
# But the kit has 169 assemblies. Do you want three sizes? With `--shared` their students have *together* as many steps as the kit:

# %% tags=["long"]
# !modtf versus --model kit --ratios 1.5 2 3 --shared --watch-inputs 0 --output together > together.txt 2>&1
print(*Path("together.txt").read_text(errors="replace").splitlines()[-14:], sep="\n")

# %% [markdown]
# `together` is close to 1: *equal total*. Now no difference is shown at 2x and 3x, and from one training you also have all other sizes. At 1.5x the student is better still, perhaps for the reason above. Two caveats: the intervals are about the test inputs, while
# another seed would move kit and students, too; and the students have the kit's learning rate and losses and train modules alone, while notebook 6's best students of `translator` trained all their weights. For a choice that you will report on test, let it compare on dev: `--split dev`. And for your own number of sizes, name all of them in `--ratios`, with `--shared`.
#
# ## Keep it
#
# The folder `kit` can be moved, copied and loaded as it is (`modtf.load("kit")`): banks, a copy of the original, tokenizer. Beside them lie the report, the last checkpoint, which you can delete, and `options.yaml`, which repeats the training.
# What its weights take, on disk and in memory, beside three sizes made apart:

# %% tags=["long"]
print(course.weights_held("kit", (1.5, 2, 3)))

# %% [markdown]
# Here the kit is as large as three separate sizes, however many of its own you use. To hand on **one size**, export it:

# %% tags=["long"]
# !modtf export --model kit --ratio 2 small-2x

# %% [markdown]
# The check writes 20 of the 200 test inputs (`--check`), so its BLEU is not that of `evaluate`. The model is the same, but transformers' `generate` takes longer for a text than modtf's own loop. What it checked is an ordinary checkpoint. To prove it, another Python loads it in which modtf cannot be imported:

# %% tags=["long"]
PLAIN = """
import sys
sys.modules["modtf"] = None  # importing modtf would fail now
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained("small-2x"), AutoModelForSeq2SeqLM.from_pretrained("small-2x")
tokens = model.generate(**tokenizer(sys.argv[1], return_tensors="pt"), max_new_tokens=128, num_beams=1)
print(tokenizer.decode(tokens[0], skip_special_tokens=True))
"""
run = subprocess.run([sys.executable, "-c", PLAIN, example.source], capture_output=True, text=True, check=True)
print(run.stdout.strip())
print("as here:", run.stdout.strip() == modular.generate(example.source, ratio=2))

# %% [markdown]
# `--to ctranslate2`, `--to onnx` and `--to gguf` write the same size for CTranslate2, ONNX Runtime and llama.cpp, `--precision int8` in a quarter of the bytes. Each is read back by its own engine and compared; the model card in the folder says what came of it.
# [What each costs and keeps](../README.md#exports) is measured, and [deploying a size](../docs/deploy.md) has the lines that load and serve it.
#
# `push_to_hub` uploads the whole kit with a model card; `modtf.load("your-name/your-kit")` takes it from there. Write the name into `REPOSITORY` at the top, and log in (`huggingface_hub.login()`, or the secret `HF_TOKEN` on Colab).

# %% tags=["long"]
print("no REPOSITORY: nothing is uploaded" if REPOSITORY is None else modular.push_to_hub(REPOSITORY))

# %% [markdown]
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
# | you initialise banks yourself, and they do not learn | from which layers | the *first* layer of each group, as `modularize` does. In `pocket` m(g, 0) must, since layer 0 reads the embeddings ([notebook 3](3_distillation.ipynb)) |
# | numbers overflow, the loss is no number | the precision | `--no-bf16`, and no `--fp16`: T5 is known to overflow in it |
# | out of memory | the plan, and the two tables above | fewer granularities, smaller batches, checkpointing |
#
# You are not alone: shrinking a T5 from 6 + 6 to 3 + 3 layers and fine-tuning it has stalled for others too
# ([bert-squeeze #58](https://github.com/JulesBelveze/bert-squeeze/pull/58)).
#
# ## Slide it
#
# The explorer of [notebook 0](0_quickstart.ipynb), for the model that you have just made. (Its task is any text: type into its field.)

# %% tags=["long"]
modtf.explore(modular, source=examples[0].source, folder=SCRATCH.name)

# %% [markdown]
# ## References
#
# - Zhou, Le Bras, Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023.
# - Chen, Liu, Chen, Zhang: [DialogSum: A Real-Life Scenario Dialogue Summarization Dataset](https://arxiv.org/abs/2105.06762), Findings of ACL-IJCNLP 2021.
#
# ## In five lines
#
# 1. `modtf train original`, `modtf train kit`, `modtf evaluate`: from your model and your file to sizes with scores. What is wrong with either is said in a line before anything is trained, what it will cost by `modtf plan`.
# 2. Memory is 4 bytes for each weight of the original, 12 to 16 for each of the banks, and activations; fewer granularities and smaller batches save it.
# 3. Copied layers alone fall apart; one training serves all ratios at once. What the original does wrong, its kit learns too, unless its texts are sifted.
# 4. Look at texts, scores, parameters and time together; choose on dev, report on test. `modtf versus` says whether one student would do better, and at which cost: look at both, and at how many sizes you want.
# 5. `kit/` is all that others need to slide it, `modtf export` all that they need to serve one size without modtf.
#
# <!-- footer -->
# [← 6 · One kit or several students?](6_one_kit_or_students.ipynb) · [index](README.md) · [glossary](README.md#glossary)
# <!-- end of footer -->
