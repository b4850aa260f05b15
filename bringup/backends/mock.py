"""The real `ttnn` wheel on a mock cluster: its argument checks, output specs and DRAM/L1 allocators, without a board.

from bringup.backends import mock
mock.setup("n150")                      # before `import ttnn`
import ttnn
device = mock.open_system("n150")
...
mock.close_system("n150", device)

No kernel runs: what is read back from a device is zeros. The library insists on a runtime root with a kernel compiler
in it, so one is made in the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`, then `ttnn-bringup/mock`): links into
the installed wheel, a stand-in compiler, one patched table, and descriptions of the chips. Nothing of the installation
is changed. It is made anew when the wheel, its place, or this file changes.

The library can end the process on misuse it does not check (an op on a freed tensor, an op inside a trace capture), so
a whole model runs in a child: `run_child` tells the call it died in.
"""

import atexit
import hashlib
import importlib.machinery
import importlib.metadata
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bringup.backends import systems
from bringup.backends.clusters import cluster_descriptor
from bringup.errors import BringupError

PYTHONS = ("3.10", "3.12")  # ttnn 0.81.1 has wheels for these
_PRIVATE = None  # the folder of this process, removed when it ends


# The stand-in for the kernel compiler


def kernel_elf():
    """The bytes of a RISC-V program that does nothing, with the sections that the library's loader asks for.

    Two loadable segments (code, and data in the core's local memory at 0xffb00000) and a relocation section, which may
    be empty but must be there.
    """
    code = struct.pack("<4I", 0x00000013, 0x00000013, 0x00000013, 0x00008067)  # nop, nop, nop, ret
    code_at, data_at, data = 0x5000, 0xFFB00000, bytes(8)
    names = b"\0.text\0.rela.text\0.data\0.symtab\0.strtab\0.shstrtab\0"
    header_size, program_header_size, section_header_size = 52, 32, 40
    at, body = {}, b""
    parts = {"text": code, "rela": b"", "data": data, "symtab": bytes(16), "strtab": b"\0\0\0\0", "names": names}
    for name, part in parts.items():
        at[name] = header_size + 2 * program_header_size + len(body)
        body += part + bytes(-len(part) % 4)

    def section(name, kind, flags, address, part, link=0, info=0, align=4, entry=0):
        place = (at[part], len(parts[part])) if part else (0, 0)
        return struct.pack("<10I", names.index(name + b"\0"), kind, flags, address, *place, link, info, align, entry)

    sections = [
        section(b"", 0, 0, 0, None, align=0),
        section(b".text", 1, 6, code_at, "text"),
        section(b".rela.text", 4, 0x40, 0, "rela", link=4, info=1, entry=12),
        section(b".data", 1, 3, data_at, "data"),
        section(b".symtab", 2, 0, 0, "symtab", link=5, info=1, entry=16),
        section(b".strtab", 3, 0, 0, "strtab"),
        section(b".shstrtab", 3, 0, 0, "names"),
    ]
    load = struct.pack("<8I", 1, at["text"], code_at, code_at, len(code), len(code), 5, 4)
    load += struct.pack("<8I", 1, at["data"], data_at, code_at + len(code), len(data), len(data), 6, 4)
    sections_at = header_size + len(load) + len(body)
    header = b"\x7fELF\1\1\1" + bytes(9)  # 32 bit, little endian
    header += struct.pack("<HHIIIII", 2, 243, 1, code_at, header_size, sections_at, 0)  # an executable for RISC-V
    header += struct.pack("<6H", header_size, program_header_size, 2, section_header_size, len(sections), 6)
    return header + load + body + b"".join(sections)


def compiler_script(version):
    """A shell script that answers the version probe, writes an empty object per compile and `kernel_elf` per link."""
    octal = "".join(f"\\{byte:03o}" for byte in kernel_elf())
    return f"""#!/bin/sh
# Stands in for the kernel compiler: mock devices run no kernels. Builtins only, so that a call costs a millisecond.
out= deps= object=
while [ $# -gt 0 ]; do
  case $1 in
    --version | -dumpversion) echo '{version}'; exit 0 ;;
    -o) out=$2; shift ;;
    -MF) deps=$2; shift ;;
    -c) object=yes ;;
  esac
  shift
done
[ -n "$out" ] || exit 0
if [ -n "$object" ]; then
  : > "$out"
  : "${{deps:=${{out%.*}}.d}}"
else
  printf '{octal}' > "$out"
fi
[ -z "$deps" ] || printf '%s:\\n' "$out" > "$deps"
"""


# The runtime root


def cache_dir():
    """Where everything of the mock backend is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ttnn-bringup" / "mock"


def wheel():
    """(version, folder) of the installed ttnn wheel; says which Pythons have one where there is none."""
    spec = importlib.machinery.PathFinder.find_spec("ttnn", sys.path)  # not the emulator under the same name
    if spec is None or not spec.origin:
        python = f"{sys.version_info[0]}.{sys.version_info[1]}"
        fits = python in PYTHONS
        raise BringupError(
            "the mock backend runs the vendor's ttnn, which this Python does not have",
            got=f"Python {python} at {sys.executable}, no ttnn package",
            want="Python " + " or ".join(PYTHONS) + " on Linux x86-64 with ttnn 0.81.1",
            hint="pip install 'ttnn-bringup[ttnn]'"
            if fits
            else f"python{PYTHONS[-1]} -m venv, then pip install 'ttnn-bringup[ttnn]'",
        )
    try:
        version = importlib.metadata.version("ttnn")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    return version, Path(spec.origin).resolve().parent


def runtime_root():
    """The folder that stands for the library's installation, made on first use."""
    version, package = wheel()
    made_of = [version, str(package), Path(__file__).read_text(), *map(cluster_descriptor, systems.NAMES)]
    recipe = hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:16]
    root = cache_dir() / f"ttnn-{version}-{recipe}"
    if (root / "complete").exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix="building-", dir=root.parent))
    try:
        _fill(building, package)
        _discard_older(root.parent, package)
        (building / "complete").write_text(json.dumps({"ttnn": version, "package": str(package)}) + "\n")
        try:
            building.rename(root)
        except OSError:  # another process was first
            if not (root / "complete").exists():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return root


def _fill(root, package):
    links = {"ttnn": package / "ttnn", "build": package / "build"}
    for folder in ("runtime", "tt_metal", "tt_metal/core_descriptors"):
        for entry in (package / folder).iterdir():
            links[f"{folder}/{entry.name}"] = entry
    patched = "tt_metal/core_descriptors/wormhole_b0_80_arch.yaml"
    del links["tt_metal/core_descriptors"]
    table = links.pop(patched)
    links.pop("runtime/sfpi", None)  # never an installed compiler: it would really compile each kernel
    for name, target in links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    (root / patched).write_text(_eight_rows(table.read_text(), table))
    compiler = root / "runtime/sfpi/compiler/bin/riscv-tt-elf-g++"
    compiler.parent.mkdir(parents=True)
    compiler.write_text(compiler_script(_compiler_version(package)))
    compiler.chmod(0o755)
    descriptors = root / "descriptors"
    descriptors.mkdir()
    for name in systems.NAMES:
        (descriptors / f"{name}.yaml").write_text(cluster_descriptor(name))


def _eight_rows(text, path):
    """The table of worker cores, with 8 rows for n300 chips.

    There the library dispatches from ethernet cores and offers 8x8 workers, but in mock mode its program validator
    reads the table for dispatch from worker cores, which has 8x7, and refuses every program.
    """
    head, found, rest = text.partition("\nnebula_x2:")
    rows, col, tail = rest.partition("\n  col:")
    patched = rows.replace("end: [7, 6]", "end: [7, 7]")
    if not found or not col or patched == rows:
        raise BringupError(
            "the wheel's table of worker cores is not the one known here",
            got=str(path),
            want="nebula_x2 with rows ending at [7, 6], as in ttnn 0.81.1",
        )
    return head + found + patched + col + tail


def sfpi_version(package):
    """The version of the kernel compiler that the wheel wants, as "1.2.3[4]"."""
    text = (package / "tt_metal/sfpi-version").read_text()
    found = dict(re.findall(r"^sfpi_(version|build)='([^']*)'", text, re.MULTILINE))
    return f"{found['version']}[{found['build']}]"


def _compiler_version(package):
    """The line by which the library knows its compiler."""
    return f"riscv-tt-elf-g++ (tenstorrent/sfpi:{sfpi_version(package)}) 15.1.0"


def _discard_older(folder, package):
    """Remove roots made earlier for this very wheel folder; other environments keep theirs."""
    for note in folder.glob("ttnn-*/complete"):
        try:
            same = json.loads(note.read_text())["package"] == str(package)
        except (OSError, ValueError, KeyError):
            same = True
        if same:
            shutil.rmtree(note.parent, ignore_errors=True)


# A process on it

# What the library asks for beside the system's name where there are several chips; the wheel ships the mesh graphs.
_GRAPHS = {
    "n300": "n300",
    "t3000": "t3k",
    "p300": "p300",
    "p300x2": "p300_x2",
    "p150x4": "p150_x4",
    "p150x8": "p150_x8",
}


def environment(system):
    """The variables that put `import ttnn` on a mock `system`; caches and logs are private to this process."""
    system = systems.get(system)
    root = runtime_root()
    private = _private_folder()
    variables = {
        "TT_METAL_MOCK_CLUSTER_DESC_PATH": root / "descriptors" / f"{system.name}.yaml",
        "TT_METAL_RUNTIME_ROOT": root,
        "TT_METAL_CACHE": private / "kernels",  # runs at the same time must not share it
        "TT_METAL_LOGS_PATH": private / "logs",
        "TT_METAL_LOGGER_FILE": os.environ.get("TT_METAL_LOGGER_FILE") or private / "log.txt",
        "TT_METAL_LOGGER_LEVEL": "Warning",  # to the file above
        "TT_METAL_DISABLE_BACKTRACE": 1,
        "TT_METAL_INSPECTOR": 0,
        "LOGURU_LEVEL": "ERROR",
        "TMPDIR": private / "tmp",  # the library starts MPI, which leaves a folder behind
        "TTNN_CONFIG_OVERRIDES": json.dumps(
            {
                "cache_path": str(private / "ttnn"),
                "tmp_dir": str(private / "tmp"),
                "root_report_path": str(private / "reports"),
            }
        ),
    }
    if graph := _GRAPHS.get(system.name.split("_")[0]):
        graphs = root / "tt_metal/fabric/mesh_graph_descriptors"
        variables["TT_MESH_GRAPH_DESC_PATH"] = graphs / f"{graph}_mesh_graph_descriptor.textproto"
    return {name: str(value) for name, value in variables.items()}


def _private_folder():
    global _PRIVATE
    if _PRIVATE is None or not _PRIVATE.exists():
        _PRIVATE = Path(tempfile.mkdtemp(prefix="ttnn-mock-"))
        for name in ("kernels", "logs", "tmp"):
            (_PRIVATE / name).mkdir()
        atexit.register(shutil.rmtree, _PRIVATE, True)
    return _PRIVATE


def setup(system):
    """Make `import ttnn` in this process mean the wheel on a mock `system`. Call it before the first import."""
    if "ttnn" in sys.modules:
        raise BringupError(
            "the mock cluster is chosen before ttnn is imported, and ttnn is imported already",
            hint="call bringup.backends.mock.setup() first, in a new process",
        )
    os.environ.update(environment(system))
    os.environ.pop("TT_METAL_SIMULATOR", None)


def open_system(system, **options):
    """The open device (one chip) or mesh of `system`; `options` go to `open_device` or `open_mesh_device`."""
    import ttnn

    system = systems.get(system)
    if system.chips == 1:
        return ttnn.open_device(device_id=0, **options)
    ttnn.set_fabric_config(getattr(ttnn.FabricConfig, system.fabric))
    try:
        return ttnn.open_mesh_device(ttnn.MeshShape(*system.mesh_shape), **options)
    except BaseException:
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)
        raise


def close_system(system, device):
    import ttnn

    if systems.get(system).chips == 1:
        ttnn.close_device(device)
        return
    try:
        ttnn.close_mesh_device(device)
    finally:
        ttnn.set_fabric_config(ttnn.FabricConfig.DISABLED)


def take_zeros_as_they_are():
    """`ttnn.from_torch` without a copy on the host of one zero that is expanded (`random_weights.zeros`): it is given
    pages that nobody has written instead, which take no memory. The library copies such a tensor element by element."""
    import numpy as np
    import torch
    import ttnn

    from_torch = ttnn.from_torch

    def light(tensor, *args, **kwargs):
        expanded = isinstance(tensor, torch.Tensor) and tensor.numel() > 1 and not any(tensor.stride())
        if expanded and tensor.view(-1)[0] == 0:
            pages = np.zeros(tensor.numel() * tensor.element_size(), np.uint8)
            tensor = torch.from_numpy(pages).view(tensor.dtype).view(tensor.shape)
        return from_torch(tensor, *args, **kwargs)

    ttnn.from_torch = light


# A process of its own


@dataclass(frozen=True)
class ChildResult:
    """How a child process ended. `last_call` is the op it was making when it died (None: it did not die in one)."""

    code: int
    output: str
    last_call: dict | None = None

    @property
    def died(self):
        """Why the process was ended from outside or by a signal, or None where it ended by itself."""
        if self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    def describe(self):
        if not self.died:
            return f"the process ended with code {self.code}"
        if not self.last_call:
            return f"the library killed the process ({self.died}) outside of any op"
        rows = [f"the library killed the process ({self.died}) in {self.last_call['op']}"]
        return "\n".join(rows + [f"  {name:<6} {self.last_call[name]}" for name in ("call", "line")])


def run_child(arguments, timeout=None, variables=None, python=sys.executable):
    """Run `python arguments...` in a process that the library may kill, and tell how it ended and in which op.

    The child tells its calls through `library_log.record`; both streams of its output come back as one text.
    """
    from bringup.backends import library_log

    with tempfile.TemporaryDirectory(prefix="ttnn-child-") as folder:
        journal = os.path.join(folder, "journal.json")
        environment = os.environ | {library_log.JOURNAL: journal} | (variables or {})
        command = [python, *map(str, arguments)]
        child = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            child.kill()
            output, _ = child.communicate()
            call = library_log.read_journal(journal)
            hint = f"last call: {call['call']} at {call['line']}" if call else None
            raise BringupError(
                f"a child process took longer than {timeout} s", got=" ".join(command), hint=hint
            ) from error
        last = library_log.read_journal(journal) if child.returncode < 0 else None
        return ChildResult(child.returncode, output, last)
