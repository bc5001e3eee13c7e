"""Every answer is as /openapi.json describes it. schemathesis makes the requests.

The requests are the same in each run. They are right and wrong in many ways: values at the limits,
values of other types, unknown parameters, methods and media types, missing keys.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    missing_required_header,
    positive_data_acceptance,
    response_schema_conformance,
)

from indexer.learned.item_map import make_map
from indexer.learned.probe_fitting import make_probe
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from tests.conftest import coloured
from tests.service.conftest import ENCODER, PATIENCE_S, Run
from tests.service.pictures import encoded, picture

Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

READ, WRITE = "read-key", "write-key"
BOTH = {"read_key": READ, "write_key": WRITE}
NUM_REQUESTS = 10
"""Number of random requests to each operation, once with right and once with wrong values.
schemathesis adds about fifty that it does not choose at random."""
# The images may be too many or too large, besides what is wrong.
EXPECTED_ERRORS = {"negative_data_rejection": {"expected-statuses": ["4xx", 503]}}
NOT_CHECKED: list[Any] = [
    # Values that the description allows can be too large for the settings or unknown to the index.
    positive_data_acceptance,
    # `answered_as_described` checks the status, because 503 is allowed.
    not_a_server_error,
]


@pytest.fixture(scope="module")
def described_index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An index in which the examples of the description exist: item 42 and the label `dress`."""
    directory = tmp_path_factory.mktemp("described") / "photos"
    random = np.random.default_rng(0)
    with IndexWriter.open(directory, tiny_model) as writer:
        for number in range(60):
            image = coloured("red", number)
            writer.add(
                NewItem(
                    path=f"{number}.png",
                    label="dress" if number % 2 else "hat",
                    sha256=f"{number:064x}",
                    width=image.width,
                    height=image.height,
                    thumbnail=encoded(image, "JPEG"),
                    feature=random.random(4096, np.float32) + number % 2,
                )
            )
        writer.write_codes(ENCODER)
        writer.commit(is_complete=True)
    make_probe(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.learned.item_map.lay_out", lambda features: features[:, :2])
        make_map(directory)
    return directory


@pytest.fixture(autouse=True)
def some_files_are_images() -> Iterator[None]:
    images = st.sampled_from([picture("red", 1), picture("blue", 2)])
    schemathesis.openapi.format("binary", images | st.binary(max_size=64))
    yield
    schemathesis.openapi.format("binary", st.binary())


@pytest.mark.slow  # about 1,500 requests to each service
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("keys", "key"),
    [({}, None), (BOTH, WRITE), (BOTH, READ)],
    ids=["without keys", "with the write key", "with the read key"],
)
def test_every_answer_is_as_the_description_says(
    run: Run,
    described_index: Path,
    tmp_path: Path,
    subtests: pytest.Subtests,
    keys: dict[str, str],
    key: str | None,
) -> None:
    index = shutil.copytree(described_index, tmp_path / "photos")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    counts: Counter[tuple[str, int]] = Counter()
    with run(index=index, **keys) as service, requests.Session() as session:
        config = schemathesis.Config.from_dict({"checks": EXPECTED_ERRORS})
        schema = schemathesis.openapi.from_url(
            f"{service.url}/openapi.json", config=config, headers=headers
        )
        check: Callable[[Case], None] = partial(
            answered_as_described, url=service.url, session=session, key=headers, counts=counts
        )
        operations = [
            schema[path][method] for path, methods in schema.items() for method in methods
        ]
        # Removals come last, because the other requests need the items.
        for operation in sorted(operations, key=lambda one: one.method == "delete"):
            with subtests.test(operation.label):
                check_operation(operation, check)
    accepted = {label for (label, status) in counts if status < 300}
    changes = {"POST /items", "DELETE /items/{id}"}
    described = {label for label, _ in counts}
    assert len(described) == 14
    assert accepted == (described if key == WRITE else described - changes)


def check_operation(operation: Operation, check: Callable[[Case], None]) -> None:
    modes = list(schemathesis.GenerationMode)
    for case in operation.schema.iter_coverage_cases(
        operation,
        generation_modes=modes,
        generation_config=operation.schema.config.generation,
    ):
        check(case)
    for mode in modes:

        @seed(0)
        @settings(
            max_examples=NUM_REQUESTS,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check_some(case: Case) -> None:
            check(case)

        with suppress(Unsatisfiable):  # without parameters, there are no wrong values
            check_some()


def answered_as_described(
    case: Case,
    *,
    url: str,
    session: requests.Session,
    key: dict[str, str],
    counts: Counter[tuple[str, int]],
) -> None:
    """Send a request, and check its answer. If it is a GET, check the answer to HEAD too."""
    sent: dict[str, Any] = {"base_url": url, "session": session, "timeout": PATIENCE_S}
    response = case.call(headers=key, **sent)
    not_checked = [*NOT_CHECKED]
    if "Authorization" not in key:
        # Without a write key, changes are forbidden whatever key is sent.
        not_checked.append(missing_required_header)
    if case.path == "/map":
        # schemathesis 4.32 misreads `prefixItems`.
        not_checked.append(response_schema_conformance)
    counts[case.operation.label, response.status_code] += 1
    assert response.status_code < 500 or response.status_code == 503
    case.validate_response(
        response,
        headers=key,
        transport_kwargs={**sent, "headers": key},
        excluded_checks=not_checked,
    )
    if case.method == "GET" and response.status_code != 429:
        request = session.prepare_request(requests.Request(**case.as_transport_kwargs(url, key)))
        request.method = "HEAD"
        head = session.send(request, timeout=PATIENCE_S)
        assert head.status_code == response.status_code
        assert head.headers["content-type"] == response.headers["content-type"][0]
        assert not head.content
