"""The modular model: an original with banks of modularized layers, assembled to any size, saved and loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import logging

from modtf.architectures import Architecture, architecture_of, set_depths, stacks_of
from modtf.decoding import GENERATE, LOOP, decode
from modtf.errors import ModtfError
from modtf.layers import ModularStack, Recording, clone_module, new_bank, record
from modtf.mapping import Assembly, Mapping, check_granularities, default_granularities
from modtf.strategies import choose

INDEX = "modtf.json"
_FORMAT = 1
_TOKENIZER = "tokenizer_config.json"
#: Assembled models kept for :meth:`ModularModel.generate`; each costs module objects only, no weights.
_KEPT_ASSEMBLIES = 32
#: Names that :meth:`ModularModel.save_pretrained` makes up.
_OURS = re.compile(r"banks-[0-9a-f]{12}\.safetensors|original-[0-9a-f]{12}")


def modularize(
    original: PreTrainedModel,
    granularities: Iterable[int] | None = None,
    *,
    decoder_granularities: Iterable[int] | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> ModularModel:
    """Give an encoder-decoder model banks of modularized layers, one for each granularity in each stack.

    ``granularities`` holds for both stacks unless ``decoder_granularities`` says otherwise; they default to the divisors of a
    stack's depth up to its half (2, 3, 4, 6 for 12 layers). The original is frozen and becomes part of the result: do not
    train it any more. Its tokenizer is looked up beside it where none is given. Raises :class:`ModtfError` for an unsupported
    architecture or a granularity that does not divide the depth; the model is then as it was.
    """
    architecture = architecture_of(original)
    encoder, decoder = stacks_of(original)
    layers = [getattr(stack, architecture.layers) for stack in (encoder, decoder)]
    if any(isinstance(stack_layers, ModularStack) for stack_layers in layers):
        raise ModtfError(
            "this model is modular already; load the original again, or use the modular model that holds it"
        )
    for_encoder = None if granularities is None else tuple(granularities)
    chosen = (for_encoder, for_encoder if decoder_granularities is None else tuple(decoder_granularities))
    mapping = Mapping(
        len(layers[0]),
        len(layers[1]),
        *(
            default_granularities(len(stack_layers))
            if wanted is None
            else check_granularities(wanted, len(stack_layers), name)
            for stack_layers, wanted, name in zip(layers, chosen, ("encoder", "decoder"), strict=True)
        ),
    )
    wanted_of = (mapping.encoder_granularities, mapping.decoder_granularities)
    banks = [
        {g: new_bank(of_stack, g, architecture) for g in wanted}
        for of_stack, wanted in zip(layers, wanted_of, strict=True)
    ]
    original.requires_grad_(False)  # nothing fails from here on: a model is modular or as it was
    for stack, of_stack, of_banks in zip((encoder, decoder), layers, banks, strict=True):
        setattr(stack, architecture.layers, ModularStack(of_stack, of_banks))
        if architecture.model_type == "bart":
            stack.layerdrop = 0.0  # it would skip layers without a word
    return ModularModel(original, mapping, tokenizer)


class ModularModel(nn.Module):
    """An original and its banks; made by :func:`modularize` or :meth:`from_pretrained`.

    ``model`` is the Hugging Face model whose stacks hold a :class:`ModularStack` each; ``mapping`` says what can be assembled.
    """

    main_input_name = "input_ids"

    def __init__(
        self, model: PreTrainedModel, mapping: Mapping, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.mapping = mapping
        self.architecture: Architecture = architecture_of(model)
        self._tokenizer = tokenizer
        #: what :func:`load` was given, and can be given again; None for a model that was made in memory
        self.source: str | None = None
        self._is_copy = False  # whether the original lies in the folder of a modular model, which may go away
        self._assembled: OrderedDict[Assembly, PreTrainedModel] = OrderedDict()
        self.train(False)

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
        name = self.model.name_or_path
        # In a folder without one, AutoTokenizer would make up an empty tokenizer of the model's family.
        if (
            self._tokenizer is None
            and name
            and (not Path(name).is_dir() or (Path(name) / "tokenizer_config.json").is_file())
        ):
            try:
                self._tokenizer = AutoTokenizer.from_pretrained(name)
            except (OSError, ValueError) as error:
                raise ModtfError(
                    f"no tokenizer found at {self.model.name_or_path!r} ({error}); give one: modularize(..., tokenizer=...)"
                ) from error
        if self._tokenizer is None:
            raise ModtfError("this model came without a tokenizer; give one: modularize(..., tokenizer=...)")
        return self._tokenizer

    @property
    def longest(self) -> int:
        """Tokens of a text where nothing else is said: 128, or what the decoder has positions for."""
        return min(128, getattr(self.config, "max_position_embeddings", 128))

    def train(self, mode: bool = True) -> ModularModel:
        """Only banks ever train: the original is the teacher and stays as it is, without dropout."""
        super().train(mode)
        self.model.train(False)
        for stack in self.stacks:
            stack.banks.train(mode)
        return self

    def _apply(self, *args: Any, **kwargs: Any) -> ModularModel:
        self._assembled.clear()  # their buffers would stay on the old device
        return super()._apply(*args, **kwargs)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """Recompute the banks' activations in the backward pass; non-reentrant unless asked otherwise, since most inputs need no gradient."""
        model: Any = self.model
        enable = getattr(
            model, "activation_checkpointing_enable", model.gradient_checkpointing_enable
        )  # its name before transformers 5.23
        enable({"use_reentrant": False, **(activation_checkpointing_kwargs or {})}, **options)

    def activation_checkpointing_disable(self) -> None:
        model: Any = self.model
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """The older name, which Trainer calls before transformers 5.23."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **options)

    def gradient_checkpointing_disable(self) -> None:
        self.activation_checkpointing_disable()

    # -- running a path ------------------------------------------------------------------------------------------------

    @contextmanager
    def using(self, assembly: Assembly) -> Iterator[None]:
        """Within this context the stacks run ``assembly``; afterwards what they ran before."""
        self.mapping.check(assembly)
        before = [stack.path for stack in self.stacks]
        try:
            for stack, path in zip(self.stacks, (assembly.encoder, assembly.decoder), strict=True):
                stack.path = path
            yield
        finally:
            for stack, path in zip(self.stacks, before, strict=True):
                stack.path = path

    @contextmanager
    def record(self, assembly: Assembly, attentions: bool = False) -> Iterator[tuple[Recording, Recording]]:
        """Record what the layers of both stacks give while the context is open."""
        encoder, decoder = self.stacks
        with (
            record(encoder.layers(assembly.encoder), self.architecture, attentions) as encoder_recording,
            record(decoder.layers(assembly.decoder), self.architecture, attentions) as decoder_recording,
        ):
            yield encoder_recording, decoder_recording

    def forward(
        self,
        assembly: Assembly | None = None,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Seq2SeqLMOutput:
        """Training forward pass through the layers of ``assembly`` (the original's where not given); builds no cache.

        ``input_ids`` and ``attention_mask`` are (batch, source), ``labels`` (batch, target); see :func:`forward_shared`.
        """
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, **inputs}
        with self.using(assembly or self.mapping.original):
            return forward_shared(self.model, given)

    # -- assembling ----------------------------------------------------------------------------------------------------

    def choose(
        self, ratio: float | None = None, strategy: str = "size_first", assembly: Assembly | str | None = None
    ) -> Assembly:
        """The checked assembly for a ratio and strategy, or the one given (as object or text); the original's by default."""
        if assembly is not None:
            if ratio is not None:
                raise ModtfError(f"both a ratio ({ratio}) and an assembly ({assembly}) were given; give one of them")
            return self.mapping.check(Assembly.parse(assembly) if isinstance(assembly, str) else assembly)
        return choose(self.mapping, 1.0 if ratio is None else ratio, strategy)

    def assemble(
        self, ratio: float | None = None, strategy: str = "size_first", assembly: Assembly | str | None = None
    ) -> PreTrainedModel:
        """An ordinary ``T5ForConditionalGeneration`` / ``BartForConditionalGeneration`` of the chosen layers.

        It shares every weight with this model (no bytes are copied), has its own modules and configuration, and is
        independent of other assemblies. ``.assembly`` says what it is made of. ``save_pretrained`` writes a
        checkpoint that plain transformers loads.
        """
        assembly = self.choose(ratio, strategy, assembly)
        replaced: dict[int, Any] = {}
        for owner in (self.model, *stacks_of(self.model)):
            if id(owner.config) not in replaced:
                replaced[id(owner.config)] = copy.deepcopy(owner.config)
        replaced[id(self.model.generation_config)] = copy.deepcopy(self.model.generation_config)
        for modular_stack, path in zip(self.stacks, (assembly.encoder, assembly.decoder), strict=True):
            replaced[id(modular_stack)] = nn.ModuleList(
                clone_module(layer, replaced) for layer in modular_stack.layers(path)
            )
        small: Any = clone_module(self.model, replaced)
        set_depths(small, self.architecture, len(assembly.encoder), len(assembly.decoder))
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

    @overload
    def generate(
        self,
        texts: str,
        ratio: float | None = ...,
        strategy: str = ...,
        assembly: Assembly | str | None = ...,
        engine: str | None = ...,
        **generate_options: Any,
    ) -> str: ...

    @overload
    def generate(
        self,
        texts: list[str],
        ratio: float | None = ...,
        strategy: str = ...,
        assembly: Assembly | str | None = ...,
        engine: str | None = ...,
        **generate_options: Any,
    ) -> list[str]: ...

    def generate(
        self,
        texts: str | list[str],
        ratio: float | None = None,
        strategy: str = "size_first",
        assembly: Assembly | str | None = None,
        engine: str | None = None,
        **generate_options: Any,
    ) -> str | list[str]:
        """Text for a text, or texts for a list, by the assembly for ``ratio`` and ``strategy`` (or the one given).

        Greedy, at most :attr:`longest` new tokens, one batch, unless ``generate_options`` (those of transformers' ``generate``) say otherwise.
        Greedy texts are written by the ``engine`` of :func:`modtf.decoding.decode`, all others by ``generate``. Raises
        :class:`ModtfError` for empty or over-long texts.
        """
        batch = [texts] if isinstance(texts, str) else list(texts)
        encoded = self.encode(batch)
        chosen = self.choose(ratio, strategy, assembly)
        limit = {} if "max_length" in generate_options else {"max_new_tokens": self.longest}
        options = {"do_sample": False, "num_beams": 1} | limit | generate_options
        model = self.assembled(chosen)
        beyond = [
            name
            for name, value in options.items()
            if name != "max_new_tokens" and value != {"do_sample": False, "num_beams": 1}.get(name)
        ]
        if engine not in (None, LOOP, GENERATE):
            raise ModtfError(f"engine {engine!r} is unknown; possible are {LOOP!r} and {GENERATE!r}")
        if engine == LOOP and beyond:
            raise ModtfError(
                f"the greedy loop takes max_new_tokens only, not {', '.join(beyond)}; leave the engine open"
            )
        if not beyond and options["max_new_tokens"] is not None:
            tokens, _ = decode(
                model,
                encoded["input_ids"],
                encoded["attention_mask"],
                max_new_tokens=options["max_new_tokens"],
                engine=engine,
            )
        else:
            with torch.inference_mode():
                tokens = model.generate(**encoded, **options)
        written = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return written[0] if isinstance(texts, str) and len(written) == 1 else written

    def assembled(self, assembly: Assembly) -> PreTrainedModel:
        """:meth:`assemble`, remembering the last few: for those who switch back and forth. Do not modify the result."""
        if assembly not in self._assembled:
            self._assembled[assembly] = self.assemble(assembly=assembly)
            if len(self._assembled) > _KEPT_ASSEMBLIES:
                self._assembled.popitem(last=False)
        self._assembled.move_to_end(assembly)
        self._assembled[assembly].generation_config = self.model.generation_config  # which may have changed meanwhile
        return self._assembled[assembly]

    def encode(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` (texts, source) on the model's device; checks that texts are neither empty nor too long."""
        if not texts:
            raise ModtfError("no texts were given; give at least one")
        empty = [i for i, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
        if empty:
            raise ModtfError(f"text {empty[0]} is empty or not a string: {texts[empty[0]]!r}; give non-empty strings")
        encoded = self.tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
        length = int(encoded["attention_mask"].sum(1).max())
        limit = min(self.tokenizer.model_max_length, getattr(self.config, "max_position_embeddings", length))
        if length > limit:
            raise ModtfError(f"a text has {length} tokens; at most {limit} are possible: shorten it or split it")
        return {name: encoded[name].to(self.device) for name in ("input_ids", "attention_mask")}

    # -- saving and loading --------------------------------------------------------------------------------------------

    def bank_weights(self) -> dict[str, torch.Tensor]:
        """What training changes, and all that is saved of the banks: ``encoder.2.0.<name within the layer>`` for m(2, 0)."""
        return {
            f"{name}.{g}.{j}.{key}": parameter
            for name, stack in zip(("encoder", "decoder"), self.stacks, strict=True)
            for g in stack.banks
            for j, layer in enumerate(stack.banks[g].children())
            for key, parameter in layer.named_parameters()
            if not (self.architecture.position_bias and key.startswith(self.architecture.position_bias))
        }

    def save_pretrained(
        self, folder: str | Path, *, copy_original: bool | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """Write the banks and a pointer to the original (its hub id or folder), or a copy of it, as safetensors.

        ``copy_original`` defaults to pointing where the original can be loaded from as it is, and to copying otherwise (made or
        changed in memory, or a copy itself). ``dtype`` stores in less precision. New files stand beside the old ones until
        ``modtf.json``, replaced at once at the end, points to them: whatever stops the writing, the folder holds what it
        held before.
        """
        name = self.model.name_or_path
        fingerprint = fingerprint_of(self.original_weights())
        if copy_original is None:
            lacks_tokenizer = (
                self._tokenizer is not None and Path(name).is_dir() and not (Path(name) / _TOKENIZER).is_file()
            )
            copy_original = not name or self._is_copy or lacks_tokenizer or not _holds_original(name, fingerprint)
        if copy_original:
            with suppress(ModtfError):  # there may be none
                self._tokenizer = self.tokenizer
            fingerprint = fingerprint_of(self.original_weights(), dtype)
            self._save(Path(folder), {"copy": f"original-{fingerprint[:12]}"}, fingerprint, dtype)
        elif not name:
            raise ModtfError(
                "the original was made in memory, so there is nothing to point to; save with copy_original=True"
            )
        else:
            self._save(Path(folder), {"pointer": _absolute_if_folder(name)}, fingerprint, dtype)

    def save_banks(self, folder: str | Path) -> None:
        """Write the banks alone, for :meth:`load_banks` into the same model: what a checkpoint of the training holds.

        Where the folder holds this model already, its original stays.
        """
        fingerprint = fingerprint_of(self.original_weights())
        before = _index_or_nothing(Path(folder))
        if before and _belong(before, self.original_weights()):
            self._save(Path(folder), before["original"], before["fingerprint"], None)
        else:
            self._save(Path(folder), {}, fingerprint, None)

    def _save(self, folder: Path, original: dict[str, str], fingerprint: str, dtype: torch.dtype | None) -> None:
        weights = {key: w.detach().to(device="cpu", dtype=dtype).contiguous() for key, w in self.bank_weights().items()}
        banks, copied = f"banks-{_digest(weights)[:12]}.safetensors", original.get("copy")
        index = {
            "format": _FORMAT,
            "model_type": self.architecture.model_type,
            "encoder": {"depth": self.mapping.encoder_depth, "granularities": list(self.mapping.encoder_granularities)},
            "decoder": {"depth": self.mapping.decoder_depth, "granularities": list(self.mapping.decoder_granularities)},
            "banks": banks,
            "original": original,
            "fingerprint": fingerprint,
        }
        placed: list[str] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as temporary_name:
                temporary = Path(temporary_name)
                save_file(weights, temporary / banks, metadata={"format": "pt"})
                files = [banks, INDEX]
                if copied and not _holds_original(str(folder / copied), fingerprint):
                    self._copy_original(temporary / copied, dtype)
                    _remove(folder / copied)  # damaged, where there was one
                    files.insert(0, copied)
                elif copied and self._tokenizer is not None and not (folder / copied / _TOKENIZER).exists():
                    self._tokenizer.save_pretrained(temporary / copied)
                    joining = sorted(
                        (path.name for path in (temporary / copied).iterdir()), key=lambda name: name == _TOKENIZER
                    )
                    files = [f"{copied}/{name}" for name in joining] + files
                (temporary / INDEX).write_text(json.dumps(index, indent=2) + "\n")
                for name in files:
                    placed += [name] * (name != INDEX and not (folder / name).exists())
                    os.replace(temporary / name, folder / name)
                placed.clear()  # the index is in place: what it names must stay
        except BaseException as error:
            for name in set(placed) - _files_of(
                _index_or_nothing(folder)
            ):  # interrupted after the index came: all is in place
                _remove(folder / name)
            if not isinstance(error, (OSError, SafetensorError)):
                raise
            raise ModtfError(
                f"could not save to {folder}: {error}. What it held before is still there; free some space or choose another folder"
            ) from error
        # What the index named before, and what savings that were killed have left.
        for path in list(folder.iterdir()):
            if _OURS.fullmatch(path.name) and path.name not in (banks, copied):
                _remove(path)

    def _copy_original(self, folder: Path, dtype: torch.dtype | None) -> None:
        plain = self.assemble()
        if dtype is not None:
            plain = copy.deepcopy(plain).to(dtype)
        plain.save_pretrained(folder)
        if self._tokenizer is not None:
            self._tokenizer.save_pretrained(folder)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, original: PreTrainedModel | None = None, dtype: torch.dtype = torch.float32
    ) -> ModularModel:
        """Load what :meth:`save_pretrained` wrote, from a folder or from a hub id.

        ``original`` takes the place of the one that the saved model points to. Raises :class:`ModtfError` where files are missing or
        cut off, or where banks and original do not belong together.
        """
        folder = _local_folder(name)
        index = _read_index(folder)
        tokenizer = None
        if original is None:
            if not index["original"]:
                raise ModtfError(
                    f"{folder} holds banks without their original (a checkpoint of a training); give it: original=..., or load_banks"
                )
            source = index["original"].get("pointer") or str(folder / index["original"]["copy"])
            try:
                original = _load_original(source)
            except (OSError, ValueError, SafetensorError, RuntimeError) as error:
                raise ModtfError(
                    f"the original of {folder} could not be loaded from {source}: {error}. Put it back there, or give it: original=..."
                ) from error
            if (Path(source) / "tokenizer_config.json").is_file():
                tokenizer = AutoTokenizer.from_pretrained(source)
        _check_fingerprint(folder, index, dict(original.named_parameters()))
        modular = modularize(
            original,
            index["encoder"]["granularities"],
            decoder_granularities=index["decoder"]["granularities"],
            tokenizer=tokenizer,
        )
        modular._is_copy = "copy" in index["original"]
        modular.load_banks(folder)
        return modular.to(dtype)

    def export(self, folder: str | Path, assembly: Assembly) -> None:
        """Save an assembly with its tokenizer in a new folder, for plain transformers to load.

        Raises :class:`ModtfError` where the folder holds something already, or where it cannot be written; it then holds what it held.
        """
        folder = Path(folder).resolve()
        if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
            raise ModtfError(f"{folder} exists and is not empty; choose a new folder")
        small = self.assemble(assembly=assembly)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder.parent))
            try:
                small.save_pretrained(temporary)
                self.tokenizer.save_pretrained(temporary)
                temporary.chmod(0o755)
                os.replace(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except (OSError, SafetensorError) as error:
            raise ModtfError(f"could not save to {folder}: {error}") from error

    def load_banks(self, folder: str | Path) -> None:
        """Put the banks saved in ``folder`` into this model; nothing changes where they do not fit."""
        folder = Path(folder)
        index = _read_index(folder)
        path = folder / index["banks"]
        try:
            saved = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModtfError(
                f"the banks {path} are missing or cut off ({error}); copy the whole folder again, or save again"
            ) from error
        _check_fingerprint(folder, index, self.original_weights())
        own = self.bank_weights()
        unlike = sorted(own.keys() ^ saved.keys()) or [key for key in own if own[key].shape != saved[key].shape]
        if unlike:
            raise ModtfError(
                f"the banks {path} do not fit this model (first difference: {unlike[0]}); they were made with other granularities or another original"
            )
        with torch.no_grad():
            for key, parameter in own.items():
                parameter.copy_(saved[key])

    def original_weights(self) -> dict[str, torch.Tensor]:
        """The original's parameters by the names that they have in its own checkpoint."""
        return dict(self.assembled(self.mapping.original).named_parameters())


def load(name: str | Path) -> ModularModel:
    """Load a modular model: ``"pocket"`` (bundled, needs no network), a folder, or a hub id."""
    from modtf.data import bundled

    if name == "pocket":
        with _quietly():
            modular = ModularModel.from_pretrained(bundled("pocket"))
    else:
        modular = ModularModel.from_pretrained(name)
    modular.source = "pocket" if name == "pocket" else _absolute_if_folder(str(name))
    return modular


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the progress bar, which is on the page for longer than the loading takes."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def forward_shared(model: PreTrainedModel, inputs: dict[str, Any]) -> Seq2SeqLMOutput:
    """Forward pass with labels that encodes each source once for its many targets; builds no cache.

    ``source_index`` (targets,) says which row of ``input_ids`` (sources, source) each row of ``labels`` (targets, target)
    belongs to; without it sources and targets pair up as usual.
    """
    inputs = dict(inputs)
    inputs.pop("use_cache", None)
    index = inputs.pop("source_index", None)
    if index is None:
        return model(**inputs, use_cache=False)
    encoder, _ = stacks_of(model)
    mask = inputs.get("attention_mask")
    hidden = encoder(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    return model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden[index]),
        attention_mask=None if mask is None else mask[index],
        labels=inputs["labels"],
        use_cache=False,
    )


def fingerprint_of(weights: dict[str, torch.Tensor], stored: torch.dtype | None = None) -> str:
    """A hash of the names, shapes and evenly spaced values of ``weights``, as they are once stored in the given type.

    Up to 256 values of each are read, so that it takes milliseconds for small models and well under a second for large ones; they
    are rounded to bfloat16, so that an original has the same fingerprint whether it was loaded in float32 or in bfloat16.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        flat = weights[name].detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)][:256].cpu()
        rounded = sample.to(stored or sample.dtype).to(torch.bfloat16).to(torch.float32)
        digest.update(f"{name} {tuple(weights[name].shape)}".encode())
        digest.update(rounded.numpy().tobytes())
    return digest.hexdigest()


def _belong(index: dict[str, Any], original: dict[str, torch.Tensor]) -> bool:
    """Whether the index is of this original, or of a copy of it stored in half precision."""
    return index["fingerprint"] in (fingerprint_of(original), fingerprint_of(original, torch.float16))


def _check_fingerprint(folder: Path, index: dict[str, Any], original: dict[str, torch.Tensor]) -> None:
    if not _belong(index, original):
        given = fingerprint_of(original)
        raise ModtfError(
            f"the banks in {folder} were trained for another original: its fingerprint is {index['fingerprint'][:12]}, the given one's is {given[:12]}. "
            "Use the original that the banks were made from, or train new banks"
        )


def _digest(weights: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _absolute_if_folder(name: str) -> str:
    return str(Path(name).resolve()) if Path(name).is_dir() else name


def _local_folder(name: str | Path) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or str(name).count("/") != 1 or str(name).startswith("."):
        raise ModtfError(f"{str(name)!r} is neither 'pocket', nor a folder here, nor a hub id such as user/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except (OSError, ValueError) as error:
        raise ModtfError(f"{str(name)!r} is no folder here and could not be fetched from the hub: {error}") from error


def _load_original(source: str) -> PreTrainedModel:
    return AutoModelForSeq2SeqLM.from_pretrained(source, dtype=torch.float32)


def _holds_original(name: str, fingerprint: str) -> bool:
    """Whether what can be loaded from there is the original, unchanged."""
    try:
        return fingerprint_of(dict(_load_original(name).named_parameters())) == fingerprint
    except (OSError, ValueError, SafetensorError, RuntimeError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _index_or_nothing(folder: Path) -> dict[str, Any]:
    try:
        return _read_index(folder)
    except ModtfError:
        return {}


def _files_of(index: dict[str, Any]) -> set[str]:
    return {index["banks"], *filter(None, [index["original"].get("copy")])} if index else set()


def _is_index(index: dict[str, Any]) -> bool:
    original, stacks = index["original"], [index["encoder"], index["decoder"]]
    return (
        isinstance(index["banks"], str)
        and isinstance(index["fingerprint"], str)
        and isinstance(original, dict)
        and (not original or any(isinstance(original.get(key), str) for key in ("pointer", "copy")))
        and all(isinstance(stack, dict) and isinstance(stack.get("granularities"), list) for stack in stacks)
        and all(type(g) is int for stack in stacks for g in stack["granularities"])
    )


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModtfError(
            f"{folder} holds no {INDEX}, so it is not a modular model; give a folder that save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ModtfError(f"{path} cannot be read: {error}; copy the folder again, or save again") from error
    if isinstance(index, dict) and index.get("format") != _FORMAT:
        raise ModtfError(f"{folder} has format {index.get('format')}; this modtf reads {_FORMAT}: upgrade modtf")
    missing = {"encoder", "decoder", "banks", "original", "fingerprint"} - (
        index.keys() if isinstance(index, dict) else set()
    )
    if missing:
        raise ModtfError(f"{path} lacks {', '.join(sorted(missing))}; copy the folder again, or save again")
    if not _is_index(index):
        raise ModtfError(f"{path} holds values of the wrong kind; copy the folder again, or save again")
    outside = [name for name in _files_of(index) if Path(name).name != name]
    if outside:
        raise ModtfError(
            f"{path} names {outside[0]!r}, which is not a file beside it; copy the folder again, or save again"
        )
    return index
