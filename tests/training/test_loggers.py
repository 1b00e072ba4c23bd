import sys
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers import mlflow as lightning_mlflow
from lightning.pytorch.loggers import wandb as lightning_wandb
from lightning_utilities.core.imports import RequirementCache

from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.training.command import train
from bsmamba2.training.loggers import LOGGER_EXTRAS, make_loggers
from tests.training.test_command import options

pytestmark = pytest.mark.usefixtures("no_figures")

# As much of the package wandb as Lightning uses.
WANDB = """
run = None
Artifact = object

class Settings:
    def __init__(self, **options): pass

class Config(dict):
    def update(self, values, **options): super().update(values)

class Run:
    id, name, project, dir = "stand-in", "stand-in", "songs", "."
    config = Config()
    def define_metric(self, *names, **options): pass
    def log(self, values, **options):
        with open("logged", "a") as file: file.write(" ".join(values) + " ")
    def watch(self, *arguments, **options): pass

def init(**options):
    global run
    run = Run()
    return run

def require(*names): pass
"""
PACKAGES = {"wandb": lightning_wandb, "mlflow": lightning_mlflow}
SENTENCE = r'--trainer.logger {} needs the package {}, which is not installed; run pip install "bsmamba2[{}]"'


@pytest.fixture(autouse=True)
def not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets Lightning find no package of a logger, whatever is installed."""
    for name, module in PACKAGES.items():
        monkeypatch.setattr(module, f"_{name.upper()}_AVAILABLE", RequirementCache(f"{name}-that-is-nowhere"))


@pytest.mark.parametrize("logger", LOGGER_EXTRAS)
@pytest.mark.parametrize(
    "option",
    [
        "--trainer.logger={}",
        "--trainer.logger=lightning.pytorch.loggers.{}",
        "--trainer.logger=[{}]",
        "--trainer.logger+={}",
        "--trainer.logger={{class_path: {}, init_args: {{save_dir: x}}}}",
        "config: {{trainer: {{logger: {}}}}}",
        "config: {{trainer: {{logger: {{class_path: {}}}}}}}",
        "config: {{trainer: {{logger: [{{class_path: {}}}, true]}}}}",
    ],
)
def test_a_logger_that_is_not_installed_is_named_with_its_extra(
    tmp_path: Path, logger: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = option.format(logger).replace(", true]", ", {class_path: CSVLogger, init_args: {save_dir: x}}]")
    if given.startswith("config: "):
        (tmp_path / "config.yaml").write_text(given.removeprefix("config: "), encoding="utf-8")
        given = f"--config={tmp_path / 'config.yaml'}"
    assert main(["train", f"--data.root={tmp_path}", given]) == 1
    extra = LOGGER_EXTRAS[logger]
    assert capsys.readouterr().err.splitlines()[-1] == f"bsmamba2: error: {SENTENCE.format(logger, extra, extra)}"


def test_a_run_is_logged_to_a_package_that_is_installed_and_resumed(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packages" / "wandb" / "sdk").mkdir(parents=True)
    for name, text in {"": WANDB, "sdk/": "", "wandb_run/": "from wandb import Run\n"}.items():
        folder = tmp_path / "packages" / "wandb" / name
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text(text, encoding="utf-8")
    (tmp_path / "packages" / "wandb" / "sdk" / "lib.py").write_text("class RunDisabled: pass\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr(lightning_wandb, "_WANDB_AVAILABLE", RequirementCache(module="wandb"))
    monkeypatch.chdir(tmp_path)
    logger = ("--trainer.logger=WandbLogger", f"--trainer.logger.save_dir={tmp_path / 'wandb'}")
    given = options(tiny_config, musdb_root, tmp_path, *logger)
    first = train(given)
    assert first.parent == tmp_path / "wandb" / "lightning_logs" / "stand-in" / "checkpoints"
    assert "val/usdr" in (tmp_path / "logged").read_text(encoding="utf-8")
    sys.modules["wandb"].run = None  # type: ignore[attr-defined]
    assert train([*given, "--trainer.max_epochs=2", "--ckpt_path=last"]).parent == first.parent
    for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
        del sys.modules[name]


class NumberedLogger(CSVLogger):
    """Makes a run when it is asked for its name, as MLflow does."""

    def __init__(self, save_dir: str, run_id: str | None = None) -> None:
        self.run_id = run_id
        super().__init__(save_dir, name="experiment")

    @property
    def version(self) -> str:
        if self.run_id is None:
            self.run_id = f"run-{len(list(Path(self.save_dir).glob('experiment/*')))}"
            (Path(self.save_dir) / "experiment" / self.run_id).mkdir(parents=True)
        return self.run_id


def test_the_last_run_is_resumed_though_a_logger_has_made_a_new_one(
    tmp_path: Path, tiny_config: ModelConfig, musdb_root: Path
) -> None:
    logger = (f"--trainer.logger={__name__}.NumberedLogger", f"--trainer.logger.save_dir={tmp_path / 'runs'}")
    given = options(tiny_config, musdb_root, tmp_path / "root", *logger)
    first = train(given).parent
    assert train([*given, "--trainer.max_epochs=2", "--ckpt_path=last"]).parent == first
    # A run that is named is not another one.
    named = train([*given, "--trainer.logger.run_id=mine", "--ckpt_path=last"]).parent
    assert named == tmp_path / "runs" / "experiment" / "mine" / "checkpoints"


def test_the_default_is_tensorboard_and_several_loggers_are_made(tmp_path: Path) -> None:
    (default,) = make_loggers(None, tmp_path)
    assert isinstance(default, TensorBoardLogger)
    assert make_loggers(False, tmp_path) == []
    table = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": str(tmp_path)}}
    assert [type(logger) for logger in make_loggers([table, table], tmp_path)] == [CSVLogger, CSVLogger]


def test_a_logger_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    table = {"class_path": "lightning.pytorch.loggers.CometLogger", "init_args": {}}
    with pytest.raises(InputError, match=r"--trainer\.logger CometLogger needs a package that is not installed \(.*\)"):
        make_loggers(table, tmp_path)
