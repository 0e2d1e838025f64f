"""Plain functions from the controller's records to HTML. They escape all text that was typed or generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

from modtf.compiled import CTRANSLATE2, CTRANSLATE2_INT8
from modtf.evaluation import Size
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.task import Judgement, Metric, Task
from modtf.views.state import Job, Race, Request, Result, Row, Runner, Side, State, Sweep

_ENGINES = {
    "loop": "modtf's greedy loop",
    "generate": "transformers' generate",
    CTRANSLATE2: "CTranslate2 in float32",
    CTRANSLATE2_INT8: "CTranslate2 in int8",
}
_SYMBOLS = {"said": "✓", "repeated": "↻", "missed": "○", "wrong": "≠", "added": "+"}


def problem_html(problem: str) -> str:
    """The problem as a message box; nothing for an empty problem."""
    return f'<div class="modtf-problem" role="alert">{escape(problem)}</div>' if problem else ""


def assembly_html(assembly: Assembly, size: Size) -> str:
    """The assembly in words and numbers, to go below its picture."""
    return (
        '<p class="modtf-note" aria-live="polite">Current assembly: '
        f'<b class="modtf-shape">{assembly.shape}</b> layers, {size.parameters:,} parameters '
        f"({size.without_embeddings:,} without embeddings), {size.megabytes:,.1f} MB on disk. "
        f"{escape(str(assembly))}.<br>Hollow blocks are original layers. A filled block is a modularized layer; "
        "its number says how many original layers it replaces. "
        "Click a filled block to split it, or between two blocks to merge them.</p>"
    )


# -- texts -------------------------------------------------------------------------------------------------------------


def marked_html(text: str, other: str) -> str:
    """A text, with the words marked that differ from the other text."""
    words, others = text.split(), other.split()
    shown = []
    for kind, start, end, _, _ in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if start < end:
            part = escape(" ".join(words[start:end]))
            shown.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(shown)


def chips_html(judgement: Judgement, faults_only: bool = False) -> str:
    """How the text treats each part of the input, as chips; nothing for tasks whose inputs have no parts."""
    chips = []
    for mark in judgement.marks:
        if mark.kind == "said" and faults_only:
            continue
        word = "" if mark.kind == "said" else f" · {mark.kind}"
        chips.append(
            f'<span class="modtf-chip modtf-{mark.kind}">{_SYMBOLS[mark.kind]} {escape(mark.name)}{word}</span>'
        )
    return f'<div class="modtf-chips modtf-score">{"".join(chips)}</div>' if chips else ""


def value_text(judgement: Judgement, task: Task) -> str:
    return f"{judgement.value:.0f}{task.unit}"


def card_html(title: str, side: Side, other: Side, kind: str, note: str = "") -> str:
    note = f"{note} · cut at {side.latency.tokens} tokens" if side.cut else note
    text = marked_html(side.text, other.text) or '<i style="opacity:.6">(an empty text)</i>'
    return (
        f'<section class="modtf-card modtf-{kind}"><header><span>{title}</span><span>{note}</span></header>'
        f'<div class="modtf-text">{text}</div>{chips_html(side.judgement)}</section>'
    )


def texts_html(result: Result, note: str) -> str:
    """Both texts side by side; ``note`` goes over the assembled model's."""
    full, small = result.full, result.small
    full_card = card_html("full model", full, small, "full", full.assembly.shape)
    small_card = card_html(f"assembled at {small.assembly.ratio:.2f}×", small, full, "small", note)
    return f'<div class="modtf-texts">{full_card}{small_card}</div>'


def result_html(state: State, task: Task) -> str:
    """Both texts and what they cost, dimmed while they belong to an earlier request."""
    result = state.result
    if result is None:
        if state.busy:
            words = "Writing the first text …"
        else:
            words = "" if state.problem else "Type a text above and press Enter."
        return f'<p class="modtf-note" role="status">{words}</p>'
    full, small = result.full, result.small
    # For a new source, both texts are outdated; at a new ratio, the full model's text still holds.
    same_source = state.request is not None and state.request.source == result.request.source and not state.problem
    dim = "modtf-waiting" if same_source else "modtf-stale"
    if state.current:
        dim = ""
    texts = texts_html(result, "writing …" if state.busy else small.assembly.shape)
    facts = dict(_FACTS)
    if full.judgement.agreement is not None:
        facts[task.agreement] = lambda side: f"{side.judgement.agreement:.0f}{task.unit}"
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{of_side(full)}</td><td>{of_side(small)}</td></tr>'
        for name, of_side in facts.items()
    )
    runs = len(full.latency.times_ms)
    if full.remembered:
        how = "* full model: measured in an earlier run of this text"
    elif runs > 1:
        how = f"greedy, batch 1, after a warm-up: median of {runs} runs, taken in turns (fastest to slowest)"
    else:
        how = "greedy, batch 1, after a warm-up: one run so far, timing again …"
    engines = " and ".join(dict.fromkeys(_ENGINES[side.engine] for side in (full, small)))
    if result.by_loop:
        loop = result.by_loop.latency
        times = small.latency.tokens_per_second / loop.tokens_per_second
        engines += (
            f". By {_ENGINES[result.by_loop.engine]} the full model took {loop.median_ms:.1f} ms earlier, so the assembled one "
            f"with this engine is {times:.1f} times as fast as that"
        )
    # Chips show quality part by part; without them, the score goes beside the speed.
    value = f"<b class='modtf-fidelity'>{value_text(small.judgement, task)}</b>"
    fidelity = "" if small.judgement.marks else f"<span>{escape(task.measure)}: {value}</span>"
    busy, generation = str(state.busy).lower(), state.generation
    return (
        f'<div class="modtf-result {dim}" aria-live="polite" aria-busy="{busy}" data-generation="{generation}">'
        f"{texts}{references_html(full.judgement.references)}"
        '<div class="modtf-facts modtf-score modtf-new"><div><table class="modtf-table">'
        '<thead><tr><th></th><th scope="col">full</th><th scope="col">assembled</th></tr></thead>'
        f'<tbody>{rows}</tbody></table><p class="modtf-note">{how}; written by {engines}</p></div>'
        f'<div class="modtf-speed"><b>{result.speed_up:.2f}×</b>'
        f"<span>the full model's speed,<br>in tokens per second, on this text</span>{fidelity}</div></div></div>"
    )


def references_html(references: Sequence[str]) -> str:
    """People's texts for this source; nothing where none are known."""
    quoted = " · ".join(f"“{escape(reference)}”" for reference in references)
    return f'<p class="modtf-note modtf-references">People wrote: {quoted}</p>' if quoted else ""


def times_html(side: Side) -> str:
    times = side.latency.times_ms
    spread = f" ({min(times):,.0f} to {max(times):,.0f})" if len(times) > 1 else ""
    return f"{side.latency.median_ms:,.1f}{spread}{'*' if side.remembered else ''}"


#: The rows of the table below the texts.
_FACTS: dict[str, Callable[[Side], str]] = {
    "layers (encoder-decoder)": lambda side: side.assembly.shape,
    "parameters": lambda side: f"{side.size.parameters:,}",
    "… without embeddings": lambda side: f"{side.size.without_embeddings:,}",
    "on disk": lambda side: f"{side.size.megabytes:,.1f} MB",
    "milliseconds, measured now": times_html,
    "tokens written": lambda side: f"{side.latency.tokens}",
    "tokens per second": lambda side: f"{side.latency.tokens_per_second:,.0f}",
}


# -- quality -----------------------------------------------------------------------------------------------------------


def quality_html(here: Row, exact: bool, table: dict[str, Any], metrics: Sequence[Metric]) -> str:
    """A sentence on the table's row ``here``, which is the current assembly's (``exact``) or the nearest one."""
    nearest = f"{here['ratio']:.2f}×, {escape(str(here['layers']))}"
    subject = "This assembly" if exact else f"This assembly is not in the table. The nearest one ({nearest})"
    scores = [
        f"<b>{here[metric.field]:.1f} %</b> {metric.name}"
        if metric.errors
        else f"{metric.name} {here[metric.key]:.1f} (<b>{here[metric.field]:.1f} %</b> of the full model's)"
        for metric in metrics
    ]
    engine = f", engine: {_ENGINES[table['engine']]}" if table.get("engine") in _ENGINES else ""
    machine, threads = escape(str(table.get("machine", ""))), escape(str(table.get("threads", "?")))
    count = table.get("examples")
    inputs = f"{count:,}" if isinstance(count, int) else "?"
    return (
        f'<div class="modtf-quality" aria-live="polite">{subject}: {", ".join(scores)}, '
        f"<b>{here['speed_up']:.2f}×</b> the full model's speed."
        f'<p class="modtf-note">Measured earlier: {inputs} test inputs, greedy; {machine}, '
        f"threads: {threads}{engine}</p></div>"
    )


def measured_html(state: State, metrics: Sequence[Metric]) -> str:
    """What was measured in this explorer for the current assembly."""
    if state.assembly is None:
        return ""
    lines = []
    for row in state.measured_here:
        if row["assembly"] != state.assembly.to_json():
            continue
        scores = [
            f"<b>{row[metric.key]:.1f} %</b> {metric.name}"
            if metric.errors
            else f"{metric.name} <b>{row[metric.key]:.1f}</b> against the full model's own texts"
            for metric in metrics
        ]
        lines.append(
            f'<div class="modtf-measured" aria-live="polite">Measured here on {row["examples"]} bundled inputs: '
            f"{', '.join(scores)}, <b>{row['speed_up']:.2f}×</b> the full model's speed "
            f"({_ENGINES[row['engine']]}).</div>"
        )
    return "".join(lines)


def job_html(job: Job | None, kind: str) -> str:
    """The progress of a job of this kind, or how it ended."""
    if job is None or job.kind != kind:
        return ""
    if job.problem:
        return problem_html(job.problem)
    if job.running and job.total:
        if job.done == job.total:
            return '<span class="modtf-note" role="status">timing both models …</span>'
        left = "" if job.seconds_left is None else f", about {max(1, round(job.seconds_left))} s left"
        return f'<span class="modtf-note" role="status">{job.done} of {job.total} texts{left}</span>'
    return f'<span class="modtf-note" role="status">{escape(job.note)}</span>' if job.note else ""


# -- race and sweep ----------------------------------------------------------------------------------------------------


def race_html(race: Race | None) -> str:
    """Both texts as far as they were written at the replay's current time."""
    if race is None:
        return ""
    pieces = race.small.pieces

    def lane(name: str, runner: Runner, kind: str) -> str:
        count = runner.tokens_at(race.now_ms)
        done = count == len(runner.texts)
        text = escape(runner.texts[count - 1]) if count else ""
        if runner.pieces:
            seen = [(piece.seen(race.now_ms), escape(piece.text)) for piece in runner.pieces]
            text = "".join(f'<span class="modtf-{judged}">{words}</span>' for judged, words in seen if judged)
        clock = f"{runner.times_ms[-1]:,.0f} ms, finished" if done else f"{race.now_ms:,.0f} ms"
        return (
            f'<section class="modtf-card modtf-{kind}"><header><span>{name}</span>'
            f"<span>{count} tokens · {clock}</span></header>"
            f'<div class="modtf-text">{text}{"" if done else "<span class=modtf-caret></span>"}</div></section>'
        )

    slow = race.slowdown >= 1.05
    pace = f"In slow motion, {race.slowdown:,.0f} times slower than the real runs." if slow else "At real speed."
    ahead = race.full.times_ms[-1] / race.small.times_ms[-1]
    outcome = f"was {ahead:.2f} times as fast" if ahead >= 1 else f"took {1 / ahead:.2f} times as long"
    shape = race.small.assembly.shape
    name, end, legend = f"assembled ({shape})", f" The assembled model {outcome}.", ""
    if pieces:
        layers = len(race.small.assembly.decoder)
        name = f"full model, drafted by {layers} {'layer' if layers == 1 else 'layers'}"
        kinds = Counter(piece.kind for piece in pieces)
        passes = len(set(race.small.times_ms))
        same = "word for word the same text"
        if race.full.texts[-1] != race.small.texts[-1]:
            same = "another text, since two words were as good as tied"
        times = "once" if passes == 1 else f"{passes} times"
        end = (
            f" With drafts it {outcome}, {same}: the large decoder ran {times} for "
            f"{len(race.small.texts)} tokens and accepted {kinds['accepted']} of "
            f"{len(pieces) - kinds['own']} guesses."
        )
        legend = (
            '<p class="modtf-note"><span class="modtf-guess">a guess</span> of the small decoder, '
            '<span class="modtf-accepted">accepted</span> or <span class="modtf-refused">refused</span> by the large one, '
            'which adds <span class="modtf-own">its own token</span> after each pass. What was guessed behind a refused '
            "token is lost.</p>"
        )
    engines = " and ".join(dict.fromkeys(_ENGINES[runner.engine] for runner in (race.full, race.small)))
    return (
        f'<div class="modtf-race" data-finished="{str(race.finished).lower()}"><div class="modtf-texts">'
        f"{lane(f'full model ({race.full.assembly.shape})', race.full, 'full')}{lane(name, race.small, 'small')}</div>"
        f'{legend}<p class="modtf-note">{pace} Each model ran alone, after a warm-up ({engines}); '
        f"the replay starts both together.{end if race.finished else ''}</p></div>"
    )


def sweep_html(sweep: Sweep | None, task: Task) -> str:
    """The texts for one source at every ratio; highlighted is the first loss or, without marks, the first change."""
    if sweep is None or not sweep.sides:
        return ""
    full = sweep.sides[0]
    first_loss = next((side for side in sweep.sides if _lost(side, full)), None)
    first_change = next((side for side in sweep.sides if side.text != full.text), None)
    found = first_loss or (None if full.judgement.marks else first_change)
    rows = "".join(
        f'<tr class="{"modtf-first-loss" if side is found else ""}">'
        f'<th scope="row">{side.assembly.ratio:.2f}×</th><td>{side.assembly.shape}</td>'
        f'<td class="modtf-score">{side.latency.median_ms:,.0f}</td>'
        f'<td class="modtf-score">{value_text(side.judgement, task)}</td>'
        f"<td>{marked_html(side.text, full.text)}{chips_html(side.judgement, faults_only=True)}</td></tr>"
        for side in sweep.sides
    )
    finding = ""
    if first_loss is not None:
        names, at = escape(", ".join(_lost(first_loss, full))), first_loss.assembly
        finding = (
            f"The first {task.part} that the full model gets right and an assembly loses: <b>{names}</b>, "
            f"at {at.ratio:.2f}× ({at.shape})."
        )
    elif full.judgement.marks:
        end = "is lost at any ratio" if len(sweep.sides) == sweep.total else "has been lost so far"
        finding = f"No {task.part} that the full model gets right {end}."
    elif first_change is not None:
        at = first_change.assembly
        finding = f"The first text that differs from the full model's: at <b>{at.ratio:.2f}×</b> ({at.shape})."
    elif len(sweep.sides) == sweep.total:
        finding = "Every assembly writes the full model's text."
    headers = "".join(f'<th scope="col">{name}</th>' for name in ("ratio", "layers"))
    headers += "".join(f'<th scope="col" class="modtf-score">{name}</th>' for name in ("ms", escape(task.measure)))
    return (
        f'<div class="modtf-swept"><p class="modtf-score" aria-live="polite">{finding}</p><table class="modtf-table modtf-sweep">'
        f'<thead><tr>{headers}<th scope="col" style="text-align:left">text</th></tr></thead>'
        f'<tbody>{rows}</tbody></table><p class="modtf-note">{sweep.strategy.replace("_", " ")}; one run each, '
        f'by {_ENGINES[full.engine]}<span class="modtf-score">; marked words differ from the full model\'s text</span></p></div>'
    )


def _lost(side: Side, full: Side) -> list[str]:
    """The parts that a text misses or gets wrong although the full model gets them right."""
    known = _faults(full)
    return [name for name in _faults(side) if name not in known]


def _faults(side: Side) -> list[str]:
    return [mark.name for mark in side.judgement.marks if mark.kind in ("missed", "wrong")]


# -- take it away ------------------------------------------------------------------------------------------------------


def python_lines(modular: ModularModel, request: Request) -> str:
    """Python code that rebuilds this assembly and its text; it runs unchanged if the model has a name or folder."""
    given = "# modular is the model that you gave to modtf.explore"
    if modular.source is not None:
        given = f"modular = modtf.load({modular.source!r})"
    engine = f", engine={request.engine!r}" if request.engine else ""
    return (
        f"import modtf\n\n{given}\n"
        f"small = modular.assemble(assembly={str(request.assembly)!r})\n"
        f"text = modular.generate({request.source!r}, assembly=small.assembly{engine})"
    )


def code_html(modular: ModularModel, request: Request | None) -> str:
    return "" if request is None else f'<pre class="modtf-code">{escape(python_lines(modular, request))}</pre>'


def saved_html(job: Job | None) -> str:
    """Where a checkpoint is and how to load it, or why it was not saved."""
    if job is None or job.kind != "save" or job.problem or not job.note or job.note == "stopped":
        return job_html(job, "save")
    lines = (
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
        f"small = AutoModelForSeq2SeqLM.from_pretrained({job.note!r})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({job.note!r})"
    )
    return (
        f'<div class="modtf-done" role="status">Saved in <b class="modtf-where">{escape(job.note)}</b>. '
        "Load it with plain transformers, without modtf:</div>"
        f'<pre class="modtf-code">{escape(lines)}</pre>'
    )
