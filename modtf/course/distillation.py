"""Notebook 3, distillation: its figures and instruments, the checks of its exercises, and our versions of the functions that they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots
from transformers import T5Config, T5ForConditionalGeneration

from modtf.architectures import set_attention
from modtf.bundled import bundled
from modtf.distillation import attention_loss, hidden_loss, logits_loss
from modtf.distillation import divergence as summed_divergence
from modtf.mapping import Assembly, LayerPath, boundaries
from modtf.modular import ModularModel, modularize
from modtf.recipes.pocket import POCKET
from modtf.recipes.translator import TRANSLATOR
from modtf.tasks import Example
from modtf.training.batches import encode_sources_once
from modtf.training.trainer import ModularTrainingArguments
from modtf.views.figures import described, paths_figure

BLUE, ORANGE, PINK, GREEN, GREY = "#3b8fd0", "#e07b1a", "#cc4e94", "#2a9d74", "#8a8a8a"
States = Sequence[torch.Tensor]

# -- our versions of what the exercises ask for ------------------------------------------------------------------------


def boundary_loss(path: LayerPath, student: States, teacher: States, keep: torch.Tensor) -> torch.Tensor:
    """The error of a path's states against the original's at the path's boundaries (exercise 3.1)."""
    return hidden_loss(student, [teacher[end - 1] for end in boundaries(path)], keep)


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student), mean over tokens, of logits (tokens, vocabulary) (exercise 3.3)."""
    return summed_divergence(student, teacher) / len(student)


def step_loss(
    modular: ModularModel, assembly: Assembly, batch: dict[str, torch.Tensor], weights: Mapping[str, float]
) -> torch.Tensor:
    """The weighted sum of the losses of one training step (exercise 3.4)."""
    original = modular.mapping.original
    with torch.no_grad(), modular.record(original) as taught:
        teacher = modular(original, **batch)
    with modular.record(assembly) as learned:
        output = modular(assembly, **batch)
    source, target = batch["attention_mask"].bool(), batch["labels"] != -100
    hidden = sum(
        boundary_loss(path, s.hidden, t.hidden, keep)
        for path, s, t, keep in zip(assembly.paths, learned, taught, (source, target), strict=True)
    )
    words = divergence(output.logits[target], teacher.logits[target])
    return weights["labels"] * output.loss + weights["logits"] * words + weights["hidden"] * hidden


# -- checks of the exercises -------------------------------------------------------------------------------------------


def _trainable(value: Any, name: str) -> float:
    """The number in a loss, which must be a tensor that a training can follow back to what it was made from."""
    assert value is not None, f"{name} gives nothing back yet"
    assert isinstance(value, torch.Tensor) and value.requires_grad, (
        "you return a number; the training needs the tensor, without .item() or .detach() (torch.tensor(list) cuts it off, too; torch.stack does not)"
    )
    return float(value.detach())


def check_boundary_loss(function: Callable[..., Any]) -> None:
    """Exercise 3.1: the right layers, relative errors, means over what is no padding and over the path."""
    random = torch.Generator().manual_seed(0)
    teacher = [torch.randn(2, 5, 8, generator=random) * (1 + i) for i in range(12)]
    keep = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    path = (1, 1, 2, 2, 6)
    ends = [teacher[end - 1] for end in boundaries(path)]

    def given(path: LayerPath, student: States, keep: torch.Tensor = keep) -> float:
        learns = [state.clone().requires_grad_() for state in student]
        return _trainable(function(path, learns, teacher, keep), "boundary_loss")

    assert abs(given(path, [teacher[i] for i in (0, 1, 2, 3, 4)])) > 1e-6, (
        "the layers of 1·1·2·2·6 are compared with the original's layers 0, 1, 2, 3, 4; they should be with those where their work ends: "
        "look at the figure's arrows"
    )
    assert abs(given(path, [teacher[i] for i in (0, 1, 2, 4, 6)])) > 1e-6, (
        "each layer is compared with the original where its work begins; it should be where it ends"
    )
    exact = given(path, ends)
    assert abs(exact) < 1e-6, (
        f"a path that gives just what the original gives at layers 0, 1, 3, 5 and 11 has a loss of 0, not {exact:.3f}"
    )
    silent = given((6, 6), [torch.zeros(2, 5, 8)] * 2, torch.ones(2, 5, dtype=torch.bool))
    assert abs(silent - 2) > 1e-4, "you add up the layers of the path; take their mean, so that depth does not matter"
    assert abs(silent - 1) < 1e-4, (
        f"a path that says nothing (all zeros) has a loss of 1, not {silent:.3f}: divide each token's error by the "
        "mean square of the teacher's state"
    )
    noisy = [state + torch.randn(2, 5, 8, generator=random) * torch.arange(1, 6)[:, None] for state in ends]
    wanted, yours = float(boundary_loss(path, noisy, teacher, keep)), given(path, noisy)
    padded = float(boundary_loss(path, noisy, teacher, torch.ones_like(keep)))
    assert abs(yours - padded) > 1e-4, (
        "you count padding: only the tokens where `keep` is true count; state[keep] has these"
    )
    assert abs(yours - wanted) < 1e-4, (
        f"for a noisy path it is {wanted:.4f}, yours {yours:.4f}: do you divide token by token, before you take the mean?"
    )


def check_divergence(function: Callable[..., Any]) -> None:
    """Exercise 3.3: KL(teacher ‖ student), the mean over tokens."""
    one, other = (torch.randn(6, 10, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))

    def given(student: torch.Tensor, teacher: torch.Tensor) -> float:
        return _trainable(function(student.clone().requires_grad_(), teacher), "divergence")

    yours, same, moved = given(one, other), given(one, one), given(one + 5, other)
    assert abs(same) < 1e-5, f"a distribution does not diverge from itself; yours says {same:.3f}"
    assert abs(moved - yours) < 1e-4, (
        "adding a number to all logits changes no probability, but it changes your divergence"
    )
    wanted, swapped = float(divergence(one, other)), float(divergence(other, one))
    assert abs(yours - swapped) > 1e-4, "that is KL(student ‖ teacher): the teacher's probabilities weight the sum"
    assert abs(yours - len(one) * wanted) > 1e-4, "you add up the tokens; take their mean"
    assert abs(yours - wanted) < 1e-4, f"modtf's own is {wanted:.4f} here, yours {yours:.4f}"


@cache
def _tiny() -> tuple[ModularModel, Assembly, dict[str, torch.Tensor]]:
    """A model of 4 + 4 layers with random weights, an assembly, and a batch with padding on both sides."""
    random = torch.random.get_rng_state()
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=4, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=0.5,
    )  # fmt: skip
    modular = modularize(T5ForConditionalGeneration(config), (2,))
    torch.random.set_rng_state(random)
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 1], [9, 4, 1, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[11, 12, 13, 1], [14, 1, -100, -100]]),
    }
    return modular, Assembly((2, 1, 1), (2, 2)), batch


def _slope(modular: ModularModel, loss: torch.Tensor) -> float:
    """The length of a loss's gradient by all weights that train."""
    if not loss.requires_grad:
        return 0.0
    weights = [weight for weight in modular.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return sum(float(gradient.square().sum()) for gradient in gradients if gradient is not None) ** 0.5


def check_step_loss(function: Callable[..., Any]) -> None:
    """Exercise 3.4: who runs, and what each weight multiplies."""
    modular, assembly, batch = _tiny()
    ran: list[Any] = []
    watch = modular.register_forward_pre_hook(
        lambda module, args, inputs: ran.append(inputs.get("assembly", args[0] if args else None)), with_kwargs=True
    )

    def given(**weights: float) -> torch.Tensor:
        value = function(modular, assembly, dict(batch), {"labels": 0.0, "logits": 0.0, "hidden": 0.0} | weights)
        assert value is not None, "step_loss gives nothing back yet"
        return torch.as_tensor(value)

    def ours(**weights: float) -> torch.Tensor:
        return step_loss(modular, assembly, batch, {"labels": 0.0, "logits": 0.0, "hidden": 0.0} | weights)

    def expected(**weights: float) -> float:
        return float(ours(**weights).detach())

    try:
        whole = given(labels=1.0, logits=1.0, hidden=0.2)
    finally:
        watch.remove()
    assert modular.mapping.original in ran or None in ran, (
        "the original was never run: it is the path modular.mapping.original"
    )
    assert assembly in ran, "the assembly was never run: modular(assembly, **batch)"
    assert whole.requires_grad, (
        "your loss has no gradient: only the original's pass belongs inside torch.no_grad(), and the training needs the tensor, "
        "without .item() or .detach()"
    )
    labels, logits, hidden = expected(labels=1.0), expected(logits=1.0), expected(hidden=1.0)
    yours = float(given(labels=1.0).detach())
    assert abs(yours - labels) < 1e-4, (
        f"with labels alone (weight 1) it is the assembly's own loss, {labels:.4f}; yours is {yours:.4f}"
    )
    yours = float(given(logits=1.0).detach())
    original = modular.mapping.original
    with torch.no_grad():
        student, teacher = modular(assembly, **batch).logits, modular(original, **batch).logits
    everywhere = torch.ones_like(batch["labels"], dtype=torch.bool)
    assert abs(yours - float(logits_loss(student, teacher, everywhere))) > 1e-5, (
        "with logits alone you count padding: take the tokens of the target that count, logits[target]"
    )
    assert abs(yours - float(logits_loss(teacher, student, batch["labels"] != -100))) > 1e-5, (
        "with logits alone teacher and student have changed places: divergence(student, teacher)"
    )
    assert abs(yours - logits) < 1e-4, f"with logits alone (weight 1) it is {logits:.4f}; yours is {yours:.4f}"
    yours = float(given(hidden=1.0).detach())
    with torch.no_grad(), modular.record(original) as taught:
        modular(original, **batch)
    with torch.no_grad(), modular.record(assembly) as learned:
        modular(assembly, **batch)
    keeps = batch["attention_mask"].bool(), batch["labels"] != -100
    parts = {
        stack: float(boundary_loss(path, s.hidden, t.hidden, keep))
        for stack, path, s, t, keep in zip(("encoder", "decoder"), assembly.paths, learned, taught, keeps, strict=True)
    }
    for stack, part in parts.items():
        assert abs(yours - part) > 1e-5, f"with hidden states alone you count the {stack} only; add both stacks"
    assert abs(yours - sum(parts.values()) / 2) > 1e-5, (
        "with hidden states alone you take the mean of both stacks; add them"
    )
    assert abs(yours - hidden) < 1e-4, f"with hidden states alone (weight 1) it is {hidden:.4f}; yours is {yours:.4f}"
    for name in ("labels", "logits", "hidden"):  # a training without labels has the gradients of the others only
        slope, wanted = _slope(modular, given(**{name: 1.0})), _slope(modular, ours(**{name: 1.0}))
        assert abs(slope - wanted) < 1e-3 * wanted, (
            f"with {name} alone (weight 1) the number is right, but not its gradient, so the modules would not learn from it: "
            "the training needs the tensor, without .item() or .detach()"
        )
    total, yours = expected(labels=1.0, logits=1.0, hidden=0.2), float(whole.detach())
    assert abs(yours - total) < 1e-4, (
        f"with weights 1, 1 and 0.2 it is {total:.4f}, yours {yours:.4f}: is each loss multiplied by its weight, once?"
    )


# -- models and states -------------------------------------------------------------------------------------------------


def new_modules(kit: ModularModel, granularities: Sequence[int] = (2,), begin: str = "first") -> ModularModel:
    """The kit's original with untrained modules: copies of the ``first`` or of the ``last`` layer of their group.

    ``mixed`` begins m(g, 0) as the first layer of its group, and all others as the last of theirs.
    """
    original = kit.assemble()
    set_attention(original, "eager")  # the only attention that gives its maps out, and for short texts the fastest
    modular = modularize(original, granularities, tokenizer=kit.tokenizer, task=kit.task)
    encode_sources_once(modular.model)  # a batch holds each source once, however many texts were written for it
    if begin != "first":
        for stack in modular.stacks:
            banks: Any = stack.banks
            for g, bank in banks.items():
                for j, module in enumerate(bank):
                    if begin == "mixed" and j == 0:
                        continue
                    last = dict(stack.originals[(j + 1) * int(g) - 1].named_parameters())
                    for name, weight in module.named_parameters():
                        if weight.requires_grad:
                            weight.data.copy_(last[name])
    return modular


class Held:
    """Texts that no training sees, and what the original makes of them."""

    def __init__(self, kit: ModularModel, batch: dict[str, torch.Tensor]) -> None:
        self.batch = batch
        with torch.no_grad():
            self._original = kit(kit.mapping.original, **batch)

    def cross_entropy(self, modular: ModularModel, assembly: Assembly) -> float:
        """Of an assembly with the original's texts, in nats a token."""
        with torch.no_grad():
            return modular(assembly, **self.batch).loss.item()

    def divergence(self, modular: ModularModel, assembly: Assembly) -> float:
        """Of an assembly from the original's probabilities, in nats a token."""
        with torch.no_grad():
            student = modular(assembly, **self.batch).logits
        return logits_loss(student, self._original.logits, self.batch["labels"] != -100).item()


def heatmaps(distances: Callable[[str], torch.Tensor], names: Sequence[str], g: int, stack: str) -> go.Figure:
    """Modules against original layers, for each of ``names``; a dot where a module should be, a circle where it is.

    ``distances(name)`` are the errors (modules, layers).
    """
    figure = make_subplots(rows=1, cols=len(names), subplot_titles=names, shared_yaxes=True, horizontal_spacing=0.06)
    told = []
    for column, name in enumerate(names, start=1):
        error, last = distances(name), column == len(names)
        rows = [f"m({g}, {j})" for j in range(len(error))]
        figure.add_heatmap(
            z=error.log10().tolist(), y=rows, customdata=error.tolist(), zmin=-2, zmax=0.5, colorscale="Blues_r", showscale=last, row=1, col=column,
            hovertemplate="%{y} against layer %{x}: %{customdata:.2f}<extra></extra>",
            colorbar={"title": "error", "tickvals": [-2, -1, 0], "ticktext": ["0.01", "0.1", "1"]},
        )  # fmt: skip
        circle = {"symbol": "circle-open", "size": 16, "color": PINK, "line": {"width": 2}}
        dot = {"size": 7, "color": ORANGE}
        ends = [end - 1 for end in boundaries((g,) * len(error))]
        nearest = error.argmin(1).tolist()
        told.append(f"{name}, layers {', '.join(map(str, nearest))}")
        aim = "should be most like (last layer of its group)"
        for x, what, marker in ((nearest, "is most like", circle), (ends, aim, dot)):
            figure.add_scatter(
                x=x, y=rows, mode="markers", name=what, marker=marker, row=1, col=column, showlegend=last
            )
    legend = {"orientation": "h", "y": -60 / (80 + 40 * len(error)), "x": 0.5, "xanchor": "center", "yanchor": "top"}
    title = {
        "text": f"{stack.capitalize()}, granularity {g}: each module against each original layer",
        "y": 0.97,
        "yanchor": "top",
    }
    figure.update_layout(template="plotly_white", height=240 + 40 * len(error), width=900, legend=legend, title=title)
    figure.update_xaxes(title="original layer", dtick=1, range=[-0.5, 11.5], showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return described(
        figure,
        f"Heatmaps of the modules of granularity {g} of the {stack} against twelve original layers, dark where they are alike. In order the modules should be most like layers {', '.join(map(str, ends))}; "
        f"they are most like: {'; '.join(told)}.",
        margin={"l": 60, "r": 20, "t": 90, "b": 50},
    )


def where_compared(path: LayerPath) -> go.Figure:
    """A path above the original's layers, with an arrow from the end of each block to the layer it is compared with."""
    figure = paths_figure(
        {"path": path, "original": (1,) * sum(path)}, "Each block is compared with the original where it ends"
    )
    for end in boundaries(path):
        figure.add_annotation(
            x=end - 0.08, y="original", ax=end - 0.08, ay="path", axref="x", ayref="y", arrowhead=2, arrowwidth=2,
            arrowcolor=PINK, showarrow=True,
        )  # fmt: skip
    ends = ", ".join(str(end - 1) for end in boundaries(path))
    return described(
        figure,
        f"The path {'·'.join(map(str, path))} above {sum(path)} original layers. An arrow goes from the end of each block to the original layer above which it ends: {ends}.",
    )


# -- attention ---------------------------------------------------------------------------------------------------------

KINDS = ("encoder, self", "decoder, self", "decoder, cross")


class Heads:
    """What the heads of a kit's original and of its modules of granularity 2 look at while they write some texts."""

    def __init__(self, kit: ModularModel, untrained: ModularModel, examples: Sequence[Example]) -> None:
        twos = Assembly((2,) * (kit.mapping.encoder.depth // 2), (2,) * (kit.mapping.decoder.depth // 2))
        self._texts = [_Text.read(kit, example) for example in examples]
        self._trained = [text.maps(kit, twos) for text in self._texts]
        self._original = self._texts[0].maps(kit, kit.mapping.original)
        self._untrained = self._texts[0].maps(untrained, twos)

    def figure(self, kind: str, module: int, head: int) -> go.Figure:
        """The maps of one head in the first text: the layer that m(2, j) was copied from, m(2, j), and the layer whose output it gives.

        A frame marks the slot that a step writes about.
        """
        text, first = self._texts[0], 2 * module
        queries = text.facts if kind.startswith("encoder") else text.words
        keys = text.words if kind == "decoder, self" else text.facts
        shown = {
            f"layer {first}, which it began as": self._original[kind][first],
            f"m(2, {module}), trained": self._trained[0][kind][module],
            f"layer {first + 1}, whose output it must give": self._original[kind][first + 1],
        }
        figure = make_subplots(rows=1, cols=3, subplot_titles=list(shown), shared_yaxes=True, horizontal_spacing=0.02)
        named = [[f"{query!r} looks at {key!r}" for key in keys] for query in queries]
        for column, weights in enumerate(shown.values(), start=1):
            figure.add_heatmap(
                z=weights[0, head].tolist(), text=named, zmin=0, zmax=1, colorscale="Blues", showscale=False, row=1, col=column,
                hovertemplate="%{text}: %{z:.2f}<extra></extra>",
            )  # fmt: skip
            if kind == "decoder, cross":
                places = [(k, i) for i, slot in text.slots.items() for k in slot]
                figure.add_scatter(
                    x=[k for k, _ in places], y=[i for _, i in places], mode="markers", hoverinfo="skip", showlegend=False,
                    marker={"symbol": "square-open", "size": 13, "color": ORANGE, "line": {"width": 1.5}}, row=1, col=column,
                )  # fmt: skip
        figure.update_annotations(font_size=14)  # the titles, which must fit side by side
        ticks = {"tickfont": {"size": 12}, "showgrid": False, "zeroline": False, "automargin": False}
        figure.update_xaxes(
            tickangle=-90, tickvals=list(range(len(keys))), ticktext=keys, range=[-0.5, len(keys) - 0.5], **ticks
        )
        figure.update_yaxes(
            tickvals=list(range(len(queries))), ticktext=queries, range=[len(queries) - 0.5, -0.5], **ticks
        )
        figure.update_layout(template="plotly_white", height=190 + 18 * len(queries), width=850)
        return described(
            figure,
            f"Three attention maps ({kind}, head {head}) of {len(queries)} rows that look at {len(keys)} columns: of the original layer {first}, of the trained module m(2, {module}), and of layer {first + 1}. "
            "Most rows are dark in one place; orange frames mark the slot that a step writes about.",
            margin={"l": 90, "r": 10, "t": 40, "b": 110},
        )

    def share_read_along(self, module: int, head: int) -> float:
        """Of the steps that write a word of the facts, the share in which the head's largest weight falls into the slot of that word."""
        hits = [
            int(maps["decoder, cross"][module][0, head, i].argmax()) in slot
            for text, maps in zip(self._texts, self._trained, strict=True)
            for i, slot in text.slots.items()
        ]
        return sum(hits) / len(hits)

    def favourite(self, module: int, head: int) -> tuple[str, float]:
        """The token that a head of a module looks at most often, and the share of all steps in which it does."""
        seen = [
            text.facts[k]
            for text, maps in zip(self._texts, self._trained, strict=True)
            for k in maps["decoder, cross"][module][0, head].argmax(-1).tolist()
        ]
        most = max(sorted(set(seen)), key=seen.count)
        return most, seen.count(most) / len(seen)

    def distances(self) -> list[dict[str, Any]]:
        """How far the modules' maps are from those of the first and of the last layer of their group, in the first text."""
        rows = []
        for kind in KINDS:
            for name, maps in (("untrained", self._untrained), ("trained", self._trained[0])):
                everywhere = torch.ones(1, maps[kind][0].shape[2], dtype=torch.bool)
                first, last = (
                    attention_loss(maps[kind], self._original[kind][offset::2], everywhere).item() for offset in (0, 1)
                )
                rows.append({"attention": kind, "modules": name, "from the first layer": first, "from the last": last})
        return rows


@dataclass(frozen=True)
class _Text:
    """A text of the task as a model reads it; ``slots`` has the places of the slot that each step writes about."""

    inputs: dict[str, torch.Tensor]
    facts: list[str]
    words: list[str]
    slots: dict[int, range]

    @classmethod
    def read(cls, kit: ModularModel, example: Example) -> _Text:
        inputs = kit.encode([example.source])
        labels = kit.tokenizer(text_target=example.references[0], return_tensors="pt")["input_ids"]
        facts, words = (
            [
                "(end)" if token == kit.tokenizer.eos_token_id else kit.tokenizer.decode([token]).strip() or "·"
                for token in ids[0].tolist()
            ]
            for ids in (inputs["input_ids"], labels)
        )
        begins = [k for k, word in enumerate(facts) if word.endswith("[")]
        slot_of = {
            k: range(a, b) for a, b in zip(begins, [*begins[1:], len(facts) - 1], strict=True) for k in range(a, b)
        }
        slots = {
            i: slot_of[facts.index(word)]
            for i, word in enumerate(words)
            if word[:1].isalnum() and facts.count(word) == 1  # else nobody knows which one is meant
        }
        return cls({**inputs, "labels": labels}, facts, words, slots)

    def maps(self, modular: ModularModel, assembly: Assembly) -> dict[str, list[torch.Tensor]]:
        """The attention maps of each layer, (1, heads, queries, keys)."""
        with torch.no_grad(), modular.record(assembly, attentions=True) as (encoder, decoder):
            modular(assembly, **self.inputs)
        recorded = (encoder.self_attention, decoder.self_attention, decoder.cross_attention)
        return dict(zip(KINDS, recorded, strict=True))


#: Of the steps that write a word of the facts, the share in which a head that reads along looks into its slot.
READS_ALONG = 2 / 3


def check_reading_head(found: Any, heads: Heads) -> None:
    """Exercise 3.2: a module and one of its heads that look into the slot that is being written about."""
    assert found is not None, "reading_head is still None; write a module and a head, such as (0, 3)"
    assert isinstance(found, tuple) and len(found) == 2 and all(type(number) is int for number in found), (
        f"write two whole numbers, the module's j and the head, such as (0, 3), not {found!r}"
    )
    module, head = found
    assert 0 <= module < 6 and 0 <= head < 4, (
        f"the decoder has modules m(2, 0) to m(2, 5) with heads 0 to 3; there is no {found}"
    )
    share, (favourite, often) = heads.share_read_along(module, head), heads.favourite(module, head)
    assert share >= READS_ALONG, (
        f"head {head} of m(2, {module}) looks into the right slot in {100 * share:.0f} % of the steps, less than two thirds. What it looks at most is "
        f"{favourite!r}, in {100 * often:.0f} % of all steps"
    )


def loss_without(modular: ModularModel, assembly: Assembly, held: Held, module: int, head: int) -> float:
    """The cross-entropy of an assembly of T5 when one head of cross-attention of one of the decoder's layers is silent."""
    attention = modular.stacks[1].layers(assembly.decoder)[module].get_submodule("layer.1.EncDecAttention")
    width: Any = attention.key_value_proj_dim

    def silence(output: Any, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        states = args[0].clone()
        states[..., head * width : (head + 1) * width] = 0
        return (states,)

    hook = attention.get_submodule("o").register_forward_pre_hook(silence)
    try:
        return held.cross_entropy(modular, assembly)
    finally:
        hook.remove()


# -- logits ------------------------------------------------------------------------------------------------------------


def next_words(kit: ModularModel, source: str, text: str, place: int, count: int = 7) -> go.Figure:
    """The original's probabilities after ``place`` tokens of a person's text, with that person's word and its own first choice."""
    inputs = kit.encode([source])
    labels = kit.tokenizer(text_target=text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = kit(kit.mapping.original, **inputs, labels=labels).logits[0, place].softmax(-1)
    best, person = probabilities.topk(count), int(labels[0, place])
    tokens, values = best.indices.tolist(), best.values.tolist()
    words = [kit.tokenizer.decode([token]).strip() for token in tokens]
    kinds = ["first" if i == 0 else "person" if token == person else "other" for i, token in enumerate(tokens)]
    looks = {
        "first": ("what it writes itself", GREEN),
        "person": ("what a person wrote", ORANGE),
        "other": ("other words", BLUE),
    }
    figure = go.Figure()
    for kind, (name, color) in looks.items():
        shown = {word: p for word, p, of in zip(words, values, kinds, strict=True) if of == kind}
        labelled = [f"{p:.2f}" for p in shown.values()]
        figure.add_bar(x=list(shown), y=list(shown.values()), name=name, marker_color=color, text=labelled)
    said = kit.tokenizer.decode(labels[0, :place], skip_special_tokens=True)
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    title = {"text": f"“{said} …” what comes next?", "y": 0.96}
    figure.update_layout(template="plotly_white", height=360, width=760, legend=legend, title=title)
    figure.update_xaxes(categoryorder="array", categoryarray=words, tickfont={"size": 14})
    figure.update_yaxes(title="probability")
    return described(
        figure,
        f"Bars of the {count} most probable next words after '{said}', from {words[0]} with {values[0]:.2f} down to {values[-1]:.2f}; "
        "the original's own choice is green, the word that a person wrote orange.",
        margin={"l": 60, "r": 20, "t": 90, "b": 40},
    )


def share_of_first_choices(kit: ModularModel, examples: Sequence[Example]) -> float:
    """The share of tokens in people's texts that are also the original's first choice at that place."""
    hits: list[bool] = []
    for example in examples:
        labels = kit.tokenizer(text_target=example.references[0], return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = kit(kit.mapping.original, **kit.encode([example.source]), labels=labels).logits
        hits += (logits.argmax(-1) == labels)[0].tolist()
    return sum(hits) / len(hits)


# -- trainings ---------------------------------------------------------------------------------------------------------


#: A training as (what it learns from, seed): steps, the cross-entropy and the divergence of 2x at each.
Curves = Mapping[tuple[str, int], Sequence[tuple[int, float, float]]]


def learning_curves(curves: Curves) -> go.Figure:
    """How far 2x is from the original's texts, and from its probabilities, over the steps of trainings."""
    titles = ("How far is 2x from the original's texts?", "And from its probabilities?")
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, horizontal_spacing=0.12)
    colors = dict(zip(dict.fromkeys(name for name, _ in curves), (ORANGE, BLUE, PINK, GREEN), strict=False))
    for column in (1, 2):
        for (name, seed), points in curves.items():
            figure.add_scatter(
                x=[point[0] for point in points], y=[point[column] for point in points], legendgroup=name, row=1, col=column,
                name=f"{name}, seed {seed}", mode="lines+markers", showlegend=column == 1,
                line={"color": colors[name], "dash": "solid" if seed == 0 else "dot", "width": 2},
                marker={"size": 7, "symbol": "circle" if seed == 0 else "square-open"},
            )  # fmt: skip
    legend = {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0.5, "xanchor": "center"}
    figure.update_layout(template="plotly_white", height=400, width=900, legend=legend)
    figure.update_xaxes(title="training step")
    figure.update_yaxes(rangemode="tozero").update_yaxes(title="cross-entropy, nats a token", col=1)
    figure.update_yaxes(title="divergence, nats a token", col=2)
    ends = "; ".join(
        f"{name}, seed {seed}: {end[1]:.2f} and {end[2]:.2f}" for (name, seed), (*_, end) in curves.items()
    )
    return described(
        figure,
        "Two panels of falling curves over the training steps: the cross-entropy of the 2x model with texts of the original that it has not seen, and its divergence from the original's probabilities. "
        f"At the end, in nats a token, {ends}.",
        margin={"l": 60, "r": 20, "t": 40, "b": 90},
    )


#: The rows of :func:`signals_figure`: under each heading what a kit learns from, and its name in `versus.json`.
_KITS: dict[str, dict[str, str]] = {
    "one signal": {
        "people's texts": "kit",
        "the original's texts": "the original's texts alone",
        "logits": "logits alone",
        "hidden states": "hidden states alone",
        "attention maps": "attention maps alone",
    },
    "all five, or all but one or two": {
        "all five": "every signal",
        "all but people's texts": "every signal but people's texts",
        "all but the original's texts": "every signal but the original's texts",
        "all but texts of either": "every signal but labels",
        "all but logits": "every signal but logits",
        "all but hidden states": "every signal but hidden states",
        "all but attention maps": "every signal but attention maps",
    },
    "four assemblies a step": {
        "people's texts ": "four assemblies a step",  # the blank tells it from the first row
        "logits and hidden states": "logits and hidden states, four assemblies a step",
    },
}


def signals_figure(comparison: Mapping[str, Any]) -> go.Figure:
    """BLEU of kits that learn from other signals, minus that of the kit that learns from people's texts alone.

    ``comparison`` is a `versus.json` with an ablation. A row for each kit, with its steps; bars are 95 % intervals.
    """
    rows = {(row["method"], row["size"]): row for row in comparison["ablation"]}
    cost, sizes = comparison["ablation"][0]["cost"], list(comparison["sizes"])
    base = next(row for row in comparison["rows"] if (row["method"], row["cost"]) == ("kit", cost))
    level = {"steps": base["steps"], "equal_total": {"bleu": 0.0, "bleu_interval": (0.0, 0.0)}}
    rows |= {("kit", size): level for size in sizes}
    lines: list[str] = []
    kits: dict[str, tuple[int, str]] = {}  # by label: its line, its method
    for heading, group in _KITS.items():
        lines.append(f"<b>{heading}</b>")
        for label, method in group.items():
            kits[label] = len(lines), method
            lines.append(f"{label.strip()}, {rows[method, sizes[0]]['steps']} steps")
    titles = [f"{size} ({len(path['encoder'])}-{len(path['decoder'])})" for size, path in comparison["sizes"].items()]
    figure = make_subplots(rows=1, cols=len(sizes), shared_yaxes=True, horizontal_spacing=0.025, subplot_titles=titles)
    places, least = [line for line, _ in kits.values()], -26.0
    for column, size in enumerate(sizes, start=1):
        found = [rows[method, size]["equal_total"] for _, method in kits.values()]
        ahead = [row["bleu"] for row in found]
        low, high = ([row["bleu_interval"][end] for row in found] for end in (0, 1))
        clear = [a > 0 or b < 0 for a, b in zip(low, high, strict=True)]
        off = [value < least for value in ahead]
        colors = [BLUE if not c else GREEN if v > 0 else ORANGE for v, c in zip(ahead, clear, strict=True)]
        symbols = ["triangle-left" if o else "circle" if c else "circle-open" for o, c in zip(off, clear, strict=True)]
        figure.add_scatter(
            x=[max(value, least + 1) for value in ahead], y=places, mode="markers", row=1, col=column, text=list(kits),
            customdata=ahead, hovertemplate="%{text}: %{customdata:+.1f} BLEU<extra></extra>",
            marker={"size": 9, "color": colors, "symbol": ["diamond", *symbols[1:]]},
            error_x={
                "type": "data", "symmetric": False, "thickness": 1.5, "width": 4, "color": GREY,
                "array": [0 if o else b - v for o, b, v in zip(off, high, ahead, strict=True)],
                "arrayminus": [0 if o else v - a for o, a, v in zip(off, low, ahead, strict=True)],
            },
        )  # fmt: skip
        figure.add_vline(x=0, line={"color": GREY, "dash": "dot"}, row=1, col=column)
        for y, value in zip(places, ahead, strict=True):
            if value < least:
                figure.add_annotation(
                    x=least + 2, y=y, text=f"{value:.0f}", showarrow=False, xanchor="left", row=1, col=column
                )
        figure.update_xaxes(
            range=[least, 6],
            tickvals=[-20, -10, 0],
            tickfont={"size": 12},
            title={"text": "points of BLEU", "font": {"size": 13}},
            row=1,
            col=column,
        )
    figure.update_yaxes(
        range=[len(lines) - 0.5, -0.5], tickvals=list(range(len(lines))), ticktext=lines, tickfont={"size": 12},
        showgrid=False, zeroline=False,
    )  # fmt: skip
    title = {"text": "BLEU minus that of the kit that learns from people's texts alone", "y": 0.98}
    figure.update_layout(template="plotly_white", height=560, width=900, showlegend=False, title=title)
    told = "; ".join(
        f"{lines[line]}: " + ", ".join(f"{rows[method, size]['equal_total']['bleu']:+.1f} at {size}" for size in sizes)
        for line, method in list(kits.values())[1:]
    )
    return described(
        figure,
        f"A row for each of {len(kits)} kits, in {len(_KITS)} groups, and a panel for each size: BLEU minus that of a kit that learns from people's texts alone, with 95 percent intervals. {told}.",
        margin={"l": 240, "r": 10, "t": 60, "b": 60},
    )


# -- the bundled kits --------------------------------------------------------------------------------------------------

_RECIPES = {"pocket": POCKET, "translator": TRANSLATOR}
LOSSES = ("labels", "logits", "hidden", "attention")
#: What the kits learned from: whose texts, the weights that are not the library's own, and the notebooks that load them.
#: A test compares the weights with what trained them, the Makefile and `benchmarks/versus.py`.
_LEARNED: dict[tuple[str, str], tuple[str, dict[str, float], str]] = {
    ("pocket", "kit, part 1"): ("both", {}, "0-6"),
    ("pocket", "kit, part 2"): ("original's, faultless", {"labels": 1, "hidden": 0}, "0-6"),
    ("translator", "kit, part 1"): ("both", {}, "0, 3-5"),
    ("translator", "kit, part 2"): ("both", {}, "0, 3-5"),
    ("translator", "compared"): ("people's", {"labels": 1, "logits": 0, "hidden": 0}, "3, 6"),
    ("pocket", "compared"): ("original's, faultless", {"labels": 1, "logits": 0, "hidden": 0}, "6"),
}


def weights(**changed: float) -> dict[str, float]:
    """The weight of each loss that counts: the library's own, where nothing else is given."""
    own = {loss: getattr(ModularTrainingArguments, f"{loss}_weight") for loss in LOSSES}
    return {loss: weight for loss, weight in (own | changed).items() if weight}


def who_learned_what() -> pd.DataFrame:
    """The kits that the course shows: what each learned from, and what that cost."""
    table = []
    for (model, part), (texts, changed, notebooks) in _LEARNED.items():
        if part == "compared":
            measured = json.loads(bundled(f"{model}/versus.json").read_text(encoding="utf-8"))["rows"]
            kits = sorted((row for row in measured if row["method"] == "kit"), key=lambda row: row["steps"])
            least, most = kits[0], kits[-1]
            steps = f"{least['steps']:,} to {most['steps']:,} of {_RECIPES[model].kit.batch_size}"
            minutes = f"{least['minutes']:.0f} to {most['minutes']:.0f}" if "minutes" in most else "not measured"
        else:
            run = json.loads(bundled(f"{model}/training.json").read_text(encoding="utf-8"))[part]
            steps = f"{run['steps']:,} of {run['batch_size']}"
            minutes = f"{run['seconds'] / 60 * run['processes'] * run['threads']:.0f}"
        losses = ", ".join(f"{loss} {weight:g}" for loss, weight in weights(**changed).items())
        cells = (f"{model}, {part.removeprefix('kit, ')}", losses, texts, steps, minutes, notebooks)
        columns = ("kit", "losses", "whose texts", "steps", "core minutes", "notebooks")
        table.append(dict(zip(columns, cells, strict=True)))
    return pd.DataFrame(table)


# -- untrained modules -------------------------------------------------------------------------------------------------


def beginnings(first: Sequence[float], last: Sequence[float]) -> go.Figure:
    """The damage that each untrained module of the decoder does alone, begun as the first or as the last layer of its group."""
    figure = go.Figure()
    names = [f"m(2, {j})" for j in range(len(first))]
    for values, name, color, pattern in ((first, "first layer", BLUE, ""), (last, "last layer", ORANGE, "/")):
        figure.add_bar(
            x=names, y=list(values), name=f"begun as the {name} of its group", marker={"color": color, "pattern": {"shape": pattern}},
            text=[f"{value:.2g}" for value in values], textposition="outside", textangle=0, cliponaxis=False,
        )  # fmt: skip
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    title = {"text": "One untrained module of the decoder at a time", "y": 0.97}
    figure.update_layout(template="plotly_white", height=360, width=860, legend=legend, title=title)
    figure.update_yaxes(title="divergence, nats a token", type="log", dtick=1)
    return described(
        figure,
        f"Pairs of bars on a logarithmic axis for six modules. Begun as the first layer, they diverge from the original by {min(first):.2g} to {max(first):.2g} nats a token; "
        f"begun as the last, m(2, 0) diverges by {last[0]:.2g} and the others by {min(last[1:]):.2g} to {max(last[1:]):.2g}.",
        margin={"l": 70, "r": 20, "t": 90, "b": 40},
    )
