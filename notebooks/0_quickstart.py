# %% [markdown]
# # 0 · Quickstart
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/0_quickstart.ipynb) · runs in 0.5 minute on two CPU cores · about 20 minutes to work through
#
# [index](README.md) · [glossary](README.md#glossary) · [1 · Layer mapping →](1_layer_mapping.ipynb)
# <!-- end of header -->
#
# *One model, trained once, that you can slide to any size. What does it lose on the way?*
#
# **You will be able to**
# - open the explorer and slide a model from 1x to 6x;
# - let any size write, in one line of Python;
# - show why a high BLEU does not prove that a text is true.
#
# **You need** nothing but curiosity. (It helps to have heard that a transformer consists of layers.)

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %% [markdown]
# ## Three cells to the explorer
#
# `translator` is a BART that comes with the package: 6 encoder and 6 decoder layers, the *originals*, which translate short German sentences into English. (You need no German: the translation of the *full model*, all originals at 1x, always stands beside the small one's.) Beside them it has
# **modularized layers**, each of which has learned to do the work of 2, 3 or all 6 originals. All modularized layers together are the *kit*.

# %%
import modtf

translator = modtf.load("translator")

# %% [markdown]
# Two questions before you slide. **BLEU** counts the words and word groups that a text shares with people's texts, 0 to 100, high is good. **What percentage of the full model's BLEU will be left with half of the layers (2x)? And with a sixth (6x)?** Write your guesses into
# the cell and run it. And the explorer opens at 2x, with a sentence that says *Although it was cold, he wore no coat*. One small word decides whether he did, and 2x loses it: **will 3x, which is smaller still, lose it too?** Marks and scores are hidden until you ask for them, so look.

# %%
guess_two = None  # percent of the full model's BLEU that 2x keeps
guess_six = None  # percent that 6x keeps

# %%
modtf.explore(translator, quiet=True)

# %% [markdown]
# Try this first:
#
# 1. **Slide the ratio** to 6x and back. The small model's text changes in your hand: which ratios have the small word?
# 2. Press **show the scores**: words that differ are marked, and times, shares and a curve appear. Then let both models **race**.
# 3. Press **sweep**: one sentence, translated at every ratio. Once a word is lost, does it stay lost at every higher ratio?
# 4. Change the *strategy*, the rule that says which layers go, to **speed first**. Which stack shrinks now?
# 5. **Click a block** to split it, or between two blocks to merge them: you just built a model by hand.
# 6. Choose another sentence from the menu, or type one. (The translator learned from short everyday sentences. Give it a line from a newspaper, and even the full model stumbles.)
#
# <details><summary>Answers</summary>
#
# The word is *not*. 2x and 6x lose it, and 3x keeps it: one sentence says little about a size. Speed first shrinks the decoder.
# </details>
#
# ## The same in Python
#
# The ratio counts layers: 12 layers in place of 12 are 1x, 2 in place of 12 are 6x.

# %% tags=["nbval-check-output"]
sentence = "Obwohl sie müde war, arbeitete sie bis Mitternacht."  # Although she was tired, she worked until midnight.
for ratio in (1, 2, 3, 6):
    print(f"{ratio}x  {translator.choose(ratio)}\n    {translator.generate(sentence, ratio=ratio)}\n")

# %% [markdown]
# 2x writes what the full model writes, and 3x begins with other words that say the same. 6x is still English, but one fact is gone: nobody is tired any more.
#
# ## How much is kept?
#
# One sentence is an anecdote. The bundled table holds the scores of each size on the 2,343 sentences of a test set, against what people wrote for them: BLEU, and chrF2, which counts groups of letters in place of words. Each line is a strategy: *size first* shrinks both stacks evenly, *speed first* the decoder first, since it runs once for every token, and *quality first* takes, of each number of layers, the assembly with the least loss on texts held out for that (which need not be the one with the fewest slot errors, [below](#what-a-number-hides)).

# %% tags=["nbval-check-output"]
import json

from modtf.bundled import bundled
from modtf.tasks import TRANSLATION
from modtf.views import notebook


def measured(model: str) -> list[dict]:
    return [row for row in json.loads(bundled(f"{model}/table.json").read_text())["rows"] if row["trained"]]


def at(rows: list[dict], ratio: float) -> dict:
    return next(row for row in rows if row["strategy"] == "size_first" and row["wanted_ratio"] == ratio)


of_translator = measured("translator")
notebook.reveal("BLEU that 2x of translator keeps (%)", guess_two, at(of_translator, 2)["bleu_kept"])
notebook.reveal("BLEU that 6x of translator keeps (%)", guess_six, at(of_translator, 6)["bleu_kept"])

# %%
from modtf.views.figures import described, quality_curve

look = {"template": "plotly_white", "height": 390, "margin": {"l": 50, "r": 20, "t": 80, "b": 100}}
kept = ", ".join(f"{at(of_translator, ratio)['bleu_kept']} percent at {ratio}x" for ratio in (1.5, 2, 3, 4, 6))
described(
    quality_curve(of_translator, TRANSLATION.metrics, against="ratio"),
    f"Two panels over the compression ratio from 1 to 6, a line for each strategy: BLEU kept and chrF2 kept. Both fall. Size first keeps of the BLEU {kept}.",
    title="translator: what each size keeps",
    **look,
)

# %% [markdown]
# **This is the figure to remember**: one training, one set of weights, and a price for each size. With size first, half of the layers can go for 3 % of the BLEU; four more cost another 6 %. (The axes begin near 90 %. The lines are not smooth: differences of less than about 1.5 points may be chance.) A high share of BLEU does not prove that each sentence is right: look at your own.
#
# ## What a number hides
#
# The package has a second model. `pocket` is a small T5 of 12 + 12 layers that turns facts about a restaurant into a description, from 1x to 6x as well:

# %% tags=["nbval-check-output"]
pocket = modtf.load("pocket")
facts = "name[The Plough], eatType[pub], food[Italian], priceRange[more than £30], customer rating[average], area[city centre], familyFriendly[yes], near[Café Rouge]"
for ratio in (1, 2, 3, 6):
    print(f"{ratio}x  {pocket.choose(ratio)}\n    {pocket.generate(facts, ratio=ratio)}\n")

# %% [markdown]
# Read the last one again: it is fluent, and it is not true to the facts. **The price is gone.** A *slot* is one kind of fact (name, food, price …), and a slot matcher finds which of them a text says:

# %% tags=["nbval-check-output"]
from modtf.tasks.e2e import check, parse_mr

for ratio in (1, 2, 3, 6):
    report = check(parse_mr(facts), pocket.generate(facts, ratio=ratio))
    print(f"{ratio}x  said {len(report.said)} of 8 facts, missed: {', '.join(report.missed) or 'none'}")

# %% [markdown]
# One text is an anecdote. Which facts go missing in 100?

# %%
from collections import Counter

from modtf.evaluation import write_texts
from modtf.tasks import E2E

sources = [example.source for example in E2E.bundled_examples("evaluation")[:100]]
for ratio in (1, 2, 6):
    texts = write_texts(pocket, pocket.choose(ratio), sources)
    missed = Counter(slot for source, text in zip(sources, texts, strict=True) for slot in check(parse_mr(source), text).missed)
    print(f"{ratio}x misses:", ", ".join(f"{slot} {count} times" for slot, count in missed.most_common()))

# %% [markdown]
# The full model misses most. Its weak spot is the price, and it was the kit's, too, since the kit had learned from the full model's texts. So in a last part of its training the kit saw only those texts that say everything: **a kit need not repeat the faults of the model that taught it**. What 6x
# still loses is the price. (These are random inputs, half of them long, and harder than those of the public test set below.)
#
# The table of `pocket` was measured on the 630 inputs of a public test set (E2E NLG, 2017). **SER**, the slot error rate, is the share of facts that a text misses, gets wrong, repeats or adds: low is good.
#
# **What percentage of the full model's BLEU does 6x keep here? And how many slot errors does it make for each one of the full model?**

# %%
guess_bleu = None  # percent of the full model's BLEU that 6x keeps
guess_errors = None  # slot errors of 6x for each one of the full model

# %% tags=["nbval-check-output"]
of_pocket = measured("pocket")
full, small = at(of_pocket, 1), at(of_pocket, 6)
notebook.reveal("BLEU that 6x of pocket keeps (%)", guess_bleu, 100 * small["bleu"] / full["bleu"])
notebook.reveal("slot errors of 6x of pocket for each one of 1x", guess_errors, small["ser"] / full["ser"])

# %%
described(
    quality_curve(of_pocket, E2E.metrics, against="ratio"),
    "Two panels over the compression ratio from 1 to 6, a line for each strategy. Left: the BLEU kept stays at about 100 percent everywhere. Right: the slot error rate is "
    f"{full['ser']} percent at 1x, falls to {min(row['ser'] for row in of_pocket)} at 2x of size first, and rises again where the decoder has two layers, to {small['ser']} percent at 6x.",
    title="pocket: BLEU and slot errors of each size",
    **look,
)

# %% [markdown]
# Both panels show the same models on the same texts (the left axis begins at 90 %). By BLEU nothing happens at all: this task is so narrow that a model with a sixth of the layers shares as many words with people's texts as the full one. The slot
# errors tell the other half of the story: they fall far below the full model's, and rise again as the decoder gets smaller, most where it has two layers left. (Size first shrinks both stacks alike and gets there at 6x; speed first takes layers from the decoder first, and is there before 2x.) Whoever looks at one number
# sees one half.
#
# ### Exercise 0.1
# Describe a restaurant of your own, with at least six facts. (Names that `pocket` was trained with are The Plough, The Golden Fox or Chez Marie; places nearby, Café Rouge or The Bakers. Give it Luigi, and even the full model stumbles. `modtf.explore(pocket)` shows what the other slots can say.) The goal: 6x says
# **everything**, once.

# %% tags=["exercise"]
my_facts = None  # for example "name[...], eatType[pub], food[...]"

# %% [markdown]
# <details><summary>Hint</summary>
#
# Which kind of fact does 6x lose most? Choose your six without it. If it says another fact twice, leave that one out.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# my_facts = "name[The Golden Fox], eatType[restaurant], food[Italian], area[city centre], familyFriendly[yes], near[The Bakers]"
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("0.1"):
    assert my_facts is not None, "my_facts is still None; write a text such as name[The Golden Fox], eatType[pub], food[Thai]"
    assert isinstance(my_facts, str), f"my_facts should be a text in quotes, not {my_facts!r}"
    assert len(parse_mr(my_facts)) >= 6, f"you gave {len(parse_mr(my_facts))} facts; at least six are wanted"
    text = pocket.generate(my_facts, ratio=6)
    report = check(parse_mr(my_facts), text)
    faults = [f"{slot} is {kind}" for kind in ("missed", "wrong", "repeated", "added") for slot in getattr(report, kind)]
    assert not faults, f"6x wrote {text!r}: {', '.join(faults)}"

# %% [markdown]
# ### Exercise 0.2
# Build a model by hand. Smallest of all, `encoder 6 | decoder 6`, forgot that she was *tired*. Write an assembly of `translator` with **at most three layers** that remembers: `modtf.Assembly(encoder, decoder)`, with two tuples of granularities that cover six layers each. `(1,) * 6` are six originals, `(2, 2, 2)` three modules that do the work of two each.

# %% tags=["exercise"]
my_model = None  # for example modtf.Assembly((6,), (6,))

# %% [markdown]
# <details><summary>Hint</summary>
#
# A module is there for 2, 3 or all 6 layers. One stack can have one module, the other one two.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# my_model = modtf.Assembly((3, 3), (6,))
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("0.2"):
    assert my_model is not None, "my_model is still None; write modtf.Assembly(encoder, decoder), with two tuples"
    assert my_model.layers <= 3, f"{my_model} has {my_model.layers} layers; at most three are wanted"
    text = translator.generate(sentence, assembly=my_model)
    assert "tired" in text, f"{my_model} writes {text!r}: nobody is tired"

# %% [markdown]
# ## Take it away
#
# An assembly is an ordinary Hugging Face model. Saved, it loads without modtf:
#
# ```python
# translator.export("translator-3x", translator.choose(ratio=3))   # with its tokenizer
#
# from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
# small = AutoModelForSeq2SeqLM.from_pretrained("translator-3x")
# ```
#
# ## Where to go from here
#
# - *How does one layer stand for six?* [1](1_layer_mapping.ipynb) says which, [2](2_module_replacement.ipynb) and [3](3_distillation.ipynb) how it learns that.
# - *How is a model assembled, and where does the time go?* [4](4_assembly.ipynb).
# - *Can I trust these numbers?* [5](5_quality_and_speed.ipynb).
# - *I have a model of my own.* [7](7_your_own_model.ipynb).
#
# > **In the paper** (Zhou, Le Bras, Choi, Findings of ACL 2023): models of any ratio from 1.1x to 6x after one training phase, for T5-base and T5-large. Its results are on other
# > tasks and models than ours; what is shown here was measured on `translator` and `pocket`.
#
# ## References
#
# - Zhou, Le Bras, Choi: [Modular Transformers: Compressing Transformers into Modularized Layers for Flexible Efficient Inference](https://arxiv.org/abs/2306.02379), Findings of ACL 2023. The method.
# - Raffel and others: [Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer](https://arxiv.org/abs/1910.10683), JMLR 2020. T5.
# - Lewis and others: [BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation, Translation, and Comprehension](https://arxiv.org/abs/1910.13461), ACL 2020.
# - Novikova, Dušek, Rieser: [The E2E Dataset: New Challenges For End-to-End Generation](https://arxiv.org/abs/1706.09254), SIGDIAL 2017. The restaurants.
#
# ## In five lines
#
# 1. `modtf.load("translator")` and `modtf.explore(translator)`: a model with a slider.
# 2. The ratio counts layers, 2 in place of 12 at 6x; each size shares its weights with the full model.
# 3. `translator.generate(sentence, ratio=6)` writes, `translator.export` saves a plain Hugging Face model.
# 4. How much a ratio costs depends on the task: translation loses up to 10 % of its BLEU, descriptions of restaurants none.
# 5. Small models stay fluent. The slot error rate shows missing facts; BLEU often does not. And a kit need not repeat the faults of the model that taught it.
#
# <!-- footer -->
# [index](README.md) · [glossary](README.md#glossary) · [1 · Layer mapping →](1_layer_mapping.ipynb)
# <!-- end of footer -->
