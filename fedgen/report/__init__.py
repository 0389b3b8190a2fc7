"""One frozen model in, one self-contained page out. Start at :func:`fedgen.report.render.render`."""
