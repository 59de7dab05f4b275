"""Convert VisDrone-DET 2019 to COCO format.

    python tools/dataset_converters/visdrone.py data/visdrone

The folder holds VisDrone2019-DET-train, VisDrone2019-DET-val and VisDrone2019-DET-test-dev, or some
of them. It writes annotations/instances_{train,val,test}.json there, and says what it left out.
"""

import argparse
from collections.abc import Sequence


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", help="folder with the folders of VisDrone")
    parser.add_argument(
        "--out-dir", help="folder of the annotation files (default: annotations/ in that folder)"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert, and print what was found and left out."""
    args = parse_args(arguments)
    # Here, since these imports take seconds.
    from misalign_det.apis.error_reporting import errors_in_one_line
    from misalign_det.datasets.formats.records import Counts
    from misalign_det.datasets.formats.visdrone import read_visdrone
    from misalign_det.utils.json_file import write_json

    counts = Counts()
    with errors_in_one_line("visdrone.py"):
        for split, content in read_visdrone(args.root, counts).items():
            path = f"{args.out_dir or f'{args.root}/annotations'}/instances_{split}.json"
            write_json(path, content)
            objects = sum(not box["iscrowd"] for box in content["annotations"])
            print(f"{path}: {len(content['images'])} images, {objects} objects")
    print(f"left out or changed: {str(counts) or 'nothing'}")


if __name__ == "__main__":
    main()
