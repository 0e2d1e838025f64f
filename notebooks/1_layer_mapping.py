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
import pandas as pd
import plotly.graph_objects as go
import torch
from transformers import T5Config, T5ForConditionalGeneration

import modtf
from modtf.bundled import bundled
from modtf.evaluation import size_of_assembly
from modtf.mapping import StackMapping, default_granularities, divisors, parse_path
from modtf.views import notebook
from modtf.views.figures import described, paths_figure

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

# %% tags=["nbval-check-output"]
print("encoder:", mapping.encoder.depth, "layers, granularities", mapping.encoder.granularities)
print("decoder:", mapping.decoder.depth, "layers, granularities", mapping.decoder.granularities)

# %%
banks = {"originals": (1,) * 12} | {f"bank {g}": (g,) * (12 // g) for g in mapping.encoder.granularities}
described(
    paths_figure(banks, "Everything that one stack can be made of"),
    "Five rows of blocks over 12 original layers. The first row has the 12 originals. Below it, bank 2 has six blocks of two layers each, bank 3 four blocks of three, "
    "bank 4 three blocks of four, bank 6 two blocks of six.",
)

# %% [markdown]
# **This is the figure to remember.** Read it from top to bottom: blocks that span the same columns do the same work. m(3, 1) stands for the original layers 3, 4
# and 5; so do the three originals above it. Each row is a whole stack by itself, and the lowest one has two layers instead of twelve.
#
# Pick a module and see what it stands for:


# %%
def module(g: int, j: int):
    j = min(j, 12 // g - 1)
    path = (1,) * (g * j) + (g,) + (1,) * (12 - g * (j + 1))
    first, last = g * j, g * j + g - 1
    return paths_figure({"stack": path}, f"m({g}, {j}) stands for the original layers {first} to {last}")


described(module(3, 1), "A row of original layers 0 to 11, in which the block m(3, 1) takes the place of layers 3, 4 and 5.")

# %%
notebook.play(
    module,
    g=widgets.SelectionSlider(options=[2, 3, 4, 6], value=3, description="g"),
    j=widgets.IntSlider(value=1, min=0, max=5, description="j"),
)

# %% [markdown]
# > **In the paper** (abstract and figure 1): t_i is the i-th original layer, m_ij the j-th modularized layer of granularity i. The paper counts from one, we count from
# > zero as Python does: our m(g, j) stands for the layers j·g to j·g + g − 1. That granularities divide the depth is our choice: nothing else covers a stack evenly.
#
# ### Exercise 1.1
# Write that down as code: `covers(g, j)` is the `range` of original layers that m(g, j) stands for.


# %% tags=["exercise"]
def covers(g: int, j: int) -> range:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Each module before it took g layers. `range(a, b)` ends *before* b.
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
    assert covers(3, 1) is not None, "covers(3, 1) gives nothing back yet; `return` a range in place of None"
    assert list(covers(3, 1)) == [3, 4, 5], f"covers(3, 1) gives {list(covers(3, 1))}; look at the figure: which columns does m(3, 1) span?"
    assert list(covers(6, 0)) == [0, 1, 2, 3, 4, 5], f"covers(6, 0) gives {list(covers(6, 0))}; it should be the first six layers"
    for g in (2, 3, 4, 6):
        joined = [layer for j in range(12 // g) for layer in covers(g, j)]
        assert joined == list(range(12)), f"the bank of granularity {g} should cover every layer once, but yours covers {joined}"

# %% [markdown]
# Which granularities can a stack have? Those that divide its depth. (By default modtf takes the divisors up to half of it; where there are none, the depth itself.)

# %% tags=["nbval-check-output"]
for depth in (6, 7, 12, 24):
    print(f"{depth:2} layers: possible {divisors(depth)}, by default {default_granularities(depth)}")

# %% [markdown]
# ## Paths
#
# A **path** is a way through the figure above from the left edge to the right: a list of granularities that covers every original layer once. There is one rule: a module
# of granularity g begins at a multiple of g, because only those were made. `1·1·2·2·6` is a path: two originals, m(2, 1), m(2, 2), m(6, 1).
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
# Now build one by hand. Write granularities, separated by spaces or commas, and press Enter; `[2]*3` is 2·2·2.


# %%
def draw_path(path: str):
    assembly = mapping.check(modtf.Assembly(parse_path(path), (1,) * 12))
    return paths_figure({"encoder": assembly.encoder}, f"{len(assembly.encoder)} layers in place of {sum(assembly.encoder)}")


described(
    draw_path("1 1 2 2 6"),
    "The path 1·1·2·2·6: the original layers 0 and 1, then m(2, 1), m(2, 2) and m(6, 1). Five layers in place of 12.",
)

# %%
notebook.play(draw_path, path=widgets.Text("1 1 2 2 6", description="path"))

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
# All of them are there after **one** training, because they are built from the same 12 originals and 6 + 4 + 3 + 2 modules in each stack. Nobody could train 85,264 models one by one.

# %%
lengths = pd.Series([len(path) for path in paths]).value_counts().sort_index()
figure = go.Figure(go.Bar(x=lengths.index, y=lengths.values, text=lengths.values, textposition="outside"))
figure.update_layout(template="plotly_white", title="Paths of one stack, by how many layers they have", height=320)
figure.update_yaxes(range=[0, 72])
figure.update_xaxes(title="layers of the path", dtick=1)
described(
    figure,
    "A bar for each length from 2 to 12 layers, with the number of paths that have it: "
    + ", ".join(f"{length} layers {count}" for length, count in lengths.items())
    + ".",
)

# %% [markdown]
# Only one path has 12 layers and only one has 2, but in between there is a wide choice. Which of the 62 paths of seven layers is the best? That needs a rule, a *strategy*: see notebook 4.
#
# ### Exercise 1.2
# Count them without listing them. `count_paths(depth, granularities)`: how many paths cover `depth` layers? (Originals can always be used: granularity 1 need not be
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
with notebook.check("1.2"):
    assert count_paths(2, (2,)) is not None, "count_paths(2, (2,)) gives nothing back yet"
    assert count_paths(2, (2,)) == 2, f"two layers and granularity 2 have two paths, 1·1 and 2; yours are {count_paths(2, (2,))}"
    assert count_paths(4, (2,)) == 4, (
        f"four layers and granularity 2: 1·1·1·1, 1·1·2, 2·1·1, 2·2. Yours are {count_paths(4, (2,))}; do modules begin at any layer?"
    )
    for granularities in [(2, 3, 4, 6), (2, 3, 6), (12,), ()]:
        wanted, given = StackMapping(12, granularities).count, count_paths(12, granularities)
        assert given == wanted, f"12 layers with {granularities} have another number of paths than {given}"

# %% [markdown]
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

sizes = pd.DataFrame(
    [
        {
            "model": name,
            "ratio (layers)": f"{ratio}x",
            "layers": model.choose(ratio).shape,
            "parameters (M)": round(size_of_assembly(model, model.choose(ratio)).parameters / 1e6, 2),
            "times fewer": round(
                size_of_assembly(model, model.choose(1)).parameters / size_of_assembly(model, model.choose(ratio)).parameters, 2
            ),
            "float32 (MB)": round(size_of_assembly(model, model.choose(ratio)).megabytes, 1),
        }
        for name, model in models.items()
        for ratio in (1, 2, 3, 6)
    ]
)
print(sizes.to_string(index=False))

# %% tags=["nbval-check-output"]
notebook.reveal("T5-base at 6x: times fewer parameters", guess_t5, sizes["times fewer"].iloc[-1])

# %% [markdown]
# A sixth of the layers, but a quarter of the parameters: T5-base keeps its 24.7 million of embeddings. And time? It cannot be counted, only measured. The package brings a
# table of measurements with it ([notebook 5](5_quality_and_speed.ipynb) is about how they were made):

# %%
table = json.loads(bundled("pocket/table.json").read_text())
rows = [row for row in table["rows"] if row["trained"] and row["strategy"] == "size_first"]
whole = rows[0]["parameters"]
figure = go.Figure()
for name, values, dash, symbol in (
    ("layers", [row["ratio"] for row in rows], "solid", "circle"),
    ("parameters and bytes", [whole / row["parameters"] for row in rows], "dot", "square"),
    ("time (measured)", [row["speed_up"] for row in rows], "dash", "diamond"),
):
    figure.add_scatter(
        x=[row["ratio"] for row in rows],
        y=values,
        name=name,
        mode="lines+markers",
        line={"dash": dash},
        marker={"symbol": symbol, "size": 8},
    )
figure.update_layout(template="plotly_white", title="Three ratios of each assembly (pocket, size first)", height=380)
figure.update_xaxes(title="ratio of layers")
figure.update_yaxes(title="times less", rangemode="tozero")
described(
    figure,
    "Three lines over the ratio of layers from 1 to 6. At 6 times fewer layers, parameters are "
    f"{whole / rows[-1]['parameters']:.1f} times fewer, and one sentence was written {rows[-1]['speed_up']:.1f} times as fast.",
)

# %% [markdown]
# Time falls by *more* than the layers here: this was one text at a time, with modtf's plain loop, on a machine whose cache the full model outgrows. With another engine or in batches it falls by less than the layers
# ([notebook 5](5_quality_and_speed.ipynb)). So always look at all of them. A ratio of layers says nothing about quality either; for that one has to measure what the model *writes*.
#
# ### Exercise 1.3
# T5-base's encoder layer has 7,079,424 parameters, its decoder layer 9,439,488 (it has cross-attention too). Everything else (embeddings, norms, position biases) is
# 24,676,608. How many **times fewer** parameters than 12-12 does an assembly of `encoder` and `decoder` layers have?


# %% tags=["exercise"]
def times_fewer(encoder: int, decoder: int) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Write a small function for the parameters first, then divide that of (12, 12) by that of (encoder, decoder).
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def times_fewer(encoder: int, decoder: int) -> float:
#     def parameters(e: int, d: int) -> int:
#         return 7_079_424 * e + 9_439_488 * d + 24_676_608
#
#     return parameters(12, 12) / parameters(encoder, decoder)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("1.3"):
    assert times_fewer(12, 12) is not None, "times_fewer(12, 12) gives nothing back yet"
    assert abs(times_fewer(12, 12) - 1) < 0.01, f"12-12 is the original: 1 times fewer, not {times_fewer(12, 12)}"
    assert times_fewer(6, 6) > 1, (
        f"6-6 has fewer parameters than 12-12, but yours says {times_fewer(6, 6):.3f} times fewer: is the division upside down?"
    )
    assert times_fewer(6, 6) != 2, "6-6 has half of the layers, but did you count what is not in layers?"
    for encoder, decoder in [(6, 6), (12, 2), (2, 12)]:
        assembly = modtf.Assembly((12 // encoder,) * encoder, (12 // decoder,) * decoder)
        real = (
            size_of_assembly(models["T5-base"], modtf.Assembly((1,) * 12, (1,) * 12)).parameters
            / size_of_assembly(models["T5-base"], assembly).parameters
        )
        given = times_fewer(encoder, decoder)
        assert abs(given - real) < 0.01, f"{encoder}-{decoder} has {real:.3f} times fewer parameters; yours says {given:.3f}"

# %% [markdown]
# ## In five lines
#
# 1. The modularized layer m(g, j) does the work of the original layers j·g … j·g + g − 1; all of one g are a bank.
# 2. A path covers a stack once, from left to right; a module of granularity g begins at a multiple of g.
# 3. 12 layers with granularities 2, 3, 4, 6 have 292 paths, two stacks 85,264 assemblies: one training, as many models.
# 4. The ratio counts layers. Parameters, bytes and time have ratios of their own: show all of them.
# 5. How the modules learn their work is still open: that is what the next two notebooks are about.
#
# <!-- footer -->
# [← 0 · Quickstart](0_quickstart.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [2 · Module replacement →](2_module_replacement.ipynb)
# <!-- end of footer -->
