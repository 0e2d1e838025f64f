# %% [markdown]
# # 3 · Distillation
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/3_distillation.ipynb) · runs in 2.5 minutes on two CPU cores · about 40 minutes to work through
#
# [← 2 · Module replacement](2_module_replacement.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [4 · Assembly →](4_assembly.ipynb)
# <!-- end of header -->
#
# *The original stands beside its modules while they train. What can it teach them, and what does the teaching cost?*
#
# **You will be able to**
# - tell five signals apart: people's texts, the original's texts, its logits, its hidden states, its attention maps;
# - say at which layer a module is compared with the original, and see in a heatmap whether it has learned its place;
# - write the boundary loss, the divergence and the training step, and train with them;
# - judge what each signal adds, at equal cost and with its noise, and why the bundled kits learned from theirs.
#
# **You need** [notebook 2](2_module_replacement.ipynb): how replacing trains modules, and what a path of a training step is.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import time

import ipywidgets as widgets
import pandas as pd
import torch

import modtf
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.course import distillation as course
from modtf.evaluation import measure_quality
from modtf.mapping import boundaries
from modtf.tasks import E2E, task_named
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.views import notebook

# %%
torch.set_num_threads(1)
torch.manual_seed(0)
pocket = modtf.load("pocket")
set_attention(pocket.model, "eager")  # the only attention that gives its maps out
encode_sources_once(pocket.model)  # a batch holds each source once, however many texts were written for it
untrained = course.new_modules(pocket, (2, 3, 4, 6))  # the same original, new modules
pairs = E2E.bundled_examples("pairs")  # MRs, each with a text that the original wrote

# %% [markdown]
# ## Five signals
#
# What can a module learn from?
#
# | signal | what it says | loss | known as |
# |---|---|---|---|
# | **people's texts** | one right word at each place | cross-entropy | fine-tuning; nobody distils |
# | **the original's texts** | the word that *it* would write | cross-entropy | sequence-level distillation (Kim and Rush, 2016) |
# | **logits** | how probable *each* next word is | Kullback-Leibler divergence | distillation (Hinton and others, 2015) |
# | **hidden states** | what each layer should have made of the text | squared error, relative | hints (Romero and others, 2015) |
# | **attention maps** | which words each head should look at | squared distance | after TinyBERT (Jiao and others, 2020), which compares scores |
#
# Look at the second row. In notebook 2 nobody seemed to teach, but the original had written the labels: **that was distillation, too**, of the cheapest kind, since the teacher runs once, before the training. For the last
# three it runs in every step (without a second copy in memory: it is a path of the same model). A training adds up its losses, each with its weight:
#
# $$L = w_\text{labels}\, L_\text{labels} + w_\text{logits}\, L_\text{logits} + w_\text{hidden}\, L_\text{hidden} + w_\text{attention}\, L_\text{attention}$$
#
# > **In the paper** (published summaries): *attention and hidden states* are distilled. That they are compared by squared errors, the logits' loss and all weights are our choice.
#
# ## Hidden states: who is to be like whom?
#
# m(2, 3) stands for the original layers 6 and 7, so what comes *out* of it should be what comes out of layer 7. Each layer of a path is compared with the original where
# its piece of work **ends**, at the path's boundaries:

# %%
path = (1, 1, 2, 2, 6)
print("layers done after each layer of the path:", boundaries(path))
course.where_compared(path)

# %% [markdown]
# ### Exercise 3.1
# Write `boundary_loss(path, student, teacher, keep)`. `student` (distillation's word for what is taught) has the states $h_k$ after each layer of the path, `teacher` those after each of the original's layers, all (batch, length, d_model); `keep` (batch, length) is true for the tokens that count. With $H_{b_k}$ for the original's state at the boundary $b_k$:
#
# $$L_\text{hidden} = \frac{1}{K} \sum_{k=1}^{K} \; \text{mean over tokens of} \; \frac{\| h_k - H_{b_k} \|^2}{\| H_{b_k} \|^2}$$
#
# 0 is the same, 1 is as wrong as saying nothing. Each boundary is a place where gradient enters: behind a module even an original's state differs from its partner, and passes its error back to the module. (`boundaries(path)` gives the $b_k$; `state[keep]` is (tokens, d_model).)


# %% tags=["exercise"]
def boundary_loss(path: tuple[int, ...], student: list[torch.Tensor], teacher: list[torch.Tensor], keep: torch.Tensor) -> torch.Tensor:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1: the idea</summary>
#
# Each state of the path has one partner: the original's state where the piece of work ends. Compare pair by pair, and in each pair token by token.
# </details>
#
# <details><summary>Hint 2: the code</summary>
#
# `zip(student, boundaries(path))` gives each state with the number of layers done; the last of these is `teacher[end - 1]`. `x.square().mean(-1)` is the mean square of each token. `torch.stack(errors)` makes one tensor of several.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def boundary_loss(path, student, teacher, keep):
#     errors = []
#     for state, end in zip(student, boundaries(path), strict=True):
#         s, t = state[keep], teacher[end - 1][keep]
#         errors.append(((s - t).square().mean(-1) / t.square().mean(-1)).mean())
#     return torch.stack(errors).mean()
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.1"):
    course.check_boundary_loss(boundary_loss)

# %%
hidden_loss = notebook.chosen("boundary_loss", boundary_loss, course.boundary_loss, course.check_boundary_loss)

# %% [markdown]
# Does training put modules in their place? Original and modules read the same texts, `record` keeps what every layer gives, and the loss compares *each* module with *each* original layer.

# %%
batch = TaskBatches(E2E, pairs, pocket.tokenizer, steps=1, batch_size=16, seed=3)[0]
keep = {"encoder": batch["attention_mask"].bool(), "decoder": batch["labels"] != -100}  # tokens that are no padding
kits = {"untrained": untrained, "trained": pocket}


def states(modular: modtf.ModularModel, assembly: modtf.Assembly, stack: str) -> list[torch.Tensor]:
    """What each layer of the path of one stack gives, (batch, length, d_model)."""
    with torch.no_grad(), modular.record(assembly) as (encoder, decoder):
        modular(assembly, **batch)
    return {"encoder": encoder, "decoder": decoder}[stack].hidden


def distances(name: str, g: int, stack: str) -> torch.Tensor:
    """(modules, original layers): the error of each module's output against each original layer's."""
    layers = states(pocket, pocket.mapping.original, stack)
    modules = states(kits[name], modtf.Assembly((g,) * (12 // g), (g,) * (12 // g)), stack)
    return torch.tensor([[hidden_loss((1,), [m], [layer], keep[stack]) for layer in layers] for m in modules])


def heatmaps(g: int, stack: str):
    return course.heatmaps(lambda name: distances(name, g, stack), ["untrained", "trained"], g, stack)


# %%
heatmaps(2, "decoder")

# %% [markdown]
# **This is the figure to remember.** Each row is a module, the orange dot is where it should be, the circle where it is. At granularity 2 training has moved every module to its place: half of the layers take the same way as all of
# them, in steps twice as long.
#
# **Before you look:** coarser modules have more to do. How many of the decoder's four m(3, j) has the same training moved to their place?

# %%
guess_placed = None  # of the decoder's four modules of granularity 3, those that are most like the layer that they should be

# %%
placed = (distances("trained", 3, "decoder").argmin(1) == torch.tensor([2, 5, 8, 11])).sum()
notebook.reveal("modules of the decoder, granularity 3, in their place", guess_placed, float(placed))

# %% [markdown]
# Find those that are late, here and in the encoder:

# %%
notebook.play(
    heatmaps,
    g=widgets.SelectionSlider(options=[2, 3, 4, 6], value=2, description="granularity"),
    stack=widgets.ToggleButtons(options=["encoder", "decoder"], value="decoder", description="stack"),
)

# %% [markdown]
# ### Begun as the first layer. Why not as the last?
#
# We begin modules both ways, put them into the original's decoder one at a time, and measure how far the probabilities of the next word move: the divergence, which you will write below.

# %%
examples = E2E.bundled_examples("evaluation")  # the trainings below see one of these 300
held = course.Held(pocket, TaskBatches(E2E, examples[100:], pocket.tokenizer, steps=1, batch_size=32, seed=5)[0])
two = modtf.Assembly((2,) * 6, (2,) * 6)
begun = {begin: course.new_modules(pocket, (2,), begin) for begin in ("first", "last", "mixed")}


def alone(modular: modtf.ModularModel, j: int) -> float:
    """The divergence of the original with m(2, j) in its decoder."""
    path = (1,) * (2 * j) + (2,) + (1,) * (10 - 2 * j)
    return held.divergence(modular, modtf.Assembly((1,) * 12, path))


course.beginnings(*([alone(begun[begin], j) for j in range(6)] for begin in ("first", "last")))

# %%
print("divergence of 2x from the original, all twelve modules untrained")
print(f"  begun as the first layers of their groups:      {held.divergence(begun['first'], two):.2f}")
print(f"  as the last:                                    {held.divergence(begun['last'], two):.2f}")
print(f"  mixed: as the last, but m(2, 0) as the first:   {held.divergence(begun['mixed'], two):.2f}")

# %% [markdown]
# Begun as the last layer, the model is lost, and one module in each stack is to blame: without layer 0, which reads the embeddings, nothing works. Everywhere else the last is no worse. Does training mend it? In `pocket` not quickly: 150 steps of 2x gave BLEU 69.4 after "first", 32.7 after "last" (from the [LOG](../benchmarks/LOG.md#the-pocket-kit), one run each). In `translator`'s kits no difference is shown (below). So "first" is safe. Is it best? We will train *mixed* ones.
#
# ## Attention maps: where to look
#
# An attention map says how much each token (a row) looks at each other (a column); each head has its own. In cross-attention rows are the words being written, columns the facts; an orange frame marks the slot that a step writes about.
# m(2, 2) began as layer 4 and is to give the output of layer 5. **Whose heads does it have after training?**

# %%
heads = course.Heads(pocket, untrained, [examples[48], *examples[:30]])
heads.figure("decoder, cross", module=2, head=2)

# %% [markdown]
# That of layer 4, and a strange one: it stares at `food[`, nearly whatever is being written. Does it do anything? We silence it, and then another:

# %%
for module, head in ((2, 2), (5, 0)):
    token, share = heads.favourite(module, head)
    more = course.loss_without(pocket, two, held, module, head) - held.cross_entropy(pocket, two)
    print(f"m(2, {module}), head {head}: looks at {token} in {100 * share:.0f} % of all steps; without it the loss rises by {more:.3f}")

# %% [markdown]
# The model hardly misses it. Heads that rest on one token are common: BERT's rest on its separator (Clark and others, 2019). An attention loss would copy such stares, too. Other heads work; look for them:

# %%
notebook.play(
    heads.figure,
    module=widgets.IntSlider(min=0, max=5, value=0, description="module m(2, j)"),
    head=widgets.IntSlider(min=0, max=3, value=0, description="head"),
    kind=widgets.Dropdown(options=list(course.KINDS), value="decoder, cross", description="attention"),
)

# %% [markdown]
# ### Exercise 3.2
# Find a head that *reads along*: a module m(2, j) and a head of its cross-attention whose largest weight falls into the frames in at least two thirds of the steps that have some. The check counts in 31 texts.

# %% tags=["exercise"]
reading_head = None  # (module, head), such as (0, 3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A head that stares shows as a column; one that reads along goes from frame to frame. Early modules or late ones?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# reading_head = (3, 0)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.2"):
    course.check_reading_head(reading_head, heads)

# %% [markdown]
# Is m(2, 2) an exception? In this one text we compare each module's maps, head h with head h, with those of the first and of the last layer of its group: the mean, over rows and heads, of
#
# $$\sum_\text{columns} (a_\text{module} - a_\text{layer})^2 \qquad \text{0: the same, 2: entirely different places}$$

# %%
print(pd.DataFrame(heads.distances()).round(2).to_string(index=False))

# %% [markdown]
# The modules give the *states* of the last layer with the *heads* of the first. Nothing asked for more: this kit was trained without the attention loss. That is this distance from the *last* layer, where hidden states are compared, too: head h of m(2, 2) would have to look where head h of layer 5 looks, though the two share only a number.
#
# ## Logits: what else could have come
#
# One place in one sentence shows three signals at once. `translator` reads *Ich weiß, wie man mit Menschen umgeht.* A person translated: *I know how to **deal** with people.* And the original?

# %%
translator = modtf.load("translator")
course.next_words(translator, "Ich weiß, wie man mit Menschen umgeht.", "I know how to deal with people.", place=4)

# %%
sentences = [example for example in task_named(translator.task).bundled_examples("evaluation")[:40]]
share = course.share_of_first_choices(translator, sentences)
print(f"words of people's texts that are also the original's first choice: {100 * share:.0f} %")

# %% [markdown]
# A label names *one* word: the person's, or the original's first choice, a wrong one here. The logits name them all, and how unsure the teacher is.
#
# ### Exercise 3.3
# Write the Kullback-Leibler divergence KL(teacher ‖ student): for logits (tokens, vocabulary), the sum over the vocabulary of p_teacher · (log p_teacher − log p_student), mean over tokens. (`logits.log_softmax(-1)` gives log p.)


# %% tags=["exercise"]
def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1: the idea</summary>
#
# A mean of differences of logarithms, in which each word counts as much as the *teacher* finds it probable.
# </details>
#
# <details><summary>Hint 2: the code</summary>
#
# Take both `log_softmax` first. The probabilities of the teacher are `.exp()` of its logarithms. Sum over the last dimension, then take the mean.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
#     log_student, log_teacher = student.log_softmax(-1), teacher.log_softmax(-1)
#     return (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean()
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.3"):
    course.check_divergence(divergence)

# %%
logits_loss = notebook.chosen("divergence", divergence, course.divergence, course.check_divergence)

# %% [markdown]
# ## The training step
#
# ### Exercise 3.4
# Now the sum, without attention maps. Write `step_loss(modular, assembly, batch, weights)`: record the original, which is the path `modular.mapping.original` and needs no gradient (`torch.no_grad()`); record the `assembly`, which does; return $w_\text{labels} L_\text{labels} + w_\text{logits} L_\text{logits} + w_\text{hidden} L_\text{hidden}$. The last is the boundary loss of the encoder plus that of the decoder, whose paths are `assembly.encoder` and `assembly.decoder`. Use `hidden_loss` and `logits_loss` from above.
#
# `modular(assembly, **batch)` gives `.loss` (that of the labels) and `.logits` (batch, length, vocabulary). `with modular.record(assembly) as (encoder, decoder):` around it keeps the states: `encoder.hidden` is a list. The tokens that count are `batch["attention_mask"].bool()` of the source and `batch["labels"] != -100` of the target. `weights` is such as `{"labels": 0, "logits": 1, "hidden": 0.2}`.


# %% tags=["exercise"]
def step_loss(modular: modtf.ModularModel, assembly: modtf.Assembly, batch: dict, weights: dict[str, float]) -> torch.Tensor:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1: record</summary>
#
# ```python
# original = modular.mapping.original
# with torch.no_grad(), modular.record(original) as taught:
#     teacher = modular(original, **batch)
# ```
#
# Then the same for `assembly`, but with gradients.
# </details>
#
# <details><summary>Hint 2: the tokens that count</summary>
#
# With `target = batch["labels"] != -100`, `teacher.logits[target]` is (tokens, vocabulary), as `logits_loss` wants both. `hidden_loss` takes its mask as `keep`: that of the source for the encoder, that of the target for the decoder.
# </details>
#
# <details><summary>Hint 3: both stacks</summary>
#
# `taught` is a pair, (encoder, decoder). Call `hidden_loss(path, states of the assembly, states of the original, keep)` for each and add the two.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def step_loss(modular, assembly, batch, weights):
#     original = modular.mapping.original
#     source, target = batch["attention_mask"].bool(), batch["labels"] != -100
#     with torch.no_grad(), modular.record(original) as taught:
#         teacher = modular(original, **batch)
#     with modular.record(assembly) as learned:
#         output = modular(assembly, **batch)
#     hidden = sum(
#         hidden_loss(path, s.hidden, t.hidden, keep)
#         for path, s, t, keep in zip(assembly.paths, learned, taught, (source, target), strict=True)
#     )
#     words = logits_loss(output.logits[target], teacher.logits[target])
#     return weights["labels"] * output.loss + weights["logits"] * words + weights["hidden"] * hidden
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.4"):
    course.check_step_loss(step_loss)

# %%
of_step = notebook.chosen("step_loss", step_loss, course.step_loss, course.check_step_loss)

# %% [markdown]
# ## Train, with a teacher and without
#
# The loop of notebook 2, with the loss as an argument. Two ways to learn, two seeds each:
#
# - *the original's texts*: labels alone, as in notebook 2, without running the original;
# - *logits and hidden states*: your step, with weights 1 and 0.2, the library's own.


# %% tags=["long"]
STEPS = 80  # of 8 texts each


# %% tags=["long"]
def train(loss_of, seed: int, begin: str = "first") -> tuple[modtf.ModularModel, list[tuple[int, float, float]], float]:
    """New modules of granularity 2, trained by ``loss_of(modular, assembly, batch)``; how far 2x was on the way, and the seconds."""
    modular = course.new_modules(pocket, (2,), begin)
    schedule = modtf.ReplacingSchedule(modular.mapping, STEPS, seed, mixtures=1, whole=0)
    batches = TaskBatches(E2E, pairs, modular.tokenizer, STEPS, batch_size=8, seed=seed)
    banks = [parameter for parameter in modular.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(banks, lr=2e-3)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10, 1 - step / STEPS))
    curve, seconds = [(0, held.cross_entropy(modular, two), held.divergence(modular, two))], 0.0
    for step in range(STEPS):
        started = time.perf_counter()
        loss_of(modular.train(), schedule.draw(step), batches[step]).backward()
        torch.nn.utils.clip_grad_norm_(banks, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
        seconds += time.perf_counter() - started
        if (step + 1) % 20 == 0:
            curve.append((step + 1, held.cross_entropy(modular.eval(), two), held.divergence(modular, two)))
    return modular.eval(), curve, seconds


# %% [markdown]
# **Guess first: by how many points of BLEU is the taught 2x ahead of the one with labels alone?** (BLEU is against the original's texts, as in notebook 2. Below zero: behind.)

# %%
guess_taught = None  # BLEU of 2x, logits and hidden states minus the original's texts


# %% tags=["long"]
def from_texts(modular, assembly, batch):
    return modular(assembly, **batch).loss  # cross-entropy with the labels: sequence-level distillation


def from_teacher(modular, assembly, batch):
    return of_step(modular, assembly, batch, {"labels": 0, "logits": 1, "hidden": 0.2})


TEXTS, TEACHER = "the original's texts", "logits and hidden states"
trained, curves, rows = {}, {}, []
for seed in (0, 1):
    for name, loss_of in ((TEXTS, from_texts), (TEACHER, from_teacher)):
        trained[name, seed], curves[name, seed], seconds = train(loss_of, seed)
        quality = measure_quality(trained[name, seed], two, examples[:60])
        rows.append({"learns from": name, "seed": seed, "BLEU": quality["bleu"], "SER %": quality["ser"], "seconds": seconds})
table = pd.DataFrame(rows)
bleu = table.groupby("learns from").BLEU.mean()
shown = table.round(1).to_string(index=False)
notebook.reveal("2x, taught minus labels alone, BLEU, mean of two seeds", guess_taught, bleu[TEACHER] - bleu[TEXTS], table=shown)

# %% tags=["long"]
between = table.groupby("learns from").BLEU.agg(lambda scores: scores.max() - scores.min())
print("between two seeds of the same training, BLEU:", between.round(1).to_dict())
course.learning_curves(curves)

# %% [markdown]
# Each is ahead at what it was asked for: labels at the words that the original writes, the teacher at all its probabilities. BLEU and slot errors ask for words, and **there the teacher does not visibly help in so short a training**: the two ways differ no more than two seeds of one. Nor did it in 200 steps
# ([LOG](../benchmarks/LOG.md#for-the-course)), and its steps take longer. Our guess why: the original's first choices are an easy target, all its probabilities a harder one.
#
# ### The beginning, once more
#
# The same training with the teacher, of modules that begin *mixed*: m(2, 0) as the first layer of its group, all others as the last.

# %% tags=["long"]
trained["mixed", 0], _, _ = train(from_teacher, 0, begin="mixed")
rows = []
for begin, name, seed in (("first", TEACHER, 0), ("first", TEACHER, 1), ("mixed", "mixed", 0)):
    modular = trained[name, seed]
    quality = measure_quality(modular, two, examples[:60])
    rows.append(
        {"begun": begin, "seed": seed, "divergence": held.divergence(modular, two), "BLEU": quality["bleu"], "SER %": quality["ser"]}
    )
print(pd.DataFrame(rows).round(2).to_string(index=False))

# %% [markdown]
# *Mixed* is ahead, as it was with two seeds of 100 steps ([LOG](../benchmarks/LOG.md#for-the-course)), so the library's default may not be the best there is. Three short runs of one model at 2x are a hint, not a result.
#
# ## Practise what you will use
#
# These trainings drew mixtures alone, as BERT-of-Theseus does. But people ask for 2x, or for a full encoder with a small decoder, and a mixture hardly ever is one. So `translator`'s kit in the comparison ([versus.py](../benchmarks/versus.py)) draws three kinds of steps:
#
# - *mixtures* (10 %) replace layers at random;
# - *whole-grain* steps (50 %) give each stack one granularity from end to end, the original's 1 included;
# - *strategies' paths* (40 %) are what the rules of [notebook 4](4_assembly.ipynb) choose for some ratio, such as 1·1·1·1·2. (Size first at 2x, 3x and 6x is whole-grain, too.)
#
# ### Without whole-grain paths
#
# A kit without them, its steps drawn as strategies' paths instead; one the other way round; and one that begins its modules otherwise:

# %% tags=["nbval-check-output"]
comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
print("translator: BLEU minus that of the kit, with its 95 % interval")
for row in comparison["ablation"]:
    if row["method"] in ("no whole-grain paths", "no strategies' paths", "begun as the last layer"):
        ahead = row["equal_total"]
        low, high = ahead["bleu_interval"]
        print(f"  {row['method']:<24} {row['size']:<5} {ahead['bleu']:+.1f}  ({low:+.1f} to {high:+.1f})")

# %% [markdown]
# Without whole-grain paths 2x loses a point; at the other sizes no difference is shown. Without strategies' paths 6x and `fast` (6-1: a full encoder, the smallest decoder) lose 4 points or more, and neither interval holds zero: it is **the smallest sizes that need those**. (471 steps and one seed each. Of the comparison's 80 such intervals some exclude zero by chance; these two at least agree.)
#
# ## What each signal adds
#
# The same comparison has kits of `translator` that differ in what they learn from. All cost the same, in floating-point operations, so whoever runs the original in each step gets fewer steps.
#
# **Guess first, for 6x: how many points of BLEU is a kit with logits alone ahead of one with people's texts alone?** And one with every signal?

# %%
guess_logits = None  # BLEU of 6x, logits alone minus people's texts alone
guess_every = None  # BLEU of 6x, every signal minus people's texts alone

# %% tags=["nbval-check-output"]
at_six = {row["method"]: row for row in comparison["ablation"] if row["size"] == "6x"}
notebook.reveal("6x, logits alone minus people's texts alone, BLEU", guess_logits, at_six["logits alone"]["equal_total"]["bleu"])
notebook.reveal("6x, every signal minus people's texts alone, BLEU", guess_every, at_six["every signal"]["equal_total"]["bleu"])

# %%
maps = at_six["every signal"]["equal_total"]["bleu"] - at_six["every signal but attention maps"]["equal_total"]["bleu"]
seeds = 2**0.5 * comparison["scatter_of_seeds"]["6x"]["bleu"][0]
print(f"6x: all five are {maps:.1f} BLEU ahead of all but attention maps; two seeds of one kit differ by {seeds:.1f} (standard deviation)")
course.signals_figure(comparison)

# %% [markdown]
# A row is a kit: what it learns from, and its steps. Each was trained once, the first thrice. Dots are its BLEU minus that of the first row, bars 95 % intervals (over sentences, and over the scatter of the few seeds there are): filled where a difference is shown, green for better and orange for worse, hollow where it could be noise.
# Kits draw one assembly a step; the last two draw *four*, as the bundled `translator` did, which share the original's pass where it teaches: few, expensive steps, and behind everywhere.
#
# 1. **Who wrote the texts makes no difference that is shown**, at any size; and none of them needs the original beside the training.
# 2. **Running the original in each step costs about half of the steps, and the smallest sizes pay for it:** with one assembly a step 5 to 15 points at 6x, 5 to 16 at `fast`. At 2x and 3x one difference is shown: hidden states alone are 3 points *ahead* at 2x. At the smallest sizes they fall furthest behind. Our guess why: a module for two layers can give what both gave; one for six cannot.
# 3. **Attention maps alone teach nobody to write** (not counted in 2; 28 to 37 points behind): they say where to look, not what to say. Beside other signals they may help 6x, but by less than two standard deviations between seeds.
#
# **All learning rates are those that are best for labels**, so the other kits may do better with rates of their own. On dev ([LOG](../benchmarks/LOG.md#the-translators-kit)) labels at *half* these rates did as well at 2x as hidden states, and logits and hidden states, four assemblies a step, at *twice* these gained 8 points or more at 6x and `fast` and lost 5 at 2x.
# Not tried: that pair with one assembly a step, and long trainings.
#
# ## Who learned from what, and why
#
# The bundled kits and those of the comparison, from the records of their trainings:

# %% tags=["nbval-check-output"]
print(course.who_learned_what().to_string(index=False))

# %% [markdown]
# *Faultless* are texts without slot errors; *compared* kits are those of [notebook 6](6_one_kit_or_students.ipynb), at several budgets (`translator`'s smallest is the first row above). *Core minutes* are minutes times cores; the last column names the notebooks that load the kit. Without the loss of labels, texts are only what teacher and modules read. Why these losses?
#
# - **Logits 1, hidden 0.2**, the library's own, and so [notebook 7](7_your_own_model.ipynb)'s: because of one early trial, 150 steps of `pocket`'s 2x, one run each on dev ([LOG](../benchmarks/LOG.md#the-pocket-kit)). Of three mixtures of losses BLEU was level, and slot errors were fewest with this one (4.2 %; the others 5.6 and 7.2). How much of that is noise, nobody measured.
# - **Labels 1, logits 1, faultless**: small decoders left out what the original leaves out, such as prices. Its texts without slot errors mended that from three decoder layers on; with two they took away about a fifth. As labels alone they cost up to 1.3 BLEU, with logits half a percent at most (same LOG).
# - **Labels 1**: at equal cost each pass of the original costs steps; labels cost none, not even the original's, once they are written. The comparison's first kits had a teacher, and lost to students.
#
# Which losses suit a *long* training is **open**. The nearest to an answer: with the largest budget `pocket`'s compared kits made fewer slot errors from labels than from labels and logits, at every size (steps and learning rates differed, too; same LOG).
#
# **Where to begin? Our opinion**, no more. With up to some thousand steps, or if the smallest sizes matter: labels alone, one assembly a step, on people's texts and on texts of the original, of which you leave out the faulty ones if you can tell. With time for more: the library's own pair as well (the defaults), as many hours, and let dev decide at *your* sizes.
#
# ```python
# args = modtf.ModularTrainingArguments(output_dir="run", max_steps=2_000, labels_weight=1, logits_weight=0, hidden_weight=0)
# modtf.ModularTrainer(modular, args, train_dataset=..., data_collator=...).train()
# ```
#
# ## References
#
# - Zhou, Le Bras, Choi: [Modular Transformers](https://arxiv.org/abs/2306.02379), Findings of ACL 2023. The method.
# - Hinton, Vinyals, Dean: [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531), 2015. Logits.
# - Kim, Rush: [Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947), EMNLP 2016. The teacher's texts as labels.
# - Romero and others: [FitNets](https://arxiv.org/abs/1412.6550), ICLR 2015. Hidden states.
# - Jiao and others: [TinyBERT](https://arxiv.org/abs/1909.10351), Findings of EMNLP 2020. Hidden states and attention maps of a transformer.
# - Xu and others: [BERT-of-Theseus](https://arxiv.org/abs/2002.02925), EMNLP 2020. Replacing, from the labels alone.
# - Clark and others: [What Does BERT Look At?](https://aclanthology.org/W19-4828/), BlackboxNLP 2019. Heads that rest.
#
# ## In five lines
#
# 1. Five signals: people's texts, the original's texts, logits, hidden states, attention maps. Labels that the original wrote are distillation, too.
# 2. A module's output is compared with the original's where its piece of work ends: at the path's boundaries.
# 3. Training moves modules towards their places, at granularity 2 onto them; they keep the heads that they began with. They begin as first layers, and in `pocket` m(2, 0) must.
# 4. A step records the original, records the assembly and adds up weighted losses. Practise the paths that people will ask for.
# 5. A teacher in each step costs steps. Compare at equal cost, and look at the interval before you believe a difference. The library's logits and 0.2 hidden are an early choice, not a measured best.
#
# <!-- footer -->
# [← 2 · Module replacement](2_module_replacement.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [4 · Assembly →](4_assembly.ipynb)
# <!-- end of footer -->
