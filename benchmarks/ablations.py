"""What did the paper's ablations cost here? Records what `lookalike ablate` left.

    python -m benchmarks.ablations ABLATION --name imagenette

ABLATION is the --out of an `ablate`: its finished runs, their recipe and the table are recorded, and Figure 1 is copied beside the docs.
"""

import argparse
import json
import shutil
from pathlib import Path

from benchmarks.record import RESULTS, record
from training.experiments.ablation import FIGURE_1_FILE, RESULT_FILE, SUMMARY_FILE, TABLE_FILE

DOCS = RESULTS.parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ablation", type=Path)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    runs = json.loads((arguments.ablation / SUMMARY_FILE).read_text("utf-8"))
    baseline = json.loads((arguments.ablation / "baseline-seed0" / RESULT_FILE).read_text("utf-8"))
    table = (arguments.ablation / TABLE_FILE).read_text("utf-8")
    shutil.copyfile(arguments.ablation / FIGURE_1_FILE, DOCS / f"{arguments.name}-figure-1.png")
    record(f"ablations_{arguments.name}", {"recipe": baseline["recipe"], "runs": runs})
    print(table)


if __name__ == "__main__":
    main()
