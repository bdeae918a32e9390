"""One page to look at: how a model was trained, how good it is and for whom, what it learned."""

from hlr_jax.reporting.report import check_report, report, report_run

__all__ = ["check_report", "report", "report_run"]
