"""A Python client for a Fewstep server: `Client().submit({"teacher": "digits", "method": {"kind": "progressive"}})`."""

import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from api.schemas import (
    DatasetView,
    DeliveryView,
    EndpointView,
    EventView,
    JobView,
    LogView,
    MethodView,
    MetricView,
    NewWebhook,
    SampleView,
    StudentView,
    TeacherView,
    WebhookView,
)
from api.validation import Validation
from service.images import ImagesAnswer
from service.settings import load
from service.status import TERMINAL, Status, Wish


class ServerError(Exception):
    """The server refused; the text is one sentence per wrong field. `status` is 0 when it could not be reached."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def explain(response: httpx.Response) -> ServerError:
    """Turn problem+json, or OpenAI's error body, into one exception."""
    try:
        body = response.json()
    except ValueError:
        return ServerError(response.status_code, "http_error", f"{response.status_code}: {response.text[:200]}")
    if "error" in body:
        return ServerError(response.status_code, str(body["error"]["code"]), body["error"]["message"])
    fields = "; ".join(f"{e['pointer']}: {e['detail']}" for e in body.get("errors", []))
    return ServerError(
        response.status_code, body.get("code", "http_error"), fields or body.get("detail", response.text)
    )


class Client:
    """Speaks to one server with one key.

    `url` and `key` default to `FEWSTEP_URL` and `FEWSTEP_API_KEY`, then to the embedded default's address and key file.
    Every method raises `ServerError`; making one raises `WrongSetting` where a variable is wrong.
    """

    def __init__(self, url: str | None = None, key: str | None = None, timeout: float = 60) -> None:
        settings = load()
        self.url = (url or os.environ.get("FEWSTEP_URL") or settings.resolved_public_url()).rstrip("/")
        key = key or os.environ.get("FEWSTEP_API_KEY")
        if key is None and settings.api_key_file().exists():
            key = settings.api_key_file().read_text().strip()
        self.key = key or ""
        self.http = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=timeout, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        """One request; answers with an error status are raised."""
        try:
            response = self.http.request(method, path, **kwargs)
        except httpx.TransportError as error:
            raise ServerError(
                0, "unreachable", f"cannot reach {self.url} ({error}); start it with `fewstep up`"
            ) from error
        if response.is_error:
            raise explain(response)
        return response

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """Every entry of a list, page by page."""
        params = {name: value for name, value in params.items() if value is not None}
        while True:
            page = self.call("GET", path, params=params).json()
            yield from page["data"]
            if not page["has_more"]:
                return
            params["after"] = page["next"]

    def submit(self, spec: dict[str, Any], idempotency_key: str | None = None) -> JobView:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return JobView.model_validate(self.call("POST", "/v1/jobs", json=spec, headers=headers).json())

    def validate(self, spec: dict[str, Any]) -> Validation:
        """What the job would be, with nothing stored."""
        return Validation.model_validate(self.call("POST", "/v1/jobs:validate", json=spec).json())

    def job(self, job_id: str) -> JobView:
        return JobView.model_validate(self.call("GET", f"/v1/jobs/{job_id}").json())

    def jobs(self, status: str | None = None) -> Iterator[JobView]:
        return (JobView.model_validate(job) for job in self.pages("/v1/jobs", status=status))

    def act(self, job_id: str, action: str) -> JobView:
        """`action` is cancel, pause, resume or retry."""
        return JobView.model_validate(self.call("POST", f"/v1/jobs/{job_id}/{action}").json())

    def watch(self, job_id: str, every: float = 1.0) -> Iterator[JobView]:
        """The job, again and again, until it is over or paused; outlives a restart of the server."""
        while True:
            try:
                job = self.job(job_id)
            except ServerError as error:
                if error.status not in (0, 503):
                    raise
            else:
                yield job
                if _settled(job):
                    return
            time.sleep(every)

    def wait(self, job_id: str, timeout: float = 3600) -> JobView:
        """The job once it is over or paused; raises TimeoutError after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        for job in self.watch(job_id):
            if _settled(job):
                return job
            if time.monotonic() > deadline:
                raise TimeoutError(f"{job_id} is still {job.status} after {timeout:.0f} s: {job.detail}")
        raise AssertionError("watch() ends with a settled job")

    def events(self, job_id: str) -> list[EventView]:
        return [EventView.model_validate(event) for event in self.pages(f"/v1/jobs/{job_id}/events")]

    def metrics(self, job_id: str) -> list[MetricView]:
        return [MetricView.model_validate(metric) for metric in self.pages(f"/v1/jobs/{job_id}/metrics", limit=1000)]

    def samples(self, job_id: str) -> list[SampleView]:
        return [SampleView.model_validate(sample) for sample in self.pages(f"/v1/jobs/{job_id}/samples")]

    def logs(self, job_id: str) -> Iterator[LogView]:
        return (LogView.model_validate(line) for line in self.pages(f"/v1/jobs/{job_id}/logs", limit=1000))

    def methods(self) -> list[MethodView]:
        return [MethodView.model_validate(method) for method in self.call("GET", "/v1/methods").json()["data"]]

    def teachers(self) -> Iterator[TeacherView]:
        return (TeacherView.model_validate(teacher) for teacher in self.pages("/v1/teachers"))

    def register_teacher(self, name: str, source: str) -> TeacherView:
        """`source` is a diffusers folder's path inside the artifact store."""
        body = {"name": name, "source": source}
        return TeacherView.model_validate(self.call("POST", "/v1/teachers", json=body).json())

    def datasets(self) -> Iterator[DatasetView]:
        return (DatasetView.model_validate(dataset) for dataset in self.pages("/v1/datasets"))

    def register_dataset(self, name: str, source: str) -> DatasetView:
        """`source` is a folder's path inside the artifact store."""
        body = {"name": name, "source": source}
        return DatasetView.model_validate(self.call("POST", "/v1/datasets", json=body).json())

    def students(self, job_id: str | None = None) -> Iterator[StudentView]:
        return (StudentView.model_validate(student) for student in self.pages("/v1/students", job=job_id))

    def student(self, student_id: str) -> StudentView:
        """By id or by name."""
        return StudentView.model_validate(self.call("GET", f"/v1/students/{student_id}").json())

    def download(self, path: str, target: Path) -> Path:
        """Stream the file at an API path (`archive_url`, `grid_url`, a sample's `url`) into `target`."""
        with self.http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise explain(response)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                for chunk in response.iter_bytes():
                    file.write(chunk)
        return target

    def create_endpoint(self, name: str, student: str, with_teacher: bool = True) -> EndpointView:
        body = {"name": name, "student": student, "with_teacher": with_teacher}
        return EndpointView.model_validate(self.call("POST", "/v1/endpoints", json=body).json())

    def endpoint(self, name: str) -> EndpointView:
        """By id or by name."""
        return EndpointView.model_validate(self.call("GET", f"/v1/endpoints/{name}").json())

    def endpoints(self) -> Iterator[EndpointView]:
        return (EndpointView.model_validate(endpoint) for endpoint in self.pages("/v1/endpoints"))

    def delete_endpoint(self, name: str) -> None:
        self.call("DELETE", f"/v1/endpoints/{name}")

    def wait_endpoint(self, name: str, timeout: float = 180) -> EndpointView:
        """The endpoint once it is ready or has failed."""
        deadline = time.monotonic() + timeout
        while (endpoint := self.endpoint(name)).status not in ("ready", "failed"):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"endpoint {name} is still {endpoint.status} after {timeout:.0f} s: {endpoint.detail}"
                )
            time.sleep(0.5)
        return endpoint

    def generate(self, model: str, **request: Any) -> ImagesAnswer:
        """Images from an endpoint; fields as in `service.images.ImagesRequest`."""
        body = {"model": model, **request}
        return ImagesAnswer.model_validate(self.call("POST", "/v1/images/generations", json=body).json())

    def create_webhook(self, url: str, events: Sequence[str] = ()) -> NewWebhook:
        """`events` as in `service.webhooks.EventType`; none means all. The answer alone holds the secret."""
        body = {"url": url, "events": list(events)}
        return NewWebhook.model_validate(self.call("POST", "/v1/webhooks", json=body).json())

    def webhooks(self) -> Iterator[WebhookView]:
        return (WebhookView.model_validate(webhook) for webhook in self.pages("/v1/webhooks"))

    def delete_webhook(self, webhook_id: str) -> None:
        self.call("DELETE", f"/v1/webhooks/{webhook_id}")

    def deliveries(self, webhook_id: str, status: str | None = None, limit: int = 50) -> list[DeliveryView]:
        """The newest `limit`."""
        found = self.pages(f"/v1/webhooks/{webhook_id}/deliveries", status=status)
        return [DeliveryView.model_validate(delivery) for delivery in itertools.islice(found, limit)]

    def test_webhook(self, webhook_id: str, timeout: float = 15) -> DeliveryView:
        """Send a test; the delivery once it was tried."""
        sent = DeliveryView.model_validate(self.call("POST", f"/v1/webhooks/{webhook_id}/test").json())
        deadline = time.monotonic() + timeout
        while True:
            tried = next((one for one in self.deliveries(webhook_id) if one.id == sent.id), sent)
            if tried.attempts:
                return tried
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{sent.id} was not sent within {timeout:.0f} s; does a control plane send webhooks?"
                )
            time.sleep(0.2)

    def replay_delivery(self, webhook_id: str, delivery_id: str) -> DeliveryView:
        path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay"
        return DeliveryView.model_validate(self.call("POST", path).json())


def _settled(job: JobView) -> bool:
    """Whether nothing happens to the job by itself; a paused one that was resumed is still paused for a moment."""
    return job.status in TERMINAL or (job.status is Status.PAUSED and job.wish is not Wish.RUN)
