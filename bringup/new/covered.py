"""What of an HF configuration no block covers, each with where HF has it and what would be needed.

HF's own modules are run at a small random size, and what each computes is held against what the blocks do (`reading`);
beside them stand the fields that no module shows, and sizes. Everything that is missing is found at once.
"""

import copy
import sys

from bringup import backends
from bringup.checkpoints import configuration
from bringup.new import effects, reading
from bringup.new.reading import inventory
from bringup.new.traits import Gap, Traits

TILE = 32


def gaps(config):
    """Every `Gap` of this configuration; none where the blocks cover it."""
    return look(config)[1]


def look(config):
    """(`Traits` of the text model, every `Gap`)."""
    if "ttnn" not in sys.modules:  # the blocks, which HF's modules are held against, import it
        backends.activate("emulator")
    found = []
    text = getattr(config, "text_config", None)
    if text is not None:
        needed = "an encoder of images and its projector; or the configuration of the text model alone"
        found.append(Gap(f"model_type = {config.model_type!r} is multimodal", type(config).__name__, needed))
        config = text
    if getattr(config, "quantization_config", None):
        needed = "weights in float32, float16 or bfloat16, which the device then has in formats of its own"
        found.append(Gap(configuration.quantised_by(config.quantization_config), type(config).__name__, needed))
        config = copy.deepcopy(config)
        del config.quantization_config
    try:
        traits = reading.read(config)
    except Exception as error:  # HF's classes do what nobody looked for, such as attention that takes other arguments
        traits = Traits(architecture=type(config).__name__)
        what = f"model_type = {config.model_type!r}: not to be read ({type(error).__name__}: {error})"
        traits.lacks(what, traits.architecture, "a model file of its own: HF's parts are not those of a Llama")
        if (decoder := inventory.decoder_of(config)) is not None:
            inventory.read(decoder, traits)
    found += traits.gaps
    for ask in (_sizes, _effects):
        try:
            found += ask(config, traits)
        except Exception as error:  # fields of a kind that nobody looked for, such as sizes by layer
            what = f"{ask.__name__[1:]} of a kind that was not looked into ({type(error).__name__}: {error})"
            found.append(Gap(" ".join(what.split())[:300], traits.architecture, "a model file of its own"))
    return traits, found


def _sizes(config, traits):
    if config.hidden_size % TILE:
        what = f"hidden_size = {config.hidden_size} is no multiple of {TILE}"
        yield Gap(what, traits.architecture, "padded rows")


def _effects(config, traits):
    """Fields that HF computes with and that nothing which was read names."""
    if not traits.parts:  # nothing was read
        return
    said = " ".join([*map(str, traits.gaps), *traits.fields()])
    for name, value, moved in effects.unread(config, said):
        how = "" if moved is None else f": HF's logits move by {moved:.1e} (relative L2) with 1 in its place"
        yield Gap(f"{name} = {value}{how}", f"{traits.architecture}.forward", "a block that computes with it")
