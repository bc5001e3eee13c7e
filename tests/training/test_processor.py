"""The processor's instructions for int8 are found on Linux and macOS, for x86 and ARM."""

from pathlib import Path

import pytest

from training import processor
from training.processor import has_int8_instructions

X86 = "processor\t: 0\nflags\t\t: fpu avx2 {}\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format("avx512f avx512_vnni"), True),
        (X86.format("avx_vnni"), True),
        (ARM.format("asimddp"), True),
        (X86.format("avx512f"), False),
        (X86.format("avx_vnni_int16"), False),
        (ARM.format("asimdhp"), False),
        (ARM.format("asimddp") + ARM.format("asimdhp"), False),
        (ARM.format("asimddp") * 2, True),
        ("processor\t: 0\n", False),
        ("", False),
    ],
)
def test_on_linux_every_core_must_list_one_of_the_instructions(
    text: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(text)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(processor, "PROCESSOR_FILE", file)
    assert has_int8_instructions() is expected


@pytest.mark.parametrize(("machine", "expected"), [("arm64", True), ("x86_64", False)])
def test_on_macos_only_the_processors_of_apple_have_the_instructions(
    machine: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert has_int8_instructions() is expected


def test_without_a_list_of_instructions_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr(processor, "PROCESSOR_FILE", tmp_path / "absent")
    assert not has_int8_instructions()
