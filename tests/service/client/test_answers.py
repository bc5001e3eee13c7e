"""The answers as pydantic models."""

import httpx
import pytest
from pydantic import ValidationError

from service.client import answers
from service.client.answers import Answer, ClassScore, Problem

SCHEMAS: dict[str, type[Answer]] = {
    "AddedImage": answers.Added,
    "ClassProbability": answers.ClassScore,
    "IndexInfo": answers.IndexInfo,
    "IndexedImage": answers.Item,
    "Info": answers.Info,
    "Items": answers.Page,
    "Limits": answers.Limits,
    "MapInfo": answers.MapInfo,
    "ModelInfo": answers.ModelInfo,
    "ProbeInfo": answers.ProbeInfo,
    "Removed": answers.Removed,
    "SimilarItem": answers.Match,
    "Status": answers.Status,
    "UnusableImage": answers.UnusableImage,
}
"""The models of the client, by the names of the service's schemas."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_service_sends_every_field_of_an_answer(client: httpx.Client, name: str) -> None:
    described = client.get("/openapi.json").json()["components"]["schemas"][name]
    assert SCHEMAS[name].model_fields.keys() <= described["properties"].keys()


def test_a_field_of_a_newer_service_is_ignored() -> None:
    score = ClassScore.model_validate({"name": "cat", "index": 3, "probability": 0.5, "hue": 1})
    assert score.model_dump() == {"name": "cat", "index": 3, "probability": 0.5}


def test_an_answer_cannot_be_changed() -> None:
    score = ClassScore(name="cat", index=3, probability=0.5)
    with pytest.raises(ValidationError, match="frozen"):
        score.probability = 1.0


def test_the_type_of_a_problem_is_short() -> None:
    assert Problem(type="urn:lookalike:problem:unknown-label").type == "unknown-label"
    assert Problem(type="https://gateway.example/quota").type == "https://gateway.example/quota"
    assert Problem().type == "about:blank"
