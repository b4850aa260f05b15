"""`bringup report`: the page that people look at, from the check.json that `bringup check` writes.

One file that needs nothing else: no scripts, no links to the outside, pictures inside. Everything that comes from a
check is escaped. What a check did not measure is said, not left blank.
"""

import json
from pathlib import Path

from bringup import arguments, files
from bringup.errors import BadInput, BringupError, shown

HELP = "the HTML report of a recorded check"
FORMAT = 1


def add_arguments(parser):
    parser.add_argument("check_json", type=arguments.name, metavar="CHECK_JSON",
                        help="check.json of `bringup check`, or its folder")  # fmt: skip
    parser.add_argument("--out", type=arguments.name, metavar="FILE", help="default: report.html beside it")


def run(args):
    path = Path(args.check_json)
    path = path / "check.json" if path.is_dir() else path
    out = Path(args.out) if args.out else path.with_name("report.html")
    check = read(path)
    try:
        page = render(check)
    except BringupError:
        raise
    except Exception as error:  # the templates raise whatever odd values make them do
        raise BadInput(f"{shown(path)} is not a whole check", got=f"{type(error).__name__}: {error}") from error
    files.write(out, page)
    print(f"wrote {shown(out)}")


def read(path):
    """The check in a file.

    Raises    BadInput where it is not one
    """
    try:
        check = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"cannot read {shown(path)}", got=f"{type(error).__name__}: {error}") from error
    if not isinstance(check, dict) or check.get("format") != FORMAT:
        got = check.get("format") if isinstance(check, dict) else type(check).__name__
        raise BadInput(
            f"{shown(path)} is not a check", got=f"format {got}", want=f"format {FORMAT}: bringup check --out"
        )
    items = check.get("items")
    if not (items and isinstance(items, list) and all(isinstance(i, dict) and "name" in i for i in items)):
        raise BadInput(f"{shown(path)} is not a whole check", got="no items", want="what bringup check has written")
    return check


def write(check, path):
    """Writes the page of a check, and the folder for it."""
    files.write(path, render(check))


def render(check):
    """The page as text."""
    from bringup.report import sections

    return page("check.html.j2", c=check, s=sections)


def page(template, **values):
    """A page of this package's templates around `page.html.j2`; other commands' reports use it as well."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bringup", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from bringup.report import figures

    for name in figures.FILTERS:
        environment.filters[name] = getattr(figures, name)
    environment.globals["picture"] = _picture
    return environment.get_template(template).render(**values)


def _picture(draw, label, height=2.5, narrow_height=None):
    from markupsafe import Markup

    from bringup.report import plots

    return Markup(plots.picture(draw, label, height, narrow_height))
