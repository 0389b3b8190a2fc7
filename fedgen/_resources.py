"""Where the files that travel beside the code lie: in the wheel, else in the checkout."""

from __future__ import annotations

from pathlib import Path

from fedgen.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def kit(*parts: str) -> Path:
    """Return the path of a file of the deployment kit, e.g. ``kit("server", "app.py")``.

    Looks in the installed package (``fedgen/_kit``) and then in the checkout around it.

    Raises:
        ConfigError: The file is in neither.
    """
    for root in (_PACKAGE / "_kit", _PACKAGE.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise ConfigError(f"{'/'.join(parts)} is not part of this installation", hint="reinstall fedgen")
