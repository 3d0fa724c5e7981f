"""Similar and complementary products from baskets: skip-gram with negative sampling, both matrices kept.

    python examples/complementary_products.py

The shop is made up: cameras, phones and so on in three variants each, and what belongs to them in three variants each. A
basket holds one of either side, never two variants; one camera is new, was never bought, and has its content alone.
"""

import numpy as np
import polars as pl

from recembed.items.complements import ComplementsConfig, basket_pairs, synthetic_pairs, train_complements

PAIRS = {"camera": "lens", "phone": "case", "printer": "ink", "guitar": "strings", "tent": "lamp", "racket": "balls"}

draw = np.random.default_rng(0)
devices = list(PAIRS)
baskets = pl.DataFrame(
    {
        "basket": np.arange(2000),
        "product": [
            [f"{device} {draw.integers(3)}", f"{PAIRS[device]} {draw.integers(3)}"]
            for device in draw.choice(devices, 2000).tolist()
        ],
    }
).explode("product")

products, pairs = basket_pairs(baskets, "basket", "product")
products = pl.concat([products, pl.Series("product", ["camera new"])])
kinds = [product.split()[0] for product in products.to_list()]
names = sorted(set(kinds))
content = np.eye(len(names))[[names.index(kind) for kind in kinds]]  # what a text or image encoder would say
pairs = np.concatenate([pairs, synthetic_pairs(pairs, content, neighbours=3)])

dual = train_complements(products, pairs, ComplementsConfig(embedding_dim=16, epochs=25))
wanted = PAIRS | {other: device for device, other in PAIRS.items()}
places = range(len(products))
similar, complementary = dual.similar(places, 2), dual.complementary(places, 3)


def hits(found: np.ndarray) -> float:
    """Return the share of answers that belong to the product asked for."""
    return float(np.mean([[kinds[p] == wanted[kinds[place]] for p in found[place]] for place in places]))


print(f"complements by IN·OUT {hits(complementary):.2f}, by IN·IN {hits(similar):.2f}")
for asked in ("camera 0", "camera new", "ink 1"):
    place = products.to_list().index(asked)
    print(f"{asked}: goes with {', '.join(products[int(p)] for p in complementary[place])};", end=" ")
    print(f"is like {', '.join(products[int(p)] for p in similar[place])}")
