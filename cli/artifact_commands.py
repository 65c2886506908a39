"""``trimtab export inspect`` and ``push``: their arguments, and what they do; heavy imports inside."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_inspect(parser: ArgumentParser) -> None:
    """The arguments of ``trimtab export inspect``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="an artifact, e.g. runs/quickstart/orpo/gptq")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.set_defaults(run=inspect)


def add_push(parser: ArgumentParser) -> None:
    """The arguments of ``trimtab export push``."""
    parser.add_argument("directory", type=Path, metavar="DIR", help="an artifact, e.g. runs/quickstart/orpo/gptq")
    parser.add_argument("repository", metavar="OWNER/NAME", help="the hub repository; made if it is not there")
    parser.add_argument("--private", action="store_true", help="a private repository")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="the branch, made if it is not there")
    parser.add_argument("--dry-run", action="store_true", help="list what would go; no network")
    parser.set_defaults(run=push)


def inspect(arguments: Namespace) -> int:
    """Print what the artifact is and all its faults; 1 if there are any."""
    from trimtab.export.inspect import inspect as inspect_artifact

    inspection = inspect_artifact(arguments.directory)
    if arguments.json:
        print(json.dumps(inspection.as_json(), indent=1, ensure_ascii=False))
    else:
        print(inspection.as_text())
    return 1 if inspection.faults else 0


def push(arguments: Namespace) -> int:
    """Push, with the hub client's progress bars where a person looks."""
    if sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "0"
    from trimtab.export.push import push as push_artifact

    push_artifact(
        arguments.directory,
        arguments.repository,
        private=arguments.private,
        revision=arguments.revision,
        dry_run=arguments.dry_run,
    )
    return 0
