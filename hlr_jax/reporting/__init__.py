"""One page to look at: how a model was trained, how good it is and for whom, what it learned."""

from hlr_jax.reporting.report import ReportCheck, report, report_run

__all__ = ["ReportCheck", "report", "report_run"]
