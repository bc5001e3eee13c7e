"""The time of kernels, read from a profile."""

from types import SimpleNamespace

from benchmarks.training_loops import kernel_times


def event(key: str, time_us: float, device: str, *, is_annotation: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        key=key,
        self_device_time_total=time_us,
        device_type=SimpleNamespace(name=device),
        is_user_annotation=is_annotation,
    )


def test_the_time_of_a_kernel_is_counted_once() -> None:
    events = [
        event("aten::mm", 5.0, "CPU"),  # the operation that started the kernel
        event("gemm", 5.0, "CUDA"),
        event("Optimizer.step", 5.0, "CUDA", is_annotation=True),
    ]
    assert kernel_times(events) == [(5.0, "gemm")]
