"""The API of `api/schemas.py` from memory: every page of the dashboard can be tested in seconds, without a cluster.

Run it with `uvicorn --app-dir tests/browser fake_api:app`; its only key is `fake-key`.
"""

import base64
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import fake_data
import fake_datasets
import fake_webhooks
from fastapi import Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse

from api.methods import view as method_view
from api.schemas import (
    CheckpointView,
    DatasetCreate,
    DatasetView,
    DeliveryView,
    EndpointCreate,
    EndpointView,
    EventView,
    JobView,
    LogView,
    MethodView,
    MetricView,
    NewWebhook,
    Page,
    Problem,
    SampleView,
    StudentView,
    TeacherCreate,
    TeacherView,
    Version,
    WebhookCreate,
    WebhookView,
)
from api.validation import MemoryView, Validation
from service.images import Image, ImagesAnswer, ImagesRequest, ModelCard, ModelList
from service.methods import METHODS
from service.spec import JobSpec
from service.status import Reason, Status, Wish
from service.tables import DeliveryStatus

DIST = Path(__file__).resolve().parents[2] / "api" / "dashboard" / "dist"
KEY = "fake-key"

app = FastAPI(title="Fewstep", version="0.1.0")
jobs = {job.id: job for job in fake_data.jobs()}
students = {student.id: student for student in fake_data.students()}
endpoints = {endpoint.id: endpoint for endpoint in fake_data.endpoints()}
datasets = {fake_datasets.DATASET.name: fake_datasets.DATASET}
webhooks = {webhook.id: webhook for webhook in fake_webhooks.webhooks()}
deliveries = {delivery.id: delivery for delivery in fake_webhooks.deliveries()}
births = itertools.count(91)
started = time.monotonic()


def problem(status: int, code: str, detail: str, errors: list[dict[str, str]] | None = None) -> JSONResponse:
    body = Problem(title=code, status=status, detail=detail, code=code, request_id="req_fake", errors=errors or [])
    return JSONResponse(body.model_dump(), status, media_type="application/problem+json")


@app.exception_handler(HTTPException)
async def told(request: Request, error: HTTPException) -> JSONResponse:
    return problem(error.status_code, "unauthorized" if error.status_code == 401 else "not_found", str(error.detail))


@app.exception_handler(RequestValidationError)
async def refused(request: Request, error: RequestValidationError) -> JSONResponse:
    tags = set(METHODS)
    errors = [
        {
            "pointer": "".join(f"/{part}" for part in e["loc"][1:] if part not in tags),
            "detail": e["msg"].removeprefix("Value error, "),
        }
        for e in error.errors()
    ]
    return problem(422, "invalid_request", errors[0]["detail"], errors)


def keyed(authorization: Annotated[str, Header()] = "") -> None:
    if authorization != f"Bearer {KEY}":
        raise HTTPException(401, "Send a valid API key as 'Authorization: Bearer <key>'.")


guarded = [Depends(keyed)]


def found(table: dict[str, Any], key: str) -> Any:
    if key not in table:
        raise HTTPException(404, f"There is nothing with the id {key}.")
    return table[key]


def paged(rows: list[Any], limit: int, after: str | None, key: str = "id") -> Page[Any]:
    start = 0 if after is None else 1 + [str(getattr(row, key)) for row in rows].index(after)
    part = rows[start : start + limit]
    more = len(rows) > start + limit
    return Page(data=part, has_more=more, next=str(getattr(part[-1], key)) if more else None)


def live(job: JobView) -> JobView:
    """The running job moves on by a step a second."""
    if job.status is not Status.RUNNING:
        return job
    step = min(job.total_steps - 1, job.step + int(time.monotonic() - started))
    progress = step / job.total_steps
    return job.model_copy(update={"step": step, "progress": progress, "eta_seconds": job.total_steps - step})


Limit = Annotated[int, Query(ge=1, le=1000)]


@app.get("/v1/jobs", dependencies=guarded)
def list_jobs(
    limit: Limit = 20,
    after: str | None = None,
    status: Status | None = None,
    method: str | None = None,
    teacher: str | None = None,
) -> Page[JobView]:
    rows = [
        live(j)
        for j in sorted(jobs.values(), key=lambda j: j.id, reverse=True)
        if (status is None or j.status is status)
        and (method is None or method in j.methods)
        and (teacher is None or j.teacher == teacher)
    ]
    return paged(rows, limit, after)


@app.post("/v1/jobs", dependencies=guarded, status_code=201)
def submit(spec: JobSpec) -> JobView:
    number = next(births)
    made = fake_data.job(number, "progressive", Status.QUEUED, Reason.SUBMITTED, 0, 0, attempts=0)
    methods = [stage.method.kind for stage in spec.chain()]
    changes = {
        "spec": spec,
        "name": spec.name,
        "data": spec.data,
        "total_steps": spec.total_steps(),
        "methods": methods,
    }
    jobs[made.id] = made.model_copy(update=changes)
    return jobs[made.id]


@app.post("/v1/jobs:validate", dependencies=guarded, responses={422: {"model": Problem}})
def validate(spec: JobSpec) -> Validation:
    left = [steps for stage in spec.chain() for steps in stage.method.student_steps()]
    memory = 14_000_000 * len(spec.chain())
    parts = MemoryView(
        weights=memory - 7_000_000, optimizer=3_000_000, gradients=1_000_000, activations=3_000_000, encoders=0
    )
    return Validation(
        spec=spec,
        total_steps=spec.total_steps(),
        students=left,
        estimated_memory_bytes=memory,
        memory=parts,
        memory_phase="training",
        advice=["with micro_batches 2 it takes 0.1 GiB"] if len(spec.chain()) > 2 else [],
    )


@app.get("/v1/jobs/{job_id}", dependencies=guarded)
def read_job(job_id: str) -> JobView:
    return live(found(jobs, job_id))


@app.post("/v1/jobs/{job_id}/{verb}", dependencies=guarded)
def wish(job_id: str, verb: str) -> JobView:
    job = found(jobs, job_id)
    wishes = {"cancel": Wish.CANCEL, "pause": Wish.PAUSE, "resume": Wish.RUN, "retry": Wish.RUN}
    jobs[job_id] = job.model_copy(update={"wish": wishes[verb]})
    return live(jobs[job_id])


@app.get("/v1/jobs/{job_id}/events", dependencies=guarded)
def list_events(job_id: str, limit: Limit = 100, after: int = 0) -> Page[EventView]:
    rows = [e for e in fake_data.events(found(jobs, job_id)) if e.seq > after]
    return paged(rows, limit, None, "seq")


@app.get("/v1/jobs/{job_id}/metrics", dependencies=guarded)
def list_metrics(job_id: str, limit: Limit = 100, after: int = 0) -> Page[MetricView]:
    rows = [m for m in fake_data.metrics(live(found(jobs, job_id))) if m.step > after]
    return paged(rows, limit, None, "step")


@app.get("/v1/jobs/{job_id}/samples", dependencies=guarded)
def list_samples(job_id: str, limit: Limit = 100, after: str | None = None) -> Page[SampleView]:
    return paged(fake_data.samples(live(found(jobs, job_id))), limit, after)


@app.get("/v1/jobs/{job_id}/checkpoints", dependencies=guarded)
def list_checkpoints(job_id: str, limit: Limit = 100, after: int = 0) -> Page[CheckpointView]:
    return paged(fake_data.checkpoints(live(found(jobs, job_id))), limit, None, "step")


@app.get("/v1/jobs/{job_id}/logs", dependencies=guarded, response_model=Page[LogView])
def list_logs(
    job_id: str,
    limit: Limit = 100,
    after: int = 0,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int, Header()] = 0,
) -> Any:
    rows = [line for line in fake_data.logs(live(found(jobs, job_id))) if line.seq > max(after, last_event_id)]
    if "text/event-stream" not in accept:
        return paged(rows, limit, None, "seq")

    def told() -> Iterator[str]:
        for line in rows:
            yield f"id: {line.seq}\nevent: log\ndata: {json.dumps(line.model_dump(mode='json'))}\n\n"
        yield ": heartbeat\n\n"

    return StreamingResponse(told(), media_type="text/event-stream")


@app.get("/v1/jobs/{job_id}/samples/{name}", dependencies=guarded, response_class=Response)
def picture(job_id: str, name: str) -> Response:
    role, step, steps = name.removesuffix(".png").split("-")
    total = found(jobs, job_id).total_steps
    left = max(0.04, 0.9 - 1.6 * int(step) / total) if role == "student" else 0.5 / int(steps) ** 1.2
    return Response(fake_data.png([fake_data.noisy(fake_data.digits()[0], left, int(step))]), media_type="image/png")


@app.get("/v1/methods", dependencies=guarded)
def list_methods() -> Page[MethodView]:
    return Page(data=[method_view(kind) for kind in METHODS], has_more=False, next=None)


@app.get("/v1/teachers", dependencies=guarded)
def list_teachers() -> Page[TeacherView]:
    return Page(data=[fake_data.TEACHER], has_more=False, next=None)


@app.post("/v1/teachers", dependencies=guarded, status_code=201)
def register(body: TeacherCreate) -> TeacherView:
    return fake_data.TEACHER.model_copy(update={"name": body.name, "source": body.source})


@app.get("/v1/datasets", dependencies=guarded)
def list_datasets(limit: Limit = 20, after: str | None = None) -> Page[DatasetView]:
    return paged(list(datasets.values()), limit, after)


@app.post("/v1/datasets", dependencies=guarded, status_code=201, response_model=DatasetView)
def register_dataset(body: DatasetCreate) -> Any:
    if not body.source.startswith("data/"):
        detail = f"'{body.source}' is not a folder in the store; put the dataset there and give its path."
        return problem(422, "data_invalid", detail, [{"pointer": "/source", "detail": detail}])
    changes = {"id": f"dat_{next(births)}", "name": body.name, "source": body.source}
    datasets[body.name] = fake_datasets.DATASET.model_copy(update=changes)
    return datasets[body.name]


@app.get("/v1/students", dependencies=guarded)
def list_students(limit: Limit = 20, after: str | None = None) -> Page[StudentView]:
    return paged(list(students.values()), limit, after)


@app.get("/v1/students/{student_id}", dependencies=guarded)
def read_student(student_id: str) -> StudentView:
    return found(students, student_id)


@app.get("/v1/students/{student_id}/grid.png", dependencies=guarded, response_class=Response)
def grid(student_id: str) -> Response:
    steps = found(students, student_id).steps
    rows = [fake_data.noisy(fake_data.digits()[0], 0.04, i) for i in range(len(steps))]
    labels = ["teacher, 50", *(f"student, {n}" for n in steps)]
    return Response(fake_data.png([fake_data.digits()[0], *rows], labels=labels), media_type="image/png")


@app.get("/v1/students/{student_id}/archive", dependencies=guarded, response_class=Response)
def archive(student_id: str) -> Response:
    return Response(b"tar", media_type="application/x-tar")


@app.get("/v1/endpoints", dependencies=guarded)
def list_endpoints(limit: Limit = 20, after: str | None = None) -> Page[EndpointView]:
    return paged(list(endpoints.values()), limit, after)


@app.post("/v1/endpoints", dependencies=guarded, status_code=202)
def deploy(body: EndpointCreate) -> EndpointView:
    student = next(s for s in students.values() if body.student in (s.id, s.name))
    made = fake_data.endpoint(body.name, student, "ready", "Warm and answering.", body.with_teacher)
    endpoints[made.id] = made
    return made


@app.get("/v1/endpoints/{endpoint_id}", dependencies=guarded)
def read_endpoint(endpoint_id: str) -> EndpointView:
    return found(endpoints, endpoint_id)


@app.delete("/v1/endpoints/{endpoint_id}", dependencies=guarded, status_code=202)
def undeploy(endpoint_id: str) -> EndpointView:
    endpoint = found(endpoints, endpoint_id)
    endpoints[endpoint_id] = endpoint.model_copy(update={"status": "deleting", "detail": "Being removed."})
    return endpoints[endpoint_id]


@app.get("/v1/webhooks", dependencies=guarded)
def list_webhooks(limit: Limit = 20, after: str | None = None) -> Page[WebhookView]:
    return paged(list(webhooks.values()), limit, after)


@app.post("/v1/webhooks", dependencies=guarded, status_code=201, response_model=NewWebhook)
def create_webhook(body: WebhookCreate) -> Any:
    if "127.0.0.1" in body.url:
        detail = "127.0.0.1 is at 127.0.0.1, which is not a public address."
        return problem(422, "invalid_request", detail, [{"pointer": "/url", "detail": detail}])
    made = {"id": f"whk_{next(births)}", "created_at": fake_data.NOW, **body.model_dump()}
    webhooks[made["id"]] = WebhookView.model_validate(made)
    return {**made, "secret": "whsec_c2VjcmV0IGFuZCBzaG93biBvbmNl"}


@app.delete("/v1/webhooks/{webhook_id}", dependencies=guarded)
def delete_webhook(webhook_id: str) -> WebhookView:
    found(webhooks, webhook_id)
    return webhooks.pop(webhook_id)


@app.post("/v1/webhooks/{webhook_id}/test", dependencies=guarded, status_code=202)
def test_webhook(webhook_id: str) -> DeliveryView:
    made = fake_webhooks.delivery(next(births), "webhook.test", DeliveryStatus.DELIVERED, 1, 204, "")
    deliveries[made.id] = made.model_copy(update={"webhook_id": webhook_id})
    return deliveries[made.id]


@app.get("/v1/webhooks/{webhook_id}/deliveries", dependencies=guarded)
def list_deliveries(
    webhook_id: str, limit: Limit = 20, after: str | None = None, status: DeliveryStatus | None = None
) -> Page[DeliveryView]:
    mine = [one for one in deliveries.values() if one.webhook_id == webhook_id and status in (None, one.status)]
    return paged(sorted(mine, key=lambda one: one.id, reverse=True), limit, after)


@app.post("/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay", dependencies=guarded, status_code=202)
def replay(webhook_id: str, delivery_id: str) -> DeliveryView:
    again = {"status": DeliveryStatus.PENDING, "attempts": 0, "due_at": fake_data.NOW}
    deliveries[delivery_id] = found(deliveries, delivery_id).model_copy(update=again)
    return deliveries[delivery_id]


@app.get("/v1/models", dependencies=guarded)
def list_models() -> ModelList:
    cards = []
    for e in endpoints.values():
        if e.status == "ready":
            common = {"created": 0, "num_classes": e.num_classes, "text": e.text, "image_size": e.image_size}
            cards.append(ModelCard.model_validate({"id": e.name, "steps": e.steps, **common}))
            cards.append(ModelCard.model_validate({"id": f"{e.name}:teacher", "steps": [], **common}))
    return ModelList(data=cards)


@app.post("/v1/images/generations", dependencies=guarded)
def generate(body: ImagesRequest) -> ImagesAnswer:
    teacher = body.model.endswith(":teacher")
    steps = body.num_inference_steps or (50 if teacher else 1)
    time.sleep(0.004 * steps)
    label = body.class_label if body.class_label is not None else int(body.prompt or 0)
    first = body.seed if body.seed is not None else 1234
    images = [
        fake_data.noisy(fake_data.digits()[(first + i) % 16, label], 0.02 + 0.1 / steps, i) for i in range(body.n)
    ]
    data = [
        Image(b64_json=base64.b64encode(fake_data.bare_png(image)).decode(), seed=first + i)
        for i, image in enumerate(images)
    ]
    ms = 9.1 + 4 * steps
    return ImagesAnswer(
        created=int(time.time()), data=data, model=body.model, num_inference_steps=steps, duration_ms=ms
    )


@app.get("/version")
def version() -> Version:
    return Version(version="0.1.0", schema_revision="0005")


@app.get("/{path:path}", include_in_schema=False)
def dashboard(path: str) -> FileResponse:
    file = (DIST / path).resolve()
    return FileResponse(file if path and file.is_file() and DIST in file.parents else DIST / "index.html")
