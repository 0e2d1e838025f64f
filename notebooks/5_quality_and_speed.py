# %% [markdown]
# # 5 · Quality and speed
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/5_quality_and_speed.ipynb) · runs in 1 minute on two CPU cores · about 35 minutes to work through
#
# [← 4 · Assembly](4_assembly.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [6 · One kit or several students? →](6_one_kit_or_students.ipynb)
# <!-- end of header -->
#
# *A sixth of the layers: how good is it still, how fast is it really, and how do you know?*
#
# **You will be able to**
# - say what a slot error is, and why BLEU alone cannot tell a true text from a false one;
# - read a table of quality and speed: what each column can say, and what it cannot;
# - tell a difference from noise, with a bootstrap that you write yourself;
# - measure time so that another person would find the same, and weigh size against engine.
#
# **You need** to know what a path, an assembly and a ratio are ([notebook 1](1_layer_mapping.ipynb)), and in short what BLEU and the slot error rate are ([notebook 0](0_quickstart.ipynb), or the [glossary](README.md#glossary)); both come in full below.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import statistics
import time

import ipywidgets as widgets
import numpy as np
import pandas as pd
import torch
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

import modtf
from modtf.bundled import bundled
from modtf.course import quality as course
from modtf.decoding import GENERATE, LOOP
from modtf.evaluation import in_turns, write_texts
from modtf.tasks import E2E, TRANSLATION
from modtf.tasks.e2e import check, parse_mr, write_mr
from modtf.tasks.e2e.scores import bleu
from modtf.tasks.e2e.slots import SlotReport
from modtf.views import notebook

# %%
torch.set_num_threads(1)
modular = modtf.load("pocket")
original, smallest = modular.choose(1), modular.choose(6)
table = json.loads(bundled("pocket/table.json").read_text(encoding="utf-8"))
trained = [row for row in table["rows"] if row["trained"]]
by_layers = {row["layers"]: row for row in trained}  # 12-12 and 2-2 are in all strategies
published = json.loads(bundled("published.json").read_text(encoding="utf-8"))
examples = E2E.bundled_examples("evaluation")  # 300 random inputs, each with the text that the original wrote for it
sources = [example.source for example in examples]
mrs, own = [parse_mr(source) for source in sources], [example.references[0] for example in examples]

# %% [markdown]
# ## Is it true?
#
# `pocket` describes restaurants, so there is something to check that needs no opinion: does the text say every slot of its input, with the right value, once, and nothing else? `check` looks for that with regular expressions:

# %% tags=["nbval-check-output"]
for number in (2, 36, 94):
    print(sources[number])
    for ratio in (1, 6):
        text = modular.generate(sources[number], ratio=ratio)
        print(f"  {ratio}x  {text}\n      {course.chips(mrs[number], text)}")
    print()

# %% [markdown]
# Read alone, each text at 6x looks perfect. Only the input shows that the first leaves out the price and the third that children are welcome, and that the second has made its price up. The **slot error rate** (SER) counts this over many texts:
#
# $$\text{SER} = 100 \cdot \frac{\text{slots missed + wrong + repeated + added, of all texts together}}{\text{slots in all inputs together}}$$
#
# (A matcher of regular expressions is a measuring instrument, and it errs, too. It reads all models with the same eyes, so *differences* are safer than the number itself.)
#
# ### Exercise 5.1
# Compute the SER from reports of `check`. A `SlotReport` has five tuples of slot names: `said`, `missed`, `wrong`, `repeated`, `added`. Every slot of the input is in exactly one of the first three; what is repeated is among those said. All SERs below are computed by your function.


# %% tags=["exercise"]
def ser(reports: list[SlotReport]) -> float:  # in percent
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Two sums, then one division: a text of eight slots has to count more than one of three. How many slots did the input of a report have?
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def ser(reports: list[SlotReport]) -> float:
#     errors = sum(len(r.missed) + len(r.wrong) + len(r.repeated) + len(r.added) for r in reports)
#     slots = sum(len(r.said) + len(r.missed) + len(r.wrong) for r in reports)
#     return 100 * errors / slots
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("5.1"):
    course.check_ser(ser)

# %%
rate = notebook.chosen("ser", ser, course.slot_error_rate, course.check_ser)


def ser_of(texts: list[str]) -> float:
    return rate([check(mr, text) for mr, text in zip(mrs, texts, strict=True)])


# %% [markdown]
# ## What BLEU does not see
#
# BLEU asks: *of the text's words, pairs, triples and quadruples, what share stands in a reference, too?* Only the length looks the other way: texts that are shorter than their references get a penalty. So it hides two things: nothing asks what a reference says that the text leaves out, and a word that turns the meaning around counts like any other. Four texts, against a reference that the original wrote (first row):

# %% tags=["nbval-check-output"]
mill, reference = mrs[12], own[12]
others = {
    "the reference": reference,
    "true, in other words": "Families are welcome at The Mill, a moderately priced Japanese pub that is highly rated by its customers.",
    "one word more": reference.replace("kid friendly", "not kid friendly"),
    "one word changed": reference.replace("Japanese", "French"),
    "stops early": reference.partition(". It has")[0] + ".",
}
print(write_mr(mill), "\n")
for name, text in others.items():
    print(f"{name:22} BLEU {bleu([text], [[reference]]):5.1f}   slot errors {check(mill, text).errors}\n    {text}")

# %% [markdown]
# By BLEU, the only one of these four without an error is by far the worst. Your turn:

# %%
notebook.play(
    course.judge(mill, reference), text=widgets.Textarea(reference, description="text", layout={"width": "100%", "height": "80px"})
)

# %% [markdown]
# <details><summary>Answer to its two challenges</summary>
#
# Change two words that carry facts in the original's own text, as in "serves *French* food. It is *not* kid friendly". And the true text in other words, above, has no slot error and hardly any BLEU.
# </details>
#
# One text proves little: BLEU was made for many. So we spoil all 300 texts of the original in two ways: turn "family friendly" around, or drop the last sentence. Four honest assemblies write the same 300 texts, live.

# %%
written = {f"{ratio:g}x": write_texts(modular, modular.choose(ratio), sources) for ratio in (1.33, 2, 4, 6)}
spoiled = {
    "1x, a fact turned around": [course.turned_around(text) for text in own],
    "1x, last sentence dropped": [course.without_last_sentence(text) for text in own],
}
likeness = {name: bleu(texts, [[text] for text in own]) for name, texts in {**written, **spoiled}.items()}
print("by BLEU against the original's own texts, best first:")
for name, score in sorted(likeness.items(), key=lambda item: -item[1]):
    print(f"  {name:27} BLEU {score:5.1f}   SER {ser_of({**written, **spoiled}[name]):4.1f} %")
print(f"  (the original itself: SER {ser_of(own):.1f} %)")

# %% [markdown]
# BLEU's favourite is the liar. Each assembly puts things in another order, or says "kid friendly" for "family friendly", and pays for that as if it were an error; the SER keeps the two apart. (Why the assemblies make *fewer* errors than the original: in the last part of its training, the kit learned only from those of the original's texts that say everything.)
#
# ## Against people's texts
#
# Our reference was one text of a machine. The usual yardstick is better: texts by people, several for most inputs. `benchmarks/published.py` scored two systems of the E2E NLG challenge on its 630 test inputs, TGen (its baseline) and Slug (its winner); and a model that *cannot* say everything: our original, never told one of the slots. **What is its BLEU if no text says what food there is?**

# %% tags=["nbval-check-output"]
guess_no_food = None  # BLEU, a number in place of None
rows = {row["system"]: row for row in published["rows"]}
print("told all slots, the original has a BLEU of", rows["pocket"]["bleu"])

# %% tags=["nbval-check-output"]
left_out = [
    {
        "never told": row["hidden"],
        "people leave it out in % of texts": published["people_leave_out"][row["hidden"]],
        "BLEU lost": round(rows["pocket"]["bleu"] - row["bleu"], 2),
        "SER gained": round(row["ser"] - rows["pocket"]["ser"], 2),
    }
    for row in published["rows"]
    if "hidden" in row
]
lines = pd.DataFrame(left_out).sort_values("BLEU lost").to_string(index=False)
notebook.reveal("BLEU of a model that never says the food", guess_no_food, rows["pocket, never told food"]["bleu"], table=lines)

# %% [markdown]
# Never saying the food, or whether children are welcome, is almost free. One cause is probably that people forget these, too, while they hardly ever forget the neighbour, which costs most. (It is no law: look at the customer rating.)

# %%
course.bleu_and_slot_errors(trained, published)

# %% [markdown]
# **This is the figure to remember.** The two in the ring have the BLEU of Slug and of all our assemblies, and cannot say one of the facts, since nobody told them. That is what BLEU can hide: what is left out, above all where people leave it out as well. (Five other facts did cost BLEU, and so did turning one around.) Without an SER beside it, it says how a model writes, not whether that is true or complete. (The inset spreads out one point of BLEU; much of that is noise, as you will see.)
#
# ## The table, column by column
#
# Both bundled models come with a table that `benchmarks/table.py` measured. What its columns can say, and what they cannot:
#
# | column | what it can say | what it cannot |
# |---|---|---|
# | `ratio`, `layers` | how many layers run | how large or how fast the model is |
# | `bleu`, `rouge_l` | does it still write as people do? | is it true, is it complete? |
# | `ser` | is it true and complete? | is it good English? The best texts for it would be lists |
# | `speed_up` | how many times as fast as 1x, on that machine, with that engine, one text of 32 tokens | your machine, another engine, a batch |
# | p95 of `latency_ms` | how long the unlucky ones wait | is it the model that makes them wait, or other work on the machine? |
# | `bundled` | how like the *original* does it write? | which of the two is better |
#
# > **In the paper** (abstract and published summaries): ratios from 1.1x to 6x "with little to moderate relative performance drop", for T5-base and T5-large on summarization, question generation and translation. The ratio is one of layers. Speed and slot errors beside it are our choice, as are the tasks here.
#
# One might take fewer layers, fewer parameters and *as fast* for the same: compare. Then find a pair in which a *smaller* model looks better, and say why.

# %%
notebook.play(
    lambda across, up: course.columns_figure(trained, across, up),
    across=widgets.Dropdown(options=list(course.COLUMNS), value="times fewer layers", description="across"),
    up=widgets.Dropdown(options=list(course.COLUMNS), value="times as fast, one text", description="up"),
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# *Slot errors* over any measure of size: they fall from 1x to 2x, not because 2x is small, but because of how the kit was trained last (above).
# </details>
#
# Two columns are called BLEU, and ask "does it write as people do?" and "does it write as the original does?" (as the explorer does for `pocket`). By the first nothing happens down to 6x. By the second even 11-11 loses a lot: it says the same in another way, and that is "different", not "worse":

# %% tags=["nbval-check-output"]
two = {"against people's texts": "BLEU against people's texts", "against the original's": "BLEU against the original's texts"}
lines = {
    shape: {name: course.COLUMNS[column](by_layers[shape], trained[0]) for name, column in two.items()}
    for shape in ("12-12", "11-11", "6-6", "2-2")
}
print(pd.DataFrame(lines).T.to_string())

# %% [markdown]
# ## How much of it is noise?
#
# 6x and 1x differ in SER. With 300 *other* inputs the difference would be another: different by how much? We have no other inputs, but we can simulate them. Draw 300 of our 300 inputs **with replacement** (some come twice, some not at all), and compute the difference again. Do that 2,000 times. This is the *bootstrap* (Koehn, 2004, for translation); the middle 95 % of what comes out are an interval.
#
# The draw is **paired**: both models meet the same inputs, so that a hard input is hard for both.
#
# ### Exercise 5.2
# Write it. `candidate` and `baseline` are arrays with the number of slot errors of two models at each input, `slots` has the number of slots. `bootstrap` gives 2,000 differences in points of SER (candidate minus baseline), each on `inputs` inputs drawn anew. `rng.integers(n, size=k)` draws k numbers below n, with replacement.


# %% tags=["exercise"]
def bootstrap(candidate: np.ndarray, baseline: np.ndarray, slots: np.ndarray, inputs: int, rng: np.random.Generator) -> np.ndarray:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# If `drawn` has the numbers of the inputs that were drawn, `candidate[drawn]` has the errors of one model there. What is the SER of them?
# </details>
#
# <details><summary>Hint 2</summary>
#
# A loop will do. Or draw all at once: `size=(2000, inputs)`, and sum over the second axis.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def bootstrap(candidate: np.ndarray, baseline: np.ndarray, slots: np.ndarray, inputs: int, rng: np.random.Generator) -> np.ndarray:
#     drawn = rng.integers(len(slots), size=(2000, inputs))
#     return 100 * (candidate[drawn] - baseline[drawn]).sum(1) / slots[drawn].sum(1)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("5.2"):
    course.check_bootstrap(bootstrap)

# %%
differences = notebook.chosen("bootstrap", bootstrap, course.bootstrap, course.check_bootstrap)
slots = np.array([len(mr) for mr in mrs])
errors = {
    name: np.array([check(mr, text).errors for mr, text in zip(mrs, texts, strict=True)]) for name, texts in {"1x": own, **written}.items()
}


def intervals(inputs: int) -> dict[str, tuple[float, float, float]]:
    """The SER of each assembly minus the original's: the middle, and the ends of the 95 % interval."""
    drawn = {name: differences(errors[name], errors["1x"], slots, inputs, np.random.default_rng(0)) for name in written}
    return {name: tuple(np.percentile(values, [2.5, 50, 97.5])) for name, values in drawn.items()}


for name, (low, _, high) in intervals(300).items():
    verdict = "more errors than the original" if low > 0 else "fewer errors than the original" if high < 0 else "no difference is shown"
    print(f"{name:5} {low:+.2f} to {high:+.2f} points: {verdict}")
course.intervals_figure(intervals(300), 300)

# %% [markdown]
# An interval that holds zero says: these inputs do not show a difference. That is not the same as "there is none". **How many inputs does it take before 6x is clearly apart from 1x?** (Beyond 300 this is a forecast: what we would see if more inputs were like these.)

# %%
notebook.play(
    lambda inputs: course.intervals_figure(intervals(inputs), inputs),
    inputs=widgets.SelectionSlider(options=[10, 30, 100, 300, 1000, 3000], value=30, description="inputs"),
)

# %% [markdown]
# <details><summary>Answer</summary>
#
# Some 300; at 100 its interval still holds zero. 2x needs 30: the larger a difference, the fewer inputs show it.
# </details>
#
# Which inputs are these differences from? The SER by the number of slots, in brackets how many errors stand behind it:

# %%
lines = []
for low, high in ((3, 6), (7, 7), (8, 8)):
    of = (slots >= low) & (slots <= high)
    lines.append({"slots": f"{low} to {high}" if low < high else str(low), "inputs": of.sum()})
    lines[-1] |= {name: f"{100 * e[of].sum() / slots[of].sum():.1f} % ({e[of].sum()})" for name, e in errors.items()}
    drawn = differences(errors["6x"][of], errors["1x"][of], slots[of], of.sum(), np.random.default_rng(0))
    lines[-1]["6x minus 1x"] = "{:+.1f} to {:+.1f}".format(*np.percentile(drawn, [2.5, 97.5]))
print(pd.DataFrame(lines).to_string(index=False))

# %% [markdown]
# One difference from 1x was made of two opposite ones. The original loses more, the more there is to say; 6x errs at short inputs, too. So with up to six slots it makes *more* errors than the original; with eight slots, fewer. (Few errors stand behind the first row.)
#
# The table prints no spread. Its 630 inputs:

# %% tags=["nbval-check-output"]
for row in published["against_1x"]:
    said = [
        f"{name.upper()} {row[name]:+.2f}, interval {row[f'{name}_interval'][0]:+.2f} to {row[f'{name}_interval'][1]:+.2f}"
        for name in ("bleu", "ser")
    ]
    print(f"{row['ratio']}x minus 1x:", "   ".join(said))

# %% [markdown]
# BLEU shows no difference at any of the three, the SER at 2x and 4x. At 6x it does not, although it did on our 300 inputs, whose slots are combined at random: the bootstrap knows only of inputs *like these*. What others would show, or a second training, it cannot say.
#
# ### Where compression costs something
#
# `translator` does lose BLEU. 400 sentences of its test set are bundled, with people's translations, and `sacrebleu`, the library behind these scores, has the paired bootstrap built in. **How wide is the 95 % interval of the original's BLEU on 400 sentences?** And is the loss at 1.09x (one layer of twelve less) more than noise?

# %%
guess_interval = None  # plus or minus how many points of BLEU

# %%
translator = modtf.load("translator")
sentences = TRANSLATION.bundled_examples("evaluation")
most = max(len(example.references) for example in sentences)
people = [[example.references[i] if i < len(example.references) else None for example in sentences] for i in range(most)]
systems = [
    (f"{ratio}x", write_texts(translator, translator.choose(ratio), [example.source for example in sentences])) for ratio in (1, 1.09, 2, 6)
]
_, tested = PairedTest(systems, {"BLEU": BLEU()}, people, test_type="bs", n_samples=1000)()
lines = [
    f"{name:6} BLEU {result.score:.1f} ± {result.ci:.1f}" + (f"   lower than 1x: p-value {result.p_value:.3f}" if name != "1x" else "")
    for (name, _), result in zip(systems, tested["BLEU"], strict=True)
]
notebook.reveal("BLEU of 1x on 400 sentences: plus or minus points", guess_interval, tested["BLEU"][0].ci, table="\n".join(lines))

# %% [markdown]
# ± is the interval of the score itself; the p-value is about the *difference* from 1x: how often chance alone would make one as large. Since each size meets the same sentences, a difference can be clear (a small p-value) although the intervals overlap.
#
# Would a model of the size of 6x lose less if it were trained *alone*? [Notebook 6](6_one_kit_or_students.ipynb) asks that.
#
# ## Measuring time
#
# The same work takes a different time in each run. Eight assemblies that have not run yet write the same sentence 13 times each; each time is divided by the median of that assembly's later runs.

# %%
relative = []
for ratio in (1.41, 1.5, 1.6, 1.71, 1.85, 2, 2.4, 3):
    times = []
    for _ in range(13):
        begun = time.perf_counter()
        modular.generate(sources[0], ratio=ratio, strategy="speed_first")
        times.append(time.perf_counter() - begun)
    relative.append(np.array(times) / statistics.median(times[1:]))
course.first_and_later_runs(np.array(relative))

# %% [markdown]
# - **Warm up.** The first run also assembled the model and laid out its weights. Leave it out, or say that it is in.
# - **Median**, not mean: one run that met a busy machine moves the mean, but hardly the median.
# - **p95** is the time that 19 of 20 runs stay below. The median says how fast the model is, the p95 how long a user sometimes waits.
# - **The same work.** A model that writes less is done earlier. So everything below writes exactly 32 tokens a text.
#
# ### Exercise 5.3
# Write `median_ms(run, repeats)`: call `run()` once to warm up, then `repeats` times with a clock, and give back the median in milliseconds.


# %% tags=["exercise"]
def median_ms(run, repeats: int) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# `time.perf_counter()` gives seconds from an arbitrary zero, so only differences mean something. Collect them in a list; `statistics.median` does the rest.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def median_ms(run, repeats: int) -> float:
#     run()
#     times = []
#     for _ in range(repeats):
#         begun = time.perf_counter()
#         run()
#         times.append(time.perf_counter() - begun)
#     return 1000 * statistics.median(times)
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("5.3"):
    course.check_median_ms(median_ms)

# %% [markdown]
# Now measure with it. We time the **same model** under two names: all of A, then all of B. When B begins, a neighbour arrives: another thread that wants to work now and then. Then they **take turns** (A, B, A, B), and the neighbour arrives in the middle.

# %%
stopwatch = notebook.chosen("median_ms", median_ms, course.median_ms, course.check_median_ms)
run = course.writing(modular, smallest, sources[:1])
medians = {"A": stopwatch(run, 24)}
with course.neighbour():
    medians["B"] = stopwatch(run, 24)
print(f"A {medians['A']:.1f} ms, B {medians['B']:.1f} ms: by this, B takes {medians['B'] / medians['A']:.2f} times as long as A")
turns = in_turns({"A": run, "B": run}, 12)
with course.neighbour():
    turns = {name: turns[name] + more for name, more in in_turns({"A": run, "B": run}, 12).items()}
together = statistics.median(b / a for a, b in zip(turns["A"], turns["B"], strict=True))
print(f"in turns, turn by turn: B takes {together:.2f} times as long as A")
course.blocks_and_turns(medians, turns)

# %% [markdown]
# The first is a right median of a wrong comparison. In turns both meet the same machine at almost the same moment, and their *ratio* survives what their milliseconds do not. It is the trick of the paired bootstrap: compare on the same inputs, and at the same moment. `modtf.evaluation.in_turns` does it, and the tables were measured with it.
#
# ## Size × engine
#
# Two engines write the same tokens: modtf's own greedy **loop**, and transformers' **generate**. For one text, you have seen how much faster 6x is than 1x. **How many times as fast is it in the loop for a batch of 32?**

# %%
guess_batch = None  # times as fast, for a batch of 32

# %%
cases = {(texts, engine): (9 if texts == 1 else 4) for texts in (1, 32) for engine in (LOOP, GENERATE)}
lines, faster = [], {}
for (texts, engine), repeats in cases.items():
    runs = {ratio: course.writing(modular, modular.choose(ratio), sources[:texts], engine) for ratio in (1, 6)}
    ms = {ratio: statistics.median(times) for ratio, times in in_turns(runs, repeats).items()}
    faster[texts, engine] = ms[1] / ms[6]
    stored = [by_layers[shape] if engine == LOOP else by_layers[shape]["generate"] for shape in ("12-12", "2-2")]
    theirs = [row["latency_ms" if texts == 1 else "batch_latency_ms"]["median"] for row in stored]
    lines.append(
        {"texts": texts, "engine": engine, "1x, ms": round(ms[1]), "6x, ms": round(ms[6]), "times as fast": round(ms[1] / ms[6], 2)}
    )
    lines[-1] |= {f"table: {name}": round(value) for name, value in zip(("1x, ms", "6x, ms"), theirs, strict=True)}
    lines[-1]["table: times as fast"] = round(theirs[0] / theirs[1], 2)
same = (torch.equal(*(course.writing(modular, a, sources[:32], e)()[0] for e in (LOOP, GENERATE))) for a in (original, smallest))
print("both engines write the same tokens, at 1x and at 6x:", all(same))
notebook.reveal("6x, batch of 32, loop: times as fast", guess_batch, faster[32, LOOP], table=pd.DataFrame(lines).to_string(index=False))

# %% [markdown]
# Same model, same 32 tokens a text, other milliseconds: on the left this machine now, on the right (and in the next figure) the table's machine. So a speed needs its machine, its engine and its batch beside it. Why 6x is not six times as fast: what is done for each token, whatever the layers, stays, in `generate` more of it than in the loop. [Notebook 4](4_assembly.ipynb) takes it apart, under *Where the time goes*.
#
# Engines differ more than sizes. CTranslate2 compiles an assembly, in float32 or with 8-bit weights, and `modtf export` writes assemblies [for it, for ONNX Runtime and for llama.cpp](../README.md#exports). From the table, one text of 32 tokens:

# %%
course.sizes_and_engines(by_layers, ("12-12", "6-6", "2-2"))

# %% [markdown]
# The original in a compiled engine with 8-bit weights takes about as long as the smallest assembly in the loop. **Before you compress, look at what runs the model; then do both**: most of each gain is left beside the other. ([8-bit weights change some texts](../README.md#exports), and these, too, need their SER measured.) A speed-up counts against the best that was there before, not against the slowest engine at hand.
#
# ## Play: race, sweep, measure
#
# In the explorer, set the ratio to 6x, then
#
# 1. press **race**: both texts appear token by token, each as fast as it was written. Who is done first, and does it say everything?
# 2. press **sweep**: where is the first slot lost? Then **another restaurant**, and sweep again: is it the same slot?
# 3. press **measure this assembly** for 30 inputs, then for 300. Which of the two numbers would you show to somebody?
#
# <details><summary>Answer</summary>
#
# 6x is done first, without the price. Size first loses it near 5x, speed first, with two decoder layers, near 2x already; elsewhere, too, it is mostly the price. Show the number of 300, and its interval: with ten times as many inputs that is about a third as wide.
# </details>

# %%
modtf.explore(modular)

# %% [markdown]
# ## References
#
# - Kishore Papineni, Salim Roukos, Todd Ward, Wei-Jing Zhu: [BLEU: a Method for Automatic Evaluation of Machine Translation](https://aclanthology.org/P02-1040/), ACL 2002.
# - Matt Post: [A Call for Clarity in Reporting BLEU Scores](https://aclanthology.org/W18-6319/), WMT 2018. `sacrebleu`.
# - Philipp Koehn: [Statistical Significance Tests for Machine Translation Evaluation](https://aclanthology.org/W04-3250/), EMNLP 2004. The bootstrap.
# - Jekaterina Novikova, Ondřej Dušek, Verena Rieser: [The E2E Dataset: New Challenges For End-to-End Generation](https://aclanthology.org/W17-5525/), SIGDIAL 2017.
# - Ondřej Dušek, Jekaterina Novikova, Verena Rieser: [Evaluating the State-of-the-Art of End-to-End Natural Language Generation: The E2E NLG Challenge](https://arxiv.org/abs/1901.07931), Computer Speech & Language, 2020.
# - Ondřej Dušek, Filip Jurčíček: [Sequence-to-Sequence Generation for Spoken Dialogue via Deep Syntax Trees and Strings](https://arxiv.org/abs/1606.05491), ACL 2016. TGen.
# - Juraj Juraska, Panagiotis Karagiannis, Kevin Bowden, Marilyn Walker: [A Deep Ensemble Model with Slot Alignment for Sequence-to-Sequence Natural Language Generation](https://arxiv.org/abs/1805.06553), NAACL 2018. Slug.
# - Wangchunshu Zhou, Ronan Le Bras, Yejin Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023.
#
# ## In five lines
#
# 1. BLEU asks whether a text sounds like the references. It can miss what is left out or turned around: show the SER beside it.
# 2. A score belongs to its yardstick and to its task: BLEU against people's texts and BLEU against the original's are two questions.
# 3. Before you believe a difference, resample the inputs in pairs: if zero is in the interval, these inputs do not show it.
# 4. Warm up, write the same number of tokens, take turns, show median and p95.
# 5. A speed-up belongs to one machine, one engine and one batch size; size and engine multiply, so try the engine first.
#
# <!-- footer -->
# [← 4 · Assembly](4_assembly.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [6 · One kit or several students? →](6_one_kit_or_students.ipynb)
# <!-- end of footer -->
