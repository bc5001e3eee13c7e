"""The list of faults stays in step with the code."""

from pathlib import Path

import pytest

from tests.mutants.faults import ROOT, Fault, read_faults

FAULTS = read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.what for fault in FAULTS])
def test_every_fault_still_fits_the_code_and_names_tests_that_exist(fault: Fault) -> None:
    assert (ROOT / fault.file).read_text("utf-8").count(fault.old) == 1, (
        "bring tests/mutants/faults.toml up to date"
    )
    assert fault.new != fault.old
    for test in fault.tests:
        file, _, function = test.partition("::")
        assert f"def {function}" in (ROOT / file).read_text("utf-8")


def test_a_fault_changes_its_file_only_if_the_old_text_occurs_once(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text("a = 1\nb = 1\n")
    with pytest.raises(ValueError, match=r"occurs 2 times in module\.py"):
        Fault("Both.", "module.py", "= 1", "= 2", ()).put_into(tmp_path)
    Fault("One.", "module.py", "a = 1", "a = 2", ()).put_into(tmp_path)
    assert file.read_text() == "a = 2\nb = 1\n"
