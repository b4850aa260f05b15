"""What stands in for a model when it is planned: its model file, one that `bringup new` writes, or shapes alone."""

import json
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from bringup.errors import BringupError
from bringup.files import located
from bringup.planning.formats import Formats

TOKEN_ON_DEVICE = "traced, token on device"
# How a decode step runs: as the model files do, replayed from a trace, and with the token chosen on the chip as well.
WAYS = {
    "untraced": {"traced": False},
    "traced": {"traced": True},
    TOKEN_ON_DEVICE: {"traced": True, "read_logits": False},
}
_written = {}  # (configuration, system) -> Wiring; the folders go with the process
_folders = []


@dataclass(frozen=True)
class Wiring:
    """`name` is "model file", "blocks" (written for this plan) or "shapes alone"; `gaps` says what no block covers."""

    name: str
    path: Path | None = None
    gaps: list = field(default_factory=list)

    @classmethod
    def find(cls, config, hf_id, system, model_py=None):
        from bringup.planning.spec_run import find_model_file

        if model_py is not None:
            return cls("model file", located(model_py))
        path = find_model_file(hf_id, system.name)
        if path:
            return cls("model file", path)
        key = json.dumps(config.to_dict(), sort_keys=True, default=str), system.name
        if key not in _written:
            _written[key] = cls._write(config, system)
        return _written[key]

    @classmethod
    def _write(cls, config, system):
        """A model file of blocks in a temporary folder, or shapes alone with the reason."""
        from bringup.new import command, covered, facts

        traits, gaps = covered.look(config)
        if gaps:
            return cls("shapes alone", gaps=[f"{gap.what} ({gap.where})" for gap in gaps])
        folder = tempfile.TemporaryDirectory(prefix="bringup-plan-")
        _folders.append(folder)
        try:
            found = facts.fit(facts.gather(config, "planned/model", system, traits))
            return cls("blocks", command.draft(found, Path(folder.name)))
        except BringupError as error:
            return cls("shapes alone", gaps=[" ".join(line.strip() for line in str(error).splitlines()[:2])])

    def formats(self, cache):
        """The model file's own dtypes, or bf16."""
        from bringup.backends import model_files

        own = getattr(model_files.import_file(self.path), "PRECISION", None) if self.path else None
        return Formats("bf16", "bf16", "bf16", cache) if own is None else replace(Formats.of(own), cache=cache)

    def measured(self, config, system, memory, formats, context, prompt, users):
        """What running the file by shapes gives: {"run": memory and peaks, "predicted": speeds}; "refused" in "run"."""
        from bringup.planning.spec_run import spec_run

        if self.path is None:
            return {"run": None, "predicted": None}
        try:
            found = spec_run(self.path, config, system, max_seq_len=context, prompt=prompt, formats=formats)
        except BringupError as error:
            return {"run": {"refused": str(error)}, "predicted": None}
        allocated, counted = found.built["dram"]["allocated"], memory.held(context)
        result = {
            "allocated": allocated,
            "counted": counted if abs(allocated - counted) < 0.05 * counted else None,  # a pool takes what is left
            "activations": {phase: found.activations(phase) for phase in found.peaks},
            "l1_peak": {phase: peak["l1"] for phase, peak in found.peaks.items()},
        }
        settings = {"users": users, "context": min(context, prompt + 32)}
        predicted = {name: speed.as_dict() for name, speed in speeds(found, system, **settings).items()}
        return {"run": result, "predicted": predicted}


def speeds(found, system, **settings):
    """A `Prediction` of a `SpecRun` for each of WAYS.

    Of a model that has the token on the device, what choosing it costs is counted, and a prompt that it replays as
    such; of others the reading of logits is left out.
    """
    from bringup.planning import roofline

    ways = {
        name: roofline.predict(found.prefill, found.decode, system, **how, **settings) for name, how in WAYS.items()
    }
    if found.replayed is not None:
        ways[TOKEN_ON_DEVICE] = roofline.predict(*found.replayed, system, **WAYS[TOKEN_ON_DEVICE], **settings)
    return ways
