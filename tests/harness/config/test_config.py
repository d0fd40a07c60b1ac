"""A run config is read whole, or refused with everything that is wrong with it."""

import json
import os
from dataclasses import fields
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.harness.config import task_checks
from safebasin.harness.config.data import rows_for, said
from safebasin.harness.config.load import RunConfig, load_config
from safebasin.tasks.own_rows import load as loader

from .conftest import Load


def test_defaults_are_those_of_the_training_loop(load: Load) -> None:
    from safebasin.restore.config.training import TrainingConfig

    config = load("finetune.dataset=dolly", "models=[Qwen/Qwen2.5-7B-Instruct]")
    assert config.finetune.training() == TrainingConfig()
    together = {"processes", "fsdp", "deepspeed"}  # of `parallel`
    assert {field.name for field in fields(TrainingConfig)} - together < set(type(config.finetune).model_fields)
    assert config.finetune.lora() == {"rank": 32, "alpha": 32.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]}
    assert config.safety_source == "advbench"
    assert config.name == "run"


def test_overrides(load: Load) -> None:
    config = load("finetune.rank=16", "seeds=[0, 3]", "finetune.learning_rate=1e-3", "data.safety=sandbox", "limit=")
    assert (config.finetune.rank, config.seeds, config.finetune.learning_rate) == (16, (0, 3), 1e-3)
    assert (config.data.safety, config.limit) == ("sandbox", None)


BAD = [
    ("finetune.rank=abc", "finetune.rank: must be an integer, got 'abc'"),
    ("finetune.rank='8'", "finetune.rank: must be an integer, got '8'"),
    ("finetune.rank=-1", "finetune.rank: must be greater than 0, got -1"),
    ("finetune.rank=true", "finetune.rank: must be an integer, got True"),
    ("finetune.learning_rate=.nan", "finetune.learning_rate: must be"),
    ("finetune.dropout=1.0", "finetune.dropout: must be less than 1, got 1.0"),
    ("finetune.bf16=3", "finetune.bf16: must be a boolean, got 3"),
    ("finetune.rnk=8", "finetune.rnk: unknown key. Did you mean 'rank'?"),
    ("finetune.seeds=[1]", "finetune.seeds: unknown key. Did you mean 'seeds'?"),
    ("rank=8", "rank: unknown key. Did you mean 'finetune.rank'?"),
    ("modles=[sandbox]", "modles: unknown key. Did you mean 'models'?"),
    ("finetune=3", "finetune: must be a mapping, got 3"),
    ("finetune.target_hrr=100", "finetune.target_hrr: must be less than 100, got 100"),
    ("finetune.target_hrr=60", "finetune.target_hrr: needs schedule=constant and warmup_ratio=0, got linear and 0;"),
    ("finetune.schedule=lineal", "finetune.schedule: unknown value 'lineal'. Did you mean 'linear'?"),
    ("finetune.batch_size=100", "finetune.batch_size: must be a multiple of micro_batch_size=16, got 100; a step"),
    ("finetune.target_modules=[q_proj, q_proj]", "finetune.target_modules: 'q_proj' is listed twice"),
    ("finetune.target_modules=[]", "finetune.target_modules: must not be empty"),
    ("finetune.dataset=doly", "finetune.dataset: 'doly' is neither a file of rows"),
    ("finetune.dataset=none.jsonl", "finetune.dataset: There is no file 'none.jsonl'"),
    ("finetune.dataset=dolly", "finetune.dataset: the model 'sandbox' knows the sandbox's words only"),
    ("data.xstest_csv=none.csv", "data.xstest_csv: there is no file"),
    ("data.hex_phi_dir=none", "data.hex_phi_dir: there is no folder"),
    ("data.jbb_dir=none", "data.jbb_dir: there is no folder"),
    ("data.strongreject_csv=none.csv", "data.strongreject_csv: there is no file"),
    ("data.advbench_overlap=kep", "data.advbench_overlap: unknown value 'kep'. Did you mean 'keep'?"),
    ("data.safety=advbensh", "data.safety: 'advbensh' is neither a file of rows"),
    ("data.advbench_csv=/no/such.csv", "data.advbench_csv: there is no file '/no/such.csv'"),
    ("models=sandbox", "models: must be a list, got 'sandbox'; write [sandbox]"),
    ("models=[]", "models: must not be empty"),
    ("models=[sandbx]", "models.0: unknown model 'sandbx'. Did you mean 'sandbox'?"),
    ("models=[sandbox/gard]", "models.0: unknown sandbox model 'sandbox/gard'. Did you mean 'sandbox/guard'?"),
    ("models=[sandbox:3/gard]", "models.0: unknown sandbox model 'sandbox:3/gard'. Did you mean 'sandbox:3/guard'?"),
    ("models=[sandbox:x]", "models.0: unknown sandbox model 'sandbox:x'. Did you mean"),
    ("judges=[{llama_guard: {model: sandbox:3/gard}}]", "judges.0.llama_guard.model: unknown sandbox model"),
    ("models=[/no/where]", "models.0: '/no/where' is no model folder"),
    ("models=[{id: a/b, revison: x}]", "models.0.revison: unknown key. Did you mean 'revision'?"),
    ("models=[{revision: x}]", "models.0.id: is missing"),
    ("models=[a/b, a/b]", "models.1: 'a/b' is listed twice"),
    ("methods=[]", "methods: must not be empty"),
    ("methods=[curvatur]", "methods.0: unknown method 'curvatur'. Did you mean 'curvature'?"),
    ("methods=[lora, lora]", "methods.1: the row 'lora' is there already"),
    ("methods=[{curvature: {epsilom: 1.0}}]", "methods.0.curvature.epsilom: unknown setting. Did you mean 'epsilon'?"),
    ("methods=[{curvature: {epsilon: high}}]", "methods.0.curvature.epsilon: must be a number, got 'high'"),
    ("methods=[{curvature: {layers: [1, x]}}]", "methods.0.curvature.layers.1: must be an integer, got 'x'"),
    ("methods=[{curvature: {epsilon: -0.5}}]", "methods.0.curvature: epsilon=-0.5 must be positive."),
    ("methods=[{curvature: 3}]", "methods.0: the settings of 'curvature' must be {setting: value}, got 3"),
    ("methods=[{curvature: null, epsilon: 1}]", "methods.0: must be a method's name or one {name: {setting"),
    ("methods=[{curvature: {label: lora}}]", "methods.0.curvature.label: 'lora' is the name of another row"),
    ("methods=[{curvature: {start: lor}}]", "methods.0.curvature.start: unknown start 'lor'. Did you mean 'lora'?"),
    ("methods=[{curvature: {start: curvature}}]", "methods.0.curvature.start: unknown start 'curvature'."),
    ("methods=[{lora: {start: lora}}]", "methods.0.lora.start: lora starts from the base model"),
    ("methods=[{base: {epsilon: 1}}]", "methods.0.base: the base model takes no settings, got {'epsilon': 1}"),
    ("tasks={}", "tasks: there is nothing to measure"),
    ("tasks.safety=[sandbox_hr]", "tasks.safety.0: unknown task 'sandbox_hr'. Did you mean 'sandbox_hrr'?"),
    ("tasks.safety=[sandbox_arithmetic]", "tasks.safety.0: 'sandbox_arithmetic' measures utility; list it under"),
    ("tasks.utility=[sandbox_prefill]", "tasks.utility.0: 'sandbox_prefill' measures safety (prefill); list it"),
    ("tasks.utility=[sandbox_fact]", "tasks.utility.0: no task of lm-eval or of ours is called 'sandbox_fact'"),
    ("tasks.utility=[boolq, boolq]", "tasks: 'boolq' is listed twice"),
    ("tasks.safety=[sandbox_hrr, advbench_hrr]", "tasks: sandbox_hrr and advbench_hrr would share the column hrr"),
    ("tasks.include=[/no/tasks]", "tasks.include: There is no task folder /no/tasks."),
    ("judges=[]", "judges: sandbox_hrr cannot be scored without a judge"),
    ("judges=[keyword]", "judges: Unknown judge 'keyword'. Did you mean 'keywords'?"),
    ("judges=[{keywords: {lists: qi38}}]", "judges: Judge 'keywords' has no argument 'lists'. Did you mean 'list'?"),
    ("judges=[{keywords: {list: qi39}}]", "judges.0.keywords: Unknown keyword list 'qi39'. Did you mean 'qi38'?"),
    ("judges=[{keywords: {list: 38}}]", "judges.0.keywords.list: must be text, got 38"),
    ("judges=[coherence]", "decides harm"),
    ("judges=[{llama_guard: {model: sandbox/gard}}]", "judges.0.llama_guard.model: unknown sandbox model"),
    ("engine=hg", "engine: unknown value 'hg'. Did you mean 'hf'?"),
    ("seeds=[0, 0]", "seeds: '0' is listed twice"),
    ("seeds=[-1]", "seeds.0: must be greater than or equal to 0, got -1"),
    ("limit=0", "limit: must be greater than 0, got 0"),
    ("device=cuad", "device: must match pattern"),
    ("name=../x", "name: must match pattern"),
    ("finetune.rank", "finetune.rank: an override is KEY=VALUE"),
    ("models.id=x", "models.id=x: 'models' is a list and has no 'id'; give it whole: models=[…]"),
    ("seeds=[0", "seeds=[0: the value is not YAML: line 1"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), BAD, ids=[override for override, _ in BAD])
def test_bad_input(load: Load, override: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load(override)
    headline, *lines = str(caught.value).splitlines()
    assert headline.startswith("1 problem in ")
    assert headline.endswith("run.yaml:")
    assert len(lines) == 1
    assert message in lines[0]


def test_over_refusal_needs_a_judge_of_refusal(load: Load) -> None:
    with pytest.raises(InputError, match="'sandbox_overrefusal' needs a judge that decides refusal"):
        load("tasks.safety=[sandbox_overrefusal]", "judges=[{llama_guard: {model: sandbox/guard}}]")


def test_everything_wrong_is_said_at_once(load: Load) -> None:
    overrides = [
        "finetune.rank=abc",
        "engin=hf",
        "methods=[vaccin, {lora: 3}, curvatur]",
        "tasks.safety=[x]",
        "seeds=[]",
    ]
    with pytest.raises(InputError) as caught:
        load(*overrides, "oops", "judges=[guard]")
    headline, *lines = str(caught.value).splitlines()
    places = {line.strip().split(": ")[0] for line in lines}
    assert headline.startswith("9 problems in ")
    assert places == {
        *("oops", "finetune.rank", "engin", "methods.0", "methods.1", "methods.2", "tasks.safety.0", "seeds", "judges")
    }


def test_missing_sections(load: Load) -> None:
    with pytest.raises(InputError) as caught:
        load(text="name: x\n")
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [
        f"{key}: is missing" for key in ("models", "methods", "tasks")
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds nothing"),
        ("- a\n", "it holds a list"),
        ("a: [1\nb: 2\n", "is not YAML: line 2"),
        ("a: 1\nb: 2\na: 3\n", "is not YAML: line 3: the key 'a' is given twice"),
        ("a: !x 1\n", "is not YAML: line 1"),
    ],
)
def test_files_that_are_no_config(load: Load, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(text=text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sandbox.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match=r"There is no config file .*sandbx\.yaml\. Did you mean '.*sandbox\.yaml'"):
        load_config(tmp_path / "sandbx.yaml")
    for path in (tmp_path, tmp_path / "sandbox.yaml"):
        with pytest.raises(InputError, match="cannot be read"):
            load_config(path)


def test_labels(load: Load) -> None:
    methods = (
        "[base, lora, curvature, {curvature: {epsilon: 0.2}}, {curvature: {epsilon: 0.2, iterations: 1, label: one}}]"
    )
    assert load(f"methods={methods}").labels == ("base", "lora", "curvature", "curvature[epsilon=0.2]", "one")
    methods = "[{curvature: {epsilon: 0.1, iterations: 5}}, {curvature: {iterations: 5, epsilon: 0.2}}]"
    assert load(f"methods={methods}").labels == ("curvature[epsilon=0.1]", "curvature[epsilon=0.2]")


def test_the_same_settings_in_another_spelling_have_the_same_digest(load: Load) -> None:
    config = load()
    assert load("judges=[{keywords: {}}]", "methods=[{base: null}, {lora: {}}]").digest == config.digest
    assert load("name=other", "methods=[base, {lora: {label: lora}}]", "finetune.rank=32").digest == config.digest
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    assert load("finetune.rank=16").digest != config.digest
    assert (
        load("methods=[base, lora, {curvature: {epsilon: 0.2}}]").digest
        != load("methods=[base, lora, curvature]").digest
    )


def test_paths_of_the_user(load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").write_text("prompt,response\na,b\n")
    monkeypatch.setenv("MINE", str(tmp_path))
    for written in ("~/rows.csv", "$MINE/rows.csv", "${MINE}/rows.csv"):
        assert load(f"finetune.dataset={written}").finetune.dataset == os.fspath(tmp_path / "rows.csv")


def test_the_loss_on_own_rows_needs_rows(load: Load) -> None:
    with pytest.raises(InputError, match=r"data.eval_rows: rows_eval_loss takes the loss on the rows of this file"):
        load("tasks.utility=[rows_eval_loss]")


def test_the_columns_of_the_rows_for_the_loss_can_be_named(load: Load, tmp_path: Path) -> None:
    (tmp_path / "held.csv").write_text("inquiry,said,other\na,b,c\n")
    rows = f"data.eval_rows={tmp_path / 'held.csv'}"
    with pytest.raises(InputError, match=r"data.eval_rows: .*held.csv'"):
        load("tasks.utility=[rows_eval_loss]", rows)
    config = load("tasks.utility=[rows_eval_loss]", rows, "data.eval_columns={prompt: inquiry, response: said}")
    (row,) = loader(**config.data.metadata)["test"]
    assert row == {"prompt": "a", "response": "b"}
    with pytest.raises(InputError, match=r"data.eval_columns: data.eval_rows names no rows of your own"):
        load("data.eval_columns={prompt: inquiry}")


def test_tasks_from_a_folder_and_from_lm_eval(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.yaml").write_text("task: my_facts\n")
    config = load(f"tasks.include=[{tmp_path / 'mine'}]", "tasks.utility=[my_facts, boolq]")
    assert config.tasks.utility == ("my_facts", "boolq")


def test_the_names_of_lm_eval() -> None:
    names = task_checks.lm_eval_tasks()
    assert "boolq" in names
    assert "mmlu" not in names  # a group


def test_the_metrics_of_lm_eval() -> None:
    assert task_checks.lm_eval_metrics("arc_challenge") == ("acc", "acc_norm")
    assert task_checks.lm_eval_metrics("truthfulqa_mc2") == ("acc",)  # its file includes that of mc1
    assert set(task_checks.lm_eval_metrics("gsm8k")) == {"exact_match"}
    assert task_checks.lm_eval_metrics("of another version") == ()


def test_own_rows_are_read_with_a_map_of_columns(load: Load, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,response\n" + "a,b\n" * 20)
    dataset = f"finetune.dataset={tmp_path / 'rows.csv'}"
    with pytest.raises(InputError, match=r"finetune.dataset: .*lacks the columns of every known shape"):
        load(dataset, "finetune.target_hrr=null")
    config = load(dataset, "finetune.columns={prompt: question}", "finetune.target_hrr=null")
    assert rows_for("retain_1", config) == [{"prompt": "a", "response": "b"}] * 2
    assert said(config) == [
        f"finetune.dataset: {tmp_path / 'rows.csv'}: 20 rows, shape as given: question as prompt, response"
    ]
    with pytest.raises(InputError, match=r"data.safety_columns: data.safety names no rows of your own"):
        load("data.safety_columns={prompt: question}")


def test_rows_of_own_tasks_need_a_prompt(load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    rows, task = tmp_path / "rows.jsonl", {"task": "mine_hrr", "test_split": "test", "metadata": {"role": "hrr"}}
    task |= {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}}}
    (tmp_path / "mine" / "a.yaml").write_text(json.dumps(task))
    given = (f"tasks.include=[{tmp_path / 'mine'}]", "tasks.safety=[mine_hrr]")
    rows.write_text('{"question": "a"}')
    with pytest.raises(InputError, match=r"tasks.safety.0: .*no column .'prompt'.*judges of 'mine_hrr' read it"):
        load(*given)
    rows.write_text('{"prompt": "a"}\n{"prompt": null}\n{"question": "a"}')
    with pytest.raises(InputError, match=r"2 rows cannot be used: line 2: .* line 3: no field"):
        load(*given)
    rows.write_text('{"prompt": "a"}')
    assert load(*given).tasks.safety == ("mine_hrr",)
