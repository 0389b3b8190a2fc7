"""The run folder: where a run keeps its study, its progress, its journal and its results."""
