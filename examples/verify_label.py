"""Does the strongest label of an image survive every small change? Ends by checking the answer."""

import numpy as np

import aureole

network = aureole.load_network("strided3-none")
image = aureole.read_image("shipped:17", network.input_shape)
region = aureole.Box.around(image, 0.002)
label = 3
query = aureole.Query(network, region, aureole.stays_in_top_k(label, 2, network.labels))
answer = aureole.verify(query, timeout=60)

match answer.verdict:
    case aureole.Robust(certificate):
        print(f"label {label} is in the top 2 everywhere: {certificate.engine}, margin <= {certificate.bound}")
        print("taken on trust:", *(claim.value for claim in certificate.trusted))
    case aureole.Vulnerable(counterexample):
        print(f"label {label} can be pushed out, found by {counterexample.found_by}")
        # Check: the image lies in the region, and ONNX Runtime ranks two other labels above this one.
        assert region.contains(counterexample.image)
        assert np.sum(counterexample.runtime_scores > counterexample.runtime_scores[label]) >= 2
    case aureole.Unknown(reason, best_bound):
        print(f"undecided: {reason.value}; the margin is at most {best_bound}")
