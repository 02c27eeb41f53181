"""Which jobs a teacher of each family can feed, and that the workers agree."""

import warnings
from typing import Any

import pytest
from tiny_all import TINY

from service import compatibility
from service.errors import InvalidRequest
from service.families import FLOWS, PIPELINES
from service.methods import METHODS
from service.spec import JobSpec
from service.tables import Teacher
from workers.methods.registry import REGISTRY


def teacher(family: str) -> Teacher:
    text = any(one.name == family and one.text for one in PIPELINES.values())
    size = [1, 8, 8] if family == "unet2d" else [3, 512, 512]
    return Teacher(name="t", family=family, text=text, num_classes=None if text else 1000, image_size=size)


def misfits(family: str, **spec: Any) -> dict[str, str]:
    """By pointer."""
    asked = {"teacher": "t", **({"prompts": ["a cat"]} if teacher(family).text else {}), **spec}
    try:
        compatibility.check(JobSpec.model_validate(asked), teacher(family))
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
    assert "These need none: " in images
    assert "such as where a step leads" in misfits(family, method={"kind": "shortcut"})["/method/kind"]
    flow = "is a rectified flow" in misfits(family, method={"kind": "tcd"})["/method/kind"]
    assert flow is (family in FLOWS)


def test_a_pipelines_student_has_its_size() -> None:
    small = {"kind": "reflow", "student_width": 0.5, "student_depth": 0.5}
    found = misfits("sdxl", stages=[{"method": {"kind": "reflow"}}, {"method": small}])
    assert found.keys() == {"/stages/1/method/student_width", "/stages/1/method/student_depth"}
    assert all(detail.startswith("Set it to 1: ") for detail in found.values())
    assert misfits("unet2d", method=small) == {}


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
