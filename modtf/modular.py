"""The modular model: an original with banks of modularized layers, assembled to any size, saved and loaded."""

from __future__ import annotations

import copy
import tempfile
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import Seq2SeqLMOutput

from modtf import saving
from modtf.architectures import (
    Architecture,
    architecture_of,
    copied_configs,
    items_of,
    longest_texts,
    move_heads,
    set_depths,
    set_items,
    stacks_of,
)
from modtf.bundled import BUNDLED_MODELS, bundled
from modtf.compiled import PRECISIONS, Compiled, check_installed, load_compiled
from modtf.decoding import ENGINES, LOOP, Draft, Pace, Watch, check_length, decode, weights_stamp
from modtf.errors import ModtfError
from modtf.layers import ModularStack, Recording, clone_module, new_bank, record
from modtf.mapping import STACKS, Assembly, LayerPath, Mapping, StackMapping, default_granularities
from modtf.quality import LIMITS, Profile, quality_first, read_profile
from modtf.strategies import QUALITY_FIRST, STRATEGIES, choose

#: A draft that is chosen, and left out where it does not pay.
AUTO = "auto"
#: The task of a model for which none is named.
_ANY_TEXT = "text"
#: Assembled models kept for :meth:`ModularModel.generate`; each costs module objects only, no weights.
_KEPT_ASSEMBLIES = 32
#: Compiled ones that are kept in memory, each with weights of its own.
_KEPT_COMPILED = 4
#: A module's dictionary of parameters or children, a name in it, and the object that had this name.
_Part = tuple[dict[str, Any], str, Any]
#: What :meth:`ModularModel.generate` is given and gives: a text for a text, a list for a list.
Texts = TypeVar("Texts", str, list[str])


def modularize(
    original: PreTrainedModel,
    granularities: Iterable[int] | None = None,
    *,
    decoder_granularities: Iterable[int] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    task: str | None = None,
    prefix: str = "",
) -> ModularModel:
    """Give an encoder-decoder model banks of modularized layers, one for each granularity in each stack.

    ``granularities`` holds for both stacks unless ``decoder_granularities`` says otherwise; they default to the
    divisors of a stack's depth up to its half (2, 3, 4, 6 for 12 layers). The original is frozen and becomes part of
    the result: do not train it any more. If no tokenizer is given, the one beside the original is used. ``task`` names
    what the model does and is saved with it ("text", any text, by default), as is ``prefix``, with which the original
    expects each source to begin, such as "summarize: ". Raises :class:`ModtfError` for an
    unsupported architecture or a granularity that does not divide the depth; the model is then as it was.
    """
    architecture = _check_not_modular(original)
    if task is not None and (not isinstance(task, str) or not task):
        raise ModtfError(f"the task is {task!r}; give its name, such as {_ANY_TEXT!r}, or leave it out")
    stacks = stacks_of(original)
    layers = [getattr(stack, architecture.layers) for stack in stacks]
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ModtfError(f"the tokenizer is {tokenizer!r:.80}; load one with AutoTokenizer.from_pretrained")
    e, d = (len(of_stack) for of_stack in layers)
    of_encoder: Any = default_granularities(e) if granularities is None else granularities
    encoder = StackMapping(e, of_encoder, "encoder")
    of_decoder: Any = decoder_granularities
    if of_decoder is None:
        of_decoder = default_granularities(d) if granularities is None else encoder.granularities
    mapping = Mapping(encoder, StackMapping(d, of_decoder, "decoder"))
    banks = [
        {g: new_bank(of_stack, g, architecture) for g in stack_mapping.granularities}
        for of_stack, stack_mapping in zip(layers, mapping.stacks, strict=True)
    ]
    original.requires_grad_(False)  # nothing fails from here on: a model is modular or as it was
    for stack, of_stack, of_banks in zip(stacks, layers, banks, strict=True):
        setattr(stack, architecture.layers, ModularStack(of_stack, of_banks))
        if hasattr(stack, "layerdrop"):
            stack.layerdrop = 0.0  # it would skip layers silently
    return ModularModel(original, mapping, tokenizer, task or _ANY_TEXT, prefix)


def _check_not_modular(original: PreTrainedModel) -> Architecture:
    """The record of a model; raises :class:`ModtfError` for one that is not supported, or that has banks already."""
    architecture = architecture_of(original)
    if any(isinstance(getattr(stack, architecture.layers), ModularStack) for stack in stacks_of(original)):
        raise ModtfError(
            "this model is modular already; load the original again, or use the modular model that holds it"
        )
    return architecture


@dataclass(frozen=True)
class Written:
    """What :meth:`ModularModel.write` gives."""

    texts: list[str]
    #: (texts, new tokens), without the start token
    tokens: torch.Tensor
    #: the one used: :data:`modtf.decoding.LOOP`, :data:`modtf.decoding.GENERATE` or one of :data:`modtf.compiled.PRECISIONS`
    engine: str
    #: of decoding alone, without the tokenizer, until the device was done
    seconds: float
    #: what came of the draft, if there was one
    draft: Draft | None = None


def seconds_now(model: PreTrainedModel) -> float:
    """The time, once the model's device has finished its work."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def _check_engine(engine: str | None) -> None:
    """Raise :class:`ModtfError` unless this engine is known, and installed; None leaves it open."""
    if isinstance(engine, str) and engine in PRECISIONS:
        check_installed()
    elif engine is not None and engine not in ENGINES:
        raise ModtfError(f"engine {engine!r} is unknown; use one of {', '.join((*ENGINES, *PRECISIONS))}")


class ModularModel(nn.Module):
    """An original and its banks; made by :func:`modularize` or :meth:`from_pretrained`.

    ``model`` is the Hugging Face model whose stacks hold a :class:`ModularStack` each; ``mapping`` says what can be
    assembled.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        mapping: Mapping,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: str = _ANY_TEXT,
        prefix: str = "",
    ) -> None:
        super().__init__()
        self.model = model
        self.mapping = mapping
        self.architecture: Architecture = architecture_of(model)
        self.main_input_name = model.main_input_name
        self._items = items_of(model.config, self.architecture)
        self._tokenizer = tokenizer
        #: the name of the task, saved with the model
        self.task = task
        #: what each source begins with, saved with the model; it is added where it is missing
        self.prefix = prefix
        #: what :func:`load` was given, and can be given again; None for a model that was made in memory
        self.source: str | None = None
        self._assembled: OrderedDict[Assembly, tuple[PreTrainedModel, list[_Part]]] = OrderedDict()
        self._compiled: OrderedDict[tuple[Assembly, str], tuple[Hashable, Compiled]] = OrderedDict()
        self._paces: dict[Hashable, Pace] = {}
        self._profile: tuple[Hashable, Profile] | None = None  # with the stamp of the weights that it is of
        self.train(False)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles do without what can be made again, part of which cannot be copied."""
        made_again: dict[str, Any] = {
            "_assembled": OrderedDict(),
            "_compiled": OrderedDict(),
            "_paces": {},
            "_profile": None,
        }
        return {**self.__dict__, **made_again}

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def stacks(self) -> tuple[ModularStack, ModularStack]:
        """Layers of the encoder and of the decoder."""
        encoder, decoder = stacks_of(self.model)
        return getattr(encoder, self.architecture.layers), getattr(decoder, self.architecture.layers)

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def generation_config(self) -> Any:
        return self.model.generation_config

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The original's tokenizer; raises :class:`ModtfError` where there is none."""
        if self._tokenizer is None:
            self._tokenizer = saving.tokenizer_beside(self.model.name_or_path)
        if self._tokenizer is None:
            raise ModtfError("this model came without a tokenizer; give one: modularize(..., tokenizer=...)")
        return self._tokenizer

    @property
    def folder(self) -> Path:
        """Where the kit lies; raises :class:`ModtfError` for one that was made in memory or comes from the hub."""
        name = self.source
        if name in BUNDLED_MODELS:
            return bundled(name)
        if name is None or not Path(name).is_dir():
            raise ModtfError("this model lies in no folder of this machine; save it and load it from there first")
        return Path(name)

    @property
    def profile(self) -> Profile:
        """What was measured of this kit; raises :class:`ModtfError` if that is missing or belongs to other weights."""
        banks = self.bank_weights()
        stamp = weights_stamp(banks.values())
        if self._profile is None or self._profile[0] != stamp:
            self._profile = stamp, read_profile(self.folder, saving.fingerprint_of(banks, torch.float16))
        return self._profile[1]

    @property
    def strategies(self) -> tuple[str, ...]:
        """The strategies that can choose an assembly of this model: ``quality_first`` needs a profile."""
        with suppress(ModtfError):
            self.profile  # noqa: B018
            return (*STRATEGIES, QUALITY_FIRST)
        return tuple(STRATEGIES)

    @property
    def longest(self) -> int:
        """Default limit of new tokens: 128, or the number of the decoder's positions if there are fewer."""
        return min(128, longest_texts(self.model)[1] or 128)

    def train(self, mode: bool = True) -> ModularModel:
        """Only banks ever train: the original is the teacher and stays as it is, without dropout."""
        super().train(mode)
        self.model.train(False)
        for stack in self.stacks:
            stack.banks.train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> ModularModel:
        self._assembled.clear()  # their buffers would stay on the old device
        self._compiled.clear()
        self._paces.clear()
        return super()._apply(*args, **kwargs)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Recompute the banks' activations in the backward pass.

        Non-reentrant unless asked otherwise, since most inputs need no gradient.
        """
        enable = getattr(self.model, "activation_checkpointing_enable", self.model.gradient_checkpointing_enable)
        enable({"use_reentrant": False, **(activation_checkpointing_kwargs or {})}, **options)

    def activation_checkpointing_disable(self) -> None:
        getattr(self.model, "activation_checkpointing_disable", self.model.gradient_checkpointing_disable)()

    # The names of these two before transformers 5.23.

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    gradient_checkpointing_disable = activation_checkpointing_disable

    # -- running a path ------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, assembly: Assembly) -> Iterator[None]:
        """Within this context the stacks run ``assembly``; afterwards what they ran before."""
        self.mapping.check(assembly)
        before = [stack.path for stack in self.stacks]
        try:
            self._run(assembly.paths)
            yield
        finally:
            self._run(before)

    def _run(self, paths: Sequence[LayerPath]) -> None:
        for stack, path in zip(self.stacks, paths, strict=True):
            stack.path = path
        set_items(self.config, self._items, paths)

    @contextmanager
    def record(self, assembly: Assembly, attentions: bool = False) -> Iterator[tuple[Recording, Recording]]:
        """Record the outputs of both stacks' layers while the context is open."""
        encoder, decoder = self.stacks
        with (
            record(encoder.layers(assembly.encoder), self.architecture, attentions) as encoder_recording,
            record(decoder.layers(assembly.decoder), self.architecture, attentions, True) as decoder_recording,
        ):
            yield encoder_recording, decoder_recording

    def forward(
        self,
        assembly: Assembly | Sequence[Assembly] | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> Any:
        """Training forward pass through the layers of ``assembly`` (by default the original's); builds no cache.

        The output is transformers' ``Seq2SeqLMOutput`` or, for several assemblies, a list of them. ``input_ids`` and
        ``attention_mask`` are (batch, source), ``labels`` and what begins with ``decoder_`` (batch, target). All inputs
        go to the Hugging Face model; the usual ones are written out for Trainer, which reads here which columns of a
        data set are wanted. Hidden states are those after each layer of the path, as :meth:`record` gives them.
        """
        named = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "decoder_input_ids": decoder_input_ids,
            "decoder_attention_mask": decoder_attention_mask,
            "labels": labels,
        }
        inputs |= {name: value for name, value in named.items() if value is not None} | {"use_cache": False}

        def run(assembly: Assembly) -> Any:
            with self.using(assembly):
                if not (output_hidden_states or output_attentions):
                    return self.model(**inputs)
                with self.record(assembly, output_attentions) as (encoder, decoder):
                    outputs = self.model(**inputs)
            recorded: dict[str, Any] = {}
            if output_hidden_states:
                recorded |= {"encoder_hidden_states": encoder.hidden, "decoder_hidden_states": decoder.hidden}
            if output_attentions:
                recorded |= {
                    "encoder_attentions": encoder.self_attention,
                    "decoder_attentions": decoder.self_attention,
                    "cross_attentions": decoder.cross_attention,
                }
            # The configuration may ask transformers for its own record of them: these take its place.
            return Seq2SeqLMOutput(**{**outputs, **{name: tuple(values) for name, values in recorded.items()}})

        if assembly is None or isinstance(assembly, Assembly):
            return run(assembly or self.mapping.original)
        return [run(one) for one in assembly]

    # -- assembling ----------------------------------------------------------------------------------------------------

    def choose(
        self,
        ratio: float | None = None,
        strategy: str = "size_first",
        assembly: Assembly | str | None = None,
        **limits: float | None,
    ) -> Assembly:
        """The checked assembly for a ratio and strategy, or the one given; the original's if nothing is.

        ``assembly`` is an :class:`Assembly` or its text. The strategy ``quality_first`` needs a profile
        (:mod:`modtf.profile`), and takes other limits, too: see :func:`modtf.quality.quality_first`. Raises
        :class:`ModtfError` for anything else, and for what this model cannot be assembled to.
        """
        if assembly is None and strategy == QUALITY_FIRST:
            return quality_first(self.mapping, self.profile, ratio, **limits)
        if limits:
            raise ModtfError(f"{', '.join(limits)} needs the strategy {QUALITY_FIRST!r}, without an assembly")
        if assembly is None:
            return choose(self.mapping, ratio, strategy)
        if ratio is not None:
            raise ModtfError(f"both a ratio ({ratio}) and an assembly ({assembly}) were given; give one of them")
        if isinstance(assembly, str):
            assembly = Assembly.parse(assembly)
        if not isinstance(assembly, Assembly):
            example = self.mapping.coarsest
            raise ModtfError(
                f"the assembly is {assembly!r:.80}, of type {type(assembly).__name__}; give an Assembly, such as "
                f"Assembly({example.encoder}, {example.decoder}), or its text, such as {str(example)!r}"
            )
        return self.mapping.check(assembly)

    def assemblies(self, strategy: str) -> tuple[Assembly, ...]:
        """All assemblies that a strategy reaches, from the original to the smallest."""
        return tuple(dict.fromkeys(self.choose(ratio, strategy) for ratio in self.mapping.ratios()))

    def assemble(
        self,
        ratio: float | None = None,
        strategy: str = "size_first",
        assembly: Assembly | str | None = None,
        **limits: float | None,
    ) -> PreTrainedModel:
        """An ordinary ``T5ForConditionalGeneration`` / ``BartForConditionalGeneration`` of the chosen layers.

        The arguments are those of :meth:`choose`.
        It shares every weight with this model (no bytes are copied), has its own modules and configuration, and is
        independent of other assemblies. ``.assembly`` says what it is made of. ``save_pretrained`` writes a
        checkpoint that plain transformers loads.
        """
        assembly = self.choose(ratio, strategy, assembly, **limits)
        replaced = copied_configs(self.model)
        replaced[id(self.model.generation_config)] = self._generation_config(assembly)
        for modular_stack, path in zip(self.stacks, assembly.paths, strict=True):
            replaced[id(modular_stack)] = nn.ModuleList(
                clone_module(layer, replaced) for layer in modular_stack.layers(path)
            )
        small: Any = clone_module(self.model, replaced)
        set_depths(small, self.architecture, len(assembly.encoder), len(assembly.decoder))
        set_items(small.config, self._items, assembly.paths)
        for stack in stacks_of(small):
            for position, layer in enumerate(getattr(stack, self.architecture.layers)):
                for module in layer.modules():
                    if "layer_idx" in module.__dict__:
                        module.layer_idx = position  # where this layer keeps its keys and values in the cache
        for module in small.modules():
            # Transformers marks models whose recording hooks are in place; the clone has none yet.
            module.__dict__.pop("_output_capturing_hooks_installed", None)
            if "gradient_checkpointing" in module.__dict__:
                module.gradient_checkpointing = False
        small.assembly = assembly
        return small.eval()

    def assembled(self, assembly: Assembly) -> PreTrainedModel:
        """:meth:`assemble`, remembering the last few: for those who switch back and forth. Do not modify the result.

        It is made anew once one of its parameters or modules has been exchanged in this model.
        """
        small, parts = self._assembled.get(assembly, (None, []))
        if small is None or not all(owner.get(name) is part for owner, name, part in parts):
            small = self.assemble(assembly=assembly)
            self._assembled[assembly] = small, self._parts_of(assembly)
            if len(self._assembled) > _KEPT_ASSEMBLIES:
                self._assembled.popitem(last=False)
        self._assembled.move_to_end(assembly)
        small.generation_config = self._generation_config(assembly)  # the model's may have changed meanwhile
        return small

    def _generation_config(self, assembly: Assembly) -> Any:
        config = copy.deepcopy(self.model.generation_config)
        move_heads(config, self.architecture, assembly.decoder)
        return config

    def _parts_of(self, assembly: Assembly) -> list[_Part]:
        """The parameters and modules of which an assembly is made."""
        inside = {module for stack in self.stacks for module in stack.modules()}
        modules = set(self.model.modules()) - inside
        for stack, path in zip(self.stacks, assembly.paths, strict=True):
            modules |= {stack, stack.originals, stack.banks, *stack.banks.children()}
            modules.update(module for layer in stack.layers(path) for module in layer.modules())
        owners: list[dict[str, Any]] = [owner for m in modules for owner in (m._parameters, m._modules)]
        return [(owner, name, part) for owner in owners for name, part in owner.items()]

    # -- writing -------------------------------------------------------------------------------------------------------

    def generate(
        self,
        texts: Texts,
        ratio: float | None = None,
        strategy: str = "size_first",
        assembly: Assembly | str | None = None,
        engine: str | None = None,
        max_new_tokens: int | None = None,
        draft: float | Assembly | str | None = None,
        **generate_options: Any,
    ) -> Texts:
        """Text for a text, or texts for a list, by the assembly for ``ratio`` and ``strategy`` (or the one given).

        Greedy, at most :attr:`longest` new tokens, one batch, unless ``generate_options`` (those of transformers'
        ``generate``, and the limits of :meth:`choose`) say otherwise. Greedy texts are written by the ``engine`` of
        :meth:`write`, all others by ``generate``. With a ``draft`` (see :meth:`drafting`) a smaller
        decoder writes ahead: the same texts, in less time where its guesses are good and cheap. Raises
        :class:`ModtfError` for empty or over-long texts.
        """
        batch: Any = [texts] if isinstance(texts, str) else texts
        limits = {name: generate_options.pop(name) for name in LIMITS if name in generate_options}
        chosen = self.choose(ratio, strategy, assembly, **limits)
        _check_engine(engine)
        greedy = {"do_sample": False, "num_beams": 1}
        if generate_options.get("return_dict_in_generate"):
            raise ModtfError("this returns texts, without return_dict_in_generate; for more, .assemble() a model")
        beyond = [name for name, value in generate_options.items() if value not in (None, greedy.get(name))]
        written: Any
        if not beyond:
            written = self.write(batch, chosen, max_new_tokens=max_new_tokens, engine=engine, draft=draft).texts
        elif draft is not None:
            raise ModtfError(f"a draft is for greedy texts, without {', '.join(beyond)}; leave it out")
        elif engine == LOOP or engine in PRECISIONS:
            raise ModtfError(
                f"the engine {engine!r} takes max_new_tokens only, not {', '.join(beyond)}; leave the engine open"
            )
        else:
            if max_new_tokens is not None or "max_length" not in beyond:
                max_new_tokens = self._limit(max_new_tokens)
            options = {**self.encode(batch), **greedy, **generate_options, "max_new_tokens": max_new_tokens}
            with torch.inference_mode():
                tokens = self.assembled(chosen).generate(**options)
            written = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return written[0] if isinstance(texts, str) and len(written) == 1 else written

    def write(
        self,
        texts: list[str] | tuple[str, ...],
        assembly: Assembly | str | None = None,
        *,
        max_new_tokens: int | None = None,
        engine: str | None = None,
        watch: Watch | None = None,
        draft: float | Assembly | str | None = None,
    ) -> Written:
        """Greedy texts as one batch: at most ``max_new_tokens`` (:attr:`longest` by default) for each of ``texts``.

        ``engine`` and ``watch`` as in :func:`modtf.decoding.decode`, ``draft`` as in :meth:`drafting`; or the engine is
        one of :data:`modtf.compiled.PRECISIONS`, for which an assembly is compiled when it is first used. Raises
        :class:`ModtfError` for empty or over-long texts.
        """
        _check_engine(engine)
        assembly, limit = self.choose(assembly=assembly), self._limit(max_new_tokens)
        ids, mask = self.encode(texts).values()
        model = self.assembled(assembly)
        small = self.drafting(assembly, draft)
        drafted = None if small is None else self._draft(assembly, small, ids, draft == AUTO)
        if engine in PRECISIONS:
            if drafted is not None and not drafted.auto:
                raise ModtfError(f"drafts are for the loop; choose no engine, or {LOOP!r}, or leave out the draft")
            drafted, translator = None, self._compiled_for(assembly, str(engine))
            started = seconds_now(model)
            new_tokens = translator.write(ids, mask, limit, watch)
        else:
            started = seconds_now(model)
            tokens, engine = decode(model, ids, mask, max_new_tokens=limit, engine=engine, watch=watch, draft=drafted)
            new_tokens = tokens[:, 1:]  # the first is the start token
        seconds = seconds_now(model) - started
        written = self.tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
        return Written(written, new_tokens, str(engine), seconds, drafted)

    def _limit(self, max_new_tokens: int | None) -> int:
        """That number of new tokens, or :attr:`longest`."""
        if max_new_tokens is None:
            return self.longest
        check_length(max_new_tokens)
        most = longest_texts(self.model)[1]
        if most is not None and max_new_tokens > most:
            raise ModtfError(
                f"max_new_tokens is {max_new_tokens}; this model has positions for {most}: give at most that"
            )
        return max_new_tokens

    def _compiled_for(self, assembly: Assembly, engine: str) -> Compiled:
        """The last few are remembered, until their weights or settings change."""
        model = self.assembled(assembly)
        stamp = weights_stamp(model.parameters()), model.generation_config.to_json_string()
        kept = self._compiled.get((assembly, engine))
        if kept is None or kept[0] != stamp:
            kept = stamp, load_compiled(model, self.tokenizer, engine)
            self._compiled[assembly, engine] = kept
            if len(self._compiled) > _KEPT_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end((assembly, engine))
        return kept[1]

    def drafting(self, assembly: Assembly, draft: float | Assembly | str | None) -> Assembly | None:
        """The assembly that drafts for another one: with the same encoder, whose output both decoders read.

        ``draft`` names its decoder: by a ratio (of ``size_first``), an assembly or its text; None for no draft. With
        "auto" it is the smallest one, if that is at most half as large; then the large one writes alone wherever it is
        found to be faster so.
        """
        if draft is None:
            return None
        if draft == AUTO:
            smallest = self.mapping.coarsest.decoder
            return Assembly(assembly.encoder, smallest) if 2 * len(smallest) <= len(assembly.decoder) else None
        try:
            chosen = self.choose(assembly=draft) if isinstance(draft, Assembly | str) else self.choose(draft)
        except ModtfError as error:
            raise ModtfError(
                f"the draft is {draft!r:.80}, no {AUTO!r}, ratio or assembly of this kit: {error}"
            ) from error
        return Assembly(assembly.encoder, chosen.decoder)

    def _draft(self, assembly: Assembly, small: Assembly, ids: torch.Tensor, auto: bool) -> Draft:
        """What is found of the pace of two decoders is kept for the next sources, as many at once and about as long."""
        like = assembly, small, len(ids), ids.shape[1].bit_length()
        return Draft(self.assembled(small), auto, self._paces.setdefault(like, Pace()))

    def encode(self, texts: list[str] | tuple[str, ...]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` (texts, source) on the model's device.

        Raises :class:`ModtfError` where a text is empty, too long, or no text.
        """
        if not isinstance(texts, list | tuple):
            raise ModtfError(
                f"the texts are {texts!r:.80}, of type {type(texts).__name__}; give a string, or a list of strings"
            )
        if not texts:
            raise ModtfError("no texts were given; give at least one")
        for number, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ModtfError(f"text {number} is empty or not a string: {text!r:.80}; give non-empty strings")
        if self.main_input_name != "input_ids":
            raise ModtfError(
                f"this model reads {self.main_input_name}, not texts; assemble(...) one of its sizes and give that what "
                "its processor makes"
            )
        encoded = self.tokenizer(
            list(map(self.prefixed, texts)), padding=True, return_tensors="pt", return_token_type_ids=False
        )
        length = int(encoded["attention_mask"].sum(1).max())
        limit = min(self.tokenizer.model_max_length, longest_texts(self.model)[0] or length)
        if length > limit:
            raise ModtfError(f"a text has {length} tokens; at most {limit} are possible: shorten it or split it")
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def prefixed(self, source: str) -> str:
        """A source with the :attr:`prefix`, which is what an engine that knows nothing of the kit must get."""
        return source if source.startswith(self.prefix) else self.prefix + source

    # -- saving and loading --------------------------------------------------------------------------------------------

    def bank_weights(self) -> dict[str, torch.Tensor]:
        """What training changes, and all that is saved of the banks.

        Names begin with stack, granularity and place: ``encoder.2.0.<name within the layer>`` for m(2, 0).
        """
        return {
            f"{name}.{g}.{j}.{key}": parameter
            for name, stack in zip(STACKS, self.stacks, strict=True)
            for g in stack.banks
            for j, layer in enumerate(stack.banks[g].children())
            for key, parameter in layer.named_parameters()
            if not self.architecture.is_shared(key)
        }

    def original_weights(self) -> dict[str, torch.Tensor]:
        """The original's parameters by the names that they have in its own checkpoint."""
        return dict(self.assembled(self.mapping.original).named_parameters())

    def save_pretrained(
        self, folder: str | Path, *, copy_original: bool | None = None, dtype: torch.dtype | str | None = None
    ) -> None:
        """Write the banks and a pointer to the original (its hub id or folder), or a copy of it, as safetensors.

        ``copy_original`` defaults to pointing where the original can be loaded from as it is, and to copying otherwise
        (made or changed in memory, or itself the copy in a kit's folder). ``dtype`` stores in less precision. An
        original that lies in ``folder`` already stays there. Whatever stops the writing, the folder holds what it held
        before or all that is new; raises :class:`ModtfError` where it cannot be written, or where there is nothing to
        point to.
        """
        folder, dtype = saving.checked_path(folder), None if dtype is None else saving.checked_dtype(dtype)
        original, banks = self.assemble(), self.bank_weights()
        copied = saving.must_copy(original, self._tokenizer, copy_original)
        if copied:
            with suppress(ModtfError):  # there may be none
                self._tokenizer = self.tokenizer
        saving.save(folder, self._about(), banks, original, self._tokenizer, copy_original=copied, dtype=dtype)

    def save_banks(self, folder: str | Path) -> None:
        """Write the banks alone, for :meth:`load_banks` into the same model: what a checkpoint of the training holds.

        If the folder holds this model already, its original stays. Raises :class:`ModtfError` if it holds a model with
        another original, which would be lost, or if it cannot be written.
        """
        saving.save_banks(saving.checked_path(folder), self._about(), self.bank_weights(), self.original_weights())

    def _about(self) -> dict[str, Any]:
        """What the index says of the model itself."""
        prefix = {"prefix": self.prefix} if self.prefix else {}
        return (
            {"model_type": self.architecture.model_type, "task": self.task}
            | prefix
            | {
                name: {"depth": stack.depth, "granularities": list(stack.granularities)}
                for name, stack in zip(STACKS, self.mapping.stacks, strict=True)
            }
        )

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        original: PreTrainedModel | None = None,
        dtype: torch.dtype | str = torch.float32,
        task: str | None = None,
    ) -> ModularModel:
        """Load what :meth:`save_pretrained` wrote, from a folder or from a hub id.

        ``original`` takes the place of the one that the saved model names, ``task`` that of its task. Raises
        :class:`ModtfError` where files are missing, cut off or changed, or where banks and original do not belong
        together.
        """
        dtype, folder = saving.checked_dtype(dtype), saving.local_folder(name)
        index = saving.read_index(folder)
        banks, tokenizer = saving.load_banks(folder, index), None  # damaged ones must not cost a given original
        if original is None:
            original, tokenizer = saving.load_original(folder, index)
        _check_not_modular(original)
        saving.check_fingerprint(folder, index, dict(original.named_parameters()))
        encoder, decoder = (index[name]["granularities"] for name in STACKS)
        task = index.get("task") if task is None else task
        modular = modularize(
            original,
            encoder,
            decoder_granularities=decoder,
            tokenizer=tokenizer,
            task=task,
            prefix=index.get("prefix", ""),
        )
        modular._put_banks(folder, banks)
        return modular.to(dtype)

    def load_banks(self, folder: str | Path) -> None:
        """Put the banks saved in ``folder`` into this model; nothing changes where they do not fit."""
        folder = saving.checked_path(folder)
        index = saving.read_index(folder)
        saved = saving.load_banks(folder, index)
        saving.check_fingerprint(folder, index, self.original_weights())
        self._put_banks(folder, saved)

    def _put_banks(self, folder: Path, saved: dict[str, torch.Tensor]) -> None:
        own = self.bank_weights()
        unlike = sorted(own.keys() ^ saved.keys()) or [key for key in own if own[key].shape != saved[key].shape]
        if unlike:
            raise ModtfError(
                f"the banks in {folder} do not fit this model (first difference: {unlike[0]}); "
                "they were made with other granularities or another original"
            )
        with torch.no_grad():
            for key, parameter in own.items():
                parameter.copy_(saved[key])

    def export(self, folder: str | Path, assembly: Assembly | str) -> None:
        """Save an assembly with its tokenizer in a new folder, for plain transformers to load.

        :func:`modtf.exports.export` does so for other engines, too, with a check and a model card.
        Raises :class:`ModtfError` where the folder holds something already, or where it cannot be written; it then
        holds what it held.
        """
        saving.export(saving.checked_path(folder), self.assemble(assembly=assembly), self.tokenizer)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | bool | None = None,
        commit_message: str = "Upload a modular model",
    ) -> str:
        """Upload the kit with a model card to the hub, from where :func:`load` reads it; returns its address.

        The original goes along unless it is on the hub, unchanged. A card that is there already stays as it is. Raises
        :class:`ModtfError` where the hub refuses or cannot be reached.
        """
        if not isinstance(repo_id, str):
            raise ModtfError(f"{repo_id!r} is not a repository; give its id, such as 'user/name'")
        name = self.model.name_or_path
        copy_original = True if name and Path(name).is_dir() else None  # nobody else has this folder
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, copy_original=copy_original)
            return saving.upload(Path(folder), repo_id, self.mapping.maximum_ratio, private, token, commit_message)


def load(name: str | Path, task: str | None = None) -> ModularModel:
    """Load a modular model: ``"translator"`` or ``"pocket"`` (bundled, need no network), a folder, or a hub id.

    ``task`` takes the place of the task that the model was saved with.
    """
    is_bundled = name in BUNDLED_MODELS
    # A bar would stay on a notebook's page for longer than it takes to load what is bundled.
    with saving.no_progress_bars() if is_bundled else nullcontext():
        modular = ModularModel.from_pretrained(bundled(str(name)) if is_bundled else name, task=task)
    modular.source = str(Path(name).resolve()) if not is_bundled and Path(name).is_dir() else str(name)
    return modular
