"""Which jobs a teacher of each family and a dataset can feed, and that the workers agree."""

import warnings
from typing import Any

import pytest
from pydantic import ValidationError
from tiny_all import TINY

from service import compatibility
from service.errors import InvalidRequest
from service.families import EDM_SCHEDULERS, FLOWS, ONE_SIZE, PIPELINES
from service.methods import METHODS
from service.spec import JobSpec
from service.tables import Dataset, Teacher
from workers.methods.registry import REGISTRY


def teacher(family: str) -> Teacher:
    text = any(one.name == family and one.text for one in PIPELINES.values())
    size = [1, 8, 8] if family == "unet2d" else [3, 512, 512]
    return Teacher(name="t", family=family, text=text, num_classes=None if text else 1000, image_size=size)


def dataset(format: str, content: str, classes: int | None = None) -> Dataset:
    names = None if classes is None else [str(i) for i in range(classes)]
    return Dataset(name="d", format=format, content=content, samples=1, classes=names)


def misfits(family: str, data: Dataset | None = None, **spec: Any) -> dict[str, str]:
    """By pointer."""
    asked = {"teacher": "t", **({"prompts": ["a cat"]} if teacher(family).text and data is None else {}), **spec}
    try:
        compatibility.check(JobSpec.model_validate(asked), teacher(family), data)
    except InvalidRequest as error:
        return {wrong.pointer: wrong.detail for wrong in error.pointers}
    return {}


def named(sentence: str) -> list[str]:
    """The methods at the end of a sentence."""
    return sentence.rsplit(": ", 1)[1].rstrip(".").split(", ")


@pytest.mark.parametrize("family", ["unet2d", *(family.name for family in PIPELINES.values())])
def test_prompts_are_for_teachers_of_text(family: str) -> None:
    spec = {"method": {"kind": "reflow", "guidance_scale": 3}}
    assert misfits(family, **spec) == {}
    if teacher(family).text:
        assert "list the prompts" in misfits(family, **spec, prompts=None)["/prompts"]
    else:
        assert "takes no text" in misfits(family, **spec, prompts=["a cat"])["/prompts"]


@pytest.mark.parametrize("family", [family.name for family in PIPELINES.values()])
def test_what_a_pipeline_refuses_names_what_fits_it(family: str) -> None:
    fitting = {kind for kind in METHODS if not misfits(family, method={"kind": kind})}
    assert {"dmd2", "reflow", "ladd", "sdi"} <= fitting
    for kind in METHODS.keys() - fitting:
        found = misfits(family, method={"kind": kind})
        assert found.keys() == {"/method/kind"}
        assert set(named(found["/method/kind"])) == fitting
    images = misfits(family, method={"kind": "progressive"})["/method/kind"]
    assert "progressive as it is set needs training images" in images
    assert "register a dataset of images" in images
    assert "These need none: " in images
    assert "such as where a step leads" in misfits(family, method={"kind": "shortcut"})["/method/kind"]
    flow = "is a rectified flow" in misfits(family, method={"kind": "tcd"})["/method/kind"]
    assert flow is (family in FLOWS)


NOTHING, CLASSES = dataset("images", "nothing"), dataset("images", "classes", 1000)
CAPTIONS, PROMPTS = dataset("webdataset", "captions"), dataset("prompts", "captions")
BOTH = dataset("huggingface", "captions", 10)


@pytest.mark.parametrize(
    ("family", "data", "pointer", "sentence"),
    [
        ("sdxl", CAPTIONS, None, ""),
        ("sdxl", BOTH, None, ""),
        ("sdxl", PROMPTS, "/method/kind", "dataset 'd' holds prompts alone"),
        ("sdxl", NOTHING, "/data", "have no captions"),
        ("sdxl", CLASSES, "/data", "have no captions"),
        ("dit", CLASSES, None, ""),
        ("dit", BOTH, None, ""),
        ("dit", dataset("images", "classes", 1001), "/data", "has 1001 classes, and teacher 't' knows 1000"),
        ("dit", NOTHING, "/data", "have no classes"),
        ("dit", CAPTIONS, "/data", "have no classes"),
        ("unet2d", CLASSES, None, ""),
    ],
)
def test_what_a_dataset_feeds_to_a_method_of_images(
    family: str, data: Dataset, pointer: str | None, sentence: str
) -> None:
    found = misfits(family, data, method={"kind": "progressive"})
    assert found.keys() == ({pointer} if pointer else set())
    assert sentence in found.get(str(pointer), "")


@pytest.mark.parametrize("data", [NOTHING, CLASSES, CAPTIONS, BOTH])
def test_a_teacher_that_is_asked_for_nothing_takes_any_images(data: Dataset) -> None:
    plain = Teacher(name="t", family="unet2d", text=False, num_classes=None, image_size=[3, 32, 32])
    spec = JobSpec.model_validate({"teacher": "t", "method": {"kind": "progressive"}})
    compatibility.check(spec, plain, data)
    for without in (None, PROMPTS):
        with pytest.raises(InvalidRequest, match="needs training images"):
            compatibility.check(spec, plain, without)


def test_a_text_teacher_is_asked_by_prompts_or_by_captions() -> None:
    method = {"kind": "reflow"}
    assert misfits("sdxl", PROMPTS, method=method) == {}
    assert misfits("sdxl", CAPTIONS, method=method) == {}
    assert "not by both" in misfits("sdxl", PROMPTS, method=method, prompts=["a fox"])["/prompts"]
    assert "holds prompts alone" in misfits("dit", PROMPTS, method=method)["/data"]
    assert "in `data`" in misfits("sdxl", method=method, prompts=None)["/prompts"]


def test_with_images_the_methods_that_need_them_are_named_too() -> None:
    found = misfits("dit", CLASSES, method={"kind": "shortcut"})["/method/kind"]
    assert {"progressive", "reflow"} <= set(named(found))
    assert "progressive" not in named(misfits("dit", method={"kind": "shortcut"})["/method/kind"])


def test_several_sizes_are_for_images_and_for_networks_that_take_them() -> None:
    def refusal(family: str, data: Dataset | None, kind: str = "progressive") -> str:
        return misfits(family, data, aspect_buckets=True, method={"kind": kind}).get("/aspect_buckets", "")

    assert refusal("sdxl", CAPTIONS) == ""
    assert "name a dataset of images in `data`" in refusal("sdxl", None)
    assert "name a dataset of images in `data`" in refusal("sdxl", PROMPTS)
    assert "reflow as set here learns from no images" in refusal("sdxl", CAPTIONS, "reflow")
    assert "takes images of its own size alone" in refusal("dit", CLASSES)
    assert "takes images of its own size alone" in refusal("unet2d", CLASSES)


@pytest.mark.parametrize(
    "name", ["stable-diffusion-1", "sdxl", "sd3", "flux-dev", "pixart-sigma", "sana", "z-image", "dit"]
)
def test_the_workers_take_several_sizes_where_the_service_says_so(name: str) -> None:
    family = TINY[name].family
    network = family.of(TINY[name].make(), ["a", "b"])
    assert (network.multiple() is None) is (PIPELINES[family.pipeline.__name__].name in ONE_SIZE)


def test_a_pipelines_student_has_its_size() -> None:
    small = {"kind": "reflow", "student_width": 0.5, "student_depth": 0.5}
    found = misfits("sdxl", stages=[{"method": {"kind": "reflow"}}, {"method": small}])
    assert found.keys() == {"/stages/1/method/student_width", "/stages/1/method/student_depth"}
    assert all(detail.startswith("Set it to 1: ") for detail in found.values())
    assert misfits("unet2d", method=small) == {}


def edm_misfits(method: dict[str, Any]) -> dict[str, str]:
    """Of a teacher with EDM's preconditioning, for whose size there are images."""
    edm = Teacher(name="t", family="unet2d", text=False, num_classes=10, image_size=[1, 8, 8])
    edm.scheduler = EDM_SCHEDULERS[0]
    try:
        compatibility.check(JobSpec.model_validate({"teacher": "t", "method": method}), edm)
    except InvalidRequest as error:
        return {wrong.pointer: wrong.detail for wrong in error.pointers}
    return {}


@pytest.mark.parametrize("kind", ["ect", "dmd2", "ctm", "progressive", "reflow"])
def test_what_edm_networks_take(kind: str) -> None:
    assert edm_misfits({"kind": kind}) == {}


def test_what_edm_networks_refuse_names_what_fits_them() -> None:
    several = edm_misfits({"kind": "dmd2", "steps": 4})
    assert several.keys() == {"/method/steps"}
    assert "Set it to 1: teacher 't' has EDM's preconditioning" in several["/method/steps"]
    tcd = edm_misfits({"kind": "tcd"})
    assert tcd.keys() == {"/method/kind"}
    assert "takes the steps of tcd" in tcd["/method/kind"]
    assert {"ect", "dmd2", "progressive"} <= set(named(tcd["/method/kind"]))


def with_steps(kind: str, steps: int) -> dict[str, Any]:
    """A method's settings with so many steps of the student, where it is asked for them and takes so many."""
    asked = {"kind": kind, "steps": steps}
    try:
        METHODS[kind].model_validate(asked)
    except ValidationError:
        return {"kind": kind}
    return asked


@pytest.mark.parametrize("steps", [1, 2])
def test_the_workers_cannot_run_what_edm_networks_refuse_and_can_run_the_rest(steps: int) -> None:
    network = TINY["edm"].family.of(TINY["edm"].make()).eval().requires_grad_(False)
    for kind, method in REGISTRY.items():
        asked = with_steps(kind, steps)
        refused = bool(edm_misfits(asked))
        try:
            made = method(METHODS[kind].model_validate(asked), network, network)
            for segment in range(len(made.segments())):
                assert made.sampler(segment).sigma_max == 80
        except ValueError:
            assert refused, kind
        else:
            assert not refused, kind


@pytest.mark.parametrize("name", ["dit", "sd3"])
def test_the_workers_cannot_run_what_is_refused_and_can_run_the_rest(name: str) -> None:
    """Whether there are images to train on aside."""
    adapter = TINY[name].family
    network = adapter.of(TINY[name].make(), ["a", "b"]).eval().requires_grad_(False)
    for kind, method in REGISTRY.items():
        settings = METHODS[kind](kind=kind)
        refused = settings.own_network() or (name in FLOWS and not settings.fits_flows)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = method(settings, network, network)
                for segment in range(len(made.segments())):
                    made.sampler(segment)
        except (NotImplementedError, ValueError):
            assert refused, kind
        else:
            assert not refused, kind
