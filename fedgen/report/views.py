"""What a page is made of: tables, figures and sections, as frozen values without HTML of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from markupsafe import Markup

    from fedgen.report.model import Command, Promise


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        caption: What it shows; read first by a screen reader.
        head: One per column.
        rows: Cells as text or Markup; the first cell of a row is its header.
        numeric: Indices of columns set to the right.
        folded: Whether it stands behind a click (always open in print).
    """

    block: ClassVar[str] = "table"
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[int, ...] = ()
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing with its caption, legend and the figures behind it.

    Attributes:
        drawing: SVG.
        caption: One or two sentences.
        heading: Above the drawing, in a gallery.
        figure: Beside the heading, such as a score.
        key: The legend.
        table: The figures behind the drawing.
    """

    block: ClassVar[str] = "figure"
    drawing: Markup
    caption: str = ""
    heading: str = ""
    figure: str = ""
    key: str = ""
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """A figure with a table beside it, or below it on a narrow screen."""

    block: ClassVar[str] = "split"
    left: Figure
    right: Table


@dataclass(frozen=True, slots=True)
class Gallery:
    """Small figures side by side."""

    block: ClassVar[str] = "gallery"
    figures: tuple[Figure, ...]
    key: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``tone`` is ``plain``, ``info``, ``warn`` or ``danger``."""

    block: ClassVar[str] = "text"
    text: str
    tone: str = "plain"
    strong: str = ""


@dataclass(frozen=True, slots=True)
class Promises:
    """Privacy statements."""

    block: ClassVar[str] = "promises"
    items: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rows of images: a label and the images of the row."""

    block: ClassVar[str] = "pictures"
    caption: str
    rows: tuple[tuple[str, tuple[Markup, ...]], ...]


@dataclass(frozen=True, slots=True)
class Commands:
    """Commands a reader can run."""

    block: ClassVar[str] = "commands"
    items: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """Words and what they mean."""

    block: ClassVar[str] = "terms"
    items: tuple[tuple[str, str], ...]


Block = Table | Figure | Split | Gallery | Text | Promises | Pictures | Commands | Terms


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        ident: Its anchor.
        title: In the heading and the contents.
        lead: What the reader is about to see, in plain words.
        blocks: From top to bottom.
        basis: Whose data the section shows; a line below the lead.
    """

    ident: str
    title: str
    lead: str
    blocks: tuple[Block, ...]
    basis: str = ""


@dataclass(frozen=True, slots=True)
class Tile:
    """A key figure at the top of the page."""

    label: str
    value: str
    note: str = ""
