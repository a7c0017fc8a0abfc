"""How far may one digit change, layer by layer, before the other's label is lost? Ends by checking the answer."""

from pathlib import Path

import aureole
from aureole.heatmap import HeatmapText
from nets import shipped

INDEX, K = 17, 2

network = aureole.load_network("strided3-none")
images = shipped.images()
image, (left, right) = images.images[INDEX].astype(float), images.labels[INDEX]
grown = aureole.grow(network, image, images.masks[INDEX][0], int(right), K, timeout=10)
print(
    f"digit {left} may change, label {right} survives: weighted size {grown.weighted_size:.4f}, proved: {grown.is_proved}"
)
print("epsilon by layer:", " ".join(f"{epsilon:.3f}" for epsilon in grown.neighbourhood.epsilons))

heading = f"label {right} stays in the top {K}"
text = HeatmapText(heading, "image", f"weighted size {grown.weighted_size:.4f}")
aureole.draw_heatmap(grown.neighbourhood, Path("out/heatmap.png"), text)

# Check: a fresh query over the whole neighbourhood gets the same verdict.
query = aureole.Query(network, grown.neighbourhood.box(), aureole.stays_in_top_k(int(right), K, network.labels))
assert grown.is_proved
assert isinstance(aureole.verify(query, timeout=60).verdict, aureole.Robust)
