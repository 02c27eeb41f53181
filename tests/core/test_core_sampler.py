"""The students' sampler against diffusers' own schedulers and pipeline, and the teachers' folder against bad input."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch

from service.errors import TeacherInvalid
from workers.diffusion.guidance import Guided, guided
from workers.diffusion.paths import VPCosine
from workers.diffusion.sampler import SamplerSpec, consistency_function, sample, seeded
from workers.models.unet2d import UNetDenoiser, load_teacher, scheduler_config, teacher_scheduler

SCHEDULES = {"squaredcos_cap_v2": {}, "linear": {"beta_start": 1e-4, "beta_end": 0.02}}


def small_folder(
    folder: Path, prediction: str = "v_prediction", schedule: str = "squaredcos_cap_v2", classes: int | None = 4
) -> Path:
    torch.manual_seed(3)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), layers_per_block=1,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, add_attention=False,
        norm_num_groups=4, num_class_embeds=classes,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule, prediction_type=prediction, timestep_spacing="trailing", clip_sample=False,
        **SCHEDULES[schedule],
    )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    index = {"unet": ["diffusers", "UNet2DModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("classes", [4, None])
@pytest.mark.parametrize(
    ("prediction", "schedule"),
    [("v_prediction", "squaredcos_cap_v2"), ("sample", "squaredcos_cap_v2"), ("epsilon", "linear")],
)
@pytest.mark.parametrize("kind", ["ddim", "ancestral", "renoise", "gamma"])
def test_sampler_equals_diffusers_with_the_exported_scheduler(
    tmp_path: Path, kind: str, prediction: str, schedule: str, classes: int | None
) -> None:
    folder = small_folder(tmp_path, prediction, schedule, classes)
    teacher = load_teacher(folder)
    spec = SamplerSpec(kind, (1, 2, 3, 4, 8))  # type: ignore[arg-type]
    name, config = spec.scheduler_config(scheduler_config(folder))
    scheduler = getattr(diffusers, name).from_config(config)
    pipeline = diffusers.ConsistencyModelPipeline(unet=teacher.unet, scheduler=scheduler)
    pipeline.set_progress_bar_config(disable=True)
    labels = None if classes is None else torch.tensor([0, 1, 2, 0, 1])
    for steps in spec.steps:
        ours = sample(teacher, spec, steps, labels, seeded(range(5)))
        theirs = pipeline(5, labels, steps, generator=seeded(range(5)), output_type="pt").images
        assert scheduler.timesteps.tolist() == spec.timesteps(steps)
        assert (ours / 2 + 0.5).clamp(0, 1) == pytest.approx(theirs, abs=1e-5)


def test_an_image_depends_on_its_own_seed_and_label_alone(tmp_path: Path) -> None:
    teacher = load_teacher(small_folder(tmp_path))
    spec = SamplerSpec("renoise", (4,))
    together = sample(teacher, spec, 4, torch.tensor([0, 1, 2]), seeded([7, 8, 9]))
    alone = sample(teacher, spec, 4, torch.tensor([1]), seeded([8]))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_fewer_steps_use_a_subset_of_the_times() -> None:
    for kind in ("ddim", "ancestral", "renoise"):
        spec = SamplerSpec(kind, (1, 2, 4, 8))  # type: ignore[arg-type]
        assert set(spec.timesteps(1)) < set(spec.timesteps(2)) < set(spec.timesteps(4)) < set(spec.timesteps(8))
        assert spec.timesteps(4)[0] == 999
        assert spec.times(4)[-1][1] == 0


def test_a_sampler_refuses_steps_that_its_scheduler_cannot_take() -> None:
    with pytest.raises(ValueError, match="1 to 50 steps"):
        SamplerSpec("renoise", (51,))
    with pytest.raises(ValueError, match="1 to 1000 steps"):
        SamplerSpec("ddim", ())


def test_the_consistency_function_is_the_identity_at_time_zero() -> None:
    x, x0 = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    assert torch.equal(consistency_function(x, x0, zero, VPCosine()), x)
    torch.testing.assert_close(consistency_function(x, x0, one, VPCosine()), x0, rtol=0, atol=1e-5)


def test_guidance_is_u_plus_g_times_the_difference_in_one_forward(tmp_path: Path) -> None:
    teacher = load_teacher(small_folder(tmp_path))
    x, t, labels = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5, dtype=torch.float64), torch.tensor([0, 1, 2])
    calls: list[int] = []
    handle = teacher.unet.register_forward_hook(lambda module, args, out: calls.append(len(args[0])))
    got = Guided(teacher, 2.5).predict(x, t, labels, "eps")
    handle.remove()
    assert calls == [6]
    assert teacher.null_label == teacher.num_classes == 3
    c, u = teacher.predict(x, t, labels, "eps"), teacher.predict(x, t, torch.full((3,), 3), "eps")
    torch.testing.assert_close(got, u + 2.5 * (c - u), rtol=1e-4, atol=1e-5)
    assert guided(teacher, 1.0) is teacher


def test_guidance_of_an_unconditional_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="guidance_scale is 2"):
        guided(load_teacher(small_folder(tmp_path, classes=None)), 2)


def test_conditions_start_alike(tmp_path: Path) -> None:
    for i, classes in enumerate((4, None)):
        teacher = load_teacher(small_folder(tmp_path / str(i), classes=classes))
        many = teacher.with_conditions(3)
        x, t = torch.randn(3, 1, 8, 8), torch.full((3,), 0.5, dtype=torch.float64)
        labels = None if classes is None else torch.tensor([0, 1, 2])
        for condition in range(3):
            rows = torch.full((3,), condition) * (1 if classes is None else classes) + (0 if labels is None else labels)
            torch.testing.assert_close(many.raw(x, t, rows), teacher.raw(x, t, labels), rtol=1e-4, atol=1e-5)


def test_features_are_the_networks_own_blocks(tmp_path: Path) -> None:
    teacher = load_teacher(small_folder(tmp_path))
    x, t, labels = torch.randn(2, 1, 8, 8), torch.full((2,), 0.5, dtype=torch.float64), torch.tensor([0, 1])
    blocks = [*(block.resnets[-1] for block in teacher.unet.down_blocks), teacher.unet.mid_block]
    seen: list[torch.Tensor] = []
    handles = [block.register_forward_hook(lambda module, args, out: seen.append(out)) for block in blocks]
    teacher.raw(x, t, labels)
    for handle in handles:
        handle.remove()
    features = teacher.features(x, t, labels)
    assert all(torch.equal(a, b) for a, b in zip(features, seen, strict=True))
    assert tuple(h.shape[1] for h in features) == teacher.feature_channels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_folder(tmp_path / "teacher")


def edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_folder_without_a_scheduler_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(TeacherInvalid, match=r"scheduler/scheduler_config\.json"):
        load_teacher(folder)


def test_pickled_weights_are_refused(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(TeacherInvalid, match="safetensors"):
        load_teacher(folder)


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(TeacherInvalid, match="cannot be loaded"):
        load_teacher(folder)


def test_another_network_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["somewhere", "Else"])
    with pytest.raises(TeacherInvalid, match="UNet2DModel"):
        load_teacher(folder)


def test_a_network_of_unknown_size_is_refused(folder: Path) -> None:
    edit(folder / "unet" / "config.json", sample_size=None)
    with pytest.raises(TeacherInvalid, match="sample_size None"):
        load_teacher(folder)


def test_an_unknown_prediction_type_is_refused(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction")
    with pytest.raises(TeacherInvalid, match="flow_prediction"):
        load_teacher(folder)


def test_epsilon_from_pure_noise_is_refused(folder: Path) -> None:
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(TeacherInvalid, match="pure noise"):
        load_teacher(folder)


def test_a_teacher_written_for_another_scheduler_keeps_its_noise_schedule(folder: Path) -> None:
    config = scheduler_config(folder) | {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 2}
    ours = load_teacher(folder)
    assert isinstance(ours, UNetDenoiser)
    torch.testing.assert_close(
        teacher_scheduler(config).alphas_cumprod, teacher_scheduler(scheduler_config(folder)).alphas_cumprod
    )
