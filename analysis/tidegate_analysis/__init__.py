"""Statistics of deployment gates: arrays in, findings out."""

from tidegate_analysis.analyze import analyze
from tidegate_analysis.batch import Block, BlockError, SeriesBatch
from tidegate_analysis.before_after import before_after
from tidegate_analysis.compare import compare
from tidegate_analysis.judgement import GroupOutcome, Judgement, judge
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, QualityNote, Verdict

__all__ = [
    "Block",
    "BlockError",
    "GroupOutcome",
    "Judgement",
    "MetricSpec",
    "QualityNote",
    "Result",
    "SeriesBatch",
    "Verdict",
    "analyze",
    "before_after",
    "compare",
    "judge",
]
