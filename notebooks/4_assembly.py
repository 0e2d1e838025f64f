# %% [markdown]
# # 4 · Assembly
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/4_assembly.ipynb) · runs in 1.5 minutes on two CPU cores · about 30 minutes to work through
#
# [← 3 · Distillation](3_distillation.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [5 · Quality and speed →](5_quality_and_speed.ipynb)
# <!-- end of header -->
#
# *The modules are trained. How does a model of any size come out of the box, what does that cost, and which layers should go first?*
#
# **You will be able to**
# - assemble a model, and find out what was copied;
# - say how `size_first` and `speed_first` choose, and when you want which;
# - say where the time of a text goes, layer by layer and part by part;
# - predict which of two assemblies with equally many layers is faster;
# - let a small assembly draft for the full one, and say why the text stays the same.
#
# **You need** [notebook 1](1_layer_mapping.ipynb) (paths, assemblies, ratios).

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
import torch
from transformers import AutoModelForSeq2SeqLM

import modtf
from modtf.bundled import bundled
from modtf.decoding import decode
from modtf.evaluation import in_turns, size_of_assembly
from modtf.mapping import Assembly
from modtf.strategies import assemblies, even_assembly
from modtf.tasks import TRANSLATION, task_named
from modtf.views import notebook
from modtf.views.figures import described, paths_figure, quality_curve

torch.set_num_threads(1)
modular = modtf.load("pocket")
mapping = modular.mapping
facts = "name[The Plough], eatType[pub], food[Italian], priceRange[more than £30], customer rating[average], area[city centre], familyFriendly[yes], near[Café Rouge]"

# %% [markdown]
# ## A model in milliseconds
#
# `assemble` puts the chosen layers into a new model. What comes out is an ordinary Hugging Face model, with its own configuration.

# %% tags=["nbval-check-output"]
small = modular.assemble(ratio=3)
print(type(small).__name__, "|", small.assembly, "|", small.config.num_layers, "+", small.config.num_decoder_layers, "layers")

# %%
milliseconds = in_turns({ratio: lambda ratio=ratio: modular.assemble(ratio=ratio) for ratio in (1, 2, 6)}, repeats=10)
for ratio, times in milliseconds.items():
    print(f"{ratio}x assembled in {sorted(times)[5]:.1f} ms")

# %% [markdown]
# `modular` holds 12 originals and 15 modules in each stack. Its ratios, from 1x to 6x, are 21 different assemblies if both stacks shrink evenly. **Your guess: how many megabytes of weights does it take on top to
# hold all 21 models at once?**

# %%
guess_megabytes = None  # MB of new weights for 21 models

# %% tags=["nbval-check-output"]
held = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for parameter in modular.parameters()}
every = [modular.assemble(assembly=assembly) for assembly in assemblies(mapping, "size_first")]
needed = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for model in every for parameter in model.parameters()}
new = sum(size for pointer, size in needed.items() if pointer not in held) / 1e6

print("assemblies:", len(every))
print(f"the modular model: {sum(held.values()) / 1e6:.1f} MB")
print(f"the assemblies, had each its own weights: {sum(size_of_assembly(modular, model.assembly).megabytes for model in every):.1f} MB")
notebook.reveal("MB of new weights", guess_megabytes, new)

# %% [markdown]
# None. (And so assembling takes milliseconds.) A data pointer is the address of a tensor's first number in memory. Each weight of each assembly lies at an address that the modular model owns. So they are not *like* its weights, they
# *are* its weights. Change one, and it has changed everywhere:

# %% tags=["nbval-check-output"]
in_the_bank = modular.stacks[0].banks["3"][0].layer[0].SelfAttention.q.weight
in_the_assembly = small.encoder.block[0].layer[0].SelfAttention.q.weight
before = in_the_assembly[0, 0].item()
with torch.no_grad():
    in_the_bank[0, 0] += 1
print("the same memory:", in_the_bank.data_ptr() == in_the_assembly.data_ptr())
print("the assembly's weight changed by", round(in_the_assembly[0, 0].item() - before, 3))
with torch.no_grad():
    in_the_bank[0, 0] -= 1

# %% [markdown]
# The Python objects around the weights *are* new, so that assemblies do not disturb each other: each has its own configuration, its own depth, its own numbering of layers for the cache of keys and
# values.
#
# > **In the paper** (abstract): after training, modularized layers are assembled into models of different ratios without further training. Sharing the weights between assemblies is our
# > implementation's choice.
#
# On disk, an assembly stands by itself. Plain transformers loads it:

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    modular.export(Path(folder) / "pocket-3x", small.assembly)
    print("files:", *sorted(path.name for path in Path(folder, "pocket-3x").iterdir()))
    loaded = AutoModelForSeq2SeqLM.from_pretrained(Path(folder) / "pocket-3x")
encoded = modular.encode([facts])
with torch.inference_mode():
    tokens = [model.generate(**encoded, max_new_tokens=60, do_sample=False) for model in (small, loaded)]
print("writes the same text:", torch.equal(*tokens))
print(modular.tokenizer.decode(tokens[1][0], skip_special_tokens=True))

# %% [markdown]
# ## Which layers go first?
#
# There are 85,264 assemblies, and many of one ratio. A **strategy** picks one for you. The paper names two:
#
# - **size first**: both stacks shrink evenly, and keep the same number of layers (12-12, 11-11 … 2-2); where the total is odd, the decoder has one less.
# - **speed first**: the decoder shrinks as far as it can before the encoder loses anything.

# %% tags=["nbval-check-output"]
rows = []
for ratio in (1, 1.33, 1.5, 2, 3, 4, 6):
    rows.append({"ratio": ratio} | {strategy: str(modular.choose(ratio, strategy)) for strategy in ("size_first", "speed_first")})
print(pd.DataFrame(rows).to_string(index=False))

# %% [markdown]
# > **In the paper** (abstract): *deterministic* assembling strategies, *size-first* and *speed-first*. How they choose among the paths of one length is not published. Our choice: of all
# > paths with so many layers, those whose granularities differ least; among these, the encoder has its coarse layers first and the decoder last, since on dev that kept most on average when all four ways were tried.
#
# Slide, and watch both stacks and the text:


# %%
def picture(ratio: float, strategy: str):
    assembly = modular.choose(ratio, strategy)
    figure = paths_figure(
        {"encoder": assembly.encoder, "decoder": assembly.decoder}, f"{assembly.ratio:.2f}x, {strategy}: {assembly.shape} layers"
    )
    return figure, f'<p class="course-text" style="font-size:15px;line-height:1.5">{modular.generate(facts, assembly=assembly)}</p>'


figure, text = picture(2, "speed_first")
described(
    figure,
    "At 2x, speed first keeps ten layers of the encoder, the last two of them modules of granularity 2, and two modules of granularity 6 in the decoder.",
)

# %%
ratios = [(f"{ratio:.2f}x", ratio) for ratio in mapping.ratios()]
notebook.play(
    picture,
    ratio=widgets.SelectionSlider(options=ratios, value=2.0, description="ratio"),
    strategy=widgets.ToggleButtons(options=["size_first", "speed_first"], description="strategy"),
)

# %% [markdown]
# ### Exercise 4.1
# Write the contrary of speed first. `encoder_first(layers)` gives `(encoder layers, decoder layers)` for a total of 24 down to 4: the encoder shrinks to 2 layers before the decoder loses
# anything. (Every length from 2 to 12 exists.) We will see below whether that is a good idea.


# %% tags=["exercise"]
def encoder_first(layers: int) -> tuple[int, int]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# As long as at least 14 layers are left in all, the decoder keeps its 12.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def encoder_first(layers: int) -> tuple[int, int]:
#     encoder = max(2, layers - 12)
#     return encoder, layers - encoder
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.1"):
    assert encoder_first(24) is not None, "encoder_first(24) gives nothing back yet"
    for layers, wanted in [(24, (12, 12)), (18, (6, 12)), (14, (2, 12)), (8, (2, 6)), (4, (2, 2))]:
        given = tuple(encoder_first(layers))
        assert sum(given) == layers, f"encoder_first({layers}) is {given}: those are {sum(given)} layers"
        assert given == wanted, f"encoder_first({layers}) is {given}; who should shrink first, and how far?"

# %% [markdown]
# ## Where the time goes
#
# Why should the decoder go first? Look at what happens when a text is written. The encoder reads the source **once**. Then the decoder runs **once for every token**. So how much of the time
# of one text of 24 tokens, at 1x, is spent in the encoder? **Guess before you run the profile.**

# %%
guess_encoder = None  # percent of the time of one text that the encoder takes

# %%
TOKENS = 24
PARTS = ["encoder", "self-attention", "cross-attention", "feed-forward", "head", "everything else"]


def profile(model) -> dict[str, float]:
    """Milliseconds of one text of 24 tokens by transformers' `generate`, spent in each part."""
    spent, begun = defaultdict(float), {}
    blocks = model.decoder.block
    parts = {"encoder": [model.encoder], "head": [model.lm_head]}
    parts |= {name: [block.layer[i] for block in blocks] for i, name in enumerate(("self-attention", "cross-attention", "feed-forward"))}
    for name, modules in parts.items():
        for module in modules:
            module.register_forward_pre_hook(lambda module, args, name=name: begun.update({name: time.perf_counter()}))
            module.register_forward_hook(
                lambda module, args, output, name=name: spent.update({name: spent[name] + time.perf_counter() - begun[name]})
            )
    with torch.inference_mode():
        started = time.perf_counter()
        model.generate(**encoded, do_sample=False, min_new_tokens=TOKENS, max_new_tokens=TOKENS)
        total = time.perf_counter() - started
    return {name: 1000 * spent[name] for name in PARTS[:-1]} | {"everything else": 1000 * (total - sum(spent.values()))}


SHAPES = [(12, 12), (12, 2), (2, 12), (2, 2)]


profiles = {}
for shape in SHAPES:
    runs = [profile(modular.assemble(assembly=even_assembly(mapping, *shape))) for _ in range(4)][1:]  # the first one warms up
    profiles["{}-{}".format(*shape)] = min(runs, key=lambda run: sum(run.values()))
profile_table = pd.DataFrame(profiles).T.round(1)
share = (100 * profile_table["everything else"] / profile_table.sum(axis=1)).round()
print("milliseconds:")
print(profile_table.assign(**{"all": profile_table.sum(axis=1), "everything else, %": share}).to_string())

# %%
figure = go.Figure()
for number, part in enumerate(PARTS):
    figure.add_bar(
        orientation="h",
        y=profile_table.index,
        x=profile_table[part],
        name=part,
        marker_pattern_shape=["", "/", "\\", "x", ".", "-"][number],
    )
figure.update_layout(
    template="plotly_white",
    barmode="stack",
    height=380,
    title=f"One text of {TOKENS} tokens, by generate",
    legend={"orientation": "h", "y": -0.25, "traceorder": "normal"},
)
figure.update_xaxes(title="milliseconds")
figure.update_yaxes(title="layers", type="category", autorange="reversed")
described(
    figure,
    f"Stacked bars of milliseconds for 12-12, 12-2, 2-12 and 2-2 layers. With 12-12, the encoder takes {profile_table['encoder'].iloc[0]:.0f} of {profile_table.iloc[0].sum():.0f} ms; taking "
    f"decoder layers away (12-2) leaves {profile_table.iloc[1].sum():.0f} ms, taking encoder layers away (2-12) leaves {profile_table.iloc[2].sum():.0f}.",
)

# %%
at_1x = profile_table.iloc[0]
notebook.reveal("encoder's share of the time at 1x (%)", guess_encoder, 100 * at_1x["encoder"] / at_1x.sum())

# %% [markdown]
# Two things to see. The encoder hardly matters for one short text: taking ten of its layers away gains little. And a good part of the time is *everything else*: what `generate` does in Python between two tokens. No
# compression helps against that, so its share is larger where layers are few. (Why has self-attention so much at 12-2? The first one also computes T5's position biases, for all layers.) It is why modtf writes greedy texts by a plain loop of its own
# ([loop.py](../modtf/decoding/loop.py)), which gives the same tokens:

# %%
models = {"{}-{}".format(*shape): modular.assembled(even_assembly(mapping, *shape)) for shape in SHAPES}
engines = {
    (name, engine): lambda model=model, engine=engine: decode(model, **encoded, max_new_tokens=TOKENS, exactly=True, engine=engine)
    for name, model in models.items()
    for engine in ("generate", "loop")
}
medians = pd.Series({key: sorted(times)[3] for key, times in in_turns(engines, repeats=7).items()}).unstack()[["generate", "loop"]]
print(medians.loc[list(models)].round(1).rename_axis("milliseconds").to_string())

# %% [markdown]
# Now the whole landscape. We time one text at 25 assemblies, by the loop. The lines are the two strategies' ways down from 12-12 to 2-2.

# %%
lengths = (12, 9, 6, 4, 2)
runs = {
    (e, d): lambda e=e, d=d: decode(modular.assembled(even_assembly(mapping, e, d)), **encoded, max_new_tokens=TOKENS, exactly=True)
    for e in lengths
    for d in lengths
}
times = {shape: min(of_shape) for shape, of_shape in in_turns(runs, repeats=7).items()}  # the runs that were disturbed least

figure = go.Figure(
    go.Contour(
        x=lengths, y=lengths, z=[[times[e, d] for e in lengths] for d in lengths], colorscale="Blues", colorbar={"title": "ms"},
        contours={"coloring": "heatmap", "showlabels": True, "labelfont": {"color": "#222222"}}, hovertemplate="%{x}-%{y} layers: %{z:.1f} ms<extra></extra>",
    )
)  # fmt: skip
for strategy, dash, color in (("size_first", "solid", "#e07b1a"), ("speed_first", "dash", "#cc4e94")):
    way = assemblies(mapping, strategy)
    figure.add_scatter(
        x=[len(assembly.encoder) for assembly in way], y=[len(assembly.decoder) for assembly in way], mode="lines+markers", name=strategy,
        line={"color": color, "width": 3, "dash": dash}, text=[f"{assembly.ratio:.2f}x" for assembly in way], hovertemplate="%{text}<extra>" + strategy + "</extra>",
    )  # fmt: skip
figure.update_layout(
    template="plotly_white", title="Milliseconds for one text, and two ways down", height=480, legend={"orientation": "h", "y": -0.2}
)
figure.update_xaxes(title="encoder layers", dtick=2)
figure.update_yaxes(title="decoder layers", dtick=2)
described(
    figure,
    f"A map of the time for one text over encoder layers (across) and decoder layers (up). Time falls from {times[12, 12]:.0f} ms at 12-12 to {times[12, 2]:.0f} at 12-2 and {times[2, 2]:.0f} at 2-2, "
    f"but only to {times[2, 12]:.0f} at 2-12. Size first goes down the diagonal; speed first goes straight down, where it is steepest, and only then to the left.",
)

# %% [markdown]
# **This is the figure to remember**: a slope, and two ways down. `speed_first` takes the steepest one. `encoder_first` from the exercise would walk along the ridge.
#
# ### Exercise 4.2
# A simple model of the time of one text: `fixed + a · encoder layers + b · tokens · decoder layers`. For a total of `layers`, which `(encoder, decoder)` is the fastest? Each stack needs 2
# to 12 layers. Write `fastest(layers, a, b, tokens)`.


# %% tags=["exercise"]
def fastest(layers: int, a: float, b: float, tokens: int) -> tuple[int, int]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Try all decoder depths from 2 to 12 whose encoder depth fits as well, and take the one with the smallest time. `min(..., key=...)` does that.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fastest(layers: int, a: float, b: float, tokens: int) -> tuple[int, int]:
#     possible = [(layers - decoder, decoder) for decoder in range(2, 13) if 2 <= layers - decoder <= 12]
#     return min(possible, key=lambda shape: a * shape[0] + b * tokens * shape[1])
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.2"):
    assert fastest(12, 1.0, 1.0, 24) is not None, "fastest(12, 1.0, 1.0, 24) gives nothing back yet"
    assert sum(fastest(12, 1.0, 1.0, 24)) == 12, (
        f"fastest(12, …) is {fastest(12, 1.0, 1.0, 24)}; it should be (encoder layers, decoder layers), 12 together"
    )
    assert tuple(fastest(12, 1.0, 1.0, 24)) == (10, 2), (
        f"with layers of equal cost and 24 tokens, the decoder should have as few as possible; yours is {fastest(12, 1.0, 1.0, 24)}"
    )
    assert tuple(fastest(18, 1.0, 1.0, 24)) == (12, 6), f"the encoder cannot have more than 12 layers; yours is {fastest(18, 1.0, 1.0, 24)}"
    assert tuple(fastest(12, 50.0, 1.0, 5)) == (2, 10), (
        f"a very long source (a = 50) and five tokens: now the encoder is the expensive one; yours is {fastest(12, 50.0, 1.0, 5)}"
    )

# %% [markdown]
# The last check is worth a thought: for long sources and short answers (a summary of one line, a label) the encoder is what costs. Strategies are rules of thumb; measure *your* case.
#
# ## And quality?
#
# Speed is half of the choice. For the other half we need a model that has something to lose, and `pocket`'s task is so narrow that hardly any of its BLEU is lost at any size. So take `translator`, the BART of 6 + 6 layers
# from notebook 0, which translates from German. At 2x, size first gives 3-3 layers and speed first 5-1 (an encoder that is nearly full, and one layer that stands for the whole decoder). **Your guess: by how many percentage points do their shares of BLEU kept differ?** Positive: size
# first keeps more.

# %%
guess_points = None  # points of BLEU kept at 2x, size first less speed first

# %% tags=["nbval-check-output"]
measured = [row for row in json.loads(bundled("translator/table.json").read_text())["rows"] if row["trained"]]
at_two = {row["strategy"]: row for row in measured if row["wanted_ratio"] == 2}
difference = at_two["size_first"]["bleu_kept"] - at_two["speed_first"]["bleu_kept"]
notebook.reveal("BLEU kept at 2x, size first less speed first (points)", guess_points, difference)

# %%
described(
    quality_curve(measured, TRANSLATION.metrics),
    "BLEU kept and chrF2 kept by the translator against the measured speed-up, a line for each strategy. At 2x size first keeps "
    f"{at_two['size_first']['bleu_kept']} percent of the BLEU at {at_two['size_first']['speed_up']:.1f} times the speed, speed first {at_two['speed_first']['bleu_kept']} percent at {at_two['speed_first']['speed_up']:.1f} times.",
    template="plotly_white",
    height=360,
    margin={"l": 50, "r": 20, "t": 50, "b": 100},
)

# %% [markdown]
# At the same *number of layers*, speed first is faster. Down to 9 layers both keep about as much; from 8 on size first keeps more, until they meet at 2-1. At the same *speed* the two lines hardly differ: 3-3 and 6-3 write about 1.5 times as fast as the full model, and both keep 97 % of the BLEU. Then
# size first is the better choice here, since 3-3 has fewer parameters. Speed first ends where one layer stands for the whole decoder, and no encoder makes up for that: 1-1, 2-1, 3-1 and 5-1 all keep 90 to 92 %. That is a property of this model and
# task, not a law: look at the same figure for yours ([notebook 7](7_your_own_model.ipynb)). (The third line, *quality first*, is our own strategy. It chooses by a *profile*: how well this kit's assemblies were measured to predict people's translations of sentences that no training saw. See [Use](../README.md#use).)
#
# ### Exercise 4.3
# Pick from `measured` the row you would put on a phone: the **smallest** (`parameters`) that keeps at least 94 % of the BLEU (`bleu_kept`).

# %% tags=["exercise"]
my_choice = None  # a row of `measured`

# %% [markdown]
# <details><summary>Hint</summary>
#
# Filter the rows by `row["bleu_kept"]`, then take `min(..., key=lambda row: row["parameters"])`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# my_choice = min((row for row in measured if row["bleu_kept"] >= 94), key=lambda row: row["parameters"])
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.3"):
    assert my_choice is not None, "my_choice is still None; it should be one of the rows in measured"
    assert my_choice in measured, f"my_choice should be a row of measured, a dict, not {my_choice!r}"
    assert my_choice["bleu_kept"] >= 94, f"{my_choice['layers']} keeps {my_choice['bleu_kept']} % of the BLEU; at least 94 % are wanted"
    smaller = [row["layers"] for row in measured if row["bleu_kept"] >= 94 and row["parameters"] < my_choice["parameters"]]
    assert not smaller, f"{my_choice['layers']} is good enough, but so is a smaller one"

# %% [markdown]
# ## The full model's words, in less time
#
# A small assembly can also help the full model to write *its own* text. Both decoders read what one encoder made of the source. The small one drafts a few tokens; the full one reads them all in a single pass, which takes
# little longer than reading one, and says at each position what it would have written. **Your guess: given the same beginning of a text, how often does the decoder of 2 layers choose the same next token as the one of 12?**

# %%
guess_right = None  # percent of the tokens

# %% tags=["nbval-check-output"]
full = modular.mapping.original
large = modular.assemble(assembly=full)
small = modular.assemble(assembly=Assembly(full.encoder, modular.choose(6).decoder))  # the full encoder, 2 decoder layers
start, end = large.generation_config.decoder_start_token_id, large.generation_config.eos_token_id


def next_tokens(model, inputs, tokens):
    """What a model would write after each of these tokens, in one pass."""
    return model(**inputs, decoder_input_ids=torch.tensor([tokens])).logits[0].argmax(-1).tolist()


right = total = 0
with torch.inference_mode():
    for example in task_named("e2e").bundled_examples("evaluation")[:20]:
        text = modular.write([example.source], full).tokens[0].tolist()
        guesses = next_tokens(small, modular.encode([example.source]), [start, *text[:-1]])
        right += sum(guess == token for guess, token in zip(guesses, text, strict=True))
        total += len(text)
notebook.reveal("tokens that 2 layers choose as 12 do (%)", guess_right, 100 * right / total)

# %% [markdown]
# Now the loop. Up to the first wrong guess, and with the token that replaces it, `wanted` is what the full model writes alone, since every token before is its own. So the text is the same, whatever the small one guesses.


# %% tags=["nbval-check-output"]
def drafted(large, small, inputs, ahead=6):
    """The greedy text of `large`, drafted by `small`: its tokens, and how many guesses each pass accepted."""
    text, accepted = [start], []
    while text[-1] != end:
        draft = list(text)
        for _ in range(ahead):  # the small one writes ahead, token by token
            draft += next_tokens(small, inputs, draft)[-1:]
        guesses, wanted = draft[len(text) :], next_tokens(large, inputs, draft)[len(text) - 1 :]  # the large one reads once
        right = 0
        while right < ahead and guesses[right] == wanted[right]:
            right += 1
        text += wanted[: right + 1]  # the right guesses, and one token of its own
        text = text[: text.index(end) + 1] if end in text else text
        accepted.append(right)
    return text[1:], accepted


with torch.inference_mode():
    tokens, accepted = drafted(large, small, modular.encode([facts]))
alone = modular.write([facts], full).tokens[0].tolist()
print(modular.tokenizer.decode(tokens, skip_special_tokens=True))
print("the same as the full model alone:", tokens == alone)
print(f"{len(tokens)} tokens in {len(accepted)} passes of the 12 layers, which accepted {accepted} of 6 guesses each")

# %% [markdown]
# This loop reads all tokens anew in each pass. The library's keeps what was read (a wrong guess is simply overwritten), drafts as many tokens as pay, and takes several texts at once: `modular.generate(texts, draft=6)`, where 6 is the
# ratio whose decoder drafts. With `draft="auto"` it drafts only where that has been faster. The explorer shows it as a race: tick *draft with the small, answer with the large*.

# %%
milliseconds = in_turns({draft: lambda draft=draft: modular.generate(facts, draft=draft) for draft in (None, 6)}, repeats=9)
for draft, times in milliseconds.items():
    print(f"the full model {'with drafts' if draft else 'alone'}: {sorted(times)[4]:.0f} ms")

# %% [markdown]
# How much that gains depends on how often guesses are right and how cheap they are. Here 2 of 12 layers guess. The translator's smallest decoder has 1 of 6 layers and is right less often; besides, its vocabulary is four times as large, and its texts are short. There drafts gain little
# ([measured](../README.md#drafts)).

# %% [markdown]
# ## In five lines
#
# 1. `assemble` makes a plain Hugging Face model in milliseconds; its weights are those of the modular model, not copies.
# 2. `export` writes an assembly that plain transformers loads.
# 3. Size first shrinks both stacks evenly; speed first the decoder, because it runs once for every token. Compare them at the same speed or the same size, with quality beside it.
# 4. In small models much of the time is Python between two tokens; a plain loop gives it back.
# 5. A small decoder can draft for the large one of the same kit: the large one's text, in fewer of its passes.
#
# <!-- footer -->
# [← 3 · Distillation](3_distillation.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [5 · Quality and speed →](5_quality_and_speed.ipynb)
# <!-- end of footer -->
