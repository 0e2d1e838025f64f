# %% [markdown]
# # 4 · Assembly
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/4_assembly.ipynb) · runs in 1 minute on two CPU cores · about 35 minutes to work through
#
# [← 3 · Distillation](3_distillation.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [5 · Quality and speed →](5_quality_and_speed.ipynb)
# <!-- end of header -->
#
# *The modules are trained. How does a model of any size come out of the box, which layers should go first, and what does that depend on?*
#
# **You will be able to**
# - assemble a model, and prove that nothing was copied;
# - say what `size_first`, `speed_first` and `quality_first` look at, and find texts for which speed first is the wrong choice;
# - write the dynamic programme behind `quality_first`: the least forecast loss among 85,264 assemblies, without trying them;
# - write the step that lets a small decoder draft for a large one, and say why the text stays the same.
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
import math
import tempfile
from functools import partial
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
import torch
from transformers import AutoModelForSeq2SeqLM

import modtf
from modtf.bundled import bundled
from modtf.course import assembly as course
from modtf.decoding import decode
from modtf.evaluation import in_turns, size_of_assembly
from modtf.mapping import Assembly
from modtf.strategies import assemblies, even_assembly
from modtf.tasks import TRANSLATION, task_named
from modtf.views import notebook
from modtf.views.figures import described, paths_figure, quality_curve

# %%
torch.set_num_threads(1)
modular, translator = modtf.load("pocket"), modtf.load("translator")
mapping = modular.mapping
facts = "name[The Plough], eatType[pub], food[Italian], priceRange[more than £30], customer rating[average], area[city centre], familyFriendly[yes], near[Café Rouge]"

# %% [markdown]
# ## A model in milliseconds
#
# `assemble` puts the chosen layers into a new model, an ordinary one of Hugging Face:

# %% tags=["nbval-check-output"]
small = modular.assemble(ratio=3)
print(type(small).__name__, "|", small.assembly, "|", small.config.num_layers, "+", small.config.num_decoder_layers, "layers")

# %%
milliseconds = in_turns({ratio: partial(modular.assemble, ratio=ratio) for ratio in (1, 2, 6)}, repeats=10)
for ratio, times in milliseconds.items():
    print(f"{ratio}x assembled in {sorted(times)[5]:.1f} ms")

# %% [markdown]
# `modular` holds 12 original layers and 15 modules in each stack. Size first (below) makes 21 models of them, from 1x to 6x. **Your guess: how many megabytes of weights does it take on top to hold all 21 at once?**

# %%
guess_megabytes = None  # MB of new weights for 21 models

# %% tags=["nbval-check-output"]
held = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for parameter in modular.parameters()}
every = [modular.assemble(assembly=assembly) for assembly in assemblies(mapping, "size_first")]
needed = {parameter.data_ptr(): parameter.numel() * parameter.element_size() for model in every for parameter in model.parameters()}
new = sum(size for pointer, size in needed.items() if pointer not in held) / 1e6

print(f"the modular model: {sum(held.values()) / 1e6:.1f} MB")
print(
    f"{len(every)} assemblies, had each its own weights: {sum(size_of_assembly(modular, model.assembly).megabytes for model in every):.1f} MB"
)
notebook.reveal("MB of new weights", guess_megabytes, new)

# %% [markdown]
# None; that is why assembling takes milliseconds. A data pointer is the address of a tensor's first number, and each weight of each assembly lies at an address that the kit owns. Change it there, and it has changed everywhere:

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
# There are 85,264 assemblies, many of one ratio. A **strategy** picks one for you. The paper names two, which we read so:
#
# - **size first**: both stacks shrink evenly (12-12, 11-11 … 2-2); where the total is odd, the decoder has one less.
# - **speed first**: the decoder shrinks as far as it can before the encoder loses anything.
#
# > **In the paper** (published summaries): *deterministic* assembling strategies, *size-first* and *speed-first*, and assembling without further training. How the paths of one length are chosen, we do not know. Our choice: the path whose
# > granularities differ least; coarse layers come first in the encoder and last in the decoder. Of four ways to place them this was the best for both models on dev, by little and without intervals ([LOG](../benchmarks/LOG.md#the-translators-kit), *Where the coarse modules stand*). Sharing weights between assemblies is our choice, too.
#
# Slide, and watch both stacks and the text:


# %%
def picture(ratio: float, strategy: str):
    assembly = modular.choose(ratio, strategy)
    figure = paths_figure(
        {"encoder": assembly.encoder, "decoder": assembly.decoder}, f"{assembly.ratio:.2f}x, {strategy}: {assembly.shape} layers"
    )
    return figure, f'<p class="course-text" style="font-size:15px;line-height:1.5">{modular.generate(facts, assembly=assembly)}</p>'


described(
    picture(2, "speed_first")[0],
    "At 2x, speed first keeps ten layers of the encoder, the first two of them modules of granularity 2, and two modules of granularity 6 in the decoder.",
)

# %%
notebook.play(
    picture,
    ratio=widgets.SelectionSlider(options=[(f"{ratio:.2f}x", ratio) for ratio in mapping.ratios()], value=2.0, description="ratio"),
    strategy=widgets.ToggleButtons(options=["size_first", "speed_first", "quality_first"], description="strategy"),
)

# %% [markdown]
# ## Where the time goes
#
# Why should the decoder go first? The encoder reads the source **once**. Then the decoder runs **once for every token**. So what share of the time of one text of 24 tokens is spent in the encoder, at 1x, when `generate` writes it? **Guess before you run the profile.**

# %%
guess_encoder = None  # percent of the time of one text that the encoder takes

# %%
TOKENS, SHAPES = 24, [(12, 12), (12, 2), (2, 12), (2, 2)]
models = {"{}-{}".format(*shape): modular.assemble(assembly=even_assembly(mapping, *shape)) for shape in SHAPES}
turns = [{name: course.milliseconds_by_part(model, encoded, TOKENS) for name, model in models.items()} for _ in range(6)][1:]
parts = {name: min((turn[name] for turn in turns), key=lambda run: sum(run.values())) for name in models}
notebook.reveal("encoder's share of the time at 1x (%)", guess_encoder, 100 * parts["12-12"]["encoder"] / sum(parts["12-12"].values()))

# %%
for name in models:
    of_runs = sorted(sum(turn[name].values()) for turn in turns)
    print(f"{name:5}  {of_runs[0]:.0f} to {of_runs[-1]:.0f} ms in {len(turns)} runs")
course.parts_figure(parts, TOKENS)

# %% tags=["nbval-check-output"]
tables = {name: json.loads(bundled(f"{name}/table.json").read_text(encoding="utf-8"))["rows"] for name in ("pocket", "translator")}
for name, rows in tables.items():
    print(name, pd.DataFrame(course.rest_and_layers(rows)).to_string(index=False), sep="\n")

# %% [markdown]
# The bars were timed live, by `generate`. The tables are fits to [stored times](../docs/results.md) of 32 tokens: a *rest*, and what each layer adds.
#
# **Why speed first is faster.** For texts like these a decoder layer costs six times as much as an encoder layer, or more. So ten fewer decoder layers (12-2) save most of the time, ten fewer encoder layers (2-12) hardly more than the runs of one model differ.
#
# **Why 6x is neither six times as small nor six times as fast.** Its layers are six times fewer; everything that is not a layer stays. *Size*: the embeddings, which are also the matrix of the output. *Time*: what is done for each token, however many layers there are: the product with the vocabulary (*head*; 9 of `translator`'s [22 ms](../benchmarks/LOG.md#decoding)), T5's position biases, and in `generate` mostly Python between two tokens, we guess (*everything else*). modtf's own plain [loop](../modtf/decoding/loop.py), which writes from here on, has less of that.
#
# The whole landscape, by the loop: one text at 25 assemblies, and the two strategies' ways down from 12-12 to 2-2.

# %%
lengths = (12, 9, 6, 4, 2)
runs = {
    (e, d): partial(decode, modular.assembled(even_assembly(mapping, e, d)), **encoded, max_new_tokens=TOKENS, exactly=True)
    for e in lengths
    for d in lengths
}
course.time_map(mapping, {shape: min(times) for shape, times in in_turns(runs, repeats=7).items()})  # the runs disturbed least

# %% [markdown]
# **This is the figure to remember**: a slope, and two ways down. Speed first takes the steepest. (Kasai and others, 2021, built translators of a deep encoder and one decoder layer for this reason.)
#
# ## When is speed first slow?
#
# The slope is that of *this* text. What if much is read and little written? A 12-2 and a 2-2 differ by ten encoder layers, so a tenth of the difference of their times is one layer; the same for the decoder.

# %%
costs = course.LayerCosts.measured(modular)
layer_costs = pd.DataFrame(
    [
        {"read": source, "encoder layer": costs.encoder_ms(source)}
        | {f"decoder layer, {n} tokens": costs.decoder_ms(source, n) for n in (2, 8, 32)}
        for source in (16, 64, 128, 256, 512)
    ]
)
print(layer_costs.round(2).to_string(index=False), "\n(milliseconds)")

# %% [markdown]
# ### Exercise 4.1
# Given what one layer of each stack costs, which shape of `layers` layers is the fastest? Write `fastest(layers, encoder_ms, decoder_ms)`, which gives `(encoder layers, decoder layers)`; each stack has 2 to 12. The instrument below runs your function.


# %% tags=["exercise"]
def fastest(layers: int, encoder_ms: float, decoder_ms: float) -> tuple[int, int]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Try all decoder depths from 2 to 12 whose encoder depth fits as well, and take the one with the smallest time: `min(..., key=...)`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fastest(layers: int, encoder_ms: float, decoder_ms: float) -> tuple[int, int]:
#     possible = [(layers - decoder, decoder) for decoder in range(2, 13) if 2 <= layers - decoder <= 12]
#     return min(possible, key=lambda shape: shape[0] * encoder_ms + shape[1] * decoder_ms)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.1"):
    course.check_fastest(fastest)

# %%
quickest = notebook.chosen("fastest", fastest, course.fastest, course.check_fastest)
notebook.play(
    course.shapes_in_a_race(costs, mapping, quickest),
    source=widgets.IntSlider(value=60, min=16, max=512, description="tokens read"),
    tokens=widgets.IntSlider(value=32, min=1, max=64, description="tokens written"),
    ratio=widgets.SelectionSlider(options=[("1.5x", 1.5), ("2x", 2.0), ("3x", 3.0)], value=2.0, description="size"),
)

# %% [markdown]
# <details><summary>Answer to its three challenges</summary>
#
# Read much and write little: 500 tokens and 2, then 500 and 8. For the third, read 256 and move *tokens written* until both layers cost the same.
# </details>
#
# Did you notice that the fastest shape is always at an edge? Time is a sum over layers, so each layer should come from the cheaper stack until that is full. Speed first wins exactly where a decoder layer is the more expensive one:

# %%
cases = {"a description": (60, 32), "a label for a page": (500, 2)}
course.who_is_faster(costs, cases)

# %% [markdown]
# That is a prediction from measured layers. Does it hold for whole models?

# %%
for name, (source, written) in cases.items():
    ids = torch.full((1, source), 5)
    runs = {
        shape: partial(
            decode, modular.assembled(even_assembly(mapping, *shape)), ids, torch.ones_like(ids), max_new_tokens=written, exactly=True
        )
        for shape in ((10, 2), (6, 6))
    }
    speed, size = (min(times) for times in in_turns(runs, repeats=9).values())
    print(
        f"{name:19} speed first (10-2) {speed:5.1f} ms, size first (6-6) {size:5.1f} ms: {'speed' if speed < size else 'size'} first is faster"
    )

# %% [markdown]
# Strategies are rules of thumb. Measure *your* lengths.
#
# ## And quality?
#
# `pocket`'s task is so narrow that hardly any of its BLEU is lost at any size. `translator`, a BART of 6 + 6 layers, has something to lose. At the same number of layers its size first mostly keeps more ([notebook 0](0_quickstart.ipynb)), but its speed first is faster. **Your guess: at the same *speed*, how many points of BLEU does size first keep more, on average?** (Fewer: a negative number.)

# %%
guess_points = None  # points of BLEU kept at the same speed, size first minus speed first

# %% tags=["nbval-check-output"]
measured = [row for row in tables["translator"] if row["trained"]]
notebook.reveal("BLEU at the same speed, size first minus speed first", guess_points, course.points_at_equal_speed(measured))

# %%
at_two = {row["strategy"]: row for row in measured if row["wanted_ratio"] == 2}
described(
    quality_curve(measured, TRANSLATION.metrics),
    "BLEU kept and chrF2 kept by the translator against the measured speed-up, a line for each strategy. At 2x size first keeps "
    f"{at_two['size_first']['bleu_kept']} percent of the BLEU at {at_two['size_first']['speed_up']:.1f} times the speed, speed first {at_two['speed_first']['bleu_kept']} percent at {at_two['speed_first']['speed_up']:.1f} times.",
    template="plotly_white",
    height=360,
    margin={"l": 50, "r": 20, "t": 50, "b": 100},
)

# %% [markdown]
# At the same *speed* the two lines cross, and hardly differ (a point or two may be chance: [notebook 5](5_quality_and_speed.ipynb)); size first has fewer parameters there. Where one layer stands for the whole decoder, no encoder makes up for it. That is this model and task, no law.
#
# ## The best of 85,264
#
# The third line, **quality first**, is our own strategy. It looks at what *this kit* has learned. `modtf profile` measured the loss (cross-entropy) of some assemblies on texts that no training saw, and fitted a sum to it: a cost for each module on the path, and one for each pair of neighbours, since layers work best beside those they were trained with. (A low loss need not mean a good text: `pocket`'s original has a higher one than most of its assemblies. The figure below shows why.)
#
# $$\text{loss} \approx c_0 + \sum_{\text{both stacks}}\ \sum_{\text{layers of the path}} ( c\,[m(g, j)] + c\,[g_{\text{before}} \cdot g] )$$

# %% tags=["nbval-check-output"]
for name, kit in {"pocket": modular, "translator": translator}.items():
    print(
        f"{name:10} {kit.mapping.count_assemblies():6,} assemblies, {len(kit.profile.losses)} measured, {len(kit.profile.fit.costs)} costs fitted;"
        f" rank correlation with losses it had not seen: {kit.profile.held_out['rank_correlation']}"
    )

# %% [markdown]
# The forecast ranks *losses* that well. It ranks what is written less well: slot errors of `pocket` with 0.71, BLEU of `translator` with 0.80 ([LOG](../benchmarks/LOG.md#quality-first)).
#
# Of such a sum the cheapest path is found without trying all. A cheapest way to a place is a cheapest way to an earlier place, and one more layer. What the next layer costs depends on the granularity g of the last one (a pair!), and we want an answer for each number n of layers. So we keep one way for each g and n:
#
# $$\text{best}_{\text{end}}[g, n] = \min_{g'}\ (\ \text{best}_{\text{end}-g}[g', n-1] + \text{cost}(g', g, \text{end}-g)\ ) \qquad \text{where } \text{end}-g \text{ is a multiple of } g$$
#
# ### Exercise 4.2
# Write that line. `best[start]` is a dictionary for the first `start` layers: `{(last granularity, number of layers): (cost, path)}`. `extend(best, end, granularities, cost)` gives the one for `end`, from all earlier ones in `best`. `cost(before, g, start)` is a number: what a layer of granularity `g` adds that begins at `start`, behind one of granularity `before` (0 at the beginning). Original layers (granularity 1) are always allowed. For two layers, where each costs 0.5:
#
# ```python
# best = [{(0, 0): (0.0, ())}, {(1, 1): (0.5, (1,))}]  # no layer is covered, at no cost; the first is, by an original
# extend(best, 2, (2,), cost) == {(1, 2): (1.0, (1, 1)), (2, 1): (0.5, (2,))}
# ```


# %% tags=["exercise"]
def extend(best: list[dict], end: int, granularities: tuple[int, ...], cost) -> dict:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two loops: over g in `(1, *granularities)`, and over all that is in `best[end - g]`. When is a layer of granularity g allowed to end at `end`?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Keep a way in `found[g, n + 1]` if there is none yet, or if it is cheaper: tuples `(cost, path)` compare by their cost first.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def extend(best: list[dict], end: int, granularities: tuple[int, ...], cost) -> dict:
#     found = {}
#     for g in (1, *granularities):
#         start = end - g
#         if start >= 0 and start % g == 0:
#             for (before, n), (so_far, path) in best[start].items():
#                 way = so_far + cost(before, g, start), (*path, g)
#                 found[g, n + 1] = min(way, found.get((g, n + 1), way))
#     return found
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.2"):
    course.check_extend(extend)

# %%
step = notebook.chosen("extend", extend, course.extend, course.check_extend)


def cost_of(stack: str, fitted: dict[str, float]):
    """What a layer of granularity g adds that begins at original layer `start`, behind one of granularity `before`."""
    return lambda before, g, start: fitted.get(f"{stack} m({g}, {start // g})", 0.0) + fitted.get(f"{stack} {before}·{g}", 0.0)


def cheapest_paths(stack, fitted: dict[str, float]) -> list[tuple[int, ...]]:
    """For each number of layers the cheapest path of a stack, built with `extend`."""
    best = [{(0, 0): (0.0, ())}]
    for end in range(1, stack.depth + 1):
        best.append(step(best, end, stack.granularities, cost_of(stack.name, fitted)))
    ends = best[stack.depth]
    return [min(way for (_, n), way in ends.items() if n == layers)[1] for layers in sorted({n for _, n in ends})]


# %% [markdown]
# A fit only proposes. So modtf *measures* what it proposes, beside what the other strategies choose; `quality_first` then takes the assembly with the least measured loss. Is it yours?

# %% tags=["nbval-check-output"]
for name, kit in {"pocket": modular, "translator": translator}.items():
    stacks = [cheapest_paths(stack, kit.profile.fit.costs) for stack in kit.mapping.stacks]
    proposed = [Assembly(encoder, decoder) for encoder in stacks[0] for decoder in stacks[1]]
    others = [assembly for strategy in ("size_first", "speed_first") for assembly in assemblies(kit.mapping, strategy)]
    mine = {
        layers: min((a for a in proposed + others if a.layers == layers), key=kit.profile.losses.get)
        for layers in {a.layers for a in proposed}
    }
    same = sum(kit.choose(kit.mapping.layers / layers, "quality_first") == assembly for layers, assembly in mine.items())
    print(f"{name}: {len(proposed)} proposed; modtf chooses yours at {same} of {len(mine)} numbers of layers. At 3x:")
    chosen = (
        mine[kit.mapping.layers // 3],
        kit.assemble(ratio=3, strategy="quality_first").assembly,
        kit.choose(3),
        kit.choose(3, "speed_first"),
    )
    for who, assembly in zip(("yours", "quality first", "size first", "speed first"), chosen, strict=True):
        print(f"  {who:14} loss {kit.profile.losses[assembly]:.3f}  {assembly}")

# %% [markdown]
# (At the few others, an assembly drawn at random turned out better than all that were proposed: a sum is only a model.) With a limit in place of a ratio (megabytes, parameters, milliseconds for 32 tokens; see [Use](../README.md#use)) it is the least loss within the limit:

# %%
limit = 25
within = modular.choose(strategy="quality_first", max_latency_ms=limit)
for name, assembly in {"the original": mapping.original, f"{within.shape} within {limit} ms": within}.items():
    loss = modular.profile.losses[assembly]
    print(f"{name:16} loss {loss:.3f}: a probability of {math.exp(-loss):.0%} for each token of the texts (geometric mean)")
course.within_limit(modular, within, limit)

# %% [markdown]
# *Best predicted* lies below *best measured*, since the lowest forecasts are mostly too low (so modtf measures them); and the milliseconds are those of the profile's day, on which the original was slower than in the table above (`modtf profile --times` takes yours).
#
# Why is the original among the worst? `pocket`'s losses are read on the original's *own* texts, those without slot errors. It chose each of their words as the most probable one, yet is less sure of it than most assemblies: it learned from people, who say one thing in many ways, the kit last from such texts alone. So this loss says how sure a model is of faultless texts, not how well it writes as people do. (`translator`'s losses are read on people's translations; there the original has the lowest.)
#
# ## The original's words, in less time
#
# A small assembly can also help the original to write *its own* text: **speculative decoding** (Leviathan and others, 2023). The small decoder guesses some tokens ahead. The large one reads all guesses in a single pass, which takes little longer than reading one token, and says at each place what it would have written. (Both read what one encoder made of the source.) **Your guess: given the same beginning, how often does the decoder of 2 layers choose the same next token as the one of 12?**

# %%
guess_right = None  # percent of the tokens


# %% tags=["nbval-check-output"]
@torch.inference_mode()
def next_tokens(model, inputs, tokens: list[int]) -> list[int]:
    """What a model would write after each of these tokens, in one pass."""
    return model(**inputs, decoder_input_ids=torch.tensor([tokens])).logits[0].argmax(-1).tolist()


original = mapping.original
# one encoder, two decoders
large, small = modular.assemble(), modular.assemble(assembly=Assembly(original.encoder, mapping.coarsest.decoder))
right = total = 0
for example in task_named("e2e").bundled_examples("evaluation")[:20]:
    text = modular.write([example.source], original).tokens[0].tolist()
    guesses = next_tokens(small, modular.encode([example.source]), [large.generation_config.decoder_start_token_id, *text[:-1]])
    right += sum(guess == token for guess, token in zip(guesses, text, strict=True))
    total += len(text)
notebook.reveal("tokens that 2 layers choose as 12 do (%)", guess_right, 100 * right / total)

# %% [markdown]
# ### Exercise 4.3
# The small decoder has guessed k tokens. The large one has read them; `wanted` has its k + 1 choices, one before the first guess and one after each. Write `verify(guesses, wanted)`: the tokens that count. A guess counts if the large one wants it *and* all guesses before it are right. A wrong one is replaced by the large one's own token, and the rest is void. And if all are right?


# %% tags=["exercise"]
def verify(guesses: list[int], wanted: list[int]) -> list[int]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Count the right guesses up to the first wrong one. All tokens that count stand in `wanted`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def verify(guesses: list[int], wanted: list[int]) -> list[int]:
#     right = 0
#     while right < len(guesses) and guesses[right] == wanted[right]:
#         right += 1
#     return wanted[: right + 1]
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("4.3"):
    course.check_verify(verify)

# %%
accept = notebook.chosen("verify", verify, course.verify, course.check_verify)


def speculate(large, small, inputs, ahead: int = 6) -> tuple[list[int], list]:
    """The greedy text of `large`, drafted by `small`; and of each pass the guesses, and how many were right."""
    start, end = large.generation_config.decoder_start_token_id, large.generation_config.eos_token_id
    text, passes = [start], []
    while text[-1] != end:
        draft = list(text)
        for _ in range(ahead):  # the small one writes ahead, token by token
            draft += next_tokens(small, inputs, draft)[-1:]
        guesses, wanted = draft[len(text) :], next_tokens(large, inputs, draft)[len(text) - 1 :]  # the large one reads once
        new = accept(guesses, wanted)
        text += new[: new.index(end) + 1] if end in new else new
        passes.append((guesses, len(new) - 1))
    return text[1:], passes


tokens, passes = speculate(large, small, modular.encode([facts]))
words = [modular.tokenizer.decode([token]) for token in tokens]
course.passes_figure(words, [([modular.tokenizer.decode([token]) for token in guesses], right) for guesses, right in passes], layers=12)

# %% [markdown]
# Is each text what the original writes alone? It must be: all tokens before a wrong guess are the large one's, so `wanted` is what it would have said anyway. That holds for *any* draft, even for one that draws its tokens at random:

# %% tags=["nbval-check-output"]
for name, kit, task in (("pocket", modular, "e2e"), ("translator", translator, "translation")):
    sizes = kit.assemble(), kit.assemble(assembly=Assembly(kit.mapping.original.encoder, kit.mapping.coarsest.decoder))
    sources = [example.source for example in task_named(task).bundled_examples("evaluation")[:6]]
    same = read = written = 0
    for source in sources:
        text, passes = speculate(*sizes, kit.encode([source]))
        same += text == kit.write([source]).tokens[0].tolist()
        read, written = read + len(passes), written + len(text)
    print(f"{name:10} {same} of {len(sources)} texts are the original's; {written} tokens in {read} passes of all layers")


def at_random(**inputs):
    """A draft that knows nothing: it answers with noise in place of logits."""
    length = inputs["decoder_input_ids"].shape[1]
    return type("Output", (), {"logits": torch.rand(1, length, len(modular.tokenizer), generator=torch.Generator().manual_seed(0))})


text, passes = speculate(large, at_random, modular.encode([facts]))
print(f"a draft at random: the original's text: {text == tokens}, {len(text)} tokens in {len(passes)} passes")

# %% [markdown]
# A bad draft costs time, and never a word (but where two words are as good as tied: rounding). The library's loop keeps what was read, drafts as many tokens as pay, and takes several texts at once: `modular.generate(texts, draft=6)`, where the decoder of 6x drafts. What drafts gain depends on how often guesses are right and how cheap they are: [on 100 texts](../README.md#drafts) `pocket`, which guesses with 2 of 12 layers, gains much, `translator`, with 1 of 6, little.
#
# ## References
#
# - Wangchunshu Zhou, Ronan Le Bras, Yejin Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023.
# - Jungo Kasai and others: [Deep Encoder, Shallow Decoder: Reevaluating Non-autoregressive Machine Translation](https://arxiv.org/abs/2006.10369), ICLR 2021.
# - Yaniv Leviathan, Matan Kalman, Yossi Matias: [Fast Inference from Transformers via Speculative Decoding](https://arxiv.org/abs/2211.17192), ICML 2023.
# - Mostafa Elhoushi and others: [LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding](https://arxiv.org/abs/2404.16710), ACL 2024. A model that drafts with its own first layers.
#
# ## In five lines
#
# 1. `assemble` makes a plain Hugging Face model in milliseconds; its weights are those of the kit, not copies. `export` writes it for plain transformers.
# 2. Size first shrinks both stacks evenly; speed first the decoder, because it runs once for every token.
# 3. Which stack is more expensive depends on how much is read and written: for long sources and short answers speed first is the slow choice.
# 4. Quality first looks at the kit: a cost for each module and pair of neighbours, and a dynamic programme that finds the cheapest paths.
# 5. A small decoder can draft for the large one of the same kit: whatever it guesses, the text is the large one's.
#
# <!-- footer -->
# [← 3 · Distillation](3_distillation.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [5 · Quality and speed →](5_quality_and_speed.ipynb)
# <!-- end of footer -->
