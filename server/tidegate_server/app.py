"""The server: the only place that wires its parts together."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tidegate.v1 import (
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    gate_service_pb2,
    gate_service_pb2_grpc,
    monitor_service_pb2,
    monitor_service_pb2_grpc,
)

from tidegate_server import log as logs
from tidegate_server.admission import AdmissionInterceptor, Gauge
from tidegate_server.api.evaluation_records import EvaluationRecords
from tidegate_server.api.evaluations import EvaluationServicer
from tidegate_server.api.gate_service import GateServicer
from tidegate_server.api.monitor_service import MonitorServicer
from tidegate_server.auth.interceptor import Authenticator, AuthInterceptor
from tidegate_server.config import Config, is_local, split_address
from tidegate_server.durable import Durable
from tidegate_server.engine import EngineHealth
from tidegate_server.errors import ConfigError, StartupError
from tidegate_server.interceptors import ActiveCalls, ErrorInterceptor, LogInterceptor, ReadableInterceptor
from tidegate_server.live import Evaluations
from tidegate_server.pool import AnalysisPool, WorkerLostError
from tidegate_server.tls import server_credentials

EVALUATION_SERVICE = evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"].full_name
GATE_SERVICE = gate_service_pb2.DESCRIPTOR.services_by_name["GateService"].full_name
MONITOR_SERVICE = monitor_service_pb2.DESCRIPTOR.services_by_name["MonitorService"].full_name

LAST_WORD_SECONDS = 2.0
"""So long streams have to end after they were told that the grace is over."""

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_FAILED = 4  # 1 and 3 are verdicts on this command line

log = logs.Log("server")


class Server:
    """One server. The pool must have been started before; whoever made it closes it.

    Parameters
    ----------
    config:
        The settings.
    pool:
        The analysis workers.
    interceptors:
        More interceptors, between the handling of errors and the limits: who the caller is, what it may do.
    """

    def __init__(
        self, config: Config, pool: AnalysisPool, *, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> None:
        """Wire the parts; :meth:`start` listens."""
        self.config = config
        self.evaluations = Evaluations(pool, config)
        self.health = health.aio.HealthServicer()
        self.port = 0
        self.durable = Durable(config, pool, self._on_store)
        self._pool = pool
        self._active = ActiveCalls()
        self._listening = False
        self._told: set[asyncio.Task[None]] = set()
        host, _ = split_address(config.address)
        # Off where only this machine's users can call, unless it was switched on.
        who = Authenticator(self.durable.store.tokens, always=not is_local(host))
        chain = [
            LogInterceptor(),
            ErrorInterceptor(),
            AuthInterceptor(who),
            *interceptors,
            self._admission(),
            self._active,
            ReadableInterceptor(),
        ]
        self._server = grpc.aio.server(interceptors=chain, options=_options(config))
        self._services = self._register()

    def _admission(self) -> AdmissionInterceptor:
        config = self.config
        analyses = Gauge("max_concurrent_analyses", config.max_concurrent_analyses, "analyses")
        streams = Gauge("max_open_streams", config.max_open_streams, "streams")
        return AdmissionInterceptor(
            {
                f"/{EVALUATION_SERVICE}/Analyze": analyses,
                f"/{EVALUATION_SERVICE}/StreamEvaluation": streams,
            }
        )

    def _register(self) -> list[str]:
        """Add every service to the server and return their names."""
        evaluations = EvaluationServicer(self._pool, self.evaluations, self.config)
        store = self.durable.store
        records = EvaluationRecords(
            store.gates, store.evaluations, store.feed, time.time, max_points=self.config.max_points
        )
        _serve_too(evaluations, records)
        evaluation_service_pb2_grpc.add_EvaluationServiceServicer_to_server(evaluations, self._server)  # type: ignore[no-untyped-call]
        gates = GateServicer(store.gates, time.time)
        gate_service_pb2_grpc.add_GateServiceServicer_to_server(gates, self._server)  # type: ignore[no-untyped-call]
        monitors = MonitorServicer(store.monitors, time.time)
        monitor_service_pb2_grpc.add_MonitorServiceServicer_to_server(monitors, self._server)  # type: ignore[no-untyped-call]
        names: list[str] = [EVALUATION_SERVICE, GATE_SERVICE, MONITOR_SERVICE]
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if self.config.reflection:
            seen = [*names, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(seen, self._server)
        return names

    async def start(self) -> None:
        """Listen, and say so in the health check.

        Raises
        ------
        StartupError
            When the address cannot be listened on, or a TLS file or the store cannot be used.
        """
        credentials = server_credentials(self.config)
        address = self.config.address
        await self.durable.start()
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            await self.durable.stop()
            raise StartupError(
                f"cannot listen on {address}: it is in use, is no address of this machine, or is not allowed"
            ) from None
        await self._server.start()
        self._listening = True
        await self._tell_health(serving=self.durable.engine.health.serving)
        log.info(
            "listening",
            address=self.target,
            tls=self.config.tls,
            client_certificates=self.config.tls_client_ca is not None,
            workers=self._pool.size,
        )

    def _on_store(self, health: EngineHealth) -> None:
        """The store went away or came back: every service needs it, the process as such lives."""
        if self._listening:
            task = asyncio.create_task(self._tell_health(serving=health.serving))
            self._told.add(task)
            task.add_done_callback(self._told.discard)

    async def _tell_health(self, *, serving: bool) -> None:
        answers = health_pb2.HealthCheckResponse
        for name in self._services:
            await self.health.set(name, answers.SERVING if serving else answers.NOT_SERVING)

    @property
    def target(self) -> str:
        """Where clients on this machine reach the server, with the port that was taken."""
        host, _ = split_address(self.config.address)
        if host.startswith("unix:"):
            return host
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    async def drain(self, hurry: asyncio.Event | None = None) -> None:
        """End gracefully: not serving, a pause, no new calls, a grace for open ones, a last word to streams.

        Setting ``hurry`` skips what is left of the pause and the grace.
        """
        hurry = hurry or asyncio.Event()
        log.info("draining", open_calls=self._active.count, open_streams=self.evaluations.open_streams)
        await self.health.enter_graceful_shutdown()
        await _first(hurry.wait(), within=self.config.drain_pause_seconds)
        grace = self.config.drain_grace_seconds
        stopping = asyncio.create_task(self._server.stop(grace + LAST_WORD_SECONDS))
        await asyncio.sleep(0)
        await _first(hurry.wait(), self._active.idle.wait(), within=grace)
        if self._active.count:
            self.evaluations.drain()
            await _first(self._active.idle.wait(), within=LAST_WORD_SECONDS)
        await self._server.stop(0.1)
        await stopping
        # The server may be through before the last lines of cancelled handlers have run.
        await _first(self._active.idle.wait(), within=LAST_WORD_SECONDS)
        await self.durable.stop()
        log.info("stopped", cut_off=self._active.count)

    async def stop(self) -> None:
        """End at once."""
        await self._server.stop(None)
        await _first(self._active.idle.wait(), within=LAST_WORD_SECONDS)
        await self.durable.stop()


def _serve_too(servicer: EvaluationServicer, records: EvaluationRecords) -> None:
    """Let a servicer answer with the methods of another one of the same service as well."""
    for name in vars(EvaluationRecords):
        if name[0].isupper():
            setattr(servicer, name, getattr(records, name))


def _options(config: Config) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Without this a second server on the same port would silently take half of the connections.
        ("grpc.so_reuseport", 0),
        # The probe widens the window of a slow stream to megabytes; back-pressure is wanted here.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.keepalive_time_ms", round(config.keepalive_seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping every 10 s without being sent away.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


async def _first(*waits: Coroutine[Any, Any, object], within: float) -> None:
    """Wait until one of the coroutines is through, or the time is up."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def serve(config: Config) -> int:
    """Run a server until SIGTERM or SIGINT and drain it; a second signal hurries. Returns the exit code.

    0: served and drained. 2: the settings cannot be used. 4: could not start.
    """
    logs.setup(config.log_format, config.log_level)
    ending, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if ending.is_set() else ending).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    pool = AnalysisPool(config.workers, timeout_seconds=config.analysis_timeout_seconds)
    try:
        await asyncio.to_thread(pool.start)
        server = Server(config, pool)
        await server.start()
        await ending.wait()
        await server.drain(hurry)
    finally:
        pool.close()
    return EXIT_OK


def run(config: Config) -> int:
    """Run :func:`serve` in a loop of its own; why it could not start is told on standard error."""
    try:
        # Wrong settings speak before the workers are made.
        server_credentials(config)
        return asyncio.run(serve(config))
    except StartupError as error:
        sys.stderr.write(f"tidegate: {error}\n")
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except WorkerLostError as error:
        sys.stderr.write(f"tidegate: {error}\n")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
