"""When to stop proposing poses and optimise the ones there are."""

from __future__ import annotations

from cryospin.engine.compete import Competition

_STILL, _CLEAR = 0.05, 0.8


def switch_reason(competition: Competition) -> str:
    """Why the competition may end after a round at its last frequency limit, or an empty string.

    It may when few winners still move by more than the limit can tell, and in most images the best mode leads the second
    by 3 nats (20 to 1).
    """
    if not (competition.moved <= _STILL and competition.margin >= _CLEAR):
        return ""
    return (
        f"{100 * competition.moved:.1f} % of the images changed their pose by more than the limit can tell, and in "
        f"{100 * competition.margin:.0f} % one pose clearly leads"
    )
