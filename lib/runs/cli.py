"""The words of the commands -> settings and choices; `lib.runs.actions`, which does the work, is imported after that.

So help, and a mistake in the words, take no longer than Python needs to start.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib.privacy import masked
from lib.refusals import echo
from lib.runs.command import Parser, command
from lib.strict_yaml import Misread
from lib.strict_yaml import load as load_yaml

if TYPE_CHECKING:
    from lib.params import Params


SETTINGS = """\
A params file holds the settings that differ from the defaults; those of the project are in params/. All settings are
explained in docs/USAGE.md, "Choose the settings". A wrong one is refused with what it may be.
"""


def train(arguments: Sequence[str] | None = None) -> int:
    """`imgae-train params/x.yaml`: train the file's methods without a notebook."""
    params, base = _settings(_parser("imgae-train", "Train a params file's methods, without a notebook."), arguments)
    from lib.runs import actions

    return actions.train(params, base)


def evaluate(arguments: Sequence[str] | None = None) -> int:
    """`imgae-evaluate RUN`: score a trained run, compare it with those it names, write results and figures."""
    parser = Parser(
        "imgae-evaluate",
        long=True,
        description="Score and evaluate a run that has been trained. A stage whose inputs have not changed is skipped.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    parser.add_argument("--force", action="store_true", help="run every stage, whether its inputs have changed or not")
    typed = parser.parse_args(arguments)
    from lib.runs import actions

    return actions.evaluate(typed.run, again=typed.force)


def run(arguments: Sequence[str] | None = None) -> int:
    """`imgae-run params/x.yaml`: execute the notebook; leave it, its report and the final status in the run folder."""
    params, base = _settings(_parser("imgae-run", "Execute the notebook with a params file."), arguments)
    from lib.runs import actions

    return actions.run(params, base)


def shards(arguments: Sequence[str] | None = None) -> int:
    """`imgae-shards params/x.yaml --to ADDRESS`: write a source's images as parquet shards, to stream from."""
    parser = _parser("imgae-shards", "Check the images of a params file's source and write them as parquet shards.")
    parser.add_argument("--to", required=True, metavar="ADDRESS", help="a folder, s3://, gs://, hf://: docs/USAGE.md")
    params, base = _settings(parser, arguments)
    from lib.runs import actions

    return actions.shards(params, base, parser.parse_args(arguments).to)


SCORE = """\
Score radiographs with a trained model, without labels: which are unlike normal ones, how sure that is, and where.

imgae-score runs/ra chest.dcm                      one image: its scores on the terminal, its map in scores-ra/
imgae-score runs/ra films/ more.png --to out       folders, files, addresses of shards; what is there is not repeated
imgae-score hf://OWNER/NAME chest.dcm              a model that imgae-export has written, here or on the hub

The folder gets scores.csv (a row an image: each score, its conformal p-value and threshold, and in what the image is
unlike those that the model knows), maps/ (the residual in 16 bits, and as colours over the image), problems.csv, and
about.json, which says what the numbers promise. --dicom adds to maps/ a Secondary Capture of each DICOM image, which
names its patient. Exit status: 0, or 3 if an image could not be used. For research only, not for diagnosis.
"""


def score(arguments: Sequence[str] | None = None) -> int:
    """`imgae-score RUN PATH…`: score images without labels by a trained model, and draw where they are anomalous."""
    parser = Parser("imgae-score", long=True, description=SCORE, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", help="the folder of a scored run or of an exported model, or hf://OWNER/NAME")
    parser.add_argument("images", nargs="+", metavar="PATH", help="a file, a folder, or an address of shards")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="where the scores are written; default scores-MODEL")
    parser.add_argument(
        "--false-alarms", type=float, default=0.05, metavar="RATE", help="of normal images; default 0.05"
    )
    parser.add_argument("--primary", action="store_true", help="the primary score alone, which is much faster")
    parser.add_argument("--no-maps", action="store_true", help="write no pictures")
    parser.add_argument("--hash-names", action="store_true", help="write a hash in place of each image's name")
    parser.add_argument(
        "--dicom", action="store_true", help="of each DICOM image, also a Secondary Capture for its archive"
    )
    typed = parser.parse_args(arguments)
    if not 0 < typed.false_alarms < 1:
        parser.error(f"--false-alarms {typed.false_alarms}: expected a rate between 0 and 1, such as 0.05")
    if typed.dicom and typed.hash_names:
        parser.error("--dicom with --hash-names: a DICOM object names its patient; leave out one of them")
    from lib.runs import actions

    asked = (typed.false_alarms, typed.primary, not typed.no_maps, typed.hash_names, typed.dicom)
    return actions.score_images(typed.model, typed.images, typed.to, asked)


def export(arguments: Sequence[str] | None = None) -> int:
    """`imgae-export RUN --to FOLDER`: write a run's model as a folder that can be handed on."""
    parser = Parser(
        "imgae-export",
        long=True,
        description="Write the model of an evaluated run: weights, settings, what its scores need, and a model card. "
        "It scores as the run does, to the last bit unless --half is given.",
    )
    parser.add_argument("run", type=Path, help="the run's folder, for example runs/ra")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="a new or an empty folder")
    parser.add_argument("--primary", action="store_true", help="only what the primary score needs, which stays exact")
    parser.add_argument("--half", action="store_true", help="the same in 16 bits: smallest, scores nearly the same")
    parser.add_argument("--onnx", action="store_true", help="also each method's reconstruction as an ONNX file")
    typed = parser.parse_args(arguments)
    from lib.runs import actions

    return actions.export(typed.run, typed.to, primary=typed.primary, half=typed.half, onnx=typed.onnx)


def gallery(arguments: Sequence[str] | None = None) -> int:
    """`imgae-gallery RUN_OR_SCORES`: write a page to look through the images, their scores, redrawings and maps."""
    parser = Parser(
        "imgae-gallery",
        long=True,
        description="Write one HTML page to look through a run's test images, or scored images: sorted, filtered, with "
        "a threshold that moves, each with its reconstructions and maps. For research only, not for diagnosis.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN_OR_SCORES", help="an evaluated run, or imgae-score's folder")
    parser.add_argument("--to", type=Path, metavar="FILE.html", help="default gallery.html in the folder")
    typed = parser.parse_args(arguments)
    if typed.to and typed.to.suffix != ".html":
        parser.error(f"--to {typed.to}: expected a file whose name ends in .html")
    from lib.runs import actions

    return actions.gallery(typed.folder, typed.to)


def cache(arguments: Sequence[str] | None = None) -> int:
    """`imgae-cache list`, `remove NAME…`, `purge`: the caches of prepared images, and the space that they take."""
    parser = Parser("imgae-cache", description="List and remove caches of prepared images not in use.")
    kinds = parser.add_subparsers(dest="action", required=True)
    kinds.add_parser("list", help="list them, the longest unused first")
    named = kinds.add_parser("remove", help="remove the caches of these names")
    named.add_argument("names", nargs="+", metavar="NAME", help="as `imgae-cache list` prints it")
    purge = kinds.add_parser("purge", help="remove all caches")
    purge.add_argument("--days", type=int, metavar="N", help="only those that were not used for N days, 1 or more")
    typed = parser.parse_args(arguments)
    days = getattr(typed, "days", None)
    if days is not None and days < 1:
        purge.error(f"--days {days}: expected 1 or more; without --days, all caches are removed")
    from lib.runs import actions

    if typed.action == "list":
        return actions.list_caches()
    return actions.remove_caches(getattr(typed, "names", None), days or 0)


STUDY = """\
Keep a run's scores, combine runs with different seeds into a study, and write the page of all studies.

imgae-study research/results/published runs/adult-0 runs/adult-1 ...                      keeps these runs
imgae-study research/results/adult.json research/results/published/adult-{0,1,2,3,4} ...  combines them into a study
imgae-study docs/RESULTS.md research/results/*.json                                       writes the page of all studies
imgae-study docs/results.schema.json                                                      writes the files' JSON schema
imgae-study research/results/trials.csv runs/trial-0 runs/trial-1 ...                     adds trials to a table

Runs of one seed count as one: each method is taken from the first run that has it.
"""


def study(arguments: Sequence[str] | None = None) -> int:
    """`imgae-study TARGET SOURCES`: keep runs, combine them into a study, write the page of studies, add trials."""
    parser = Parser("imgae-study", description=STUDY, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path, help="a folder or FILE.json, .csv, .md, .schema.json, see above")
    parser.add_argument("sources", type=Path, nargs="*", help="folders of evaluated or kept runs; for a page, studies")
    typed = parser.parse_args(arguments)
    if bool(typed.sources) == typed.target.name.endswith(".schema.json"):
        parser.error(
            f"{typed.target}: a schema takes no sources; a folder or a study takes run folders, a page takes studies"
        )
    from lib.runs.study import make

    make(typed.target, typed.sources)
    return 0


def _parser(program: str, description: str) -> Parser:
    parser = Parser(program, long=True, description=description, epilog=SETTINGS)
    parser.add_argument("params", type=Path, help="a YAML file of settings, for example params/ra.yaml")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", action="extend", help="override the file")
    return parser


def _settings(parser: Parser, arguments: Sequence[str] | None) -> "tuple[Params, Path]":
    """Read a params file and `--set`; return the settings, with absolute paths, and the project folder.

    Relative paths in the file start from the project folder, those on the command line from the working folder.
    """
    typed = parser.parse_args(arguments)
    from lib.params import Params, project_root

    assignments = [_assignment(parser, text) for text in typed.set]
    names = [name for name, _ in assignments]
    if twice := [name for name in names if names.count(name) > 1]:
        parser.error(f"--set gives {twice[0]} twice; keep one")
    params = Params.from_yaml(typed.params, **dict(assignments))
    base = project_root(typed.params.resolve().parent)
    run_dir = str(base / (params.run_dir or f"runs/{typed.params.stem}"))
    return params.with_paths_under(base).model_copy(update={"run_dir": run_dir}), base


def _assignment(parser: Parser, text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or "/" in key:  # an address, of which = is a part
        parser.error(f"--set expects key=value, found {echo(text)}")
    if key in ("data_dir", "keep_in", "run_dir") and "://" not in value:
        return key, str(Path(os.path.expanduser(value)).resolve()) if value else ""
    try:
        read = json.loads(value)  # numbers as Python reads them: 1e-4 too
    except (ValueError, RecursionError):
        try:
            read = load_yaml(value)
        except Misread as error:
            parser.error(f"--set {masked(text)[:200]}: {error}")
    if key == "compare_with" and isinstance(read, list):
        return key, [str(Path(os.path.expanduser(str(path))).resolve()) for path in read]
    return key, read


train_command = command(train)
evaluate_command = command(evaluate)
run_command = command(run)
shards_command = command(shards)
cache_command = command(cache)
study_command = command(study)
score_command = command(score)
export_command = command(export)
gallery_command = command(gallery)
