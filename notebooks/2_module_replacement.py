# %% [markdown]
# # 2 · Module replacement
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/2_module_replacement.ipynb) · runs in 1.5 minutes on two CPU cores · about 35 minutes to work through
#
# [← 1 · Layer mapping](1_layer_mapping.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [3 · Distillation →](3_distillation.ipynb)
# <!-- end of header -->
#
# *How does a layer learn to do the work of two? By being put in their place, again and again, while everything around it stays as it is.*
#
# **You will be able to**
# - explain module replacing, with the ship of Theseus as a picture;
# - read `ModularStack`, the whole mechanism;
# - write the training loop yourself and watch a model of half the layers learn to speak;
# - say what a replacing schedule decides, and look at one step by step.
#
# **You need** [notebook 1](1_layer_mapping.ipynb): what m(g, j), a path and an assembly are.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import inspect
import json
import random
import time

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import modtf
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.evaluation import measure_quality
from modtf.layers import ModularStack
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.views import notebook
from modtf.views.figures import described, paths_figure

torch.set_num_threads(1)
torch.manual_seed(0)
pocket = modtf.load("pocket")

# %% [markdown]
# ## The ship of Theseus
#
# The Athenians kept the ship of Theseus for centuries. Whenever a plank was rotten they put a new one in its place, until no plank of the old ship was left. It sailed all
# the time.
#
# **Module replacing** does this to a model. In each training step some groups of original layers are taken out, and a modularized layer is put in the place of each. The
# model must still do its task with this mixture, and the error teaches the new layers what the old ones did. The originals are frozen: they never change, so there is always
# a ship to sail on. BERT-of-Theseus (Xu and others, 2020) compressed BERT in this way, to one size. Modular Transformers do it with *many* granularities at once, and so get
# all sizes.
#
# > **In the paper** (abstract): modularized layers are trained by *multi-grained module replacing*, together with distillation (that is [notebook 3](3_distillation.ipynb)), in
# > one training phase. Which layers a step draws, and how that changes over time, is not published: our schedule is our choice.
#
# ## The whole mechanism
#
# A T5 or BART keeps its layers in a list and calls them one after another. modtf puts a `ModularStack` in the place of this list. That is all; the rest of the model is
# Hugging Face's own code and does not know about it. Here is the class, whole:

# %% tags=["nbval-check-output"]
print(inspect.getsource(ModularStack))

# %% [markdown]
# (`start_indices((1, 1, 2))` is `(0, 1, 2)`: where each layer of the path begins. So `layers((1, 1, 2))` of a stack of four gives its originals 0 and 1, then m(2, 1).)
#
# Iterating over it gives the layers of the current `path`, and Hugging Face's forward pass runs whatever it is given. With the path of all originals the model is the
# original, bit for bit:

# %% tags=["nbval-check-output"]
batch = pocket.encode(["name[The Vaults], eatType[pub], food[French]"]) | {"decoder_input_ids": torch.tensor([[0, 5, 6, 7]])}
original = pocket.assemble()  # ratio 1: a plain T5ForConditionalGeneration
with torch.no_grad(), pocket.using(pocket.mapping.original):
    print("the same logits, bit for bit:", torch.equal(pocket.model(**batch).logits, original(**batch).logits))
with pocket.using(pocket.choose(ratio=2)):
    print("layers that a forward pass would run at 2x:", *(len(list(stack)) for stack in pocket.stacks))

# %% [markdown]
# ## New modules know nothing
#
# `pocket`'s *kit*, as we call all banks of a model together, is trained already. To watch a training we need new modules, so we give the original a fresh bank of granularity 2 in each stack. Each new module begins as
# a copy of the *first* layer that it stands for (as in BERT-of-Theseus; our choice).
#
# How bad is that? We let the new 2x model write texts for 40 inputs (MRs, *meaning representations*: the facts as text), and compare them with the original's texts. **BLEU** counts common words and word groups: 100
# would be the very same texts. (In notebook 0 it was BLEU against *people's* texts, a harder yardstick: `pocket`'s original itself has 66 there. The two cannot be compared.) **SER**, the slot error rate, is the share of facts (name, food, price …) that a text misses, gets wrong, repeats or adds.
#
# **Your guess: what BLEU do untrained modules reach?**

# %%
guess_untrained = None  # BLEU of the new 2x model against the original's texts, 0 to 100


# %%
def new_modules() -> modtf.ModularModel:
    """The original with untrained modules of granularity 2."""
    original = pocket.assemble()
    set_attention(original, "eager")  # for texts as short as these, plain attention is the fastest on a CPU
    modular = modtf.modularize(original, granularities=(2,), tokenizer=pocket.tokenizer, task="e2e")
    encode_sources_once(modular.model)  # a batch holds each source once, however many texts were written for it
    return modular


modular = new_modules()
mapping = modular.mapping
two = modular.choose(ratio=2)
inputs = E2E.bundled_examples("evaluation")[:40]  # MRs, each with the text that the original wrote for it

untrained = measure_quality(modular, two, inputs)
notebook.reveal("BLEU of untrained modules, 2x", guess_untrained, untrained["bleu"])
print(f"slot error rate: {untrained['ser']:.0f} %")

# %%
example = inputs[3]
print("MR:       ", example.source)
print("original: ", modular.generate(example.source, ratio=1))
print("2x, new:  ", modular.generate(example.source, ratio=2))

# %% [markdown]
# Half of the layers, and hardly a sentence is left. Is one layer to blame? We replace one pair of layers at a time, leave all others as they are, and look at the
# cross-entropy (the loss) on a batch of texts that the original wrote: the higher, the worse.

# %%
pairs = E2E.bundled_examples("pairs")
probe = TaskBatches(E2E, pairs, modular.tokenizer, steps=1, batch_size=32, seed=1)[0]


def loss_of(assembly: modtf.Assembly) -> float:
    with torch.no_grad():
        return modular(assembly, **probe).loss.item()


def one_pair(stack: str, j: int) -> modtf.Assembly:
    path = (1,) * (2 * j) + (2,) + (1,) * (10 - 2 * j)
    return modtf.Assembly(path, (1,) * 12) if stack == "encoder" else modtf.Assembly((1,) * 12, path)


modular.eval()
figure = go.Figure()
damage = {stack: [loss_of(one_pair(stack, j)) for j in range(6)] for stack in ("encoder", "decoder")}
for stack, losses in damage.items():
    figure.add_bar(name=stack, x=[f"m(2, {j})" for j in range(6)], y=losses, marker_pattern_shape="/" if stack == "decoder" else "")
whole = loss_of(mapping.original)
figure.add_hline(whole, line_dash="dot", annotation_text="original", annotation_position="top right")
figure.update_layout(template="plotly_white", title="One untrained module at a time", height=330)
figure.update_yaxes(title="cross-entropy")
described(
    figure,
    f"Bars of the loss with one pair of layers replaced, for six pairs in each stack. The original's loss is {loss_of(mapping.original):.2f}; the worst pair of the encoder gives "
    f"{max(damage['encoder']):.2f}, that of the decoder {max(damage['decoder']):.2f}.",
)

# %%
print(f"the original: {whole:.2f}")
print(f"were the damages just added up: {whole + sum(loss - whole for losses in damage.values() for loss in losses):.2f}")
print(f"all twelve modules at once: {loss_of(two):.2f}")

# %% [markdown]
# Most pairs can go alone at little cost. All twelve at once do more damage than the sum of the single ones: each module is given what another one has spoiled. So modules must learn, and they must learn to work *beside each other*.
#
# ## Replacing
#
# A training step draws a path: it goes through the stack from the left, and at each place where a module may begin it takes one with probability p, else an original.
#
# ### Exercise 2.1
# Write this draw for one bank: `draw_path(rng, p, depth, g)` is a path of `depth` layers with modules of granularity g and originals. At each multiple of g draw **once** with
# `rng.random() < p`: a module, or else the g originals in its place. (`rng` is a `random.Random`.)


# %% tags=["exercise"]
def draw_path(rng: random.Random, p: float, depth: int, g: int) -> tuple[int, ...]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# There are `depth // g` places. `(g,)` is a module, `(1,) * g` are the originals in its place; tuples are joined by `+`.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def draw_path(rng: random.Random, p: float, depth: int, g: int) -> tuple[int, ...]:
#     path = ()
#     for _ in range(depth // g):
#         path += (g,) if rng.random() < p else (1,) * g
#     return path
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("2.1"):
    assert draw_path(random.Random(0), 1.0, 12, 2) is not None, "draw_path(rng, 1.0, 12, 2) gives nothing back yet"
    assert tuple(draw_path(random.Random(0), 1.0, 12, 2)) == (2,) * 6, (
        f"with p = 1 all is replaced: 2·2·2·2·2·2, not {draw_path(random.Random(0), 1.0, 12, 2)}"
    )
    assert tuple(draw_path(random.Random(0), 0.0, 12, 3)) == (1,) * 12, (
        f"with p = 0 nothing is: twelve originals, not {draw_path(random.Random(0), 0.0, 12, 3)}"
    )
    drawn = [draw_path(random.Random(seed), 0.3, 12, 3) for seed in range(2000)]
    assert all(sum(path) == 12 for path in drawn), (
        f"a path must cover 12 layers; one of yours covers {next(sum(path) for path in drawn if sum(path) != 12)}"
    )
    share = sum(path.count(3) for path in drawn) / (4 * len(drawn))
    assert abs(share - 0.3) < 0.03, f"with p = 0.3 three places in ten should get a module; yours get {10 * share:.1f}"
    assert any({1, 3} <= set(path) for path in drawn), "your paths are all modules or all originals: draw anew at each place"
    assert draw_path(random.Random(7), 0.5, 12, 2) == draw_path(random.Random(7), 0.5, 12, 2), (
        "two draws with the same seed differ: draw from `rng`"
    )

# %% [markdown]
# ## The schedule
#
# The idea of BERT-of-Theseus: in the beginning a fully replaced model is too broken to learn much from. So p does not begin at 1 (here it begins at one half), and rises: a **schedule**. It sounds right; we will test it
# at the end, so keep a doubt. modtf's `ReplacingSchedule`
# gives the assembly of each step as a pure function of the seed and the step, so a training that was interrupted goes on with the very same draws.

# %% tags=["nbval-check-output"]
STEPS = 200
schedule = modtf.ReplacingSchedule(mapping, STEPS, mixtures=1, whole=0)  # mixtures only, as BERT-of-Theseus
for step in (1, STEPS // 4, STEPS // 2, STEPS - 1):
    print(f"step {step:3}: p = {schedule.replacing_probability(step):.2f}  {schedule.draw(step)}")


# %%
def history(probability: float, full_at: float, coarse_at: float, mixtures: float, whole: float):
    """The decoder's path at each of 200 steps, for a model with all of pocket's granularities."""
    drawn = modtf.ReplacingSchedule(
        pocket.mapping,
        STEPS,
        probability=probability,
        full_at=full_at,
        coarse_at=coarse_at,
        mixtures=mixtures,
        whole=min(whole, 1 - mixtures),
    )
    columns = [[g for g in assembly.decoder for _ in range(g)] for assembly in drawn]
    layers = [list(row) for row in zip(*columns, strict=True)]
    shades = ["#ffffff", "#9cc7e6", "#5fa3d5", "#2a6ea3", "#12324d"]  # of granularity 1, 2, 3, 4, 6
    places = [1, 2, 3, 4, 6]
    indexed = [[places.index(g) for g in row] for row in layers]
    figure = go.Figure(
        go.Heatmap(
            z=indexed, zmin=-0.5, zmax=4.5, text=layers, hovertemplate="step %{x}, layer %{y}: granularity %{text}<extra></extra>",
            colorscale=[[(i + k) / 5, shade] for i, shade in enumerate(shades) for k in (0, 1)],
            colorbar={"tickvals": [0, 1, 2, 3, 4], "ticktext": ["original", "2", "3", "4", "6"], "title": "granularity", "outlinewidth": 1},
        )
    )  # fmt: skip
    figure.update_layout(template="plotly_white", title="What stands in the place of each of the decoder's layers", height=360)
    figure.update_xaxes(title="training step")
    figure.update_yaxes(title="original layer", autorange="reversed", dtick=1)
    return figure


described(
    history(0.5, 0.5, 0.5, 1.0, 0.0),
    "A map of 200 training steps against the decoder's 12 layers, coloured by the granularity drawn. To the left about half is white: original layers. To the right everything is "
    "coloured, ever darker: coarser modules have come in. After the middle no original is left.",
)

# %% [markdown]
# (Here with all granularities of `pocket`; the coarse ones come later, when `coarse_at` allows them.)
#
# **This is the figure to remember**: one column is one training step. From left to right the old planks disappear, the small new ones come first, the large ones later.
#
# Play with the schedule. `mixtures` is the share of steps with such random mixtures. `whole` is the share of steps with *one* granularity from end to end, which is what you will use
# in the end. The rest runs what the strategies of [notebook 4](4_assembly.ipynb) would assemble.

# %%
unit = {"min": 0.0, "max": 1.0, "step": 0.05}
notebook.play(
    history,
    probability=widgets.FloatSlider(value=0.5, description="p of the first step", **unit),
    full_at=widgets.FloatSlider(value=0.5, description="share of the training after which p is 1", **unit),
    coarse_at=widgets.FloatSlider(value=0.5, description="share after which all granularities are drawn", **unit),
    mixtures=widgets.FloatSlider(value=1.0, description="mixtures", **unit),
    whole=widgets.FloatSlider(value=0.0, description="whole", **unit),
)


# %% [markdown]
# And step by step, the paths of both stacks:


# %%
def one_step(step: int):
    drawn = modtf.ReplacingSchedule(pocket.mapping, STEPS, mixtures=1, whole=0, coarse_at=0.5).draw(step)
    return paths_figure({"encoder": drawn.encoder, "decoder": drawn.decoder}, f"step {step}: {drawn.shape} layers")


described(
    one_step(60), "The paths of encoder and decoder that step 60 runs: a mixture of original layers and of modules of granularity 2 and 3."
)

# %%
notebook.play(one_step, step=widgets.IntSlider(value=40, min=0, max=STEPS - 1, description="step"))

# %% [markdown]
# ### Exercise 2.2
# Write the schedule of p: it begins at `start`, rises in a straight line, is 1 after the share `full_at` of all steps, and stays there.


# %% tags=["exercise"]
def probability(step: int, steps: int, start: float, full_at: float) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# How far is the step on its way to `full_at · steps`, as a number from 0 to 1? `min` keeps it there.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def probability(step: int, steps: int, start: float, full_at: float) -> float:
#     risen = min(1, step / (full_at * steps))
#     return start + (1 - start) * risen
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("2.2"):
    assert probability(0, 200, 0.5, 0.5) is not None, "probability(0, 200, 0.5, 0.5) gives nothing back yet"
    for step, wanted in [(0, 0.5), (50, 0.75), (100, 1.0), (199, 1.0)]:
        given = probability(step, 200, 0.5, 0.5)
        assert abs(given - wanted) < 1e-9, f"p begins at 0.5 and is 1 from step 100 on, so at step {step} it is {wanted}; yours is {given}"
    same = modtf.ReplacingSchedule(mapping, 80, probability=0.2, full_at=0.9)
    wrong = [step for step in range(80) if abs(probability(step, 80, 0.2, 0.9) - same.replacing_probability(step)) > 1e-9]
    assert not wrong, f"with start 0.2 and full_at 0.9 yours differs from modtf's first at step {wrong[0]}"

# %% [markdown]
# ## Train it, live
#
# Now the training. The loop is short enough to be written out: draw an assembly, run a batch through it, lower the loss. Only the banks have gradients. The
# loss is the plain cross-entropy with texts that the original wrote; of what goes on *inside* the original nothing is used yet. The layers learn only because they stand in the place of others.
#
# It takes a minute or two. **Your guess: what BLEU will 2x have after 200 steps?** (It began where you saw above.)

# %%
guess_trained = None  # BLEU of 2x after 200 steps

# %% tags=["long"]
modular = new_modules()  # whoever runs this cell again begins anew
batches = TaskBatches(E2E, pairs, modular.tokenizer, STEPS, batch_size=16)
banks = [parameter for parameter in modular.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW(banks, lr=2e-3)
decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 20, 1 - step / STEPS))
curve = []


def learning_curve() -> go.Figure:
    figure = make_subplots(rows=1, cols=2, subplot_titles=("BLEU of 2x, against the original's texts", "slot error rate of 2x (%)"))
    for column, score in enumerate(("bleu", "ser"), start=1):
        figure.add_scatter(x=[row["step"] for row in curve], y=[row[score] for row in curve], mode="lines+markers", row=1, col=column)
    figure.update_layout(template="plotly_white", height=320, showlegend=False)
    figure.update_xaxes(title="training step", range=[-5, STEPS + 5])
    figure.update_yaxes(rangemode="tozero")
    return figure


canvas = notebook.Canvas("learning curve")
display(canvas.widget)
begun, measuring = time.perf_counter(), 0.0
for step in range(STEPS + 1):
    if step % 25 == 0:  # look how 2x writes now
        paused = time.perf_counter()
        modular.eval()
        quality = measure_quality(modular, two, inputs)
        curve.append({"step": step} | quality)
        canvas.draw(learning_curve())
        print(
            f"step {step:3}: BLEU {quality['bleu']:5.1f}, slot errors {quality['ser']:5.1f} %  {modular.generate(example.source, ratio=2)[:90]}…"
        )
        modular.train()
        measuring += time.perf_counter() - paused
    if step < STEPS:
        loss = modular(schedule.draw(step), **batches[step]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(banks, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
modular.eval()
print(f"{STEPS} steps of 16 texts in {time.perf_counter() - begun - measuring:.0f} seconds")

# %% tags=["long"]
described(
    learning_curve(),
    f"Two curves over {STEPS} training steps: the BLEU of the 2x model climbs from {curve[0]['bleu']:.0f} to {curve[-1]['bleu']:.0f}, its slot error rate falls from "
    f"{curve[0]['ser']:.0f} to {curve[-1]['ser']:.0f} percent.",
)

# %% tags=["long"]
notebook.reveal(f"BLEU of 2x after {STEPS} steps of replacing", guess_trained, curve[-1]["bleu"])
print("\nMR:           ", example.source)
print("original:     ", modular.generate(example.source, ratio=1))
print("2x, trained:  ", modular.generate(example.source, ratio=2))

# %% [markdown]
# It speaks. And the sizes in between, with some of the originals back in their places? 1.2x has ten layers in each stack instead of six, and eight of them are originals. **Your guess: what BLEU does 1.2x have?**

# %%
guess_between = None  # BLEU of 1.2x, after the same training

# %% tags=["long"]
between = []
for ratio in (1, 1.1, 1.2, 1.33, 1.5, 1.71, 2):
    assembly = modular.choose(ratio)
    quality = measure_quality(modular, assembly, inputs)
    between.append(
        {"ratio": round(assembly.ratio, 2), "layers": assembly.shape, "BLEU": round(quality["bleu"], 1), "SER %": round(quality["ser"], 1)}
    )
print(pd.DataFrame(between).to_string(index=False))

# %% tags=["long"]
notebook.reveal("BLEU of 1.2x", guess_between, next(row["BLEU"] for row in between if row["ratio"] == 1.2))

# %% [markdown]
# (1x is the original itself, against its own texts: BLEU 100 by definition. Its slot errors are those of the original.)
#
# More layers, yet no better: look at the column from top to bottom. Our explanation: in the second half of this training p was 1, so *only* the fully replaced model was practised. The modules have got used to each other, and strangers
# among them (the originals!) disturb. (Test it: give `full_at=1` and `probability=0.3` to the schedule above, and run that cell and the training again.) **A path works as well as it was practised.** One training for all sizes has to keep drawing all kinds of paths to its end, and that is what the schedule of the bundled kits does: `mixtures`,
# `whole` and the strategies' own assemblies, all the time.
#
# ## Schedules compared
#
# Does the schedule matter? For this we trained new modules of granularity 2 and 6 for 400 steps with each of five schedules, with nothing else changed and no teacher, twice each.
# (`benchmarks/ablation.py` did it; it takes too long to wait for here.)

# %%
ablation = json.loads(bundled("ablation.json").read_text())
runs = pd.DataFrame([{"schedule": run["name"], "seed": run["seed"]} | score for run in ablation["runs"] for score in run["scores"]])
figure = make_subplots(rows=1, cols=2, subplot_titles=("2x: slot error rate (%)", "6x: slot error rate (%)"))
for number, (name, of_schedule) in enumerate(runs.groupby("schedule", sort=False)):
    for column, ratio in enumerate((2, 6), start=1):
        mean = of_schedule[of_schedule.ratio == ratio].groupby("step").ser.mean()
        figure.add_scatter(
            x=mean.index, y=mean, name=name, legendgroup=name, showlegend=column == 1, row=1, col=column,
            line={"color": ["#3b8fd0", "#e07b1a", "#cc4e94", "#2a9d74", "#555555"][number], "dash": ["solid", "dash", "dot", "dashdot", "longdash"][number]},
        )  # fmt: skip
figure.update_layout(template="plotly_white", height=420, legend={"orientation": "h", "y": -0.25})
figure.update_xaxes(title="training step")
figure.update_yaxes(rangemode="tozero")
final = runs[runs.step == ablation["steps"]]
best = {ratio: final[final.ratio == ratio].groupby("schedule").ser.mean().idxmin() for ratio in (2, 6)}
described(
    figure,
    f"Slot error rates of 2x and of 6x over {ablation['steps']} training steps, a line for each of five schedules. At the end the lowest line at 2x is '{best[2]}', "
    f"at 6x '{best[6]}'.",
)

# %% tags=["nbval-check-output"]
scores = final.groupby(["schedule", "ratio"], sort=False)[["bleu", "ser"]]
shown = scores.mean().round(1).astype(str) + " ± " + ((scores.max() - scores.min()) / 2).round(1).astype(str)
print(shown.unstack().to_string())

# %% [markdown]
# (± is half the difference between the runs with two seeds: do not read more into two schedules than that.)
#
# 2x comes most of the way back with every schedule. 6x is where they differ: its modules have the most to learn, and a schedule that rises slowly, or keeps the coarse ones for later, leaves them too little practice in 400 steps.
# For a training as short as this, replacing everything from the first step is not worse than rising; the curriculum of BERT-of-Theseus is no law. modtf's own schedule (mixtures in a tenth of the steps, whole-grain paths in six tenths, assemblies of the strategies in the rest) is not the winner of this little race either.
# It was chosen for what the race does not measure: a full encoder beside a decoder of two layers, as `speed_first` wants it, is a pair that mixtures hardly ever draw.
#
# After 400 steps 6x is still poor with every schedule. Replacing alone is a slow teacher: it tells a module only whether the right token came out at the very end. The original knows much more than
# that, layer by layer. Notebook 3 lets it tell.
#
# ## A whole training
#
# The bundled kits were trained for longer, and with that teacher. What does such a training give back? `translator`, the BART of notebook 0, has a harder task than `pocket`, so it has more to lose. At 1.5x each of its stacks has four layers
# in place of six, two modules and two originals (2·2·1·1 in the encoder, 1·1·2·2 in the decoder). The bundled table holds the BLEU of the same paths before any training, too. **Your guess: what percentage of the full model's BLEU does 1.5x keep before the training? And after it?**

# %%
guess_before = None  # percent of the full model's BLEU, 1.5x, modules as copies of the first layers
guess_after = None  # percent, 1.5x, trained

# %% tags=["nbval-check-output"]
translated = [row for row in json.loads(bundled("translator/table.json").read_text())["rows"] if row["strategy"] == "size_first"]
kept = {trained: {row["wanted_ratio"]: row["bleu_kept"] for row in translated if row["trained"] == trained} for trained in (False, True)}
notebook.reveal("BLEU kept by 1.5x before training (%)", guess_before, kept[False][1.5])
notebook.reveal("BLEU kept by 1.5x after training (%)", guess_after, kept[True][1.5])

# %%
figure = go.Figure()
for trained, name, dash in ((True, "trained", "solid"), (False, "copies of the first layers", "dash")):
    figure.add_scatter(x=list(kept[trained]), y=list(kept[trained].values()), mode="lines+markers", name=name, line={"dash": dash})
figure.update_layout(template="plotly_white", title="What the training of the translator's kit gave back", height=340)
figure.update_xaxes(title="compression ratio, size first").update_yaxes(title="BLEU kept (%)", range=[-3, 105])
described(
    figure,
    f"BLEU kept by the translator over the ratio, before and after training. Before: {kept[False][1.09]} percent at 1.09x and {kept[False][2]} at 2x. After: {kept[True][1.09]} percent at 1.09x, "
    f"{kept[True][2]} at 2x and {kept[True][6]} at 6x.",
)

# %% [markdown]
# ### Exercise 2.3
# How hard is a step? Write `share_replaced(assembly)`: the share of the original layers, both stacks together, that modules stand for.


# %% tags=["exercise"]
def share_replaced(assembly: modtf.Assembly) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# `assembly.encoder + assembly.decoder` is one tuple of granularities. Which of them are modules, and how many original layers does each stand for?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def share_replaced(assembly: modtf.Assembly) -> float:
#     path = assembly.encoder + assembly.decoder
#     return sum(g for g in path if g > 1) / sum(path)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("2.3"):
    assert share_replaced(mapping.original) is not None, "share_replaced gives nothing back yet"
    assert share_replaced(mapping.original) == 0, f"in the original nothing is replaced; yours says {share_replaced(mapping.original)}"
    assert share_replaced(two) == 1, f"at 2x all is replaced; yours says {share_replaced(two)}"
    uneven = modtf.Assembly((2,) * 6, (6, 1, 1, 1, 1, 1, 1))
    assert share_replaced(uneven) == 0.75, f"{uneven}: modules stand for 18 of 24 layers; yours says {share_replaced(uneven)}"

# %% [markdown]
# ## In five lines
#
# 1. Module replacing: in each step some groups of original layers are replaced by modules, and the frozen rest keeps the model working.
# 2. `ModularStack` is a list whose contents change with the path; Hugging Face's code runs whatever it gives.
# 3. Untrained modules break the model; a few hundred steps of replacing alone bring 2x most of the way back, and a path works as well as it was practised.
# 4. A schedule raises how much is replaced, and how coarsely; a step is a pure function of (seed, step).
# 5. The coarser a module, the more practice it needs: that is where schedules differ, and only measuring tells which is better.
#
# <!-- footer -->
# [← 1 · Layer mapping](1_layer_mapping.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [3 · Distillation →](3_distillation.ipynb)
# <!-- end of footer -->
