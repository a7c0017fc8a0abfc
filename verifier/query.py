"""One question: does this property hold for this network everywhere in this box?"""

from dataclasses import dataclass

from verifier.errors import InputError
from verifier.network import Head, Network
from verifier.property import Property
from verifier.region import Box


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A network, a region and a property whose shapes fit.

    Raises:
        InputError: The box has another shape than the network's input, the property reads another number of labels, or it
            compares scores with thresholds although the file ends in a softmax, whose outputs do not tell the scores.
    """

    network: Network
    region: Box
    property: Property

    def __post_init__(self) -> None:
        if self.region.shape != self.network.input_shape:
            raise InputError(
                f"region: got shape {self.region.shape}, wanted the network's input {self.network.input_shape}"
            )
        if self.property.labels != self.network.labels:
            raise InputError(f"property: reads {self.property.labels} labels, the network has {self.network.labels}")
        if self.network.head in (Head.SOFTMAX, Head.LOG_SOFTMAX) and not self.property.is_ranking:
            raise InputError(
                f"property {self.property.name!r}: thresholds mean nothing after the {self.network.head.value} that this file"
                " ends with; export the network without it, or ask about the top k"
            )
