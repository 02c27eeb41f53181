"""The families of teachers: which pipelines of diffusers there are, and what the folder of each must hold."""

from dataclasses import dataclass

UNET2D = "unet2d"
"""The family of a plain UNet2DModel on pixels, whatever pipeline it was saved with."""

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
FLOW_PREDICTION = "flow_prediction"

BETA_SCHEDULERS = (
    "DDIMInverseScheduler",
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "RePaintScheduler",
    "SASolverScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
"""Diffusers' schedulers whose noise is DDIM's for the same betas. Of a teacher, how they sample does not matter."""

EDM_SCHEDULERS = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
"""Of UNet2DModels with EDM's preconditioning."""
EDM_PIPELINE = "ConsistencyModelPipeline"
"""The one class of diffusers that asks a scheduler what such a network is to see."""
EDM_PREDICTIONS = ("epsilon", "v_prediction")
"""What they call the network's answer F, and -F."""
FLOW_SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
FLOW_SOLVERS = ("DPMSolverMultistepScheduler",)
"""Of flows where their prediction_type says so."""

LEGACY_CLASS = "Transformer2DModel"
"""What DiT's and PixArt's networks were called when they were published; `norm_type` tells which one it is."""


@dataclass(frozen=True)
class Family:
    """A family whose folders are whole pipelines on a VAE's latents.

    Attributes:
        network: folder of the network that denoises.
        network_class: its class in diffusers.
        text: whether it is asked for images by prompts; else by classes.
        flow: whether it is a rectified flow; else it has betas.
        parts: what its pipeline cannot do without, beside network, VAE and scheduler.
        first: the network's first weights, whose axis 1 has `patch` times the network's in_channels.
        packed: latents' channels to one of in_channels.
        sized_by_vae: whether its network has no size of its own.
        legacy_norm: `norm_type` of the network in a folder that calls it by its first name.
        clip: whether the network sees the tokens of a CLIP, as many as its tokenizer gives.
        prompt: tokens of a prompt that it sees beside them.
        prompt_layers, both_layers: patterns of the names of its layers that see the prompt's tokens alone, and the
            image's and the prompt's together.
        linear_attention: whether its queries meet no keys one by one where it looks at the image.
        patch_side: latents to a token along a side; 0: what the `first` weights say.
        one_size: whether its network takes images of its own size alone.
    """

    name: str
    network: str
    network_class: str
    text: bool = True
    flow: bool = False
    parts: tuple[str, ...] = ("text_encoder", "tokenizer")
    first: str = "pos_embed.proj.weight"
    patch: int = 1
    packed: int = 1
    sized_by_vae: bool = False
    legacy_norm: str | None = None
    clip: bool = False
    prompt: int = 0
    prompt_layers: str = ""
    both_layers: str = ""
    linear_attention: bool = False
    patch_side: int = 0
    one_size: bool = False

    @property
    def transformer(self) -> bool:
        """Else the network is a UNet."""
        return self.network == "transformer"

    @property
    def needed(self) -> tuple[str, ...]:
        """All the parts that its pipeline cannot do without."""
        return (self.network, "vae", "scheduler", *self.parts)


JOINT = r"^context_embedder|ff_context|add_[qkv]_proj|to_add_out"
CROSS = r"^caption|attn2\.to_[kv]"
TWO_ENCODERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")

PIPELINES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(
        "stable-diffusion", "unet", "UNet2DConditionModel", first="conv_in.weight", clip=True
    ),
    "StableDiffusionXLPipeline": Family(
        "sdxl", "unet", "UNet2DConditionModel", parts=TWO_ENCODERS, first="conv_in.weight", clip=True
    ),
    "StableDiffusion3Pipeline": Family(
        "sd3",
        "transformer",
        "SD3Transformer2DModel",
        flow=True,
        parts=TWO_ENCODERS,
        clip=True,
        prompt=256,
        prompt_layers=JOINT,
    ),  # its third encoder may be left out
    "FluxPipeline": Family(
        "flux",
        "transformer",
        "FluxTransformer2DModel",
        flow=True,
        parts=TWO_ENCODERS,
        first="x_embedder.weight",
        packed=4,
        sized_by_vae=True,
        prompt=512,
        prompt_layers=JOINT,
        both_layers="^single_transformer_blocks",
        patch_side=2,
    ),
    "PixArtSigmaPipeline": Family(
        "pixart-sigma",
        "transformer",
        "PixArtTransformer2DModel",
        legacy_norm="ada_norm_single",
        prompt=300,
        prompt_layers=CROSS,
    ),
    "SanaPipeline": Family(
        "sana",
        "transformer",
        "SanaTransformer2DModel",
        flow=True,
        first="patch_embed.proj.weight",
        prompt=300,
        prompt_layers=CROSS,
        linear_attention=True,
    ),
    "ZImagePipeline": Family(
        "z-image",
        "transformer",
        "ZImageTransformer2DModel",
        flow=True,
        first="all_x_embedder.2-1.weight",
        patch=4,
        sized_by_vae=True,
        prompt=128,
        prompt_layers="^cap_embedder|^context_refiner",
        both_layers="^layers",
        patch_side=2,
    ),  # it cuts prompts to their own length, up to 512 tokens; few are longer than this
    "DiTPipeline": Family(
        "dit", "transformer", "DiTTransformer2DModel", text=False, parts=(), legacy_norm="ada_norm_zero", one_size=True
    ),
}
"""By the `_class_name` of model_index.json."""

FLOWS = frozenset(family.name for family in PIPELINES.values() if family.flow)

ONE_SIZE = frozenset({UNET2D} | {family.name for family in PIPELINES.values() if family.one_size})

LATENT_FACTORS = {family.name: 32 if family.name == "sana" else 8 for family in PIPELINES.values()}
"""Pixels to a latent along a side, of the families' published VAEs."""
