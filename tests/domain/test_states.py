"""The table of moves says everything that may happen to a prompt."""

import pytest

from distllm.domain.states import FINAL, MOVES, PromptState


def test_every_state_can_be_reached_and_left_but_cancelled() -> None:
    assert {move.target for move in MOVES} == set(PromptState)
    assert set(PromptState) - {move.source for move in MOVES} == {PromptState.CANCELLED}


def test_what_has_ended_goes_on_only_by_a_persons_retry() -> None:
    assert {move.by.split(":")[0] for move in MOVES if move.source in FINAL} == {"retry", "retry --truncated"}
    assert {move.target for move in MOVES if move.source in FINAL} == {PromptState.PENDING}


def test_no_final_state_becomes_another() -> None:
    assert not [move for move in MOVES if move.source in FINAL and move.target in FINAL]


def test_a_move_is_told_once_and_by_whom() -> None:
    assert len({(move.source, move.target) for move in MOVES}) == len(MOVES)
    assert all(move.by for move in MOVES)
    assert not [move for move in MOVES if move.source is move.target]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_every_final_state_can_be_reached_from_waiting_and_from_work(state: PromptState) -> None:
    assert {move.source for move in MOVES if move.target is state} == {PromptState.PENDING, PromptState.LEASED}
