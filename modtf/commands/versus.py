"""`modtf versus`: a kit against students of single sizes, each trained alone with the kit's own losses, on one's own data."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modtf.commands import training
from modtf.commands.data import add_model, device, load_model, moving, read_examples, recorded_options, say
from modtf.errors import ModtfError
from modtf.strategies import STRATEGIES

if TYPE_CHECKING:
    from modtf.mapping import Assembly
    from modtf.modular import ModularModel
    from modtf.tasks import Example, Task

FILE = "versus.json"
#: What is told of a training's cost.
_COST = ("minutes", "steps", "batch_size", "tflop")
#: Options of a kit's training that students have a fixed value of.
_FIXED = {
    "assembly": "--ratios and --strategy say what the students are",
    "output-dir": "--output says where all of them go",
    "original": "the students are of the kit's original",
    "assemblies-per-step": "a student is one assembly",
    "report-inputs": "the students' texts are scored in the end",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--output", type=Path, help="folder for the students and the result; trainings resume from it")
    parser.add_argument("--ratios", type=float, nargs="+", default=[2.0], help="of the students (default 2)")
    parser.add_argument("--strategy", default="size_first", choices=STRATEGIES, help="(default %(default)s)")
    parser.add_argument("--split", help="on which all are scored (default: the test split)")
    parser.add_argument("--test", metavar="FILE", help="file or folder with that split (default: that of --data)")
    parser.add_argument(
        "--shared",
        action="store_true",
        help="the students share the kit's steps (default: each has as many as the kit)",
    )
    parser.epilog = (
        "All options of `modtf train kit` are possible, too, for the trainings of the students; by default they are those "
        "of the kit's own training, from the options.yaml in its folder."
    )


def versus(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Train a student for each size, score all texts on one split, and say how far each student is from the kit.

    It also says what each training cost: equal steps are not equal cost, since a step of a small student is cheap.
    """
    if options.output is None:
        raise ModtfError("--output is missing; give a folder for the students and the result")
    kit = load_model(options)
    with tempfile.TemporaryDirectory() as folder:
        _versus(kit, options, arguments, Path(folder))


def _versus(kit: ModularModel, options: argparse.Namespace, arguments: Sequence[str], temporary: Path) -> None:
    from modtf.saving import write_whole
    from modtf.tasks import task_named

    task = task_named(kit.task)
    sizes = list(dict.fromkeys(kit.choose(ratio, options.strategy) for ratio in options.ratios))
    if kit.mapping.original in sizes:
        raise ModtfError("a student of ratio 1 would be the original itself; give --ratios above 1")
    for name, why in _FIXED.items():
        if any(argument.split("=")[0].replace("_", "-") == f"--{name}" for argument in arguments):
            raise ModtfError(f"--{name} has no effect here: {why}; leave it out")
    arguments = [
        *_of_kit(options, arguments, temporary), "--task", task.name, *arguments, "--model", kit.model.name_or_path,
        "--assemblies-per-step", "1", "--report-inputs", "0",
    ]  # fmt: skip
    args, read, _ = training.parse_kit([*arguments, "--output", str(options.output)], "modtf versus")
    if options.test is not None:
        read.data = options.test
    elif read.data is not None and Path(read.data).is_file():
        raise ModtfError(f"{read.data} is one file, from which the students learn; give another one, --test")
    split = options.split or task.test_split
    examples = read_examples(read, task, split, kit.model, kit.tokenizer, kit.prefix)  # before hours of training
    steps = args.max_steps // (len(sizes) if options.shared else 1)
    students = {}
    for number, size in enumerate(sizes, start=1):
        say(f"student {number} of {len(sizes)}: {size}, {steps:,} steps")
        students[size] = options.output / size.shape
        of_student = ["--assembly", str(size), "--steps", str(steps), "--output", str(students[size])]
        training.kit(options, [*arguments, *of_student], earlier=_folder_of(kit))
    rows = _compare(kit, task, examples, students)
    record = {"split": split, "examples": len(examples), "shared": options.shared, "rows": rows}
    write_whole(options.output / FILE, json.dumps(record, indent=1) + "\n")
    print(_table(task, rows))
    print(f"{options.output / FILE}; the students are kits in folders beside it")


def _of_kit(options: argparse.Namespace, arguments: Sequence[str], folder: Path) -> list[str]:
    """The options of the kit's own training, where its folder has them, by a file in ``folder``."""
    from modtf.options_file import FILE as OPTIONS
    from modtf.options_file import write_options

    recorded = recorded_options(options)
    if not recorded:
        return []
    if any(argument.split("=")[0] == "--data" for argument in arguments):
        recorded.pop("data_config", None)  # of other data
    if earlier := recorded.pop("begin_with", None):
        say(f"the kit began with {earlier}; a student begins with the original's layers")
    write_options(folder, recorded)
    return ["--config", str(folder / OPTIONS)]


def _folder_of(kit: ModularModel) -> Path | None:
    """Where the texts are that the original wrote for the kit: the students learn from them, too."""
    try:
        return kit.folder
    except ModtfError:
        return None


def _compare(
    kit: ModularModel, task: Task, examples: Sequence[Example], students: dict[Assembly, Path]
) -> list[dict[str, Any]]:
    """A row each for the original, and for kit and student of each size; that of a student has the differences."""
    from tqdm import tqdm

    from modtf.bootstrap import differences, drawn_scores
    from modtf.evaluation import write_texts
    from modtf.modular import load

    sources = [example.source for example in examples]
    rows: list[dict[str, Any]] = []

    def row_of(modular: ModularModel, size: Assembly, who: str) -> dict[str, Any]:
        with tqdm(total=len(sources), desc=f"{who} {size.shape}", leave=False, file=sys.stderr, disable=None) as bar:
            texts = write_texts(modular.to(device()), size, sources, progress=moving(bar))
        rows.append({"who": who, "layers": size.shape, "assembly": size.to_json(), "ratio": size.ratio})
        rows[-1] |= _training(modular) | task.score(examples, texts)
        return drawn_scores(task, examples, texts)

    row_of(kit, kit.mapping.original, "original")
    rows[-1] |= dict.fromkeys(_COST)  # what it cost is not known here
    for size, folder in students.items():
        ours = row_of(kit, size, "kit")
        theirs = row_of(load(folder), size, "student")
        rows[-1]["student_minus_kit"] = differences(theirs, ours)
    return rows


def _training(modular: ModularModel) -> dict[str, Any]:
    """What the training of a kit cost, where its folder says all of it; earlier versions did not count operations."""
    from modtf.options_file import FILE as OPTIONS
    from modtf.options_file import read_options

    try:
        options = modular.folder / OPTIONS
        if options.is_file() and read_options(options).get("begin_with"):
            return dict.fromkeys(_COST)  # what its first part cost is not there
        record = json.loads((modular.folder / "training.json").read_text(encoding="utf-8"))
        known = record | {"minutes": round(record["seconds"] / 60, 2), "tflop": record.get("tflop")}
        return {name: known[name] for name in _COST}
    except (ModtfError, OSError, ValueError, KeyError, TypeError):
        return dict.fromkeys(_COST)


def _table(task: Task, rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'layers':>7} {'ratio':>6} {'':<9}{''.join(f'{metric.name:>13}' for metric in task.metrics)}  trained"]
    for row in rows:
        scores = "".join(f"{row[metric.key]:13.2f}" for metric in task.metrics)
        cost = "" if row["minutes"] is None else f"{row['minutes']:.1f} min, {row['steps']:,} steps"
        cost += "" if row["tflop"] is None else f", {_three_digits(row['tflop'])} TFLOP"
        lines.append(f"{row['layers']:>7} {row['ratio']:6.2f} {row['who']:<9}{scores}  {cost}")
    names = {metric.key: metric for metric in task.metrics}
    for row in rows:
        for key, value in row.get("student_minus_kit", {}).items():
            if key not in names:  # an interval
                continue
            low, high = row["student_minus_kit"][f"{key}_interval"]
            better = "student" if (low > 0) != names[key].errors else "kit"
            verdict = f"the {better} is better" if low > 0 or high < 0 else "no difference is shown"
            lines.append(
                f"{row['layers']}, {names[key].name}: student minus kit {value:+.1f} (95 % interval {low:+.1f} to {high:+.1f}): {verdict}"
            )
    budgets = [{(row["steps"], row["batch_size"]) for row in rows if row["who"] == who} for who in ("kit", "student")]
    if all(len(budget) == 1 for budget in budgets) and budgets[0] != budgets[1] and (None, None) not in budgets[0]:
        of_kit, of_student = (f"{steps:,} steps of {texts} texts" for ((steps, texts),) in budgets)
        lines.append(f"The budgets differ: the kit had {of_kit}, each student {of_student}.")
    return "\n".join([*lines, *_costs(rows)])


def _costs(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The students' cost as a share of the kit's: 1 for each is "equal each", 1 for all together "equal total"."""
    of_kit = next((row["tflop"] for row in rows if row["who"] == "kit"), None)
    students = {row["layers"]: row["tflop"] for row in rows if row["who"] == "student"}
    if not of_kit or not all(students.values()):
        return []
    shares = ", ".join(f"{layers} {_three_digits(cost / of_kit)}" for layers, cost in students.items())
    together = f", together {_three_digits(sum(students.values()) / of_kit)}" if len(students) > 1 else ""
    return [f"Cost of training, where the kit's is 1 ({_three_digits(of_kit)} TFLOP): student {shares}{together}"]


def _three_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
