# %% [markdown]
# # 1 · Layer mapping
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/1_layer_mapping.ipynb) · runs in 0.5 minute on two CPU cores · about 25 minutes to work through
#
# [← 0 · Quickstart](0_quickstart.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [2 · Module replacement →](2_module_replacement.ipynb)
# <!-- end of header -->
#
# *What does one modularized layer stand for, and what can be built from a box of them?*
#
# **You will be able to**
# - say which original layers the modularized layer m(g, j) does the work of;
# - build a path by hand, and say why another one is impossible;
# - write `layers(path)`, the heart of the machine, and let a real model run through your list;
# - count the models that one training gives you;
# - tell apart four things that "six times smaller" can mean: layers, parameters, bytes, time.
#
# **You need** to know what encoder, decoder and layer mean in a transformer. [Notebook 0](0_quickstart.ipynb) is a good start, but nothing of it is needed.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json

import ipywidgets as widgets
import torch
from transformers import T5Config, T5ForConditionalGeneration

import modtf
from modtf.bundled import bundled
from modtf.course import mapping as course
from modtf.mapping import default_granularities, divisors
from modtf.views import notebook

torch.set_num_threads(1)
modular = modtf.load("pocket")
mapping = modular.mapping

# %% [markdown]
# ## A stack and its banks
#
# An encoder-decoder transformer has two *stacks* of layers that all look alike: the encoder's and the decoder's. The bundled model `pocket` has 12 of each, as
# T5-base has. In the beginning every layer is an *original* one.
#
# A **modularized layer** is a layer of the very same architecture that has learned to do the work of *several consecutive* originals. How many is its **granularity**
# g. All modularized layers of one granularity are a **bank**: for 12 layers, the bank of granularity 3 has four, m(3, 0) to m(3, 3).
#
# **m(g, j)** is the j-th module of bank g, counted from 0: the j modules before it took g layers each, so it stands for the g layers from j·g on. It begins as a copy of the first of them, and what it becomes is training ([notebook 2](2_module_replacement.ipynb)).

# %% tags=["nbval-check-output"]
print("encoder:", mapping.encoder.depth, "layers, granularities", mapping.encoder.granularities)
print("decoder:", mapping.decoder.depth, "layers, granularities", mapping.decoder.granularities)

# %%
course.all_banks(mapping.encoder)

# %% [markdown]
# **This is the figure to remember.** Read it from top to bottom: blocks that span the same columns do the same work. m(3, 1) stands for the original layers 3, 4
# and 5; so do the three originals above it. Each row is a whole stack by itself, and the lowest one has two layers instead of twelve.
#
# Pick a module and see what it stands for. *Three modules end with layer 5. Which?*

# %%
notebook.play(
    course.one_module,
    g=widgets.SelectionSlider(options=[2, 3, 4, 6], value=3, description="g"),
    j=widgets.IntSlider(value=1, min=0, max=5, description="j"),
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# m(2, 2), m(3, 1) and m(6, 0). One of granularity 4 cannot: they end with 3, 7 and 11.
# </details>
#
# > **In the paper** (figure 1): t_i is the i-th original layer, m_ij the j-th modularized layer of granularity i. The paper counts from one, we count from
# > zero as Python does: our m(g, j) stands for the layers j·g to j·g + g − 1. Which layers m_ij covers we read off the figure; that granularities divide the depth is our choice: nothing else covers a stack evenly.
#
# ### Exercise 1.1
# Write that down as code: `covers(g, j)` is the `range` of original layers that m(g, j) stands for.


# %% tags=["exercise"]
def covers(g: int, j: int) -> range:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# How many originals do the j modules before it stand for, all together? That many are done when it begins.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `range(a, b)` ends *before* b: the next module's beginning will do.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def covers(g: int, j: int) -> range:
#     return range(j * g, (j + 1) * g)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("1.1"):
    course.check_covers(covers)

# %% [markdown]
# Which granularities can a stack have? Those that divide its depth. (By default modtf takes the divisors up to half of it; where there are none, the depth itself. `translator`, with 6 layers, was given 2, 3 and 6.)

# %% tags=["nbval-check-output"]
for depth in (6, 7, 12, 24):
    print(f"{depth:2} layers: possible {divisors(depth)}, by default {default_granularities(depth)}")

# %% [markdown]
# ## Paths
#
# A **path** is a way through the figure above from the left edge to the right: a list of granularities that covers every original layer once. `1·1·2·2·6` is a path: two originals, m(2, 1), m(2, 2), m(6, 1).
#
# There is one rule: **a module of granularity g begins at a multiple of g**. Why? A bank lies side by side, without overlap, so its modules begin at 0, g, 2g … and no others exist. One could make modules that begin at every layer, but then a stack of 12 would have 11 + 10 + 9 + 7 = 37 of them in place of 6 + 4 + 3 + 2 = 15, and the same training would have fewer steps for each.
#
# Two paths, one for each stack, are an **assembly**. modtf checks them, and says what is wrong:

# %% tags=["nbval-check-output"]
decoder = (6, 6)
for encoder in [(1, 1, 2, 2, 6), (2, 2, 2), (1, 2, 3, 6), (2, 2, 2, 1, 5)]:
    try:
        print("✓", mapping.check(modtf.Assembly(encoder, decoder)))
    except modtf.ModtfError as error:
        print("✗", error)

# %% [markdown]
# Now build one by hand: click layers together, or type them. It says at once what you have, how many layers that is and which ratio, and whether it is possible.
#
# **The challenge: a decoder of four layers, no two of the same granularity.** (And one to think about: can a decoder of nine layers contain a module of granularity 6?)

# %%
course.one_path((1, 1, 2, 2, 6))

# %%
builder = course.PathBuilder(mapping.decoder, other=12, challenge=course.check_four_kinds, text="1 1 2 2 6")
builder.widget

# %% [markdown]
# <details><summary>Answer: four layers, all different</summary>
#
# 1 + 2 + 3 + 6 is the only way to make 12 from four different granularities. Not in every order: 2·1·3·6 is a path, and 6·3·1·2, while 1·2·3·6 would begin m(2, ·) at layer 1.
# </details>
#
# <details><summary>Answer: nine layers with m(6, ·)?</summary>
#
# No: it leaves six original layers to cover, so seven layers are the most that such a path can have.
# </details>
#
# ## The machine
#
# A T5 keeps its layers in a list, and its forward pass calls them one after another. So a path becomes a model as soon as somebody turns it into a *list of layers*. That somebody is you.
#
# ### Exercise 1.2
# Write `layers(originals, banks, path)`. `originals` is the list of a stack's original layers; `banks[3]` is the list m(3, 0), m(3, 1) …, and so for each granularity. Give the list of layers that `path` runs.


# %% tags=["exercise"]
def layers(originals: list, banks: dict[int, list], path: tuple[int, ...]) -> list:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Walk along the path and count in `start` how many original layers are done. There the next layer begins.
# </details>
#
# <details><summary>Hint 2</summary>
#
# m(g, j) begins at layer j · g. So which j begins at `start`?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def layers(originals: list, banks: dict[int, list], path: tuple[int, ...]) -> list:
#     found, start = [], 0
#     for g in path:
#         found.append(originals[start] if g == 1 else banks[g][start // g])
#         start += g
#     return found
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("1.2"):
    course.check_layers(layers)

# %% [markdown]
# Does it run? `course.through` puts your function into both stacks of `pocket`; Hugging Face's own forward pass then runs whatever your list holds, and hooks write down which layers that were. Beside it the library assembles the same model, as an
# ordinary T5. The logits (a number for each word of the vocabulary, from which the next word is chosen) must be the same **bit for bit**.

# %%
chosen_layers = notebook.chosen("layers", layers, course.layers, course.check_layers)

# %% tags=["nbval-check-output"]
facts = "name[The Vaults], eatType[pub], food[French]"
assembly = modtf.Assembly((1, 1, 2, 2, 6), (3, 1, 1, 1, 6))
words = torch.tensor([[0, 5, 6, 7]])  # the start and three words: logits for four places come out
batch = modular.encode([facts]) | {"decoder_input_ids": words}
with torch.no_grad():
    with course.through(modular, chosen_layers) as ran:
        logits = modular(assembly, **batch).logits
    ordinary = modular.assemble(assembly=assembly)  # by the library: a plain T5ForConditionalGeneration
    print("the same logits, bit for bit:", torch.equal(logits, ordinary(**batch).logits))
for stack, names in ran.items():
    print(f"{stack} ran {', '.join(names)}")

# %% [markdown]
# And a whole text, written through your list:

# %% tags=["nbval-check-output"]
with course.through(modular, chosen_layers):
    print(modular.generate(facts, assembly=modtf.Assembly((2, 2, 2, 6), (3, 3, 6))))

# %% [markdown]
# ## How many models is that?
#
# Before you go on: **with 12 layers in each stack and granularities 2, 3, 4 and 6, how many different assemblies are there?** (Every path of the encoder can go with every path of the decoder.) Write your guess
# down, then run the cells below.

# %%
guess_assemblies = None  # a number in place of None

# %% tags=["nbval-check-output"]
paths = list(mapping.encoder.paths())
print("paths of one stack:", len(paths))
print("the first ones:", *("·".join(map(str, path)) for path in paths[:3]), sep="\n  ")
print("the last one:\n  " + "·".join(map(str, paths[-1])))

# %% tags=["nbval-check-output"]
notebook.reveal("Assemblies of 12 + 12 layers", guess_assemblies, mapping.count_assemblies())

# %% [markdown]
# Each of the encoder's 292 paths goes with each of the decoder's: 292 · 292 = 85,264. All of them are there after **one** training, because they are built from the same 12 originals and 15 modules in each stack. Nobody could train so many models one by one.

# %%
course.count_by_length(paths)

# %% [markdown]
# Only one path has 12 layers and only one has 2, but in between there is a wide choice. Which of the 62 paths of seven layers is the best? That needs a rule, a *strategy*: see notebook 4.
#
# ### Exercise 1.3
# Count them without listing them. `count_paths(depth, granularities)`: how many paths cover `depth` layers? A module of granularity g may begin only at a multiple of g. (Originals can always be used: granularity 1 need not be
# given.)


# %% tags=["exercise"]
def count_paths(depth: int, granularities: tuple[int, ...]) -> int:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Let `ways[n]` be the number of ways to cover the first n layers. `ways[0]` is 1: there is one way to cover nothing.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The last layer of a path that ends at n has some granularity g, and begins at n − g. That is allowed where n − g is a multiple of g.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def count_paths(depth: int, granularities: tuple[int, ...]) -> int:
#     ways = [1] + [0] * depth
#     for end in range(1, depth + 1):
#         for g in (1, *granularities):
#             if end >= g and (end - g) % g == 0:
#                 ways[end] += ways[end - g]
#     return ways[depth]
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("1.3"):
    course.check_count_paths(count_paths)

# %% [markdown]
# <details><summary>Where 292 comes from (this gives the exercise away)</summary>
#
# Let W(n) be the number of ways to cover the first n layers, with W(0) = 1. The last layer of such a path has some g and begins at n − g. That must be a multiple of g, so g divides n, and W(n) is the sum of W(n − g) over those g, 1 among them. At the end stands
# W(12) = W(11) + W(10) + W(9) + W(8) + W(6) = 92 + 92 + 54 + 38 + 16 = 292.
# </details>
#
# ## What a ratio means
#
# The **ratio** of an assembly is original layers / assembled layers, both stacks together: 24 layers in place of 24 are 1x, 12 are 2x, 4 are 6x. That is how the paper
# counts, and it is only one of four ways to say how small a model has become:
#
# - **parameters**: the layers shrink, the embeddings stay. How much that matters depends on the model;
# - **bytes** on disk and in memory follow the parameters;
# - **time** follows its own law: the decoder runs once for every token, the encoder once for every text, and some work is there whatever the layers.
#
# **At 6x, how many times fewer parameters does T5-base have?** (It has 12 + 12 layers and a vocabulary of 32,128.) Write a guess.

# %%
guess_t5 = None  # how many times fewer parameters T5-base has at 6x

# %% tags=["nbval-check-output"]
with torch.device("meta"):  # shapes only: nothing is downloaded, no memory is used
    t5_base = T5ForConditionalGeneration(T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12))
models = {"pocket": modular, "T5-base": modtf.modularize(t5_base, (2, 3, 4, 6))}

sizes = course.table_of_sizes(models, ratios=(1, 2, 3, 6))
table = sizes.to_string(index=False)
notebook.reveal("T5-base at 6x: times fewer parameters", guess_t5, sizes["times fewer"].iloc[-1], table=table)

# %% [markdown]
# A sixth of the layers, but a quarter of the parameters: T5-base keeps its 24.7 million of embeddings. And time? It cannot be counted, only measured. The package brings a
# table of measurements with it: one text at a time, with modtf's plain loop on one core ([notebook 5](5_quality_and_speed.ipynb) is about how to measure such things).

# %%
course.three_ratios(json.loads(bundled("pocket/table.json").read_text(encoding="utf-8")))

# %% [markdown]
# That is what was measured: on that machine time fell by less than the parameters, which fell by less than the layers. Some work is done for each token whatever the layers, such as the head over the vocabulary and the loop itself: [notebook 4](4_assembly.ipynb) measures it.
# Another engine, another machine or a batch gives other numbers. And no ratio says anything about quality; for that one has to measure what the model *writes*.
#
# ## References
#
# - Zhou, Le Bras, Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023. The method.
# - Raffel and others: [Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer](https://arxiv.org/abs/1910.10683), JMLR 2020. T5.
#
# ## In five lines
#
# 1. The modularized layer m(g, j) does the work of the original layers j·g … j·g + g − 1; all of one g are a bank.
# 2. A path covers a stack once, from left to right; a module of granularity g begins at a multiple of g. Its list of layers *is* the model.
# 3. 12 layers with granularities 2, 3, 4, 6 have 292 paths, two stacks 85,264 assemblies: one training, as many models.
# 4. The ratio counts layers. Parameters, bytes and time have ratios of their own: show all of them.
# 5. How the modules learn their work is still open: that is what the next two notebooks are about.
#
# <!-- footer -->
# [← 0 · Quickstart](0_quickstart.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [2 · Module replacement →](2_module_replacement.ipynb)
# <!-- end of footer -->
