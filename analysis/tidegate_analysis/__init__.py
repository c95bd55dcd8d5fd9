"""Statistics of deployment gates: arrays in, findings out."""

from tidegate_analysis.analyze import analyze
from tidegate_analysis.batch import Block, BlockError, SeriesBatch
from tidegate_analysis.before_after import before_after
from tidegate_analysis.compare import compare
from tidegate_analysis.histogram_compare import compare_histograms
from tidegate_analysis.judgement import GroupOutcome, Judgement, judge
from tidegate_analysis.lint import Prospect, lint
from tidegate_analysis.live import LiveEvaluation
from tidegate_analysis.quality import Split, traffic_split
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, QualityNote, Verdict
from tidegate_analysis.stream import Stream, open_stream, restore_stream
from tidegate_analysis.thresholds import threshold

__all__ = [
    "Block",
    "BlockError",
    "GroupOutcome",
    "Judgement",
    "LiveEvaluation",
    "MetricSpec",
    "Prospect",
    "QualityNote",
    "Result",
    "SeriesBatch",
    "Split",
    "Stream",
    "Verdict",
    "analyze",
    "before_after",
    "compare",
    "compare_histograms",
    "judge",
    "lint",
    "open_stream",
    "restore_stream",
    "threshold",
    "traffic_split",
]
