"""Whether refuted sets of forms leave no way to violate a property."""

from collections.abc import Iterable

from verifier.proof.errors import CertificateError

MOST_WORK = 20_000_000


def covers_every_subset(refuted: Iterable[frozenset[int]], forms: int, count: int) -> bool:
    """Whether every `count`-subset of the forms contains a refuted set.

    A subset without one leaves out an element of every refuted set. So the question is whether some set of forms - count elements
    meets all refuted sets; the search picks a set not yet met and tries its elements, earlier ones being kept in from then on.

    Raises:
        CertificateError: The answer takes more than MOST_WORK looks at a refuted set.
    """
    relevant = {members for members in refuted if len(members) <= count}
    alone = frozenset().union(*(members for members in relevant if len(members) == 1))
    minimal = [members for members in relevant if len(members) == 1 or not members & alone]
    work = 0
    pending: list[tuple[frozenset[int], frozenset[int]]] = [(frozenset(), frozenset())]
    while pending:
        work += 1 + len(minimal)
        if work > MOST_WORK:
            raise CertificateError("whether the refuted sets suffice takes too long to decide; refute smaller sets")
        out, kept = pending.pop()
        unmet = [members - kept for members in minimal if not members & out]
        if not unmet:
            return False
        branching = min(unmet, key=len)
        if len(out) == forms - count:
            continue
        ordered = sorted(branching)
        pending.extend((out | {form}, kept | set(ordered[:position])) for position, form in enumerate(ordered))
    return True
