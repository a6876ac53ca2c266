"""A domain of product reviews: as small as one can be, so that tests see what the other rooms ask of a domain."""

import json

import numpy as np
from pydantic import BaseModel, Field, create_model

from genesis_lab.domains.base import Check, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.quotas import largest_remainder, spread
from genesis_lab.domains.reading import read_json

PLANNED = {"stars": {"poor": 0.2, "fair": 0.3, "good": 0.5}, "product": {"kettle": 0.5, "lamp": 0.5}}
SCHEMA = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
ReviewsConfig = create_model("ReviewsConfig", total=(int, 30), seed=(int, 1))


class Review(BaseModel):
    review_id: str
    stars: str = Field(pattern="^(poor|fair|good)$")
    product: str
    said: str
    provenance: Provenance


class Reviews(Domain):
    name, record_type, config_type = "reviews", Review, ReviewsConfig
    facets = Facets(unit="reviews", id="review_id", label="stars", group=None, text="said", texts="[said]",
                    attributes=("stars", "product"), covered=(("stars", "product"),), preview="text",
                    aliases={"stars": "rating", "said": "review"}, task_categories=("text-classification",))  # fmt: skip

    def targets(self):
        return [Target(name, shares) for name, shares in PLANNED.items()]

    def specs(self, total, seed):
        rng, codes = np.random.default_rng(seed), []
        for shares in PLANNED.values():
            codes.append(spread(largest_remainder(shares, total), codes, rng))
        drawn = [{n: [*PLANNED[n]][c] for n, c in zip(PLANNED, row, strict=True)} for row in np.stack(codes, 1)]
        return [Spec(i, i, i, attributes) for i, attributes in enumerate(drawn)]

    def prompt(self, spec):
        return Prompt("Write a review as JSON.", (("user", json.dumps(spec.attributes)),), SCHEMA, "review")

    def offline_text(self, spec, attempt):
        return json.dumps({"said": f"A {' '.join(spec.attributes.values())}, as my number {spec.seed}.{attempt} was"})

    def answer_characters(self, spec):
        return 60

    def parse(self, text, spec):
        return read_json(text, SCHEMA)

    def fingerprint(self, answer, spec):
        return answer["said"]

    def render(self, answer, spec, provenance):
        return Review(review_id=f"review_{spec.seed}", **spec.attributes, **answer, provenance=provenance)

    def checks(self):
        return [Check("topic", "consistency", "reviews", "records", "true", "NOT contains(said, product)", "product")]
