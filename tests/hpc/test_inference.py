"""What using networks will cost, said before it starts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from estimating import CPU, GPU, estimated

from affect_hpc.config.drawing import Experiment
from affect_hpc.config.edit import Inverter
from affect_hpc.config.root import Config
from affect_hpc.config.sampling import Sampler
from affect_hpc.config.sizes import classifier_size, decoder_size, unet_size
from affect_hpc.config.train import Precision
from affect_hpc.hpc.estimates import trainings
from affect_hpc.hpc.graph import Edge, Node
from affect_hpc.hpc.plans import plan

Change = Callable[..., Config]


def test_an_edit_costs_two_passes_for_each_step_and_target(thesis: dict[str, Node]) -> None:
    node, invert = thesis["manipulate"], thesis["invert_latents"]
    ldm, stage = thesis["train_ldm"].config, thesis["train_vqgan"].config.first_stage
    unet, back = unet_size(ldm.unet, ldm.condition, 3, 32).macs, decoder_size(stage, 128).macs
    targets = len(node.config.targets)
    images = targets + 1
    found = estimated(node)
    assert found.flops == 2 * (targets * 2 * 40 * unet + images * back), "the round trip is in the inversion already"
    assert found.batch == 32 * images
    assert found.flops_run == 0, "how many faces there are only the prepared corpus can tell"
    plain = replace(node, config=replace(node.config, gamma=1.0))
    assert estimated(plain).flops == 2 * images * (40 * unet + back), "with another guidance it has no round trip yet"
    for inverter, passes in {Inverter.ddim: 2, Inverter.direct: 3, Inverter.fixed_point: 5}.items():
        other = replace(invert, config=replace(invert.config, inverter=inverter))
        assert estimated(other).flops == 2 * (passes * 2 * 40 * unet + 2 * back), "one pass is for the certificate"


def test_the_faces_of_an_edit_are_those_that_were_encoded(thesis: dict[str, Node]) -> None:
    (edge,) = thesis["invert_latents"].parents["latents"]
    assert isinstance(edge, Edge)
    encoded = replace(edge.node, config=replace(edge.node.config, num_samples=10))
    few = replace(thesis["invert_latents"], parents={**thesis["invert_latents"].parents, "latents": (Edge(encoded),)})
    assert estimated(few).flops_run == 10 * estimated(few).flops


def test_mirrored_latents_cost_twice(thesis: dict[str, Node]) -> None:
    node = thesis["encode_latents"]
    mirrored = estimated(replace(node, config=replace(node.config, flip=True)))
    assert mirrored.flops == 2 * estimated(node).flops


def generation(thesis: Config, tmp_path: Path, sampler: dict[str, object], **values: object) -> dict[str, Node]:
    """The nodes of faces from noise, by kind, where values below sampler and generation are others."""
    point = replace(thesis, experiment=Experiment.generation, store=str(tmp_path))
    point.generation = replace(point.generation, **values)  # type: ignore[arg-type]
    drawing = point.stages.generate
    drawing = replace(drawing, sampler=replace(drawing.sampler, **sampler), **values)  # type: ignore[arg-type]
    point.stages = replace(point.stages, generate=drawing)
    return plan([point])[1][0]


@pytest.fixture
def prices(thesis: dict[str, Node]) -> tuple[int, int]:
    """Multiply-adds of one prediction and of one decoded face."""
    ldm, stage = thesis["train_ldm"].config, thesis["train_vqgan"].config.first_stage
    return unet_size(ldm.unet, ldm.condition, 3, 32).macs, decoder_size(stage, 128).macs


@pytest.mark.parametrize(
    ("settings", "predictions"),
    [
        ({"gamma": 1.0}, 500),
        ({"gamma": 0.0}, 500),
        ({"gamma": 3.0}, 1000),
        ({"name": Sampler.plms, "num_steps": 50}, 51),
        ({"name": Sampler.dpm_solver, "num_steps": 20}, 20),
        ({"name": Sampler.ddpm, "num_steps": 10, "gamma": 2.0, "gamma_from": 401}, 16),
    ],
)
def test_a_face_from_noise_costs_what_its_solver_asks(
    composed_thesis: Config, tmp_path: Path, prices: tuple[int, int], settings: dict[str, object], predictions: int
) -> None:
    unet, back = prices
    nodes = generation(composed_thesis, tmp_path, settings)
    node = nodes["generate"]
    found = estimated(node)
    assert found.flops == 2 * (predictions * unet + back)
    assert found.flops_run == found.flops * 8 * node.config.per_class
    guided = generation(composed_thesis, tmp_path, settings, classifier_scale=1.0)
    classifier = classifier_size(guided["train_classifier"].config.channels, 3, 8, 32)
    levels = settings.get("num_steps", 500) + (settings.get("name") is Sampler.plms)
    assert estimated(guided["generate"]).flops - found.flops == 2 * 2 * levels * classifier.macs, "there and back"


def test_a_classifier_of_latents_is_a_training(composed_thesis: Config, tmp_path: Path) -> None:
    node = generation(composed_thesis, tmp_path, {}, classifier_scale=1.0)["train_classifier"]
    found = estimated(node)
    size = classifier_size(node.config.channels, 3, 8, 32)
    assert (found.parameters, found.flops, found.trains) == (size.parameters, 2 * size.macs, True)
    assert found.flops_run == 3 * found.flops * node.config.train.samples_total
    assert set(trainings(node)) == {"train"}


def test_a_way_costs_both_ends_and_all_places(composed_thesis: Config, tmp_path: Path, prices: tuple[int, int]) -> None:
    unet, back = prices
    point = replace(composed_thesis, experiment=Experiment.interpolation, store=str(tmp_path))
    node = plan([point])[1][0]["interpolate"]
    found = estimated(node)
    assert (node.config.num_points, node.config.num_steps, node.config.gamma) == (10, 20, 1)
    assert found.flops == 2 * (12 * 20 * unet + 12 * back)
    assert (found.sample, found.flops_run) == ("pair", node.config.pairs * found.flops)
    guided = replace(node, config=replace(node.config, gamma=3.0))
    assert estimated(guided).flops == 2 * (12 * 40 * unet + 12 * back)


def test_a_network_that_predicts_in_bfloat16_is_a_copy(thesis: dict[str, Node]) -> None:
    node, ldm = thesis["manipulate"], thesis["train_ldm"].config
    wide, narrow = (
        estimated(replace(node, config=replace(node.config, precision=precision))).memory["weights"]
        for precision in (Precision.fp32, Precision.bf16)
    )
    labels = (ldm.condition.num_classes + 1) * ldm.condition.dim
    assert narrow - wide == 2 * (unet_size(ldm.unet, ldm.condition, 3, 32).parameters + labels)


def test_a_cpu_takes_large_batches_in_shares(thesis: dict[str, Node]) -> None:
    node = thesis["manipulate"]
    wide, narrow = (estimated(node, asked).memory["activations"] for asked in (GPU, CPU))
    ldm, stage = thesis["train_ldm"].config, thesis["train_vqgan"].config.first_stage
    shares = 16 * unet_size(ldm.unet, ldm.condition, 3, 32).live, 4 * decoder_size(stage, 128).live
    assert narrow == max(shares) < wide / 10
