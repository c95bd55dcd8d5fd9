"""``tidegate analyze``: judge the series in a file, without a server."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text
from tidegate.v1.evaluation_service_pb2 import AnalyzeResponse
from tidegate.v1.findings_pb2 import VERDICT_PASS

from tidegate_server.cli import console
from tidegate_server.cli.exits import CouldNotLookError
from tidegate_server.cli.plain import plain
from tidegate_server.cli.render import STYLES, decision_word, exit_code, findings_table, onset, verdict_word

if TYPE_CHECKING:
    from tidegate_analysis.spec import Design

DESIGNS: dict[str, Design] = {
    "auto": "auto",
    "concurrent": "concurrent",
    "before-after": "before_after",
    "difference-in-differences": "difference_in_differences",
}


@click.command()
@click.argument("file")
@click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="What is printed.",
)
@click.option(
    "--deployed-at",
    metavar="TIME",
    help="When the deployment began: ISO 8601 (UTC unless it says otherwise) or seconds since 1970. "
    "Default: the first point of phase post.",
)
@click.option(
    "--design",
    type=click.Choice(list(DESIGNS)),
    default="auto",
    show_default=True,
    help="What the verdict rests on.",
)
@click.option("--margin", "margins", multiple=True, metavar="[METRIC=]X", help="The change that matters: 0.1, 10%.")
@click.option(
    "--direction",
    "directions",
    multiple=True,
    metavar="[METRIC=]D",
    help="Which change is a regression: up-is-worse, down-is-worse, either.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="[METRIC=]K",
    help="What the numbers are: gauge, counter, ratio, count, saturation.",
)
@click.option("--spec", "spec_file", metavar="FILE", help="YAML or JSON: metrics, each with its fields.")
@click.option("--warm-up", type=float, default=0.0, metavar="SECONDS", help="Time after the deployment to leave out.")
@click.option("--q", type=float, default=0.05, show_default=True, help="False-discovery rate over the metrics.")
def analyze(
    file: str,
    output: str,
    deployed_at: str | None,
    design: str,
    margins: tuple[str, ...],
    directions: tuple[str, ...],
    kinds: tuple[str, ...],
    spec_file: str | None,
    warm_up: float,
    q: float,
) -> int:
    """Judge the series in FILE, a CSV or Parquet file in long form; - reads CSV from standard input.

    Columns: timestamp (ISO 8601 or seconds since 1970), metric, arm (baseline or canary), value, and if there
    is more to say phase (pre or post), instance, total (what the values of a ratio are events of).

    Exit codes: 0 proceed, 1 halt, 2 usage, 3 hold, 4 could not look.
    """
    moment = None if deployed_at is None else parse_time(deployed_at)
    if not 0.0 < q < 0.5:
        raise click.UsageError(f"--q: must lie between 0 and 0.5, not {q:g}")
    if not 0.0 <= warm_up < float("inf"):
        raise click.UsageError(f"--warm-up: must be at least 0 seconds, not {warm_up:g}")
    to = console.err()
    with to.status("reading") if to.is_terminal else nullcontext() as status:
        # Imported here: numpy and pandas take most of a second, and help needs neither.
        import tidegate_analysis as ta

        from tidegate_server.api.findings import encode_response
        from tidegate_server.cli.series_file import first_line, read_series
        from tidegate_server.cli.specs import build_specs

        frame = read_series(file)
        names = [str(name) for name in frame["metric"].dropna().unique()]
        specs = build_specs(names, spec_file=spec_file, margins=margins, directions=directions, kinds=kinds)
        if status is not None:
            status.update(f"judging {len(specs)} metrics, {len(frame)} points")
        try:
            batch = ta.SeriesBatch(specs)
            batch.add_frame(frame, deployed_at=moment)
            judgement = ta.analyze(batch, design=DESIGNS[design], q=q, deployed_at=moment, warm_up=warm_up)
        except ValueError as error:
            raise CouldNotLookError(f"{file}: {first_line(error)}") from error
        response = encode_response(judgement, deployed_at=moment)
    if output == "json":
        click.echo(json.dumps(plain(response), indent=2, allow_nan=False))
    else:
        show(response, console.out())
    return exit_code(response.verdict, response.decision)


def show(response: AnalyzeResponse, to: Console) -> None:
    """Print the findings as a table, then the gate's sentence and those that made it."""
    to.print(findings_table(response.findings))
    to.print()
    to.print(Text(response.sentence, STYLES.get(verdict_word(response.verdict), "")), soft_wrap=True)
    for finding in response.findings:
        decisive = finding.verdict == response.verdict != VERDICT_PASS
        if decisive and finding.sentence not in response.sentence:
            to.print(Text(f"  {finding.sentence}"), soft_wrap=True)
        if began := onset(finding):
            to.print(Text(f"  {began}"), soft_wrap=True)
    code = exit_code(response.verdict, response.decision)
    to.print(f"decision: {decision_word(response.decision)} (exit code {code})", soft_wrap=True)


def parse_time(text: str) -> float:
    """Return seconds since 1970 for ISO 8601 or a number of seconds.

    Raises
    ------
    click.UsageError
        When it is neither.
    """
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(
            f"--deployed-at: {text!r} is no time; write 2026-05-01T12:41:00Z or seconds since 1970"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
