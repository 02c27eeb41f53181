"""How the estimate moves with a job's settings, and what is advised where it does not fit."""

from dataclasses import replace
from typing import Any

from service import memory
from service.footprint import Footprint
from service.memory import Costs
from service.spec import JobSpec

MILLION = 10**6
COSTS = Costs(
    MILLION,
    Footprint(
        kept=4 * MILLION,
        kept_for_weights=2 * MILLION,
        kept_for_updates=MILLION,
        kept_by_blocks=MILLION // 2,
        passing=1000,
        low_rank_weights=1000,
        low_rank_places=100,
        flops=10**9,
        attention=10**8,
        highest_rank=500,
        block=MILLION // 10,
        gathered=MILLION // 4,
        prompt=50,
        encoders=2 * MILLION,
        decoding=1000,
    ),
    conditions=3,
)
KD = {"kind": "kd", "batch_size": 8, "student_width": 1}


DMD2 = {"kind": "dmd2", "batch_size": 8}


def job(*methods: dict[str, Any], workers: int = 1, gpus: float = 1, **compute: Any) -> JobSpec:
    told = {"stages": [{"method": method} for method in methods], "compute": compute}
    resources = {"workers": workers, "gpus_per_worker": gpus}
    return JobSpec.model_validate({"teacher": "t", "resources": resources} | told)


def weights(*methods: dict[str, Any], **how: Any) -> float:
    """As many times the teacher's."""
    return memory.peak(job(*methods, **how), COSTS).weights / (4 * MILLION)


def test_every_part_of_a_plain_job() -> None:
    found = memory.peak(job(KD), COSTS)
    assert found.weights == 3 * 4 * MILLION
    assert found.optimizer == 2 * 4 * MILLION
    assert found.gradients == 4 * MILLION
    assert found.activations == 8 * 4 * 6 * MILLION - 2 * MILLION  # half of the gradients are not there yet
    assert found.encoders == 4 * (2 * MILLION + 4 * 50)
    assert found.total == sum((found.weights, found.optimizer, found.gradients, found.activations, found.encoders))


def test_workers_and_parts_split_the_batch_alike() -> None:
    whole = memory.peak(job(KD), COSTS)
    parts = memory.peak(job(KD | {"micro_batches": 4}), COSTS)
    assert parts.activations == 2 * 4 * 6 * MILLION
    assert parts.weights == whole.weights
    assert memory.peak(job(KD, workers=4), COSTS).activations < whole.activations / 3
    assert memory.flops(job(KD), COSTS) == memory.flops(job(KD | {"micro_batches": 4}), COSTS) == 3 * 8 * 10**9
    assert memory.flops(job(KD, workers=4), COSTS) == 3 * 2 * 10**9


def test_a_backward_pass_through_frozen_weights_saves_what_they_would_take_but_not_what_attention_does() -> None:
    assert memory.flops(job(KD | {"lora_rank": 10}), COSTS) == 8 * (2 * 10**9 + 10**8)
    assert memory.flops(job(KD | {"lora_rank": 10}, activation_checkpointing=True), COSTS) == 8 * (3 * 10**9 + 10**8)


def test_a_chain_needs_what_its_largest_stage_needs_and_the_students_before_it() -> None:
    alone = memory.peak(job(KD), COSTS)
    after = memory.peak(job(KD | {"batch_size": 1}, KD), COSTS)
    assert after.weights == alone.weights + 4 * MILLION, "what the stage starts from"
    assert after.activations == alone.activations
    here = memory.peak(job(KD | {"batch_size": 1}, KD, gpus=0), COSTS)
    assert here.weights == after.weights + 4 * MILLION, "without a device, the student set aside is beside it"


def test_low_rank_updates_are_added_to_one_base_that_all_networks_share() -> None:
    low = {"lora_rank": 10}
    full, adapted = memory.peak(job(KD), COSTS), memory.peak(job(KD | low), COSTS)
    assert adapted.optimizer == 2 * 4 * 10_000
    assert adapted.weights == 4 * (MILLION + 2 * 10_000)
    assert full.activations * 0.8 < adapted.activations < full.activations
    assert weights(DMD2) == 4
    assert weights(DMD2 | low) == 2 + 2 * 0.01, "the fake score is a network of its own"
    assert weights(DMD2 | low | {"fake_lora_rank": 20}) == 1 + 2 * 0.01 + 0.02
    assert weights({"kind": "ufogen"} | low | {"critic_lora_rank": 20}) == 1 + 2 * 0.01 + 0.02


def test_rounding_halves_activations_and_keeps_rounded_weights_beside_the_others() -> None:
    parts = KD | {"micro_batches": 2}
    plain, half = memory.peak(job(parts), COSTS), memory.peak(job(parts, precision="bf16"), COSTS)
    assert (half.weights, half.gradients) == (plain.weights, plain.gradients)
    assert half.activations == plain.activations / 2 + 2 * MILLION
    exact = replace(COSTS, footprint=replace(COSTS.footprint, kept_in_float=0.5))
    assert memory.peak(job(parts, precision="bf16"), exact).activations == plain.activations * 3 / 4 + 2 * MILLION


def test_blocks_that_are_run_again_keep_their_inputs_and_the_rounded_weights_of_one() -> None:
    parts = KD | {"batch_size": 32, "micro_batches": 2}
    assert memory.peak(job(parts, activation_checkpointing=True), COSTS).activations == 16 * 4 * MILLION // 2
    both = memory.peak(job(parts, activation_checkpointing=True, precision="fp16"), COSTS)
    assert both.activations == 16 * 2 * MILLION // 2 + 2 * MILLION // 10


def test_split_networks_are_spread_but_for_what_low_rank_updates_are_added_to() -> None:
    split = {"workers": 4, "strategy": "fsdp"}
    whole, spread = memory.peak(job(KD, workers=4), COSTS), memory.peak(job(KD, **split), COSTS)
    assert (spread.weights, spread.optimizer, spread.gradients) == tuple(
        part // 4 for part in (whole.weights, whole.optimizer, whole.gradients)
    )
    assert spread.activations == 2 * 4 * 6 * MILLION - 2 * MILLION + MILLION, "a part is whole while it is run"
    assert weights(KD | {"lora_rank": 10}, **split) == 1 + (1 + 2 * 0.01) / 4
    assert weights(KD, **split, gpus=0) == 1 + 3 / 4, "on CPUs the teacher that is judged is in the same memory"
    assert memory.peak(job(KD, workers=1, strategy="fsdp"), COSTS) == memory.peak(job(KD), COSTS)


def test_encoders_are_away_while_training_and_there_at_the_start() -> None:
    plain, away = memory.peak(job(KD), COSTS), memory.peak(job(KD, offload=True), COSTS)
    assert plain.encoders - away.encoders == 4 * 2 * MILLION
    assert memory.peak(job(KD, offload=True, gpus=0), COSTS) == memory.peak(job(KD, gpus=0), COSTS)
    small = KD | {"batch_size": 1, "lora_rank": 1}
    large = replace(COSTS, footprint=replace(COSTS.footprint, encoders=50 * MILLION))
    opened = memory.peak(job(small, offload=True), large)
    assert (opened.weights, opened.optimizer) == (4 * MILLION, 0)
    assert opened.encoders >= 4 * 50 * MILLION


def test_teacher_and_student_are_judged_in_turns_where_there_is_a_device() -> None:
    wide = replace(COSTS, footprint=replace(COSTS.footprint, passing=MILLION))
    spec = KD | {"batch_size": 1, "lora_rank": 1, "guidance_scale": 2.0}

    def judged(costs: Costs = wide, **how: Any) -> memory.Memory:
        return memory.phases(job(spec, **how), costs)["evaluating"]

    assert judged().weights == 4 * MILLION
    assert judged().activations == 4 * 16 * MILLION, "eight images at once, under guidance"
    assert judged().encoders == 4 * (2 * MILLION + 4 * 50)
    assert (judged().optimizer, judged().gradients) == (0, 0)
    assert judged(gpus=0).weights == 2 * 4 * MILLION + 4 * 1000, "and the update, which is set aside"
    assert judged(gpus=0).encoders == 2 * judged().encoders
    assert judged(offload=True).encoders == 4 * 4 * 50
    pixels = replace(wide, footprint=replace(wide.footprint, encoders=0))
    assert judged(pixels).activations == 4 * 500 * MILLION
    assert memory.peak(job(spec), pixels) == judged(pixels)


def test_previews_count_guidance_and_a_datasets_captions() -> None:
    wide = replace(COSTS, footprint=replace(COSTS.footprint, passing=MILLION))
    plain, guided = (memory.phases(job(KD | {"guidance_scale": g}), wide)["starting"] for g in (1.0, 2.0))
    assert (plain.activations, guided.activations) == (4 * 6 * MILLION, 4 * 12 * MILLION), "two of each prompt"
    captions = memory.phases(job(KD), replace(wide, conditions=10_000, captions=True))
    assert captions["starting"].activations == 4 * 8 * MILLION, "eight at once"
    assert captions["starting"].encoders == 4 * (2 * MILLION + 2 * 50)
    assert captions["training"].encoders == 4 * (2 * MILLION + 9 * 50), "those of a batch"
    assert captions["evaluating"].encoders == 4 * (2 * MILLION + 501 * 50), "those that a student is shown with"


def test_a_datasets_images_are_encoded_beside_everything_else() -> None:
    wide = replace(COSTS, footprint=replace(COSTS.footprint, decoding=MILLION))
    learns_images = job({"kind": "lcm"}, offload=True)
    bare, encoding = (memory.phases(spec, wide)["starting"] for spec in (learns_images, with_data(learns_images)))
    assert encoding.total == bare.total + 4 * MILLION
    assert memory.phases(with_data(job(KD, offload=True)), wide)["starting"] == bare, "pairs are made without them"


def with_data(spec: JobSpec) -> JobSpec:
    return spec.model_copy(update={"data": "photos"})


def test_samples_come_in_rollouts_of_all_steps() -> None:
    four = DMD2 | {"steps": 4, "micro_batches": 8}
    assert memory.peak(job(four), COSTS) == memory.peak(job(four | {"micro_batches": 2}), COSTS)


def test_making_pairs_counts_where_it_takes_more_than_learning_from_them() -> None:
    wide = replace(COSTS, footprint=replace(COSTS.footprint, passing=20 * MILLION), conditions=1)
    found = memory.phases(job(KD), wide)["training"]
    assert (found.optimizer, found.gradients) == (0, 0)
    assert found.activations == 8 * 4 * 20 * MILLION
    assert memory.phases(job(KD | {"guidance_scale": 3.0}), wide)["training"] == found, (
        "half as many at once, of two rows each"
    )
    assert memory.phases(job(KD | {"micro_batches": 2}), wide)["training"].activations == 4 * 4 * 20 * MILLION
    spread = memory.phases(job(KD, workers=2, strategy="fsdp"), wide)["training"]
    assert spread.activations == 4 * 4 * 20 * MILLION + 4 * MILLION, "the teacher is not split yet"
    images = {"kind": "ladd", "batch_size": 8, "real": "images"}
    assert memory.phases(job(images), wide)["training"].optimizer > 0
