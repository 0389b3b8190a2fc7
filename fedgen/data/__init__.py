"""Rows: where they come from, how they become codes, who holds which, and which of them may be used.

``sources`` reads tables in batches; ``builtin`` knows two public ones; ``encoded`` turns a source into
codes in bounded memory; ``partition`` cuts a table into simulated sites; ``gate`` is the one place that
lets rows through to training.
"""
