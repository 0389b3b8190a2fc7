"""Whose presence is hidden, from whom, and between which neighbours: the closed sets of a claim.

None of the three has a default in a study: a claim that leaves one of them out is not a claim.
"""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """What is protected as a whole: one record, all records of one person, or a whole site."""

    RECORD = "record"
    PERSON = "person"
    SITE = "site"


class Trust(StrEnum):
    """Who adds the noise, and so who may see what before it.

    - ``LOCAL``: each site adds all of sigma·C to its own sum; nobody outside the site sees it clear.
    - ``DISTRIBUTED``: each site adds a share; only the noised sum of all sites is ever seen.
    - ``CENTRAL``: the coordinator sees clear sums and adds sigma·C to the sum of all sites.
    """

    LOCAL = "local"
    DISTRIBUTED = "distributed"
    CENTRAL = "central"


class Relation(StrEnum):
    """Which data sets are neighbours: one unit added or removed, or one unit replaced by another."""

    ADD_OR_REMOVE = "add_or_remove"
    REPLACE_ONE = "replace_one"
