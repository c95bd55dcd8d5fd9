"""EvaluationService: the methods that need nothing stored."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tidegate.v1 import evaluation_service_pb2, evaluation_service_pb2_grpc

from tidegate_server import worker
from tidegate_server.api.blocks import count_points
from tidegate_server.api.streams import EvaluationStream
from tidegate_server.config import Config
from tidegate_server.errors import over_limit
from tidegate_server.interceptors import Context
from tidegate_server.live import ATTEMPTS, Evaluations, give_up_if_due
from tidegate_server.pool import AnalysisPool, WorkerLostError

ANALYSIS_SECONDS = "tidegate-analysis-seconds"
"""Trailing metadata of ``Analyze``: the part of the time that was analysis."""


class EvaluationServicer(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """``Analyze`` and ``StreamEvaluation``."""

    def __init__(self, pool: AnalysisPool, evaluations: Evaluations, config: Config) -> None:
        """Keep the parts."""
        self._pool = pool
        self._evaluations = evaluations
        self._config = config

    async def Analyze(  # noqa: N802
        self, request: evaluation_service_pb2.AnalyzeRequest, context: Context
    ) -> evaluation_service_pb2.AnalyzeResponse:
        """Judge the series in the request at once.

        Raises
        ------
        RequestError
            When the request is not as it should be or above a limit.
        """
        self._check_limits(request)
        payload = request.SerializeToString()
        for attempt in range(ATTEMPTS):
            try:
                analyzed = await self._pool.run(worker.analyze, payload, self._config.max_points)
                break
            except WorkerLostError as lost:
                give_up_if_due(lost, attempt)
        context.set_trailing_metadata(((ANALYSIS_SECONDS, f"{analyzed.analysis_seconds:.6f}"),))
        return evaluation_service_pb2.AnalyzeResponse.FromString(analyzed.response)

    async def StreamEvaluation(  # noqa: N802
        self,
        request_iterator: AsyncIterator[evaluation_service_pb2.StreamEvaluationRequest],
        context: Context,
    ) -> None:
        """Judge series as they come.

        Raises
        ------
        RequestError
            When the stream cannot go on.
        """
        await EvaluationStream(self._evaluations, request_iterator, context).run()

    def _check_limits(self, request: evaluation_service_pb2.AnalyzeRequest) -> None:
        arms = {(block.arm, block.instance) for block in request.blocks}
        series = len(request.metrics) * max(1, len(arms))
        if series > self._config.max_series:
            raise over_limit("max_series", self._config.max_series, series, "send fewer metrics or instances")
        points = sum(count_points(block) for block in request.blocks)
        points += sum(count_points(w.baseline) + count_points(w.canary) for w in request.history)
        if points > self._config.max_points:
            raise over_limit("max_points", self._config.max_points, points, "send fewer points")
