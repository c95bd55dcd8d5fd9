"""``tidegate demo``: two rollouts of a small real service, judged live."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text
from tidegate.v1 import findings_pb2

from tidegate_server.cli import console
from tidegate_server.cli.exits import CouldNotLookError, Exit
from tidegate_server.cli.plain import plain, word
from tidegate_server.cli.render import (
    STYLES,
    change,
    decision_word,
    findings_table,
    onset,
    styled_verdict,
    verdict_word,
)
from tidegate_server.client import TidegateError
from tidegate_server.demo.rollout import ROLLOUTS, DemoError, Outcome, Plan, Rollout, Update, run

# Without anything new to tell, a line so often says that the demo is alive.
SECONDS_PER_LINE = 2.0


class Lines:
    """Shows the demo as lines: for files, pipes and logs."""

    def __init__(self, to: Console) -> None:
        """Write to a console."""
        self.to = to
        self.began = time.monotonic()
        self.shown: dict[str, int] = {}
        self.told = 0.0

    def stage(self, text: str) -> None:
        """Say what begins."""
        self._line(Text(text))

    def scraped(self, seconds: float) -> None:
        """Say nothing: a line per scrape would bury the verdicts."""

    def deployed(self, rollout: Rollout) -> None:
        """Say what is deployed."""
        self.shown, self.told = {}, time.monotonic()
        number = f"rollout {ROLLOUTS.index(rollout) + 1} of {len(ROLLOUTS)}"
        self._line(Text(f"{number}: {rollout.title} is deployed", "bold"))

    def updated(self, update: Update, findings: list[findings_pb2.Finding]) -> None:
        """Say which metrics reached a verdict or lost it, and every other second which one stands worst."""
        unknown = findings_pb2.VERDICT_INCONCLUSIVE
        changed = [finding for finding in findings if self.shown.get(finding.metric, unknown) != finding.verdict]
        self.shown = {finding.metric: finding.verdict for finding in findings}
        if update.final or not (changed or time.monotonic() - self.told >= SECONDS_PER_LINE):
            return
        line = Text.assemble("  gate ", styled_verdict(update.verdict))
        for finding in changed:
            line.append(f"  {finding.metric} {seen(finding)} ").append(styled_verdict(finding.verdict))
        if not changed:
            line.append("".join(f"  largest change: {one.metric} {seen(one)}" for one in worst(findings)))
        self._line(line)

    def ended(self, outcome: Outcome) -> None:
        """Say how it ended, with the findings."""
        self._line(Text("  ").append(headline(outcome)))
        self.to.print()
        self.to.print(findings_table(outcome.findings))
        self.to.print()
        for line in sentences(outcome):
            self.to.print(line, soft_wrap=True)
        self.to.print()

    def _line(self, text: Text) -> None:
        self.told = time.monotonic()
        self.to.print(Text(f"{time.monotonic() - self.began:5.1f} s  ", "dim").append(text), soft_wrap=True)


class Screen:
    """Shows the demo on a terminal: one table that changes in place."""

    def __init__(self, to: Console, live: Live) -> None:
        """Draw with ``live``, and leave what has ended above it."""
        self.to = to
        self.live = live
        self.head = Text()
        self.clock = Text()
        self.table: RenderableType = Text()
        self.foot = Text()

    def stage(self, text: str) -> None:
        """Show what begins."""
        self.head, self.clock, self.table, self.foot = Text(text, "bold"), Text(), Text(), Text()
        self._draw()

    def scraped(self, seconds: float) -> None:
        """Move the clock."""
        when = f"{seconds:.1f} s after the deployment" if seconds >= 0 else f"{-seconds:.1f} s to the deployment"
        self.clock = Text(when, "dim")
        self._draw()

    def deployed(self, rollout: Rollout) -> None:
        """Show what is deployed."""
        self.stage(f"rollout {ROLLOUTS.index(rollout) + 1} of {len(ROLLOUTS)}: {rollout.title}")

    def updated(self, update: Update, findings: list[findings_pb2.Finding]) -> None:
        """Draw the findings as they stand."""
        self.table = findings_table(findings)
        self.foot = Text(update.sentence, STYLES.get(verdict_word(update.verdict), ""))
        self._draw()

    def ended(self, outcome: Outcome) -> None:
        """Leave the outcome on the screen."""
        title = Text(f"{outcome.rollout.title}: ", "bold").append(headline(outcome))
        self.to.print(Group(title, findings_table(outcome.findings), *sentences(outcome), Text()))
        self.stage("")

    def _draw(self) -> None:
        self.live.update(Group(self.head, self.clock, self.table, self.foot))


def headline(outcome: Outcome) -> Text:
    """Return verdict, decision and time in one line."""
    line = styled_verdict(outcome.verdict)
    line.append(f" -> {decision_word(outcome.decision)}, {outcome.seconds:.1f} s after the deployment", "default")
    if not outcome.as_expected:
        line.append(f" (expected {verdict_word(outcome.rollout.expected)})", "bold yellow")
    return line


def worst(findings: list[findings_pb2.Finding]) -> list[findings_pb2.Finding]:
    """Return the finding whose change fills most of its margin, alone in a list, or nothing."""
    known = [finding for finding in findings if finding.HasField("effect") and finding.spec.margin > 0]
    return [max(known, key=lambda finding: finding.effect / finding.spec.margin)] if known else []


def seen(finding: findings_pb2.Finding) -> str:
    """Return the change of a finding so far."""
    return change(finding, finding.effect if finding.HasField("effect") else None)


def sentences(outcome: Outcome) -> list[Text]:
    """Return the sentence of the gate, those of the metrics that made its verdict, and their onsets."""
    lines = [Text(outcome.sentence)]
    for finding in outcome.findings:
        decisive = finding.verdict == outcome.verdict != findings_pb2.VERDICT_PASS
        if decisive and finding.sentence not in outcome.sentence:
            lines.append(Text(finding.sentence))
        if began := onset(finding):
            lines.append(Text(began))
    return lines


def as_json(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the one object that ``--json`` prints."""
    return {
        outcome.rollout.key: {
            "verdict": word(findings_pb2.Verdict.DESCRIPTOR, outcome.verdict),
            "decision": word(findings_pb2.Decision.DESCRIPTOR, outcome.decision),
            "expected": word(findings_pb2.Verdict.DESCRIPTOR, outcome.rollout.expected),
            "seconds_to_verdict": round(outcome.seconds, 2),
            "sentence": outcome.sentence,
            "findings": [plain(finding) for finding in outcome.findings],
            "groups": [plain(group) for group in outcome.groups],
        }
        for outcome in outcomes
    }


def _end_on_sigterm(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print one JSON object; progress goes to standard error.")
@click.option(
    "--record",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the streamed series as CSV, one file per rollout, as analyze reads them.",
)
def demo(json_: bool, record: Path | None) -> int:
    """Start a small real service in two versions, send it real traffic, and judge two rollouts of it live.

    A harmless v2 must end PASS, one that is slower and fails some requests FAIL. Takes less than a minute,
    needs no network beyond 127.0.0.1, and leaves nothing running. Exit code 0 when both ended as they
    should, else 1.
    """
    to = console.err() if json_ else console.out()
    if record is not None:
        try:
            record.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise click.UsageError(f"--record {record}: {error.strerror}") from None
    # So that whatever ends the demo, its processes end with it.
    previous = signal.signal(signal.SIGTERM, _end_on_sigterm)
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            if to.is_terminal:
                live = stack.enter_context(Live(console=to, refresh_per_second=8, transient=True))
                outcomes = run(Plan(), Screen(to, live), record)
            else:
                outcomes = run(Plan(), Lines(to), record)
    except (DemoError, TidegateError, OSError) as error:
        raise CouldNotLookError(str(error)) from error
    finally:
        signal.signal(signal.SIGTERM, previous)
    if json_:
        click.echo(json.dumps(as_json(outcomes), indent=2, allow_nan=False))
    right = all(outcome.as_expected for outcome in outcomes)
    verdict = "both rollouts ended as they should" if right else "not as expected: see above"
    to.print(Text(f"{verdict}; {time.monotonic() - began:.0f} s in all", "bold green" if right else "bold red"))
    return Exit.PROCEED if right else Exit.HALT
