# %% [markdown]
# # 3 · Distillation
# <!-- header -->
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/modtf/modtf/blob/main/notebooks/3_distillation.ipynb) · runs in 2 minutes on two CPU cores · about 35 minutes to work through
#
# [← 2 · Module replacement](2_module_replacement.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [4 · Assembly →](4_assembly.ipynb)
# <!-- end of header -->
#
# *The original stands right beside its modules during the training. What can it teach them, layer by layer?*
#
# **You will be able to**
# - name three teachers inside a transformer: hidden states, attention maps, and the probabilities of the next token;
# - say at which of the original's layers a module is compared with it, and see in a heatmap whether it has learned its place;
# - write two of the losses yourself;
# - judge what each loss adds, from trainings with it alone and without it.
#
# **You need** [notebook 2](2_module_replacement.ipynb): how replacing trains modules, and what a path of a training step is.

# %% tags=["install"]
import importlib.util

if importlib.util.find_spec("modtf") is None:  # on Colab; nothing that is there gets upgraded
    get_ipython().run_line_magic("pip", "install --quiet https://github.com/modtf/modtf/archive/refs/heads/main.zip")
    if importlib.util.find_spec("modtf") is None:
        print("modtf could not be installed. Is there a network? The stored outputs can be read without.")

# %%
import inspect
import json
import time

import ipywidgets as widgets
import pandas as pd
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

import modtf
from modtf import distillation
from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.evaluation import measure_quality
from modtf.mapping import boundaries
from modtf.tasks import E2E
from modtf.tasks.batches import TaskBatches
from modtf.training.batches import encode_sources_once
from modtf.views import notebook
from modtf.views.figures import described, paths_figure

torch.set_num_threads(1)
torch.manual_seed(0)
pocket = modtf.load("pocket")
set_attention(pocket.model, "eager")  # the only attention that gives its maps out
untrained = modtf.modularize(pocket.assemble(), (2, 3, 4, 6), tokenizer=pocket.tokenizer)  # the same original, new modules
for modular in (pocket, untrained):
    encode_sources_once(modular.model)  # a batch holds each source once, however many texts were written for it
pairs = E2E.bundled_examples("pairs")

# %% [markdown]
# ## Three things that the original knows
#
# With replacing alone, a module hears one thing: how likely was the right token, at the very end. But the original, which stands beside it, has an opinion at every layer and
# on every token:
#
# | teacher | what it says | compared by |
# |---|---|---|
# | **hidden states** | what each layer should have made of the text | squared error, relative to the state's size |
# | **attention maps** | which tokens each head should look at | squared distance of the maps |
# | **logits** | how probable *each* next token is, not only the right one | Kullback-Leibler divergence |
#
# Distillation lets the modules copy these. It costs one more pass through the original for each step; no second copy of the model, since the original is a path of the same modular model.
#
# > **In the paper** (abstract): distillation of *attention and hidden states*. That hidden states and maps are compared by squared errors, and the logits' loss, are our choice.
#
# ## Hidden states: who is to be like whom?
#
# A module m(2, 3) stands for the original layers 6 and 7. So what comes *out* of it should be what comes out of layer 7. In general, each layer of a path is compared with the original at the layer where
# its piece of work **ends**: at the path's boundaries.

# %%
path = (1, 1, 2, 2, 6)
figure = paths_figure({"path": path, "original": (1,) * 12}, "Each block is compared with the original where it ends")
for end in boundaries(path):
    figure.add_annotation(
        x=end - 0.08,
        y="original",
        ax=end - 0.08,
        ay="path",
        axref="x",
        ayref="y",
        arrowhead=2,
        arrowwidth=2,
        arrowcolor="#cc4e94",
        showarrow=True,
    )
described(
    figure,
    "The path 1·1·2·2·6 above the twelve original layers. An arrow goes from the end of each block to the original layer above which it ends: 0, 1, 3, 5 and 11.",
)

# %% [markdown]
# ### Exercise 3.1
# Write `teacher_layers(path)`: for each layer of a path, the number of the original layer (from 0) whose output it should give.


# %% tags=["exercise"]
def teacher_layers(path: tuple[int, ...]) -> list[int]:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# How many original layers are done after each layer of the path? The last of them is the one.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def teacher_layers(path: tuple[int, ...]) -> list[int]:
#     done, layers = 0, []
#     for g in path:
#         done += g
#         layers.append(done - 1)
#     return layers
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.1"):
    assert teacher_layers((6, 6)) is not None, "teacher_layers((6, 6)) gives nothing back yet"
    assert list(teacher_layers((6, 6))) == [5, 11], (
        f"m(6, 0) ends with layer 5 and m(6, 1) with layer 11; yours says {teacher_layers((6, 6))}"
    )
    assert list(teacher_layers((1, 1, 2, 2, 6))) == [0, 1, 3, 5, 11], (
        f"look at the figure's arrows: {teacher_layers((1, 1, 2, 2, 6))} is not where they point"
    )

# %% [markdown]
# Does training put modules in their place? We let original and modules read the same texts, `record` what every layer gives, and compare *each* module with *each* original layer. The measure is the loss itself:
# squared error relative to the size of the original's state. 0 is the same, 1 is as wrong as saying nothing.
#
# **Before you look:** new modules are copies of the first layer of their group. Which original layer will an untrained m(2, 3) be most like: 6 or 7?

# %%
guess_layer = None  # the original layer that an untrained m(2, 3) of the decoder is most like

# %%
batch = TaskBatches(E2E, pairs, pocket.tokenizer, steps=1, batch_size=16, seed=3)[0]
kept = {"encoder": batch["attention_mask"].bool(), "decoder": batch["labels"] != -100}  # tokens that are no padding


def states(modular: modtf.ModularModel, assembly: modtf.Assembly) -> dict[str, list[torch.Tensor]]:
    """What each layer of both stacks gives, (tokens, d_model)."""
    with torch.no_grad(), modular.record(assembly) as (encoder, decoder):
        modular(assembly, **batch)
    return {stack: [state[kept[stack]] for state in of_stack.hidden] for stack, of_stack in (("encoder", encoder), ("decoder", decoder))}


teacher = states(pocket, pocket.mapping.original)


def distances(modular: modtf.ModularModel, g: int, stack: str) -> torch.Tensor:
    """(modules, original layers): the relative squared error between each module's output and each original layer's."""
    student = states(modular, modtf.Assembly((g,) * (12 // g), (g,) * (12 // g)))[stack]
    return torch.tensor([[((s - t).square().mean(-1) / t.square().mean(-1)).mean() for t in teacher[stack]] for s in student])


def heatmaps(g: int, stack: str):
    """Untrained and trained modules side by side; a dot where a module should be, a circle where it is."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=("untrained", "trained"), shared_yaxes=True, horizontal_spacing=0.06)
    for column, modular in enumerate((untrained, pocket), start=1):
        error = distances(modular, g, stack)
        names = [f"m({g}, {j})" for j in range(len(error))]
        figure.add_heatmap(
            z=error.log10(), y=names, customdata=error, zmin=-2, zmax=0.5, colorscale="Blues_r", showscale=column == 2, row=1, col=column,
            hovertemplate="%{y} against layer %{x}: %{customdata:.2f}<extra></extra>",
            colorbar={"title": "error", "tickvals": [-2, -1, 0], "ticktext": ["0.01", "0.1", "1"]},
        )  # fmt: skip
        figure.add_scatter(
            x=error.argmin(1), y=names, mode="markers", name="most like", marker={"symbol": "circle-open", "size": 16, "color": "#cc4e94", "line": {"width": 2}}, row=1, col=column, showlegend=column == 1
        )  # fmt: skip
        figure.add_scatter(
            x=[end - 1 for end in boundaries((g,) * (12 // g))], y=names, mode="markers", name="stands for", marker={"size": 7, "color": "#e07b1a"}, row=1, col=column, showlegend=column == 1
        )  # fmt: skip
    figure.update_layout(template="plotly_white", height=190 + 40 * (12 // g), legend={"orientation": "h", "y": -0.3})
    figure.update_xaxes(title="original layer", dtick=1, range=[-0.5, 11.5], showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


described(
    heatmaps(2, "decoder"),
    "Two heatmaps of six modules of the decoder against twelve original layers, dark where they are alike. Untrained, the darkest place of each module lies to the left of where it should be: at the first layer of its "
    "group, or about there. Trained, the dark places form a staircase, each at the last layer that the module stands for.",
)

# %%
notebook.reveal("the layer that an untrained m(2, 3) is most like", guess_layer, float(distances(untrained, 2, "decoder")[3].argmin()))
print("trained:", int(distances(pocket, 2, "decoder")[3].argmin()))

# %% [markdown]
# **This is the figure to remember.** Each row is a module, the orange dot is where it should be, the circle where it is. Training has moved every module to its place: half of the layers take the same way as all of
# them, in steps twice as long. Look at the others:

# %%
notebook.play(
    heatmaps,
    g=widgets.SelectionSlider(options=[2, 3, 4, 6], value=2, description="granularity"),
    stack=widgets.ToggleButtons(options=["encoder", "decoder"], value="decoder", description="stack"),
)

# %% [markdown]
# ### Exercise 3.2
# Write that loss for one pair of states: `hidden_error(student, teacher)`, both (tokens, d_model). For each token the mean squared difference, divided by the mean square of the teacher's state; then the mean over tokens.


# %% tags=["exercise"]
def hidden_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# `x.square().mean(-1)` is the mean square of each token. Divide first, then take the mean over tokens: each token counts alike, however large its state.
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def hidden_error(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
#     return ((student - teacher).square().mean(-1) / teacher.square().mean(-1)).mean()
# ```
# </details>

# %% tags=["check", "nbval-check-output"]
with notebook.check("3.2"):
    one, other = (
        torch.randn(5, 8, generator=torch.Generator().manual_seed(1)),
        torch.randn(5, 8, generator=torch.Generator().manual_seed(2)) * torch.arange(1, 6)[:, None],
    )
    assert hidden_error(one, other) is not None, "hidden_error gives nothing back yet"
    assert hidden_error(one, one) == 0, f"a state is at distance 0 from itself, not {hidden_error(one, one)}"
    assert abs(hidden_error(torch.zeros(5, 8), other) - 1) < 1e-6, (
        f"a student that says nothing (all zeros) has an error of 1, not {hidden_error(torch.zeros(5, 8), other):.3f}: relative to what?"
    )
    library = distillation.hidden_loss([one[None]], [other[None]], torch.ones(1, 5, dtype=torch.bool))
    assert abs(hidden_error(one, other) - library) < 1e-5, (
        f"modtf's own loss is {library:.4f} here, yours {hidden_error(one, other):.4f}: do you divide token by token?"
    )

# %% [markdown]
# ## Attention maps: where to look
#
# An attention map says for each token (a row) how much it looks at each other (a column); each head of a layer has its own. Cross-attention is the most telling: which fact does the decoder look at when it writes a
# word? m(2, 2) began as a copy of layer 4, and its output is to be that of layer 5. **Whose heads does it have now, after training?**

# %%
example = E2E.bundled_examples("evaluation")[2]
text = {**pocket.encode([example.source]), "labels": pocket.tokenizer(example.references[0], return_tensors="pt")["input_ids"]}
KINDS = ("encoder, self", "decoder, self", "decoder, cross")


def maps_of(modular: modtf.ModularModel, assembly: modtf.Assembly) -> dict[str, list[torch.Tensor]]:
    """The attention maps of each layer, (1, heads, queries, keys)."""
    with torch.no_grad(), modular.record(assembly, attentions=True) as (encoder, decoder):
        modular(assembly, **text)
    return dict(zip(KINDS, (encoder.self_attention, decoder.self_attention, decoder.cross_attention), strict=True))


twos = modtf.Assembly((2,) * 6, (2,) * 6)
maps = {"original": maps_of(pocket, pocket.mapping.original), "untrained": maps_of(untrained, twos), "trained": maps_of(pocket, twos)}


def words(ids: torch.Tensor) -> list[str]:
    """One readable word for each token; numbered, since an axis wants different names."""
    return [f"{i} {pocket.tokenizer.decode([token]).strip() or '·'}" for i, token in enumerate(ids.tolist())]


def attention(kind: str, module: int, head: int):
    """The maps of one head: the layer that the module was copied from, the trained module, the layer whose output it gives."""
    source_words, target_words = words(text["input_ids"][0]), words(torch.cat([torch.tensor([0]), text["labels"][0, :-1]]))
    queries = source_words if kind.startswith("encoder") else target_words
    keys = target_words if kind == "decoder, self" else source_words
    first, last = maps["original"][kind][2 * module : 2 * module + 2]
    shown = {
        f"layer {2 * module}, copied": first,
        f"m(2, {module}), trained": maps["trained"][kind][module],
        f"layer {2 * module + 1}, its output": last,
    }
    figure = make_subplots(rows=1, cols=3, subplot_titles=list(shown), shared_yaxes=True, horizontal_spacing=0.03)
    for column, of_layer in enumerate(shown.values(), start=1):
        figure.add_heatmap(z=of_layer[0, head], x=keys, y=queries, zmin=0, zmax=1, colorscale="Blues", showscale=False, row=1, col=column)
    figure.update_layout(
        template="plotly_white", height=600, width=900, title=f"{kind}-attention, head {head}: who (down) looks at whom (across)"
    )
    figure.update_xaxes(tickangle=-90, tickfont={"size": 9}, dtick=1)
    figure.update_yaxes(autorange="reversed", tickfont={"size": 9}, dtick=1)
    return figure


described(
    attention("decoder, cross", 2, 2),
    "Three attention maps of the tokens being written against the tokens of the facts, for one head: of the original layer 4, of the trained module m(2, 2), and of layer 5. Most rows are dark in one place.",
    margin={"l": 100, "r": 10, "t": 90, "b": 110},
)


# %%
def map_distance(name: str, kind: str, offset: int) -> float:
    """Mean squared distance, over the keys' sum, of all modules' maps from those of the first (0) or last (1) layer of their group."""
    groups = maps["original"][kind][offset::2]
    everywhere = torch.ones(1, groups[0].shape[2], dtype=torch.bool)
    return distillation.attention_loss(maps[name][kind], groups, everywhere).item()


print("distance of the modules' attention maps (0: the same, 2: they look at quite other places)")
print(
    pd.DataFrame(
        [
            {
                "attention": kind,
                "modules": name,
                "from the first of their layers": map_distance(name, kind, 0),
                "from the last": map_distance(name, kind, 1),
            }
            for kind in KINDS
            for name in ("untrained", "trained")
        ]
    )
    .round(2)
    .to_string(index=False)
)

# %% [markdown]
# The modules give the *states* of the last layer, but their *heads* are still relatives of the first one, from which they were copied. Nothing asked them to change: this kit was trained without the attention loss. That loss
# would ask head h of m(2, 2) to look where head h of layer 5 looks, and heads of different layers have nothing to do with each other. Whether that is worth its price is a question for measurement, below.
#
# Choose any module and head:

# %%
notebook.play(
    attention,
    kind=widgets.Dropdown(options=list(KINDS), value="decoder, cross", description="attention"),
    module=widgets.IntSlider(min=0, max=5, value=2, description="module m(2, j)"),
    head=widgets.IntSlider(min=0, max=3, value=2, description="head"),
)

# %% [markdown]
# ## Logits: what else could have come
#
# The text that people wrote says *one* word at each place. The original says how probable every word is, and where there is a choice, that is much more: "located", "near" and "in" may all be right. A student that is told so is not
# punished for a good alternative.

# %%
with torch.no_grad():
    logits = pocket(pocket.mapping.original, **text).logits[0]
probabilities = logits.softmax(-1)
undecided = int((-(probabilities * probabilities.clamp_min(1e-9).log()).sum(-1)).argmax())  # the place with the most entropy
best = probabilities[undecided].topk(8)
said = pocket.tokenizer.decode(text["labels"][0, :undecided])
right = int(text["labels"][0, undecided])
figure = go.Figure(
    go.Bar(
        x=[f"{i + 1}: {pocket.tokenizer.decode([token]).strip()}" for i, token in enumerate(best.indices.tolist())],
        y=best.values.tolist(),
        marker_color=["#e07b1a" if token == right else "#3b8fd0" for token in best.indices.tolist()],
    )
)
figure.update_layout(template="plotly_white", height=320, title=f"“… {said[-44:]}” what comes next?")
figure.update_yaxes(title="probability")
described(
    figure,
    f"Bars of the eight most probable next tokens after '{said[-60:]}', from {best.values[0]:.2f} down to {best.values[-1]:.2f}. The label names only one of them, shown in orange.",
)

# %% [markdown]
# ### Exercise 3.3
# Write the Kullback-Leibler divergence KL(teacher ‖ student) a token: for logits (tokens, vocabulary), the sum over the vocabulary of p_teacher · (log p_teacher − log p_student), mean over tokens. (`logits.log_softmax(-1)` gives log p.)


# %% tags=["exercise"]
def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return None  # your code in place of this line


# %% [markdown]
# <details><summary>Hint</summary>
#
# Take both `log_softmax` first. The probabilities of the teacher are `.exp()` of its logarithms.
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
    one, other = (torch.randn(6, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    assert divergence(one, other) is not None, "divergence gives nothing back yet"
    assert abs(divergence(one, one)) < 1e-6, f"a distribution does not diverge from itself; yours says {divergence(one, one):.3f}"
    assert abs(divergence(one + 5, other) - divergence(one, other)) < 1e-5, (
        "adding a number to all logits changes no probability, but it changes your divergence"
    )
    library = distillation.logits_loss(one[None], other[None], torch.ones(1, 6, dtype=torch.bool))
    swapped = distillation.logits_loss(other[None], one[None], torch.ones(1, 6, dtype=torch.bool))
    assert abs(divergence(one, other) - swapped) > 1e-4, "that is KL(student ‖ teacher); the teacher's probabilities come first"
    assert abs(divergence(one, other) - library) < 1e-5, f"modtf's own is {library:.4f} here, yours {divergence(one, other):.4f}"

# %% [markdown]
# The library's losses are pure functions of tensors. Here is the heart of this one: cross-entropy with the teacher's probabilities, less their entropy, which no training can lower. `logits_loss` gives it all tokens that are no padding and
# divides by their number:

# %% tags=["nbval-check-output"]
print(inspect.getsource(distillation.divergence))

# %% [markdown]
# ## Train, with a teacher
#
# The loop of notebook 2, with two changes: the original runs first and is recorded, and the loss is a weighted sum. Two short trainings of new modules, 60 steps each: with the labels alone, as in notebook 2, and with the original's
# logits and hidden states in place of them.


# %% tags=["long"]
STEPS = 60


def train(labels: float = 0, logits: float = 0, hidden: float = 0) -> modtf.ModularModel:
    """New modules of granularity 2, trained for 60 steps of 16 texts with these weights of the losses."""
    modular = modtf.modularize(pocket.assemble(), (2,), tokenizer=pocket.tokenizer, task="e2e")
    encode_sources_once(modular.model)
    schedule = modtf.ReplacingSchedule(modular.mapping, STEPS, mixtures=1, whole=0)
    batches = TaskBatches(E2E, pairs, modular.tokenizer, STEPS, batch_size=16)
    banks = [parameter for parameter in modular.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(banks, lr=2e-3)
    original = modular.mapping.original
    modular.train()
    for step in range(STEPS):
        assembly, batch = schedule.draw(step), batches[step]
        with torch.no_grad(), modular.record(original) as taught:
            teacher = modular(original, **batch)
        with modular.record(assembly) as learned:
            student = modular(assembly, **batch)
        source, target = batch["attention_mask"].bool(), batch["labels"] != -100
        loss = labels * student.loss + logits * distillation.logits_loss(student.logits, teacher.logits, target)
        for s, t, path, keep in zip(learned, taught, assembly.paths, (source, target), strict=True):
            loss = loss + hidden * distillation.hidden_loss(s.hidden, [t.hidden[end - 1] for end in boundaries(path)], keep)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * min((step + 1) / 10, 1 - step / STEPS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(banks, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return modular.eval()


inputs = E2E.bundled_examples("evaluation")[:60]
live = []
for weights in ({"labels": 1}, {"logits": 1, "hidden": 0.2}):
    begun = time.perf_counter()
    trained = train(**weights)
    seconds = time.perf_counter() - begun
    quality = measure_quality(trained, trained.choose(2), inputs)
    live.append(
        {
            "losses": " + ".join(weights),
            "BLEU of 2x": round(quality["bleu"], 1),
            "SER %": round(quality["ser"], 1),
            "seconds": round(seconds),
        }
    )
print(pd.DataFrame(live).to_string(index=False))

# %% [markdown]
# Sixty steps of one run each: a glimpse, not a result. (Change the weights and run it again!) Do not be surprised if the labels are ahead: which token it was is less to learn than all that the original thinks. Whether
# the teacher pays off later is the question of the next section. It has a price, too: one more pass through all original layers in each step (this loop runs it in both cases, so the table does not show it).
#
# In the library all this is `ModularTrainer`, a `Seq2SeqTrainer` with one weight for each loss (these are the defaults):
#
# ```python
# args = modtf.ModularTrainingArguments(output_dir="run", max_steps=10_000, labels_weight=0, logits_weight=1, hidden_weight=0.2, attention_weight=0)
# modtf.ModularTrainer(modular, args, train_dataset=..., data_collator=...).train()
# ```
#
# ## What each loss adds
#
# Sixty steps of a small model say little. For `translator`, whose task is harder, `benchmarks/versus.py` trained whole kits that differ in what they learn from and in nothing else: each signal alone, all together, all but one. They cost the same, in floating-point operations: a kit with a teacher runs
# the original in each step, so it gets fewer steps. Each has the learning rates that are best for labels alone.
#
# **Guess first. Labels alone, or logits alone: which kit has more BLEU at 6x, and by how many points?** And is a kit with every signal ahead of one with labels alone?

# %%
guess_logits = None  # BLEU of 6x, logits alone less labels alone
guess_every = None  # BLEU of 6x, every signal less labels alone

# %% tags=["nbval-check-output"]
comparison = json.loads(bundled("translator/versus.json").read_text(encoding="utf-8"))
SIGNALS = [
    "the original's texts alone",
    "logits alone",
    "hidden states alone",
    "attention maps alone",
    "every signal",
    "every signal but people's texts",
    "every signal but the original's texts",
    "every signal but labels",
    "every signal but logits",
    "every signal but hidden states",
    "every signal but attention maps",
]
kits = pd.DataFrame(
    [
        {"kit": row["method"], "size": row["size"], "BLEU": row["mean"]["bleu"], "ahead": row["equal_total"]["bleu"]}
        | dict(zip(("low", "high"), row["equal_total"]["bleu_interval"], strict=True))
        for row in comparison["ablation"]
    ]
).set_index(["size", "kit"])
notebook.reveal("6x, logits alone less labels alone, BLEU", guess_logits, kits.loc[("6x", "logits alone"), "ahead"])
notebook.reveal("6x, every signal less labels alone, BLEU", guess_every, kits.loc[("6x", "every signal"), "ahead"])

# %%
sizes = list(comparison["sizes"])
figure = make_subplots(rows=1, cols=len(sizes), subplot_titles=sizes, shared_yaxes=True, horizontal_spacing=0.02)
for column, size in enumerate(sizes, start=1):
    of_size = kits.loc[size].loc[SIGNALS]
    margins = {"array": of_size.high - of_size.ahead, "arrayminus": of_size.ahead - of_size.low}
    figure.add_bar(
        orientation="h",
        x=of_size.BLEU,
        y=of_size.index,
        marker_color="#3b8fd0",
        error_x={"type": "data", "symmetric": False, **margins},
        row=1,
        col=column,
    )
    figure.add_vline(x=(of_size.BLEU - of_size.ahead).iloc[0], line={"color": "#e07b1a", "dash": "dot"}, row=1, col=column)
figure.update_layout(template="plotly_white", height=460, showlegend=False)
figure.update_yaxes(autorange="reversed").update_xaxes(title="BLEU")
described(
    figure,
    "Bars of BLEU with error bars for eleven kits in four sizes; a dotted line marks labels alone. At 2x all but attention maps alone are near the line, and hidden states alone are above it. At 6x and fast both kits with labels alone are ahead of all others, "
    "hidden states alone far behind.",
    margin={"l": 240, "r": 20, "t": 50, "b": 40},
)

# %% [markdown]
# The dotted line is the kit that learns from labels alone, people's texts, as the mean of three seeds. The error bars are 95 % intervals of the distance from it, sentences and seeds being drawn anew: where one crosses the line, no difference is shown. (The sizes are those of notebook 0, and `fast`, a full encoder with one decoder layer.)
#
# - **Attention maps alone teach nobody to write.** They say where to look, not what to say.
# - **Hidden states alone teach 2x well**, without a word about tokens: at these learning rates 3 points better than labels. (At half the rates, which suit 2x better, labels do as well on dev.) Our explanation: a module for two layers can give what both gave. One for six cannot, and to be a little wrong everywhere is a bad bargain when only the words count: at 6x this kit is far behind.
# - **Beside labels, logits and hidden states add nothing here.** At 2x all are level, at 3x nearly so; at 6x and `fast` every kit with a teacher is behind, by more than chance explains. The original ran in each of their steps, and so they had about half as many steps as labels alone.
# - **The original's own texts are a teacher that costs no step**: they are written once, before the training, and no size shows them to be worse than people's.
#
# These are short trainings, about 7 minutes each. The bundled kit took over two hours, and at 6x it is 15 points ahead of labels alone here. It learned from logits and hidden states; `pocket`'s did, too, and in a short last part from labels and logits, on those of the original's texts that have no slot errors. What was tried for them is in
# [benchmarks/LOG.md](../benchmarks/LOG.md).
#
# > **In the paper** (abstract): attention *and* hidden states are distilled, on other models and tasks. Our short runs are no verdict on that.
#
# ## In five lines
#
# 1. The original teaches three things: hidden states, attention maps, and the probability of every next token.
# 2. A module's output is compared with the original's where its piece of work ends: at the path's boundaries.
# 3. Untrained modules give what the first layer of their group gives; trained ones stand in their place, as a staircase.
# 4. Losses are pure functions of tensors; `ModularTrainer` adds them up, with a weight for each.
# 5. The smallest sizes need someone who speaks about tokens: labels or logits. A teacher also costs steps, so compare at equal cost.
#
# <!-- footer -->
# [← 2 · Module replacement](2_module_replacement.ipynb) · [index](README.md) · [glossary](README.md#glossary) · [4 · Assembly →](4_assembly.ipynb)
# <!-- end of footer -->
