"""The declared studies: methods, data sets, seeds and training lengths.

`run.py` trains and tests what is declared here.
"""

from dataclasses import dataclass

from methods import (
    ASSIGNERS,
    CANDIDATES,
    PARTS,
    THRESHOLDS,
    TOOD_TRIALS,
    TUNING,
    VOTING,
    WITH_CLNMS,
)


@dataclass(frozen=True)
class Data:
    """A data set, of `configs/_base_/datasets/{name}_detection.py`, and its usual schedule.

    Attributes:
        test_folder: folder of the test split's images, if its config has no test split; the
            annotations are then those of `instances_test.json` beside the validation split's.
    """

    name: str
    num_classes: int
    epochs: int
    test_folder: str | None = None


@dataclass(frozen=True)
class Study:
    """A grid: every method on every data set with every seed and length.

    Attributes:
        lengths: factors of the data sets' epochs.
    """

    name: str
    methods: tuple[str, ...]
    data: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    lengths: tuple[float, ...] = (1,)


DATA = {
    data.name: data
    for data in (
        Data("bccd", num_classes=3, epochs=12),
        Data("hit-uav", num_classes=4, epochs=6),
        Data("cards", num_classes=6, epochs=12),
        Data("shapes", num_classes=6, epochs=8, test_folder="test/"),
    )
}

STUDIES = {
    study.name: study
    for study in (
        Study(
            "main",
            methods=(
                *("fcos", "atss", "paa", "tood", "jla_triplehead", "spatial-align_rfahead"),
                *("iac-dc-clnms_retinanet", "misalign"),
            ),
            data=tuple(DATA),
        ),
        Study(
            "tuning",
            methods=("atss", "paa", "tood", *(method.name for method in TUNING), "misalign"),
            data=("bccd", "hit-uav"),
            seeds=(0,),
        ),
        Study(
            "tood",
            methods=("fcos", "tood", "tood-anchor4", *(method.name for method in TOOD_TRIALS)),
            data=("cards",),
            seeds=(0,),
        ),
        Study(
            "peers",
            methods=(
                *("fcos", "atss"),
                *WITH_CLNMS,
                *(f"{name}-clnms" for name in WITH_CLNMS),
                *(method.name for method in VOTING),
                *("rtmdet", "jla_rtmdet", "yolox", "jla_yolox", "misalign"),
            ),
            data=("bccd", "hit-uav"),
            seeds=(0,),
        ),
        Study(
            "papers",
            methods=(
                *("fcos", "fcos-no-centerness", "jla_fcos", "jla_triplehead-plain"),
                *("jla_triplehead-confidence", "jla_triplehead-refine", "jla_triplehead"),
                *(method.name for method in (*CANDIDATES, *THRESHOLDS)),
                *("retinanet", "iac_retinanet", "iac-dc_retinanet", "iac-dc-clnms_retinanet"),
            ),
            data=("bccd", "hit-uav"),
            seeds=(0,),
        ),
        Study(
            "parts",
            methods=("fcos", "misalign", *(method.name for method in PARTS)),
            data=("bccd", "hit-uav"),
            seeds=(0,),
        ),
        Study(
            "assigner",
            methods=("fcos", "misalign", *(method.name for method in ASSIGNERS)),
            data=tuple(DATA),
        ),
        Study(
            "lengths",
            methods=("fcos", "atss", "paa", "misalign"),
            data=("bccd", "hit-uav"),
            seeds=(0,),
            lengths=(1, 3),
        ),
    )
}
