"""Plain functions from the controller's records to HTML. Whatever was typed or generated is escaped here before it becomes HTML."""

from __future__ import annotations

from difflib import SequenceMatcher
from html import escape
from typing import Any

from modtf.evaluation import Size
from modtf.mapping import Assembly
from modtf.modular import ModularModel
from modtf.tasks.scores import likeness
from modtf.views.state import Job, Race, Request, Row, Runner, Side, State, Sweep

LABELS = {"eatType": "type", "priceRange": "price", "customer rating": "rating", "familyFriendly": "family friendly"}
_ENGINES = {"loop": "modtf's greedy loop", "generate": "transformers' generate"}
_KINDS = (("said", "✓", ""), ("missed", "○", "missed"), ("wrong", "≠", "wrong"), ("added", "+", "added"))


def problem_html(problem: str) -> str:
    """What is wrong, in words; nothing where nothing is."""
    return f'<div class="modtf-problem" role="alert">{escape(problem)}</div>' if problem else ""


def assembly_html(assembly: Assembly, size: Size) -> str:
    """The assembly in words and numbers, for below its picture."""
    return (
        f'<p class="modtf-note" aria-live="polite">In force: <b class="modtf-shape">{assembly.shape}</b> layers, {size.parameters:,} parameters '
        f"({size.without_embeddings:,} without embeddings), {size.megabytes:,.1f} MB on disk. {escape(str(assembly))}.<br>Hollow blocks are original layers, "
        "filled ones modularized layers in place of so many. Click a block to split it, between two to merge them.</p>"
    )


# -- texts ---------------------------------------------------------------------------------------------------------------


def marked_html(text: str, other: str) -> str:
    """A text with the words marked that the other has not (in this place)."""
    words, others = text.split(), other.split()
    shown = []
    for kind, start, end, _, _ in SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        if start < end:
            part = escape(" ".join(words[start:end]))
            shown.append(part if kind == "equal" else f"<mark>{part}</mark>")
    return " ".join(shown)


def chips_html(side: Side) -> str:
    """The slots of a text as chips: said, repeated, missed, wrong, added."""
    report = side.report
    if report is None:
        return ""
    chips = []
    for kind, symbol, word in _KINDS:
        for slot in getattr(report, kind):
            again = kind == "said" and slot in report.repeated
            shown = ("repeated", "↻", "repeated") if again else (kind, symbol, word)
            name = escape(LABELS.get(slot, slot))
            chips.append(
                f'<span class="modtf-chip modtf-{shown[0]}">{shown[1]} {name}{f" · {shown[2]}" if shown[2] else ""}</span>'
            )
    return f'<div class="modtf-chips">{"".join(chips)}</div>'


def card_html(title: str, side: Side, other: Side, kind: str, note: str = "") -> str:
    note = f"{note} · cut at {side.tokens} tokens" if side.cut else note
    text = marked_html(side.text, other.text) or '<i style="opacity:.6">(an empty text)</i>'
    return (
        f'<section class="modtf-card modtf-{kind}"><header><span>{title}</span><span>{note}</span></header>'
        f'<div class="modtf-text">{text}</div>{chips_html(side)}</section>'
    )


def result_html(state: State) -> str:
    """Both texts, and what they took. Dimmed where it is not (or not yet) of the present request."""
    result = state.result
    if result is None:
        words = (
            "Writing the first text …" if state.busy else "" if state.problem else "Type a text above and press Enter."
        )
        return f'<p class="modtf-note" role="status">{words}</p>'
    full, small = result.full, result.small
    # A text for another source is old on both sides; at another ratio the full model's text still holds.
    same_source = state.request is not None and state.request.source == result.request.source and not state.problem
    dim = "" if state.current else "modtf-waiting" if same_source else "modtf-stale"
    note = "writing …" if state.busy else ""
    rows = [
        ("layers (encoder-decoder)", full.assembly.shape, small.assembly.shape),
        ("parameters", f"{full.size.parameters:,}", f"{small.size.parameters:,}"),
        ("… without embeddings", f"{full.size.without_embeddings:,}", f"{small.size.without_embeddings:,}"),
        ("on disk", f"{full.size.megabytes:,.1f} MB", f"{small.size.megabytes:,.1f} MB"),
        ("milliseconds, now", times_html(full), times_html(small)),
        ("tokens written", f"{full.tokens}", f"{small.tokens}"),
        ("tokens per second", f"{full.tokens_per_second:,.0f}", f"{small.tokens_per_second:,.0f}"),
    ]
    table = "".join(
        f'<tr><th scope="row">{name}</th><td>{left}</td><td>{right}</td></tr>' for name, left, right in rows
    )
    runs = len(full.times_ms)
    how = (
        "* full model: remembered from an earlier run of this text"
        if full.remembered
        else f"greedy, batch 1, after a warm-up: median of {runs} runs in turns (fastest to slowest)"
        if runs > 1
        else "greedy, batch 1, after a warm-up: one run; timing again …"
    )
    engines = " and ".join(dict.fromkeys(_ENGINES[side.engine] for side in (full, small)))
    fidelity = (
        f"<span>ROUGE-L against the full model's text: <b class='modtf-fidelity'>{result.fidelity:.0f} %</b></span>"
        if result.fidelity is not None
        else ""
    )
    return (
        f'<div class="modtf-result {dim}" aria-live="polite" aria-busy="{str(state.busy).lower()}" data-generation="{state.generation}">'
        f'<div class="modtf-texts">{card_html("full model", full, small, "full", full.assembly.shape)}'
        f"{card_html(f'assembled at {small.assembly.ratio:.2f}×', small, full, 'small', note or small.assembly.shape)}</div>"
        f'<div class="modtf-facts modtf-new"><div><table class="modtf-table"><thead><tr><th></th><th scope="col">full</th>'
        f'<th scope="col">assembled</th></tr></thead><tbody>{table}</tbody></table><p class="modtf-note">{how}; written by {engines}</p></div>'
        f'<div class="modtf-speed"><b>{result.speed_up:.2f}×</b><span>the full model\'s speed,<br>token for token, on this text</span>{fidelity}</div></div></div>'
    )


def times_html(side: Side) -> str:
    spread = f" ({min(side.times_ms):,.0f} to {max(side.times_ms):,.0f})" if len(side.times_ms) > 1 else ""
    return f"{side.milliseconds:,.1f}{spread}{'*' if side.remembered else ''}"


# -- quality -------------------------------------------------------------------------------------------------------------


def quality_html(here: Row, exact: bool, table: dict[str, Any]) -> str:
    """What the table says of the present assembly, or of the nearest one, in a sentence."""
    subject = (
        "This assembly"
        if exact
        else f"This assembly is not in the table. The nearest that is ({here['ratio']:.2f}×, {escape(str(here['layers']))})"
    )
    engine = f", engine: {_ENGINES[table['engine']]}" if table.get("engine") in _ENGINES else ""
    return (
        f'<div class="modtf-quality" aria-live="polite">{subject}: <b>{here["bleu_kept"]:.1f} %</b> of the full model\'s BLEU ({here["bleu"]:.1f}), '
        f"<b>{here['ser']:.1f} %</b> slot errors, <b>{here['speed_up']:.2f}×</b> its speed."
        f'<p class="modtf-note">Measured before: {table.get("examples", "?")} test inputs, greedy; {escape(str(table.get("machine", "")))}, '
        f"threads: {escape(str(table.get('threads', '?')))}{engine}</p></div>"
    )


def measured_html(state: State) -> str:
    """What was measured here of the present assembly."""
    rows = [
        row for row in state.measured_here if state.assembly is not None and row["assembly"] == state.assembly.to_json()
    ]
    return "".join(
        f'<div class="modtf-measured" aria-live="polite">Measured here on {row["examples"]} bundled inputs: BLEU <b>{row["bleu"]:.1f}</b> against the full '
        f"model's own texts, <b>{row['ser']:.1f} %</b> slot errors, <b>{row['speed_up']:.2f}×</b> the speed ({_ENGINES[row['engine']]}).</div>"
        for row in rows
    )


def job_html(job: Job | None, kind: str) -> str:
    """How a job of this kind stands or ended, in words."""
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


# -- race and sweep ------------------------------------------------------------------------------------------------------


def race_html(race: Race | None) -> str:
    """Both texts as far as they had come at the replay's moment."""
    if race is None:
        return ""

    def lane(name: str, runner: Runner, kind: str) -> str:
        count = runner.tokens_at(race.now_ms)
        done = count == len(runner.texts)
        text = escape(runner.texts[count - 1]) if count else ""
        clock = f"{runner.times_ms[-1]:,.0f} ms, finished" if done else f"{race.now_ms:,.0f} ms"
        return (
            f'<section class="modtf-card modtf-{kind}"><header><span>{name} ({runner.assembly.shape})</span><span>{count} tokens · {clock}</span></header>'
            f'<div class="modtf-text">{text}{"" if done else "<span class=modtf-caret></span>"}</div></section>'
        )

    pace = (
        f"In slow motion: {race.slowdown:,.0f} times slower than it was."
        if race.slowdown >= 1.05
        else "As fast as it was."
    )
    ahead = race.full.times_ms[-1] / race.small.times_ms[-1]
    outcome = f"was done {ahead:.2f} times as fast" if ahead >= 1 else f"took {1 / ahead:.2f} times as long"
    end = f" The assembled model {outcome}." if race.finished else ""
    engines = " and ".join(dict.fromkeys(_ENGINES[runner.engine] for runner in (race.full, race.small)))
    return (
        f'<div class="modtf-race" data-finished="{str(race.finished).lower()}"><div class="modtf-texts">{lane("full model", race.full, "full")}'
        f"{lane('assembled', race.small, 'small')}</div>"
        f'<p class="modtf-note">{pace} Each model ran alone, after a warm-up ({engines}); the replay begins both at once.{end}</p></div>'
    )


def sweep_html(sweep: Sweep | None) -> str:
    """One source at every ratio, with the first loss marked."""
    if sweep is None or not sweep.sides:
        return ""
    first, rows, lost = sweep.sides[0], [], ""
    known = {*first.report.missed, *first.report.wrong} if first.report else set()
    for side in sweep.sides:
        new = (
            []
            if side.report is None
            else [slot for slot in (*side.report.missed, *side.report.wrong) if slot not in known]
        )
        mark = bool(new) and not lost
        if mark:
            names = ", ".join(LABELS.get(slot, slot) for slot in new)
            lost = f"The first slot that the full model says and an assembly does not: <b>{escape(names)}</b>, at {side.assembly.ratio:.2f}× ({side.assembly.shape})."
        errors = f"{likeness(side.text, first.text):.0f} %" if side.report is None else str(side.report.errors)
        rows.append(
            f'<tr class="{"modtf-first-loss" if mark else ""}"><th scope="row">{side.assembly.ratio:.2f}×</th><td>{side.assembly.shape}</td><td>{side.milliseconds:,.0f}</td>'
            f"<td>{errors}</td><td>{marked_html(side.text, first.text)}{chips_of_faults(side)}</td></tr>"
        )
    if not lost and first.report is not None:
        whole = len(sweep.sides) == sweep.total
        lost = (
            "No slot that the full model says is lost at any ratio."
            if whole
            else "No slot that the full model says was lost so far."
        )
    measure = "slot errors" if first.report else "ROUGE-L against the full model"
    return (
        f'<div class="modtf-swept"><p aria-live="polite">{lost}</p><table class="modtf-table modtf-sweep"><thead><tr><th scope="col">ratio</th><th scope="col">layers</th>'
        f'<th scope="col">ms</th><th scope="col">{measure}</th><th scope="col" style="text-align:left">text</th></tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'<p class="modtf-note">{sweep.strategy.replace("_", " ")}; one run each, by {_ENGINES[first.engine]}; marked: what the full model did not write there</p></div>'
    )


def chips_of_faults(side: Side) -> str:
    report = side.report
    if report is None or not report.errors:
        return ""
    faults = [
        f'<span class="modtf-chip modtf-{kind}">{symbol} {escape(LABELS.get(slot, slot))} · {kind}</span>'
        for kind, symbol, slots in (
            ("missed", "○", report.missed), ("wrong", "≠", report.wrong), ("added", "+", report.added), ("repeated", "↻", report.repeated),
        )
        for slot in slots
    ]  # fmt: skip
    return f"<div>{''.join(faults)}</div>"


# -- take it away --------------------------------------------------------------------------------------------------------


def python_lines(modular: ModularModel, request: Request) -> str:
    """Python that rebuilds exactly this state; runs as it stands where the model came from a name or folder."""
    given = (
        "# modular is the model that you gave to modtf.explore"
        if modular.source is None
        else f"modular = modtf.load({modular.source!r})"
    )
    return "\n".join(
        (
            "import modtf",
            "",
            given,
            f"small = modular.assemble(assembly={str(request.assembly)!r})",
            f"text = modular.generate({request.source!r}, assembly=small.assembly)",
        )
    )


def code_html(modular: ModularModel, request: Request | None) -> str:
    return "" if request is None else f'<pre class="modtf-code">{escape(python_lines(modular, request))}</pre>'


def saved_html(job: Job | None) -> str:
    """Where a checkpoint is and how to load it, or why it was not saved."""
    if job is None or job.kind != "save" or job.problem or not job.note or job.note == "stopped":
        return job_html(job, "save")
    lines = (
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer\n\n"
        f"small = AutoModelForSeq2SeqLM.from_pretrained({job.note!r})\ntokenizer = AutoTokenizer.from_pretrained({job.note!r})"
    )
    return (
        f'<div class="modtf-done" role="status">Saved in <b class="modtf-where">{escape(job.note)}</b>. Load it with plain transformers, without modtf:</div>'
        f'<pre class="modtf-code">{escape(lines)}</pre>'
    )
