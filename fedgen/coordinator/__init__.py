"""Selects sites, sums what they send, keeps the run resumable. It never sees a row."""
