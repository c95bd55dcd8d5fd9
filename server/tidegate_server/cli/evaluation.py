"""``tidegate evaluation``: look at evaluations, and say what is to be said about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tidegate.v1 import evaluation_service_pb2 as wire
from tidegate.v1 import evaluation_service_pb2_grpc, evaluations_pb2, metrics_pb2

from tidegate_server.cli import console
from tidegate_server.cli.connection import Connection, connected
from tidegate_server.cli.evaluate import MAX_SECONDS, exit_code_of, follow, show
from tidegate_server.cli.exits import CouldNotLookError
from tidegate_server.cli.gate import parent
from tidegate_server.cli.plain import plain, word
from tidegate_server.cli.render import decision_word, styled_verdict, to_second

DECISIONS = ("proceed", "halt", "hold")
LABELS = ("true-alarm", "false-alarm", "missed", "correct-pass")
# What is written at once: far below the 16 MiB that a server takes unless it was told otherwise.
BLOCK_BYTES = 1024 * 1024
REQUEST_BYTES = 2 * 1024 * 1024
REQUEST_BLOCKS = 200
# Below this many columns a table of evaluations is no longer readable.
WIDE = 120
OUTPUTS = click.Choice(["text", "json"])


def _stub(connection: Connection) -> Any:
    return connection.stub(evaluation_service_pb2_grpc.EvaluationServiceStub)


def _name(identity: str) -> str:
    return identity if identity.startswith("evaluations/") else f"evaluations/{identity}"


def _print(found: evaluations_pb2.Evaluation, output: str) -> None:
    if output == "json":
        click.echo(json.dumps(plain(found), indent=2, allow_nan=False))
    else:
        show(found)


@click.group()
def evaluation() -> None:
    """Evaluations: list, show, watch, feed, cancel, override, label, export."""


@evaluation.command(name="list")
@click.option("--service", default="-", help="Of this service. Default: of any.")
@click.option("--env", "environment", default="-", help="Of this environment. Default: of any.")
@click.option("--filter", "where", default="", help='Such as: verdict = FAIL AND create_time > "2026-05-01"')
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@connected
def list_evaluations(
    connection: Connection, service: str, environment: str, where: str, limit: int, output: str
) -> None:
    """List evaluations, newest first."""
    found: list[evaluations_pb2.Evaluation] = []
    token = ""
    while len(found) < limit:
        request = wire.ListEvaluationsRequest(
            parent=parent(service, environment),
            filter=where,
            page_size=min(limit - len(found), 1000),
            page_token=token,
        )
        page = connection.call(_stub(connection).ListEvaluations, request)
        found += page.evaluations
        token = page.next_page_token
        if not token:
            break
    if output == "json":
        click.echo(json.dumps([plain(one) for one in found], indent=2, allow_nan=False))
        return
    show_list(found, console.out())


def show_list(found: Sequence[evaluations_pb2.Evaluation], to: Console) -> None:
    """Print evaluations as a table, or in two lines each where a row of it would be broken."""
    if not found:
        to.print("no evaluations")
    elif to.width < WIDE:
        for one in found:
            to.print(_briefly(one), soft_wrap=True)
    else:
        to.print(_table(found))


def _table(found: Sequence[evaluations_pb2.Evaluation]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("id", "service", "environment", "version", "state", "verdict", "decision", "created"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("id", "state", "verdict", "created"))
    for one in found:
        table.add_row(
            _identity(one),
            one.deployment.service,
            one.deployment.environment,
            one.deployment.version,
            word(evaluations_pb2.EvaluationState.DESCRIPTOR, one.state) or "-",
            styled_verdict(one.verdict),
            _decision(one),
            to_second(one.create_time),
        )
    return table


def _briefly(one: evaluations_pb2.Evaluation) -> Text:
    text = Text(f"{_identity(one)}  {to_second(one.create_time)}\n  ")
    if one.verdict:
        text.append_text(styled_verdict(one.verdict))
    else:
        text.append(word(evaluations_pb2.EvaluationState.DESCRIPTOR, one.state) or "-", "dim")
    version = f" {one.deployment.version}" if one.deployment.version else ""
    text.append(f"  {_decision(one)}  {one.deployment.service}{version} in {one.deployment.environment}")
    return text


def _identity(one: evaluations_pb2.Evaluation) -> str:
    return one.name.removeprefix("evaluations/")


def _decision(one: evaluations_pb2.Evaluation) -> str:
    return decision_word(one.decision) + (" (overridden)" if one.HasField("override") else "")


@evaluation.command(name="show")
@click.argument("identity", metavar="ID")
@click.option("--output", type=OUTPUTS, default="text", show_default=True)
@connected
def show_one(connection: Connection, identity: str, output: str) -> None:
    """Show one evaluation with all that it found."""
    request = wire.GetEvaluationRequest(name=_name(identity))
    _print(connection.call(_stub(connection).GetEvaluation, request).evaluation, output)


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--timeout", type=click.FloatRange(1), default=MAX_SECONDS, show_default=True, metavar="SECONDS")
@click.option("--output", type=OUTPUTS, default="text", show_default=True)
@connected
def watch(connection: Connection, identity: str, timeout: float, output: str) -> int:
    """Follow an evaluation to its end; the exit code is that of its decision."""
    stub = _stub(connection)
    found = connection.call(stub.GetEvaluation, wire.GetEvaluationRequest(name=_name(identity))).evaluation
    found = follow(connection, stub, found, timeout, until_decided=False)
    _print(found, output)
    return exit_code_of(found)


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--file", "path", metavar="FILE", help="CSV or Parquet in long form, as for tidegate analyze.")
@click.option("--writer", default="", help="Who writes; each writer numbers its own blocks.")
@click.option("--complete", is_flag=True, help="No more points will come: rules on metrics answer now.")
@connected
def write(connection: Connection, identity: str, path: str | None, writer: str, complete: bool) -> None:
    """Hand the points of FILE to an evaluation that runs."""
    if path is None and not complete:
        raise click.UsageError("give --file, --complete, or both")
    stub = _stub(connection)
    blocks: list[metrics_pb2.SeriesBlock] = []
    if path is not None:
        found = connection.call(stub.GetEvaluation, wire.GetEvaluationRequest(name=_name(identity))).evaluation
        blocks = _blocks(path, found)
    taken = 0
    for part in requests_of(blocks):
        request = wire.WriteSeriesRequest(name=_name(identity), writer=writer, blocks=part)
        taken += connection.call(stub.WriteSeries, request).blocks_taken
    if complete:
        connection.call(stub.WriteSeries, wire.WriteSeriesRequest(name=_name(identity), complete=True))
    click.echo(f"{taken} blocks written{', complete' if complete else ''}")


def requests_of(blocks: Sequence[metrics_pb2.SeriesBlock]) -> Iterator[list[metrics_pb2.SeriesBlock]]:
    """Yield blocks in parts that a server takes in one request."""
    part: list[metrics_pb2.SeriesBlock] = []
    size = 0
    for block in blocks:
        if part and (size >= REQUEST_BYTES or len(part) >= REQUEST_BLOCKS):
            yield part
            part, size = [], 0
        part.append(block)
        size += block.ByteSize()
    if part:
        yield part


def _blocks(path: str, found: evaluations_pb2.Evaluation) -> list[metrics_pb2.SeriesBlock]:
    """Return the points of a file as blocks of the metrics that the evaluation watches."""
    from tidegate_analysis.batch import BlockError
    from tidegate_analysis.frames import blocks_of
    from tidegate_analysis.spec import MetricSpec

    from tidegate_server.api.blocks import cut_block, encode_block
    from tidegate_server.cli.series_file import read_series

    frame = read_series(path)
    names: dict[str, None] = {}
    for rule in found.gate.rules:
        for spec in (*rule.regression.metrics, rule.threshold.metric):
            if spec.name:
                names[spec.name] = None
    watched = frame[frame["metric"].isin(list(names))]
    if watched.empty:
        raise CouldNotLookError(f"{path}: holds none of the metrics of this evaluation: {', '.join(names) or '-'}")
    start = found.deployment.start_time if found.deployment.HasField("start_time") else found.create_time
    try:
        blocks = blocks_of(watched, tuple(MetricSpec(name) for name in names), deployed_at=start.ToNanoseconds() / 1e9)
    except BlockError as error:
        raise CouldNotLookError(f"{path}: {error}") from None
    return [encode_block(piece) for block in blocks for _, piece in cut_block(block, BLOCK_BYTES)]


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--reason", default="", help="Why.")
@connected
def cancel(connection: Connection, identity: str, reason: str) -> None:
    """Stop an evaluation."""
    request = wire.CancelEvaluationRequest(name=_name(identity), reason=reason)
    connection.call(_stub(connection).CancelEvaluation, request)
    click.echo(f"cancelled {identity.removeprefix('evaluations/')}")


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--decision", type=click.Choice(DECISIONS), required=True, help="What is to be done.")
@click.option("--reason", required=True, help="Why; it stays in the record.")
@connected
def override(connection: Connection, identity: str, decision: str, reason: str) -> None:
    """Decide in place of the gate. The verdict stays as it is."""
    value = f"DECISION_{decision.upper()}"
    request = wire.OverrideEvaluationRequest(name=_name(identity), decision=value, reason=reason)
    found = connection.call(_stub(connection).OverrideEvaluation, request).evaluation
    click.echo(f"{decision_word(found.decision)}, overridden by {found.override.actor}")


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--kind", type=click.Choice(LABELS), required=True, help="What really happened.")
@click.option("--note", default="", help="More about it.")
@connected
def label(connection: Connection, identity: str, kind: str, note: str) -> None:
    """Say afterwards what really happened, so that detectors can be tuned on it."""
    value = f"LABEL_KIND_{kind.upper().replace('-', '_')}"
    request = wire.LabelEvaluationRequest(name=_name(identity), kind=value, note=note)
    connection.call(_stub(connection).LabelEvaluation, request)
    click.echo(f"labelled {identity.removeprefix('evaluations/')} {kind}")


@evaluation.command()
@click.argument("identity", metavar="ID")
@click.option("--to", "path", required=True, metavar="FILE", help="A new Parquet file.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@connected
def export(connection: Connection, identity: str, path: str, force: bool) -> None:
    """Write an evaluation with the series behind it to a Parquet file.

    Rows are points, in the long form that tidegate analyze reads; the evaluation itself stands as JSON in
    the file's metadata under tidegate.evaluation.
    """
    target = Path(path)
    if target.exists() and not force:
        raise click.UsageError(f"{path} is there already; say --force to write over it")
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise CouldNotLookError(
            "writing Parquet needs pyarrow; install it with: pip install 'tidegate[parquet]'"
        ) from None
    stub = _stub(connection)
    found = connection.call(stub.GetEvaluation, wire.GetEvaluationRequest(name=_name(identity))).evaluation
    columns = _columns(_evidence(connection, stub, _name(identity)))
    metadata = {b"tidegate.evaluation": json.dumps(plain(found), allow_nan=False).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    try:
        parquet.write_table(table, target, compression="zstd")
    except OSError as error:
        raise CouldNotLookError(f"{path}: cannot be written: {error.strerror or error}") from None
    click.echo(f"{table.num_rows} points written to {path}")


def _evidence(connection: Connection, stub: Any, name: str) -> Iterator[metrics_pb2.SeriesBlock]:
    token = ""
    while True:
        request = wire.GetEvidenceRequest(name=name, page_size=200, page_token=token)
        page = connection.call(stub.GetEvidence, request)
        yield from page.blocks
        token = page.next_page_token
        if not token:
            return


def _columns(blocks: Iterator[metrics_pb2.SeriesBlock]) -> dict[str, Any]:
    """Return blocks as columns, one row per point; what is missing (NaN) stays in."""
    import numpy as np

    arms = {metrics_pb2.ARM_BASELINE: "baseline", metrics_pb2.ARM_CANARY: "canary"}
    phases = {metrics_pb2.PHASE_PRE: "pre"}
    parts: dict[str, list[Any]] = {
        name: [] for name in ("timestamp", "metric", "arm", "phase", "instance", "value", "total", "position")
    }
    for block in blocks:
        rows, width = len(block.metrics), block.columns
        times = block.start_time.ToNanoseconds() / 1e9 + block.step.ToNanoseconds() / 1e9 * np.arange(width)
        parts["timestamp"].append(np.tile(times, rows))
        parts["metric"].append(np.repeat(np.array(block.metrics, dtype=object), width))
        parts["value"].append(np.asarray(block.values, dtype=np.float64))
        total = np.asarray(block.exposure, dtype=np.float64) if block.exposure else np.full(rows * width, np.nan)
        parts["total"].append(total)
        for name, value in (
            ("arm", arms.get(block.arm, "")),
            ("phase", phases.get(block.phase, "post")),
            ("instance", block.instance),
        ):
            parts[name].append(np.full(rows * width, value, dtype=object))
        parts["position"].append(np.full(rows * width, block.sequence, dtype=np.int64))
    kinds: dict[str, Any] = {"timestamp": np.float64, "value": np.float64, "total": np.float64, "position": np.int64}
    return {
        name: np.concatenate(arrays) if arrays else np.zeros(0, dtype=kinds.get(name, "U1"))
        for name, arrays in parts.items()
    }
