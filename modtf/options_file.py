"""The options of a command: a parser that says in one line what is wrong, and files; YAML or JSON in, YAML out."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from modtf.errors import ModtfError

#: The file that a training leaves in its output folder.
FILE = "options.yaml"


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, since the usage of some commands would fill the screen; takes no abbreviations."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **(options | {"allow_abbrev": False}))

    def error(self, message: str) -> NoReturn:
        named = re.search(r"unrecognized arguments: --([^\s=]+)", message)
        actions = self._option_string_actions.items()
        known = [name[2:] for name, action in actions if "_" not in name and action.help != argparse.SUPPRESS]
        near = difflib.get_close_matches(named[1].replace("_", "-"), known, 1, 0.7) if named else []
        meant = f", did you mean --{near[0]}?" if near else ""
        raise ModtfError(f"{message}{meant}; see {self.prog} --help")


def with_options_of_files(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """The arguments, behind those of the files that ``--config`` names: what the shell says counts more.

    Raises :class:`ModtfError` for a file that cannot be read, and for a key that is no option of the command.
    """
    first = Parser(add_help=False, prog=parser.prog)
    first.add_argument("--config", action="append", default=[])
    given, rest = first.parse_known_args(arguments)
    return [argument for file in given.config for argument in _arguments(parser, read_options(file), file)] + rest


def read_options(file: str | Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModtfError(f"--config {file}: there is no such file") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModtfError(f"--config {file} cannot be read as YAML or JSON: {' '.join(str(error).split())}") from error
    if not isinstance(options, dict):
        raise ModtfError(f"--config {file} holds no options; write lines such as 'steps: 1000'")
    return options


def write_options(folder: str | Path, options: dict[str, Any]) -> None:
    """Write the file that repeats a training: ``modtf train kit --config options.yaml``."""
    import yaml

    from modtf.saving import write_whole

    write_whole(Path(folder) / FILE, yaml.safe_dump(options, sort_keys=False, allow_unicode=True))


def _arguments(parser: argparse.ArgumentParser, options: dict[str, Any], file: str) -> list[str]:
    """The options as they would be typed."""
    known = parser._option_string_actions
    arguments: list[str] = []
    for key, value in options.items():
        if key == "config":
            raise ModtfError(
                f"--config {file}: a file cannot name another one; give both: --config {file} --config {value}"
            )
        name = next((name for name in (f"--{key}", f"--{str(key).replace('_', '-')}") if name in known), None)
        if name in (None, "--help"):
            raise ModtfError(f"--config {file}: {key!r} is no option of {parser.prog}; see {parser.prog} --help")
        if known[name].nargs == 0:  # a switch
            if not isinstance(value, bool):
                raise ModtfError(f"--config {file}: {key} is {value!r}; give true or false")
            arguments += [name] if value else []
        elif isinstance(value, list):
            if known[name].nargs != "+":
                raise ModtfError(f"--config {file}: {key} is {value}; give one value, not a list")
            arguments += [name, *map(_typed, value)]
        elif value is not None:
            arguments.append(f"{name}={_typed(value)}")  # so that a text may begin with a dash
    return arguments


def _typed(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)
