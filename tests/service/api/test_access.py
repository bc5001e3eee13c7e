"""Keys: every route with every kind of key, under every choice of keys.

The list of routes comes from the application, so a new route cannot be forgotten.
"""

import base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route

from tests.service.conftest import LogTo, Run, Service
from tests.service.pictures import detail_of, picture, problem, upload

READ, WRITE = "read-key-4711", "write-key:0815"
KEYS = {
    "none": {},
    "read": {"read_key": READ},
    "write": {"write_key": WRITE},
    "both": {"read_key": READ, "write_key": WRITE},
}
OPEN = {
    *("/livez", "/readyz"),
    # These contain no data of the index.
    *("/openapi.json", "/docs", "/docs/oauth2-redirect", "/docs/static", "/web"),
}
"""The routes that never need a key."""


def bearer(key: str) -> str:
    return f"Bearer {key}"


def basic(key: str, user: str = "") -> str:
    return f"Basic {base64.b64encode(f'{user}:{key}'.encode()).decode()}"


MALFORMED = [
    "",
    "Bearer",
    "Basic",
    "Basic !!!",
    "Basic é",
    f"Basic {base64.b64encode(READ.encode()).decode()}",  # without a colon
    f"Digest {READ}",
    READ,
    f"Bearer {READ} {READ}",
    f"Bearer {READ}x",
    bearer(READ.upper()),
    "\xff\xfe",
]
SENT: dict[str, tuple[str | None, list[str | None]]] = {
    "nothing": (None, [None]),
    "wrong": (None, [bearer("wrong"), basic("wrong"), basic("")]),
    "malformed": (None, [*MALFORMED]),
    "read": ("read", [bearer(READ), basic(READ), basic(READ, "user"), f"bearer  {READ}"]),
    "write": ("write", [bearer(WRITE), basic(WRITE), f"BASIC {basic(WRITE)[6:]}"]),
}
"""For each kind of header: the key that it has, and its forms."""


def expected(keys: str, has: str | None, needed: str) -> int | None:
    """The status of a refused request. None if it is accepted."""
    is_known = has is not None and has in {"read": ["read"], "write": ["write"]}.get(
        keys, ["read", "write"] if keys == "both" else []
    )
    if keys in ("read", "both") and not is_known:
        return 401
    if needed == "read":
        return None
    if keys in ("none", "read"):
        return 403  # the service does not change its index
    if not is_known:
        return 401
    return None if has == "write" else 403


@pytest.fixture(scope="module")
def services(run: Run, copy_index: Callable[[str], Path]) -> Iterator[dict[str, Service]]:
    """A service for each choice of keys."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(run(index=copy_index("keys"), **keys))
            for name, keys in KEYS.items()
        }


def routes(service: Service) -> list[tuple[str, str]]:
    """The method and the path of every route of the application."""

    def walk(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
        for route in routes:
            if router := getattr(route, "original_router", None):  # FastAPI 0.165 keeps the routers
                yield from walk(router.routes)
                continue
            assert isinstance(route, Route | Mount), route
            for method in getattr(route, "methods", None) or {"GET"}:
                yield method, route.path

    return sorted(set(walk(service.app.routes)))


def status(service: Service, method: str, path: str, authorization: str | None) -> int:
    """The status of a request that changes nothing, even if it is accepted."""
    headers = {"Content-Type": "text/plain"}
    if authorization is not None:
        headers["Authorization"] = authorization.encode("latin-1")  # type: ignore[assignment]
    url = path.replace("{id}", "999")
    response = service.client.request(method, url, headers=headers)
    if response.status_code == 401:
        assert response.headers["www-authenticate"].startswith("Basic realm=")
        assert "Bearer" in response.headers["www-authenticate"]
        problem(response, 401, "unauthorized")
    if response.status_code == 403:
        problem(response, 403, "forbidden")
    return response.status_code


def test_the_application_has_the_routes_that_are_tested_here(service: Service) -> None:
    known = routes(service)
    assert {("POST", "/classify"), ("GET", "/items/{id}"), ("GET", "/metrics")} <= set(known)
    assert {("POST", "/items"), ("DELETE", "/items/{id}"), ("GET", "/")} <= set(known)
    assert {path for _, path in known} >= OPEN


@pytest.mark.parametrize("sent", SENT)
@pytest.mark.parametrize("keys", KEYS)
def test_every_route_needs_the_right_key(
    services: dict[str, Service], keys: str, sent: str
) -> None:
    has, forms = SENT[sent]
    service = services[keys]
    for method, path in routes(service):
        needed = "write" if method in ("DELETE", "PUT", "PATCH") else "read"
        if (method, path) == ("POST", "/items"):
            needed = "write"
        refused = None if path in OPEN else expected(keys, has, needed)
        for form in forms:
            answered = status(service, method, path, form)
            if refused is None:
                assert answered not in (401, 403, 500), (method, path, form)
            else:
                assert answered == refused, (method, path, form)


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/web/style.css", "/nothing"])
def test_addresses_without_data_need_no_key(services: dict[str, Service], path: str) -> None:
    assert services["both"].client.get(path).status_code in (200, 404)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_no_other_method_is_a_way_around_the_key(services: dict[str, Service], method: str) -> None:
    response = services["read"].client.request(method, "/items")
    assert response.status_code in (401, 405)
    assert "red" not in response.text


def test_a_wrong_key_is_told_from_a_missing_one(services: dict[str, Service]) -> None:
    client = services["both"].client
    assert "a key is missing" in detail_of(client.get("/info"), 401, "unauthorized")
    response = client.get("/info", headers={"Authorization": bearer("wrong")})
    assert "the key is wrong" in detail_of(response, 401, "unauthorized")


def test_without_a_write_key_the_problem_names_the_setting(services: dict[str, Service]) -> None:
    response = services["read"].client.delete("/items/1", headers={"Authorization": bearer(READ)})
    assert "LOOKALIKE_WRITE_KEY" in detail_of(response, 403, "forbidden")
    response = services["both"].client.delete("/items/1", headers={"Authorization": bearer(READ)})
    assert "this key may only read" in detail_of(response, 403, "forbidden")


def test_a_query_without_a_key_is_refused_before_its_body_is_used(
    services: dict[str, Service],
) -> None:
    response = services["both"].client.post("/classify", files=upload(picture()))
    problem(response, 401, "unauthorized")
    headers = {"Authorization": bearer(READ)}
    response = services["both"].client.post("/classify", files=upload(picture()), headers=headers)
    assert response.status_code == 200


def test_a_key_may_have_characters_that_are_not_letters(run: Run) -> None:
    key = "".join(map(chr, range(33, 127)))
    with run(read_key=key) as service:
        for form in (bearer(key), basic(key)):
            headers = {"Authorization": form}
            assert service.client.get("/info", headers=headers).status_code == 200


def test_keys_are_neither_logged_nor_sent(run: Run, own_index: Path, log_to: LogTo) -> None:
    log = log_to(log_level="debug", access_log=True)
    with run(index=own_index, read_key=READ, write_key=WRITE, access_log=True) as service:
        texts = []
        for form in (bearer(READ), basic(WRITE), bearer(WRITE), f"Bearer {READ}x"):
            headers = {"Authorization": form}
            for method, path in routes(service):
                response = service.client.request(
                    method, path.replace("{id}", "999"), headers=headers
                )
                texts.append(f"{response.headers} {response.text}")
        add = service.client.post(
            "/items", files=upload(picture()), headers={"Authorization": bearer(WRITE)}
        )
        assert add.status_code == 201
        texts.append(f"{add.headers} {add.text} {service.engine.settings!r}")
    secrets = [READ, WRITE, *(form.split()[1] for form in (basic(READ), basic(WRITE)))]
    seen = "\n".join([log.getvalue(), *texts])
    assert "/items" in log.getvalue()
    assert not [secret for secret in secrets if secret in seen]


@pytest.mark.parametrize("kind", KEYS)
def test_openapi_says_which_routes_need_a_key(run: Run, kind: str) -> None:
    with run(**KEYS[kind]) as service:
        content = service.client.get("/openapi.json").json()
    assert content["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    operations = {
        f"{method} {path}": operation
        for path, methods in content["paths"].items()
        for method, operation in methods.items()
    }
    need_key = {name for name, operation in operations.items() if operation.get("security")}
    if "read_key" in KEYS[kind]:
        assert operations.keys() - need_key == {"get /livez", "get /readyz"}
    else:
        assert need_key == {"post /items", "delete /items/{id}"}
    assert need_key == {name for name, one in operations.items() if "401" in one["responses"]}
