"""The commands for gates, evaluations, monitors and tokens, against a real server, by their exit codes and
words."""

from __future__ import annotations

import contextlib
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tidegate.v1 import evaluation_service_pb2 as wire
from tidegate.v1 import evaluation_service_pb2_grpc, metrics_pb2
from tidegate_server.app import Server
from tidegate_server.cli import connection, main
from tidegate_server.cli.connection import Connection
from tidegate_server.cli.evaluate import follow
from tidegate_server.cli.evaluation import requests_of
from tidegate_server.cli.exits import CouldNotLookError

from tests.api_gates.gate_calls import Calls, deployment_of, fresh, regression_rule


@dataclass
class Ran:
    code: int
    out: str
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run(server: Server, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEGATE_SERVER", server.target)
    monkeypatch.setenv("TIDEGATE_STORE_URL", str(tmp_path / "tokens.db"))

    def command(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Ran(code, out, err)

    return command


def write(text: str, name: str = "gates.yaml") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def gates_file(service: str, **extra: str) -> str:
    more = "".join(f"    {key}: {value}\n" for key, value in extra.items())
    return write(
        f"""
gates:
  - service: {service}
    environment: prod
{more}    rules:
      - name: alerts
        monitor:
          query: service:{service}
      - name: latency
        mode: hold-only
        regression:
          metrics: [{{name: p95, kind: gauge}}]
          warmUp: 0s
          horizon: 15m
"""
    )


# --- gates


def test_apply_twice_changes_nothing_the_second_time(run):
    service = fresh()
    path = gates_file(service)
    first = run("gate", "apply", "-f", path)
    assert first.code == 0
    assert f"create    {service} prod default" in first.out
    assert "+service: " in first.out
    assert "1 applied, 0 unchanged" in first.out
    again = run("gate", "apply", "-f", path)
    assert "0 applied, 1 unchanged" in again.out
    assert "+service" not in again.out


def test_apply_shows_the_difference_and_a_dry_run_changes_nothing(run):
    service = fresh()
    run("gate", "apply", "-f", gates_file(service))
    path = gates_file(service, owner="ann")
    shown = run("gate", "apply", "-f", path, "--dry-run")
    assert "change " in shown.out
    assert "+owner: ann" in shown.out
    assert "-service" not in shown.out
    assert "owner" not in run("gate", "get", "--service", service, "--env", "prod").out
    assert "1 applied" in run("gate", "apply", "-f", path).out
    assert "owner: ann" in run("gate", "get", "--service", service, "--env", "prod").out


def test_what_get_prints_apply_takes(run):
    service = fresh()
    run("gate", "apply", "-f", gates_file(service, owner="ann", tags="[a, b]"))
    got = run("gate", "get", "--service", service, "--env", "prod")
    assert "0 applied, 1 unchanged" in run("gate", "apply", "-f", write(got.out, "got.yaml")).out
    as_json = run("gate", "get", "--service", service, "--env", "prod", "--output", "json").json()
    assert as_json["rules"][1]["mode"] == "HOLD_ONLY"
    assert as_json["rules"][1]["regression"]["horizon"] == 900.0


class Terminal(io.StringIO):
    """What somebody types."""

    def isatty(self) -> bool:
        return True


def test_prune_asks_and_deletes_only_in_the_places_of_the_file(run, monkeypatch):
    service, other = fresh(), fresh()
    for one in (service, other):
        run("gate", "apply", "-f", gates_file(one, identifier="extra"))
    path = gates_file(service)
    refused = run("gate", "apply", "-f", path, "--prune")
    assert refused.code == 2
    assert "nobody to ask; say --yes" in refused.err
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    refused = run("gate", "apply", "-f", path, "--prune")
    assert (refused.code, refused.err) == (2, "tidegate: nothing was changed\n")
    assert "delete " in run("gate", "apply", "-f", path, "--prune", "--dry-run").out
    assert "1 deleted" in run("gate", "apply", "-f", path, "--prune", "--yes").out
    assert run("gate", "get", "--service", service, "--env", "prod", "--identifier", "extra").code == 2
    assert run("gate", "get", "--service", other, "--env", "prod", "--identifier", "extra").code == 0


def test_list_history_and_delete(run):
    service = fresh()
    run("gate", "apply", "-f", gates_file(service))
    run("gate", "apply", "-f", gates_file(service, dry_run="true"))
    assert "dry run" in run("gate", "list", "--service", service).out
    assert len(run("gate", "list", "--service", service, "--output", "json").json()) == 1
    history = run("gate", "history", "--service", service, "--env", "prod").out
    assert history.index("revision 2") < history.index("+dry_run: true") < history.index("revision 1")
    assert run("gate", "delete", "--service", service, "--env", "prod").code == 2
    assert run("gate", "delete", "--service", service, "--env", "prod", "--yes").code == 0
    assert "no gates" in run("gate", "list", "--service", service).out


@pytest.mark.parametrize(
    ("text", "place", "tells"),
    [
        ("servce: a", "1:1", "unknown field 'servce' in gate; did you mean 'service'?"),
        ("service: a\nrules:\n  - nam: x", "3:5", "unknown field 'nam' in gate.rules[0]; did you mean 'name'?"),
        ("service: a\nuid: x", "2:1", "is set by the server; leave it out"),
        ("service: a\nservice: b", "2:1", "duplicate key"),
        ("service: a\ndryRun: true\ndry_run: true", "3:1", "in snake_case and in camelCase"),
        ("service: a\ndry_run: maybe", "2:1", "true or false is expected, not 'maybe'"),
        ("service: [a]", "1:1", "a text is expected, not a list"),
        ("service: a\nrules: x", "2:1", "a list is expected, not 'x'"),
        ("service: a\nrules: [5]", "2:9", "fields are expected, not 5"),
        ("service: a\nrules:\n  - mode: enfroce", "3:5", "'enfroce' is none of ENFORCE, HOLD_ONLY, DRY_RUN"),
        (
            "rules:\n  - monitor: {query: a, duration: soon}",
            "2:25",
            "a duration such as 90s, 15m or 1h30m is expected, not 'soon'",
        ),
        ("rules:\n  - monitor: {query: a}\n    regression: {}", "3:5", "contradicts monitor"),
        ("rules:\n  - monitor: {max_matches: -1}", "2:15", "must be 0 to 4294967295, not -1"),
        ("rules:\n  - threshold: {bound: high}", "2:17", "a number is expected, not 'high'"),
        ("service:", "1:1", "has no value"),
        ("a: [", "1:5", "expected the node content"),
        ("- - -", "1:3", "fields are expected"),
        ("", "", "holds no gate"),
        ("gates: []", "", "is expected"),
        ("gates: [{service: a}]\nextra: 1", "2:1", "unknown field 'extra' beside gates"),
    ],
)
def test_faults_of_a_file_are_told_with_their_place(run, text, place, tells):
    found = run("gate", "apply", "-f", write(text))
    assert found.code == 2
    assert f"gates.yaml:{place}" in found.err
    assert tells in found.err, found.err
    assert "Usage:" not in found.err


def test_what_the_server_refuses_is_told_with_its_place_and_nothing_is_applied(run):
    service = fresh()
    good = Path(gates_file(service)).read_text(encoding="utf-8")
    bad = """
  - service: other
    environment: prod
    rules:
      - name: alerts
        monitor: {query: "env:prod AND"}
      - name: alerts
        regression: {metrics: [{name: a}], horizon: 3h}
"""
    found = run("gate", "apply", "-f", write(good + bad))
    assert found.code == 2
    lines = len(good.splitlines())
    assert f"gates.yaml:{lines + 6}:19: gate.rules[0].monitor.query: column 13" in found.err
    assert f"gates.yaml:{lines + 7}:9: gate.rules[1].name" in found.err
    assert f"gates.yaml:{lines + 8}:44: gate.rules[1].regression.horizon" in found.err
    assert "no gates" in run("gate", "list", "--service", service).out


def test_the_same_gate_twice_in_a_file(run):
    text = Path(gates_file("a")).read_text(encoding="utf-8").replace("gates:\n", "")
    found = run("gate", "apply", "-f", write("gates:\n" + text + text))
    assert found.code == 2
    assert "stands at gates.yaml:3:5 already" in found.err


def test_files_that_cannot_be_read(run):
    assert "no-such.yaml: cannot be read" in run("gate", "apply", "-f", "no-such.yaml").err
    Path("bad.yaml").write_bytes(b"service: a\nowner: \xff\xfe")
    assert "bad.yaml:2: is not UTF-8" in run("gate", "apply", "-f", "bad.yaml").err


def test_several_documents_and_camel_case(run):
    one, two = fresh(), fresh()
    text = "---\n".join(
        f"service: {service}\nenvironment: prod\ndryRun: true\nrules:\n  - name: a\n"
        f"    onNoData: error\n    monitor: {{query: a, maxMatches: 7, failOn: [warn, ALERT]}}\n"
        for service in (one, two)
    )
    assert "2 applied" in run("gate", "apply", "-f", write(text)).out
    rule = run("gate", "get", "--service", two, "--env", "prod", "--output", "json").json()["rules"][0]
    assert (rule["on_no_data"], rule["monitor"]["max_matches"]) == ("ERROR", 7)
    assert rule["monitor"]["fail_on"] == ["WARN", "ALERT"]


def test_a_margin_may_be_a_percentage(run):
    service = fresh()
    metrics = "[{name: a, margin: 12.5%}, {name: b, margin: '10 %'}, {name: c, margin: 0.2}]"
    text = f"service: {service}\nenvironment: prod\nrules:\n  - name: r\n    regression: {{metrics: {metrics}}}\n"
    assert "1 applied" in run("gate", "apply", "-f", write(text)).out
    rule = run("gate", "get", "--service", service, "--env", "prod", "--output", "json").json()["rules"][0]
    assert [one["margin"] for one in rule["regression"]["metrics"]] == [0.125, 0.1, 0.2]
    found = run("gate", "apply", "-f", write(text.replace("12.5%", "some%")))
    assert "margin: a number is expected, not 'some%'" in found.err


# --- monitors


def test_monitors_are_pushed_listed_shown_muted_and_deleted(run):
    team = fresh("team")
    pushed = run("monitor", "push", "--id", team, "--state", "alert", "--name", "Errors", "--tag", f"team:{team}")
    assert pushed.out == "1 state taken\n"
    assert "ALERT" in run("monitor", "list", f"team:{team}").out
    shown = run("monitor", "show", team).out
    assert "Errors" in shown
    assert "ALERT" in shown
    made = run("monitor", "downtime", "create", f"team:{team}", "--reason", "works", "--for", "1h")
    identity = made.out.strip()
    assert identity in run("monitor", "downtime", "list").out
    assert run("monitor", "downtime", "end", identity).code == 0
    assert run("monitor", "delete", team).code == 0
    assert "no monitors" in run("monitor", "list", f"team:{team}").out


def test_monitors_from_a_file(run):
    team = fresh("team")
    lines = [json.dumps({"monitorId": f"{team}-{k}", "state": "ok", "tags": [f"team:{team}"]}) for k in range(1200)]
    assert "1200 states taken" in run("monitor", "push", "-f", write("\n".join(lines), "states.jsonl")).out
    assert len(run("monitor", "list", f"team:{team}", "--limit", "2000", "--output", "json").json()) == 1200
    found = run("monitor", "push", "-f", write('{"monitor_id": "a", "state": "ok", "tgas": []}\n', "bad.jsonl"))
    assert found.code == 2
    assert "bad.jsonl:1: " in found.err
    assert "tgas" in found.err
    assert run("monitor", "push", "-f", write("[1]", "bad.jsonl")).err == (
        'tidegate: bad.jsonl:1: a state such as {"monitor_id": "a", "state": "ok"} is expected\n'
    )


def test_states_of_a_file_that_the_server_refuses_are_told_by_line(run):
    lines = [json.dumps({"monitorId": fresh("m"), "state": "ok"}) for _ in range(510)]
    lines[505] = json.dumps({"monitorId": "m", "state": "ok", "time": "2020-01-01T00:00:00Z"})
    found = run("monitor", "push", "-f", write("\n" + "\n".join(lines), "states.jsonl"))
    assert found.code == 2
    assert found.err == (
        "tidegate: states.jsonl:507: time: lies more than 30 days back\n500 states before were taken\n"
    )


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["push", "--id", "a"], "give --id and --state"),
        (["push", "--id", "a", "--state", "odd"], "'odd' is not one of"),
        (["push", "--id", "a", "--state", "ok", "--time", "soon"], "--time: a time in ISO 8601"),
        (["push", "--id", "a", "--state", "ok", "--valid-for", "x"], "--valid-for: a duration"),
        (["push", "--id", "a", "--state", "ok", "--time", "2999-01-01"], "states[0].time: lies"),
        (["list", "env:prod AND"], "query: column 13"),
        (["show", "nothing-there"], "there is no monitor"),
        (["show", "a", "--since", "x"], "--since: a duration"),
        (["downtime", "create", "a", "--reason", "x", "--for", "x"], "--for: a duration"),
    ],
)
def test_what_is_wrong_about_monitors(run, arguments, tells):
    found = run("monitor", *arguments)
    assert found.code == 2
    assert tells in found.err


# --- evaluations


def evaluate(run, service, *more: str) -> Ran:
    return run("evaluate", "--service", service, "--env", "prod", "--version", "2", "--timeout", "60", *more)


def rules_file(service: str, text: str = "") -> str:
    return write(text or f"- name: alerts\n  monitor: {{query: 'service:{service}'}}\n", "rules.yaml")


@pytest.mark.parametrize(
    ("state", "code", "decision"), [("ok", 0, "PROCEED"), ("alert", 1, "HALT"), ("unknown", 3, "HOLD")]
)
def test_the_exit_code_is_the_decision(run, state, code, decision):
    service = fresh()
    run("monitor", "push", "--id", service, "--state", state, "--tag", f"service:{service}", "--name", "Errors")
    found = evaluate(run, service, "-f", rules_file(service))
    assert found.code == code, found.err
    assert f"decision: {decision} (exit code {code})" in found.out
    assert "evaluation " in found.err


def test_an_error_is_could_not_look(run):
    service = fresh()
    run("monitor", "push", "--id", service, "--state", "unknown", "--tag", f"service:{service}")
    text = f"rules:\n  - name: alerts\n    on_no_data: error\n    monitor: {{query: 'service:{service}'}}\n"
    assert evaluate(run, service, "-f", rules_file(service, text)).code == 4


def test_a_dry_run_proceeds(run):
    service = fresh()
    run("monitor", "push", "--id", service, "--state", "alert", "--tag", f"service:{service}")
    text = f"dryRun: true\nrules:\n  - name: alerts\n    monitor: {{query: 'service:{service}'}}\n"
    found = evaluate(run, service, "-f", rules_file(service, text), "--output", "json")
    assert found.code == 0
    answer = found.json()
    assert (answer["verdict"], answer["decision"], answer["would_decide"]) == ("FAIL", "PROCEED", "HALT")


def series_file(service: str, factor: float) -> tuple[str, str]:
    """A CSV of 60 scrapes of both arms, and the time of the deployment before them."""
    start = time.time() - 700
    random = np.random.default_rng(1)
    lines = ["timestamp,metric,arm,value"]
    for k in range(60):
        for arm, level in (("baseline", 100.0), ("canary", 100.0 * factor)):
            value = level * float(np.exp(0.03 * random.standard_normal()))
            lines.append(f"{start + 10 * k:.3f},p95,{arm},{value:.6f}")
            lines.append(f"{start + 10 * k:.3f},unwatched,{arm},1")
    deployed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start - 5))
    return write("\n".join(lines), f"{service}.csv"), deployed


def test_a_gate_from_apply_to_a_failed_rollout(run):
    service = fresh()
    run("gate", "apply", "-f", gates_file(service))
    run("monitor", "push", "--id", service, "--state", "ok", "--tag", f"service:{service}")
    path, deployed = series_file(service, 1.5)
    started = evaluate(run, service, "--deployed-at", deployed, "--no-wait", "--link", "run=https://ci/1")
    assert started.code == 0
    identity = started.out.strip()
    assert "2 blocks written, complete" in run("evaluation", "write", identity, "--file", path, "--complete").out
    watched = run("evaluation", "watch", identity, "--timeout", "60")
    # Its regression rule only holds.
    assert watched.code == 3, watched.err
    assert "p95" in watched.out
    assert "FAIL" in watched.out
    listed = run("evaluation", "list", "--service", service, "--filter", "verdict = INCONCLUSIVE")
    assert identity in listed.out
    assert run("evaluation", "override", identity, "--decision", "proceed", "--reason", "known").code == 0
    assert run("evaluation", "watch", identity).code == 0
    assert "overridden by anonymous" in run("evaluation", "show", identity).out
    assert run("evaluation", "label", identity, "--kind", "false-alarm").code == 0
    shown = run("evaluation", "show", identity, "--output", "json").json()
    assert shown["labels"][0]["kind"] == "FALSE_ALARM"
    assert shown["deployment"]["links"] == {"run": "https://ci/1"}
    cancelled = run("evaluation", "cancel", identity)
    assert cancelled.code == 2
    assert "has ended" in cancelled.err
    exported = run("evaluation", "export", identity, "--to", "out.parquet")
    assert exported.out == "120 points written to out.parquet\n"
    assert run("evaluation", "export", identity, "--to", "out.parquet").code == 2
    assert run("analyze", "out.parquet").code == 1


def test_the_export_holds_the_evaluation_itself(run):
    from pyarrow import parquet

    service = fresh()
    started = evaluate(run, service, "-f", rules_file(service), "--no-wait")
    run("evaluation", "watch", started.out.strip(), "--timeout", "60")
    run("evaluation", "export", started.out.strip(), "--to", "empty.parquet")
    table = parquet.read_table("empty.parquet")
    assert table.num_rows == 0
    held = json.loads(table.schema.metadata[b"tidegate.evaluation"])
    assert (held["verdict"], held["rule_results"][0]["reason"]) == ("FAIL", "no_match")


def test_what_has_no_verdict_is_shown_without_one(run):
    service = fresh()
    text = "- name: latency\n  regression: {metrics: [{name: p95}]}\n"
    identity = evaluate(run, service, "-f", rules_file(service, text), "--no-wait").out.strip()
    run("evaluation", "override", identity, "--decision", "halt", "--reason", "known to be bad")
    shown = run("evaluation", "show", identity).out.splitlines()
    assert shown[-1] == "decision: HALT (exit code 1)"
    run("evaluation", "cancel", identity)
    shown = run("evaluation", "show", identity).out.splitlines()
    assert "Cancelled before it had an answer." in shown
    assert shown[-1] == "decision: HOLD (exit code 3)"


def test_points_are_written_in_requests_that_a_server_takes():
    """A file may hold more than one message may."""
    block = metrics_pb2.SeriesBlock(values=[1.0] * 100_000)
    parts = list(requests_of([block] * 30 + [metrics_pb2.SeriesBlock()] * 500))
    assert sum(map(len, parts)) == 530
    assert all(sum(one.ByteSize() for one in part) < 4 * 1024 * 1024 for part in parts)
    assert all(1 <= len(part) <= 200 for part in parts)


def test_a_key_returns_the_same_evaluation(run):
    service = fresh()
    run("gate", "apply", "-f", gates_file(service))
    first = evaluate(run, service, "--key", "step-1", "--no-wait")
    assert evaluate(run, service, "--key", "step-1", "--no-wait").out == first.out
    assert evaluate(run, service, "--key", "step-2", "--no-wait").out != first.out


def test_the_time_to_wait_is_bounded(run):
    service = fresh()
    text = "- name: latency\n  regression: {metrics: [{name: p95}]}\n"
    found = run(
        "evaluate", "--service", service, "--env", "prod", "--version", "2", "--timeout", "1",
        "-f", rules_file(service, text),
    )  # fmt: skip
    assert found.code == 4
    assert "no decision within 1 s; the evaluation goes on" in found.err


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["--gate", "x", "-f", "rules.yaml"], "contradict each other"),
        (["--gate", "nothing"], "there is no gate"),
        (["--link", "nonsense"], "NAME=URL is expected"),
        (["--link", "a=ftp://b"], "must begin with https://"),
        (["--deployed-at", "yesterday"], "a time in ISO 8601"),
        (["--deployed-at", "2999-01-01"], "in the future"),
    ],
)
def test_what_is_wrong_about_an_evaluation(run, arguments, tells):
    found = evaluate(run, fresh(), *arguments)
    assert found.code == 2
    assert tells in found.err


def test_rules_of_a_file_are_told_with_their_place(run):
    service = fresh()
    found = evaluate(run, service, "-f", rules_file(service, "- name: a\n  monitor: {query: 'a:('}\n"))
    assert found.code == 2
    assert "rules.yaml:2:13: inline_rules.rules[0].monitor.query: column 4" in found.err
    found = evaluate(run, service, "-f", rules_file(service, "rules:\n  - name: a\n    monitr: {}\n"))
    assert "rules.yaml:3:5: unknown field 'monitr' in rules[0]; did you mean 'monitor'?" in found.err
    found = run(
        "evaluate",
        "--service",
        service,
        "--env",
        "prod",
        "-f",
        rules_file(service, "- name: a\n  regression: {metrics: [{name: p}]}\n"),
    )
    assert found.err == "tidegate: --version: is needed: rule 'a' compares the new version with the one it replaces\n"


def test_a_server_that_goes_away_while_somebody_waits_is_told(serving, capsys):
    """It may come back, so it is asked again; but nobody should wait for hours without a word."""
    with serving.server(drain_pause_seconds=0.0) as gone, contextlib.closing(Calls(gone.target)) as calls:
        request = wire.StartEvaluationRequest(deployment=deployment_of(fresh()))
        request.inline_rules.rules.append(regression_rule())
        started = calls.evaluations.StartEvaluation(request).evaluation
    connection = Connection(gone.target, "", None, 30.0)
    stub = connection.stub(evaluation_service_pb2_grpc.EvaluationServiceStub)
    with contextlib.closing(connection), pytest.raises(CouldNotLookError) as told:
        follow(connection, stub, started, 3.0, until_decided=True)
    assert f"no decision within 3 s; no server answers at {gone.target}; the evaluation goes on" in told.value.message
    assert capsys.readouterr().err.count(f"no server answers at {gone.target}; asking again") == 1


def test_who_interrupts_the_waiting_learns_that_the_evaluation_goes_on(run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Connection, "stream", interrupted)
    found = evaluate(run, fresh(), "-f", rules_file("any"))
    identity = found.err.split()[1]
    assert found.code == 130
    assert found.err.splitlines()[-2:] == [
        f"the evaluation goes on: tidegate evaluation watch {identity}",
        "interrupted",
    ]


def test_no_server_is_could_not_look(run, monkeypatch):
    monkeypatch.setattr(connection, "PAUSE_SECONDS", 60.0)  # longer than the time for the call: not tried again
    found = run("gate", "list", "--server", "127.0.0.1:1", "--call-timeout", "60")
    assert found.code == 4
    assert "no server answers at 127.0.0.1:1" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["--server", "nonsense"], "--server: must be host:port"),
        (["--tls-certificate", "a.pem"], "set both, or none"),
        (["--tls-ca", "no-such.pem"], "cannot read no-such.pem"),
        (["--token-file", "no-such"], "--token-file: cannot read"),
    ],
)
def test_connections_that_cannot_be_made(run, arguments, tells):
    found = run("gate", "list", *arguments)
    assert found.code == 2
    assert tells in found.err


def test_a_token_does_not_travel_in_plain_text(run, monkeypatch):
    monkeypatch.setenv("TIDEGATE_TOKEN", "tg_secret")
    found = run("gate", "list", "--server", "gates.example.com:7443")
    assert found.code == 2
    assert "in plain text; say --tls" in found.err
    assert "tg_secret" not in found.err


# --- who may do what


def test_authorisation_and_tokens(run):
    assert "off on loopback" in run("auth", "status").out
    enabled = run("auth", "enable")
    assert "authorisation is on" in enabled.out
    assert "nobody has a token yet" in enabled.err
    made = run("token", "create", "--name", "ci", "--role", "deployer", "--service", "shop*", "--env", "prod")
    token = made.out.strip()
    assert token.startswith("tg_")
    assert token not in made.err
    identity = token.split("_")[1]
    listed = run("token", "list").out
    assert identity in listed
    assert "deployer for shop* in prod" in listed
    assert token.split("_", 2)[2] not in listed
    assert run("token", "create", "--name", "ci", "--role", "viewer").code == 2
    assert run("auth", "allow-certificate", "spiffe://ci", "--role", "viewer").code == 0
    assert run("token", "revoke", identity).code == 0
    assert run("token", "revoke", "none").code == 2
    log = run("auth", "log").out
    assert "auth.enable" in log
    assert "token.revoke" in log
    assert token.split("_", 2)[2] not in log
    assert "off" in run("auth", "disable").out
    assert run("token", "create", "--name", "x", "--role", "god").code == 2
    assert run("token", "create", "--name", "x", "--role", "viewer", "--expires-in", "soon").code == 2


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        (["token", "create", "--name", ""], "--name: is needed"),
        (["token", "create", "--name", " ci"], "--name: must not begin or end with a blank"),
        (["token", "create", "--name", "ci", "--service", ""], "--service: is needed"),
        (["token", "create", "--name", "ci", "--env", "a\nb"], "--env: must hold no control characters"),
        (["auth", "allow-certificate", ""], "IDENTITY: is needed"),
    ],
)
def test_nobody_gets_a_role_without_a_name_or_for_nothing(run, arguments, tells):
    found = run(*arguments, "--role", "viewer")
    assert found.code == 2
    assert tells in found.err
    assert "no tokens" in run("token", "list").out
