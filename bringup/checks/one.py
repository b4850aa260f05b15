"""One model file through the checklist, from the command's arguments to the report's files."""

from contextlib import nullcontext
from pathlib import Path

from bringup.checks import checklist, table
from bringup.errors import BadInput
from bringup.evaluation.run import Job, Settings
from bringup.files import write_json
from bringup.report import html, visualizer

NEW_TOKENS, QUICK_NEW_TOKENS = 100, 48


def job_of(args):
    """The evaluation's `Job` of a checklist."""
    tokens = QUICK_NEW_TOKENS if args.quick else NEW_TOKENS
    given = {k: v for k, v in vars(args).items() if k in Settings.__dataclass_fields__}
    return Job(Settings(**given, max_new_tokens=tokens, min_new_tokens=tokens))


def checked(args, announce=False):
    """(the record, its closed context, the paths of the report's files) of the checklist on one model file."""
    items = args.items.split(",") if args.items else None
    checklist.chosen(items)
    if args.write and items:
        raise BadInput("--write takes the whole checklist", got=f"--items {args.items}")
    job = job_of(args)
    chosen = checklist.chosen(items, job.model_file.path)
    if announce:
        print(job.activation)
        print(job.describe(), flush=True)
    with table.watched(len(chosen)) if announce else nullcontext() as watch:
        check, context = checklist.run_with_context(job, quick=args.quick, items=items, watch=watch)
    return check, context, write_folder(check, context.records, Path(args.out or default_folder(check, items)))


def default_folder(check, items):
    """reports/<model>-<system>; what some items alone have found does not replace the report of all."""
    name = (check["hf_id"] or check["checkpoint"]).rpartition("/")[2]
    return Path("reports") / f"{name}-{check['system']}{'-items' if items else ''}"


def write_folder(check, records, folder):
    """check.json, report.html and, where there is an op log, a folder for ttnn-visualizer; their paths."""
    paths = [folder / "check.json", folder / "report.html"]
    write_json(paths[0], check)
    html.write(check, paths[1])
    calls = {phase: records[phase] for phase in ("prefill", "decode")} if records else {}
    if any(calls.values()):
        seconds = visualizer.predicted(calls, check["system"])
        paths.append(visualizer.write(calls, folder / "visualizer", check["system"], seconds))
    return paths
