"""The race of starts, on rows whose distance is that of a number from 10."""

import torch

from pulse_exp.rows import Rows
from pulse_exp.start_race import race


class Track:
    """Counts what is measured; a correction takes a part of the way that is left."""

    def __init__(self, part: float = 0.5) -> None:
        self.part, self.measurements = part, 0

    def measured(self, rows: Rows) -> Rows:
        self.measurements += len(rows["at"])
        return {**rows, "distance": (rows["at"] - 10).abs()}

    def corrected(self, rows: Rows) -> Rows:
        return {**rows, "at": rows["at"] + self.part * (10 - rows["at"])}

    def winner(self, starts: torch.Tensor, corrections: int) -> list[float]:
        """Where each column's winner is; a row of `starts` is one start of every search."""
        rows: list[Rows] = [{"at": row} for row in starts]
        return race(rows, self.measured, self.corrected, corrections)["at"].tolist()


STARTS = torch.tensor([[1.0, 9.0], [8.0, -5.0], [2.0, 3.0], [30.0, 7.0], [4.0, 4.0]])


def test_without_corrections_the_nearest_start_wins_in_every_row():
    assert Track().winner(STARTS, 0) == [8.0, 9.0]


def test_the_winner_is_corrected():
    assert Track().winner(STARTS, 2) == [9.5, 9.75]


def test_half_of_the_field_goes_on():
    track = Track()
    track.winner(torch.rand(8, 1), 6)
    assert track.measurements == 8 + 4 + 2 + 1 + 1 + 1 + 1


def test_a_correction_that_leads_away_is_forgotten():
    assert Track(part=3.0).winner(STARTS, 3) == [8.0, 9.0]


def test_rows_race_apart():
    alone = [Track().winner(STARTS[:, [row]], 3)[0] for row in range(2)]
    assert alone == Track().winner(STARTS, 3)


def test_a_start_that_is_not_finite_loses():
    starts = torch.cat([torch.full((1, 2), torch.nan), STARTS])
    assert Track().winner(starts, 0) == [8.0, 9.0]
    assert Track().winner(starts, 1) == [9.0, 9.5]
