"""Write the studies' tables into the pages of configs, and their plots.

    python tools/study/render.py            # write
    python tools/study/render.py --check    # compare only; exit status 1 if anything differs

Tables stand between `<!-- study: NAME, SPLIT -->` (or NAME, SPLIT, BACKBONE) and `<!-- end -->`;
everything between these is replaced. With `<!-- AP: NAME, SPLIT -->` it is the table of AP alone,
with `<!-- repeats: NAME, SPLIT -->` that of the trainings that were made on several devices, with
`<!-- classes: NAME, SPLIT, DATA -->` that of the AP of each class of a data set. They come from the
lines in RESULTS_DIR alone.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import misalign_det  # noqa: F401  (first: it checks the environment)

# isort: split
from compose import BACKBONES
from grid import DATA, STUDIES
from plots import digest_of, gains, plot, plot_digest
from records import KEYS, REPEATS, RESULTS, ROOT, read
from tables import Results, ap_table, class_table, render, repeat_table

from misalign_det.apis.cli import errors_in_one_line
from misalign_det.errors import InputError

PAGES = [ROOT / "README.md"] + [
    ROOT / "configs" / page for page in ("studies.md", "peers.md", "papers.md", "misalign.md")
]
BLOCK = re.compile(
    r"(<!-- (study|AP|repeats|classes): ([\w-]+), (\w+)(?:, ([\w-]+))? -->\n)(.*?)(<!-- end -->)",
    re.DOTALL,
)
STARTS = ("<!-- study:", "<!-- AP:", "<!-- repeats:", "<!-- classes:")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Tables and plots of the studies")
    parser.add_argument("--check", action="store_true", help="write nothing; say what differs")
    parser.add_argument(
        "--pages",
        nargs="+",
        default=[str(page) for page in PAGES],
        help="(default: README.md, and of configs/ studies, peers, papers and misalign.md)",
    )
    parser.add_argument(
        "--results-dir", default=str(RESULTS), help="result lines (default: tools/study/results)"
    )
    return parser.parse_args(arguments)


def rendered(text: str, page: Path, results_dir: Path, write: bool) -> tuple[str, list[str]]:
    """A page with its blocks rendered again.

    Args:
        text: of the page.
        page: its path; pictures are linked from there and lie in `.github` beside its folder.
        results_dir: with the studies' lines.
        write: draw the plots that differ.

    Returns:
        The new text, and the names of plots that differ.

    Raises:
        InputError: a block names no study, split or data set, or has no end.
    """
    differing: list[str] = []
    if len(BLOCK.findall(text)) != sum(map(text.count, STARTS)):
        raise InputError(
            f"{page}: a block of a study starts with <!-- study: NAME, SPLIT --> on a line of its "
            "own and ends with <!-- end -->"
        )

    def block(match: re.Match) -> str:
        start, kind, name, split, last, body, end = match.groups()
        data = last if kind == "classes" else next(iter(DATA))
        backbone = next(iter(BACKBONES)) if kind == "classes" else last or next(iter(BACKBONES))
        known = name in STUDIES and split in ("val", "test")
        known = known and backbone in BACKBONES and data in DATA
        if not known or any(start in body for start in STARTS):
            raise InputError(
                f"{page}: {start.strip()}: studies are {', '.join(STUDIES)}; splits val and test; "
                f"backbones {', '.join(BACKBONES)}; data sets, of classes, {', '.join(DATA)}"
            )
        lines = read(results_dir / f"{name}.jsonl")
        if kind == "repeats":
            again = read(results_dir / REPEATS, (*KEYS, "device"))
            return f"{start}\n{repeat_table(lines, again, split)}\n\n{end}"
        results = Results(lines, STUDIES[name], split, backbone)
        if kind == "AP":
            return f"{start}\n{ap_table(results)}\n\n{end}"
        if kind == "classes":
            return f"{start}\n{class_table(results, data)}\n\n{end}"
        picture = page.parent.parent / ".github" / f"study_{name}_{split}_{backbone}.svg"
        link = f"../.github/{picture.name}" if gains(results) else None
        if link and digest_of(picture) != plot_digest(results):
            differing.append(picture.name)
            if write:
                plot(results, picture)
        return f"{start}\n{render(results, link)}\n\n{end}"

    return BLOCK.sub(block, text), differing


def main(arguments: Sequence[str] | None = None) -> None:
    """Write, or compare, the pages."""
    args = parse_args(arguments)
    with errors_in_one_line("render.py"):
        if not Path(args.results_dir).is_dir():  # all tables would be replaced by nothing
            raise InputError(
                f"there is no folder {args.results_dir}: --results-dir is the folder with the "
                "STUDY.jsonl that run.py has written"
            )
        differing, blocks = [], 0
        for page in map(Path, args.pages):
            text = page.read_text()
            new, plots = rendered(text, page, Path(args.results_dir), write=not args.check)
            differing += [page.name] * (new != text) + plots
            blocks += len(BLOCK.findall(text))
            if not BLOCK.search(text):
                raise InputError(
                    f"{page}: there is no block of a study, <!-- study: NAME, SPLIT -->"
                )
            if new != text and not args.check:
                page.write_text(new)
        if args.check and differing:
            sys.exit(
                f"{', '.join(differing)}: not what the results give; run "
                "python tools/study/render.py"
            )
        print(f"{blocks} blocks, {', '.join(differing) or 'nothing'} changed")


if __name__ == "__main__":
    main()
