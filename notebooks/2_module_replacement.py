# %% [markdown]
# # 2 · Module replacement
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/2_module_replacement.ipynb) · runs in 2.5 minutes on two CPU cores · about 35 minutes to work through
#
# [← 1 · Layer mapping](1_layer_mapping.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [3 · Distillation →](3_distillation.ipynb)
# <!-- end of header -->
#
# *How does a layer learn to do the work of two? By being put in their place, again and again, while everything around it stays as it is.*
#
# **You will be able to**
# - explain module replacing, with the ship of Theseus as a picture;
# - write the draw of a step, the training step and the schedule, and watch a model of half the layers learn to speak with *your* code;
# - say where gradients go in a step, and where they do not;
# - say what such a training costs, and doubt a schedule.
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
import torch

import modtf
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.course import replacement as course
from modtf.evaluation import measure_quality
from modtf.layers import ModularStack
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.views import notebook

torch.set_num_threads(1)
torch.manual_seed(0)
pocket = modtf.load("pocket")

# %% [markdown]
# ## Budget
#
# What does a model that slides cost? The bill of the two bundled models, for the training of their original and that of their *kit* (all banks together), as it was measured while they were made:

# %% tags=["nbval-check-output"]
print(course.budget().to_string(index=False))

# %% [markdown]
# On that machine a kit took about as long as its original did, or half as long again: some two hours, without a GPU. (The minutes do not say how much was computed: `translator`'s original was trained in float32, its kit in bfloat16, which is faster. And a step may train several assemblies at once; each of that kit's trained four.)
#
# ## The ship of Theseus
#
# The Athenians kept the ship of Theseus for centuries. Whenever a plank was rotten they put a new one in its place, until no plank of the old ship was left. It sailed all
# the time.
#
# **Module replacing** does this to a model. In each training step some groups of original layers are taken out, and a modularized layer is put in the place of each. The
# model must still do its task with this mixture, and the error teaches the new layers what the old ones did. The originals are frozen: they never change, so there is always
# a ship to sail on. And a teacher to ask: the path of all originals *is* the original model, so no second copy of it is ever needed. BERT-of-Theseus (Xu and others, 2020) compressed BERT in this way, to one size. Modular Transformers do it with *many* granularities at once, and so get
# all sizes.
#
# > **In the paper** (its abstract and published summaries): modularized layers are trained by *multi-grained module replacing*, together with distillation (that is [notebook 3](3_distillation.ipynb)), in
# > one training phase. Which layers a step draws, and how that changes over time, we do not know: our schedule is our choice.
#
# ## The whole mechanism
#
# A T5 or BART keeps its layers in a list and calls them one after another. modtf puts a `ModularStack` in the place of this list; its `layers(path)` is what you wrote in notebook 1. The rest of the model is
# Hugging Face's own code and does not know about it. Here is the class, whole (`start_indices((1, 1, 2))` is `(0, 1, 2)`: where each layer begins):

# %% tags=["nbval-check-output"]
print(inspect.getsource(ModularStack))

# %% [markdown]
# ## New modules know nothing
#
# To watch a training we need new modules, so we give `pocket`'s original a fresh bank of granularity 2 in each stack. Each new module begins as
# a copy of the *first* layer that it stands for (our choice; BERT-of-Theseus begins with the first layers of the whole model).
#
# How bad is that? We let the new 2x model write texts for 40 inputs (MRs, *meaning representations*: the facts as text), and compare them with the *original's* texts: BLEU 100 would be the very same ones. (So it cannot be compared with notebook 0's BLEU, against people's texts. The slot error rate, SER, is explained [there](0_quickstart.ipynb#what-a-number-hides).)
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
print("2x, new:  ", modular.generate(example.source, ratio=2)[:300], "…")

# %% [markdown]
# Half of the layers, and hardly a sentence is left. Is one layer to blame? We replace one pair of layers at a time, leave all others as they are, and look at the
# cross-entropy (the loss) on a batch of texts that the original wrote: the higher, the worse.

# %%
pairs = E2E.bundled_examples("pairs")
probe = TaskBatches(E2E, pairs, modular.tokenizer, steps=1, batch_size=32, seed=1)[0]


def loss_of(assembly: modtf.Assembly) -> float:
    with torch.no_grad():
        return modular(assembly, **probe).loss.item()


damage = {stack: [loss_of(course.one_pair(stack, j)) for j in range(6)] for stack in ("encoder", "decoder")}
whole = loss_of(mapping.original)
course.damage_figure(damage, whole)

# %%
print(f"the original: {whole:.2f}")
print(f"if the damage simply added up: {whole + sum(loss - whole for losses in damage.values() for loss in losses):.2f}")
print(f"all twelve modules at once: {loss_of(two):.2f}")

# %% [markdown]
# Most pairs can go alone at little cost. All twelve at once do more damage than the sum of the single ones: each module is given what another one has spoiled. So modules must learn, and they must learn to work *beside each other*.
#
# ## Draw
#
# A training step draws a path: it goes through the stack from the left, and at each place where a module may begin it takes one with probability p, else the originals.
#
# ### Exercise 2.1
# Write this draw for one bank: `draw(rng, p, depth, g)` is a path of `depth` layers with modules of granularity g and originals. At each multiple of g draw **once** with
# `rng.random() < p`: a module, or else the g originals in its place. (`rng` is a `random.Random`.)


# %% tags=["exercise"]
def draw(rng: random.Random, p: float, depth: int, g: int) -> tuple[int, ...]:
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
# def draw(rng: random.Random, p: float, depth: int, g: int) -> tuple[int, ...]:
#     path = ()
#     for _ in range(depth // g):
#         path += (g,) if rng.random() < p else (1,) * g
#     return path
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("2.1"):
    course.check_draw(draw)

# %% [markdown]
# ## One training step
#
# A step $s$ has a batch of sources $x$ with texts $y$ of $T$ tokens, and an assembly $a$ that was drawn. $\theta_a$ are the weights of the modules on its path; nothing else may change. The loss is the cross-entropy with the labels, here texts that the original wrote:
#
# $$L_\text{labels}(a) = - \frac{1}{T} \sum_{t=1}^{T} \log P(y_t \mid x, y_1, \ldots, y_{t-1}; a)$$
#
# and the whole training lowers its mean over all draws, each step $s$ with the p of its time:
#
# $$\min_{\theta} \frac{1}{S} \sum_{s=1}^{S} L(a_s), \quad a_s \sim \mathrm{draw}(p_s), \quad L = w_\text{labels}\, L_\text{labels} + w_\text{logits}\, L_\text{logits} + w_\text{hidden}\, L_\text{hidden} + w_\text{attention}\, L_\text{attention}$$
#
# This is the objective of all of modtf's trainings. In this notebook only $w_\text{labels}$ is not 0: of what goes on *inside* the original nothing is used yet. The other three are [notebook 3](3_distillation.ipynb).
#
# ### Exercise 2.2
# Write the heart of the training, `training_step(modular, assembly, batch, optimizer)`: forward through the drawn assembly, backward, one step of the optimizer. Give back the loss as a plain number. `modular(assembly, **batch)` is the forward pass, and what it gives
# has a `.loss`, the cross-entropy above. (Just before the optimizer's step, `torch.nn.utils.clip_grad_norm_(modular.parameters(), 1.0)` shortens a gradient that is too long. Everybody does that; you may, too.)


# %% tags=["exercise"]
def training_step(modular: modtf.ModularModel, assembly: modtf.Assembly, batch: dict, optimizer: torch.optim.Optimizer) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# PyTorch *adds* gradients to those that are there already: `optimizer.zero_grad()` first. Then the loss, `loss.backward()`, `optimizer.step()`, and `loss.item()` is the number.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def training_step(modular: modtf.ModularModel, assembly: modtf.Assembly, batch: dict, optimizer: torch.optim.Optimizer) -> float:
#     optimizer.zero_grad()
#     loss = modular(assembly, **batch).loss
#     loss.backward()
#     torch.nn.utils.clip_grad_norm_(modular.parameters(), 1.0)
#     optimizer.step()
#     return loss.item()
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("2.2"):
    course.check_training_step(training_step)

# %% [markdown]
# ## One step in one picture
#
# Now 20 real steps, with your functions where they pass their checks and the library's where a stub stands. Hooks look on: they read each gradient as the backward pass brings it, and compare all weights before and after.

# %%
chosen_draw = notebook.chosen("draw", draw, course.draw, course.check_draw)
chosen_step = notebook.chosen("training_step", training_step, course.training_step, course.check_training_step)

# %%
modular = new_modules().train()
batches = TaskBatches(E2E, pairs, modular.tokenizer, steps=20, batch_size=16)
optimizer = torch.optim.AdamW([parameter for parameter in modular.parameters() if parameter.requires_grad], lr=1e-3)
steps = []
for step in range(20):
    rng = random.Random(f"picture {step}")
    assembly = modtf.Assembly(chosen_draw(rng, 0.5, 12, 2), chosen_draw(rng, 0.5, 12, 2))
    if assembly != mapping.original:  # without a module there is nothing to learn
        steps.append(course.measure_step(chosen_step, modular, assembly, batches[step], optimizer, step))

# %%
course.step_figure(steps[3])

# %% [markdown]
# Read it in five passes, each with its equation and its line of code.
#
# | pass | what happens | equation | code |
# |---|---|---|---|
# | **draw** | blocks with a firm edge run, dotted ones do not | $a \sim \mathrm{draw}(p)$ | `draw(rng, p, 12, 2)`, for each stack |
# | **forward** | along the blue line, through frozen originals and modules alike; each layer of the decoder reads what the encoder made | $P(y_t \mid x, y_1, \ldots; a)$ | `modular(assembly, **batch)` |
# | **loss** | one number, at the end | $L(a)$ | `.loss` |
# | **backward** | from the loss to the left, and through what the encoder made into the encoder. The pink strip has the norms of the gradient of the *states* between the layers: it passes *through* frozen originals. The orange blocks have those of the *weights*: only modules on the path get any | $\nabla_{\theta_a} L$ | `loss.backward()` |
# | **update** | these modules move, and nothing else | $\theta_a \leftarrow \theta_a - \eta \, d$ | `optimizer.step()` |
#
# ($d$ is the direction that AdamW makes of this gradient and those of earlier steps, $\eta$ the learning rate.) **Only the modules on the path get gradients of their weights.** Frozen originals get none, but let the gradient of the states through to modules further back; where no module lies further back along the blue line it ends, for nothing is left there that could learn. (Each decoder layer reads the encoder's output, so as long as the encoder has a module, decoder originals before the first decoder module carry gradients, too.) Is it true that nothing else moves? Measured on the same step:

# %%
print(course.who_learned(modular, steps[3]).to_string(index=False))

# %% [markdown]
# Embeddings, head, final norms and T5's position biases belong to the original, so they are frozen, too. (The norms *inside* a module are its own, and learn.) The position biases are a table in the first layer of a T5's stack that all its layers use, and each m(g, 0) shares that of the original layer 0: if a module had a trainable copy, the originals behind it would be given other biases. (BART has learned position
# embeddings instead, frozen with the other embeddings, as is the norm behind them; all its other norms lie inside layers.)
#
# Go through the other steps. **In which one does the gradient die soonest in the encoder? What decides how far to the left it comes?**

# %%
notebook.play(
    lambda number: course.step_figure(steps[number]),
    number=widgets.IntSlider(value=3, min=0, max=len(steps) - 1, description="step"),
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# In step 19 (with the library's draw): the first module of its encoder is m(2, 4), and left of the first module nothing can learn.
# </details>
#
# ## The schedule
#
# The idea of BERT-of-Theseus: in the beginning a fully replaced model is too broken to learn much from. So p does not begin at 1, but rises: a **schedule**. It sounds right; we will test it
# at the end, so keep a doubt.
#
# With several granularities a schedule also says how coarsely a step may replace. Two schedules of the library, for all of `pocket`'s granularities:

# %%
course.two_schedules(pocket.mapping)

# %% [markdown]
# **This is the figure to remember**: one column is one training step. On the left the old planks disappear, the small new ones come first, the large ones later. On the right is the library's own: a tenth of the steps are such *mixtures*. Six tenths are *whole-grain*: each stack gets one granularity from end to end, drawn for itself and with 1 among them. The rest are *strategies' paths*, the assemblies
# of size first and speed first, small ones more often. (The sets overlap: size first at 2x is whole-grain, too.) Each step is a pure function of seed and number, so a training that was interrupted goes on with the very same draws.
#
# **Why not mixtures alone?** People ask for 2x, for 6x, or for a full encoder with a small decoder. Mixtures of four granularities hardly ever draw such a path, so its modules would hardly ever practise together. A kit of `translator` without whole-grain steps loses a point of BLEU at 2x, and one without the strategies' paths 4 points or more at 6x and with a full encoder and the smallest decoder ([notebook 3](3_distillation.ipynb#practise-what-you-will-use)).
#
# ### Exercise 2.3
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
with notebook.check("2.3"):
    course.check_probability(probability)

# %% [markdown]
# Now make a schedule of your own. **These two sliders drive the training below**: it runs with the values at which you leave them. Train once with the values as they are, then come back for the challenge:
#
# **Let modules stand for at least 60 % of the layers, and yet let at least half of the steps in the last quarter still hold an original.**
#
# <details><summary>Answer</summary>
#
# Begin low and rise to the very end: `start` 0.3 and `full_at` 1, for example.
# </details>
#
# (In the stored picture of the sliders `start` was moved to 0.65; the stored training below it ran with 0.5.)

# %%
STEPS, SEED = 200, 0  # another seed is another training: other draws, other batches
chosen_probability = notebook.chosen("probability", probability, course.probability, course.check_probability)


def drawn(step: int, start: float, full_at: float) -> modtf.Assembly:
    """The assembly of a step: your draw, with your p."""
    rng = random.Random(f"training {SEED} {step}")
    p = chosen_probability(step, STEPS, start, full_at)
    return modtf.Assembly(chosen_draw(rng, p, 12, 2), chosen_draw(rng, p, 12, 2))


sliders = {
    "start": widgets.FloatSlider(value=0.5, min=0, max=1, step=0.05, description="start: p of the first step"),
    "full_at": widgets.FloatSlider(value=0.5, min=0.05, max=1, step=0.05, description="full_at: share of the steps after which p is 1"),
}
runs = {}  # the trainings that you have made, by their settings
notebook.play(lambda **settings: course.schedule_map([drawn(step, **settings) for step in range(STEPS)]), **sliders)

# %% [markdown]
# ## Train it, live
#
# The loop: draw, step, and now and then a look at how 2x writes. It takes a minute or two. **Your guess: what BLEU will 2x have after 200 steps?** (It began where you saw above.)

# %%
guess_trained = None  # BLEU of 2x after 200 steps

# %% tags=["long"]
settings = {name: slider.value for name, slider in sliders.items()}
print("the sliders:", settings)
modular = new_modules()  # whoever runs this cell again begins anew
batches = TaskBatches(E2E, pairs, modular.tokenizer, STEPS, batch_size=16, seed=SEED)
optimizer = torch.optim.AdamW([parameter for parameter in modular.parameters() if parameter.requires_grad], lr=2e-3)
pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 20, 1 - step / STEPS))
canvas, curve, begun = notebook.Canvas("learning curve"), [], time.perf_counter()
display(canvas.widget)
for step in range(STEPS + 1):
    if step % 25 == 0:  # look how 2x writes now
        quality = measure_quality(modular.eval(), two, inputs)
        curve.append({"step": step, **quality})
        canvas.draw(course.learning_curve(curve, STEPS))
        print(
            f"step {step:3}: BLEU {quality['bleu']:5.1f}, slot errors {quality['ser']:4.1f} %  {modular.generate(example.source, ratio=2)[:90]}…"
        )
    assembly = drawn(step, **settings)
    if step < STEPS and assembly != mapping.original:
        chosen_step(modular.train(), assembly, batches[step], optimizer)
        pace.step()
modular.eval()
print(f"{STEPS} steps of 16 texts, and {len(curve)} looks, in {time.perf_counter() - begun:.0f} seconds")

# %% tags=["long"]
course.learning_curve(curve, STEPS)

# %% tags=["long"]
notebook.reveal(f"BLEU of 2x after {STEPS} steps of replacing", guess_trained, curve[-1]["bleu"])
print("\nMR:           ", example.source)
print("original:     ", modular.generate(example.source, ratio=1))
print("2x, trained:  ", modular.generate(example.source, ratio=2))

# %% [markdown]
# It speaks, if not of everything. (The curve stands on 40 texts and jumps; look at its trend.) And the sizes in between, with some of the originals back in their places? 1.2x has ten layers in each stack instead of six, and eight of them are originals. **Your guess: what BLEU does 1.2x have?** (Now on 150 inputs.)

# %%
guess_between = None  # BLEU of 1.2x, after the same training

# %% tags=["long"]
more = E2E.bundled_examples("evaluation")[:150]
rows = course.measured_sizes(modular, (1.1, 1.2, 1.5, 2), more)
runs["start {start:g}, full_at {full_at:g}".format(**settings) + f", seed {SEED}"] = rows
table = f"{course.sizes_in_between(runs).to_string()}\n\nin the last training, with 95 % intervals: {course.minus(rows[1], rows[-1])}"
notebook.reveal("BLEU of 1.2x", guess_between, rows[1]["bleu"], table=table)

# %% [markdown]
# More layers, and worse: look at the table's column from top to bottom. The interval (a paired bootstrap over inputs, which you write in [notebook 5](5_quality_and_speed.ipynb)) lies below zero, but it knows nothing of other trainings. So we made three, with `SEED` 0, 1 and 2, and took all 300 bundled inputs: 1.2x is behind 2x by 11.9, 10.4 and 5.4 points of BLEU, no
# interval holds zero, and it makes 2 to 6 points more slot errors ([LOG](../benchmarks/LOG.md#for-the-course)).
#
# Our *explanation* is a guess: with the sliders as they were, p was 1 in the second half, so only the fully replaced model was practised. The modules have got used to each other, and strangers
# among them (the originals!) disturb. **Test it**: set the sliders to a solution of their challenge, run *Train it, live* again, and this table gets a second pair of columns. Is 1.2x better now? What does 2x pay for it?
#
# <details><summary>Answer</summary>
#
# With `start` 0.3 and `full_at` 1, the same three seeds and 300 inputs, 1.2x gains 4 to 7 points of BLEU and loses 3 to 6 of slot errors; 2x pays with 0 to 8 points of BLEU and 2 to 4 of slot errors. Now no difference in BLEU is shown between them, and 1.2x makes fewer slot errors with each seed ([LOG](../benchmarks/LOG.md#for-the-course)). That fits the guess. It does not prove it: modules ran less often, too.
# </details>
#
# If the guess is right, **a path works as well as it was practised**, and one training for all sizes has to keep drawing all kinds of paths to its end. The bundled kits' schedule does.
#
# ## Schedules compared
#
# Does the schedule matter? For this we trained new modules of granularity 2 and 6 for 400 steps with each of five schedules, with nothing else changed and no teacher, twice each.
# (`benchmarks/ablation.py` did it; it takes too long to wait for here.)

# %%
ablation = json.loads(bundled("ablation.json").read_text(encoding="utf-8"))
course.schedules_compared(ablation)

# %% [markdown]
# 2x comes most of the way back with every schedule, while the schedules that rise from none, or keep the coarse ones for later, leave 6x far behind, perhaps because its modules have the most to learn and get too little practice. For a training as short as this, replacing everything from the first step is not
# worse than rising at 6x (two seeds of one schedule differ there by up to 16 points, [LOG](../benchmarks/LOG.md#for-the-course)): the curriculum of BERT-of-Theseus is no law, and modtf's own schedule does not win this little race either. And 6x is still poor with each: does it help a module to be told more than the right token at the very end?
# [Notebook 3](3_distillation.ipynb) tests it, and the answer may surprise you.
#
# ## A whole training
#
# The bundled kits were trained for longer, and with the original as a teacher. `translator`, the BART of notebook 0, has a harder task than `pocket`, so it has more to lose. At 1.5x each of its stacks has four layers
# in place of six, two modules and two originals (2·2·1·1 in the encoder, 1·1·2·2 in the decoder). **Your guess: what percentage of the full model's BLEU does 1.5x keep before the training?** (After it: [notebook 0](0_quickstart.ipynb#how-much-is-kept).)

# %%
guess_before = None  # percent of the full model's BLEU, 1.5x, modules as copies of the first layers

# %% tags=["nbval-check-output"]
kept = course.bleu_kept("translator")
notebook.reveal("BLEU kept by 1.5x before training (%)", guess_before, kept[False][1.5])

# %%
course.given_back(kept)

# %% [markdown]
# The report card of both kits, *size first*, against people's texts:

# %% tags=["nbval-check-output"]
print(course.report_card().to_string(index=False))

# %% [markdown]
# ## References
#
# - Zhou, Le Bras, Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023. The method.
# - Xu, Zhou, Ge, Wei, Zhou: [BERT-of-Theseus: Compressing BERT by Progressive Module Replacing](https://arxiv.org/abs/2002.02925), EMNLP 2020. Its ancestor, for one size.
#
# ## In five lines
#
# 1. Module replacing: in each step some groups of original layers are replaced by modules, and the frozen rest keeps the model working.
# 2. A step is draw, forward, loss, backward, update. Gradients pass through frozen originals; only modules on the path learn, and embeddings, head, final norms and position biases never do.
# 3. Untrained modules break the model; a few hundred steps of replacing alone bring 2x most of the way back. It seems that a path works as well as it was practised.
# 4. A schedule raises how much is replaced, and how coarsely. Only measuring tells which one is better; at 6x they differ most.
# 5. A whole kit costs one to one and a half times what its original did: some two hours of two CPU cores for the bundled ones.
#
# <!-- footer -->
# [← 1 · Layer mapping](1_layer_mapping.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [3 · Distillation →](3_distillation.ipynb)
# <!-- end of footer -->
