"""The errors of the client: the service refused a request, or no answer arrived."""

import httpx

from service.client.answers import Problem
from training.errors import UserError
from training.naming import one_line

MEDIA_TYPE = "application/problem+json"

NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Errors after which the service has certainly not received the request."""


class ServiceError(UserError):
    """The service, or a proxy in front of it, refused a request."""

    def __init__(self, problem: Problem):
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        problem = self.problem
        return one_line(" ".join((problem.detail or problem.title or problem.type).split()))

    @property
    def type(self) -> str:
        """A short name for programs, such as `unknown-label`."""
        return self.problem.type

    @property
    def title(self) -> str:
        return self.problem.title

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def filename(self) -> str | None:
        """The name of the image, if the error is about one image."""
        return self.problem.filename


class NoAnswerError(UserError):
    """The service could not be reached, or its answer did not arrive."""


def service_error(response: httpx.Response) -> ServiceError:
    """The error of a response whose status is not 2xx."""
    if _media_type(response) != MEDIA_TYPE:
        return foreign_error(response)
    try:
        problem = Problem.model_validate_json(response.content)
    except ValueError:
        return foreign_error(response)
    known = {"status": response.status_code, "title": problem.title or response.reason_phrase}
    return ServiceError(problem.model_copy(update=known))


def foreign_error(response: httpx.Response) -> ServiceError:
    """The error of a response that the service cannot have sent: a proxy's page, for example."""
    status = f"{response.status_code} {response.reason_phrase}".strip()
    kind = _media_type(response) or "no content type"
    remedy = "a proxy may have answered; check the URL, and that the service runs"
    if "location" in response.headers:
        remedy = f"it redirects to {response.headers['location']}; check the URL"
    detail = f"{_shown(response.request.url)} answered {status} ({kind}), but not as Lookalike does"
    return ServiceError(
        Problem(
            title=response.reason_phrase,
            status=response.status_code,
            detail=f"{detail}; {remedy}",
        )
    )


def no_answer_error(error: httpx.RequestError) -> NoAnswerError:
    """The error of a request to which no complete answer arrived."""
    address = _shown(error.request.url)
    reason = one_line(str(error) or type(error).__name__)
    if isinstance(error, NOT_SENT):
        return NoAnswerError(
            f"cannot connect to {address} ({reason}); check the URL, and that the service runs"
        )
    if isinstance(error, httpx.TimeoutException):
        return NoAnswerError(
            f"{address} did not answer in time ({reason}); "
            "send fewer images at once, or pass a larger timeout_s"
        )
    return NoAnswerError(
        f"the connection to {address} failed before the answer was complete ({reason}); "
        "check that the service runs, and send the request again"
    )


def _media_type(response: httpx.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _shown(url: httpx.URL) -> str:
    """The URL without its query, which can contain labels and paths."""
    return str(url).partition("?")[0]
