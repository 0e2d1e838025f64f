# %% [markdown]
# # 6 · One kit or several students?
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/6_one_kit_or_students.ipynb) · runs in 2 minutes on two CPU cores · about 35 minutes to work through
#
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [7 · Your own model →](7_your_own_model.ipynb)
# <!-- end of header -->
#
# *One training for every size, or one training for each? What both cost, what both keep, and when you should do without a kit.*
#
# **You will be able to**
# - count what a training step costs, with a teacher and without one;
# - place SFT, sequence-level distillation, Theseus and LayerDrop beside the kit;
# - compare two models that cost the same, and say whether chance explains the difference;
# - say when a kit is the right choice, and when one student would have been better.
#
# **You need** to know what a path, an assembly and a kit are ([notebook 1](1_layer_mapping.ipynb)). The bootstrap of [notebook 5](5_quality_and_speed.ipynb) helps; you will build it again in one line.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import time

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch

import modtf
from modtf.architectures import set_attention
from modtf.bootstrap import draws_of
from modtf.course import comparison as course
from modtf.evaluation import write_texts
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.training.optimizer import MuonWithAdamW
from modtf.views import notebook

torch.set_num_threads(1)
torch.manual_seed(0)
pocket = modtf.load("pocket")
versus = {model: course.measured(model) for model in ("translator", "pocket")}  # by benchmarks/versus.py

# %% [markdown]
# ## The question
#
# You want your model at 2x, 3x, 6x, and once more with all 6 encoder layers and the smallest decoder (fast = 6-1). You can train one kit. Or you can train a **student** of each size: an ordinary small model,
# whose layers begin as the same copies as the kit's modules, and which trains for its one size alone. Each step of a student serves its size. Each step of a kit serves one size today and another one tomorrow.
#
# There are two fair ways to compare them:
#
# - **equal total**: the four students share what the kit cost, a quarter for each;
# - **equal each**: every student costs as much as the whole kit, and so the four cost four times as much.
#
# `benchmarks/versus.py` trained both on `translator`, kits and students, at several budgets, each with the best learning rate that was tried for it on dev. (For most students of the longest training not all were tried.) These kits learned from labels alone, people's translations (the library's default is the original's logits and hidden states). The yardstick is BLEU on the whole test set.
#
# Differences are always **student minus kit**. In BLEU a positive one means that the student is better.
#
# **Before you see anything: how much BLEU is student minus kit at 6x?** The student is fine-tuned on the labels, too. Guess for a long training, at equal total and at equal each; then for the shortest one, at equal total.

# %%
guess_total = None  # long training, the student had a quarter of the kit's cost
guess_each = None  # the same student, beside a kit that cost as much as the student
guess_short = None  # short training, the student had a quarter of the kit's cost

# %% tags=["nbval-check-output"]
translator = versus["translator"]
shortest, each, total = course.budgets(translator)  # costs of the kits
student = course.row_of(translator, "SFT", "6x", each)  # the same student, beside two kits
notebook.reveal("6x, BLEU, student minus kit, long training, equal total", guess_total, *course.minus_kit(student, "equal_total"))
notebook.reveal("6x, BLEU, student minus kit, long training, equal each", guess_each, *course.minus_kit(student, "equal_each"))
brief = course.row_of(translator, "SFT", "6x", shortest / 4)
notebook.reveal("6x, BLEU, student minus kit, shortest training, equal total", guess_short, *course.minus_kit(brief, "equal_total"))

# %% [markdown]
# Three answers to one question, and they point in different directions. (In brackets: 95 % intervals. One that holds zero shows no difference.)
#
# ## What people use instead
#
# The kit's rivals:
#
# - **SFT**, shrink and fine-tune ([Shleifer and Rush, 2020](https://arxiv.org/abs/2010.13002)), made DistilBART: copy some of the layers, and fine-tune them on labels, as any model. (Elsewhere SFT is *supervised* fine-tuning.) Here it comes three times: with the first layers of each
#   group, as the student above; with *alternating layers*, as in DistilBART; and with *all weights*, embeddings too.
# - **KD** ([Hinton and others, 2015](https://arxiv.org/abs/1503.02531)) learns the teacher's probabilities, and pays for the teacher at each step.
# - **Sequence-level KD** ([Kim and Rush, 2016](https://arxiv.org/abs/1606.07947)) is how machine translation distils: the teacher writes texts once, and the student learns them as if people had written them. No teacher runs during the training.
# - **BERT-of-Theseus** ([Xu and others, 2020](https://arxiv.org/abs/2002.02925)) is the kit's ancestor: modules stand in for groups of original layers at random, until all are replaced. It has no teacher, and gives one size for one training.
# - **LayerDrop** ([Fan, Grave and Joulin, 2020](https://arxiv.org/abs/1909.11556)) trains the whole model while it skips layers at random, and cuts it to any depth afterwards. Like a kit, it trains once for all sizes. Unlike a kit, it changes the original,
#   at 1x too.
#
# > **In the paper** (published summaries): modular transformers are compared with KD, SFT and pseudo-labels (the teacher's texts). Equal cost, slot errors, LayerDrop and Theseus are our choice; so are all numbers here.
#
# ## What a training costs
#
# "The same cost" cannot mean the same number of steps, since a step of a small model is cheap. It means the same number of **floating-point operations** (FLOP). Nearly all of them happen in layers, so we count
# **layer passes**, each as expensive as the next:
#
# $$\text{step} = \underbrace{\text{layers of the path}}_{\text{forward}} + \underbrace{\text{layers that run after the first module}}_{\text{gradient on its way back}} + \underbrace{\text{modules}}_{\text{gradient of their weights}} \; (+ \underbrace{\text{all original layers}}_{\text{a teacher, forward}})$$
#
# The gradient comes from the end, the decoder's last layer, and goes back until it has reached the first module. What lies before that needs no gradient, and frozen originals on the way need none for their own weights.
#
# ### Exercise 6.1
# Write `step_cost(assembly, teacher=False)`. `assembly.encoder + assembly.decoder` is one tuple of granularities, in the order in which the layers run; a module has a granularity above 1. For `(1, 1, 2, 2) + (1, 1, 1, 3)`:
# 8 layers forward; the third is the first module, and 5 run after it; 3 modules. In all 16 layer passes, with a teacher 12 more.


# %% tags=["exercise"]
def step_cost(assembly: modtf.Assembly, teacher: bool = False) -> int:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# At which places of the tuple are modules? `[place for place, g in enumerate(path) if g > 1]`. How many layers follow the first of them?
# </details>
#
# <details><summary>Hint 2</summary>
#
# The granularities of a path add up to the number of original layers that it covers. Where there is no module, nothing goes back.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def step_cost(assembly: modtf.Assembly, teacher: bool = False) -> int:
#     path = assembly.encoder + assembly.decoder
#     modules = [place for place, g in enumerate(path) if g > 1]
#     after = len(path) - 1 - modules[0] if modules else 0
#     return len(path) + after + len(modules) + (sum(path) if teacher else 0)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.1"):
    course.check_step_cost(step_cost)

# %% [markdown]
# Is that formula any good? torch can count the operations of a real step, here of 16 texts with new modules in `pocket`'s original:


# %%
def new_modules(granularities: tuple[int, ...]) -> modtf.ModularModel:
    """The original of `pocket` with untrained modules: copies of the first layer that each stands for."""
    original = pocket.assemble()
    set_attention(original, "eager")  # the fastest for short texts on a CPU
    modular = modtf.modularize(original, granularities=granularities, tokenizer=pocket.tokenizer, task="e2e")
    encode_sources_once(modular.model)
    return modular


cost = notebook.chosen("step_cost", step_cost, course.step_cost, course.check_step_cost)
pairs = E2E.bundled_examples("pairs")  # inputs, each with the text that the original wrote for it
fresh = new_modules((2, 3, 6))
batch = TaskBatches(E2E, pairs, fresh.tokenizer, steps=1, batch_size=16)[0]
shapes = {f"{ratio}x": fresh.choose(ratio) for ratio in (2, 3, 6)} | {"fast": modtf.Assembly((1,) * 12, (6, 6))}
counted = course.formula_and_count(fresh, batch, shapes, cost)
print(pd.DataFrame(counted).to_string(index=False))

# %% [markdown]
# About the same number of operations for each layer pass, whatever the size: close enough to plan with. (The product with the vocabulary is the same for all sizes; it counts as two more.)
#
# So **a teacher is expensive for a small student**: at 6x it computes more than the student itself. For the same budget, students of `translator` made this many steps, without a teacher (SFT) and with one (KD):

# %% tags=["nbval-check-output"]
print(pd.DataFrame(course.steps_bought(translator, shortest)).to_string(index=False))

# %% [markdown]
# ## Train both, now
#
# A small kit, with modules of granularity 2, 3 and 6, and one student of 6x, from `pocket`'s original. Both learn from the texts that the original wrote, as in sequence-level KD. They have the same batches,
# optimizer and learning rates, and your formula (if it passed) says how many steps each may make. Three sizes share the kit, so we train the student twice: for a third of the budget (equal total) and for all of it (equal each).
#
# **At 6x and equal total, how many points of slot error rate are student minus kit?** (The slot error rate, SER, is the share of facts that a text misses, gets wrong, repeats or adds. Fewer is better, so here *negative* means that the student is better.)

# %%
guess_live = None  # points of SER, student minus kit, at equal total
SIZE = 6  # of the student; try 2 afterwards
KIT_STEPS = 140


# %%
def train(modular: modtf.ModularModel, assemblies: list[modtf.Assembly]) -> modtf.ModularModel:
    """A step for each of these assemblies, with 16 texts; only modules learn."""
    steps = len(assemblies)
    batches = TaskBatches(E2E, pairs, modular.tokenizer, steps, batch_size=16)
    modules = [weight for weight in modular.parameters() if weight.requires_grad]
    optimizer = MuonWithAdamW(modular, 5e-3, 1e-3)  # with the learning rates of pocket's own kit
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 10, 1 - step / steps))
    modular.train()
    for step, assembly in enumerate(assemblies):
        modular(assembly, **batches[step]).loss.backward()
        torch.nn.utils.clip_grad_norm_(modules, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        decay.step()
    return modular.eval()


# %% tags=["long"]
kit = new_modules((2, 3, 6))
# A path for each step, drawn as for the kits of the long comparison: half the steps give each stack one granularity from
# end to end (whole), 60 % of these give both the same one (matched), as in 2x, 3x and 6x. From trials: benchmarks/LOG.md
draws = list(modtf.ReplacingSchedule(kit.mapping, KIT_STEPS, whole=0.5, matched=0.6))
size = kit.choose(SIZE)
budget = course.budget_of(draws, cost)
plans = {
    "kit": draws,
    "student, a third": [size] * course.steps_for(budget / 3, size, cost),
    "student, all": [size] * course.steps_for(budget, size, cost),
}
trained = {}
for name, plan in plans.items():
    begun = time.perf_counter()
    trained[name] = train(kit if name == "kit" else new_modules((SIZE,)), plan)
    print(f"{name:18} {len(plan):4} steps, {time.perf_counter() - begun:3.0f} seconds")

# %% [markdown]
# Now both write texts for 100 inputs that no training saw. We count their slot errors, and see them with your guess below.

# %% tags=["long"]
sources = [example.source for example in E2E.bundled_examples("evaluation")[:100]]
errors = {}
for name, modular in trained.items():
    for ratio in (2, 3, 6) if name == "kit" else (SIZE,):
        texts = write_texts(modular, modular.choose(ratio), sources, max_new_tokens=80)
        errors[name, ratio], slots = course.slot_counts(sources, texts)
        print(f"{name:18} {ratio}x   {texts[3][:90]}…")

# %% [markdown]
# ### Exercise 6.2
# Is the difference more than an accident of these 100 inputs? It is the paired bootstrap of exercise 5.2 again, but with the samples given, and with a ratio of sums. Write `student_minus_kit(student, kit, slots, draws)`. `student` and `kit` hold the number of slot errors in each text, `slots` the slots of each input. Each row of `draws` is a sample
# of inputs, drawn with replacement: indices. For each sample, compute student minus kit in SER **on the same inputs**; return the percentiles 2.5 and 97.5 of what comes out.


# %% tags=["exercise"]
def student_minus_kit(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# `student[draws]` has a row for each sample. The SER of a sample is 100 times all its errors over all its slots: two sums, then one division.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def student_minus_kit(student: np.ndarray, kit: np.ndarray, slots: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
#     difference = 100 * (student[draws].sum(1) - kit[draws].sum(1)) / slots[draws].sum(1)
#     low, high = np.percentile(difference, [2.5, 97.5])
#     return low, high
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.2"):
    course.check_student_minus_kit(student_minus_kit)

# %% tags=["long"]
interval = notebook.chosen("student_minus_kit", student_minus_kit, course.student_minus_kit, course.check_student_minus_kit)
rate = {who: 100 * count.sum() / slots.sum() for who, count in errors.items()}
found, lines = {}, [f"{name:18} {ratio}x  SER {points:5.1f} %" for (name, ratio), points in rate.items()]
for account, name in (("equal total", "student, a third"), ("equal each", "student, all")):
    low, high = interval(errors[name, SIZE], errors["kit", SIZE], slots, draws_of(len(sources)))
    found[account] = rate[name, SIZE] - rate["kit", SIZE], (low, high)
    said = f"{found[account][0]:+.1f} ({low:+.1f} to {high:+.1f}) points: {course.verdict(low, high)}"
    lines.append(f"{SIZE}x, {account}: student minus kit {said}")
notebook.reveal(f"{SIZE}x, SER, student minus kit, equal total", guess_live, *found["equal total"], table="\n".join(lines))

# %% [markdown]
# **What this can show, and what it cannot.** The interval is about the *inputs*. Another seed would give other models, and after a minute of training seeds scatter widely. In our run the student is ahead even at equal total, where
# `translator`'s shortest kit was ahead by far: another task, and a much smaller budget still. A minute
# says nothing about hours. Put your points where they belong, at the left end of the long comparison on the same original. (Its points were measured on a public test set, and there four sizes share the cost, not
# three: compare the places, not the decimals.)

# %% tags=["long"]
tflop = budget * np.mean([row["GFLOP a layer pass"] for row in counted]) / 1000
mine = [{"who": "kit", "size": f"{ratio}x", "tflop": tflop, "ser": rate["kit", ratio]} for ratio in (2, 3, 6)]
mine += [
    {"who": "student", "size": f"{SIZE}x", "tflop": f * tflop, "ser": rate[name, SIZE]}
    for f, name in ((1, "student, a third"), (3, "student, all"))
]
course.curves(
    versus["pocket"],
    "pocket: slot errors over the cost of having all sizes",
    "Slot errors on pocket over the cost of training, in four panels for four sizes: the kit, LayerDrop, and a band from the worst student to the best. All lines fall; the kit's runs near the best student's, LayerDrop's at the band's upper edge or above it. "
    f"Your own points stand far to the left: at {SIZE}x the kit with {rate['kit', SIZE]:.0f} percent, the student with a third of the budget with {rate['student, a third', SIZE]:.0f}.",
    mine,
)

# %% [markdown]
# Both axes are logarithmic; the dotted line is the original. The green line is the best student of each cost (point at it: which method?), the band reaches down to the worst.
#
# ## Long trainings
#
# Now `translator`, where compression costs BLEU. The kits' minutes and the budgets:

# %% tags=["nbval-check-output"]
for label, _ in course.choices():
    print("a kit of", label)

# %%
course.curves(
    translator,
    "translator: BLEU over the cost of having all sizes",
    "BLEU on translator over the cost of training, in four panels for four sizes: the kit, LayerDrop, and a band from the worst student to the best. At the lowest cost the kit is far above the band at 6x and fast, and just below it at 2x. "
    "At the highest cost it is near the lower edge at 2x and 3x, and a little below the band at 6x and fast.",
)

# %% [markdown]
# The pink line is the kit. With the smallest budget it is far ahead of the best student at 6x and *fast*: a quarter of so little hardly teaches a small student to write. LayerDrop is ahead of both there. (Our guess: coarse modules learn faster alongside layers that already work.)
# With four times the budget, kit and best student are about level. With sixteen times, the best student is ahead at every size, by 1 to 5 points. Wherever one with all weights trained that long, it is the best.
#
# Is that chance? The next figure has the intervals. They hold the choice of test sentences *and* the scatter between seeds. (Only a few trainings have several seeds; we assume the same scatter for the others.) Each student appears twice. On the left it stands beside the largest kit, which cost as much as four such students.
# On the right it stands beside the next smaller kit, which cost as much as one.

# %%
course.two_accounts(translator)

# %% [markdown]
# **This is the figure to remember.** Only the kit differs between left and right. On the left the students share its cost, and most intervals hold zero: one training for all sizes is not clearly worse than a training for each. On the right each student costs
# as much as the kit. All are ahead, and no interval holds zero.
#
# **Doubt it.** Most trainings have one seed. The kit's recipe was improved, by trials on dev, after first kits had lost; nobody gave the students such a second chance. And equal FLOP are not equal minutes: the longest kit took longer than four students together. [What to keep in mind](../docs/results.md#what-to-keep-in-mind) lists all of it.
#
# "Holds zero" is not "equal". On the left nearly all markers lie to the right of the line. Only students that train *all* their weights are clear of it, at 2x and at *fast*. A kit cannot train them all: its original must stay.
#
# **Challenge: find a model, a size and a budget where the kit is clearly ahead of every student.** Then switch the account: what becomes of that lead?
#
# <details><summary>Answer</summary>
#
# On `translator` at 6x and *fast*, for 31 TFLOP, by 7 to 26 points. The lead is gone where each student costs as much as the kit: all but KD at *fast* are clearly ahead. On `pocket` at 2x, for 214 TFLOP, by 0.2 to 2.9 points of SER; slot errors are rare there anyway.
# </details>

# %%
notebook.play(
    course.against_the_kit,
    size=widgets.ToggleButtons(options=list(translator["sizes"]), description="size", style={"button_width": "80px"}),
    model=widgets.Dropdown(options=list(course.TELLING), description="model"),
    account=widgets.Dropdown(options=[(words, account) for account, words in course.WORDS.items()], description="account"),
)

# %% [markdown]
# On `pocket` the slot error rate tells. Its kit learns from the original's texts that have no slot errors, as the students of sequence-level KD do. The table has the largest budget at equal total: the kit's rates, and below them student minus kit, with intervals. Below zero the student is better. The line under it says who is ahead at equal each.

# %% tags=["nbval-check-output"]
print(pd.DataFrame(course.slot_errors(versus["pocket"])).to_string(index=False))
print("\n" + course.who_is_ahead(versus["pocket"], "equal_each"))

# %% [markdown]
# At equal total, students of sequence-level KD make fewer slot errors at 3x. At 2x the kit makes fewer, though both almost never err; at 6x and *fast* no difference is shown. Students fine-tuned on *people's* texts make more at most sizes, since people leave facts out. Which texts a model learns from matters more here than
# whether it is a kit. At equal each, the students that learn as the kit does are better at every size, as on `translator`. Most others show no difference.
#
# ## From how many sizes on?
#
# So on `translator` a kit that costs as much as a student is worse than the student. Turn it around: **how little must a student cost to be as good as the kit, and how many of them could you have for the kit's price?**
#
# ### Exercise 6.3
# Write `break_even(kit_cost, kit_score, costs, scores)`: the smallest number of sizes for which one kit is *cheaper* than that many students, each as good as the kit. `costs` and `scores` both increase: what a student scores for each cost. Between two of
# them the score is a straight line over the **logarithm** of the cost. If no student is as good, return `None`; if the cheapest is better already, count its cost.


# %% tags=["exercise"]
def break_even(kit_cost: float, kit_score: float, costs: list[float], scores: list[float]) -> int | None:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `np.interp(kit_score, scores, np.log(costs))` reads the logarithm of the cost off the line, and stays at the ends beyond them.
# </details>
#
# <details><summary>Hint 2</summary>
#
# The kit is cheaper when `n * as_good > kit_cost`. If four students cost exactly as much as the kit, the answer is five. Floating-point numbers miss "exactly" by a hair: round before you compare.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def break_even(kit_cost: float, kit_score: float, costs: list[float], scores: list[float]) -> int | None:
#     if max(scores) < kit_score:
#         return None
#     as_good = np.exp(np.interp(kit_score, scores, np.log(costs)))
#     return int(np.floor(round(kit_cost / as_good, 6))) + 1
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("6.3"):
    course.check_break_even(break_even)

# %% tags=["nbval-check-output"]
sizes_needed = notebook.chosen("break_even", break_even, course.break_even, course.check_break_even)
print(pd.DataFrame(course.break_evens(translator, sizes_needed)).to_string(index=False))

# %% [markdown]
# (In brackets: the range when the kit's score moves by the scatter between seeds. Empty: no such student was trained long enough.)
#
# **From 2 to 9, depending on budget and students; in the longest training from 5 to 9.** With a short budget a kit pays from two or three *small* sizes on. The longer the training, the more sizes it takes, most of all against students of all weights.
#
# ## The rule
#
# **Would one student have been better?** If you need one size, yes: for the same cost in the longest training, every student was ahead on `translator`, and on `pocket` those of sequence-level KD. **When do you want a kit?** When you need many sizes, or do not know yet which, and the original must stay as it is. How many are many depends on budget and students: in the longest training 4 were too few and 9 enough, scatter of seeds aside. The evidence there:

# %% tags=["nbval-check-output"]
print(course.rule())

# %% [markdown]
# And for your own case. **Challenge: ask for many sizes in such a way that the advice is not simply a kit.** Does the evidence of both models support that advice?
#
# <details><summary>Answer</summary>
#
# Ask for five to nine sizes with the longest training: which one is cheaper depends on the students. Or take the tick away: where the original may change, the advice is to try LayerDrop, too. `pocket` speaks against that: there LayerDrop makes 7 to 26 points more slot errors than the kit (but it learned from people's texts).
# </details>

# %%
notebook.play(
    course.show_advice,
    sizes=widgets.Dropdown(options=course.WISHES, description="sizes you need"),
    stays=widgets.Checkbox(value=True, description="the original must stay as it is"),
    budget=widgets.Dropdown(options=course.choices(), description="budget of a kit of translator"),
)

# %% [markdown]
# These are two small models and two narrow tasks. For yours, `modtf versus` trains the students and compares them with your kit ([notebook 7](7_your_own_model.ipynb)). And do not forget what costs no training at all: if you only want speed,
# try an engine in int8 first ([exports](../README.md#exports)).
#
# ## References
#
# - Fan, Grave, Joulin: [Reducing Transformer Depth on Demand with Structured Dropout](https://arxiv.org/abs/1909.11556), ICLR 2020 (LayerDrop).
# - Hinton, Vinyals, Dean: [Distilling the Knowledge in a Neural Network](https://arxiv.org/abs/1503.02531), 2015.
# - Kim, Rush: [Sequence-Level Knowledge Distillation](https://arxiv.org/abs/1606.07947), EMNLP 2016.
# - Shleifer, Rush: [Pre-trained Summarization Distillation](https://arxiv.org/abs/2010.13002), 2020 (SFT, DistilBART).
# - Xu, Zhou, Ge, Wei, Zhou: [BERT-of-Theseus: Compressing BERT by Progressive Module Replacing](https://arxiv.org/abs/2002.02925), EMNLP 2020.
# - Zhou, Le Bras, Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023.
#
# ## In five lines
#
# 1. Cost is counted in FLOP: forward, the gradient's way back, the modules' own gradients, and a teacher if there is one.
# 2. At equal total, one kit is not clearly worse than most students; at equal each, in the longest training, every student is better on `translator`, and on `pocket` those that learn as the kit does.
# 3. On `translator` with a small budget the kit is far ahead at its smallest sizes; with a long one, students of all weights pass it.
# 4. For one size train a student. A kit is cheaper than students as good as it from 2 to 9 sizes on, in the longest training from 5 to 9. Where the original may change, try LayerDrop, too.
# 5. An interval that holds zero shows no difference, not that there is none; and one seed is one seed.
#
# <!-- footer -->
# [← 5 · Quality and speed](5_quality_and_speed.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [7 · Your own model →](7_your_own_model.ipynb)
# <!-- end of footer -->
