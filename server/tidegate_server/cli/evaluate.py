"""``tidegate evaluate``: may this rollout go on?"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import click
import grpc
from rich.text import Text
from tidegate.v1 import evaluation_service_pb2 as wire
from tidegate.v1 import evaluation_service_pb2_grpc, evaluations_pb2, findings_pb2

from tidegate_server.cli import console
from tidegate_server.cli.config_file import Loaded, load_rules, parse_time
from tidegate_server.cli.connection import RETRIED, Connection, ServerRefusedError, connected
from tidegate_server.cli.exits import CouldNotLookError, Exit, RefusedError
from tidegate_server.cli.plain import plain
from tidegate_server.cli.render import STYLES, decision_word, findings_table, onset, verdict_word
from tidegate_server.gates.model import DEFAULT_IDENTIFIER, GateKey
from tidegate_server.gates.names import gate_name

MAX_SECONDS = 3 * 3600.0

OPTIONS = {
    "deployment.service": "--service",
    "deployment.environment": "--env",
    "deployment.version": "--version",
    "deployment.previous_version": "--previous-version",
    "deployment.start_time": "--deployed-at",
    "deployment.commit": "--commit",
    "deployment.actor": "--actor",
    "key": "--key",
}
"""Where a user set the fields of a request."""


@click.command()
@click.option("--service", required=True, help="The service.")
@click.option("--env", "environment", required=True, help="The environment.")
@click.option("--version", "version_", default="", help="The new version; needed where versions are compared.")
@click.option("--previous-version", default="", help="The version it replaces.")
@click.option("--gate", "identifier", metavar="IDENTIFIER", help="Which stored gate. Default: default.")
@click.option("-f", "--file", "path", metavar="FILE", help="YAML with rules in place of a stored gate.")
@click.option("--deployed-at", metavar="TIME", help="When the deployment began, ISO 8601. Default: now.")
@click.option("--commit", default="", help="The commit.")
@click.option("--actor", default="", help="Who or what started it.")
@click.option("--link", "links", multiple=True, metavar="NAME=URL", help="A link for people; may be repeated.")
@click.option("--key", help="Take the evaluation of this key while it lives, in place of a new one: for retried steps.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the decision.")
@click.option(
    "--timeout",
    type=click.FloatRange(1),
    default=MAX_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait; then the exit code is 4.",
)
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@connected
def evaluate(
    connection: Connection,
    service: str,
    environment: str,
    version_: str,
    previous_version: str,
    identifier: str | None,
    path: str | None,
    deployed_at: str | None,
    commit: str,
    actor: str,
    links: tuple[str, ...],
    key: str | None,
    wait: bool,
    timeout: float,
    output: str,
) -> int:
    """Ask a gate whether a rollout may go on, and answer with the exit code.

    Exit codes: 0 proceed, 1 halt, 2 usage, 3 hold, 4 could not look. With --no-wait 0 only says that the
    evaluation has been started.
    """
    if identifier is not None and path is not None:
        raise click.UsageError("--gate and --file contradict each other; give one of them")
    stub = connection.stub(evaluation_service_pb2_grpc.EvaluationServiceStub)
    rules = load_rules(path, wire.InlineRules) if path is not None else None
    source: dict[str, Any] = {"inline_rules": rules.message} if rules is not None else {}
    if rules is None:
        source = {"gate": gate_name(GateKey(service, environment, identifier or DEFAULT_IDENTIFIER))}
    request = wire.StartEvaluationRequest(request_id=uuid.uuid4().hex, **source)
    deployment = request.deployment
    deployment.service, deployment.environment, deployment.version = service, environment, version_
    deployment.previous_version, deployment.commit, deployment.actor = previous_version, commit, actor
    for link in links:
        name, sign, url = link.partition("=")
        if not sign:
            raise click.UsageError(f"--link: NAME=URL is expected, not {link!r}")
        deployment.links[name] = url
    if deployed_at is not None:
        moment = parse_time(deployed_at)
        if moment is None:
            raise click.UsageError(f"--deployed-at: a time in ISO 8601 is expected, not {deployed_at!r}")
        deployment.start_time.FromDatetime(moment)
    found = _started(connection, stub, request, key, rules)
    to = console.err()
    identity = found.name.removeprefix("evaluations/")
    to.print(f"evaluation {identity}", soft_wrap=True)
    if wait:
        found = follow(connection, stub, found, timeout, until_decided=True)
    if output == "json":
        click.echo(json.dumps(plain(found), indent=2, allow_nan=False))
    elif wait:
        show(found)
    else:
        click.echo(identity)
    return exit_code_of(found) if wait else Exit.PROCEED


def _started(
    connection: Connection,
    stub: Any,
    request: wire.StartEvaluationRequest,
    key: str | None,
    rules: Loaded | None,
) -> evaluations_pb2.Evaluation:
    try:
        if key is None:
            started: evaluations_pb2.Evaluation = connection.call(stub.StartEvaluation, request).evaluation
            return started
        ensure = wire.EnsureEvaluationRequest(key=key, deployment=request.deployment)
        if request.WhichOneof("source") == "gate":
            ensure.gate = request.gate
        else:
            ensure.inline_rules.CopyFrom(request.inline_rules)
        ensured: evaluations_pb2.Evaluation = connection.call(stub.EnsureEvaluation, ensure).evaluation
    except ServerRefusedError as error:
        raise in_words(error, rules) from None
    return ensured


def in_words(error: ServerRefusedError, rules: Loaded | None) -> RefusedError:
    """Return a refusal with the places of its fields: an option, or a place in the file with the rules."""
    if not error.told.violations:
        return error
    lines = []
    for one in error.told.violations:
        option = OPTIONS.get(one.field) or ("--link" if one.field.startswith("deployment.links") else "")
        place = f"{rules.place_of(one.field)}: " if rules is not None and not option else ""
        lines.append(f"{place}{option or one.field}: {one.description}")
    return RefusedError("\n".join(lines))


def follow(
    connection: Connection,
    stub: Any,
    found: evaluations_pb2.Evaluation,
    timeout: float,
    *,
    until_decided: bool,
) -> evaluations_pb2.Evaluation:
    """Watch an evaluation to its decision or end, going on after a lost connection; progress to standard
    error.

    Raises
    ------
    CouldNotLookError
        When the time is up, or the server cannot be reached any more.
    """
    to = console.err()
    deadline = time.monotonic() + timeout
    told = ""
    away = False
    later = f"tidegate evaluation watch {found.name.removeprefix('evaluations/')}"
    while True:
        request = wire.WatchEvaluationRequest(
            name=found.name, after_version=found.version if told else 0, until_decided=until_decided
        )
        try:
            for update in connection.stream(stub.WatchEvaluation, request, max(deadline - time.monotonic(), 0.1)):
                found, away = update.evaluation, False
                if found.sentence != told and not update.final:
                    told = found.sentence
                    to.print(Text(told, "dim"), soft_wrap=True)
                if update.final:
                    return found
        except grpc.RpcError as error:
            told_by: Any = error
            code = told_by.code()
            if code is grpc.StatusCode.DEADLINE_EXCEEDED or time.monotonic() >= deadline:
                why = f"; no server answers at {connection.target}" if away else ""
                raise CouldNotLookError(
                    f"no decision within {timeout:g} s{why}; the evaluation goes on: {later}"
                ) from None
            if code not in RETRIED:
                raise connection.refusal(error) from None
            if not away:
                to.print(Text(f"no server answers at {connection.target}; asking again", "dim"), soft_wrap=True)
            told, away = told or " ", True
        except KeyboardInterrupt:
            to.print(f"the evaluation goes on: {later}", soft_wrap=True)
            raise
        time.sleep(min(1.0, max(deadline - time.monotonic(), 0.0)))


def exit_code_of(found: evaluations_pb2.Evaluation) -> Exit:
    """Return what the decision says to a script; a person's decision and a dry run count before the
    verdict."""
    if found.decision == findings_pb2.DECISION_PROCEED:
        return Exit.PROCEED
    if found.decision == findings_pb2.DECISION_HALT:
        return Exit.HALT
    overridden = found.HasField("override")
    if found.decision == findings_pb2.DECISION_UNSPECIFIED or (
        found.verdict == findings_pb2.VERDICT_ERROR and not overridden
    ):
        return Exit.COULD_NOT_LOOK
    return Exit.HOLD


def show(found: evaluations_pb2.Evaluation) -> None:
    """Print an evaluation for people: every rule, then the verdict, then what to do."""
    to = console.out()
    deployment = found.deployment
    version = f" {deployment.version}" if deployment.version else ""
    to.print(Text(f"{deployment.service}{version} in {deployment.environment}", "bold"), soft_wrap=True)
    for result in found.rule_results:
        mode = {2: " (hold only)", 3: " (dry run)"}.get(result.mode, "")
        word = "NOT AWAITED" if result.not_awaited else verdict_word(result.verdict)
        line = Text(f"  {word:<12} ", STYLES.get(word, "dim"))
        line.append(f"{result.rule}{mode}", "bold")
        line.append(f"  {result.sentence}", "")
        to.print(line, soft_wrap=True)
        if result.findings:
            to.print(findings_table(result.findings))
        for finding in result.findings:
            if began := onset(finding):
                to.print(Text(f"      {began}"), soft_wrap=True)
        for monitor in result.monitors:
            if monitor.failing:
                group = f" [{monitor.group}]" if monitor.group else ""
                link = f"  {monitor.url}" if monitor.url else ""
                to.print(Text(f"      failing: {monitor.name}{group}{link}"), soft_wrap=True)
    word = verdict_word(found.verdict)
    if found.decision == findings_pb2.DECISION_UNSPECIFIED:
        to.print(Text(found.sentence, "dim"), soft_wrap=True)
        return
    # One that is cancelled, or decided by a person before its end, has no verdict.
    told = f"{word}: {found.sentence}" if found.verdict else found.sentence
    to.print(Text(told, STYLES.get(word, "")), soft_wrap=True)
    if found.HasField("override"):
        to.print(
            f"overridden by {found.override.actor}: {decision_word(found.override.decision)}, {found.override.reason}",
            soft_wrap=True,
        )
    code = exit_code_of(found)
    to.print(f"decision: {decision_word(found.decision)} (exit code {code})", soft_wrap=True)
