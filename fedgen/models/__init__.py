"""Generative models a federation can train: VAEs, and GANs of which only the critic touches rows.

This package itself imports nothing: ``fedgen.models.options`` is torch-free and may be read by anybody;
``fedgen.models.registry.build`` brings torch.
"""
