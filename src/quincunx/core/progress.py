"""How long work reports where it is. The library is silent unless it is given something that speaks."""

import abc

import equinox as eqx


class AbstractProgress(eqx.Module):
    """Told about one stage of work at a time. `start` opens a stage, `advance` moves it, `finish` closes it."""

    @abc.abstractmethod
    def start(self, stage: str, total: int) -> None: ...

    @abc.abstractmethod
    def advance(self, steps: int, note: str = "") -> None: ...

    @abc.abstractmethod
    def finish(self) -> None: ...


class NoProgress(AbstractProgress):
    """Says nothing."""

    def start(self, stage: str, total: int) -> None:
        pass

    def advance(self, steps: int, note: str = "") -> None:
        pass

    def finish(self) -> None:
        pass


class RichProgress(AbstractProgress):
    """A bar per stage in the terminal, on standard error."""

    _bar: dict = eqx.field(static=True, default_factory=dict)

    def start(self, stage: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
        )
        bar.start()
        self._bar.update(bar=bar, task=bar.add_task(stage, total=total, note=""))

    def advance(self, steps: int, note: str = "") -> None:
        self._bar["bar"].update(self._bar["task"], advance=steps, note=note)

    def finish(self) -> None:
        self._bar["bar"].stop()
        self._bar.clear()
