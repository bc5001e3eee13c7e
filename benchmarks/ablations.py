"""What did the paper's ablations show here? This records the results of `lookalike ablate`.

    python -m benchmarks.ablations ABLATION --name imagenette

ABLATION is a directory that `lookalike ablate --out` wrote. The record contains its finished runs
and the recipe of the baseline. The table is printed. Figure 1 is copied into docs/.
"""

import argparse
import json
import shutil
from pathlib import Path

from benchmarks.record import ROOT, record
from training.experiments.ablation import FIGURE_1_FILE, SUMMARY_FILE, TABLE_FILE
from training.experiments.outcomes import RESULT_FILE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ablation", type=Path)
    parser.add_argument("--name", required=True)
    arguments = parser.parse_args()
    folder: Path = arguments.ablation
    runs = json.loads((folder / SUMMARY_FILE).read_text("utf-8"))
    baseline = json.loads((folder / "baseline-seed0" / RESULT_FILE).read_text("utf-8"))
    table = (folder / TABLE_FILE).read_text("utf-8")
    shutil.copyfile(folder / FIGURE_1_FILE, ROOT / "docs" / f"{arguments.name}-figure-1.png")
    record(f"ablations_{arguments.name}", {"recipe": baseline["recipe"], "runs": runs})
    print(table)


if __name__ == "__main__":
    main()
