"""From what the user typed to a config file: a path, or the bare name of a packaged config."""

import difflib
from pathlib import Path

from ..errors import ConfigNotFoundError

PACKAGE = Path(__file__).resolve().parents[1]


def packaged_configs():
    """The configs that come with the package, those of `_base_` left out.

    Returns:
        dict[str, Path]: name without ".py" to file; from the clone, or from the installed wheel.
    """
    clone = PACKAGE.parent / "configs"
    folder = clone if (PACKAGE.parent / "pyproject.toml").is_file() else PACKAGE / ".mim/configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def resolve_config(config, known=None):
    """The file of a config.

    Args:
        config (str): a path, or the name of a packaged config with or without folder and ".py".
        known (dict[str, Path], optional): names and files; by default `packaged_configs()`.

    Returns:
        str: path of a file that exists.

    Raises:
        ConfigNotFoundError: neither a file nor a known name.

    Example:
        >>> resolve_config('configs/fcos.py', known={'fcos': Path('/x/fcos.py')})
        '/x/fcos.py'
    """
    for path in (config, f"{config}.py"):
        if Path(path).is_file():
            return path
    known = packaged_configs() if known is None else known
    name = Path(config).name.removesuffix(".py")
    if name in known:
        return str(known[name])
    near = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
    listing = "\n".join(f"    {match}" for match in near or known)
    kind = "Near matches" if near else "The configs of this package"
    raise ConfigNotFoundError(
        f"there is no config {config!r}: no such file, and no config of this package has that "
        f"name. {kind}:\n{listing or '    (none)'}"
    )
