"""What results depend on, kept with them: those of one experiment are not taken for another's."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..errors import InputError
from ..utils import walk
from ..utils.json_file import read_json

# Last parts of config keys on which no result depends.
_WITHOUT_EFFECT = ("work_dir", "experiment_name", "launcher", "num_workers", "persistent_workers")


def describe_experiment(
    cfg: Config, annotations: Mapping, options: Mapping[str, Any]
) -> dict[str, str]:
    """What the results depend on, as text: options, annotations, and each value of the config.

    Args:
        cfg: the config of the experiment.
        annotations: content of its annotation file.
        options: of the command line, by their names.

    Example:
        >>> found = describe_experiment(Config(dict(a=dict(b=1))), {}, {'--seed': 0})
        >>> found['--seed'], found['a.b']
        ('0', '1')
    """
    content = hashlib.sha256(json.dumps(annotations, sort_keys=True).encode()).hexdigest()
    values = {
        key: re.sub(r" at 0x\w+", "", repr(value))  # of a function: it differs in each process
        for key, value in walk(cfg)
        if key.split(".")[-1] not in _WITHOUT_EFFECT
        and not (value and isinstance(value, (Mapping, list, tuple)))  # its parts come next
    }
    given = {name: str(value) for name, value in options.items()}
    return {**given, "checksum of the annotations": content[:12], **values}


def save_results(path: Path, results: Mapping[str, float], experiment: Mapping[str, str]) -> None:
    """Write results with the experiment that they are of.

    Args:
        path: of the file.
        results: by any names.
        experiment: from :func:`describe_experiment`.
    """
    path.write_text(json.dumps(dict(results=results, experiment=experiment), indent=2))


def kept_results(path: Path, experiment: Mapping[str, str]) -> dict[str, float]:
    """The results in a file of :func:`save_results`; none if there is no file.

    Args:
        path: of the file, in a work dir.
        experiment: from :func:`describe_experiment`.

    Raises:
        InputError: they are of another experiment; names what differs.
    """
    if not path.is_file():
        return {}
    content = read_json(str(path), "--work-dir")
    before = content.get("experiment")
    if before is None:
        raise InputError(
            f"{path} does not say which config and options its results are of: an earlier version "
            "wrote it. Choose another --work-dir."
        )
    differ = [
        f"{key} was {before.get(key, 'not set')}, is {experiment.get(key, 'not set')}"
        for key in {**experiment, **before}
        if before.get(key) != experiment.get(key)
    ]
    if differ:
        raise InputError(
            f"{path} has the results of another experiment: {'; '.join(differ[:3])}"
            f"{f' and {len(differ) - 3} more' if differ[3:] else ''}. Choose another --work-dir, "
            "or the options of before."
        )
    return content["results"]
