"""report.html: one page of an experiment that needs no script and loads nothing."""
