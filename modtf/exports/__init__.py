"""Assemblies as files of the engines that people serve with; each is read back and checked before it is there.

A format is a module of this package with the same few names: ``write`` makes its folder, ``reader`` writes texts with
it by its own engine, and ``PRECISIONS``, ``PACKAGES``, ``FAMILIES`` and ``HOW`` say what it takes and how it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi

from modtf.errors import ModtfError
from modtf.exports.card import CARD, Exported, card_of_sizes, model_card
from modtf.exports.check import Check, Reader, compare, converting
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.saving import INDEX, check_repository, checked_path, new_folder, on_the_hub
from modtf.tasks import Example, task_named
from modtf.tasks.examples import spread

__all__ = ["FORMATS", "Check", "Exported", "Reader", "compare", "export", "export_sizes", "format_named", "push_to_hub"]

FORMATS = ("transformers", "ctranslate2", "onnx", "gguf")
#: The sizes in a folder of several, by the names of their folders.
SIZES = "sizes.json"
#: Fewer equal texts than this share, in full precision, are more than rounding explains.
_LEAST = 0.9


def format_named(name: str, precision: str = "float32", family: str | None = None) -> Any:
    """The module of a format that can write a precision and a family of models; raises :class:`ModtfError` otherwise."""
    if name not in FORMATS:
        raise ModtfError(f"there is no export to {name!r}; choose from {', '.join(FORMATS)}")
    found: Any = import_module(f"modtf.exports.{name}")
    if precision not in found.PRECISIONS:
        raise ModtfError(f"the format {name} has no precision {precision!r}; choose from {', '.join(found.PRECISIONS)}")
    if family is not None and found.FAMILIES and family not in found.FAMILIES:
        raise ModtfError(f"the format {name} takes {', '.join(found.FAMILIES)}, not {family}; choose transformers")
    if not all(find_spec(package) for package in found.PACKAGES):
        raise ModtfError(f'the format {name} needs a package that is not installed: pip install "modtf[{name}]"')
    return found


def export(
    modular: ModularModel,
    assembly: Assembly | str,
    folder: str | Path,
    *,
    to: str = "transformers",
    precision: str = "float32",
    examples: Sequence[Example] | None = None,
    check: int = 20,
) -> Exported:
    """Write an assembly, its tokenizer and a model card into a new folder, for the engine that ``to`` names.

    It is read back by that engine, which writes a text for each of ``check`` of the examples (by default those bundled
    for the model's task), one by one and in turns with the assembly in full precision. Raises :class:`ModtfError` for
    what a format cannot do, for a folder that holds something, and if in float32 more than a tenth of the texts differ;
    nothing is written then.
    """
    made, assembly = _made(modular, to, precision), modular.choose(assembly=assembly)
    inputs = _inputs(modular, examples, check)
    with new_folder(checked_path(folder)) as complete:
        return _write(modular, assembly, complete, made, precision, inputs)


def export_sizes(
    modular: ModularModel,
    assemblies: Mapping[str, Assembly | str],
    folder: str | Path,
    *,
    to: str = "transformers",
    precision: str = "float32",
    examples: Sequence[Example] | None = None,
    check: int = 20,
) -> list[Exported]:
    """As :func:`export`, each assembly in a folder of its name, with an index: ``sizes.json``."""
    made, chosen = _made(modular, to, precision), {n: modular.choose(assembly=one) for n, one in assemblies.items()}
    if not chosen:
        raise ModtfError("no assemblies were given; give at least one, by the name of its folder")
    for name in chosen:
        if name in ("", ".", "..") or set(name) & set("/\\"):
            raise ModtfError(f"{name!r} is not the name of a folder; give one such as '2x'")
    inputs = _inputs(modular, examples, check)
    with new_folder(checked_path(folder)) as complete:
        complete.mkdir()
        sizes = [_write(modular, one, complete / name, made, precision, inputs) for name, one in chosen.items()]
        index = {"to": to, "precision": precision, "sizes": {size.name: size.to_json() for size in sizes}}
        (complete / SIZES).write_text(json.dumps(index, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (complete / CARD).write_text(card_of_sizes(modular, sizes, made.HOW, _source(inputs)), encoding="utf-8")
        return sizes


def _made(modular: ModularModel, to: str, precision: str) -> Any:
    if modular.main_input_name != "input_ids":
        raise ModtfError(f"this model reads {modular.main_input_name}, not texts; export it with ModularModel.export")
    return format_named(to, precision, modular.architecture.model_type)


def _inputs(modular: ModularModel, examples: Sequence[Example] | None, number: int) -> list[Example] | None:
    """Those for the check, or None if none is asked for."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ModtfError(f"check is {number!r}; give a number of inputs, 0 for none")
    if not number:
        return None
    task = task_named(modular.task)
    if examples is None:
        examples = task.bundled_examples("evaluation") if task.model else []
    return spread(examples, number)


def _write(
    modular: ModularModel, assembly: Assembly, folder: Path, made: Any, precision: str, inputs: list[Example] | None
) -> Exported:
    name, found = made.__name__.rpartition(".")[2], None
    engine = getattr(made, "ENGINE", None)  # one that a format needs for its check alone
    unchecked = "it was not asked for" if inputs is None else "" if inputs else "there were no inputs"
    if inputs and engine is not None and not find_spec(engine):
        unchecked = f"{engine} is not installed"
    with converting(assembly, name):
        made.write(modular.assemble(assembly=assembly), modular.tokenizer, folder, precision)
        if inputs and not unchecked:
            found = compare(modular, assembly, made.reader(folder, modular.longest), inputs)
    if found and precision == "float32" and found.equal < _LEAST * found.inputs:
        raise ModtfError(
            f"{name} writes other texts than {assembly} in float32, {found.inputs - found.equal} of {found.inputs}, so "
            "nothing was exported; choose the format transformers, or check=0 (--check 0) if you know why: settings of "
            "generate such as no_repeat_ngram_size are not known to all engines"
        )
    megabytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    exported = Exported(folder.name, assembly, name, precision, megabytes, found, unchecked)
    (folder / CARD).write_text(model_card(modular, exported, made.HOW, _source(inputs)), encoding="utf-8")
    return exported


def _source(inputs: Sequence[Example] | None) -> str:
    """One to show how an export is used."""
    return inputs[0].source if inputs else "..."


def push_to_hub(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str = "Upload an export of modtf",
) -> str:
    """Upload what :func:`export` or :func:`export_sizes` wrote, with its card; returns its address.

    The weights of an export that was there before leave the repository, as do its sizes, and its card is replaced: it is
    about the files. Raises :class:`ModtfError` where the repository holds a kit, and where the hub refuses or cannot be
    reached.
    """
    folder = checked_path(folder)
    check_repository(repo_id)
    if not (folder / CARD).is_file():
        raise ModtfError(f"{folder} holds no {CARD}, so it is no export; make one with modtf export")
    with on_the_hub(repo_id):
        hub = HfApi(token=token)
        repository = hub.create_repo(repo_id, private=private, exist_ok=True)
        if hub.file_exists(repository.repo_id, INDEX):
            raise ModtfError(f"{repo_id} holds a kit, whose weights would be lost; choose another repository")
        sizes: dict[str, Any] = {}
        if hub.file_exists(repository.repo_id, SIZES):
            there = hub.hf_hub_download(repository.repo_id, SIZES)
            sizes = json.loads(Path(there).read_text(encoding="utf-8"))["sizes"]
        hub.upload_folder(
            repo_id=repository.repo_id,
            folder_path=folder,
            commit_message=commit_message,
            delete_patterns=[
                "*.safetensors",
                "*.safetensors.index.json",
                "*model.bin",
                "*.onnx",
                "*.onnx.data",
                "*.gguf",
                SIZES,
                *(f"{name}/*" for name in sizes),
            ],
        )
    return str(repository)
