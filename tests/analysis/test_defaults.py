"""Defaults from names, units and values: a table of metrics as they are called in the world."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_analysis import defaults
from tidegate_analysis.spec import MetricSpec

UP, DOWN, EITHER = "up_is_worse", "down_is_worse", "either"
RNG = np.random.default_rng(7)
N = 60

# What the values look like: name -> (points,).
SHAPES: dict[str, NDArray[np.float64]] = {
    "seconds": RNG.lognormal(-2, 0.3, N),
    "millis": RNG.lognormal(5, 0.3, N),
    "total": np.cumsum(RNG.poisson(40, N)).astype(float),
    "seconds_total": np.cumsum(RNG.random(N)),
    "restarting": np.concatenate([np.cumsum(RNG.poisson(9, 30)), np.cumsum(RNG.poisson(9, 30))]).astype(float),
    "per_second": RNG.lognormal(3, 0.1, N),
    "rare": RNG.poisson(0.2, N).astype(float),
    "events": RNG.poisson(30, N).astype(float),
    "share": RNG.uniform(0.2, 0.9, N),
    "small_share": RNG.uniform(0.0, 0.01, N) * (RNG.random(N) > 0.3),
    "percent": RNG.uniform(20, 90, N),
    "bytes": RNG.uniform(1e9, 2e9, N),
    "cores": RNG.uniform(0.2, 3.5, N),
    "whole": RNG.integers(3, 40, N).astype(float),
    "signed": RNG.standard_normal(N),
    "binary": np.ones(N),
    "zeros": np.zeros(N),
}

SHAPES["hundred"] = 100.0 - SHAPES["small_share"] * 100.0

# name, unit, shape -> kind, direction, scale
TABLE = [
    # Names that say the opposite of one of their words
    ("slo_error_budget_remaining", "", "share", "gauge", DOWN, "log"),
    ("crash_free_sessions", "", "share", "saturation", DOWN, "linear"),
    ("crash_free_users_percent", "", "hundred", "gauge", DOWN, "linear"),
    ("error_free_rate", "", "hundred", "gauge", DOWN, "linear"),
    ("availability", "", "hundred", "gauge", DOWN, "linear"),
    ("success_rate", "", "hundred", "gauge", DOWN, "linear"),
    ("mysql_slow_queries", "", "events", "count", UP, "log"),
    ("incomplete_orders", "", "events", "count", UP, "log"),
    ("unanswered_calls", "", "events", "count", UP, "log"),
    ("video_rebuffering_events", "", "events", "count", UP, "log"),
    ("rabbitmq_queue_messages_ready", "", "whole", "gauge", UP, "log"),
    ("rabbitmq_queue_messages_unacked", "", "whole", "gauge", UP, "log"),
    ("kube_node_ready", "", "binary", "saturation", DOWN, "linear"),
    ("spare_threads", "", "whole", "gauge", DOWN, "log"),
    ("daily_active_users", "", "whole", "gauge", DOWN, "log"),
    ("sessions_active", "", "whole", "gauge", EITHER, "log"),
    ("certificate_expiry_seconds", "", "bytes", "gauge", EITHER, "log"),
    ("http_response_size_bytes", "", "bytes", "gauge", EITHER, "log"),
    ("disk_bytes_read_per_second", "", "bytes", "gauge", UP, "log"),
    ("bytes_read_per_second", "", "bytes", "gauge", EITHER, "log"),
    ("cart_abandonment_rate", "", "share", "gauge", UP, "log"),
    # Prometheus
    ("http_request_duration_seconds", "", "seconds", "gauge", UP, "log"),
    ("http_request_duration_seconds_sum", "", "seconds_total", "counter", UP, "log"),
    ("http_requests_total", "", "total", "counter", DOWN, "log"),
    ("http_requests_total", "", "restarting", "counter", DOWN, "log"),
    ("http_requests_total", "", "per_second", "gauge", DOWN, "log"),
    ("http_request_errors_total", "", "total", "counter", UP, "log"),
    ("http_request_errors_total", "", "events", "count", UP, "log"),
    ("grpc_server_handled_total", "", "total", "counter", EITHER, "log"),
    ("grpc_server_msg_received_total", "", "total", "counter", EITHER, "log"),
    ("node_cpu_seconds_total", "", "seconds_total", "counter", UP, "log"),
    ("node_memory_MemAvailable_bytes", "", "bytes", "gauge", DOWN, "log"),
    ("node_memory_MemFree_bytes", "", "bytes", "gauge", DOWN, "log"),
    ("node_load1", "", "cores", "gauge", UP, "log"),
    ("node_filesystem_avail_bytes", "", "bytes", "gauge", DOWN, "log"),
    ("node_disk_io_time_seconds_total", "", "seconds_total", "counter", UP, "log"),
    ("node_network_receive_bytes_total", "", "total", "counter", EITHER, "log"),
    ("node_network_receive_drop_total", "", "total", "counter", UP, "log"),
    ("node_boot_time_seconds", "", "bytes", "gauge", EITHER, "log"),
    ("process_start_time_seconds", "", "bytes", "gauge", EITHER, "log"),
    ("process_resident_memory_bytes", "", "bytes", "gauge", UP, "log"),
    ("process_open_fds", "", "whole", "gauge", UP, "log"),
    ("go_goroutines", "", "whole", "gauge", UP, "log"),
    ("go_gc_duration_seconds", "", "seconds", "gauge", UP, "log"),
    ("container_cpu_usage_seconds_total", "", "seconds_total", "counter", UP, "log"),
    ("container_cpu_cfs_throttled_periods_total", "", "total", "counter", UP, "log"),
    ("container_memory_working_set_bytes", "", "bytes", "gauge", UP, "log"),
    ("container_spec_memory_limit_bytes", "", "bytes", "gauge", EITHER, "log"),
    ("kube_pod_container_status_restarts_total", "", "total", "counter", UP, "log"),
    ("kube_deployment_status_replicas_unavailable", "", "rare", "count", UP, "log"),
    ("kube_deployment_status_replicas_available", "", "whole", "gauge", DOWN, "log"),
    ("kafka_consumergroup_lag", "", "whole", "gauge", UP, "log"),
    ("redis_keyspace_hits_total", "", "total", "counter", DOWN, "log"),
    ("redis_keyspace_misses_total", "", "total", "counter", UP, "log"),
    ("redis_evicted_keys_total", "", "total", "counter", UP, "log"),
    ("pg_stat_database_deadlocks", "", "rare", "count", UP, "log"),
    ("pg_stat_database_xact_commit", "", "per_second", "gauge", DOWN, "log"),
    ("nginx_ingress_controller_response_duration_seconds", "", "seconds", "gauge", UP, "log"),
    ("istio_request_duration_milliseconds", "", "millis", "gauge", UP, "log"),
    ("envoy_cluster_upstream_rq_5xx", "", "events", "count", UP, "log"),
    ("envoy_cluster_upstream_rq_timeout", "", "rare", "count", UP, "log"),
    ("envoy_cluster_upstream_cx_active", "", "whole", "gauge", UP, "log"),
    ("jvm_gc_pause_seconds_max", "", "seconds", "gauge", UP, "log"),
    ("jvm_memory_used_bytes", "", "bytes", "gauge", UP, "log"),
    ("jvm_threads_live_threads", "", "whole", "gauge", UP, "log"),
    ("hikaricp_connections_pending", "", "rare", "gauge", UP, "linear"),
    ("up", "", "binary", "saturation", DOWN, "linear"),
    ("probe_success", "", "binary", "saturation", DOWN, "linear"),
    ("apiserver_request_terminations_total", "", "total", "counter", UP, "log"),
    # Datadog
    ("trace.http.request.duration.by.service.99p", "", "seconds", "gauge", UP, "log"),
    ("trace.http.request.hits", "", "events", "gauge", DOWN, "log"),
    ("trace.http.request.errors", "", "rare", "count", UP, "log"),
    ("trace.http.request.apdex", "", "share", "saturation", DOWN, "linear"),
    ("aws.elb.latency", "s", "seconds", "gauge", UP, "log"),
    ("aws.elb.httpcode_backend_5xx", "", "rare", "count", UP, "log"),
    ("aws.elb.healthy_host_count", "", "whole", "gauge", DOWN, "log"),
    ("aws.elb.un_healthy_host_count", "", "rare", "count", UP, "log"),
    ("aws.applicationelb.request_count", "", "events", "gauge", DOWN, "log"),
    ("aws.sqs.approximate_age_of_oldest_message", "s", "millis", "gauge", UP, "log"),
    ("aws.rds.freeable_memory", "", "bytes", "gauge", DOWN, "log"),
    ("system.cpu.idle", "%", "percent", "gauge", DOWN, "log"),
    ("system.cpu.user", "%", "percent", "gauge", UP, "log"),
    ("system.mem.pct_usable", "", "share", "gauge", DOWN, "log"),
    ("system.load.1", "", "cores", "gauge", UP, "log"),
    ("system.uptime", "s", "bytes", "gauge", DOWN, "log"),
    ("system.disk.in_use", "1", "share", "saturation", UP, "linear"),
    ("kubernetes.containers.restarts", "", "rare", "count", UP, "log"),
    ("postgresql.connections", "", "whole", "gauge", EITHER, "log"),
    ("nginx.net.request_per_s", "", "per_second", "gauge", DOWN, "log"),
    ("rabbitmq.queue.messages", "", "whole", "gauge", UP, "log"),
    ("rum.largest_contentful_paint.lcp", "", "seconds", "gauge", UP, "log"),
    # OpenTelemetry semantic conventions
    ("http.server.request.duration", "s", "seconds", "gauge", UP, "log"),
    ("http.server.active_requests", "{request}", "whole", "gauge", UP, "log"),
    ("db.client.connection.wait_time", "s", "seconds", "gauge", UP, "log"),
    ("db.client.connection.timeouts", "{timeout}", "rare", "count", UP, "log"),
    ("messaging.client.consumed.messages", "{message}", "events", "gauge", DOWN, "log"),
    ("rpc.server.duration", "ms", "millis", "gauge", UP, "log"),
    ("system.cpu.utilization", "1", "share", "saturation", UP, "linear"),
    ("system.memory.usage", "By", "bytes", "gauge", UP, "log"),
    ("process.cpu.time", "s", "seconds", "gauge", UP, "log"),
    ("jvm.memory.used", "By", "bytes", "gauge", UP, "log"),
    ("k8s.pod.memory.usage", "By", "bytes", "gauge", UP, "log"),
    # home-made
    ("checkout_p95", "ms", "millis", "gauge", UP, "log"),
    ("checkoutLatencyP99", "", "millis", "gauge", UP, "log"),
    ("p99", "", "seconds", "gauge", UP, "log"),
    ("throughput_p50", "", "per_second", "gauge", DOWN, "log"),
    ("error_rate", "", "small_share", "saturation", UP, "linear"),
    ("error_rate", "", "per_second", "gauge", UP, "log"),
    ("error_percent", "", "percent", "gauge", UP, "linear"),
    ("http_5xx", "", "rare", "count", UP, "log"),
    ("payments_failed", "", "rare", "count", UP, "log"),
    ("successful_logins", "", "events", "gauge", DOWN, "log"),
    ("success_rate", "", "share", "saturation", DOWN, "linear"),
    ("cache_hit_ratio", "", "share", "saturation", DOWN, "linear"),
    ("cache_miss_ratio", "", "share", "saturation", UP, "linear"),
    ("cache_hit_latency", "", "seconds", "gauge", UP, "log"),
    ("orders_created", "", "events", "gauge", DOWN, "log"),
    ("pods_not_ready", "", "rare", "count", UP, "log"),
    ("profit_delta", "", "signed", "gauge", EITHER, "linear"),
    ("foo", "", "per_second", "gauge", EITHER, "log"),
    ("foo", "", "rare", "count", EITHER, "log"),
    ("foo", "rps", "per_second", "gauge", DOWN, "log"),
    ("foo", "ms", "millis", "gauge", UP, "log"),
    ("foo", "By", "bytes", "gauge", UP, "log"),
]


def test_the_table_of_names() -> None:
    specs = tuple(MetricSpec(name, unit=unit) for name, unit, *_ in TABLE)
    values = np.array([SHAPES[shape] for _, _, shape, *_ in TABLE])
    resolved, derived, margin = defaults.resolve_all(specs, values, values)
    wrong = []
    for row, spec in zip(TABLE, resolved, strict=True):
        if (spec.kind, spec.direction, spec.scale) != row[3:]:
            wrong.append((row, (spec.kind, spec.direction, spec.scale)))
    assert not wrong, wrong
    assert len(TABLE) >= 80
    assert all(set(fields) == {"kind", "direction", "scale", "margin"} for fields in derived)
    assert (np.isfinite(margin) & (margin > 0)).all()


@pytest.mark.parametrize(
    ("name", "unit", "shape", "exposed", "expected"),
    [
        ("checkout_p95", "ms", "millis", False, 0.10),
        ("error_rate", "", "small_share", False, 0.005),
        ("error_percent", "", "percent", False, 0.5),
        ("http_errors", "", "rare", False, 0.25),
        ("http_errors", "", "events", True, 0.005),
        ("system.cpu.utilization", "1", "share", False, 0.05),
        ("cache_hit_ratio", "", "share", False, 0.05),
        ("success_rate", "", "share", False, 0.005),
    ],
)
def test_margins_by_kind(name: str, unit: str, shape: str, exposed: bool, expected: float) -> None:
    spec, _ = defaults.resolve(MetricSpec(name, unit=unit), SHAPES[shape], SHAPES[shape], has_exposure=exposed)
    assert spec.margin == expected


def test_a_margin_on_the_linear_scale_is_a_tenth_of_the_level() -> None:
    values = SHAPES["signed"] + np.where(np.arange(N) % 7 == 0, -40.0, 4.0)
    spec, derived = defaults.resolve(MetricSpec("profit_delta"), values, values)
    assert spec.margin is not None
    assert spec.margin == pytest.approx(0.1 * np.abs(values).mean())
    assert "margin" in derived
    # Around 0 the typical distance from it stands in, and 1 where nothing ever moved.
    centred, _ = defaults.resolve(MetricSpec("profit_delta"), SHAPES["signed"], SHAPES["signed"])
    assert centred.margin == pytest.approx(0.1 * np.abs(SHAPES["signed"]).mean())
    still, _ = defaults.resolve(MetricSpec("queue_depth"), SHAPES["zeros"], SHAPES["zeros"])
    assert (still.kind, still.margin) == ("gauge", 1.0)


def test_what_was_given_is_never_changed() -> None:
    given = MetricSpec("http_errors", kind="gauge", direction="down_is_worse", scale="linear", margin=3.0)
    spec, derived = defaults.resolve(given, SHAPES["rare"], SHAPES["rare"])
    assert spec is given
    assert derived == ()
    half = MetricSpec("system.cpu.utilization", scale="log")
    spec, derived = defaults.resolve(half, SHAPES["share"], SHAPES["share"])
    assert (spec.kind, spec.scale) == ("gauge", "log")
    assert set(derived) == {"kind", "direction", "margin"}


def test_totals_make_a_ratio_of_failures() -> None:
    spec, _ = defaults.resolve(MetricSpec("foo"), SHAPES["events"], SHAPES["events"], has_exposure=True)
    assert (spec.kind, spec.direction, spec.scale, spec.margin) == ("ratio", UP, "linear", 0.005)
    spec, _ = defaults.resolve(MetricSpec("logins_ok"), SHAPES["events"], SHAPES["events"], has_exposure=True)
    assert (spec.kind, spec.direction) == ("ratio", DOWN)
    # Only the rows that came with totals.
    values = np.array([SHAPES["events"], SHAPES["millis"]])
    specs = (MetricSpec("http_errors"), MetricSpec("latency"))
    resolved, _, _ = defaults.resolve_all(specs, values, values, np.array([True, False]))
    assert [one.kind for one in resolved] == ["ratio", "gauge"]


def test_by_name_alone_nothing_depends_on_values() -> None:
    spec, derived, left = defaults.resolve_by_name(MetricSpec("checkout_p95"))
    assert (spec.direction, derived) == (UP, ("direction",))
    assert left == ("kind", "scale", "margin")
    spec, derived, left = defaults.resolve_by_name(MetricSpec("checkout_p95", kind="gauge", scale="log"))
    assert (spec.margin, left) == (0.10, ())
    spec, derived, left = defaults.resolve_by_name(MetricSpec("errors", kind="ratio"))
    assert (spec.direction, spec.scale, spec.margin, left) == (UP, "linear", 0.005, ())
    assert set(derived) == {"direction", "scale", "margin"}
    for name, unit, *_ in TABLE:
        named, _, _ = defaults.resolve_by_name(MetricSpec(name, unit=unit))
        again, _, _ = defaults.resolve_by_name(named)
        assert again == named
        # Values later fill in what was left open and contradict nothing.
        full, _ = defaults.resolve(MetricSpec(name, unit=unit), SHAPES["millis"], SHAPES["millis"])
        assert full.direction == named.direction


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_do_not_count(bad: float) -> None:
    values = SHAPES["millis"].copy()
    values[::5] = bad
    spec, _ = defaults.resolve(MetricSpec("foo"), values, values)
    assert (spec.kind, spec.scale) == ("gauge", "log")


@pytest.mark.parametrize("values", [np.full(5, np.nan), np.zeros(0), np.array([np.nan]), np.array([3.7])])
def test_few_or_no_values(values: NDArray[np.float64]) -> None:
    for name, *_ in TABLE:
        spec, _ = defaults.resolve(MetricSpec(name), values, values)
        assert "auto" not in (spec.kind, spec.direction, spec.scale)
        assert spec.margin is not None
        assert spec.margin > 0


def test_values_facts_equal_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    a = rng.integers(-2, 6, (40, 11)).astype(float)
    b = np.abs(rng.normal(size=(40, 7)))
    a[rng.random(a.shape) < 0.2] = np.nan
    b[rng.random(b.shape) < 0.1] = np.inf
    a[:5] = np.abs(a[:5])
    facts = defaults.value_facts(a, b)
    for i in range(40):
        fine = [v for v in (*a[i], *b[i]) if np.isfinite(v)]
        steps = [(x, y) for arm in (a[i], b[i]) for x, y in itertools.pairwise(arm)]
        steps = [pair for pair in steps if np.isfinite(pair).all()]
        assert facts.points[i] == len(fine)
        assert facts.positive[i] == all(v > 0 for v in fine)
        assert facts.unit[i] == all(0 <= v <= 1 for v in fine)
        assert facts.whole[i] == all(v >= 0 and v == int(v) for v in fine)
        assert facts.zeros[i] == pytest.approx(sum(v == 0 for v in fine) / len(fine))
        assert facts.falling[i] == pytest.approx(sum(y < x for x, y in steps) / max(len(steps), 1))
        assert facts.level[i] == pytest.approx(np.median([v for v in a[i] if np.isfinite(v)]))
        assert facts.spread[i] == pytest.approx(np.mean(np.abs(fine)))


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(ValueError, match="baseline"):
        defaults.value_facts(np.zeros(3), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="canary"):
        defaults.value_facts(np.zeros((2, 3)), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="specs"):
        defaults.resolve_all((MetricSpec("a"),), np.zeros((2, 3)), np.zeros((2, 3)))


def test_words_split_names_as_people_read_them() -> None:
    assert defaults.words("http_5xxErrors.p99-ms") == ("http", "5xx", "errors", "p99", "ms")
    assert defaults.words("node_memory_MemAvailable_bytes") == ("node", "memory", "mem", "available", "bytes")
    assert defaults.words("HTTPServerErrors") == ("http", "server", "errors")


def test_an_availability_in_per_cent_is_held_to_half_a_point() -> None:
    values = SHAPES["hundred"][None]
    for name in ("availability", "success_rate", "crash_free_rate"):
        (spec,), _, margin = defaults.resolve_all((MetricSpec(name),), values, values)
        assert (spec.scale, margin[0]) == ("linear", 0.5)


@pytest.mark.parametrize(
    ("name", "scale", "reason"),
    [
        ("checkout_latency_p95", "log", "bad_values"),
        ("queue_depth", "log", "bad_values"),
        ("p95", "log", "bad_values"),
        ("account_balance", "linear", "regression"),
    ],
)
@pytest.mark.parametrize("share", [1.0, 0.5, 0.02])
def test_amounts_are_never_negative(name: str, scale: str, reason: str, share: float) -> None:
    """A latency of -100 ms is an error of whoever measured, and no improvement of 200 %."""
    rng = np.random.default_rng(3)
    x, y = 100.0 * np.exp(rng.normal(0.0, 0.05, (2, 1, 60)))
    y[:, : round(60 * share)] *= -1.0
    spec = ta.MetricSpec(name)
    found = ta.compare(x, y, spec=spec)
    assert found.specs[0].scale == scale
    if share == 1.0 or scale == "log":
        assert found.reason[0] == reason
    stream = ta.open_stream(spec, horizon=60)
    stream.update(x, y)
    assert stream.result().verdict[0] != ta.Verdict.PASS, "a stream that knows no value yet takes the log scale"
    below = ta.compare(-x, -y, spec=spec)
    assert below.specs[0].scale == "linear", "a baseline that is negative itself says that it may be"
