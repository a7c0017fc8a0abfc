"""Which labels can be in the top 2 when every pixel may change a little? Ends by checking the answer."""

import aureole

K = 2

network = aureole.load_network("strided3-none")
image = aureole.read_image("shipped:17", network.input_shape)
region = aureole.Box.around(image, 0.002)
classification = aureole.classify_labels(network, image, region, K, timeout=60)

for result in classification.results:
    print(f"label {result.label}: {result.state.value}")

# Check: at most k labels can always be in, and at most all but k always out.
states = [result.state for result in classification.results]
assert states.count(aureole.LabelState.ALWAYS_IN) <= K
assert states.count(aureole.LabelState.ALWAYS_OUT) <= network.labels - K
