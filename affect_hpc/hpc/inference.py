"""The arithmetic and memory of runs that use networks without training them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from affect_hpc.config.drawing import GenerateConfig, InterpolateConfig
from affect_hpc.config.edit import Inverter, timesteps
from affect_hpc.config.sampling import Sampler
from affect_hpc.config.sizes import DECODER_CPU_BATCH, UNET_CPU_BATCH
from affect_hpc.config.stages import InvertLatentsConfig, ManipulateConfig
from affect_hpc.config.train import Precision
from affect_hpc.hpc.graph import Edge, Node
from affect_hpc.hpc.networks import DiffusionModel, Networks


@dataclass(frozen=True)
class Work:
    """Of one run."""

    parameters: int
    """Of the networks at work."""
    macs: float
    """Multiply-adds for one sample."""
    live: float
    """Bytes of activations at the fullest moment."""
    batch: int
    """Samples whose results are in memory at once."""
    samples: int
    """How many there are; 0 = only the prepared corpus can tell."""
    precision: Precision = Precision.fp32
    sample: str = "face"
    """What one is."""


@dataclass(frozen=True)
class Machine:
    """What runs the networks.

    Args:
        on_gpu: a CPU takes a large batch in shares.
    """

    networks: Networks
    on_gpu: bool

    @property
    def ldm(self) -> DiffusionModel:
        """Of a run that has one."""
        assert self.networks.ldm is not None
        return self.networks.ldm

    @property
    def unet_macs(self) -> int:
        """Of one prediction."""
        return self.networks.unet(self.ldm.unet, self.ldm.condition).macs

    @property
    def parameters(self) -> int:
        """Of first stage and, where there is one, diffusion model."""
        own = (self.networks.encoder + self.networks.decoder).parameters
        ldm = self.networks.ldm
        return own + (self.networks.unet(ldm.unet, ldm.condition).parameters if ldm else 0)

    def predicting(self, batch: int) -> float:
        """Bytes alive while the noise of ``batch`` latents is predicted."""
        size = self.networks.unet(self.ldm.unet, self.ldm.condition)
        return float(self._share(batch, UNET_CPU_BATCH) * size.live)

    def decoding(self, batch: int) -> float:
        """The same while they become images."""
        return float(self._share(batch, DECODER_CPU_BATCH) * self.networks.decoder.live)

    def _share(self, batch: int, most: int) -> int:
        return batch if self.on_gpu else min(batch, most)


def work(node: Node, networks: Networks, on_gpu: bool) -> Work | None:
    """What a run does; None for kinds that run no network of ours, and where networks cannot be told."""
    count = KINDS.get(node.kind)
    if count is None or (networks.ldm is None and "ldm" in node.parents):
        return None
    return count(node, Machine(networks, on_gpu))


def _encode(node: Node, machine: Machine) -> Work:
    cfg, encoder = node.config, machine.networks.encoder
    macs, live = encoder.macs * (2 if cfg.flip else 1), float(cfg.batch_size * encoder.live)
    return Work(machine.parameters, macs, live, cfg.batch_size, _faces(node))


def _reconstruct(node: Node, machine: Machine) -> Work:
    batch = node.config.batch_size
    return Work(machine.parameters, machine.networks.decoder.macs, machine.decoding(batch), batch, _faces(node))


def _invert(node: Node, machine: Machine) -> Work:
    cfg: InvertLatentsConfig = node.config
    batch = cfg.batch_size
    # The certificate costs one pass back, and both ends of it as images.
    passes = (_inverting(cfg) + _decoding(cfg)) * _passes(cfg, machine)
    macs = passes * machine.unet_macs + 2 * machine.networks.decoder.macs
    live = max(machine.predicting(_sides(cfg.gamma) * batch), machine.decoding(batch))
    return Work(machine.parameters, macs, live, batch, _faces(node), cfg.precision)


def _manipulate(node: Node, machine: Machine) -> Work:
    cfg: ManipulateConfig = node.config
    images = len(cfg.targets) + (1 if cfg.round_trip else 0)
    # The round trip is in the inversion already, where both passes have the same guidance.
    encoding: InvertLatentsConfig = next(node.edges()).node.config
    edited = images if encoding.gamma != cfg.gamma else len(cfg.targets)
    macs = edited * _decoding(encoding) * _passes(cfg, machine) * machine.unet_macs
    macs += images * machine.networks.decoder.macs
    batch = cfg.batch_size * images
    live = max(machine.predicting(_sides(cfg.gamma) * batch), machine.decoding(batch))
    return Work(machine.parameters, macs, live, batch, _faces(node), cfg.precision)


def _generate(node: Node, machine: Machine) -> Work:
    cfg: GenerateConfig = node.config
    how, batch, count = cfg.sampler, cfg.batch_size, machine.ldm.num_timesteps
    taus = timesteps(how.spacing, how.num_steps, count - 1, count, "sampler")
    # The first step of PLMS looks ahead.
    asked = [*taus, taus[-2]] if how.name is Sampler.plms else taus
    sides = [_sides(how.gamma) if how.gamma_from <= t <= how.gamma_to else 1 for t in asked]
    macs = float(sum(sides) * machine.unet_macs + machine.networks.decoder.macs)
    live = max(machine.predicting(max(sides) * batch), machine.decoding(batch))
    parameters = machine.parameters
    for guide in node.parents.get("classifier", ()):
        assert isinstance(guide, Edge)
        size = machine.networks.classifier(guide.node.config.channels, machine.ldm.condition.num_classes)
        # There, and back to the latent: weights have no gradient.
        macs += 2 * len(asked) * size.macs
        live = max(live, float(batch * size.saved))
        parameters += size.parameters
    samples = cfg.per_class * machine.ldm.condition.num_classes
    return Work(parameters, macs, live, batch, samples, how.precision)


def _interpolate(node: Node, machine: Machine) -> Work:
    cfg: InterpolateConfig = node.config
    # Two ends go there, the places between them come back, and both ends are shown as the first stage has them.
    places = cfg.num_points
    macs = (2 + places) * _passes(cfg, machine) * machine.unet_macs + (places + 2) * machine.networks.decoder.macs
    batch = cfg.batch_size * (places + 2)
    live = max(machine.predicting(_sides(cfg.gamma) * cfg.batch_size * places), machine.decoding(batch))
    return Work(machine.parameters, macs, live, batch, cfg.pairs, cfg.precision, "pair")


KINDS: Mapping[str, Callable[[Node, Machine], Work]] = {
    "encode_latents": _encode,
    "reconstruct": _reconstruct,
    "invert_latents": _invert,
    "manipulate": _manipulate,
    "generate": _generate,
    "interpolate": _interpolate,
}


def _sides(gamma: float) -> int:
    """Predictions at one level (diffusion/guidance.py)."""
    return 1 if gamma in (0, 1) else 2


def _passes(cfg: InvertLatentsConfig | ManipulateConfig | InterpolateConfig, machine: Machine) -> int:
    """Predictions on the way through all levels."""
    visited = timesteps(cfg.spacing, cfg.num_steps, cfg.t0, machine.ldm.num_timesteps)
    return len(visited) * _sides(cfg.gamma)


def _inverting(cfg: InvertLatentsConfig) -> int:
    """Ways through all levels that following a face back takes (diffusion/inversion.py); of auto its first try."""
    return {Inverter.fixed_point: 1 + cfg.refinements, Inverter.coupled: 2, Inverter.direct: 2}.get(cfg.inverter, 1)


def _decoding(cfg: InvertLatentsConfig) -> int:
    return 2 if cfg.inverter is Inverter.coupled else 1


def _faces(node: Node) -> int:
    """How many faces a run comes from, where its config or that of a parent fixes it; else 0."""
    own = int(getattr(node.config, "num_samples", 0))
    return own or next((count for edge in node.edges() if (count := _faces(edge.node))), 0)
