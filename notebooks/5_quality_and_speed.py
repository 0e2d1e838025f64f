# %% [markdown]
# # 5 · Quality and speed
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/5_quality_and_speed.ipynb) · runs in 1 minute on two CPU cores · about 50 minutes to work through
#
# [← 4 · Assembly](4_assembly.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [7 · Your own model →](7_your_own_model.ipynb)
# <!-- end of header -->
#
# *Six times smaller: how good is it still, how fast is it really, and how do you know?*
#
# **You will be able to**
# - say what a slot error is, and why BLEU alone cannot tell a true text from a false one;
# - read a table of quality and speed: what each column can say, and what it cannot;
# - tell a difference from noise, with a bootstrap;
# - say when one kit is worth its training, and when a student of one size is;
# - measure time so that another person would find the same.
#
# **You need** to know what a path, an assembly and a ratio are ([notebook 1](1_layer_mapping.ipynb)). Nothing else of the course is needed.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import json
import re
import statistics
import threading
import time
from contextlib import contextmanager
from functools import partial
from html import escape

import ipywidgets as widgets
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch

import modtf
from modtf.bundled import bundled
from modtf.decoding import GENERATE, LOOP, decode
from modtf.evaluation import Latency, in_turns, measure_quality, write_texts
from modtf.tasks import E2E, TRANSLATION
from modtf.tasks.e2e import check, parse_mr, score, write_mr
from modtf.tasks.e2e.scores import bleu, slot_error_rate
from modtf.tasks.e2e.slots import SlotReport
from modtf.views import notebook
from modtf.views.figures import described

torch.set_num_threads(1)
modular = modtf.load("pocket")
original, smallest = modular.choose(1), modular.choose(6)
table = json.loads(bundled("pocket/table.json").read_text(encoding="utf-8"))
published = json.loads(bundled("published.json").read_text(encoding="utf-8"))
examples = E2E.bundled_examples("evaluation")  # 300 random inputs, each with the text that the original wrote for it
sources = [example.source for example in examples]
mrs = [parse_mr(source) for source in sources]

# %% [markdown]
# ## What a text says: slots
#
# `pocket` is given a restaurant's attributes, the *slots*, and writes a description. So there is something to check that needs no opinion: does the text say every
# slot, with the right value, once, and nothing else? `modtf.tasks.e2e.check` looks for that with regular expressions. Here are three inputs, each written by the
# original and at 6x:


# %% tags=["nbval-check-output"]
def chips(mr: dict[str, str], text: str) -> str:
    """What the text does with the slots, as the explorer shows it."""
    report = check(mr, text)
    said = [f"↻ {slot} repeated" if slot in report.repeated else f"✓ {slot}" for slot in report.said]
    faults = {"○": "missed", "≠": "wrong", "+": "added"}
    return " · ".join(said + [f"{sign} {slot} {fault}" for sign, fault in faults.items() for slot in getattr(report, fault)])


for number in (2, 36, 94):
    print(sources[number])
    for ratio in (1, 6):
        text = modular.generate(sources[number], ratio=ratio)
        print(f"  {ratio}x  {text}\n      {chips(mrs[number], text)}")
    print()

# %% [markdown]
# Read alone, each of the texts at 6x looks perfect. Only the input shows that the first leaves out the price and the third that children are welcome, and that the second has made its price
# up.
#
# The **slot error rate** (SER) counts this over many texts:
#
# $$\text{SER} = 100 \cdot \frac{\text{slots missed + wrong + repeated + added, of all texts together}}{\text{slots in all inputs together}}$$
#
# A matcher of regular expressions is a measuring instrument, and it errs, too. It reads all models with the same eyes, so *differences* are safer than the number itself.
#
# ### Exercise 5.1
# Compute the SER from reports of `check`. A `SlotReport` has five tuples of slot names: `said`, `missed`, `wrong`, `repeated`, `added`. Every slot of the input is in
# exactly one of the first three; what is repeated is among those said.


# %% tags=["exercise"]
def ser(reports: list[SlotReport]) -> float:  # in percent
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# Two sums, then one division. How many slots did the input of a report have?
# </details>
#
# <details><summary>Hint 2</summary>
#
# Do not average the rates of single texts: a text of eight slots has to count more than one of three.
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
    right = SlotReport(said=("name", "food", "area"), missed=(), wrong=(), repeated=(), added=())
    mixed = SlotReport(said=("name", "food"), missed=("area",), wrong=("near",), repeated=("food",), added=("priceRange",))
    missing = SlotReport(said=("name",), missed=("food",), wrong=(), repeated=(), added=())
    assert ser([right]) is not None, "ser([...]) gives nothing back yet"
    assert ser([right]) == 0, f"a text that says everything once has an SER of 0, not {ser([right])}"
    assert ser([missing]) == 50, f"one of two slots is missed: 50 %, not {ser([missing])}"
    assert ser([mixed]) == 100, f"four errors (missed, wrong, repeated, added) for an input of four slots are 100 %, not {ser([mixed])}"
    assert ser([right, missing]) == 20, f"one error in five slots is 20 %, not {ser([right, missing])}; add up first, then divide"
    wanted = slot_error_rate(mrs, [example.references[0] for example in examples])
    given = ser([check(mr, example.references[0]) for mr, example in zip(mrs, examples, strict=True)])
    assert abs(given - wanted) < 1e-9, f"for {len(examples)} texts of the original it should be {wanted:.4f}, yours is {given:.4f}"

# %% [markdown]
# ## What BLEU counts, and what it hides
#
# BLEU does not know slots. It compares a text with reference texts: *of the text's words, pairs, triples and quadruples, what share stands in a reference, too?* Only
# the length looks the other way: texts that are shorter than the references together get a penalty. Nothing asks what a reference says that the text leaves
# out, and a word that turns the meaning around counts like any other.
#
# Take one input, the original's text as the reference, and four other texts:

# %% tags=["nbval-check-output"]
mill = mrs[12]
reference = examples[12].references[0]
others = {
    "the original's own": reference,
    "true, in other words": "Families are welcome at The Mill, a moderately priced Japanese pub that is highly rated by its customers.",
    "one word more": reference.replace("kid friendly", "not kid friendly"),
    "one word changed": reference.replace("Japanese", "French"),
    "stops early": reference.partition(". It has")[0] + ".",
}
print(write_mr(mill), "\n")
for name, text in others.items():
    print(f"{name:22} BLEU {bleu([text], [[reference]]):5.1f}   slot errors {check(mill, text).errors}\n    {text}")

# %% [markdown]
# By BLEU, the only one of these four without an error is by far the worst. Try it yourself. Can you write a text with two slot errors and a BLEU over 80? And in your
# own words, without any error: how high does your BLEU get?


# %%
def judge(text: str) -> str:
    errors = check(mill, text).errors
    return (
        f"<p>{escape(write_mr(mill))}</p><p><b>BLEU {bleu([text], [[reference]]):.1f}</b>, <b>slot errors {errors}</b></p>"
        f"<p>{escape(chips(mill, text))}</p>"
    )


notebook.play(judge, text=widgets.Textarea(reference, description="text", layout={"width": "100%", "height": "80px"}))

# %% [markdown]
# One text proves little: BLEU was made for many texts at once. So we spoil all 300 texts of the original, in two ways. One turns a fact around: "family friendly"
# becomes "not family friendly", and the other way round. The other drops the last sentence.


# %% tags=["nbval-check-output"]
def turned_around(text: str) -> str:
    """Whether families are welcome, said the other way round."""
    pattern = r"(not )?(a )?((?:kids?|child|children|family|families)[- ]*friendly)"
    return re.sub(pattern, lambda found: ("" if found[1] else "not ") + (found[2] or "") + found[3], text)


def without_last_sentence(text: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return " ".join(sentences[:-1] or sentences)


own = [example.references[0] for example in examples]  # the original's texts
spoiled = {
    "1x, turned around": [turned_around(text) for text in own],
    "1x, last sentence dropped": [without_last_sentence(text) for text in own],
}
for name, texts in {"1x, as they are": own, **spoiled}.items():
    scores = score(mrs, texts, [[text] for text in own])
    changed = sum(text != before for text, before in zip(texts, own, strict=True))
    print(
        f"{name:27} {changed:3} of {len(own)} texts changed   BLEU {scores.bleu:5.1f}   ROUGE-L {scores.rouge_l:5.1f}   SER {scores.ser:4.1f} %"
    )

# %% [markdown]
# Dropping whole sentences makes the texts much shorter, and that BLEU does see. The lie it hardly sees. For comparison, four honest assemblies write the
# same 300 texts, live:

# %%
written = {f"{ratio:g}x": write_texts(modular, modular.choose(ratio), sources) for ratio in (1.33, 2, 4, 6)}
likeness = {name: score(mrs, texts, [[text] for text in own]) for name, texts in {**written, **spoiled}.items()}
print("by BLEU against the original's own texts, best first:")
for name, scores in sorted(likeness.items(), key=lambda item: -item[1].bleu):
    print(f"  {name:27} BLEU {scores.bleu:5.1f}   ROUGE-L {scores.rouge_l:5.1f}   SER {scores.ser:4.1f} %")

# %% [markdown]
# BLEU's and ROUGE-L's favourite is the liar. Each assembly puts things in another order, or says "kid friendly" for "family friendly", and pays for it
# as if it were an error; the SER keeps the two apart. And it can say what kind of errors they are:

# %%
kinds = ("missed", "wrong", "repeated", "added")
for name, texts in {"1x": own, "2x": written["2x"], "6x": written["6x"], "1x, turned around": spoiled["1x, turned around"]}.items():
    reports = [check(mr, text) for mr, text in zip(mrs, texts, strict=True)]
    print(f"{name:18}", "   ".join(f"{kind} {sum(len(getattr(report, kind)) for report in reports):3}" for kind in kinds))

# %% [markdown]
# 1x, 2x and 6x forget, and hardly ever lie. And 6x forgets less than the original that taught it! That is not what compression does: in the last part of its training the kit learned only from those of the original's texts that say everything. What compression does shows between 2x and 6x, which have
# no original layers left: the smaller one forgets more.
#
# ## The same with people's texts
#
# Our reference was one text of a machine. The usual yardstick is better: texts by people, several for most inputs. `benchmarks/published.py` scored, on the 630 inputs of
# E2E NLG's 2017 test set (Novikova, Dušek, Rieser, 2017), what two published systems wrote, and then a model that *cannot* say everything: our original, never told one
# of the slots. For example:

# %% tags=["nbval-check-output"]
for number in (2, 5):
    mr = mrs[number]
    text = modular.generate(write_mr({slot: value for slot, value in mr.items() if slot != "food"}))
    print(f"{sources[number]}\n  {text}\n  {chips(mr, text)}\n")

# %% [markdown]
# A reader who does not know the input would not notice. With all slots, the original has a BLEU of 66.2. **What is its BLEU if no text says what food there is?** Write a guess.

# %%
guess_no_food = None  # BLEU, a number in place of None

# %% tags=["nbval-check-output"]
rows = {row["system"]: row for row in published["rows"]}
notebook.reveal("BLEU of a model that never says the food (all slots: 66.2)", guess_no_food, rows["pocket, never told food"]["bleu"])
print()
shown = pd.DataFrame(published["rows"]).sort_values("bleu", ascending=False)
print(shown[["system", "bleu", "rouge_l", "ser", "words"]].rename(columns={"words": "words a text"}).to_string(index=False))
print("\n" + published["source"])

# %% [markdown]
# Never saying the food, or whether children are welcome, is almost free. Who is never told the price even gains in ROUGE-L. Each of these models has at
# least twice the SER of the published systems.

# %%
trained = [row for row in table["rows"] if row["trained"]]
groups = {
    "assemblies of pocket": ({"6x" if row["layers"] == "2-2" else row["layers"]: row for row in trained}, "circle"),
    "published systems": ({name: rows[name] for name in ("TGen", "Slug")}, "diamond"),
    "pocket, never told one slot": ({row["hidden"]: row for row in published["rows"] if "hidden" in row}, "x"),
    "Slug's texts, spoiled by us": (
        {name.partition(", ")[2]: row for name, row in rows.items() if name.startswith("Slug, ")},
        "triangle-down",
    ),
}
# where a label stands, so that none hides another; the other assemblies have none
places = {"6x": "top", "Slug": "bottom", "TGen": "bottom", "customer rating": "bottom", "priceRange": "bottom", "near": "bottom"}
beside = {"food": "left", "familyFriendly": "right", "area": "left", "eatType": "right"}
positions = {name: f"{side} center" for name, side in places.items()} | {name: f"middle {side}" for name, side in beside.items()}
figure = go.Figure()
for group, (points, symbol) in groups.items():
    figure.add_scatter(
        x=[row["ser"] for row in points.values()], y=[row["bleu"] for row in points.values()], name=group, marker={"symbol": symbol, "size": 10},
        mode="markers+text", hovertext=list(points), text=[name if name in positions or symbol == "triangle-down" else "" for name in points],
        textposition=[positions.get(name, "bottom center") for name in points],
    )  # fmt: skip
figure.update_layout(template="plotly_white", title="BLEU hides omissions (2017 test set, people's texts)", height=480)
figure.update_layout(legend={"orientation": "h", "y": -0.16})
figure.update_xaxes(title="slot error rate (%), better to the left", range=[0, 26])
figure.update_yaxes(title="BLEU, better upwards", range=[49, 69])
described(
    figure,
    "BLEU over slot error rate. All assemblies of pocket from 1x to 6x and both published systems lie in a narrow band of BLEU, at less than 5 % slot errors. "
    "In the same band of BLEU, but at 13 and 14 % slot errors, lie the models that never say the food or the family friendliness.",
    margin={"l": 60, "r": 20, "t": 50, "b": 90},
)

# %% [markdown]
# **This is the figure to remember.** Go along the upper edge from left to right: BLEU stays, and the texts become useless. A BLEU without an SER beside it says
# how a model writes, but not whether what it writes is true.
#
# Why does BLEU forgive this? One cause is that people forget, too. The next table has, for each slot: how often people's texts leave it out, and what it costs a model to
# leave it out always.

# %% tags=["nbval-check-output"]
whole = rows["pocket"]
costs = [
    {
        "slot": row["hidden"],
        "people leave it out in % of texts": published["people_leave_out"][row["hidden"]],
        "BLEU lost": round(whole["bleu"] - row["bleu"], 2),
        "SER gained": round(row["ser"] - whole["ser"], 2),
    }
    for row in published["rows"]
    if "hidden" in row
]
print(pd.DataFrame(costs).sort_values("BLEU lost").to_string(index=False))
print("\none text of a person against those of the others, and the systems against the same texts:")
print(pd.DataFrame(published["against_others"]["rows"])[["system", "bleu", "ser"]].to_string(index=False))

# %% [markdown]
# People almost never forget the neighbour, and that is what costs most; food and family friendliness they do forget. (It is no law: look at the customer rating.) And by
# BLEU, people are worse at writing like people than machines are. Perhaps because a machine always writes the most usual text, and a person does not.
#
# ## The table, column by column
#
# `benchmarks/table.py` measured assemblies of all three strategies on the same test set, and the result is bundled. Before you look: **how much of its BLEU does
# the original keep at 6x, in percent?**

# %%
guess_kept = None  # percent, a number in place of None

# %% tags=["nbval-check-output"]
by_layers = {row["layers"]: row for row in trained}  # 12-12 and 2-2 are in all strategies
notebook.reveal("BLEU kept at 6x, in percent", guess_kept, by_layers["2-2"]["bleu_kept"])
print()
columns = ["layers", "ratio", "bleu", "bleu_kept", "ser", "rouge_l", "speed_up", "batch_speed_up"]
print(pd.DataFrame(by_layers.values())[columns].round(2).to_string(index=False))
print(
    "\nin the same table, 6x before any training of its modules:",
    next(row["bleu"] for row in table["rows"] if row["layers"] == "2-2" and not row["trained"]),
)

# %% [markdown]
# If BLEU were all we had, all sizes would be the same. The SER tells them apart: it falls to a fifth of the original's and comes back. Two things meet here. Modules learned last from texts without a slot error, so the SER falls as they take the place of original layers; and a decoder of few layers has less and less room.
# What the columns can say, and what they cannot:
#
# | column | what it can say | what it cannot |
# |---|---|---|
# | `ratio`, `layers` | how many layers run | how large or how fast the model is |
# | `bleu`, `rouge_l`, `bleu_kept` | does it still write as people do? | is it true, is it complete? |
# | `ser` | is it true and complete? | is it good English? The best texts for it would be lists |
# | `speed_up` | how many times as fast as 1x, on this machine, with this engine, one sentence of 32 tokens | your machine, another engine, a batch |
# | `batch_speed_up` | the same for 32 texts at once | one text |
# | p95 of `latency_ms` | how long the unlucky ones wait | is it the model that makes them wait, or other work on the machine? |
# | `bundled` | how like the original does it write? (next section) | which of the two is better |
#
# > **In the paper** (abstract and published summaries): ratios from 1.1x to 6x "with little to moderate relative performance drop", for T5-base and T5-large on summarization, question
# > generation and translation. The ratio is one of layers. Speed and slot errors beside it are our choice, as is the task.
#
# Choose two columns and see the strategies. The first picture has what one would expect to be the same: how many times fewer layers, and how many times as fast.

# %%
COLUMNS = {
    "times fewer layers": lambda row: row["ratio"],
    "times fewer parameters": lambda row: trained[0]["parameters"] / row["parameters"],
    "times as fast, one sentence": lambda row: row["speed_up"],
    "times as fast, one sentence, generate": lambda row: row["generate"]["speed_up"],
    "times as fast, batch of 32": lambda row: row["batch_speed_up"],
    "BLEU against people's texts": lambda row: row["bleu"],
    "BLEU against the original's own texts": lambda row: row["bundled"]["bleu"],
    "slot errors, %": lambda row: row["ser"],
}


def draw_columns(across: str, up: str) -> go.Figure:
    figure = go.Figure()
    for strategy, dash in (("size_first", "solid"), ("speed_first", "dash"), ("quality_first", "dot")):
        line = [row for row in trained if row["strategy"] == strategy]
        figure.add_scatter(
            x=[COLUMNS[across](row) for row in line], y=[COLUMNS[up](row) for row in line], text=[row["layers"] for row in line],
            mode="lines+markers", line={"dash": dash}, name=strategy.replace("_", " "),
        )  # fmt: skip
    if across.startswith("times") and up.startswith("times"):
        figure.add_scatter(x=[1, 6.5], y=[1, 6.5], mode="lines", line={"color": "#bbbbbb", "width": 1}, name="the same")
    figure.update_layout(template="plotly_white", title=f"{up}, over {across}", height=400)
    return figure.update_xaxes(title=across).update_yaxes(title=up)


described(
    draw_columns("times fewer layers", "times as fast, one sentence"),
    "How many times as fast one sentence is written, over how many times fewer layers there are, a line for each strategy. At one ratio, speed first is the fastest. "
    "Quality first has the same assemblies down to 1.33 times, at 2 times that of size first, and below it more decoder layers than both, so it is slower; all end at 2-2 layers.",
)

# %%
notebook.play(
    draw_columns,
    across=widgets.Dropdown(options=list(COLUMNS), value="times fewer parameters"),
    up=widgets.Dropdown(options=list(COLUMNS), value="slot errors, %"),
)

# %% tags=["nbval-check-output"]
numbers = [{"layers": name} | {column: round(COLUMNS[column](row), 2) for column in list(COLUMNS)[:5]} for name, row in by_layers.items()]
print(pd.DataFrame(numbers).to_string(index=False))

# %% [markdown]
# Six times fewer layers are not six times fewer parameters (embeddings stay), and the time depends on *which* layers are left and on *what runs them*. 12-4 and
# 8-8 have sixteen layers each: compare their speeds. The decoder runs once for each token, the encoder once for each text.
#
# ### Exercise 5.2
# Choose for somebody who wants speed, but an SER of at most `limit` percent: of the rows given that are good enough, return the one with the largest `speed_up`.


# %% tags=["exercise"]
def fastest(rows: list[dict], limit: float = 1.0) -> dict:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# First keep the rows that are good enough, then take the fastest of them.
# </details>
#
# <details><summary>Hint 2</summary>
#
# `max(rows, key=lambda row: row["speed_up"])` is the row with the largest speed-up.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fastest(rows: list[dict], limit: float = 1.0) -> dict:
#     return max((row for row in rows if row["ser"] <= limit), key=lambda row: row["speed_up"])
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("5.2"):
    assert fastest(trained) is not None, "fastest(trained) gives nothing back yet"
    chosen = fastest(trained)
    assert chosen in trained, f"give back a whole row of the table, not {chosen!r}"
    assert chosen["ser"] <= 1, f"{chosen['layers']} has {chosen['ser']} % slot errors; at most 1 % are allowed"
    assert chosen["layers"] == "3-3", (
        f"{chosen['layers']} is good enough, but another row is good enough and faster than {chosen['speed_up']}x"
    )
    assert fastest(trained, limit=2)["layers"] == "2-2", "2 % are allowed now: a smaller one will do. Is `limit` used?"
    others = [row for row in trained if row["layers"] != "3-3"]
    assert fastest(others)["layers"] == "2-4", "of other rows another one is the fastest. Does it look at the rows that it is given?"

# %% [markdown]
# ## Two yardsticks called BLEU
#
# The table's BLEU is against *people's* texts. For `pocket` they are not bundled, so what is measured here or in the explorer is against the *original's own* texts. These are two
# questions: "does it write as people do?" and "does it write as the original does?"

# %% tags=["nbval-check-output"]
yardsticks = [
    {
        "layers": row["layers"],
        "BLEU against people's texts": row["bleu"],
        "against the original's own": row["bundled"]["bleu"],
        "SER % (630 test inputs)": row["ser"],
        "SER % (300 bundled)": row["bundled"]["ser"],
    }
    for row in trained
    if row["strategy"] == "size_first"
]
print(pd.DataFrame(yardsticks).to_string(index=False))

# %% [markdown]
# Against people, nothing happens. Against the original, even the mildest assembly (11-11) loses a lot: it says what there is to say (see its SER) in another way. So numbers of the two
# columns cannot be compared, and a drop in the second says "different", not "worse". The two SERs differ because the inputs do: the bundled ones are drawn
# at random. Measure it yourself:

# %%
quality = measure_quality(modular, smallest, examples)
print(
    f"6x, measured now: BLEU {quality['bleu']:.1f} against the original's own texts, SER {quality['ser']:.1f} %, ROUGE-L {quality['rouge_l']:.1f}"
)
print(
    f"6x, in the table: BLEU {by_layers['2-2']['bundled']['bleu']:.1f} against the original's own texts, SER {by_layers['2-2']['bundled']['ser']:.1f} %"
)

# %% tags=["nbval-check-output"]
print(
    "the same within half a point:",
    abs(quality["bleu"] - by_layers["2-2"]["bundled"]["bleu"]) < 0.5,
    abs(quality["ser"] - by_layers["2-2"]["bundled"]["ser"]) < 0.5,
)

# %% [markdown]
# ## How much of it is noise?
#
# The SER at 6x is lower than at 1x. With 300 *other* inputs it would be another number: how much another? We have no other inputs, but we can play it. Draw 300 of our 300
# inputs **with replacement** (some come twice, some not at all), compute the difference again, and do that 2,000 times. This is the *bootstrap*; the middle
# 95 % of what comes out are an interval. Both models meet the same inputs in each draw, so that a hard input is hard for both.

# %%
slots = np.array([len(mr) for mr in mrs])
errors = {
    name: np.array([check(mr, text).errors for mr, text in zip(mrs, texts, strict=True)]) for name, texts in {"1x": own, **written}.items()
}


def resampled(name: str, inputs: int = len(mrs)) -> np.ndarray:
    """2,000 times the SER of an assembly less that of the original, in points, on inputs drawn anew."""
    draws = np.random.default_rng(0).integers(len(mrs), size=(2000, inputs))
    return 100 * (errors[name] - errors["1x"])[draws].sum(1) / slots[draws].sum(1)


def draw_intervals(inputs: int) -> go.Figure:
    low, middle, high = np.percentile([resampled(name, inputs) for name in written], [2.5, 50, 97.5], axis=1)
    figure = go.Figure(
        go.Scatter(
            x=middle, y=list(written), mode="markers", marker={"size": 11},
            error_x={"type": "data", "symmetric": False, "array": high - middle, "arrayminus": middle - low, "thickness": 3},
        )
    )  # fmt: skip
    figure.add_vline(x=0, line={"color": "#888888", "dash": "dot"})
    figure.update_layout(template="plotly_white", title=f"SER, difference from the original: 95 % intervals, {inputs} inputs", height=320)
    return figure.update_xaxes(title="points of SER", range=[-8, 6]).update_yaxes(autorange="reversed")


def in_words(name: str, inputs: int = len(mrs)) -> str:
    low, high = np.percentile(resampled(name, inputs), [2.5, 97.5])
    verdict = "more errors than the original" if low > 0 else "fewer errors than the original" if high < 0 else "may be noise"
    return (
        f"{name}: {likeness[name].ser - 100 * errors['1x'].sum() / slots.sum():+.2f} points, interval {low:+.2f} to {high:+.2f}: {verdict}"
    )


print(*map(in_words, written), sep="\n")
print("\nthe same with draws of 30 inputs:\n" + in_words("6x", 30))
described(
    draw_intervals(300),
    "An interval for each assembly around its difference in SER from the original. " + "; ".join(map(in_words, written)) + ".",
)

# %% [markdown]
# An interval that holds zero says: these inputs do not show a difference. That is not the same as "there is none". With fewer inputs even the gain at 6x drowns:

# %%
notebook.play(draw_intervals, inputs=widgets.SelectionSlider(options=[10, 30, 100, 300], value=30))

# %% [markdown]
# Now read the table again: no spread stands in it. `benchmarks/published.py` drew the table's 630 inputs anew in the same way:

# %% tags=["nbval-check-output"]
for row in published["against_1x"]:
    print(
        f"{row['ratio']}x less 1x:",
        "   ".join(
            f"{name.upper()} {row[name]:+.2f}, interval {row[f'{name}_interval'][0]:+.2f} to {row[f'{name}_interval'][1]:+.2f}"
            for name in ("bleu", "ser")
        ),
    )

# %% [markdown]
# BLEU shows no difference at any of the three. The SER does: 2x and 4x make fewer slot errors than the original, and no accident of the inputs explains that. At 6x these inputs show no difference, in either score.
#
# The bootstrap is about the choice of *inputs* only. How different a second training would be, or another kind of inputs, it cannot say.
#
# ## Where compression costs something
#
# `pocket`'s task is narrow, and its BLEU stays at every size. `translator`, the BART from notebook 0, translates from German, and has no slots to check. First the bundled table, measured on 2,343 test sentences against people's
# translations:

# %% tags=["nbval-check-output"]
translated = [row for row in json.loads(bundled("translator/table.json").read_text(encoding="utf-8"))["rows"] if row["trained"]]
of_size_first = [row for row in translated if row["strategy"] == "size_first"]
columns = ["layers", "ratio", "bleu", "bleu_kept", "chrf", "chrf_kept", "speed_up", "batch_speed_up"]
print(pd.DataFrame(of_size_first)[columns].round(2).to_string(index=False))

# %% [markdown]
# 400 of these sentences are bundled, with their translations by people. Which of the differences do they show beyond chance? `sacrebleu`, the library behind these scores, has the paired bootstrap built in. Before you run it: **how wide is the 95 % interval
# of the full model's BLEU on 400 sentences?** And is the loss at 1.09x (one layer fewer) more than noise?

# %%
guess_interval = None  # plus or minus how many points of BLEU

# %%
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest

translator = modtf.load("translator")
sentences = TRANSLATION.bundled_examples("evaluation")
most = max(len(example.references) for example in sentences)
people = [[example.references[i] if i < len(example.references) else None for example in sentences] for i in range(most)]
systems = [
    (f"{ratio}x", write_texts(translator, translator.choose(ratio), [example.source for example in sentences]))
    for ratio in (1, 1.09, 1.5, 2, 3, 6)
]
_, tested = PairedTest(systems, {"BLEU": BLEU(), "chrF2": CHRF()}, people, test_type="bs", n_samples=1000)()
for number, (name, _) in enumerate(systems):
    shown = "   ".join(
        f"{metric} {tested[metric][number].score:.1f}, interval ± {tested[metric][number].ci:.1f}"
        + (f", p = {tested[metric][number].p_value:.3f}" if number else "            ")
        for metric in ("BLEU", "chrF2")
    )
    print(f"{name:6} {shown}")
notebook.reveal("BLEU of 1x on 400 sentences: plus or minus points", guess_interval, tested["BLEU"][0].ci)

# %% [markdown]
# The interval is that of the score itself; p is about the *difference* from 1x: how often chance alone would make one as large. Each size meets the same sentences as 1x, so a difference can be clear (a small p) although the intervals
# overlap. So the loss at 1.09x is more than noise. (Two neighbouring sizes are not compared here.)
#
# Here BLEU does fall. It still does not say *what* is lost. Look at two sentences:

# %% tags=["nbval-check-output"]
for sentence, meaning in {
    "Das Haus, in dem wir wohnen, ist sehr alt.": "The house that we live in is very old.",
    "Der Film war so langweilig, dass ich eingeschlafen bin.": "The film was so boring that I fell asleep.",
}.items():
    print(f"{sentence}  ({meaning})")
    for ratio in (1, 2, 6):
        print(f"  {ratio}x  {translator.generate(sentence, ratio=ratio)}")
    print()

# %% [markdown]
# 2x gets both right. At 6x the first sentence is broken, and everybody sees it. The second one is flawless English that leaves out the point: only those who can read the German notice. A score counts both as words that do not match.
#
# ## One kit, or several students?
#
# At 6x the kit loses a tenth of its BLEU. Would a model of that size lose less if it were trained *alone*? `benchmarks/versus.py` trained both, kits and **students** of four sizes: from the same original, with the same optimizer, each with the best of the learning rates that were tried for it on dev (the largest kit has that of a smaller one, and so have most of the largest students). Four
# students are four trainings, so there are two fair ways to compare:
#
# - **equal total**: the students share what the kit cost, a quarter for each;
# - **equal each**: each student costs as much as the whole kit, and so the four cost four times as much.
#
# A step of a small model costs less than one of a large model, so cost is counted in floating-point operations, not in steps. (These kits were trained for the comparison, on people's texts alone; the bundled one is another.)
#
# **How many points of BLEU is a 6x student ahead of the kit, at a quarter of the kit's cost? And at all of it?** (A negative number: the kit is ahead.)

# %%
guess_total = None  # the student's BLEU less the kit's, where the student had a quarter of the kit's cost
guess_each = None  # the same, where it had all of it

# %% tags=["nbval-check-output"]
from modtf.views.figures import versus_figure

comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
of_runs = {(row["method"], row["size"], row["cost"]): row for row in comparison["rows"] if row["seed"] == 0}
budget = sorted({cost for method, _, cost in of_runs if method == "kit"})[-2]  # the largest one that students had each
cost_of_student = {"equal_total": budget / 4, "equal_each": budget}
ahead = {account: of_runs["SFT", "6x", cost][account]["bleu"] for account, cost in cost_of_student.items()}
notebook.reveal("6x, SFT student less kit, BLEU, equal total", guess_total, ahead["equal_total"])
notebook.reveal("6x, SFT student less kit, BLEU, equal each", guess_each, ahead["equal_each"])

# %%
described(
    versus_figure(comparison, TRANSLATION.metrics[0]),
    "BLEU against the cost of training for the kit and seven other methods, in four sizes. At equal total cost the kit's line runs among the students'; where all cost little it is far above them at 6x and fast and just below them at 2x; at the largest cost it is below all others at 6x and fast. Where each student costs as much "
    "as the kit, the kit's line lies below all students'. LayerDrop's is below the kit's at 2x and above it at 6x and fast.",
)

# %% tags=["nbval-check-output"]
print(f"SFT students less the kit of {budget * comparison['unit_operations'] / 1e12:.0f} TFLOP, BLEU (95 % interval):")
for size in comparison["sizes"]:
    for account, cost in cost_of_student.items():
        if ("SFT", size, cost) in of_runs:
            difference = of_runs["SFT", size, cost][account]
            low, high = difference["bleu_interval"]
            print(f"  {size:4} {account.replace('_', ' '):11} {difference['bleu']:+.1f} ({low:+.1f} to {high:+.1f})")

# %% [markdown]
# Each column is a size, `fast` being a full encoder with one decoder layer; the dotted line is the original. The methods: *SFT* trains the student on people's texts, *KD* with the original's logits and hidden states in place of labels, *sequence-level KD* on texts that the original wrote; *Theseus* mixes the
# student's modules with original layers as it trains, without a teacher. All of these train modules alone, as a kit does. *SFT, all weights* also trains embeddings and original layers; *LayerDrop* trains the whole original while it skips layers at random, and is cut to size afterwards.
#
# In the upper row the kit is far ahead at 6x and `fast` where all cost little, then runs among the students that train modules alone, and ends a little below most of them (up to 2.3 points, which chance may explain): one training for all sizes is about as good as four that share its cost. In the lower row it falls behind, at 6x more than at 2x. So **a kit is the wrong choice for one size**: train that size alone; with all its weights, if the training is long (for a sixteenth of the largest budget that gains nothing over SFT). It pays
# where many sizes are wanted beside the original itself, or where nobody knows yet which one: here four assemblies are compared, and the kit has 196.
#
# Is that so on any task? On `pocket` BLEU does not tell the sizes of the bundled kit apart, so we count slot errors. Kits of its comparison learn from the original's texts, and so do two kinds of students. **At 6x the kit makes 1.7 % slot errors, at the largest budget. How many does a student make that learned the same way, for a quarter of the cost?**

# %%
guess_errors = None  # percent

# %% tags=["nbval-check-output"]
of_pocket = json.loads(bundled("pocket/versus.json").read_text(encoding="utf-8"))
largest = max(row["cost"] for row in of_pocket["rows"] if row["method"] == "kit")
at_equal_total = [row for row in of_pocket["rows"] if row["total"] == largest and not row["seed"]]
slot_errors = {(row["method"], row["size"]): row["mean"]["ser"] for row in at_equal_total}
notebook.reveal("6x, slot errors of a student, in percent", guess_errors, slot_errors["sequence-level KD", "6x"])
print(f"Slot errors in %, all sizes for {largest * of_pocket['unit_operations'] / 1e12:.0f} TFLOP:")
print(pd.Series(slot_errors).unstack()[list(of_pocket["sizes"])].round(1).to_string(na_rep=""))
print("Students that learned the same way less the kit (95 % interval):")
for row in at_equal_total:
    if row["method"] == "sequence-level KD":
        low, high = row["equal_total"]["ser_interval"]
        print(f"  {row['size']:4} {row['equal_total']['ser']:+.1f} ({low:+.1f} to {high:+.1f})")

# %% [markdown]
# *Sequence-level KD* is the kit's own way: the original's texts without slot errors, by labels alone. Its students are ahead at 3x. At 6x and *fast* (here with two decoder layers) the intervals hold zero, and at 2x both hardly err. *KD*, here labels and logits on the same texts, is level with the kit. So one training for all sizes stands beside four that share its cost, here, too.
# Fine-tuned students (*SFT*) learned from what *people* wrote, and make several times as many errors as those of sequence-level KD.
# How a kit is trained matters as much. The first ones of this comparison also had the original's logits, and twice the learning rate; at the largest budget they made 3 to 5 % slot errors, and lost to sequence-level KD at every size. (Logits need a teacher at each step, so the same cost pays for half the steps.) The scores on dev said which way is better. But a kit that was changed *because* it lost has had one chance more than the students: keep that in mind when you read such a table.
#
# ## Measuring time
#
# Time is harder than quality: the same work takes another time at each run. We take eight assemblies that have not run yet, and let each write the same sentence
# 13 times. To see them together, each time is divided by the median of that assembly's later runs.

# %%
fresh = [modular.choose(ratio, "speed_first") for ratio in (1.41, 1.5, 1.6, 1.71, 1.85, 2, 2.4, 3)]
relative = []
for assembly in fresh:
    times = []
    for _ in range(13):
        begun = time.perf_counter()
        modular.generate(sources[0], assembly=assembly)
        times.append(time.perf_counter() - begun)
    relative.append(np.array(times) / statistics.median(times[1:]))

first, later = np.array(relative)[:, 0], np.array(relative)[:, 1:].ravel()
summary = {"median": np.median(later), "mean": later.mean(), "p95": np.percentile(later, 95), "slowest": later.max()}
print(f"first runs, the middle one of the eight: {np.median(first):.2f} times the median of later ones")
print("later runs:", ", ".join(f"{name} {value:.2f}" for name, value in summary.items()))

figure = go.Figure()
for number, values in enumerate(np.array(relative).T, start=1):
    color = "#cc4e94" if number == 1 else "#3b8fd0"
    figure.add_scatter(x=[number] * len(values), y=values, mode="markers", marker={"color": color, "size": 8}, showlegend=False)
for name in ("median", "p95"):
    figure.add_hline(y=summary[name], line={"color": "#888888", "dash": "dot"}, annotation_text=name, annotation_position="top left")
figure.update_layout(template="plotly_white", title="The same sentence, 13 times, by eight assemblies", height=360)
figure.update_xaxes(title="run", dtick=1).update_yaxes(title="time / median of later runs", rangemode="tozero")
described(
    figure,
    f"The times of 13 runs of eight assemblies, each over the median of its later runs. The middle first run took {np.median(first):.2f} times that median; "
    f"of the later ones, one in twenty took more than {summary['p95']:.2f} times.",
)

# %% [markdown]
# - **Warm up.** The first run also assembled the model and laid out its weights; later ones need not. Leave it out, or say that it is in.
# - **Median**, not mean: one run that met a busy machine moves the mean, but hardly the median.
# - **p95** is the time that 19 of 20 runs stay below. The median says how fast the model is, the p95 how long a user sometimes waits. Show both.
# - **The same work.** A model that writes less is done earlier. So everything below writes exactly 32 tokens a text, whatever the model wants.
#
# ### Exercise 5.3
# Write `median_ms(run, repeats)`: call `run()` once to warm up, then `repeats` times with a clock, and give back the median in milliseconds.


# %% tags=["exercise"]
def median_ms(run, repeats: int) -> float:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint 1</summary>
#
# `time.perf_counter()` gives seconds, from an arbitrary zero: only differences mean something.
# </details>
#
# <details><summary>Hint 2</summary>
#
# Collect the times in a list; `statistics.median` does the rest.
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
    naps = iter([0.3, 0.004, 0.2, 0.004, 0.004, 0.004, *[0.004] * 50])  # a slow start, and one run that met a neighbour
    calls = []
    given = median_ms(lambda: (calls.append(1), time.sleep(next(naps))), 5)
    assert given is not None, "median_ms(run, 5) gives nothing back yet"
    assert len(calls) == 6, f"with 5 repeats, run() should be called 6 times (one warms up); yours called it {len(calls)} times"
    assert given > 1, f"a run of about 4 ms gave {given:.4g}; is that seconds?"
    assert given < 30, (
        f"four of the five runs took about 4 ms each, but yours says {given:.0f}; is the warm-up among them, or is it the mean?"
    )

# %% [markdown]
# ### Take turns
#
# The median does not help against a machine that changes *while* you measure. Watch a comparison go wrong: we time the **same model** under two names, A and B. In the middle of
# it a neighbour arrives, another thread that wants to work now and then. On the left, first all of A, then all of B. On the right, A and B take turns.


# %%
@contextmanager
def neighbour():
    """Keeps this Python busy for some milliseconds, again and again."""
    leave = threading.Event()

    def work() -> None:
        while not leave.wait(0.004):
            sum(range(200_000))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        leave.set()
        thread.join()


def writing(assembly: modtf.Assembly, texts: list[str], engine: str = LOOP):
    """A run that writes exactly 32 tokens for each text."""
    ids, mask = modular.encode(texts).values()
    return partial(decode, modular.assembled(assembly), ids, mask, max_new_tokens=32, exactly=True, engine=engine)


run = writing(smallest, sources[:1])
first = in_turns({"A": run}, 24)
with neighbour():
    blocks = first | in_turns({"B": run}, 24)

turns = in_turns({"A": run, "B": run}, 12)
with neighbour():
    turns = {name: turns[name] + more for name, more in in_turns({"A": run, "B": run}, 12).items()}

figure = go.Figure()
for color, name, offset in (("#3b8fd0", "A", 0), ("#e07b1a", "B", 24)):
    figure.add_scatter(x=[offset + i for i in range(24)], y=blocks[name], mode="markers", marker={"color": color}, name=name)
    figure.add_scatter(
        x=[56 + 2 * i + (name == "B") for i in range(24)], y=turns[name], mode="markers", marker={"color": color}, showlegend=False
    )
for arrival in (23.5, 79.5):
    figure.add_vline(x=arrival, line={"color": "#888888", "dash": "dot"}, annotation_text="a neighbour arrives")
figure.update_layout(template="plotly_white", title="One model, two names: one after the other, and in turns", height=360)
figure.update_xaxes(tickvals=[24, 80], ticktext=["one after the other", "in turns"], showgrid=False).update_yaxes(
    title="ms", rangemode="tozero"
)
apart = statistics.median(blocks["B"]) / statistics.median(blocks["A"])
together = statistics.median(b / a for a, b in zip(turns["A"], turns["B"], strict=True))
print(f"B takes {apart:.2f} times as long as A: one after the other\nB takes {together:.2f} times as long as A: in turns, turn by turn")
described(
    figure,
    f"Times of the same model under two names. One after the other, B meets the neighbour and A does not: B takes {apart:.2f} times as long. In turns both meet it, and "
    f"B takes {together:.2f} times as long as A.",
)

# %% [markdown]
# In turns, both meet the same machine at almost the same moment, and their *ratio* survives what their milliseconds do not. That is the same trick as with the inputs
# above: compare on the same inputs, and at the same moment. `modtf.evaluation.in_turns` does it, with a warm-up; the table was measured with it.
#
# ## How fast is 6x?
#
# One sentence at a time, or 32 at once? **How many times as fast is 6x as 1x, for one sentence, and for a batch of 32?** Write two guesses.

# %%
guess_one = None  # times as fast, for one sentence
guess_batch = None  # times as fast, for a batch of 32

# %% [markdown]
# Two engines write: modtf's own greedy **loop**, and transformers' **generate**. First of all: do they write the same?

# %% tags=["nbval-check-output"]
for shape, assembly in (("12-12", original), ("2-2", smallest)):
    for texts in (sources[:1], sources[:32]):
        ours, theirs = (writing(assembly, texts, engine)()[0] for engine in (LOOP, GENERATE))
        print(f"{shape:5} {len(texts):2} texts, the same tokens:", torch.equal(ours, theirs))

# %% [markdown]
# The same tokens. So only the time differs:

# %%
ENGINES, SHAPES = (LOOP, GENERATE), {"1x": original, "6x": smallest}
measured = {}
for texts, repeats in ((1, 9), (32, 4)):
    runs = {(ratio, engine): writing(assembly, sources[:texts], engine) for ratio, assembly in SHAPES.items() for engine in ENGINES}
    measured |= {(texts, *key): Latency(tuple(times), 32 * texts) for key, times in in_turns(runs, repeats).items()}

record = by_layers["2-2"]
in_table = {(1, LOOP): record["speed_up"], (1, GENERATE): record["generate"]["speed_up"], (32, LOOP): record["batch_speed_up"], (32, GENERATE): record["generate"]["batch_speed_up"]}  # fmt: skip
faster, lines = {}, []
for (texts, engine), before in in_table.items():
    full, small = measured[texts, "1x", engine], measured[texts, "6x", engine]
    faster[texts, engine] = full.median_ms / small.median_ms
    lines.append({
        "texts": texts, "engine": engine, "1x: median ms": round(full.median_ms), "p95": round(full.p95_ms), "6x: median ms": round(small.median_ms),
        "p95 ": round(small.p95_ms), "times as fast": round(faster[texts, engine], 2), "in the table": before, "6x: tokens/s": round(small.tokens_per_second),
    })  # fmt: skip
print(pd.DataFrame(lines).to_string(index=False))
print("(of so few runs, the p95 is the slowest one)\n")
notebook.reveal("6x, one sentence, loop: times as fast", guess_one, faster[1, LOOP])
notebook.reveal("6x, batch of 32, loop: times as fast", guess_batch, faster[32, LOOP])

# %% [markdown]
# What was measured now differs from the table: another machine or other neighbours, and few runs. That is why every speed needs its machine, its engine and its batch
# beside it. In the table, `generate` gains less from taking layers away: it does much in Python for each token, whatever the layers, and what is not done in layers
# does not shrink with them. The loop does little besides. A batch shares that work among its texts: look at the tokens per second.
#
# How much the engine matters, from the table, one sentence of 32 tokens:

# %% tags=["nbval-check-output"]
for shape in ("12-12", "2-2"):
    row = by_layers[shape]
    engines = {"generate": row["generate"], "loop": row, **{f"CTranslate2 {name}": record for name, record in row["ctranslate2"].items()}}
    same = f"{100 * row['ctranslate2']['int8']['same_text']:.0f} % of the texts in int8 are the loop's"
    print(f"{shape:5}", " · ".join(f"{name} {record['latency_ms']['median']:.1f} ms" for name, record in engines.items()), f"({same})")
print("\nmeasured on:", table["machine"], "· threads:", table["threads"])

# %% [markdown]
# The full model in a compiled engine with 8-bit weights takes about as long as the smallest assembly in the loop. Before you compress, look at what runs the model; then
# do both: most of each gain is left beside the other. (8-bit weights change some texts: they, too, need their SER measured.) A speed-up counts against the best that was there before, not
# against the slowest engine at hand.
#
# ## Play: race, sweep, measure
#
# In the explorer below, set the ratio to 6x, then
#
# 1. press **race**: both texts appear token by token, each as fast as it was written. Who is done first, and does it say everything?
# 2. press **sweep**: one input at every ratio. Where is the first slot lost? Then press **another restaurant**, and sweep again: is it the same slot?
# 3. press **measure this assembly** for 30 inputs, then for 300. Which of the two numbers would you show to somebody? Switch BLEU between *people's texts* and *the full
#    model's texts*: which of them has a point for what you measured, and why?

# %%
modtf.explore(modular)

# %% [markdown]
# ## In five lines
#
# 1. BLEU asks whether a text sounds like the references. It hardly sees what is missing or turned around: show the SER beside it.
# 2. A score belongs to its yardstick and to its task: BLEU against people's texts and BLEU against the original's own are two questions, and a ratio that costs no BLEU on `pocket` costs some on `translator`.
# 3. Layers, parameters and time have ratios of their own; a speed-up belongs to one machine, one engine and one batch size.
# 4. Before you believe a difference, resample the inputs: if zero is in the interval, these inputs do not show it.
# 5. Warm up, write the same number of tokens, take turns, show median and p95.
#
# <!-- footer -->
# [← 4 · Assembly](4_assembly.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [7 · Your own model →](7_your_own_model.ipynb)
# <!-- end of footer -->
