"""The application as a whole: its description, and what it does without."""

import ast
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


def test_openapi_describes_every_address_of_the_api(client: httpx.Client) -> None:
    content = client.get("/openapi.json").json()
    assert content["info"]["title"] == "Lookalike"
    assert set(content["paths"]) == {
        "/classify",
        "/similar",
        "/features",
        "/items",
        "/items/{id}",
        "/items/{id}/similar",
        "/items/{id}/thumbnail",
        "/map",
        "/livez",
        "/readyz",
        "/info",
        "/metrics",
    }
    for operations in content["paths"].values():
        assert all(operation["description"] for operation in operations.values())


def test_openapi_says_that_an_index_has_a_name_and_a_commit(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for schema in (schemas["Similarity"], schemas["ItemMap"]):
        assert schema["properties"]["index"]["type"] == "string"
        assert schema["properties"]["commit"]["type"] == "integer"


def test_the_service_runs_without_torch(tiny_index: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from indexer.opening import open_index
from service.app import create_app
from service.settings import Settings
import service.cli
create_app(open_index(Path({str(tiny_index)!r})), Settings()).openapi()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "module",
    ["admission", "engine", "live_index", "metrics", "settings", "snapshot", "stage", "ticket"],
)
def test_only_the_http_layer_knows_http(module: str) -> None:
    tree = ast.parse((ROOT / "service" / f"{module}.py").read_text())
    imported = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not [
        name for name in imported if name.startswith(("service.api", "fastapi", "starlette"))
    ]
